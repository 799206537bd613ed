"""The places of set flags without sorting or scattering: ranks of bits in words."""

import jax
import jax.numpy as jnp
import numpy as np

from physml_jax.core.precision import matmul
from physml_jax.typing import Array

#: Flags per word.
WORD = 32
#: With more words than this the search for a flag's word goes by blocks of this many.
_MAX_WORDS, _BLOCK = 24, 8


def first_set(flags: Array, number: int) -> tuple[Array, Array, Array]:
    """The places of the first ``number`` flags that are set, by the rank of bits in words.

    The word of the k-th flag is the number of words whose inclusive running count is at most k; its bit in the word is
    found by halving.

    Args:
      flags: bool [32, W, C].
      number: K.

    Returns:
      int32 [C, K], places 32 w + b, 0 where there is none; bool [C, K], whether there is one; int32 [C], flags set.
    """
    num_words = flags.shape[1]
    bits = jnp.uint32(1) << jnp.arange(WORD, dtype=jnp.uint32)
    words = jnp.where(flags, bits[:, None, None], jnp.uint32(0)).sum(axis=0, dtype=jnp.uint32)  # [W, C]
    ones = jax.lax.population_count(words).astype(jnp.float32)
    running = matmul(jnp.tril(jnp.ones((num_words, num_words), jnp.float32)), ones).astype(jnp.int32)  # exact
    count = running[-1]
    k = jnp.arange(number, dtype=jnp.int32)[:, None]
    block = 1 if num_words <= _MAX_WORDS else _BLOCK
    padding = (-num_words % block) + 1  # the last word is nobody's, for places beyond the count
    ends = jnp.pad(running, ((0, padding), (0, 0)), constant_values=np.iinfo(np.int32).max)
    heads = ends[block - 1 :: block] if block > 1 else running
    passed = heads[None] <= k[:, None]
    word = block * passed.sum(axis=1, dtype=jnp.int32)
    before = jnp.where(passed, heads[None], 0).max(axis=1)
    step = block // 2
    while step:
        end = _pick(ends, jnp.minimum(word + step - 1, num_words))
        over = end <= k
        word, before = jnp.where(over, word + step, word), jnp.where(over, end, before)
        step //= 2
    rank = k - before
    rest = _pick(words, jnp.minimum(word, num_words - 1))
    bit = jnp.zeros_like(word)
    for half in (16, 8, 4, 2, 1):
        low = rest & jnp.uint32((1 << half) - 1)
        inside = jax.lax.population_count(low).astype(jnp.int32)
        above = rank >= inside
        rank = jnp.where(above, rank - inside, rank)
        rest = jnp.where(above, rest >> half, low)
        bit = bit + jnp.where(above, half, 0)
    mask = k < count[None]
    return jnp.where(mask, WORD * word + bit, 0).T, mask.T, count


def _pick(table, rows):
    """``table[rows[k, c], c]``."""
    return jnp.take_along_axis(table, rows, axis=0, mode="promise_in_bounds")
