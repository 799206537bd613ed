"""Three-dimensional convolutions with zero or periodic surroundings, at the speed of two-dimensional ones on CPU.

XLA's CPU backend runs a 3D convolution and its gradients 4 to 12 times slower than their arithmetic takes in 2D
(measured at L = 4 and 8, kernels 3 and 5, 1 to 64 channels). So on CPU the planes that a kernel sees along the first
axis become channels, every plane becomes a picture, and the rule of :mod:`physml_jax.models.convolution` does the rest,
forwards and backwards. It holds a copy of the input per kernel plane; on an accelerator the call goes to ``lax``.
"""

from collections.abc import Sequence

import jax
import jax.numpy as jnp
from flax import linen as nn
from jax import lax

from physml_jax.models.convolution import conv_general_dilated
from physml_jax.typing import Array

#: He initialisation for the fan-out.
HE = nn.initializers.variance_scaling(2.0, "fan_out", "truncated_normal")


def convolve(x: Array, w: Array, *, stride: int = 1, padding: int = 0, periodic: bool = False) -> Array:
    """A convolution (in the sense of networks: no kernel is mirrored) with a stride.

    Args:
      x: float [B, D, H, W, C].
      w: float [k, k, k, C, O].
      stride: the same in all directions.
      padding: sites added on every side.
      periodic: repeat the lattice there; otherwise zeros.

    Returns:
      float [B, D', H', W', O] with D' = (D + 2 padding - k) // stride + 1.
    """
    if periodic and padding:
        x = jnp.pad(x, ((0, 0), *((padding, padding),) * 3, (0, 0)), mode="wrap")
        padding = 0
    if jax.default_backend() != "cpu":
        pads = ((padding, padding),) * 3
        return lax.conv_general_dilated(x, w, (stride,) * 3, pads, dimension_numbers=("NDHWC", "DHWIO", "NDHWC"))
    k, channels = w.shape[0], w.shape[3]
    x = jnp.pad(x, ((0, 0), (padding, padding), (0, 0), (0, 0), (0, 0)))
    batch, depth, height, width, _ = x.shape
    depth = (depth - k) // stride + 1
    seen = [x[:, i : i + (depth - 1) * stride + 1 : stride] for i in range(k)]
    pictures = jnp.concatenate(seen, axis=-1).reshape(batch * depth, height, width, k * channels)
    kernel = w.transpose(1, 2, 0, 3, 4).reshape(k, k, k * channels, -1)
    pads = ((padding, padding),) * 2
    layout = ("NHWC", "HWIO", "NHWC")
    out = conv_general_dilated(pictures, kernel, (stride,) * 2, pads, dimension_numbers=layout)
    return out.reshape(batch, depth, *out.shape[1:])


class Conv(nn.Module):
    """A 3D convolution that keeps the lattice, or divides its sides by ``stride``: [B, D, H, W, C] -> [..., features].

    Attributes:
      features: output channels.
      kernel: odd side of the kernel.
      stride: step between output sites.
      periodic: the lattice is periodic; otherwise surrounded by zeros.
      use_bias: add a bias; superfluous in front of a normalisation.
      dtype: dtype of the computation; parameters are float32.
    """

    features: int
    kernel: int = 3
    stride: int = 1
    periodic: bool = True
    use_bias: bool = False
    dtype: str = "float32"

    @nn.compact
    def __call__(self, x: Array) -> Array:
        shape = (self.kernel,) * 3 + (x.shape[-1], self.features)
        w = self.param("kernel", HE, shape, jnp.float32).astype(self.dtype)
        options = {"stride": self.stride, "padding": self.kernel // 2, "periodic": self.periodic}
        y = convolve(x.astype(self.dtype), w, **options)
        if self.use_bias:
            bias = self.param("bias", nn.initializers.zeros, (self.features,), jnp.float32)
            y = y + jnp.broadcast_to(bias.astype(self.dtype), y.shape)
        return y


#: How the sites of the last map become one vector.
READOUTS = ("mean", "max", "flatten")


def read_out(x: Array, readout: str) -> Array:
    """[B, D, H, W, C] -> [B, C], or [B, D H W C] for ``"flatten"``."""
    if readout == "flatten":
        return x.reshape(len(x), -1)
    return x.mean((1, 2, 3)) if readout == "mean" else x.max((1, 2, 3))


def check_names(**choices: tuple[str, Sequence[str]]) -> None:
    """Raises ValueError for a value that is not among the known ones; name -> (value, known)."""
    for name, (value, known) in choices.items():
        if value not in known:
            raise ValueError(f"model.kwargs.{name}: expected one of {', '.join(known)}, got {value!r}")
