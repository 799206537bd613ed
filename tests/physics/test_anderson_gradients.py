"""Derivatives of energies and states against finite differences and against the sum over all states."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from physml_jax.simulators import anderson
from physml_jax.simulators.anderson import dissection
from physml_jax.simulators.anderson.gradients import nearest_state

SIZE = 4


@pytest.fixture(scope="module")
def problem():
    """A realisation, a direction, and LAPACK's states."""
    rng = np.random.default_rng(3)
    field, change = 16.5 * (rng.random((SIZE,) * 3) - 0.5), rng.normal(size=(SIZE,) * 3)
    values, vectors = np.linalg.eigh(anderson.sparse(field).toarray())
    return field, change, values, vectors, int(np.argmin(abs(values)))


def sum_over_states(problem):
    """dE and d psi by first-order perturbation theory."""
    field, change, values, vectors, n = problem
    matrix = vectors.T @ (change.reshape(-1)[:, None] * vectors)
    others = np.arange(len(values)) != n
    shift = vectors[:, others] @ (matrix[others, n] / (values[n] - values[others]))
    sign = np.sign(vectors[np.argmax(abs(vectors[:, n])), n])
    return matrix[n, n], sign * shift.reshape(field.shape)


def test_derivatives(problem):
    """Forward mode, reverse mode and finite differences agree with perturbation theory."""
    field, change, values, _, n = problem
    slope, moved = sum_over_states(problem)
    weights = np.random.default_rng(4).normal(size=field.shape)
    with jax.enable_x64(True):
        plan = jax.tree.map(jnp.asarray, dissection.plan(SIZE))

        @jax.jit
        def everything(eps, direction):
            function = lambda d: nearest_state(d, 0.0, plan)
            out, tangent = jax.jvp(function, (eps,), (direction,))
            _, pullback = jax.vjp(function, eps)
            zero = jnp.zeros(())
            return out, tangent, pullback((zero + 1, jnp.zeros_like(eps)))[0], pullback((zero, jnp.asarray(weights)))[0]

        def at(step):
            return everything(jnp.asarray(field + step * change), jnp.asarray(change))

        (energy, state), (d_energy, d_state), by_energy, by_state = at(0.0)
        np.testing.assert_allclose(energy, values[n], atol=1e-12)
        np.testing.assert_allclose(d_energy, slope, atol=1e-10)
        np.testing.assert_allclose(d_state, moved, atol=1e-8)
        np.testing.assert_allclose(by_energy, state * state, atol=1e-12)
        np.testing.assert_allclose((by_state * change).sum(), (weights * moved).sum(), atol=1e-8)
        plus, minus, h = at(1e-4)[0], at(-1e-4)[0], 2e-4
        np.testing.assert_allclose((plus[0] - minus[0]) / h, d_energy, atol=1e-6)
        np.testing.assert_allclose((plus[1] - minus[1]) / h, d_state, atol=1e-6)
