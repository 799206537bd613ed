r"""Finite-size scaling of the localization transition: W_c and nu from a number with a normal error per W and size.

Any quantity that is dimensionless (length of a bar over its width, gap ratio, alpha_0 at a fixed ratio of boxes) is one
function of one variable near the transition, and a correction that dies with the size L:

.. math:: \Gamma(W, L) = \sum_j a_j x^j + L^{-\omega} \sum_j b_j x^j , \qquad x = u(w) L^{1/\nu} , \qquad
   u = w + c_2 w^2 + \dots , \qquad w = W / W_c - 1 .

Records are flat: at W_k and L_k the value is ``value_k`` with standard error ``error_k``. ``scaling_fit`` takes all of
them; W_c, nu and the c are searched for, the a and b follow from linear least squares. Intervals come from resampling
the values, so they know noise and nothing of a form that is wrong: that is what ``deviance``, and the difference
between fits of other degrees, sizes and corrections (``survey``), are for. ``crossings`` assumes no form: where the
curves of two sizes cross, a drift with the sizes is the correction itself.

Shares of counted states, as of percolation, have a binomial error: see ``finite_size``.

References:
  K. Slevin and T. Ohtsuki, Phys. Rev. Lett. 82, 382 (1999), equations 4 to 8.
  A. Rodriguez, L. J. Vasquez, K. Slevin and R. A. Roemer, Phys. Rev. B 84, 134209 (2011), section V.
"""

import itertools
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from scipy.optimize import least_squares
from scipy.stats import chi2

from physml_jax.analysis.finite_size import Estimate
from physml_jax.core.rng import stream_key

#: Values of 1/nu between which a fit searches, and those that it begins with.
_STEEPNESS = (0.05, 10.0)
_STARTS = (0.4, 0.65, 1.1)


class ScalingFit(NamedTuple):
    """All sizes on one curve.

    Attributes:
      threshold: W_c.
      exponent: nu.
      critical_value: Gamma at W_c in an infinite system, a_0.
      field: float64, c_2, c_3 ... of u(w).
      coefficients: float64 [degree + 1], a_j, the constant first.
      correction: float64, b_j; empty without a correction.
      omega: exponent of the correction; ``None`` without one.
      x: float64 [K], scaled variable of every record.
      corrected: float64 [K], the values without the fitted correction: they lie on the curve.
      deviance: sum of the squared differences in units of the error; about the degrees of freedom of a good fit.
      degrees_of_freedom: records minus fitted numbers.
      p_value: probability of a larger deviance if the form is true.
    """

    threshold: Estimate
    exponent: Estimate
    critical_value: Estimate
    field: np.ndarray
    coefficients: np.ndarray
    correction: np.ndarray
    omega: float | None
    x: np.ndarray
    corrected: np.ndarray
    deviance: float
    degrees_of_freedom: int
    p_value: float


class Crossing(NamedTuple):
    """Where the curves of two sizes cross.

    Attributes:
      sizes: the two sizes, the smaller first.
      threshold: W of the crossing.
      value: Gamma there.
      exponent: nu from the ratio of the slopes there, ln(L2/L1) / ln(slope2/slope1).
    """

    sizes: tuple[int, int]
    threshold: Estimate
    value: Estimate
    exponent: Estimate


class Choice(NamedTuple):
    """One form of the fit out of several.

    Attributes:
      smallest: smallest size that it saw.
      degree: of the polynomial in x.
      omega: exponent of the correction; ``None`` without one.
      fit: what it found.
    """

    smallest: int
    degree: int
    omega: float | None
    fit: ScalingFit


def log_reduced_length(length: np.ndarray, error: np.ndarray, size: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """ln(xi/M) and its standard error, from localization lengths of bars of width M.

    The logarithm is what is fitted: xi/M of a bar falls by half across the transition, and its logarithm is straighter.

    Args:
      length: xi, any shape.
      error: its standard error.
      size: M.

    Returns:
      Two float64 arrays.

    Raises:
      ValueError: for lengths or widths that are not positive.

    Example:
      >>> log_reduced_length([4.0], [0.04], [4])
      (array([0.]), array([0.01]))
    """
    length, error, size = (np.asarray(x, np.float64) for x in (length, error, size))
    if not (np.all(length > 0) and np.all(size > 0)):
        raise ValueError("length, size: expected positive numbers")
    return np.log(length / size), error / length


def scaling_fit(
    width: np.ndarray,
    size: np.ndarray,
    value: np.ndarray,
    error: np.ndarray,
    *,
    degree: int = 2,
    field_degree: int = 2,
    omega: float | None = None,
    correction_degree: int = 0,
    num_resamples: int = 200,
    seed: int = 0,
) -> ScalingFit:
    """Fits W_c, nu and the scaling function together, by least squares.

    Args:
      width: float ``[K]``, W.
      size: int ``[K]``, linear size L or width M of a bar.
      value: float ``[K]``, Gamma.
      error: float ``[K]``, its standard error.
      degree: of the polynomial in x.
      field_degree: of u(w); 1 for u = w, which is too little for disorders that differ by a third.
      omega: exponent of a correction ``L^-omega``; ``None`` for none. Needs three sizes. It is not fitted: sizes up
        to ten do not tell it.
      correction_degree: of the polynomial in x that the correction is multiplied by.
      num_resamples: samples for the intervals; 0 for none.
      seed: of the resampling.

    Returns:
      The fit.

    Raises:
      ValueError: for records that make no sense, fewer than two sizes (three with a correction), or fewer records than
        fitted numbers.
    """
    width, size, value, error = _records(width, size, value, error)
    if degree < 1 or field_degree < 1 or correction_degree < 0:
        raise ValueError(
            "degree, field_degree, correction_degree: expected at least 1, 1 and 0, got"
            f" {degree}, {field_degree}, {correction_degree}"
        )
    if omega is not None and (not omega > 0 or len(np.unique(size)) < 3):
        raise ValueError(f"omega: expected a positive number and at least three sizes, got {omega}, {np.unique(size)}")
    form = _Form(degree, field_degree, omega, correction_degree)
    num_fitted = 1 + field_degree + form.num_linear
    if len(width) <= num_fitted:
        raise ValueError(f"width: {len(width)} records cannot fix {num_fitted} numbers; add disorders or sizes")
    data = (width, size, error)
    middle = float(np.median(width))
    starts = [np.array([c, s, *[0.0] * (field_degree - 1)]) for c in (middle, *_thirds(width)) for s in _STARTS]
    best = min((_search(form, data, value, start) for start in starts), key=lambda found: found[1])[0]
    linear = _linear(form, data, value, best)[0]
    samples = []
    for values in resample(value, error, num_resamples=num_resamples, seed=seed):
        theta = _search(form, data, values, best)[0]
        samples.append([theta[0], 1 / theta[1], _linear(form, data, values, theta)[0][0]])
    samples = np.array(samples).reshape(-1, 3)
    deviance = float((_linear(form, data, value, best)[1] ** 2).sum())
    curve, rest = linear[: degree + 1], linear[degree + 1 :]
    x = _scaled(form, best, width, size)
    shift = 0.0 if omega is None else size**-omega * np.polynomial.polynomial.polyval(x, rest)
    freedom = len(width) - num_fitted
    numbers = zip((best[0], 1 / best[1], curve[0]), samples.T, strict=True)
    return ScalingFit(
        *(_estimate(v, s) for v, s in numbers),
        field=best[2:],
        coefficients=curve,
        correction=rest,
        omega=omega,
        x=x,
        corrected=value - shift,
        deviance=deviance,
        degrees_of_freedom=freedom,
        p_value=float(chi2.sf(deviance, freedom)),
    )


def predicted(fit: ScalingFit, width: np.ndarray, size: np.ndarray) -> np.ndarray:
    """The fitted Gamma at W and L, correction included; float64, ``width`` and ``size`` broadcast."""
    width, size = np.broadcast_arrays(np.asarray(width, np.float64), np.asarray(size, np.float64))
    form = _Form(len(fit.coefficients) - 1, 1 + len(fit.field), fit.omega, max(len(fit.correction) - 1, 0))
    x = _scaled(form, np.array([fit.threshold.value, 1 / fit.exponent.value, *fit.field]), width, size)
    shift = 0.0 if fit.omega is None else size**-fit.omega * np.polynomial.polynomial.polyval(x, fit.correction)
    return scaling_function(fit, x) + shift


def scaling_function(fit: ScalingFit, x: np.ndarray) -> np.ndarray:
    """The fitted curve without the correction; float64 of the shape of ``x``."""
    return np.polynomial.polynomial.polyval(np.asarray(x, np.float64), fit.coefficients)


def survey(
    width: np.ndarray,
    size: np.ndarray,
    value: np.ndarray,
    error: np.ndarray,
    *,
    degrees: tuple[int, ...] = (2, 3),
    field_degree: int = 2,
    omegas: tuple[float | None, ...] = (None, 2.0, 3.0, 4.0),
    num_resamples: int = 100,
    seed: int = 0,
) -> list[Choice]:
    """The same records by several forms: how far W_c and nu depend on what was assumed.

    Forms without a correction are fitted to all sizes and again without the smallest ones, as long as two remain; forms
    with one to all sizes, of which there must be three.

    Args:
      width: as for ``scaling_fit``, like the three others.
      size: int ``[K]``.
      value: float ``[K]``.
      error: float ``[K]``.
      degrees: of the polynomial in x.
      field_degree: of u(w).
      omegas: exponents of the correction.
      num_resamples: samples for the intervals.
      seed: of the resampling.

    Returns:
      The fits, those without a correction first.

    Raises:
      ValueError: as for ``scaling_fit``.
    """
    records = _records(width, size, value, error)
    sizes = np.unique(records[1])
    found = []
    for omega in sorted(omegas, key=lambda o: (o is not None, o or 0.0)):
        if omega is not None and len(sizes) < 3:
            continue
        for smallest in sizes[:-1] if omega is None else sizes[:1]:
            kept = [r[records[1] >= smallest] for r in records]
            for degree in degrees:
                form = {"degree": degree, "field_degree": field_degree, "omega": omega}
                fit = scaling_fit(*kept, **form, num_resamples=num_resamples, seed=seed)
                found.append(Choice(int(smallest), degree, omega, fit))
    return found


def crossings(
    width: np.ndarray,
    size: np.ndarray,
    value: np.ndarray,
    error: np.ndarray,
    *,
    degree: int = 2,
    num_resamples: int = 200,
    seed: int = 0,
) -> list[Crossing]:
    """Crossings of the curves of neighbouring sizes, each a polynomial in W of its own.

    Args:
      width: as for ``scaling_fit``, like the three others.
      size: int ``[K]``.
      value: float ``[K]``.
      error: float ``[K]``.
      degree: of the polynomials; fewer than as many disorders per size.
      num_resamples: samples for the intervals; 0 for none.
      seed: of the resampling.

    Returns:
      One crossing per pair of neighbouring sizes, fewer where two curves do not cross inside the data.

    Raises:
      ValueError: for records that make no sense, or fewer disorders than coefficients at a size.
    """
    width, size, value, error = _records(width, size, value, error)
    sizes = np.unique(size)
    for s in sizes:
        if len(np.unique(width[size == s])) <= degree:
            raise ValueError(f"width: expected more than {degree} disorders at size {s:g} for degree {degree}")
    centre = float(width.mean())

    def curves(values):
        return {
            s: np.polynomial.polynomial.polyfit(
                width[size == s] - centre, values[size == s], degree, w=1 / error[size == s]
            )
            for s in sizes
        }

    here = curves(value)
    resampled = [curves(v) for v in resample(value, error, num_resamples=num_resamples, seed=seed)]
    found = []
    for a, b in itertools.pairwise(sizes):
        low, high = (f(g(width[size == s]) for s in (a, b)) - centre for f, g in ((max, np.min), (min, np.max)))
        best = _cross(here, a, b, low, high)
        if best is None:
            continue
        rest = [c for fits in resampled if (c := _cross(fits, a, b, low, high)) is not None]
        columns = np.array(rest).reshape(-1, 3) + np.array([centre, 0, 0])[None]
        numbers = zip((best[0] + centre, *best[1:]), columns.T, strict=True)
        found.append(Crossing((int(a), int(b)), *(_estimate(v, s) for v, s in numbers)))
    return found


def resample(value: np.ndarray, error: np.ndarray, *, num_resamples: int, seed: int) -> np.ndarray:
    """Normal values around those measured; float64 ``[num_resamples, K]``, the same for the same seed."""
    key = stream_key(seed, "analysis/anderson_scaling")
    noise = jax.random.normal(key, (num_resamples, len(value)), jnp.float32)
    return value + error * np.asarray(noise, np.float64)


class _Form(NamedTuple):
    degree: int
    field_degree: int
    omega: float | None
    correction_degree: int

    @property
    def num_linear(self):
        return self.degree + 1 + (0 if self.omega is None else self.correction_degree + 1)


def _scaled(form, theta, width, size):
    """Scaled variable of records; theta is W_c, 1/nu, c_2, c_3 ..."""
    w = width / theta[0] - 1
    field = w + sum(c * w ** (k + 2) for k, c in enumerate(theta[2 : 1 + form.field_degree]))
    return field * size ** theta[1]


def _linear(form, data, value, theta):
    """The coefficients that are best for W_c, nu and the c, and the differences in units of the error."""
    width, size, error = data
    x = _scaled(form, theta, width, size)
    columns = [x**j for j in range(form.degree + 1)]
    if form.omega is not None:
        columns += [size**-form.omega * x**j for j in range(form.correction_degree + 1)]
    design = np.stack(columns, axis=1) / error[:, None]
    scale = np.sqrt((design**2).sum(0)) + 1e-300  # powers of x differ by orders
    coefficients = np.linalg.lstsq(design / scale, value / error, rcond=None)[0]
    return coefficients / scale, design / scale @ coefficients - value / error


def _search(form, data, value, start):
    margin = np.ptp(data[0])
    low = [max(data[0].min() - margin, 1e-3), _STEEPNESS[0], *[-np.inf] * (len(start) - 2)]
    high = [data[0].max() + margin, _STEEPNESS[1], *[np.inf] * (len(start) - 2)]
    found = least_squares(lambda t: _linear(form, data, value, t)[1], start, bounds=(low, high), x_scale="jac")
    return found.x, 2 * found.cost


def _cross(fits, a, b, low, high):
    """W (from the centre), Gamma and nu where two polynomials cross; of several the one with the largest change."""
    gap = np.polynomial.Polynomial(fits[b] - fits[a])
    roots = gap.roots()
    roots = roots[np.abs(np.imag(roots)) < 1e-12].real
    roots = roots[(roots >= low) & (roots <= high)]
    if not len(roots):
        return None
    at = float(roots[np.argmax(np.abs(gap.deriv()(roots)))])
    ratio = np.divide(*(np.polynomial.Polynomial(fits[s]).deriv()(at) for s in (b, a)))
    if not ratio > 1:
        return None
    return at, float(np.polynomial.Polynomial(fits[a])(at)), float(np.log(b / a) / np.log(ratio))


def _thirds(width):
    return np.quantile(width, [1 / 3, 2 / 3])


def _estimate(value, samples):
    if len(samples) < 20:
        return Estimate(float(value))
    low, high = np.percentile(samples, [2.5, 97.5])
    return Estimate(float(value), float(low), float(high), float(np.std(samples, ddof=1)))


def _records(width, size, value, error):
    width, size, value, error = (np.asarray(x, np.float64) for x in (width, size, value, error))
    for x, name in ((width, "width"), (size, "size"), (value, "value"), (error, "error")):
        if x.ndim != 1 or x.shape != width.shape or not np.all(np.isfinite(x)):
            raise ValueError(f"{name}: expected {width.size} finite numbers, got shape {x.shape}")
    if not np.all(error > 0):
        raise ValueError("error: expected positive standard errors")
    if np.any(width <= 0):
        raise ValueError("width: expected positive disorders")
    if np.any(size < 1) or len(np.unique(size)) < 2:
        raise ValueError(f"size: expected at least two sizes of at least 1, got {np.unique(size).tolist()}")
    return width, size, value, error
