"""Cluster labels against scipy and against union-find; cluster statistics against NumPy, enumeration and known n_s."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.ndimage

from physml_jax.simulators.percolation import clusters, statistics

label_clusters = jax.jit(clusters.label_clusters, static_argnames=("periodic", "chunk_size"))
cluster_sizes = jax.jit(statistics.cluster_sizes)
largest_cluster = jax.jit(statistics.largest_cluster)
mean_cluster_size = jax.jit(statistics.mean_cluster_size)
size_distribution = jax.jit(statistics.size_distribution)
spanning_clusters = jax.jit(statistics.spanning_clusters)
strength = jax.jit(statistics.strength)

DENSITIES = (0.1, 0.2, 0.3, 0.4, 0.5, *(round(0.55 + 0.005 * i, 3) for i in range(23)), 0.7, 0.8, 0.9)
FOUR = scipy.ndimage.generate_binary_structure(2, 1)
EIGHT = scipy.ndimage.generate_binary_structure(2, 2)


def exact_count_states(num_per_density, size, seed=0):
    """Lattices with exactly round(p L^2) occupied sites at every published density."""
    rng = np.random.default_rng(seed)
    ranks = rng.random((len(DENSITIES), num_per_density, size * size)).argsort(-1).argsort(-1)
    counts = np.round(np.array(DENSITIES) * size * size)[:, None, None]
    return (ranks < counts).reshape(-1, size, size)


def smallest_index_labels(labels):
    """Labels of scipy renamed to 1 + the smallest flat index of the cluster; 0 stays 0."""
    names, first = np.unique(labels, return_index=True)
    table = np.zeros(labels.max() + 1, np.int32)
    table[names] = first + 1
    table[0] = 0
    return table[labels]


def scipy_labels(states, structure=FOUR):
    return np.stack([smallest_index_labels(scipy.ndimage.label(s, structure)[0]) for s in states])


def union_find_labels(state, periodic):
    """A third program, in plain Python, which knows periodic boundaries."""
    size = len(state)
    parent = list(range(size * size))

    def find(i):
        while parent[i] != i:
            i = parent[i]
        return i

    for y, x in itertools.product(range(size), repeat=2):
        for v, u in ((y + 1, x), (y, x + 1)):
            if periodic:
                v, u = v % size, u % size
            if v < size and u < size and state[y, x] and state[v, u]:
                a, b = find(y * size + x), find(v * size + u)
                parent[max(a, b)] = min(a, b)
    roots = np.array([find(i) + 1 for i in range(size * size)]).reshape(size, size)
    return np.where(state, roots, 0)


@pytest.mark.parametrize(
    ("size", "num_per_density"), [(1, 20), (2, 60), (3, 60), (31, 12), (32, 12), (33, 12), (64, 4), (100, 3), (200, 1)]
)
def test_labels_are_those_of_scipy(size, num_per_density):
    """All 31 published densities: 5704 lattices over the sizes. Labels are compared after renaming, so that the
    partition and the convention of the smallest index are both tested."""
    states = exact_count_states(num_per_density, size)
    labels = np.asarray(label_clusters(jnp.asarray(states)))
    assert labels.dtype == np.int32
    np.testing.assert_array_equal(labels, scipy_labels(states))
    if size > 3:  # the same comparison finds the clusters of eight neighbours out
        assert (labels != scipy_labels(states, EIGHT)).any(axis=(1, 2)).mean() > 0.9


@pytest.mark.parametrize("size", [1, 2, 3, 4])
def test_labels_of_every_small_lattice(size):
    """All 2^(L^2) states with open and periodic boundaries against union-find (a sample of them at L = 4)."""
    states = np.array(list(itertools.product([False, True], repeat=size * size))[:: 1 if size < 4 else 61])
    states = states.reshape(-1, size, size)
    for periodic in (False, True):
        expected = np.stack([union_find_labels(s, periodic) for s in states])
        np.testing.assert_array_equal(label_clusters(jnp.asarray(states), periodic=periodic), expected)


@pytest.mark.parametrize("size", [5, 16, 31])
def test_periodic_labels_are_those_of_union_find(size):
    states = exact_count_states(2, size, seed=1)
    expected = np.stack([union_find_labels(s, True) for s in states])
    labels = label_clusters(jnp.asarray(states), periodic=True)
    np.testing.assert_array_equal(labels, expected)
    assert (np.asarray(label_clusters(jnp.asarray(states))) != expected).any()


def spiral(size):
    """One path of sites that winds to the middle: the longest cluster there is."""
    state = np.zeros((size, size), bool)
    y, x, dy, dx = 0, 0, 0, 1
    state[0, 0] = True
    turns = 0
    while turns < 2:
        v, u = y + dy, x + dx
        ahead = (v + dy, u + dx)
        free = 0 <= v < size and 0 <= u < size and not state[v, u]
        inside = 0 <= ahead[0] < size and 0 <= ahead[1] < size
        if free and not (inside and state[ahead]):
            y, x, turns = v, u, 0
            state[y, x] = True
        else:
            dy, dx, turns = dx, -dy, turns + 1
    return state


def test_winding_clusters():
    """Paths, combs and chessboards, the bad cases of algorithms that walk from neighbour to neighbour."""
    comb = np.zeros((33, 33), bool)
    comb[:, ::2], comb[-1] = True, True
    states = np.stack([spiral(33), spiral(33).T, comb, comb.T, comb[::-1], np.indices((33, 33)).sum(0) % 2 == 0])
    np.testing.assert_array_equal(label_clusters(jnp.asarray(states)), scipy_labels(states))
    assert spiral(33).sum() > 500 and scipy.ndimage.label(spiral(33))[1] == 1


@pytest.mark.slow
@pytest.mark.parametrize("periodic", [False, True])
def test_labels_do_not_depend_on_the_batch(periodic):
    states = jnp.asarray(exact_count_states(1, 20, seed=2))
    labels = label_clusters(states, periodic=periodic)
    for chunk_size in (1, 7, 31):
        np.testing.assert_array_equal(label_clusters(states, periodic=periodic, chunk_size=chunk_size), labels)
    np.testing.assert_array_equal(label_clusters(states[20:21], periodic=periodic), labels[20:21])
    np.testing.assert_array_equal(jax.jit(lambda s: label_clusters(s, periodic=periodic, chunk_size=5))(states), labels)


def test_one_trace_per_shape():
    traces = []

    @jax.jit
    def label(states):
        traces.append(states.shape)
        return clusters.label_clusters(states)

    for seed in range(3):
        label(jnp.asarray(exact_count_states(1, 8, seed=seed)))
    assert len(traces) == 1


def test_sizes_are_those_of_bincount():
    states = exact_count_states(2, 33, seed=3)
    labels = label_clusters(jnp.asarray(states))
    sizes = cluster_sizes(labels)
    expected = np.stack([np.bincount(x.ravel(), minlength=33 * 33 + 1)[1:] for x in np.asarray(labels)])
    np.testing.assert_array_equal(sizes, expected)
    np.testing.assert_array_equal(largest_cluster(labels), expected.max(axis=1))
    s = expected.astype(np.float64)
    np.testing.assert_allclose(mean_cluster_size(sizes), (s**2).sum(1) / s.sum(1), rtol=1e-6)


def test_empty_and_full_lattices():
    labels = label_clusters(jnp.stack([jnp.zeros((6, 6), bool), jnp.ones((6, 6), bool)]))
    sizes = cluster_sizes(labels)
    assert largest_cluster(labels).tolist() == [0, 36]
    assert strength(labels).tolist() == [0, 1]
    assert mean_cluster_size(sizes).tolist() == [0, 36]
    n_s = size_distribution(sizes)
    assert n_s.shape == (37,)
    assert float(n_s[36]) == pytest.approx(1 / 72) and float(n_s[:36].sum()) == 0


@pytest.mark.parametrize("size", [1, 2, 33])
def test_spanning_clusters_touch_opposite_edges(size):
    states = exact_count_states(8, size, seed=4)
    labels = label_clusters(jnp.asarray(states))
    expected = []
    for x in np.asarray(labels):
        joined = np.union1d(np.intersect1d(x[0], x[-1]), np.intersect1d(x[:, 0], x[:, -1]))
        expected.append(np.isin(x, joined[joined > 0]))
    np.testing.assert_array_equal(spanning_clusters(labels), expected)
    np.testing.assert_allclose(strength(labels), np.mean(expected, axis=(1, 2)), rtol=1e-6)
    assert 0 < np.any(expected, axis=(1, 2)).mean() < 1


def test_cluster_numbers_by_enumeration():
    """n_s of all 512 open 3 x 3 lattices, which is n_s at p = 1/2, by counting with union-find."""
    states = np.array(list(itertools.product([False, True], repeat=9))).reshape(-1, 3, 3)
    counts = np.zeros(10)
    for state in states:
        labels = union_find_labels(state, False)
        for label in np.unique(labels[labels > 0]):
            counts[(labels == label).sum()] += 1
    n_s = size_distribution(cluster_sizes(label_clusters(jnp.asarray(states))))
    np.testing.assert_allclose(n_s, counts / (512 * 9), rtol=1e-6)
    assert float((n_s * jnp.arange(10)).sum()) == pytest.approx(0.5)


def animal_numbers(p):
    """n_s of the infinite square lattice for s = 1 to 4: M. F. Sykes and M. Glen, J. Phys. A 9, 87 (1976)."""
    q = 1 - p
    return np.array([p * q**4, 2 * p**2 * q**6, p**3 * (2 * q**8 + 4 * q**7), p**4 * (2 * q**10 + 8 * q**9 + 9 * q**8)])


@pytest.mark.parametrize("p", [0.2, 0.5, 0.6])
def test_cluster_numbers_of_the_bulk(p):
    """Periodic lattices of L = 16 have no edge, so n_s of clusters too small to wind around it is exact. 2000 lattices;
    the standard error comes from their scatter; abs(z) < 5."""
    states = jnp.asarray(np.random.default_rng(5).random((2000, 16, 16)) < p)

    def z_values(labels):
        sizes = np.asarray(cluster_sizes(labels))
        per_lattice = np.stack([(sizes == s).sum(axis=1) for s in (1, 2, 3, 4)], axis=1) / 16**2
        np.testing.assert_allclose(size_distribution(cluster_sizes(labels))[1:5], per_lattice.mean(0), rtol=1e-5)
        return (per_lattice.mean(0) - animal_numbers(p)) / (per_lattice.std(0, ddof=1) / np.sqrt(len(labels)))

    assert np.abs(z_values(label_clusters(states, periodic=True))).max() < 5
    # Open boundaries cut clusters and lack neighbours at the edge: the same test refuses them.
    assert np.abs(z_values(label_clusters(states))).max() > 5


@pytest.mark.parametrize(
    "states", [jnp.zeros((2, 3, 4), bool), jnp.zeros((3, 3), bool), jnp.zeros((1, 0, 0), bool), jnp.zeros((1, 3, 3))]
)
def test_bad_states_are_refused(states):
    with pytest.raises(ValueError, match="states: expected bool"):
        clusters.label_clusters(states)


def test_bad_labels_and_sizes_are_refused():
    with pytest.raises(ValueError, match="chunk_size"):
        label_clusters(jnp.zeros((2, 3, 3), bool), chunk_size=0)
    for function in (cluster_sizes, largest_cluster, spanning_clusters, strength):
        with pytest.raises(ValueError, match="labels: expected int32"):
            function(jnp.zeros((2, 3, 3), bool))
    for function in (size_distribution, mean_cluster_size):
        with pytest.raises(ValueError, match="sizes: expected int32"):
            function(jnp.zeros((2, 3, 3), jnp.int32))
    with pytest.raises(ValueError, match="at least one lattice"):
        size_distribution(jnp.zeros((0, 9), jnp.int32))
