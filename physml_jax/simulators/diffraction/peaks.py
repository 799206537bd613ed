"""Spots found in an image on the device: a list of fixed length, and the place of the direct beam.

An image is filtered by the difference of two Gaussians, which knows spots and not the slow background. A peak is a
pixel above its eight neighbours and above a multiple of the noise; a parabola through it and its neighbours gives its
place between the pixels. Row i and column j are the pixel whose centre is (x, y) = (j, i), as in ``rendering``.

The direct beam may be saturated or behind a stop. What remains is that every spot has a partner on its other side: the
midpoints of all pairs of strong peaks vote, and most of them agree on the centre of inversion.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from physml_jax.core.batching import chunked
from physml_jax.typing import Array

#: Width of the outer Gaussian in widths of the inner one.
OUTER = 3.0
#: Strongest peaks whose pairs vote for the centre, and the weight of a peak that may itself be the direct beam.
NUM_VOTERS, ITSELF = 16, 2.0


class Peaks(NamedTuple):
    """Peaks of images, the highest first; unused places are zero.

    Attributes:
      positions: float32 [B, K, 2], (x, y) in pixels.
      heights: float32 [B, K], of the filtered image.
      count: int32 [B], peaks found; more than K where the list was cut short.
      noise: float32 [B], standard deviation of the filtered image without its peaks.
    """

    positions: Array
    heights: Array
    count: Array
    noise: Array


def find_peaks(
    images: Array,
    *,
    num_peaks: int,
    sigma: float | None = None,
    threshold: float = 5.0,
    chunk_size: int | None = 32,
) -> Peaks:
    """Peaks of images; traced, call it under ``jax.jit``.

    Args:
      images: float32 [B, P, P].
      num_peaks: places K of the list.
      sigma: width of the inner Gaussian in pixels; ``None``: 0.008 of the side, about that of a spot, at least 1.
      threshold: least height, in standard deviations of the noise.
      chunk_size: images at a time.

    Returns:
      ``Peaks``. A peak depends on its own image only.

    Raises:
      ValueError: for images of another shape, or an option out of range.
    """
    if images.ndim != 3 or min(images.shape[1:]) < 8:
        raise ValueError(f"images: expected [B, P, P] with at least 8 pixels, got {list(images.shape)}")
    width = max(1.0, 0.008 * min(images.shape[1:])) if sigma is None else sigma
    if not width > 0 or not threshold > 0:
        raise ValueError(f"sigma, threshold: expected positive numbers, got {sigma} and {threshold}")
    cells = -(-images.shape[1] // 2) * -(-images.shape[2] // 2)
    if not 1 <= num_peaks <= cells:
        raise ValueError(f"num_peaks: expected 1 to {cells}, got {num_peaks}")

    def fn(images):
        filtered = _smooth(images, width) - _smooth(images, OUTER * width)
        noise = _noise(filtered)
        higher = _is_peak(filtered) & (filtered > threshold * noise[:, None, None])
        rows, columns, heights = _highest(jnp.where(higher, filtered, 0.0), num_peaks)
        found = heights > 0
        x, y = _between_pixels(filtered, rows, columns)
        positions = jnp.where(found[..., None], jnp.stack([x, y], -1), 0.0)
        return Peaks(positions, heights, higher.sum((1, 2)), noise)

    return chunked(fn, chunk_size=chunk_size)(images)


def centre_of_inversion(peaks: Peaks, *, middle: float, max_offset: float, width: float = 2.0) -> Array:
    """The centre of inversion of a pattern, near the middle of its image.

    Where the direct beam is covered, a lattice of spots without a clear envelope has many centres: then the answer may
    be off by half a lattice vector. The smaller ``max_offset``, the rarer that is.

    Args:
      peaks: of B images.
      middle: of the image in pixels, the same for x and y.
      max_offset: largest distance from it along either axis, in pixels; 0: the middle itself is the answer.
      width: midpoints agree within this distance in pixels, the less the farther they are.

    Returns:
      float32 [B, 2], (x, y) in pixels; the middle itself where no pair of peaks votes for anything near it.
    """
    if max_offset == 0:
        return jnp.full((*peaks.heights.shape[:1], 2), middle, peaks.positions.dtype)
    number = min(NUM_VOTERS, peaks.heights.shape[1])
    first, second = np.triu_indices(number)
    at, height = peaks.positions[:, :number], jnp.sqrt(peaks.heights[:, :number])
    off = (at[:, first] + at[:, second]) / 2 - middle
    near = (jnp.abs(off) <= max_offset).all(-1)
    once = np.where(first == second, ITSELF, 1.0).astype(np.float32)
    weights = jnp.where(near, height[:, first] * height[:, second] * once[None, :], 0.0)
    x, y = off[..., 0], off[..., 1]
    square = (x[:, :, None] - x[:, None, :]) ** 2 + (y[:, :, None] - y[:, None, :]) ** 2
    agree = jnp.maximum(0.0, 1.0 - square / width**2) * weights[:, None, :]
    best = jnp.argmax(jnp.where(near, agree.sum(-1), -1.0), axis=1)
    share = jnp.take_along_axis(agree, best[:, None, None], axis=1)[:, 0]
    total = share.sum(-1, keepdims=True)
    return middle + (share[..., None] * off).sum(1) / jnp.where(total > 0, total, 1.0)


def _smooth(images: Array, sigma: float) -> Array:
    """Convolution with a normalised Gaussian; the border pixels continue outwards."""
    reach = int(np.ceil(3 * sigma))
    taps = np.exp(-0.5 * (np.arange(-reach, reach + 1) / sigma) ** 2)
    taps = (taps / taps.sum()).tolist()
    for axis in (1, 2):
        pads = [(0, 0)] * 3
        pads[axis] = (reach, reach)
        wide, size = jnp.pad(images, pads, mode="edge"), images.shape[axis]
        images = sum(tap * jax.lax.slice_in_dim(wide, i, i + size, axis=axis) for i, tap in enumerate(taps))
    return images


def _noise(filtered: Array) -> Array:
    """Standard deviation of every image without what lies beyond three of them, [B]."""
    square = filtered**2
    variance = square.mean((1, 2))
    for _ in range(3):
        inside = square < 9 * variance[:, None, None]
        variance = jnp.where(inside, square, 0.0).sum((1, 2)) / jnp.maximum(inside.sum((1, 2)), 1)
    return jnp.sqrt(variance)


def _is_peak(filtered: Array) -> Array:
    """Higher than the neighbours; of equal ones the last in reading order is the peak. The border has none."""
    _, rows, columns = filtered.shape
    inner = filtered[:, 1:-1, 1:-1]
    higher = jnp.ones(inner.shape, bool)
    for i in range(3):
        for j in range(3):
            other = filtered[:, i : rows - 2 + i, j : columns - 2 + j]
            if (i, j) < (1, 1):
                higher &= inner >= other
            elif (i, j) > (1, 1):
                higher &= inner > other
    return jnp.pad(higher, ((0, 0), (1, 1), (1, 1)))


def _highest(values: Array, number: int) -> tuple[Array, Array, Array]:
    """Rows, columns and values of the largest, [B, number]. Two peaks are never in one cell of 2 x 2 pixels."""
    batch, rows, columns = values.shape
    even = jnp.pad(values, ((0, 0), (0, rows % 2), (0, columns % 2)))
    corners = [even[:, i::2, j::2] for i in range(2) for j in range(2)]
    across = corners[0].shape[2]
    largest = jnp.maximum(jnp.maximum(corners[0], corners[1]), jnp.maximum(corners[2], corners[3]))
    within = sum(jnp.where((c == largest) & (c > 0), k, 0) for k, c in enumerate(corners))
    height, cell = jax.lax.top_k(largest.reshape(batch, -1), number)
    corner = jnp.take_along_axis(within.reshape(batch, -1), cell, axis=1)
    return 2 * (cell // across) + corner // 2, 2 * (cell % across) + corner % 2, height


def _between_pixels(filtered: Array, rows: Array, columns: Array) -> tuple[Array, Array]:
    """Top of the parabola through a pixel and its two neighbours, along either axis."""
    batch, height, width = filtered.shape
    flat = filtered.reshape(batch, -1)

    def at(row, column):
        inside = jnp.clip(row, 0, height - 1) * width + jnp.clip(column, 0, width - 1)
        return jnp.take_along_axis(flat, inside, axis=1)

    def shift(low, middle, high):
        curvature = 2 * middle - low - high
        return jnp.clip(0.5 * (high - low) / jnp.where(curvature > 0, curvature, 1.0), -0.5, 0.5)

    middle = at(rows, columns)
    x = columns + shift(at(rows, columns - 1), middle, at(rows, columns + 1))
    y = rows + shift(at(rows - 1, columns), middle, at(rows + 1, columns))
    return x, y
