"""Thresholds of single lattices: against the flags at every number of sites, and against known means."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from physml_jax.core.rng import example_key
from physml_jax.simulators import percolation

STATIC = ("size", "chunk_size")
order = jax.jit(percolation.order, static_argnames=STATIC)
spanning = jax.jit(percolation.spanning)
spanning_threshold = jax.jit(percolation.spanning_threshold, static_argnames=STATIC)
optimised_spanning_threshold = jax.jit(percolation.spanning_threshold, static_argnames=STATIC)


@pytest.mark.parametrize("size", [1, 33])
def test_order_is_a_permutation(size):
    ranks = order(example_key(0, "x", jnp.arange(30)), size=size)
    assert ranks.dtype == jnp.int32
    np.testing.assert_array_equal(np.sort(ranks, axis=1), np.tile(np.arange(size * size), (30, 1)))


def test_orders_are_uniform():
    """Chi-square over the 24 orders of four sites, n = 12000, abs(z) < 5; ranks by single bits fail it."""
    n = 12_000
    keys = example_key(1, "x", jnp.arange(n))

    def z(ranks):
        _, counts = np.unique(np.asarray(ranks) @ [1, 4, 16, 64], return_counts=True)
        return ((np.pad(counts, (0, 24 - len(counts))) - n / 24) ** 2 / (n / 24)).sum() / math.sqrt(
            46
        ) - 23 / math.sqrt(46)

    assert abs(z(order(keys, size=2))) < 5
    bits = np.random.default_rng(0).integers(2, size=(n, 4))
    assert abs(z(bits.argsort(axis=1, kind="stable").argsort(axis=1))) > 5


@pytest.mark.parametrize("size", [1, 33, pytest.param(2, marks=pytest.mark.slow)])
def test_lattices_begin_to_span_at_their_threshold(size):
    """With one site less they do not; so in each direction, in either and in both."""
    keys = example_key(2, "x", jnp.arange(30))
    found = spanning_threshold(keys, size=size)
    ranks = np.asarray(order(keys, size=size)).reshape(-1, size, size)
    numbers = np.array([np.asarray(number) - less for number in found for less in (0, 1)])
    assert numbers.dtype == np.int32 and numbers[::2].min() >= size and numbers.max() <= size * size
    flags = spanning(jnp.asarray(ranks < numbers[:, :, None, None]).reshape(-1, size, size))
    for i, name in enumerate(found._fields):
        at, below = getattr(flags, name).reshape(len(numbers), -1)[2 * i : 2 * i + 2]
        assert at.all() and not below.any()


def test_two_by_two_by_hand():
    """Two sites in a column span vertically: with probability 1/3 the first two sites do, else the first three."""
    found = spanning_threshold(example_key(3, "x", jnp.arange(3000)), size=2)
    assert set(np.unique(found.vertical)) == {2, 3} and set(np.unique(found.both)) == {3}
    standard_error = math.sqrt(1 / 3 * 2 / 3 / 3000)
    assert abs(float((found.vertical == 2).mean()) - 1 / 3) < 5 * standard_error
    assert abs(float((found.either == 2).mean()) - 2 / 3) < 5 * standard_error


def test_thresholds_do_not_depend_on_the_batch():
    keys = example_key(2, "x", jnp.arange(30))
    found = np.stack(spanning_threshold(keys, size=33))
    np.testing.assert_array_equal(np.stack(spanning_threshold(keys, size=33, chunk_size=8)), found)
    np.testing.assert_array_equal(np.stack(spanning_threshold(keys[5:6], size=33))[:, 0], found[:, 5])
    np.testing.assert_array_equal(order(keys, size=33, chunk_size=8), order(keys, size=33))


def standard_errors(number, size, expected):
    """Standard errors between the mean of n / L^2 and the expected one."""
    density = np.asarray(number) / size**2
    return abs(density.mean() - expected) / (density.std(ddof=1) / math.sqrt(len(density)))


@pytest.mark.slow
def test_mean_thresholds_of_the_published_size():
    """L = 100, mean of n / L^2: 0.58554 in either direction, 0.59263 in one, 0.59972 in both, computed beforehand with
    another program. n = 300 here, abs(z) < 5. The mean of the wrong direction fails the same test.
    """
    found = optimised_spanning_threshold(example_key(5, "x", jnp.arange(300)), size=100)
    assert standard_errors(found.either, 100, 0.58554) < 5
    assert standard_errors(found.vertical, 100, 0.59263) < 5
    assert standard_errors(found.horizontal, 100, 0.59263) < 5
    assert standard_errors(found.both, 100, 0.59972) < 5
    assert min(standard_errors(found.either, 100, 0.59263), standard_errors(found.both, 100, 0.59263)) > 5


def test_bad_arguments_are_refused(key):
    with pytest.raises(ValueError, match="size"):
        percolation.spanning_threshold(key[None], size=0)
    with pytest.raises(ValueError, match="keys: expected one axis"):
        percolation.order(key, size=3)
