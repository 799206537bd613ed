"""Where the direct beam of a diffraction pattern is, seen or behind a beam stop; on the host.

A direct beam that outshines every spot is the centre. Otherwise Friedel pairs decide: spots at g and -g lie opposite
each other about the centre, and so, more or less, does the diffuse light. Places that could be the centre are the
middles of all pairs of spots, the spots themselves and the middle of the light. Each is judged by the share of spots
that have a partner, of those whose partner would lie in the image, and by the correlation of the image with itself
turned by half a turn about the place. Any point of a wide lattice of spots is such a centre; the diffuse light and the
fall of the intensities tell which.
"""

from typing import NamedTuple

import numpy as np
from scipy import ndimage

from physml_jax.analysis.peak_finding import Peaks

#: A direct beam has at least this many times the intensity of the next spot.
_BRIGHTER = 2.0
#: Side of the image that is turned.
_TURNED = 160


class Centre(NamedTuple):
    """The place of the direct beam.

    Attributes:
      position: float64 [2], (x, y) in pixels.
      uncertainty: standard deviation to expect, pixels.
      direct: the direct beam itself was seen there.
      paired: share of the spots that have a partner opposite, of those that could; weighted by significance.
    """

    position: np.ndarray
    uncertainty: float
    direct: bool
    paired: float


def find_centre(image: np.ndarray, peaks: Peaks, *, tolerance: float = 3.0) -> Centre:
    """Finds the centre of a pattern.

    Args:
      image: [H, W].
      peaks: its spots, of ``find_peaks``.
      tolerance: distance in pixels (for a side of 512, otherwise in proportion) at which two spots are opposite.

    Returns:
      ``Centre``. Its uncertainty is large where the diffuse light alone decided.
    """
    image = np.asarray(image, np.float64)
    tolerance = tolerance * max(1.0, min(image.shape) / 512)
    beam = _outshining(image, peaks)
    if beam is not None:
        return Centre(beam, 0.5, True, _paired(beam, peaks, image.shape, tolerance)[0])
    small, step = _compressed(image)
    places = _candidates(image, peaks, tolerance)
    scores = np.zeros(len(places))
    for i, place in enumerate(places):
        share, possible = _paired(place, peaks, image.shape, tolerance)
        # Few spots that could have a partner say little.
        scores[i] = share * possible / (possible + 3.0) + 2.0 * _symmetry(small, (place - 0.5 * (step - 1)) / step)
    place = places[int(np.argmax(scores))]
    position, uncertainty = _between_partners(place, peaks, tolerance)
    near = np.hypot(*(peaks.positions - position).T) <= tolerance if len(peaks.positions) else np.zeros(0, bool)
    return Centre(position, uncertainty, bool(near.any()), _paired(position, peaks, image.shape, tolerance)[0])


def _outshining(image, peaks):
    """The brightest spot if it is so by far and not at the border."""
    if not len(peaks.intensities):
        return None
    place = peaks.positions[0]
    inside = (np.abs(place / (np.array(image.shape[::-1]) - 1) - 0.5) < 0.35).all()
    alone = len(peaks.intensities) == 1 or peaks.intensities[0] > _BRIGHTER * peaks.intensities[1]
    return place if inside and alone else None


def _candidates(image, peaks, tolerance):
    """Places to judge, float [C, 2]: middles that several pairs share, bright spots, the middle of the light."""
    smooth = ndimage.gaussian_filter(image, min(image.shape) / 40)
    row, column = np.unravel_index(np.argmax(smooth), image.shape)
    light = np.maximum(smooth - np.median(smooth), 0.0)
    mass = ndimage.center_of_mass(light)[::-1] if light.sum() > 0 else (column, row)
    places = [np.array([column, row], np.float64), np.array(mass), *peaks.positions[:12]]
    spots, worth = peaks.positions[:60], np.log1p(peaks.significance[:60])
    if len(spots) > 1:
        first, second = np.triu_indices(len(spots), 1)
        middles = 0.5 * (spots[first] + spots[second])
        weights = np.minimum(worth[first], worth[second])
        close = np.hypot(*(middles[:, None] - middles[None]).transpose(2, 0, 1)) <= tolerance / 2
        votes = close @ weights
        for i in np.argsort(-votes, kind="stable"):
            if all(np.hypot(*(middles[i] - p)) > tolerance for p in places[14:]):
                places.append(np.average(middles[close[i]], axis=0, weights=weights[close[i]]))
            if len(places) >= 60:
                break
    places = np.array(places)
    inside = (places >= 0).all(1) & (places <= np.array(image.shape[::-1]) - 1).all(1)
    return places[inside]


def _paired(place, peaks, shape, tolerance):
    """Share of the spots with a partner opposite ``place``, and the weight of those that could have one."""
    spots = peaks.positions
    if not len(spots):
        return 0.0, 0.0
    opposite = 2 * place - spots
    could = (opposite >= 0).all(1) & (opposite <= np.array(shape[::-1]) - 1).all(1)
    could &= np.hypot(*(spots - place).T) > 2 * tolerance  # the direct beam is its own partner
    weight = np.where(could, np.log1p(peaks.significance), 0.0)
    has = np.hypot(*(opposite[:, None] - spots[None]).transpose(2, 0, 1)).min(1) <= tolerance
    return float((weight * has).sum() / max(weight.sum(), 1e-12)), float(weight.sum())


def _compressed(image):
    """The image with a small side and compressed contrast, and the number of pixels per pixel."""
    step = max(1, round(min(image.shape) / _TURNED))
    part = image[: image.shape[0] // step * step, : image.shape[1] // step * step]
    small = part.reshape(part.shape[0] // step, step, -1, step).mean((1, 3))
    small = small - np.percentile(small, 1)
    return np.sqrt(np.maximum(ndimage.gaussian_filter(small, 1.0), 0.0)), step


def _symmetry(image, place):
    """Correlation of an image with itself turned by half a turn about ``place``, times the root of the overlap."""
    low, high = [], []
    for centre, side in zip(place, image.shape[::-1], strict=True):
        reach = min(centre, side - 1 - centre)
        twice = round(2 * centre)  # whole or half pixels
        low.append(max(0, int(np.ceil(twice / 2 - reach - 0.25))))
        high.append(min(side - 1, twice - low[-1]))
        low[-1] = twice - high[-1]
    part = image[low[1] : high[1] + 1, low[0] : high[0] + 1]
    if min(part.shape) < 8:
        return 0.0
    a = part - part.mean()
    power = (a * a).sum()
    return float((a * a[::-1, ::-1]).sum() / power * np.sqrt(part.size / image.size)) if power > 0 else 0.0


def _between_partners(place, peaks, tolerance):
    """The mean middle of the pairs that are opposite each other about ``place``."""
    spots = peaks.positions
    if len(spots):
        apart = np.hypot(*(2 * place - spots[:, None] - spots[None]).transpose(2, 0, 1))
        first, second = np.nonzero(np.triu(apart <= tolerance, 1))
        if len(first):
            middles = 0.5 * (spots[first] + spots[second])
            return np.median(middles, axis=0), max(0.3, float(tolerance / 2 / np.sqrt(len(first))))
        own = np.hypot(*(spots - place).T)
        if own.min() <= tolerance:
            return spots[int(np.argmin(own))], 1.0
    return place, 2.0 * tolerance
