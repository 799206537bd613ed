"""Temperature, reliability and conformal sets: closed forms, known distributions, the promise of coverage."""

import numpy as np
import pytest

from physml_jax.analysis import calibration


def world(n, seed, sharpness=1.0):
    """(logits, labels) with labels drawn from softmax(logits / sharpness): the right temperature is ``sharpness``."""
    rng = np.random.default_rng(seed)
    logits = sharpness * rng.normal(0, 2, (n, 5))
    p = np.exp(calibration.log_softmax(logits / sharpness))
    labels = (p.cumsum(1) < rng.uniform(size=(n, 1))).sum(1)
    return logits, np.minimum(labels, 4)


def test_temperature_of_two_classes_has_a_closed_form():
    """Sure with log-odds 9, right 3 times in 4: log-odds must become ln 3."""
    found = calibration.fit_temperature(np.array([[9.0, 0.0]] * 4), np.array([0, 0, 0, 1]))
    np.testing.assert_allclose(found, 9 / np.log(3), rtol=1e-4)
    # The wrong one counts three times: a coin.
    weighted = calibration.fit_temperature(
        np.array([[9.0, 0.0]] * 4), np.array([0, 0, 0, 1]), weights=np.array([1, 1, 1, 3.0])
    )
    assert weighted > 50


@pytest.mark.parametrize("sharpness", [0.4, 1.0, 3.0])
def test_temperature_is_recovered(sharpness):
    """n = 20,000: the standard error of T/sharpness is about 0.01."""
    logits, labels = world(20_000, 1, sharpness)
    found = calibration.fit_temperature(logits, labels)
    assert abs(found / sharpness - 1) < 0.05
    best = calibration.log_loss(logits / found, labels)
    assert all(calibration.log_loss(logits / (found * f), labels) > best for f in (0.9, 1.1))


def test_log_loss_does_not_overflow():
    np.testing.assert_allclose(calibration.log_loss(np.array([[1e4, 0.0]]), np.array([1])), 1e4)
    np.testing.assert_allclose(calibration.log_loss(np.zeros((3, 8)), np.array([0, 1, 2])), np.log(8))


def test_reliability():
    """Calibrated probabilities have a small error, sharpened ones a large one; by hand for two bins."""
    logits, labels = world(20_000, 2)
    p = np.exp(calibration.log_softmax(logits))
    assert calibration.reliability(p, labels).error < 0.02
    sharp = np.exp(calibration.log_softmax(3 * logits))
    assert calibration.reliability(sharp, labels).error > 0.1
    four = np.array([[0.6, 0.4], [0.6, 0.4], [0.9, 0.1], [0.9, 0.1]])
    found = calibration.reliability(four, np.array([0, 1, 0, 0]), num_bins=2)
    np.testing.assert_allclose(found.confidence, [0.6, 0.9])
    np.testing.assert_allclose(found.accuracy, [0.5, 1.0])
    np.testing.assert_allclose(found.error, 0.1)


@pytest.mark.parametrize("sharpen", [1.0, 4.0])
def test_sets_keep_their_promise(sharpen):
    """Coverage of at least 0.9, good probabilities or not; its standard errors are 0.003 (test), 0.005 (validation)."""
    p, labels = world(12_000, 3)
    p = np.exp(calibration.log_softmax(sharpen * p))
    threshold = calibration.conformal_threshold(p[:4000], labels[:4000], coverage=0.9)
    found = calibration.conformal_sets(p[4000:], labels[4000:], threshold=threshold)
    assert 0.88 < found.coverage < 0.92
    assert 1 < found.size < 5 and 0 < found.single < 1
    assert found.single_right > 0.8
    # Without validation examples of their own overconfident probabilities do not keep it.
    naive = calibration.conformal_sets(p[4000:], labels[4000:], threshold=0.9)
    assert sharpen == 1.0 or naive.coverage < 0.85


def test_sets_by_hand():
    p = np.array([[0.7, 0.2, 0.1], [0.4, 0.35, 0.25], [0.05, 0.05, 0.9]])
    found = calibration.conformal_sets(p, np.array([0, 2, 0]), threshold=0.8)
    assert found.members.tolist() == [[True, True, False], [True, True, True], [False, False, True]]
    np.testing.assert_allclose([found.coverage, found.size, found.single, found.single_right], [2 / 3, 2.0, 1 / 3, 0.0])
    np.testing.assert_allclose(found.by_class, [0.5, np.nan, 1.0])
    # Scores of the true classes: 0, 0.75, 0.95. Too few for 90 %: all classes; the second of three for 50 %.
    assert calibration.conformal_threshold(p, np.array([0, 2, 0]), coverage=0.9) == np.inf
    np.testing.assert_allclose(calibration.conformal_threshold(p, np.array([0, 2, 1]), coverage=0.5), 0.75)


def test_confused_pairs():
    matrix = np.array([[8, 2, 0], [1, 9, 0], [5, 0, 5]])
    found = calibration.confused_pairs(matrix)
    assert [(i, j) for i, j, _ in found] == [(0, 2), (0, 1)]
    np.testing.assert_allclose([s for *_, s in found], [0.25, 0.15])
    assert [(i, j) for i, j, _ in calibration.confused_pairs(matrix, groups=[(0, 1)])] == [(0, 2)]


@pytest.mark.parametrize(
    ("values", "labels", "message"),
    [
        (np.zeros((2, 3)), np.array([0]), r"labels: expected integers \[2\]"),
        (np.zeros((2, 3)), np.array([0, 3]), "labels: expected 0 to 2, got 0 to 3"),
        (np.full((1, 3), np.nan), np.array([0]), "expected finite numbers"),
    ],
)
def test_bad_input_is_named(values, labels, message):
    with pytest.raises(ValueError, match=message):
        calibration.fit_temperature(values, labels)
