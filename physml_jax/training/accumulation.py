"""Gradient accumulation: the memory of a small batch, the step of a large one.

A step runs over the micro-batches of its batch; the optimizer, wrapped by ``optax.MultiSteps``, averages their
gradients and moves the parameters once. Cadences, schedules and epochs therefore mean what they mean without it. Batch
normalisation sees micro-batches, as on several small devices.
"""

import jax
import jax.numpy as jnp

from physml_jax.typing import Task


def accumulated(task: Task, num_micro: int) -> Task:
    """A task whose step runs over ``num_micro`` parts of its batch.

    Args:
      task: its optimizers come from ``optim.make_optimizer`` with the same ``accumulate``.
      num_micro: number of parts; row ``j`` belongs to part ``j % num_micro``, so that every device keeps its own rows.

    Returns:
      The task; metrics are means over the parts.

    Raises:
      ValueError: at tracing, if the batch cannot be divided.
    """
    if num_micro == 1:
        return task

    def step(state, batch, key):
        def parts(x):
            if x.shape[0] % num_micro:
                raise ValueError(
                    f"optim.accumulate: a batch of {x.shape[0]} cannot be divided into {num_micro} equal parts"
                )
            return jnp.swapaxes(x.reshape((-1, num_micro, *x.shape[1:])), 0, 1)

        def part(carry, both):
            new, metrics = task.step(carry, *both)
            return new._replace(step=carry.step), metrics

        new, metrics = jax.lax.scan(part, state, (jax.tree.map(parts, batch), jax.random.split(key, num_micro)))
        return new._replace(step=state.step + 1), jax.tree.map(lambda m: m.mean(0), metrics)

    return task._replace(step=step)
