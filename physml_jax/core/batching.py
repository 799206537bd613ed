"""Mapping over a batch in chunks: the memory of one chunk, the result of the whole."""

from collections.abc import Callable

import jax
import jax.numpy as jnp

from physml_jax.typing import Tree


def chunked(fn: Callable[..., Tree], *, chunk_size: int | None) -> Callable[..., Tree]:
    """``fn`` of a batch, called for ``chunk_size`` rows at a time.

    For functions that are batched by nature, such as a loop that runs until the last row is done. The last chunk is
    padded with copies of the last row, so every chunk has the same shape and ``fn`` is traced once.

    Args:
      fn: function of arrays with the batch axis first (any number of pytree arguments), returning such arrays; row j
        of the result may depend on row j of the arguments only.
      chunk_size: rows per chunk; ``None`` or a size of at least the batch means one call.

    Returns:
      A function of batched arguments.

    Raises:
      ValueError: if ``chunk_size`` is smaller than 1.
    """
    if chunk_size is not None and chunk_size < 1:
        raise ValueError(f"chunk_size: expected None or an integer of at least 1, got {chunk_size}")

    def wrapped(*args):
        size = jax.tree.leaves(args)[0].shape[0]
        if chunk_size is None or chunk_size >= size:
            return fn(*args)
        num_chunks = -(-size // chunk_size)
        rows = jnp.minimum(jnp.arange(num_chunks * chunk_size), size - 1).reshape(num_chunks, chunk_size)
        out = jax.lax.map(lambda r: fn(*jax.tree.map(lambda x: x[r], args)), rows)
        return jax.tree.map(lambda x: x.reshape((-1, *x.shape[2:]))[:size], out)

    return wrapped


def chunked_vmap(fn: Callable[..., Tree], *, chunk_size: int | None) -> Callable[..., Tree]:
    """``jax.vmap(fn)`` that holds only ``chunk_size`` rows at a time.

    Elementwise results are those of the plain ``vmap`` bit for bit. Matrix products inside ``fn`` may differ in their
    last bits, because their blocking depends on the chunk's shape.

    Args:
      fn: function of one row (any number of pytree arguments without the batch axis).
      chunk_size: rows per chunk; ``None`` or a size of at least the batch means plain ``vmap``.

    Returns:
      A function of batched arguments.

    Raises:
      ValueError: if ``chunk_size`` is smaller than 1.
    """
    return chunked(jax.vmap(fn), chunk_size=chunk_size)
