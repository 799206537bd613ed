"""A convolutional variational autoencoder for states on a periodic square lattice.

The encoder is a stack of strided 3x3 convolutions with circular padding and a dense layer, which gives mean and
log-variance of a Gaussian over a few latent numbers. The decoder mirrors it: a dense layer, then at every stage a
circular 3x3 convolution whose channels become the sites of a finer map. That matters: a map that is enlarged by
repeating its pixels cannot grow a pattern of period two, such as a striped ground state, out of a uniform one.

There is no normalisation over the batch or the picture: the answer to a state must not depend on others, and its mean
is the order parameter.
"""

from collections.abc import Sequence
from functools import partial

import jax.numpy as jnp
import numpy as np
from flax import linen as nn

from physml_jax.models.convolution import conv_general_dilated
from physml_jax.models.layers import depth_to_space
from physml_jax.typing import Array

#: Bounds of the log-variance: far from the training states a linear output may be anything, and exp must stay finite.
LOG_VARIANCE_RANGE = (-20.0, 10.0)

_Conv = partial(
    nn.Conv,
    kernel_size=(3, 3),
    padding="CIRCULAR",
    conv_general_dilated=conv_general_dilated,
    kernel_init=nn.initializers.he_normal(),
)


class VAE(nn.Module):
    """See ``make_model``."""

    size: int
    latent_dim: int
    features: Sequence[int]
    strides: Sequence[int]
    dtype: str

    def setup(self):
        stages = tuple(zip(self.features, self.strides, strict=True))
        self.down = [_Conv(f, strides=s, dtype=self.dtype) for f, s in stages]
        # Back to front: every stage leads to the channels of the one before it, at last to one number per site.
        channels = (1, *self.features[:-1])
        self.up = [_Conv(s * s * c, dtype=self.dtype) for c, (_, s) in zip(channels[::-1], stages[::-1], strict=True)]
        side = self.size // int(np.prod(self.strides))
        self.coarse = (side, side, self.features[-1])
        self.gaussian = nn.Dense(2 * self.latent_dim)
        self.expand = nn.Dense(side * side * self.features[-1], dtype=self.dtype)

    def encode(self, inputs: Array) -> tuple[Array, Array]:
        """Mean and log-variance of the latent numbers, float32 [B, latent_dim] each, of states [B, size, size, 1]."""
        if inputs.shape[1:] != (self.size, self.size, 1):
            raise ValueError(f"inputs: expected [B, {self.size}, {self.size}, 1], got {list(inputs.shape)}")
        x = self.contract(inputs.astype(self.dtype))
        x = self.gaussian(x.reshape(x.shape[0], -1).astype(jnp.float32))
        mean, log_variance = jnp.split(x, 2, axis=-1)
        return mean, jnp.clip(log_variance, *LOG_VARIANCE_RANGE)

    def decode(self, latent: Array) -> Array:
        """Mean spin of every site, float32 [B, size, size, 1] in (-1, 1), of latent numbers [B, latent_dim]."""
        return self.refine(nn.relu(self.expand(latent.astype(self.dtype))).reshape(-1, *self.coarse))

    def contract(self, x: Array) -> Array:
        """The convolutions of the encoder: [B, size, size, 1] -> [B, size / s, size / s, features[-1]]."""
        for conv in self.down:
            x = nn.relu(conv(x))
        return x

    def refine(self, x: Array) -> Array:
        """The convolutions of the decoder, the other way round; the last one is followed by tanh."""
        for i, (conv, stride) in enumerate(zip(self.up, self.strides[::-1], strict=True)):
            x = depth_to_space(conv(x), stride)
            if i < len(self.up) - 1:
                x = nn.relu(x)
        return jnp.tanh(x.astype(jnp.float32))

    def __call__(self, inputs: Array, *, train: bool = False) -> tuple[Array, Array, Array]:
        """(decoded mean, mean, log-variance): the reconstruction without noise."""
        del train
        mean, log_variance = self.encode(inputs)
        return self.decode(mean), mean, log_variance


def make_model(
    *,
    size: int = 30,
    latent_dim: int = 8,
    features: Sequence[int] = (16, 32),
    strides: Sequence[int] = (2, 3),
    dtype: str = "float32",
) -> nn.Module:
    """A variational autoencoder of states [B, size, size, 1].

    Args:
      size: side of the lattice.
      latent_dim: number of latent numbers.
      features: channels of every stage of the encoder; the decoder has them in reverse.
      strides: factor by which every stage makes the map smaller, 1 for none; their product divides the size. The first
        should be even where states may have period two.
      dtype: type of the activations (``"bfloat16"`` on accelerators); parameters, latent numbers and output are
        float32.

    Returns:
      A Linen module without mutable variables. It maps to (decoded mean float32 [B, size, size, 1] in (-1, 1), latent
      mean and latent log-variance float32 [B, latent_dim]); its methods ``encode`` and ``decode`` are the halves.

    Raises:
      ValueError: for a size below 1, lists of different lengths, or strides that do not divide the size.

    References:
      D. P. Kingma, M. Welling, Auto-encoding variational Bayes (2014), sections 2 and 3.
      W. Shi et al., Real-time single image and video super-resolution (2016), section 3.2: channels that become sites.
    """
    features, strides = tuple(features), tuple(strides)
    for name, values in (
        ("size", (size,)),
        ("latent_dim", (latent_dim,)),
        ("features", features),
        ("strides", strides),
    ):
        if not values or min(values) < 1:
            raise ValueError(f"model.kwargs.{name}: expected integers of at least 1, got {values}")
    if len(features) != len(strides):
        raise ValueError(f"model.kwargs.features: expected one per stride {strides}, got {features}")
    if size % int(np.prod(strides)):
        raise ValueError(f"model.kwargs.strides: their product must divide the size {size}, got {strides}")
    return VAE(size=size, latent_dim=latent_dim, features=features, strides=strides, dtype=dtype)
