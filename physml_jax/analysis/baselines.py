"""Predictors that learn nothing: the mean image of the training set, and the pattern of the most similar crystal in it.

A network earns its place in a table only beside these. They work on the host in NumPy, in blocks, because a report may
ask for them over ten thousand images.
"""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np

#: The eight symmetries of a square as operations on arrays ``[..., H, W, C]``, identity first.
DIHEDRAL: tuple[Callable[[np.ndarray], np.ndarray], ...] = (
    lambda x: x,
    lambda x: np.rot90(x, 1, axes=(-3, -2)),
    lambda x: np.rot90(x, 2, axes=(-3, -2)),
    lambda x: np.rot90(x, 3, axes=(-3, -2)),
    lambda x: np.flip(x, -2),
    lambda x: np.flip(x, -3),
    lambda x: np.swapaxes(x, -3, -2),
    lambda x: np.rot90(np.swapaxes(x, -3, -2), 2, axes=(-3, -2)),
)
#: ``DIHEDRAL[INVERSE[i]]`` undoes ``DIHEDRAL[i]``.
INVERSE = (0, 3, 2, 1, 4, 5, 6, 7)


class Neighbours(NamedTuple):
    """The training row nearest to every test row.

    Attributes:
      index: int64 [N], row of the training set; the lowest one where several are equally near.
      operation: int64 [N], number in ``DIHEDRAL`` of the operation that lays the training image on the test image.
      distance: float64 [N], see ``nearest_neighbour``.

    """

    index: np.ndarray
    operation: np.ndarray
    distance: np.ndarray


def mean_image(train_targets: np.ndarray) -> np.ndarray:
    """The mean over training images, the best constant prediction in squared error.

    Args:
      train_targets: float ``[M, H, W, C]``.

    Returns:
      Float32 ``[H, W, C]``, summed in float64.

    Raises:
      ValueError: if there is no image, or a value is not finite.

    """
    targets = _images(train_targets, "train_targets")
    return np.mean(targets, axis=0, dtype=np.float64).astype(np.float32)


def nearest_neighbour(
    train_inputs: np.ndarray,
    test_inputs: np.ndarray,
    *,
    train_log_a: np.ndarray | None = None,
    test_log_a: np.ndarray | None = None,
    log_a_weight: float = 0.0,
    dihedral: bool = False,
    chunk_size: int = 256,
) -> Neighbours:
    r"""For every test image the most similar training image.

    .. math:: d^2 = \tfrac12 \lVert u - v \rVert^2 + w (\ln a - \ln a')^2 = 1 - \mathrm{ZNCC} + w (\ln a - \ln a')^2

    with u and v the images without their means and scaled to unit norm (a constant image becomes zero). The scale of an
    image and its constant part do not count, therefore; the lattice parameter counts by the weight. A weight of 1
    makes cells that differ by 10 % as far apart as images with ZNCC = 0.991.

    Args:
      train_inputs: float ``[M, H, W, C]``.
      test_inputs: float ``[N, H, W, C]``.
      train_log_a: float ``[M]`` or ``[M, 1]``, needed when the weight is not 0.
      test_log_a: float ``[N]`` or ``[N, 1]``.
      log_a_weight: w, not negative.
      dihedral: also compare with the training images rotated and mirrored in the eight ways of a square. A crystal
        turned about the beam has the turned pattern, so ``turn`` must be applied to what is taken from the neighbour.
      chunk_size: rows of each set that are compared at a time.

    Returns:
      Indices, operations and distances.

    Raises:
      ValueError: if a set is empty, shapes differ, values are not finite, or images are not square with ``dihedral``.

    Example:
      >>> train = np.zeros((2, 2, 2, 1)); train[0, 0, 0] = train[1, 0, :] = 1.0
      >>> nearest_neighbour(train, 5 * train[::-1] + 3).index.tolist()
      [1, 0]

    """
    train, test = _images(train_inputs, "train_inputs"), _images(test_inputs, "test_inputs")
    if train.shape[1:] != test.shape[1:]:
        raise ValueError(
            f"test_inputs: expected images of shape {train.shape[1:]} as in train_inputs, got {test.shape[1:]}"
        )
    if dihedral and train.shape[1] != train.shape[2]:
        raise ValueError(f"dihedral: expected square images, got {train.shape[1]} x {train.shape[2]}")
    if not log_a_weight >= 0:
        raise ValueError(f"log_a_weight: expected a number of at least 0, got {log_a_weight}")
    if chunk_size < 1:
        raise ValueError(f"chunk_size: expected an integer of at least 1, got {chunk_size}")
    log_a = None
    if log_a_weight:
        log_a = _column(train_log_a, len(train), "train_log_a"), _column(test_log_a, len(test), "test_log_a")

    operations = range(len(DIHEDRAL)) if dihedral else range(1)
    best = np.full(len(test), np.inf)
    index, operation = np.zeros(len(test), np.int64), np.zeros(len(test), np.int64)
    for start in range(0, len(train), chunk_size):
        rows = slice(start, start + chunk_size)
        features = _unit(train[rows])
        for first in range(0, len(test), chunk_size):
            columns = slice(first, first + chunk_size)
            for number in operations:
                # Turning the test image back costs less than turning the larger training set forth.
                turned = _unit(DIHEDRAL[INVERSE[number]](test[columns]))
                distance = 1 - (turned @ features.T).astype(np.float64)
                if log_a is not None:
                    distance += log_a_weight * (log_a[1][columns, None] - log_a[0][None, rows]) ** 2
                nearest = np.argmin(distance, axis=1)
                value = distance[np.arange(len(nearest)), nearest]
                better = value < best[columns]
                best[columns] = np.where(better, value, best[columns])
                index[columns] = np.where(better, nearest + start, index[columns])
                operation[columns] = np.where(better, number, operation[columns])
    return Neighbours(index, operation, np.sqrt(np.maximum(best, 0)))


def turn(images: np.ndarray, operations: np.ndarray) -> np.ndarray:
    """Applies to every image its own operation of ``DIHEDRAL``.

    Args:
      images: ``[N, H, W, C]``, square unless all operations are 0.
      operations: integers ``[N]``.

    Returns:
      Array of the same shape.

    """
    return np.stack([DIHEDRAL[int(o)](x) for x, o in zip(images, operations, strict=True)])


def _images(x: np.ndarray, name: str) -> np.ndarray:
    x = np.asarray(x)
    if x.ndim != 4 or len(x) == 0:
        raise ValueError(f"{name}: expected at least one image [N, H, W, C], got shape {x.shape}")
    # One row at a time: a mask of the whole set would cost as much memory as a quarter of it.
    bad = [i for i, row in enumerate(x) if not np.all(np.isfinite(row))]
    if bad:
        raise ValueError(
            f"{name}: {len(bad)} of {len(x)} images have values that are not finite, the first is row {bad[0]}"
        )
    return x


def _column(x: np.ndarray | None, length: int, name: str) -> np.ndarray:
    if x is None or np.size(x) != length:
        raise ValueError(f"{name}: expected one number per image ({length}) since log_a_weight is not 0, got {x!r:.60}")
    x = np.asarray(x, np.float64).reshape(length)
    if not np.all(np.isfinite(x)):
        raise ValueError(f"{name}: values are not finite")
    return x


def _unit(images: np.ndarray) -> np.ndarray:
    """Rows [n, H W C] float32 without mean and of unit norm; zero where the image is constant."""
    rows = images.reshape(len(images), -1).astype(np.float64)
    rows = rows - rows[:, :1]  # a constant image becomes exactly zero
    rows -= rows.mean(axis=1, keepdims=True)
    norm = np.linalg.norm(rows, axis=1, keepdims=True)
    return (rows / np.where(norm == 0, 1, norm)).astype(np.float32)
