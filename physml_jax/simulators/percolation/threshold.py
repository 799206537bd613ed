"""At how many occupied sites does a lattice that is filled site by site begin to span?"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

from physml_jax.core.batching import chunked
from physml_jax.simulators.percolation.spanning import pack, reaches_bottom
from physml_jax.typing import Array, Key

#: Lattices per pass on a CPU: what is sorted stays in its caches. An accelerator takes the whole batch at once.
CPU_CHUNK = 64


class Threshold(NamedTuple):
    """Numbers of occupied sites at which a lattice first spans, int32 [B] each: from top to bottom, from left to
    right, in at least one direction, in both.
    """

    vertical: Array
    horizontal: Array
    either: Array
    both: Array


def order(keys: Key, *, size: int, chunk_size: int | None = None) -> Array:
    """The random order in which the sites of a lattice are occupied.

    Sites are sorted by 64 random bits each. Equal ones, which a lattice of L = 100 has with probability 3e-12, keep
    the order of the sites.

    Args:
      keys: typed keys [B]; an order depends on its own key only.
      size: linear size L.
      chunk_size: lattices that are sorted in one pass; ``None`` is 64 on a CPU and the whole batch elsewhere.

    Returns:
      int32 [B, L * L]: the rank of each site, from 0 for the first one to be occupied. ``order(...) < n`` is a state
      of ``n`` occupied sites, uniform over all such states.

    Raises:
      ValueError: if ``size`` or ``chunk_size`` is smaller than 1 or the keys have no batch axis.
    """
    _check(keys, size)
    return chunked(_ranks(size), chunk_size=_chunk_size(chunk_size))(keys)


def spanning_threshold(keys: Key, *, size: int, chunk_size: int | None = None) -> Threshold:
    """The number of occupied sites at which the lattice of each key first spans.

    Spanning is monotone in the sites that ``order`` adds, so the number is found by bisection: ``2 log2(L)`` floods.

    Args:
      keys: typed keys [B]; the thresholds of a lattice depend on its own key only.
      size: linear size L.
      chunk_size: lattices that share one pass; ``None`` is 64 on a CPU and the whole batch elsewhere. The thresholds
        do not depend on it.

    Returns:
      ``Threshold``, from ``L`` to ``L * L``.

    Raises:
      ValueError: as for ``order``, or if ``chunk_size`` is smaller than 1.

    References:
      Newman, Ziff, Phys. Rev. Lett. 85, 4104 (2000): one random order of the sites gives a state at every density.
    """
    _check(keys, size)

    ranked = _ranks(size)

    def fn(keys):
        # Batch last, as floods want it. Both directions bisect numbers of their own: the transposed lattices stand
        # behind the others.
        ranks = ranked(keys).reshape(-1, size, size)
        ranks = jnp.concatenate([ranks.transpose(1, 2, 0), ranks.transpose(2, 1, 0)], axis=-1)

        def halve(_, bounds):
            low, high = bounds  # does not span, does
            middle = (low + high) // 2
            spans = reaches_bottom(pack(ranks < middle[None, None, :]))
            return jnp.where(spans, low, middle), jnp.where(spans, middle, high)

        start = jnp.full(2 * len(keys), size - 1, jnp.int32), jnp.full(2 * len(keys), size * size, jnp.int32)
        _, first = lax.fori_loop(0, (size * size - size + 1).bit_length(), halve, start)
        vertical, horizontal = first[: len(keys)], first[len(keys) :]
        return Threshold(
            vertical, horizontal, either=jnp.minimum(vertical, horizontal), both=jnp.maximum(vertical, horizontal)
        )

    return chunked(fn, chunk_size=_chunk_size(chunk_size))(keys)


def _ranks(size):
    num = size * size

    def ranks(key):
        high, low = jax.random.bits(key, (2, num), jnp.uint32)
        numbers = jnp.arange(num, dtype=jnp.int32)
        _, _, sites = lax.sort((high, low, numbers), num_keys=2)
        return jnp.zeros(num, jnp.int32).at[sites].set(numbers, unique_indices=True)

    return jax.vmap(ranks)


def _check(keys, size):
    if size < 1:
        raise ValueError(f"size: expected an integer of at least 1, got {size}")
    if keys.ndim != 1:
        raise ValueError(f"keys: expected one axis, got {keys.shape}")


def _chunk_size(chunk_size):
    return CPU_CHUNK if chunk_size is None and jax.default_backend() == "cpu" else chunk_size
