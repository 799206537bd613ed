"""Scores of several trainings of one classifier; intervals know of both, the test images and the trainings."""

from collections.abc import Mapping
from types import MappingProxyType
from typing import NamedTuple

import jax
import numpy as np

from physml_jax.core.rng import stream_key


class Interval(NamedTuple):
    """A score over the trainings of one classifier.

    Attributes:
      value: mean over trainings.
      low: lower end of the 95 % interval of that mean.
      high: upper end.
      by_seed: float64 [S], the score of every training.
    """

    value: float
    low: float
    high: float
    by_seed: np.ndarray


def accuracy(matrices: np.ndarray) -> np.ndarray:
    """Share on the diagonal: [..., C, C] -> [...]."""
    return np.trace(matrices, axis1=-2, axis2=-1) / matrices.sum((-2, -1))


def f1_by_class(matrices: np.ndarray) -> np.ndarray:
    """Harmonic mean of precision and recall: [..., C, C] -> [..., C]; 0 for a class that never occurs anywhere."""
    right = np.diagonal(matrices, axis1=-2, axis2=-1)
    either = matrices.sum(-1) + matrices.sum(-2)
    return 2 * right / np.where(either > 0, either, 1)


def weighted_f1(matrices: np.ndarray) -> np.ndarray:
    """Mean of F1 over classes with the frequencies of the true classes as weights: [..., C, C] -> [...]."""
    truth = matrices.sum(-1)
    return (f1_by_class(matrices) * truth).sum(-1) / truth.sum(-1)


def macro_f1(matrices: np.ndarray) -> np.ndarray:
    """Mean of F1 over the classes that occur, as truth or answer: [..., C, C] -> [...]."""
    seen = (matrices.sum(-1) + matrices.sum(-2)) > 0
    return (f1_by_class(matrices) * seen).sum(-1) / seen.sum(-1)


def balanced_accuracy(matrices: np.ndarray) -> np.ndarray:
    """Mean share of right answers over the classes that occur: [..., C, C] -> [...]."""
    truth = matrices.sum(-1)
    right = np.diagonal(matrices, axis1=-2, axis2=-1) / np.where(truth > 0, truth, 1)
    return right.sum(-1) / (truth > 0).sum(-1)


#: The scores of :func:`intervals` by name.
SCORES: Mapping = MappingProxyType(
    {
        "accuracy": accuracy,
        "weighted_f1": weighted_f1,
        "macro_f1": macro_f1,
        "balanced_accuracy": balanced_accuracy,
    }
)


def intervals(
    truth: np.ndarray, answers: np.ndarray, *, num_classes: int, num_resamples: int = 1000, seed: int = 0
) -> dict[str, Interval]:
    """All ``SCORES`` of S trainings on the same N test images.

    A resample draws images and, where there are several trainings, trainings, both with replacement: the interval says
    where the mean would lie for other images and other initial parameters. All classifiers with the same number of
    images see the same resamples.

    Args:
      truth: int [N].
      answers: int [S, N].
      num_classes: C.
      num_resamples: bootstrap samples.
      seed: the same seed gives the same intervals.

    Returns:
      Score -> ``Interval``.

    Raises:
      ValueError: for shapes or classes that do not fit.
    """
    truth, answers = np.asarray(truth), np.asarray(answers)
    if truth.ndim != 1 or not len(truth) or answers.ndim != 2 or answers.shape[1] != len(truth) or not len(answers):
        raise ValueError(f"answers: expected classes [S, {len(truth)}] of at least one image, got {answers.shape}")
    if num_resamples < 1:
        raise ValueError(f"num_resamples: expected an integer of at least 1, got {num_resamples}")
    codes = truth[None] * num_classes + answers
    if min(truth.min(), answers.min()) < 0 or max(truth.max(), answers.max()) >= num_classes:
        raise ValueError(f"answers: expected classes from 0 to {num_classes - 1}")
    images, trainings = _draws(len(truth), len(answers), num_resamples, seed)
    shape = (num_classes, num_classes)
    found = np.stack([np.bincount(c, minlength=num_classes**2).reshape(shape) for c in codes])
    offset = np.arange(len(answers))[:, None] * num_classes**2
    drawn = np.stack(
        [
            np.bincount((codes[:, rows] + offset).ravel(), minlength=len(answers) * num_classes**2).reshape(-1, *shape)
            for rows in images
        ]
    )
    answer = {}
    for name, score in SCORES.items():
        by_seed, resampled = score(found), np.take_along_axis(score(drawn), trainings, axis=1).mean(1)
        low, high = np.percentile(resampled, [2.5, 97.5])
        answer[name] = Interval(float(by_seed.mean()), float(low), float(high), by_seed)
    return answer


def _draws(images: int, trainings: int, number: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Which images [R, N] and trainings [R, S] every resample holds."""
    keys = [stream_key(seed, f"analysis/classification_intervals/{name}") for name in ("images", "trainings")]
    sizes = (images, trainings)
    return tuple(
        np.asarray(jax.random.randint(key, (number, size), 0, size)) for key, size in zip(keys, sizes, strict=True)
    )
