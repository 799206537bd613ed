"""Pooling whose gradient is fast on CPU, and pooling to a fixed size. Everything is channels last, [B, H, W, C]."""

import jax.numpy as jnp
import numpy as np

from physml_jax.typing import Array


def max_pool_2x2(x: Array) -> Array:
    """Maxima of 2x2 windows with stride 2; a last odd row or column is dropped: -> [B, H // 2, W // 2, C].

    The maximum over four strided slices: the gradient of ``reduce_window`` is a scatter, which is slow on CPU. Where
    two values of a window are equal they share the gradient.
    """
    h, w = x.shape[1] // 2 * 2, x.shape[2] // 2 * 2
    top = jnp.maximum(x[:, 0:h:2, 0:w:2], x[:, 0:h:2, 1:w:2])
    return jnp.maximum(top, jnp.maximum(x[:, 1:h:2, 0:w:2], x[:, 1:h:2, 1:w:2]))


def adaptive_mean_pool(x: Array, size: int) -> Array:
    """Means over windows that cover the picture evenly: [B, H, W, C] -> [B, size, size, C].

    Window i covers the pixels floor(i H / size) to ceil((i + 1) H / size) - 1; windows overlap where the size does not
    divide, and repeat pixels of a smaller picture.
    """
    rows, columns = (jnp.asarray(_windows(n, size), x.dtype) for n in x.shape[1:3])
    return jnp.einsum("ih,jw,bhwc->bijc", rows, columns, x, precision="highest")


def _windows(length, size):
    """Weights [size, length] of the pixels in every window; rows sum to one."""
    i = np.arange(size)[:, None]
    start, stop = i * length // size, -(-(i + 1) * length // size)
    inside = (np.arange(length) >= start) & (np.arange(length) < stop)
    return inside / inside.sum(axis=1, keepdims=True)
