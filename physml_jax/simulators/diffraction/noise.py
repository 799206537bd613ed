"""Noise of an electron camera: counted electrons, gain and read-out, with a Poisson sampler made for images.

Random words: two 32-bit words per image come from its threefry key; the pixels' words are its numbers mixed with them
by two rounds of a hash. A Poisson number is the quantile of one uniform number, so it depends on its own pixel only:

- below a mean of 4 the distribution function is summed term by term, 14 terms;
- above (and for the rare numbers past the 14th term) the Cornish-Fisher expansion of the quantile is rounded,

    x = m + z sqrt(m) + (z^2 - 1)/6 - (z^3 + 2 z)/(72 sqrt(m)) + (3 z^4 + 7 z^2 - 16)/(810 m),

  z the normal quantile. The linear term holds the correction for rounding: at half-integers a sum over integers is an
  integral over a density whose variance is smaller by 1/12. The distance to the Poisson distribution (total variation)
  is at most 7e-4, at a mean of 4.
"""

import math

import jax
import jax.numpy as jnp

from physml_jax.core.rng import mix
from physml_jax.typing import Array, Key

#: Mean from which the expansion is used, and terms of the sum below.
EXPANSION_FROM, NUM_TERMS = 4.0, 14
#: Below this mean the probability of more than NUM_TERMS is less than the spacing of the uniform numbers.
_NO_TAIL = 2.0
#: Coefficients in t = w/8 - 1, lowest first, of z / (2 u - 1), where z is the normal quantile of u and
#: w = -log(4 u (1 - u)) from 0 to 16 (u from 2.8e-8): fitted to SciPy's ndtri, largest error 4e-6. Faster than erf_inv.
_QUANTILE = (
    *(3.763843, 1.995298, -0.4575704, 0.176705, -0.05129072, -0.01451758),
    *(0.05606894, -0.0873639, 0.06158934, 0.00814052, -0.0308605, 0.01022908),
)


def uniform(keys: Key, shape: tuple[int, ...]) -> Array:
    """Uniform numbers in (0, 1), multiples of 2^-23 shifted by half of that: never 0 or 1.

    Args:
      keys: typed keys [B].
      shape: of the numbers of one key, fewer than 2^32.

    Returns:
      float32 [B, *shape].

    Raises:
      ValueError: if ``keys`` has not one axis.
    """
    if keys.ndim != 1:
        raise ValueError(f"keys: expected one axis, got shape {keys.shape}")
    seeds = jax.vmap(lambda key: jax.random.bits(key, (2,), jnp.uint32))(keys)
    number = jnp.arange(math.prod(shape), dtype=jnp.uint32)[None, :]
    words = mix(mix(number ^ seeds[:, :1]) ^ seeds[:, 1:])
    numbers = ((words >> 9).astype(jnp.float32) + 0.5) * jnp.float32(2.0**-23)
    return numbers.reshape(len(keys), *shape)


def normal(keys: Key, shape: tuple[int, ...]) -> Array:
    """Standard normal numbers float32 [B, *shape]; arguments as for ``uniform``."""
    return _normal_quantile(uniform(keys, shape))


def poisson(keys: Key, mean: Array) -> Array:
    """Poisson numbers, for counts below 2^24.

    Args:
      keys: typed keys [B].
      mean: float32 [B, ...], at least 0; what is below counts as 0.

    Returns:
      float32 [B, ...], whole numbers. The derivative is that of a step: 0.

    Raises:
      ValueError: if the batch axes differ.
    """
    _check(keys, mean, "mean")
    return poisson_quantile(uniform(keys, mean.shape[1:]), mean)


def poisson_quantile(probability: Array, mean: Array) -> Array:
    """The smallest whole number whose distribution function is not below ``probability``, see the module.

    Args:
      probability: float32 [...], inside (0, 1).
      mean: float32 [...], of the same shape.

    Returns:
      float32 [...].
    """
    mean = jnp.maximum(mean, 0.0)
    few = jnp.minimum(mean, EXPANSION_FROM)
    term = jnp.exp(-few)
    total, count = term, (probability > term).astype(jnp.float32)
    for k in range(1, NUM_TERMS):
        term = term * (few * (1.0 / k))
        total = total + term
        count = count + (probability > total).astype(jnp.float32)

    many = jnp.maximum(mean, _NO_TAIL)
    z = _normal_quantile(probability)
    root, square = jax.lax.rsqrt(many), z * z
    first = (square - 1.0) * (1 / 6) - z * (square + 2.0) * (root * (1 / 72))
    second = (square * (3.0 * square + 7.0) - 16.0) * (root * root * (1 / 810))
    value = jnp.maximum(jnp.floor(many * (1.0 + z * root) + (first + second + 0.5)), 0.0)
    tail = (count == NUM_TERMS) & (mean > _NO_TAIL)
    value = jnp.where(mean < EXPANSION_FROM, jnp.where(tail, jnp.maximum(value, NUM_TERMS), count), value)
    return value


def record(
    keys: Key,
    image: Array,
    *,
    dose: Array | float,
    gain: Array | float = 1.0,
    gain_spread: Array | float = 0.0,
    read_noise: Array | float = 0.0,
) -> Array:
    """What a camera counts: Poisson electrons, each worth ``gain`` counts with a spread, and the noise of reading out.

    An infinite dose gives the image without noise, so that one program serves both: then ``gain * image``.

    Args:
      keys: typed keys [B].
      image: float32 [B, H, W], expected share of the electrons in every pixel.
      dose: [] or [B], electrons of the whole image where the image sums to 1; ``inf``: no noise at all.
      gain: [] or [B], counts per electron.
      gain_spread: [] or [B], standard deviation of the counts of one electron, in units of ``gain``.
      read_noise: [] or [B], standard deviation added to each pixel, in electrons.

    Returns:
      float32 [B, H, W], in counts divided by the dose, so that its expectation is ``gain * image`` whatever the dose.

    Raises:
      ValueError: if the batch axes differ.
    """
    _check(keys, image, "image")
    dose, gain, spread, read = (_column(x, image) for x in (dose, gain, gain_spread, read_noise))
    exact = jnp.isinf(dose)
    dose = jnp.where(exact, 1.0, dose)
    halves = jax.vmap(jax.random.split)(keys)
    electrons = poisson(halves[:, 0], image * dose)
    width = jnp.sqrt(jnp.maximum(read**2 + spread**2 * electrons, 0.0))
    counted = (electrons + width * normal(halves[:, 1], image.shape[1:])) / dose
    return gain * jnp.where(exact, image, counted)


def _check(keys, values, name):
    if keys.ndim != 1 or values.shape[:1] != keys.shape:
        raise ValueError(f"keys and {name}: expected one first axis, got {keys.shape} and {values.shape}")


def _column(value, image):
    """[] or [B] -> [1, 1, 1] or [B, 1, 1]."""
    value = jnp.asarray(value, image.dtype)
    return value.reshape(-1, *(1,) * (image.ndim - 1))


def _normal_quantile(probability):
    t = jnp.log(4.0 * probability * (1.0 - probability)) * (-1 / 8) - 1.0
    ratio = jnp.full_like(t, _QUANTILE[-1])
    for coefficient in _QUANTILE[-2::-1]:
        ratio = ratio * t + coefficient
    return (2.0 * probability - 1.0) * ratio
