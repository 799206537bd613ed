"""Classification of one input into exclusive classes by cross entropy."""

from collections.abc import Mapping, Sequence

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import linen as nn

from physml_jax.tasks.state import apply_gradients, create, evaluation_variables
from physml_jax.typing import Array, Batch, Task

BALANCES = ("none", "weights", "logits")


def make_task(
    *,
    models: Mapping[str, nn.Module],
    tx: optax.GradientTransformation,
    inputs: str = "image",
    label: str = "label",
    ema_decay: float = 0.0,
    balance: str = "none",
    class_counts: Sequence[int] = (),
    sublabel: str = "",
    num_sublabels: int = 1,
) -> Task:
    """Classification with softmax cross entropy.

    Rare classes: with ``"weights"`` the loss of an example is divided by the frequency of its class (as if all were
    equally frequent); with ``"logits"`` the logarithm of the frequency is added to the logits in the training loss, so
    that the logits without it answer for equally frequent classes.

    Classes with kinds: a network with ``num_sublabels`` outputs per class learns class and kind at once, and the
    probability of a class is the sum over its kinds. Numbers of kinds that a class lacks are learned to be impossible.

    Args:
      models: ``model`` maps float32 [B, ...] to logits [B, num_classes * num_sublabels], the kinds of class 0 first.
      tx: the optimizer.
      inputs: batch key of the network's input.
      label: batch key of the class, int32 [B].
      ema_decay: decay of the moving average of the parameters that predicts; 0 for none.
      balance: ``"none"``, ``"weights"`` or ``"logits"``.
      class_counts: training examples of every class, for ``balance``.
      sublabel: batch key of the kind, int32 [B]; empty: classes have none.
      num_sublabels: largest number of kinds of a class.

    Returns:
      A task with metrics ``loss`` and ``accuracy`` (of the class); predictions ``logits`` [B, num_classes] and, with a
      sublabel, ``sublogits`` [B, num_classes, num_sublabels]; scores ``accuracy`` (0 or 1), ``loss`` [B] (cross
      entropy of what is learned, neither weighted nor shifted) and, with a sublabel, ``kind_accuracy`` (of the kind,
      given the class).

    Raises:
      ValueError: for an option that does not fit; at tracing, for a network with another number of outputs.

    References:
      A. K. Menon et al., Long-tail learning via logit adjustment, ICLR 2021, equation 10.
    """
    model = models["model"]
    _check(balance, class_counts, sublabel, num_sublabels)
    counts = np.asarray(class_counts, np.float32)
    # Mean 1 over the training examples: the size of the loss, and so the learning rate, stays what it was.
    weights = counts.sum() / (len(counts) * counts) if balance == "weights" else None
    shift = np.repeat(np.log(counts / counts.sum()), num_sublabels) if balance == "logits" else None

    def target(batch: Batch) -> Array:
        return batch[label] * num_sublabels + batch[sublabel] if sublabel else batch[label]

    def of_classes(logits: Array) -> Array:
        if not sublabel:
            return logits
        if logits.shape[-1] % num_sublabels:
            raise ValueError(
                f"task.kwargs.num_sublabels: {logits.shape[-1]} outputs are no multiple of {num_sublabels}"
            )
        return jax.nn.logsumexp(logits.reshape(*logits.shape[:-1], -1, num_sublabels), axis=-1)

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
            shifted = logits if shift is None else logits + _row(shift, logits, "class_counts")
            losses = optax.softmax_cross_entropy_with_integer_labels(shifted, target(batch))
            if weights is not None:
                losses = losses * jnp.asarray(weights)[batch[label]]
            return losses.mean(), (of_classes(logits), mutable)

        (loss, (logits, mutable)), grads = jax.value_and_grad(loss_of, has_aux=True)(state.params)
        accuracy = (logits.argmax(-1) == batch[label]).mean()
        state = apply_gradients(state, grads, tx, mutable=mutable, ema_decay=ema_decay)
        return state, {"loss": loss, "accuracy": accuracy}

    def predict(state, batch, key):
        del key
        params, mutable = evaluation_variables(state)
        logits = model.apply({"params": params, **mutable}, batch[inputs], train=False)
        if not sublabel:
            return {"logits": logits}
        return {"logits": of_classes(logits), "sublogits": logits.reshape(logits.shape[0], -1, num_sublabels)}

    def evaluate(state, batch, key):
        answer = predict(state, batch, key)
        right = (answer["logits"].argmax(-1) == batch[label]).astype(jnp.float32)
        flat = answer["sublogits"].reshape(right.shape[0], -1) if sublabel else answer["logits"]
        scores = {
            "accuracy": right,
            "loss": optax.softmax_cross_entropy_with_integer_labels(flat, target(batch)),
            "weight": batch["weight"],
        }
        if sublabel:
            own = jnp.take_along_axis(answer["sublogits"], batch[label][:, None, None], axis=1)[:, 0]
            scores["kind_accuracy"] = (own.argmax(-1) == batch[sublabel]).astype(jnp.float32)
        return scores

    return Task(init=init, step=step, predict=predict, evaluate=evaluate)


def _row(values: np.ndarray, logits: Array, name: str) -> Array:
    if len(values) != logits.shape[-1]:
        raise ValueError(f"task.kwargs.{name}: they make {len(values)} outputs, the network has {logits.shape[-1]}")
    return jnp.asarray(values)[None, :]


def _check(balance: str, class_counts: Sequence[int], sublabel: str, num_sublabels: int) -> None:
    if balance not in BALANCES:
        raise ValueError(f"task.kwargs.balance: expected one of {', '.join(BALANCES)}, got {balance!r}")
    if balance != "none" and (not len(class_counts) or min(class_counts) < 1):
        raise ValueError(f"task.kwargs.class_counts: {balance!r} needs a positive number per class, got {class_counts}")
    if num_sublabels < 1 or (num_sublabels > 1 and not sublabel):
        raise ValueError(
            f"task.kwargs.num_sublabels: expected at least 1, and 1 without a sublabel, got {num_sublabels}"
        )
