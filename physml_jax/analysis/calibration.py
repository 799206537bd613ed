"""Can a classifier's probabilities be believed? Temperature, reliability, and sets of answers with a promise.

Everything is fitted on validation examples and judged on others, which must come from the same distribution: then the
true class is in the set with at least the promised probability, whatever the classifier (split conformal prediction).
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import scipy.optimize

#: Bounds of a temperature: beyond them a classifier is either never or always wrong.
TEMPERATURES = (0.01, 100.0)


class Reliability(NamedTuple):
    """How often a classifier is right when it is so sure.

    Attributes:
      confidence: float64 [K], mean of the largest probability in a bin.
      accuracy: float64 [K], share of right answers in it.
      count: int64 [K], examples in it.
      error: expected calibration error: mean over examples of abs(accuracy - confidence) of their bin.
    """

    confidence: np.ndarray
    accuracy: np.ndarray
    count: np.ndarray
    error: float


class Sets(NamedTuple):
    """Answers that are sets of classes.

    Attributes:
      members: bool [N, C].
      coverage: share of examples whose true class is in their set.
      size: mean number of classes in a set.
      single: share of examples with a set of one class.
      single_right: accuracy among those; ``None`` without any.
      by_class: float64 [C], coverage of every class; NaN for a class that does not occur.
    """

    members: np.ndarray
    coverage: float
    size: float
    single: float
    single_right: float | None
    by_class: np.ndarray


def log_softmax(logits: np.ndarray) -> np.ndarray:
    """Logarithms of probabilities, float64 [N, C]; large logits do not overflow."""
    x = np.asarray(logits, np.float64)
    x = x - x.max(axis=-1, keepdims=True)
    return x - np.log(np.exp(x).sum(axis=-1, keepdims=True))


def log_loss(logits: np.ndarray, labels: np.ndarray, *, weights: np.ndarray | None = None) -> float:
    """Mean of -ln p(true class), with one weight per example or equal ones."""
    logits, labels = _checked(logits, labels)
    each = -log_softmax(logits)[np.arange(len(labels)), labels]
    return float(np.average(each, weights=weights))


def fit_temperature(logits: np.ndarray, labels: np.ndarray, *, weights: np.ndarray | None = None) -> float:
    """The temperature T for which softmax(logits / T) has the smallest log loss.

    The loss is convex in 1/T, so the minimum is found by a search along one line. The order of the classes, and so the
    accuracy, does not change.

    Args:
      logits: float [N, C].
      labels: int [N].
      weights: float [N], weight of every example; ``None``: equal ones.

    Returns:
      T within ``TEMPERATURES``.

    Raises:
      ValueError: for shapes that do not fit or numbers that are not finite.

    References:
      C. Guo et al., On calibration of modern neural networks, ICML 2017, section 4.2.

    Example:
      >>> round(fit_temperature(np.array([[9.0, 0.0]] * 4), np.array([0, 0, 0, 1])), 2)  # sure, and right 3 of 4 times
      8.19
    """
    logits, labels = _checked(logits, labels)
    found = scipy.optimize.minimize_scalar(
        lambda x: log_loss(logits * np.exp(x), labels, weights=weights),
        bounds=(-np.log(TEMPERATURES[1]), -np.log(TEMPERATURES[0])),
        method="bounded",
        options={"xatol": 1e-6},
    )
    return float(np.exp(-found.x))


def reliability(probabilities: np.ndarray, labels: np.ndarray, *, num_bins: int = 10) -> Reliability:
    """Bins with equally many examples each: accuracy against the largest probability.

    Args:
      probabilities: float [N, C].
      labels: int [N].
      num_bins: K; fewer where there are fewer examples.
    """
    p, labels = _checked(probabilities, labels)
    if num_bins < 1:
        raise ValueError(f"num_bins: expected an integer of at least 1, got {num_bins}")
    sure, right = p.max(1), p.argmax(1) == labels
    parts = np.array_split(np.argsort(sure, kind="stable"), min(num_bins, len(sure)))
    confidence = np.array([sure[i].mean() for i in parts])
    accuracy = np.array([right[i].mean() for i in parts])
    count = np.array([len(i) for i in parts])
    return Reliability(confidence, accuracy, count, float(np.average(np.abs(accuracy - confidence), weights=count)))


def conformal_threshold(probabilities: np.ndarray, labels: np.ndarray, *, coverage: float = 0.9) -> float:
    """How much probability closes a set, so that it holds the true class as often as promised.

    The score of a validation example is the probability of all classes more probable than its true one: 0 where it was
    right. A set takes in classes, the most probable first, for as long as those before do not exceed the quantile of
    these scores, so the most probable one is in every set. (With the true class in the sum, a network that is often
    sure and right had to be given a larger set for each of these, or promised too little.)

    Args:
      probabilities: float [M, C], of validation examples.
      labels: int [M].
      coverage: what is promised, between 0 and 1.

    Returns:
      The quantile; infinite if M is too small for the promise: every set is then all classes.

    Raises:
      ValueError: for a coverage outside its range.

    References:
      Y. Romano, M. Sesia, E. Candès, Classification with valid and adaptive coverage, NeurIPS 2020 (without its
      randomisation, and with the sum before the true class).
    """
    if not 0 < coverage < 1:
        raise ValueError(f"coverage: expected a number between 0 and 1, got {coverage}")
    p, labels = _checked(probabilities, labels)
    scores = np.sort(_before(p)[np.arange(len(labels)), labels])
    rank = int(np.ceil((len(scores) + 1) * coverage))
    return float(scores[rank - 1]) if rank <= len(scores) else float("inf")


def conformal_sets(probabilities: np.ndarray, labels: np.ndarray, *, threshold: float) -> Sets:
    """Sets of classes at a threshold of ``conformal_threshold``, and how they do on labelled examples.

    Args:
      probabilities: float [N, C].
      labels: int [N].
      threshold: of validation examples.
    """
    p, labels = _checked(probabilities, labels)
    members = _before(p) <= threshold
    inside, size = members[np.arange(len(p)), labels], members.sum(1)
    single = size == 1
    by_class = [inside[labels == c].mean() if np.any(labels == c) else np.nan for c in range(p.shape[1])]
    right = float(inside[single].mean()) if single.any() else None
    coverage, mean, alone = (float(x.mean()) for x in (inside, size, single))
    return Sets(members, coverage, mean, alone, right, np.array(by_class))


def confused_pairs(matrix: np.ndarray, groups: Sequence[Sequence[int]] = ()) -> list[tuple[int, int, float]]:
    """Pairs of classes by how often they are taken for each other, the most frequent first.

    Args:
      matrix: counts [C, C], rows are true classes.
      groups: sets of classes that are reported as such elsewhere; pairs within one of them are left out.

    Returns:
      (i, j, share): the mean of the share of i answered as j and of j answered as i, positive ones only.
    """
    matrix = np.asarray(matrix, np.float64)
    share = matrix / np.maximum(matrix.sum(1, keepdims=True), 1e-12)
    known = {frozenset((a, b)) for g in groups for a in g for b in g if a != b}
    pairs = [(i, j, (share[i, j] + share[j, i]) / 2) for i in range(len(matrix)) for j in range(i)]
    chosen = [(j, i, float(s)) for i, j, s in pairs if s > 0 and frozenset((i, j)) not in known]
    return sorted(chosen, key=lambda x: (-x[2], x[:2]))


def _before(p: np.ndarray) -> np.ndarray:
    """Probability of all classes more probable than each one [N, C]; equal ones in the order of their numbers."""
    order = np.argsort(-p, axis=1, kind="stable")
    sorted_p = np.take_along_axis(p, order, axis=1)
    sums = np.concatenate([np.zeros_like(p[:, :1]), np.cumsum(sorted_p, axis=1)[:, :-1]], axis=1)
    found = np.empty_like(sums)
    np.put_along_axis(found, order, sums, axis=1)
    return found


def _checked(values: np.ndarray, labels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    values, labels = np.asarray(values, np.float64), np.asarray(labels)
    if values.ndim != 2 or not values.size or not np.isfinite(values).all():
        raise ValueError(f"logits or probabilities: expected finite numbers [N, C], got shape {values.shape}")
    if labels.shape != values.shape[:1] or not np.issubdtype(labels.dtype, np.integer):
        raise ValueError(f"labels: expected integers [{len(values)}], got {labels.dtype} {labels.shape}")
    if labels.min() < 0 or labels.max() >= values.shape[1]:
        raise ValueError(f"labels: expected 0 to {values.shape[1] - 1}, got {labels.min()} to {labels.max()}")
    return values, labels
