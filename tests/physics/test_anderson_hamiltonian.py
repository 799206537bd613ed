"""The Anderson Hamiltonian in all its forms, and two eigensolvers against LAPACK and exact answers."""

import functools
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from physml_jax.simulators import anderson
from physml_jax.simulators.anderson.diagonalization import dense_states
from physml_jax.simulators.anderson.filter import filter_plan

matvec = jax.jit(anderson.hamiltonian_matvec)


@functools.cache
def realisation(size, width=16.5, seed=0):
    return np.asarray(anderson.sample_disorder(jax.random.key(seed), width, size=size)).astype(np.float64)


@functools.cache
def matrix(size, hopping=-1.0):
    """H by its definition, neighbour by neighbour."""
    eps = realisation(size)
    h = np.zeros((size**3, size**3))
    for x, y, z in itertools.product(range(size), repeat=3):
        i = (x * size + y) * size + z
        h[i, i] = eps[x, y, z]
        for dx, dy, dz in [(1, 0, 0), (0, 1, 0), (0, 0, 1)]:
            j = ((x + dx) % size * size + (y + dy) % size) * size + (z + dz) % size
            h[i, j] += hopping
            h[j, i] += hopping
    return h


# ---- disorder ----


def test_disorder_is_a_uniform_box_of_full_width():
    """Mean 0 and variance W^2/12 within 4 standard errors of 64^3 numbers; the variance of eps^2 is W^4/180."""
    eps = np.asarray(anderson.sample_disorder(jax.random.key(3), 16.5, size=64), np.float64)
    n = eps.size
    assert np.abs(eps).max() <= 8.25
    assert abs(eps.mean()) < 4 * 16.5 / (12 * n) ** 0.5
    assert abs((eps**2).mean() - 16.5**2 / 12) < 4 * 16.5**2 / (180 * n) ** 0.5
    counts = np.histogram(eps, np.linspace(-8.25, 8.25, 33))[0]
    assert np.abs(counts - n / 32).max() < 5 * (n / 32) ** 0.5


def test_disorder_is_one_realisation_in_every_dtype_and_width():
    key = jax.random.key(5)
    single = anderson.sample_disorder(key, 16.5, size=4)
    assert single.dtype == jnp.float32
    with jax.enable_x64(True):
        double = np.asarray(anderson.sample_disorder(key, 16.5, size=4, dtype=jnp.float64))
    assert double.dtype == np.float64
    np.testing.assert_allclose(single, double, rtol=3e-7)
    np.testing.assert_allclose(anderson.sample_disorder(key, 33.0, size=4), 2 * single, rtol=1e-6)
    other = anderson.sample_disorder(jax.random.key(6), 16.5, size=4)
    assert np.abs(np.asarray(other - single)).max() > 1


def test_disorder_maps_over_keys_and_widths():
    keys, widths = jax.random.split(jax.random.key(0), 3), jnp.asarray([1.0, 15.0, 18.0])
    batch = jax.vmap(lambda k, w: anderson.sample_disorder(k, w, size=3))(keys, widths)
    np.testing.assert_array_equal(batch[1], anderson.sample_disorder(keys[1], 15.0, size=3))


@pytest.mark.parametrize(
    ("width", "size", "message"),
    [(-1.0, 4, "width"), (np.nan, 4, "width"), (np.ones(2), 4, "vmap"), (1.0, 2, "size: expected at least 3")],
)
def test_disorder_refuses(width, size, message):
    with pytest.raises(ValueError, match=message):
        anderson.sample_disorder(jax.random.key(0), width, size=size)


# ---- forms of H ----


@pytest.mark.parametrize("size", [3, 4, 5])
def test_all_forms_are_the_definition(size):
    want, eps = matrix(size), realisation(size)
    psi = np.random.default_rng(0).normal(size=(2, size, size, size))
    with jax.enable_x64(True):
        np.testing.assert_array_equal(anderson.dense(jnp.asarray(eps)), want)
        got = np.asarray(matvec(jnp.asarray(eps), jnp.asarray(psi)))
    np.testing.assert_allclose(got.reshape(2, -1), psi.reshape(2, -1) @ want, atol=1e-13)
    np.testing.assert_array_equal(anderson.sparse(eps).toarray(), want)
    assert anderson.sparse(eps).nnz == 7 * size**3


def test_matvec_takes_leading_axes_and_follows_the_dtype():
    eps = jnp.asarray(np.stack([realisation(4, seed=s) for s in (0, 1)]), jnp.float32)
    psi = jax.random.normal(jax.random.key(0), (2, 3, 4, 4, 4), jnp.float32)
    got = matvec(eps, psi)
    assert got.dtype == jnp.float32
    for b in range(2):
        want = np.asarray(psi[b]).reshape(3, -1) @ anderson.sparse(np.asarray(eps[b])).toarray()
        np.testing.assert_allclose(np.asarray(got[b]).reshape(3, -1), want, atol=1e-5)
    assert anderson.dense(eps).shape == (2, 64, 64)


@pytest.mark.parametrize("size", [4, 5])
def test_traces(size):
    """tr H = sum eps; tr H^2 = sum eps^2 + 6 N."""
    h, eps = anderson.sparse(realisation(size)), realisation(size)
    np.testing.assert_allclose(h.diagonal().sum(), eps.sum())
    np.testing.assert_allclose((h @ h).diagonal().sum(), (eps**2).sum() + 6 * size**3)


@pytest.mark.parametrize("size", [3, 6])
def test_clean_spectrum(size):
    h = anderson.sparse(np.zeros((size,) * 3)).toarray()
    np.testing.assert_allclose(np.linalg.eigvalsh(h), anderson.clean_spectrum(size), atol=1e-12)


def test_spectrum_is_bounded():
    """abs(E) <= 6 + W/2, and within the bounds of the realisation."""
    levels = np.linalg.eigvalsh(matrix(5))
    assert np.abs(levels).max() <= 6 + 16.5 / 2
    low, high = anderson.spectral_interval(jnp.asarray(realisation(5), jnp.float32))
    assert low < levels[0] and levels[-1] < high


def test_sign_of_the_hopping_matters_for_odd_sizes_only():
    def spectrum(size, hopping):
        levels, states = np.linalg.eigh(matrix(size, hopping))
        return levels, states**2

    for got, want in zip(spectrum(4, 1.0), spectrum(4, -1.0), strict=True):
        np.testing.assert_allclose(got, want, atol=1e-10)
    assert np.abs(spectrum(5, 1.0)[0] - spectrum(5, -1.0)[0]).max() > 1e-3


def test_forms_refuse_wrong_shapes():
    cube = jnp.zeros((4, 4, 4))
    with pytest.raises(ValueError, match=r"disorder: expected \[..., L, L, L\], got \[4, 4\]"):
        anderson.hamiltonian_matvec(cube[0], cube)
    with pytest.raises(ValueError, match="psi: expected"):
        anderson.hamiltonian_matvec(cube, jnp.zeros((4, 4, 5)))
    with pytest.raises(ValueError, match="psi: expected"):
        anderson.hamiltonian_matvec(cube[None], jnp.zeros((2, 4, 4, 4)))
    with pytest.raises(ValueError, match="L of at least 3, got 2"):
        anderson.dense(jnp.zeros((2, 2, 2)))
    with pytest.raises(ValueError, match="up to L = 16"):
        anderson.dense(jnp.zeros((17, 17, 17)))
    with pytest.raises(ValueError, match="finite"):
        anderson.sparse(np.full((3, 3, 3), np.nan))
    with pytest.raises(ValueError, match="real"):
        anderson.sparse(np.zeros((3, 3, 3), int))


# ---- eigenstates ----


def overlaps(a, b):
    return np.abs(np.einsum("kxyz,kxyz->k", a, b))


@pytest.mark.parametrize("size", [5, 6])
def test_dense_states_are_those_of_lapack(size):
    found = anderson.dense_eigenstates(realisation(size), energy=0.5, num_states=4)
    levels, vectors = np.linalg.eigh(matrix(size) if size == 5 else anderson.sparse(realisation(size)).toarray())
    nearest = np.argsort(np.abs(levels - 0.5))[:4]
    np.testing.assert_allclose(found.energies, levels[nearest], atol=1e-12)
    np.testing.assert_allclose(overlaps(found.states, vectors.T[nearest].reshape(found.states.shape)), 1, atol=1e-10)
    assert found.certified and found.residuals.max() < 1e-12
    assert all(x.dtype == np.float64 for x in found[:3])


def test_dense_states_of_a_batch():
    batch = np.stack([realisation(5, seed=s) for s in range(3)])
    found = anderson.dense_eigenstates(batch, energy=0.5, num_states=4)
    assert found.states.shape == (3, 4, 5, 5, 5) and found.certified.shape == (3,)
    one = anderson.dense_eigenstates(batch[0], energy=0.5, num_states=4)
    np.testing.assert_allclose(found.energies[0], one.energies, atol=1e-12)
    np.testing.assert_allclose(found.states[0], one.states, atol=1e-10)
    # The sign is fixed: the largest component is positive.
    flat = found.states.reshape(12, -1)
    assert (flat[np.arange(12), np.abs(flat).argmax(1)] > 0).all()


def test_states_without_hopping_sit_on_one_site():
    """In the limit of strong disorder an eigenstate is a site, with E = eps to second order in 1/W."""
    eps = realisation(5) * 1e6
    found = anderson.dense_eigenstates(eps, num_states=4)
    sites = np.argsort(np.abs(eps).reshape(-1))[:4]
    np.testing.assert_array_equal(found.states.reshape(4, -1).argmax(1), sites)
    np.testing.assert_allclose(found.energies, eps.reshape(-1)[sites], atol=1e-2)
    np.testing.assert_allclose(found.states.max((1, 2, 3)), 1, atol=1e-6)


def test_traced_states_refuse_single_precision():
    with pytest.raises(ValueError, match="enable_x64"):
        dense_states(jnp.zeros((4, 4, 4), jnp.float32), 0.0)
    with pytest.raises(ValueError, match="num_states: expected 1 to 27"):
        anderson.dense_eigenstates(np.zeros((3, 3, 3)), num_states=28)
    with pytest.raises(ValueError, match="energy"):
        anderson.dense_eigenstates(np.zeros((3, 3, 3)), energy=np.nan)


@pytest.mark.parametrize(("energy", "seed"), [(0.0, 0), (0.5, 1), (-9.0, 2)])
def test_filter_finds_the_dense_states(energy, seed):
    """In the middle of the band, beside it, and in its tail."""
    eps = realisation(6, seed=seed)
    want = anderson.dense_eigenstates(eps, energy=energy, num_states=5)
    got = anderson.filtered_eigenstates(eps, energy=energy, num_states=5)
    np.testing.assert_allclose(got.energies, want.energies, atol=1e-12)
    np.testing.assert_allclose(overlaps(got.states, want.states), 1, atol=1e-9)
    np.testing.assert_allclose(got.residuals, want.residuals, atol=1e-10)
    assert not got.certified


def test_filter_says_what_it_cannot_do():
    eps = realisation(6)
    with pytest.raises(ValueError, match="num_states: expected 1 to 27"):
        anderson.filtered_eigenstates(eps, num_states=28)
    plan = filter_plan(eps, 0.0)
    with pytest.raises(RuntimeError, match="did not converge"):
        anderson.filtered_eigenstates(eps, plan=plan._replace(degree=2), num_states=5, tolerance=1e-30)
    with pytest.raises(ValueError, match="lifted"):
        filter_plan(eps, 0.0, num_states=4, lifted=3)
