"""Scores of a classifier: confusion matrix, accuracy with its interval, and the baselines that need no network."""

import math
from typing import NamedTuple

import numpy as np


class Threshold(NamedTuple):
    """A rule that looks at one number: class 1 where ``above == (x > value)``.

    Attributes:
      value: the threshold.
      above: whether class 1 lies above it.
      accuracy: share of the fitted examples that the rule gets right.

    """

    value: float
    above: bool
    accuracy: float


def confusion_matrix(labels: np.ndarray, predictions: np.ndarray, *, num_classes: int) -> np.ndarray:
    """Counts of (true class, predicted class).

    Args:
      labels: int ``[N]``, true classes.
      predictions: int ``[N]``, predicted classes.
      num_classes: C.

    Returns:
      Int64 ``[C, C]``, rows are true classes.

    Raises:
      ValueError: if lengths differ, there are no examples, or a class is outside 0 to C - 1.

    Example:
      >>> confusion_matrix([0, 0, 1], [0, 1, 1], num_classes=2).tolist()
      [[1, 1], [0, 1]]

    """
    labels, predictions = _classes(labels, "labels", num_classes), _classes(predictions, "predictions", num_classes)
    if len(labels) != len(predictions):
        raise ValueError(f"predictions: expected {len(labels)} classes as in labels, got {len(predictions)}")
    flat = np.bincount(labels * num_classes + predictions, minlength=num_classes**2)
    return flat.reshape(num_classes, num_classes)


def wilson_interval(successes: int, n: int, *, z: float = 1.959963984540054) -> tuple[float, float]:
    """Wilson's score interval of a proportion; sensible at 0 and 1, where the normal interval is empty.

    Args:
      successes: number of successes, 0 to n.
      n: number of independent trials, at least 1.
      z: normal quantile, 1.96 for 95 %.

    Returns:
      Lower and upper end.

    Raises:
      ValueError: if the counts make no sense.

    References:
      E. B. Wilson, J. Am. Stat. Assoc. 22, 209 (1927).

    """
    if n < 1 or not 0 <= successes <= n:
        raise ValueError(f"successes, n: expected 0 <= successes <= n and n >= 1, got {successes} and {n}")
    share = successes / n
    centre = (share + z**2 / (2 * n)) / (1 + z**2 / n)
    half = z / (1 + z**2 / n) * math.sqrt(share * (1 - share) / n + z**2 / (4 * n**2))
    # Exact ends at 0 and n successes; rounding would otherwise leave 1e-17 beside them.
    return (0.0 if successes == 0 else centre - half), (1.0 if successes == n else centre + half)


def majority_class(train_labels: np.ndarray) -> int:
    """The most frequent class of the training set, the lowest number among equals."""
    train_labels = np.asarray(train_labels)
    if train_labels.ndim != 1 or len(train_labels) == 0:
        raise ValueError(f"train_labels: expected at least one class [M], got shape {train_labels.shape}")
    values, counts = np.unique(train_labels, return_counts=True)
    return int(values[np.argmax(counts)])


def best_threshold(values: np.ndarray, labels: np.ndarray) -> Threshold:
    """The rule "class 1 above (or below) a threshold" with the fewest errors: what one number can know.

    Args:
      values: float ``[M]``, for instance the density of a lattice.
      labels: int ``[M]``, 0 or 1.

    Returns:
      The threshold, half-way between two neighbouring values (or infinite, if one class everywhere is best).

    Raises:
      ValueError: if lengths differ, values are not finite, or a label is not 0 or 1.

    """
    values, labels = np.asarray(values, np.float64), _classes(labels, "labels", 2)
    if values.shape != labels.shape or not np.all(np.isfinite(values)):
        raise ValueError(f"values: expected {len(labels)} finite numbers, got shape {values.shape}")
    distinct, codes = np.unique(values, return_inverse=True)
    ones = np.bincount(codes, weights=labels, minlength=len(distinct))
    zeros = np.bincount(codes, minlength=len(distinct)) - ones
    # Cut k puts the k lowest distinct values below the threshold.
    right_above = np.concatenate([[0], np.cumsum(zeros)]) + ones.sum() - np.concatenate([[0], np.cumsum(ones)])
    right_below = len(labels) - right_above
    above = bool(right_above.max() >= right_below.max())
    right = right_above if above else right_below
    cut = int(np.argmax(right))
    edges = np.concatenate([[-np.inf], (distinct[1:] + distinct[:-1]) / 2, [np.inf]])
    return Threshold(float(edges[cut]), above, float(right[cut] / len(labels)))


def nearest_mean(train_values: np.ndarray, train_labels: np.ndarray, values: np.ndarray) -> np.ndarray:
    """The class whose mean of one number is nearest: what that number can know about many classes.

    Args:
      train_values: float ``[M]``, for instance the density of a lattice.
      train_labels: int ``[M]``.
      values: float ``[N]``.

    Returns:
      Int64 ``[N]``, the lowest class among equals; classes without training examples are never answered.

    Raises:
      ValueError: if lengths differ, there is no training example, or a value is not finite.
    """
    train_values, train_labels = np.asarray(train_values, np.float64), np.asarray(train_labels)
    values = np.asarray(values, np.float64)
    if train_values.ndim != 1 or len(train_values) == 0 or train_values.shape != train_labels.shape:
        raise ValueError(f"train_values: expected {np.size(train_labels)} numbers, got shape {train_values.shape}")
    if not np.all(np.isfinite(train_values)) or not np.all(np.isfinite(values)):
        raise ValueError("train_values, values: expected finite numbers")
    classes, codes = np.unique(train_labels, return_inverse=True)
    means = np.bincount(codes, weights=train_values) / np.bincount(codes)
    return classes[np.argmin(np.abs(values[:, None] - means[None, :]), axis=1)].astype(np.int64)


def probabilities_from_logits(logits: np.ndarray) -> np.ndarray:
    """Softmax in float64, ``[N, C]``; large logits do not overflow."""
    logits = np.asarray(logits, np.float64)
    shifted = np.exp(logits - logits.max(axis=-1, keepdims=True))
    return shifted / shifted.sum(axis=-1, keepdims=True)


def macro_f1(matrix: np.ndarray) -> float:
    """Mean over classes of the harmonic mean of precision and recall; a class that never occurs anywhere is left out.

    Args:
      matrix: counts ``[C, C]``, rows are true classes.

    Returns:
      A number between 0 and 1.

    """
    matrix = np.asarray(matrix, np.float64)
    either = matrix.sum(axis=0) + matrix.sum(axis=1)
    seen = either > 0
    return float(np.mean(2 * np.diag(matrix)[seen] / either[seen]))


def balanced_accuracy(matrix: np.ndarray) -> float:
    """Mean recall over the classes that occur; 1 / C for a classifier that always says the same.

    Args:
      matrix: counts ``[C, C]``, rows are true classes.

    Returns:
      A number between 0 and 1.

    """
    matrix = np.asarray(matrix, np.float64)
    total = matrix.sum(axis=1)
    return float(np.mean(np.diag(matrix)[total > 0] / total[total > 0]))


def _classes(x: np.ndarray, name: str, num_classes: int) -> np.ndarray:
    x = np.asarray(x)
    if x.ndim != 1 or len(x) == 0 or not np.issubdtype(x.dtype, np.integer):
        raise ValueError(f"{name}: expected at least one integer class [N], got {x.dtype} {x.shape}")
    if x.min() < 0 or x.max() >= num_classes:
        raise ValueError(f"{name}: expected classes from 0 to {num_classes - 1}, got {x.min()} to {x.max()}")
    return x.astype(np.int64)
