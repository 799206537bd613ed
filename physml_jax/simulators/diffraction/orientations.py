"""Orientations of crystals: zone axes, uniform rotations, and what symmetry makes of them.

An orientation is a rotation matrix R from the crystal's Cartesian frame (x along a, z along c*) to the lab (x to the
right, y up, beam along +z): g_lab = R g. Rows of R are the lab's axes in the crystal's frame.

Operations of the crystal act on the right: R S shows the same pattern as R. Kinematic spots have Friedel's symmetry
abs(F_g) = abs(F_-g) as well, so the rotations that count are those of the Laue class, S = det(W) W for every W.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from physml_jax.core.precision import einsum, matmul
from physml_jax.simulators.diffraction import crystal as geometry
from physml_jax.simulators.diffraction.crystal import Crystal
from physml_jax.typing import Array, Key


class ZoneAxes(NamedTuple):
    """Families of low-index zone axes of a crystal, NumPy arrays.

    Attributes:
      uvw: int32 [Z, 3], one direction of each family.
      orientations: float64 [Z, 3, 3], the untilted crystal with that direction along the beam, see
        ``zone_axis_orientation``.
      multiplicities: int32 [Z], directions [uvw] in the family.
    """

    uvw: np.ndarray
    orientations: np.ndarray
    multiplicities: np.ndarray


def zone_axis_orientation(crystal: Crystal, uvw: Array | tuple[int, int, int], azimuth: Array | float = 0.0) -> Array:
    """The orientation with a direction of the crystal along the beam.

    Args:
      crystal: only its cell counts.
      uvw: direction u a + v b + w c of the direct lattice, not all zero.
      azimuth: turn of the pattern, counterclockwise, in radians. At 0 the x axis is the part of a across the beam (of b
        if a is along it), as in ``crystal.beam_frame``.

    Returns:
      float [3, 3].

    Raises:
      ValueError: if ``uvw`` is (0, 0, 0) or not three numbers.
    """
    frame = geometry.beam_frame(crystal.cell, uvw)
    return matmul(about_beam(jnp.asarray(azimuth, frame.dtype)), frame)


def about_beam(angle: Array) -> Array:
    """Rotations [..., 3, 3] of the pattern by ``angle`` [...] in radians, counterclockwise."""
    c, s = jnp.cos(angle), jnp.sin(angle)
    zero, one = jnp.zeros_like(c), jnp.ones_like(c)
    return jnp.stack([c, -s, zero, s, c, zero, zero, zero, one], axis=-1).reshape(*jnp.shape(angle), 3, 3)


def tilt(angles: Array) -> Array:
    """Rotations by tilts (t_x, t_y): about the axis (t_x, t_y, 0) of the lab, by its length in radians.

    Args:
      angles: float [..., 2], radians.

    Returns:
      float [..., 3, 3].
    """
    # As a quaternion, whose half-angle functions are even, so that there is a derivative at 0.
    square = (angles**2).sum(axis=-1, keepdims=True)
    half = 0.5 * jnp.sqrt(jnp.where(square > 0, square, 1.0))
    ratio = jnp.where(square > 0, 0.5 * jnp.sin(half) / half, 0.5)
    cosine = jnp.where(square > 0, jnp.cos(half), 1.0)
    return from_quaternion(jnp.concatenate([cosine, angles * ratio, jnp.zeros_like(square)], axis=-1))


def from_quaternion(quaternion: Array) -> Array:
    """Rotation matrices [..., 3, 3] of quaternions [..., 4] = (w, x, y, z), which need not be normalised."""
    w, x, y, z = (quaternion[..., i] for i in range(4))
    scale = 2.0 / (quaternion**2).sum(axis=-1)
    rows = [
        1.0 - scale * (y * y + z * z), scale * (x * y - z * w), scale * (x * z + y * w),
        scale * (x * y + z * w), 1.0 - scale * (x * x + z * z), scale * (y * z - x * w),
        scale * (x * z - y * w), scale * (y * z + x * w), 1.0 - scale * (x * x + y * y),
    ]  # fmt: skip
    return jnp.stack(rows, axis=-1).reshape(*quaternion.shape[:-1], 3, 3)


def uniform(keys: Key) -> Array:
    """Rotations drawn uniformly from all of SO(3) (Haar measure), one per key.

    Args:
      keys: typed keys [B].

    Returns:
      float32 [B, 3, 3].

    References:
      Four normal numbers are a uniform direction of the unit quaternion: Marsaglia (1972), Ann. Math. Stat. 43, 645.
    """
    return from_quaternion(jax.vmap(lambda key: jax.random.normal(key, (4,), jnp.float32))(keys))


def laue_rotations(crystal: Crystal) -> np.ndarray:
    """The proper rotations S of the crystal's Laue class as Cartesian matrices, on the host.

    Args:
      crystal: arrays on the host; the operations are taken as given.

    Returns:
      float64 [m, 3, 3], the identity first; m is 1, 2, 3, 4, 6, 8, 12 or 24.
    """
    with jax.enable_x64(True):
        vectors = np.asarray(jax.jit(geometry.lattice_vectors)(np.asarray(crystal.cell, np.float64)))
    parts = np.unique(np.asarray(crystal.rotations), axis=0)
    parts = np.unique(parts * np.round(np.linalg.det(parts)).astype(int)[:, None, None], axis=0)
    # Fractional coordinates are columns x with r = vectors^T x.
    cartesian = vectors.T @ parts @ np.linalg.inv(vectors.T)
    order = np.argsort(-np.trace(cartesian, axis1=1, axis2=2), kind="stable")
    return cartesian[order]


def to_fundamental_zone(orientations: Array, rotations: Array) -> Array:
    """The equivalent orientation R S that turns the crystal least, for every R.

    Uniform rotations become uniform in the fundamental zone.

    Args:
      orientations: float [..., 3, 3].
      rotations: [m, 3, 3], of ``laue_rotations``.

    Returns:
      float [..., 3, 3]. On the border of the zone, where several turn equally little, the first in the list.
    """
    orientations = jnp.asarray(orientations)
    rotations = jnp.asarray(rotations, orientations.dtype)
    traces = einsum("...ij,mji->...m", orientations, rotations)
    return matmul(orientations, rotations[jnp.argmax(traces, axis=-1)])


def zone_axes(crystal: Crystal, *, max_index: int = 2, directed: bool = False) -> ZoneAxes:
    """All families of zone axes with small indices, the shortest directions first, on the host.

    Directions that a rotation of the Laue class maps onto each other are one family. So is, unless ``directed``, a
    direction with its opposite: their patterns are mirror images of each other, and the same in the zero layer but for
    a turn by 180 degrees.

    Args:
      crystal: arrays on the host.
      max_index: largest of abs(u), abs(v), abs(w).
      directed: keep opposite directions apart where no rotation maps one onto the other.

    Returns:
      ``ZoneAxes``; the direction of a family is the one with the most positive indices, counted from the last.

    Raises:
      ValueError: if ``max_index`` is smaller than 1.
    """
    if max_index < 1:
        raise ValueError(f"max_index: expected an integer of at least 1, got {max_index!r}")
    n = np.arange(-max_index, max_index + 1)
    uvw = np.stack(np.meshgrid(n, n, n, indexing="ij"), axis=-1).reshape(-1, 3)
    uvw = uvw[np.gcd.reduce(np.abs(uvw), axis=1) == 1]
    with jax.enable_x64(True):
        cell = np.asarray(crystal.cell, np.float64)
        vectors = np.asarray(jax.jit(geometry.lattice_vectors)(cell))
        parts = np.round(np.linalg.inv(vectors.T) @ laue_rotations(crystal) @ vectors.T).astype(int)
        lengths = np.linalg.norm(uvw @ vectors, axis=1)
        order = np.lexsort((-uvw[:, 0], -uvw[:, 1], -uvw[:, 2], np.round(lengths, 6)))
        found, counts, seen = [], [], set()
        for axis in uvw[order]:
            if tuple(axis) in seen:
                continue
            family = {tuple(a) for a in (parts @ axis).tolist()}
            if not directed:
                family |= {tuple(-i for i in a) for a in family}
            seen |= family
            found.append(axis)
            counts.append(len(family))
        frames = jax.jit(jax.vmap(geometry.beam_frame, in_axes=(None, 0)))(cell, np.array(found, np.float64))
        return ZoneAxes(np.array(found, np.int32), np.asarray(frames), np.array(counts, np.int32))


def near_zone_axes(keys: Key, orientations: Array, *, max_tilt_deg: Array | float) -> Array:
    """Small random tilts off given orientations, and a random turn of the pattern, one per key.

    The tilt (t_x, t_y) is uniform on a disc, which is a uniform direction of the beam for small angles; the turn is
    uniform.

    Args:
      keys: typed keys [B].
      orientations: float [B, 3, 3] or [3, 3], for example rows of ``ZoneAxes.orientations``.
      max_tilt_deg: radius of the disc in degrees, [] or [B].

    Returns:
      float32 [B, 3, 3].
    """
    radius = jnp.broadcast_to(jnp.deg2rad(jnp.asarray(max_tilt_deg, jnp.float32)), keys.shape)

    def draw(key, radius):
        share, direction, turn = jax.random.uniform(key, (3,), jnp.float32)
        angle = 2.0 * jnp.pi * direction
        off = radius * jnp.sqrt(share) * jnp.stack([jnp.cos(angle), jnp.sin(angle)])
        return matmul(about_beam(2.0 * jnp.pi * turn), tilt(off))

    return matmul(jax.vmap(draw)(keys, radius), jnp.asarray(orientations, jnp.float32).reshape(-1, 3, 3))
