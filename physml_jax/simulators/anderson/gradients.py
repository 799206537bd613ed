r"""Derivatives of energies and states with respect to the site energies.

For a non-degenerate state, dE / d eps_i = psi_i^2 (Hellmann and Feynman), and

  d psi = -(H - E)^+ (d eps psi),

with the pseudo-inverse on the space orthogonal to psi. It is applied by iteration with a factorisation of H - sigma at
a shift sigma beside E: solves are deflated, that is, projected before and after, so the nearness of sigma to E does no
harm, and the error falls by \|E - sigma\| / \|E' - sigma\| per solve, with E' the next energy.

References:
  R. P. Feynman, Phys. Rev. 56, 340 (1939).
  R. B. Nelson, AIAA J. 14, 1201 (1976), derivatives of single eigenvectors.
"""

import jax
import jax.numpy as jnp

from physml_jax.simulators.anderson.dissection import Plan
from physml_jax.simulators.anderson.factorization import Factors, factorize, solve
from physml_jax.simulators.anderson.hamiltonian import hamiltonian_matvec
from physml_jax.simulators.anderson.krylov import level_spacing, nearest_states
from physml_jax.typing import Array

#: Distance of the shift from the energy, in level spacings: far from singular, near enough for few solves.
SHIFT = 1e-3
#: Solves per derivative: the error falls by about SHIFT, in a close pair by less, with each.
SOLVES = 4
#: Residual of the state that is differentiated: its error enters the derivative times the inverse distance squared.
TOLERANCE = 1e-10


def deflated_solve(factors: Factors, energy: Array, state: Array, rhs: Array, plan: Plan) -> Array:
    """(H - E)^+ rhs on the space orthogonal to a state.

    Args:
      factors: of H - sigma with sigma near E (and nearer to it than to any other energy).
      energy: E, [].
      state: psi, [N], of unit norm.
      rhs: [N, p].
      plan: of the factors.

    Returns:
      [N, p], orthogonal to ``state``.
    """

    def project(x):
        return x - state[:, None] * (state @ x)[None, :]

    rhs = project(rhs)

    def correct(_, x):
        # (H - sigma) x = rhs + (E - sigma) x.
        return project(solve(factors, rhs + (energy - factors.shift) * x, plan))

    return jax.lax.fori_loop(0, SOLVES, correct, jnp.zeros_like(rhs))


@jax.custom_jvp
def nearest_state(disorder: Array, energy: Array | float, plan: Plan) -> tuple[Array, Array]:
    """Energy [] and state [L, L, L] of the state nearest an energy, differentiable in the disorder (once, both modes).

    The sign of the state is that of ``Eigenstates``, and its derivative the one at fixed sign. Derivatives of the state
    grow with the inverse distance of the next energy and do not exist where two coincide. Traced, in float64; nothing
    is certified here: take the state from ``eigenstates`` where that matters.

    Args:
      disorder: eps, float64 [L, L, L].
      energy: target, in units of the hopping.
      plan: ``dissection.plan(L)``.
    """
    found = nearest_states(disorder, energy, plan, tolerance=TOLERANCE, certify=False).states
    return found.energies[0], found.states[0]


@nearest_state.defjvp
def _nearest_state_jvp(primals, tangents):
    disorder, target, plan = primals
    energy, state = nearest_state(disorder, target, plan)
    factors = factorize(disorder, energy + SHIFT * level_spacing(disorder), plan)
    return (energy, state), differentials(disorder, factors, energy, state, tangents[0], plan)


def differentials(
    disorder: Array, factors: Factors, energy: Array, state: Array, change: Array, plan: Plan
) -> tuple[Array, Array]:
    """Changes dE [] and d psi [L, L, L] that follow a change of the site energies; linear, so it transposes.

    Args:
      disorder: eps, [L, L, L].
      factors: of H - sigma with sigma near E.
      energy: E, [].
      state: psi, [L, L, L], of unit norm.
      change: d eps, [L, L, L].
      plan: of the factors.
    """
    flat = state.reshape(-1)

    def project(x):
        return x - flat * (flat @ x)

    def restricted(x):
        cube = project(x).reshape(state.shape)
        return project((hamiltonian_matvec(disorder, cube) - energy * cube).reshape(-1))

    def inverse(_, rhs):
        return deflated_solve(factors, energy, flat, rhs[:, None], plan)[:, 0]

    moved = change * state
    step = jax.lax.custom_linear_solve(restricted, project(moved.reshape(-1)), inverse, symmetric=True)
    return (state * moved).sum(), -step.reshape(state.shape)
