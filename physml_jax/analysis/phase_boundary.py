r"""Transition temperatures from curves over T: where they rise, and how sure that is.

A curve is the mean over states of a number that is small inside a phase and larger outside: a reconstruction error
epsilon = (1/N) sum_i (s_i - s'_i)^2 / 4, or (1 - \|m\|)/2, which is the same thing for the best ideal state. Three
definitions of the transition of such a curve are offered.

``critical``: where the curve has risen by a share 1 - L^(-1/8) of the way between its plateaus at low and high
  temperature. At a continuous transition the order of a lattice of L x L sites is not 0 but about L^(-beta/nu), and
  beta/nu is 1/8 for the Ising model as for the stripes, whose exponents run from those of the four-state Potts model to
  those of Ising with beta/nu fixed. So this share belongs to the transition itself, and what is left of the finite
  size comes from the amplitude, which is near 1 (1.01 for \|m\| at J2 = 0). It knows the kind of the transition, not
  its place.
``half``: where the curve is half way between its plateaus. It knows nothing, and lies above the transition by a/L,
  since there a finite lattice has lost less than half of its order. Only several sizes remove that (``extrapolated``).
``steepest``: where the curve rises fastest. It knows nothing either and shifts likewise, with more noise: the slope is
  that of a local parabola, weighted by distance (tricube), over a window of a few per cent of T. The slope of an
  energy, whose largest value is the maximum of the specific heat, goes through the same estimator (rule ``slope``).

Measured with the order parameters of 32 replicas per point at L = 30, temperatures 0.1 apart (4000 sweeps from ordered
states), minus the literature values: at J2 = 0, 0.2, 0.4 ``half`` lies 0.073, 0.039, 0.015 too high and ``critical``
0.012, -0.001, -0.014; at J2 = 0.7, 1.0, 1.5 0.036, 0.034, 0.090 and 0.001, -0.020, -0.003 (standard errors 0.004 to
0.015). At J2 = 0.55 and 0.6, where the transition is nearly or truly of first order and the order parameter jumps,
``critical`` lies 0.03 too low and ``half`` 0.01. The values were known when ``critical`` was added to the other two; it
has no parameter that was fitted to them.

Intervals come from resampled data; they hold the noise of the data, not the shift with size.

References:
  A. Kalz, A. Honecker, M. Moliner, Phys. Rev. B 84, 174407 (2011), and S. Jin, A. Sen, A. W. Sandvik, Phys. Rev. Lett.
  108, 045702 (2012), exponents of the stripes on the Ashkin-Teller line.
  A. M. Ferrenberg and D. P. Landau, Phys. Rev. B 44, 5081 (1991), largest slopes on finite lattices.
  W. S. Cleveland, J. Am. Stat. Assoc. 74, 829 (1979), local regression with tricube weights.
"""

from typing import NamedTuple

import numpy as np
from scipy.optimize import isotonic_regression

#: A row whose curve never falls below this has no ordered phase of that kind: 1/2 is the error of random spins.
ORDERED = 0.25
#: Nor has one whose plateaus differ by less than this.
CONTRAST = 0.1
#: beta / nu of both transitions.
ORDER_EXPONENT = 1 / 8
RULES = ("critical", "half", "steepest", "slope")


class Boundary(NamedTuple):
    """A transition temperature for every row; NaN where the row has none inside the data.

    Attributes:
      temperature: float64 [nJ], of the data as they are.
      low: float64 [nJ], 2.5th percentile over resampled data; NaN also without resampling.
      high: float64 [nJ], 97.5th percentile.
      share: float64 [nJ], share of the resampled data that have a boundary in this row; 1 or 0 without resampling.
    """

    temperature: np.ndarray
    low: np.ndarray
    high: np.ndarray
    share: np.ndarray


class Deviation(NamedTuple):
    """How far boundaries lie from known ones.

    Attributes:
      n: rows compared.
      mean: mean of the absolute differences; ``None`` without a row.
      largest: largest absolute difference.
      signed: mean difference, positive where the boundary lies above the known one.
      missing: rows with a known boundary where none was found.
    """

    n: int
    mean: float | None
    largest: float | None
    signed: float | None
    missing: int


def boundary(maps: np.ndarray, temperature: np.ndarray, *, rule: str = "half", size: int | None = None) -> Boundary:
    """Transition temperatures of all rows with intervals.

    Args:
      maps: float ``[1 + B, nJ, nT]`` of ``phase_diagram.resampled_maps``; small inside the phase and large outside,
        except for the rule ``slope``. NaN where there is no state.
      temperature: float ``[nT]``, rising.
      rule: ``"critical"``, ``"half"`` or ``"steepest"`` as above (the last one looks within a quarter of the
        temperature of ``"half"``), or ``"slope"``: the largest slope anywhere, for an energy.
      size: L, for ``"critical"``.

    Returns:
      The boundary.

    Raises:
      ValueError: for an unknown rule, a critical one without a size, or maps and temperatures that do not fit.
    """
    maps, temperature = np.asarray(maps, np.float64), np.asarray(temperature, np.float64)
    if rule not in RULES:
        raise ValueError(f"rule: expected one of {', '.join(RULES)}, got {rule!r}")
    if rule == "critical" and (size is None or size < 2):
        raise ValueError(f"size: the rule 'critical' needs the linear size of the lattices, got {size}")
    share = 1 - size**-ORDER_EXPONENT if rule == "critical" else 0.5
    if maps.ndim != 3 or not len(maps) or maps.shape[2] != len(temperature) or np.any(np.diff(temperature) <= 0):
        raise ValueError(
            f"maps, temperature: expected [B, nJ, nT] and nT rising values, got {maps.shape} and {temperature.shape}"
        )
    found = np.full(maps.shape[:2], np.nan)
    for j in range(maps.shape[1]):
        there = np.isfinite(maps[0, j])
        if there.sum() < 3:
            continue
        curves, t = maps[:, j, there], temperature[there]
        # A draw may lack a point that the data hold; the value of the data stands in for it.
        curves = np.where(np.isfinite(curves), curves, curves[:1])
        if rule == "slope":
            found[:, j] = steepest(curves, t)
            continue
        up = np.array([rise(c, t, share=share) for c in curves])
        found[:, j] = up if rule != "steepest" or not np.isfinite(up[0]) else steepest(curves, t, around=up)
    return _intervals(found)


def rise(curve: np.ndarray, temperature: np.ndarray, *, share: float = 0.5) -> float:
    """Where a curve, made monotone by least squares, has risen by a share of the way from its lowest to highest value.

    Args:
      curve: float ``[nT]``.
      temperature: float ``[nT]``, rising.
      share: between 0 and 1.

    Returns:
      The temperature; NaN where the curve never is in the ordered phase, or never leaves it.

    Example:
      >>> rise([0.0, 0.0, 0.2, 0.5, 0.5], [1.0, 2.0, 3.0, 4.0, 5.0]).__round__(4)
      3.1667
    """
    rising = isotonic_regression(np.asarray(curve, np.float64)).x
    if rising[0] > ORDERED or rising[-1] - rising[0] < CONTRAST:
        return float("nan")
    level = rising[0] + share * (rising[-1] - rising[0])
    k = max(int(np.argmax(rising >= level)), 1)
    step = (level - rising[k - 1]) / (rising[k] - rising[k - 1])
    return float(temperature[k - 1] + step * (temperature[k] - temperature[k - 1]))


def steepest(
    curves: np.ndarray, temperature: np.ndarray, *, around: np.ndarray | None = None, window: float = 0.05
) -> np.ndarray:
    """Where curves rise fastest.

    Args:
      curves: float ``[B, nT]``, the first one of the data as they are.
      temperature: float ``[nT]``, rising, at least three.
      around: float ``[B]``, temperatures near which to look, within a quarter of themselves; ``None`` to look
        everywhere.
      window: half-width of the local parabolas as a fraction of the temperature, at least two and a half
        steps of the grid, which hold five temperatures.

    Returns:
      Float64 ``[B]``; NaN where there is nothing to look near, or the curve rises fastest at the end of the data.
    """
    curves, t = np.asarray(curves, np.float64), np.asarray(temperature, np.float64)
    if around is None:
        low, high = t[0], t[-1]
    else:
        near = np.asarray(around, np.float64)
        low, high = max(t[0], 0.75 * np.nanmin(near)), min(t[-1], 1.25 * np.nanmax(near))
    fine = np.linspace(low, high, 20 * max(int(np.sum((t >= low) & (t <= high))), 4) + 1)
    slope = curves @ _slope_weights(t, fine, window).T
    if around is not None:
        slope = np.where(np.abs(fine[None] - near[:, None]) <= 0.25 * near[:, None], slope, -np.inf)
    best = slope.argmax(axis=1)
    inside = (best > 0) & (best < len(fine) - 1) & np.isfinite(slope.max(axis=1))
    return np.where(inside, fine[best], np.nan)


def deviation(found: np.ndarray, known: np.ndarray, rows: np.ndarray) -> Deviation:
    """Compares transition temperatures with known ones.

    Args:
      found: float ``[nJ]``, NaN where there is none.
      known: float ``[nJ]``, NaN where nothing is known.
      rows: bool ``[nJ]``, which rows to compare.

    Returns:
      The differences.
    """
    known = np.where(rows, known, np.nan)
    difference = (np.asarray(found) - known)[np.isfinite(found) & np.isfinite(known)]
    missing = int(np.sum(~np.isfinite(found) & np.isfinite(known)))
    if not len(difference):
        return Deviation(0, None, None, None, missing)
    size = np.abs(difference)
    return Deviation(len(size), float(size.mean()), float(size.max()), float(difference.mean()), missing)


def extrapolated(sizes: np.ndarray, temperatures: np.ndarray, errors: np.ndarray) -> tuple[float, float, float] | None:
    """The line T(L) = T + a / L through the boundaries of several sizes, weighted by their errors.

    Args:
      sizes: int ``[K]``.
      temperatures: float ``[K]``; sizes with NaN are left out.
      errors: float ``[K]``, standard errors.

    Returns:
      (T, standard error of T, a), or ``None`` with fewer than two sizes.
    """
    sizes, temperatures, errors = (np.asarray(x, np.float64) for x in (sizes, temperatures, errors))
    used = np.isfinite(temperatures) & np.isfinite(errors) & (errors > 0)
    if used.sum() < 2:
        return None
    design = np.stack([np.ones(used.sum()), 1 / sizes[used]], axis=1) / errors[used, None]
    covariance = np.linalg.inv(design.T @ design)
    t, a = covariance @ design.T @ (temperatures[used] / errors[used])
    return float(t), float(np.sqrt(covariance[0, 0])), float(a)


def _slope_weights(t: np.ndarray, at: np.ndarray, window: float) -> np.ndarray:
    """Rows that turn values at ``t`` into the slope of the local parabola at every ``at``; float64 [n, nT]."""
    # The width changes smoothly with the place: else the largest slope would sit on the points of the grid.
    width = np.maximum(window * np.abs(at), 2.5 * np.interp(at, t, np.gradient(t)))
    x = (t[None] - at[:, None]) / width[:, None]
    w = np.clip(1 - np.abs(x) ** 3, 0, None) ** 3
    moments = [np.sum(w * x**k, axis=1) for k in range(5)]
    normal = np.stack([np.stack([moments[i + k] for k in range(3)], -1) for i in range(3)], -2)
    design = np.stack([w, w * x, w * x**2], axis=1)
    # pinv: the ends of a short grid may hold too few temperatures for a parabola.
    return (np.linalg.pinv(normal, rcond=1e-10) @ design)[:, 1] / width[:, None]


def _intervals(found: np.ndarray) -> Boundary:
    centre, drawn = found[0], found[1:]
    if not len(drawn):
        nothing = np.full(len(centre), np.nan)
        return Boundary(centre, nothing, nothing, np.isfinite(centre).astype(np.float64))
    share = np.isfinite(drawn).mean(axis=0)
    low, high = np.full(len(centre), np.nan), np.full(len(centre), np.nan)
    for j in np.flatnonzero(np.isfinite(centre) & (share >= 0.5)):
        low[j], high[j] = np.nanpercentile(drawn[:, j], [2.5, 97.5])
    return Boundary(centre, low, high, share)
