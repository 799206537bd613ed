"""Bloch waves: the shared-matrix Chebyshev product against batched eigendecomposition, in one run on one machine.

    python benchmarks/bloch.py

Bright field of SrTiO3 [001], 200 kV, 450 angstrom, 128 x 128 tilts without use of symmetry, about 200 beams. JAX's
batched complex eigh runs on a subset of the tilts and is scaled by their number (``eigh_tilts``). Compilation is timed
apart; every time is the best of ``repeats`` after it. One JSON line per case; ``ratio`` is eigh's time over ours.

The case "hermitian" moves the origin away from the inversion centre, so that nothing is real; "float32" and "float64"
are the precision of both methods. The last cases are whole patterns, ``lacbed`` with symmetry and perturbed far beams.
"""

import json
import os
import time
from pathlib import Path

# Small eigenproblems are several times faster with one LAPACK thread; our products are XLA's and do not use it.
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

import jax
import numpy as np

import physml_jax.data
from physml_jax.io.cif import read_cif
from physml_jax.simulators.diffraction import beams, bloch, zone

CIFS = Path(physml_jax.data.__file__).parent / "structures" / "cifs"
THICKNESSES = np.array([450.0])
NUM_PIXELS = 128
EIGH_TILTS = 64


def problem(*, is_real):
    """Coupling [n, n] and excitation errors [128 * 128, n] of SrTiO3."""
    z = zone.prepare(
        read_cif(CIFS / "221_O3SrTi_COD9006864.cif"),
        zone_axis=(0, 0, 1),
        voltage_kv=200.0,
        half_width=None,
        num_pixels=NUM_PIXELS,
        thicknesses=THICKNESSES,
        reflections=((0, 0, 0),),
        absorption=0.0,
        max_g=2.0,
        form_factors="kirkland",
        check=False,
    )
    delta = z.pool[:, None] - z.pool[None] + np.array(z.coupling.shape) // 2
    coupling = z.coupling[delta[..., 0], delta[..., 1]]
    if not is_real:
        phase = np.exp(2j * np.pi * (z.pool @ np.array([0.1, 0.23])))
        coupling = coupling * phase[:, None] * phase.conj()[None, :]
    tilts = beams.tilt_grid(z.half_width, NUM_PIXELS).reshape(-1, 2)
    return coupling, beams.excitation_errors(z.pool @ z.layer.vectors, tilts, z.wave_number)


def timed(fn, repeats):
    """(result, wall seconds of the first call, best wall seconds and best processor seconds of the later ones)."""
    start = time.perf_counter()
    out = jax.block_until_ready(fn())
    first = time.perf_counter() - start
    wall, processor = [], []
    for _ in range(repeats):
        start, busy = time.perf_counter(), time.process_time()
        out = jax.block_until_ready(fn())
        wall.append(time.perf_counter() - start)
        processor.append(time.process_time() - busy)
    return np.asarray(out), first, min(wall), min(processor)


def compare(dtype, *, is_real):
    with jax.enable_x64(dtype == "float64"):
        coupling, errors = problem(is_real=is_real)
        some = np.linspace(0, len(errors) - 1, EIGH_TILTS).round().astype(int)
        matrix = coupling.astype(np.complex64 if dtype == "float32" else np.complex128)
        rows = errors[some].astype(dtype)
        ours, first, wall, busy = timed(lambda: bloch.propagate(coupling, errors, THICKNESSES, outputs=(0,)), 3)
        reference, _, eigh_wall, eigh_busy = timed(
            lambda: bloch.propagate(matrix, rows, THICKNESSES, outputs=(0,), method="eigh", chunk_size=None), 3
        )
    scale = len(errors) / EIGH_TILTS
    return dict(
        case="real" if is_real else "hermitian",
        dtype=dtype,
        beams=len(coupling),
        tilts=len(errors),
        compile_s=round(first - wall, 2),
        chebyshev_s=round(wall, 3),
        chebyshev_cpu_s=round(busy, 3),
        eigh_tilts=EIGH_TILTS,
        eigh_scaled_s=round(eigh_wall * scale, 2),
        eigh_scaled_cpu_s=round(eigh_busy * scale, 2),
        ratio=round(eigh_wall * scale / wall, 1),
        cpu_ratio=round(eigh_busy * scale / busy, 1),
        largest_difference=float(np.abs(np.abs(ours[:, some]) ** 2 - np.abs(reference) ** 2).max()),
    )


def whole_pattern(name, num_pixels):
    crystal = read_cif(CIFS / f"{name}.cif")
    found, seconds = None, []
    for _ in range(3):
        start = time.perf_counter()
        found = bloch.lacbed(crystal, num_pixels=num_pixels)
        seconds.append(time.perf_counter() - start)
    return dict(
        case=f"lacbed {name.split('_')[1]}",
        dtype="float32",
        pixels=num_pixels,
        pool=len(found.beams),
        beams=found.num_beams,
        compile_s=round(seconds[0] - min(seconds), 2),
        seconds=round(min(seconds), 3),
        convergence_error=round(found.convergence_error, 5),
    )


def main():
    device = jax.devices()[0]
    for is_real in (True, False):
        for dtype in ("float32", "float64"):
            print(json.dumps(dict(device=device.device_kind, **compare(dtype, is_real=is_real))), flush=True)
    for name in ("221_O3SrTi_COD9006864", "225_Cu_COD9008468", "205_FeS2_COD5000115"):
        for num_pixels in (64, 128):
            print(json.dumps(dict(device=device.device_kind, **whole_pattern(name, num_pixels))), flush=True)


if __name__ == "__main__":
    main()
