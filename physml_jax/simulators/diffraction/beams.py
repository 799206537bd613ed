"""Which beams and which tilts: the zero layer of a zone axis, its symmetry, the folded tilt grid, strong and weak
beams.

Everything here runs on the host in float64 and fixes shapes. Beams are integer pairs (p, q): g = p b1 + q b2 with b1,
b2 the two shortest independent reciprocal vectors of the zero layer that the lattice centring allows. Vectors are
written in the beam frame of ``crystal.beam_frame``, in 1/angstrom.
"""

from typing import NamedTuple

import jax
import numpy as np

from physml_jax.simulators.diffraction import crystal as geometry
from physml_jax.simulators.diffraction.crystal import Crystal


class ZeroLayer(NamedTuple):
    """The zero-order Laue zone of a zone axis as a two-dimensional lattice.

    Attributes:
      hkl: int [2, 3], Miller indices of b1, b2; |b1| <= |b2|.
      shortest: length of the shortest reciprocal vector that the centring alone allows, 1/angstrom.
      vectors: [2, 2], rows b1, b2 in the beam frame (x, y), 1/angstrom.
      rotations: [m, 2, 2], orthogonal matrices of the projected structure's point symmetry in the beam frame.
      inversion: [3] or ``None``: translation t of an operation that acts on the projection as r -> t - r, fractional.
      holz_hkl: int [3], Miller indices of a vector b3 from the origin to the first layer above.
      holz_shift: [3], b3 in the beam frame, 1/angstrom; its z is the spacing of the layers.
    """

    hkl: np.ndarray
    shortest: float
    vectors: np.ndarray
    rotations: np.ndarray
    inversion: np.ndarray | None
    holz_hkl: np.ndarray
    holz_shift: np.ndarray


def zero_layer(
    crystal: Crystal, zone_axis: tuple[int, int, int], *, azimuth_deg: float = 0.0, in_space: bool = False
) -> ZeroLayer:
    """The zero layer of ``zone_axis`` and the symmetry of the structure projected along it.

    Operations that keep the axis and those that reverse it both count: the zero layer sees the projection only.

    Args:
      crystal: arrays on the host; the symmetry operations are taken as given.
      zone_axis: integers u, v, w of the direct lattice.
      azimuth_deg: turns x and y of the beam frame about z, from x towards y.
      in_space: for beams of higher layers, which see the crystal itself: only operations that keep the axis count, only
        an inversion centre inverts, only the centring extinguishes.

    Raises:
      ValueError: if ``zone_axis`` is not three integers, not all zero.
    """
    axis = np.asarray(zone_axis)
    if axis.shape != (3,) or not np.any(axis) or not np.all(axis == np.round(axis)):
        raise ValueError(f"zone_axis: expected three integers, not all zero, got {zone_axis!r}")
    axis = axis.astype(int) // int(np.gcd.reduce(np.abs(axis.astype(int))))
    with jax.enable_x64(True):  # compiled: operation by operation this would take longer than all the rest
        vectors = jax.jit(_vectors)(np.asarray(crystal.cell, np.float64), axis.astype(np.float64), azimuth_deg)
    direct, reciprocal, frame = (np.asarray(v) for v in vectors)
    rotations, translations = np.asarray(crystal.rotations), np.asarray(crystal.translations, np.float64)
    centring = translations[(rotations == np.eye(3, dtype=int)).all(axis=(1, 2))]
    planar, inversion, shifts = [], None, []
    for rotation, translation in zip(rotations, translations, strict=True):
        if not (np.array_equal(rotation @ axis, axis) or np.array_equal(rotation @ axis, -axis)):
            continue
        in_frame = frame @ direct.T @ rotation @ reciprocal @ frame.T  # reciprocal is the inverse transpose of direct
        block = in_frame[:2, :2]
        if not _close(block @ block.T, np.eye(2), 1e-4):
            continue  # the cell's metric breaks the operation
        if _close(block, np.eye(2), 1e-6):
            shifts.append(translation)  # the projection repeats after this translation
        inverts = np.array_equal(rotation, -np.eye(3, dtype=int)) if in_space else _close(block, -np.eye(2), 1e-6)
        if inversion is None and inverts:
            inversion = translation
        if in_space and not np.array_equal(rotation @ axis, axis):
            continue
        if not any(_close(block, other, 1e-6) for other in planar):
            planar.append(block)
    lengths = np.linalg.norm(direct, axis=1)
    shortest = float(np.linalg.norm(_shortest_pair(reciprocal, lengths, axis, centring)[0] @ reciprocal))
    hkl = _shortest_pair(reciprocal, lengths, axis, centring if in_space else np.array(shifts))
    holz = _next_layer(reciprocal @ frame.T, axis, centring)
    plane = (hkl @ reciprocal @ frame.T)[:, :2]
    return ZeroLayer(hkl, shortest, plane, np.array(planar), inversion, holz, holz @ reciprocal @ frame.T)


def _vectors(cell, axis, azimuth_deg):
    frame = geometry.beam_frame(cell, axis, azimuth_deg=azimuth_deg)
    return geometry.lattice_vectors(cell), geometry.reciprocal_vectors(cell), frame


def _next_layer(vectors: np.ndarray, axis: np.ndarray, centring: np.ndarray) -> np.ndarray:
    """Miller indices with the smallest positive h.u that the centring allows, the shortest across the axis."""
    size = max(2, int(np.abs(axis).max()))
    n = np.arange(-size, size + 1)
    hkl = np.stack(np.meshgrid(n, n, n, indexing="ij"), axis=-1).reshape(-1, 3)
    turns = hkl @ centring.T
    layer = hkl @ axis
    hkl = hkl[(np.abs(turns - np.round(turns)) < 1e-4).all(axis=1) & (layer > 0)]
    across = np.linalg.norm((hkl @ vectors)[:, :2], axis=1)
    order = np.lexsort((-hkl[:, 2], -hkl[:, 1], -hkl[:, 0], np.round(across, 6), hkl @ axis))
    return hkl[order[0]]


def laue_zones(
    layer: ZeroLayer, num_zones: int, tilts: np.ndarray, wave_number: float, *, max_error: float, max_g: float
) -> np.ndarray:
    """Beams of the layers next to the zero layer that come near the Bragg condition at some tilt.

    A reflection's excitation error changes over tilts within rho of their mean by at most rho abs(g_xy) / K_z.

    Args:
      layer: the zero layer.
      num_zones: layers on either side.
      tilts: [P, 2], 1/angstrom.
      wave_number: K, 1/angstrom.
      max_error: beams whose excitation error stays above this are left out, 1/angstrom.
      max_g: longest g, 1/angstrom.

    Returns:
      int [n, 3], (p, q, l) with l != 0: g = p b1 + q b2 + l b3; by length.
    """
    centre = tilts.mean(axis=0)
    radius = float(np.sqrt(((tilts - centre) ** 2).sum(axis=1).max()))
    k = np.array([*centre, np.sqrt(wave_number**2 - (centre**2).sum())])
    found = []
    for order in range(-num_zones, num_zones + 1):
        if order == 0 or abs(order * layer.holz_shift[2]) >= max_g:
            continue
        offset = order * layer.holz_shift
        pq = beams_within(layer, float(max_g + np.linalg.norm(offset[:2])))
        g = np.concatenate([pq @ layer.vectors + offset[:2], np.full((len(pq), 1), offset[2])], axis=1)
        length = np.sqrt((g**2).sum(axis=1))
        error = -(2 * g @ k + length**2) / (2 * wave_number)
        near = np.abs(error) <= max_error + radius * np.linalg.norm(g[:, :2], axis=1) / k[2]
        keep = near & (length <= max_g)
        rows = np.concatenate([pq[keep], np.full((int(keep.sum()), 1), order)], axis=1)
        found.append(rows[np.argsort(np.round(length[keep], 9), kind="stable")])
    return np.concatenate(found).astype(int) if found else np.zeros((0, 3), int)


def _close(x: np.ndarray, y: np.ndarray, tolerance: float) -> bool:
    # np.allclose takes ten times as long, and up to 192 operations are compared several times.
    return bool(np.abs(x - y).max() <= tolerance)


def _shortest_pair(reciprocal, lengths, axis, centring) -> np.ndarray:
    """The two shortest independent Miller indices with h.u = 0 that no translation of ``centring`` extinguishes."""
    size = max(4, 2 * int(np.abs(axis).max()))
    while True:
        n = np.arange(-size, size + 1)
        hkl = np.stack(np.meshgrid(n, n, n, indexing="ij"), axis=-1).reshape(-1, 3)
        hkl = hkl[(hkl @ axis == 0) & hkl.any(axis=1)]
        turns = hkl @ centring.T
        hkl = hkl[(np.abs(turns - np.round(turns)) < 1e-4).all(axis=1)]
        if len(hkl):
            g = np.linalg.norm(hkl @ reciprocal, axis=1)
            # Equal lengths in a fixed order: positive indices first.
            order = np.lexsort((-hkl[:, 2], -hkl[:, 1], -hkl[:, 0], np.round(g / g.min(), 6)))
            hkl, g = hkl[order], g[order]
            independent = np.flatnonzero(np.cross(hkl, hkl[0]).any(axis=1))
            # Indices of a vector no longer than g are at most g times the cell edge.
            if independent.size and g[independent[0]] * lengths.max() <= size:
                return hkl[[0, independent[0]]]
        size *= 2


def beams_within(layer: ZeroLayer, max_g: float) -> np.ndarray:
    """All (p, q) with abs(g) <= max_g, by length; (0, 0) first. int [n, 2]."""
    dual = np.linalg.inv(layer.vectors)  # |p| <= |g| |row of the dual basis|
    limit = np.ceil(max_g * np.linalg.norm(dual, axis=0) + 1e-9).astype(int)
    p, q = np.meshgrid(*(np.arange(-m, m + 1) for m in limit), indexing="ij")
    pq = np.stack([p, q], axis=-1).reshape(-1, 2)
    g = np.linalg.norm(pq @ layer.vectors, axis=1)
    pq, g = pq[g <= max_g * (1 + 1e-9)], g[g <= max_g * (1 + 1e-9)]
    return pq[np.lexsort((pq[:, 1], pq[:, 0], np.round(g, 9)))]


def beam_of(layer: ZeroLayer, hkl: tuple[int, int, int], *, in_space: bool = False) -> np.ndarray:
    """(p, q) of a reflection, (p, q, l) with ``in_space``.

    Raises:
      ValueError: if it is not in the zero layer, or extinguished by centring or a glide plane across the axis.
    """
    rows = np.concatenate([layer.hkl, layer.holz_hkl[None]]) if in_space else layer.hkl
    pq, *_ = np.linalg.lstsq(rows.T.astype(float), np.asarray(hkl, float), rcond=None)
    rounded = np.round(pq).astype(int)
    if not np.array_equal(rounded @ rows, np.asarray(hkl)):
        raise ValueError(f"reflections: {tuple(hkl)} is not in the zero layer, or extinguished by symmetry")
    return rounded


def tilt_grid(half_width: float, num_pixels: int) -> np.ndarray:
    """Tilts [H, W, 2] = (kx, ky) in 1/angstrom; the first axis of the grid is ky.

    Pixel i lies at (i - (n - 1) / 2) / (n / 2) of the half-width.
    """
    k = (2.0 * np.arange(num_pixels) - (num_pixels - 1)) / num_pixels * half_width
    ky, kx = np.meshgrid(k, k, indexing="ij")
    return np.stack([kx, ky], axis=-1)


def fold(num_pixels: int, rotations: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Folds the square tilt grid by the operations that map it onto itself.

    Args:
      num_pixels: n.
      rotations: [m, 2, 2], orthogonal, a group; those that are not symmetries of a square are ignored.

    Returns:
      Flat indices [P] of one pixel per orbit, and for each of the n * n pixels the position of its orbit in that list.
    """
    usable = [np.round(r).astype(int) for r in rotations if np.allclose(r, np.round(r), atol=1e-6)]
    step = 2 * np.arange(num_pixels) - (num_pixels - 1)
    y, x = np.meshgrid(step, step, indexing="ij")
    points = np.stack([x, y], axis=-1).reshape(-1, 2)
    lowest = np.arange(num_pixels**2)
    for r in usable:
        image = (points @ r.T + num_pixels - 1) // 2
        lowest = np.minimum(lowest, image[:, 1] * num_pixels + image[:, 0])
    return np.unique(lowest, return_inverse=True)


def tiles(points: np.ndarray, size: int) -> np.ndarray:
    """Cuts points of the plane into compact groups of at most ``size``, by halving the longer side again and again.

    Args:
      points: [P, 2].
      size: largest group.

    Returns:
      int [C, size], numbers of the points of each group; short groups repeat their last point.
    """
    groups, pending = [], [np.arange(len(points))]
    while pending:
        group = pending.pop()
        if len(group) <= size:
            groups.append(np.concatenate([group, np.full(size - len(group), group[-1])]))
            continue
        extent = np.ptp(points[group], axis=0)
        order = group[np.argsort(points[group][:, int(extent[1] > extent[0])], kind="stable")]
        # Cut at a multiple of the size, so that one group at most is short.
        middle = size * (-(-len(group) // size) // 2)
        pending += [order[middle:], order[:middle]]
    return np.array(groups)


def excitation_errors(g: np.ndarray, tilts: np.ndarray, wave_number: float) -> np.ndarray:
    """s_g = -(2 K.g + g^2) / (2 K), [P, n] in 1/angstrom, for zero-layer g [n, 2] and tilts K_xy [P, 2].

    Written without K^2 - (K + g)^2, whose difference loses the digits that matter.
    """
    return -(2.0 * tilts @ g.T + np.sum(g**2, axis=1)[None, :]) / (2.0 * wave_number)


def places(pq: np.ndarray, shape: tuple[int, ...]) -> tuple[np.ndarray, int]:
    """Places of beams in the flattened grid of differences, counted from the origin, and the origin's place.

    The place of a difference of two beams is the difference of their places.
    """
    strides = np.cumprod((1, *shape[:0:-1]))[::-1]
    return pq @ strides, int((np.array(shape) // 2) @ strides)


def choose_strong(
    pq: np.ndarray,
    errors: np.ndarray,
    magnitude: np.ndarray,
    *,
    num_strong: int,
    required: np.ndarray,
    resonance: float = 0.003,
    floor: float = 0.005,
) -> tuple[np.ndarray, np.ndarray]:
    """Splits the pool of one tile into beams that are propagated and beams that enter as a perturbation.

    Importance of beam w is the largest, over tilts, of (abs(V) a)_w / d_w^2 with d = max(abs(s), floor) and a the
    first-order amplitudes min(1, abs(V_h0) / d_h).

    Args:
      pq: int [n, 2], or [n, 3] with higher layers, the pool; beam 0 is the incident one.
      errors: [m, n], excitation errors at a few tilts of the tile, its corners among them.
      magnitude: [2 a + 1, 2 b + 1], abs(U / 2K) on the grid of differences, the origin in the middle (and zero there);
        with higher layers three axes.
      num_strong: how many beams to propagate.
      required: int [R], numbers of beams that are always strong, the incident one among them.
      resonance: beams that come closer than this to the Bragg condition are always strong, 1/angstrom.
      floor: smallest distance that counts, 1/angstrom.

    Returns:
      Numbers of the strong beams, the required ones first in their order, then by importance; numbers of the weak ones.
    """
    n = len(pq)
    required = np.asarray(required)
    place, middle = places(pq, magnitude.shape)
    flat = magnitude.reshape(-1)
    distance = np.maximum(np.abs(errors), floor)
    amplitude = np.minimum(1.0, flat[place + middle][None, :] / distance)
    amplitude[:, 0] = 1.0
    # The few largest amplitudes carry the sum.
    leading = np.argsort(-amplitude.max(axis=0), kind="stable")[:64]
    pull = flat[place[:, None] - place[None, leading] + middle] @ amplitude[:, leading].T  # [n, m]
    importance = np.max(pull.T / distance**2, axis=0)
    keep = np.min(np.abs(errors), axis=0) <= resonance
    importance = np.where(keep, np.inf, importance)
    keep[required] = True
    importance[required] = -1.0
    ranked = np.argsort(-importance, kind="stable")[: n - len(required)]
    ranked = np.concatenate([required, ranked])
    num_strong = min(n, max(num_strong, int(keep.sum())))
    return ranked[:num_strong], ranked[num_strong:]
