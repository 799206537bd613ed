"""EfficientNet (Tan and Le 2019): inverted bottlenecks with depthwise convolutions and squeeze-and-excitation.

Width and depth multiply the channels and the repeats of the smallest network, B0; the published ones are in
``PUBLISHED``. Normalisation and padding are those of the common PyTorch versions, whose weights therefore apply.
"""

import math
from functools import partial

import jax.numpy as jnp
from flax import linen as nn

from physml_jax.models.convolution import conv_general_dilated
from physml_jax.models.depthwise import depthwise_conv
from physml_jax.typing import Array

#: Stages of B0: expansion, kernel, stride, output channels, repeats.
STAGES = (
    (1, 3, 1, 16, 1),
    (6, 3, 2, 24, 2),
    (6, 5, 2, 40, 2),
    (6, 3, 2, 80, 3),
    (6, 5, 1, 112, 3),
    (6, 5, 2, 192, 4),
    (6, 3, 1, 320, 1),
)
#: (width, depth, dropout) by name; the reference's sizes of picture are 224, 240, 260, 300 and 380.
PUBLISHED = {
    "b0": (1.0, 1.0, 0.2),
    "b1": (1.0, 1.1, 0.2),
    "b2": (1.1, 1.2, 0.3),
    "b3": (1.2, 1.4, 0.3),
    "b4": (1.4, 1.8, 0.4),
}

_FAN_OUT = nn.initializers.variance_scaling(2.0, "fan_out", "truncated_normal")


def channels(number: int, width: float) -> int:
    """``number * width`` rounded to a multiple of 8, at least 8 and not more than 10 % below."""
    rounded = max(8, int(number * width + 4) // 8 * 8)
    return rounded + 8 if rounded < 0.9 * number * width else rounded


def stages(width: float, depth: float) -> tuple[tuple[int, int, int, int, int], ...]:
    """The stages of B0 with their channels and repeats scaled."""
    return tuple((e, k, s, channels(c, width), math.ceil(depth * n)) for e, k, s, c, n in STAGES)


class DepthwiseConv(nn.Module):
    """One kernel per channel, padding (kernel_size - 1) / 2: [B, H, W, C] -> [B, ceil(H/stride), ceil(W/stride), C]."""

    kernel_size: int
    stride: int
    dtype: str

    @nn.compact
    def __call__(self, x: Array) -> Array:
        # One output per input channel: the fan-out is the number of taps.
        init = nn.initializers.variance_scaling(2.0, "fan_in", "truncated_normal")
        shape = (self.kernel_size, self.kernel_size, 1, x.shape[3])
        kernel = self.param("kernel", init, shape, jnp.float32)
        return depthwise_conv(x.astype(self.dtype), kernel.astype(self.dtype), stride=self.stride)


class MBConv(nn.Module):
    """Expand, convolve every channel, weigh the channels, project; with a shortcut where the shape stays.

    [B, H, W, C] -> [B, ceil(H/stride), ceil(W/stride), features]. ``drop_path`` is the probability that a picture
    takes the shortcut only.
    """

    features: int
    expand: int
    kernel_size: int
    stride: int
    drop_path: float
    dtype: str

    @nn.compact
    def __call__(self, x: Array, *, train: bool) -> Array:
        conv = partial(_conv, self.dtype)
        norm = partial(_norm, self.dtype, train)
        y, inner = x, x.shape[3] * self.expand
        if self.expand != 1:
            y = nn.silu(norm("expand_norm")(conv(inner, "expand")(y)))
        y = DepthwiseConv(self.kernel_size, self.stride, self.dtype, name="depthwise")(y)
        y = nn.silu(norm("depthwise_norm")(y))
        squeezed = y.mean(axis=(1, 2))
        squeezed = nn.silu(nn.Dense(max(1, x.shape[3] // 4), dtype=self.dtype, name="squeeze")(squeezed))
        y = y * nn.sigmoid(nn.Dense(inner, dtype=self.dtype, name="excite")(squeezed))[:, None, None, :]
        y = norm("project_norm")(conv(self.features, "project")(y))
        if x.shape != y.shape:
            return y
        return x + nn.Dropout(self.drop_path, broadcast_dims=(1, 2, 3), deterministic=not train)(y)


class EfficientNet(nn.Module):
    """See ``make_model``."""

    width: float
    depth: float
    num_classes: int
    dropout: float
    drop_path: float
    dtype: str

    @nn.compact
    def __call__(self, inputs: Array, *, train: bool) -> Array:
        conv = partial(_conv, self.dtype)
        norm = partial(_norm, self.dtype, train)
        x = inputs.astype(self.dtype)
        x = nn.silu(norm("stem_norm")(conv(channels(32, self.width), "stem", kernel_size=3, stride=2)(x)))
        plan = stages(self.width, self.depth)
        total, done = sum(n for *_, n in plan), 0
        for i, (expand, kernel_size, stride, features, number) in enumerate(plan):
            for j in range(number):
                # Later blocks are dropped more often, linearly.
                block = MBConv(
                    features,
                    expand,
                    kernel_size,
                    stride if j == 0 else 1,
                    self.drop_path * done / total,
                    self.dtype,
                    name=f"stage{i + 1}_block{j + 1}",
                )
                x, done = block(x, train=train), done + 1
        last = 4 * plan[-1][3]
        x = nn.silu(norm("last_norm")(conv(last, "last")(x)))
        x = x.astype(jnp.float32).mean(axis=(1, 2))
        x = nn.Dropout(self.dropout, deterministic=not train)(x)
        return nn.Dense(self.num_classes, name="head")(x)


def _conv(dtype: str, features: int, name: str, *, kernel_size: int = 1, stride: int = 1) -> nn.Conv:
    return nn.Conv(
        features,
        (kernel_size, kernel_size),
        (stride, stride),
        padding=kernel_size // 2,
        use_bias=False,
        kernel_init=_FAN_OUT,
        dtype=dtype,
        conv_general_dilated=conv_general_dilated,
        name=name,
    )


def _norm(dtype: str, train: bool, name: str) -> nn.BatchNorm:
    return nn.BatchNorm(use_running_average=not train, momentum=0.9, epsilon=1e-5, dtype=dtype, name=name)


def make_model(
    *,
    width: float = 1.2,
    depth: float = 1.4,
    num_classes: int = 2,
    dropout: float = 0.3,
    drop_path: float = 0.2,
    dtype: str = "float32",
) -> nn.Module:
    """An EfficientNet: [B, H, W, C] -> float32 logits [B, num_classes]; the defaults are B3.

    Args:
      width: multiplies the channels of B0 (rounded to multiples of 8).
      depth: multiplies the repeats of its stages (rounded up).
      num_classes: number of outputs.
      dropout: probability in front of the head.
      drop_path: probability that a block is skipped, at the end of the network; linearly less before.
      dtype: type of the activations (``"bfloat16"`` on accelerators); parameters and output are float32.

    Returns:
      A Linen module with the mutable collection ``batch_stats``, for pictures of any size; in training it asks for the
      random stream ``dropout`` unless both probabilities are 0.

    Raises:
      ValueError: for an option out of range.

    References:
      M. Tan, Q. V. Le, EfficientNet: rethinking model scaling for convolutional neural networks, ICML 2019, table 1;
      G. Huang et al., Deep networks with stochastic depth, ECCV 2016.
    """
    for name, factor in (("width", width), ("depth", depth)):
        if not factor > 0:
            raise ValueError(f"model.kwargs.{name}: expected a positive number, got {factor}")
    if num_classes < 1:
        raise ValueError(f"model.kwargs.num_classes: expected an integer of at least 1, got {num_classes}")
    for name, rate in (("dropout", dropout), ("drop_path", drop_path)):
        if not 0 <= rate < 1:
            raise ValueError(f"model.kwargs.{name}: expected a number from 0 to below 1, got {rate}")
    return EfficientNet(width, depth, num_classes, dropout, drop_path, dtype)
