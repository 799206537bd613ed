"""Bootstrap intervals of many means at once, from the same resampled examples."""

import functools

import jax
import jax.numpy as jnp
import numpy as np

from physml_jax.core.rng import stream_key
from physml_jax.typing import Array, Key


def mean_intervals(values: np.ndarray, *, num_resamples: int = 1000, seed: int = 0) -> np.ndarray:
    """The 2.5th and 97.5th percentile of the means over resampled examples.

    All rows see the same resamples; the interval of a difference of two rows is that of a row of differences.

    Args:
      values: float [K, N], K scores of N independent examples.
      num_resamples: number of bootstrap samples.
      seed: the same seed gives the same interval, on every machine.

    Returns:
      Float64 [K, 2].

    Raises:
      ValueError: for another shape, numbers that are not finite, or no resample.

    Example:
      >>> low, high = mean_intervals(np.array([[0.0, 1.0, 0.0, 1.0]]))[0]
      >>> bool(0 <= low < 0.5 < high <= 1)
      True
    """
    values = np.asarray(values, np.float64)
    if values.ndim != 2 or not values.size or not np.isfinite(values).all():
        raise ValueError(f"values: expected finite numbers [K, N], got shape {values.shape}")
    if num_resamples < 1:
        raise ValueError(f"num_resamples: expected an integer of at least 1, got {num_resamples}")
    copies = _copies(values.shape[1], num_resamples, seed)
    return np.percentile(copies @ values.T / values.shape[1], [2.5, 97.5], axis=0).T


@functools.lru_cache(maxsize=4)
def _copies(count: int, num_resamples: int, seed: int) -> np.ndarray:
    """How often every example is in every resample, float32 [R, N]; a report asks for the same ones many times."""
    # Sample i depends on the seed and on i alone; the width is a power of two so that few programs are compiled.
    width = 1 << (count - 1).bit_length()
    block = max(1, min(num_resamples, 4_000_000 // width))
    key, found = stream_key(seed, "analysis/bootstrap"), []
    for start in range(0, num_resamples, block):
        uniform = np.asarray(_uniform(key, jnp.arange(start, start + block, dtype=jnp.int32), width=width))[:, :count]
        drawn = np.minimum((uniform * count).astype(np.int64), count - 1)
        found += [np.bincount(d, minlength=count).astype(np.float32) for d in drawn]
    return np.stack(found[:num_resamples])


@functools.partial(jax.jit, static_argnames="width")
def _uniform(key: Key, samples: Array, *, width: int) -> Array:
    """Float32 [n, width] in [0, 1)."""
    return jax.vmap(lambda i: jax.random.uniform(jax.random.fold_in(key, i), (width,), jnp.float32))(samples)
