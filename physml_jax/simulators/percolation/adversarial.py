"""States of percolation that separate those who see the cluster from those who count sites.

The sets are built to an exact number of occupied sites, so a state of a set cannot be told from an ordinary state of
the same density by counting. A set prescribes some sites and fills up with random ones: among all states that hold
the prescribed sites and have the wanted number, each is equally likely. Where the prescribed sites alone are too
many, the state is they and nothing else.

None of the functions returns a label: what a state does is decided by :func:`spanning`, as for any state.

Conventions as in the package: bool [B, L, L], True where occupied, four neighbours, open boundaries, row 0 on top.

References:
  D. Bayo, A. Honecker, R. A. Roemer, New J. Phys. 25, 113041 (2023): paths, empty paths, and lines as test states of
  networks that were trained on ordinary states. Cross cuts and the equal numbers are additions.
"""

import jax
import jax.numpy as jnp

from physml_jax.simulators.percolation.threshold import order
from physml_jax.simulators.percolation.walks import check_choice, check_keys, walk
from physml_jax.typing import Array, Key

#: Kinds of straight lines; ``any`` lets every line draw its own kind.
LINES = ("horizontal", "vertical", "diagonal", "any")


def path(keys: Key, num_occupied: Array, *, size: int, law: str = "wandering", orientation: str = "vertical") -> Array:
    """Random states that hold a random walk across the lattice, so they span at any density.

    Args:
      keys: typed keys [B].
      num_occupied: int [B], number of occupied sites; that of the walk where the walk needs more.
      size: linear size L.
      law: ``"wandering"`` or ``"staircase"``, see :func:`physml_jax.simulators.percolation.walks.walk`.
      orientation: ``"vertical"`` spans from top to bottom, ``"horizontal"`` from left to right, ``"both"`` does both.

    Returns:
      bool [B, L, L].

    Raises:
      ValueError: for a bad size, law or orientation, or batch axes that differ.
    """
    keys, fill = _two_keys(keys, num_occupied, size)
    return _filled(fill, walk(keys, size=size, law=law, orientation=orientation), num_occupied)


def anti_path(
    keys: Key, num_occupied: Array, *, size: int, law: str = "wandering", orientation: str = "vertical"
) -> Array:
    """Random states without the sites of a random walk across the lattice: :func:`path` with empty sites.

    An empty walk from top to bottom keeps every cluster on its side, so nothing spans from left to right. It says
    nothing about top to bottom, and a dense state spans there; ``orientation="both"`` blocks both directions.

    Args:
      keys: typed keys [B].
      num_occupied: int [B], number of occupied sites; ``size**2`` leaves the walk as the only empty sites.
      size: linear size L.
      law: as for :func:`path`.
      orientation: ``"vertical"`` for a walk from top to bottom (the published set), which blocks left to right;
        ``"horizontal"`` for one from left to right, which blocks top to bottom; ``"both"`` for two walks.

    Returns:
      bool [B, L, L].

    Raises:
      ValueError: for a bad size, law or orientation, or batch axes that differ.
    """
    return ~path(keys, size * size - num_occupied, size=size, law=law, orientation=orientation)


def cross_cut(keys: Key, num_occupied: Array, *, size: int, thickness: int = 1) -> Array:
    """Random states without the sites of one random row and one random column, so they span in no direction.

    Args:
      keys: typed keys [B].
      num_occupied: int [B], number of occupied sites, all of them outside the cut; fewer if there is no place.
      size: linear size L.
      thickness: rows and columns of the cut.

    Returns:
      bool [B, L, L].

    Raises:
      ValueError: for a bad size or thickness, or batch axes that differ.
    """
    keys, fill = _two_keys(keys, num_occupied, size)
    _check_thickness(thickness, size)
    start = jax.vmap(lambda key: jax.random.randint(key, (2,), 0, size - thickness + 1, jnp.int32))(keys)
    cut = _bands(start[:, :, None, None], jnp.stack(jnp.indices((size, size), jnp.int32))[None], thickness)
    return ~_filled(fill, cut, size * size - num_occupied)


def row_cut(keys: Key, num_occupied: Array, *, size: int, thickness: int = 1) -> Array:
    """Random states without the sites of one random row, so they do not span from top to bottom.

    Above the threshold they span from left to right all the same; :func:`cross_cut` blocks both.

    Args:
      keys: typed keys [B].
      num_occupied: int [B], number of occupied sites, all of them outside the cut; fewer if there is no place.
      size: linear size L.
      thickness: rows of the cut.

    Returns:
      bool [B, L, L].

    Raises:
      ValueError: for a bad size or thickness, or batch axes that differ.
    """
    return lines(keys, num_occupied, size=size, num_lines=1, thickness=thickness, value=0, orientation="horizontal")


def lines(
    keys: Key,
    num_occupied: Array,
    *,
    size: int,
    num_lines: int = 1,
    thickness: int = 1,
    value: int = 1,
    orientation: str = "any",
) -> Array:
    """Random states in which straight lines across the lattice are all occupied, or all empty.

    Rows and columns lie anywhere on the lattice. A diagonal has slope +1 or -1 and begins anywhere on an edge, so
    some cut off little more than a corner. A diagonal of thickness 1 is a chain of corners: occupied, it joins
    nothing with four neighbours; empty, it separates its two sides. Two lines may fall on the same place.

    Args:
      keys: typed keys [B].
      num_occupied: int [B], number of occupied sites in total, as far as the lines permit.
      size: linear size L.
      num_lines: number of lines.
      thickness: rows, columns, or diagonals of each line.
      value: 1 for occupied lines, 0 for empty ones.
      orientation: ``"horizontal"``, ``"vertical"``, ``"diagonal"``, or ``"any"``: every line is drawn from rows,
        columns, and diagonals of both slopes.

    Returns:
      bool [B, L, L].

    Raises:
      ValueError: for a bad size, number, thickness, value or orientation, or batch axes that differ.
    """
    keys, fill = _two_keys(keys, num_occupied, size)
    _check_thickness(thickness, size)
    check_choice("value", value, (0, 1))
    check_choice("orientation", orientation, LINES)
    if num_lines < 0:
        raise ValueError(f"num_lines: expected an integer of at least 0, got {num_lines}")
    first, end = {"horizontal": (0, 1), "vertical": (1, 2), "diagonal": (2, 4), "any": (0, 4)}[orientation]
    row, column = jnp.indices((size, size), jnp.int32)
    places = jnp.stack([row, column, row + column, row - column + size - 1])  # a line has one value of its place

    def draw(key):
        kind_key, start_key = jax.random.split(key)
        kind = jax.random.randint(kind_key, (num_lines,), first, end, jnp.int32)
        ends = jnp.array([size, size, 2 * size - 1, 2 * size - 1], jnp.int32)[kind] - thickness + 1
        start = jax.random.randint(start_key, (num_lines,), 0, ends, jnp.int32)
        return _bands(start[:, None, None], places[kind], thickness, axis=0)

    marked = jax.vmap(draw)(keys)
    return _filled(fill, marked, num_occupied) if value else ~_filled(fill, marked, size * size - num_occupied)


def _bands(start, places, thickness, axis=1):
    """Sites whose place lies within ``thickness`` from the start, in any of the bands along ``axis``."""
    return ((places >= start) & (places < start + thickness)).any(axis=axis)


def _filled(keys, marked, num_occupied):
    """The marked sites and as many others, chosen uniformly, as make up the number."""
    batch, size, _ = marked.shape
    ranks, flat = order(keys, size=size), marked.reshape(batch, -1)

    # Sites of small rank are added: how many ranks are needed is found by bisection, because the number of sites
    # grows with them by one or, where the site is marked already, not at all.
    def narrow(_, bounds):
        low, high = bounds
        middle = (low + high) // 2
        enough = (flat | (ranks < middle[:, None])).sum(axis=1, dtype=jnp.int32) >= wanted
        return jnp.where(enough, low, middle + 1), jnp.where(enough, middle, high)

    wanted = jnp.clip(num_occupied.astype(jnp.int32), 0, size * size)
    bounds = jnp.zeros_like(wanted), jnp.full_like(wanted, size * size)
    needed = jax.lax.fori_loop(0, (size * size).bit_length(), narrow, bounds)[1]
    return (flat | (ranks < needed[:, None])).reshape(marked.shape)


def _two_keys(keys, num_occupied, size):
    check_keys(keys, size)
    if num_occupied.shape != keys.shape or not jnp.issubdtype(num_occupied.dtype, jnp.integer):
        raise ValueError(
            f"num_occupied: expected int {list(keys.shape)}, one per key, got {num_occupied.dtype} "
            f"{list(num_occupied.shape)}"
        )
    pairs = jax.vmap(jax.random.split)(keys)
    return pairs[:, 0], pairs[:, 1]


def _check_thickness(thickness, size):
    if not 1 <= thickness <= size:
        raise ValueError(f"thickness: expected an integer from 1 to the size {size}, got {thickness}")
