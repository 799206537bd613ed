"""A residual U-Net for image-to-image tasks, sized for a CPU, whose blocks know the global statistics of the input."""

import math
from functools import partial

import jax.numpy as jnp
import numpy as np
from flax import linen as nn

from physml_jax.models.layers import (
    Conv,
    GroupNorm,
    activation,
    check_divisible,
    depth_to_space,
    double,
    space_to_depth,
)
from physml_jax.typing import Array


class Block(nn.Module):
    """Two 3x3 convolutions around a shortcut, with scale and shift from the context: -> [B, H, W, features]."""

    features: int
    dtype: str

    @nn.compact
    def __call__(self, x: Array, context: Array) -> Array:
        conv = partial(Conv, self.features, dtype=self.dtype)
        # All of the modulation starts at the identity, and the block at its shortcut.
        film = nn.Dense(2 * self.features, kernel_init=nn.initializers.zeros, dtype=self.dtype, name="film")(context)
        scale, shift = jnp.split(film[:, None, None, :], 2, axis=-1)
        y = conv(use_bias=False, name="conv1")(nn.silu(GroupNorm()(x)))
        y = nn.silu(GroupNorm()(y) * (1 + scale) + shift)
        y = conv(kernel_init=nn.initializers.variance_scaling(1e-2, "fan_in", "truncated_normal"), name="conv2")(y)
        if x.shape[3] != self.features:
            x = conv(kernel_size=1, padding=0, use_bias=False, name="shortcut")(x)
        return x + y


class UNet(nn.Module):
    """See ``make_model``."""

    base_features: int
    max_features: int
    depth: int
    num_blocks: int
    patch: int
    spectrum: int
    out_channels: int
    out_activation: str
    dtype: str

    @nn.compact
    def __call__(self, inputs: Array, *, train: bool) -> Array:
        del train  # neither dropout nor running statistics
        check_divisible(inputs, self.patch * 2**self.depth, f"patch = {self.patch}, depth = {self.depth}")
        widths = [min(self.base_features * 2**i, self.max_features) for i in range(self.depth + 1)]
        conv = partial(Conv, dtype=self.dtype)
        values = inputs.astype("float32")
        spread = jnp.sqrt(values.var((1, 2)) + 1e-6)  # the root of zero, at a constant plane, has no derivative
        statistics = jnp.concatenate([values.mean((1, 2)), spread], axis=-1)
        context = nn.silu(nn.Dense(4 * self.base_features, dtype=self.dtype, name="context")(statistics))

        if self.spectrum:
            values = jnp.concatenate([values, log_spectrum(values[..., :1], self.spectrum)], axis=-1)
        x = conv(widths[0], name="stem")(space_to_depth(values.astype(self.dtype), self.patch))
        skips = []
        for level in range(self.depth):
            x = Block(widths[level], self.dtype, name=f"down{level + 1}")(x, context)
            skips.append(x)
            x = conv(widths[level + 1], stride=2, name=f"halve{level + 1}")(x)
        for block in range(self.num_blocks):
            x = Block(widths[-1], self.dtype, name=f"middle{block + 1}")(x, context)
        for level in reversed(range(self.depth)):
            # The 1x1 convolution comes first because it costs a quarter there and the copies commute with it.
            x = double(conv(widths[level], kernel_size=1, padding=0, use_bias=False, name=f"double{level + 1}")(x))
            x = jnp.concatenate([x, skips[level]], axis=-1)
            x = Block(widths[level], self.dtype, name=f"up{level + 1}")(x, context)
        x = conv(self.out_channels * self.patch**2, name="head")(nn.silu(GroupNorm()(x)))
        x = depth_to_space(x, self.patch)
        return activation(self.out_activation)(x.astype("float32"))


def log_spectrum(x: Array, orders: int) -> Array:
    """Magnitudes of the lowest Fourier orders as an image of the same size: log(0.01 + |F|) + 2.

    Args:
      x: float32 [B, H, W, 1].
      orders: the orders -orders..orders in both directions are kept; each becomes a rectangle of equal pixels, the
        column order along the columns, so mirrors and quarter turns of ``x`` do the same to the result.

    Returns:
      float32 [B, H, W, 1].
    """
    waves, places = [], []
    for n in x.shape[1:3]:
        phase = 2 * math.pi * np.outer(np.arange(-orders, orders + 1), (np.arange(n) + 0.5) / n)
        waves.append(jnp.asarray(np.stack([np.cos(phase), np.sin(phase)]) / n, jnp.float32))
        places.append(np.floor((np.arange(n) + 0.5) / n * (2 * orders + 1)).astype(np.int32))
    rows = jnp.einsum("bij,chi->bchj", x[..., 0], waves[0])
    # Products of two cosines and sines: the parts of exp(i (a + b)) = (ca cb - sa sb) + i (ca sb + sa cb).
    parts = jnp.einsum("bchj,dkj->bcdhk", rows, waves[1])
    real, imaginary = parts[:, 0, 0] - parts[:, 1, 1], parts[:, 0, 1] + parts[:, 1, 0]
    magnitude = jnp.sqrt(real**2 + imaginary**2 + 1e-12)
    return jnp.log(1e-2 + magnitude[:, places[0]][:, :, places[1]])[..., None] + 2.0


def make_model(
    *,
    base_features: int = 24,
    max_features: int = 96,
    depth: int = 4,
    num_blocks: int = 2,
    patch: int = 2,
    spectrum: int = 0,
    out_channels: int = 1,
    out_activation: str = "none",
    dtype: str = "float32",
) -> nn.Module:
    """A U-Net of residual blocks: [B, H, W, C] -> float32 [B, H, W, out_channels].

    A level halves the image, down to a single pixel if ``depth`` says so; then every output pixel depends on the whole
    input. The mean and the standard deviation of every input channel also reach each block as a scale and a shift
    behind its normalisation, so conditions given as constant planes, and the magnitude of the input, are not lost in
    the normalisation.

    Args:
      base_features: channels at the largest size, a multiple of 8; they double per level.
      max_features: their upper limit, a multiple of 8.
      depth: halvings; height and width must be multiples of patch x 2^depth.
      num_blocks: residual blocks at the smallest size.
      patch: squares of so many pixels become channels in front and pixels again at the end. Most of the cost of a
        U-Net is at full size: 2 makes a step nearly four times cheaper than 1 and costs little accuracy on patterns
        that vary smoothly over two pixels.
      spectrum: if positive, the magnitudes of the Fourier orders -spectrum..spectrum of the first input channel join
        the input, on a logarithmic scale, drawn over the whole image with order (0, 0) in the middle. For outputs that
        live in reciprocal space; periodic shifts of the input do not change it.
      out_channels: channels of the output.
      out_activation: ``"none"``, ``"sigmoid"`` or ``"tanh"``.
      dtype: dtype of the computation, ``"float32"`` or ``"bfloat16"``; parameters and output are float32.

    Returns:
      A module whose call takes the images and ``train`` (which changes nothing).

    Raises:
      ValueError: for an unknown activation; when called, for a size that does not fit.

    References:
      O. Ronneberger, P. Fischer, T. Brox, MICCAI 2015; E. Perez et al., FiLM, AAAI 2018.
    """
    activation(out_activation)
    return UNet(base_features, max_features, depth, num_blocks, patch, spectrum, out_channels, out_activation, dtype)
