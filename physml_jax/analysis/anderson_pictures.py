"""Pictures of single states for figures, and how many sites a state occupies; NumPy in, NumPy out."""

import jax
import jax.numpy as jnp
import numpy as np

from physml_jax.simulators.anderson import cube_view


def cubes(states: np.ndarray, *, pixels: int, margin: float) -> np.ndarray:
    """The cube view of states [S, L, L, L], float32 [S, P, P, 4]; see ``simulators.anderson.cube_view``."""
    draw = jax.jit(lambda psi: cube_view(psi, pixels=pixels, margin=margin))
    return np.asarray(draw(jnp.asarray(states, jnp.float32)))


def participation_number(states: np.ndarray) -> np.ndarray:
    """1/P_2 of states [S, L, L, L], float64 [S]; norms do not matter.

    Example:
      >>> participation_number(np.ones((1, 4, 4, 4))).tolist()
      [64.0]
    """
    weight = np.square(states, dtype=np.float64).reshape(len(states), -1)
    return weight.sum(1) ** 2 / (weight**2).sum(1)
