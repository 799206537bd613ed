"""What an eigensolver of the Anderson model returns, and the choices that make its answer unique."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from physml_jax.typing import Array


class Eigenstates(NamedTuple):
    """Eigenstates nearest an energy, the nearest first. A batch of realisations adds leading axes to every field.

    Attributes:
      energies: [k], in units of the hopping.
      states: [k, L, L, L], real, of unit norm, the component of largest modulus positive.
      residuals: [k], norm of H psi - E psi.
      certified: bool [], all residuals are at most 1e-8 and a count of eigenvalues shows that none nearer is missing.
    """

    energies: Array
    states: Array
    residuals: Array
    certified: Array


#: Largest residual of a certified state.
RESIDUAL_TOLERANCE = 1e-8


def fix_sign(states: Array) -> Array:
    """Signs such that the component of largest modulus is positive (the first one of equals), [..., L, L, L]."""
    flat = states.reshape(*states.shape[:-3], -1)
    peak = jnp.take_along_axis(flat, jnp.argmax(jnp.abs(flat), axis=-1, keepdims=True), axis=-1)
    return (flat * jnp.where(peak < 0, -1, 1).astype(flat.dtype)).reshape(states.shape)


def check_disorder(disorder: Array, *, rank: int | None = None, double: bool = False) -> int:
    """Raises ValueError unless ``disorder`` is real [..., L, L, L] with L >= 3, and finite where its values are known.

    Below L = 3 two neighbours of a site coincide.

    Args:
      disorder: the site energies.
      rank: number of axes, if it is fixed.
      double: demand float64.

    Returns:
      L.
    """
    shape = tuple(disorder.shape)
    wanted = {3: "[L, L, L]", 4: "[B, L, L, L]"}.get(rank, "[..., L, L, L]")
    if len(shape) < 3 or len(set(shape[-3:])) != 1 or rank not in (None, len(shape)):
        raise ValueError(f"disorder: expected {wanted}, got {list(shape)}")
    if shape[-1] < 3:
        raise ValueError(f"disorder: expected L of at least 3, got {shape[-1]}")
    if not jnp.issubdtype(disorder.dtype, jnp.floating):
        raise ValueError(f"disorder: expected real numbers, got {disorder.dtype}")
    if double and disorder.dtype != jnp.float64:
        raise ValueError(
            f"disorder: expected float64, got {disorder.dtype}; call inside `with jax.enable_x64(True):`, or call the"
            " host function, which does so itself"
        )
    if not isinstance(disorder, jax.core.Tracer) and not np.isfinite(np.asarray(disorder)).all():
        raise ValueError("disorder: expected finite numbers")
    return shape[-1]
