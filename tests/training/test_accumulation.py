"""Accumulated gradients are those of the whole batch."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from physml_jax.tasks.state import apply_gradients, create
from physml_jax.training import optim
from physml_jax.training.accumulation import accumulated
from physml_jax.typing import Task


def linear_task(tx, ema_decay=0.0):
    """Least squares: the gradient of a batch is the mean of those of its parts."""

    def step(state, batch, key):
        del key
        loss, grads = jax.value_and_grad(lambda w: jnp.mean((batch["x"] @ w - batch["y"]) ** 2))(state.params)
        return apply_gradients(state, grads, tx, ema_decay=ema_decay), {"loss": loss}

    return Task(
        init=lambda key, batch: create(jnp.zeros(batch["x"].shape[1]), {}, tx, ema_decay=ema_decay),
        step=step,
        predict=None,
        evaluate=None,
    )


def optimizer(accumulate):
    return optim.make_optimizer(
        {
            "name": "adamw",
            "learning_rate": 0.1,
            "kwargs": {"weight_decay": 0.1},
            "schedule": {"name": "cosine", "warmup_steps": 2},
            "clip_norm": 0.5,
            "accumulate": accumulate,
        },
        10,
    )


@pytest.mark.parametrize("ema_decay", [0.0, 0.9])
def test_parts_give_the_step_of_the_whole(ema_decay):
    x = jax.random.normal(jax.random.key(0), (24, 5), jnp.float32)
    batch = {"x": x, "y": x @ jnp.arange(5.0)}
    states = []
    for parts in (1, 4):
        task = accumulated(linear_task(optimizer(parts), ema_decay), parts)
        state = task.init(jax.random.key(0), batch)
        for i in range(6):
            state, metrics = jax.jit(task.step)(state, batch, jax.random.key(i))
        states.append((state, metrics))
    (whole, whole_metrics), (split, split_metrics) = states
    assert int(split.step) == 6
    np.testing.assert_allclose(split.params, whole.params, rtol=1e-5)
    np.testing.assert_allclose(split_metrics["loss"], whole_metrics["loss"], rtol=1e-5)
    if ema_decay:
        np.testing.assert_allclose(split.ema, whole.ema, rtol=1e-5)
    else:
        assert split.ema is None
    assert isinstance(split.opt, optax.MultiStepsState)


def test_a_batch_that_cannot_be_divided_is_refused():
    task = accumulated(linear_task(optimizer(5)), 5)
    batch = {"x": jnp.ones((24, 5)), "y": jnp.ones(24)}
    state = task.init(jax.random.key(0), batch)
    with pytest.raises(ValueError, match=r"optim.accumulate: a batch of 24 cannot be divided into 5"):
        task.step(state, batch, jax.random.key(0))
