"""Image-to-image regression: one network, a loss on the intensities."""

from collections.abc import Mapping, Sequence

import jax
import optax
from flax import linen as nn

from physml_jax.analysis.zncc import zncc
from physml_jax.tasks.augmentation import augment as transform
from physml_jax.tasks.augmentation import check_group, symmetrise
from physml_jax.tasks.images import INPUT_SCALE, check_scale, image_scores, network_inputs
from physml_jax.tasks.state import apply_gradients, create, evaluation_variables
from physml_jax.typing import Task


def make_task(
    *,
    models: Mapping[str, nn.Module],
    tx: optax.GradientTransformation,
    inputs: Sequence[str] = ("potential", "log_a"),
    target: str = "pattern",
    zncc_weight: float = 1.0,
    huber_weight: float = 10.0,
    huber_delta: float = 0.1,
    augment: str = "dihedral",
    symmetry: str = "none",
    input_scale: Mapping[str, Sequence[float]] = INPUT_SCALE,
    target_scale: Sequence[float] = (0.0, 1.0),
    ema_decay: float = 0.0,
) -> Task:
    """Regression of images on images.

    The loss of an example is ``zncc_weight (1 - ZNCC) + huber_weight Huber``: the first term is 2 (1 - R), the score
    itself, blind to offset and scale; the second, a mean over pixels, holds the intensities.

    Args:
      models: ``model`` maps float32 [B, H, W, channels] to [B, H, W, C].
      tx: the optimizer.
      inputs: batch keys of the input; images become channels, numbers [B, n] become constant planes.
      target: batch key of the truth, [B, H, W, C].
      zncc_weight: weight of 1 - ZNCC.
      huber_weight: weight of the mean Huber loss.
      huber_delta: difference at which the Huber loss goes from quadratic to linear, in units of the target.
      augment: random symmetry operation per example: ``"none"``, ``"c2v"`` or ``"dihedral"``.
      symmetry: group that the predictions are averaged over, in training too: ``"none"``, ``"c2v"`` or ``"dihedral"``.
      input_scale: (shift, scale) by key; an input enters as (value - shift) / scale.
      target_scale: (shift, scale); the prediction is shift + scale * output of the network, so ``(0, 1)`` lets the
        network speak in intensities and ``(0.5, 0.5)`` fits an output in [-1, 1].
      ema_decay: decay of the moving average of the parameters that predicts; 0 for none.

    Returns:
      A task with metrics ``loss``, ``huber``, ``r_index``; predictions under the name of the target; scores
      ``r_index`` and ``mse``.

    Raises:
      ValueError: for an unknown augmentation, or a scale that is not positive.
    """
    check_group(augment)
    check_group(symmetry, argument="symmetry")
    check_scale("target_scale", target_scale)
    for name, scale in input_scale.items():
        check_scale(f"input_scale[{name!r}]", scale)
    model = models["model"]
    shift, scale = target_scale

    def init(key, batch):
        variables = model.init(key, network_inputs(batch, inputs, input_scale), train=False)
        mutable = {k: v for k, v in variables.items() if k != "params"}
        return create(variables["params"], mutable, tx, ema_decay=ema_decay)

    def step(state, batch, key):
        augment_key, dropout_key = jax.random.split(key)
        batch = transform(augment_key, batch, (*inputs, target), group=augment)
        x, truth = network_inputs(batch, inputs, input_scale), batch[target]

        def loss_of(params):
            variables = {"params": params, **state.mutable}
            rngs = {"dropout": dropout_key}
            output, mutable = model.apply(variables, x, train=True, mutable=list(state.mutable), rngs=rngs)
            prediction = shift + scale * symmetrise(output, group=symmetry)
            fit = zncc(prediction, truth).mean()
            huber = optax.huber_loss(prediction, truth, delta=huber_delta).mean()
            loss = zncc_weight * (1 - fit) + huber_weight * huber
            return loss, (mutable, {"loss": loss, "huber": huber, "r_index": 0.5 + 0.5 * fit})

        (_, (mutable, metrics)), grads = jax.value_and_grad(loss_of, has_aux=True)(state.params)
        return apply_gradients(state, grads, tx, mutable=mutable, ema_decay=ema_decay), metrics

    def predict(state, batch, key):
        del key
        params, mutable = evaluation_variables(state)
        output = model.apply({"params": params, **mutable}, network_inputs(batch, inputs, input_scale), train=False)
        return {target: shift + scale * symmetrise(output, group=symmetry)}

    def evaluate(state, batch, key):
        return image_scores(predict(state, batch, key)[target], batch, target)

    return Task(init=init, step=step, predict=predict, evaluate=evaluate)
