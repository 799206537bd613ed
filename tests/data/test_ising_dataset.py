"""The Ising data set: which state is which example, what splits and regions share, what is said about bad points."""

from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from absl import logging
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from configs import ising_ferromagnet, ising_superantiferromagnet
from physml_jax.data import ising, ising_grid, manifest, store
from physml_jax.data.source import make_source
from physml_jax.simulators import ising as simulator
from physml_jax.simulators.ising.packing import unpack
from physml_jax.training import setup

TINY = dict(
    size=4, temperatures=(2.0, 1.0, 0.5, 0.4), j2=(0.0, 0.3, 0.7), sweeps_per_temperature=4, max_sweeps=4, bits=16
)


@pytest.fixture
def stand_in(monkeypatch):
    """Random states instead of a simulation, which has tests of its own; the coldest point of J2 = 0.3 fails."""
    calls = []

    def equilibrate(key, *, size, temperatures, j2, rows, num_replicas, **options):
        calls.append(dict(size=size, temperatures=temperatures, j2=j2, rows=rows, num_replicas=num_replicas, **options))
        shape = (1, len(temperatures), num_replicas // 32, size, size)
        passed = np.ones(shape[:2], bool)
        passed[0, -1] = rows[0] != 1
        floats = {name: np.full((*shape[:2], *form), rows[0], np.float32) for name, form in ising.EVIDENCE.items()}
        states = jax.random.bits(jax.random.fold_in(key, rows[0]), shape, jnp.uint32)
        return SimpleNamespace(states=states, evidence=SimpleNamespace(equilibrated=passed, **floats))

    monkeypatch.setattr(simulator, "equilibrate", equilibrate, raising=False)
    return calls


def source_of(dataset, read, batch_size=8, **kwargs):
    mesh = Mesh(np.array(jax.devices()[:1]), ("data",), axis_types=(AxisType.Auto,))
    defaults = {"seed": 0, "split": "test", "shuffle": False, "sharding": NamedSharding(mesh, PartitionSpec("data"))}
    return make_source(dataset, read=read, batch_size=batch_size, **{**defaults, **kwargs})


def everything(dataset, read):
    """All examples of a split, in order."""
    source = source_of(dataset, read, batch_size=16)
    batches = [jax.device_get(source.batch(i)) for i in range(-(-source.num_examples // 16))]
    joined = {key: np.concatenate([b[key] for b in batches]) for key in batches[0]}
    return {key: value[joined["weight"] == 1] for key, value in joined.items()}


def test_the_grid_is_the_published_one():
    assert len(ising.TEMPERATURES) == 158 and len(ising.J2) == 22
    assert ising.TEMPERATURES[0] == 4.0 and ising.TEMPERATURES[-1] == 0.075 and 2.25 in ising.TEMPERATURES
    np.testing.assert_allclose(np.diff(ising.TEMPERATURES), -0.025, atol=1e-12)
    assert ising.J2[0] == 0 and ising.J2[-1] == 1.5 and 0.5 in ising.J2 and list(ising.J2) == sorted(set(ising.J2))
    sizes = {
        name: ising.make_dataset(region=name).num_examples for name in ("all", "ferromagnet", "superantiferromagnet")
    }
    # 18 temperatures up to 0.5; 5 couplings up to 0.4, 10 from 0.6; half of 64 replicas.
    assert sizes == {"all": 158 * 22 * 32, "ferromagnet": 18 * 5 * 32, "superantiferromagnet": 18 * 10 * 32}


def test_every_example_is_one_replica_of_one_point(stand_in):
    dataset = ising.make_dataset(**TINY, num_replicas=64, split="validation", fractions=(0.25, 0.5, 0.25))
    read = store.in_memory(dataset.recipe)
    found = everything(dataset, read)
    records = read(np.arange(24))
    spins = np.asarray(unpack(jnp.asarray(records["words"]).reshape(3, 4, 2, 4, 4)))
    # By coupling, then from hot to cold, then the middle half of the replicas.
    np.testing.assert_array_equal(found["spins"][..., 0], spins[:, :, 16:48].reshape(-1, 4, 4))
    np.testing.assert_array_equal(found["j2"], np.repeat(np.float32(TINY["j2"]), 4 * 32))
    np.testing.assert_array_equal(found["temperature"], np.tile(np.repeat(np.float32(TINY["temperatures"]), 32), 3))
    coldest = (found["j2"] == np.float32(0.3)) & (found["temperature"] < 0.45)
    np.testing.assert_array_equal(found["equilibrated"] == 0, coldest)
    assert {key: (value.shape[1:], value.dtype) for key, value in found.items() if key in dataset.spec} == {
        key: (s.shape, s.dtype) for key, s in dataset.spec.items()
    }
    assert set(np.unique(found["spins"])) == {-1, 1}


def test_splits_share_no_replica_and_each_has_both_starts():
    parts = {s: ising_grid.replicas(64, split=s, fractions=(0.5, 0.2, 0.3)) for s in ising_grid.SPLITS}
    assert [len(parts[s]) for s in ising_grid.SPLITS] == [32, 12, 20]
    np.testing.assert_array_equal(np.sort(np.concatenate(list(parts.values()))), np.arange(64))
    for part in parts.values():
        assert np.sum(part % 2) == len(part) // 2
        assert set(part[::2] + 1) == set(part[1::2])
    np.testing.assert_array_equal(ising_grid.replicas(64, split="probe/x", fractions=(0.5, 0.2, 0.3)), parts["test"])


def test_the_beginning_of_the_training_split_covers_all_points(stand_in):
    dataset = ising.make_dataset(**TINY, num_replicas=32, region="all", fractions=(0.5, 0.25, 0.25))
    read = store.in_memory(dataset.recipe)
    first = {key: value[:12] for key, value in everything(dataset, read).items()}
    assert len(set(zip(first["temperature"], first["j2"], strict=True))) == 12
    np.testing.assert_array_equal(dataset.rows[:12], np.arange(12))


def test_regions_splits_and_strides_share_one_stored_set():
    base = ising.make_dataset(**TINY)
    same = [
        dict(split="test"),
        dict(region="ferromagnet"),
        dict(region="superantiferromagnet", split="validation"),
        dict(temperature_stride=2, replicas_per_point=4, j2_subset=(0.3,)),
        dict(max_temperature=1.0, min_j2=0.1, max_j2=0.5, only_equilibrated=True),
        dict(fractions=(0.8, 0.1, 0.1)),
        dict(temperatures=TINY["temperatures"][::-1]),
    ]
    for change in same:
        other = ising.make_dataset(**{**TINY, **change})
        assert manifest.folder_name(other.recipe) == manifest.folder_name(base.recipe), change
    other = [
        dict(simulation_seed=1),
        dict(size=6),
        dict(num_replicas=32),
        dict(max_sweeps=8),
        dict(exchange=False),
        dict(exchange_every=2),
        dict(start="hot"),
        dict(bits=24),
        dict(generator="threefry"),
        dict(rule="heat_bath"),
        dict(temperatures=(2.0, 1.0, 0.5)),
        dict(j2=(0.0, 0.3)),
        dict(sweeps_per_temperature=2),
    ]
    names = {manifest.folder_name(ising.make_dataset(**{**TINY, **change}).recipe) for change in other}
    assert len(names) == len(other) and manifest.folder_name(base.recipe) not in names


@pytest.mark.parametrize("variant", ["", "smoke", "L60"])
def test_the_experiments_on_both_regions_share_one_stored_set(variant):
    configs = (ising_ferromagnet.get_config(variant), ising_superantiferromagnet.get_config(variant))
    names = set()
    for config in configs:
        data = setup.plain(config)["data"]
        for kwargs in ({}, data["eval_kwargs"], {**data["eval_kwargs"], **data["test_kwargs"]}):
            names.add(manifest.folder_name(ising.make_dataset(**{**data["kwargs"], **kwargs}).recipe))
    assert len(names) == 1 and configs[0].data.kwargs.region != configs[1].data.kwargs.region


@pytest.mark.parametrize(
    ("choice", "temperatures", "j2"),
    [
        (dict(region="ferromagnet"), {0.5, 0.4}, {0.0, 0.3}),
        (dict(region="superantiferromagnet"), {0.5, 0.4}, {0.7}),
        (dict(region="ferromagnet", max_temperature=0.45, min_j2=0.1), {0.4}, {0.3}),
        (dict(region="all", max_temperature=1.0, max_j2=0.3), {1.0, 0.5, 0.4}, {0.0, 0.3}),
        (dict(temperature_stride=3), {2.0, 0.4}, {0.0, 0.3, 0.7}),
        (dict(j2_subset=(0.7, 0.0)), {2.0, 1.0, 0.5, 0.4}, {0.0, 0.7}),
    ],
)
def test_the_region_decides_the_points(stand_in, choice, temperatures, j2):
    dataset = ising.make_dataset(**TINY, num_replicas=32, split="test", replicas_per_point=2, **choice)
    assert dataset.num_examples == 2 * len(temperatures) * len(j2)
    found = everything(dataset, store.in_memory(dataset.recipe))
    assert {round(float(x), 4) for x in found["temperature"]} == temperatures
    assert {round(float(x), 4) for x in found["j2"]} == j2


def test_a_row_is_simulated_with_what_was_asked_for(stand_in):
    options = {**TINY, "temperatures": (0.5, 1.0), "generator": "threefry", "rule": "heat_bath", "start": "ordered"}
    dataset = ising.make_dataset(**options, num_replicas=32, exchange=False, exchange_every=2, simulation_seed=5)
    alone = dataset.recipe.shard(2)
    (call,) = stand_in
    np.testing.assert_array_equal(call.pop("temperatures"), np.float32([1.0, 0.5]))
    np.testing.assert_array_equal(call.pop("j2"), np.float32([0.7]))
    np.testing.assert_array_equal(call.pop("rows"), [2])
    expected = dict(size=4, num_replicas=32, sweeps_per_temperature=4, max_sweeps=4, exchange=False, exchange_every=2)
    expected |= dict(start="ordered", bits=16, generator="threefry", rule="heat_bath", packed=True)
    assert call == expected
    assert [r["temperature"] for r in alone] == [1.0, 0.5] and all(r["j2"] == np.float32(0.7) for r in alone)
    whole = store.in_memory(dataset.recipe)(np.array([4, 5]))
    for key, value in whole.items():
        np.testing.assert_array_equal(value, np.stack([r[key] for r in alone]))


def test_points_out_of_equilibrium_are_named_and_can_be_left_out(stand_in, tmp_path):
    dataset = ising.make_dataset(**TINY, num_replicas=32, split="test")
    opened = store.open_store(store.build(dataset.recipe, root=tmp_path))
    assert opened.remarks == ("J2 = 0.3: 1 of 4 temperatures did not reach equilibrium (T = 0.4)",)
    some = ising.make_dataset(**TINY, num_replicas=32, split="test", only_equilibrated=True)
    kept, all_of_them = everything(some, opened.read), everything(dataset, opened.read)
    flags = all_of_them["equilibrated"] == 1
    assert 0 < np.sum(~flags) == dataset.num_examples // 12
    for key, value in kept.items():
        np.testing.assert_array_equal(value, all_of_them[key][flags], err_msg=key)
    nothing = ising.make_dataset(
        **TINY, num_replicas=32, split="test", only_equilibrated=True, j2_subset=(0.3,), max_temperature=0.45
    )
    with pytest.raises(ValueError, match="none of the 8 examples of the split 'test' can be used"):
        source_of(nothing, opened.read)


def test_an_experiment_opens_the_records_once_and_warns_once(stand_in, tmp_path, monkeypatch):
    said = []
    monkeypatch.setenv("PHYSML_CACHE", str(tmp_path))
    monkeypatch.setattr(logging, "warning", lambda text, *args: said.append(text % args))
    splits = {
        "train": dict(region="ferromagnet"),
        "validation": {},
        "test": {},
        "probe/cold": dict(max_temperature=0.5),
    }
    experiment = setup.Experiment(
        config={
            "seed": 0,
            "num_seeds": 1,
            "data": {"source": "stored", "batch_size": 8, "eval_batch_size": 8},
            "report": {"max_reference": 16},
        },
        task=None,
        member=None,
        datasets={s: ising.make_dataset(**TINY, num_replicas=32, split=s, **kwargs) for s, kwargs in splits.items()},
        report=None,
    )
    mesh = Mesh(np.array(jax.devices()[:1]), ("data",), axis_types=(AxisType.Auto,))
    sources = setup.open_sources(experiment, mesh)
    assert said == ["ising_L4: J2 = 0.3: 1 of 4 temperatures did not reach equilibrium (T = 0.4)"]
    assert len(stand_in) == 3 and len(setup.recipes(experiment)) == 1
    assert {name: source.num_examples for name, source in sources.items()} == {
        "train": 2 * 2 * 16,
        "reference": 2 * 2 * 16,
        "validation": 12 * 8,
        "test": 12 * 8,
        "probe/cold": 2 * 3 * 8,
    }
    batch = sources["train"].batch(3)
    assert batch["spins"].shape == (8, 4, 4, 1) and set(batch) == set(sources["train"].spec)
    setup.open_sources(experiment, mesh)
    assert len(said) == 2 and len(stand_in) == 3, "the records were in the cache"


@pytest.mark.parametrize(
    ("failed", "text"),
    [
        ((), None),
        ((2,), "1 of 6 temperatures did not reach equilibrium (T = 0.3)"),
        ((0, 1, 5), "3 of 6 temperatures did not reach equilibrium (T = 0.1 to 0.2, 0.6)"),
        (range(6), "6 of 6 temperatures did not reach equilibrium (T = 0.1 to 0.6)"),
    ],
)
def test_the_remark_names_stretches_of_temperature(failed, text):
    temperatures = np.repeat(np.arange(6, 0, -1), 2).astype(np.float32) / np.float32(10)
    passed = np.array([round(float(t) * 10) - 1 not in failed for t in temperatures]).astype(np.int32)
    records = {"temperature": temperatures, "j2": np.full(12, 0.5, np.float32), "equilibrated": passed}
    recipe = ising.make_dataset(**TINY).recipe
    assert recipe.remarks(records) == ([] if text is None else [f"J2 = 0.5: {text}"])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (dict(size=5), "size: expected an even integer of at least 4, got 5"),
        (dict(size=2), "size"),
        (dict(temperatures=()), "temperatures: expected finite positive"),
        (dict(temperatures=(1.0, 0.0)), "temperatures: expected finite positive"),
        (dict(temperatures=(1.0, np.nan)), "temperatures: expected finite positive"),
        (dict(temperatures=(1.0, 0.5, 0.7)), "temperatures: expected them in descending or ascending order"),
        (dict(temperatures=(1.0, 0.5, 0.5)), "temperatures"),
        (dict(j2=()), "j2: expected increasing"),
        (dict(j2=(-0.1, 0.5)), "j2: expected increasing"),
        (dict(j2=(0.5, 0.5)), "j2: expected increasing"),
        (dict(num_replicas=48), "num_replicas: expected a multiple of 32, got 48"),
        (dict(num_replicas=0), "num_replicas"),
        (dict(sweeps_per_temperature=0), "sweeps_per_temperature"),
        (dict(exchange_every=0), "exchange_every"),
        (dict(exchange_every=3), "sweeps_per_temperature: expected a multiple of exchange_every = 3, got 4"),
        (dict(exchange=False, num_replicas=32), "num_replicas: expected a multiple of 64 without exchange"),
        (dict(max_sweeps=3), "max_sweeps: expected at least sweeps_per_temperature = 4, got 3"),
        (dict(bits=33), "bits"),
        (dict(start="cold"), "start: there is no 'cold'; available: hot, ordered, both"),
        (dict(generator="rbg"), "generator"),
        (dict(rule="glauber"), "rule"),
        (dict(simulation_seed=-1), "seed"),
        (dict(region="stripes"), "region: there is no 'stripes'; available: all, ferromagnet"),
        (dict(max_temperature=np.nan), "max_temperature: expected a finite number"),
        (dict(max_temperature=0.3), "no simulated point has T <= 0.3"),
        (dict(region="ferromagnet", min_j2=0.6), "no simulated point"),
        (dict(temperature_stride=0), "temperature_stride"),
        (dict(j2_subset=(0.3, 0.31)), r"j2_subset: \[0.31\] not among"),
        (dict(j2_subset=()), "no simulated point"),
        (dict(split="holdout"), "split: expected one of train, validation, test"),
        (dict(fractions=(0.5, 0.5)), "fractions"),
        (dict(fractions=(0.5, 0.6, -0.1)), "fractions"),
        (dict(fractions=(1.0, 0.0, 0.0), split="test"), "fractions: the split 'test' has no replica"),
        (dict(replicas_per_point=17, split="test"), "replicas_per_point: expected 1 to 16"),
        (dict(replicas_per_point=0), "replicas_per_point"),
    ],
)
def test_bad_arguments_are_named(change, message):
    with pytest.raises(ValueError, match=message):
        ising.make_dataset(**{**TINY, "num_replicas": 64, **change})


def test_real_rows_are_in_equilibrium_and_the_same_when_computed_alone():
    """A hot ladder of 4 x 4 spins. The states are one sample of what the evidence averages: 32 replicas, |z| < 5."""
    options = dict(size=4, temperatures=(4.0, 3.5, 3.0), j2=(0.0, 0.7), num_replicas=32)
    dataset = ising.make_dataset(**options, sweeps_per_temperature=200, max_sweeps=1600, split="test")
    records = store.in_memory(dataset.recipe)(np.arange(6))
    assert records["equilibrated"].all() and dataset.recipe.remarks(records) == []
    assert np.all(np.abs(records["z_energy"]) < 4) and np.all(records["acceptance"] > 0.3)
    spins = unpack(jnp.asarray(records["words"])[:, None])
    energy = simulator.energy(spins, jnp.asarray(records["j2"])[:, None])
    error = np.asarray(energy).std(1, ddof=1) / np.sqrt(32)
    assert np.all(np.abs(np.asarray(energy).mean(1) - records["mean"][:, 0]) < 5 * error)
    assert np.all(np.diff(records["mean"][:, 0].reshape(2, 3), axis=1) < 0), "cooling lowers the energy"
    for j, record in enumerate(dataset.recipe.shard(1)):
        for key, value in record.items():
            np.testing.assert_array_equal(value, records[key][3 + j], err_msg=key)
