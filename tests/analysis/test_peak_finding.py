"""Spots with known places in noise, and what is no spot."""

import numpy as np
import pytest

from physml_jax.analysis.pattern_centre import find_centre
from physml_jax.analysis.pattern_spots import read_pattern
from physml_jax.analysis.peak_finding import find_peaks, radial_background

SIDE = 160


def gaussians(places, heights, width, side=SIDE):
    y, x = np.mgrid[:side, :side]
    image = np.zeros((side, side))
    for (u, v), h in zip(places, heights, strict=True):
        image += h * np.exp(-((x - u) ** 2 + (y - v) ** 2) / (2 * width**2))
    return image


def lattice_places(centre, a=(19.3, 4.1), b=(-6.2, 23.7), reach=3):
    n = np.stack(np.meshgrid(*[np.arange(-reach, reach + 1)] * 2), -1).reshape(-1, 2)
    n = n[(n != 0).any(1)]
    places = np.array(centre) + n @ np.array([a, b])
    inside = (np.abs(places - SIDE / 2) < SIDE / 2 - 8).all(1)
    heights = 400 * np.exp(-(n**2).sum(1) / 6.0)
    return places[inside], heights[inside]


@pytest.mark.parametrize("width", [1.2, 2.4])
def test_places_in_noise(width):
    rng = np.random.default_rng(0)
    places, heights = lattice_places((81.3, 77.8))
    image = gaussians(places, heights, width) + gaussians([(81.3, 77.8)], [300], 25)
    noisy = rng.poisson(image + 20).astype(float)
    noisy[40, 100] += 5000  # a hot pixel
    found = find_peaks(noisy)
    gap = np.linalg.norm(found.positions[:, None] - places[None], axis=-1)
    bright = heights > 100
    assert (gap.min(0)[bright] < 0.4).all()
    assert (gap.min(1) < 1).mean() > 0.9  # hardly anything else
    assert np.linalg.norm(found.positions - (100, 40), axis=1).min() > 2


def test_lines_are_no_spots():
    y, x = np.mgrid[:SIDE, :SIDE]
    line = 50 * np.exp(-((x - y - 20.0) ** 2) / 4) * np.exp(-((x + y - 160.0) ** 2) / 800)
    image = line + gaussians([(40.2, 110.7)], [50], 1.5) + np.random.default_rng(1).normal(0, 1, (SIDE, SIDE))
    np.testing.assert_allclose(find_peaks(image).positions, [[40.2, 110.7]], atol=0.2)


def test_nothing_in_noise():
    """Of 25600 pixels of noise none stands out by seven standard deviations."""
    assert len(find_peaks(np.random.default_rng(2).normal(100, 5, (SIDE, SIDE))).positions) == 0


def test_radial_background_follows_a_profile():
    y, x = np.mgrid[:SIDE, :SIDE]
    radius = np.hypot(x - 70.0, y - 85.0)
    image = 100 / (1 + radius / 20)
    np.testing.assert_allclose(radial_background(image, (70.0, 85.0))[radius > 3], image[radius > 3], rtol=0.06)


@pytest.mark.parametrize("stop", [False, True])
def test_centre(stop):
    """With the direct beam, and with a stop over it where the pattern is off the middle of the image."""
    centre = (71.4, 86.2)
    places, heights = lattice_places(centre)
    image = gaussians(places, heights, 1.5) + gaussians([centre], [80], 30) + gaussians([centre], [5000], 2.0)
    if stop:
        image[78:95, 64:] = 0
    image = np.random.default_rng(3).poisson(image + 5).astype(float)
    found = find_centre(image, find_peaks(image))
    assert found.direct == (not stop)
    np.testing.assert_allclose(found.position, centre, atol=0.5)
    assert found.paired > 0.8


def test_pattern_refusals():
    places, heights = lattice_places((80, 80))
    image = gaussians(places, heights, 1.5) + gaussians([(80, 80)], [3000], 2.0)
    pattern = read_pattern(image, scale=0.015)
    step = np.linalg.norm(pattern.spots.positions, axis=1).min()
    assert step == pytest.approx(0.015 * np.hypot(19.3, 4.1), rel=2e-3)
    # y points up
    first = pattern.spots.positions[np.argmin(np.abs(pattern.places - (99.3, 84.1)).sum(1))]
    np.testing.assert_allclose(first, [0.015 * 19.3, -0.015 * 4.1], atol=1e-3)
    with pytest.raises(ValueError, match=r"scale: .* per nanometre\?"):
        read_pattern(image, scale=0.15)
    with pytest.raises(ValueError, match="scale: expected a positive number"):
        read_pattern(image, scale=-0.01)
    with pytest.raises(ValueError, match="scale: .* spacing"):
        read_pattern(image, scale=1e-4)
    with pytest.raises(ValueError, match="centre: expected x,y"):
        read_pattern(image, scale=0.015, centre=(400, 3))
    with pytest.raises(ValueError, match="at least 3 spots"):
        read_pattern(gaussians([(80, 80)], [3000], 2.0), scale=0.015)
    with pytest.raises(ValueError, match="at least 32 by 32"):
        find_peaks(np.ones((20, 40)))
    with pytest.raises(ValueError, match="finite"):
        find_peaks(np.full((64, 64), np.nan))
