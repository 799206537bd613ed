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
    # Both directions are one batch of twice the size: the transposed lattices stand behind the others.
    last = states.transpose(1, 2, 0)
    both = tuple(map(lambda *w: jnp.concatenate(w, axis=-1), pack(last), pack(last.swapaxes(0, 1))))
    joined = reaches_bottom(both)
    return joined[: len(states)], joined[len(states) :]


def _connected(states):
    return unpack(flood(pack(states.transpose(1, 2, 0))), states.shape[2]).transpose(2, 0, 1)


def pack(sites: Array) -> Words:
    """Rows of sites as words: bool [rows, columns, B] -> uint32 [rows, B] per 32 columns."""

    def word(part):
        bit = jnp.arange(part.shape[1], dtype=jnp.uint32)[None, :, None]
        return (part.astype(jnp.uint32) << bit).sum(1, dtype=jnp.uint32)

    return tuple(word(sites[:, start : start + 32]) for start in range(0, sites.shape[1], 32))


def unpack(words: Words, num_columns: int) -> Array:
    """The inverse of ``pack``: bool [rows, num_columns, B]."""
    bit = jnp.arange(32, dtype=jnp.uint32)[None, :, None]
    sites = jnp.concatenate([(w[:, None, :] >> bit) & 1 for w in words], axis=1)
    return sites[:, :num_columns].astype(bool)


def flood(occupied: Words, *, until_bottom: bool = False) -> Words:
    """All sites joined to the first row, by double sweeps until nothing changes.

    Args:
      occupied: words of the occupied sites, uint32 [rows, B] each.
      until_bottom: a state that has reached its last row needs no further sweeps; its words are then incomplete.

    Returns:
      Words of the joined sites.
    """
    nothing = tuple(jnp.zeros_like(w[0]) for w in occupied)
    everything = tuple(jnp.full_like(w[0], 0xFFFFFFFF) for w in occupied)

    def row(carry, xs):
        before, changed = carry
        o, old = xs
        new = _fill_row(tuple(a | b for a, b in zip(before, old, strict=True)), o)
        for a, b in zip(new, old, strict=True):
            changed = changed | (a ^ b)
        return (new, changed), new

    def sweep(joined, above, *, reverse):
        (_, changed), joined = lax.scan(row, (above, nothing[0]), (occupied, joined), reverse=reverse)
        return joined, changed

    def unfinished(joined, changed):
        return changed & ~_any_bit(w[-1] for w in joined) if until_bottom else changed

    def double(carry):
        joined, _ = carry
        joined, risen = sweep(joined, nothing, reverse=True)
        joined, fallen = sweep(joined, nothing, reverse=False)
        # Either walk leaves the state closed in its own direction, so one that adds nothing is the last.
        return joined, unfinished(joined, (risen != 0) & (fallen != 0))

    # Everything that stands in the first row is joined to it: a full row above it.
    joined, fallen = sweep(tuple(jnp.zeros_like(w) for w in occupied), everything, reverse=False)
    joined, _ = lax.while_loop(lambda carry: carry[1].any(), double, (joined, unfinished(joined, fallen != 0)))
    return joined


def reaches_bottom(occupied: Words) -> Array:
    """Whether occupied sites join the first and the last row: bool [B]."""
    return _any_bit(w[-1] for w in flood(occupied, until_bottom=True))


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
