"""Percolation against enumeration, against scipy's labelling, and against what is known at the threshold."""

import importlib
import itertools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.ndimage

from physml_jax.core.rng import example_key
from physml_jax.data.percolation import PUBLISHED_DENSITIES
from physml_jax.simulators import percolation

sampling = importlib.import_module("physml_jax.simulators.percolation.sampling")

#: Jacobsen, J. Phys. A 48, 454003 (2015), square site percolation.
CRITICAL_DENSITY = 0.59274605079210
FOUR = scipy.ndimage.generate_binary_structure(2, 1)
EIGHT = scipy.ndimage.generate_binary_structure(2, 2)


def joined_by_labels(states, structure=FOUR):
    """An independent program for bool [B, L, L]: scipy labels the clusters of all lattices at once, and a site is
    joined to the first row if its label occurs there.
    """
    labels, number = scipy.ndimage.label(states, np.stack([0 * structure, structure, 0 * structure]))
    top = np.zeros(number + 1, bool)
    top[labels[:, 0]] = True
    top[0] = False
    return top[labels]


def spans_by_labels(states, structure=FOUR):
    """(vertical, horizontal) flags of bool [B, L, L]."""
    return [joined_by_labels(s, structure)[:, -1].any(1) for s in (states, states.swapaxes(1, 2))]


def flooded_states(size):
    """(states, sites joined to the first row) of all lattices of a size, flooded cell by cell."""
    bits = np.arange(2 ** (size * size))[:, None] >> np.arange(size * size)
    states = (bits & 1).astype(bool).reshape(-1, size, size)
    reached = states.copy()
    reached[:, 1:] = False
    for _ in range(size * size):
        grown = reached.copy()
        grown[:, 1:] |= reached[:, :-1]
        grown[:, :-1] |= reached[:, 1:]
        grown[:, :, 1:] |= reached[:, :, :-1]
        grown[:, :, :-1] |= reached[:, :, 1:]
        reached = grown & states
    return states, reached


@pytest.mark.parametrize(("size", "vertical"), [(1, 1), (2, 7), (3, 197), (4, None)])
def test_every_state_of_a_small_lattice(size, vertical):
    """2x2: 7 of 16 states have a full column. 3x3: 197 of 512. 4x4: as a flood cell by cell counts them."""
    states, reached = flooded_states(size)
    flags = percolation.spanning(jnp.asarray(states))
    np.testing.assert_array_equal(flags.vertical, reached[:, -1].any(1))
    np.testing.assert_array_equal(percolation.connected_to_top(jnp.asarray(states)), reached)
    assert int(flags.vertical.sum()) == int(flags.horizontal.sum()) == int(reached[:, -1].any(1).sum())
    assert vertical is None or int(flags.vertical.sum()) == vertical
    assert int(flags.both.sum()) + int(flags.either.sum()) == 2 * int(flags.vertical.sum())


@pytest.mark.parametrize(
    ("size", "each"), [(1, 20), (2, 20), (31, 20), (32, 20), (33, 20), (64, 12), (100, 8), (200, 2)]
)
def test_flags_and_joined_sites_agree_with_scipy(size, each):
    """Bit for bit at the 31 published densities: 3782 lattices altogether."""
    rng = np.random.default_rng(size)
    density = np.repeat(PUBLISHED_DENSITIES, each)[:, None, None]
    states = rng.random((len(density), size, size)) < density
    flags = jax.jit(percolation.spanning)(jnp.asarray(states))
    np.testing.assert_array_equal(np.stack(flags), spans_by_labels(states))
    np.testing.assert_array_equal(jax.jit(percolation.connected_to_top)(jnp.asarray(states)), joined_by_labels(states))


def test_long_ways():
    """A snake that visits every second row from end to end, down and back up, and combs that need many sweeps."""
    size = 67
    snake = np.zeros((size, size), bool)
    snake[::2] = True
    snake[1::4, -1] = snake[3::4, 0] = True
    upright = snake.T.copy()
    cut = snake.copy()
    cut[32, 40] = False
    states = np.stack([snake, upright, cut, snake[:, ::-1], upright[::-1]])
    assert joined_by_labels(states)[:, -1].any(1).tolist() == [True, True, False, True, True]
    np.testing.assert_array_equal(np.stack(percolation.spanning(jnp.asarray(states))), spans_by_labels(states))
    np.testing.assert_array_equal(percolation.connected_to_top(jnp.asarray(states)), joined_by_labels(states))


def test_duality():
    """Either occupied nearest neighbours join top and bottom, or empty sites join left and right with diagonal steps,
    and never both: an exact theorem that mixes the two directions.
    """
    states = np.random.default_rng(0).random((500, 40, 40)) < CRITICAL_DENSITY
    vertical = np.asarray(percolation.spanning(jnp.asarray(states)).vertical)
    np.testing.assert_array_equal(vertical, ~spans_by_labels(~states, EIGHT)[1])
    assert (vertical != ~spans_by_labels(~states, FOUR)[1]).any()  # not so with four neighbours on both sides


def test_crossing_probability_at_the_threshold(key):
    """One direction: 1/2 (Cardy, J. Phys. A 25, L201 (1992)) + 0.319 / L. Both: 1/4 + sqrt(3) (3 ln 3 - 4 ln 2) / 4 pi
    (Watts, J. Phys. A 29, L363 (1996)) in the limit. n = 10000 Bernoulli lattices of L = 64, standard error 0.005.
    """
    n, size = 10_000, 64
    states = percolation.bernoulli(jax.random.split(key, n), jnp.full(n, CRITICAL_DENSITY, jnp.float32), size=size)
    one = 0.5 + 0.319 / size
    both = 0.25 + math.sqrt(3) / (4 * math.pi) * (3 * math.log(3) - 4 * math.log(2))
    assert both == pytest.approx(0.3221205, abs=1e-7)

    def z(flags, expected):
        return (np.mean(flags) - expected) / math.sqrt(expected * (1 - expected) / n)

    flags = percolation.spanning(states)
    assert abs(z(flags.vertical, one)) < 5
    assert abs(z(flags.horizontal, one)) < 5
    assert abs(z(flags.both, both)) < 5
    # The wrong kernel, eight neighbours, fails all of them, even with a tenth of the lattices.
    n = 1000
    vertical, horizontal = spans_by_labels(np.asarray(states)[:n], EIGHT)
    assert min(abs(z(vertical, one)), abs(z(horizontal, one)), abs(z(vertical & horizontal, both))) > 5


def test_sampling_hits_the_count_exactly():
    """At every density, also at the ends, and for lattices with and without full words."""
    for size in (1, 2, 10, 33):
        num = size * size
        counts = np.unique(np.concatenate([[-3, 0, 1, num - 1, num, num + 7], np.linspace(0, num, 40).astype(int)]))
        keys = example_key(0, "x", jnp.arange(len(counts)))
        states = jax.jit(percolation.sample, static_argnames="size")(keys, jnp.asarray(counts), size=size)
        np.testing.assert_array_equal(states.sum((1, 2)), np.clip(counts, 0, num))


def standardised_chi_square(codes, cells, n):
    counts = np.bincount(np.searchsorted(cells, codes), minlength=len(cells))
    assert counts.sum() == n and np.isin(codes, cells).all()
    expected, free = n / len(cells), len(cells) - 1
    return (((counts - expected) ** 2 / expected).sum() - free) / math.sqrt(2 * free)


@pytest.mark.parametrize(("size", "occupied"), [(2, 1), (2, 2), (3, 4), (3, 7)])
def test_sampling_is_uniform_over_all_states(size, occupied, monkeypatch):
    """Chi-square over all states of the given count (up to 126), n = 40000 draws, abs(z) < 5.

    Draws are cut to their two highest bits, so that nearly every state needs corrections; uniformity must not depend
    on the number of bits. A wrong kernel, corrections from the first site on, fails the same test, and so does a
    choice by smallest draws that leaves equal ones in the order of the sites.
    """
    n, num = 40_000, size * size
    keys = example_key(1, f"{size} {occupied}", jnp.arange(n))
    wanted = jnp.full(n, occupied)
    cells = np.array([sum(2**i for i in c) for c in itertools.combinations(range(num), occupied)])
    cells.sort()

    def z(states):
        return standardised_chi_square(np.asarray(states).reshape(n, num) @ 2 ** np.arange(num), cells, n)

    assert abs(z(percolation.sample(keys, wanted, size=size))) < 5
    original = sampling._bytes
    monkeypatch.setattr(sampling, "_bytes", lambda keys, num: original(keys, num) & 0xC0)
    assert abs(z(percolation.sample(keys, wanted, size=size))) < 5

    def first_sites(keys, states, missing, size):
        change = states == (missing < 0)[:, None]
        change &= jnp.cumsum(change, axis=1) <= jnp.abs(missing)[:, None]
        return states ^ change

    monkeypatch.setattr(sampling, "_correct", first_sites)
    assert abs(z(percolation.sample(keys, wanted, size=size))) > 5
    smallest = jnp.argsort(original(keys, num) & 0xC0, axis=1, stable=True)[:, :occupied]
    states = jnp.zeros((n, num), bool).at[jnp.arange(n)[:, None], smallest].set(True)
    assert abs(z(states)) > 5


@pytest.mark.parametrize(("size", "occupied", "n"), [(10, 37, 5000), (33, 645, 2000)])
def test_every_site_is_as_likely_as_every_other(size, occupied, n):
    """Counts per site over n states: chi-square with N - 1 degrees of freedom after the factor (N - 1) / N for a fixed
    number of sites per state; abs(z) < 5.
    """
    num = size * size
    states = percolation.sample(example_key(2, "x", jnp.arange(n)), jnp.full(n, occupied), size=size)
    p = occupied / num

    def z(counts):
        chi2 = ((counts - n * p) ** 2 / (n * p * (1 - p))).sum() * (num - 1) / num
        return (chi2 - (num - 1)) / math.sqrt(2 * (num - 1))

    counts = np.asarray(states.sum(0)).reshape(-1)
    assert abs(z(counts)) < 5
    # A wrong kernel: one state in eight has a full first row.
    wrong = np.asarray(states).copy()
    wrong[::8, 0] = True
    assert abs(z(wrong.sum(0).reshape(-1))) > 5


def test_a_row_depends_on_its_own_key_only():
    """Also where its neighbours need many more rounds of corrections, and whatever the chunks."""
    counts = jnp.array([12, 399, 1, 200, 398, 237, 0, 400, 399, 163])
    keys = example_key(0, "x", jnp.arange(10))
    many = percolation.sample(keys, counts, size=20)
    for i in (0, 3, 5):
        one = percolation.sample(keys[i : i + 1], counts[i : i + 1], size=20)
        np.testing.assert_array_equal(many[i], one[0])
    for chunk_size in (1, 3, 10, 64):
        again = jax.jit(lambda k, c, s=chunk_size: percolation.sample(k, c, size=20, chunk_size=s))(keys, counts)
        np.testing.assert_array_equal(many, again)
    other = percolation.sample(keys, counts[::-1], size=20)
    np.testing.assert_array_equal(many[5], percolation.sample(keys, counts.at[0].set(399), size=20)[5])
    assert (np.asarray(other) != np.asarray(many)).any()


def test_flags_do_not_depend_on_chunks(key):
    states = percolation.bernoulli(jax.random.split(key, 11), jnp.full(11, 0.6, jnp.float32), size=35)
    flags, joined = percolation.spanning(states), percolation.connected_to_top(states)
    for chunk_size in (1, 4, 11, 100):
        np.testing.assert_array_equal(np.stack(percolation.spanning(states, chunk_size=chunk_size)), np.stack(flags))
        np.testing.assert_array_equal(percolation.connected_to_top(states, chunk_size=chunk_size), joined)
    for i in range(3):
        assert bool(percolation.spanning(states[i : i + 1]).vertical[0]) == bool(flags.vertical[i])


def test_bernoulli_density(key):
    """n = 400 lattices of L = 50: mean density within five standard errors, rows independent of the chunks."""
    keys, density = jax.random.split(key, 400), jnp.full(400, 0.3, jnp.float32)
    states = percolation.bernoulli(keys, density, size=50)
    assert abs(float(states.mean()) - 0.3) < 5 * math.sqrt(0.3 * 0.7 / states.size)
    np.testing.assert_array_equal(states, percolation.bernoulli(keys, density, size=50, chunk_size=7))


@pytest.mark.parametrize("fn", [percolation.spanning, percolation.connected_to_top])
@pytest.mark.parametrize(
    "states", [jnp.zeros((2, 3, 4), bool), jnp.zeros((3, 3), bool), jnp.zeros((1, 3, 3), jnp.int32)]
)
def test_bad_states_are_refused(fn, states):
    with pytest.raises(ValueError, match="states: expected bool"):
        fn(states)


def test_bad_arguments_are_refused(key):
    with pytest.raises(ValueError, match="size: expected an integer from 1"):
        percolation.sample(key[None], jnp.array([1]), size=0)
    with pytest.raises(ValueError, match="num_occupied: expected integers"):
        percolation.sample(key[None], jnp.array([1.0]), size=3)
    with pytest.raises(ValueError, match="keys and num_occupied"):
        percolation.sample(key[None], jnp.array([1, 2]), size=3)
    with pytest.raises(ValueError, match="keys and density"):
        percolation.bernoulli(key, jnp.array(0.5), size=3)
    with pytest.raises(ValueError, match="chunk_size"):
        percolation.spanning(jnp.zeros((2, 3, 3), bool), chunk_size=0)
