"""Pictures of states: planes, projections, and the published view of coloured cubes.

The cube view draws a site if abs(psi)^2 L^3 > 1, as a cube of volume abs(psi)^2 L^3 around it, coloured by its slice
(hsv), orthographic, on a transparent background. Cubes overlap, and of the cubes at a point of the picture the one
whose centre is nearest the viewer is seen, whole (painter's order), not the nearest surface. The published pictures
have no stated camera; azimuth -60 and elevation 25 degrees, and the shades of the three visible faces, are our choice.

How it is drawn: a ray through a picture point meets the cube of edge e around a site if e is at least
2 max_k abs(d_i q_j - d_j q_i) / (abs(d_i) + abs(d_j)), d the view's direction and q the site as seen from the ray. This
least edge depends on geometry alone, so a point compares it with the edges of the sites near its ray, plane by plane
of the lattice, and keeps the one nearest the viewer. Cubes too large for that neighbourhood are few, since volumes sum
to L^3; they are compared with all points, the largest first.
"""

import functools
import math

import jax
import jax.numpy as jnp
import numpy as np

from physml_jax.core.batching import chunked
from physml_jax.simulators.anderson.multifractal import probabilities
from physml_jax.typing import Array

#: Brightness of the faces normal to the first, second and third axis.
SHADES = (0.7, 0.85, 1.0)
#: Sites on either side of a ray, per direction of a plane, among which small cubes are looked for.
REACH = 2


def scaled_density(psi: Array) -> Array:
    """abs(psi)^2 L^3, the probability in units of its mean: [..., L, L, L] -> the same."""
    return probabilities(psi) * float(psi.shape[-1] ** 3)


def planes(psi: Array, *, axis: int = 0) -> Array:
    """All planes normal to an axis, as channels: [..., L, L, L] -> abs(psi)^2 L^3 [..., L, L, L], plane number last.

    Raises:
      ValueError: if ``axis`` is not 0, 1 or 2.
    """
    return jnp.moveaxis(scaled_density(psi), _axis(axis), -1)


def maximum_projection(psi: Array, *, axis: int = 0) -> Array:
    """Largest abs(psi)^2 L^3 along an axis: [..., L, L, L] -> [..., L, L, 1].

    Raises:
      ValueError: if ``axis`` is not 0, 1 or 2.
    """
    return scaled_density(psi).max(_axis(axis))[..., None]


def cube_view(
    psi: Array,
    *,
    pixels: int = 100,
    azimuth: float = -60.0,
    elevation: float = 25.0,
    slice_axis: int = 1,
    scale: float = 1.0,
    threshold: float = 1.0,
    shades: tuple[float, float, float] = SHADES,
    supersample: int = 2,
    margin: float = 0.02,
    chunk_size: int | None = 16,
) -> Array:
    """States as cubes of volume abs(psi)^2 L^3, coloured by slice.

    Args:
      psi: [..., L, L, L].
      pixels: side n of the picture.
      azimuth: of the viewer around the third axis, from the first one, degrees.
      elevation: of the viewer above the plane of the first two axes, degrees.
      slice_axis: axis whose index sets the hue, k/L of a turn; by default the one that points most into the page.
      scale: edge of a cube of volume 1, in lattice constants.
      threshold: abs(psi)^2 L^3 above which a site is drawn.
      shades: brightness of the faces normal to each axis; equal numbers for flat colours.
      supersample: rays per pixel and direction; alpha is the share of them that hit a cube, the colour their mean.
      margin: empty border around the projected box, as a share of the picture. The picture is as high as the box; large
        cubes at its border are cut.
      chunk_size: states at a time.

    Returns:
      [..., n, n, 4], RGBA in 0..1 with plain (not premultiplied) colours, 0 where nothing is; float32 unless ``psi`` is
      float64.

    Raises:
      ValueError: for a wrong shape or an option outside its range.
    """
    if pixels < 1 or supersample < 1:
        raise ValueError(f"pixels, supersample: expected at least 1, got {pixels} and {supersample}")
    if not scale > 0 or not threshold > 0 or not 0 <= margin < 0.5:
        raise ValueError(f"scale, threshold, margin: expected > 0, > 0, [0, 0.5), got {scale}, {threshold}, {margin}")
    density = scaled_density(psi)
    size, lead, dtype = psi.shape[-1], psi.shape[:-3], density.dtype
    direction, points = _camera(size, pixels * supersample, azimuth, elevation, margin)
    points = jnp.asarray(points, dtype)
    colours = jnp.asarray(_hues(size), dtype)
    brightness = jnp.asarray(shades, dtype)
    axis = _axis(slice_axis)

    def render(batch):
        # The edge of what is not drawn is 0, which meets no ray.
        edge = jnp.where(batch > threshold, scale * jnp.cbrt(batch), 0).reshape(len(batch), -1)
        found = _large(edge, points, direction, _small(edge, points, direction, size), size, scale)
        site = found[1].T
        position = jnp.stack(jnp.unravel_index(site, (size,) * 3), axis=-1)
        face = _face(position.astype(dtype) - points[None], jnp.take_along_axis(edge, site, axis=1), direction)
        visible = (found[0].T > -jnp.inf).astype(dtype)
        rgb = colours[position[..., axis]] * (brightness[face] * visible)[..., None]
        return _average(jnp.concatenate([rgb, visible[..., None]], axis=-1), pixels, supersample)

    image = chunked(render, chunk_size=chunk_size)(density.reshape(-1, size, size, size))
    return image.reshape(*lead, pixels, pixels, 4)


def _axis(axis):
    if axis not in (0, 1, 2):
        raise ValueError(f"axis: expected 0, 1 or 2, got {axis}")
    return axis - 3


def _camera(size, num, azimuth, elevation, margin):
    """Unit vector towards the viewer [3], and one point of every ray [num^2, 3] in lattice coordinates, row by row."""
    az, el = math.radians(azimuth), math.radians(elevation)
    direction = np.array([math.cos(el) * math.cos(az), math.cos(el) * math.sin(az), math.sin(el)])
    direction[np.abs(direction) < 1e-9] = 0
    right = np.array([-math.sin(az), math.cos(az), 0])
    up = np.cross(direction, right)
    extent = size * max(np.abs(right).sum(), np.abs(up).sum()) / (1 - 2 * margin)
    step = extent * ((np.arange(num) + 0.5) / num - 0.5)
    points = (size - 1) / 2 + right * step[None, :, None] - up * step[:, None, None]
    return direction, points.reshape(-1, 3)


def _least_edge(q, direction):
    """Smallest edge of a cube that meets a ray; q [3, ...] is its site as seen from any point of the ray."""
    parts = []
    for i, j in ((0, 1), (0, 2), (1, 2)):
        norm = abs(direction[i]) + abs(direction[j])
        if norm > 0:
            parts.append(jnp.abs(float(direction[i]) * q[j] - float(direction[j]) * q[i]) * float(2 / norm))
    return functools.reduce(jnp.maximum, parts)


def _depth(position, direction):
    return sum(float(d) * x for d, x in zip(direction, position, strict=True))


def _small_limit(direction):
    """Edge up to which a cube that meets a ray is within ``REACH`` of it in the plane of its centre."""
    steepest = np.abs(direction).max()
    return REACH * 2 * steepest / (steepest + np.sort(np.abs(direction))[1])


def _small(edge, points, direction, size):
    """Depth and number of the nearest small cube on every ray, [P, B] each; depth -inf where there is none."""
    dtype = edge.dtype
    main = int(np.argmax(np.abs(direction)))
    others = [a for a in range(3) if a != main]
    edge = jnp.where(edge <= float(_small_limit(direction)), edge, 0).T
    window = 2 * REACH

    def look(step, best):
        plane = step // window**2
        offsets = (step // window % window - (REACH - 1), step % window - (REACH - 1))
        along = (plane.astype(dtype) - points[:, main]) / float(direction[main])
        position = [plane] * 3
        inside = True
        for a, offset in zip(others, offsets, strict=True):
            position[a] = jnp.floor(points[:, a] + along * float(direction[a])).astype(jnp.int32) + offset
            inside = inside & (position[a] >= 0) & (position[a] < size)
        relative = [x.astype(dtype) - points[:, a] for a, x in enumerate(position)]
        need = jnp.where(inside, _least_edge(relative, direction), jnp.inf)
        site = (position[0] * size + position[1]) * size + position[2]
        site = jnp.where(inside, site, 0)
        depth = _depth([x.astype(dtype) for x in position], direction)
        return _nearer(best, edge[site] >= jnp.maximum(need, 1e-6)[:, None], depth[:, None], site[:, None])

    shape = (len(points), edge.shape[1])
    nothing = (jnp.full(shape, -jnp.inf, dtype), jnp.zeros(shape, jnp.int32))
    return jax.lax.fori_loop(0, size * window**2, look, nothing)


def _large(edge, points, direction, best, size, scale):
    """Adds the cubes that ``_small`` left out, the k-th largest of every state at a time."""
    dtype, limit = edge.dtype, float(_small_limit(direction))
    # Volumes of a state sum to L^3 scale^3, which bounds the number of large ones.
    most = min(size**3, math.ceil((scale * size / limit) ** 3))
    edges, sites = jax.lax.top_k(edge, most)

    def more(carry):
        return (carry[0] < most) & (edges[:, jnp.minimum(carry[0], most - 1)] > limit).any()

    def draw(carry):
        k, best = carry
        site, length = sites[:, k], edges[:, k]
        position = [x.astype(dtype) for x in jnp.unravel_index(site, (size,) * 3)]
        relative = [x[None] - points[:, a][:, None] for a, x in enumerate(position)]
        meets = jnp.where(length > limit, length, 0)[None] >= jnp.maximum(_least_edge(relative, direction), 1e-6)
        return k + 1, _nearer(best, meets, _depth(position, direction)[None], site[None])

    return jax.lax.while_loop(more, draw, (jnp.int32(0), best))[1]


def _nearer(best, meets, depth, site):
    replace = meets & (jnp.broadcast_to(depth, meets.shape) > best[0])
    return (
        jnp.where(replace, jnp.broadcast_to(depth, meets.shape), best[0]),
        jnp.where(replace, jnp.broadcast_to(site, meets.shape), best[1]),
    )


def _face(relative, edge, direction):
    """Axis of the face through which a ray leaves a cube towards the viewer, [B, P]."""
    leaves = [
        (edge / 2 * float(np.sign(d)) + relative[..., a]) / float(d) if d else jnp.full(edge.shape, jnp.inf, edge.dtype)
        for a, d in enumerate(direction)
    ]
    return jnp.argmin(jnp.stack(leaves), axis=0)


def _average(rgba, pixels, supersample):
    """Rays to pixels, [B, P, 4] -> [B, n, n, 4]: the colour is that of the rays that hit something."""
    shape = (len(rgba), pixels, supersample, pixels, supersample, 4)
    mean = rgba.reshape(shape).mean((2, 4))
    alpha = mean[..., 3:]
    return jnp.concatenate([mean[..., :3] / jnp.where(alpha > 0, alpha, 1), alpha], axis=-1)


def _hues(size):
    """Fully saturated colours, hue k/L of a turn from red over green and blue: float64 [L, 3]."""
    turn = np.arange(size)[:, None] / size * 6
    return np.clip(np.abs((turn + np.array([0, 4, 2])) % 6 - 3) - 1, 0, 1)
