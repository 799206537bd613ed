"""Shares of spanning states over the density."""

import numpy as np
import pytest

from physml_jax.analysis.classification import wilson_interval
from physml_jax.analysis.percolation import spanning_fraction


def test_shares_and_intervals_by_density():
    rng = np.random.default_rng(0)
    density = rng.permutation(np.repeat([0.5, 0.585, 0.7], 100))
    spanning = (density > 0.65) | ((density > 0.55) & (rng.random(300) < 0.5))
    at, of = spanning_fraction(spanning, density.astype(np.float32))
    np.testing.assert_allclose(at.density, [0.5, 0.585, 0.7], rtol=1e-6)
    assert of.total.tolist() == [100, 100, 100]
    assert of.count.tolist() == [0, int(spanning[density == 0.585].sum()), 100]
    np.testing.assert_allclose(of.share, of.count / 100)
    for low, high, count in zip(of.low, of.high, of.count, strict=True):
        assert (low, high) == pytest.approx(wilson_interval(int(count), 100))
    assert of.low[0] == 0 and of.high[2] == 1


def test_intervals_cover_the_truth():
    """50 densities of 200 states that span with probability 0.3, 20 times over: the 95 % interval holds 0.3 in 950 of
    1000 cases, with a standard deviation of 7."""
    rng = np.random.default_rng(1)
    density = np.repeat(np.linspace(0.4, 0.6, 50), 200)
    covered = 0
    for _ in range(20):
        _, of = spanning_fraction(rng.random(10000) < 0.3, density)
        covered += ((of.low < 0.3) & (0.3 < of.high)).sum()
    assert abs(covered - 950) < 5 * 7


def test_bad_input_is_refused():
    with pytest.raises(ValueError, match="spanning: expected 0 or 1"):
        spanning_fraction([0.5, 1.0], [0.5, 0.5])
    with pytest.raises(ValueError, match="outcome"):
        spanning_fraction([1], [0.5, 0.5])
    with pytest.raises(ValueError, match="density"):
        spanning_fraction([1, 0], [0.5, np.nan])
