"""Indexing of single-crystal diffraction patterns: which crystal, in which orientation, explains the spots.

Pairs of spots propose orientations (``spot_geometry``), a likelihood against chance ranks them
(``pattern_likelihood``), least squares through the kinematic simulator refines the best (``pattern_refinement``), and
the refined ones are ranked again. Hypotheses are compared by their evidence E. Two are not told apart if their ln E
differ by less than ``UNDECIDED``; a pattern is explained by none if the best gains less over chance than the number of
orientations that were tried lets one expect.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from physml_jax.analysis import pattern_likelihood as likelihood
from physml_jax.analysis.pattern_likelihood import View
from physml_jax.analysis.pattern_refinement import Priors, refine
from physml_jax.analysis.spot_geometry import (
    Lattice,
    PatternSpots,
    distinct,
    fit_of_lattice,
    lattice,
    misorientation_trace,
    orientations_of_pairs,
)
from physml_jax.simulators.diffraction.crystal import Crystal

#: Difference of ln E below which two hypotheses count as equally good: odds of 20 to 1.
UNDECIDED = 3.0
#: Orientations of one phase that the fast score passes on, and hypotheses of all phases that are refined.
_PASSED, _REFINED_IN_ALL = 48, 32
#: Largest index of a direction that is looked for near the beam when the spots do not lie in one zone.
_MAX_INDEX = 6


class Hypothesis(NamedTuple):
    """A crystal in an orientation that explains spots of a pattern. Arrays have a row per observed spot.

    Attributes:
      phase: number of the crystal.
      rotation: [3, 3], crystal to lab, g_lab = R g; of the equivalent ones the one with the most positive zone axis.
      zone: direction [uvw] of the crystal that the matched reflections are at right angles to; if they are not in one
        zone, a direction with small indices near the beam.
      in_zone: which of the two.
      tilt_deg: angle between ``zone`` and the beam.
      factor: true scale over the given one.
      shift: [2], of the centre, 1/angstrom, y up.
      ellipticity: [2], see ``pattern_refinement``.
      width: of the Lorentzian of excitation errors, 1/angstrom.
      errors: [10], standard errors, see ``pattern_refinement.Refined``.
      hkl: int [N, 3], indices of the spots, zeros where not matched.
      matched: bool [N].
      predicted: [N, 2], positions of the matched spots in units of the observed ones.
      excitation_errors: [N], 1/angstrom.
      residual: root mean square distance of matched spots from their prediction, 1/angstrom.
      explained: share of the observed intensity in matched spots.
      seen: share of the predicted strong spots in view (a tenth of the strongest or more) that were observed.
      evidence: ln E.
      log_likelihood: ln L.
    """

    phase: int
    rotation: np.ndarray
    zone: tuple[int, int, int]
    in_zone: bool
    tilt_deg: float
    factor: float
    shift: np.ndarray
    ellipticity: np.ndarray
    width: float
    errors: np.ndarray
    hkl: np.ndarray
    matched: np.ndarray
    predicted: np.ndarray
    excitation_errors: np.ndarray
    residual: float
    explained: float
    seen: float
    evidence: float
    log_likelihood: float


class Indexing(NamedTuple):
    """The answer for one pattern.

    Attributes:
      hypotheses: ranked by evidence, one per phase and zone (or orientation, off zones).
      undecided: number of hypotheses, from the first, that are equally good by ``UNDECIDED``.
      significant: the first explains the spots better than chance among ``num_tested`` orientations would.
      num_tested: orientations that pairs of spots proposed, all phases together.
    """

    hypotheses: tuple[Hypothesis, ...]
    undecided: int
    significant: bool
    num_tested: int


def index_spots(
    spots: PatternSpots,
    crystals: Sequence[Crystal],
    view: View,
    *,
    voltage_kv: float = 200.0,
    priors: Priors,
    max_excitation_error: float = 0.03,
    keep: int = 12,
    merge: bool = True,
    num_refined: int = 6,
) -> Indexing:
    """Finds the crystal and the orientation that explain a pattern.

    Args:
      spots: without the direct beam, relative to the centre.
      crystals: candidate phases, arrays on the host.
      view: the field of view.
      voltage_kv: accelerating voltage.
      priors: how far scale, centre and ellipticity may be off; the search tolerates three times ``priors.scale``.
      max_excitation_error: of spots that are seen, 1/angstrom.
      keep: hypotheses to return.
      merge: one hypothesis per phase and zone; otherwise also those that differ by half a turn of the pattern.
      num_refined: hypotheses of one phase that are refined.

    Returns:
      ``Indexing``, without hypotheses if no pair of spots fits any crystal.

    Raises:
      ValueError: for fewer than three spots, spots on one line, no crystal, or a crystal that the simulator refuses.
    """
    if not crystals:
        raise ValueError("crystals: expected at least one candidate, got none")
    check_spots(spots)
    max_g = 1.05 * np.exp(3 * priors.scale) * np.linalg.norm(spots.positions, axis=1).max()
    lattices = [lattice(c, max_g=max_g, voltage_kv=voltage_kv) for c in crystals]
    blurred = spots._replace(errors=np.hypot(spots.errors, 0.012 * np.linalg.norm(spots.positions, axis=1)))
    phase, rotations, factors, tested = _propose(blurred, lattices, priors, max_excitation_error)
    if not len(phase):
        return Indexing((), 0, False, tested)
    value = likelihood.log_likelihood(
        blurred, lattices, phase, rotations, factors, view, max_excitation_error=max_excitation_error
    )
    value = value + likelihood.log_prior(lattices, phase, rotations, factors, scale_error=priors.scale)
    order = np.argsort(-value, kind="stable")
    rank = np.array([np.sum(phase[order[:i]] == phase[k]) for i, k in enumerate(order)])
    order = order[rank < num_refined][:_REFINED_IN_ALL]
    found = _refined(
        spots, lattices, view, phase[order], rotations[order], factors[order], priors, max_excitation_error
    )
    ranked = _ranked(found, lattices, merge)[:keep]
    if not ranked:
        return Indexing((), 0, False, tested)
    undecided = sum(h.evidence > ranked[0].evidence - UNDECIDED for h in ranked)
    significant = ranked[0].log_likelihood > np.log(max(tested, 1)) + UNDECIDED
    return Indexing(tuple(ranked), int(undecided), bool(significant), tested)


def check_spots(spots: PatternSpots) -> None:
    """Raises ValueError where spots cannot decide an orientation."""
    if len(spots.positions) < 3:
        raise ValueError(f"spots: expected at least 3 beside the direct beam, found {len(spots.positions)}")
    q = spots.positions[np.argsort(-np.linalg.norm(spots.positions, axis=1))]
    across = np.abs(q @ np.linalg.svd(q)[2][1])
    if across.max() < 4 * np.median(spots.errors):
        raise ValueError("spots: they lie on one line through the centre, which leaves the orientation open")


def _propose(spots, lattices, priors, max_excitation_error):
    """Candidates of all phases: numbers, rotations, factors; and how many pairs were tried."""
    phases, rotations, factors, tested = [], [], [], 0
    for number, known in enumerate(lattices):
        turned, scaled = orientations_of_pairs(spots, known, scale_tolerance=max(0.01, 3 * priors.scale))
        tested += len(turned)
        score = fit_of_lattice(spots, known, turned, scaled, max_excitation_error=max_excitation_error)
        order = np.argsort(-score, kind="stable")[: 12 * _PASSED]
        order = order[distinct(turned[order], known.rotations, angle_deg=1.5)][:_PASSED]
        phases.append(np.full(len(order), number))
        rotations.append(turned[order])
        factors.append(scaled[order])
    return *(np.concatenate(x) for x in (phases, rotations, factors)), tested


def _refined(spots, lattices, view, phase, rotations, factors, priors, max_excitation_error):
    """Matches and refines, twice: with better parameters further spots match."""
    affine = np.broadcast_to(np.eye(3, 2), (len(phase), 3, 2))
    fits = [(rotations[i], factors[i], affine[i], 1.5 * max_excitation_error) for i in range(len(phase))]
    for blur in (0.012, 0.005, 0.0):
        wide = spots._replace(errors=np.hypot(spots.errors, blur * np.linalg.norm(spots.positions, axis=1)))
        pairs = [match(wide, lattices[p], view, *fit) for p, fit in zip(phase, fits, strict=True)]
        hkl, structure, matched, allowed = (np.stack(x) for x in zip(*pairs, strict=True))
        found = refine(
            [lattices[p].plan for p in phase], hkl, structure, matched, rotations, factors,
            spots.positions, wide.errors, spots.intensities, priors=priors, use_intensities=allowed,
        )  # fmt: skip
        affine = np.stack([undistorted(s, e) for s, e in zip(found.shifts, found.ellipticity, strict=True)])
        limit = np.clip(1.5 * found.width, max_excitation_error, 2 * max_excitation_error)
        fits = list(zip(found.rotations, found.factors, affine, limit, strict=True))
        rotations, factors = found.rotations, found.factors
    value = likelihood.log_likelihood(
        spots, lattices, phase, rotations, factors, view,
        max_excitation_error=max_excitation_error, distortions=affine,
    )  # fmt: skip
    evidence = value + likelihood.log_prior(lattices, phase, rotations, factors, scale_error=priors.scale)
    if priors.ellipticity:
        evidence -= 0.5 * ((found.ellipticity / priors.ellipticity) ** 2).sum(1)
    total, hypotheses = spots.intensities.sum(), []
    for i, p in enumerate(phase):
        ok = matched[i]
        if ok.sum() < 3:
            continue
        off = np.linalg.norm(found.predicted[i] - spots.positions, axis=1)[ok]
        rotation, zone, in_zone, indices = _standard(lattices[p], rotations[i], hkl[i], ok)
        direction = np.array(zone) @ lattices[p].vectors
        cosine = rotation[2] @ direction / np.linalg.norm(direction)
        hypotheses.append(
            Hypothesis(
                phase=int(p), rotation=rotation, zone=zone, in_zone=in_zone,
                tilt_deg=float(np.rad2deg(np.arccos(np.clip(cosine, -1, 1)))),
                factor=float(factors[i]), shift=found.shifts[i], ellipticity=found.ellipticity[i],
                width=float(found.width[i]), errors=found.errors[i], hkl=indices, matched=ok,
                predicted=found.predicted[i], excitation_errors=found.excitation_errors[i],
                residual=float(np.sqrt((off**2).mean())), explained=float(spots.intensities[ok].sum() / total),
                seen=_seen(spots, lattices[p], view, rotations[i], factors[i], affine[i], max_excitation_error),
                evidence=float(evidence[i]), log_likelihood=float(value[i]),
            )
        )  # fmt: skip
    return hypotheses


def predicted_spots(
    known: Lattice, view: View, rotation: np.ndarray, factor: float, affine: np.ndarray, max_excitation_error: float
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Rows of the plan that a hypothesis puts in view, their places in units of the observed ones, and weights.

    Args:
      known: of ``spot_geometry.lattice``.
      view: the field of view.
      rotation: [3, 3], crystal to lab.
      factor: see ``Hypothesis``.
      affine: [3, 2], takes observed places (x, y, 1) to those of an undistorted, centred pattern.
      max_excitation_error: 1/angstrom.

    Returns:
      int [K]; float64 [K, 2]; float64 [K], F^2 S(s).
    """
    count, wave_number = int(known.plan.count), float(known.plan.wave_number)
    g = (known.plan.hkl[:count] @ known.plan.basis) @ rotation.T
    q = (g[:, :2] ** 2).sum(1)
    s = -g[:, 2] - q / (wave_number + np.sqrt(wave_number**2 - q))
    places = (g[:, :2] / factor - affine[2]) @ np.linalg.inv(affine[:2])
    radius = np.linalg.norm(places, axis=1)
    inside = (np.abs(s) <= max_excitation_error) & (radius > view.inner) & (radius < view.outer)
    inside &= (places > view.low).all(1) & (places < view.high).all(1)
    rows = np.flatnonzero(inside)
    weight = known.plan.structure_factors[rows] ** 2 / (1 + (np.pi * s[rows] / max_excitation_error) ** 2)
    return rows, places[rows], weight


def match(spots, known, view, rotation, factor, affine, max_excitation_error):
    """The reflection of every spot: indices [N, 3], abs(F) [N], matched [N], and not forbidden by the structure [N].

    A spot belongs to the predicted one from which the mixture of ``pattern_likelihood`` most probably drew it, and is
    matched if that is more probable than an outlier and the spot is the nearest of those that belong there.
    """
    n = len(spots.positions)
    rows, places, weight = predicted_spots(known, view, rotation, factor, affine, max_excitation_error)
    hkl, structure = np.zeros((n, 3), np.int32), np.ones(n)
    matched, allowed = np.zeros(n, bool), np.zeros(n, bool)
    if not len(rows):
        return hkl, structure, matched, allowed
    share = weight**likelihood.EXPONENT
    squared = ((spots.positions[:, None] - places[None]) ** 2).sum(-1) / spots.errors[:, None] ** 2
    log_odds = np.log(share / share.sum())[None] - 0.5 * squared - np.log(2 * np.pi * spots.errors**2)[:, None]
    best = log_odds.argmax(1)
    certain = log_odds.max(1) + np.log(view.area * (1 - likelihood.OUTLIERS) / likelihood.OUTLIERS) > 0
    distance = squared[np.arange(n), best]
    for i in np.argsort(distance, kind="stable"):
        if certain[i] and not (best[matched] == best[i]).any():
            matched[i] = True
    chosen = rows[best[matched]]
    hkl[matched], structure[matched] = known.plan.hkl[chosen], known.plan.structure_factors[chosen]
    allowed[matched] = known.allowed[chosen]
    return hkl, structure, matched, allowed


def undistorted(shift, ellipticity):
    """The affine map [3, 2] of ``predicted_spots`` for refined parameters."""
    e1, e2 = ellipticity
    back = np.linalg.inv(np.array([[1 + e1, e2], [e2, 1 - e1]]))
    return np.concatenate([back, -(shift @ back)[None]])


def _seen(spots, known, view, rotation, factor, affine, max_excitation_error):
    """Share of the strong predicted spots that lie near an observed one."""
    _, places, weight = predicted_spots(known, view, rotation, factor, affine, max_excitation_error)
    if not len(weight):
        return 0.0
    strong = places[weight >= 0.1 * weight.max()]
    gap = np.linalg.norm(strong[:, None] - spots.positions[None], axis=-1) / spots.errors[None]
    return float((gap.min(1) < 4).mean())


def _standard(known, rotation, hkl, matched):
    """The equivalent orientation with the most positive zone axis, that axis, whether it is a zone, and the indices."""
    zone, in_zone = _zone_of(known, rotation, hkl[matched])
    parts = np.round(np.einsum("ia,sab,jb->sij", known.plan.basis, known.rotations, known.vectors)).astype(int)
    # Row vectors: hkl of R S^-1 is hkl @ parts, and directions transform with the inverse transpose.
    axes = np.array([np.linalg.solve(p, np.array(zone)) for p in parts]).round().astype(int)
    best = max(range(len(parts)), key=lambda i: (axes[i].min() >= 0, *axes[i][::-1], -i))
    return rotation @ known.rotations[best], tuple(axes[best].tolist()), in_zone, hkl @ parts[best]


def _zone_of(known, rotation, hkl):
    """The direction at right angles to the indices if they have one, else one near the beam with small indices."""
    n = np.arange(-_MAX_INDEX, _MAX_INDEX + 1)
    uvw = np.stack(np.meshgrid(n, n, n, indexing="ij"), axis=-1).reshape(-1, 3)
    uvw = uvw[np.gcd.reduce(np.abs(uvw), axis=1) == 1]
    directions = uvw @ known.vectors
    length = np.linalg.norm(directions, axis=1)
    angle = np.rad2deg(np.arccos(np.clip(directions @ rotation[2] / length, -1, 1)))
    share = (hkl @ uvw.T == 0).mean(0)
    # A row of spots is at right angles to many directions: the one near the beam with the smallest indices.
    cost = angle + 2 * length / length.min() - 100 * (share >= 0.9) * (angle < 12)
    best = int(np.argmin(cost))
    return tuple(uvw[best].tolist()), bool(share[best] >= 0.9)


def _ranked(hypotheses, lattices, merge):
    """By falling evidence, without what is the same crystal and zone, or the same orientation, as a better one."""
    kept = []
    for h in sorted(hypotheses, key=lambda h: -h.evidence):
        symmetry = lattices[h.phase].rotations
        for other in kept:
            if other.phase != h.phase:
                continue
            near = misorientation_trace(other.rotation[None], h.rotation, symmetry)[0] > 1 + 2 * np.cos(np.deg2rad(3.0))
            turned = np.diag([-1.0, -1.0, 1.0]) @ h.rotation
            half = misorientation_trace(other.rotation[None], turned, symmetry)[0] > 1 + 2 * np.cos(np.deg2rad(6.0))
            if near or (merge and half):
                break
        else:
            kept.append(h)
    return kept
