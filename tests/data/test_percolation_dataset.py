"""Percolation data sets: every target against an independent computation, and rows that depend on their index."""

import time

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.ndimage
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from physml_jax.core.rng import example_key
from physml_jax.data import percolation
from physml_jax.data.source import make_source
from physml_jax.simulators.percolation.correlation import published_correlation_length
from physml_jax.typing import BATCH_KEYS


def sampler(dataset, *, seed=0, split="test"):
    """index -> rows, compiled once per batch size."""
    fn = jax.jit(lambda index: dataset.sample(example_key(seed, split, index), index))
    return lambda index: jax.device_get(fn(jnp.asarray(index, jnp.int32)))


def abstract(n):
    """Keys and indices without values."""
    return jax.eval_shape(lambda: (jax.random.split(jax.random.key(0), n), jnp.zeros(n, jnp.int32)))


def cluster_labels(image):
    return scipy.ndimage.label(image[..., 0])[0]


def joined(labels, axis):
    first, last = np.take(labels, 0, axis), np.take(labels, -1, axis)
    return bool((np.intersect1d(first, last) > 0).any())


def correlation_length(image):
    """xi^2 = 2 sum R^2 s^2 / sum s^2 over clusters that span in no direction, R^2 the squared radius of gyration."""
    labels = cluster_labels(image)
    spanning = set(labels[0]) & set(labels[-1]) | set(labels[:, 0]) & set(labels[:, -1])
    above = below = 0.0
    for i in set(range(1, labels.max() + 1)) - spanning:
        sites = np.argwhere(labels == i)
        above += 2 * ((sites - sites.mean(0)) ** 2).sum(1).mean() * len(sites) ** 2
        below += len(sites) ** 2
    return np.sqrt(above / below) if below else 0.0


@pytest.mark.parametrize("states", ["random", "bernoulli", "pivotal", "cross_cut", "path", "lines"])
def test_labels_against_scipy_and_rows_that_know_their_own_index_only(states):
    densities = (0.2, 0.5, 0.6, 0.75)
    targets = ("label", "density", "spanning", "vertical", "connected")
    rows = sampler(percolation.make_dataset(size=13, densities=densities, states=states, targets=targets))
    index = np.arange(24)
    batch = rows(index)
    for j in index:
        image, labels = batch["image"][j], cluster_labels(batch["image"][j])
        assert set(np.unique(image)) == {0.0, 1.0}
        np.testing.assert_allclose(batch["density"][j], image.mean(), rtol=1e-6)
        assert batch["vertical"][j] == joined(labels, 0)
        assert batch["spanning"][j] == (joined(labels, 0) or joined(labels, 1))
        np.testing.assert_array_equal(batch["connected"][j][..., 0], np.isin(labels, labels[0][labels[0] > 0]))
    number = batch["image"].sum((1, 2, 3))
    exact = np.resize([round(p * 169) for p in densities], 24)
    if states != "pivotal":
        np.testing.assert_array_equal(batch["label"], index % 4)
        # A path may need more sites than the lowest density has, and cuts may leave room for fewer than the highest.
        assert (number == exact)[(index % 4 == 1) | (index % 4 == 2)].all() == (states != "bernoulli")
    shuffled = np.random.default_rng(0).permutation(24)
    jax.tree.map(lambda a, b: np.testing.assert_array_equal(a[shuffled], b), batch, rows(shuffled))


@pytest.mark.slow
@pytest.mark.parametrize("correlation", ["textbook", "published"])
def test_correlation_targets(correlation):
    """The textbook length against its definition; classes count the edges that the length exceeds."""
    edges = (0.8, 1.6)
    options = {"targets": ("correlation_class", "correlation_length"), "correlation_edges": edges}
    dataset = percolation.make_dataset(size=13, densities=(0.2, 0.5, 0.6), correlation=correlation, **options)
    batch = sampler(dataset)(np.arange(24))
    length = batch["correlation_length"]
    if correlation == "textbook":
        np.testing.assert_allclose(length, [correlation_length(i) for i in batch["image"]], rtol=1e-5, atol=1e-6)
        assert set(batch["correlation_class"]) == {0, 1, 2}
    else:
        expected = jax.jit(published_correlation_length)(jnp.asarray(batch["image"][..., 0] > 0))
        np.testing.assert_allclose(length, expected, rtol=1e-6)
        assert np.isfinite(length).all() and (length > 0).any()
    np.testing.assert_array_equal(batch["correlation_class"], (length[:, None] > np.float32(edges)).sum(1))


@pytest.mark.parametrize("states", percolation.STATES)
def test_the_spec_tells_the_truth(states):
    targets = tuple(percolation.TARGETS)
    dataset = percolation.make_dataset(size=5, states=states, targets=targets, correlation_edges=(1.0,))
    assert set(dataset.spec) == {"image", *targets} <= set(BATCH_KEYS)
    traced = jax.eval_shape(dataset.sample, *abstract(3))
    assert {k: (v.shape[1:], v.dtype) for k, v in traced.items()} == {
        k: (s.shape, s.dtype) for k, s in dataset.spec.items()
    }


def test_only_the_targets_are_there():
    assert set(percolation.make_dataset(size=4).spec) == {"image", "label", "density", "spanning"}
    dataset = percolation.make_dataset(size=4, targets=("connected",))
    assert set(dataset.spec) == {"image", "connected"} == set(jax.eval_shape(dataset.sample, *abstract(2)))


@pytest.mark.parametrize(("subset", "number"), [("all", 31), ("below", 12), ("above", 18)])
def test_subsets_of_the_published_densities(subset, number):
    dataset = percolation.make_dataset(size=40, subset=subset, targets=("label", "density"))
    batch = sampler(dataset)(np.arange(2 * number))
    np.testing.assert_array_equal(batch["label"], np.tile(np.arange(number), 2))
    assert len(np.unique(batch["density"])) == number
    assert subset != "below" or batch["density"].max() <= 0.58
    assert subset != "above" or batch["density"].min() > 0.589


@pytest.mark.slow
def test_neighbouring_examples_are_pivotal_pairs():
    """Through a source that shuffles: examples 2k and 2k + 1 differ by one moved site, and only one spans downward."""
    dataset = percolation.make_dataset(
        split="test",
        size=12,
        states="pivotal",
        targets=("spanning", "vertical", "density", "label"),
        num_examples=40,
        direction="vertical",
    )
    mesh = Mesh(np.array(jax.devices()[:4]), ("data",), axis_types=(AxisType.Auto,))
    sharding = NamedSharding(mesh, PartitionSpec("data"))
    collected = {}
    for seed, batch_size in ((0, 8), (1, 20)):
        source = make_source(dataset, seed=seed, split="test", batch_size=batch_size, sharding=sharding, shuffle=True)
        batches = [jax.device_get(source.batch(i)) for i in range(40 // batch_size)]
        joint = {k: np.concatenate([b[k] for b in batches]) for k in batches[0]}
        order = np.argsort(joint.pop("index"))
        assert seed or (order != np.arange(40)).any()
        collected[seed, batch_size] = {k: v[order] for k, v in joint.items()}
    batch = collected[0, 8]
    np.testing.assert_array_equal((batch["image"][::2] != batch["image"][1::2]).sum((1, 2, 3)), 2)
    np.testing.assert_array_equal(batch["density"][::2], batch["density"][1::2])
    np.testing.assert_array_equal(batch["vertical"], np.tile([1, 0], 20))
    densities = np.array(percolation.PUBLISHED_DENSITIES, np.float32)
    nearest = np.abs(batch["density"][:, None] - densities).argmin(1)
    np.testing.assert_array_equal(batch["label"], nearest)
    # Neither the batch size nor the seed changes a pair; the split does.
    for other in collected.values():
        jax.tree.map(np.testing.assert_array_equal, batch, other)
    train = percolation.make_dataset(split="train", size=12, states="pivotal", targets=())
    assert (sampler(train)(np.arange(40))["image"] != batch["image"]).any()


@pytest.mark.slow
@pytest.mark.parametrize(
    ("options", "sites", "spans"),
    [
        ({"states": "cross_cut", "thickness": 3}, 13 * 13, {"vertical": False, "spanning": False}),
        ({"states": "row_cut", "thickness": 2}, 14 * 16, {"vertical": False, "spanning": True}),
        ({"states": "anti_path", "law": "staircase"}, 256 - 31, {}),
        ({"states": "anti_path", "law": "staircase", "orientation": "horizontal"}, 256 - 31, {"vertical": False}),
    ],
)
def test_options_reach_the_states(options, sites, spans):
    batch = sampler(percolation.make_dataset(size=16, densities=(1.0,), targets=("spanning", "vertical"), **options))(
        np.arange(20)
    )
    np.testing.assert_array_equal(batch["image"].sum((1, 2, 3)), sites)
    for key, value in spans.items():
        np.testing.assert_array_equal(batch[key], value)


def test_the_number_of_lines_reaches_the_states():
    options = {"size": 16, "states": "empty_lines", "densities": (1.0,), "targets": ()}
    one, three = (sampler(percolation.make_dataset(num_lines=n, **options))(np.arange(20)) for n in (1, 3))
    assert three["image"].mean() < one["image"].mean() < 1


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"size": 0}, "size: expected"),
        ({"densities": ()}, "densities: expected at least one"),
        ({"densities": (0.5, 1.2)}, "densities: .*from 0 to 1"),
        ({"states": "ising"}, "states: there is no 'ising'; available: random, bernoulli, pivotal"),
        ({"targets": ("label", "colour")}, "targets: expected a list from label, density, .*got 'colour'"),
        ({"targets": "label"}, "targets: expected a list .*got 'label'"),
        ({"subset": "middle"}, "subset: there is no 'middle'; available: all, below, above"),
        ({"subset": "above", "densities": (0.2, 0.585)}, "subset: no density above 0.585"),
        ({"targets": ("correlation_class",)}, "correlation_edges: .*at least one edge"),
        ({"correlation": "guessed"}, "correlation: there is no 'guessed'; available: textbook, published"),
        ({"correlation_edges": (2.0, 1.0)}, "correlation_edges: expected increasing"),
        ({"correlation_edges": (1.0, float("nan"))}, "correlation_edges: expected increasing finite"),
        ({"states": "pivotal", "direction": "down"}, "direction: expected one of"),
        ({"states": "pivotal", "num_examples": 7}, "num_examples: expected an even number"),
        ({"states": "path", "law": "drunk"}, "law: expected one of"),
        ({"states": "path", "orientation": "down"}, "orientation: expected one of"),
        ({"states": "cross_cut", "thickness": 9}, "thickness: expected"),
        ({"states": "lines", "num_lines": -1}, "num_lines: expected"),
    ],
)
def test_bad_options_are_refused_before_anything_runs(options, message):
    with pytest.raises(ValueError, match=message):
        percolation.make_dataset(**{"size": 8, **options})


def test_making_a_dataset_is_quick():
    """It is made for every split and probe of an experiment, also where nothing runs."""
    start = time.process_time()
    percolation.make_dataset(size=100, states="pivotal")
    assert time.process_time() - start < 5
