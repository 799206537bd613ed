"""Randomness as a function of names and numbers, never of history.

A *stream* is ``(seed, name)``; an *example* is ``(seed, split, index)``. Two programs that agree on these agree on
every draw, whatever their batch size,
number of devices, or how often they were killed in between. Keys are typed threefry keys: under ``rbg`` a ``vmap``
over keys uses only the first one.
"""

import zlib

import jax
import jax.numpy as jnp

from physml_jax.typing import Array, Key

#: Multipliers whose two rounds of xor-shift and multiplication have little bias (Wellons, hash-prospector, 2018-2023).
FIRST, SECOND = 0x21F0AAAD, 0x735A2D97


def stream_key(seed: int, name: str) -> Key:
    """The key of a named stream of random numbers.

    Args:
      seed: the experiment's seed, 0 <= seed < 2**32.
      name: what the stream is for, for example ``"init"`` or ``"train/augment"``.

    Returns:
      A scalar typed key.

    Raises:
      ValueError: if the seed is outside its range.
    """
    if not 0 <= int(seed) < 2**32:
        raise ValueError(f"seed: expected an integer from 0 to 2**32 - 1, got {seed!r}")
    # crc32 and not hash(): Python salts the hash of a string anew in every process.
    return jax.random.fold_in(jax.random.key(int(seed), impl="threefry2x32"), zlib.crc32(name.encode()))


def step_key(seed: int, name: str, step: Array | int) -> Key:
    """The key of step ``step`` in the stream ``(seed, name)``."""
    return jax.random.fold_in(stream_key(seed, name), step)


def example_key(seed: int, split: str, index: Array | int) -> Key:
    """Keys of examples of one split.

    Args:
      seed: the dataset's seed.
      split: name of the split, for example ``"train"``.
      index: integer or int array ``[...]``, number of the example.

    Returns:
      Typed keys, shape of ``index``.
    """
    base = stream_key(seed, f"example/{split}")
    index = jnp.asarray(index)
    flat = jax.vmap(lambda i: jax.random.fold_in(base, i))(index.reshape(-1))
    return flat.reshape(index.shape)


def mix(x: Array) -> Array:
    """A bijection of uint32 that lets every bit of the argument reach every bit of the result: two multiplications
    between three shifts. For simulators that need more random words than threefry can afford, from keys that are its.

    Args:
      x: uint32 of any shape.

    Returns:
      uint32 of the same shape.
    """
    x ^= x >> 16
    x *= jnp.uint32(FIRST)
    x ^= x >> 15
    x *= jnp.uint32(SECOND)
    return x ^ (x >> 15)
