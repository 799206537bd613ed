"""The Hamiltonian of the Anderson model: matrix-free, dense, sparse, and its spectrum without disorder."""

import jax.numpy as jnp
import numpy as np

from physml_jax.simulators.anderson.states import check_disorder
from physml_jax.typing import Array

#: Largest size of which a dense matrix is made (N^2 numbers with N = L^3).
MAX_DENSE_SIZE = 16


def hopping_matvec(psi: Array) -> Array:
    """Sum over the six neighbours of every site, [..., L, L, L] -> the same, periodic, L >= 3."""
    return sum(jnp.roll(psi, step, axis) for axis in (-3, -2, -1) for step in (1, -1))


def hamiltonian_matvec(disorder: Array, psi: Array) -> Array:
    """H psi = eps psi - sum over the six neighbours.

    Args:
      disorder: eps, [*A, L, L, L], L >= 3.
      psi: [*A, ..., L, L, L]: the leading axes of ``disorder`` come first, so states of one realisation may be stacked
        under ``disorder`` [L, L, L], and k states of each of B realisations are [B, k, L, L, L].

    Returns:
      H psi, shape of ``psi``, in the common dtype of both.

    Raises:
      ValueError: if shapes do not fit.
    """
    size = check_disorder(disorder)
    lead = disorder.shape[:-3]
    if psi.shape[-3:] != (size,) * 3 or psi.shape[: len(lead)] != lead or psi.ndim < disorder.ndim:
        wanted = [*lead, "...", size, size, size]
        raise ValueError(f"psi: expected {wanted} for disorder {list(disorder.shape)}, got {list(psi.shape)}")
    diagonal = disorder.reshape(*lead, *(1,) * (psi.ndim - disorder.ndim), size, size, size)
    return diagonal * psi - hopping_matvec(psi)


def residual_norms(disorder: Array, energies: Array, states: Array) -> Array:
    """Norms of H psi - E psi, for energies [*A, ...] and states [*A, ..., L, L, L] of disorder [*A, L, L, L]."""
    difference = hamiltonian_matvec(disorder, states) - energies[..., None, None, None] * states
    return jnp.sqrt((difference * difference).sum((-3, -2, -1)))


def dense(disorder: Array) -> Array:
    """H as a matrix, [..., L, L, L] -> [..., N, N] with N = L^3 and sites in C order.

    Raises:
      ValueError: if L is below 3 or above 16.
    """
    size = check_disorder(disorder)
    if size > MAX_DENSE_SIZE:
        raise ValueError(f"disorder: a dense matrix is made up to L = {MAX_DENSE_SIZE}, got {size}")
    ring = jnp.roll(jnp.eye(size, dtype=disorder.dtype), 1, axis=0)
    ring, one = ring + ring.T, jnp.eye(size, dtype=disorder.dtype)
    hopping = (
        jnp.kron(jnp.kron(ring, one), one) + jnp.kron(jnp.kron(one, ring), one) + jnp.kron(jnp.kron(one, one), ring)
    )
    diagonal = disorder.reshape(*disorder.shape[:-3], -1)
    matrix = jnp.broadcast_to(-hopping, (*diagonal.shape, size**3))
    sites = jnp.arange(size**3)
    return matrix.at[..., sites, sites].set(diagonal)


def sparse(disorder: np.ndarray):
    """H as a SciPy matrix in compressed rows, float64 [N, N] with N = L^3 and sites in C order; seven entries per row.

    Args:
      disorder: [L, L, L].

    Raises:
      ValueError: if ``disorder`` is no finite cube of L >= 3.
    """
    import scipy.sparse

    disorder = np.asarray(disorder)
    size = check_disorder(disorder, rank=3)
    sites = np.arange(size**3).reshape(size, size, size)
    neighbours = [np.roll(sites, step, axis).reshape(-1) for axis in range(3) for step in (1, -1)]
    rows = np.tile(sites.reshape(-1), 7)
    columns = np.concatenate([sites.reshape(-1), *neighbours])
    values = np.concatenate([disorder.reshape(-1).astype(np.float64), -np.ones(6 * size**3)])
    return scipy.sparse.csr_matrix((values, (rows, columns)), shape=(size**3, size**3))


def clean_spectrum(size: int) -> np.ndarray:
    """All energies at W = 0, -2 (cos k_x + cos k_y + cos k_z) with k = 2 pi n / L: float64 [L^3], ascending."""
    if size < 3:
        raise ValueError(f"size: expected at least 3, got {size}")
    line = -2 * np.cos(2 * np.pi * np.arange(size) / size)
    return np.sort((line[:, None, None] + line[:, None] + line).reshape(-1))


def spectral_interval(disorder: Array) -> tuple[Array, Array]:
    """Bounds min(eps) - 6 and max(eps) + 6 of the spectrum (Gershgorin), [..., L, L, L] -> two of [...]."""
    check_disorder(disorder)
    return disorder.min((-3, -2, -1)) - 6, disorder.max((-3, -2, -1)) + 6
