"""Amplitudes and intensities of a pattern as traced functions of a crystal, behind a plan that the host fixed.

``plan`` decides everything that has a shape (beams, tilts, tiles, number of Chebyshev terms) in float64. ``amplitudes``
and ``intensities`` are traced and have derivatives with respect to everything that is a number: coordinates, thermal
factors, occupancies and lattice of the crystal, or its structure factors; thickness, voltage, tilt and absorption
(``Conditions``). What the plan holds was calculated in double precision for the planned numbers, and a traced number
enters as the change that it makes, so float32 keeps the plan's digits and derivatives are those of the full formula.
The centre and the width of the spectral interval stay the plan's, because the result does not depend on them.
"""

import dataclasses
from collections.abc import Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from physml_jax.core.precision import matmul
from physml_jax.simulators.diffraction import absorption as loss
from physml_jax.simulators.diffraction import chebyshev, excitation, scattering
from physml_jax.simulators.diffraction.crystal import Crystal
from physml_jax.simulators.diffraction.excitation import DEFAULT, Conventions
from physml_jax.simulators.diffraction.propagation import TOLERANCE
from physml_jax.simulators.diffraction.tile import NUM_STRONG, NUM_WEAK, effective_coupling, plan_tile
from physml_jax.simulators.diffraction.zone import MAX_G, prepare
from physml_jax.typing import Array

Reflection = tuple[int, int, int]


@jax.tree_util.register_static
@dataclasses.dataclass(frozen=True)
class Static:
    """The part of a plan that is compiled in."""

    kind: chebyshev.Kind
    grid: tuple[int, ...]
    shape: tuple[int, ...]
    outputs: tuple[int, ...]
    zone_axis: Reflection
    voltage_kv: float
    absorption: float
    form_factors: str
    conventions: Conventions
    folded: bool


class Plan(NamedTuple):
    """What ``intensities`` needs beside the crystal.

    C tiles, n strong beams, m weak ones, P tilts of a tile, T thicknesses, K terms, u Fourier coefficients; d = 2, or 3
    with higher layers. Floats have the precision of the calculation; they were made in float64.

    Attributes:
      static: shapes and settings.
      cell: [6], the planned cell.
      rows: int32 [d, 3], Miller indices of the basis of the beams.
      hkl: int32 [u, 3], reflections whose Fourier coefficients are needed, (0, 0, 0) first.
      position: int32 [u], their places in the flattened grid of differences.
      turns: [u], phases of the shift of the origin that makes the coefficients real, in turns.
      output_turns: [R], the same of the wanted reflections.
      mean_potential: [], Re U_0 in 1/angstrom^2.
      tilts: [C, P, 2], 1/angstrom.
      strong: int32 [C, n, d]; with ``present`` [C, n], ``weak`` int32 [C, m, d], ``inverse`` [C, m]: see ``tile.Tile``.
      detuning: [C, n, P].
      obliquity: [C, n, P] or ``None``.
      half_width: [C], 1/angstrom; with ``shift`` [C], ``coefficients`` [C, T, K], ``attenuation`` [C, T]: see
        ``chebyshev.Expansion``.
      centre: [C, P], 1/angstrom.
      phase: [C, T, P], thickness times centre, in turns without the whole ones.
      thicknesses: [T], angstrom.
      unfold: int32 [H W], place of every pixel among the C P tilts.
    """

    static: Static
    cell: Array
    rows: Array
    hkl: Array
    position: Array
    turns: Array
    output_turns: Array
    mean_potential: Array
    tilts: Array
    strong: Array
    present: Array
    weak: Array
    inverse: Array
    detuning: Array
    obliquity: Array | None
    half_width: Array
    shift: Array
    coefficients: Array
    attenuation: Array
    centre: Array
    phase: Array
    thicknesses: Array
    unfold: Array

    @property
    def num_beams(self) -> int:
        """Beams that are propagated, padding included."""
        return self.strong.shape[-2]


class Conditions(NamedTuple):
    """Numbers of an experiment that may differ from the planned ones, traced; ``None`` means as planned.

    Attributes:
      thicknesses: [T], angstrom; as many as planned.
      voltage_kv: [], kV.
      tilt: [2], added to all tilts, 1/angstrom in the beam frame.
      absorption: [], see ``excitation.Conventions.absorption_model``; the plan must have some as well.
    """

    thicknesses: Array | None = None
    voltage_kv: Array | None = None
    tilt: Array | None = None
    absorption: Array | None = None


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
    conventions: Conventions = DEFAULT,
    tilts: np.ndarray | None = None,
    fold: bool = True,
    use_inversion: bool = True,
    margin: float = 0.0,
) -> Plan:
    """Fixes beams, tilts, tiles and Chebyshev terms of a pattern, on the host in float64.

    Args:
      crystal: arrays on the host.
      zone_axis: this and the other settings without a word here are those of ``bloch.lacbed``.
      voltage_kv: see ``bloch.lacbed``.
      half_width: see ``bloch.lacbed``.
      num_pixels: see ``bloch.lacbed``.
      thicknesses: see ``bloch.lacbed``.
      reflections: see ``bloch.lacbed``.
      absorption: see ``bloch.lacbed``.
      max_g: see ``bloch.lacbed``.
      num_strong: see ``bloch.lacbed``.
      form_factors: see ``bloch.lacbed``.
      dtype: see ``bloch.lacbed``.
      conventions: see ``bloch.lacbed``.
      tilts: float [..., 2], directions of incidence (kx, ky) in 1/angstrom in place of the square image.
      fold: whether symmetry may leave out tilts. Amplitudes of diffracted beams, and derivatives that break the
        symmetry (a coordinate, a tilt), need False.
      use_inversion: whether the calculation may be real where the projection has an inversion centre. Coordinates and
        structure factors that may break it need False, or their imaginary part is dropped.
      margin: by what fraction thickness and spectrum may grow over the planned ones, in refinements for example.

    Returns:
      The plan. Plans with equal ``static`` and equal shapes can be stacked and ``intensities`` mapped over them.

    Raises:
      ValueError: as ``bloch.lacbed``.
    """
    kind = checked_dtype(dtype, num_strong)
    if not (np.isfinite(margin) and 0 <= margin <= 1):
        raise ValueError(f"margin: expected a number from 0 to 1, got {margin!r}")
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
        conventions=conventions,
        tilts=tilts,
        fold=fold,
        use_inversion=use_inversion,
    )
    made = [
        plan_tile(
            zone,
            zone.tilts[group],
            pool=zone.pool,
            num_strong=num_strong,
            num_weak=NUM_WEAK,
            dtype=kind,
            tolerance=TOLERANCE[kind.name],
            margin=margin,
        )[0]
        for group in zone.groups
    ]
    n, m = max(len(t.strong) for t in made), max(len(t.weak) for t in made)
    k = max(t.expansion.num_terms for t in made)
    k += -k % 64

    def stack(values, rows=None, fill=0.0):
        arrays = [np.asarray(v) for v in values]
        if rows is not None:
            arrays = [
                np.pad(a, [(0, rows - len(a))] + [(0, 0)] * (a.ndim - 1), constant_values=fill if fill else 0)
                for a in arrays
            ]
        out = np.stack(arrays)
        return out if out.dtype.kind == "i" else out.astype(kind)

    expansions = [t.expansion for t in made]
    phases = [zone.thicknesses[:, None] * e.centre[None, :] for e in expansions]
    wanted = zone.pool[zone.required[list(zone.outputs)]] @ zone.rows @ zone.origin
    return Plan(
        static=Static(
            zone.kind,
            zone.coupling.shape,
            zone.shape,
            zone.outputs,
            zone.zone_axis,
            float(voltage_kv),
            float(absorption),
            form_factors,
            conventions,
            zone.folded,
        ),
        cell=np.asarray(crystal.cell, kind),
        rows=zone.rows,
        hkl=zone.hkl,
        position=zone.position,
        turns=_part_of_turn(zone.turns).astype(kind),
        output_turns=_part_of_turn(wanted).astype(kind),
        mean_potential=np.asarray(zone.mean_potential, kind),
        tilts=stack(zone.tilts[group] for group in zone.groups),
        strong=stack((t.strong for t in made), n),
        present=stack((t.present for t in made), n),
        weak=stack((t.weak for t in made), m),
        inverse=stack((t.inverse for t in made), m),
        detuning=stack((t.detuning for t in made), n),
        obliquity=None if made[0].obliquity is None else stack((t.obliquity for t in made), n, 1.0),
        half_width=stack(e.half_width for e in expansions),
        shift=stack(e.shift for e in expansions),
        coefficients=stack(chebyshev.padded(e.coefficients, multiple=k) for e in expansions),
        attenuation=stack(e.attenuation for e in expansions),
        centre=stack(e.centre for e in expansions),
        phase=stack(_part_of_turn(p) for p in phases),
        thicknesses=zone.thicknesses.astype(kind),
        unfold=zone.unfold,
    )


def intensities(
    crystal: Crystal,
    plan: Plan,
    conditions: Conditions | None = None,
    *,
    structure_factors: Array | None = None,
    forward_mode: bool = False,
) -> tuple[Array, Array]:
    """Diffracted intensities of a crystal, traced.

    ``jax.grad`` of a number costs about four times the pattern, whatever the number of parameters, and little memory
    (``recurrence``). For the change of a whole pattern with one parameter, ``jax.jvp``, set ``forward_mode``.

    A pattern that was folded by symmetry keeps it: derivatives are those of changes that keep it too.

    Args:
      crystal: the crystal of the plan, or one close to it.
      plan: see ``plan``.
      conditions: see ``Conditions``.
      structure_factors: complex [u] in angstrom, elastic F_g of ``plan.hkl``, in place of those of the crystal
        (``scattering.structure_factors``). F_g and F_-g are separate numbers.
      forward_mode: differentiable in forward mode; reverse mode then takes far more memory.

    Returns:
      Intensities [T, R, H, W] ([T, R, ...] for a list of tilts) in the plan's precision, and the certificate []: an
      estimate of the error from rounding, and from a spectrum or a thickness beyond the planned one. Distrust the
      result above 1e-5.
    """
    psi, guard, _ = _calculate(crystal, plan, conditions, structure_factors, forward_mode)
    return _unfolded(psi.real**2 + psi.imag**2, plan), guard


def amplitudes(
    crystal: Crystal,
    plan: Plan,
    conditions: Conditions | None = None,
    *,
    structure_factors: Array | None = None,
    forward_mode: bool = False,
) -> tuple[Array, Array]:
    """Complex amplitudes of the diffracted beams: a column of the scattering matrix for every tilt, traced.

    The wave behind the crystal is sum_g psi_g exp(2 pi i (K + g).r). Phases refer to the vacuum wave, and to the origin
    of the crystal's coordinates.

    Args:
      crystal: see ``intensities``.
      plan: made with ``fold=False`` unless (0, 0, 0) is the only reflection.
      conditions: see ``intensities``.
      structure_factors: see ``intensities``.
      forward_mode: see ``intensities``.

    Returns:
      Complex [T, R, H, W] and the certificate, as ``intensities``.

    Raises:
      ValueError: if the plan is folded.
    """
    static = plan.static
    if static.folded and set(static.outputs) != {0}:
        raise ValueError("plan: symmetry relates intensities, amplitudes only up to a phase; make it with fold=False")
    psi, guard, thicknesses = _calculate(crystal, plan, conditions, structure_factors, forward_mode)
    change = thicknesses - plan.thicknesses
    turns = plan.phase + change[None, :, None] * plan.centre[:, None, :]  # [C, T, P]
    turns = turns[:, :, None, :] - plan.output_turns[None, None, :, None]
    if static.conventions.mean_inner_potential:
        k = 1.0 / scattering.wavelength(_voltage(plan, conditions))
        turns = turns + (thicknesses * plan.mean_potential / (2 * k))[None, :, None, None]
    angle = 2 * jnp.pi * turns.astype(psi.real.dtype)
    return _unfolded(psi * jax.lax.complex(jnp.cos(angle), jnp.sin(angle)), plan), guard


def tile_amplitudes(
    coupling, detuning, obliquity, coefficients, attenuation, num_terms, *, kind, outputs, forward_mode=False
):
    """Amplitudes [T, R, P] of one tile without the phase of its centre, and the guard []; see ``chebyshev``."""
    arrays = (coupling, detuning, coefficients, attenuation, num_terms)
    if outputs == (0,) and kind != "general":
        psi, guard = chebyshev.transmitted(*arrays, kind=kind, obliquity=obliquity, forward_mode=forward_mode)
        return psi[:, None], guard
    psi, guard = chebyshev.diffracted(*arrays, outputs=outputs, obliquity=obliquity, forward_mode=forward_mode)
    if obliquity is not None:  # M in front and its inverse behind
        psi = psi * (obliquity[np.asarray(outputs)] / obliquity[:1])[None]
    return psi, guard


def checked_dtype(dtype: str, num_strong: int | None) -> np.dtype:
    """The precision as NumPy knows it; raises for what is no choice."""
    if dtype not in TOLERANCE:
        raise ValueError(f"dtype: expected float32 or float64, got {dtype!r}")
    if num_strong is not None and num_strong < 1:
        raise ValueError(f"num_strong: expected None or an integer of at least 1, got {num_strong!r}")
    return np.dtype(dtype)


def _part_of_turn(turns: np.ndarray) -> np.ndarray:
    return turns - np.round(turns)


def _voltage(plan: Plan, conditions: Conditions | None) -> Array:
    given = None if conditions is None else conditions.voltage_kv
    return jnp.asarray(plan.static.voltage_kv if given is None else given, plan.detuning.dtype)


def _unfolded(values: Array, plan: Plan) -> Array:
    """[C, T, R, P] to [T, R, ...]."""
    flat = jnp.moveaxis(values, 0, 2).reshape(*values.shape[1:3], -1)
    return flat[:, :, plan.unfold].reshape(*values.shape[1:3], *plan.static.shape)


def _calculate(crystal, plan: Plan, conditions, structure_factors, forward_mode):
    """Amplitudes [C, T, R, P] without phases of the centre, the guard [], the thicknesses [T]."""
    static, dtype = plan.static, plan.detuning.dtype
    conditions = conditions or Conditions()
    absorption = static.absorption if conditions.absorption is None else conditions.absorption
    if static.absorption == 0 and conditions.absorption is not None:
        raise ValueError("absorption: the plan was made without any; give it some")
    thicknesses = plan.thicknesses
    if conditions.thicknesses is not None:
        thicknesses = jnp.asarray(conditions.thicknesses, dtype)
        if thicknesses.shape != plan.thicknesses.shape:
            raise ValueError(
                f"thicknesses: expected shape {plan.thicknesses.shape} as planned, got {thicknesses.shape}"
            )
    voltage = _voltage(plan, conditions)
    u = loss.potential_coefficients(
        crystal,
        plan.hkl,
        voltage_kv=voltage,
        table=static.form_factors,
        absorption=absorption,
        model=static.conventions.absorption_model,
        structure_factors=structure_factors,
    ).astype(jnp.result_type(dtype, jnp.complex64))

    def wave_number(voltage, potential):
        vacuum = 1.0 / scattering.wavelength(voltage)
        return jnp.sqrt(vacuum**2 + potential) if static.conventions.mean_inner_potential else vacuum

    planned_voltage = jnp.asarray(static.voltage_kv, dtype)
    now = (jnp.asarray(crystal.cell, dtype), wave_number(voltage, u[0].real))
    planned = (plan.cell, wave_number(planned_voltage, plan.mean_potential))
    bases = [
        (*excitation.beam_geometry(cell, plan.rows, static.zone_axis, static.conventions), k)
        for cell, k in (now, planned)
    ]
    offset = jnp.zeros(2, dtype) if conditions.tilt is None else jnp.asarray(conditions.tilt, dtype)

    coupling = u / (2 * now[1])
    mean = coupling[0].imag
    coupling = coupling * jnp.exp(2j * jnp.pi * plan.turns)
    table = coupling.real if static.kind == "real" else coupling
    size = int(np.prod(static.grid))
    table = jnp.zeros(size, table.dtype).at[plan.position[1:]].set(table[1:]).reshape(static.grid)

    def diagonal(beams, tilts, which):
        basis, normal, k = bases[which]
        g = matmul(beams.astype(dtype), basis)
        s, m = excitation.excitation(g, tilts if which else tilts + offset[None], k, normal, static.conventions, xp=jnp)
        return s.T, None if m is None else m.T

    def one(tile):
        tilts, strong, present, weak, inverse, detuning, obliquity, h, shift, coefficients, attenuation = tile
        (s, m), (s0, m0) = (diagonal(strong, tilts, which) for which in (0, 1))
        if obliquity is not None:
            s, s0 = s * m**2, s0 * m0**2
            obliquity = obliquity + (m - m0)
        detuning = detuning + present[:, None] * (s - s0) / h
        if weak.shape[0]:
            (w, _), (w0, _) = (diagonal(weak, tilts, which) for which in (0, 1))
            used = (inverse != 0)[:, None]
            w, w0 = jnp.where(used, w, 1), jnp.where(used, w0, 1)
            inverse = inverse + jnp.mean((w0 - w) / (w * w0), axis=1)
        v = effective_coupling(table, strong, present, weak, inverse, matmul) / h
        parts = (v,)
        if static.kind != "real":
            parts = (v.real, v.imag + jnp.diag(present * mean - shift) / h)
        change = thicknesses - plan.thicknesses
        if conditions.thicknesses is not None:
            coefficients = chebyshev.moved(coefficients, 2 * jnp.pi * h * change)
            attenuation = attenuation * jnp.exp(-2 * jnp.pi * change * shift)
        return tile_amplitudes(
            parts,
            detuning,
            obliquity,
            coefficients,
            attenuation,
            coefficients.shape[-1],
            kind=static.kind,
            outputs=static.outputs,
            forward_mode=forward_mode,
        )

    arrays = (plan.tilts, plan.strong, plan.present, plan.weak, plan.inverse, plan.detuning, plan.obliquity)
    arrays += (plan.half_width, plan.shift, plan.coefficients, plan.attenuation)
    psi, guards = jax.lax.map(one, jax.tree.map(jnp.asarray, arrays))
    return psi, jnp.max(guards), thicknesses
