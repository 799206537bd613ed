"""Bloch waves: the shared-matrix Chebyshev product against batched eigendecomposition, in one run on one machine.

    python benchmarks/bloch.py
    python benchmarks/bloch.py conventions      the size of each choice in ``excitation.Conventions``

Bright field of SrTiO3 [001], 200 kV, 450 angstrom, 128 x 128 tilts without use of symmetry, about 200 beams. JAX's
batched complex eigh runs on a subset of the tilts and is scaled by their number (``eigh_tilts``). Compilation is timed
apart; every time is the best of ``repeats`` after it. One JSON line per case; ``ratio`` is eigh's time over ours.

The case "hermitian" moves the origin away from the inversion centre, so that nothing is real; "float32" and "float64"
are the precision of both methods. Then whole patterns, ``lacbed`` with symmetry and perturbed far beams. The cases
"gradient" take the first tilts of the same problem and differentiate a number that all pixels enter with respect to
all of the coupling and the excitation errors: the adjoint recurrence and plain reverse mode, in units of the forward
pass. "gradient of a pattern" goes through the public function, to every number of the crystal, thickness, voltage and
tilt.
"""

import json
import os
import sys
import time
from pathlib import Path

# Small eigenproblems are several times faster with one LAPACK thread; our products are XLA's and do not use it.
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

import jax
import jax.numpy as jnp
import numpy as np

import physml_jax.data
from physml_jax.io.cif import read_cif
from physml_jax.simulators.diffraction import beams, bloch, chebyshev, zone

CIFS = Path(physml_jax.data.__file__).parent / "structures" / "cifs"
THICKNESSES = np.array([450.0])
NUM_PIXELS = 128
EIGH_TILTS = 64
GRADIENT_TILTS = 256


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


def gradient(dtype, *, absorption, every_beam, repeats=5):
    with jax.enable_x64(dtype == "float64"):
        coupling, errors = problem(is_real=True)
        coupling, errors = coupling.real * (1 + 1j * absorption), errors[:GRADIENT_TILTS]
        kind = "symmetric" if absorption else "real"
        bounds = chebyshev.spectral_bounds(coupling, kind)
        expansion = chebyshev.expand(errors, THICKNESSES, bounds, tolerance=1e-7)
        h = expansion.half_width
        parts = (np.asarray(coupling.real / h, dtype),)
        if absorption:
            parts += (np.asarray(coupling.imag / h - np.eye(len(coupling)) * expansion.shift / h, dtype),)
        detuning = np.asarray((errors - expansion.centre[:, None]).T / h, dtype)
        coefficients = np.asarray(chebyshev.padded(expansion.coefficients), dtype)
        attenuation = np.asarray(expansion.attenuation, dtype)

        def value(parts, detuning, forward_mode):
            arrays = (parts, detuning, coefficients, attenuation, coefficients.shape[1])
            if every_beam:
                psi, _ = chebyshev.diffracted(*arrays, forward_mode=forward_mode)
            else:
                psi, _ = chebyshev.transmitted(*arrays, kind=kind, forward_mode=forward_mode)
            return ((psi.real**2 + psi.imag**2) ** 2).sum()

        def of(fn):
            compiled = jax.jit(fn).lower(parts, detuning).compile()
            used = compiled.memory_analysis().temp_size_in_bytes
            busy = timed(lambda: jax.tree.leaves(compiled(parts, detuning))[0], repeats)[3]
            return busy, used

        forward, _ = of(lambda p, d: value(p, d, False))
        ours, memory = of(jax.value_and_grad(lambda p, d: value(p, d, False), argnums=(0, 1)))
        plain, plain_memory = of(jax.value_and_grad(lambda p, d: value(p, d, True), argnums=(0, 1)))
    return dict(
        case=f"gradient, {'all beams' if every_beam else 'bright field'}{', absorption' if absorption else ''}",
        dtype=dtype,
        beams=len(coupling),
        tilts=len(errors),
        terms=expansion.num_terms,
        forward_cpu_s=round(forward, 4),
        ratio=round(ours / forward, 2),
        plain_ratio=round(plain / forward, 2),
        memory_mb=round(memory / 1e6, 1),
        memory_ratio=round(plain_memory / memory, 1),
    )


def pattern_gradient(absorption, num_pixels=32, repeats=3):
    """A number of a whole pattern, differentiated in every number of the crystal and of the conditions."""
    crystal = read_cif(CIFS / "221_O3SrTi_COD9006864.cif")
    plan = bloch.plan(crystal, num_pixels=num_pixels, absorption=absorption, fold=False)
    crystal = jax.tree.map(jnp.asarray, crystal)
    names = ("cell", "positions", "b_iso", "u_aniso", "occupancies")
    numbers = {name: getattr(crystal, name) for name in names}
    conditions = bloch.Conditions(jnp.asarray(THICKNESSES), jnp.asarray(200.0), jnp.zeros(2))

    def value(numbers, conditions, plan):  # the plan is an argument: XLA would calculate with its constants at length
        images, _ = bloch.intensities(crystal._replace(**numbers), plan, conditions)
        return (images**2).sum()

    def busy(fn):
        compiled = jax.jit(fn)
        return timed(lambda: jax.tree.leaves(compiled(numbers, conditions, plan))[0], repeats)[3]

    plain = busy(lambda numbers, _, plan: value(numbers, None, plan))
    forward, both = busy(value), busy(jax.value_and_grad(value, argnums=(0, 1)))
    return dict(
        case=f"gradient of a pattern{', absorption' if absorption else ''}",
        dtype="float32",
        pixels=num_pixels,
        beams=plan.num_beams,
        forward_cpu_s=round(plain, 3),
        conditions_ratio=round(forward / plain, 2),
        ratio=round(both / plain, 2),
    )


def conventions():
    """Largest change of the intensities that each choice makes: bright field and two dark fields, two thicknesses."""
    cases = (
        ("216_AsGa_COD9008845", (1, 1, 0), [(0, 0, 0), (1, -1, 1), (0, 0, 2)], (1.0, 1.0, 0.8165)),
        ("221_O3SrTi_COD9006864", (0, 0, 1), [(0, 0, 0), (1, 0, 0), (1, 1, 0)], (0.577, 0.0, 1.0)),
    )
    base = dict(num_pixels=12, max_g=2.0, num_checks=0, thicknesses=(300.0, 600.0), dtype="float64", num_strong=None)
    for name, zone_axis, reflections, oblique in cases:
        crystal = read_cif(CIFS / f"{name}.cif")

        def run(*, changed=None, convention=None, fixed=(crystal, zone_axis, reflections), **settings):
            settings = {**base, "zone_axis": fixed[1], "reflections": fixed[2], **settings}
            made = bloch.Conventions(**(convention or {}))
            return bloch.lacbed(fixed[0] if changed is None else changed, conventions=made, **settings).intensities

        plain = run()
        along_tilted = tuple(t / np.cos(np.deg2rad(30.0)) for t in base["thicknesses"])
        upright = tuple(float(i) for i in zone_axis)
        hot = crystal._replace(b_iso=np.asarray(crystal.b_iso) + 0.1)
        pairs = {
            "table lobato": (run(form_factors="lobato"), plain),
            "table peng": (run(form_factors="peng"), plain),
            "table doyle_turner": (run(form_factors="doyle_turner"), plain),
            "excitation error along the beam": (run(convention=dict(excitation_error="beam")), plain),
            "excitation error along the normal": (run(convention=dict(excitation_error="normal")), plain),
            "refraction": (run(convention=dict(mean_inner_potential=True)), plain),
            "thickness along the normal": (run(convention=dict(foil_normal=upright)), plain),
            "foil at 30 degrees": (run(convention=dict(foil_normal=oblique)), run(thicknesses=along_tilted)),
            "first Laue zone": (run(convention=dict(laue_zones=1), num_strong=256), run(num_strong=256)),
            "thermal absorption": (run(convention=dict(absorption_model="thermal"), absorption=1.0), plain),
            "proportional absorption, 5 %": (run(absorption=0.05), plain),
            "B + 0.1": (run(changed=hot), plain),
        }
        for choice, (ours, reference) in pairs.items():
            yield dict(case=name.split("_")[1], choice=choice, largest_change=float(np.abs(ours - reference).max()))


def main():
    if sys.argv[1:] == ["conventions"]:
        for case in conventions():
            print(json.dumps(case), flush=True)
        return
    device = jax.devices()[0]
    for is_real in (True, False):
        for dtype in ("float32", "float64"):
            print(json.dumps(dict(device=device.device_kind, **compare(dtype, is_real=is_real))), flush=True)
    for name in ("221_O3SrTi_COD9006864", "225_Cu_COD9008468", "205_FeS2_COD5000115"):
        for num_pixels in (64, 128):
            print(json.dumps(dict(device=device.device_kind, **whole_pattern(name, num_pixels))), flush=True)
    for absorption in (0.0, 0.1):
        print(json.dumps(dict(device=device.device_kind, **pattern_gradient(absorption))), flush=True)
        for every_beam in (False, True):
            case = gradient("float32", absorption=absorption, every_beam=every_beam)
            print(json.dumps(dict(device=device.device_kind, **case)), flush=True)


if __name__ == "__main__":
    main()
