"""The networks of Simonyan and Zisserman (2015): 3x3 convolutions and 2x2 maxima, three dense layers behind them.

Most of the parameters sit in the first dense layer, whose size follows the picture unless the last map is pooled to 7x7
first; both heads exist. There is no normalisation, as published: from random weights the deeper ones often do not learn
at all.
"""

from collections.abc import Sequence

import jax.numpy as jnp
from flax import linen as nn

from physml_jax.models.layers import Conv
from physml_jax.models.pooling import adaptive_mean_pool, max_pool_2x2
from physml_jax.typing import Array

HEADS = ("pooled", "flatten")
#: Convolutions of the five stages; stage i has min(2^i, 8) times the width in channels.
STAGES = {11: (1, 1, 2, 2, 2), 13: (2, 2, 2, 2, 2), 16: (2, 2, 3, 3, 3), 19: (2, 2, 4, 4, 4)}

_FAN_OUT = nn.initializers.variance_scaling(2.0, "fan_out", "truncated_normal")


class VGG(nn.Module):
    """See ``make_model``."""

    stages: Sequence[int]
    num_classes: int
    head: str
    width: int
    hidden: int
    dropout: float
    dtype: str

    @nn.compact
    def __call__(self, inputs: Array, *, train: bool) -> Array:
        if min(inputs.shape[1:3]) < 2 ** len(self.stages):
            raise ValueError(
                f"inputs: {len(self.stages)} halvings need a picture of at least {2 ** len(self.stages)} pixels, got "
                f"{inputs.shape[1:3]}"
            )
        x = inputs.astype(self.dtype)
        for i, number in enumerate(self.stages):
            for j in range(number):
                features = self.width * min(2**i, 8)
                x = nn.relu(Conv(features, kernel_init=_FAN_OUT, dtype=self.dtype, name=f"stage{i + 1}_conv{j + 1}")(x))
            x = max_pool_2x2(x)
        if self.head == "pooled":
            x = adaptive_mean_pool(x, 7)
        x = x.reshape(x.shape[0], -1)
        drop = nn.Dropout(self.dropout, deterministic=not train)
        for name in ("dense1", "dense2"):
            init = nn.initializers.variance_scaling(2.0, "fan_in", "truncated_normal")
            x = drop(nn.relu(nn.Dense(self.hidden, kernel_init=init, dtype=self.dtype, name=name)(x)))
        return nn.Dense(self.num_classes, name="head")(x.astype(jnp.float32))


def make_model(
    *,
    depth: int = 16,
    num_classes: int = 2,
    head: str = "pooled",
    width: int = 64,
    hidden: int = 4096,
    dropout: float = 0.5,
    dtype: str = "float32",
) -> nn.Module:
    """A VGG network: [B, H, W, C] -> float32 logits [B, num_classes].

    Args:
      depth: layers with weights: 11, 13, 16 or 19.
      num_classes: number of outputs.
      head: ``"pooled"``: the last map becomes 7x7 means, for pictures of any size; ``"flatten"``: it is read as it is,
        so the parameters hold for one size (25x25 positions at 800 pixels, 1.3e9 parameters).
      width: channels of the first stage; 2, 4, 8 and 8 times as many in the others.
      hidden: units of the two hidden dense layers.
      dropout: probability behind each of them.
      dtype: type of the activations (``"bfloat16"`` on accelerators); parameters and output are float32.

    Returns:
      A Linen module without mutable collections; with dropout it asks for the random stream ``dropout``.

    Raises:
      ValueError: for an unknown option; when called, for a picture below 32 pixels.

    References:
      K. Simonyan, A. Zisserman, Very deep convolutional networks for large-scale image recognition, ICLR 2015, table 1
      (columns A, B, D, E).
    """
    if depth not in STAGES:
        raise ValueError(f"model.kwargs.depth: expected one of {sorted(STAGES)}, got {depth}")
    if head not in HEADS:
        raise ValueError(f"model.kwargs.head: expected one of {', '.join(HEADS)}, got {head!r}")
    if min(num_classes, width, hidden) < 1:
        raise ValueError("model.kwargs: num_classes, width and hidden must be at least 1")
    if not 0 <= dropout < 1:
        raise ValueError(f"model.kwargs.dropout: expected a number from 0 to below 1, got {dropout}")
    return VGG(STAGES[depth], num_classes, head, width, hidden, dropout, dtype)
