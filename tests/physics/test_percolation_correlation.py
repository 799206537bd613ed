"""Pair connectedness and correlation lengths against slow programs in NumPy and against lattices drawn by hand."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.ndimage

from physml_jax.simulators.percolation import clusters, connectedness, correlation

pair_connectedness = jax.jit(
    connectedness.pair_connectedness, static_argnames=("periodic", "max_distance", "chunk_size")
)
correlation_length = jax.jit(correlation.correlation_length, static_argnames="chunk_size")
published_correlation_length = jax.jit(
    correlation.published_correlation_length, static_argnames=("transition", "as_run")
)


def mixed_states(num, size, seed=0):
    """Lattices of all densities from nearly empty to nearly full."""
    rng = np.random.default_rng(seed)
    return rng.random((num, size, size)) < np.linspace(0.05, 0.95, num)[:, None, None]


def labels_by_scipy(state, periodic):
    labels, _ = scipy.ndimage.label(state)
    if periodic:
        for edge, opposite in ((labels[0], labels[-1]), (labels[:, 0], labels[:, -1])):  # views, renamed on the way
            for i in range(len(edge)):
                if edge[i] and opposite[i]:
                    labels[labels == edge[i]] = opposite[i]
    return labels


def pairs_one_by_one(state, periodic):
    """All pairs of sites in turn: {squared distance: (connected, all)} with ordered pairs."""
    size = len(state)
    labels = labels_by_scipy(state, periodic).ravel()
    y, x = np.divmod(np.arange(size * size), size)
    dy, dx = np.abs(y[:, None] - y[None]), np.abs(x[:, None] - x[None])
    if periodic:
        dy, dx = np.minimum(dy, size - dy), np.minimum(dx, size - dx)
    square = (dy**2 + dx**2).ravel()
    same = ((labels[:, None] == labels[None]) & (labels[:, None] > 0)).ravel()
    squares = np.unique(square)
    return squares, np.bincount(square, same)[squares], np.bincount(square)[squares]


def textbook_length(state):
    """From the sites of every cluster that does not span, in float64."""
    labels = labels_by_scipy(state, False)
    top, bottom, left, right = (set(e[e > 0]) for e in (labels[0], labels[-1], labels[:, 0], labels[:, -1]))
    numerator = denominator = 0.0
    for k in range(1, labels.max() + 1):
        if k in (top & bottom) | (left & right):
            continue
        sites = np.argwhere(labels == k).astype(np.float64)
        s = len(sites)
        r2 = ((sites - sites.mean(0)) ** 2).sum(1).mean()
        numerator += 2 * r2 * s**2
        denominator += s**2
    return np.sqrt(numerator / denominator) if denominator else 0.0


def published_length(state, transition=0.585, as_run=False):
    """The published sum as a loop over distances, with the file of the authors' program where ``as_run``."""
    squares, connected, total = pairs_one_by_one(state, True)
    g = connected / total
    labels = labels_by_scipy(state, True)
    largest = (np.bincount(labels[labels > 0]).max() / state.size) ** 2 if state.any() else 0.0
    below = state.mean() <= transition + 1e-12
    if as_run:
        kept = g[connected > 0]
        g = np.concatenate([kept, np.zeros(len(g) - len(kept))])
    numerator = denominator = 0.0
    for r2, value in zip(squares, g, strict=True):
        G = value if below else value - largest
        # Exact arithmetic would give 0 where rounding of the two squares gives 1e-17.
        if G < 1e-8 - 1e-15:
            break
        numerator += r2 * G
        denominator += G
        if as_run and value - largest < 1e-8 - 1e-15:
            break
    return np.sqrt(numerator / (6 * denominator)) if denominator else 0.0


SLOW = pytest.mark.slow


@pytest.mark.parametrize("periodic", [False, True])
@pytest.mark.parametrize("size", [1, 13, pytest.param(2, marks=SLOW), pytest.param(8, marks=SLOW)])
def test_pairs_are_those_of_the_slow_program(size, periodic):
    states = mixed_states(12, size)
    pairs = pair_connectedness(jnp.asarray(states), periodic=periodic)
    for state, connected in zip(states, np.asarray(pairs.connected), strict=True):
        squares, expected, total = pairs_one_by_one(state, periodic)
        np.testing.assert_array_equal(pairs.squared_distance, squares)
        np.testing.assert_array_equal(pairs.total, total)
        np.testing.assert_array_equal(connected, expected)
    np.testing.assert_allclose(pairs.g[:, 0], states.mean((1, 2)), rtol=1e-6)
    np.testing.assert_allclose(pairs.distance, np.sqrt(squares), rtol=1e-6)


def test_clusters_of_eight_neighbours_are_found_out():
    """The same comparison with diagonal contacts: pairs differ in almost every lattice."""
    states = mixed_states(12, 13)
    labels = np.stack([scipy.ndimage.label(s, np.ones((3, 3)))[0] for s in states])
    wrong = jax.jit(lambda x: connectedness.count_pairs(x, periodic=False).connected)(jnp.asarray(labels, jnp.int32))
    right = [pairs_one_by_one(s, False)[1] for s in states]
    assert (np.asarray(wrong) != right).any(axis=1).mean() > 0.7


@pytest.mark.slow
@pytest.mark.parametrize("periodic", [False, pytest.param(True, marks=SLOW)])
def test_transforms_and_shifts_count_alike(periodic, monkeypatch):
    """L = 40 near the threshold, with all clusters counted by transforms, by shifts, and as usual."""
    states = jnp.asarray(np.random.default_rng(1).random((6, 40, 40)) < np.linspace(0.5, 0.7, 6)[:, None, None])
    counts = []
    for small in (0, 24, 40 * 40):  # read while tracing
        monkeypatch.setattr(connectedness, "SMALL", small)
        count = lambda s: connectedness.pair_connectedness(s, periodic=periodic).connected
        counts.append(jax.jit(count)(states))
    np.testing.assert_array_equal(counts[0], counts[1])
    np.testing.assert_array_equal(counts[0], counts[2])
    # Every ordered pair of a cluster is somewhere: the sum over distances is sum s^2.
    labels = np.asarray(clusters.label_clusters(states, periodic=periodic))
    sizes = [np.bincount(x[x > 0]) for x in labels]
    np.testing.assert_array_equal(counts[0].sum(axis=1), [(s.astype(np.int64) ** 2).sum() for s in sizes])


@SLOW
@pytest.mark.parametrize("size", [128])
def test_rounding_of_the_transform_is_exact_for_full_lattices(size):
    """The largest counts that a transform can meet; (L - |dy|)(L - |dx|) is known."""
    pairs = pair_connectedness(jnp.ones((1, size, size), bool))
    np.testing.assert_array_equal(pairs.connected[0], pairs.total)
    assert int(pairs.total[0]) == size**2 and int(pairs.squared_distance[-1]) == 2 * (size - 1) ** 2
    pairs = pair_connectedness(jnp.ones((1, size, size), bool), periodic=True)
    np.testing.assert_array_equal(pairs.connected[0], pairs.total)
    assert int(pairs.squared_distance[-1]) == 2 * (size // 2) ** 2


def test_largest_distance():
    states = jnp.asarray(mixed_states(4, 13))
    everything, near = pair_connectedness(states), pair_connectedness(states, max_distance=5.0)
    keep = np.asarray(everything.squared_distance) <= 25
    assert 0 < keep.sum() < len(keep)
    np.testing.assert_array_equal(near.squared_distance, everything.squared_distance[keep])
    np.testing.assert_array_equal(near.connected, everything.connected[:, keep])
    np.testing.assert_array_equal(near.total, everything.total[keep])


def line(n, size=20, vertical=False):
    state = np.zeros((size, size), bool)
    state[3, 2 : 2 + n] = True
    return state.T if vertical else state


@pytest.mark.parametrize("n", [1, 2, 3, 7, 15])
def test_straight_line(n):
    """n sites in a row: n - |d| ordered pairs at every displacement d, and xi^2 = 2 R^2 = (n^2 - 1) / 6."""
    states = jnp.asarray(np.stack([line(n), line(n, vertical=True)]))
    np.testing.assert_allclose(np.asarray(correlation_length(states)) ** 2, (n**2 - 1) / 6, rtol=1e-6)
    for periodic in (False, True):
        pairs = pair_connectedness(states, periodic=periodic)
        expected = np.zeros(len(pairs.squared_distance))
        for d in range(n):
            # On the torus of 20 columns a displacement of more than 10 is the shorter one the other way round.
            short = min(d, 20 - d) if periodic else d
            expected[np.asarray(pairs.squared_distance) == short**2] += (n - d) * (1 if d == 0 else 2)
        np.testing.assert_array_equal(pairs.connected, [expected, expected])


def test_block_and_pair_of_clusters():
    """A 2 x 2 block: R^2 = 1/2, xi = 1. With a line of three beside it: xi^2 = 2 (16 / 2 + 9 * 2 / 3) / (16 + 9)."""
    block = np.zeros((9, 9), bool)
    block[2:4, 2:4] = True
    both = block.copy()
    both[6, 4:7] = True
    spanning = both.copy()
    spanning[:, 8] = True  # a column from edge to edge, which is left out
    xi = correlation_length(jnp.asarray(np.stack([block, both, spanning])))
    np.testing.assert_allclose(xi, np.sqrt([1, 28 / 25, 28 / 25]), rtol=1e-6)
    pairs = pair_connectedness(jnp.asarray(block[None]))
    np.testing.assert_array_equal(pairs.connected[0, :3], [4, 8, 4])


def test_lattices_without_finite_clusters_have_length_zero():
    full, empty = np.ones((5, 5), bool), np.zeros((5, 5), bool)
    column = empty.copy()
    column[:, 2] = True
    single = empty.copy()
    single[1, 1] = True
    states = jnp.asarray(np.stack([full, empty, column, single]))
    assert correlation_length(states).tolist() == [0, 0, 0, 0]
    assert published_correlation_length(states[:2]).tolist() == [0, 0]
    assert correlation_length(jnp.ones((1, 1, 1), bool)).tolist() == [0]


@pytest.mark.parametrize("size", [33, pytest.param(2, marks=SLOW), pytest.param(8, marks=SLOW)])
def test_textbook_length_is_that_of_the_slow_program(size):
    states = mixed_states(40, size, seed=2)
    expected = np.array([textbook_length(s) for s in states])
    np.testing.assert_allclose(correlation_length(jnp.asarray(states)), expected, rtol=2e-6)
    assert (expected > 0).mean() > 0.4 or size == 2


def test_cancellation_far_from_the_origin():
    """A cluster at the far corner of a large lattice has the length of the same cluster at the near corner."""
    near = np.zeros((300, 300), bool)
    near[1:4, 1:20] = True
    lengths = correlation_length(jnp.asarray(np.stack([near, near[::-1, ::-1]])))
    np.testing.assert_allclose(lengths, [textbook_length(near)] * 2, rtol=2e-7)


@pytest.mark.parametrize("as_run", [False, True])
@pytest.mark.parametrize("size", [24, pytest.param(5, marks=SLOW)])
def test_published_length_is_that_of_the_slow_program(size, as_run):
    states = mixed_states(24, size, seed=3)
    expected = np.array([published_length(s, as_run=as_run) for s in states])
    got = published_correlation_length(jnp.asarray(states), as_run=as_run)
    np.testing.assert_allclose(got, expected, rtol=3e-6)
    # The other definition is another number, on either side of the transition where clusters are large.
    other = np.array([published_length(s, as_run=not as_run) for s in states])
    assert (np.abs(other - expected) > 1e-3).mean() > 0.2 or size == 5


#: Lattices of 12 x 12 sites, row by row, eight sites to a byte, and what the authors' program perco_generate_corr.py
#: (column new_corr_norm) makes of them. It keeps seven decimals of g in a file on its way.
AUTHORS = (
    ("040480000520ac008800401c02658120a282", 0.29520449990861986),
    ("c588ea4568681081cb325d8805fa080b59a9", 0.4766564037418685),
    ("35987f785fc0da0651017cf7ba04da2e93d2", 0.917868430125659),
    ("588eb16fa8c6c03b2fc64dfe6d67a5c15deb", 1.233775054694824),
    ("2d16006c4ed7dcbe9b727ec7ebdce4e9fdec", 1.1548674841169753),
    ("eb4474e5fe2b7328eb41ffcabe766def1c4a", 0.5688801341643784),
    ("7bb6e3ea8fc94ab6bed8becf502da71f787e", 0.10080963638765379),
    ("7455da53dd5defd68b1fcf7d378c861fed25", 1.5144390709455045),
    ("def3fadefe3849d2ef0baeba0dc5eaf9fd0d", 0.421384951361657),
    ("6f7cece4fbcef71f76fd67cbe4bbb7b515d4", 0.0994544583741982),
)


def test_numbers_of_the_authors_program():
    bits = np.array([np.frombuffer(bytes.fromhex(code), np.uint8) for code, _ in AUTHORS])
    states = jnp.asarray(np.unpackbits(bits, axis=1).reshape(-1, 12, 12).astype(bool))
    expected = np.array([value for _, value in AUTHORS])
    np.testing.assert_allclose(published_correlation_length(states), expected, rtol=2e-6)
    formula = np.asarray(published_correlation_length(states, as_run=False))
    assert (np.abs(formula / expected - 1) > 0.05).sum() >= 3


def test_transition_between_the_two_sums():
    """Exactly 0.585 L^2 sites count as below; one site more counts as above."""
    rng = np.random.default_rng(4)
    states = np.zeros((2, 400), bool)
    states[0, rng.permutation(400)[:234]] = True
    states[1] = states[0]
    states[1, np.flatnonzero(~states[0])[0]] = True
    states = states.reshape(2, 20, 20)
    got = published_correlation_length(jnp.asarray(states), as_run=False)
    np.testing.assert_allclose(got, [published_length(s) for s in states], rtol=3e-6)
    assert abs(published_length(states[0]) - published_length(states[0], transition=0.5)) > 0.1


def test_results_do_not_depend_on_the_batch():
    states = jnp.asarray(mixed_states(12, 13))  # pairs of all of them are compiled already
    pairs, lengths = pair_connectedness(states, periodic=False).connected, correlation_length(states)
    np.testing.assert_array_equal(pair_connectedness(states[:9], chunk_size=4).connected, pairs[:9])
    np.testing.assert_array_equal(correlation_length(states[:9], chunk_size=4), lengths[:9])


@SLOW
def test_results_do_not_depend_on_compilation():
    """One lattice alone, and programs with and without optimisation; a fused multiplication and addition may move the
    last bit of a length.
    """
    states = jnp.asarray(mixed_states(9, 8, seed=5))
    lengths, pairs = jax.jit(correlation.correlation_length)(states), jax.jit(connectedness.pair_connectedness)(states)
    alone = jax.jit(connectedness.pair_connectedness)(states[3:4])
    np.testing.assert_array_equal(alone.connected, pairs.connected[3:4])
    np.testing.assert_array_equal(jax.jit(correlation.correlation_length)(states[3:4]), lengths[3:4])
    np.testing.assert_array_equal(pair_connectedness(states).connected, pairs.connected)
    for other in (correlation_length(states), correlation.correlation_length(states)):
        np.testing.assert_allclose(other, lengths, rtol=3e-7)


def test_bad_input_is_refused():
    states = jnp.zeros((1, 4, 4), bool)
    for function in (pair_connectedness, correlation_length, published_correlation_length):
        with pytest.raises(ValueError, match="states: expected bool"):
            function(states.astype(jnp.float32))
    for distance in (-1.0, float("nan")):
        with pytest.raises(ValueError, match="max_distance"):
            pair_connectedness(states, max_distance=distance)
    with pytest.raises(ValueError, match="transition"):
        published_correlation_length(states, transition=1.5)
    with pytest.raises(ValueError, match="at most 512"):
        jax.eval_shape(connectedness.pair_connectedness, jax.ShapeDtypeStruct((1, 513, 513), jnp.bool_))
    with pytest.raises(ValueError, match="at most 1290"):
        jax.eval_shape(correlation.correlation_length, jax.ShapeDtypeStruct((1, 1291, 1291), jnp.bool_))
