r"""How much better a crystal in an orientation explains the spots of a pattern than chance does.

Observed spots are taken for draws from a mixture: a share epsilon anywhere in the field of view, of area A, the others
about the predicted spots p_k with weights a_k that sum to 1 and grow with the simulated intensities,

    ln L = sum_i ln(epsilon + (1 - epsilon) A sum_k a_k N(q_i; p_k, sigma_i)),    a_k ~ I_k^0.35.

L is the ratio to spots that fall anywhere. A lattice so dense that it has a spot near every place spreads its weight
thin and gains little; a prediction whose strong spots are not seen wastes their weight. Intensities enter by a small
power because dynamical diffraction levels them. The evidence adds the prior probability of the orientation against
uniform rotations, m z, and of the scale factor (and of the ellipticity, alike),

    ln E = ln L + ln m + ln z - ln(f)^2 / (2 sigma_f^2).

A crystal with m rotations in its Laue class has m equivalent orientations. z says that people turn crystals to zone
axes: half of all patterns are taken within 3 degrees of one whose indices do not exceed 2, each family equally often,
the others anywhere.
"""

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from physml_jax.analysis.spot_geometry import Lattice, PatternSpots
from physml_jax.simulators.diffraction import kinematic
from physml_jax.simulators.diffraction.reflections import num_spots_needed, stack
from physml_jax.typing import Array

#: Share of observed spots that are none of the crystal's.
OUTLIERS = 0.1
#: Weight of a predicted spot against its intensity.
EXPONENT = 0.35
#: Share of patterns that are taken near a zone axis, and how near.
ZONE_SHARE, ZONE_RADIUS_DEG = 0.5, 3.0
#: Hypotheses per pass, and the multiple to which lists of observed spots are padded: few shapes, few programs.
_CHUNK, _ROWS, _PLAN_ROWS = 64, 32, 512


class View(NamedTuple):
    """The field of view in 1/angstrom from the centre: the part of the image's rectangle between two circles.

    Attributes:
      low: [2], least (x, y).
      high: [2], largest.
      inner: radius of the direct beam's neighbourhood, where no spots are looked for.
      outer: radius up to which spots are expected.
      area: of it, 1/angstrom^2.
    """

    low: np.ndarray
    high: np.ndarray
    inner: float
    outer: float
    area: float


def field_of_view(low: np.ndarray, high: np.ndarray, inner: float, outer: float) -> View:
    """The view with its area, summed over a fine grid."""
    low, high = np.asarray(low, np.float64), np.asarray(high, np.float64)
    x, y = (np.linspace(a, b, 601)[:-1] + (b - a) / 1200 for a, b in zip(low, high, strict=True))
    radius = np.hypot(x[:, None], y[None])
    inside = ((radius > inner) & (radius < outer)).mean()
    return View(low, high, float(inner), float(outer), float(inside * (high - low).prod()))


def log_likelihood(
    spots: PatternSpots,
    lattices: list[Lattice],
    phase: np.ndarray,
    rotations: np.ndarray,
    factors: np.ndarray,
    view: View,
    *,
    max_excitation_error: float,
    distortions: np.ndarray | None = None,
) -> np.ndarray:
    """Logarithm ln L of hypotheses, in float32 on the device.

    Args:
      spots: observed.
      lattices: of the candidate phases.
      phase: int [H], number of the phase.
      rotations: [H, 3, 3], crystal to lab.
      factors: [H], by which observed positions are multiplied.
      view: of the image, in units of the observed positions.
      max_excitation_error: see ``kinematic.spots``, Lorentzian shape.
      distortions: [H, 3, 2], rows of an affine map of the observed positions that precedes the factor (a matrix and a
        shift in 1/angstrom); ``None`` is none.

    Returns:
      float64 [H].
    """
    if not len(phase):
        return np.zeros(0)
    plan = _single(stack([known.plan for known in lattices]))
    most = max(
        num_spots_needed(lattices[p].plan, rotations[phase == p], max_excitation_error=max_excitation_error)
        for p in np.unique(phase)
    )
    places = int(2 ** np.ceil(np.log2(most)))
    shifts = np.broadcast_to(np.eye(3, 2), (len(phase), 3, 2)) if distortions is None else distortions
    rows = -len(spots.positions) % _ROWS
    observed = np.pad(spots.positions, ((0, rows), (0, 0)))
    errors = np.pad(spots.errors, (0, rows), constant_values=1.0)
    real = np.arange(len(observed)) < len(spots.positions)
    box = (np.concatenate([view.low, view.high]), view.inner, view.outer, view.area)
    values = []
    for start in range(0, len(phase), _CHUNK):
        part = np.minimum(np.arange(start, start + _CHUNK), len(phase) - 1)
        values.append(
            _mixture(places)(
                plan, *(_f32(x) for x in (rotations[part], factors[part], shifts[part])),
                phase[part].astype(np.int32), *(_f32(x) for x in (observed, errors)), real,
                [_f32(x) for x in box], np.float32(max_excitation_error),
            )
        )  # fmt: skip
    return np.concatenate([np.asarray(v, np.float64) for v in values])[: len(phase)]


def log_prior(
    lattices: list[Lattice], phase: np.ndarray, rotations: np.ndarray, factors: np.ndarray, *, scale_error: float
) -> np.ndarray:
    """What the evidence adds to ln L: float64 [H]; ``scale_error`` is the standard deviation of ln f."""
    value = -0.5 * (np.log(factors) / scale_error) ** 2
    cap = 0.5 * (1 - np.cos(np.deg2rad(ZONE_RADIUS_DEG)))  # share of all directions
    for number in np.unique(phase):
        known, rows = lattices[number], np.flatnonzero(phase == number)
        directions, weights = _zones(known)
        near = rotations[rows, 2] @ directions.T > np.cos(np.deg2rad(ZONE_RADIUS_DEG))
        density = (1 - ZONE_SHARE) + ZONE_SHARE * (near @ weights) / cap
        value[rows] += np.log(len(known.rotations) * density)
    return value


def _zones(known):
    """Unit vectors [D, 3] of all zone axes with small indices, and their shares [D], equal for every family."""
    n = np.arange(-2, 3)
    uvw = np.stack(np.meshgrid(n, n, n, indexing="ij"), axis=-1).reshape(-1, 3)
    uvw = uvw[np.gcd.reduce(np.abs(uvw), axis=1) == 1]
    directions = uvw @ known.vectors
    directions /= np.linalg.norm(directions, axis=1, keepdims=True)
    images = np.einsum("di,sij,ej->sde", directions, known.rotations, directions).max(0) > 1 - 1e-9
    size = (images | images.T).sum(1)  # members of the family of each
    families = (1 / size).sum()
    return directions, 1 / size / families


@functools.cache
def _mixture(num_spots):
    """The compiled program for a number of places."""

    def program(plan, rotations, factors, shifts, phase, observed, errors, real, box, s_max):
        found = kinematic.spots(plan, rotations, max_excitation_error=s_max, num_spots=num_spots, phase=phase)
        one = functools.partial(_one, observed=observed, errors=errors, real=real, box=box)
        return jax.vmap(one)(found.positions, found.intensities, found.mask, factors, shifts)

    return jax.jit(program)


def _one(places: Array, intensities: Array, mask: Array, factor, shift, *, observed, errors, real, box):
    """Logarithm ln L of one hypothesis, []."""
    corners, inner, outer, area = box
    # Products of small matrices written out: exact in float32 on every device.
    moved = factor * (observed[:, :1] * shift[None, 0] + observed[:, 1:] * shift[None, 1] + shift[None, 2])
    seen = places / factor
    radius = jnp.sqrt((seen**2).sum(-1))
    inside = mask & (radius > inner) & (radius < outer)
    inside &= (seen > corners[None, :2]).all(-1) & (seen < corners[None, 2:]).all(-1)
    weight = jnp.where(inside, jnp.where(inside, intensities, 1.0) ** EXPONENT, 0.0)
    weight = weight / jnp.maximum(weight.sum(), 1e-30)
    squared = ((moved[:, None] - places[None]) ** 2).sum(-1) / (factor * errors[:, None]) ** 2
    density = (weight[None] * jnp.exp(-0.5 * squared)).sum(-1) / (2 * jnp.pi * errors**2)
    return jnp.where(real, jnp.log(OUTLIERS + (1 - OUTLIERS) * area * density), 0.0).sum()


def _single(plan):
    """A plan in float32, whatever the precision of the host, in one of few lengths."""
    rows = -plan.hkl.shape[1] % _PLAN_ROWS
    plan = plan._replace(
        hkl=np.pad(plan.hkl, ((0, 0), (0, rows), (0, 0))),
        structure_factors=np.pad(plan.structure_factors, ((0, 0), (0, rows))),
    )
    return plan._replace(
        **{name: _f32(getattr(plan, name)) for name in ("structure_factors", "basis", "wave_number", "coupling")}
    )


def _f32(x):
    return np.asarray(x, np.float32)
