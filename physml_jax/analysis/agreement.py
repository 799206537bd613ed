"""Do two answers go together beyond the truth that both know? Classes and numbers, float64 throughout."""

import numpy as np

from physml_jax.analysis.classification import confusion_matrix


def cohen_kappa(first: np.ndarray, second: np.ndarray, *, num_classes: int) -> float | None:
    """Agreement of two lists of classes in excess of chance, (p - p_e)/(1 - p_e).

    Args:
      first: int [N].
      second: int [N].
      num_classes: number of classes.

    Returns:
      1 for equal lists, 0 for independent ones; ``None`` where both always say the same single class.

    Raises:
      ValueError: for wrong lengths or classes.

    Example:
      >>> cohen_kappa([0, 0, 1, 1], [0, 1, 1, 1], num_classes=2)
      0.5

    References:
      J. Cohen, Educ. Psychol. Meas. 20, 37 (1960).
    """
    joint = confusion_matrix(first, second, num_classes=num_classes) / len(first)
    expected = float(joint.sum(1) @ joint.sum(0))
    return None if expected >= 1 else float((np.trace(joint) - expected) / (1 - expected))


def within_class(values: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Values less the mean of their class: what they say beyond the true class. [N] or [N, K] -> the same."""
    values = np.asarray(values, np.float64)
    codes = np.unique(labels, return_inverse=True)[1]
    sums = np.zeros((codes.max() + 1, *values.shape[1:]))
    np.add.at(sums, codes, values)
    counts = np.bincount(codes).reshape(-1, *[1] * (values.ndim - 1))
    return values - (sums / counts)[codes]


def partial_correlation(first: np.ndarray, second: np.ndarray, labels: np.ndarray) -> float | None:
    """Correlation of two numbers after the mean of every true class is taken out.

    Args:
      first: float [N].
      second: float [N].
      labels: [N], true classes.

    Returns:
      -1 to 1; ``None`` where one of the two does not vary within classes.

    Raises:
      ValueError: for different lengths or numbers that are not finite.
    """
    a, b = (_numbers(x, n, labels) for x, n in ((first, "first"), (second, "second")))
    scale = np.sqrt((a**2).sum() * (b**2).sum())
    return None if scale == 0 else float((a * b).sum() / scale)


def explained_share(target: np.ndarray, predictors: np.ndarray, labels: np.ndarray) -> float | None:
    """Share of the variance of ``target`` within classes that a linear function of predictors explains, adjusted.

    Args:
      target: float [N].
      predictors: float [N, K].
      labels: [N], true classes.

    Returns:
      R^2 adjusted for the number of predictors and classes, 0 in the mean for noise; ``None`` where the target does
      not vary within classes, or there are too few examples.
    """
    y, x = _numbers(target, "target", labels), within_class(predictors, labels)
    varies = x.std(0) > 1e-9 * (np.abs(np.asarray(predictors)).max(0) + 1e-300)
    x = x[:, varies] / np.where(varies, x.std(0), 1)[varies]
    left = len(y) - len(np.unique(labels))
    total = (y**2).sum()
    if total == 0 or left - x.shape[1] < 1:
        return None
    rest = y - x @ np.linalg.lstsq(x, y, rcond=1e-10)[0]
    return float(1 - (rest**2).sum() / (left - x.shape[1]) / (total / left))


def _numbers(values, name, labels):
    values = np.asarray(values, np.float64)
    if values.shape != np.shape(labels) or not np.isfinite(values).all():
        raise ValueError(f"{name}: expected {np.shape(labels)[0]} finite numbers, got shape {values.shape}")
    found = within_class(values, labels)
    # What rounding leaves of a constant is no variation.
    return np.where(np.abs(found) <= 1e-12 * np.abs(values).max(initial=0), 0, found)
