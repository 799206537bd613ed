"""Scores over a whole split: weighted means, and everything a report needs, on the host."""

from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp
import numpy as np
from jax.experimental import multihost_utils

from physml_jax.core.rng import step_key
from physml_jax.typing import Probe, Source, Task, TrainState


def num_batches(source: Source, limit: int | None = None) -> int:
    """Batches that cover the first ``limit`` examples of a finite source, the padded last one included."""
    size = source.num_examples if limit is None else min(limit, source.num_examples)
    return -(-size // source.spec["index"].shape[0])


def evaluator(task: Task, seed: int) -> Callable[[TrainState, Source], dict[str, np.ndarray]]:
    """A function that averages ``task.evaluate`` over a finite source; compiled once, however often it is called.

    Scores of an ensemble [S, B] give one mean per member.
    """

    @jax.jit
    def sums(state, batch, key):
        scores = dict(task.evaluate(state, batch, key))
        weight = scores.pop("weight")
        # A padded row may hold anything; 0 * NaN would poison the sum.
        totals = {}
        for k, v in scores.items():
            share = jnp.broadcast_to(weight, v.shape)
            totals[k] = jnp.sum(jnp.where(share > 0, v * share, 0.0), axis=-1)
        return totals, jnp.sum(weight)

    def evaluate(state: TrainState, source: Source) -> dict[str, np.ndarray]:
        totals: dict[str, np.ndarray] = {}
        count = 0.0
        for i in range(num_batches(source)):
            part, weight = jax.device_get(sums(state, source.batch(i), step_key(seed, "evaluate", i)))
            count += float(weight)
            for k, v in part.items():
                totals[k] = totals.get(k, 0.0) + np.asarray(v, np.float64)
        return {k: v / count for k, v in totals.items()}

    return evaluate


def collector(task: Task, states: Sequence[TrainState], seed: int) -> Callable[[Source], list[Probe]]:
    """A function of a finite source in order: its examples with predictions and scores, without the padding.

    Args:
      task: its ``predict`` and ``evaluate`` are applied.
      states: trained states, for instance the members of an ensemble; one result each, sharing the examples.
      seed: the experiment's seed, for tasks that draw random numbers in prediction.
    """

    @jax.jit
    def both(state, batch, key):
        predictions = task.predict(state, batch, key)
        return predictions, task.score(predictions, batch) if task.score else task.evaluate(state, batch, key)

    def collect(source: Source) -> list[Probe]:
        size, rows, answers = source.num_examples, [], [[] for _ in states]
        for i in range(num_batches(source)):
            batch, key = source.batch(i), step_key(seed, "evaluate", i)
            rows.append(_to_host(batch))
            for found, state in zip(answers, states, strict=True):
                found.append(_to_host(both(state, batch, key)))
        rows = _joined(rows, size)
        return [
            Probe(rows, _joined([p for p, _ in found], size), _joined([s for _, s in found], size)) for found in answers
        ]

    return collect


def examples(source: Source, *, limit: int | None = None) -> dict[str, np.ndarray]:
    """Rows of a finite source in order as NumPy arrays [N, ...], without the padding."""
    rows = [_to_host(source.batch(i)) for i in range(num_batches(source, limit))]
    size = source.num_examples if limit is None else min(limit, source.num_examples)
    return _joined(rows, size)


def _joined(rows, size):
    return {k: np.concatenate([r[k] for r in rows])[:size] for k in rows[0]}


def _to_host(tree):
    if jax.process_count() == 1:
        return jax.device_get(tree)
    return multihost_utils.process_allgather(tree, tiled=True)
