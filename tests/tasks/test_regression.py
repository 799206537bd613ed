"""Regression of a number: scales and transforms by hand, units of predictions and scores."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import linen as nn

from physml_jax.tasks import regression
from physml_jax.typing import Best


class MeanPool(nn.Module):
    """A line through the mean of the picture; with batch statistics on request."""

    outputs: int = 1
    norm: bool = False

    @nn.compact
    def __call__(self, inputs, *, train):
        x = nn.Dense(self.outputs)(inputs.mean((1, 2)))
        return nn.BatchNorm(use_running_average=not train)(x) if self.norm else x


class Constant(nn.Module):
    """One parameter, whatever the input."""

    start: float

    @nn.compact
    def __call__(self, inputs, *, train):
        del train
        return jnp.broadcast_to(self.param("c", lambda key: jnp.full((1, 1), self.start)), (len(inputs), 1))


def batch_of(target, rows=None):
    target = jnp.asarray(target, jnp.float32)
    size = len(target) if rows is None else rows
    return {"image": jnp.ones((size, 2, 2, 1)), "density": target, "weight": jnp.ones(size)}


def make(model=None, tx=None, **options):
    return regression.make_task(models={"model": model or MeanPool()}, tx=tx or optax.sgd(0.1), **options)


@pytest.mark.parametrize(
    ("options", "loss", "value"),
    [
        # output 0.5, target 3
        ({}, 2.5**2, 0.5),
        ({"target_scale": (1.0, 4.0)}, 0.0, 3.0),
        ({"target_scale": (1.0, 2.0)}, 0.5**2, 2.0),
        ({"transform": "log1p"}, (np.log(4.0) - 0.5) ** 2, np.exp(0.5) - 1),
        ({"transform": "log1p", "target_scale": (1.0, 2.0)}, (0.5 * (np.log(4.0) - 1) - 0.5) ** 2, np.exp(2.0) - 1),
        ({"loss": "huber"}, 2.5 - 0.5, 0.5),
        ({"loss": "huber", "huber_delta": 0.2}, 0.2 * (2.5 - 0.1), 0.5),
    ],
)
def test_loss_and_prediction_by_hand(options, loss, value):
    task, batch = make(Constant(0.5), **options), batch_of([3.0, 3.0])
    state = task.init(jax.random.key(0), batch)
    _, metrics = task.step(state, batch, jax.random.key(0))
    np.testing.assert_allclose(metrics["loss"], loss, rtol=1e-5, atol=1e-9)
    np.testing.assert_allclose(metrics["squared_error"], (value - 3.0) ** 2, rtol=1e-4, atol=1e-9)
    np.testing.assert_allclose(metrics["absolute_error"], abs(value - 3.0), rtol=1e-4, atol=1e-6)
    prediction = task.predict(state, batch, jax.random.key(0))
    assert set(prediction) == {"value"} and prediction["value"].shape == (2,)
    np.testing.assert_allclose(prediction["value"], value, rtol=1e-5)


def test_one_step_follows_the_gradient():
    """d/do of the mean of (o - t)^2 at o = 0.5 for t = 0 and 2 is 2 (0.5 - 1) = -1."""
    task, batch = make(Constant(0.5), tx=optax.sgd(0.1)), batch_of([0.0, 2.0])
    state, _ = task.step(task.init(jax.random.key(0), batch), batch, jax.random.key(0))
    np.testing.assert_allclose(state.params["c"], [[0.6]], rtol=1e-6)


def test_scores_per_example_with_weights():
    task, batch = make(Constant(0.5), target_scale=(0.0, 2.0)), batch_of([1.0, 0.0, 3.0])
    batch["weight"] = jnp.array([1.0, 1.0, 0.0])
    scores = task.evaluate(task.init(jax.random.key(0), batch), batch, jax.random.key(0))
    assert set(scores) == {"loss", "squared_error", "absolute_error", "weight"}
    np.testing.assert_allclose(scores["squared_error"], [0.0, 1.0, 4.0])
    np.testing.assert_allclose(scores["absolute_error"], [0.0, 1.0, 2.0])
    np.testing.assert_allclose(scores["loss"], [0.0, 0.25, 1.0])
    np.testing.assert_array_equal(scores["weight"], [1.0, 1.0, 0.0])


def test_mean_pooling_regresses_the_density_exactly():
    """A line through the number of occupied sites: the baseline that any regression of the density has to beat."""
    images = (np.random.default_rng(0).random((64, 8, 8, 1)) < np.linspace(0, 1, 64).reshape(-1, 1, 1, 1)) * 1.0
    batch = {"image": jnp.asarray(images, jnp.float32), "density": jnp.asarray(images.mean((1, 2, 3)), jnp.float32)}
    batch["weight"] = jnp.ones(64)
    task = make(tx=optax.sgd(0.5), ema_decay=0.5, target_scale=(0.5, 0.3))
    state, step = jax.jit(task.init)(jax.random.key(0), batch), jax.jit(task.step)
    for i in range(400):
        state, metrics = step(state, batch, jax.random.key(i))
    assert float(task.evaluate(state, batch, jax.random.key(0))["squared_error"].max()) < 1e-6
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-4), state.ema, state.params)
    assert np.isfinite(float(metrics["loss"]))


def test_batch_statistics_travel_and_the_best_parameters_predict():
    task, batch = make(MeanPool(norm=True)), batch_of([0.1, 0.9])
    batch["image"] = batch["image"].at[1].set(0.0)
    state = task.init(jax.random.key(0), batch)
    moved, _ = task.step(state, batch, jax.random.key(0))
    change = jax.tree.map(lambda a, b: float(jnp.abs(a - b).max()), state.mutable, moved.mutable)
    assert set(moved.mutable) == {"batch_stats"} and max(jax.tree.leaves(change)) > 0
    zero = jax.tree.map(jnp.zeros_like, state.params)
    kept = moved._replace(best=Best(jnp.float32(0), zero, state.mutable))
    np.testing.assert_array_equal(task.predict(kept, batch, jax.random.key(0))["value"], [0.0, 0.0])


def test_integer_targets_are_numbers():
    task, batch = make(Constant(0.5), target="label"), batch_of([0.0, 0.0])
    batch["label"] = jnp.array([0, 2], jnp.int32)
    scores = task.evaluate(task.init(jax.random.key(0), batch), batch, jax.random.key(0))
    np.testing.assert_allclose(scores["squared_error"], [0.25, 2.25])


def test_wrong_shapes_are_named():
    task, batch = make(MeanPool(outputs=2)), batch_of([1.0, 2.0])
    state = task.init(jax.random.key(0), batch)
    for call in (task.step, task.predict, task.evaluate):
        with pytest.raises(ValueError, match=r"model: .*\[B, 1\], got \[2, 2\]"):
            call(state, batch, jax.random.key(0))
    task, batch = make(), batch_of(np.ones((2, 1)))
    with pytest.raises(ValueError, match=r"target: 'density' must be one number per example, \[B\], got \[2, 1\]"):
        task.step(task.init(jax.random.key(0), batch), batch, jax.random.key(0))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"transform": "sqrt"}, "transform: expected one of none, log1p"),
        ({"loss": "mae"}, "loss: expected one of mse, huber"),
        ({"huber_delta": 0.0}, "huber_delta"),
        ({"target_scale": (0.0, 0.0)}, "target_scale"),
        ({"ema_decay": 1.0}, "ema_decay"),
    ],
)
def test_bad_options_are_named(options, message):
    with pytest.raises(ValueError, match=message):
        task = make(**options)
        task.init(jax.random.key(0), batch_of([1.0]))
