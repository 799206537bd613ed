"""Does a cluster of occupied sites join opposite edges of the lattice?

A row of sites is a few 32-bit words, and a flood walks from row to row: the sites of a row that are joined to the row
before seed their runs of neighbours, and an addition fills a run, because its carry passes through exactly as many
ones as the run is long. One walk down and one up is a double sweep; two to four of them join what can be joined in
most states near the threshold. The batch is the last axis and every word of a row is an array of its own: stacked
inside a scan they cost tens of times more in XLA on a CPU.
"""

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

from physml_jax.core.batching import chunked
from physml_jax.typing import Array

Words = tuple[Array, ...]  # one uint32 array per 32 columns, lowest bit first; bits beyond the lattice stay 0

#: States per pass on a CPU: their words stay in its caches. An accelerator takes the whole batch at once.
CPU_CHUNK = 256
#: The states that are left when they are one in FEW go on alone.
FEW = 4


class Spanning(NamedTuple):
    """Whether a state spans, bool [B] each. ``vertical`` joins the first and the last row, ``horizontal`` the first
    and the last column.
    """

    vertical: Array
    horizontal: Array

    @property
    def either(self) -> Array:
        """Spans in at least one direction: the label of the published experiments."""
        return self.vertical | self.horizontal

    @property
    def both(self) -> Array:
        """Spans in both directions."""
        return self.vertical & self.horizontal


def spanning(states: Array, *, chunk_size: int | None = None) -> Spanning:
    """Spanning flags of square lattices with four neighbours and open boundaries.

    Args:
      states: bool [B, L, L].
      chunk_size: states that share one pass; ``None`` is 256 on a CPU and the whole batch elsewhere. The flags do not
        depend on it.

    Returns:
      ``Spanning``, bool [B] each.

    Raises:
      ValueError: if the states are not boolean squares, or ``chunk_size`` is smaller than 1.
    """
    _check(states)
    vertical, horizontal = _reached(states, _chunk_size(chunk_size))
    return Spanning(vertical=vertical, horizontal=horizontal)


def connected_to_top(states: Array, *, chunk_size: int | None = None) -> Array:
    """The occupied sites that an occupied path of nearest neighbours joins to the first row.

    Args:
      states: bool [B, L, L].
      chunk_size: as for ``spanning``.

    Returns:
      bool [B, L, L]; a state spans vertically if its last row holds a True.

    Raises:
      ValueError: as for ``spanning``.
    """
    _check(states)
    return chunked(_connected, chunk_size=_chunk_size(chunk_size))(states)


def _check(states):
    if states.ndim != 3 or states.shape[1] != states.shape[2] or states.dtype != jnp.bool_:
        raise ValueError(f"states: expected bool [B, L, L], got {states.dtype} {list(states.shape)}")


def _chunk_size(chunk_size):
    if chunk_size is not None and chunk_size < 1:
        raise ValueError(f"chunk_size: expected None or an integer of at least 1, got {chunk_size}")
    return CPU_CHUNK if chunk_size is None and jax.default_backend() == "cpu" else chunk_size


def _reached(states, size):
    """Flags of both directions, bool [B] each, ``size`` states per pass. What is left of ``FEW`` passes is one more."""
    num = len(states)
    if size is None or num <= size:
        joined = reaches_bottom(_both_directions(states))
        return joined[:num], joined[num:]

    def finish(rest):  # the lanes of up to FEW passes, lanes last
        passes, lanes = rest.active.shape
        occupied, joined = (tuple(jnp.moveaxis(w, 0, 1).reshape(w.shape[1], -1) for w in words) for words in rest[:2])
        return _finish(_Rest(occupied, joined, rest.active.reshape(-1))).reshape(passes, lanes)

    rows = jnp.minimum(jnp.arange(-(-num // size) * size), num - 1).reshape(-1, size)
    joined, left, rest = lax.map(lambda r: _begin(_both_directions(states[r])), rows)
    joined = joined.at[jnp.arange(len(rows))[:, None], left].max(chunked(finish, chunk_size=FEW)(rest))
    return joined[:, :size].reshape(-1)[:num], joined[:, size:].reshape(-1)[:num]


def _both_directions(states):
    """Words of the lattices and, behind them, of the transposed ones, whose rows are the columns of the others."""
    columns = _pack_columns(states)
    rows = _transpose_bits(columns)
    return tuple(jnp.concatenate([rows[i], columns[i]], axis=-1) for i in range(len(rows)))


def _connected(states):
    rows = _transpose_bits(_pack_columns(states))
    return unpack(flood(tuple(rows[i] for i in range(len(rows)))), states.shape[2]).transpose(2, 0, 1)


def pack(sites: Array) -> Words:
    """Rows of sites as words: bool [rows, columns, B] -> uint32 [rows, B] per 32 columns."""

    def word(part):
        bit = jnp.arange(part.shape[1], dtype=jnp.uint32)[None, :, None]
        return (part.astype(jnp.uint32) << bit).sum(1, dtype=jnp.uint32)

    return tuple(word(sites[:, start : start + 32]) for start in range(0, sites.shape[1], 32))


def _pack_columns(states):
    """Columns of sites as words: bool [B, L, L] -> uint32 [words, L, B], lowest bit in the highest row.

    The loop over words keeps XLA from fusing the sums with the transposition: on a CPU, sums along the last axis of
    many states in turn take eight times as long.
    """
    num, size = len(states), states.shape[2]
    padded = jnp.pad(states, ((0, 0), (0, -size % 32), (0, 0)))
    bit = jnp.arange(32, dtype=jnp.uint32)[None, :, None]

    def word(i):
        rows = lax.dynamic_slice_in_dim(padded, 32 * i, 32, axis=1)
        return (rows.astype(jnp.uint32) << bit).sum(1, dtype=jnp.uint32)

    words = lax.map(word, jnp.arange(padded.shape[1] // 32))
    return words.reshape(-1, num, size).transpose(0, 2, 1)


def _transpose_bits(words):
    """Words of the columns of square lattices to words of their rows, or back: uint32 [words, L, B].

    Blocks of 32 x 32 bits are transposed by exchanging their quarters, the quarters of these, and so on (Warren,
    Hacker's Delight, 2nd ed., section 7-3).
    """
    num, size, batch = words.shape
    x = jnp.pad(words, ((0, 0), (0, 32 * num - size), (0, 0))).reshape(num, num, 32, batch)
    for half, mask in ((16, 0x0000FFFF), (8, 0x00FF00FF), (4, 0x0F0F0F0F), (2, 0x33333333), (1, 0x55555555)):
        x = x.reshape(num, num, 16 // half, 2, half, batch)
        first, second = x[:, :, :, 0], x[:, :, :, 1]
        exchanged = ((first >> half) ^ second) & jnp.uint32(mask)
        x = jnp.stack([first ^ (exchanged << half), second ^ exchanged], axis=3).reshape(num, num, 32, batch)
    return x.swapaxes(0, 1).reshape(num, 32 * num, batch)[:, :size]


def unpack(words: Words, num_columns: int) -> Array:
    """The inverse of ``pack``: bool [rows, num_columns, B]."""
    bit = jnp.arange(32, dtype=jnp.uint32)[None, :, None]
    sites = jnp.concatenate([(w[:, None, :] >> bit) & 1 for w in words], axis=1)
    return sites[:, :num_columns].astype(bool)


def flood(occupied: Words) -> Words:
    """All sites joined to the first row: words of uint32 [rows, B]."""
    return _sweeps(occupied, *_first_walk(occupied), most_active=0, until_bottom=False)[0]


def reaches_bottom(occupied: Words) -> Array:
    """Whether occupied sites join the first and the last row: bool [B]."""
    reached, left, rest = _begin(occupied)
    return reached.at[left].max(_finish(rest))


class _Rest(NamedTuple):
    """Lanes of some words that need further sweeps: uint32 [rows, n] per word, bool [n] (False in lanes that only fill
    up).
    """

    occupied: Words
    joined: Words
    active: Array


def _begin(occupied):
    """The first sweeps of all lanes: (bool [B], whether they have reached the bottom; numbers of lanes int32 [n]; these
    lanes as ``_Rest``).

    A lane that has reached its last row is done, and so is one in which nothing can be added. The slowest of a few
    hundred takes four times as long as the average one, so those that are left are gathered and go on alone.
    """
    joined, active = _first_walk(occupied)
    return _gather(occupied, joined, active & ~_bottom(joined))


def _gather(occupied, joined, active):
    few = -(-len(active) // FEW)
    joined, active = _sweeps(occupied, joined, active, most_active=few, until_bottom=True)
    left = jnp.nonzero(active, size=few, fill_value=0)[0]  # where fewer are left, lane 0 fills up: no harm
    occupied, rest = (tuple(w[:, left] for w in words) for words in (occupied, joined))
    return _bottom(joined), left, _Rest(occupied, rest, active[left])


def _finish(rest):
    """Whether the lanes reach the bottom, bool [n]."""
    reached, left, rest = _gather(*rest)
    joined, _ = _sweeps(*rest, most_active=0, until_bottom=True)
    return reached.at[left].max(_bottom(joined))


def _walk(occupied, joined, *, upwards):
    """One walk over the rows: (joined sites, a word [B] that is not 0 if more sites could be joined upwards).

    A row is overwritten as soon as it is found; a copy of the rows would cost as much as finding them. Above the first
    row lies a full one: everything that stands in the first row is joined to it.
    """
    num_rows = occupied[0].shape[0]
    start = tuple(jnp.full_like(w[0], 0 if upwards else 0xFFFFFFFF) for w in occupied)

    def row(step, carry):
        joined, before, rising = carry
        i = num_rows - 1 - step if upwards else step
        o, old = ([lax.dynamic_index_in_dim(w, i, 0, keepdims=False) for w in words] for words in (occupied, joined))
        new = _fill_row([a | b for a, b in zip(before, old, strict=True)], o)
        if not upwards:
            # Joined sites below occupied ones that are not. In the first row there are none above.
            above = (lax.dynamic_index_in_dim(w, jnp.maximum(i - 1, 0), 0, keepdims=False) for w in occupied)
            for n, a, b in zip(new, above, before, strict=True):
                rising = rising | (n & a & ~b)
        joined = tuple(lax.dynamic_update_index_in_dim(w, n, i, 0) for w, n in zip(joined, new, strict=True))
        return joined, new, rising

    joined, _, rising = lax.fori_loop(0, num_rows, row, (tuple(joined), start, jnp.zeros_like(start[0])))
    return joined, rising


def _first_walk(occupied):
    joined, rising = _walk(occupied, tuple(jnp.zeros_like(w) for w in occupied), upwards=False)
    return joined, rising != 0


def _sweeps(occupied, joined, active, *, most_active, until_bottom):
    """Walks up and down while more than ``most_active`` lanes change: (joined sites, lanes that still do)."""

    def double(carry):
        joined, _ = _walk(occupied, carry[0], upwards=True)
        joined, rising = _walk(occupied, joined, upwards=False)
        active = rising != 0  # rows are closed sideways and downwards after this walk
        return joined, active & ~_bottom(joined) if until_bottom else active

    start = tuple(joined), active
    return lax.while_loop(lambda carry: carry[1].sum(dtype=jnp.int32) > most_active, double, start)


def _fill_row(seeds, occupied):
    """The runs of occupied sites that hold a seed, for one row: words uint32 [B]."""
    filled = []
    carry = jnp.zeros_like(seeds[0])
    for s, o in zip(seeds, occupied, strict=True):  # towards higher columns
        s = (s | carry) & o
        s = ((o ^ (o + s)) & o) | s  # bits that the carry has turned, and seeds behind the first one in their run
        filled.append(s)
        carry = s >> 31
    carry = jnp.zeros_like(seeds[0])
    for i in reversed(range(len(filled))):  # towards lower columns, by 1, 2, 4, 8 and 16 sites
        o = occupied[i]
        s = filled[i] | (carry & o)
        for shift in (1, 2, 4, 8, 16):
            s = s | (o & (s >> shift))
            o = o & (o >> shift)
        filled[i] = s
        carry = s << 31
    return tuple(filled)


def _bottom(joined):
    """Whether the last row holds a joined site, bool [B]."""
    return functools.reduce(jnp.bitwise_or, [w[-1] for w in joined]) != 0
