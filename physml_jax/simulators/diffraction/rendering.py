"""Spots to images: one batched product of separable Gaussians, as a camera without faults would see the pattern.

Image row i and column j are the pixel whose centre is (x, y) = (j, i); a spot at (g_x, g_y), y up, lies at

    x = centre_x + g'_x / scale,    y = centre_y - g'_y / scale,    g' = distortion g,

scale in 1/angstrom per pixel. A spot of weight w is w / (2 pi sigma^2) exp(-((j - x)^2 + (i - y)^2) / (2 sigma^2)),
sampled at pixel centres: its pixels sum to w within 2 exp(-2 pi^2 sigma^2), relative, which is 2e-3 at sigma = 0.6 and
5e-9 at 1. So weights are electrons, and moving, blurring or magnifying a pattern neither makes nor loses any, but over
the border. The direct beam and a radial background, a mixture of wide Gaussians around the centre, are further columns
of the same product. Everything is differentiable with respect to positions, weights, scale, centre, distortion and
widths.
"""

import math
from collections.abc import Sequence

import jax.numpy as jnp

from physml_jax.core.batching import chunked
from physml_jax.core.precision import einsum
from physml_jax.simulators.diffraction.kinematic import Spots
from physml_jax.typing import Array


def render(
    spots: Spots,
    *,
    pixels: int,
    scale: Array | float,
    centre: Array | None = None,
    distortion: Array | None = None,
    sigma: Array | float = 1.2,
    direct_beam: Array | float = 0.0,
    background: Array | float = 0.0,
    background_widths: Sequence[float] = (0.03, 0.09, 0.25),
    background_shares: Array | Sequence[float] = (0.3, 0.4, 0.3),
    chunk_size: int | None = 32,
) -> Array:
    """Images of spot patterns; traced, call it under ``jax.jit``.

    Args:
      spots: of any batch axes; ``positions``, ``intensities`` and ``mask`` are read.
      pixels: side P of the image.
      scale: [] or [...], 1/angstrom per pixel.
      centre: [2] or [..., 2], (x, y) of the direct beam in pixels; ``None`` is the middle, (P - 1) / 2.
      distortion: [2, 2] or [..., 2, 2], see ``detector.distortion``; ``None`` is none.
      sigma: [] or [...], width of a spot and of the direct beam, pixels.
      direct_beam: [] or [...], weight of the direct beam.
      background: [] or [...], weight of the radial background (inelastic scattering) over the whole plane.
      background_widths: standard deviations of its parts, in image sides.
      background_shares: [R] or [..., R], of the parts in its weight.
      chunk_size: images at a time.

    Returns:
      float [..., P, P], rows downwards.

    Raises:
      ValueError: for shapes that do not fit or an impossible number of pixels.
    """
    if pixels < 1:
        raise ValueError(f"pixels: expected at least 1, got {pixels}")
    batch, dtype = spots.intensities.shape[:-1], spots.intensities.dtype

    def rows(name, value, *tail):
        value = jnp.asarray(value, dtype)
        if value.shape not in (tail, (*batch, *tail)):
            raise ValueError(f"{name}: expected shape {list(tail)} or {[*batch, *tail]}, got {list(value.shape)}")
        return jnp.broadcast_to(value, (*batch, *tail)).reshape(math.prod(batch), *tail)

    middle = jnp.full(2, (pixels - 1) / 2, dtype)
    centre = rows("centre", middle if centre is None else centre, 2)
    positions = spots.positions.reshape(math.prod(batch), *spots.positions.shape[-2:])
    weights = jnp.where(spots.mask, spots.intensities, 0).reshape(positions.shape[:2])
    widths = jnp.asarray(background_widths, dtype) * pixels
    if distortion is not None:
        distortion = rows("distortion", distortion, 2, 2)

    places = to_pixels(positions, scale=rows("scale", scale), centre=centre, distortion=distortion)
    sigma, num = rows("sigma", sigma)[:, None], widths.shape[0]
    shares = rows("background_shares", background_shares, num) * rows("background", background)[:, None]
    columns = (
        jnp.concatenate([places, jnp.repeat(centre[:, None], num + 1, axis=1)], axis=1),
        jnp.concatenate([weights, rows("direct_beam", direct_beam)[:, None], shares], axis=1),
        jnp.concatenate([jnp.repeat(sigma, weights.shape[1] + 1, 1), jnp.repeat(widths[None], len(sigma), 0)], 1),
    )
    images = chunked(lambda *c: _product(*c, pixels), chunk_size=chunk_size)(*columns)
    return images.reshape(*batch, pixels, pixels)


def to_pixels(positions: Array, *, scale: Array, centre: Array, distortion: Array | None = None) -> Array:
    """Places (x, y) in pixels of spots at (g_x, g_y) in 1/angstrom.

    Args:
      positions: float [..., K, 2].
      scale: [...], 1/angstrom per pixel.
      centre: [..., 2], pixels.
      distortion: [..., 2, 2] or ``None``.

    Returns:
      float [..., K, 2].
    """
    if distortion is not None:
        positions = (distortion[..., None, :, :] * positions[..., None, :]).sum(-1)
    down = jnp.asarray([1.0, -1.0], positions.dtype).reshape(*(1,) * (positions.ndim - 1), 2)
    return centre[..., None, :] + positions * down / scale[..., None, None]


def to_positions(places: Array, *, scale: Array, centre: Array) -> Array:
    """The inverse of ``to_pixels`` without distortion: pixels (x, y) [..., K, 2] to 1/angstrom."""
    down = jnp.asarray([1.0, -1.0], places.dtype).reshape(*(1,) * (places.ndim - 1), 2)
    return (places - centre[..., None, :]) * down * scale[..., None, None]


def _product(places, weights, sigma, pixels):
    axis = jnp.arange(pixels, dtype=places.dtype)
    inverse = 1.0 / sigma
    x = (axis[None, None, :] - places[:, :, 0, None]) * inverse[..., None]
    y = (axis[None, None, :] - places[:, :, 1, None]) * inverse[..., None]
    heights = (weights * inverse**2 * (1 / (2 * math.pi)))[..., None]
    return einsum("bkh,bkw->bhw", heights * jnp.exp(-0.5 * y * y), jnp.exp(-0.5 * x * x))
