"""Correlation lengths of a state: the radius of its finite clusters, and the definition of the published data."""

import math

import jax.numpy as jnp

from physml_jax.simulators.percolation.clusters import check_states, label_clusters, take
from physml_jax.simulators.percolation.connectedness import count_pairs
from physml_jax.simulators.percolation.statistics import (
    cluster_sizes,
    fold_sum,
    largest_cluster,
    spanning_clusters,
    sum_by_label,
)
from physml_jax.typing import Array

#: Sums of row and column numbers over a cluster fit into int32 up to this size.
MAX_SIZE = 1290


def correlation_length(states: Array, *, chunk_size: int | None = None) -> Array:
    """Correlation length from the clusters that do not span, with open boundaries.

    xi^2 = 2 sum_s R_s^2 s^2 n_s / sum_s s^2 n_s, where R_s^2 is the mean squared distance of the sites of a cluster
    of s sites from its centre of mass. Since 2 R_s^2 is the mean squared distance of two sites of the cluster, xi^2
    is the mean squared distance of a random connected pair. Clusters that touch two opposite edges are left out.

    Over sites i of finite clusters this is 2 sum_i s_i |r_i - c_i|^2 / sum_i s_i, with size s_i and centre c_i of the
    cluster of i, which has no differences of large numbers: centres come from exact integer sums, and all terms of
    the final sum are positive.

    Args:
      states: bool [B, L, L], L at most 1290.
      chunk_size: as for ``label_clusters``.

    Returns:
      float32 [B], in lattice constants; 0 where no finite cluster has more than one site.

    Raises:
      ValueError: if the states are not boolean squares of at most 1290 sites.

    References:
      D. Stauffer and A. Aharony, Introduction to Percolation Theory (1994), chapter 3.

    Example:
      Four sites in a square, each at sqrt(1/2) from their centre.

      >>> import jax.numpy as jnp
      >>> correlation_length(jnp.zeros((1, 4, 4), bool).at[0, 1:3, 1:3].set(True)).tolist()
      [1.0]
    """
    check_states(states)
    batch, size, _ = states.shape
    if size > MAX_SIZE:
        raise ValueError(f"states: expected at most {MAX_SIZE} x {MAX_SIZE} sites, got {size} x {size}")
    labels = label_clusters(states, chunk_size=chunk_size)
    labels = jnp.where(spanning_clusters(labels), 0, labels)
    flat = labels.reshape(batch, -1)
    slots = jnp.maximum(flat - 1, 0)
    number = jnp.arange(size * size, dtype=jnp.int32)

    sizes = cluster_sizes(labels)
    inverse = 1 / jnp.maximum(sizes, 1).astype(jnp.float32)
    squared = 0.0
    for position in (number // size, number % size):
        positions = jnp.broadcast_to(position, flat.shape)
        centre = sum_by_label(labels, positions.reshape(labels.shape)).astype(jnp.float32) * inverse
        squared += (positions.astype(jnp.float32) - take(centre, slots)) ** 2
    weight = jnp.where(flat > 0, take(sizes, slots), 0).astype(jnp.float32)
    pairs = fold_sum(weight)
    return jnp.sqrt(2 * fold_sum(weight * squared) / jnp.where(pairs > 0, pairs, 1.0))


def published_correlation_length(
    states: Array, *, transition: float = 0.585, as_run: bool = True, chunk_size: int | None = None
) -> Array:
    """Correlation length as computed for the published data set, with periodic boundaries.

    The formula is xi^2 = sum_r r^2 G(r) / (6 sum_r G(r)) over the distinct distances r = 0, 1, sqrt(2), ... of the
    torus, every distance once whatever its number of displacements, up to the first with G < 1e-8. Here G is the pair
    connectedness g where the density is at most ``transition``, and g - (s_max / L^2)^2 above it, with s_max the size
    of the largest cluster. It differs from ``correlation_length`` in the boundaries, the weights and what is done to
    the largest cluster.

    The program that made the published numbers does two more things, which ``as_run`` repeats. Distances without a
    connected pair are dropped from the list of values but not from that of distances, so the k-th positive value is
    taken for the k-th distance. And at densities up to ``transition`` as well, the sum ends after the first distance
    at which g - (s_max / L^2)^2 < 1e-8. At L = 100 and p = 0.585 the mean length is 7.4, that of the formula 16.0.

    Args:
      states: bool [B, L, L], L at most 512.
      transition: density up to which nothing is subtracted.
      as_run: repeat the authors' program; otherwise the formula alone.
      chunk_size: as for ``pair_connectedness``.

    Returns:
      float32 [B], in lattice constants; 0 where the sum is empty.

    Raises:
      ValueError: if the states are not boolean squares of at most 512 sites, or ``transition`` is outside [0, 1].

    References:
      D. Bayo, A. Honecker and R. A. Römer, New J. Phys. 25, 113041 (2023), and perco_generate_corr.py of their public
      program DisQS/MachineLearning-Percolation.
    """
    check_states(states)
    if not 0 <= transition <= 1:
        raise ValueError(f"transition: expected a density from 0 to 1, got {transition}")
    size = states.shape[1]
    labels = label_clusters(states, periodic=True)
    pairs = count_pairs(labels, periodic=True, chunk_size=chunk_size)
    num_sites = size * size
    displacements = pairs.total // num_sites  # at every distance
    # The count up to which the density is at most `transition`; the small number undoes rounding of 0.585 * 10^4.
    below = pairs.connected[:, 0] <= math.floor(transition * num_sites + 1e-6)

    norm = displacements.astype(jnp.float32) * float(num_sites) ** 2
    excess = _excess(pairs.connected, displacements, largest_cluster(labels), num_sites)
    plain = pairs.connected.astype(jnp.float32) / pairs.total.astype(jnp.float32)[None]
    value = jnp.where(below[:, None], plain, excess / norm[None])
    positive = pairs.connected > 0
    above_floor = excess >= (1e-8 * norm)[None]
    squares = jnp.broadcast_to(pairs.squared_distance, positive.shape)
    if as_run:
        squares = take(squares, jnp.maximum(jnp.cumsum(positive, axis=1) - 1, 0))
        ended = jnp.cumsum(positive & ~above_floor, axis=1)
        here = (positive & ~above_floor).astype(ended.dtype)
        used = positive & (ended - jnp.where(below[:, None], here, 0) == 0)
    else:
        used = jnp.cumsum(~jnp.where(below[:, None], positive, above_floor), axis=1) == 0
    value = jnp.where(used, value, 0.0)
    total = fold_sum(value)
    return jnp.sqrt(fold_sum(squares.astype(jnp.float32) * value) / (6 * jnp.where(total > 0, total, 1.0)))


def _excess(connected, displacements, largest, num_sites):
    """Connected pairs beyond those of a lattice filled evenly with the largest cluster, times L^2: int32 [B, D] counts
    n at distances of m displacements [D] give n L^2 - m s_max^2, float32 [B, D], without cancellation.

    The difference is taken in integers modulo 2^32, which is exact as long as it is small; where it is not, the
    difference of floating-point products is precise enough.
    """
    modular = connected * num_sites - displacements[None] * (largest * largest)[:, None]
    s = largest.astype(jnp.float32)
    rough = connected.astype(jnp.float32) * float(num_sites)
    rough = rough - displacements.astype(jnp.float32)[None] * (s * s)[:, None]
    return jnp.where(jnp.abs(rough) < 2.0**30, modular.astype(jnp.float32), rough)
