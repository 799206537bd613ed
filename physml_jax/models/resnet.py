"""Residual networks for images (He et al. 2016), with basic blocks: depths 10, 18 and 34.

Differences from the published network are options with the published value as default: the width, and the stem (7x7
stride 2 with max-pooling, or a
3x3 stem for small pictures). Convolutions in front of normalisation carry no bias.
"""

from collections.abc import Sequence
from functools import partial

import jax.numpy as jnp
from flax import linen as nn

from physml_jax.models.convolution import conv_general_dilated
from physml_jax.typing import Array

_STAGES = {10: (1, 1, 1, 1), 18: (2, 2, 2, 2), 34: (3, 4, 6, 3)}

# He initialisation for the fan-out, as published.
_Conv = partial(
    nn.Conv,
    use_bias=False,
    conv_general_dilated=conv_general_dilated,
    kernel_init=nn.initializers.variance_scaling(2.0, "fan_out", "truncated_normal"),
)


class BasicBlock(nn.Module):
    """Two 3x3 convolutions around a shortcut: [B, H, W, C] -> [B, H/stride, W/stride, features]."""

    features: int
    stride: int
    dtype: str

    @nn.compact
    def __call__(self, x: Array, *, train: bool) -> Array:
        norm = partial(nn.BatchNorm, use_running_average=not train, momentum=0.9, epsilon=1e-5, dtype=self.dtype)
        conv = partial(_Conv, dtype=self.dtype)
        strides = (self.stride, self.stride)
        y = nn.relu(norm()(conv(self.features, (3, 3), strides, padding=1)(x)))
        y = norm(scale_init=nn.initializers.zeros)(conv(self.features, (3, 3), padding=1)(y))
        if x.shape != y.shape:
            x = norm()(conv(self.features, (1, 1), strides, padding=0)(x))
        return nn.relu(x + y)


class ResNet(nn.Module):
    """See ``make_model``."""

    stages: Sequence[int]
    num_classes: int
    width: int
    small_stem: bool
    dtype: str

    @nn.compact
    def __call__(self, inputs: Array, *, train: bool) -> Array:
        x = inputs.astype(self.dtype)
        if self.small_stem:
            x = _Conv(self.width, (3, 3), padding=1, dtype=self.dtype)(x)
        else:
            x = _Conv(self.width, (7, 7), (2, 2), padding=3, dtype=self.dtype)(x)
        x = nn.BatchNorm(use_running_average=not train, momentum=0.9, epsilon=1e-5, dtype=self.dtype)(x)
        x = nn.relu(x)
        if not self.small_stem:
            x = nn.max_pool(x, (3, 3), (2, 2), padding=((1, 1), (1, 1)))
        for i, num_blocks in enumerate(self.stages):
            for j in range(num_blocks):
                stride = 2 if i > 0 and j == 0 else 1
                x = BasicBlock(self.width * 2**i, stride, self.dtype)(x, train=train)
        x = x.astype(jnp.float32).mean(axis=(1, 2))
        return nn.Dense(self.num_classes)(x)


def make_model(
    *, depth: int = 18, num_classes: int = 2, width: int = 64, small_stem: bool = False, dtype: str = "float32"
) -> nn.Module:
    """A residual network that maps [B, H, W, C] to float32 [B, num_classes].

    Args:
      depth: 10, 18 or 34 layers.
      num_classes: number of outputs (logits, or values of a regression).
      width: channels of the first stage; the last has eight times as many.
      small_stem: a 3x3 stem without stride and pooling, for pictures below about 64 pixels.
      dtype: type of the activations (``"bfloat16"`` on accelerators); parameters are float32.

    Returns:
      A Linen module with the mutable collection ``batch_stats``.

    Raises:
      ValueError: for a depth that does not exist.

    References:
      K. He, X. Zhang, S. Ren, J. Sun, Deep residual learning for image recognition (2016), table 1.
    """
    if depth not in _STAGES:
        raise ValueError(f"model.kwargs.depth: expected one of {sorted(_STAGES)}, got {depth}")
    return ResNet(stages=_STAGES[depth], num_classes=num_classes, width=width, small_stem=small_stem, dtype=dtype)
