"""Diffraction spots in an image: local maxima above the background, with sub-pixel positions; on the host.

The image is freed of hot pixels and of what varies slowly (a radial profile where the centre is known, then a median
over a wide window). Spots are maxima of the difference of two Gaussians over place and width, where they exceed its
scatter nearby. Positions are centroids under a Gaussian window
that moves with the spot. What is much longer than wide is a piece of a Kikuchi line or of an edge and no spot.

Positions are (x, y) = (column, row) in pixels, as in ``simulators.diffraction.rendering``.
"""

from typing import NamedTuple

import numpy as np
from scipy import ndimage

#: The outer Gaussian is this much wider than the inner one.
_OUTER = 1.6
#: A maximum must reach this share of the strongest.
_FAINTEST = 1e-3
#: Axes of the ellipse of a spot may differ by this factor.
_LONGEST = 2.5
#: Sides in pixels at which backgrounds and the scatter are computed.
_COARSE, _SCATTER = 128, 64
#: The answer to the step between two grey values of a digitised image, in steps.
_CONTOUR = 0.12


class Peaks(NamedTuple):
    """Spots of an image, the most intense first.

    Attributes:
      positions: float64 [N, 2], (x, y) in pixels.
      intensities: float64 [N], sum above the background, units of the image.
      significance: float64 [N], height over the scatter of the background.
      sizes: float64 [N], standard deviation of the Gaussian that finds the spot, pixels; 0.8 of its own.
    """

    positions: np.ndarray
    intensities: np.ndarray
    significance: np.ndarray
    sizes: np.ndarray


def find_peaks(
    image: np.ndarray,
    *,
    centre: np.ndarray | None = None,
    threshold: float = 7.0,
    max_peaks: int = 100,
) -> Peaks:
    """Finds the spots of a diffraction pattern, the direct beam among them if it is seen.

    Args:
      image: [H, W], finite.
      centre: (x, y) of the direct beam in pixels, for the radial background; ``None`` if it is not known yet.
      threshold: least height of a spot in standard deviations of the background nearby.
      max_peaks: the most intense are kept.

    Returns:
      ``Peaks``, possibly none.

    Raises:
      ValueError: if the image is too small or not finite.

    Example:
      >>> y, x = np.mgrid[:64, :64]
      >>> spot = np.exp(-((x - 20.3) ** 2 + (y - 40.8) ** 2) / 8)
      >>> find_peaks(spot).positions.round(2).tolist()
      [[20.3, 40.8]]
    """
    image = np.asarray(image, np.float64)
    if image.ndim != 2 or min(image.shape) < 32:
        raise ValueError(f"image: expected at least 32 by 32 pixels, got shape {list(image.shape)}")
    if not np.isfinite(image).all():
        raise ValueError("image: expected finite pixels")
    clean = without_background(without_hot_pixels(image), centre)
    places, sizes, heights, significance = _maxima(clean, _sizes(min(image.shape)), _quantum(image), threshold)
    rows = []
    for place, size, height, above in zip(places, sizes, heights, significance, strict=True):
        measured = _measure(clean, place, size)
        if measured is not None:
            rows.append((*measured, above, size, height))
    table = np.array(rows, np.float64).reshape(-1, 6)
    table = table[np.argsort(-table[:, 5], kind="stable")]
    table = table[_first_of_each(table[:, :2], 2.0 * table[:, 4])]
    table = table[np.argsort(-table[:, 2], kind="stable")][:max_peaks]
    return Peaks(table[:, :2], table[:, 2], table[:, 3], table[:, 4])


def without_hot_pixels(image: np.ndarray) -> np.ndarray:
    """The image with single bright pixels replaced by the median around them."""
    level = ndimage.median_filter(image, 5, mode="nearest")
    second = ndimage.rank_filter(image, -2, size=3, mode="nearest")
    above = image - level
    noise = 1.4826 * np.median(np.abs(above))
    # Even a spot of half a pixel's width lights a neighbour with an eighth of its height.
    hot = (above > 10 * noise) & (second - level < 0.1 * above) & (image > second)
    return np.where(hot, level, image)


def without_background(image: np.ndarray, centre: np.ndarray | None = None) -> np.ndarray:
    """The image less the median at each distance from ``centre`` (if given) and less a median over a wide window."""
    if centre is not None:
        image = image - radial_background(image, centre)
    step = max(1, min(image.shape) // _COARSE)
    small = image[: image.shape[0] // step * step, : image.shape[1] // step * step]
    small = np.median(small.reshape(small.shape[0] // step, step, -1, step).swapaxes(1, 2), axis=(2, 3))
    level = ndimage.median_filter(small, 13 if step > 1 else max(13, min(image.shape) // 9), mode="nearest")
    return image - _enlarged(ndimage.uniform_filter(level, 3, mode="nearest"), step, image.shape)


def radial_background(image: np.ndarray, centre: np.ndarray) -> np.ndarray:
    """The median of all pixels at about the same distance from ``centre``, drawn as an image [H, W]."""
    y, x = np.indices(image.shape)
    radius = np.hypot(x - centre[0], y - centre[1])
    # Rings widen outwards, where the background is flat; the innermost hold enough pixels for a median.
    edges = np.unique(np.concatenate([[0, 4], np.arange(7, radius.max() + 12, max(3, min(image.shape) / 100))]))
    ring = np.digitize(radius.ravel(), edges)
    order = np.argsort(ring, kind="stable")
    parts = np.split(image.ravel()[order], np.flatnonzero(np.diff(ring[order])) + 1)
    middles = [0.5 * (edges[k - 1] + edges[min(k, len(edges) - 1)]) for k in np.unique(ring)]
    return np.interp(radius, middles, [np.median(p) for p in parts])


def _sizes(side):
    """Widths to try, from a pixel to a sixtieth of the image."""
    widest = max(2.0, side / 60)
    return np.geomspace(1.0, widest, max(3, round(1.5 * np.log2(widest)) + 1))


def _quantum(image):
    """The step between grey values of a digitised image, 0 if there is none."""
    if (image != np.round(image)).any():
        return 0.0
    steps = np.diff(np.unique(image))
    return float(steps.min()) if len(steps) else 0.0


def _maxima(clean, sizes, quantum, threshold):
    """Places int [N, 2] (x, y), the size at which each stands out most, height there, and significance."""
    step = max(1, min(clean.shape) // _SCATTER)
    best, scale, scatters = np.full(clean.shape, -np.inf), np.zeros(clean.shape, int), []
    for i, size in enumerate(sizes):
        # A Gaussian spot answers most to the size that is its own width over the root of the ratio.
        response = ndimage.gaussian_filter(clean, size, mode="nearest")
        response = response - ndimage.gaussian_filter(clean, _OUTER * size, mode="nearest")
        # Single values on a coarse grid. Three tenths of normal numbers are below 0.385 standard deviations: spots and
        # the trenches around them may cover half of the image.
        noise = ndimage.percentile_filter(np.abs(response[::step, ::step]), 30, _SCATTER // 4, mode="nearest") / 0.385
        scatters.append(np.maximum(np.maximum(noise, 0.5 * np.median(noise)), _CONTOUR * quantum))
        larger = response > best
        best[larger], scale[larger] = response[larger], i
    top = best.max()
    summit = (best == ndimage.maximum_filter(best, 5, mode="nearest")) & (best > _FAINTEST * top)
    rows, columns = np.nonzero(summit & (best > 0))
    number, heights = scale[rows, columns], best[rows, columns]
    corner = [np.minimum(k // step, n - 1) for k, n in zip((rows, columns), scatters[0].shape, strict=True)]
    scatter = np.maximum(np.array(scatters)[number, corner[0], corner[1]], 1e-4 * top)
    significance = heights / scatter
    kept = np.flatnonzero(significance > threshold)
    kept = kept[np.argsort(-heights[kept], kind="stable")][:400]
    places = np.stack([columns, rows], axis=1)
    return places[kept], sizes[number[kept]], heights[kept], significance[kept]


def _measure(clean, place, size):
    """Centroid (x, y) and sum of a spot, or ``None`` if it is none."""
    height, width = clean.shape
    reach, (x0, y0) = int(np.ceil(3 * size)) + 1, place
    left, top = max(0, x0 - reach), max(0, y0 - reach)
    part = clean[top : min(height, y0 + reach + 1), left : min(width, x0 + reach + 1)]
    y, x = np.mgrid[: part.shape[0], : part.shape[1]].astype(np.float64)
    light = np.maximum(part - np.median(part[np.hypot(x + left - x0, y + top - y0) > 2.5 * size]), 0.0)
    centre = np.array([x0 - left, y0 - top], np.float64)
    for _ in range(8):
        offset = np.stack([x - centre[0], y - centre[1]])
        weight = light * np.exp(-0.5 * (offset**2).sum(0) / (1.5 * size) ** 2)
        total = weight.sum()
        if not total > 0:
            return None
        shift = (offset * weight).sum((1, 2)) / total
        centre = centre + 1.4 * shift  # the window holds the centroid back
        if np.abs(shift).max() < 1e-3:
            break
    moments = np.einsum("ahw,bhw,hw->ab", offset, offset, weight) / total
    if np.hypot(*(centre - (x0 - left, y0 - top))) > 2 * size + 1 or not np.linalg.det(moments) > 1e-3 * size**4:
        return None
    # Inverse variances of the spot itself; what the window cannot tell from infinitely wide counts as equally wide.
    widest = 0.05 / (1.5 * size) ** 2
    large, small = np.linalg.eigvalsh(np.linalg.inv(moments) - np.eye(2) / (1.5 * size) ** 2)
    if small > _LONGEST**2 * max(large, widest):
        return None
    near = np.hypot(x - centre[0], y - centre[1]) <= 2.5 * size
    return centre[0] + left, centre[1] + top, light[near].sum()


def _first_of_each(positions, distances):
    """Rows that are not close to an earlier one."""
    kept = []
    for i, p in enumerate(positions):
        if all(np.hypot(*(p - positions[j])) > max(distances[i], distances[j]) for j in kept):
            kept.append(i)
    return kept


def _enlarged(small, step, shape):
    """A coarse array on the pixels of an image, linear in between."""
    if step == 1 and small.shape == shape:
        return small
    rows, columns = ((np.arange(n) - 0.5 * (step - 1)) / step for n in shape)
    grid = np.meshgrid(rows, columns, indexing="ij")
    return ndimage.map_coordinates(small, grid, order=1, mode="nearest")
