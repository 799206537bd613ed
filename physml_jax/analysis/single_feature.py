"""What one number per example can know: least squares, logistic and monotone fits, means by bin.

The number is the mean of an image, which any network can form by mean pooling and which for a lattice is the density.
A network that is no better than these has shown nothing beyond it.
"""

import numpy as np
from scipy.special import expit


def pooled(images: np.ndarray) -> np.ndarray:
    """The mean of every image, summed in float64: what global mean pooling of the input gives.

    Args:
      images: float ``[N, H, W, C]``.

    Returns:
      Float64 ``[N]``; for a 0/1 lattice the density, exact to rounding.

    Raises:
      ValueError: for another shape.
    """
    images = np.asarray(images)
    if images.ndim != 4 or not len(images):
        raise ValueError(f"images: expected [N, H, W, C], got shape {images.shape}")
    return images.mean(axis=(1, 2, 3), dtype=np.float64)


def linear_regression(train_values: np.ndarray, train_targets: np.ndarray, values: np.ndarray) -> np.ndarray:
    """Least squares with one number and a constant; float64 ``[N]``, predictions at ``values``."""
    x, y = _numbers(train_values, "train_values"), _numbers(train_targets, "train_targets")
    if x.shape != y.shape:
        raise ValueError(f"train_targets: expected {len(x)} numbers as in train_values, got {len(y)}")
    spread = np.sum((x - x.mean()) ** 2)
    slope = np.sum((x - x.mean()) * (y - y.mean())) / spread if spread > 0 else 0.0
    return y.mean() + slope * (_numbers(values, "values") - x.mean())


def logistic_regression(train_values: np.ndarray, train_labels: np.ndarray, values: np.ndarray) -> np.ndarray:
    """Two classes from one number by maximum likelihood: the linear read-out of a single feature.

    Args:
      train_values: float ``[M]``.
      train_labels: int ``[M]``, 0 or 1.
      values: float ``[N]``.

    Returns:
      Float64 ``[N]``, probability of class 1.

    Raises:
      ValueError: if lengths differ or values are not finite.
    """
    x, y = _numbers(train_values, "train_values"), _numbers(train_labels, "train_labels")
    if x.shape != y.shape or not np.all((y == 0) | (y == 1)):
        raise ValueError(f"train_labels: expected {len(x)} times 0 or 1, got shape {y.shape}")
    centre, width = x.mean(), x.std() or 1.0
    design = np.stack([np.ones_like(x), (x - centre) / width], axis=1)
    theta = np.zeros(2)
    # The ridge bounds the slope where a threshold separates the classes perfectly.
    ridge = 1e-6 * len(x) * np.eye(2)
    for _ in range(100):
        share = expit(design @ theta)
        information = design.T @ ((share * (1 - share))[:, None] * design) + ridge
        step = np.linalg.solve(information, design.T @ (y - share) - ridge @ theta)
        theta = theta + step * min(1.0, 2.0 / (np.abs(step).max() + 1e-30))
        if np.abs(step).max() < 1e-9:
            break
    return expit(theta[0] + theta[1] * (_numbers(values, "values") - centre) / width)


def monotone_regression(train_values: np.ndarray, train_targets: np.ndarray, values: np.ndarray) -> np.ndarray:
    """The best function of one number that only rises or only falls, in least squares (pool adjacent violators).

    Between the fitted values it is interpolated linearly, beyond them it is constant.

    Args:
      train_values: float ``[M]``, for instance densities.
      train_targets: float ``[M]``.
      values: float ``[N]``.

    Returns:
      Float64 ``[N]``.

    Raises:
      ValueError: if lengths differ or values are not finite.
    """
    x, y = _numbers(train_values, "train_values"), _numbers(train_targets, "train_targets")
    if x.shape != y.shape:
        raise ValueError(f"train_targets: expected {len(x)} numbers as in train_values, got {len(y)}")
    distinct, codes = np.unique(x, return_inverse=True)
    weight = np.bincount(codes).astype(np.float64)
    mean = np.bincount(codes, weights=y) / weight
    fits = [sign * _rising(sign * mean, weight) for sign in (1.0, -1.0)]
    best = min(fits, key=lambda f: float(np.sum(weight * (f - mean) ** 2)))
    return np.interp(_numbers(values, "values"), distinct, best)


def binned_mean(
    train_values: np.ndarray, train_targets: np.ndarray, values: np.ndarray, *, max_bins: int = 64
) -> np.ndarray:
    """The best function of one number without a shape: the mean target at each value, linear in between.

    Args:
      train_values: float ``[M]``.
      train_targets: float ``[M]``.
      values: float ``[N]``.
      max_bins: with more distinct values, quantiles pool them into this many.

    Returns:
      Float64 ``[N]``.

    Raises:
      ValueError: if lengths differ or values are not finite.
    """
    x, y = _numbers(train_values, "train_values"), _numbers(train_targets, "train_targets")
    if x.shape != y.shape:
        raise ValueError(f"train_targets: expected {len(x)} numbers as in train_values, got {len(y)}")
    edges = np.unique(x)
    if len(edges) > max_bins:
        edges = np.unique(np.quantile(x, np.linspace(0, 1, max_bins + 1)[:-1]))
    _, codes = np.unique(np.searchsorted(edges, x, side="right"), return_inverse=True)
    count = np.bincount(codes)
    centres, means = np.bincount(codes, weights=x) / count, np.bincount(codes, weights=y) / count
    return np.interp(_numbers(values, "values"), centres, means)


def _rising(mean: np.ndarray, weight: np.ndarray) -> np.ndarray:
    """Pool adjacent violators: blocks [value, weight, length] are merged while they fall."""
    blocks: list[list[float]] = []
    for value, w in zip(mean.tolist(), weight.tolist(), strict=True):
        blocks.append([value, w, 1])
        while len(blocks) > 1 and blocks[-2][0] >= blocks[-1][0]:
            b, a = blocks.pop(), blocks.pop()
            total = a[1] + b[1]
            blocks.append([(a[0] * a[1] + b[0] * b[1]) / total, total, a[2] + b[2]])
    return np.repeat([b[0] for b in blocks], [int(b[2]) for b in blocks])


def _numbers(x: np.ndarray, name: str) -> np.ndarray:
    x = np.asarray(x, np.float64)
    if x.ndim != 1 or len(x) == 0 or not np.all(np.isfinite(x)):
        raise ValueError(f"{name}: expected at least one finite number [N], got shape {x.shape}")
    return x
