"""Random states of a square lattice at a given number or probability of occupied sites."""

import jax
import jax.numpy as jnp

from physml_jax.typing import Array, Key


def sample(keys: Key, num_occupied: Array, *, size: int) -> Array:
    """States with exactly ``num_occupied`` occupied sites, uniform over all such states.

    Every site draws 32 random bits and the sites with the smallest draws are occupied. Equal draws are ranked by
    site number; at L = 100 a state has
    about 0.01 such pairs, which biases the choice within one pair only.

    Args:
      keys: typed keys [B].
      num_occupied: int [B], from 0 to ``size**2``; values outside act like the nearest bound.
      size: linear size L.

    Returns:
      bool [B, L, L].

    Raises:
      ValueError: if ``size`` is smaller than 1 or the batch axes differ.
    """
    _check(keys, num_occupied, "num_occupied", size)

    def one(key, k):
        draws = jax.random.bits(key, (size * size,), jnp.uint32)
        order = jnp.argsort(draws, stable=True)
        occupied = jnp.arange(size * size) < k
        return jnp.zeros(size * size, bool).at[order].set(occupied, unique_indices=True).reshape(size, size)

    return jax.vmap(one)(keys, num_occupied)


def bernoulli(keys: Key, density: Array, *, size: int) -> Array:
    """States whose sites are occupied independently with probability ``density``.

    Args:
      keys: typed keys [B].
      density: float [B], from 0 to 1.
      size: linear size L.

    Returns:
      bool [B, L, L].

    Raises:
      ValueError: if ``size`` is smaller than 1 or the batch axes differ.
    """
    _check(keys, density, "density", size)
    return jax.vmap(lambda key, p: jax.random.uniform(key, (size, size), jnp.float32) < p)(keys, density)


def _check(keys, values, name, size):
    if size < 1:
        raise ValueError(f"size: expected an integer of at least 1, got {size}")
    if keys.ndim != 1 or values.shape != keys.shape:
        raise ValueError(f"keys and {name}: expected one axis of equal length, got {keys.shape} and {values.shape}")
