"""Maximum likelihood of binomial counts whose logit is a polynomial: of one size, or of all sizes on one curve.

The public side is ``finite_size``.
"""

from typing import NamedTuple

import numpy as np
from scipy.special import expit

_MAX_ITERATIONS = 60
#: Largest part of the variance of a curve that the binomial spread of the number of sites may be.
SHARPEST = 0.9


class CollapseModel:
    """The likelihood of a collapse; parameters are p_c, 1/nu, [b], then the coefficients of the polynomial.

    The constant coefficient is free: a crossing need not lie at a share of 1/2.
    """

    def __init__(self, p, size, degree, correction, exact):
        self.p, self.size, self.degree, self.exact = p, size, degree, exact
        self.log_size = np.log(size)
        # Relative to the smallest size, so that the amplitude is a number of order one.
        self.shift = None if correction is None else (size / size.min()) ** -correction
        self.amplitude_unit = 1.0 if correction is None else size.min() ** correction

    def scaled(self, threshold, steepness, coefficients):
        """Scaled variable of the records [K]."""
        scale = np.exp(steepness * self.log_size)
        x = (self.p - threshold) * scale
        if not self.exact:
            return x
        return _sharpened(x, np.sqrt(self.p * (1 - self.p)) / self.size * scale, coefficients)

    def smearing_share(self, theta):
        """Largest part of the fitted variance that the binomial spread of the number of sites makes up."""
        scale = np.exp(theta[1] * self.log_size)
        wide = _middle_and_width(theta[2 + (self.shift is not None) :])[1]
        return float(np.max((np.sqrt(self.p * (1 - self.p)) / self.size * scale / wide) ** 2))

    def logit(self, theta):
        """ln(Q / (1 - Q)) of the records [K]."""
        extra = self.shift is not None
        threshold, steepness, coefficients = theta[0], theta[1], theta[2 + extra :]
        logit = np.polynomial.polynomial.polyval(self.scaled(threshold, steepness, coefficients), coefficients)
        return logit + theta[2] / self.amplitude_unit * self.shift if extra else logit

    def design(self, theta):
        """The logit and its derivatives by the parameters, [K] and [K, n]; central differences in float64."""
        steps = 1e-6 * np.maximum(np.abs(theta), 1e-2)
        columns = [
            (self.logit(theta + h) - self.logit(theta - h)) / (2 * step)
            for h, step in zip(np.diag(steps), steps, strict=True)
        ]
        return self.logit(theta), np.column_stack(columns)

    def start(self, successes, totals):
        """The best of a few exponents, each with the threshold where a straight fit to all sizes reaches 1/2."""
        line = fit_curve(self.p, successes, totals, 1)
        middle = float(np.clip(line.centre - line.width * line.coefficients[0] / line.coefficients[1], *_ends(self.p)))
        extra = [0.0] if self.shift is not None else []
        found = []
        for steepness in (0.4, 0.75, 1.2):
            x = (self.p - middle) * self.size**steepness
            unit = np.abs(x).max() or 1.0
            coefficients = _irls((x / unit)[:, None] ** np.arange(self.degree + 1), successes, totals)
            found.append([middle, steepness, *extra, *(coefficients / unit ** np.arange(self.degree + 1))])
        return min((self.fit(successes, totals, np.array(f)) for f in found), key=lambda r: r[1])[0]

    def fit(self, successes, totals, theta):
        """Fisher scoring with step halving from ``theta``; returns the parameters and the deviance."""
        logit, design = self.design(theta)
        deviance = _deviance(logit, successes, totals)
        damping = 1e-6
        for _ in range(_MAX_ITERATIONS):
            share = expit(logit)
            weight = totals * share * (1 - share)
            information = design.T @ (weight[:, None] * design)
            gradient = design.T @ (successes - totals * share)
            scale = np.sqrt(np.diag(information)) + 1e-30  # parameters of very different units
            step = np.linalg.solve(
                information / np.outer(scale, scale) + damping * np.eye(len(theta)), gradient / scale
            )
            new = theta + step / scale
            if 0.02 < new[1] < 20:
                new_logit, new_design = self.design(new)
                new_deviance = _deviance(new_logit, successes, totals)
                if new_deviance <= deviance:
                    gain, deviance = deviance - new_deviance, new_deviance
                    theta, logit, design = new, new_logit, new_design
                    damping = max(damping / 10, 1e-9)
                    if gain < 1e-9 * (1 + deviance):
                        break
                    continue
            damping = max(10 * damping, 1e-6)
            if damping > 1e8:
                break
        return theta, float(deviance)


def _sharpened(x, smearing, coefficients):
    """Scaled variables at which the curve of independent occupation has the shares of exact counts.

    A normal distribution of thresholds with standard deviation w becomes, by smearing with s, one with
    ``sqrt(w^2 + s^2)``; the median stays.
    """
    middle, wide = _middle_and_width(coefficients)
    return middle + (x - middle) / np.sqrt(np.maximum(1 - (smearing / wide) ** 2, (1 - SHARPEST) / 2))


def _middle_and_width(coefficients):
    """Median and standard deviation of a normal curve with the median and the slope there of the fitted one.

    The slope of the logit of a normal curve of width w at its median is ``4 / (sqrt(2 pi) w)``.
    """
    middle = 0.0
    derivative = np.polynomial.polynomial.polyder(coefficients)
    for _ in range(4):
        slope = max(float(np.polynomial.polynomial.polyval(middle, derivative)), 1e-9)
        middle -= float(np.clip(np.polynomial.polynomial.polyval(middle, coefficients) / slope, -1.0, 1.0))
    slope = max(float(np.polynomial.polynomial.polyval(middle, derivative)), 1e-9)
    return middle, 4 / (np.sqrt(2 * np.pi) * slope)


class Curve(NamedTuple):
    """A polynomial for a logit in (p - centre) / width."""

    centre: float
    width: float
    coefficients: np.ndarray

    def logit(self, p):
        return np.polynomial.polynomial.polyval((p - self.centre) / self.width, self.coefficients)

    def slope(self, p):
        derivative = np.polynomial.polynomial.polyder(self.coefficients)
        return np.polynomial.polynomial.polyval((p - self.centre) / self.width, derivative) / self.width


def fit_curve(p, successes, totals, degree) -> Curve:
    """The polynomial of one size by maximum likelihood; of lower degree where there are too few values of p."""
    low, high = _ends(p)
    centre, width = (low + high) / 2, (high - low) / 2 or 1.0
    degree = min(degree, len(np.unique(p)) - 1)
    return Curve(centre, width, _irls(((p - centre) / width)[:, None] ** np.arange(degree + 1), successes, totals))


def _irls(design, successes, totals):
    """Logistic regression of counts; the tiny ridge keeps perfectly separated records from running away."""
    theta = np.zeros(design.shape[1])
    ridge = 1e-3 * np.eye(design.shape[1])
    for _ in range(_MAX_ITERATIONS):
        share = expit(design @ theta)
        weight = totals * share * (1 - share)
        gradient = design.T @ (successes - totals * share) - ridge @ theta
        step = np.linalg.solve(design.T @ (weight[:, None] * design) + ridge, gradient)
        theta = theta + step * min(1.0, 4.0 / (np.abs(step).max() + 1e-30))
        if np.abs(step).max() < 1e-9:
            break
    return theta


def in_window(p, successes, totals, window):
    """Which records of one size a straight fit places inside the window; at least the three nearest its middle."""
    line = fit_curve(p, successes, totals, 1)
    share = expit(line.logit(p))
    keep = (share > window[0]) & (share < window[1])
    if keep.sum() < 3:
        keep[np.argsort(np.abs(share - 0.5), kind="stable")[:3]] = True
    return keep


def _deviance(logit, successes, totals):
    """Twice the log-likelihood that is missing to the shares themselves; 0 ln 0 = 0."""
    share = np.clip(expit(logit), 1e-300, 1.0)
    rest = np.clip(expit(-logit), 1e-300, 1.0)
    failures = totals - successes
    observed = successes / totals
    with np.errstate(divide="ignore", invalid="ignore"):
        hit = np.where(successes > 0, successes * (np.log(observed) - np.log(share)), 0.0)
        miss = np.where(failures > 0, failures * (np.log(1 - observed) - np.log(rest)), 0.0)
    return float(2 * np.sum(hit + miss))


def _ends(p):
    return float(np.min(p)), float(np.max(p))
