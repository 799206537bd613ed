"""Classification of one input into exclusive classes by cross entropy."""

from collections.abc import Mapping

import jax
import jax.numpy as jnp
import optax
from flax import linen as nn

from physml_jax.tasks.state import apply_gradients, create, evaluation_variables
from physml_jax.typing import Task


def make_task(
    *,
    models: Mapping[str, nn.Module],
    tx: optax.GradientTransformation,
    inputs: str = "image",
    label: str = "label",
    ema_decay: float = 0.0,
) -> Task:
    """Classification with softmax cross entropy.

    Args:
      models: ``model`` maps float32 [B, ...] to logits [B, num_classes].
      tx: the optimizer.
      inputs: batch key of the network's input.
      label: batch key of the class, int32 [B].
      ema_decay: decay of the moving average of the parameters that predicts; 0 for none.

    Returns:
      A task with metrics ``loss`` and ``accuracy``; predictions ``logits`` [B, num_classes]; scores ``accuracy`` (0
      or 1) and ``loss`` [B].
    """
    model = models["model"]

    def split(variables):
        return variables["params"], {k: v for k, v in variables.items() if k != "params"}

    def init(key, batch):
        params, mutable = split(model.init(key, batch[inputs], train=False))
        return create(params, mutable, tx, ema_decay=ema_decay)

    def step(state, batch, key):
        def loss_of(params):
            logits, mutable = model.apply(
                {"params": params, **state.mutable},
                batch[inputs],
                train=True,
                mutable=list(state.mutable),
                rngs={"dropout": key},
            )
            losses = optax.softmax_cross_entropy_with_integer_labels(logits, batch[label])
            return losses.mean(), (logits, mutable)

        (loss, (logits, mutable)), grads = jax.value_and_grad(loss_of, has_aux=True)(state.params)
        accuracy = (logits.argmax(-1) == batch[label]).mean()
        state = apply_gradients(state, grads, tx, mutable=mutable, ema_decay=ema_decay)
        return state, {"loss": loss, "accuracy": accuracy}

    def predict(state, batch, key):
        del key
        params, mutable = evaluation_variables(state)
        return {"logits": model.apply({"params": params, **mutable}, batch[inputs], train=False)}

    def evaluate(state, batch, key):
        logits = predict(state, batch, key)["logits"]
        return {
            "accuracy": (logits.argmax(-1) == batch[label]).astype(jnp.float32),
            "loss": optax.softmax_cross_entropy_with_integer_labels(logits, batch[label]),
            "weight": batch["weight"],
        }

    return Task(init=init, step=step, predict=predict, evaluate=evaluate)
