"""Random walks from one edge of the lattice to the opposite one, as sets of sites.

A walk is not simulated step by step: all its steps are drawn at once, and its positions follow from running sums and
running minima, so a batch has no loop whose length the slowest walk decides.
"""

import jax
import jax.numpy as jnp

from physml_jax.typing import Array, Key

#: Laws of the walk, see :func:`walk`.
WALKS = ("wandering", "staircase")
ORIENTATIONS = ("vertical", "horizontal", "both")


def max_steps(size: int) -> int:
    """Steps after which a wandering walk goes straight down; about 5 L are made on average."""
    return 8 * size + 160


def walk(keys: Key, *, size: int, law: str = "wandering", orientation: str = "vertical") -> Array:
    """Sites that a random walk visits on its way from the first row to the last.

    Consecutive sites of a walk are neighbours, so the sites are one 4-connected cluster that joins both edges.

    The laws are

    * ``wandering``: starts in a random column of the first row; every step goes down with probability 2/5, and up,
      left or right with probability 1/5 each; a step that would leave the lattice is not made. The walk ends where it
      first meets the last row. One that has not met it after ``max_steps(size)`` steps (fewer than one in a thousand)
      goes straight down from there. It has overhangs and dead ends: about ``2.7 L`` sites at L = 100.
    * ``staircase``: the published set: starts in column ``L // 2``, and then steps one column to the left or to the
      right, with probability 1/2 each (inwards at an edge), and one row down, in turn: ``2 L - 1`` sites.

    Args:
      keys: typed keys [B].
      size: linear size L.
      law: ``"wandering"`` or ``"staircase"``.
      orientation: ``"vertical"`` from the first row to the last, ``"horizontal"`` from the first column to the last,
        or ``"both"``: one walk of each kind.

    Returns:
      bool [B, L, L], True on visited sites.

    Raises:
      ValueError: for a bad size, law or orientation, or keys that are not one batch.

    References:
      D. Bayo, A. Honecker, R. A. Roemer, New J. Phys. 25, 113041 (2023), for walks as test states.
    """
    check_keys(keys, size)
    check_choice("law", law, WALKS)
    check_choice("orientation", orientation, ORIENTATIONS)
    one = {"wandering": _wandering, "staircase": _staircase}[law]
    if orientation == "both":
        pairs = jax.vmap(jax.random.split)(keys)
        return one(pairs[:, 0], size) | one(pairs[:, 1], size).swapaxes(1, 2)
    visited = one(keys, size)
    return visited if orientation == "vertical" else visited.swapaxes(1, 2)


def check_keys(keys: Key, size: int) -> None:
    """Refuses a size below 1 and keys that are not a batch."""
    if size < 1:
        raise ValueError(f"size: expected an integer of at least 1, got {size}")
    if keys.ndim != 1 or not jnp.issubdtype(keys.dtype, jax.dtypes.prng_key):
        raise ValueError(f"keys: expected typed keys [B], got {keys.dtype} {list(keys.shape)}")


def check_choice(name: str, value: object, choices: tuple) -> None:
    """Refuses a value that is not among the choices."""
    if value not in choices:
        raise ValueError(f"{name}: expected one of {', '.join(map(str, choices))}, got {value!r}")


def _staircase(keys, size):
    sides = jax.vmap(lambda key: jax.random.randint(key, (size - 1,), 0, 2, jnp.int32))(keys)
    # Inward steps at the edges are those of a free walk folded at mirrors that stand on the edge columns.
    free = size // 2 + jnp.cumsum(2 * sides - 1, axis=1, dtype=jnp.int32)
    folded = free % max(2 * size - 2, 1)
    columns = jnp.minimum(folded, jnp.abs(2 * size - 2 - folded))
    rows = jnp.broadcast_to(jnp.arange(size - 1, dtype=jnp.int32), columns.shape)
    start = jnp.full((len(keys), 1), size // 2, jnp.int32)
    return _visited(
        jnp.concatenate([jnp.zeros_like(start), rows, rows + 1], axis=1),
        jnp.concatenate([start, columns, columns], axis=1),
        size,
    )


def _wandering(keys, size):
    steps = max_steps(size)

    def draw(key):
        start_key, step_key = jax.random.split(key)
        start = jax.random.randint(start_key, (1,), 0, size, jnp.int32)
        return start, jax.random.randint(step_key, (steps,), 0, 5, jnp.int32)

    start, moves = jax.vmap(draw)(keys)
    start_row = jnp.zeros_like(start)
    # The first row: a refused step is what keeps the sum from passing its running minimum (Skorokhod's reflection).
    down = jnp.cumsum((moves < 2).astype(jnp.int32) - (moves == 2).astype(jnp.int32), axis=1, dtype=jnp.int32)
    rows = jnp.concatenate([start_row, down - jnp.minimum(jax.lax.cummin(down, axis=1), 0)], axis=1)
    # The sides: refused steps of a symmetric walk are those of a free walk folded at mirrors half a site outside.
    aside = jnp.cumsum((moves == 3).astype(jnp.int32) - (moves == 4).astype(jnp.int32), axis=1, dtype=jnp.int32)
    folded = jnp.concatenate([start, start + aside], axis=1) % (2 * size)
    columns = jnp.minimum(folded, 2 * size - 1 - folded)
    # What follows the first visit of the last row is no part of the walk: the positions there are replaced by that
    # visit. A walk that ends above it is continued straight down.
    arrived = jnp.cumsum((rows >= size - 1).astype(jnp.int32), axis=1, dtype=jnp.int32) > 0
    first = jnp.where(arrived[:, -1], jnp.argmax(arrived, axis=1), steps)[:, None]
    last_row = jnp.take_along_axis(rows, first, axis=1)
    last_column = jnp.take_along_axis(columns, first, axis=1)
    after = jnp.arange(steps + 1)[None, :] > first
    visited = _visited(jnp.where(after, last_row, rows), jnp.where(after, last_column, columns), size)
    below = jnp.arange(size)[None, :, None] >= last_row[:, :, None]
    return visited | (below & (jnp.arange(size)[None, None, :] == last_column[:, :, None]))


def _visited(rows, columns, size):
    mark = jax.vmap(lambda sites: jnp.zeros(size * size, bool).at[sites].set(True))
    return mark(rows * size + columns).reshape(-1, size, size)
