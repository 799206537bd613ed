"""Thresholds of single lattices: against the flags at every number of sites, and against known means."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from physml_jax.core.rng import example_key
from physml_jax.simulators import percolation


@pytest.mark.parametrize("size", [1, 2, 3, 10])
def test_order_is_a_permutation(size):
    ranks = percolation.order(example_key(0, "x", jnp.arange(20)), size=size)
    assert ranks.dtype == jnp.int32
    np.testing.assert_array_equal(np.sort(ranks, axis=1), np.tile(np.arange(size * size), (20, 1)))


def test_orders_are_uniform():
    """Chi-square over the 24 orders of four sites, n = 12000, abs(z) < 5; ranks by single bits fail it."""
    n = 12_000
    keys = example_key(1, "x", jnp.arange(n))

    def z(ranks):
        _, counts = np.unique(np.asarray(ranks) @ [1, 4, 16, 64], return_counts=True)
        return ((np.pad(counts, (0, 24 - len(counts))) - n / 24) ** 2 / (n / 24)).sum() / math.sqrt(
            46
        ) - 23 / math.sqrt(46)

    assert abs(z(percolation.order(keys, size=2))) < 5
    bits = jax.vmap(lambda k: jax.random.bits(k, (4,), jnp.uint8) & 1)(keys)
    assert abs(z(jnp.argsort(jnp.argsort(bits, axis=1, stable=True), axis=1))) > 5


@pytest.mark.parametrize("size", [1, 2, 5, 33])
def test_lattices_begin_to_span_at_their_threshold(size):
    """With one site less they do not; so in each direction, in either and in both."""
    keys = example_key(2, "x", jnp.arange(30))
    found = jax.jit(lambda k: percolation.spanning_threshold(k, size=size))(keys)
    ranks = percolation.order(keys, size=size).reshape(-1, size, size)
    for name in found._fields:
        number = getattr(found, name)
        assert number.dtype == jnp.int32 and int(number.min()) >= size and int(number.max()) <= size * size
        assert getattr(percolation.spanning(ranks < number[:, None, None]), name).all()
        assert not getattr(percolation.spanning(ranks < number[:, None, None] - 1), name).any()


def test_two_by_two_by_hand():
    """Two sites in a column span vertically: with probability 1/3 the first two sites do, else the first three."""
    found = percolation.spanning_threshold(example_key(3, "x", jnp.arange(3000)), size=2)
    assert set(np.unique(found.vertical)) == {2, 3} and set(np.unique(found.both)) == {3}
    standard_error = math.sqrt(1 / 3 * 2 / 3 / 3000)
    assert abs(float((found.vertical == 2).mean()) - 1 / 3) < 5 * standard_error
    assert abs(float((found.either == 2).mean()) - 2 / 3) < 5 * standard_error


def test_thresholds_do_not_depend_on_the_batch():
    keys = example_key(4, "x", jnp.arange(9))
    found = percolation.spanning_threshold(keys, size=20)
    for chunk_size in (1, 4, 9):
        again = percolation.spanning_threshold(keys, size=20, chunk_size=chunk_size)
        np.testing.assert_array_equal(np.stack(again), np.stack(found))
    np.testing.assert_array_equal(
        np.stack(percolation.spanning_threshold(keys[5:6], size=20))[:, 0], np.stack(found)[:, 5]
    )
    np.testing.assert_array_equal(
        percolation.order(keys, size=20, chunk_size=2), percolation.order(keys, size=20, chunk_size=9)
    )


def test_mean_thresholds_of_the_published_size():
    """L = 100, mean of n / L^2: 0.58554 in either direction, 0.59263 in one, 0.59972 in both, computed beforehand with
    another program. n = 300 here, abs(z) < 5. The mean of the wrong direction fails the same test.
    """
    n = 300
    found = jax.jit(lambda k: percolation.spanning_threshold(k, size=100))(example_key(5, "x", jnp.arange(n)))

    def z(number, expected):
        density = np.asarray(number) / 100**2
        return (density.mean() - expected) / (density.std(ddof=1) / math.sqrt(n))

    assert abs(z(found.either, 0.58554)) < 5
    assert abs(z(found.vertical, 0.59263)) < 5
    assert abs(z(found.horizontal, 0.59263)) < 5
    assert abs(z(found.both, 0.59972)) < 5
    assert min(abs(z(found.either, 0.59263)), abs(z(found.both, 0.59263))) > 5


def test_bad_arguments_are_refused(key):
    with pytest.raises(ValueError, match="size"):
        percolation.spanning_threshold(key[None], size=0)
    with pytest.raises(ValueError, match="keys: expected one axis"):
        percolation.order(key, size=3)
