"""Thirty-two replicas in one word: bit r of word w is replica 32 w + r, and a bit that is set is a spin up."""

import jax.numpy as jnp

from physml_jax.typing import Array

#: Replicas of a word.
WORD = 32


def pack(spins: Array) -> Array:
    """Spins of replicas to words.

    Args:
      spins: int8 [..., R, L, L], -1 or +1; R a multiple of 32. What is positive counts as up.

    Returns:
      uint32 [..., R/32, L, L].

    Raises:
      ValueError: if ``spins`` is not int8, or R is no multiple of 32.
    """
    if spins.dtype != jnp.int8 or spins.ndim < 3 or spins.shape[-3] % WORD:
        raise ValueError(
            f"spins: expected int8 [..., R, L, L] with R a multiple of {WORD}, got {spins.dtype} {list(spins.shape)}"
        )
    shape = (*spins.shape[:-3], spins.shape[-3] // WORD, WORD, *spins.shape[-2:])
    up = (spins > 0).reshape(shape).astype(jnp.uint32)
    return (up << _bits(up.ndim)).sum(-3, dtype=jnp.uint32)


def unpack(words: Array) -> Array:
    """Words to spins of replicas, the inverse of ``pack``.

    Args:
      words: uint32 [..., W, L, L].

    Returns:
      int8 [..., 32 W, L, L], -1 or +1.

    Raises:
      ValueError: if ``words`` is not uint32 or has fewer than three axes.
    """
    if words.dtype != jnp.uint32 or words.ndim < 3:
        raise ValueError(f"words: expected uint32 [..., W, L, L], got {words.dtype} {list(words.shape)}")
    up = (jnp.expand_dims(words, -3) >> _bits(words.ndim + 1)) & 1
    spins = 2 * up.astype(jnp.int8) - 1
    return spins.reshape(*words.shape[:-3], WORD * words.shape[-3], *words.shape[-2:])


def _bits(ndim):
    """The numbers of the replicas of a word along the third axis from the end."""
    return jnp.arange(WORD, dtype=jnp.uint32).reshape((1,) * (ndim - 3) + (WORD, 1, 1))
