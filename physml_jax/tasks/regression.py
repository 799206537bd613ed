"""Regression of one number per example."""

from collections.abc import Mapping, Sequence

import jax
import jax.numpy as jnp
import optax
from flax import linen as nn

from physml_jax.tasks.images import check_scale
from physml_jax.tasks.state import apply_gradients, create, evaluation_variables
from physml_jax.typing import Task

#: What the network sees of the target, and the way back.
TRANSFORMS = {"none": (lambda x: x, lambda x: x), "log1p": (jnp.log1p, jnp.expm1)}
LOSSES = ("mse", "huber")


def make_task(
    *,
    models: Mapping[str, nn.Module],
    tx: optax.GradientTransformation,
    inputs: str = "image",
    target: str = "density",
    target_scale: Sequence[float] = (0.0, 1.0),
    transform: str = "none",
    loss: str = "mse",
    huber_delta: float = 1.0,
    ema_decay: float = 0.0,
) -> Task:
    """Regression on a scaled target: the network's output o stands for the value f^-1(offset + scale o).

    Args:
      models: ``model`` maps float32 [B, ...] to [B, 1].
      tx: the optimizer.
      inputs: batch key of the network's input.
      target: batch key of the truth, a number [B].
      target_scale: (offset, scale) of the transformed target, best near its mean and standard deviation.
      transform: f, taken of the target before it is scaled: ``"none"``, or ``"log1p"`` = log(1 + x) for positive
        targets that spread over decades.
      loss: ``"mse"`` (mean of squares) or ``"huber"``, between o and (f(target) - offset) / scale; with the default
        scale and no transform the first is the mean squared error in the target's own unit.
      huber_delta: difference at which the Huber loss goes from quadratic to linear, on the scale of the output.
      ema_decay: decay of the moving average of the parameters that predicts; 0 for none.

    Returns:
      A task with metrics ``loss``, ``squared_error`` and ``absolute_error`` (means over the batch, in the target's own
      unit); predictions ``value`` float32 [B] in that unit; scores of the same three names [B].

    Raises:
      ValueError: for an unknown transform or loss, a delta or scale that is not positive; when called, for a network
        that gives anything but [B, 1] or a target that is not [B].
    """
    check_scale("target_scale", target_scale)
    if transform not in TRANSFORMS:
        raise ValueError(f"task.kwargs.transform: expected one of {', '.join(TRANSFORMS)}, got {transform!r}")
    if loss not in LOSSES:
        raise ValueError(f"task.kwargs.loss: expected one of {', '.join(LOSSES)}, got {loss!r}")
    if not huber_delta > 0:
        raise ValueError(f"task.kwargs.huber_delta: expected a positive number, got {huber_delta}")
    model, (offset, scale), (forwards, backwards) = models["model"], target_scale, TRANSFORMS[transform]

    def number(output):
        if output.ndim != 2 or output.shape[1] != 1:
            raise ValueError(f"model: a regression needs one output per example, [B, 1], got {list(output.shape)}")
        return output[:, 0].astype(jnp.float32)

    def value_of(output):
        return backwards(offset + scale * output)

    def scores_of(output, batch):
        truth = batch[target]
        if truth.shape != output.shape:
            raise ValueError(f"target: {target!r} must be one number per example, [B], got {list(truth.shape)}")
        truth = truth.astype(jnp.float32)
        difference, error = output - (forwards(truth) - offset) / scale, value_of(output) - truth
        return {
            "loss": jnp.square(difference) if loss == "mse" else optax.huber_loss(difference, delta=huber_delta),
            "squared_error": jnp.square(error),
            "absolute_error": jnp.abs(error),
        }

    def init(key, batch):
        variables = model.init(key, batch[inputs], train=False)
        mutable = {k: v for k, v in variables.items() if k != "params"}
        return create(variables["params"], mutable, tx, ema_decay=ema_decay)

    def step(state, batch, key):
        def loss_of(params):
            output, mutable = model.apply(
                {"params": params, **state.mutable},
                batch[inputs],
                train=True,
                mutable=list(state.mutable),
                rngs={"dropout": key},
            )
            metrics = jax.tree.map(jnp.mean, scores_of(number(output), batch))
            return metrics["loss"], (mutable, metrics)

        grads, (mutable, metrics) = jax.grad(loss_of, has_aux=True)(state.params)
        return apply_gradients(state, grads, tx, mutable=mutable, ema_decay=ema_decay), metrics

    def outputs(state, batch):
        params, mutable = evaluation_variables(state)
        return number(model.apply({"params": params, **mutable}, batch[inputs], train=False))

    def predict(state, batch, key):
        del key
        return {"value": value_of(outputs(state, batch))}

    def evaluate(state, batch, key):
        del key
        return {**scores_of(outputs(state, batch), batch), "weight": batch["weight"]}

    return Task(init=init, step=step, predict=predict, evaluate=evaluate)
