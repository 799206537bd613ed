import numpy as np
import pytest

from physml_jax.analysis import scores as s


def test_hand_computed():
    found = s.summarise([0.2, 0.4, 0.6, 0.8, 1.0])
    assert (found.n, found.num_clusters) == (5, 5)
    assert found.mean == pytest.approx(0.6)
    assert found.median == pytest.approx(0.6)
    assert found.percentile_5 == pytest.approx(0.24)  # 0.2 + 0.05 * 4 * 0.2
    assert found.share_below == pytest.approx(0.8)
    assert found.low < 0.6 < found.high


def test_interval_agrees_with_the_normal_one_for_independent_scores():
    x = np.random.default_rng(0).normal(0.8, 0.1, size=400)
    found = s.summarise(x)
    half = 1.96 * x.std() / 20
    assert (found.high - found.low) / 2 == pytest.approx(half, rel=0.08)
    assert (found.high + found.low) / 2 == pytest.approx(x.mean(), abs=0.1 * half)


def test_clusters_widen_the_interval():
    # 20 clusters of 25 equal scores carry the information of 20 scores: the interval is sqrt(25) times wider
    centres = np.random.default_rng(0).normal(0.8, 0.1, size=20)
    x, clusters = np.repeat(centres, 25), np.repeat([f"template {i}" for i in range(20)], 25)
    naive, honest = s.summarise(x), s.summarise(x, clusters=clusters)
    assert honest.num_clusters == 20
    assert (honest.high - honest.low) / (naive.high - naive.low) == pytest.approx(5, rel=0.15)
    assert honest.mean == naive.mean


def test_deterministic_and_seeded():
    x = np.random.default_rng(0).normal(size=50)
    assert s.summarise(x) == s.summarise(x)
    assert s.summarise(x).low != s.summarise(x, seed=1).low


def test_one_cluster_has_no_interval():
    found = s.summarise([0.5, 0.7], clusters=[3, 3])
    assert (found.low, found.high, found.num_clusters) == (None, None, 1)
    assert s.summarise([0.5]).low is None


def test_groups():
    found = s.summarise_groups([1.0, 0.0, 0.5, 0.7], [216, 225, 216, 225], clusters=[1, 1, 2, 1])
    assert list(found) == [216, 225]
    assert (found[216].n, found[216].mean, found[216].num_clusters) == (2, 0.75, 2)
    assert (found[225].n, found[225].mean, found[225].low) == (2, 0.35, None)


@pytest.mark.parametrize(
    ("call", "match"),
    [
        (lambda: s.summarise([]), "scores: expected at least one"),
        (lambda: s.summarise([0.1, np.nan]), "scores: 1 of 2 are not finite, the first is number 1"),
        (lambda: s.summarise([0.1], clusters=[1, 2]), "clusters: expected one label"),
        (lambda: s.summarise_groups([0.1], [1, 2]), "groups: expected one label"),
        (lambda: s.summarise([0.1, 0.2], num_resamples=0), "num_resamples"),
    ],
)
def test_bad_input(call, match):
    with pytest.raises(ValueError, match=match):
        call()
