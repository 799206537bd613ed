"""The axis of a holder, from orientations hidden among wrong ones."""

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from physml_jax.analysis.indexing import Hypothesis
from physml_jax.analysis.tilt_series import tilt_series

CUBIC = Rotation.create_group("O").as_matrix()


def hypothesis(rotation, value):
    empty = np.zeros(0)
    return Hypothesis(
        0, rotation, (0, 0, 1), True, 0.0, 1.0, empty, empty, 0.03, empty, empty, empty, empty, empty, 0.0, 1.0, 1.0,
        value, value,
    )  # fmt: skip


def series(error_deg, wrong=(20, 24), num_wrong=10, seed=0):
    """Patterns at known angles; the true orientation is not the first, perhaps not the best, and any equivalent."""
    rng = np.random.default_rng(seed)
    axis = np.array([np.cos(0.7), np.sin(0.7), 0.03])
    axis /= np.linalg.norm(axis)
    angles = np.array([-30.0, -20.5, 0.0, 4.0, 25.0])
    base = Rotation.random(random_state=1)
    patterns = []
    for a in angles:
        true = Rotation.from_rotvec(np.deg2rad(a) * axis) * base
        true = Rotation.from_rotvec(np.deg2rad(error_deg) * rng.normal(size=3) / 3**0.5) * true
        equivalent = true.as_matrix() @ CUBIC[rng.integers(24)]
        others = Rotation.random(num_wrong, random_state=rng.integers(1000)).as_matrix()
        found = [hypothesis(r, rng.uniform(*wrong)) for r in others]
        found.insert(int(rng.integers(num_wrong)), hypothesis(equivalent, 22.0))
        patterns.append(found)
    return axis, angles, patterns


def test_exact():
    axis, angles, patterns = series(0.0)
    found = tilt_series(patterns, CUBIC)
    np.testing.assert_allclose(found.axis, axis, atol=1e-6)
    np.testing.assert_allclose(found.angles_deg, angles - angles[found.reference], atol=1e-5)
    assert found.deviations_deg.max() < 1e-4
    for pattern, number, rotation in zip(patterns, found.chosen, found.rotations, strict=True):
        assert pattern[number].log_likelihood == 22.0
        # One crystal: the orientations differ by turns about the axis only.
        np.testing.assert_allclose(rotation.T @ axis, found.rotations[0].T @ axis, atol=1e-6)


def test_with_errors_and_a_pattern_that_fits_nothing():
    axis, angles, patterns = series(0.5, wrong=(8, 18), seed=3)
    patterns[1] = [h for h in patterns[1] if h.log_likelihood != 22.0]
    patterns.append([])
    found = tilt_series(patterns, CUBIC)
    assert np.rad2deg(np.arccos(abs(found.axis @ axis))) < 1.5
    kept = [0, 2, 3, 4]
    np.testing.assert_allclose(found.angles_deg[kept], (angles - angles[found.reference])[kept], atol=1.5)
    assert found.chosen[5] == -1 and np.isnan(found.angles_deg[5])


def test_refusals():
    *_, patterns = series(0.0)
    with pytest.raises(ValueError, match="at least two patterns"):
        tilt_series([patterns[0], []], CUBIC)
    twice = [[hypothesis(np.eye(3), 5.0)], [hypothesis(np.eye(3), 5.0)]]
    with pytest.raises(ValueError, match="no two patterns differ"):
        tilt_series(twice, np.eye(3)[None])
