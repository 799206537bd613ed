"""States to begin with, and the numbers by which words find their own random ones."""

import jax
import jax.numpy as jnp

from physml_jax.typing import Array, Key

#: Streams of random numbers of a run.
HOT, ORDERED, EXCHANGES, SWEEPS = range(4)
#: Bits of the even replicas of a word.
EVEN = 0x55555555


def initial_words(key: Key, rows: Array, j2: Array, *, size: int, num_words: int, num_slots: int, start: str) -> Array:
    """States to begin with, a function of the key, the row and the place in it.

    Args:
      key: typed key.
      rows: int32 [nJ].
      j2: float32 [nJ]; below 1/2 the ordered states are ferromagnets, from there on stripes.
      size: L.
      num_words: words W of 32 replicas at each temperature.
      num_slots: temperatures.
      start: "hot", "ordered" or "both".

    Returns:
      uint32 [nJ, num_slots, W, L, L].
    """
    numbers = lanes(rows, num_slots, num_words).reshape(-1)
    random = jax.vmap(
        lambda lane: jax.random.bits(jax.random.fold_in(stream(key, HOT), lane), (size, size), jnp.uint32)
    )
    image = jax.vmap(lambda lane: jax.random.bits(jax.random.fold_in(stream(key, ORDERED), lane), (2,), jnp.uint32))
    ones = jnp.uint32(0xFFFFFFFF)

    def ordered():
        sign, direction = jnp.moveaxis(image(numbers), -1, 0)[:, :, None, None]
        odd = (jnp.arange(size) % 2).astype(jnp.uint32) * ones
        stripes = (odd[None, :, None] & direction) | (odd[None, None, :] & ~direction)
        frustrated = jnp.repeat(jnp.where(j2 < 0.5, jnp.uint32(0), ones), num_slots * num_words)[:, None, None]
        return sign ^ (stripes & frustrated)

    if start == "both":
        words = (random(numbers) & jnp.uint32(EVEN)) | (ordered() & ~jnp.uint32(EVEN))
    else:
        words = random(numbers) if start == "hot" else ordered()
    return words.reshape(len(rows), num_slots, num_words, size, size)


def lanes(rows, num_slots, num_words):
    """uint32 [nJ, num_slots, W]: number of every word in the random streams."""
    inside = jnp.arange(num_slots * num_words, dtype=jnp.uint32).reshape(num_slots, num_words)
    return rows.astype(jnp.uint32)[:, None, None] * jnp.uint32(num_slots * num_words) + inside[None]


def stream(key, number):
    """The key of one kind of random numbers: a place in ``HOT, ORDERED, EXCHANGES, SWEEPS``."""
    return jax.random.fold_in(key, number)
