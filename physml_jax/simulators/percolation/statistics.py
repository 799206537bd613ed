"""What is counted on labelled clusters: sizes, the largest one, the spanning ones, and the cluster numbers n_s."""

import jax
import jax.numpy as jnp

from physml_jax.simulators.percolation.clusters import check_labels, take
from physml_jax.typing import Array


def cluster_sizes(labels: Array) -> Array:
    """Number of sites of every cluster.

    Args:
      labels: int32 [B, L, L] of ``label_clusters``.

    Returns:
      int32 [B, L * L]: the size of the cluster with label k at index ``k - 1``, 0 where there is no such cluster.

    Raises:
      ValueError: if the labels are no int32 squares.
    """
    check_labels(labels)
    return sum_by_label(labels, jnp.ones_like(labels))


def sum_by_label(labels: Array, values: Array) -> Array:
    """Sums of an integer over the sites of every cluster: int32 [B, L, L] twice -> int32 [B, L * L], as sizes are."""
    batch, size, _ = labels.shape
    slots = jnp.where(labels > 0, labels - 1, size * size).reshape(batch, -1)
    table = jnp.zeros((batch, size * size), jnp.int32)
    return jax.vmap(lambda t, i, v: t.at[i].add(v, mode="drop"))(table, slots, values.reshape(batch, -1))


def largest_cluster(labels: Array) -> Array:
    """Number of sites of the largest cluster, int32 [B]; 0 for an empty lattice.

    ``largest_cluster(labels) / L**2`` is the usual estimate of the order parameter with periodic boundaries.

    Args:
      labels: int32 [B, L, L] of ``label_clusters``.

    Raises:
      ValueError: if the labels are no int32 squares.
    """
    return cluster_sizes(labels).max(axis=1)


def spanning_clusters(labels: Array) -> Array:
    """The sites of clusters that touch the first and the last row, or the first and the last column.

    Args:
      labels: int32 [B, L, L] of ``label_clusters`` with open boundaries.

    Returns:
      bool [B, L, L]. ``jnp.where(spanning_clusters(labels), 0, labels)`` are the labels of the finite clusters alone.

    Raises:
      ValueError: if the labels are no int32 squares.
    """
    check_labels(labels)
    batch, size, _ = labels.shape

    def touches(edge):
        table = jnp.zeros((batch, size * size + 1), bool)
        return jax.vmap(lambda t, i: t.at[i].set(True, mode="promise_in_bounds"))(table, edge)

    vertical = touches(labels[:, 0]) & touches(labels[:, -1])
    horizontal = touches(labels[:, :, 0]) & touches(labels[:, :, -1])
    spans = take(vertical | horizontal, labels.reshape(batch, -1)).reshape(labels.shape)
    return spans & (labels > 0)


def strength(labels: Array) -> Array:
    """Share of the lattice that belongs to spanning clusters: the order parameter of a finite open lattice.

    Args:
      labels: int32 [B, L, L] of ``label_clusters`` with open boundaries.

    Returns:
      float32 [B], between 0 and 1; 0 for a state that does not span.

    Raises:
      ValueError: if the labels are no int32 squares.

    References:
      D. Stauffer and A. Aharony, Introduction to Percolation Theory (1994), chapter 2 (strength of the infinite
      network).
    """
    size = labels.shape[-1]
    return spanning_clusters(labels).sum(axis=(1, 2), dtype=jnp.int32).astype(jnp.float32) / (size * size)


def size_distribution(sizes: Array) -> Array:
    """Cluster numbers n_s: the mean number of clusters of s sites, per site of the lattice.

    The sum of s n_s is the density. The mean runs over the batch: for one lattice hand in ``sizes[i : i + 1]``.

    Args:
      sizes: int32 [B, L * L] of ``cluster_sizes``; entries of 0 are no clusters, so clusters may be left out by
        setting them to 0.

    Returns:
      float32 [L * L + 1]: n_s at index s, 0 at index 0.

    Raises:
      ValueError: if the sizes are no int32 matrix with at least one row.

    References:
      D. Stauffer and A. Aharony, Introduction to Percolation Theory (1994), chapter 2.
    """
    _check_sizes(sizes)
    if sizes.shape[0] == 0:
        raise ValueError("sizes: expected at least one lattice, got none")
    num_sites = sizes.shape[1]
    slots = jnp.where(sizes > 0, sizes, num_sites + 1).reshape(-1)
    counts = jnp.zeros(num_sites + 1, jnp.int32).at[slots].add(1, mode="drop")
    return counts.astype(jnp.float32) / (sizes.shape[0] * num_sites)


def mean_cluster_size(sizes: Array) -> Array:
    """Mean size of the cluster of a random occupied site, sum s^2 n_s / sum s n_s of every lattice.

    Whether a spanning cluster counts is the caller's choice: the susceptibility of the textbook leaves it out
    (``cluster_sizes(jnp.where(spanning_clusters(labels), 0, labels))``).

    Args:
      sizes: int32 [B, L * L] of ``cluster_sizes``.

    Returns:
      float32 [B]; 0 for a lattice without clusters.

    Raises:
      ValueError: if the sizes are no int32 matrix.

    References:
      D. Stauffer and A. Aharony, Introduction to Percolation Theory (1994), chapter 2.
    """
    _check_sizes(sizes)
    s = sizes.astype(jnp.float32)
    return fold_sum(s * s) / jnp.maximum(fold_sum(s), 1.0)


def fold_sum(x: Array) -> Array:
    """Sum over the last axis by folding it in half again and again: float [..., N] -> [...].

    The order of the additions depends on N only, never on the batch, the device or the compiler, and rounding grows
    like log N.
    """
    while x.shape[-1] > 1:
        x = jnp.pad(x, [(0, 0)] * (x.ndim - 1) + [(0, x.shape[-1] % 2)])
        x = x[..., : x.shape[-1] // 2] + x[..., x.shape[-1] // 2 :]
    return x[..., 0]


def _check_sizes(sizes):
    if sizes.ndim != 2 or sizes.shape[1] < 1 or sizes.dtype != jnp.int32:
        raise ValueError(f"sizes: expected int32 [B, L * L], got {sizes.dtype} {list(sizes.shape)}")
