"""Diffraction spots of a crystal in any orientation (SAED), kinematic intensities, batched over orientations.

Conventions. The lab frame is the detector's: x to the right, y up, and the beam travels along +z, towards whoever looks
at the drawing. An orientation is a rotation matrix R from the crystal's Cartesian frame (x along a, z along c*) to the
lab, g_lab = R g: the rows of R are the lab's axes in the crystal's frame, and ``crystal.beam_frame`` is an orientation.
Spots lie at (g_x, g_y) in 1/angstrom: the pattern is a parallel projection of reciprocal space.

The diffracted wave vector K + g + s z ends on the Ewald sphere abs(k) = K = 1/lambda, with K = (0, 0, K), hence

    s = -g_z - (K - sqrt(K^2 - q)),    q = g_x^2 + g_y^2,

negative outside the sphere, as in ``bloch`` (which has it to first order in g_z + q / 2K). For a beam along -z the sign
of g_z flips. The root is evaluated by its series q / 2K + q^2 / 8K^3 + q^3 / 16K^5; ``reflections`` bounds the rest.

Intensities are fractions of the incident beam in first Born approximation,

    I_g = (pi t / xi_g)^2 S(s),    xi_g = pi V / (gamma lambda abs(F_g)),

with thickness t and the shape factors S of ``shape_factors``. They exceed 1 where the foil is too thick for kinematic
theory. Under precession by an angle phi, S is its mean over the azimuth a of s + phi sqrt(q) cos a.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from physml_jax.core.batching import chunked
from physml_jax.core.precision import einsum, matmul
from physml_jax.simulators.diffraction.compaction import WORD, first_set
from physml_jax.simulators.diffraction.reflections import MAX_INDEX, Reflections
from physml_jax.simulators.diffraction.shape_factors import SHAPES, precessed, shape_factor
from physml_jax.typing import Array

#: Orientations per pass on a CPU: their masks stay in its caches.
CPU_CHUNK = 128


class Spots(NamedTuple):
    """Spots of diffraction patterns, K places per pattern, the largest structure factors first; unused places are zero.

    Attributes:
      hkl: int32 [..., K, 3], Miller indices.
      positions: float [..., K, 2], (g_x, g_y) in 1/angstrom, x to the right and y up; the direct beam is at (0, 0) and
        not in the list.
      excitation_errors: float [..., K], s in 1/angstrom.
      structure_factors: float [..., K], abs(F_g) in angstrom.
      intensities: float [..., K], as fractions of the incident beam.
      mask: bool [..., K], which places hold a spot.
      count: int32 [...], number of excited reflections; where it exceeds K, the weakest are missing.
    """

    hkl: Array
    positions: Array
    excitation_errors: Array
    structure_factors: Array
    intensities: Array
    mask: Array
    count: Array


def spots(
    plan: Reflections,
    orientations: Array,
    *,
    max_excitation_error: Array | float,
    num_spots: int,
    shape: str = "lorentzian",
    thickness: Array | float = 300.0,
    precession_mrad: Array | float = 0.0,
    deformation: Array | None = None,
    phase: Array | None = None,
    chunk_size: int | None = None,
) -> Spots:
    """The excited reflections of crystals in given orientations; traced, call it under ``jax.jit``.

    A reflection is excited where abs(s) <= max_excitation_error, under precession at any azimuth. Which ones are is a
    decision without derivative; positions, excitation errors and intensities are differentiable.

    Args:
      plan: of ``reflections``, or of ``stack`` together with ``phase``.
      orientations: float [..., 3, 3], rotation matrices from the crystal's Cartesian frame to the lab.
      max_excitation_error: s_max in 1/angstrom, [] or [...].
      num_spots: K, places per pattern; see ``reflections.num_spots_needed``.
      shape: "lorentzian", "sinc", "gaussian" or "sharp".
      thickness: angstrom, [] or [...].
      precession_mrad: angle between the precessing beam and its axis, mrad, [] or [...]. A Python 0 leaves precession
        out of the program.
      deformation: float [3, 3] or [..., 3, 3], D that takes lattice vectors r (in the crystal's Cartesian frame) to
        D r, so that g becomes D^-T g: other lattice parameters, strain. Structure factors and the volume stay the
        plan's. Costs about half as much again.
      phase: int32 [...], number of the crystal in a stacked plan; ``None`` if the plan holds one.
      chunk_size: patterns per pass; ``None`` is 128 on a CPU (16 with ``phase``) and the whole batch elsewhere.

    Returns:
      ``Spots`` with the batch axes of ``orientations``, in the precision of the plan.

    Raises:
      ValueError: for shapes that do not fit, or settings that make no sense.
    """
    orientations = jnp.asarray(orientations, plan.basis.dtype)
    batch = orientations.shape[:-2]
    if chunk_size is None and jax.default_backend() == "cpu":
        chunk_size = CPU_CHUNK if phase is None else CPU_CHUNK // 8
    _check(plan, orientations, num_spots, shape, phase)
    rows = _rows(plan, orientations, max_excitation_error, thickness, precession_mrad, deformation, phase)
    fn = chunked(lambda r: _compacted(plan, r, num_spots, shape, deformation is not None), chunk_size=chunk_size)
    return jax.tree.map(lambda x: x.reshape(*batch, *x.shape[1:]), fn(rows))


def all_reflections(
    plan: Reflections,
    orientations: Array,
    *,
    max_excitation_error: Array | float,
    shape: str = "lorentzian",
    thickness: Array | float = 300.0,
    precession_mrad: Array | float = 0.0,
    deformation: Array | None = None,
    phase: Array | None = None,
) -> Spots:
    """``spots`` without the compaction: every reflection of the plan at its own place, [..., N], most of them masked.

    Simple, and for few orientations or all intensities of one rotating crystal; arguments and errors as for ``spots``.
    """
    orientations = jnp.asarray(orientations, plan.basis.dtype)
    batch = orientations.shape[:-2]
    _check(plan, orientations, 1, shape, phase)
    rows = _rows(plan, orientations, max_excitation_error, thickness, precession_mrad, deformation, phase)
    excited = jnp.moveaxis(_excited(plan, rows, deformation is not None), 2, 0)  # [C, 32, W]
    mask = excited.swapaxes(1, 2).reshape(excited.shape[0], -1)
    hkl, factors, _ = _of_patterns(plan, rows)
    indices = [jnp.broadcast_to(hkl[..., i], mask.shape) for i in range(3)]
    found = _evaluate(plan, rows, indices, jnp.broadcast_to(factors, mask.shape), mask, shape)
    return jax.tree.map(lambda x: x.reshape(*batch, *x.shape[1:]), found._replace(count=mask.sum(1, dtype=jnp.int32)))


class _Rows(NamedTuple):
    """One row per pattern. ``metric`` is g_lab = metric @ hkl, [C, 3, 3]; ``precession`` in rad, ``None`` without."""

    metric: Array
    s_max: Array
    thickness: Array
    precession: Array | None
    phase: Array | None


def _check(plan, orientations, num_spots, shape, phase):
    if orientations.ndim < 2 or orientations.shape[-2:] != (3, 3):
        raise ValueError(f"orientations: expected float [..., 3, 3], got shape {list(orientations.shape)}")
    if shape not in SHAPES:
        raise ValueError(f"shape: expected one of {', '.join(SHAPES)}, got {shape!r}")
    if num_spots < 1:
        raise ValueError(f"num_spots: expected an integer of at least 1, got {num_spots!r}")
    if (phase is None) != (plan.hkl.ndim == 2):
        raise ValueError("phase: expected the number of the crystal per pattern for a stacked plan, else None")


def _rows(plan, orientations, s_max, thickness, precession_mrad, deformation, phase):
    batch, dtype = orientations.shape[:-2], orientations.dtype

    def per_pattern(name, value, dtype=dtype):
        value = jnp.asarray(value, dtype)
        if value.shape not in ((), batch):
            raise ValueError(f"{name}: expected a number or shape {list(batch)}, got shape {list(value.shape)}")
        return jnp.broadcast_to(value, batch).reshape(-1)

    rotations = orientations.reshape(-1, 3, 3)
    basis = plan.basis
    if phase is not None:
        phase = per_pattern("phase", phase, jnp.int32)
        basis = jnp.asarray(basis)[phase]
    if deformation is not None:
        deformation = jnp.asarray(deformation, dtype)
        if deformation.shape not in ((3, 3), (*batch, 3, 3)):
            raise ValueError(f"deformation: expected [3, 3] or [..., 3, 3], got shape {list(deformation.shape)}")
        rotations = matmul(rotations, _inverse_transpose(deformation.reshape(-1, 3, 3)))
    still = isinstance(precession_mrad, int | float) and precession_mrad == 0
    return _Rows(
        metric=einsum("bij,kj->bik" if basis.ndim == 2 else "bij,bkj->bik", rotations, basis),
        s_max=per_pattern("max_excitation_error", s_max),
        thickness=per_pattern("thickness", thickness),
        precession=None if still else per_pattern("precession_mrad", precession_mrad) * 1e-3,
        phase=phase,
    )


def _inverse_transpose(d):
    first, second, third = (d[:, i] for i in range(3))
    rows = [jnp.cross(second, third), jnp.cross(third, first), jnp.cross(first, second)]
    return jnp.stack(rows, axis=1) / (first * rows[0]).sum(axis=1)[:, None, None]


def _excitation_error(z, q, wave_number):
    x = q * (0.25 / wave_number**2)
    return -z - (q * (0.5 / wave_number)) * (1.0 + x * (1.0 + 2.0 * x))


def _excited(plan, rows, deformed):
    """Which reflections are excited, bool [32, W, C]: reflection 32 w + b of pattern c at [b, w, c].

    The long pass over all reflections. The pattern is the innermost axis: all arithmetic is between vectors over
    patterns and constants of a reflection, and only z is needed of an undeformed crystal, because
    q = abs(g)^2 - z^2.
    """
    dtype = rows.metric.dtype
    hkl, _, wave_number = _of_patterns(plan, rows)

    def by_word(x):  # [N, 1 or C] -> [32, W, 1 or C]
        return x.reshape(-1, WORD, x.shape[-1]).swapaxes(0, 1)

    indices = [by_word(hkl[..., i].T.astype(dtype)) for i in range(3)]

    def component(i):
        h, k, l = indices
        a, b, c = (rows.metric[None, None, :, i, j] for j in range(3))
        return h * a + k * b + l * c

    z = component(2)
    if deformed:
        q = component(0) ** 2 + component(1) ** 2
    else:
        basis = jnp.asarray(plan.basis).reshape(-1, 3, 3)
        g = matmul(hkl.astype(dtype), basis if rows.phase is None else basis[rows.phase])
        q = by_word((g**2).sum(axis=-1).T) - z * z
    beyond = jnp.abs(_excitation_error(z, q, wave_number[None, None])) - rows.s_max[None, None]
    near = beyond <= 0
    if rows.precession is not None:
        near |= beyond * beyond <= q * rows.precession[None, None] ** 2
    return near & by_word((hkl != 0).any(axis=-1).T)  # (0, 0, 0) is padding


def _of_patterns(plan, rows):
    """Indices [C or 1, N, 3], structure factors [C or 1, N] and the wave number [C or 1] of the crystals."""
    hkl, factors, wave_number = (jnp.asarray(x) for x in (plan.hkl, plan.structure_factors, plan.wave_number))
    if rows.phase is None:
        return hkl[None], factors[None], wave_number[None]
    return hkl[rows.phase], factors[rows.phase], wave_number[rows.phase]


def _compacted(plan, rows, num_spots, shape, deformed):
    number, mask, count = first_set(_excited(plan, rows, deformed), num_spots)
    hkl, factors, _ = _of_patterns(plan, rows)
    # Three indices in one word beside the structure factor, which keeps its derivative: one gather of pairs.
    whole = jnp.int32 if factors.dtype == jnp.float32 else jnp.int64
    packed = sum((hkl[..., i].astype(whole) + MAX_INDEX) << 10 * i for i in range(3))
    table = jnp.stack([jax.lax.bitcast_convert_type(packed, factors.dtype), factors], axis=-1)
    if rows.phase is None:
        pairs = table[0].at[number].get(mode="promise_in_bounds")
    else:
        pairs = jnp.take_along_axis(table, number[..., None], axis=1, mode="promise_in_bounds")
    packed, factors = jax.lax.bitcast_convert_type(pairs[..., 0], whole).astype(jnp.int32), pairs[..., 1]
    hkl = [((packed >> shift) & 1023) - MAX_INDEX for shift in (0, 10, 20)]
    return _evaluate(plan, rows, hkl, factors, mask, shape)._replace(count=count)


def _evaluate(plan, rows, hkl, factors, mask, shape):
    """Spots [C, K] from their indices, three int32 [C, K]; without the count."""
    dtype = rows.metric.dtype
    h, k, l = (x.astype(dtype) for x in hkl)

    def component(i):
        a, b, c = (rows.metric[:, i, j, None] for j in range(3))
        return h * a + k * b + l * c

    x, y, z = (component(i) for i in range(3))
    q = x * x + y * y
    s = _excitation_error(z, q, _of_patterns(plan, rows)[2][:, None])
    coupling = jnp.asarray(plan.coupling)
    coupling = coupling[None] if rows.phase is None else coupling[rows.phase]
    amplitude = (coupling * rows.thickness)[:, None] * factors
    width = {"shape": shape, "max_excitation_error": rows.s_max[:, None], "thickness": rows.thickness[:, None]}
    if rows.precession is None and shape == "sharp":
        value = jnp.ones_like(s)  # the mask decides, whose rounding differs
    elif rows.precession is None:
        value = shape_factor(s, **width)
    else:
        # The square root has no derivative at 0, where padding is.
        value = precessed(s, rows.precession[:, None] * jnp.sqrt(jnp.where(q > 0, q, 1.0)), **width)
    zero = jnp.zeros((), dtype)
    return Spots(
        hkl=jnp.stack([jnp.where(mask, i, 0) for i in hkl], axis=-1),
        positions=jnp.stack([jnp.where(mask, x, zero), jnp.where(mask, y, zero)], axis=-1),
        excitation_errors=jnp.where(mask, s, zero),
        structure_factors=jnp.where(mask, factors, zero),
        intensities=jnp.where(mask, amplitude * amplitude * value, zero),
        mask=mask,
        count=jnp.zeros(mask.shape[0], jnp.int32),
    )
