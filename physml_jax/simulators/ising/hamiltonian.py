"""Energy and order parameters of J1-J2 Ising states: what can be read off one lattice."""

from typing import NamedTuple

import jax.numpy as jnp
import numpy as np

from physml_jax.typing import Array


class BondSums(NamedTuple):
    """Whole numbers that fix the energy of a state for every J2 and every field, int32 [...] each.

    Attributes:
      nn: sum of s s over the 2 L^2 bonds between nearest neighbours.
      nnn: sum of s s over the 2 L^2 bonds across the diagonals.
      up: number of up spins; the sum of the spins is ``2 up - L^2``.
    """

    nn: Array
    nnn: Array
    up: Array


class StripeOrder(NamedTuple):
    """Order parameters of the superantiferromagnet, float32 [...] each.

    Attributes:
      row: mean of (-1)^i s, i the number of the row: +-1 where whole rows alternate (wave vector (pi, 0)).
      column: mean of (-1)^j s, j the number of the column.
      maximum: max(abs(row), abs(column)).
      norm: sqrt(row^2 + column^2). Equal to ``maximum`` in a perfect stripe, larger in every other state; both have
        the same limit in a large lattice, and their finite-size values must not be mixed.
    """

    row: Array
    column: Array
    maximum: Array
    norm: Array


def bond_sums(spins: Array) -> BondSums:
    """Sums over bonds and sites, exact.

    Args:
      spins: int8 [..., L, L] in {-1, +1}, periodic, even L >= 4.

    Raises:
      ValueError: if the spins are no int8 squares of an even size of at least 4.
    """
    check_spins(spins)
    right, below = jnp.roll(spins, -1, axis=-1), jnp.roll(spins, -1, axis=-2)
    nn = spins * (right + below)
    # The two diagonals of the plaquette to the lower right of every site.
    nnn = spins * jnp.roll(below, -1, axis=-1) + right * below
    return BondSums(_sum(nn), _sum(nnn), _sum(spins > 0))


def energy(spins: Array, j2: Array | float, field: Array | float = 0.0) -> Array:
    """Energy per site, (-sum_nn s s + J2 sum_nnn s s - h sum s) / L^2, in units of J1.

    Args:
      spins: int8 [..., L, L].
      j2: coupling across the diagonals, antiferromagnetic where positive; a scalar, or an array that broadcasts with
        the leading axes of ``spins`` at the same rank.
      field: external field h, likewise.

    Returns:
      float [...], float32 unless ``j2`` is float64.

    Raises:
      ValueError: as for ``bond_sums``.

    Example:
      >>> import jax.numpy as jnp
      >>> float(energy(jnp.ones((6, 6), jnp.int8), 0.25))
      -1.5
    """
    sums = bond_sums(spins)
    j2, field = jnp.asarray(j2), jnp.asarray(field)
    dtype = jnp.result_type(jnp.float32, j2.dtype)
    num_sites = spins.shape[-1] ** 2
    nn, nnn = sums.nn.astype(dtype), sums.nnn.astype(dtype)
    total = (2 * sums.up - num_sites).astype(dtype)
    return (j2.astype(dtype) * nnn - nn - field.astype(dtype) * total) / num_sites


def magnetization(spins: Array) -> Array:
    """Mean spin m of every state with its sign, int8 [..., L, L] -> float32 [...].

    Raises:
      ValueError: as for ``bond_sums``.
    """
    check_spins(spins)
    return _mean(spins)


def staggered_magnetization(spins: Array) -> Array:
    """Mean of (-1)^(i + j) s, the order parameter of a checkerboard, int8 [..., L, L] -> float32 [...].

    Raises:
      ValueError: as for ``bond_sums``.
    """
    check_spins(spins)
    sign = _signs(spins.shape[-1])
    return _mean(spins * _like(sign[:, None] * sign[None, :], spins))


def stripe_order(spins: Array) -> StripeOrder:
    """Order parameters of rows and of columns that alternate, and the two usual numbers made of them.

    Args:
      spins: int8 [..., L, L].

    Raises:
      ValueError: as for ``bond_sums``.
    """
    check_spins(spins)
    sign = _signs(spins.shape[-1])
    row = _mean(spins * _like(sign[:, None], spins))
    column = _mean(spins * _like(sign[None, :], spins))
    return StripeOrder(
        row, column, maximum=jnp.maximum(jnp.abs(row), jnp.abs(column)), norm=jnp.sqrt(row * row + column * column)
    )


def ground_state_energy(j2: Array | float) -> Array:
    """Lowest energy per site without a field: -2 + 2 J2 (ferromagnet) up to J2 = 1/2, then -2 J2 (stripes)."""
    j2 = jnp.asarray(j2)
    return jnp.minimum(-2 + 2 * j2, -2 * j2)


def check_spins(spins: Array, *, rank: int | None = None) -> None:
    """Raises ValueError unless ``spins`` is int8 [..., L, L] (of ``rank`` axes) with even L >= 4.

    Odd lattices frustrate the stripes and do not fall into four sublattices; at L = 2 a pair of sites would share
    two bonds.
    """
    wanted = "[..., L, L]" if rank is None else "[P, L, L]"
    shape = spins.shape
    if spins.dtype != jnp.int8 or len(shape) < 2 or (rank is not None and len(shape) != rank) or shape[-1] != shape[-2]:
        raise ValueError(f"spins: expected int8 {wanted}, got {spins.dtype} {list(shape)}")
    if shape[-1] < 4 or shape[-1] % 2:
        raise ValueError(f"spins: expected an even L of at least 4, got {shape[-1]}")


def _signs(size):
    return jnp.asarray(1 - 2 * (np.arange(size) % 2), jnp.int8)


def _like(sign, spins):
    return jnp.broadcast_to(sign, spins.shape)


def _sum(x):
    return x.sum(axis=(-2, -1), dtype=jnp.int32)


def _mean(x):
    return _sum(x).astype(jnp.float32) / x.shape[-1] ** 2
