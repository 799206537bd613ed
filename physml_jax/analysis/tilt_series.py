r"""Several patterns of one crystal on a holder that turns about one axis: axis, angles, and which hypothesis of each.

With g_lab = R g, a turn of the crystal by the angle a about the lab's direction n takes R to Rot(n, a) R. The pattern
of one orientation has several explanations, by symmetry and by chance, but those of several patterns must differ by
turns about one axis. With the unit quaternion (w, v) of D = R_r S R_0^T, S a rotation of the Laue class, the turn about
n that is nearest to D has a = 2 arctan(v . n / w) and misses it by 2 arccos sqrt(w^2 + (v . n)^2). The sum of ln L,
less the squares of what is missed, decides among all axes that two orientations propose; then axis and orientations are
fitted by least squares in turn.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from scipy.spatial.transform import Rotation

from physml_jax.analysis.indexing import Hypothesis
from physml_jax.analysis.pattern_likelihood import View, log_likelihood
from physml_jax.analysis.spot_geometry import Lattice, PatternSpots


class TiltSeries(NamedTuple):
    """Axis and angles of a series.

    Attributes:
      axis: [3], unit vector in the lab, x component positive.
      angles_deg: [P], turn of each pattern's crystal from the reference's, counterclockwise about ``axis``; NaN where
        no hypothesis fits.
      rotations: [P, 3, 3], the orientation of each pattern as its own hypothesis has it, of the equivalent ones the
        one that fits; NaN where none does.
      deviations_deg: [P], what the turn about the axis misses of it; NaN where none fits.
      chosen: int [P], number of the hypothesis of each pattern, -1 where none fits.
      reference: number of the pattern that the angles count from.
    """

    axis: np.ndarray
    angles_deg: np.ndarray
    rotations: np.ndarray
    deviations_deg: np.ndarray
    chosen: np.ndarray
    reference: int


def tilt_series(
    hypotheses: Sequence[Sequence[Hypothesis]],
    symmetry: np.ndarray,
    *,
    max_deviation_deg: float = 3.0,
    error_deg: float = 1.0,
    max_slope: float = 0.15,
) -> TiltSeries:
    """Finds the common axis of a tilt series and the angles.

    Args:
      hypotheses: of each pattern, all of one crystal, from ``index_spots`` with ``merge=False``.
      symmetry: [m, 3, 3], rotations of its Laue class.
      max_deviation_deg: a pattern that misses the common axis by more is left out.
      error_deg: standard deviation of an orientation.
      max_slope: largest component of the axis along the beam.

    Returns:
      ``TiltSeries``.

    Raises:
      ValueError: for fewer than two patterns with hypotheses, or no common axis.
    """
    usable = [p for p, found in enumerate(hypotheses) if found]
    if len(usable) < 2:
        raise ValueError(f"hypotheses: expected at least two patterns that are indexed, got {len(usable)}")
    value = [np.array([h.log_likelihood for h in found]) for found in hypotheses]
    best = (-np.inf, None, None, None)
    # Each pattern may be the one that no hypothesis explains, so none is trusted to be the reference.
    for reference in usable:
        others = [p for p in usable if p != reference]
        for number, h in enumerate(hypotheses[reference]):
            turns = {p: _turns(hypotheses[p], symmetry, h.rotation) for p in others}
            axes = _axes(np.concatenate(list(turns.values())), max_slope)
            score = np.full(len(axes), value[reference][number])
            for p in others:
                fair = _scores(turns[p], axes, value[p], symmetry, max_deviation_deg, error_deg)
                # A pattern that fits no hypothesis costs nothing and gains nothing.
                score += np.maximum(fair, 0.0).max(0, initial=0.0)
            if len(axes) and score.max() > best[0]:
                best = (score.max(), reference, number, axes[int(np.argmax(score))])
    if best[1] is None:
        raise ValueError(
            f"hypotheses: no two patterns differ by a turn about an axis across the beam (slope below {max_slope:g})"
        )
    _, reference, number, axis = best
    return _fit(hypotheses, value, symmetry, reference, number, axis, max_deviation_deg, error_deg)


def angle_on_axis(
    series: TiltSeries,
    spots: PatternSpots,
    known: Lattice,
    view: View,
    *,
    limits_deg: tuple[float, float] = (-70.0, 70.0),
    step_deg: float = 0.25,
    max_excitation_error: float = 0.03,
) -> tuple[float, float, np.ndarray]:
    """The angle of a pattern that alone has too few spots for an orientation, such as a single row.

    Args:
      series: of ``tilt_series``, from other patterns of the crystal.
      spots: of the pattern.
      known: of ``spot_geometry.lattice``.
      view: of the pattern.
      limits_deg: of the search, from the reference of the series.
      step_deg: of the search.
      max_excitation_error: 1/angstrom.

    Returns:
      The most probable angle in degrees from the reference, ln L there, and ln L of all angles of the search.
    """
    angles = np.arange(limits_deg[0], limits_deg[1] + 0.5 * step_deg, step_deg)
    base = series.rotations[series.reference]
    turned = Rotation.from_rotvec(np.deg2rad(angles)[:, None] * series.axis).as_matrix() @ base
    value = log_likelihood(
        spots, [known], np.zeros(len(angles), int), turned, np.ones(len(angles)), view,
        max_excitation_error=max_excitation_error,
    )  # fmt: skip
    best = int(np.argmax(value))
    return float(angles[best]), float(value[best]), value


def _fit(hypotheses, value, symmetry, reference, number, axis, max_deviation_deg, error_deg):
    """Axis and orientation of the reference by least squares in turn; hypotheses are chosen again every time."""
    base = hypotheses[reference][number].rotation
    for _ in range(20):
        chosen, rotations = np.full(len(hypotheses), -1), np.full((len(hypotheses), 3, 3), np.nan)
        angles, missed = (np.full(len(hypotheses), np.nan) for _ in range(2))
        parts, back = [], []
        for p, found in enumerate(hypotheses):
            if not found:
                continue
            turns = _turns(found, symmetry, base)
            off = _missed(turns, axis[None])[:, 0]
            score = _scores(turns, axis[None], value[p], symmetry, max_deviation_deg, error_deg)[:, 0]
            if p == reference:
                score[np.arange(len(score)) // len(symmetry) != number] = -np.inf
            k = int(np.argmax(score))
            if not np.isfinite(score[k]):
                continue
            chosen[p] = k // len(symmetry)
            rotations[p] = found[chosen[p]].rotation @ symmetry[k % len(symmetry)]
            angles[p] = _wrapped(2 * np.arctan2(turns[k, 1:] @ axis, turns[k, 0]))
            missed[p] = off[k]
            parts.append(turns[k, 1:])
            back.append(Rotation.from_rotvec(-angles[p] * axis).as_matrix() @ rotations[p])
        u, _, vt = np.linalg.svd(np.sum(back, axis=0))
        base = u @ np.diag([1, 1, np.linalg.det(u @ vt)]) @ vt
        parts = np.array(parts)
        axis = np.linalg.eigh(parts.T @ parts)[1][:, -1]
        axis = axis * np.sign(axis[0] if axis[0] else axis[1])
    angles = angles - angles[reference]
    return TiltSeries(axis, np.rad2deg(angles), rotations, np.rad2deg(missed), chosen, reference)


def _turns(hypotheses, symmetry, base):
    """Quaternions (w, x, y, z) with w >= 0, [H m, 4], of R S base^T."""
    rotations = np.stack([h.rotation for h in hypotheses])
    turned = (rotations[:, None] @ symmetry[None] @ base.T).reshape(-1, 3, 3)
    return np.roll(Rotation.from_matrix(turned).as_quat(canonical=True), 1, axis=1)


def _axes(turns, max_slope):
    """Directions [A, 3] of turns by 2 to 90 degrees that are nearly across the beam."""
    size = np.linalg.norm(turns[:, 1:], axis=1)
    kept = (size > np.sin(np.deg2rad(1.0))) & (size < np.sin(np.deg2rad(45.0)))
    axes = turns[kept, 1:] / size[kept, None]
    return axes[np.abs(axes[:, 2]) <= max_slope]


def _scores(turns, axes, value, symmetry, max_deviation_deg, error_deg):
    """The logarithm of L of every turn less what it misses of each axis [T, A]; minus infinity beyond the limits."""
    missed = _missed(turns, axes)
    fair = np.repeat(value, len(symmetry))[:, None] - 0.5 * (missed / np.deg2rad(error_deg)) ** 2
    # No holder turns by more than a right angle.
    fits = (missed < np.deg2rad(max_deviation_deg)) & (turns[:, :1] > np.cos(np.deg2rad(45.0)))
    return np.where(fits, fair, -np.inf)


def _missed(turns, axes):
    """Angle in radians that turns [T, 4] have beside the nearest turn about axes [A, 3]: [T, A]."""
    along = turns[:, 1:] @ axes.T
    return 2 * np.arccos(np.clip(np.sqrt(turns[:, :1] ** 2 + along**2), 0, 1))


def _wrapped(angle):
    return (angle + np.pi) % (2 * np.pi) - np.pi
