"""Conditional GAN: a generator against a discriminator that sees the condition beside the image."""

from collections.abc import Mapping, Sequence

import jax
import jax.numpy as jnp
import optax
from flax import linen as nn

from physml_jax.analysis.zncc import r_index, zncc
from physml_jax.tasks.augmentation import augment as transform
from physml_jax.tasks.augmentation import check_group, symmetrise
from physml_jax.tasks.images import INPUT_SCALE, check_scale, image_scores, network_inputs
from physml_jax.tasks.state import apply_gradients, create, evaluation_variables
from physml_jax.typing import Array, Task

#: By name: mean loss of logits that should say real (1) or fake (0).
ADVERSARIAL_LOSSES = {
    "lsgan": lambda logits, real: jnp.square(logits - real).mean(),
    "bce": lambda logits, real: optax.sigmoid_binary_cross_entropy(logits, jnp.full_like(logits, real)).mean(),
}


def feature_matching_loss(fake: Sequence[Sequence[Array]], real: Sequence[Sequence[Array]]) -> Array:
    """Mean absolute difference between the discriminator's features of two images, as pix2pixHD weights it.

    4 / (number of layers) x sum over layers, averaged over the scales; the factor is the published one, 1 per layer for
    the published four. The last entry of a scale, its logits, does not take part.

    Args:
      fake: per scale, the features and last the logits.
      real: the same for the true image; no gradient flows into it.

    Returns:
      float32 [].

    References:
      T.-C. Wang et al., CVPR 2018, Eq. 4.
    """
    total = 0.0
    for fake_scale, real_scale in zip(fake, real, strict=True):
        pairs = list(zip(fake_scale[:-1], real_scale[:-1], strict=True))
        differences = [jnp.abs(f - jax.lax.stop_gradient(r)).mean() for f, r in pairs]
        total += 4.0 / len(pairs) * sum(differences)
    return total / len(fake)


def make_task(
    *,
    models: Mapping[str, nn.Module],
    tx: optax.GradientTransformation,
    inputs: Sequence[str] = ("potential", "log_a"),
    target: str = "pattern",
    adversarial_loss: str = "lsgan",
    adversarial_weight: float = 1.0,
    feature_matching: float = 10.0,
    pixel_loss: float = 0.0,
    zncc_loss: float = 0.0,
    discriminator_rate: float = 1.0,
    augment: str = "none",
    symmetry: str = "none",
    input_scale: Mapping[str, Sequence[float]] = INPUT_SCALE,
    target_scale: Sequence[float] = (0.5, 0.5),
    ema_decay: float = 0.0,
) -> Task:
    """Image-to-image translation by a conditional GAN.

    The defaults are pix2pixHD: least squares, 10 x feature matching, no pixel loss, a generator that speaks in [-1, 1].
    pix2pix is ``adversarial_loss="bce", feature_matching=0, pixel_loss=100`` with one scale. Both networks take one
    step per call, each against the other as it was before.

    ``params`` and the optimizer state are dicts with the keys ``generator`` and ``discriminator``; both networks use
    the same transformation, each with its own state.

    Args:
      models: ``model`` maps float32 [B, H, W, channels] to [B, H, W, C]; ``discriminator`` maps the condition and the
        image, channels joined, to a list per scale of its features and last its logits.
      tx: the optimizer, for both networks.
      inputs: batch keys of the condition; images become channels, numbers [B, n] become constant planes.
      target: batch key of the truth, [B, H, W, C].
      adversarial_loss: ``"lsgan"`` or ``"bce"``.
      adversarial_weight: weight of the adversarial term of the generator, a sum over the scales.
      feature_matching: weight of the L1 difference of the discriminator's features.
      pixel_loss: weight of the L1 difference of the images, in units of the network's output.
      zncc_loss: weight of 1 - ZNCC of the images.
      discriminator_rate: learning rate of the discriminator relative to the generator's.
      augment: random symmetry operation per example: ``"none"``, ``"c2v"`` or ``"dihedral"``.
      symmetry: group that the predictions are averaged over, in training too: ``"none"``, ``"c2v"`` or ``"dihedral"``.
      input_scale: (shift, scale) by key; an input enters as (value - shift) / scale.
      target_scale: (shift, scale); intensities are shift + scale * output of the generator, and the discriminator sees
        the truth as (intensity - shift) / scale. The default fits an output in [-1, 1] to intensities in [0, 1].
      ema_decay: decay of the moving average of the parameters that predicts; 0 for none.

    Returns:
      A task with metrics ``loss`` (of the generator), ``adversarial``, ``feature_matching``, ``pixel_l1`` (both
      unweighted), ``discriminator_loss``, ``r_index``; predictions under the name of the target; scores ``r_index`` and
      ``mse``.

    Raises:
      ValueError: without a discriminator, for an unknown loss or augmentation, or a scale that is not positive.

    References:
      T.-C. Wang et al., CVPR 2018; P. Isola et al., CVPR 2017; X. Mao et al., ICCV 2017.
    """
    if "discriminator" not in models:
        raise ValueError("discriminator.name: the adversarial task needs a second model, such as patch_discriminator")
    if adversarial_loss not in ADVERSARIAL_LOSSES:
        known = ", ".join(sorted(ADVERSARIAL_LOSSES))
        raise ValueError(f"adversarial_loss: expected one of {known}, got {adversarial_loss!r}")
    check_group(augment)
    check_group(symmetry, argument="symmetry")
    check_scale("target_scale", target_scale)
    for name, scale in input_scale.items():
        check_scale(f"input_scale[{name!r}]", scale)
    generator, discriminator = models["model"], models["discriminator"]
    criterion = ADVERSARIAL_LOSSES[adversarial_loss]
    shift, scale = target_scale
    txs = {"generator": tx, "discriminator": optax.chain(tx, optax.scale(discriminator_rate))}

    def init(key, batch):
        keys = jax.random.split(key)
        x = network_inputs(batch, inputs, input_scale)
        variables = {
            "generator": generator.init(keys[0], x, train=False),
            "discriminator": discriminator.init(keys[1], jnp.concatenate([x, batch[target]], axis=-1), train=False),
        }
        params = {role: v["params"] for role, v in variables.items()}
        mutable = {role: {k: c for k, c in v.items() if k != "params"} for role, v in variables.items()}
        return create(params, mutable, txs, ema_decay=ema_decay)

    def step(state, batch, key):
        augment_key, generator_key, discriminator_key = jax.random.split(key, 3)
        batch = transform(augment_key, batch, (*inputs, target), group=augment)
        x = network_inputs(batch, inputs, input_scale)
        truth = (batch[target] - shift) / scale

        def generate(params):
            variables = {"params": params, **state.mutable["generator"]}
            collections = list(state.mutable["generator"])
            image, mutable = generator.apply(
                variables, x, train=True, mutable=collections, rngs={"dropout": generator_key}
            )
            return symmetrise(image, group=symmetry), mutable

        def judge(params, image, mutable):
            return discriminator.apply(
                {"params": params, **mutable},
                jnp.concatenate([x, image], axis=-1),
                train=True,
                mutable=list(mutable),
                rngs={"dropout": discriminator_key},
            )

        def generator_loss(params):
            image, mutable = generate(params)
            # The same calls as in the discriminator's loss below: the compiler computes them once.
            fake, _ = judge(state.params["discriminator"], image, state.mutable["discriminator"])
            real, _ = judge(state.params["discriminator"], truth, state.mutable["discriminator"])
            terms = {
                "adversarial": sum(criterion(outputs[-1], 1.0) for outputs in fake),
                "feature_matching": feature_matching_loss(fake, real),
                "pixel_l1": jnp.abs(image - truth).mean(),
            }
            loss = (
                adversarial_weight * terms["adversarial"]
                + feature_matching * terms["feature_matching"]
                + pixel_loss * terms["pixel_l1"]
                + zncc_loss * (1 - zncc(image, truth).mean())
            )
            return loss, (image, mutable, terms)

        def discriminator_loss(params, image):
            fake, mutable = judge(params, image, state.mutable["discriminator"])
            real, mutable = judge(params, truth, mutable)
            per_scale = (criterion(f[-1], 0.0) + criterion(r[-1], 1.0) for f, r in zip(fake, real, strict=True))
            return 0.5 * sum(per_scale), mutable

        (loss, (image, generator_mutable, terms)), generator_grads = jax.value_and_grad(generator_loss, has_aux=True)(
            state.params["generator"]
        )
        image = jax.lax.stop_gradient(image)
        (loss_d, discriminator_mutable), discriminator_grads = jax.value_and_grad(discriminator_loss, has_aux=True)(
            state.params["discriminator"], image
        )
        state = apply_gradients(
            state,
            {"generator": generator_grads, "discriminator": discriminator_grads},
            txs,
            mutable={"generator": generator_mutable, "discriminator": discriminator_mutable},
            ema_decay=ema_decay,
        )
        fit = r_index(image, truth).mean()
        return state, {"loss": loss, "discriminator_loss": loss_d, **terms, "r_index": fit}

    def predict(state, batch, key):
        del key
        params, mutable = evaluation_variables(state)
        variables = {"params": params["generator"], **mutable["generator"]}
        image = generator.apply(variables, network_inputs(batch, inputs, input_scale), train=False)
        return {target: shift + scale * symmetrise(image, group=symmetry)}

    def evaluate(state, batch, key):
        return image_scores(predict(state, batch, key)[target], batch, target)

    return Task(init=init, step=step, predict=predict, evaluate=evaluate)
