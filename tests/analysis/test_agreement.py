"""Agreement of two answers beyond the truth, and bootstrap intervals of many means."""

import numpy as np
import pytest

from physml_jax.analysis import agreement
from physml_jax.analysis.bootstrap import mean_intervals

LABELS = np.repeat([0, 1, 2], 400)


@pytest.fixture
def noise():
    return np.random.default_rng(0).normal(size=(4, len(LABELS)))


def test_kappa_by_hand():
    # Table [[20, 5], [10, 15]]: p = 0.7, chance 0.5.
    first = np.repeat([0, 0, 1, 1], [20, 5, 10, 15])
    second = np.repeat([0, 1, 0, 1], [20, 5, 10, 15])
    assert agreement.cohen_kappa(first, second, num_classes=2) == pytest.approx(0.4)
    assert agreement.cohen_kappa(second, first, num_classes=2) == pytest.approx(0.4)
    assert agreement.cohen_kappa(first, first, num_classes=2) == 1
    assert agreement.cohen_kappa(first, 1 - first, num_classes=2) == pytest.approx(-1, abs=0.01)
    assert agreement.cohen_kappa([1, 1], [1, 1], num_classes=2) is None


def test_the_true_class_is_taken_out(noise):
    """Two numbers that both follow the class, with errors of their own, do not go together beyond it."""
    a, b = LABELS + noise[0], LABELS + noise[1]
    assert np.corrcoef(a, b)[0, 1] > 0.3
    assert abs(agreement.partial_correlation(a, b, LABELS)) < 4 / np.sqrt(len(LABELS))
    shared = agreement.partial_correlation(a, LABELS + noise[0] + noise[2], LABELS)
    assert shared == pytest.approx(np.sqrt(0.5), abs=0.06)
    # The same as the correlation of the residuals of a regression on indicators of the class.
    design = (LABELS[:, None] == np.arange(3)).astype(float)
    rest = [x - design @ np.linalg.lstsq(design, x, rcond=None)[0] for x in (a, a + noise[2])]
    assert agreement.partial_correlation(a, a + noise[2], LABELS) == pytest.approx(np.corrcoef(*rest)[0, 1])
    assert agreement.partial_correlation(3.3 * LABELS, a, LABELS) is None
    with pytest.raises(ValueError, match="first: expected 1200 finite"):
        agreement.partial_correlation(a * np.nan, a, LABELS)


def test_explained_share_is_adjusted(noise):
    target = LABELS + noise[0] + noise[1]
    assert agreement.explained_share(target, noise[:1].T, LABELS) == pytest.approx(0.5, abs=0.06)
    assert agreement.explained_share(target, noise[:2].T, LABELS) == pytest.approx(1)
    # Columns that say nothing explain nothing, in the mean; unadjusted it would be 40/60.
    rng = np.random.default_rng(1)
    found = [agreement.explained_share(rng.normal(size=61), rng.normal(size=(61, 40)), np.zeros(61)) for _ in range(50)]
    assert abs(np.mean(found)) < 0.15
    assert agreement.explained_share(LABELS, noise[:1].T, LABELS) is None
    assert agreement.explained_share(target, np.ones((len(LABELS), 2)), LABELS) == pytest.approx(0)


def test_bootstrap_of_many_means(noise):
    noise = noise[:, :250]
    found = mean_intervals(noise, num_resamples=500)
    half = 1.96 * noise.std(1) / np.sqrt(noise.shape[1])
    np.testing.assert_allclose(found, noise.mean(1)[:, None] + half[:, None] * [-1, 1], atol=0.25 * half.max())
    # All rows see the same resamples: a difference of two that nearly agree has a narrow interval.
    low, high = mean_intervals((noise[0] - (noise[0] + 0.01 * noise[1]))[None], num_resamples=500)[0]
    assert high - low < 0.03 * np.ptp(found[0])
    np.testing.assert_array_equal(mean_intervals(noise, num_resamples=500), found)
    assert mean_intervals(np.ones((1, 5)), num_resamples=3).tolist() == [[1, 1]]
    with pytest.raises(ValueError, match=r"values: expected finite numbers \[K, N\]"):
        mean_intervals(np.array([1.0, 2]))
    with pytest.raises(ValueError, match="num_resamples"):
        mean_intervals(noise, num_resamples=0)
