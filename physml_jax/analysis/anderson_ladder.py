r"""The ladder of answers without learning, as probabilities of classes: what to hold a network's loss against as well.

Every rung reads one thing off a state. From signed amplitudes the largest site energy follows, whose law is known: of N
uniform numbers, with m = 2 max abs(eps) and r = max eps - min eps,

.. math:: p(m | W) = N m^{N-1} / W^N , \quad m \le W , \qquad
   p(r | W) = N (N-1) r^{N-2} (1 - r/W) / W^{N-1} , \quad r \le W ,

so the first two rungs are fitted to nothing and no reader of these numbers can do better. The others read what moduli
know, and their laws are those of training states: a density of one number whose mean moves with W; several numbers
become one by a linear discriminant. Classes have equal prior weight throughout.
"""

from typing import NamedTuple

import numpy as np

from physml_jax.analysis import anderson
from physml_jax.analysis.agreement import within_class

LOCAL_ENERGY = "local rule with E"
LOCAL = "local rule without E"
BOUND = "bound from abs(ψ)"
ALPHA = "α₀"
SCALARS = "several scalars"
#: All rungs, the highest first.
RUNGS = (LOCAL_ENERGY, LOCAL, BOUND, SCALARS, ALPHA)

#: What ``several scalars`` are; none of them changes when sites are exchanged.
SCALAR_NAMES = (
    "α₀",
    "spread of ln abs(ψ)²",
    "entropy",
    "ln of the largest abs(ψ)²",
    "ln P_0.5",
    "ln P_2",
    "ln P_3",
    "ln P_4",
)
_MOMENTS = (0.5, 2.0, 3.0, 4.0)
#: Error of a site energy that is forgiven before a class with a smaller W is excluded, units of the hopping.
ROUNDING = 3e-4
#: Relative error of amplitudes as a data set stores them, by its ``precision``, where that is not the rounding of
#: float32; 8 bits have no common one.
STORED_ERROR = {"float16": 2.0**-11}
_QUANTILES = 400
_SMALLEST = np.finfo(np.float64).tiny


class Measures(NamedTuple):
    """What moduli of states say, float64.

    Attributes:
      bound: [S], lower bound of W + 2 abs(E).
      scalars: [S, F], see ``SCALAR_NAMES``; the first is alpha_0 of one size.
    """

    bound: np.ndarray
    scalars: np.ndarray


class Fitted(NamedTuple):
    """Training states as the rungs need them.

    Attributes:
      labels: int64 [M], classes of the training states.
      measures: of the training states.
    """

    labels: np.ndarray
    measures: Measures


class Rung(NamedTuple):
    """The answers of one rung.

    Attributes:
      probability: float64 [S, C].
      width: float64 [S], the W it finds: the estimate of the local rules, else the mean over the probabilities.
    """

    probability: np.ndarray
    width: np.ndarray


def scalars(states: np.ndarray, *, chunk_size: int = 256) -> np.ndarray:
    """Numbers that do not know where a site is, float64 [S, F] in the order of ``SCALAR_NAMES``.

    An amplitude of zero counts as the smallest normal number.

    Args:
      states: float [S, L, L, L]; neither signs nor norms matter.
      chunk_size: states at a time.

    Raises:
      ValueError: for another shape or dtype, or amplitudes that are not finite.
    """
    states = anderson.as_states(states)
    found = []
    for first in range(0, len(states), chunk_size):
        weight = states[first : first + chunk_size].astype(np.float64).reshape(-1, states[0].size) ** 2
        weight /= np.maximum(weight.sum(1, keepdims=True), _SMALLEST)
        logs = np.log(np.maximum(weight, _SMALLEST))
        columns = [-logs.mean(1) / np.log(states.shape[1]), logs.std(1), -(weight * logs).sum(1), logs.max(1)]
        columns += [np.log(np.maximum((weight**q).sum(1), _SMALLEST)) for q in _MOMENTS]
        found.append(np.stack(columns, axis=1))
    return np.concatenate(found)


def measures(states: np.ndarray) -> Measures:
    """The bound and the scalars of states, [S, L, L, L]."""
    return Measures(anderson.width_bound_from_moduli(states), scalars(states))


def fit(states: np.ndarray, labels: np.ndarray) -> Fitted:
    """What the fitted rungs need of training states.

    Args:
      states: float [M, L, L, L].
      labels: int [M], numbers of classes.

    Raises:
      ValueError: for wrong lengths, or fewer than two states or classes.
    """
    labels = np.asarray(labels).astype(np.int64)
    if labels.shape != (len(states),):
        raise ValueError(f"labels: expected {len(states)} classes, one per state, got shape {labels.shape}")
    if len(np.unique(labels)) < 2:
        raise ValueError(f"labels: expected states of at least two classes, got {len(np.unique(labels))}")
    return Fitted(labels, measures(states))


def answers(
    states: np.ndarray,
    widths: np.ndarray,
    *,
    energies: np.ndarray | None = None,
    fitted: Fitted | None = None,
    measured: Measures | None = None,
    tolerance: float = 0.03,
    relative_error: float | None = None,
) -> dict[str, Rung]:
    """All rungs that can be asked, by name, in the order of ``RUNGS``.

    Args:
      states: float [S, L, L, L], signed.
      widths: [C], W of every class.
      energies: [S]; without them there is no rule with E.
      fitted: what ``fit`` returned; without it there are only the local rules.
      measured: of ``states``, if known.
      tolerance: uncertainty of a site energy above which the local rules leave the site out; if that leaves too few
        sites of some state, as of damaged amplitudes, they take every site that is not zero.
      relative_error: of amplitudes that were stored in fewer bits than their dtype has; ``None``: their rounding.

    Raises:
      ValueError: for wrong shapes, or numbers that are not finite.
    """
    widths, num_sites = np.asarray(widths, np.float64), states[0].size
    found = {}
    for name, known in ((LOCAL_ENERGY, energies), (LOCAL, None)):
        if name == LOCAL_ENERGY and energies is None:
            continue
        estimate = _local(states, known, tolerance, relative_error)
        log_likelihood = local_log_likelihood(estimate, widths, num_sites=num_sites, energy_known=known is not None)
        found[name] = Rung(posterior(log_likelihood), estimate)
    if fitted is None:
        return found
    measured = measures(states) if measured is None else measured
    train, train_alpha = fitted.measures, fitted.measures.scalars[:, 0]
    direction = discriminant(train.scalars, fitted.labels, widths)
    logs = {
        BOUND: class_log_densities(train.bound, fitted.labels, measured.bound, widths),
        SCALARS: class_log_densities(train.scalars @ direction, fitted.labels, measured.scalars @ direction, widths),
        ALPHA: class_log_densities(train_alpha, fitted.labels, measured.scalars[:, 0], widths),
    }
    for name, log_density in logs.items():
        probability = posterior(log_density)
        found[name] = Rung(probability, probability @ widths)
    return found


def local_log_likelihood(
    estimate: np.ndarray, widths: np.ndarray, *, num_sites: int, energy_known: bool, rounding: float = ROUNDING
) -> np.ndarray:
    """Log-likelihood ln p(estimate | W) of every class, but for a constant, float64 [S, C].

    Args:
      estimate: [S], what ``analysis.anderson.width_from_signs`` returned.
      widths: [C].
      num_sites: N.
      energy_known: whether the estimate comes from 2 max abs(eps), else from max eps - min eps.
      rounding: a class is not excluded at once where the estimate exceeds its W, but by a factor e per ``rounding``.
    """
    n = num_sites
    widths = np.asarray(widths, np.float64)
    extreme = np.asarray(estimate, np.float64) * (n / (n + 1) if energy_known else (n - 1) / (n + 1))
    extreme = np.maximum(np.where(np.isfinite(extreme), extreme, 0), 1e-9)[:, None]
    share = extreme / widths
    excess = np.maximum(extreme - widths, 0) / rounding
    if energy_known:
        return (n - 1) * np.log(np.minimum(share, 1)) - np.log(widths) - excess
    gap = np.maximum(1 - share, rounding / widths)
    return (n - 2) * np.log(np.minimum(share, 1)) + np.log(gap) - np.log(widths) - excess


def class_log_densities(
    train_values: np.ndarray,
    train_labels: np.ndarray,
    values: np.ndarray,
    widths: np.ndarray,
    *,
    degree: int = 2,
    chunk_size: int = 512,
) -> np.ndarray:
    """Logarithm of the density of one number in every class, but for a common constant: float64 [S, C].

    The mean of the number is a polynomial in W, and the deviations from it have the same distribution at every W: a
    Gaussian kernel density of all of them together (bandwidth by Silverman's rule; more than 400 deviations are
    represented by their quantiles). Densities of single classes would be fitted to a few dozen states each, and differ
    by more than their noise allows to see.

    Args:
      train_values: [M].
      train_labels: int [M], numbers of classes; a class without states gets its density from the others.
      values: [S].
      widths: [C], W of every class.
      degree: of the polynomial; never more than the classes that occur allow.
      chunk_size: values at a time.

    Raises:
      ValueError: for wrong lengths, numbers that are not finite, or states of fewer than two classes.
    """
    x, y, at = np.asarray(train_values, np.float64), np.asarray(train_labels), np.asarray(values, np.float64)
    if x.ndim != 1 or y.shape != x.shape or at.ndim != 1 or not (np.isfinite(x).all() and np.isfinite(at).all()):
        raise ValueError(f"train_values, values: expected finite numbers [M], [S], got shapes {x.shape} {at.shape}")
    occurring = len(np.unique(y))
    if occurring < 2:
        raise ValueError(f"train_labels: expected states of at least two classes, got {occurring}")
    w = _scaled(widths)
    mean = np.polyval(np.polyfit(w[y], x, min(degree, occurring - 1)), w)
    residual = x - mean[y]
    quartiles = np.subtract(*np.percentile(residual, [75, 25])) / 1.34
    spread = min(residual.std(), quartiles) or residual.std() or 1e-12
    bandwidth = 0.9 * spread * len(residual) ** -0.2
    if len(residual) > _QUANTILES:
        residual = np.quantile(residual, (np.arange(_QUANTILES) + 0.5) / _QUANTILES)
    found = np.empty((len(at), len(mean)))
    for first in range(0, len(at), chunk_size):
        part = slice(first, first + chunk_size)
        for c, centre in enumerate(mean):
            exponent = -0.5 * ((at[part, None] - centre - residual) / bandwidth) ** 2
            # In logarithms, so that a value far from all classes still has a nearest one.
            top = exponent.max(1)
            found[part, c] = top + np.log(np.exp(exponent - top[:, None]).mean(1))
    return found


def discriminant(
    train_values: np.ndarray, train_labels: np.ndarray, widths: np.ndarray, *, ridge: float = 1e-3
) -> np.ndarray:
    """The direction along which several numbers tell W best: linear discriminant with means linear in W, float64 [F].

    Args:
      train_values: [M, F].
      train_labels: int [M].
      widths: [C].
      ridge: added to the covariance within classes, in units of the spread of the columns; it keeps columns that say
        nearly the same apart.
    """
    x, y = np.asarray(train_values, np.float64), np.asarray(train_labels)
    residual = within_class(x, y)
    spread = residual.std(0)
    spread = np.where(spread > 0, spread, 1)
    w = _scaled(widths)[y]
    w = w - w.mean()
    slope = w @ (x / spread) / (w @ w)
    covariance = (residual / spread).T @ (residual / spread) / len(x) + ridge * np.eye(x.shape[1])
    return np.linalg.solve(covariance, slope) / spread


def posterior(log_density: np.ndarray) -> np.ndarray:
    """Probabilities of classes of equal weight, [S, C] -> [S, C]."""
    share = np.exp(log_density - log_density.max(1, keepdims=True))
    return share / share.sum(1, keepdims=True)


def _local(states, energies, tolerance, relative_error):
    try:
        return anderson.width_from_signs(states, energies, tolerance=tolerance, relative_error=relative_error)
    except ValueError as error:
        if "too coarse" not in str(error):
            raise
        return anderson.width_from_signs(states, energies, tolerance=np.inf)


def _scaled(widths):
    widths = np.asarray(widths, np.float64)
    return (widths - widths.mean()) / (np.ptp(widths) or 1)
