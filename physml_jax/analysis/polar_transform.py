"""Diffraction patterns in log-polar coordinates, and the centre that these need.

In the logarithm of the radius and the angle about the direct beam, a turn of the pattern is a circular shift of
columns and an error of the scale a shift of rows. Radii are in 1/angstrom, by the scale that is believed.
"""

import math

import jax
import jax.numpy as jnp
import numpy as np

from physml_jax.typing import Array


def log_radii(num_radii: int, g_min: float, g_max: float) -> np.ndarray:
    """Radii from ``g_min`` to ``g_max``, both included, with equal ratios: float64 [R].

    Raises:
      ValueError: for fewer than two radii, or limits out of order.
    """
    if num_radii < 2:
        raise ValueError(f"num_radii: expected at least 2, got {num_radii}")
    if not 0 < g_min < g_max < math.inf:
        raise ValueError(f"g_min, g_max: expected 0 < g_min < g_max, got {g_min} and {g_max}")
    return np.geomspace(g_min, g_max, num_radii)


def log_polar(
    images: Array,
    radii: Array,
    *,
    scale: Array | float,
    centre: Array | None = None,
    num_angles: int = 240,
) -> tuple[Array, Array]:
    """Bilinear samples of images on circles about the direct beam; traced, call it under ``jax.jit``.

    Args:
      images: float [B, P, P] or [B, P, P, 1], rows downwards.
      radii: float [R], 1/angstrom, for example ``log_radii``.
      scale: [] or [B], 1/angstrom per pixel.
      centre: [2] or [B, 2], (x, y) of the direct beam in pixels; ``None`` is the middle, (P - 1) / 2.
      num_angles: A; angle j is 2 pi j / A, counterclockwise from x to the right.

    Returns:
      The samples [B, R, A], 0 outside the image, and which of them are inside, bool [B, R, A].

    Raises:
      ValueError: for shapes that do not fit.
    """
    images = pictures(images)
    pixels = images.shape[-1]
    centre, scale = centres(images, centre), scales(images, scale)
    angles = 2 * np.pi * np.arange(num_angles) / num_angles
    radii = jnp.asarray(radii, jnp.float32)[None, :, None] / scale[:, None, None]
    x = centre[:, 0, None, None] + radii * np.cos(angles).astype(np.float32)[None, None]
    y = centre[:, 1, None, None] - radii * np.sin(angles).astype(np.float32)[None, None]
    inside = (x >= 0) & (x <= pixels - 1) & (y >= 0) & (y <= pixels - 1)
    return jnp.where(inside, bilinear(images, x, y), 0.0), inside


def bilinear(images: Array, x: Array, y: Array) -> Array:
    """Values of images [B, P, P] at (x, y) [B, ...] in pixels; outside, those continued from the border."""
    batch, pixels = images.shape[:2]
    column, row = (jnp.clip(jnp.floor(v), 0, pixels - 2) for v in (x, y))
    u, v = x - column, y - row
    first = (row * pixels + column).astype(jnp.int32).reshape(batch, -1)
    flat = images.reshape(batch, -1)

    def corner(step):
        return jnp.take_along_axis(flat, first + step, axis=1, mode="promise_in_bounds").reshape(x.shape)

    above = corner(0) * (1 - u) + corner(1) * u
    below = corner(pixels) * (1 - u) + corner(pixels + 1) * u
    return above * (1 - v) + below * v


def radial_background(values: Array, inside: Array, *, clip: float = 2.0, rounds: int = 4) -> tuple[Array, Array]:
    """Level and scatter of the background on every circle, without the spots: a mean that clips what sticks out.

    The scatter is that below the level, which spots do not reach. It stands for the median of the circle, which costs
    a sort.

    Args:
      values: float [B, R, A].
      inside: bool [B, R, A], which of them count.
      clip: values count up to the level and ``clip`` times the scatter.
      rounds: of level and scatter, from the mean on.

    Returns:
      Level and standard deviation [B, R, 1]; 0 on circles outside.
    """
    weight = inside.astype(values.dtype)
    count = jnp.maximum(weight.sum(-1, keepdims=True), 1.0)
    level = (values * weight).sum(-1, keepdims=True) / count
    spread = jnp.zeros_like(level)
    for _ in range(rounds):
        below = jnp.where(values < level, weight, 0.0)
        square = (below * (values - level) ** 2).sum(-1, keepdims=True)
        spread = jnp.sqrt(square / jnp.maximum(below.sum(-1, keepdims=True), 1.0))
        level = (jnp.minimum(values, level + clip * spread) * weight).sum(-1, keepdims=True) / count
    return level, spread


def find_centre(images: Array, *, max_offset: float = 0.12) -> Array:
    """The point through which an image is most like itself turned by half a turn (Friedel's law); traced.

    The convolution of the image with itself is largest at twice that point. The direct beam and the radial background
    count as well as pairs of spots, so a beam stop does no harm, and they choose among the points of the lattice.

    Args:
      images: float [B, P, P] or [B, P, P, 1], grey values with an exponent near 1/2.
      max_offset: largest distance from the middle along x or y that is looked at, image sides.

    Returns:
      float [B, 2], (x, y) in pixels, to about a tenth of a pixel; NaN where the image is constant or not finite.

    Raises:
      ValueError: for another shape, or an offset outside 0 to 1/2.
    """
    images = pictures(images)
    if not 0 < max_offset < 0.5:
        raise ValueError(f"max_offset: expected a number between 0 and 0.5, got {max_offset}")
    pixels = images.shape[-1]
    size = 2 * pixels
    # Without the level of the border, which would pull towards the middle: there the overlap is largest.
    border = jnp.concatenate([images[:, 0], images[:, -1], images[:, :, 0], images[:, :, -1]], axis=1)
    net = jnp.maximum(images - border.mean(axis=1)[:, None, None], 0.0)
    power = jnp.fft.irfft2(jnp.fft.rfft2(net, s=(size, size)) ** 2, s=(size, size))  # at (i + i', j + j')
    reach = math.ceil(2 * max_offset * pixels)
    low = pixels - 1 - reach
    near = power[:, low : low + 2 * reach + 1, low : low + 2 * reach + 1]
    best = jnp.argmax(near[:, 1:-1, 1:-1].reshape(len(near), -1), axis=1)
    row, column = best // (2 * reach - 1) + 1, best % (2 * reach - 1) + 1
    pick = jax.vmap(lambda p, i, j: jax.lax.dynamic_slice(p, (i - 1, j - 1), (3, 3)))(near, row, column)

    def vertex(a, b, c):
        bend = a - 2 * b + c
        return jnp.where(bend < 0, 0.5 * (a - c) / jnp.where(bend < 0, bend, 1.0), 0.0)

    x = column + vertex(pick[:, 1, 0], pick[:, 1, 1], pick[:, 1, 2])
    y = row + vertex(pick[:, 0, 1], pick[:, 1, 1], pick[:, 2, 1])
    found = 0.5 * (low + jnp.stack([x, y], axis=-1))
    flat = images.max(axis=(1, 2)) > images.min(axis=(1, 2))
    usable = jnp.isfinite(images).all(axis=(1, 2)) & flat
    return jnp.where(usable[:, None], found, jnp.nan)


def pictures(images: Array) -> Array:
    """Images [B, P, P] float32 of [B, P, P] or [B, P, P, 1]; ``ValueError`` for other shapes."""
    images = jnp.asarray(images)
    if images.ndim == 4 and images.shape[-1] == 1:
        images = images[..., 0]
    if images.ndim != 3 or images.shape[1] != images.shape[2] or images.shape[1] < 8:
        raise ValueError(f"images: expected [B, P, P] or [B, P, P, 1] with P of at least 8, got {list(images.shape)}")
    return images.astype(jnp.float32)


def centres(images: Array, centre: Array | None) -> Array:
    """Centres (x, y) [B, 2] in pixels of [2], [B, 2] or ``None``, the middle; ``ValueError`` for other shapes."""
    middle = jnp.full(2, (images.shape[-1] - 1) / 2) if centre is None else jnp.asarray(centre, jnp.float32)
    if middle.shape not in ((2,), (len(images), 2)):
        raise ValueError(f"centre: expected (x, y) as [2] or [{len(images)}, 2], got {list(middle.shape)}")
    return jnp.broadcast_to(middle, (len(images), 2))


def scales(images: Array, scale: Array | float) -> Array:
    """Scales [B] of a number or [B]; ``ValueError`` for other shapes."""
    scale = jnp.asarray(scale, jnp.float32)
    if scale.shape not in ((), (len(images),)):
        raise ValueError(f"scale: expected a number or shape [{len(images)}], got {list(scale.shape)}")
    return jnp.broadcast_to(scale, (len(images),))
