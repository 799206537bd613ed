"""Eigenstates of the Anderson model: all methods against LAPACK, the certificate, and what must not pass."""

import importlib

import jax.numpy as jnp
import numpy as np
import pytest

from physml_jax.simulators import anderson
from physml_jax.simulators.anderson import krylov

module = importlib.import_module("physml_jax.simulators.anderson.solvers")
NUM_STATES = 3  # one number everywhere: every other one is compiled again


def disorder(size, width=16.5, seed=0):
    return width * (np.random.default_rng([seed, size]).random((size,) * 3) - 0.5)


def lapack(field, energy, num_states):
    values, vectors = np.linalg.eigh(anderson.sparse(field).toarray())
    nearest = np.argsort(abs(values - energy))[:num_states]
    return values[nearest], vectors.T[nearest]


def check(found, field, energy, num_states=NUM_STATES):
    energies, vectors = lapack(field, energy, num_states)
    np.testing.assert_allclose(found.energies, energies, rtol=0, atol=1e-11)
    overlap = abs((found.states.reshape(num_states, -1) * vectors).sum(1))
    np.testing.assert_allclose(overlap, 1, rtol=0, atol=1e-12)
    assert found.residuals.max() <= 1e-8


@pytest.mark.parametrize("method", ["dense", "dissection", "filter", "superlu"])
def test_methods_agree_with_lapack(method):
    field = disorder(6)
    for energy in (0.0, -3.7):
        found = anderson.eigenstates(field, energy=energy, num_states=NUM_STATES, method=method)
        check(found, field, energy)
        assert bool(found.certified) == (method in ("dense", "dissection"))
        assert all(type(x) is np.ndarray for x in found) and found.states.dtype == np.float64


def test_batch_and_odd_size():
    """Mapped over realisations, in chunks with a padded last one; NumPy and JAX arrays, leading axes kept."""
    fields = np.stack([disorder(5, seed=s) for s in range(6)]).astype(np.float32).reshape(2, 3, 5, 5, 5)
    found = anderson.eigenstates(jnp.asarray(fields), num_states=NUM_STATES, method="dissection", chunk_size=4)
    assert found.states.shape == (2, 3, NUM_STATES, 5, 5, 5) and found.certified.all()
    for i, j in np.ndindex(2, 3):
        check(anderson.Eigenstates(*(x[i, j] for x in found)), fields[i, j].astype(np.float64), 0.0)


def test_counts_are_those_of_lapack():
    """The states within the certified radius are as many as LAPACK has there."""
    field = disorder(6)
    found = module.search(field[None], num_states=NUM_STATES)
    assert found.states.certified[0] and found.count[0] == NUM_STATES
    values = np.linalg.eigvalsh(anderson.sparse(field).toarray())
    assert (abs(values) < found.radius[0]).sum() == NUM_STATES
    assert found.shift_errors.max() < 1e-9


def test_shift_on_an_eigenvalue():
    field = disorder(6)
    values = np.linalg.eigvalsh(anderson.sparse(field).toarray())
    for energy in values[[0, 57, 108, 215]]:
        check(anderson.eigenstates(field, energy=energy, num_states=NUM_STATES, method="dissection"), field, energy)


def test_degenerate_states():
    """W = 0, L = 6: E = -6 once, -5 six times. A third state beside -6 cannot be named; seven states can."""
    field = np.zeros((6, 6, 6))
    with pytest.raises(RuntimeError, match="not certified"):
        anderson.eigenstates(field, energy=-6.0, num_states=NUM_STATES, method="dissection")
    found = anderson.eigenstates(field, energy=-6.0, num_states=7, method="dissection")
    np.testing.assert_allclose(found.energies, anderson.clean_spectrum(6)[:7], atol=1e-10)
    gram = found.states.reshape(7, -1) @ found.states.reshape(7, -1).T
    np.testing.assert_allclose(gram, np.eye(7), atol=1e-8)


def test_wrong_states_do_not_pass(monkeypatch):
    """A solver that returns another state, or a state that is none, is caught."""
    field = disorder(5)
    values, vectors = np.linalg.eigh(anderson.sparse(field).toarray())
    second = np.argsort(abs(values))[1]

    def wrong(row, energy, num_states, tolerance):
        return anderson.Eigenstates(values[[second]], vectors.T[second].reshape(1, 5, 5, 5), np.zeros(1), np.True_)

    monkeypatch.setattr(module, "_superlu", wrong)
    assert not anderson.eigenstates(field, method="superlu").certified
    with pytest.raises(RuntimeError, match="not certified"):
        anderson.eigenstates(field, method="superlu", certify=True)
    monkeypatch.setattr(module, "_superlu", lambda *a: wrong(*a)._replace(energies=values[[second]] + 1e-7))
    with pytest.raises(RuntimeError, match="residual 1.0e-07"):
        anderson.eigenstates(field, method="superlu")


@pytest.mark.slow
def test_a_missed_state_is_counted(monkeypatch):
    """An iteration that cannot see the nearest state finds the second one, to 1e-9; the count says that one is missing.

    With one vector per block (one state) and with several.
    """
    field = disorder(5)
    values, vectors = lapack(field, 0.0, 4)
    for num_states, missed in ((1, 0), (2, 1)):
        honest = module.search(field[None], num_states=num_states)
        assert honest.states.certified[0] and honest.count[0] == num_states
        np.testing.assert_allclose(honest.states.energies[0], values[:num_states], atol=1e-11)
        blind, original = vectors[missed], krylov._orthonormal
        with monkeypatch.context() as patch:
            patch.setattr(krylov, "_orthonormal", lambda x: original(x - (x @ blind)[:, None] * blind[None]))
            module._search.clear_cache()
            wrong = module.search(field[None], num_states=num_states)
        module._search.clear_cache()
        expected = np.delete(values, missed)[:num_states]
        np.testing.assert_allclose(wrong.states.energies[0], expected, atol=1e-9)
        assert wrong.states.residuals.max() < 1e-8
        assert not wrong.states.certified[0] and wrong.count[0] > num_states


def test_method_by_default(monkeypatch):
    """All states of small lattices, or where more are wanted than the dissection offers; otherwise the dissection."""
    taken = []
    for name in ("dense_eigenstates", "_dissect"):
        monkeypatch.setattr(module, name, lambda *_, name=name, **__: taken.append(name) or 1 / 0)
    for size, num_states in ((6, 1), (7, 1), (7, 43), (16, 512), (16, 513)):
        with pytest.raises(ZeroDivisionError):
            anderson.eigenstates(np.zeros((size,) * 3), num_states=num_states)
    assert taken == ["dense_eigenstates", "_dissect", "dense_eigenstates", "_dissect", "dense_eigenstates"]
    with pytest.raises(ValueError, match="num_states: expected 1 to 614 for method 'dissection' at L = 17"):
        anderson.eigenstates(np.zeros((17, 17, 17)), num_states=615)


def test_stencil_is_the_matrix():
    field, psi = disorder(3), np.random.default_rng(1).normal(size=(1, 1, 3, 3, 3))
    expected = np.linalg.norm(anderson.sparse(field) @ psi.reshape(-1) - 0.3 * psi.reshape(-1))
    np.testing.assert_allclose(module.residuals(field[None], np.array([[0.3]]), psi), [[expected]], rtol=1e-13)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"method": "lanczos"}, "method: expected one of auto, dense"),
        ({"energy": np.nan}, "energy: expected a finite number"),
        ({"num_states": 0}, "num_states: expected 1 to 15"),
        ({"num_states": 16}, "num_states: expected 1 to 15"),
        ({"tolerance": 1e-3}, "tolerance: expected"),
        ({"chunk_size": 0}, "chunk_size: expected"),
        ({"disorder": np.zeros((5, 5, 4))}, "disorder: expected"),
        ({"disorder": np.full((5, 5, 5), np.nan)}, "disorder: expected finite"),
    ],
)
def test_bad_input(change, message):
    arguments = {"disorder": disorder(5), "method": "dissection"} | change
    with pytest.raises(ValueError, match=message):
        anderson.eigenstates(arguments.pop("disorder"), **arguments)


def test_too_large_is_refused_with_the_number():
    with pytest.raises(MemoryError, match=r"L = 300.*needs about \d+\.\d GB"):
        anderson.eigenstates(np.broadcast_to(np.zeros((), np.float32), (300, 300, 300)))


def test_missing_pardiso_is_named(monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "pypardiso", None)
    with pytest.raises(ImportError, match="pip install pypardiso"):
        anderson.eigenstates(disorder(5), method="pardiso")


@pytest.mark.slow
@pytest.mark.parametrize("size", [7, 8, 9, 10])
def test_more_sizes(size):
    for seed in range(3):
        field = disorder(size, seed=seed)
        for method in ("dissection", "filter", "superlu"):
            check(anderson.eigenstates(field, num_states=NUM_STATES, method=method), field, 0.0)


@pytest.mark.slow
def test_many_realisations():
    """L = 9, W from the metallic to the localised side: all are certified, and LAPACK agrees."""
    for seed, width in enumerate(np.linspace(2, 40, 20)):
        field = disorder(9, width, seed)
        check(anderson.eigenstates(field, num_states=NUM_STATES, energy=0.5), field, 0.5)
