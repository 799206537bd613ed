"""Bloch waves: the diffraction pattern of a crystal over a range of tilts (LACBED), for any cell and zone axis.

Conventions, here and in the modules that this one uses. Lengths in angstrom, reciprocal lengths in 1/angstrom without
2 pi. A plane wave is exp(+2 pi i k.r), K = 1 / lambda, t is measured along the beam.

    psi_g(t) = [exp(2 pi i t A) e_0]_g
    A_gg = s_g = -(2 K.g + g^2) / (2 K)          the excitation error, negative outside the Ewald sphere
    A_gh = U_(g-h) / (2 K)                       U_g = gamma / (pi V) F_g, F_g ~ exp(-2 pi i g.r)

A tilt is the tangential part (kx, ky) of the wave vector in the beam frame of ``crystal.beam_frame``. By default
reflections belong to the zero layer and the foil normal lies along the zone axis, so the obliquity factors of the beams
are 1; ``excitation.Conventions`` has the other choices. The imaginary part of U_0 is the mean absorption, exp(-2 pi t
Im U_0 / K).

A host ``plan`` fixes everything that has a shape; ``intensities`` and ``amplitudes`` are traced (``pattern``),
``lacbed`` does both and adds an estimate of the error. Patterns are folded by the symmetry of the projected
structure (with reciprocity, -1 always belongs to the bright field), cut into compact tiles of tilts, and each tile is
one chain of matrix products (see ``tile`` and ``chebyshev``).
"""

from collections.abc import Sequence
from typing import NamedTuple

import jax
import numpy as np

from physml_jax.simulators.diffraction import beams, chebyshev
from physml_jax.simulators.diffraction.crystal import Crystal
from physml_jax.simulators.diffraction.excitation import DEFAULT, Conventions
from physml_jax.simulators.diffraction.pattern import (
    Conditions,
    Plan,
    Reflection,
    amplitudes,
    checked_dtype,
    intensities,
    plan,
    tile_amplitudes,
)
from physml_jax.simulators.diffraction.propagation import GUARD_LIMIT, TOLERANCE, propagate, scaled
from physml_jax.simulators.diffraction.tile import NUM_STRONG, NUM_WEAK, Tile, bucket, plan_tile
from physml_jax.simulators.diffraction.zone import CHECK_FACTOR, MAX_G, Zone, prepare, wider_pool

__all__ = [
    "Conditions",
    "Conventions",
    "Lacbed",
    "Plan",
    "amplitudes",
    "intensities",
    "lacbed",
    "num_beams",
    "plan",
    "propagate",
]


class Lacbed(NamedTuple):
    """Diffraction patterns over tilts, NumPy arrays.

    Attributes:
      intensities: [T, R, H, W], fractions of the incident intensity.
      tilts: [H, W, 2], (kx, ky) in 1/angstrom.
      beams: int32 [n, 3], Miller indices of the pool of beams.
      convergence_error: largest difference, over a few tilts, from a calculation with more beams; ``None`` if not
        wanted.
      num_beams: largest number of beams that are propagated for one tilt; the rest of the pool is a perturbation.
    """

    intensities: np.ndarray
    tilts: np.ndarray
    beams: np.ndarray
    convergence_error: float | None
    num_beams: int


def num_beams(crystal: Crystal, *, zone_axis: Reflection = (0, 0, 1), max_g: float = MAX_G) -> int:
    """Beams of the pool: a cheap measure of what a pattern costs (time grows with its square, or less with
    ``num_strong``).

    Args:
      crystal: arrays on the host.
      zone_axis: direction [uvw] of the direct lattice.
      max_g: radius of the pool, 1/angstrom.
    """
    return len(beams.beams_within(beams.zero_layer(crystal, zone_axis), max_g))


def lacbed(
    crystal: Crystal,
    *,
    zone_axis: Reflection = (0, 0, 1),
    voltage_kv: float = 200.0,
    half_width: float | None = None,
    num_pixels: int = 128,
    thicknesses: Sequence[float] = (450.0,),
    reflections: Sequence[Reflection] = ((0, 0, 0),),
    absorption: float = 0.0,
    max_g: float = MAX_G,
    num_strong: int | None = NUM_STRONG,
    form_factors: str = "kirkland",
    dtype: str = "float32",
    conventions: Conventions = DEFAULT,
    tilts: np.ndarray | None = None,
    num_checks: int = 24,
    max_memory_gb: float = 8.0,
) -> Lacbed:
    """Large-angle convergent-beam patterns of a crystal: diffracted intensity over the direction of incidence.

    Args:
      crystal: arrays on the host, for example from ``read_cif``.
      zone_axis: direction [uvw] of the direct lattice along the untilted beam.
      voltage_kv: accelerating voltage, 30 to 1000 kV.
      half_width: half the width of the image in tilt, 1/angstrom; ``None`` means three times the shortest reciprocal
        vector of the zero layer (after centring).
      num_pixels: pixels of the square image along each side.
      thicknesses: angstrom; any number costs little more than the largest.
      reflections: Miller indices of the patterns; (0, 0, 0) is the bright field, and alone twice as fast.
      absorption: imaginary part of the potential as a fraction of the real one; with thermal absorption, of the one
        that thermal diffuse scattering causes (see ``conventions``).
      max_g: radius of the pool of beams, 1/angstrom.
      num_strong: beams that are propagated exactly in each tile of tilts, rounded up to a bucket; the others of the
        pool enter in second order. ``None`` propagates the whole pool.
      form_factors: table of ``scattering.form_factors``.
      dtype: "float32" or "float64". Where absorption needs it, float32 calculations go through float64.
      conventions: what programs differ by, and higher Laue zones; see ``excitation.Conventions``.
      tilts: float [..., 2], directions of incidence (kx, ky) in 1/angstrom in place of the square image.
      num_checks: tilts of the convergence check; 0 leaves it out.
      max_memory_gb: a calculation that needs more is refused.

    Returns:
      ``Lacbed``.

    Raises:
      ValueError: for settings that make no sense, a reflection outside the zero layer, a crystal whose atoms lack the
        symmetry that it claims, or a calculation beyond the memory; the message has the estimate.
    """
    dtype = checked_dtype(dtype, num_strong)
    zone = prepare(
        crystal,
        zone_axis=zone_axis,
        voltage_kv=voltage_kv,
        half_width=half_width,
        num_pixels=num_pixels,
        thicknesses=thicknesses,
        reflections=reflections,
        absorption=absorption,
        max_g=max_g,
        form_factors=form_factors,
        check=num_checks > 0,
        conventions=conventions,
        tilts=tilts,
    )
    needed = memory_gb(len(zone.pool), zone.kind, num_strong=num_strong, dtype=dtype)
    if needed > max_memory_gb:
        raise ValueError(
            f"lacbed: {len(zone.pool)} beams need about {needed:.1f} GB, more than max_memory_gb = {max_memory_gb:g};"
            " set num_strong or lower max_g"
        )
    running, most = [], 0
    for group in zone.groups:  # the device works on one tile while the host plans the next
        tile, v = _plan_tile(zone, zone.tilts[group], num_strong, dtype)
        most = max(most, int(tile.present.sum()))
        running.append(_start(zone, tile, v, dtype))
    flat = np.concatenate([_finish(zone, *r) for r in running], axis=-1)  # [T, R, C P]
    error = _convergence_error(zone, flat, num_strong, num_checks, max_g, dtype) if num_checks > 0 else None
    return Lacbed(
        intensities=flat[:, :, zone.unfold].reshape(*flat.shape[:2], *zone.shape),
        tilts=beams.tilt_grid(zone.half_width, num_pixels) if tilts is None else np.asarray(tilts, np.float64),
        beams=(zone.pool @ zone.rows).astype(np.int32),
        convergence_error=error,
        num_beams=most,
    )


def memory_gb(num_beams: int, kind: chebyshev.Kind, *, num_strong: int | None, dtype: np.dtype | str) -> float:
    """Estimate of the memory of one pattern's matrices and states, in GB.

    Args:
      num_beams: beams of the pool.
      kind: symmetry of the coupling; all but "real" take two planes.
      num_strong: see ``lacbed``.
      dtype: precision.
    """
    item = np.dtype(dtype).itemsize * (1 if kind == "real" else 2)
    n = bucket(num_beams if num_strong is None else min(num_strong, num_beams))
    weak = 0 if num_strong is None else min(NUM_WEAK, max(0, num_beams - n))
    # Places (8 bytes) and values of V with its scaled copies on host and device; the same for strong times weak; states
    # of one tile; the grid of differences (four times the beams) and the excitation errors of one tile.
    matrices = n * n * (8 + 6 * item) + 2 * n * weak * (8 + 2 * item)
    return 1e-9 * (matrices + n * 12 * 256 * item + num_beams * 6000)


def _plan_tile(zone: Zone, tilts: np.ndarray, num_strong: int | None, dtype: np.dtype) -> tuple[Tile, np.ndarray]:
    return plan_tile(
        zone,
        tilts,
        pool=zone.pool,
        num_strong=num_strong,
        num_weak=NUM_WEAK,
        dtype=dtype,
        tolerance=TOLERANCE[dtype.name],
    )


def _tile_intensities(*arrays, kind, outputs):
    """Intensities [T, R, P] of one tile, traced, and the guard []."""
    psi, guard = tile_amplitudes(*arrays, kind=kind, outputs=outputs)
    return psi.real**2 + psi.imag**2, guard


def _start(zone: Zone, tile: Tile, v: np.ndarray, dtype: np.dtype):
    """Sends one tile to the device. Returns what ``_finish`` needs; the values may still be on their way."""
    expansion = tile.expansion
    with jax.enable_x64(dtype == np.float64):
        # jit knows a function by its identity, so the second crystal of the same shapes compiles nothing.
        values, guard = jax.jit(_tile_intensities, static_argnames=("kind", "outputs"))(
            scaled(v, zone.kind, expansion, dtype),
            np.asarray(tile.detuning, dtype),
            None if tile.obliquity is None else np.asarray(tile.obliquity, dtype),
            np.asarray(chebyshev.padded(expansion.coefficients), dtype),
            np.asarray(expansion.attenuation, dtype),
            np.int32(expansion.num_terms),
            kind=zone.kind,
            outputs=zone.outputs,
        )
    return values, guard, tile, v, dtype


def _finish(zone: Zone, values, guard, tile: Tile, v: np.ndarray, dtype: np.dtype) -> np.ndarray:
    """Waits for a tile; one that float32 could not hold is calculated again in float64."""
    if float(guard) < GUARD_LIMIT:
        return np.asarray(values)
    if dtype == np.float32:
        return _finish(zone, *_start(zone, tile, v, np.dtype("float64"))).astype(np.float32)
    raise ValueError(f"lacbed: the Chebyshev series lost its precision (estimated error {float(guard):.1e})")


def _convergence_error(zone: Zone, flat: np.ndarray, num_strong, num_checks: int, max_g: float, dtype) -> float:
    """Largest difference on some tilts from a wider pool with more strong beams."""
    pool = wider_pool(zone, max_g * CHECK_FACTOR)
    strong = bucket(len(zone.pool) if num_strong is None else min(num_strong, len(zone.pool)))
    strong = bucket(int(1.25 * strong) + 32)
    per_tile = 8
    num_tiles = min(len(zone.groups), -(-num_checks // per_tile))
    chosen = np.unique(np.linspace(0, len(zone.groups) - 1, num_tiles).round().astype(int))
    width = zone.groups.shape[1]
    errors = []
    for c in chosen:
        places = np.unique(np.linspace(0, width - 1, min(per_tile, width)).round().astype(int))
        tile, v = plan_tile(
            zone,
            zone.tilts[zone.groups[c, places]],
            pool=pool,
            num_strong=strong,
            num_weak=2 * NUM_WEAK,
            dtype=dtype,
            tolerance=TOLERANCE[dtype.name],
        )
        reference = _finish(zone, *_start(zone, tile, v, dtype))
        errors.append(np.abs(reference - flat[:, :, c * width + places]).max())
    return float(max(errors))
