"""Four sublattices of packed lattices, halo-padded, so that all neighbours are plain slices.

Sublattice 2 a + b holds the rows of parity a and the columns of parity b. A sublattice of even rows (columns) repeats
its first one behind its last one, one of odd rows its last one before its first one; so the neighbours in other rows or
columns always start at 0 and 1. The words are the last axis, where neighbours in memory need the same work.
"""

import jax.numpy as jnp
from jax import lax

from physml_jax.typing import Array

Sublattices = tuple[Array, ...]  # four of uint32 [h + 1, h + 1, W], h = L / 2

#: The order of the updates: that of the reference kernel, so that both agree on the way to equilibrium as well.
ORDER = (0, 3, 1, 2)


def split(words: Array) -> Sublattices:
    """Packed lattices to sublattices: uint32 [W, L, L] -> four of [h + 1, h + 1, W]."""
    return tuple(_with_halo(words[:, a::2, b::2].transpose(1, 2, 0), a, b) for a in (0, 1) for b in (0, 1))


def join(sublattices: Sublattices) -> Array:
    """The inverse of ``split``."""
    half, num = sublattices[0].shape[0] - 1, sublattices[0].shape[2]
    inner = jnp.stack([interior(sublattices, number) for number in range(4)])
    inner = inner.reshape(2, 2, half, half, num)  # [a, b, row, column, W]
    return inner.transpose(4, 2, 0, 3, 1).reshape(num, 2 * half, 2 * half)


def interior(sublattices: Sublattices, number: int) -> Array:
    """One sublattice without its halo: uint32 [h, h, W]."""
    a, b = divmod(number, 2)
    half, num = sublattices[number].shape[0] - 1, sublattices[number].shape[2]
    return lax.slice(sublattices[number], (a, b, 0), (a + half, b + half, num))


def replace(sublattices: Sublattices, number: int, inner: Array) -> Sublattices:
    """One sublattice anew, uint32 [h, h, W].

    The interior is written in place and the halo after it. Concatenating them would be fused with what reads them next,
    and costs the vectorisation of both.
    """
    a, b = divmod(number, 2)
    half = inner.shape[0]
    x = lax.dynamic_update_slice(sublattices[number], inner, (a, b, 0))
    x = lax.dynamic_update_slice(x, x[half:] if a else x[:1], (0 if a else half, 0, 0))
    x = lax.dynamic_update_slice(x, x[:, half:] if b else x[:, :1], (0, 0 if b else half, 0))
    return (*sublattices[:number], x, *sublattices[number + 1 :])


def neighbours(sublattices: Sublattices, number: int, row: Array | int = 0) -> tuple[list[Array], list[Array]]:
    """The four nearest and the four diagonal neighbours of the sites of one sublattice.

    Args:
      sublattices: all four.
      number: the one that is asked for.
      row: a zero that is known at run time only; it keeps XLA from moving what follows out of a loop.

    Returns:
      (nearest, diagonal), lists of uint32 [h, h, W].
    """
    a, b = divmod(number, 2)
    half = sublattices[0].shape[0] - 1

    def part(array, i, j):
        return lax.dynamic_slice(array, (row + i, j, 0), (half, half, array.shape[2]))

    vertical, horizontal, diagonal = (sublattices[2 * p + q] for p, q in ((1 - a, b), (a, 1 - b), (1 - a, 1 - b)))
    near = [part(vertical, 0, b), part(vertical, 1, b), part(horizontal, a, 0), part(horizontal, a, 1)]
    return near, [part(diagonal, i, j) for i in (0, 1) for j in (0, 1)]


def _with_halo(x, a, b):
    x = jnp.concatenate([x[-1:], x] if a else [x, x[:1]], axis=0)
    return jnp.concatenate([x[:, -1:], x] if b else [x, x[:, :1]], axis=1)
