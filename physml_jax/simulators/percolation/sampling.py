"""Random states of a square lattice at a given number or probability of occupied sites."""

import jax
import jax.numpy as jnp
from jax import lax

from physml_jax.core.batching import chunked
from physml_jax.typing import Array, Key

#: States per pass on a CPU: their random bits stay in its caches. An accelerator takes the whole batch at once.
CPU_CHUNK = 64
#: Sites that a state with too many or too few occupied ones draws per round of corrections.
DRAWS = 64
MAX_SIZE = 1 << 15  # site numbers are int32, rows and columns are drawn from 16 bits


def sample(keys: Key, num_occupied: Array, *, size: int, chunk_size: int | None = None) -> Array:
    """States with exactly ``num_occupied`` occupied sites, uniform over all such states.

    Every site draws eight random bits and is occupied if they are below a threshold: the one that leaves the least to
    do. The few sites that are then missing (too many) are drawn at random among the empty (occupied) ones. Given
    ideal random bits this is exactly uniform, not nearly: neither the choice of the threshold nor the corrections
    distinguish one site from another, so all states with the same number of sites stay equally likely.

    Args:
      keys: typed keys [B]; a state depends on its own key only.
      num_occupied: int [B], from 0 to ``size**2``; values outside act like the nearest bound.
      size: linear size L, from 1 to 32768.
      chunk_size: states that share one pass; ``None`` is 64 on a CPU and the whole batch elsewhere. The states do not
        depend on it.

    Returns:
      bool [B, L, L].

    Raises:
      ValueError: if a size is outside its range, the batch axes differ or ``num_occupied`` is not an integer array.
    """
    _check(keys, num_occupied, "num_occupied", size)
    if not jnp.issubdtype(num_occupied.dtype, jnp.integer):
        raise ValueError(f"num_occupied: expected integers, got {num_occupied.dtype}")

    def fn(keys, wanted):
        subkeys = jax.vmap(jax.random.split)(keys)
        states = _below_threshold(_bytes(subkeys[:, 0], size * size), wanted)
        return _correct(subkeys[:, 1], *states, size).reshape(-1, size, size)

    wanted = jnp.clip(num_occupied, 0, size * size).astype(jnp.int32)
    return chunked(fn, chunk_size=_chunk_size(chunk_size))(keys, wanted)


def bernoulli(keys: Key, density: Array, *, size: int, chunk_size: int | None = None) -> Array:
    """States whose sites are occupied independently with probability ``density``.

    Args:
      keys: typed keys [B].
      density: float [B], from 0 to 1.
      size: linear size L.
      chunk_size: as for ``sample``.

    Returns:
      bool [B, L, L].

    Raises:
      ValueError: if a size is outside its range or the batch axes differ.
    """
    _check(keys, density, "density", size)
    fn = jax.vmap(lambda key, p: jax.random.uniform(key, (size, size), jnp.float32) < p)
    return chunked(fn, chunk_size=_chunk_size(chunk_size))(keys, density)


def _check(keys, values, name, size):
    if not 1 <= size <= MAX_SIZE:
        raise ValueError(f"size: expected an integer from 1 to {MAX_SIZE}, got {size}")
    if keys.ndim != 1 or values.shape != keys.shape:
        raise ValueError(f"keys and {name}: expected one axis of equal length, got {keys.shape} and {values.shape}")


def _chunk_size(chunk_size):
    return CPU_CHUNK if chunk_size is None and jax.default_backend() == "cpu" else chunk_size


def _bytes(keys, num):
    """uint8 [B, num]. JAX spends a whole threefry block on a draw of any width, so four bytes share one."""
    words = jax.vmap(lambda key: jax.random.bits(key, (-(-num // 4),), jnp.uint32))(keys)
    return lax.bitcast_convert_type(words, jnp.uint8).reshape(len(keys), -1)[:, :num]


def _below_threshold(draws, wanted):
    """States bool [B, N] of the draws below a threshold of each row, and int32 [B] how many sites are still missing
    (negative: too many).
    """
    num = draws.shape[1]
    # Sums of 128 ones fit the bytes that they are made of; a threshold of at most 255 is not above the padding.
    groups = jnp.pad(draws, ((0, 0), (0, -num % 128)), constant_values=255).reshape(len(draws), 128, -1)

    def count(threshold):
        below = (groups < threshold.astype(jnp.uint8)[:, None, None]).astype(jnp.uint8)
        return below.sum(1, dtype=jnp.uint8).sum(1, dtype=jnp.int32)

    def bisect(i, low):
        middle = low | (128 >> i)
        return jnp.where(count(middle) <= wanted, middle, low)

    low = lax.fori_loop(0, 8, bisect, jnp.zeros_like(wanted))
    # The thresholds low and low + 1 enclose the wanted number. To mend either, one draws on average the number of sites
    # to change over the share of the sites that may be changed.
    fewer = count(low)
    more = jnp.where(low == 255, num, count(jnp.minimum(low + 1, 255)))
    adding = (wanted - fewer).astype(jnp.float32) * more.astype(jnp.float32)
    removing = (more - wanted).astype(jnp.float32) * (num - fewer).astype(jnp.float32)
    add = adding <= removing
    limit = low.astype(jnp.uint8)[:, None]
    return jnp.where(add[:, None], draws < limit, draws <= limit), wanted - jnp.where(add, fewer, more)


def _correct(keys, states, missing, size):
    """Occupies (empties) random sites of the states bool [B, N] until none is missing (too many)."""

    def some(key, state, missing, i):
        # Row and column from 16 bits each: the high half of bits * size is uniform once those with the lowest low
        # halves are dropped (Lemire, ACM Trans. Model. Comput. Simul. 29, 3 (2019)).
        bits = jax.random.bits(jax.random.fold_in(key, i), (DRAWS,), jnp.uint32)
        row, column = ((half * size) for half in (bits >> 16, bits & 0xFFFF))
        fair = jnp.minimum(row & 0xFFFF, column & 0xFFFF) >= (1 << 16) % size
        site = ((row >> 16) * size + (column >> 16)).astype(jnp.int32)
        # One after the other, but at once: a site counts where it is drawn first, until enough have changed.
        again = jnp.tril(site[:, None] == site[None, :], -1) & fair[None, :]
        good = fair & (state[site] == (missing < 0)) & ~again.any(1)
        good &= jnp.cumsum(good.astype(jnp.int32)) <= jnp.abs(missing)
        state = state.at[jnp.where(good, site, len(state))].set(missing > 0, mode="drop")
        return state, missing - jnp.sign(missing) * good.sum(dtype=jnp.int32)

    def body(carry):
        i, states, missing = carry
        states, missing = jax.vmap(some, in_axes=(0, 0, 0, None))(keys, states, missing, i)
        return i + 1, states, missing

    def cond(carry):
        return (carry[2] != 0).any()

    return lax.while_loop(cond, body, (jnp.uint32(0), states, missing))[1]
