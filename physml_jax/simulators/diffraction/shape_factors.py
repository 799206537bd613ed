"""Shape factors: how intensity falls with the distance from the Ewald sphere, and its mean under precession.

S(s) is 1 at s = 0, with s_max = max_excitation_error and the foil's thickness t:

    "sinc"        (sin(pi s t) / (pi s t))^2        a parallel foil
    "lorentzian"  1 / (1 + (pi s / s_max)^2)
    "gaussian"    exp(-(pi s / s_max)^2)            the same curvature at 0
    "sharp"       1 up to s_max, then 0
"""

import jax.numpy as jnp
import numpy as np

from physml_jax.typing import Array

SHAPES = ("lorentzian", "sinc", "gaussian", "sharp")
#: Azimuths of the quadrature over half a turn of precession.
NUM_AZIMUTHS = 32


def shape_factor(s: Array, *, shape: str, max_excitation_error: Array | float, thickness: Array | float) -> Array:
    """S(s) of the module's table; arrays broadcast.

    Args:
      s: excitation errors, 1/angstrom.
      shape: one of ``SHAPES``.
      max_excitation_error: s_max, 1/angstrom.
      thickness: angstrom; only "sinc" uses it.

    Returns:
      float, shape of ``s``.
    """
    if shape == "sinc":
        return jnp.sinc(s * thickness) ** 2
    u = (jnp.pi * s / max_excitation_error) ** 2
    if shape == "lorentzian":
        return 1.0 / (1.0 + u)
    if shape == "gaussian":
        return jnp.exp(-u)
    return (jnp.abs(s) <= max_excitation_error).astype(u.dtype)


def precessed(
    s: Array, amplitude: Array, *, shape: str, max_excitation_error: Array | float, thickness: Array | float
) -> Array:
    """Mean of S(s + amplitude cos a) over the azimuth a.

    In closed form for "sharp" and "lorentzian", by a quadrature of 32 points over half a turn for the others. For the
    Lorentzian, with sigma = pi / s_max, u = sigma^2 (amplitude^2 - s^2) + 1 and z = sqrt(u^2 + 4 sigma^2 s^2), the mean
    is sqrt((u + z) / 2) / z.

    Args:
      s: excitation errors of the untilted beam, 1/angstrom.
      amplitude: precession angle times sqrt(q), at least 0, 1/angstrom.
      shape: one of ``SHAPES``.
      max_excitation_error: see ``shape_factor``.
      thickness: see ``shape_factor``.

    Returns:
      float, shape of ``s``.

    References:
      The Lorentzian's mean is that of diffsims (precession_simple), without its constant factor 2 / s_max.
    """
    if shape == "lorentzian":
        sigma2 = (jnp.pi / max_excitation_error) ** 2
        x = sigma2 * s * s
        u = sigma2 * amplitude * amplitude - x + 1.0
        z = jnp.sqrt(u * u + 4.0 * x)
        # (u + z) / 2 without the difference of large numbers where u is negative.
        half = 0.5 * (jnp.abs(u) + z)
        return jnp.sqrt(jnp.where(u >= 0, half, x / half)) / z
    if shape == "sharp":
        wide = jnp.where(amplitude > 0, amplitude, 1.0)
        low, high = (
            jnp.arccos(jnp.clip((edge - s) / wide, -1.0, 1.0)) for edge in (-max_excitation_error, max_excitation_error)
        )
        still = (jnp.abs(s) <= max_excitation_error).astype(s.dtype)
        return jnp.where(amplitude > 0, (low - high) / jnp.pi, still)
    azimuths = (np.arange(NUM_AZIMUTHS) + 0.5) * (np.pi / NUM_AZIMUTHS)
    total = jnp.zeros_like(s)
    for cosine in np.cos(azimuths):
        moved = s + amplitude * float(cosine)
        total = total + shape_factor(moved, shape=shape, max_excitation_error=max_excitation_error, thickness=thickness)
    return total / NUM_AZIMUTHS
