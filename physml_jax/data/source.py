"""From a dataset to batches: the global batch of any step is a function of (seed, split, step) alone.

Position ``p = step * batch_size + j`` decides row ``j``. In an unlimited stream the example's index is ``p``. A
finite split is visited epoch by epoch: epoch ``e`` uses the permutation drawn from the stream (seed, split, e), so
neither a restart nor another number of devices changes which example is where. In evaluation the order is that of the
split, and the last batch is padded with copies of the last example that carry ``weight`` 0. An ensemble whose members
see batches of their own reads them as [S, B, ...]: in a stream member ``k`` takes block ``step * S + k``, in a finite
split it has its own order of every epoch; member 0 sees what a single run of a finite split sees.

Stored records reach the device as they are on the disk; what a data set does to them (``Dataset.decode``) runs there.
"""

import functools
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import NamedSharding, PartitionSpec

from physml_jax.core.rng import example_key, step_key
from physml_jax.typing import Batch, Dataset, Read, Source


def make_source(
    dataset: Dataset,
    *,
    seed: int,
    split: str,
    batch_size: int,
    sharding: NamedSharding,
    shuffle: bool,
    read: Read | None = None,
    num_members: int | None = None,
) -> Source:
    """Batches of a dataset.

    Args:
      dataset: one split.
      seed: the experiment's seed; decides simulated rows and the order of epochs.
      split: name of the split.
      batch_size: rows of the global batch; a multiple of the number of shards of ``sharding``.
      sharding: how the batch axis lies on the devices. Only rows of this process' devices are read.
      shuffle: visit a finite split in a new random order every epoch; otherwise in order, padded at the end.
      read: reader of stored records; ``None`` simulates the rows with ``dataset.sample``.
      num_members: number S of members of an ensemble with batches of their own; batches are then [S, B, ...] and
        ``sharding`` splits their second axis. Needs ``shuffle``. ``None``: batches are [B, ...].

    Returns:
      A source whose batches hold ``index`` (number of the example in its split) and ``weight`` beside the keys of the
      dataset.

    Raises:
      ValueError: if the split is empty or nothing of it is kept, unlimited where an end is needed, or the batch does
        not divide over the devices.
    """
    size = dataset.num_examples
    if size is not None and size < 1:
        raise ValueError(f"data: the split {split!r} has no examples")
    if size is None and not shuffle:
        raise ValueError(f"data: the split {split!r} is unlimited; evaluation needs a number of examples")
    if batch_size < 1:
        raise ValueError(f"data.batch_size: expected an integer of at least 1, got {batch_size}")
    if read is None and dataset.sample is None:
        raise ValueError("data.source: this dataset cannot be simulated on the fly; use source='stored'")
    try:
        sharding.shard_shape((batch_size,))
    except ValueError:
        raise ValueError(
            f"data.batch_size: expected a multiple of the {sharding.num_devices} devices, got {batch_size}"
        ) from None

    if num_members is not None:
        if not shuffle:
            raise ValueError("num_members: evaluation batches are shared by all members")
        sharding = NamedSharding(sharding.mesh, PartitionSpec(None, *sharding.spec))
    spec = batch_spec(dataset, batch_size, num_members)
    kept = None
    if read is not None and dataset.keep is not None:
        kept = np.asarray(dataset.keep(read), np.int64)
        size = len(kept)
        if size < 1:
            raise ValueError(f"data: none of the {dataset.num_examples} examples of the split {split!r} can be used")

    @functools.lru_cache(maxsize=2 * (num_members or 1))
    def order(epoch: int, member: int) -> np.ndarray:
        name = f"order/{split}" + (f"/{member}" if member else "")
        return np.asarray(jax.random.permutation(step_key(seed, name, epoch), size))

    def visit(step: int, member: int) -> np.ndarray:
        """Examples of a shuffled batch."""
        if size is None:
            first = (step * (num_members or 1) + member) * batch_size
            if first + batch_size > 2**31:
                raise ValueError(f"data: step {step} is past the last of 2**31 examples of a stream")
            return first + np.arange(batch_size, dtype=np.int64)
        epochs, offsets = np.divmod(step * batch_size + np.arange(batch_size, dtype=np.int64), size)
        index = np.empty_like(offsets)
        for epoch in np.unique(epochs):
            here = epochs == epoch
            index[here] = order(int(epoch), member)[offsets[here]]
        return index

    def plan(step: int) -> tuple[np.ndarray, np.ndarray]:
        if not shuffle:
            positions = step * batch_size + np.arange(batch_size, dtype=np.int64)
            index, weight = np.minimum(positions, size - 1), (positions < size).astype(np.float32)
        else:
            index = np.stack([visit(step, k) for k in range(num_members or 1)])
            index = index[0] if num_members is None else index
            weight = np.ones(index.shape, np.float32)
        return index if kept is None else kept[index], weight

    def place(values: Callable[[tuple], np.ndarray], like) -> jax.Array:
        rank = 1 if num_members is None else 2
        return jax.make_array_from_callback(like.shape, sharding, lambda where: values(where[:rank]))

    def simulated(index):
        rows = dataset.sample(example_key(seed, split, index.reshape(-1)), index.reshape(-1))
        return jax.tree.map(lambda x: x.reshape(index.shape + x.shape[1:]), rows)

    def decoded(records, index):
        flat = jax.tree.map(lambda x: x.reshape((-1, *x.shape[index.ndim :])), records)
        rows = dataset.decode(flat, index.reshape(-1))
        return jax.tree.map(lambda x: x.reshape(index.shape + x.shape[1:]), rows)

    simulate = jax.jit(simulated, out_shardings=sharding)
    decode = jax.jit(decoded, out_shardings=sharding)
    record = dataset.spec if dataset.decode is None else dataset.record

    def batch(step: int) -> Batch:
        index, weight = plan(step)
        rows = {
            "index": place(lambda w: index[w].astype(np.int32), spec["index"]),
            "weight": place(lambda w: weight[w], spec["weight"]),
        }
        if read is None:
            return {**simulate(rows["index"]), **rows}
        records = index if dataset.rows is None else dataset.rows[index]
        local: dict[str, dict[str, np.ndarray]] = {}  # each local slice is read once, not once per key

        def stored(name: str, where: tuple) -> np.ndarray:
            slot = str(where)
            if slot not in local:
                wanted = records[where]
                found = read(wanted.reshape(-1))
                local[slot] = {k: v.reshape(wanted.shape + v.shape[1:]) for k, v in found.items()}
            return local[slot][name]

        found = {
            k: place(functools.partial(stored, k), jax.ShapeDtypeStruct((*index.shape, *s.shape), s.dtype))
            for k, s in record.items()
        }
        return {**(found if dataset.decode is None else decode(found, rows["index"])), **rows}

    return Source(batch=batch, spec=spec, num_examples=size)


def batch_spec(dataset: Dataset, batch_size: int, num_members: int | None = None) -> Batch:
    """``ShapeDtypeStruct`` of one batch by key: [B, ...], or [S, B, ...] for members with batches of their own."""
    lead = (batch_size,) if num_members is None else (num_members, batch_size)
    shape = jax.ShapeDtypeStruct
    extra = {"index": shape((), jnp.int32), "weight": shape((), jnp.float32)}
    return {k: shape((*lead, *s.shape), s.dtype) for k, s in {**dataset.spec, **extra}.items()}
