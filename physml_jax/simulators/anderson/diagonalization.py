"""All states of small lattices: the reference for every other method, and as quick up to L = 6."""

import functools

import jax
import jax.numpy as jnp
import numpy as np

from physml_jax.core.batching import chunked
from physml_jax.simulators.anderson.hamiltonian import dense, residual_norms
from physml_jax.simulators.anderson.states import RESIDUAL_TOLERANCE, Eigenstates, check_disorder, fix_sign
from physml_jax.typing import Array


def dense_eigenstates(
    disorder: np.ndarray, *, energy: float = 0.0, num_states: int = 1, chunk_size: int | None = 1
) -> Eigenstates:
    """The eigenstates nearest an energy, from all N = L^3 of them.

    Args:
      disorder: NumPy or JAX [..., L, L, L], L at most 16 (at L = 8 one realisation takes a fraction of a second, at 16
        a minute).
      energy: target, in units of the hopping.
      num_states: number k of states, at most N.
      chunk_size: realisations at a time; LAPACK works on one, an accelerator on many.

    Returns:
      Eigenstates as NumPy float64 arrays with the leading axes of ``disorder``.

    Raises:
      ValueError: for a wrong disorder, energy or number of states.
    """
    disorder = np.asarray(disorder)
    size = check_disorder(disorder)
    if not np.isfinite(energy):
        raise ValueError(f"energy: expected a finite number, got {energy}")
    lead = disorder.shape[:-3]
    with jax.enable_x64(True):
        flat = jnp.asarray(disorder.reshape(-1, size, size, size), jnp.float64)
        found = _solve(flat, jnp.float64(energy), num_states=num_states, chunk_size=chunk_size)
        return Eigenstates(*(np.asarray(x).reshape((*lead, *x.shape[1:])) for x in found))


def dense_states(disorder: Array, energy: Array | float, *, num_states: int = 1) -> Eigenstates:
    """``dense_eigenstates`` to be traced, in float64.

    Args:
      disorder: float64 [..., L, L, L].
      energy: target, a scalar.
      num_states: number k of states.

    Raises:
      ValueError: for another dtype, or a number of states outside 1 to N.
    """
    size = check_disorder(disorder, double=True)
    if not 1 <= num_states <= size**3:
        raise ValueError(f"num_states: expected 1 to {size**3}, got {num_states}")
    energies, vectors = jnp.linalg.eigh(dense(disorder))
    nearest = jnp.argsort(jnp.abs(energies - energy), axis=-1)[..., :num_states]
    energies = jnp.take_along_axis(energies, nearest, axis=-1)
    states = jnp.take_along_axis(vectors, nearest[..., None, :], axis=-1)
    states = jnp.moveaxis(states, -1, -2).reshape(*nearest.shape, size, size, size)
    residuals = residual_norms(disorder, energies, states)
    return Eigenstates(energies, fix_sign(states), residuals, (residuals <= RESIDUAL_TOLERANCE).all(-1))


@functools.partial(jax.jit, static_argnames=("num_states", "chunk_size"))
def _solve(disorder, energy, *, num_states, chunk_size):
    solve = functools.partial(dense_states, num_states=num_states)
    return chunked(lambda d: solve(d, energy), chunk_size=chunk_size)(disorder)
