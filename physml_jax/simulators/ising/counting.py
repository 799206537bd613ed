"""Sums over the sites of packed states, one integer per replica, without unpacking them.

A word holds one bit of 32 replicas, so a sum over sites is 32 sums side by side. Four of them at a time are taken in
the four bytes of a word: shifted by one of eight amounts and masked, words are added as they are, up to 255 of them.
"""

from typing import NamedTuple

import jax.numpy as jnp
from jax import lax

from physml_jax.typing import Array


class ReplicaSums(NamedTuple):
    """What the zero-field energy and the order parameters of a replica are made of, int32 [..., 32 W] each.

    Attributes:
      nn: sum of s s over the 2 L^2 bonds between nearest neighbours.
      nnn: the same over the 2 L^2 bonds across the diagonals.
      spin: sum of the spins.
      row: sum of (-1)^i s, i the number of the row: +-L^2 where the rows alternate.
      column: sum of (-1)^j s, j the number of the column.
    """

    nn: Array
    nnn: Array
    spin: Array
    row: Array
    column: Array


def replica_sums(words: Array) -> ReplicaSums:
    """Sums over bonds and sites of every replica of packed states, exact integers.

    Args:
      words: uint32 [..., W, L, L], bit r of word w is replica 32 w + r, 1 = spin up.

    Returns:
      ``ReplicaSums`` of int32 [..., 32 W].
    """
    size = words.shape[-1]
    num = size * size
    # Lanes last, for the vector units.
    sites = jnp.moveaxis(words.reshape(-1, size, size), 0, -1)
    odd = ((jnp.arange(size) % 2).astype(jnp.uint32) * jnp.uint32(0xFFFFFFFF)).reshape(size, 1)
    below = jnp.roll(sites, -1, axis=0)
    # A bit is set where a bond joins antiparallel spins, a spin is up, or a spin agrees with a pattern of stripes.
    terms = [
        sites ^ jnp.roll(sites, -1, axis=1),
        sites ^ below,
        sites ^ jnp.roll(below, -1, axis=1),
        sites ^ jnp.roll(below, 1, axis=1),
        sites,
        sites ^ jnp.broadcast_to(odd[:, None], sites.shape),
        sites ^ jnp.broadcast_to(odd, sites.shape),
    ]
    shape = (*words.shape[:-3], 32 * words.shape[-3])  # replicas of all words of a point side by side
    counts = bit_counts(jnp.stack([term.reshape(num, -1) for term in terms])).reshape(len(terms), *shape)
    right, down, diagonal, other, up, row, column = counts
    return ReplicaSums(
        nn=2 * num - 2 * (right + down),
        nnn=2 * num - 2 * (diagonal + other),
        spin=2 * up - num,
        row=2 * row - num,
        column=2 * column - num,
    )


def bit_counts(words: Array) -> Array:
    """How many words of the middle axis have bit r set.

    Args:
      words: uint32 [K, N, M].

    Returns:
      int32 [K, M, 32].
    """
    num_terms, num, lanes = words.shape
    chunk = max(d for d in range(1, 256) if num % d == 0)  # a byte counts to 255
    group = max(d for d in range(1, 26) if chunk % d == 0)
    words = words.reshape(num_terms, group, num // group, lanes)

    def quarter(shift):
        return sum((words[:, i] >> shift) & jnp.uint32(0x01010101) for i in range(group))

    # On a CPU a loop keeps XLA from computing these sums anew for each of their readers, and sums that are written out
    # are vectorised where a long reduction of an expression is not: together a factor of 20.
    quarters = lax.map(quarter, jnp.arange(8, dtype=jnp.uint32))
    quarters = jnp.sum(quarters.reshape(8, num_terms, num // chunk, chunk // group, lanes), axis=3, dtype=jnp.uint32)
    places = 8 * jnp.arange(4, dtype=jnp.uint32).reshape(4, 1, 1, 1, 1)
    counts = jnp.sum((quarters[None] >> places) & jnp.uint32(255), axis=3, dtype=jnp.uint32)  # [4, 8, K, M]
    return jnp.moveaxis(counts.reshape(32, num_terms, lanes), 0, -1).astype(jnp.int32)
