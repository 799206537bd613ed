"""Spectral statistics: density of states by the kernel polynomial method, ratios of neighbouring level spacings."""

import math
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from physml_jax.core.precision import einsum
from physml_jax.simulators.anderson.hamiltonian import hamiltonian_matvec, spectral_interval
from physml_jax.simulators.anderson.states import check_disorder
from physml_jax.typing import Array, Key

#: Mean gap ratio of the Gaussian orthogonal ensemble (Y. Y. Atas et al., Phys. Rev. Lett. 110, 084101 (2013), table I).
GOE_GAP_RATIO = 0.5307
#: Mean gap ratio of independent levels.
POISSON_GAP_RATIO = 2 * math.log(2) - 1


class Estimate(NamedTuple):
    """A mean and its standard error, of equal shape."""

    value: Array
    error: Array


def gap_ratio(energies: Array) -> Array:
    """Ratios min(s_n, s_(n+1)) / max(s_n, s_(n+1)) of neighbouring spacings s_n = E_(n+1) - E_n.

    They need no unfolding, since the density of states drops out. Their mean is 0.5307 where states are extended and
    2 ln 2 - 1 = 0.3863 where they are localised.

    Args:
      energies: [..., n], n >= 3 levels without a gap in their count; need not be sorted.

    Returns:
      [..., n - 2]; 0 where both spacings vanish.

    Raises:
      ValueError: if there are fewer than three levels.

    References:
      V. Oganesyan and D. A. Huse, Phys. Rev. B 75, 155111 (2007).
    """
    if energies.ndim < 1 or energies.shape[-1] < 3:
        raise ValueError(f"energies: expected at least 3 levels [..., n], got {list(energies.shape)}")
    spacing = jnp.diff(jnp.sort(energies, axis=-1), axis=-1)
    left, right = spacing[..., :-1], spacing[..., 1:]
    larger = jnp.maximum(left, right)
    return jnp.where(larger > 0, jnp.minimum(left, right) / jnp.where(larger > 0, larger, 1), 0)


def chebyshev_moments(key: Key, disorder: Array, *, num_moments: int = 128, num_vectors: int = 8) -> Array:
    """Moments <v| T_m((H - c) / h) |v> / N of random sign vectors, m = 0 to num_moments - 1.

    c and h are centre and half-width of ``spectral_interval``, widened by 1 %. One application of H gives two moments,
    by T_(2m) = 2 T_m^2 - 1 and T_(2m+1) = 2 T_(m+1) T_m - T_1.

    Args:
      key: typed key.
      disorder: [..., L, L, L].
      num_moments: number of moments, even.
      num_vectors: number of random vectors per realisation.

    Returns:
      [..., num_vectors, num_moments].

    Raises:
      ValueError: for a number of moments that is odd or below 2, or without vectors.
    """
    check_disorder(disorder)
    if num_moments < 2 or num_moments % 2:
        raise ValueError(f"num_moments: expected an even number of at least 2, got {num_moments}")
    if num_vectors < 1:
        raise ValueError(f"num_vectors: expected at least 1, got {num_vectors}")
    lead, cube = disorder.shape[:-3], disorder.shape[-3:]
    centre, half_width = (x[..., None, None, None, None] for x in _scale(disorder))
    start = jax.random.rademacher(key, (*lead, num_vectors, *cube), disorder.dtype)

    def scaled(x):
        return (hamiltonian_matvec(disorder, x) - centre * x) / half_width

    def mean(x, y):
        return (x * y).mean((-3, -2, -1))

    first = scaled(start)
    zeroth_moment, first_moment = mean(start, start), mean(start, first)

    def step(pair, _):
        before, now = pair
        even = 2 * mean(before, before) - zeroth_moment
        odd = 2 * mean(before, now) - first_moment
        return (now, 2 * scaled(now) - before), jnp.stack([even, odd], axis=-1)

    _, moments = jax.lax.scan(step, (start, first), length=num_moments // 2)
    return jnp.moveaxis(moments, 0, -2).reshape(*lead, num_vectors, num_moments)


def density_of_states(
    key: Key, disorder: Array, energies: Array, *, num_moments: int = 128, num_vectors: int = 8
) -> Estimate:
    """Density of states per site and energy, by the kernel polynomial method with the Jackson kernel.

    The kernel smears the spectrum over about pi h / num_moments around E = c, h being half the width of the spectrum: a
    bias that vanishes where the density is straight over this width, which no error tells.

    Args:
      key: typed key.
      disorder: [..., L, L, L].
      energies: [E], in units of the hopping.
      num_moments: number of Chebyshev moments, even.
      num_vectors: number of random vectors per realisation.

    Returns:
      Mean over realisations and vectors and its standard error, [E] each. The error comes from the scatter between
      realisations, or between the vectors if there is a single realisation (it then says nothing about others); it is
      infinite where there is only one value.

    Raises:
      ValueError: for wrong shapes, or as for ``chebyshev_moments``.

    References:
      A. Weisse, G. Wellein, A. Alvermann and H. Fehske, Rev. Mod. Phys. 78, 275 (2006), equations 59, 71 and 82.
    """
    if energies.ndim != 1:
        raise ValueError(f"energies: expected [E], got {list(energies.shape)}")
    check_disorder(disorder)
    disorder = disorder.reshape(-1, *disorder.shape[-3:])
    moments = chebyshev_moments(key, disorder, num_moments=num_moments, num_vectors=num_vectors)
    if len(disorder) > 1:
        moments = moments.mean(1, keepdims=True)
    centre, half_width = (x[:, None] for x in _scale(disorder))
    x = (energies[None].astype(disorder.dtype) - centre) / half_width
    inside = jnp.abs(x) < 1
    angle = jnp.arccos(jnp.where(inside, x, 0))
    order = np.arange(num_moments)
    weight = jnp.asarray(jackson_kernel(num_moments) * np.where(order == 0, 1, 2), moments.dtype)
    cosines = jnp.cos(angle[:, :, None] * jnp.asarray(order, moments.dtype)[None, None])
    series = einsum("rvm,m,rem->rve", moments, weight, cosines)
    norm = math.pi * half_width * jnp.sin(angle)
    samples = jnp.where(inside[:, None], series / norm[:, None], 0).reshape(-1, energies.shape[0])
    count = len(samples)
    scatter = jnp.sqrt(samples.var(axis=0, ddof=1) / count) if count > 1 else jnp.full_like(samples[0], jnp.inf)
    return Estimate(samples.mean(0), scatter)


def jackson_kernel(num_moments: int) -> np.ndarray:
    """Damping factors that make a truncated Chebyshev series positive, float64 [num_moments]; the first is 1."""
    n, m = num_moments + 1, np.arange(num_moments)
    turn = np.pi * m / n
    return ((n - m) * np.cos(turn) + np.sin(turn) / np.tan(np.pi / n)) / n


def _scale(disorder):
    low, high = spectral_interval(disorder)
    return (high + low) / 2, 1.01 * (high - low) / 2
