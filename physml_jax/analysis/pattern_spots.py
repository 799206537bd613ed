"""From an image of known scale to spots in 1/angstrom about the centre, with their errors and the field of view."""

from typing import NamedTuple

import numpy as np

from physml_jax.analysis.pattern_centre import Centre, find_centre
from physml_jax.analysis.pattern_likelihood import View, field_of_view
from physml_jax.analysis.peak_finding import Peaks, find_peaks
from physml_jax.analysis.spot_geometry import PatternSpots

#: Spacings that spots of a crystal can have, angstrom; beyond, the scale is wrong.
SPACINGS = (0.4, 40.0)
#: Spots further out are not used, 1/angstrom.
MAX_LENGTH = 1 / SPACINGS[0]
#: Relative error of positions from the lens.
_DISTORTION = 0.003


class Pattern(NamedTuple):
    """What is read off an image.

    Attributes:
      spots: without the direct beam, the most intense first.
      places: float64 [N, 2], (x, y) of the spots in pixels.
      centre: of the pattern.
      peaks: all that was found.
      view: the field of view.
      scale: 1/angstrom per pixel, as given.
    """

    spots: PatternSpots
    places: np.ndarray
    centre: Centre
    peaks: Peaks
    view: View
    scale: float


def read_pattern(
    image: np.ndarray,
    *,
    scale: float,
    centre: tuple[float, float] | None = None,
    threshold: float = 7.0,
    max_spots: int = 60,
) -> Pattern:
    """Finds centre and spots of a pattern.

    Args:
      image: [H, W].
      scale: 1/angstrom per pixel.
      centre: (x, y) of the direct beam in pixels; ``None``: found.
      threshold: see ``find_peaks``.
      max_spots: the most significant are kept.

    Returns:
      ``Pattern``.

    Raises:
      ValueError: for an impossible scale or centre, no spots, or spots whose spacings no crystal has.
    """
    image = np.asarray(image, np.float64)
    if not (np.isfinite(scale) and scale > 0):
        raise ValueError(f"scale: expected a positive number of 1/angstrom per pixel, got {scale!r}")
    if centre is None:
        place = find_centre(image, find_peaks(image, threshold=threshold))
    else:
        position = np.array(centre, np.float64)
        if position.shape != (2,) or not ((position >= 0) & (position < image.shape[::-1])).all():
            raise ValueError(f"centre: expected x,y in an image of {image.shape[1]} x {image.shape[0]}, got {centre}")
        place = Centre(position, 1.0, False, 0.0)
    peaks = find_peaks(image, centre=place.position, threshold=threshold)
    offset = np.linalg.norm(peaks.positions - place.position, axis=1)
    reach = max(4.0, 0.012 * min(image.shape))
    beam = offset <= np.maximum(reach, 2.5 * peaks.sizes)
    if (~beam).sum() >= 3:
        check_scale(offset[~beam] * scale, scale)
    kept = np.flatnonzero(~beam & (offset * scale <= MAX_LENGTH))
    if len(kept) > max_spots:
        kept = np.sort(kept[np.argsort(-peaks.significance[kept], kind="stable")[:max_spots]])
    if len(kept) < 3:
        raise ValueError(
            f"image: expected at least 3 spots beside the direct beam, found {len(kept)} (spots stand {threshold:g}"
            " standard deviations above their surroundings; a ring pattern or a single beam cannot be indexed)"
        )
    places = peaks.positions[kept]
    positions = _positions(places, scale, place.position)
    length = np.linalg.norm(positions, axis=1)
    # A centroid is good to a fraction of the spot's width; all share the error of the centre.
    pixels = np.hypot(0.4, 0.12 * peaks.sizes[kept])
    pixels = np.hypot(pixels, min(place.uncertainty, 3.0) / 2)
    spots = PatternSpots(
        positions=positions,
        errors=np.hypot(pixels * scale, _DISTORTION * length),
        intensities=peaks.intensities[kept],
        significance=peaks.significance[kept],
    )
    corners = np.array([[-0.5, image.shape[0] - 0.5], [image.shape[1] - 0.5, -0.5]])
    low, high = _positions(corners, scale, place.position)
    inner = max(reach, float((2.5 * peaks.sizes[beam]).max(initial=0.0)))
    view = field_of_view(low, high, inner * scale, 1.02 * length.max())
    return Pattern(spots, places, place, peaks, view, float(scale))


def check_scale(lengths: np.ndarray, scale: float) -> None:
    """Raises ValueError if no crystal has spots at these distances [N] from the centre, 1/angstrom."""
    nearest = np.sort(lengths)[min(2, len(lengths) - 1)]
    if not SPACINGS[0] <= 1 / nearest <= SPACINGS[1]:
        likely = "; is it per nanometre?" if 1 / nearest < SPACINGS[0] else ""
        raise ValueError(
            f"scale: expected 1/angstrom per pixel, got {scale:g}, with which the spots nearest the centre have a"
            f" spacing of {1 / nearest:.3g} angstrom{likely}"
        )


def _positions(places, scale, centre):
    """Places in pixels [N, 2] to (g_x, g_y); float64, which ``to_positions`` would lose outside ``enable_x64``."""
    return (places - centre) * np.array([1.0, -1.0]) * scale
