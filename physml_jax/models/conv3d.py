"""Plain convolutional networks for volumes: convolutions, pools, one dense layer, as used for phases of random systems.

With kernels of 3, 1, 1 and the largest value of the lattice as readout it is a network of sites and their neighbours:
the smallest one that a local rule fits into.
"""

from collections.abc import Sequence

import jax.numpy as jnp
from flax import linen as nn

from physml_jax.models.convolution3d import READOUTS, Conv, check_names, read_out
from physml_jax.typing import Array


class Conv3D(nn.Module):
    """See ``make_model``."""

    features: Sequence[int]
    kernels: Sequence[int]
    pools: Sequence[int]
    hidden: Sequence[int]
    num_classes: int
    readout: str
    dropout: float
    norm: bool
    periodic: bool
    dtype: str

    @nn.compact
    def __call__(self, inputs: Array, *, train: bool) -> Array:
        def normalised(x):
            if not self.norm:
                return x
            return nn.BatchNorm(use_running_average=not train, momentum=0.9, epsilon=1e-5, dtype=self.dtype)(x)

        x = inputs
        for i, (features, kernel) in enumerate(zip(self.features, self.kernels, strict=True), 1):
            conv = Conv(features, kernel=kernel, periodic=self.periodic, use_bias=True, dtype=self.dtype)
            x = nn.relu(normalised(conv(x)))
            if i in self.pools:
                if min(x.shape[1:4]) < 2:
                    raise ValueError(f"inputs: {inputs.shape[1:4]} sites are fewer than {len(self.pools)} pools need")
                x = nn.max_pool(x, (2, 2, 2), (2, 2, 2))
        x = normalised(read_out(x, self.readout))
        for features in self.hidden:
            x = nn.relu(nn.Dense(features, dtype=self.dtype)(x))
            x = nn.Dropout(self.dropout, deterministic=not train)(x)
        return nn.Dense(self.num_classes)(x.astype(jnp.float32))


def make_model(
    *,
    num_classes: int = 17,
    features: Sequence[int] = (64, 64, 96, 96, 128, 128),
    kernels: Sequence[int] = (5, 5, 3, 3, 3, 3),
    pools: Sequence[int] = (2, 4, 6),
    hidden: Sequence[int] = (1024,),
    readout: str = "flatten",
    dropout: float = 0.0,
    norm: bool = False,
    periodic: bool = True,
    dtype: str = "float32",
) -> nn.Module:
    """Convolutions with ReLU, pools of 2 x 2 x 2, dense layers: [B, D, H, W, C] -> float32 [B, num_classes].

    Args:
      num_classes: number of outputs.
      features: channels of every convolution.
      kernels: odd side of the kernel of every convolution.
      pools: numbers (from 1) of the convolutions that are followed by the largest of 2 x 2 x 2 sites.
      hidden: units of the dense layers.
      readout: ``"flatten"``: the dense layers see the whole last map, for lattices of one size; ``"mean"`` or ``"max"``
        of every channel, for lattices of any size.
      dropout: probability behind the hidden dense layers.
      norm: batch normalisation behind every convolution, and of what is read out: the largest values of two lattices
        differ by a few per cent of what they are, which takes thousands of steps to be seen otherwise.
      periodic: the lattice is periodic; otherwise it is surrounded by zeros.
      dtype: type of the activations (``"bfloat16"`` on accelerators); parameters and output are float32.

    Returns:
      A Linen module, with the mutable collection ``batch_stats`` if ``norm``; with dropout it asks for the random
      stream ``dropout``. When called it raises ValueError for a lattice that is smaller than its pools.

    Raises:
      ValueError: for lists that do not fit, or an option outside its range.

    References:
      T. Ohtsuki and T. Mano, Drawing phase diagrams of random quantum systems by deep learning the wave functions, J.
      Phys. Soc. Jpn. 89, 022001 (2020): networks of this kind.
    """
    check_names(readout=(readout, READOUTS))
    if not features or len(features) != len(kernels):
        raise ValueError(f"model.kwargs.kernels: expected one per entry of features, got {features} and {kernels}")
    if min(features) < 1 or min(hidden, default=1) < 1 or num_classes < 1 or any(k < 1 or k % 2 == 0 for k in kernels):
        raise ValueError("model.kwargs: expected positive features, hidden and num_classes, and odd kernels")
    if not set(pools) <= set(range(1, len(features) + 1)):
        raise ValueError(f"model.kwargs.pools: expected numbers from 1 to {len(features)}, got {pools}")
    if not 0 <= dropout < 1:
        raise ValueError(f"model.kwargs.dropout: expected a number from 0 to below 1, got {dropout}")
    options = (tuple(features), tuple(kernels), tuple(pools), tuple(hidden), num_classes)
    return Conv3D(*options, readout, dropout, norm, periodic, dtype)
