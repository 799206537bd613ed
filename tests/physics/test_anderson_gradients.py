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


def finite_differences(problem, step):
    """dE and d psi from LAPACK at four places, the error of order step^2 removed (Richardson)."""
    field, change, _, vectors, n = problem
    state = vectors[:, n] * np.sign(vectors[np.argmax(abs(vectors[:, n])), n])

    def at(t):
        values, vectors = np.linalg.eigh(anderson.sparse(field + t * change).toarray())
        here = np.argmin(abs(values))
        return values[here], vectors[:, here] * np.sign(vectors[:, here] @ state)

    def central(t):
        (up, psi_up), (down, psi_down) = at(t), at(-t)
        return (up - down) / (2 * t), (psi_up - psi_down).reshape(field.shape) / (2 * t)

    return tuple((4 * x - y) / 3 for x, y in zip(central(step), central(2 * step), strict=True))


def test_derivatives(problem):
    """Forward and reverse mode agree with perturbation theory and with finite differences of LAPACK's states."""
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

        out = everything(jnp.asarray(field), jnp.asarray(change))
    (energy, state), (d_energy, d_state), by_energy, by_state = jax.tree.map(np.asarray, out)
    np.testing.assert_allclose(energy, values[n], atol=1e-12)
    np.testing.assert_allclose(d_energy, slope, atol=1e-10)
    np.testing.assert_allclose(d_state, moved, atol=1e-8)
    np.testing.assert_allclose(by_energy, state * state, atol=1e-12)
    np.testing.assert_allclose((by_state * change).sum(), (weights * moved).sum(), atol=1e-8)
    fd_energy, fd_state = finite_differences(problem, 1e-3)
    np.testing.assert_allclose(d_energy, fd_energy, rtol=0, atol=1e-7)
    np.testing.assert_allclose(d_state, fd_state, rtol=0, atol=1e-7)
