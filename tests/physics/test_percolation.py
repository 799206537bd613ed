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

bernoulli = jax.jit(percolation.bernoulli, static_argnames=("size", "chunk_size"))
connected_to_top = jax.jit(percolation.connected_to_top, static_argnames="chunk_size")
sample = jax.jit(percolation.sample, static_argnames=("size", "chunk_size"))
spanning = jax.jit(percolation.spanning, static_argnames="chunk_size")

SIZE, NUM = 33, 620  # the shape that tests share: two words per row, three passes

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


@pytest.mark.parametrize(
    ("size", "vertical"),
    [(3, 197), *(pytest.param(*x, marks=pytest.mark.slow) for x in ((1, 1), (2, 7), (4, None)))],
)
def test_every_state_of_a_small_lattice(size, vertical):
    """2x2: 7 of 16 states have a full column. 3x3: 197 of 512. 4x4: as a flood cell by cell counts them."""
    states, reached = flooded_states(size)
    flags = spanning(jnp.asarray(states))
    np.testing.assert_array_equal(flags.vertical, reached[:, -1].any(1))
    np.testing.assert_array_equal(connected_to_top(jnp.asarray(states)), reached)
    assert int(flags.vertical.sum()) == int(flags.horizontal.sum()) == int(reached[:, -1].any(1).sum())
    assert vertical is None or int(flags.vertical.sum()) == vertical
    assert int(flags.both.sum()) + int(flags.either.sum()) == 2 * int(flags.vertical.sum())


def states_at_published_densities(size, each):
    rng = np.random.default_rng(size)
    density = np.repeat(PUBLISHED_DENSITIES, each)[:, None, None]
    return rng.random((len(density), size, size)) < density


@pytest.mark.parametrize(("size", "each"), [(SIZE, NUM // 31), (32, 8)])
def test_flags_and_joined_sites_agree_with_scipy(size, each):
    """Bit for bit at the 31 published densities, in one pass and in several, rows with and without a full last word."""
    states = states_at_published_densities(size, each)
    np.testing.assert_array_equal(np.stack(spanning(jnp.asarray(states))), spans_by_labels(states))
    np.testing.assert_array_equal(connected_to_top(jnp.asarray(states)), joined_by_labels(states))


@pytest.mark.slow
@pytest.mark.parametrize(("size", "each"), [(31, 20), (32, 20), (33, 20), (64, 12), (100, 8), (200, 2)])
def test_more_sizes_agree_with_scipy(size, each):
    """The same for 2542 lattices altogether."""
    states = states_at_published_densities(size, each)
    np.testing.assert_array_equal(np.stack(spanning(jnp.asarray(states))), spans_by_labels(states))
    np.testing.assert_array_equal(connected_to_top(jnp.asarray(states)), joined_by_labels(states))


@pytest.mark.parametrize(("size", "num"), [(SIZE, NUM), pytest.param(67, 5, marks=pytest.mark.slow)])
def test_long_ways(size, num):
    """A snake that visits every second row from end to end, down and back up, and combs that need many sweeps."""
    snake = np.zeros((size, size), bool)
    snake[::2] = True
    snake[1::4, -1] = snake[3::4, 0] = True
    upright = snake.T.copy()
    cut = snake.copy()
    cut[16, 20] = False
    states = np.resize([snake, upright, cut, snake[:, ::-1], upright[::-1]], (num, size, size))
    assert joined_by_labels(states)[:5, -1].any(1).tolist() == [True, True, False, True, True]
    np.testing.assert_array_equal(np.stack(spanning(jnp.asarray(states))), spans_by_labels(states))
    np.testing.assert_array_equal(connected_to_top(jnp.asarray(states)), joined_by_labels(states))


def test_duality():
    """Either occupied nearest neighbours join top and bottom, or empty sites join left and right with diagonal steps,
    and never both: an exact theorem that mixes the two directions.
    """
    states = np.random.default_rng(0).random((NUM, SIZE, SIZE)) < CRITICAL_DENSITY
    vertical = np.asarray(spanning(jnp.asarray(states)).vertical)
    np.testing.assert_array_equal(vertical, ~spans_by_labels(~states, EIGHT)[1])
    assert (vertical != ~spans_by_labels(~states, FOUR)[1]).any()  # not so with four neighbours on both sides


@pytest.mark.parametrize("size", [SIZE, pytest.param(64, marks=pytest.mark.slow)])
def test_crossing_probability_at_the_threshold(key, size):
    """One direction: 1/2 (Cardy, J. Phys. A 25, L201 (1992)) + 0.319 / L. Both: 1/4 + sqrt(3) (3 ln 3 - 4 ln 2) / 4 pi
    (Watts, J. Phys. A 29, L363 (1996)) in the limit. n = 9920 Bernoulli lattices, standard error 0.005.
    """
    n = 16 * NUM
    density = jnp.full(NUM, CRITICAL_DENSITY, jnp.float32)
    states = [bernoulli(k, density, size=size) for k in jax.random.split(key, (16, NUM))]
    one = 0.5 + 0.319 / size
    both = 0.25 + math.sqrt(3) / (4 * math.pi) * (3 * math.log(3) - 4 * math.log(2))
    assert both == pytest.approx(0.3221205, abs=1e-7)

    def z(flags, expected):
        return (np.mean(flags) - expected) / math.sqrt(expected * (1 - expected) / n)

    vertical, horizontal = np.concatenate([np.stack(spanning(s)) for s in states], axis=1)
    assert abs(z(vertical, one)) < 5
    assert abs(z(horizontal, one)) < 5
    assert abs(z(vertical & horizontal, both)) < 5
    # The wrong kernel, eight neighbours, fails all of them, even with a sixteenth of the lattices.
    n = NUM
    vertical, horizontal = spans_by_labels(np.asarray(states[0]), EIGHT)
    assert min(abs(z(vertical, one)), abs(z(horizontal, one)), abs(z(vertical & horizontal, both))) > 5


def test_sampling_hits_the_count_exactly():
    """At every density, also at the ends, and for lattices with and without full words."""
    for size in (1, SIZE):
        num = size * size
        counts = np.unique(np.concatenate([[-3, 0, 1, num - 1, num, num + 7], np.linspace(0, num, 40).astype(int)]))
        counts = np.resize(counts, 200)
        keys = example_key(0, "x", jnp.arange(200))
        states = sample(keys, jnp.asarray(counts), size=size)
        np.testing.assert_array_equal(states.sum((1, 2)), np.clip(counts, 0, num))


def standardised_chi_square(codes, cells, n):
    counts = np.bincount(np.searchsorted(cells, codes), minlength=len(cells))
    assert counts.sum() == n and np.isin(codes, cells).all()
    expected, free = n / len(cells), len(cells) - 1
    return (((counts - expected) ** 2 / expected).sum() - free) / math.sqrt(2 * free)


@pytest.mark.parametrize(
    ("size", "occupied", "n"),
    [(3, 4, 5000), *(pytest.param(*x, 40_000, marks=pytest.mark.slow) for x in ((2, 1), (3, 4), (3, 7)))],
)
def test_sampling_is_uniform_over_all_states(size, occupied, n, monkeypatch):
    """Chi-square over all states of the given count (up to 126), n draws, abs(z) < 5.

    Draws are cut to their two highest bits, so that nearly every state needs corrections; uniformity must not depend
    on the number of bits. A wrong kernel, corrections from the first site on, fails the same test, and so does a
    choice by smallest draws that leaves equal ones in the order of the sites.
    """
    num = size * size
    keys = example_key(1, f"{size} {occupied}", jnp.arange(n))
    wanted = jnp.full(n, occupied)
    cells = np.array([sum(2**i for i in c) for c in itertools.combinations(range(num), occupied)])
    cells.sort()

    def z(states):
        return standardised_chi_square(np.asarray(states).reshape(n, num) @ 2 ** np.arange(num), cells, n)

    def draw():
        # Traced anew after every patch.
        return jax.jit(lambda keys: percolation.sample(keys, wanted, size=size))(keys)

    assert abs(z(draw())) < 5
    original = sampling._bytes
    monkeypatch.setattr(sampling, "_bytes", lambda keys, num: original(keys, num) & 0xC0)
    assert abs(z(draw())) < 5

    def first_sites(keys, states, missing, size):
        change = states == (missing < 0)[:, None]
        change &= jnp.cumsum(change, axis=1) <= jnp.abs(missing)[:, None]
        return states ^ change

    monkeypatch.setattr(sampling, "_correct", first_sites)
    assert abs(z(draw())) > 5
    draws = np.asarray(jax.jit(original, static_argnums=1)(keys, num)) & 0xC0
    states = draws.argsort(axis=1, kind="stable").argsort(axis=1) < occupied
    assert abs(z(states)) > 5


@pytest.mark.parametrize(
    ("size", "occupied", "n"), [(SIZE, 645, 2000), pytest.param(10, 37, 5000, marks=pytest.mark.slow)]
)
def test_every_site_is_as_likely_as_every_other(size, occupied, n):
    """Counts per site over n states: chi-square with N - 1 degrees of freedom after the factor (N - 1) / N for a fixed
    number of sites per state; abs(z) < 5.
    """
    num = size * size
    keys = example_key(2, "x", jnp.arange(n).reshape(-1, 200))
    states = np.concatenate([sample(k, jnp.full(200, occupied), size=size) for k in keys])
    p = occupied / num

    def z(counts):
        chi2 = ((counts - n * p) ** 2 / (n * p * (1 - p))).sum() * (num - 1) / num
        return (chi2 - (num - 1)) / math.sqrt(2 * (num - 1))

    counts = states.sum(0).reshape(-1)
    assert abs(z(counts)) < 5
    # A wrong kernel: one state in eight has a full first row.
    wrong = states.copy()
    wrong[::8, 0] = True
    assert abs(z(wrong.sum(0).reshape(-1))) > 5


def test_a_row_depends_on_its_own_key_only():
    """Also where its neighbours need many more rounds of corrections, and whatever the chunks."""
    counts = jnp.resize(jnp.array([12, 399, 1, 200, 1087, 237, 0, 1089, 1088, 163]), 200)
    keys = example_key(0, "x", jnp.arange(200))
    many = sample(keys, counts, size=SIZE)
    for i in (0, 3, 5):
        np.testing.assert_array_equal(many[i], sample(keys[i : i + 1], counts[i : i + 1], size=SIZE)[0])
    np.testing.assert_array_equal(sample(keys[:10], counts[:10], size=SIZE, chunk_size=3), many[:10])
    np.testing.assert_array_equal(many[5], sample(keys, counts.at[0].set(1088), size=SIZE)[5])
    assert (np.asarray(sample(keys, counts[::-1], size=SIZE)) != np.asarray(many)).any()


@pytest.mark.parametrize("chunk_size", [4, pytest.param(1, marks=pytest.mark.slow)])
def test_flags_do_not_depend_on_chunks(chunk_size):
    """Eleven states in several passes, and among many others in passes of 256."""
    states = jnp.asarray(np.random.default_rng(1).random((NUM, SIZE, SIZE)) < 0.6)
    few = states[:11]
    flags = np.stack(spanning(states))[:, :11]
    assert flags.any() and not flags.all()
    np.testing.assert_array_equal(np.stack(spanning(few, chunk_size=chunk_size)), flags)
    np.testing.assert_array_equal(connected_to_top(few, chunk_size=chunk_size), connected_to_top(states)[:11])


def test_bernoulli_density(key):
    """n = 620 lattices: mean density within five standard errors, rows independent of the chunks."""
    keys, density = jax.random.split(key, NUM), jnp.full(NUM, 0.3, jnp.float32)
    states = np.asarray(bernoulli(keys, density, size=SIZE))
    assert abs(states.mean() - 0.3) < 5 * math.sqrt(0.3 * 0.7 / states.size)
    np.testing.assert_array_equal(states, bernoulli(keys, density, size=SIZE, chunk_size=7))


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
