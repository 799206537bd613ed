"""Exact answers for the J1-J2 Ising model: small lattices by counting, larger ones and the infinite one without J2.

Host functions in float64 NumPy, made to be compared with. Energies are per site in units of J1, ``beta = 1 / T``.
"""

import functools
import itertools
from typing import NamedTuple

import numpy as np

#: Onsager's critical temperature for J2 = 0, 2 / ln(1 + sqrt 2).
ONSAGER_TC = 2.0 / np.log1p(np.sqrt(2.0))


class Averages(NamedTuple):
    """Thermal averages of a finite lattice of N sites, float64 of the common shape of T, J2 and h.

    Attributes:
      energy: e, per site.
      specific_heat: N (<e^2> - <e>^2) / T^2, per site.
      free_energy: -T ln Z / N.
      magnetization: <m>, which a field alone makes different from 0.
      abs_magnetization: <|m|>.
      magnetization_squared: <m^2>.
      magnetization_fourth: <m^4>.
      stripe_maximum: <max(|row|, |column|)>, see ``hamiltonian.StripeOrder``.
      stripe_norm: <sqrt(row^2 + column^2)>.
      stripe_squared: <row^2> = <column^2>.
    """

    energy: np.ndarray
    specific_heat: np.ndarray
    free_energy: np.ndarray
    magnetization: np.ndarray
    abs_magnetization: np.ndarray
    magnetization_squared: np.ndarray
    magnetization_fourth: np.ndarray
    stripe_maximum: np.ndarray
    stripe_norm: np.ndarray
    stripe_squared: np.ndarray


class Classes(NamedTuple):
    """The states of a small lattice, gathered by what their weight and order depend on; int64 [K] each.

    Attributes:
      count: number of states of the class.
      nn: sum of s s over nearest neighbours.
      nnn: sum of s s across the diagonals.
      total: sum of the spins.
      row: sum of (-1)^i s.
      column: sum of (-1)^j s.
    """

    count: np.ndarray
    nn: np.ndarray
    nnn: np.ndarray
    total: np.ndarray
    row: np.ndarray
    column: np.ndarray


def enumerate_states() -> np.ndarray:
    """All states of the periodic 4 x 4 lattice, int8 [65536, 4, 4]; bit 4 i + j of the number is 1 for spin up."""
    bits = (np.arange(2**16)[:, None] >> np.arange(16)) & 1
    return (2 * bits - 1).astype(np.int8).reshape(-1, 4, 4)


@functools.cache
def enumerate_lattice(size: int = 4) -> Classes:
    """Counts all states of the periodic 4 x 4 lattice, once per process.

    Args:
      size: 4, the one lattice with four sublattices that is small enough.

    Raises:
      ValueError: if ``size`` is not 4.
    """
    if size != 4:
        raise ValueError(f"size: only 4 x 4 can be enumerated (2^16 states), got {size}")
    s = enumerate_states().astype(np.int64)
    right, down = np.roll(s, -1, 2), np.roll(s, -1, 1)
    sign = 1 - 2 * (np.arange(4) % 2)
    columns = (
        (s * right + s * down).sum((1, 2)),
        (s * np.roll(right, -1, 1) + s * np.roll(down, 1, 2)).sum((1, 2)),
        s.sum((1, 2)),
        (s * sign[:, None]).sum((1, 2)),
        (s * sign).sum((1, 2)),
    )
    classes, count = np.unique(np.stack(columns, 1), axis=0, return_counts=True)
    return Classes(count, *classes.T)


def thermal_averages(temperature, j2, field=0.0) -> Averages:
    """Exact averages of the periodic 4 x 4 lattice.

    Args:
      temperature: float, any shape, positive.
      j2: float, broadcasts with ``temperature``.
      field: external field, likewise.

    Raises:
      ValueError: if a temperature is not positive.
    """
    _check_temperature(temperature)
    t, j2, h = (
        x[..., None] for x in np.broadcast_arrays(*(np.asarray(x, np.float64) for x in (temperature, j2, field)))
    )
    classes = enumerate_lattice()
    num = 16
    e = (-classes.nn + j2 * classes.nnn - h * classes.total) / num
    log_weight = -num * e / t + np.log(classes.count)
    shift = log_weight.max(-1, keepdims=True)
    weight = np.exp(log_weight - shift)
    z = weight.sum(-1)

    def mean(x):
        return (weight * x).sum(-1) / z

    m, row, column = classes.total / num, classes.row / num, classes.column / num
    t, energy = t[..., 0], mean(e)
    return Averages(
        energy=energy,
        specific_heat=num * mean((e - energy[..., None]) ** 2) / t**2,
        free_energy=-t * (shift[..., 0] + np.log(z)) / num,
        magnetization=mean(m),
        abs_magnetization=mean(np.abs(m)),
        magnetization_squared=mean(m**2),
        magnetization_fourth=mean(m**4),
        stripe_maximum=mean(np.maximum(np.abs(row), np.abs(column))),
        stripe_norm=mean(np.hypot(row, column)),
        stripe_squared=mean(row**2),
    )


class Kaufman(NamedTuple):
    """Exact thermodynamics per site of a finite torus without J2, float64 of the shape of T.

    Attributes:
      energy: e.
      specific_heat: de/dT.
      free_energy: -T ln Z / N.
    """

    energy: np.ndarray
    specific_heat: np.ndarray
    free_energy: np.ndarray


def kaufman(size: int, temperature) -> Kaufman:
    """Finite-lattice thermodynamics of the nearest-neighbour model on the periodic L x L lattice.

    Z = (2 sinh 2K)^(N/2) / 2 times the sum of four products over the momenta l = 0 ... 2 L - 1 of 2 cosh(L g_l / 2)
    or 2 sinh(L g_l / 2), odd l and even l, with cosh g_l = cosh 2K coth 2K - cos(pi l / L), g_0 = 2K + ln tanh K
    negative above the critical temperature. The products are summed as logarithms, so L is not limited; the specific
    heat is the derivative of the energy along the imaginary axis, exact to rounding.

    Args:
      size: linear size L, at least 3 (at 2 a pair of sites shares two bonds).
      temperature: float, any shape, at least 0.01.

    Raises:
      ValueError: if the size or a temperature is smaller than that.

    References:
      B. Kaufman, Phys. Rev. 76, 1232 (1949); A. E. Ferdinand, M. E. Fisher, Phys. Rev. 185, 832 (1969), eqs 2.1-2.9.
    """
    if size < 3:
        raise ValueError(f"size: expected at least 3, got {size}")
    t = np.asarray(temperature, np.float64)
    if not (t >= 0.01).all():
        raise ValueError(f"temperature: expected at least 0.01, got a smallest one of {np.min(t)}")
    num, step = size * size, 1e-100
    log_z, slope = _kaufman(size, 1 / t + 1j * step)
    return Kaufman(
        energy=-slope.real / num, specific_heat=slope.imag / step / t**2 / num, free_energy=-t * log_z.real / num
    )


def _kaufman(size, k):
    """Ln Z and d ln Z / dK, analytic in the complex K."""
    sinh, cosh = np.sinh(2 * k), np.cosh(2 * k)
    # Half the momenta suffice: l and 2 L - l are equal. Index 0 holds l = 0, which has a sign.
    l = np.arange(1, 2 * size).reshape((-1,) + (1,) * np.ndim(k))
    cosh_gamma = cosh**2 / sinh - np.cos(np.pi * l / size)
    gamma = np.concatenate([(2 * k + np.log(np.tanh(k)))[None], np.arccosh(cosh_gamma)])
    slope = np.concatenate(
        [(2 + 2 / sinh)[None], 2 * cosh * (1 - 1 / sinh**2) / np.sqrt((cosh_gamma - 1) * (cosh_gamma + 1))]
    )
    x, dx = size * gamma / 2, size * slope / 2
    decay = np.exp(-2 * x[1:])
    logs, slopes = [], []
    for start in (1, 2):  # odd momenta, even ones without 0
        own = slice(start - 1, None, 2)
        for sign in (1, -1):  # 2 cosh, 2 sinh
            logs.append((x[1:][own] + np.log1p(sign * decay[own])).sum(0))
            slopes.append((dx[1:][own] * (1 - sign * decay[own]) / (1 + sign * decay[own])).sum(0))
    # The factors of l = 0 vanish or change sign, so they multiply instead of adding to a logarithm.
    factor, dfactor = [1.0, 1.0], [0.0, 0.0]
    large = np.where(x[0].real > 0, x[0], -x[0])
    plus, minus = np.exp(x[0] - large), np.exp(-x[0] - large)
    factor += [plus + minus, plus - minus]
    dfactor += [dx[0] * (plus - minus), dx[0] * (plus + minus)]
    logs[2], logs[3] = logs[2] + large, logs[3] + large
    shift = np.max([v.real for v in logs], axis=0)
    terms = [np.exp(v - shift) for v in logs]
    total = sum(f * v for f, v in zip(factor, terms, strict=True))
    dtotal = sum((f * s + d) * v for f, d, s, v in zip(factor, dfactor, slopes, terms, strict=True))
    num = size * size
    log_sinh = 2 * k + np.log1p(-np.exp(-4 * k))  # ln(2 sinh 2K)
    return num / 2 * log_sinh - np.log(2) + shift + np.log(total), num * cosh / sinh + dtotal / total


def onsager_energy(temperature) -> np.ndarray:
    """Energy per site of the infinite lattice without J2.

    e = -coth(2K) (1 + k' 2/pi K(k)) with k' = 2 tanh^2(2K) - 1 and the complete elliptic integral K, which is pi / 2
    over the arithmetic-geometric mean of 1 and abs(k').

    Raises:
      ValueError: if a temperature is not positive.

    References:
      L. Onsager, Phys. Rev. 65, 117 (1944), eq. 116.
    """
    _check_temperature(temperature)
    k = 1 / np.asarray(temperature, np.float64)
    complement = 2 * np.tanh(2 * k) ** 2 - 1
    a, b = np.ones_like(complement), np.abs(complement)
    for _ in range(40):
        a, b = (a + b) / 2, np.sqrt(a * b)
    return -(1 + complement / a) / np.tanh(2 * k)


def onsager_magnetization(temperature) -> np.ndarray:
    """Spontaneous magnetization of the infinite lattice without J2, (1 - sinh(2K)^-4)^(1/8) below Tc and 0 above.

    Raises:
      ValueError: if a temperature is not positive.

    References:
      C. N. Yang, Phys. Rev. 85, 808 (1952), eq. 96.
    """
    _check_temperature(temperature)
    t = np.asarray(temperature, np.float64)
    inside = np.minimum(t, ONSAGER_TC)
    # 1 / sinh(2K)^4 by decaying exponentials: no overflow at low temperature.
    decay = np.exp(-2 / inside)
    inverse = 2 * decay / (1 - decay**2)
    return np.maximum(1 - inverse**4, 0) ** 0.125


class Torus(NamedTuple):
    """Exact averages of a small torus by its transfer matrix, floats; definitions as in ``Averages``."""

    energy: float
    specific_heat: float
    free_energy: float
    magnetization_squared: float
    stripe_squared: float


def transfer_matrix(size: int, temperature: float, j2: float, field: float = 0.0) -> Torus:
    """Exact averages of the periodic L x L lattice with J2, from the 2^L x 2^L matrix between neighbouring rows.

    Z = Tr T^L with T = exp(-beta E) of a row and the bonds to the next one. Derivatives are exact: those of the matrix
    elements take the place of one or two of the L factors, and a squared order parameter is the sum over pairs of rows.

    Args:
      size: linear size L, even, from 4 to 10 (at 10 a matrix has 8 MB).
      temperature: positive.
      j2: coupling across the diagonals.
      field: external field.

    Raises:
      ValueError: if the size or the temperature is outside its range.
    """
    if size not in (4, 6, 8, 10):
        raise ValueError(f"size: expected 4, 6, 8 or 10, got {size}")
    _check_temperature(temperature)
    rows = np.array(list(itertools.product((-1, 1), repeat=size)), np.float64)
    own = -(rows * np.roll(rows, 1, 1)).sum(1) - field * rows.sum(1)
    across = rows @ (np.roll(rows, 1, 1) + np.roll(rows, -1, 1)).T
    cost = own[:, None] / 2 + own[None, :] / 2 - rows @ rows.T + j2 * across
    lowest = cost.min()
    excess = cost - lowest
    t = np.exp(-excess / temperature)
    powers = [np.eye(2**size)]
    for _ in range(size):
        powers.append(powers[-1] @ t)
    z = np.trace(powers[size])
    once, twice = excess * t, excess**2 * t
    mean = size * np.sum(powers[size - 1].T * once) / z
    square = size * np.sum(powers[size - 1].T * twice) / z
    moved = [power @ once for power in powers[: size - 1]]
    square += size * sum(np.sum(moved[k].T * moved[size - 2 - k]) for k in range(size - 1)) / z
    num = size * size

    def squared(sign):
        # <a_0 a_k> for the sums a of two rows k apart, added up; ``sign`` is -1 for rows that alternate.
        a = rows.sum(1)
        pairs = sum(sign**k * (a @ (powers[k] * powers[size - k].T) @ a) for k in range(size))
        return float(size * pairs / z / num**2)

    return Torus(
        energy=float((mean + size * lowest) / num),
        specific_heat=float((square - mean**2) / temperature**2 / num),
        free_energy=float((size * lowest - temperature * np.log(z)) / num),
        magnetization_squared=squared(1),
        stripe_squared=squared(-1),
    )


def _check_temperature(temperature):
    t = np.asarray(temperature, np.float64)
    if not ((t > 0) & np.isfinite(t)).all():
        raise ValueError(f"temperature: expected positive numbers, got {temperature!r}")
