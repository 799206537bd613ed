"""What a camera and the lens before it do to a pattern: distortion, point spread, beam stop, saturation, display.

Every effect has a strength, with no effect at 0, and takes its parameters per image, so that one program serves
images of all kinds. Images are float [B, P, P] in shares of the beam's electrons, see ``rendering``; noise is in
``noise``.
"""

import math

import jax.numpy as jnp

from physml_jax.core.precision import einsum
from physml_jax.typing import Array

#: Nodes of the coarse grid on which tails are spread.
NUM_NODES = 32


def distortion(*, ellipticity: Array | float = 0.0, axis: Array | float = 0.0, rotation: Array | float = 0.0) -> Array:
    """The matrix of a lens that is not round, and of a turned pattern.

    R(rotation) R(axis) diag(sqrt(1 + e), 1 / sqrt(1 + e)) R(-axis), R turning from x to y.

    Args:
      ellipticity: e, by which the long axis of a ring exceeds its short one; [...].
      axis: direction of the long axis, radian.
      rotation: of the whole pattern, radian.

    Returns:
      float [..., 2, 2], for ``rendering.render``.
    """
    e, axis, turn = jnp.broadcast_arrays(*(jnp.asarray(x, jnp.float32) for x in (ellipticity, axis, rotation)))
    stretch = jnp.sqrt(1.0 + e)
    mean, half = (stretch + 1.0 / stretch) / 2, (stretch - 1.0 / stretch) / 2
    c, s, cc, ss = jnp.cos(turn), jnp.sin(turn), half * jnp.cos(2 * axis), half * jnp.sin(2 * axis)
    a, b, d = mean + cc, ss, mean - cc
    rows = jnp.stack([c * a - s * b, c * b - s * d, s * a + c * b, s * b + c * d], axis=-1)
    return rows.reshape(*e.shape, 2, 2)


def point_spread(
    image: Array,
    *,
    sigma: Array | float = 0.0,
    tail: Array | float = 0.0,
    tail_width: Array | float = 0.08,
) -> Array:
    """The light of every electron spread over a Gaussian and, in part, over wide tails.

    Light that leaves the image is lost; what stays is neither made nor lost. A Python 0 for ``sigma`` or ``tail``
    leaves that part out of the program.

    The tails are spread in two steps by way of a coarse grid that reaches over the border: Gaussians of variance half
    of theirs, from pixels to nodes and from nodes to pixels. The error is 2 exp(-(pi tail_width / h)^2 / 2), relative,
    h the distance of two nodes: 4e-4 at the smallest width.

    Args:
      image: [B, P, P].
      sigma: [] or [B], standard deviation of the Gaussian, pixels; for spots alone a larger ``sigma`` of ``render``
        does the same and costs nothing.
      tail: [] or [B], share of the light in the tails.
      tail_width: [] or [B], their standard deviation in image sides, at least 0.05 (smaller ones count as 0.05).

    Returns:
      [B, P, P].
    """
    size, dtype = image.shape[-1], image.dtype
    pixel = jnp.arange(size, dtype=dtype)
    core = image
    if not (isinstance(sigma, int | float) and sigma == 0):
        width = jnp.maximum(_per_image(sigma, image), 1e-3)
        kernel = jnp.exp(-0.5 * ((pixel[:, None] - pixel[None, :])[None] / width) ** 2)
        reach = jnp.arange(-size, size + 1, dtype=dtype)
        kernel = kernel / jnp.exp(-0.5 * (reach[None, None] / width) ** 2).sum(-1, keepdims=True)
        core = _both_axes(kernel, image)
    if isinstance(tail, int | float) and tail == 0:
        return core
    width = jnp.maximum(_per_image(tail_width, image), 0.05) * size * math.sqrt(0.5)
    margin = 0.1  # of the side, beyond which nodes would only carry light that is lost
    node = jnp.linspace(-margin, 1 + margin, NUM_NODES, dtype=dtype) * size - 0.5
    spacing = (1 + 2 * margin) * size / (NUM_NODES - 1)
    spread = (
        jnp.exp(-0.5 * ((pixel[:, None] - node[None, :])[None] / width) ** 2) * (1 / math.sqrt(2 * math.pi)) / width
    )
    coarse = _both_axes(spread.swapaxes(1, 2), image)
    tail = _per_image(tail, image)
    return (1.0 - tail) * core + (tail * spacing**2) * _both_axes(spread, coarse)


def beam_stop(
    image: Array,
    *,
    strength: Array | float,
    tip: Array,
    angle: Array | float,
    radius: Array | float = 0.04,
    width: Array | float = 0.02,
    shadow: Array | float = 0.3,
) -> Array:
    """A stop in front of the camera: a disc on a needle that comes in from the border, with a soft shadow around it.

    Args:
      image: [B, P, P].
      strength: [] or [B], share of the electrons that it holds back; 1 is opaque.
      tip: [2] or [B, 2], (x, y) of the disc's centre, pixels.
      angle: [] or [B], direction of the needle from the disc, radian, from x to the right towards y *down* the image.
      radius: [] or [B], of the disc, image sides.
      width: [] or [B], half the width of the needle, image sides.
      shadow: [] or [B], share of what falls beside the stop, next to its edge, that is missing too (charging and
        scattering at the edge); falls off over half the radius of the disc.

    Returns:
      [B, P, P].
    """
    size = image.shape[-1]
    tip = jnp.broadcast_to(jnp.asarray(tip, image.dtype), (len(image), 2))
    strength, angle, disc, needle, shadow = (_per_image(x, image) for x in (strength, angle, radius, width, shadow))
    axis = jnp.arange(size, dtype=image.dtype)
    x = (axis[None, :] - tip[:, :1])[:, None, :]
    y = (axis[None, :] - tip[:, 1:])[:, :, None]
    along = x * jnp.cos(angle) + y * jnp.sin(angle)
    across = jnp.abs(y * jnp.cos(angle) - x * jnp.sin(angle))
    # Signed distances to the disc and to the half-line's strip; negative inside.
    from_disc = jnp.sqrt(x * x + y * y) - disc * size
    from_needle = jnp.where(along > 0, across, jnp.sqrt(x * x + y * y)) - needle * size
    distance = jnp.minimum(from_disc, from_needle)
    inside = _step(-distance / 0.7)  # an edge about a pixel wide
    penumbra = shadow / (1.0 + (jnp.maximum(distance, 0.0) / (0.5 * disc * size)) ** 2)
    return image * (1.0 - strength * (inside + (1.0 - inside) * penumbra))


def saturate(image: Array, *, strength: Array | float) -> Array:
    """Cuts what is above the full well, (1 - strength) of each image's brightest pixel.

    Args:
      image: [B, P, P].
      strength: [] or [B], from 0 to below 1.

    Returns:
      [B, P, P].
    """
    top = image.max(axis=(1, 2), keepdims=True)
    return jnp.minimum(image, (1.0 - _per_image(strength, image)) * top)


def display(image: Array, *, exponent: Array | float = 1.0) -> Array:
    """Grey values from 0 to 1: what is below 0 is black, the brightest pixel white, in between a power.

    Args:
      image: [B, P, P].
      exponent: [] or [B]; 1 is linear, 0.5 brings out weak spots as an eye or a film does.

    Returns:
      [B, P, P]; 0 where an image holds nothing.
    """
    image = jnp.maximum(image, 0.0)
    top = image.max(axis=(1, 2), keepdims=True)
    value = image / jnp.where(top > 0, top, 1.0)
    if isinstance(exponent, int | float) and exponent in (0.5, 1):
        return jnp.sqrt(value) if exponent == 0.5 else value
    return jnp.where(value > 0, jnp.where(value > 0, value, 1.0) ** _per_image(exponent, image), 0.0)


def _per_image(value, image):
    """[] or [B] -> [1, 1, 1] or [B, 1, 1]."""
    return jnp.asarray(value, image.dtype).reshape(-1, 1, 1)


def _both_axes(kernel, image):
    """K A K^T for kernels [1, N, M] or [B, N, M] and images [B, M, M]."""
    kernel = jnp.broadcast_to(kernel, (len(image), *kernel.shape[1:]))
    return einsum("bim,bjm->bij", einsum("bim,bmn->bin", kernel, image), kernel)


def _step(u):
    """A smooth step from 0 to 1 without exp."""
    return 0.5 + 0.5 * u / jnp.sqrt(1.0 + u * u)
