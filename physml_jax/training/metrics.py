"""Scores over a whole split: weighted means, and everything a report needs, on the host."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
from jax.experimental import multihost_utils

from physml_jax.core.rng import step_key
from physml_jax.typing import Source, Task, TrainState


def num_batches(source: Source, limit: int | None = None) -> int:
    """Batches that cover the first ``limit`` examples of a finite source, the padded last one included."""
    size = source.num_examples if limit is None else min(limit, source.num_examples)
    return -(-size // source.spec["index"].shape[0])


def evaluator(task: Task, seed: int) -> Callable[[TrainState, Source], dict[str, float]]:
    """A function that averages ``task.evaluate`` over a finite source; compiled once, however often it is called."""

    @jax.jit
    def sums(state, batch, key):
        scores = dict(task.evaluate(state, batch, key))
        weight = scores.pop("weight")
        # A padded row may hold anything; 0 * NaN would poison the sum.
        totals = {k: jnp.sum(jnp.where(weight > 0, v * weight, 0.0)) for k, v in scores.items()}
        return totals, jnp.sum(weight)

    def evaluate(state: TrainState, source: Source) -> dict[str, float]:
        totals: dict[str, float] = {}
        count = 0.0
        for i in range(num_batches(source)):
            part, weight = jax.device_get(sums(state, source.batch(i), step_key(seed, "evaluate", i)))
            count += float(weight)
            for k, v in part.items():
                totals[k] = totals.get(k, 0.0) + float(v)
        return {k: v / count for k, v in totals.items()}

    return evaluate


def collect(
    task: Task, state: TrainState, source: Source, seed: int, *, limit: int | None = None
) -> tuple[dict, dict, dict]:
    """Examples, predictions and scores of a finite source as NumPy arrays [N, ...] without the padding.

    Args:
      task: its ``predict`` and ``evaluate`` are applied.
      state: the trained state.
      source: a finite source in order.
      seed: the experiment's seed, for tasks that draw random numbers in prediction.
      limit: at most so many examples.
    """
    predict, evaluate = jax.jit(task.predict), jax.jit(task.evaluate)
    rows: list[tuple[dict, dict, dict]] = []
    for i in range(num_batches(source, limit)):
        batch, key = source.batch(i), step_key(seed, "evaluate", i)
        rows.append(_to_host((batch, predict(state, batch, key), evaluate(state, batch, key))))
    size = source.num_examples if limit is None else min(limit, source.num_examples)
    stacked = tuple({k: np.concatenate([r[part][k] for r in rows])[:size] for k in rows[0][part]} for part in range(3))
    return stacked  # type: ignore[return-value]


def examples(source: Source, *, limit: int | None = None) -> dict[str, np.ndarray]:
    """Rows of a finite source in order as NumPy arrays [N, ...], without the padding."""
    rows = [_to_host(source.batch(i)) for i in range(num_batches(source, limit))]
    size = source.num_examples if limit is None else min(limit, source.num_examples)
    return {k: np.concatenate([r[k] for r in rows])[:size] for k in rows[0]}


def _to_host(tree):
    if jax.process_count() == 1:
        return jax.device_get(tree)
    return multihost_utils.process_allgather(tree, tiled=True)
