"""Percolation against enumeration and against scipy's labelling."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.ndimage
import scipy.stats

from physml_jax.core.rng import example_key
from physml_jax.simulators import percolation


def spans_by_labels(state):
    """An independent program: scipy labels the clusters (four neighbours), then edges share a label or not."""
    labels, _ = scipy.ndimage.label(state)
    shared = lambda a, b: bool((np.intersect1d(a, b) > 0).any())
    return shared(labels[0], labels[-1]), shared(labels[:, 0], labels[:, -1])


@pytest.mark.parametrize(("size", "vertical"), [(1, 1), (2, 7), (3, 197)])
def test_number_of_spanning_states_by_enumeration(size, vertical):
    """2x2: 7 of 16 states have a full column. 3x3: 197 of 512."""
    states = np.array(list(itertools.product([False, True], repeat=size * size))).reshape(-1, size, size)
    flags = percolation.spanning(jnp.asarray(states))
    assert int(flags.vertical.sum()) == vertical == int(flags.horizontal.sum())
    assert int(flags.vertical.sum()) == sum(spans_by_labels(s)[0] for s in states)
    assert int(flags.both.sum()) + int(flags.either.sum()) == 2 * vertical


@pytest.mark.parametrize("size", [1, 2, 7, 20])
def test_flags_agree_with_scipy(size, key):
    density = jnp.linspace(0.4, 0.8, 200, dtype=jnp.float32)
    states = percolation.bernoulli(jax.random.split(key, 200), density, size=size)
    flags = jax.jit(percolation.spanning)(states)
    expected = np.array([spans_by_labels(s) for s in np.asarray(states)])
    np.testing.assert_array_equal(np.stack(flags, axis=1), expected)


def test_sampling_hits_the_count_exactly():
    counts = jnp.array([0, 1, 50, 99, 100, 120])
    states = percolation.sample(example_key(0, "x", jnp.arange(6)), counts, size=10)
    np.testing.assert_array_equal(states.sum((1, 2)), [0, 1, 50, 99, 100, 100])


def test_sampling_is_uniform_over_subsets():
    """Chi-square over all 6 states of two sites out of four; n = 6000 draws; abs(z) < 5 for the standardised
    statistic."""
    n = 6000
    states = percolation.sample(example_key(1, "x", jnp.arange(n)), jnp.full(n, 2), size=2)
    codes = np.asarray(states).reshape(n, 4) @ [1, 2, 4, 8]
    _, counts = np.unique(codes, return_counts=True)
    assert len(counts) == 6
    chi2 = ((counts - n / 6) ** 2 / (n / 6)).sum()
    assert abs(chi2 - 5) / np.sqrt(10) < 5
    # A wrong kernel, one that always occupies site 0, fails the same test.
    assert len(np.unique(codes[codes % 2 == 1])) < 6


def test_row_depends_on_its_own_key_only():
    many = percolation.sample(example_key(0, "x", jnp.arange(8)), jnp.full(8, 12), size=5)
    one = percolation.sample(example_key(0, "x", jnp.array([5])), jnp.array([12]), size=5)
    np.testing.assert_array_equal(many[5], one[0])


@pytest.mark.parametrize(
    "states", [jnp.zeros((2, 3, 4), bool), jnp.zeros((3, 3), bool), jnp.zeros((1, 3, 3), jnp.int32)]
)
def test_bad_states_are_refused(states):
    with pytest.raises(ValueError, match="states: expected bool"):
        percolation.spanning(states)


def test_bad_size_is_refused(key):
    with pytest.raises(ValueError, match="size"):
        percolation.sample(key[None], jnp.array([1]), size=0)
