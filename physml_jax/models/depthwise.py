"""Depthwise convolutions that are fast on CPU, forwards and backwards.

XLA's CPU backend runs grouped convolutions and their gradients many times slower than their arithmetic. Here a
depthwise convolution is the sum of the shifted pictures, each times its tap, which becomes one vectorised loop over
channels. Its input gradient is the same sum over the spread output gradient. Its kernel gradient goes row by row
through running sums that keep width and channels, because a sum over all pixels at once is slow. On accelerators the
call goes to ``lax``.
"""

import functools

import jax
import jax.numpy as jnp
from jax import lax

from physml_jax.typing import Array


def depthwise_conv(x: Array, kernel: Array, *, stride: int = 1) -> Array:
    """One kernel per channel, with zero padding of (k - 1) / 2 on every side.

    Args:
      x: float [N, H, W, C].
      kernel: float [k, k, 1, C] of the same dtype, k odd.
      stride: step between output pixels.

    Returns:
      float [N, ceil(H / stride), ceil(W / stride), C].

    Raises:
      ValueError: for a kernel that does not fit.
    """
    k, channels = kernel.shape[0], x.shape[3]
    if kernel.shape != (k, k, 1, channels) or k % 2 == 0:
        raise ValueError(f"kernel: expected [k, k, 1, {channels}] with odd k, got {list(kernel.shape)}")
    if jax.default_backend() == "cpu":
        return _depthwise(stride, x, kernel)
    return lax.conv_general_dilated(
        x,
        kernel,
        (stride, stride),
        ((k // 2, k // 2),) * 2,
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
        feature_group_count=channels,
    )


def _sum_of_taps(x, kernel, stride):
    """The convolution without padding."""
    k = kernel.shape[0]
    height, width = ((n - k) // stride + 1 for n in x.shape[1:3])
    total = None
    for i in range(k):
        for j in range(k):
            seen = x[:, i : i + (height - 1) * stride + 1 : stride, j : j + (width - 1) * stride + 1 : stride]
            term = seen * kernel[i, j, 0].reshape(1, 1, 1, -1)
            total = term if total is None else total + term
    return total


@functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
def _depthwise(stride, x, kernel):
    p = kernel.shape[0] // 2
    return _sum_of_taps(jnp.pad(x, ((0, 0), (p, p), (p, p), (0, 0))), kernel, stride)


def _input_gradient(stride, g, kernel, size):
    """The flipped kernel over ``g``, its pixels ``stride`` apart: [N, OH, OW, C] -> [N, H, W, C]."""
    p = kernel.shape[0] // 2
    pads = [(p, n - 1 - (m - 1) * stride + p, stride - 1) for n, m in zip(size, g.shape[1:3], strict=True)]
    spread = lax.pad(g, jnp.zeros((), g.dtype), [(0, 0, 0), *pads, (0, 0, 0)])
    return _sum_of_taps(spread, kernel[::-1, ::-1], 1)


def _kernel_gradient(stride, x, g, k):
    """Sums over pixels of every shifted picture times ``g``: [k, k, 1, C], summed in float32."""
    p, width = k // 2, g.shape[2]
    rows = jnp.pad(x, ((0, 0), (p, p), (p, p), (0, 0)))

    def add_row(sums, h):
        g_row = lax.dynamic_index_in_dim(g, h, axis=1, keepdims=False).astype(jnp.float32)
        seen = lax.dynamic_slice_in_dim(rows, h * stride, k, axis=1)
        return tuple(
            total + seen[:, n // k, n % k : n % k + (width - 1) * stride + 1 : stride].astype(jnp.float32) * g_row
            for n, total in enumerate(sums)
        ), None

    zero = jnp.zeros((g.shape[0], width, g.shape[3]), jnp.float32)
    sums, _ = lax.scan(add_row, (zero,) * k**2, jnp.arange(g.shape[1]))
    sums = [total.sum(0).sum(0) for total in sums]
    return jnp.stack(sums).reshape(k, k, 1, -1).astype(x.dtype)


_depthwise.defvjp(
    lambda stride, x, kernel: (_depthwise(stride, x, kernel), (x, kernel)),
    lambda stride, saved, g: (
        _input_gradient(stride, g, saved[1], saved[0].shape[1:3]),
        _kernel_gradient(stride, saved[0], g, saved[1].shape[0]),
    ),
)
