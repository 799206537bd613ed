"""Batches as a function of the step: the same rows whatever the layout."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from physml_jax.data import percolation
from physml_jax.data.source import make_source
from physml_jax.typing import Dataset


def over(num_devices):
    mesh = Mesh(np.array(jax.devices()[:num_devices]), ("data",), axis_types=(AxisType.Auto,))
    return NamedSharding(mesh, PartitionSpec("data"))


def simulated(num_examples=None, **kwargs):
    defaults = {"seed": 1, "split": "train", "batch_size": 8, "sharding": over(4), "shuffle": True}
    return make_source(percolation.make_dataset(size=6, num_examples=num_examples), **{**defaults, **kwargs})


def stored(size, **kwargs):
    records = np.arange(100, 200, dtype=np.float32)
    dataset = Dataset(spec={"x": jax.ShapeDtypeStruct((), jnp.float32)}, num_examples=size, rows=np.arange(size) * 2)
    defaults = {"seed": 1, "split": "train", "batch_size": 4, "sharding": over(4), "shuffle": True}
    return make_source(dataset, read=lambda rows: {"x": records[rows]}, **{**defaults, **kwargs})


@pytest.mark.parametrize("num_devices", [pytest.param(1, marks=pytest.mark.slow), 2])
def test_rows_do_not_depend_on_the_number_of_devices(num_devices):
    few, four = simulated(sharding=over(num_devices)).batch(3), simulated().batch(3)
    assert four["image"].sharding.num_devices == 4
    jax.tree.map(np.testing.assert_array_equal, few, four)


def test_rows_do_not_depend_on_the_batch_size():
    small, large = simulated(batch_size=4), simulated(batch_size=8)
    joined = np.concatenate([small.batch(2)["image"], small.batch(3)["image"]])
    np.testing.assert_array_equal(joined, large.batch(1)["image"])


def test_another_seed_or_split_is_other_data():
    base = np.asarray(simulated().batch(0)["image"])
    assert (base != simulated(seed=2).batch(0)["image"]).any()
    assert (base != simulated(split="test").batch(0)["image"]).any()


def test_an_epoch_visits_every_example_once_in_a_new_order():
    source = stored(20)
    epochs = [np.concatenate([source.batch(5 * e + i)["x"] for i in range(5)]) for e in range(2)]
    for epoch in epochs:
        np.testing.assert_array_equal(np.sort(epoch), 100 + 2 * np.arange(20))
    assert (epochs[0] != epochs[1]).any()


def test_a_batch_across_two_epochs_is_a_function_of_the_step():
    """Six examples in batches of four: step 1 ends one epoch and begins the next."""
    first, second = stored(6), stored(6)
    second.batch(7)
    np.testing.assert_array_equal(first.batch(1)["index"], second.batch(1)["index"])
    two = np.concatenate([first.batch(i)["index"] for i in range(3)])
    np.testing.assert_array_equal(np.sort(two), np.repeat(np.arange(6), 2))


def test_evaluation_pads_the_last_batch_with_weight_zero():
    source = stored(6, shuffle=False)
    last = source.batch(1)
    np.testing.assert_array_equal(last["index"], [4, 5, 5, 5])
    np.testing.assert_array_equal(last["weight"], [1, 1, 0, 0])
    np.testing.assert_array_equal(last["x"], [108, 110, 110, 110])


def test_the_spec_tells_the_truth():
    source = simulated(num_examples=12, shuffle=False)
    batch = source.batch(0)
    assert {k: (v.shape, v.dtype) for k, v in batch.items()} == {k: (s.shape, s.dtype) for k, s in source.spec.items()}


def packed(keep=None, **kwargs):
    """Ten records of three words; example i is bit i % 32 of the words of record i // 32."""
    words = np.arange(10, dtype=np.uint32)[:, None] * np.uint32(2654435761) ^ np.arange(3, dtype=np.uint32)[None, :]
    shape = jax.ShapeDtypeStruct

    def decode(records, index):
        bit = (index % 32).astype(jnp.uint32)[:, None]
        return {"flags": ((records["words"] >> bit) & 1).astype(jnp.int8), "number": index}

    dataset = Dataset(
        spec={"flags": shape((3,), jnp.int8), "number": shape((), jnp.int32)},
        num_examples=320,
        rows=np.arange(320) // 32,
        decode=decode,
        record={"words": shape((3,), jnp.uint32)},
        keep=keep,
    )
    defaults = {"seed": 1, "split": "train", "batch_size": 8, "sharding": over(4), "shuffle": True}
    source = make_source(dataset, read=lambda rows: {"words": words[rows], "unused": rows}, **{**defaults, **kwargs})
    return source, words


def bits_of(words, index):
    return (words[index // 32] >> (index % 32).astype(np.uint32)[..., None]) & 1


@pytest.mark.parametrize("num_members", [None, 2])
def test_records_are_decoded_on_the_devices(num_members):
    source, words = packed(num_members=num_members)
    batch = source.batch(5)
    index = np.asarray(batch["index"])
    assert index.shape == ((8,) if num_members is None else (2, 8))
    np.testing.assert_array_equal(batch["flags"], bits_of(words, index))
    np.testing.assert_array_equal(batch["number"], index)
    assert {k: (v.shape, v.dtype) for k, v in batch.items()} == {k: (s.shape, s.dtype) for k, s in source.spec.items()}
    assert all(value.sharding.num_devices == 4 for value in batch.values())
    few = packed(num_members=num_members, sharding=over(2))[0].batch(5)
    jax.tree.map(np.testing.assert_array_equal, few, batch)


def test_a_choice_by_content_keeps_the_numbers_of_the_examples():
    """Only examples of even words: their order is kept in evaluation, and an epoch visits each of them once."""
    read_rows = []

    def keep(read):
        read_rows.append(len(read(np.arange(10))["words"]))
        return np.flatnonzero(np.arange(320) // 32 % 2 == 0)

    source, words = packed(keep=keep, shuffle=False)
    expected = np.flatnonzero(np.arange(320) // 32 % 2 == 0)
    assert source.num_examples == 160 and read_rows == [10]
    batch = source.batch(4)
    np.testing.assert_array_equal(batch["index"], expected[32:40])
    np.testing.assert_array_equal(batch["flags"], bits_of(words, expected[32:40]))
    np.testing.assert_array_equal(source.batch(20)["weight"], np.zeros(8))
    shuffled, _ = packed(keep=keep)
    epoch = np.concatenate([shuffled.batch(i)["index"] for i in range(20)])
    np.testing.assert_array_equal(np.sort(epoch), expected)


def test_a_choice_that_keeps_nothing_is_refused():
    with pytest.raises(ValueError, match="none of the 320 examples of the split 'train'"):
        packed(keep=lambda read: np.zeros(0, np.int64))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"batch_size": 6}, "multiple of the 4 devices"),
        ({"batch_size": 0}, "at least 1"),
        ({"shuffle": False}, "unlimited"),
        ({"num_examples": 0}, "no examples"),
    ],
)
def test_bad_requests_are_refused(change, message):
    with pytest.raises(ValueError, match=message):
        simulated(**change)


def test_a_stored_dataset_is_not_simulated():
    dataset = Dataset(spec={"x": jax.ShapeDtypeStruct((), jnp.float32)}, num_examples=3)
    with pytest.raises(ValueError, match="stored"):
        make_source(dataset, seed=0, split="train", batch_size=4, sharding=over(4), shuffle=True)


def test_a_stream_has_an_end_that_is_named():
    with pytest.raises(ValueError, match=r"2\*\*31"):
        simulated().batch(2**28)
