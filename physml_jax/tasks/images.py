"""What the image-to-image tasks share: from a batch to network inputs, from network outputs to scores."""

from collections.abc import Mapping, Sequence

import jax.numpy as jnp

from physml_jax.analysis.zncc import r_index
from physml_jax.typing import Array, Batch

#: Fixed (shift, scale) by batch key, chosen by hand and never fitted to data: a key named here enters the network as
#: (value - shift) / scale. Averaged over their cell, potentials are a few tens of volts; log_a is that of 4 to 8 Å.
INPUT_SCALE: Mapping[str, tuple[float, float]] = {"potential": (0.0, 30.0), "log_a": (1.7, 0.4)}


def check_scale(argument: str, value: Sequence[float]) -> None:
    """Refuses what is not a pair (shift, scale) with a positive scale.

    Raises:
      ValueError: naming the argument.
    """
    if len(value) != 2 or not value[1] > 0:
        raise ValueError(f"{argument}: expected (shift, scale) with a positive scale, got {tuple(value)}")


def network_inputs(batch: Batch, names: Sequence[str], input_scale: Mapping[str, Sequence[float]]) -> Array:
    """The inputs as the channels of one image.

    Args:
      batch: arrays by name; images [B, H, W, C], numbers [B, n].
      names: keys in channel order, at least one of them an image.
      input_scale: (shift, scale) by key; keys that are missing enter as they are.

    Returns:
      float32 [B, H, W, channels]; numbers have become constant planes.

    Raises:
      ValueError: if a key is missing, no input is an image, or the images differ in size.
    """
    missing = [name for name in names if name not in batch]
    if missing:
        raise ValueError(f"inputs: the batch has no {', '.join(missing)}; it holds {', '.join(sorted(batch))}")
    sizes = {batch[name].shape[1:3] for name in names if jnp.ndim(batch[name]) == 4}
    if len(sizes) != 1:
        raise ValueError(f"inputs: expected images of one size among {', '.join(names)}, got sizes {sorted(sizes)}")
    (size,) = sizes
    planes = []
    for name in names:
        shift, scale = input_scale.get(name, (0.0, 1.0))
        x = (jnp.asarray(batch[name], jnp.float32) - shift) / scale
        if x.ndim != 4:
            x = jnp.broadcast_to(x.reshape(x.shape[0], 1, 1, -1), (x.shape[0], *size, x.size // x.shape[0]))
        planes.append(x)
    return jnp.concatenate(planes, axis=-1)


def image_scores(prediction: Array, batch: Batch, target: str) -> dict[str, Array]:
    """Per-example scores of predicted images.

    Args:
      prediction: [B, H, W, C].
      batch: holds the truth under ``target`` and possibly ``weight``.
      target: key of the truth.

    Returns:
      ``r_index`` (index of fit over all pixels and channels, 1/2 where an image is constant), ``mse`` and ``weight``,
      float32 [B] each; the weight is 1 where the batch has none.
    """
    truth = batch[target]
    weight = batch.get("weight")
    return {
        "r_index": r_index(prediction, truth),
        "mse": jnp.mean(jnp.square(prediction - truth), axis=(1, 2, 3)),
        "weight": jnp.ones(truth.shape[0], jnp.float32) if weight is None else weight,
    }
