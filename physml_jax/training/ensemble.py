"""Several seeds of one task as one task: every leaf of its state has the members as first axis.

Nothing else in the package knows how an ensemble is trained; the loop sees a task whose metrics are arrays [S] instead
of scalars. Members differ in their initial parameters, in the keys of their steps and, unless batches are shared, in
what they see. Member 0 starts and steps as a single run of that seed; it also sees the same batches where these are
shared or come from a finite split (members with batches of their own take turns in a stream).
"""

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from physml_jax.typing import Array, Key, Task, TrainState, Tree

METHODS = ("auto", "vmap", "scan")


def ensemble(task: Task, num_members: int, *, shared_batches: bool, method: str = "auto") -> Task:
    """A task that trains ``num_members`` copies of ``task``.

    Args:
      task: the task of one member.
      num_members: S.
      shared_batches: all members see the same batch [B, ...]; otherwise the training batch is [S, B, ...]. Evaluation
        batches are always [B, ...].
      method: ``vmap`` (one program on stacked arrays, for accelerators), ``scan`` (one member after the other within
        the step), or ``auto``: ``scan`` on a CPU, otherwise ``vmap``. On a CPU a step of either costs what the members
        cost alone (within 30 % for a ResNet-18), but ``scan`` compiles one member instead of S.

    Returns:
      A task whose state, metrics and predictions carry the axis S first; ``weight`` of its scores stays [B].

    Raises:
      ValueError: for fewer than one member or an unknown method.
    """
    if num_members < 1:
        raise ValueError(f"num_seeds: expected an integer of at least 1, got {num_members}")
    if method not in METHODS:
        raise ValueError(f"train.map_seeds: expected one of {', '.join(METHODS)}, got {method!r}")

    def mapped(fn, batch_axis):
        """``fn(state, batch, key)`` or ``fn(key, batch)`` over members."""

        def over_members(member_args, batch):
            chosen = method if method != "auto" else "scan" if jax.default_backend() == "cpu" else "vmap"
            if chosen == "vmap":
                return jax.vmap(fn, in_axes=(0, batch_axis))(member_args, batch)
            if batch_axis is None:
                return jax.lax.map(lambda args: fn(args, batch), member_args)
            return jax.lax.map(lambda both: fn(*both), (member_args, batch))

        return over_members

    training_axis = None if shared_batches else 0
    init_all = mapped(task.init, training_axis)
    step_all = mapped(lambda args, batch: task.step(args[0], batch, args[1]), training_axis)
    predict_all = mapped(lambda args, batch: task.predict(args[0], batch, args[1]), None)
    evaluate_all = mapped(lambda args, batch: task.evaluate(args[0], batch, args[1]), None)

    def init(key, batch):
        return init_all(member_keys(key, num_members), batch)

    def step(state, batch, key):
        return step_all((state, member_keys(key, num_members)), batch)

    def predict(state, batch, key):
        return predict_all((state, member_keys(key, num_members)), batch)

    def evaluate(state, batch, key):
        scores = evaluate_all((state, member_keys(key, num_members)), batch)
        return {**scores, "weight": scores["weight"][0]}

    return Task(init=init, step=step, predict=predict, evaluate=evaluate)


def member_keys(key: Key, num_members: int) -> Key:
    """Keys [S] of the members; the first is ``key`` itself."""
    others = [jax.random.fold_in(key, i) for i in range(1, num_members)]
    return jax.random.wrap_key_data(jnp.stack([jax.random.key_data(k) for k in (key, *others)]))


def members(state: TrainState) -> list[TrainState]:
    """The states of single members; of a state without an ensemble, itself."""
    if state.step.ndim == 0:
        return [state]
    return [jax.tree.map(lambda x, i=i: x[i], state) for i in range(state.step.shape[0])]


def step_of(state: TrainState) -> int:
    """Number of finished steps, the same for all members."""
    return int(np.ravel(jax.device_get(state.step))[0])


def choose(better: Array, new: Tree, old: Tree) -> Tree:
    """``new`` where ``better`` (bool [] or [S]) says so, else ``old``; leaves have the shape of ``better`` first."""

    def leaf(a, b):
        return jnp.where(better.reshape(better.shape + (1,) * (a.ndim - better.ndim)), a, b)

    return jax.tree.map(leaf, new, old)


def summarised(values: Mapping[str, Any]) -> dict[str, float]:
    """Scalars of metrics: themselves, or of an ensemble the mean, and its standard error under ``<name>_stderr``."""
    found = {}
    for name, value in values.items():
        value = np.asarray(value, np.float64)
        found[name] = float(value.mean())
        if value.ndim and len(value) > 1:
            found[f"{name}_stderr"] = float(value.std(ddof=1) / np.sqrt(len(value)))
    return found
