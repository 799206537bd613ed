"""The adjoint recurrence against plain differentiation of the same loop, and against finite differences."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from physml_jax.simulators.diffraction import chebyshev, recurrence

KINDS = ("real", "hermitian", "symmetric", "general")


def problem(kind, *, n=12, num_tilts=3, thickness=300.0, seed=0):
    """Parts of V / h, detuning, coefficients, attenuation and number of terms: about three anchors."""
    rng = np.random.default_rng(seed)
    a, b = rng.normal(size=(2, n, n)) * 0.005 / np.sqrt(n)
    v = a + a.T
    if kind in ("hermitian", "general"):
        v = v + 1j * (b - b.T)
    if kind in ("symmetric", "general"):
        v = v + 1j * (30.0 * b @ b.T)
    errors = -rng.uniform(0.0, 0.04, size=(num_tilts, n))
    e = chebyshev.expand(errors, [thickness, 100.0], chebyshev.spectral_bounds(v, kind), tolerance=1e-12)
    parts = (v.real / e.half_width,)
    if kind != "real":
        parts += (v.imag / e.half_width - np.eye(n) * e.shift / e.half_width,)
    detuning = (errors - e.centre[:, None]).T / e.half_width
    return parts, detuning, chebyshev.padded(e.coefficients, multiple=16), e.attenuation, e.num_terms


def loss(arrays, attenuation, num_terms, *, kind, outputs, forward_mode):
    """A number that depends on real and imaginary parts of every amplitude."""
    parts, detuning, coefficients = arrays
    if outputs is None and kind != "general":
        options = {"kind": kind, "forward_mode": forward_mode}
        psi, _ = chebyshev.transmitted(parts, detuning, coefficients, attenuation, num_terms, **options)
    else:
        options = {"outputs": outputs, "forward_mode": forward_mode}
        psi, _ = chebyshev.diffracted(parts, detuning, coefficients, attenuation, num_terms, **options)
    weights = jnp.cos(jnp.arange(psi.size, dtype=detuning.dtype)).reshape(psi.shape)
    return jnp.sum(weights * (psi.real**2 + psi.imag**2)) + jnp.sum(weights * psi.imag)


def meaningful(parts, kind):
    """What is left of a gradient when V keeps its symmetry."""
    if kind == "hermitian":
        return [(parts[0] + parts[0].T) / 2, (parts[1] - parts[1].T) / 2]
    return [(p + p.T) / 2 for p in parts] if kind in ("real", "symmetric") else list(parts)


@pytest.mark.parametrize(
    ("kind", "outputs"),
    [
        ("real", None),
        ("symmetric", None),
        ("hermitian", (3, 0)),
        ("general", (3, 0)),
        *(
            pytest.param(*x, marks=pytest.mark.slow)
            for x in (("hermitian", None), ("general", None), ("real", (3, 0)), ("symmetric", (3, 0)))
        ),
    ],
)
def test_adjoint_is_the_derivative_of_the_loop(kind, outputs):
    """To 1e-12 in float64, with a number of terms that is data for the adjoint; a wrong factor at k = 1 would show."""
    with jax.enable_x64(True):
        *arrays, attenuation, num_terms = problem(kind)
        assert num_terms > 2 * recurrence.ANCHOR
        options = {"kind": kind, "outputs": outputs}

        def adjoint(arrays, num_terms):
            return loss(arrays, attenuation, num_terms, **options, forward_mode=False)

        def plain(arrays):
            return loss(arrays, attenuation, num_terms, **options, forward_mode=True)

        ours = jax.jit(jax.grad(adjoint))(arrays, num_terms)
        wanted = jax.jit(jax.grad(plain))(arrays)
        pairs = zip(meaningful(ours[0], kind) + ours[1:], meaningful(wanted[0], kind) + wanted[1:], strict=True)
        for a, b in pairs:
            assert np.abs(b).max() > 0.01
            np.testing.assert_allclose(a, b, atol=1e-12 * float(np.abs(b).max()), rtol=0)


def test_without_anchors_absorption_spoils_the_derivative(monkeypatch):
    """800 terms in float32: to 1e-4 with anchors; run back without them, the derivative is lost."""
    *arrays, attenuation, num_terms = problem("symmetric", thickness=4000.0)
    assert num_terms > 700
    with jax.enable_x64(True):
        wanted = derivative(arrays, attenuation, num_terms)
    single = jax.tree.map(lambda x: np.asarray(x, np.float32), (arrays, attenuation))
    assert np.abs(derivative(*single, num_terms) - wanted).max() < 1e-4 * np.abs(wanted).max()
    monkeypatch.setattr(recurrence, "ANCHOR", 10_000)
    assert not np.abs(derivative(*single, num_terms) - wanted).max() < 0.1 * np.abs(wanted).max()


def derivative(arrays, attenuation, num_terms):
    def value(detuning):
        parts, _, coefficients = arrays
        return loss(
            (parts, detuning, coefficients), attenuation, num_terms, kind="symmetric", outputs=None, forward_mode=False
        )

    return np.asarray(jax.jit(jax.grad(value))(arrays[1]))


def test_memory_does_not_grow_with_the_terms():
    """Reverse mode through the loop keeps at least ten times as much, already at this length."""
    *arrays, attenuation, num_terms = problem("real", n=128, num_tilts=16, thickness=8000.0)
    arrays, attenuation = jax.tree.map(lambda x: np.asarray(x, np.float32), (arrays, attenuation))

    def kept(forward_mode):
        def value(arrays):
            return loss(arrays, attenuation, num_terms, kind="real", outputs=None, forward_mode=forward_mode)

        return jax.jit(jax.grad(value)).lower(arrays).compile().memory_analysis().temp_size_in_bytes

    assert 10 * kept(False) < kept(True)


@pytest.mark.parametrize("kind", ["real", pytest.param("general", marks=pytest.mark.slow)])
def test_obliquity_has_its_derivative(kind):
    """Factors m of m V m + diag(s), one per beam and column: the adjoint against plain differentiation, to 1e-12."""
    with jax.enable_x64(True):
        *arrays, attenuation, num_terms = problem(kind)
        m = np.random.default_rng(1).uniform(0.97, 1.0, size=arrays[1].shape)

        def value(arrays, m, forward_mode):
            parts, detuning, coefficients = arrays
            options = {"obliquity": m, "forward_mode": forward_mode}
            rest = (detuning, coefficients, attenuation, num_terms)
            if kind == "general":
                psi, _ = chebyshev.diffracted(parts, *rest, outputs=(3, 0), **options)
            else:
                psi, _ = chebyshev.transmitted(parts, *rest, kind=kind, **options)
            weights = jnp.cos(jnp.arange(psi.size, dtype=detuning.dtype)).reshape(psi.shape)
            return jnp.sum(weights * (psi.real**2 + psi.imag**2)) + jnp.sum(weights * psi.imag)

        gradient = jax.grad(value, argnums=(0, 1))
        ours, wanted = (jax.jit(lambda a, b, f=f: gradient(a, b, f))(arrays, m) for f in (False, True))
        pairs = zip(meaningful(ours[0][0], kind), meaningful(wanted[0][0], kind), strict=True)
        for a, b in [*pairs, (ours[0][1], wanted[0][1]), (ours[1], wanted[1])]:
            assert np.abs(b).max() > 0.01
            np.testing.assert_allclose(a, b, atol=1e-12 * float(np.abs(b).max()), rtol=0)
