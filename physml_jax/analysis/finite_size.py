r"""Finite-size scaling of a transition: where it lies and how it sharpens, from shares of "ordered" states.

Everything works on flat records: at control parameter ``p_k`` and linear size ``L_k``, ``successes_k`` of ``totals_k``
states had the property (spanned, or were said to span). Near the transition the share is one function of one variable,

.. math:: Q(p, L) = F(x) , \qquad x = (p - p_c) L^{1/\nu} ,

so the curves of different sizes cross at p_c and become steeper as L^(1/nu). Two estimates are offered. ``crossings``
looks at pairs of sizes and assumes nothing about F. ``collapse`` fits p_c, nu and F together to all sizes, by maximum
likelihood of the binomial counts with ln(F / (1 - F)) a polynomial in x, optionally with the leading correction
``b L^-omega``. Intervals come from resampling the counts.

A share at an exact number of occupied sites is not the share at independent occupation with probability p: the latter
is the former smeared over the binomial distribution of the number, whose width falls as 1/L against L^(-3/4) of the
transition itself. The smearing is a correction that dies as slowly as L^(-1/2): sizes 16 to 64 at exact counts, taken
as they are, give nu = 1.5 for the true 4/3. So a fit must know which kind it sees (``exact_count``), and only one kind
may enter it; ``occupation_average`` turns exact-count thresholds into the smeared curve.

References:
  D. Stauffer and A. Aharony, Introduction to Percolation Theory, 2nd ed. (1994), chapter 4.
  M. E. J. Newman and R. M. Ziff, Phys. Rev. E 64, 016706 (2001), equation 2 for the smearing.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from scipy.special import expit
from scipy.stats import binom, chi2

from physml_jax.analysis.scaling_model import SHARPEST, CollapseModel, Curve, fit_curve, in_window
from physml_jax.core.rng import stream_key


class Estimate(NamedTuple):
    """A number with its 95 % bootstrap interval.

    Attributes:
      value: fitted to the counts as they are.
      low: 2.5th percentile of the fits to resampled counts; ``None`` without resampling.
      high: 97.5th percentile.
      error: standard deviation of the fits to resampled counts.
    """

    value: float
    low: float | None = None
    high: float | None = None
    error: float | None = None


class Crossing(NamedTuple):
    """Where the curves of two sizes cross.

    Attributes:
      sizes: the two sizes, the smaller first.
      threshold: p of the crossing.
      share: share at the crossing.
      exponent: nu from the ratio of the slopes there, ln(L2/L1) / ln(slope2/slope1).
    """

    sizes: tuple[int, int]
    threshold: Estimate
    share: float
    exponent: Estimate


class Collapse(NamedTuple):
    """All sizes on one curve.

    Attributes:
      threshold: p_c.
      exponent: nu.
      correction: amplitude b of the correction ``b L^-omega``; ``None`` if none was fitted.
      coefficients: float64 [degree + 1], of ln(F / (1 - F)) in powers of x, the constant first.
      x: float64 [K], scaled variable of every record, inside the fitted window or not; for exact counts the one at
        which independent occupation has the same share, so that all shares lie on one curve.
      used: bool [K], records that the fit saw.
      deviance: twice the log-likelihood ratio of the fit and of the shares themselves; about the degrees of freedom
        where the fit describes the data.
      degrees_of_freedom: records used minus fitted numbers.
      p_value: probability of a larger deviance if the fit is true.
    """

    threshold: Estimate
    exponent: Estimate
    correction: float | None
    coefficients: np.ndarray
    x: np.ndarray
    used: np.ndarray
    deviance: float
    degrees_of_freedom: int
    p_value: float


def crossings(
    p: np.ndarray,
    size: np.ndarray,
    successes: np.ndarray,
    totals: np.ndarray,
    *,
    degree: int = 3,
    window: tuple[float, float] = (0.02, 0.98),
    num_resamples: int = 200,
    seed: int = 0,
) -> list[Crossing]:
    """Crossings of the curves of neighbouring sizes.

    Every size gets its own polynomial for ln(Q / (1 - Q)), fitted by maximum likelihood inside the window. Of several
    crossings the one whose share is nearest 1/2 counts.

    Args:
      p: float ``[K]``, control parameter.
      size: int ``[K]``, linear size.
      successes: int ``[K]``.
      totals: int ``[K]``, at least 1.
      degree: of the polynomials.
      window: records count where a first, straight fit of their size lies between these shares. The fit decides and
        not the count itself, which would select by chance.
      num_resamples: bootstrap samples; 0 for none.
      seed: of the bootstrap.

    Returns:
      One crossing per pair of neighbouring sizes, fewer where two curves do not cross inside the data.

    Raises:
      ValueError: for records that make no sense, or fewer than two sizes.
    """
    p, size, successes, totals = _records(p, size, successes, totals)
    sizes = np.unique(size)
    # The windows are chosen once: resampling estimates the noise of the counts, not that of the choice.
    used = {int(s): in_window(p[size == s], successes[size == s], totals[size == s], window) for s in sizes}

    def curves(counts):
        return {
            s: fit_curve(p[size == s][keep], counts[size == s][keep], totals[size == s][keep], degree)
            for s, keep in used.items()
        }

    def cross(fits, a, b):
        ends = [p[size == s][used[s]] for s in (a, b)]
        return _cross(fits[a], fits[b], max(e.min() for e in ends), min(e.max() for e in ends), a, b)

    centre = curves(successes)
    resampled = [curves(c) for c in resample(successes, totals, num_resamples=num_resamples, seed=seed)]
    found = []
    for a, b in zip(sizes[:-1].tolist(), sizes[1:].tolist(), strict=True):
        here = cross(centre, a, b)
        if here is None:
            continue
        rest = np.array([c for fits in resampled if (c := cross(fits, a, b)) is not None]).reshape(-1, 3)
        found.append(Crossing((a, b), _estimate(here[0], rest[:, 0]), here[1], _estimate(here[2], rest[:, 2])))
    return found


def collapse(
    p: np.ndarray,
    size: np.ndarray,
    successes: np.ndarray,
    totals: np.ndarray,
    *,
    degree: int = 3,
    correction: float | None = None,
    exact_count: bool = False,
    window: tuple[float, float] = (0.02, 0.98),
    num_resamples: int = 200,
    seed: int = 0,
) -> Collapse:
    """Fits p_c, nu and the scaling function together.

    Args:
      p: float ``[K]``, control parameter.
      size: int ``[K]``, linear size.
      successes: int ``[K]``.
      totals: int ``[K]``, at least 1.
      degree: of the polynomial in x for ln(F / (1 - F)).
      correction: exponent omega of a term ``b L^-omega`` in ln(F / (1 - F)); ``None`` for none. Needs three sizes.
      exact_count: the records are shares at exact densities, with ``p_k L_k^2`` occupied sites, and the fit is to be
        that of independent occupation, see ``occupation_average``. The width of the fitted curve is reduced by that of
        the binomial distribution, as if both were normal. A step that is sharper than that is refused.
      window: as in ``crossings``.
      num_resamples: bootstrap samples; 0 for none.
      seed: of the bootstrap.

    Returns:
      The fit.

    Raises:
      ValueError: for records that make no sense, fewer than two sizes (three with a correction), fewer records in the
        window than fitted numbers, or exact counts whose shares make a step.
    """
    p, size, successes, totals = _records(p, size, successes, totals)
    sizes = np.unique(size)
    if correction is not None and len(sizes) < 3:
        raise ValueError(f"correction: needs at least three sizes, got {sizes.tolist()}")
    if degree < 1:
        raise ValueError(f"degree: expected an integer of at least 1, got {degree}")
    used = np.zeros(len(p), bool)
    for s in sizes:
        used[size == s] = in_window(p[size == s], successes[size == s], totals[size == s], window)
    num_fitted = 2 + (correction is not None) + degree + 1
    if used.sum() <= num_fitted:
        raise ValueError(f"p: {used.sum()} records in the window cannot fix {num_fitted} numbers; add densities")
    model = CollapseModel(p[used], size[used].astype(np.float64), degree, correction, exact_count)
    first = model.start(successes[used], totals[used])
    best, deviance = model.fit(successes[used], totals[used], first)
    samples = [
        model.fit(c[used], totals[used], best)[0]
        for c in resample(successes, totals, num_resamples=num_resamples, seed=seed)
    ]
    rest = np.array(samples).reshape(-1, len(best))
    threshold, steepness, coefficients = best[0], best[1], best[2 + (correction is not None) :]
    if exact_count and model.smearing_share(best) > SHARPEST:
        raise ValueError(
            "successes: at exact counts the shares change more steeply with p than independent occupation spreads the "
            "number of sites; such a step has no width to fit"
        )
    freedom = int(used.sum()) - len(best)
    return Collapse(
        threshold=_estimate(threshold, rest[:, 0]),
        exponent=_estimate(1 / steepness, 1 / rest[:, 1]),
        correction=None if correction is None else float(best[2]),
        coefficients=coefficients,
        x=CollapseModel(p, size.astype(np.float64), degree, None, exact_count).scaled(best[0], best[1], coefficients),
        used=used,
        deviance=deviance,
        degrees_of_freedom=freedom,
        p_value=float(chi2.sf(deviance, freedom)),
    )


def scaling_function(fit: Collapse, x: np.ndarray) -> np.ndarray:
    """The fitted F(x), without the correction; float64 of the shape of ``x``."""
    return expit(np.polynomial.polynomial.polyval(np.asarray(x, np.float64), fit.coefficients))


def occupation_average(thresholds: np.ndarray, p: np.ndarray, *, num_sites: int) -> np.ndarray:
    r"""Share of spanning states under independent occupation, from the numbers of sites at which states began to span.

    .. math:: Q(p) = \Big\langle \sum_{n \ge n^*} \binom{N}{n} p^n (1-p)^{N-n} \Big\rangle_{n^*}

    Args:
      thresholds: int ``[B]``, the smallest number of occupied sites n* at which each state spans.
      p: float ``[n]``, probabilities from 0 to 1.
      num_sites: N.

    Returns:
      Float64 ``[n]``.

    Raises:
      ValueError: for thresholds outside 0 to N + 1, or probabilities outside 0 to 1.

    References:
      M. E. J. Newman and R. M. Ziff, Phys. Rev. E 64, 016706 (2001), equation 2.

    Example:
      >>> occupation_average([2], [0.5], num_sites=2).tolist()
      [0.25]
    """
    thresholds, p = np.asarray(thresholds), np.asarray(p, np.float64)
    if thresholds.ndim != 1 or not len(thresholds) or not np.issubdtype(thresholds.dtype, np.integer):
        raise ValueError(f"thresholds: expected integers [B], got {thresholds.dtype} {thresholds.shape}")
    if thresholds.min() < 0 or thresholds.max() > num_sites + 1:
        raise ValueError(f"thresholds: expected numbers from 0 to {num_sites + 1}")
    if p.ndim != 1 or not np.all((p >= 0) & (p <= 1)):
        raise ValueError(f"p: expected probabilities [n] from 0 to 1, got shape {p.shape}")
    values, counts = np.unique(thresholds, return_counts=True)
    return binom.sf(values[None, :] - 1, num_sites, p[:, None]) @ counts / len(thresholds)


def resample(successes: np.ndarray, totals: np.ndarray, *, num_resamples: int, seed: int) -> np.ndarray:
    """Binomial counts with the observed shares; float64 ``[num_resamples, K]``, the same for the same seed."""
    uniform = jax.random.uniform(
        stream_key(seed, "analysis/finite_size"), (num_resamples, len(successes)), jnp.float32, minval=1e-7
    )
    share = np.asarray(successes) / np.asarray(totals)
    return binom.ppf(np.asarray(uniform, np.float64), np.asarray(totals)[None], share[None])


def _cross(small: Curve, large: Curve, low, high, a, b):
    if not low < high:
        return None
    grid = np.linspace(low, high, 2001)
    gap = large.logit(grid) - small.logit(grid)
    rising = np.flatnonzero((gap[:-1] <= 0) & (gap[1:] > 0))  # beyond the transition the larger size is ahead
    if not len(rising):
        return None
    found = grid[rising] - gap[rising] * (grid[1] - grid[0]) / (gap[rising + 1] - gap[rising])
    at = float(found[np.argmin(np.abs(small.logit(found)))])
    slopes = small.slope(at), large.slope(at)
    if min(slopes) <= 0 or slopes[1] <= slopes[0]:
        return None
    return at, float(expit(small.logit(at))), float(np.log(b / a) / np.log(slopes[1] / slopes[0]))


def _estimate(value, samples) -> Estimate:
    samples = np.asarray(samples, np.float64)
    if len(samples) < 20:
        return Estimate(float(value))
    low, high = np.percentile(samples, [2.5, 97.5])
    return Estimate(float(value), float(low), float(high), float(samples.std(ddof=1)))


def _records(p, size, successes, totals):
    p, successes, totals = (np.asarray(x, np.float64) for x in (p, successes, totals))
    size = np.asarray(size)
    for x, name in ((p, "p"), (size, "size"), (successes, "successes"), (totals, "totals")):
        if x.ndim != 1 or x.shape != p.shape or not np.all(np.isfinite(x)):
            raise ValueError(f"{name}: expected {p.size} finite numbers, got shape {x.shape}")
    if np.any(totals < 1) or np.any(successes < 0) or np.any(successes > totals):
        raise ValueError("successes, totals: expected 0 <= successes <= totals and totals >= 1")
    if np.any(size < 1) or len(np.unique(size)) < 2:
        raise ValueError(f"size: expected at least two sizes of at least 1, got {np.unique(size).tolist()}")
    for s in np.unique(size):
        if len(np.unique(p[size == s])) < 3:
            raise ValueError(f"p: expected at least three values at size {s}")
    return p, size, successes, totals
