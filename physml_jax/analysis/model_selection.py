"""Choosing among many trained candidates: what they score, and what the choice itself does to the score.

Whoever reports the best of many scores on the images that picked it reports luck too. Where more labelled examples
exist, which nobody was trained on, the luck is measured: they are dealt out anew as validation, test and a rest that
says the truth.
"""

import functools
import itertools
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from physml_jax.core.rng import stream_key

KINDS = ("accuracy", "balanced_accuracy")


class Answers(NamedTuple):
    """What trained candidates said.

    Attributes:
      numbers: int64 [K], which candidates (or which seeds of one).
      budget: training examples that each has seen.
      answers: by name of the set, int16 [K, N]: class, -1 of a network whose numbers are not finite.
      losses: by name of the set, float32 [K, N]: cross entropy; a large number where it is not finite.
      num_params: int64 [K].
      seconds: float64 [K], share of the time that the training took.
    """

    numbers: np.ndarray
    budget: int
    answers: Mapping[str, np.ndarray]
    losses: Mapping[str, np.ndarray]
    num_params: np.ndarray
    seconds: np.ndarray


class Resampled(NamedTuple):
    """The best candidate by test and by validation, over random deals of examples; every field float64 [R].

    Attributes:
      reported_test: test score of the candidate that the test examples pick.
      true_test: its score on the rest.
      reported_validation: test score of the candidate that the validation examples pick.
      true_validation: its score on the rest.
    """

    reported_test: np.ndarray
    true_test: np.ndarray
    reported_validation: np.ndarray
    true_validation: np.ndarray


def scores(answers: np.ndarray, labels: np.ndarray, *, kind: str = "accuracy") -> np.ndarray:
    """The score of every candidate.

    Args:
      answers: int [K, N].
      labels: int [N], true classes.
      kind: ``"accuracy"``, or ``"balanced_accuracy"``, the mean share of right answers over the classes that occur.

    Returns:
      Float64 [K].

    Raises:
      ValueError: for an unknown kind or lengths that differ.

    Example:
      >>> scores(np.array([[0, 0, 0, 0]]), np.array([0, 0, 0, 1]), kind="balanced_accuracy").tolist()
      [0.5]
    """
    answers, labels = np.asarray(answers), np.asarray(labels)
    if answers.ndim != 2 or answers.shape[1:] != labels.shape:
        raise ValueError(f"answers: expected [K, {labels.size}], one per label, got shape {answers.shape}")
    if kind not in KINDS:
        raise ValueError(f"kind: expected one of {', '.join(KINDS)}, got {kind!r}")
    right = answers == labels
    if kind == "accuracy":
        return right.mean(axis=1)
    return np.mean([right[:, labels == c].mean(axis=1) for c in np.unique(labels)], axis=0)


def stratified(labels: np.ndarray, fraction: float, *, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Numbers of the examples of two parts; every class is divided alike, to the nearest example.

    Args:
      labels: int [N].
      fraction: share of the second part. At least one example of every class stays in the first.
      seed: the same seed gives the same parts.

    Returns:
      Two increasing int64 arrays.

    Raises:
      ValueError: for a fraction outside (0, 1), or one that leaves the second part empty.
    """
    if not 0 < fraction < 1:
        raise ValueError(f"search.validation_fraction: expected a number between 0 and 1, got {fraction}")
    labels = np.asarray(labels)
    taken = []
    for c in np.unique(labels):
        members = np.flatnonzero(labels == c)
        count = min(int(len(members) * fraction + 0.5), len(members) - 1)
        order = np.asarray(jax.random.permutation(stream_key(seed, f"search/validation/{c}"), len(members)))
        taken.append(members[order[:count]])
    second = np.sort(np.concatenate(taken))
    if not len(second):
        raise ValueError(f"search.validation_fraction: {fraction} of {len(labels)} examples are none")
    return np.setdiff1d(np.arange(len(labels)), second), second


def deal(
    right: np.ndarray,
    *,
    num_test: int,
    num_validation: int,
    num_candidates: Sequence[int] | None = None,
    num_resamples: int = 1000,
    seed: int = 0,
) -> list[Resampled]:
    """Selects on dealt-out examples again and again.

    Every resample deals the N examples out as test, validation and a rest, and puts the candidates in a random order,
    of which the first K are those to choose from; ties go to the first.

    Args:
      right: bool [C, N], whether a candidate is right on an example that it was not trained on.
      num_test: examples that the test set gets.
      num_validation: examples that the validation set gets.
      num_candidates: sizes K; all C by default.
      num_resamples: R.
      seed: the same seed deals alike.

    Returns:
      One ``Resampled`` per K.

    Raises:
      ValueError: if no examples are left for the rest, or a K is not between 1 and C.
    """
    right = np.asarray(right)
    total, num = right.shape
    sizes = [total] if num_candidates is None else list(num_candidates)
    if num_test < 1 or num_validation < 1 or num_test + num_validation >= num:
        raise ValueError(
            f"num_test, num_validation: expected at least 1 each and a rest of the {num} examples, got {num_test} and "
            f"{num_validation}"
        )
    if not all(0 < k <= total for k in sizes):
        raise ValueError(f"num_candidates: expected sizes from 1 to {total}, got {sizes}")
    values = right.astype(np.float32)
    found: list[list[np.ndarray]] = [[] for _ in sizes]
    block = max(1, min(num_resamples, 8_000_000 // max(total, num)))  # bounds the memory; resample i knows only i
    for start in range(0, num_resamples, block):
        which = jnp.arange(start, start + block, dtype=jnp.int32)
        order = np.asarray(_orders(stream_key(seed, "selection/examples"), which, num))
        turn = np.asarray(_orders(stream_key(seed, "selection/candidates"), which, total))
        ends = (0, num_test, num_test + num_validation, num)
        parts = []
        for a, b in itertools.pairwise(ends):
            member = np.zeros((block, num), np.float32)
            np.put_along_axis(member, order[:, a:b], 1.0, axis=1)
            parts.append(np.take_along_axis(member @ values.T / (b - a), turn, axis=1))
        test, validation, rest = parts
        for k, rows in zip(sizes, found, strict=True):
            by_test, by_validation = (x[:, :k].argmax(axis=1)[:, None] for x in (test, validation))
            columns = (test, by_test), (rest, by_test), (test, by_validation), (rest, by_validation)
            rows.append(np.concatenate([np.take_along_axis(x, i, axis=1) for x, i in columns], axis=1))
    joined = [np.concatenate(rows)[:num_resamples].astype(np.float64) for rows in found]
    return [Resampled(*rows.T) for rows in joined]


@functools.partial(jax.jit, static_argnames="length")
def _orders(key, which, length):
    """Random orders int32 [R, length]."""
    return jax.vmap(lambda i: jax.random.permutation(jax.random.fold_in(key, i), length))(which)
