"""What the density alone knows: rules held against brute force on small sets."""

import itertools

import numpy as np
import pytest
import scipy.ndimage

from physml_jax.analysis import classification, percolation, single_feature


def test_levels_by_density_and_by_group():
    density = np.array([0.5, 0.1, 0.5, 0.9], np.float32)
    found = percolation.levels(density)
    np.testing.assert_allclose(found.density, [0.1, 0.5, 0.9], rtol=1e-6)
    assert found.codes.tolist() == [1, 0, 1, 2]
    drawn = percolation.levels(np.array([0.52, 0.1, 0.48, 0.9]), groups=np.array([7, 3, 7, 1]))
    np.testing.assert_allclose(drawn.density, [0.1, 0.5, 0.9])
    assert drawn.codes.tolist() == [1, 0, 1, 2]
    many = percolation.levels(np.linspace(0, 1, 1000), max_levels=10)
    assert np.bincount(many.codes).tolist() == [100] * 10
    with pytest.raises(ValueError, match="groups: expected 4"):
        percolation.levels(density, groups=np.arange(3))
    with pytest.raises(ValueError, match="density"):
        percolation.levels(np.array([np.nan]))


def test_shares_are_wilsons():
    codes = np.array([0] * 10 + [1] * 5 + [2] * 4)
    outcome = np.array([1] * 3 + [0] * 7 + [0] * 5 + [1] * 4)
    found = percolation.shares(outcome, codes)
    for i, (k, n) in enumerate(((3, 10), (0, 5), (4, 4))):
        assert (found.low[i], found.high[i]) == pytest.approx(classification.wilson_interval(k, n))
        assert (found.count[i], found.total[i], found.share[i]) == (k, n, k / n)
    with pytest.raises(ValueError, match="level 0 is empty"):
        percolation.shares([1], [1])
    with pytest.raises(ValueError, match="outcome"):
        percolation.shares([1, 0], [0])


def test_the_oracle_is_the_best_function_of_the_density():
    rng = np.random.default_rng(0)
    density = np.repeat([0.2, 0.4, 0.6], 25)
    labels = (rng.random(75) < density).astype(int)
    found = np.mean(percolation.density_oracle(density, labels) == labels)
    everything = [
        np.mean(np.array(answer)[np.repeat([0, 1, 2], 25)] == labels) for answer in itertools.product([0, 1], repeat=3)
    ]
    assert found == max(everything)


def test_the_oracle_does_not_memorise():
    """Densities that never repeat: a majority of one would be right everywhere."""
    rng = np.random.default_rng(1)
    density, labels = rng.random(400), rng.integers(0, 2, 400)
    assert np.mean(percolation.density_oracle(density, labels) == labels) < 0.6
    pairs = np.repeat(rng.random(200), 2)
    assert np.mean(percolation.density_oracle(pairs, np.tile([0, 1], 200)) == np.tile([0, 1], 200)) == 0.5
    assert np.mean(percolation.threshold_answers(pairs, np.tile([0, 1], 200), pairs) == np.tile([0, 1], 200)) == 0.5
    with pytest.raises(ValueError, match="labels"):
        percolation.density_oracle(density, labels + 1)


def test_pooling_a_lattice_gives_its_density_exactly():
    states = np.random.default_rng(0).random((5, 100, 100, 1)) < 0.59
    np.testing.assert_array_equal(single_feature.pooled(states.astype(np.float32)), states.sum((1, 2, 3)) / 10_000)
    with pytest.raises(ValueError, match="images"):
        single_feature.pooled(np.zeros((3, 4)))


def test_linear_regression():
    x, y = np.random.default_rng(0).random((2, 30))
    slope, constant = np.polyfit(x, y, 1)
    np.testing.assert_allclose(single_feature.linear_regression(x, y, [0.0, 2.0]), [constant, constant + 2 * slope])
    np.testing.assert_allclose(single_feature.linear_regression([1.0, 1.0], [0.0, 2.0], [5.0]), [1.0])
    with pytest.raises(ValueError, match="train_targets"):
        single_feature.linear_regression(x, y[:3], x)


def test_logistic_regression_solves_its_equations():
    rng = np.random.default_rng(0)
    x = rng.normal(0.6, 0.05, 500)
    y = (rng.random(500) < 1 / (1 + np.exp(-30 * (x - 0.59)))).astype(int)
    p = single_feature.logistic_regression(x, y, x)
    assert np.sum(y - p) == pytest.approx(0, abs=0.01) and np.sum((y - p) * x) == pytest.approx(0, abs=0.01)
    separable = single_feature.logistic_regression([0.1, 0.2, 0.8, 0.9], [0, 0, 1, 1], [0.0, 1.0])
    assert separable[0] < 0.05 and separable[1] > 0.95
    with pytest.raises(ValueError, match="train_labels"):
        single_feature.logistic_regression(x, y + 1, x)


def test_monotone_regression():
    # Pooled by hand: 3, 1 violate and become 2, 2; the rest rises.
    np.testing.assert_allclose(
        single_feature.monotone_regression([1, 2, 3, 4], [0, 3, 1, 5], [1, 2, 3, 4]), [0, 2, 2, 5]
    )
    np.testing.assert_allclose(single_feature.monotone_regression([1, 2], [0, 1], [0, 1.5, 9]), [0, 0.5, 1])
    falling = single_feature.monotone_regression([1, 2, 3], [5, 2, 1], [1, 2, 3])
    np.testing.assert_allclose(falling, [5, 2, 1])
    rng = np.random.default_rng(0)
    x, y = rng.random(40), rng.random(40) + np.linspace(0, 1, 40)
    fit = single_feature.monotone_regression(np.sort(x), y, np.sort(x))
    for other in (np.sort(y), np.full(40, y.mean()), np.linspace(y.min(), y.max(), 40)):
        assert np.sum((fit - y) ** 2) <= np.sum((other - y) ** 2)


def test_binned_mean():
    np.testing.assert_allclose(single_feature.binned_mean([1, 1, 3], [0, 2, 5], [1, 2, 3, 9]), [1, 3, 5, 5])
    x = np.linspace(0, 1, 1000)
    np.testing.assert_allclose(single_feature.binned_mean(x, x, x, max_bins=50), x, atol=0.02)


def test_clusters_for_drawing():
    states = np.random.default_rng(0).random((4, 12, 12)) < 0.6
    labels = percolation.cluster_labels(states)
    for s, l, v, h, e in zip(
        states,
        labels,
        percolation.spanning_labels(labels, direction="vertical"),
        percolation.spanning_labels(labels, direction="horizontal"),
        percolation.spanning_labels(labels),
        strict=True,
    ):
        assert l.max() == scipy.ndimage.label(s)[1]
        assert set(v) == (set(l[0]) & set(l[-1])) - {0} and set(e) == set(v) | set(h)
    np.testing.assert_array_equal(percolation.joined_to_top(states), [np.isin(l, l[0][l[0] > 0]) for l in labels])
    with pytest.raises(ValueError, match="direction"):
        percolation.spanning_labels(labels, direction="up")
    with pytest.raises(ValueError, match="states: expected bool"):
        percolation.cluster_labels(labels)
