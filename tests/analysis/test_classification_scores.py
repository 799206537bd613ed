import numpy as np
import pytest

from physml_jax.analysis import classification as c


def test_confusion_by_hand():
    found = c.confusion_matrix([0, 0, 1, 2, 2, 2], [0, 1, 1, 2, 0, 2], num_classes=3)
    np.testing.assert_array_equal(found, [[1, 1, 0], [0, 1, 0], [1, 0, 2]])
    assert c.balanced_accuracy(found) == pytest.approx((1 / 2 + 1 + 2 / 3) / 3)
    # F1 = 2 TP / (2 TP + FP + FN): 2/4, 2/3, 4/5
    assert c.macro_f1(found) == pytest.approx((2 / 4 + 2 / 3 + 4 / 5) / 3)


def test_classes_that_never_occur_do_not_count():
    found = c.confusion_matrix([0, 0], [0, 0], num_classes=3)
    assert c.macro_f1(found) == 1 and c.balanced_accuracy(found) == 1


def test_wilson():
    # 81 of 263: 0.2553 to 0.3662 (R. G. Newcombe, Statist. Med. 17, 857 (1998), Table I, method 3)
    low, high = c.wilson_interval(81, 263)
    assert (round(low, 4), round(high, 4)) == (0.2553, 0.3662)
    low, high = c.wilson_interval(0, 20)
    assert (low, round(high, 4)) == (0.0, 0.1611)
    low, high = c.wilson_interval(20, 20)
    assert (round(low, 4), high) == (0.8389, 1.0)


def test_majority():
    assert c.majority_class([2, 1, 1, 2]) == 1
    assert c.majority_class([2, 1, 2]) == 2


def test_best_threshold():
    found = c.best_threshold([0.1, 0.2, 0.3, 0.4], [0, 0, 1, 1])
    assert (found.value, found.above, found.accuracy) == (pytest.approx(0.25), True, 1.0)
    found = c.best_threshold([0.1, 0.2, 0.3, 0.4], [1, 1, 0, 1])
    assert found.accuracy == 0.75
    found = c.best_threshold([0.1, 0.2, 0.3], [1, 1, 0])
    assert (found.above, found.accuracy) == (False, 1.0)
    assert found.value == pytest.approx(0.25)
    found = c.best_threshold([0.5, 0.5, 0.5], [1, 1, 0])  # no threshold separates equal values
    assert found.accuracy == pytest.approx(2 / 3) and np.isinf(found.value)


def test_best_threshold_against_brute_force():
    rng = np.random.default_rng(0)
    x = np.round(rng.random(60), 1)
    y = (x + rng.normal(0, 0.2, 60) > 0.5).astype(np.int32)
    cuts = np.concatenate([[-1], np.unique(x) + 1e-6])
    expected = max(max(np.mean((x > t) == y), np.mean((x <= t) == y)) for t in cuts)
    found = c.best_threshold(x, y)
    assert found.accuracy == pytest.approx(expected)
    assert np.mean(((x > found.value) == found.above) == y) == pytest.approx(expected)


def test_nearest_mean():
    # means 0.15, 0.6 and 0.9 of classes 0, 2 and 5; 0.75 is half-way and goes to the lower class
    found = c.nearest_mean([0.1, 0.2, 0.5, 0.7, 0.9], [0, 0, 2, 2, 5], [0.0, 0.3, 0.4, 0.75, 2.0])
    np.testing.assert_array_equal(found, [0, 0, 2, 2, 5])


def test_softmax():
    np.testing.assert_allclose(c.probabilities_from_logits([[0.0, np.log(3.0)]]), [[0.25, 0.75]])
    np.testing.assert_allclose(c.probabilities_from_logits([[1e4, 0.0]]), [[1.0, 0.0]])


@pytest.mark.parametrize(
    ("call", "match"),
    [
        (lambda: c.confusion_matrix([0, 3], [0, 0], num_classes=2), "labels: expected classes from 0 to 1, got 0 to 3"),
        (lambda: c.confusion_matrix([0], [0, 0], num_classes=2), "predictions: expected 1"),
        (lambda: c.confusion_matrix([0.5], [0], num_classes=2), "labels: expected at least one integer"),
        (lambda: c.wilson_interval(3, 2), "successes"),
        (lambda: c.wilson_interval(0, 0), "successes"),
        (lambda: c.majority_class([]), "train_labels"),
        (lambda: c.best_threshold([np.nan], [0]), "values"),
        (lambda: c.nearest_mean([0.1], [0, 1], [0.2]), "train_values: expected 2 numbers"),
        (lambda: c.nearest_mean([0.1], [0], [np.nan]), "expected finite"),
    ],
)
def test_bad_input(call, match):
    with pytest.raises(ValueError, match=match):
        call()
