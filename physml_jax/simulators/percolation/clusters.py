"""Clusters of occupied sites: one label per cluster, for a whole batch of lattices in one loop.

A row of sites falls into runs of neighbours, and a run needs only one parent. Runs start at least two columns apart,
so the run that starts in column c is cell ``c // 2`` of its row, and all parents of a lattice are a table half as
large as the lattice. Vertical contacts are thinned in the same way: of a stretch of columns in which two rows are both
occupied, only the first joins the two runs, and such columns lie two apart as well. Then every contact hangs the
larger of its two parents under the smaller (a scatter-minimum), every parent is replaced by its parent twice (pointer
jumping), and the loop ends when no contact of the batch joins different parents: 5 to 8 passes at L = 100.
"""

import jax
import jax.numpy as jnp
from jax import lax

from physml_jax.core.batching import chunked
from physml_jax.typing import Array

#: Lattices per pass on a CPU: their tables stay in its caches. An accelerator takes the whole batch at once.
CPU_CHUNK = 64


def label_clusters(states: Array, *, periodic: bool = False, chunk_size: int | None = None) -> Array:
    """Clusters of occupied sites that touch along an edge (four neighbours).

    Args:
      states: bool [B, L, L], True where a site is occupied.
      periodic: join the last row to the first and the last column to the first.
      chunk_size: lattices that share one pass; ``None`` is 64 on a CPU and the whole batch elsewhere. The labels do
        not depend on it.

    Returns:
      int32 [B, L, L]: 0 for an empty site, otherwise 1 + the smallest number ``row * L + column`` in the cluster.
      Labels of a lattice are therefore distinct and increase in reading order, with gaps.

    Raises:
      ValueError: if the states are not boolean squares, or ``chunk_size`` is smaller than 1.

    References:
      Hook and pointer jumping: Y. Shiloach and U. Vishkin, J. Algorithms 3, 57 (1982). The task: J. Hoshen and
      R. Kopelman, Phys. Rev. B 14, 3438 (1976).

    Example:
      >>> import jax.numpy as jnp
      >>> label_clusters(jnp.array([[[True, False], [False, True]]])).tolist()
      [[[1, 0], [0, 4]]]
    """
    check_states(states)
    if chunk_size is None and jax.default_backend() == "cpu":
        chunk_size = CPU_CHUNK
    return chunked(lambda s: _label(s, periodic), chunk_size=chunk_size)(states)


def check_states(states: Array) -> None:
    """Refuse what is not a batch of boolean squares."""
    if states.ndim != 3 or states.shape[1] != states.shape[2] or states.shape[1] < 1 or states.dtype != jnp.bool_:
        raise ValueError(f"states: expected bool [B, L, L], got {states.dtype} {list(states.shape)}")


def check_labels(labels: Array) -> None:
    """Refuse what cannot come from ``label_clusters``."""
    if labels.ndim != 3 or labels.shape[1] != labels.shape[2] or labels.shape[1] < 1 or labels.dtype != jnp.int32:
        raise ValueError(f"labels: expected int32 [B, L, L], got {labels.dtype} {list(labels.shape)}")


def take(table: Array, indices: Array) -> Array:
    """``table[b, indices[b]]`` for every lattice b; indices are inside the table. The batch axis stays a batch axis,
    so that a batch spread over several devices is not gathered onto each of them.
    """
    return jnp.take_along_axis(table, indices, axis=1, mode="promise_in_bounds")


def _label(states, periodic):
    batch, size, _ = states.shape
    cell, first_column = _runs(states)
    rows, width = first_column.shape[1:]
    above, below = _vertical_contacts(states, cell, periodic)
    if periodic:
        wraps = states[:, :, 0] & states[:, :, -1]
        own = jnp.broadcast_to(width * jnp.arange(rows, dtype=jnp.int32), (batch, rows))
        above = jnp.concatenate([above, own], axis=1)  # cell 0 of a row holds its first site, if that is occupied
        below = jnp.concatenate([below, jnp.where(wraps, cell[:, :, -1], own)], axis=1)
    parent = jnp.broadcast_to(jnp.arange(rows * width, dtype=jnp.int32), (batch, rows * width))

    def hook_and_jump(carry):
        parent, _ = carry
        a, b = take(parent, above), take(parent, below)
        parent = _scatter_minimum(parent, jnp.maximum(a, b), jnp.minimum(a, b))
        parent = take(parent, parent)
        return take(parent, parent), (a != b).any()

    # When every contact joins equal parents, all runs of a cluster have one parent: its first run, because parents
    # never increase and never leave their cluster.
    parent, _ = lax.while_loop(lambda carry: carry[1], hook_and_jump, (parent, jnp.array(True)))
    first_site = first_column + size * jnp.arange(size, dtype=jnp.int32)[None, :, None]
    root = take(first_site.reshape(batch, -1), parent)
    labels = 1 + take(root, cell.reshape(batch, -1)).reshape(states.shape)
    return jnp.where(states, labels, 0)


def _runs(states):
    """The run of every site: its cell, int32 [B, L, L] (any cell for an empty site), and the first column of the run
    of every cell, int32 [B, L, ceil(L / 2)] (any column for a cell without a run).
    """
    size = states.shape[1]
    column = jnp.arange(size, dtype=jnp.int32)[None, None, :]
    starts = states & ~jnp.pad(states[:, :, :-1], ((0, 0), (0, 0), (1, 0)))
    first = lax.cummax(jnp.where(starts, column, 0), axis=2)
    width = (size + 1) // 2
    cell = first // 2 + width * column.swapaxes(1, 2)
    odd = jnp.pad(starts, ((0, 0), (0, 0), (0, size % 2)))[:, :, 1::2]
    return cell, 2 * column[..., :width] + odd.astype(jnp.int32)


def _vertical_contacts(states, cell, periodic):
    """Cells of the runs that touch from row to row, int32 [B, contacts] twice; a place without a contact names the
    same cell twice.
    """
    batch, size, _ = states.shape
    if periodic:
        upper, lower = slice(None), jnp.roll(jnp.arange(size), -1)
    else:
        upper, lower = slice(None, -1), slice(1, None)
    touch = states[:, upper] & states[:, lower]
    touch &= ~jnp.pad(touch[:, :, :-1], ((0, 0), (0, 0), (1, 0)))

    def pairs(x):
        x = jnp.pad(x, ((0, 0), (0, 0), (0, size % 2)))
        return x[:, :, 0::2], x[:, :, 1::2]

    even, odd = pairs(touch)
    width = (size + 1) // 2
    own = jnp.arange(size * width, dtype=jnp.int32).reshape(1, size, width)[:, upper]

    def select(cells):
        at_even, at_odd = pairs(cells)
        return jnp.where(even, at_even, jnp.where(odd, at_odd, own)).reshape(batch, -1)

    return select(cell[:, upper]), select(cell[:, lower])


def _scatter_minimum(table, indices, values):
    return jax.vmap(lambda t, i, v: t.at[i].min(v, mode="promise_in_bounds"))(table, indices, values)
