"""Residual networks for volumes: the basic blocks of He et al. (2016) with 3 x 3 x 3 kernels and a small stem."""

from collections.abc import Sequence
from functools import partial

import jax.numpy as jnp
from flax import linen as nn

from physml_jax.models.convolution3d import READOUTS, Conv, check_names, read_out
from physml_jax.typing import Array

_STAGES = {10: (1, 1, 1, 1), 18: (2, 2, 2, 2), 34: (3, 4, 6, 3)}


class BasicBlock(nn.Module):
    """Two convolutions around a shortcut: [B, D, H, W, C] -> [B, D/stride, H/stride, W/stride, features]."""

    features: int
    stride: int
    periodic: bool
    dtype: str

    @nn.compact
    def __call__(self, x: Array, *, train: bool) -> Array:
        norm = partial(nn.BatchNorm, use_running_average=not train, momentum=0.9, epsilon=1e-5, dtype=self.dtype)
        conv = partial(Conv, periodic=self.periodic, dtype=self.dtype)
        y = nn.relu(norm()(conv(self.features, stride=self.stride)(x)))
        y = norm(scale_init=nn.initializers.zeros)(conv(self.features)(y))
        if x.shape != y.shape:
            x = norm()(conv(self.features, kernel=1, stride=self.stride)(x))
        return nn.relu(x + y)


class ResNet3D(nn.Module):
    """See ``make_model``."""

    stages: Sequence[int]
    num_classes: int
    width: int
    stem_stride: int
    readout: str
    periodic: bool
    dtype: str

    @nn.compact
    def __call__(self, inputs: Array, *, train: bool) -> Array:
        x = Conv(self.width, stride=self.stem_stride, periodic=self.periodic, dtype=self.dtype)(inputs)
        norm = nn.BatchNorm(use_running_average=not train, momentum=0.9, epsilon=1e-5, dtype=self.dtype)
        x = nn.relu(norm(x))
        for i, num_blocks in enumerate(self.stages):
            for j in range(num_blocks):
                stride = 2 if i > 0 and j == 0 else 1
                x = BasicBlock(self.width * 2**i, stride, self.periodic, self.dtype)(x, train=train)
        return nn.Dense(self.num_classes)(read_out(x.astype(jnp.float32), self.readout))


def make_model(
    *,
    depth: int = 18,
    num_classes: int = 17,
    width: int = 64,
    stem_stride: int = 1,
    readout: str = "mean",
    periodic: bool = True,
    dtype: str = "float32",
) -> nn.Module:
    """A residual network for volumes: [B, D, H, W, C] -> float32 [B, num_classes].

    The stem is one 3 x 3 x 3 convolution; stages two to four halve the lattice, rounding up.

    Args:
      depth: 10, 18 or 34 layers.
      num_classes: number of outputs.
      width: channels of the first stage; the last has eight times as many.
      stem_stride: step of the stem; 2 for lattices from about L = 40.
      readout: how the last map decides: ``"mean"``, as published, ``"max"`` of every channel, or ``"flatten"``: all of
        it, for lattices of one size only.
      periodic: the lattice is periodic; otherwise it is surrounded by zeros, as published. Even sides are needed for a
        translation by a stride to change nothing.
      dtype: type of the activations (``"bfloat16"`` on accelerators); parameters and output are float32.

    Returns:
      A Linen module with the mutable collection ``batch_stats``.

    Raises:
      ValueError: for a depth or readout that does not exist.

    References:
      K. He, X. Zhang, S. Ren, J. Sun, Deep residual learning for image recognition (2016), table 1.
    """
    if depth not in _STAGES:
        raise ValueError(f"model.kwargs.depth: expected one of {sorted(_STAGES)}, got {depth}")
    check_names(readout=(readout, READOUTS))
    if min(num_classes, width, stem_stride) < 1:
        raise ValueError("model.kwargs: num_classes, width and stem_stride must be at least 1")
    return ResNet3D(_STAGES[depth], num_classes, width, stem_stride, readout, periodic, dtype)
