"""From one score per example to a row of a table: mean, median, tail, and a bootstrap interval."""

import functools
from collections.abc import Hashable, Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from physml_jax.core.rng import stream_key
from physml_jax.typing import Array, Key


class Summary(NamedTuple):
    """Statistics of one score over a set of examples.

    Attributes:
      n: number of examples.
      num_clusters: number of independent units among them.
      mean: arithmetic mean.
      median: the 50th percentile.
      percentile_5: the 5th percentile (linear interpolation), the typical bad case.
      share_below: share of examples with a score below the threshold.
      low: lower end of the 95 % interval of the mean; ``None`` with fewer than two clusters.
      high: upper end.

    """

    n: int
    num_clusters: int
    mean: float
    median: float
    percentile_5: float
    share_below: float
    low: float | None
    high: float | None


def summarise(
    scores: np.ndarray,
    *,
    clusters: np.ndarray | Sequence[Hashable] | None = None,
    threshold: float = 0.9,
    num_resamples: int = 2000,
    seed: int = 0,
) -> Summary:
    """Statistics of a score, with a bootstrap interval of its mean.

    The interval is the 2.5th to 97.5th percentile of the mean over resampled *clusters*. Crystals of one structure
    template have nearly the same pattern, so they are drawn together; drawing them one by one would give an interval
    that is too narrow. It does not contain the scatter between training runs.

    Args:
      scores: float ``[N]``.
      clusters: one label per score; ``None`` if all scores are independent.
      threshold: limit for ``share_below``.
      num_resamples: bootstrap samples.
      seed: the same seed gives the same interval, on every machine.

    Returns:
      The statistics as Python numbers.

    Raises:
      ValueError: if there is no score, one is not finite, or the lengths differ.

    Example:
      >>> s = summarise([0.5, 0.7, 0.9, 1.0])
      >>> s.n, round(s.mean, 3), round(s.median, 3), s.share_below
      (4, 0.775, 0.8, 0.5)

    """
    scores = _checked(scores)
    labels = np.arange(len(scores)) if clusters is None else _codes(clusters, len(scores), "clusters")[0]
    num_clusters = int(labels.max()) + 1
    low = high = None
    if num_clusters > 1:
        # Every resample needs the sum and the size of a cluster, not its members.
        sums = np.bincount(labels, weights=scores, minlength=num_clusters)
        sizes = np.bincount(labels, minlength=num_clusters)
        means = _resampled_means(sums, sizes, num_resamples=num_resamples, seed=seed)
        low, high = (float(x) for x in np.percentile(means, [2.5, 97.5]))
    return Summary(
        n=len(scores),
        num_clusters=num_clusters,
        mean=float(scores.mean()),
        median=float(np.median(scores)),
        percentile_5=float(np.percentile(scores, 5)),
        share_below=float(np.mean(scores < threshold)),
        low=low,
        high=high,
    )


def summarise_groups(
    scores: np.ndarray,
    groups: np.ndarray | Sequence[Hashable],
    *,
    clusters: np.ndarray | Sequence[Hashable] | None = None,
    threshold: float = 0.9,
    num_resamples: int = 2000,
    seed: int = 0,
) -> dict[Hashable, Summary]:
    """``summarise`` for every group of examples, for instance for every space group.

    Args:
      scores: float ``[N]``.
      groups: one label per score.
      clusters: one label per score, see ``summarise``.
      threshold: limit for ``share_below``.
      num_resamples: bootstrap samples.
      seed: seed of the bootstrap.

    Returns:
      Label -> statistics, in the order of the sorted labels.

    Raises:
      ValueError: as ``summarise``.

    """
    scores = _checked(scores)
    codes, names = _codes(groups, len(scores), "groups")
    members = None if clusters is None else _codes(clusters, len(scores), "clusters")[0]
    kwargs = {"threshold": threshold, "num_resamples": num_resamples, "seed": seed}
    return {
        name: summarise(scores[codes == i], clusters=None if members is None else members[codes == i], **kwargs)
        for i, name in enumerate(names)
    }


def _checked(scores: np.ndarray) -> np.ndarray:
    scores = np.asarray(scores, np.float64)
    if scores.ndim != 1 or len(scores) == 0:
        raise ValueError(f"scores: expected at least one score [N], got shape {scores.shape}")
    bad = np.flatnonzero(~np.isfinite(scores))
    if len(bad):
        raise ValueError(f"scores: {len(bad)} of {len(scores)} are not finite, the first is number {bad[0]}")
    return scores


def _codes(labels: np.ndarray | Sequence[Hashable], length: int, name: str) -> tuple[np.ndarray, list[Hashable]]:
    labels = np.asarray(labels)
    if labels.shape != (length,):
        raise ValueError(f"{name}: expected one label per score ({length}), got shape {labels.shape}")
    names, codes = np.unique(labels, return_inverse=True)
    return codes, names.tolist()


def _resampled_means(sums: np.ndarray, sizes: np.ndarray, *, num_resamples: int, seed: int) -> np.ndarray:
    if num_resamples < 1:
        raise ValueError(f"num_resamples: expected an integer of at least 1, got {num_resamples}")
    key, count = stream_key(seed, "analysis/bootstrap"), len(sums)
    # Sample i depends on the seed and on i alone; blocks only bound the memory. The width is a power of two, so that a
    # table with forty groups compiles a handful of programs.
    width = 1 << (count - 1).bit_length()
    block = max(1, min(num_resamples, 4_000_000 // width))
    means = []
    for start in range(0, num_resamples, block):
        samples = jnp.arange(start, start + block, dtype=jnp.int32)
        uniform = np.asarray(_uniform(key, samples, width=width))[:, :count]
        drawn = np.minimum((uniform * count).astype(np.int64), count - 1)
        means.append(sums[drawn].sum(axis=1) / sizes[drawn].sum(axis=1))
    return np.concatenate(means)[:num_resamples]


@functools.partial(jax.jit, static_argnames="width")
def _uniform(key: Key, samples: Array, *, width: int) -> Array:
    """Float32 [n, width] in [0, 1)."""
    return jax.vmap(lambda i: jax.random.uniform(jax.random.fold_in(key, i), (width,), jnp.float32))(samples)
