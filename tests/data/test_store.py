"""Stored data sets: what is built is what the recipe says, and bad recipes and records are refused by name."""

import json
import subprocess
import sys
import threading
import time

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from physml_jax.core.rng import example_key
from physml_jax.data import manifest, parts, percolation, store
from physml_jax.typing import Recipe

SHAPE = jax.ShapeDtypeStruct
SPEC = {"image": SHAPE((3, 4, 1), np.float32), "label": SHAPE((), np.int32), "density": SHAPE((1,), np.float64)}
LENGTHS = (3, 1, 4)


def record(n):
    rng = np.random.default_rng(n)
    return {
        "image": rng.normal(size=(3, 4, 1)).astype(np.float32),
        "label": np.int32(n - 2),
        "density": rng.uniform(size=1),
    }


def make_recipe(calls=None, change=None, **fields):
    def shard(i):
        if calls is not None:
            calls.append(i)
        start = sum(LENGTHS[:i])
        rows = [record(start + j) for j in range(LENGTHS[i])]
        return change(i, rows) if change else rows

    labels = tuple(f"r{n}" for n in range(sum(LENGTHS)))
    values = dict(name="toy", config={"a": 1}, spec=SPEC, shard_lengths=LENGTHS, shard=shard, labels=labels)
    return Recipe(**{**values, **fields})


def test_built_records_are_those_of_the_recipe(tmp_path):
    seen = []
    attribution = ({"source": "a database", "licence": "CC0-1.0"},)
    path = store.build(make_recipe(attribution=attribution), root=tmp_path, progress=lambda *a: seen.append(a))
    opened = store.open_store(path)
    assert opened.length == 8 and opened.labels[5] == "r5" and opened.spec == SPEC
    rows = [7, 0, 3, 3]
    got = opened.read(np.array(rows))
    for key, s in SPEC.items():
        want = np.stack([record(n)[key] for n in rows])
        np.testing.assert_array_equal(got[key], want)
        assert got[key].dtype == s.dtype
    assert opened.manifest["attribution"] == list(attribution) and opened.manifest["config"] == {"a": 1}
    assert opened.manifest["versions"]["jax"] == jax.__version__
    assert [s[:2] for s in seen[:3]] == [(1, 3), (2, 3), (3, 3)] and "shard 2 of 3" in seen[1][2]
    assert store.verify(path) == []
    assert sorted(p.name for p in path.iterdir()) == ["manifest.json", "records"]


def test_reading_from_disk_equals_reading_from_memory(tmp_path, monkeypatch):
    monkeypatch.setattr(store, "FILE_BYTES", 50)  # so that there are several files
    path = store.build(make_recipe(), root=tmp_path)
    assert len(list((path / "records").glob("*array_record*"))) == 3
    rows = np.array([6, 1, 5, 0, 7])
    held, direct = store.open_store(path).read(rows), store.open_store(path, memory_limit=0).read(rows)
    for key in SPEC:
        np.testing.assert_array_equal(held[key], direct[key])
    empty = store.open_store(path, memory_limit=0).read([])
    assert empty["image"].shape == (0, 3, 4, 1)


def test_second_build_reuses_the_first(tmp_path):
    calls = []
    first = store.build(make_recipe(calls), root=tmp_path)
    second = store.build(make_recipe(calls), root=tmp_path)
    assert first == second and calls == [0, 1, 2]


def test_folder_depends_on_config_spec_and_shards(tmp_path):
    names = {
        manifest.folder_name(r)
        for r in (
            make_recipe(),
            make_recipe(config={"a": 2}),
            make_recipe(spec={**SPEC, "label": SHAPE((), np.int64)}),
            make_recipe(shard_lengths=(4, 4)),
        )
    }
    assert len(names) == 4
    assert manifest.folder_name(make_recipe(config={"b": (1, 2), "a": 1})) == manifest.folder_name(
        make_recipe(config={"a": 1, "b": [1, 2]})
    )


def test_rows_out_of_range_are_refused(tmp_path):
    opened = store.open_store(store.build(make_recipe(), root=tmp_path))
    for rows in ([8], [-1], [0, 99]):
        with pytest.raises(ValueError, match=r"rows: expected record numbers from 0 to 7"):
            opened.read(rows)


def break_value(value):
    def change(i, rows):
        if i == 2:
            rows[1]["density"] = np.array([value])
        return rows

    return change


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_value_that_is_not_finite_is_named(tmp_path, value):
    with pytest.raises(ValueError, match=r"toy: record 5 \(r5\): density has 1 of 1 values that are not finite"):
        store.build(make_recipe(change=break_value(value)), root=tmp_path)
    # The good shards are kept: with the cause removed, only the bad one is computed.
    calls = []
    assert store.verify(store.build(make_recipe(calls), root=tmp_path)) == []
    assert calls == [2]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda i, rows: rows[:-1], r"expected 3 records in shard 0, got 2"),
        (lambda i, rows: [{**r, "label": np.int64(1)} for r in rows], r"label is int64\[\], expected int32\[\]"),
        (lambda i, rows: [{**r, "image": r["image"][..., 0]} for r in rows], r"image is float32\[3, 4\], expected"),
        (lambda i, rows: [{"image": r["image"]} for r in rows], r"record 0 \(r0\) has the keys \['image'\], expected"),
    ],
)
def test_record_that_differs_from_the_spec_is_refused(tmp_path, change, message):
    with pytest.raises(ValueError, match=message):
        store.build(make_recipe(change=change), root=tmp_path)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"name": "a/b"}, "recipe.name"),
        ({"config": {"x": float("nan")}}, "recipe.config of 'toy'"),
        ({"config": {"x": np.float32(1)}}, "recipe.config of 'toy'"),
        ({"shard_lengths": ()}, "recipe.shard_lengths"),
        ({"shard_lengths": (8, 0)}, "recipe.shard_lengths"),
        ({"labels": ("a",)}, "recipe.labels of 'toy': expected 8 or none, got 1"),
        ({"spec": {"z": SHAPE((2,), np.complex64)}}, "z is complex64; store real and imaginary parts apart"),
    ],
)
def test_recipe_that_contradicts_itself_is_refused(tmp_path, fields, message):
    with pytest.raises(ValueError, match=message):
        store.build(make_recipe(**fields), root=tmp_path)


def test_process_numbers_are_checked(tmp_path):
    with pytest.raises(ValueError, match="process_index: expected 0 to 1"):
        store.build(make_recipe(), root=tmp_path, process_index=2, num_processes=2)


def test_each_process_begins_with_its_own_shards(tmp_path):
    calls = []
    store.build(make_recipe(calls), root=tmp_path, process_index=1, num_processes=2)
    assert calls == [1, 0, 2]


def test_interrupt_passes_through_and_the_next_build_goes_on(tmp_path):
    calls = []

    def stop(i, rows):
        if i == 1:
            raise KeyboardInterrupt
        return rows

    with pytest.raises(KeyboardInterrupt):
        store.build(make_recipe(calls, stop), root=tmp_path)
    path = store.build(make_recipe(calls), root=tmp_path)
    assert calls == [0, 1, 1, 2] and store.verify(path) == []


def test_folder_without_manifest_is_not_a_data_set(tmp_path):
    path = store.build(make_recipe(), root=tmp_path)
    text = (path / "manifest.json").read_text()
    (path / "manifest.json").unlink()
    with pytest.raises(OSError, match=r"manifest.json: missing"):
        store.open_store(path)
    (path / "manifest.json").write_text(json.dumps({**json.loads(text), "num_records": 9}))
    with pytest.raises(OSError, match="differs from its own digest"):
        store.open_store(path)


def test_leftovers_of_a_killed_build_are_removed_on_reuse(tmp_path):
    path = store.build(make_recipe(), root=tmp_path)
    (path / "parts").mkdir()
    (path / "parts" / "00000.npz").write_bytes(b"x")
    (path / ".records.abc").mkdir()
    assert store.build(make_recipe(), root=tmp_path) == path
    assert sorted(p.name for p in path.iterdir()) == ["manifest.json", "records"] and store.verify(path) == []


def test_simulated_rows_are_stored_as_they_are_simulated(tmp_path):
    dataset = percolation.make_dataset(size=8, densities=(0.3, 0.6))
    arguments = dict(name="percolation", config={"size": 8}, seed=3, split="test", size=10)
    recipe = store.recipe_from_samples(dataset, **arguments, shard_size=4)
    assert recipe.shard_lengths == (4, 4, 2)
    opened = store.open_store(store.build(recipe, root=tmp_path))
    index = jnp.arange(10)
    want = jax.jit(dataset.sample)(example_key(3, "test", index), index)
    got = opened.read(np.arange(10))
    for key in dataset.spec:
        np.testing.assert_array_equal(got[key], np.asarray(want[key]))
    other = store.recipe_from_samples(dataset, **{**arguments, "seed": 4}, shard_size=4)
    assert manifest.folder_name(other) != manifest.folder_name(recipe)


def test_recipe_from_samples_refuses_what_it_cannot_do():
    dataset = percolation.make_dataset(size=8)
    with pytest.raises(ValueError, match="size, shard_size: expected at least 1"):
        store.recipe_from_samples(dataset, name="p", config={}, seed=0, split="train", size=0)
    with pytest.raises(ValueError, match="no sample function"):
        store.recipe_from_samples(dataset._replace(sample=None), name="p", config={}, seed=0, split="train", size=1)


def test_importing_the_store_does_not_import_tfds():
    code = "import sys, physml_jax.data.store; assert 'tensorflow_datasets' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_building_does_not_import_tensorflow(tmp_path):
    store.build(make_recipe(), root=tmp_path)
    assert "tensorflow" not in sys.modules


def test_part_of_another_shard_is_not_taken(tmp_path):
    recipe = make_recipe()
    (tmp_path / "parts").mkdir()
    parts.write_part(recipe, tmp_path, 0)
    (tmp_path / "parts" / "00000.npz").rename(tmp_path / "parts" / "00001.npz")
    assert parts.read_part(recipe, tmp_path, 1) is None


def test_remarks_are_kept_in_the_manifest(tmp_path):
    def remarks(arrays):
        return [f"label {n} is odd" for n in arrays["label"] if n % 2]

    opened = store.open_store(store.build(make_recipe(remarks=remarks), root=tmp_path))
    assert opened.remarks == ("label -1 is odd", "label 1 is odd", "label 3 is odd", "label 5 is odd")
    assert store.verify(opened.path) == []
    assert store.open_store(store.build(make_recipe(config={"a": 2}), root=tmp_path)).remarks == ()


def test_workers_change_the_time_and_nothing_else(tmp_path):
    """Four shards at once, of which each waits until another one has begun."""
    begun = threading.Barrier(2, timeout=20)
    lengths = (2, 2, 2, 2)

    def shard(i):
        begun.wait()
        return [record(2 * i + j) for j in range(2)]

    seen = []
    recipe = make_recipe(shard=shard, shard_lengths=lengths)
    path = store.build(recipe._replace(workers=2), root=tmp_path / "two", progress=lambda *a: seen.append(a))
    assert [s[0] for s in seen[:4]] == [1, 2, 3, 4] and {s[2].split()[2] for s in seen[:4]} == set("1234")
    alone = recipe._replace(shard=lambda i: [record(2 * i + j) for j in range(2)])
    expected = store.open_store(store.build(alone, root=tmp_path / "one")).manifest["digest"]
    assert store.open_store(path).manifest["digest"] == expected
    with pytest.raises(ValueError, match="workers of 'toy': expected at least 1, got 0"):
        store.build(recipe._replace(workers=0), root=tmp_path)


def test_an_error_in_one_worker_ends_the_build(tmp_path):
    begun = []

    def shard(i):
        begun.append(i)
        time.sleep(0.05)
        if i == 0:
            raise ValueError("the first shard is bad")
        return [record(i)]

    recipe = make_recipe(shard=shard, shard_lengths=(1,) * 8, workers=2)
    with pytest.raises(ValueError, match="the first shard is bad"):
        store.build(recipe, root=tmp_path)
    assert len(begun) < 6
    store.build(recipe._replace(shard=lambda i: [record(i)]), root=tmp_path)


def test_in_memory_is_what_the_store_holds(tmp_path):
    stored = store.open_store(store.build(make_recipe(), root=tmp_path)).read([6, 0, 3])
    held = store.in_memory(make_recipe())([6, 0, 3])
    assert set(held) == set(stored)
    for key, value in held.items():
        np.testing.assert_array_equal(value, stored[key])
    spoilt = make_recipe(change=lambda i, rows: [{**r, "density": r["density"] * np.nan} for r in rows])
    with pytest.raises(ValueError, match=r"record 0.*density has 1 of 1 values that are not finite"):
        store.in_memory(spoilt)
