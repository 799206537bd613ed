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
    vertical, horizontal = chunked(_spanning, chunk_size=_chunk_size(chunk_size))(states)
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
    return CPU_CHUNK if chunk_size is None and jax.default_backend() == "cpu" else chunk_size


def _spanning(states):
    # Both directions are one batch of twice the size: the rows of transposed lattices are the columns of the others.
    columns = _pack_columns(states)
    rows = _transpose_bits(columns)
    both = tuple(jnp.concatenate([rows[i], columns[i]], axis=-1) for i in range(len(rows)))
    joined = reaches_bottom(both)
    return joined[: len(states)], joined[len(states) :]


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
    joined, active = _first_walk(occupied)
    return _double_sweeps(occupied, joined, active, most_active=0, until_bottom=False)[0]


def reaches_bottom(occupied: Words) -> Array:
    """Whether occupied sites join the first and the last row: bool [B].

    A state that has reached its last row is done. As the slowest of a few hundred states takes four times as long as
    the average one, those that are left after some sweeps are gathered and go on alone.
    """
    num = occupied[0].shape[1]
    joined, active = _first_walk(occupied)
    active &= ~_any_bit(w[-1] for w in joined)
    few = num // FEW
    joined, active = _double_sweeps(occupied, joined, active, most_active=few, until_bottom=True)
    reached = _any_bit(w[-1] for w in joined)
    if few == 0:
        return reached
    left = jnp.nonzero(active, size=few, fill_value=0)[0]  # where fewer are left, state 0 fills up: no harm
    occupied, joined = ([w[:, left] for w in words] for words in (occupied, joined))
    joined, _ = _double_sweeps(tuple(occupied), tuple(joined), active[left], most_active=0, until_bottom=True)
    return reached.at[left].max(_any_bit(w[-1] for w in joined))


def _walk(occupied, joined, above, *, upwards):
    """One walk over the rows: (joined sites, a word [B] that is not 0 if there are more of them than before)."""

    def row(carry, xs):
        before, changed = carry
        o, old = xs
        new = _fill_row(tuple(a | b for a, b in zip(before, old, strict=True)), o)
        for a, b in zip(new, old, strict=True):
            changed = changed | (a ^ b)
        return (new, changed), new

    (_, changed), joined = lax.scan(row, (above, jnp.zeros_like(above[0])), (occupied, joined), reverse=upwards)
    return joined, changed


def _first_walk(occupied):
    """Down from a full row above the first: everything that stands in the first row is joined to it."""
    nothing = tuple(jnp.zeros_like(w) for w in occupied)
    joined, changed = _walk(occupied, nothing, tuple(jnp.full_like(w[0], 0xFFFFFFFF) for w in occupied), upwards=False)
    return joined, changed != 0


def _double_sweeps(occupied, joined, active, *, most_active, until_bottom):
    """Walks up and down while more than ``most_active`` states change: (joined sites, states that still do)."""
    nothing = tuple(jnp.zeros_like(w[0]) for w in occupied)

    def double(carry):
        joined, _ = carry
        joined, risen = _walk(occupied, joined, nothing, upwards=True)
        joined, fallen = _walk(occupied, joined, nothing, upwards=False)
        # Either walk leaves the state closed in its own direction, so one that adds nothing is the last.
        active = (risen != 0) & (fallen != 0)
        return joined, active & ~_any_bit(w[-1] for w in joined) if until_bottom else active

    return lax.while_loop(lambda carry: carry[1].sum(dtype=jnp.int32) > most_active, double, (joined, active))


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


def _any_bit(words):
    return functools.reduce(jnp.bitwise_or, words) != 0
