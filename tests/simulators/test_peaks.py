"""Spots found in images: places, noise, the centre of inversion without the direct beam; images on another grid."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from physml_jax.simulators.diffraction import peaks, regrid

P = 64
AXIS = np.arange(P)


def picture(places, heights, sigma=1.2):
    x, y = np.asarray(places, np.float64).T[:, :, None, None]
    gaussians = np.exp(-((AXIS[None, None, :] - x) ** 2 + (AXIS[None, :, None] - y) ** 2) / (2 * sigma**2))
    return (np.asarray(heights)[:, None, None] * gaussians).sum(0)


@pytest.fixture(scope="module")
def find():
    return jax.jit(lambda images: peaks.find_peaks(images, num_peaks=12))


def test_places_between_pixels(find):
    """Six spots on a slope under a little noise: found to a tenth of a pixel, the highest first, and no others."""
    places = np.array([[10.3, 20.7], [40.0, 12.5], [25.2, 50.1], [50.6, 45.4], [33.1, 30.9], [8.0, 55.0]])
    heights = np.array([1.0, 0.9, 0.8, 0.5, 0.4, 0.3])
    noise = 0.01 * np.random.default_rng(0).normal(size=(P, P))
    image = picture(places, heights) + 0.02 * AXIS[:, None] + noise
    # The second image shares its program and nothing else.
    found = find(jnp.asarray(np.stack([image, noise]), jnp.float32))
    assert found.count[0] == 6 and found.count[1] <= 1
    np.testing.assert_allclose(found.positions[0, :6], places, atol=0.1)
    assert np.all(np.diff(found.heights[0, :6]) < 0) and not np.any(found.heights[0, 6:])
    assert not np.any(found.positions[0, 6:])
    # Moved by half a pixel, all places move by that: they are not rounded.
    moved = find(jnp.asarray(picture(places + 0.5, heights)[None].repeat(2, 0), jnp.float32))
    np.testing.assert_allclose(moved.positions[0, :6], places + 0.5, atol=0.05)


def test_a_plateau_is_one_peak(find):
    """A saturated spot: equal pixels in a square."""
    image = np.zeros((2, P, P), np.float32)
    image[0, 20:22, 30:32] = 1.0
    found = find(jnp.asarray(image))
    assert found.count.tolist() == [1, 0]
    assert np.abs(found.positions[0, 0] - np.array([30.5, 20.5])).max() <= 0.5


def test_centre_without_the_direct_beam():
    """Friedel pairs of unequal heights about an unmarked centre, some without their partner."""
    rng = np.random.default_rng(1)
    centre = np.array([33.7, 29.2])
    half = rng.uniform(-20, 20, (6, 2))
    places = np.concatenate([centre + half, centre - half[:5]])
    heights = rng.uniform(0.3, 1, 11)
    empty = peaks.Peaks(jnp.zeros((1, 12, 2)), jnp.zeros((1, 12)), jnp.zeros(1, jnp.int32), jnp.zeros(1))
    found = empty._replace(
        positions=empty.positions.at[0, :11].set(places), heights=empty.heights.at[0, :11].set(heights)
    )
    middle = (P - 1) / 2
    answer = peaks.centre_of_inversion(found, middle=middle, max_offset=6.0)
    np.testing.assert_allclose(answer[0], centre, atol=0.15)  # a few chance midpoints agree
    # Out of reach the answer is another; without reach or peaks it is the middle.
    assert np.abs(peaks.centre_of_inversion(found, middle=middle, max_offset=1.0)[0] - centre).max() > 1
    for peak, reach in ((found, 0.0), (empty, 6.0)):
        np.testing.assert_array_equal(peaks.centre_of_inversion(peak, middle=middle, max_offset=reach), [[middle] * 2])


@pytest.mark.parametrize("step", [0.5, 1.6])
def test_magnify(step):
    """A plane is reproduced exactly inside; a spot moves to where it belongs; outside is zero."""
    x, y = np.meshgrid(AXIS, AXIS)
    centre = np.array([30.25, 33.5], np.float32)
    images = np.stack([1 + 0.1 * x - 0.2 * y, picture([[40.0, 20.0]], [1.0], sigma=3.0)]).astype(np.float32)
    size = 21
    answer = regrid.magnify(
        jnp.asarray(images), centre=jnp.tile(centre, (2, 1)), step=jnp.full(2, step, jnp.float32), pixels=size
    )
    across = step * (np.arange(size) - (size - 1) / 2)
    expected = 1 + 0.1 * (centre[0] + across)[None, :] - 0.2 * (centre[1] + across)[:, None]
    if step == 0.5:
        np.testing.assert_allclose(answer[0], expected, atol=1e-4)
    else:  # the mean over a few pixels within a triangle is not exactly at its middle
        np.testing.assert_allclose(answer[0], expected, atol=0.06)
        row, column = np.unravel_index(answer[1].argmax(), (size, size))
        assert abs(across[column] + centre[0] - 40) <= step / 2 and abs(across[row] + centre[1] - 20) <= step / 2
    outside = regrid.magnify(jnp.asarray(images), centre=jnp.full((2, 2), -80.0), step=jnp.ones(2), pixels=9)
    assert not np.any(outside)


def test_bad_options_are_named():
    with pytest.raises(ValueError, match=r"images: expected \[B, P, P\]"):
        peaks.find_peaks(jnp.zeros((P, P)), num_peaks=4)
    with pytest.raises(ValueError, match="num_peaks: expected 1 to 1024, got 2000"):
        peaks.find_peaks(jnp.zeros((1, P, P)), num_peaks=2000)
    with pytest.raises(ValueError, match="threshold: expected positive"):
        peaks.find_peaks(jnp.zeros((1, P, P)), num_peaks=4, threshold=0.0)
