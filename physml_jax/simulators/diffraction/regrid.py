"""Images on another grid: moved and magnified, axis by axis, by two small matrices."""

import jax.numpy as jnp

from physml_jax.core.precision import einsum
from physml_jax.typing import Array

#: Largest step in pixels.
REACH = 8


def magnify(images: Array, *, centre: Array, step: Array, pixels: int) -> Array:
    """Samples of images on a square grid about given centres; traced, call it under ``jax.jit``.

    Between pixels the image is linear; where the new grid is coarser than the old one a sample is the mean over a
    triangle as wide as its distance to the next, so that nothing is skipped.

    Args:
      images: float [B, P, P].
      centre: [B, 2], (x, y) in pixels that becomes the middle of the new image.
      step: [B], distance of two samples in pixels, at most ``REACH``.
      pixels: side of the new image.

    Returns:
      [B, pixels, pixels], zero where there was no image.
    """
    dtype = images.dtype
    across = jnp.arange(pixels, dtype=dtype) - (pixels - 1) / 2
    reach = jnp.maximum(step, 1.0).astype(dtype)[:, None, None]

    def weights(axis, size):
        at = centre[:, axis, None] + step[:, None] * across[None, :]
        distance = jnp.abs(at[:, :, None] - jnp.arange(size, dtype=dtype)[None, None, :])
        # The sum over all pixels of an endless line: a constant image stays constant.
        near = at - jnp.floor(at)
        whole = jnp.abs(near[:, :, None] - jnp.arange(-REACH, REACH + 2, dtype=dtype)[None, None, :])
        whole = jnp.maximum(0.0, 1.0 - whole / reach).sum(-1, keepdims=True)
        return jnp.maximum(0.0, 1.0 - distance / reach) / whole

    rows, columns = weights(1, images.shape[1]), weights(0, images.shape[2])
    return einsum("bip,bpq,bjq->bij", rows, images, columns)
