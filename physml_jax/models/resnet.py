"""Residual networks for images (He et al. 2016): basic blocks up to depth 34, bottleneck blocks from depth 50.

Differences from the published network are options with the published value as default: the width, the stem (7x7 stride
2 with max-pooling, or a 3x3 stem for small pictures), the head (one answer per picture, or one per pixel). Convolutions
in front of normalisation carry no bias. The stride of a bottleneck sits at its 3x3 convolution, as in most code since
2016; the number of parameters is that of the paper.
"""

from collections.abc import Sequence
from functools import partial

import jax.numpy as jnp
from flax import linen as nn

from physml_jax.models.convolution import conv_general_dilated
from physml_jax.models.layers import depth_to_space
from physml_jax.typing import Array

HEADS = ("classes", "sites")

_BASIC = {10: (1, 1, 1, 1), 18: (2, 2, 2, 2), 34: (3, 4, 6, 3)}
_BOTTLENECK = {50: (3, 4, 6, 3), 101: (3, 4, 23, 3), 152: (3, 8, 36, 3)}
_STAGES = {**_BASIC, **_BOTTLENECK}

# He initialisation for the fan-out, as published.
_Conv = partial(
    nn.Conv,
    use_bias=False,
    conv_general_dilated=conv_general_dilated,
    kernel_init=nn.initializers.variance_scaling(2.0, "fan_out", "truncated_normal"),
)


def _norm(dtype: str, train: bool, **kwargs) -> nn.BatchNorm:
    return nn.BatchNorm(use_running_average=not train, momentum=0.9, epsilon=1e-5, dtype=dtype, **kwargs)


class BasicBlock(nn.Module):
    """Two 3x3 convolutions around a shortcut: [B, H, W, C] -> [B, H/stride, W/stride, features]."""

    features: int
    stride: int
    dtype: str

    @nn.compact
    def __call__(self, x: Array, *, train: bool) -> Array:
        norm = partial(_norm, self.dtype, train)
        conv = partial(_Conv, dtype=self.dtype)
        strides = (self.stride, self.stride)
        y = nn.relu(norm()(conv(self.features, (3, 3), strides, padding=1)(x)))
        y = norm(scale_init=nn.initializers.zeros)(conv(self.features, (3, 3), padding=1)(y))
        if x.shape != y.shape:
            x = norm()(conv(self.features, (1, 1), strides, padding=0)(x))
        return nn.relu(x + y)


class BottleneckBlock(nn.Module):
    """1x1, 3x3 and 1x1 convolutions around a shortcut: [B, H, W, C] -> [B, H/stride, W/stride, 4 features]."""

    features: int
    stride: int
    dtype: str

    @nn.compact
    def __call__(self, x: Array, *, train: bool) -> Array:
        norm = partial(_norm, self.dtype, train)
        conv = partial(_Conv, dtype=self.dtype)
        strides = (self.stride, self.stride)
        y = nn.relu(norm()(conv(self.features, (1, 1), padding=0)(x)))
        y = nn.relu(norm()(conv(self.features, (3, 3), strides, padding=1)(y)))
        y = norm(scale_init=nn.initializers.zeros)(conv(4 * self.features, (1, 1), padding=0)(y))
        if x.shape != y.shape:
            x = norm()(conv(4 * self.features, (1, 1), strides, padding=0)(x))
        return nn.relu(x + y)


class ResNet(nn.Module):
    """See ``make_model``."""

    stages: Sequence[int]
    bottleneck: bool
    num_classes: int
    head: str
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
        x = nn.relu(_norm(self.dtype, train)(x))
        if not self.small_stem:
            x = nn.max_pool(x, (3, 3), (2, 2), padding=((1, 1), (1, 1)))
        block = BottleneckBlock if self.bottleneck else BasicBlock
        for i, num_blocks in enumerate(self.stages):
            for j in range(num_blocks):
                stride = 2 if i > 0 and j == 0 else 1
                x = block(self.width * 2**i, stride, self.dtype)(x, train=train)
        x = x.astype(jnp.float32)
        if self.head == "classes":
            return nn.Dense(self.num_classes)(x.mean(axis=(1, 2)))
        stride = (1 if self.small_stem else 4) * 2 ** (len(self.stages) - 1)
        # Every halving rounds up, so the last map covers the picture and a little more.
        return depth_to_space(nn.Dense(stride**2)(x), stride)[:, : inputs.shape[1], : inputs.shape[2]]


def make_model(
    *,
    depth: int = 18,
    num_classes: int = 2,
    head: str = "classes",
    width: int = 64,
    small_stem: bool = False,
    dtype: str = "float32",
) -> nn.Module:
    """A residual network: [B, H, W, C] -> float32 [B, num_classes], or one number per pixel.

    Args:
      depth: 10, 18 or 34 layers with basic blocks; 50, 101 or 152 with bottleneck blocks.
      num_classes: number of outputs (logits, or values of a regression) of the head ``classes``; the other ignores it.
      head: ``"classes"``: the mean of the last map decides, [B, num_classes]; ``"sites"``: one logit per pixel, [B, H,
        W, 1], where a position of the last map speaks for its square of 32 x 32 pixels (8 x 8 with the small stem).
      width: channels of the first stage; the last has eight times as many (32 times with bottleneck blocks).
      small_stem: a 3x3 stem without stride and pooling, for pictures below about 64 pixels.
      dtype: type of the activations (``"bfloat16"`` on accelerators); parameters and output are float32.

    Returns:
      A Linen module with the mutable collection ``batch_stats``, for pictures of any size.

    Raises:
      ValueError: for a depth or a head that does not exist.

    References:
      K. He, X. Zhang, S. Ren, J. Sun, Deep residual learning for image recognition (2016), table 1.
    """
    if depth not in _STAGES:
        raise ValueError(f"model.kwargs.depth: expected one of {sorted(_STAGES)}, got {depth}")
    if head not in HEADS:
        raise ValueError(f"model.kwargs.head: expected one of {', '.join(HEADS)}, got {head!r}")
    return ResNet(
        stages=_STAGES[depth],
        bottleneck=depth in _BOTTLENECK,
        num_classes=num_classes,
        head=head,
        width=width,
        small_stem=small_stem,
        dtype=dtype,
    )
