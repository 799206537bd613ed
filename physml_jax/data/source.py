"""From a dataset to batches: the global batch of any step is a function of (seed, split, step) alone.

Position ``p = step * batch_size + j`` decides row ``j``. In an unlimited stream the example's index is ``p``. A
finite split is visited epoch by epoch: epoch ``e``
uses the permutation drawn from the stream (seed, split, e), so neither a restart nor another number of devices
changes which example is where.
In evaluation the order is that of the split, and the last batch is padded with copies of the last example that carry
``weight`` 0.
"""

import functools
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np

from physml_jax.core.rng import example_key, step_key
from physml_jax.typing import Batch, Dataset, Source

Read = Callable[[np.ndarray], dict[str, np.ndarray]]  # record numbers [B] -> stacked records


def make_source(
    dataset: Dataset,
    *,
    seed: int,
    split: str,
    batch_size: int,
    sharding: jax.sharding.Sharding,
    shuffle: bool,
    read: Read | None = None,
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

    Returns:
      A source whose batches hold ``index`` and ``weight`` beside the keys of the dataset.

    Raises:
      ValueError: if the split is empty, unlimited where an end is needed, or the batch does not divide over the
        devices.
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

    shape = jax.ShapeDtypeStruct
    extra = {"index": shape((), jnp.int32), "weight": shape((), jnp.float32)}
    spec = {k: shape((batch_size, *s.shape), s.dtype) for k, s in {**dataset.spec, **extra}.items()}

    @functools.lru_cache(maxsize=2)
    def order(epoch: int) -> np.ndarray:
        return np.asarray(jax.random.permutation(step_key(seed, f"order/{split}", epoch), size))

    def plan(step: int) -> tuple[np.ndarray, np.ndarray]:
        positions = step * batch_size + np.arange(batch_size, dtype=np.int64)
        if size is None:
            if positions[-1] >= 2**31:
                raise ValueError(f"data: step {step} is past the last of 2**31 examples of a stream")
            return positions, np.ones(batch_size, np.float32)
        if not shuffle:
            return np.minimum(positions, size - 1), (positions < size).astype(np.float32)
        epochs, offsets = np.divmod(positions, size)
        index = np.empty_like(positions)
        for epoch in np.unique(epochs):
            here = epochs == epoch
            index[here] = order(int(epoch))[offsets[here]]
        return index, np.ones(batch_size, np.float32)

    def place(values: Callable[[slice], np.ndarray], like) -> jax.Array:
        return jax.make_array_from_callback(like.shape, sharding, lambda where: values(where[0]))

    if read is None:
        simulate = jax.jit(lambda index: dataset.sample(example_key(seed, split, index), index), out_shardings=sharding)

    def batch(step: int) -> Batch:
        index, weight = plan(step)
        rows = {
            "index": place(lambda s: index[s].astype(np.int32), spec["index"]),
            "weight": place(lambda s: weight[s], spec["weight"]),
        }
        if read is None:
            return {**simulate(rows["index"]), **rows}
        records = index if dataset.rows is None else dataset.rows[index]
        local: dict[tuple, dict[str, np.ndarray]] = {}  # each local slice is read once, not once per key

        def stored(name: str, where: slice) -> np.ndarray:
            slot = (where.start, where.stop)
            if slot not in local:
                local[slot] = read(records[where])
            return local[slot][name]

        return {**{k: place(functools.partial(stored, k), spec[k]) for k in dataset.spec}, **rows}

    return Source(batch=batch, spec=spec, num_examples=size)
