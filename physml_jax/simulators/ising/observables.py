"""What is estimated from many states: cumulants, response functions, correlations, each with its standard error.

Samples lie on the last axis. They are independent replicas, or one time series; a series is cut into ``num_blocks``
consecutive blocks that must each be much longer than its autocorrelation time.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax.numpy as jnp

from physml_jax.typing import Array


class Estimate(NamedTuple):
    """A value and its standard error, float [...] each."""

    value: Array
    error: Array


class Blocking(NamedTuple):
    """Errors of the mean of a series from blocks of 1, 2, 4 ... samples, float [..., levels].

    Attributes:
      errors: standard error by block size; rises to a plateau once blocks are independent.
      scatter: standard error of ``errors`` itself, errors / sqrt(2 (blocks - 1)).
    """

    errors: Array
    scatter: Array


def mean(samples: Array, *, num_blocks: int | None = None) -> Estimate:
    """Mean over the last axis and its standard error.

    Args:
      samples: float [..., R].
      num_blocks: as for ``jackknife``.

    Raises:
      ValueError: as for ``jackknife``.
    """
    return jackknife(lambda x: x, samples, num_blocks=num_blocks)


def jackknife(fn: Callable[..., Array], *samples: Array, num_blocks: int | None = None) -> Estimate:
    """A function of means, with its error by leaving out one sample or one block at a time.

    The error is sqrt((n - 1) mean (f_i - mean f)^2), f_i the function without block i.

    Args:
      fn: takes the mean of each of ``samples``, elementwise over any axes.
      *samples: float [..., R] each, R >= 2.
      num_blocks: blocks of neighbouring samples that are left out together, from 2 to R; what does not fill the last
        block is not used. ``None`` treats all samples as independent.

    Raises:
      ValueError: if there are fewer than two samples or blocks, or lengths differ.

    References:
      B. Efron, The Jackknife, the Bootstrap and Other Resampling Plans (1982), chapter 3.
    """
    if not samples:
        raise ValueError("samples: expected at least one array")
    lengths = {x.shape[-1] if x.ndim else 0 for x in samples}
    if len(lengths) != 1 or min(lengths) < 2:
        raise ValueError(f"samples: expected one length of at least 2 on the last axis, got {sorted(lengths)}")
    blocks = [_blocks(_floating(x), num_blocks) for x in samples]
    num = blocks[0].shape[-1]
    full = [b.mean(-1, keepdims=True) for b in blocks]
    # mean - (x - mean) / (n - 1): the mean without x, with no difference of large sums.
    without = [m - (b - m) / (num - 1) for b, m in zip(blocks, full, strict=True)]
    values = fn(*without)
    spread = values - values.mean(-1, keepdims=True)
    return Estimate(fn(*full)[..., 0], jnp.sqrt((num - 1) * (spread * spread).mean(-1)))


def binder_cumulant(order: Array, *, components: int = 1, num_blocks: int | None = None) -> Estimate:
    """Fourth-order cumulant U = 1 - n <o^4> / ((n + 2) <o^2>^2) of an order parameter with n components.

    0 deep in the disordered phase (Gaussian components), 2 / (n + 2) in the ordered one. n = 1, the magnetization:
    the usual 1 - <m^4> / (3 <m^2>^2), from 0 to 2/3. n = 2, ``stripe_order(...).norm``: from 0 to 1/2. With n = 1 for
    the stripes, as is sometimes done, the disordered limit is 1/3.

    Args:
      order: float [..., R], signed or not.
      components: n.
      num_blocks: as for ``jackknife``.

    Returns:
      ``Estimate``; not a number where the order parameter is 0 in all samples.

    Raises:
      ValueError: as for ``jackknife``, or if ``components`` is smaller than 1.

    References:
      K. Binder, Z. Phys. B 43, 119 (1981), eq. 12.
    """
    if components < 1:
        raise ValueError(f"components: expected at least 1, got {components}")
    square = _floating(order) ** 2
    factor = components / (components + 2)
    return jackknife(lambda m2, m4: 1 - factor * m4 / m2**2, square, square**2, num_blocks=num_blocks)


def specific_heat(
    energy: Array, temperature: Array | float, *, num_sites: int, num_blocks: int | None = None
) -> Estimate:
    """Specific heat per site, N (<e^2> - <e>^2) / T^2.

    Args:
      energy: float [..., R], per site.
      temperature: scalar, or float [...] of the leading axes.
      num_sites: N.
      num_blocks: as for ``jackknife``.

    Raises:
      ValueError: as for ``jackknife``.
    """
    return _scaled(_variance(energy, num_blocks), num_sites / jnp.square(temperature))


def susceptibility(
    magnetization: Array, temperature: Array | float, *, num_sites: int, num_blocks: int | None = None
) -> Estimate:
    """Susceptibility per site without subtraction, N <m^2> / T: right in the disordered phase at zero field.

    Below the transition it grows like N. Arguments as for ``specific_heat``; ``magnetization`` is any order parameter
    per site.

    Raises:
      ValueError: as for ``jackknife``.
    """
    return _scaled(mean(_floating(magnetization) ** 2, num_blocks=num_blocks), num_sites / jnp.asarray(temperature))


def connected_susceptibility(
    magnetization: Array, temperature: Array | float, *, num_sites: int, num_blocks: int | None = None
) -> Estimate:
    """Susceptibility per site with <|m|> subtracted, N (<m^2> - <|m|>^2) / T: finite in the ordered phase.

    In the disordered phase it is smaller than ``susceptibility`` by a factor 1 - 2/pi. Arguments as there.

    Raises:
      ValueError: as for ``jackknife``.
    """
    return _scaled(_variance(jnp.abs(magnetization), num_blocks), num_sites / jnp.asarray(temperature))


def correlation_function(spins: Array) -> Array:
    """Two-point function of every state, G(dy, dx) = mean over sites of s(y, x) s(y + dy, x + dx), periodic.

    By Fourier transform. The sum over sites is rounded to the whole number that it is before it is divided, so the
    result is exact to the last bit or so, up to L = 120 at least.

    Args:
      spins: int8 [..., L, L].

    Returns:
      float32 [..., L, L]; 1 at (0, 0). Averages of it over replicas and their errors are ``mean``'s work.

    Raises:
      ValueError: if the spins are no squares.
    """
    if spins.ndim < 2 or spins.shape[-1] != spins.shape[-2]:
        raise ValueError(f"spins: expected [..., L, L], got {list(spins.shape)}")
    spectrum = jnp.fft.rfft2(spins.astype(jnp.float32))
    power = spectrum.real**2 + spectrum.imag**2
    counts = jnp.round(jnp.fft.irfft2(power.astype(spectrum.dtype), s=spins.shape[-2:]))
    return counts / spins.shape[-1] ** 2


def blocking(series: Array) -> Blocking:
    """Errors of the mean of a correlated series, by merging neighbours into blocks of 1, 2, 4 ... samples.

    Args:
      series: float [..., N], N >= 4.

    Returns:
      ``Blocking``, as many levels as leave at least two blocks.

    Raises:
      ValueError: if the series is shorter than 4.

    References:
      H. Flyvbjerg, H. G. Petersen, J. Chem. Phys. 91, 461 (1989), eqs 26-28.
    """
    x = _series(series)
    errors, scatter = [], []
    while x.shape[-1] >= 2:
        num = x.shape[-1]
        error = jnp.sqrt(x.var(-1, ddof=1) / num)
        errors.append(error)
        scatter.append(error / jnp.sqrt(2.0 * (num - 1)).astype(error.dtype))
        x = x[..., : num // 2 * 2].reshape(*x.shape[:-1], num // 2, 2).mean(-1)
    return Blocking(jnp.stack(errors, -1), jnp.stack(scatter, -1))


def blocked_mean(series: Array) -> Estimate:
    """Mean of a correlated series with the error of the first block size that is large enough by itself.

    That is the smallest B with B^3 > 2 N (error_B / error_1)^4. A series too short to show a plateau has the error of
    its largest blocks, which is then a lower bound.

    Args:
      series: float [..., N], N >= 4.

    Raises:
      ValueError: if the series is shorter than 4.

    References:
      R. M. Lee et al., Phys. Rev. E 83, 066706 (2011), eq. 27.
    """
    x = _series(series)
    errors = blocking(x).errors
    sizes = 2.0 ** jnp.arange(errors.shape[-1], dtype=errors.dtype)
    first = errors[..., :1]
    ratio = jnp.where(first > 0, errors / jnp.where(first > 0, first, 1), 1)
    # The few blocks of the last levels scatter, so what they say is asked last.
    enough = jnp.broadcast_to(sizes**3, ratio.shape) > 2 * x.shape[-1] * ratio**4
    level = jnp.where(enough.any(-1), enough.argmax(-1), jnp.argmax(errors, -1))
    return Estimate(x.mean(-1), jnp.take_along_axis(errors, level[..., None], -1)[..., 0])


def integrated_autocorrelation_time(series: Array, *, window: float = 5.0, replicas: bool = False) -> Estimate:
    """Integrated autocorrelation time tau = 1/2 + sum over t of rho(t), with automatic windowing.

    The sum ends at the smallest W >= ``window`` tau(W). The mean of N samples has 2 tau / N times the variance of
    one; tau = 1/2 for independent ones. The error is tau sqrt(4 (W + 1/2 - tau) / N).

    Args:
      series: float [..., N], or [..., R, N] with ``replicas``; N >= 4. N should be 100 tau or more.
      window: c; 5 suits a single exponential.
      replicas: average the covariances of R independent series of one process, about their common mean. A single
        series that is short against tau takes its drift for its mean, and hides it.

    Returns:
      ``Estimate`` [...]. Infinite where a series never changes (it shows nothing about its time), or where no W fits
      into the series.

    Raises:
      ValueError: if the series is shorter than 4, ``window`` is not positive, or the axis of the replicas is missing.

    References:
      N. Madras, A. D. Sokal, J. Stat. Phys. 50, 109 (1988), appendix C (window); U. Wolff, Comput. Phys. Commun. 156,
      143 (2004) (error).
    """
    x = _series(series)
    if not window > 0:
        raise ValueError(f"window: expected a positive number, got {window}")
    if replicas and x.ndim < 2:
        raise ValueError(f"series: expected [..., R, N] with replicas, got {list(x.shape)}")
    num = x.shape[-1]
    axes = (-2, -1) if replicas else (-1,)
    x = x - x.mean(axes, keepdims=True)
    spectrum = jnp.fft.rfft(x, n=2 * num)
    power = (spectrum.real**2 + spectrum.imag**2).astype(spectrum.dtype)
    products = jnp.fft.irfft(power, n=2 * num)[..., :num].astype(x.dtype)
    covariance = products / jnp.broadcast_to(num - jnp.arange(num, dtype=x.dtype), products.shape)
    total = num
    if replicas:
        covariance, total = covariance.mean(-2), num * x.shape[-2]
    still = covariance[..., :1] <= 0
    rho = covariance / jnp.where(still, 1, covariance[..., :1])
    tau = jnp.cumsum(rho, -1) - 0.5
    steps = jnp.broadcast_to(jnp.arange(num, dtype=x.dtype), tau.shape)
    # Beyond half the series the few products that are left say nothing.
    enough = (steps >= window * tau) & (steps < num / 2) & (tau > 0)
    width = enough.argmax(-1)
    value = jnp.take_along_axis(tau, width[..., None], -1)[..., 0]
    value = jnp.where(still[..., 0] | ~enough.any(-1), jnp.inf, value)
    width = width.astype(x.dtype)
    # A window of c < 1 could make the bracket negative; infinity must not meet 0.
    spare = jnp.where(jnp.isinf(value), 1, jnp.maximum(width + 0.5 - value, 0.5))
    return Estimate(value, value * jnp.sqrt(4 * spare / total))


def _variance(samples, num_blocks):
    x = _floating(samples)
    if x.ndim:
        x = x - x.mean(-1, keepdims=True)  # <x^2> - <x>^2 would cancel in float32
    return jackknife(lambda first, second: second - first**2, x, x**2, num_blocks=num_blocks)


def _scaled(estimate, factor):
    factor = jnp.asarray(factor, estimate.value.dtype)
    return Estimate(factor * estimate.value, factor * estimate.error)


def _blocks(x, num_blocks):
    if num_blocks is None:
        return x
    num = x.shape[-1]
    if not 2 <= num_blocks <= num:
        raise ValueError(f"num_blocks: expected 2 to {num}, the number of samples, got {num_blocks}")
    size = num // num_blocks
    return x[..., : num_blocks * size].reshape(*x.shape[:-1], num_blocks, size).mean(-1)


def _series(series):
    x = _floating(series)
    if x.ndim < 1 or x.shape[-1] < 4:
        raise ValueError(f"series: expected at least 4 samples on the last axis, got {list(x.shape)}")
    return x


def _floating(x):
    x = jnp.asarray(x)
    return x if jnp.issubdtype(x.dtype, jnp.floating) else x.astype(jnp.float32)
