"""Nested dissection and its factorisation: geometry, inverse, inertia, near-singular pivots."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from physml_jax.simulators import anderson
from physml_jax.simulators.anderson import dissection, factorization
from physml_jax.simulators.anderson.factorization import factorize, invert_block, invert_pivoted, solve

factorize_jit = jax.jit(factorize, static_argnames="whole")
solve_jit = jax.jit(solve)


def disorder(size, width=16.5, seed=0):
    return width * (np.random.default_rng([seed, size]).random((size,) * 3) - 0.5)


@pytest.mark.parametrize("size", [3, 4, 5, 6, 9, 20])
def test_planes_separate(size):
    """Every site is eliminated once, and of two neighbours one is in the other's node or in an ancestor of it."""
    tree = dissection.separators(size)
    sites = np.concatenate([np.concatenate(level) for level in tree])
    np.testing.assert_array_equal(np.sort(sites), np.arange(size**3))
    node, depth = np.empty(size**3, int), np.empty(size**3, int)
    for i, level in enumerate(tree):
        for k, members in enumerate(level):
            node[members], depth[members] = k, i
    adjacent = dissection.neighbours(size)
    count = np.array([len(level) for level in tree])[depth[adjacent]]
    above = depth[adjacent] <= depth[:, None]
    assert (node[:, None] % count == node[adjacent])[above].all()


def test_planes_are_as_small_as_the_geometry_says():
    """u = const holds L^2 sites; v = 0 and v = L within a slab of 9 planes (4 and 5 of one parity) hold 9 L."""
    tree = dissection.separators(20)
    assert [[len(sites) for sites in level] for level in tree[:3]] == [[400], [400], [160, 160]]
    assert max(len(sites) for sites in tree[-1]) <= dissection.LEAF_SITES
    # About 11 L^6 at large L on paper; small lattices and padding add to it.
    assert dissection.cost(20).operations < 16 * 20**6


def test_what_cannot_be_factorised_is_refused():
    with pytest.raises(ValueError, match="size: expected at least 3"):
        dissection.plan(2)
    with pytest.raises(ValueError, match=r"float64.*enable_x64"):
        factorize(jnp.zeros((5, 5, 5), jnp.float32), 0.1, dissection.plan(5))
    with jax.enable_x64(True), pytest.raises(ValueError, match="plan: expected the plan of 125 sites"):
        factorize(jnp.zeros((5, 5, 5), jnp.float64), 0.1, dissection.plan(4))


@pytest.mark.parametrize("whole", [False, True])
def test_inverse_and_inertia(whole):
    """Against LAPACK: the solution, and the number of eigenvalues below shifts all over the spectrum."""
    field = disorder(5)
    matrix = anderson.sparse(field).toarray()
    values = np.linalg.eigvalsh(matrix)
    rhs = np.random.default_rng(1).normal(size=(125, 4))
    with jax.enable_x64(True):
        plan = jax.tree.map(jnp.asarray, dissection.plan(5))
        for shift in (-20.0, -7.3, -1.0, 0.0, 0.31, 4.0, 13.0):
            factors = factorize_jit(jnp.asarray(field), shift, plan, whole=whole)
            assert int(factors.num_below) == (values < shift).sum()
            found = np.asarray(solve_jit(factors, jnp.asarray(rhs), plan))
            expected = np.linalg.solve(matrix - shift * np.eye(125), rhs)
            np.testing.assert_allclose(found, expected, rtol=0, atol=1e-10 * abs(expected).max())


def test_breakdown_shows():
    """W = 0 at sigma = 0: leaves with an odd number of sites are singular, and no pivoting within them helps."""
    with jax.enable_x64(True):
        plan = jax.tree.map(jnp.asarray, dissection.plan(5))
        rhs = jnp.ones((125, 4), jnp.float64)
        for whole in (False, True):
            factors = factorize_jit(jnp.zeros((5, 5, 5), jnp.float64), 0.0, plan, whole=whole)
            assert not np.isfinite(np.asarray(solve_jit(factors, rhs, plan))).all()


def test_pivot_blocks():
    """Inverse and signs against LAPACK; a zero diagonal takes 2 x 2 pivots, and single ones break down visibly."""
    rng = np.random.default_rng(2)
    matrix = rng.normal(size=(6, 12, 12))
    matrix = matrix + np.swapaxes(matrix, 1, 2)
    with jax.enable_x64(True):
        for invert in (invert_block, invert_pivoted):
            inverse, negative = jax.jit(invert)(jnp.asarray(matrix))
            np.testing.assert_allclose(inverse @ matrix, np.tile(np.eye(12), (6, 1, 1)), atol=1e-10)
            np.testing.assert_array_equal(negative, (np.linalg.eigvalsh(matrix) < 0).sum(1))
        hollow = matrix * (1 - np.eye(12))
        inverse, negative = jax.jit(invert_pivoted)(jnp.asarray(hollow))
        np.testing.assert_allclose(inverse @ hollow, np.tile(np.eye(12), (6, 1, 1)), atol=1e-10)
        np.testing.assert_array_equal(negative, (np.linalg.eigvalsh(hollow) < 0).sum(1))
        assert not np.isfinite(jax.jit(invert_block)(jnp.asarray(hollow))[0]).all()


def test_updates_a_few_fronts_at_a_time(monkeypatch):
    """One front after the other or all at once: what fits in the cache does not change the result."""
    child, level = dissection.plan(6).levels[:2]
    counts = [len(p.rows) for p in level.parts[1:]]
    fronts, sep = level.separator.shape
    assert fronts == 4 and len(counts) == 3
    rng = np.random.default_rng(3)
    panels = rng.normal(size=(2, fronts, sum(counts), sep))
    from_children = rng.normal(size=(len(child.separator), len(child.parts[1].rows) ** 2))
    found = []
    with jax.enable_x64(True):
        for most in (1, 10**9):
            monkeypatch.setattr(factorization, "CACHED", most)
            update = jax.jit(lambda *args: factorization._update(*args))  # a new one: what is set is no argument
            found.append(update(level, *jnp.asarray(panels), jnp.asarray(from_children)))
    assert found[0].shape == (fronts, sum(n * sum(counts[: i + 1]) for i, n in enumerate(counts)))
    np.testing.assert_allclose(*found, rtol=0, atol=1e-12)


@pytest.mark.slow
@pytest.mark.parametrize("size", [6, 7, 8, 9, 10, 12])
def test_inertia_at_more_sizes(size):
    field = disorder(size)
    values = np.linalg.eigvalsh(anderson.sparse(field).toarray())
    with jax.enable_x64(True):
        plan = jax.tree.map(jnp.asarray, dissection.plan(size))
        for shift in np.linspace(-9, 9, 13):
            assert int(factorize_jit(jnp.asarray(field), shift, plan).num_below) == (values < shift).sum()
