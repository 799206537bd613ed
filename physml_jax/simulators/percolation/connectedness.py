"""Pair connectedness: the probability that two sites at a given distance belong to the same cluster.

Pairs are counted exactly, for all displacements of the lattice. Clusters of more than ``SMALL`` sites, of which there
are few, are taken out one by one: the number of pairs of a set of sites at every displacement is the autocorrelation
of its indicator, one Fourier transform, and the real part of the autocorrelation of ``A + iB`` is the sum of those of
A and B, so that a complex transform serves two clusters. The labels of all small clusters together are compared with
their shifted copy, displacement by displacement in the order of the distance, until all their pairs are found; their
number, the sum of s^2, is known beforehand.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from physml_jax.core.batching import chunked
from physml_jax.simulators.percolation.clusters import check_states, label_clusters, take
from physml_jax.simulators.percolation.statistics import cluster_sizes
from physml_jax.typing import Array

#: Lattices per pass on a CPU. An accelerator takes the whole batch at once.
CPU_CHUNK = 16
#: Clusters of up to this many sites are counted by shifts, larger ones by Fourier transforms.
SMALL = 24
#: Displacements per pass of the loop over shifts.
STRIDE = 8
#: At this size counts come out of a float32 transform to within 0.03 (periodic) or 0.13 (open boundaries, whose
#: transform is twice as large) and are then rounded.
MAX_SIZE = 512


class PairConnectedness(NamedTuple):
    """Pairs of sites by distance; D distances in increasing order, the first is 0.

    Attributes:
      squared_distance: int32 [D], r^2 in squared lattice constants.
      connected: int32 [B, D], ordered pairs (i, j) at distance r in the same cluster; at r = 0 the occupied sites.
      total: int32 [D], all ordered pairs at distance r, sites occupied or not.
    """

    squared_distance: Array
    connected: Array
    total: Array

    @property
    def distance(self) -> Array:
        """Distances in lattice constants, float32 [D]."""
        return jnp.sqrt(self.squared_distance.astype(jnp.float32))

    @property
    def g(self) -> Array:
        """Share of the pairs that are connected, float32 [B, D]; the density at r = 0."""
        return self.connected.astype(jnp.float32) / self.total.astype(jnp.float32)[None]


def pair_connectedness(
    states: Array, *, periodic: bool = False, max_distance: float | None = None, chunk_size: int | None = None
) -> PairConnectedness:
    """Pairs of sites of the same cluster as a function of their distance, exactly.

    g(r) = (ordered pairs at distance r in the same cluster) / (all ordered pairs at distance r), so g(0) is the
    density. With open boundaries a displacement (dy, dx) has (L - |dy|)(L - |dx|) pairs. With periodic boundaries
    clusters join across the edges, a displacement is the shortest one on the torus, and each of the L^2 displacements
    has L^2 pairs. All displacements of equal length are one distance.

    Args:
      states: bool [B, L, L], L at most 512.
      periodic: boundaries of clusters and of distances.
      max_distance: largest distance to keep; ``None`` keeps all.
      chunk_size: lattices that share one pass; ``None`` is 16 on a CPU and the whole batch elsewhere (about 1 MB per
        lattice at L = 100 with open boundaries). The counts do not depend on it.

    Returns:
      ``PairConnectedness``; squared distances and totals are constants of L.

    Raises:
      ValueError: if the states are not boolean squares of at most 512 sites, or ``max_distance`` is negative.

    References:
      D. Stauffer and A. Aharony, Introduction to Percolation Theory (1994), chapter 3.

    Example:
      >>> import jax.numpy as jnp
      >>> pairs = pair_connectedness(jnp.array([[[True, True], [False, False]]]))
      >>> pairs.squared_distance.tolist(), pairs.connected.tolist(), pairs.total.tolist()
      ([0, 1, 2], [[2, 2, 0]], [4, 8, 4])
    """
    check_states(states)
    if max_distance is not None and not max_distance >= 0:
        raise ValueError(f"max_distance: expected None or a number of at least 0, got {max_distance}")
    return count_pairs(
        label_clusters(states, periodic=periodic), periodic=periodic, max_distance=max_distance, chunk_size=chunk_size
    )


def count_pairs(
    labels: Array, *, periodic: bool, max_distance: float | None = None, chunk_size: int | None = None
) -> PairConnectedness:
    """``pair_connectedness`` of lattices that are labelled already, int32 [B, L, L]."""
    size = labels.shape[1]
    if size > MAX_SIZE:
        raise ValueError(f"states: expected at most {MAX_SIZE} x {MAX_SIZE} sites, got {size} x {size}")
    plan = _plan(size, periodic, max_distance)
    if chunk_size is None and jax.default_backend() == "cpu":
        chunk_size = CPU_CHUNK
    return PairConnectedness(
        squared_distance=jnp.asarray(plan.squares),
        connected=chunked(lambda x: _count(x, plan, periodic), chunk_size=chunk_size)(labels),
        total=jnp.asarray(plan.total),
    )


class _Plan(NamedTuple):
    """Displacements of a lattice, on the host: distances [D] and their pairs; the number of the distance of every
    cell of the periodic grid of displacements [n, n] (D where the distance is left out); and one of each two opposite
    displacements, sorted by distance, with its weight (1 if it is its own opposite) and number of the distance.
    """

    squares: np.ndarray
    total: np.ndarray
    shell: np.ndarray
    half: np.ndarray
    weight: np.ndarray
    half_shell: np.ndarray


def _plan(size, periodic, max_distance):
    n = size if periodic else 2 * size
    axis = np.arange(n)
    step = np.where(axis < (n + 1) // 2, axis, axis - n)  # -n/2 stands for n/2
    square = step[:, None] ** 2 + step[None, :] ** 2
    along = np.full(n, size) if periodic else np.maximum(size - np.abs(step), 0)
    pairs = along[:, None] * along[None, :]
    kept = pairs > 0
    if max_distance is not None:
        kept &= square <= max_distance**2
    squares, codes = np.unique(square[kept], return_inverse=True)
    shell = np.full((n, n), len(squares))
    shell[kept] = codes
    total = np.bincount(codes, weights=pairs[kept])
    opposite = (-axis % n)[:, None] * n + (-axis % n)[None, :]
    number = axis[:, None] * n + axis[None, :]
    first = np.argwhere(kept & (number <= opposite))
    first = first[np.argsort(shell[tuple(first.T)], kind="stable")]
    at = tuple(first.T)
    weight, half_shell = np.where(number[at] == opposite[at], 1, 2), shell[at]
    padding = -len(first) % STRIDE
    half = np.pad(first if periodic else step[first], ((0, padding), (0, 0)))
    return _Plan(
        *(np.asarray(x, np.int32) for x in (squares, total, shell, half)),
        *(np.pad(x, (0, padding)).astype(np.int32) for x in (weight, half_shell)),
    )


def _count(labels, plan, periodic):
    sizes = cluster_sizes(labels)
    large, sizes = _large_clusters(labels, sizes, len(plan.shell))
    table = jnp.zeros((len(labels), len(plan.squares)), jnp.int32)
    table = table.at[:, plan.shell.reshape(-1)].add(large.reshape(len(labels), -1), mode="drop")
    is_small = take(sizes, jnp.maximum(labels - 1, 0).reshape(len(labels), -1)).reshape(labels.shape) > 0
    labels = jnp.where(is_small, labels, 0)
    return _small_clusters(labels, (sizes * sizes).sum(axis=1), table, plan, periodic)


def _large_clusters(labels, sizes, n):
    """Pairs of the clusters of more than ``SMALL`` sites by displacement, int32 [B, n, n], and the sizes of the others
    (these are set to 0).
    """

    def pop(sizes):
        which = jnp.argmax(sizes, axis=1)
        found = sizes.max(axis=1) > SMALL
        sizes = jnp.where((jnp.arange(sizes.shape[1])[None] == which[:, None]) & found[:, None], 0, sizes)
        return (labels == (which + 1)[:, None, None]) & found[:, None, None], sizes

    def transform(carry):
        sizes, power = carry
        a, sizes = pop(sizes)
        b, sizes = pop(sizes)
        pair = jnp.fft.fft2(lax.complex(a.astype(jnp.float32), b.astype(jnp.float32)), s=(n, n))
        return sizes, power + pair.real**2 + pair.imag**2

    start = (sizes, jnp.zeros((len(labels), n, n), jnp.float32))
    sizes, power = lax.while_loop(lambda carry: (carry[0] > SMALL).any(), transform, start)
    counts = jnp.fft.ifft2(power.astype(jnp.complex64)).real
    return jnp.rint(counts).astype(jnp.int32), sizes


def _small_clusters(labels, missing, table, plan, periodic):
    """Adds the pairs of clusters by comparison with shifted copies, until ``missing`` pairs, int32 [B], are found."""
    size = labels.shape[1]
    dtype = jnp.int16 if size * size < 2**15 else jnp.int32
    here = labels.astype(dtype)
    there = jnp.where(labels > 0, labels, -1).astype(dtype)
    if periodic:
        offset = (0, 0)
        there = jnp.tile(there, (1, 2, 2))
    else:
        offset = (0, size)  # the half of the displacements that is used has dy >= 0
        there = jnp.pad(there, ((0, 0), (0, size), (size, size)), constant_values=-1)
    half, weight, shell = (jnp.asarray(x) for x in (plan.half, plan.weight, plan.half_shell))

    def compare(dy, dx):
        shifted = lax.dynamic_slice(there, (0, dy + offset[0], dx + offset[1]), here.shape)
        return (here == shifted).sum(axis=(1, 2), dtype=jnp.int32)

    def advance(carry):
        k, missing, table = carry
        steps = lax.dynamic_slice(half, (k, 0), (STRIDE, 2))
        found = jnp.stack([compare(steps[i, 0], steps[i, 1]) for i in range(STRIDE)], axis=1)
        found = found * lax.dynamic_slice(weight, (k,), (STRIDE,))[None]
        table = table.at[:, lax.dynamic_slice(shell, (k,), (STRIDE,))].add(found)
        return k + STRIDE, missing - found.sum(axis=1), table

    def unfinished(carry):
        return (carry[0] < len(plan.half)) & (carry[1] > 0).any()

    return lax.while_loop(unfinished, advance, (jnp.int32(0), missing, table))[2]
