"""Orientations that two spots of a pattern allow: the geometry behind the indexing of single crystals; on the host.

A spot at (q_x, q_y) comes from a reciprocal lattice vector on the Ewald sphere, g_lab = (q_x, q_y, -q^2 / 2K) up to
its excitation error. Two vectors of the crystal with the lengths of two spots and the angle between them fix the
orientation R (g_lab = R g), whether the beam is near a zone axis or not. All such pairs are listed, the first vector
once per class of the Laue group's rotations. A common scale error of the image changes both lengths and neither their
ratio nor the angle, so it may be larger than those.

Every orientation is then tried on all spots: R^T takes each to the crystal, where the nearest lattice point is a matter
of rounding.
"""

from typing import NamedTuple

import numpy as np

from physml_jax.simulators.diffraction import orientations
from physml_jax.simulators.diffraction.compaction import WORD
from physml_jax.simulators.diffraction.crystal import Crystal
from physml_jax.simulators.diffraction.reflections import Reflections, reflections

#: Structure factor of reflections that only double diffraction shows, as a share of the largest.
FORBIDDEN = 0.02
#: Reflections below this share do not start a search.
_SEED = 0.05


class Lattice(NamedTuple):
    """What indexing needs of one crystal, NumPy float64.

    Attributes:
      plan: its reflections. Those that only double diffraction shows are included with ``FORBIDDEN`` of the largest
        structure factor; what the centring of the lattice forbids is not there: no sum of reflections reaches it.
      vectors: [3, 3], rows a, b, c in the Cartesian frame.
      rotations: [m, 3, 3], proper rotations of the Laue class.
      allowed: bool [m], of the rows of the plan: not forbidden by the structure.
      representative: bool [m], rows of the plan, one of each class under ``rotations``.
    """

    plan: Reflections
    vectors: np.ndarray
    rotations: np.ndarray
    allowed: np.ndarray
    representative: np.ndarray


class PatternSpots(NamedTuple):
    """Spots as indexing sees them.

    Attributes:
      positions: [N, 2], (g_x, g_y) from the centre in 1/angstrom, y up.
      errors: [N], standard deviation of either coordinate, 1/angstrom.
      intensities: [N].
      significance: [N], see ``peak_finding.Peaks``.
    """

    positions: np.ndarray
    errors: np.ndarray
    intensities: np.ndarray
    significance: np.ndarray


def lattice(crystal: Crystal, *, max_g: float, voltage_kv: float) -> Lattice:
    """Lists the reflections and symmetry of a crystal for ``orientations_of_pairs``.

    Args:
      crystal: arrays on the host.
      max_g: largest length of g, 1/angstrom.
      voltage_kv: accelerating voltage.

    Raises:
      ValueError: as ``reflections``.
    """
    plan = reflections(crystal, max_g=max_g, voltage_kv=voltage_kv, min_factor=0.0, dtype="float64")
    hkl, factors = plan.hkl[: int(plan.count)], plan.structure_factors[: int(plan.count)]
    identity = (np.asarray(crystal.rotations) == np.eye(3, dtype=int)).all((1, 2))
    phases = hkl @ np.asarray(crystal.translations)[identity].T
    centred = (np.abs(phases - np.round(phases)) < 1e-3).all(1)
    hkl, factors = hkl[centred], factors[centred]
    floor = FORBIDDEN * factors.max()
    allowed = factors > 1e-4 * factors.max()
    vectors = np.linalg.inv(plan.basis).T
    rotations = orientations.laue_rotations(crystal)
    padding = -len(hkl) % WORD
    plan = plan._replace(
        hkl=np.pad(hkl, ((0, padding), (0, 0))),
        structure_factors=np.pad(np.hypot(factors, np.where(allowed, 0.0, floor)), (0, padding)),
        count=np.asarray(len(hkl), np.int32),
    )
    return Lattice(plan, vectors, rotations, allowed, _representatives(hkl, rotations, vectors, plan.basis))


def orientations_of_pairs(
    spots: PatternSpots,
    known: Lattice,
    *,
    scale_tolerance: float = 0.03,
    distortion: float = 0.03,
    num_pairs: int = 10,
    max_found: int = 20000,
) -> tuple[np.ndarray, np.ndarray]:
    """All orientations that explain at least one of several pairs of spots.

    Args:
      spots: of a pattern.
      known: of ``lattice``.
      scale_tolerance: largest relative error of the scale.
      distortion: largest relative change of a length against the other, and 0.7 of that of the angle in radians.
      num_pairs: pairs of short, significant spots that are tried.
      max_found: candidates with the best agreement of ratio and angle, per pair.

    Returns:
      Rotations float64 [C, 3, 3], and factors [C] by which the positions must be multiplied to fit the lattice.
    """
    wave_number, count = float(known.plan.wave_number), int(known.plan.count)
    g = known.plan.hkl[:count] @ known.plan.basis
    length = np.linalg.norm(g, axis=1)
    strong = known.allowed & (known.plan.structure_factors[:count] > _SEED * known.plan.structure_factors.max())
    found, factors = [np.zeros((0, 3, 3))], [np.zeros(0)]
    vectors = on_sphere(spots.positions, wave_number)
    for i, j in base_pairs(spots, num_pairs):
        q, r = vectors[i], vectors[j]
        a, b = np.linalg.norm(q), np.linalg.norm(r)
        blur = 3 * np.hypot(spots.errors[i] / a, spots.errors[j] / b)
        first = np.flatnonzero(strong & known.representative & (np.abs(np.log(length / a)) < scale_tolerance + blur))
        second = np.flatnonzero(strong & (np.abs(np.log(length / b)) < scale_tolerance + blur))
        if not len(first) or not len(second):
            continue
        ratio = np.log(length[second][None] / length[first][:, None]) - np.log(b / a)
        cosine = (g[first] @ g[second].T) / (length[first][:, None] * length[second][None])
        angle = np.arccos(np.clip(cosine, -1, 1)) - np.arccos(np.clip(q @ r / (a * b), -1, 1))
        wrong = np.maximum(np.abs(ratio) / (distortion + blur), np.abs(angle) / (0.7 * distortion + blur))
        rows, columns = np.nonzero(wrong < 1)
        kept = np.argsort(wrong[rows, columns], kind="stable")[:max_found]
        u, v = g[first[rows[kept]]], g[second[columns[kept]]]
        found.append(_frames(q[None], r[None]) @ _frames(u, v).swapaxes(1, 2))
        factors.append((np.linalg.norm(u, axis=1) + np.linalg.norm(v, axis=1)) / (a + b))
    return np.concatenate(found), np.concatenate(factors)


def base_pairs(spots: PatternSpots, num_pairs: int) -> list[tuple[int, int]]:
    """Pairs of spots to start from: strong, short and far from collinear."""
    length = np.linalg.norm(spots.positions, axis=1)
    order = np.argsort(length / np.log1p(spots.significance), kind="stable")[:16]
    pairs = []
    for rank, i in enumerate(order):
        for j in order[rank + 1 :]:
            (x, y), (u, v) = spots.positions[i], spots.positions[j]
            cross = (x * v - y * u) / (length[i] * length[j])
            # An error of the angle weighs by one over the sine.
            if abs(cross) > 0.25:
                worth = np.log1p(spots.significance[[i, j]]).prod() * abs(cross) / (length[i] * length[j])
                pairs.append((-worth, int(i), int(j)))
    chosen, used = [], {}
    for _, i, j in sorted(pairs):
        # No single spot may lead the whole search astray.
        if max(used.get(i, 0), used.get(j, 0)) < max(3, num_pairs // 3):
            chosen.append((i, j))
            used[i], used[j] = used.get(i, 0) + 1, used.get(j, 0) + 1
        if len(chosen) == num_pairs:
            break
    return chosen


def on_sphere(positions: np.ndarray, wave_number: float) -> np.ndarray:
    """Points [N, 3] of the Ewald sphere above places [N, 2] of a pattern, 1/angstrom."""
    q = (positions**2).sum(-1)
    return np.concatenate([positions, -(q / (wave_number + np.sqrt(wave_number**2 - q)))[..., None]], axis=-1)


def fit_of_lattice(
    spots: PatternSpots,
    known: Lattice,
    rotations: np.ndarray,
    factors: np.ndarray,
    *,
    max_excitation_error: float,
) -> np.ndarray:
    """How well the lattice points nearest the spots agree with them: a fast score of many orientations.

    Args:
      spots: of a pattern.
      known: of ``lattice``.
      rotations: [C, 3, 3].
      factors: [C], see ``orientations_of_pairs``.
      max_excitation_error: 1/angstrom.

    Returns:
      float64 [C], sum over the spots of 0 to 1.
    """
    count = int(known.plan.count)
    hkl = known.plan.hkl[:count]
    reach = np.abs(hkl).max(0)
    share = known.plan.structure_factors[:count] / known.plan.structure_factors.max()
    table = np.zeros(2 * reach + 1)
    table[tuple((hkl + reach).T)] = share**0.3
    points = on_sphere(spots.positions, float(known.plan.wave_number))
    score = np.zeros(len(rotations))
    for start in range(0, len(rotations), 4096):
        part = slice(start, start + 4096)
        scaled = points[None] * factors[part, None, None]
        index = scaled @ (rotations[part] @ known.vectors.T)
        nearest = np.round(index)
        gap = (nearest - index) @ (known.plan.basis @ rotations[part].swapaxes(1, 2))
        inside = (np.abs(nearest) <= reach).all(-1)
        places = np.where(inside[..., None], nearest + reach, 0).astype(int)
        shown = np.where(inside, table[tuple(np.moveaxis(places, -1, 0))], 0.0)
        off = (gap[..., :2] ** 2).sum(-1) / (9 * spots.errors**2)
        near = np.maximum(0.0, 1.0 - off) * np.maximum(0.0, 1.0 - np.abs(gap[..., 2]) / max_excitation_error)
        score[part] = (shown * near).sum(1)
    return score


def distinct(rotations: np.ndarray, symmetry: np.ndarray, *, angle_deg: float) -> np.ndarray:
    """Rows of orientations that no earlier one is equivalent to within an angle.

    Args:
      rotations: [C, 3, 3], the best first.
      symmetry: [m, 3, 3], rotations of the Laue class.
      angle_deg: degrees.

    Returns:
      int [D].
    """
    limit, kept = 1 + 2 * np.cos(np.deg2rad(angle_deg)), []
    for i, rotation in enumerate(rotations):
        if not kept or misorientation_trace(rotations[kept], rotation, symmetry).max() < limit:
            kept.append(i)
    return np.array(kept, int)


def misorientation_trace(rotations: np.ndarray, rotation: np.ndarray, symmetry: np.ndarray) -> np.ndarray:
    """The largest trace of R_i^T R S over the symmetry S, 1 + 2 cos(angle): float [C]."""
    return np.einsum("cij,sij->cs", rotations, rotation @ symmetry).max(1)


def _representatives(hkl, rotations, vectors, basis):
    """Whether each row is the largest, in the order of its indices, of the vectors that symmetry makes of it."""
    parts = np.round(np.einsum("ia,sab,jb->sij", basis, rotations, vectors)).astype(int)
    base = 4 * np.abs(hkl).max() + 1
    weights = np.array([base**2, base, 1])
    largest = (np.einsum("ni,sij->snj", hkl, parts) @ weights).max(0)
    return hkl @ weights == largest


def _frames(a, b):
    """Right-handed frames [C, 3, 3] (columns) that treat two directions alike."""
    a, b = (x / np.linalg.norm(x, axis=-1, keepdims=True) for x in (a, b))
    first, second = a + b, a - b
    first, second = (x / np.linalg.norm(x, axis=-1, keepdims=True) for x in (first, second))
    return np.stack([first, second, np.cross(first, second)], axis=-1)
