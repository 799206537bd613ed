r"""Zero-mean normalised cross-correlation of two images, and the fit index R made from it.

ZNCC sees the shape of a pattern and not its scale: it is unchanged when either image is multiplied by a positive number
or shifted by a constant. It is the usual index of fit between convergent-beam patterns, and the score of the LACBED
experiments.
"""

from collections.abc import Sequence

import jax
import jax.numpy as jnp

from physml_jax.typing import Array


def zncc(a: Array, b: Array, *, axes: Sequence[int] = (-3, -2, -1)) -> Array:
    r"""Zero-mean normalised cross-correlation, between -1 and 1.

    .. math:: \frac{\sum (a - \bar a)(b - \bar b)}{\sqrt{\sum (a - \bar a)^2 \sum (b - \bar b)^2}}

    It is 0 by definition where an image is constant, and the gradient is 0 there as well. Values that are not finite
    make it NaN.

    Args:
      a: real ``[..., H, W, C]``; integers and half precision are computed in float32.
      b: the same shape as ``a``.
      axes: the axes that make up one image.

    Returns:
      Float array, the shape of ``a`` without ``axes``.

    Raises:
      ValueError: if the shapes differ, or ``axes`` is empty, repeated or not among the axes of the images.

    Example:
      >>> import numpy as np
      >>> a = np.arange(6.0).reshape(1, 2, 3, 1)
      >>> [round(float(x), 6) for x in (zncc(a, 2 * a + 1)[0], zncc(a, -a)[0], zncc(a, 0 * a)[0])]
      [1.0, -1.0, 0.0]

    """
    a, b = _real(a, "a"), _real(b, "b")
    if a.shape != b.shape:
        raise ValueError(f"b: expected the shape of a, {a.shape}, got {b.shape}")
    axes = _axes(axes, a.ndim)
    a, flat_a = _centred(a, axes)
    b, flat_b = _centred(b, axes)
    flat = flat_a | flat_b
    power = jnp.sum(a * a, axis=axes) * jnp.sum(b * b, axis=axes)
    # The inner `where` keeps the derivative of the square root finite on the branch that is not taken.
    value = jnp.sum(a * b, axis=axes) / jnp.sqrt(jnp.where(flat, 1, power))
    return jnp.where(flat, 0, jnp.clip(value, -1, 1))


def r_index(a: Array, b: Array, *, axes: Sequence[int] = (-3, -2, -1)) -> Array:
    """Index of fit R = (1 + ZNCC) / 2: 1 for a perfect fit, 1/2 for unrelated images, 0 for opposite ones.

    Exactly 1/2 where an image is constant. With several thicknesses in the channel axis, ``axes=(-3, -2)`` gives one
    index per thickness.

    Args:
      a: real ``[..., H, W, C]``.
      b: the same shape as ``a``.
      axes: the axes that make up one image.

    Returns:
      Float array, the shape of ``a`` without ``axes``.

    Raises:
      ValueError: as ``zncc``.

    References:
      Machine learning of phases and structures for model systems in physics, Eq. 3; ZNCC as index of fit of digital
      electron diffraction: R. Beanland et al., Acta Cryst. A 69, 427 (2013).

    """
    return 0.5 + 0.5 * zncc(a, b, axes=axes)


def _real(x: Array, name: str) -> Array:
    x = jnp.asarray(x)
    if jnp.issubdtype(x.dtype, jnp.complexfloating):
        raise ValueError(f"{name}: expected real images, got {x.dtype}")
    return x.astype(jnp.promote_types(x.dtype, jnp.float32))


def _axes(axes: Sequence[int], ndim: int) -> tuple[int, ...]:
    found = tuple(axis + ndim if axis < 0 else axis for axis in axes)
    if not found or len(set(found)) < len(found) or not all(0 <= axis < ndim for axis in found):
        raise ValueError(f"axes: expected distinct axes of arrays with {ndim} axes, got {tuple(axes)}")
    return found


def _centred(x: Array, axes: tuple[int, ...]) -> tuple[Array, Array]:
    """The image without its mean and scaled to at most 1, and whether it is constant.

    Subtracting one pixel first makes a constant image exactly zero, whatever rounding its mean would suffer, and keeps
    small contrast on a large background. Scaling keeps the squares inside the range of float32. The index depends on
    neither, so both count as constants for the gradient.
    """
    pixel = x
    for axis in axes:
        pixel = jax.lax.slice_in_dim(pixel, 0, 1, axis=axis)
    x = x - jax.lax.stop_gradient(pixel)
    scale = jax.lax.stop_gradient(jnp.max(jnp.abs(x), axis=axes, keepdims=True))
    flat = scale == 0  # false for NaN, which therefore passes through
    x = x / jnp.where(flat, 1, scale)
    return x - jnp.mean(x, axis=axes, keepdims=True), jnp.squeeze(flat, axis=axes)
