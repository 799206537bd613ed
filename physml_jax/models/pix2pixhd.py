"""The global generator of pix2pixHD: a residual network between strided and transposed convolutions, no skips."""

from functools import partial

from flax import linen as nn

from physml_jax.models.layers import Conv, UpConv, activation, check_divisible, instance_norm
from physml_jax.typing import Array

_INIT = nn.initializers.normal(0.02)


class ResidualBlock(nn.Module):
    """Two 3x3 convolutions with instance normalisation around an identity; the channels stay."""

    dtype: str

    @nn.compact
    def __call__(self, x: Array) -> Array:
        conv = partial(Conv, x.shape[3], reflect=True, use_bias=False, kernel_init=_INIT, dtype=self.dtype)
        y = nn.relu(instance_norm(conv(name="conv1")(x)))
        return x + instance_norm(conv(name="conv2")(y))


class Generator(nn.Module):
    """See ``make_model``."""

    base_features: int
    num_downsamples: int
    num_blocks: int
    out_channels: int
    out_activation: str
    stem_norm: bool
    dtype: str

    @nn.compact
    def __call__(self, inputs: Array, *, train: bool) -> Array:
        del train  # neither dropout nor running statistics
        check_divisible(inputs, 2**self.num_downsamples, f"num_downsamples = {self.num_downsamples}")
        if min(inputs.shape[1:3]) < 2 ** (self.num_downsamples + 1):
            raise ValueError(
                f"num_downsamples: {self.num_downsamples} halvings leave a single pixel of {inputs.shape[1:3]}, which "
                f"instance normalisation would set to zero"
            )
        options = {"kernel_init": _INIT, "dtype": self.dtype}
        conv = partial(Conv, use_bias=False, **options)
        x = inputs.astype(self.dtype)
        stem = Conv(self.base_features, 7, padding=3, reflect=True, use_bias=not self.stem_norm, **options, name="stem")
        x = stem(x)
        x = nn.relu(instance_norm(x) if self.stem_norm else x)
        for level in range(1, self.num_downsamples + 1):
            x = nn.relu(instance_norm(conv(self.base_features * 2**level, stride=2, name=f"down{level}")(x)))
        for block in range(self.num_blocks):
            x = ResidualBlock(self.dtype, name=f"block{block + 1}")(x)
        for level in reversed(range(self.num_downsamples)):
            up = UpConv(self.base_features * 2**level, use_bias=False, **options, name=f"up{level}")
            x = nn.relu(instance_norm(up(x)))
        x = Conv(self.out_channels, 7, padding=3, reflect=True, **options, name="head")(x)
        return activation(self.out_activation)(x.astype("float32"))


def make_model(
    *,
    base_features: int = 64,
    num_downsamples: int = 4,
    num_blocks: int = 9,
    out_channels: int = 1,
    out_activation: str = "tanh",
    stem_norm: bool = True,
    dtype: str = "float32",
) -> nn.Module:
    """The pix2pixHD "global" generator: [B, H, W, C] -> float32 [B, H, W, out_channels].

    The defaults are the published network (182.5 million parameters): a 7x7 convolution, stride-2 convolutions that
    double the channels, residual blocks, transposed convolutions back, a 7x7 convolution; reflection padding, instance
    normalisation without parameters, weights from N(0, 0.02^2). Convolutions in front of a normalisation have no bias
    (the published ones have one, which the normalisation removes).

    Instance normalisation removes every constant: with ``stem_norm=True``, as published, the output depends neither on
    the scale of the input nor on a condition that is given as a constant plane. ``stem_norm=False`` puts a bias and no
    normalisation into the first layer, so that both can pass its nonlinearity.

    Args:
      base_features: channels of the first layer; C x 2^num_downsamples in the residual blocks.
      num_downsamples: halvings; height and width must be multiples of 2^num_downsamples, and larger.
      num_blocks: residual blocks at the smallest size.
      out_channels: channels of the output.
      out_activation: ``"tanh"``, ``"sigmoid"`` or ``"none"``.
      stem_norm: normalise behind the first convolution.
      dtype: dtype of the computation, ``"float32"`` or ``"bfloat16"``; parameters and output are float32.

    Returns:
      A module whose call takes the images and ``train`` (which changes nothing).

    Raises:
      ValueError: for an unknown activation; when called, for a size that does not fit.

    References:
      T.-C. Wang et al., High-resolution image synthesis and semantic manipulation with conditional GANs, CVPR 2018,
      section 3.1; J. Johnson, A. Alahi, L. Fei-Fei, ECCV 2016.
    """
    activation(out_activation)
    return Generator(base_features, num_downsamples, num_blocks, out_channels, out_activation, stem_norm, dtype)
