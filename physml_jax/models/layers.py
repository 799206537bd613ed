"""Layers that several image models share. Everything is channels last, [B, H, W, C]."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from flax import linen as nn

from physml_jax.models.convolution import conv_general_dilated, conv_transpose
from physml_jax.typing import Array

#: What may follow the last layer of a generator, by name.
ACTIVATIONS: dict[str, Callable[[Array], Array]] = {"none": lambda x: x, "tanh": jnp.tanh, "sigmoid": jax.nn.sigmoid}


def activation(name: str) -> Callable[[Array], Array]:
    """The output activation of that name.

    Raises:
      ValueError: for an unknown name.
    """
    if name not in ACTIVATIONS:
        raise ValueError(f"out_activation: expected one of {', '.join(sorted(ACTIVATIONS))}, got {name!r}")
    return ACTIVATIONS[name]


def check_divisible(x: Array, factor: int, reason: str) -> None:
    """Refuses an image whose height or width is not a multiple of ``factor``.

    Raises:
      ValueError: with the size and the reason.
    """
    if x.shape[1] % factor or x.shape[2] % factor:
        raise ValueError(f"inputs: height and width must be multiples of {factor} ({reason}), got {x.shape[1:3]}")


class Conv(nn.Module):
    """A convolution with the padding spelled out: [B, H, W, C] -> [B, OH, OW, features].

    Attributes:
      features: output channels.
      kernel_size: side of the square kernel.
      stride: step between output pixels, in both directions.
      padding: pixels added on every side.
      reflect: pad with the mirrored image instead of zeros.
      use_bias: add a bias; superfluous in front of a normalisation.
      kernel_init: initialiser of the kernel; ``None`` is LeCun's.
      dtype: dtype of the computation; parameters are float32.
    """

    features: int
    kernel_size: int = 3
    stride: int = 1
    padding: int = 1
    reflect: bool = False
    use_bias: bool = True
    kernel_init: Callable | None = None
    dtype: str = "float32"

    @nn.compact
    def __call__(self, x: Array) -> Array:
        padding = self.padding
        if self.reflect and padding:
            x, padding = reflect_pad(x, padding), 0
        return nn.Conv(
            self.features,
            (self.kernel_size, self.kernel_size),
            strides=self.stride,
            padding=padding,
            use_bias=self.use_bias,
            kernel_init=self.kernel_init or nn.initializers.lecun_normal(),
            conv_general_dilated=conv_general_dilated,
            dtype=self.dtype,
            name="conv",
        )(x)


class UpConv(nn.Module):
    """Transposed convolution with stride 2 that doubles the size: [B, H, W, C] -> [B, 2H, 2W, features].

    The adjoint of a 3x3 convolution with stride 2 and padding 1 on the doubled image, as pix2pixHD uses it.
    """

    features: int
    use_bias: bool = True
    kernel_init: Callable | None = None
    dtype: str = "float32"

    @nn.compact
    def __call__(self, x: Array) -> Array:
        # The kernel is that of the convolution which this transposes, so its input channels are our output.
        init = self.kernel_init or nn.initializers.variance_scaling(1.0, "fan_in", "truncated_normal", in_axis=-1)
        kernel = self.param("kernel", init, (3, 3, self.features, x.shape[3]), jnp.float32)
        size = (2 * x.shape[1], 2 * x.shape[2])
        x, kernel = x.astype(self.dtype), kernel.astype(self.dtype)
        y = conv_transpose(x, kernel, strides=(2, 2), padding=((1, 1), (1, 1)), size=size)
        if self.use_bias:
            bias = self.param("bias", nn.initializers.zeros, (self.features,), jnp.float32)
            y = y + bias.astype(self.dtype).reshape(1, 1, 1, -1)
        return y


def instance_norm(x: Array, *, epsilon: float = 1e-5) -> Array:
    """Every channel of every image to mean 0 and variance 1 over its pixels; no parameters.

    Statistics are float32 whatever the dtype. A constant channel becomes zero: whatever such a channel said (a
    condition given as a plane, the response to one) is lost here.

    References:
      D. Ulyanov, A. Vedaldi, V. Lempitsky, arXiv:1607.08022 (2016).
    """
    return _standardised(x, epsilon)


class GroupNorm(nn.Module):
    """Normalisation over pixels and the channels of a group, without parameters; defined down to one pixel.

    Attributes:
      group_size: channels per group; a smaller number of channels is one group.
      epsilon: added to the variance.

    References:
      Y. Wu, K. He, Group normalization, ECCV 2018.
    """

    group_size: int = 8
    epsilon: float = 1e-5

    @nn.compact
    def __call__(self, x: Array) -> Array:
        size = min(self.group_size, x.shape[3])
        if x.shape[3] % size:
            raise ValueError(f"group_size: {x.shape[3]} channels do not divide into groups of {size}")

        def over_group(means):  # sums over pixels first, channel by channel: those the compiler vectorises
            groups = means.reshape(means.shape[0], -1, size).mean(-1, keepdims=True)
            return jnp.broadcast_to(groups, (*groups.shape[:2], size)).reshape(means.shape)

        return _standardised(x, self.epsilon, over_group)


def _standardised(x: Array, epsilon: float, pooled: Callable[[Array], Array] = lambda means: means) -> Array:
    """Subtracts the mean and divides by the deviation; ``pooled`` combines the means over pixels, [B, 1, 1, C]."""
    values = x.astype(jnp.float32)
    centred = values - pooled(values.mean((1, 2), keepdims=True))
    variance = pooled(jnp.square(centred).mean((1, 2), keepdims=True))
    return (centred * jax.lax.rsqrt(variance + epsilon)).astype(x.dtype)


def reflect_pad(x: Array, pixels: int) -> Array:
    """Pads height and width with the image mirrored at its border pixels.

    Raises:
      ValueError: if the image is not larger than the padding.
    """
    if min(x.shape[1:3]) <= pixels:
        raise ValueError(f"inputs: reflection padding of {pixels} needs a larger image than {x.shape[1:3]}")
    return jnp.pad(x, ((0, 0), (pixels, pixels), (pixels, pixels), (0, 0)), mode="reflect")


def halve(x: Array) -> Array:
    """The image at half the size: means over 3x3 windows with stride 2, border windows over what exists.

    [B, H, W, C] -> [B, ceil(H/2), ceil(W/2), C], the pyramid of the multi-scale discriminators.
    """
    window = {"window_shape": (3, 3), "strides": (2, 2), "padding": ((1, 1), (1, 1))}
    return nn.avg_pool(x, **window, count_include_pad=False)


def double(x: Array) -> Array:
    """Every pixel becomes a 2x2 square: [B, H, W, C] -> [B, 2H, 2W, C]."""
    b, h, w, c = x.shape
    return jnp.broadcast_to(x[:, :, None, :, None], (b, h, 2, w, 2, c)).reshape(b, 2 * h, 2 * w, c)


def space_to_depth(x: Array, size: int) -> Array:
    """Squares of pixels become channels: [B, H, W, C] -> [B, H/size, W/size, size^2 C]."""
    b, h, w, c = x.shape
    x = x.reshape(b, h // size, size, w // size, size, c).transpose(0, 1, 3, 2, 4, 5)
    return x.reshape(b, h // size, w // size, size * size * c)


def depth_to_space(x: Array, size: int) -> Array:
    """The inverse of ``space_to_depth``: [B, H, W, size^2 C] -> [B, H size, W size, C]."""
    b, h, w, c = x.shape
    x = x.reshape(b, h, w, size, size, c // size**2).transpose(0, 1, 3, 2, 4, 5)
    return x.reshape(b, h * size, w * size, c // size**2)
