"""Bloch waves: the diffraction pattern of a crystal over a range of tilts (LACBED), for any cell and zone axis.

Conventions, here and in the modules that this one uses. Lengths in angstrom, reciprocal lengths in 1/angstrom without
2 pi. A plane wave is exp(+2 pi i k.r), K = 1 / lambda, t is measured along the beam.

    psi_g(t) = [exp(2 pi i t A) e_0]_g
    A_gg = s_g = -(2 K.g + g^2) / (2 K)          the excitation error, negative outside the Ewald sphere
    A_gh = U_(g-h) / (2 K)                       U_g = gamma / (pi V) F_g, F_g ~ exp(-2 pi i g.r)

A tilt is the tangential part (kx, ky) of the wave vector in the beam frame of ``crystal.beam_frame``. Reflections
belong to the zero layer, and the foil normal lies along the zone axis, so the obliquity factors of the beams are 1. The
real part of U_0 is a phase without effect on intensities; its imaginary part is the mean absorption, exp(-2 pi t Im U_0
/ K).

A host ``plan`` fixes everything that has a shape; ``intensities`` is traced and recomputes the potential from the
crystal, ``lacbed`` does both and adds an estimate of the error. Patterns are folded by the symmetry of the projected
structure (with reciprocity, -1 always belongs to the bright field), cut into compact tiles of tilts, and each tile is
one chain of matrix products (see ``tile`` and ``chebyshev``).
"""

import dataclasses
from collections.abc import Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from physml_jax.core.precision import matmul
from physml_jax.simulators.diffraction import beams, chebyshev, scattering
from physml_jax.simulators.diffraction.crystal import Crystal
from physml_jax.simulators.diffraction.propagation import GUARD_LIMIT, TOLERANCE, propagate, scaled
from physml_jax.simulators.diffraction.tile import Tile, bucket, effective_coupling, plan_tile
from physml_jax.simulators.diffraction.zone import CHECK_FACTOR, MAX_G, Zone, prepare
from physml_jax.typing import Array

__all__ = ["Lacbed", "Plan", "intensities", "lacbed", "num_beams", "plan", "propagate"]

Reflection = tuple[int, int, int]
#: Beams that are propagated exactly in each tile, and the largest number of others that perturb them.
NUM_STRONG = 256
NUM_WEAK = 768


@jax.tree_util.register_static
@dataclasses.dataclass(frozen=True)
class Static:
    """The part of a plan that is compiled in."""

    kind: chebyshev.Kind
    grid: tuple[int, int]
    num_pixels: int
    outputs: tuple[int, ...]
    voltage_kv: float
    absorption: float
    form_factors: str


class Plan(NamedTuple):
    """What ``intensities`` needs beside the crystal.

    C tiles, n strong beams, m weak ones, P tilts of a tile, T thicknesses, K terms, u Fourier coefficients. Floats have
    the precision of the calculation; they were made in float64.

    Attributes:
      static: shapes and settings.
      hkl: int32 [u, 3], reflections whose Fourier coefficients are needed, (0, 0, 0) first.
      position: int32 [u], their places in the flattened grid of differences.
      turns: [u], phases of the shift of the origin that makes the coefficients real, in turns.
      strong: int32 [C, n, 2]; with ``present`` [C, n], ``weak`` int32 [C, m, 2], ``inverse`` [C, m]: see ``tile.Tile``.
      detuning: [C, n, P].
      half_width: [C], 1/angstrom; with ``shift`` [C], ``coefficients`` [C, T, K], ``attenuation`` [C, T]: see
        ``chebyshev.Expansion``.
      thicknesses: [T], angstrom.
      unfold: int32 [H W], place of every pixel among the C P tilts.
    """

    static: Static
    hkl: Array
    position: Array
    turns: Array
    strong: Array
    present: Array
    weak: Array
    inverse: Array
    detuning: Array
    half_width: Array
    shift: Array
    coefficients: Array
    attenuation: Array
    thicknesses: Array
    unfold: Array

    @property
    def num_beams(self) -> int:
        """Beams that are propagated, padding included."""
        return self.strong.shape[-2]


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


def plan(
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
) -> Plan:
    """Fixes beams, tilts, tiles and Chebyshev terms of a pattern, on the host in float64.

    Args:
      crystal: arrays on the host.
      zone_axis: this and the other settings are those of ``lacbed``.
      voltage_kv: see ``lacbed``.
      half_width: see ``lacbed``.
      num_pixels: see ``lacbed``.
      thicknesses: see ``lacbed``.
      reflections: see ``lacbed``.
      absorption: see ``lacbed``.
      max_g: see ``lacbed``.
      num_strong: see ``lacbed``.
      form_factors: see ``lacbed``.
      dtype: see ``lacbed``.

    Returns:
      The plan. Plans with equal ``static`` and equal shapes can be stacked and ``intensities`` mapped over them.

    Raises:
      ValueError: as ``lacbed``.
    """
    dtype = _checked(dtype, num_strong)
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
        check=False,
    )
    made = [_plan_tile(zone, zone.tilts[group], num_strong, dtype)[0] for group in zone.groups]
    n, m = max(len(t.strong) for t in made), max(len(t.weak) for t in made)
    k = max(t.expansion.num_terms for t in made)
    k += -k % 64

    def stack(values, rows=None):
        arrays = [np.asarray(v) for v in values]
        if rows is not None:
            arrays = [np.pad(a, [(0, rows - len(a))] + [(0, 0)] * (a.ndim - 1)) for a in arrays]
        out = np.stack(arrays)
        return out if out.dtype.kind == "i" else out.astype(dtype)

    return Plan(
        static=Static(
            zone.kind, zone.coupling.shape, num_pixels, zone.outputs, float(voltage_kv), float(absorption), form_factors
        ),
        hkl=zone.hkl,
        position=zone.position,
        turns=(zone.turns - np.round(zone.turns)).astype(dtype),
        strong=stack((t.strong for t in made), n),
        present=stack((t.present for t in made), n),
        weak=stack((t.weak for t in made), m),
        inverse=stack((t.inverse for t in made), m),
        detuning=stack((t.detuning for t in made), n),
        half_width=stack(t.expansion.half_width for t in made),
        shift=stack(t.expansion.shift for t in made),
        coefficients=stack(chebyshev.padded(t.expansion.coefficients, multiple=k) for t in made),
        attenuation=stack(t.expansion.attenuation for t in made),
        thicknesses=zone.thicknesses.astype(dtype),
        unfold=zone.unfold,
    )


def intensities(crystal: Crystal, plan: Plan, *, forward_mode: bool = False) -> tuple[Array, Array]:
    """Diffracted intensities of a crystal, traced: the potential is recomputed, so derivatives reach every atom.

    ``jax.grad`` of a number costs about four times the pattern, whatever the number of parameters, and little memory
    (``recurrence``). For the change of a whole pattern with one parameter, ``jax.jvp``, set ``forward_mode``.

    The beams, the tilts and the cell's metric in the excitation errors are the plan's; a change of ``crystal.cell``
    acts through the form factors and the volume only.

    Args:
      crystal: the crystal of the plan, or one close to it.
      plan: see ``plan``.
      forward_mode: differentiable in forward mode; reverse mode then takes far more memory.

    Returns:
      Intensities [T, R, H, W] in the plan's precision, and the certificate []: an estimate of the error from rounding,
      and from a spectrum wider than planned. Distrust the result above 1e-5.
    """
    static = plan.static
    u = scattering.potential_coefficients(
        crystal, plan.hkl, voltage_kv=static.voltage_kv, table=static.form_factors, absorption=static.absorption
    )
    dtype = plan.detuning.dtype
    k = 1.0 / scattering.wavelength(static.voltage_kv)
    coupling = u.astype(jnp.result_type(dtype, jnp.complex64)) * jnp.exp(2j * jnp.pi * plan.turns) / (2 * k)
    mean = jnp.exp(-2 * jnp.pi * plan.thicknesses * coupling[0].imag)
    table = coupling.real if static.kind == "real" else coupling
    table = jnp.zeros(static.grid[0] * static.grid[1], table.dtype).at[plan.position[1:]].set(table[1:])
    table = table.reshape(static.grid)

    def one(tile):
        strong, present, weak, inverse, detuning, h, shift, coefficients, attenuation = tile
        v = effective_coupling(table, strong, present, weak, inverse, matmul) / h
        parts = (v,)
        if static.kind != "real":
            parts = (v.real, v.imag - jnp.eye(v.shape[0], dtype=dtype) * (shift / h))
        return _tile_intensities(
            parts,
            detuning,
            coefficients,
            attenuation * mean,
            coefficients.shape[-1],
            kind=static.kind,
            outputs=static.outputs,
            forward_mode=forward_mode,
        )

    arrays = (plan.strong, plan.present, plan.weak, plan.inverse, plan.detuning)
    arrays += (plan.half_width, plan.shift, plan.coefficients, plan.attenuation)
    values, guards = jax.lax.map(one, jax.tree.map(jnp.asarray, arrays))  # [C, T, R, P]
    flat = jnp.moveaxis(values, 0, 2).reshape(*values.shape[1:3], -1)
    images = flat[:, :, plan.unfold].reshape(*values.shape[1:3], static.num_pixels, static.num_pixels)
    return images, jnp.max(guards)


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
    num_checks: int = 24,
    max_memory_gb: float = 8.0,
) -> Lacbed:
    """Large-angle convergent-beam patterns of a crystal: diffracted intensity over the direction of incidence.

    Args:
      crystal: arrays on the host, for example from ``read_cif``.
      zone_axis: direction [uvw] of the direct lattice along the untilted beam.
      voltage_kv: accelerating voltage, kV.
      half_width: half the width of the image in tilt, 1/angstrom; ``None`` means three times the shortest reciprocal
        vector of the zero layer (after centring).
      num_pixels: pixels of the square image along each side.
      thicknesses: angstrom; any number costs little more than the largest.
      reflections: Miller indices of the patterns; (0, 0, 0) is the bright field, and alone twice as fast.
      absorption: imaginary part of the potential as a fraction of the real one.
      max_g: radius of the pool of beams, 1/angstrom.
      num_strong: beams that are propagated exactly in each tile of tilts, rounded up to a bucket; the others of the
        pool enter in second order. ``None`` propagates the whole pool.
      form_factors: table of ``scattering.form_factors``.
      dtype: "float32" or "float64". Where absorption needs it, float32 calculations go through float64.
      num_checks: tilts of the convergence check; 0 leaves it out.
      max_memory_gb: a calculation that needs more is refused.

    Returns:
      ``Lacbed``.

    Raises:
      ValueError: for settings that make no sense, a reflection outside the zero layer, a crystal whose atoms lack the
        symmetry that it claims, or a calculation beyond the memory; the message has the estimate.
    """
    dtype = _checked(dtype, num_strong)
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
        intensities=flat[:, :, zone.unfold].reshape(*flat.shape[:2], num_pixels, num_pixels),
        tilts=beams.tilt_grid(zone.half_width, num_pixels),
        beams=(zone.pool @ zone.layer.hkl).astype(np.int32),
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


def _checked(dtype: str, num_strong: int | None) -> np.dtype:
    if dtype not in TOLERANCE:
        raise ValueError(f"dtype: expected float32 or float64, got {dtype!r}")
    if num_strong is not None and num_strong < 1:
        raise ValueError(f"num_strong: expected None or an integer of at least 1, got {num_strong!r}")
    return np.dtype(dtype)


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


def _tile_intensities(coupling, detuning, coefficients, attenuation, num_terms, *, kind, outputs, forward_mode=False):
    """Intensities [T, R, P] of one tile, traced, and the guard []."""
    arrays = (coupling, detuning, coefficients, attenuation, num_terms)
    if outputs == (0,) and kind != "general":
        psi, guard = chebyshev.transmitted(*arrays, kind=kind, forward_mode=forward_mode)
        psi = psi[:, None]
    else:
        psi, guard = chebyshev.diffracted(*arrays, outputs=outputs, forward_mode=forward_mode)
    return psi.real**2 + psi.imag**2, guard


def _start(zone: Zone, tile: Tile, v: np.ndarray, dtype: np.dtype):
    """Sends one tile to the device. Returns what ``_finish`` needs; the values may still be on their way."""
    expansion = tile.expansion
    mean = np.exp(-2 * np.pi * zone.thicknesses * zone.mean_absorption)
    with jax.enable_x64(dtype == np.float64):
        # jit knows a function by its identity, so the second crystal of the same shapes compiles nothing.
        values, guard = jax.jit(_tile_intensities, static_argnames=("kind", "outputs"))(
            scaled(v, zone.kind, expansion, dtype),
            np.asarray(tile.detuning, dtype),
            np.asarray(chebyshev.padded(expansion.coefficients), dtype),
            np.asarray(expansion.attenuation * mean, dtype),
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
    pool = beams.beams_within(zone.layer, max_g * CHECK_FACTOR)
    # The wider pool starts with the same beams in the same order, so the numbers of the required ones hold.
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
