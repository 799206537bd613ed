"""Random 32-bit words for lattices of packed spins, as pure functions of key, lane, sweep, sublattice, bit and site.

Packed spins at 24 bits read 25 random words per site, so that the generator is a good part of all work. Two are offered
through one interface:

- ``hash``: one full mix of the number of the site, once; then, per word, eight operations with two keys of the bit.
  The keys come from threefry. It has no state to carry, so it fuses with the arithmetic that reads its words.
- ``threefry``: every word from threefry, with the key folded with the lane; the reference that the other is tested
  against.

A lane is the identity of a word of 32 replicas in the stream: the words of one lane do not depend on which other lanes
are drawn beside it.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp

from physml_jax.core.rng import FIRST, SECOND, mix


class RandomWords(NamedTuple):
    """A generator of random words.

    Attributes:
      sites: (lanes uint32 [W], rows of a sublattice) -> what the words of all sites have in common, computed once.
      keys: (key, sweep, (sublattices, bits)) -> keys with these leading axes.
      word: (sites, one of the keys) -> uint32 [rows, rows, W].
    """

    sites: Callable
    keys: Callable
    word: Callable


def _hash_sites(lanes, half):
    number = jnp.arange(half * half, dtype=jnp.uint32).reshape(half, half, 1)
    return mix(number + lanes[None, None, :] * jnp.uint32(half * half))


def _hash_keys(key, sweep, shape):
    return jax.random.bits(jax.random.fold_in(key, sweep), (*shape, 2), jnp.uint32)


def _hash_word(sites, keys):
    x = (sites ^ keys[0]) * jnp.uint32(FIRST)
    x ^= x >> 15
    x = (x ^ keys[1]) * jnp.uint32(SECOND)
    return x ^ (x >> 16)


def _threefry_sites(lanes, half):
    return lanes, half


def _threefry_keys(key, sweep, shape):
    return jax.random.split(jax.random.fold_in(key, sweep), shape)


def _threefry_word(sites, key):
    lanes, half = sites

    def one(lane):
        return jax.random.bits(jax.random.fold_in(key, lane), (half, half), jnp.uint32)

    return jax.vmap(one, out_axes=-1)(lanes)


GENERATORS: dict[str, RandomWords] = {
    "hash": RandomWords(sites=_hash_sites, keys=_hash_keys, word=_hash_word),
    "threefry": RandomWords(sites=_threefry_sites, keys=_threefry_keys, word=_threefry_word),
}
