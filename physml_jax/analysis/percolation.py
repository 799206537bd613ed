"""What the density alone knows about a percolation state, and shares with their intervals over the density.

A lattice of N sites has its density for a free number: the mean of the image. A network that answers "spanning or not"
earns belief only where it is right and the density is silent, so every score stands beside the rules of this module.
"""

from typing import NamedTuple

import numpy as np
from scipy.ndimage import label as _label

from physml_jax.analysis.classification import best_threshold

#: 95 % of a normal distribution lie within this many standard deviations.
_Z = 1.959963984540054
#: Fewer examples per density than this, and a majority per density would memorise them.
_MIN_PER_DENSITY = 20


class Levels(NamedTuple):
    """Examples sorted into densities.

    Attributes:
      density: float64 [n], mean density of the members, rising.
      codes: int64 [N], level of every example.
    """

    density: np.ndarray
    codes: np.ndarray


class Shares(NamedTuple):
    """A yes-or-no quantity at every density.

    Attributes:
      total: int64 [n], examples.
      count: int64 [n], those with "yes".
      share: float64 [n].
      low: float64 [n], lower end of Wilson's 95 % interval.
      high: float64 [n], upper end.
    """

    total: np.ndarray
    count: np.ndarray
    share: np.ndarray
    low: np.ndarray
    high: np.ndarray


def levels(density: np.ndarray, *, groups: np.ndarray | None = None, max_levels: int = 64) -> Levels:
    """Sorts examples by density.

    Args:
      density: float ``[N]``, fraction of occupied sites.
      groups: int ``[N]``, number of the nominal density that an example was drawn at; without it every distinct density
        is a level.
      max_levels: with more distinct densities (independent occupation), quantiles pool them into this many.

    Returns:
      The levels, by rising mean density.

    Raises:
      ValueError: if there is no example, lengths differ, or a density is not finite.
    """
    density = _numbers(density, "density")
    if groups is None:
        _, codes = np.unique(density.round(9), return_inverse=True)
        if codes.max() + 1 > max_levels:
            edges = np.unique(np.quantile(density, np.linspace(0, 1, max_levels + 1)[:-1]))
            codes = np.searchsorted(edges, density, side="right") - 1
    else:
        codes = np.asarray(groups)
        if codes.shape != density.shape:
            raise ValueError(f"groups: expected {len(density)} numbers as in density, got shape {codes.shape}")
    _, codes = np.unique(codes, return_inverse=True)
    mean = np.bincount(codes, weights=density) / np.bincount(codes)
    order = np.argsort(mean, kind="stable")
    return Levels(mean[order], np.argsort(order)[codes])


def shares(outcome: np.ndarray, codes: np.ndarray) -> Shares:
    """Shares of "yes" by level with Wilson's interval.

    Args:
      outcome: bool or 0/1 ``[N]``.
      codes: int ``[N]``, level of every example, all levels from 0 to the largest occupied.

    Returns:
      The shares by level.

    Raises:
      ValueError: if lengths differ or a level is empty.

    References:
      E. B. Wilson, J. Am. Stat. Assoc. 22, 209 (1927).
    """
    outcome, codes = np.asarray(outcome, bool), np.asarray(codes)
    if outcome.shape != codes.shape or outcome.ndim != 1 or not len(outcome):
        raise ValueError(f"outcome: expected one value per level code {codes.shape}, got shape {outcome.shape}")
    total = np.bincount(codes)
    if total.min() < 1:
        raise ValueError(f"codes: level {int(np.argmin(total))} is empty")
    count = np.bincount(codes, weights=outcome).astype(np.int64)
    share = count / total
    centre = (share + _Z**2 / (2 * total)) / (1 + _Z**2 / total)
    half = _Z / (1 + _Z**2 / total) * np.sqrt(share * (1 - share) / total + _Z**2 / (4 * total**2))
    # At no and at all successes an end is exact; rounding would otherwise leave 1e-17 beside it.
    return Shares(
        total,
        count,
        share,
        np.where(count == 0, 0.0, centre - half),
        np.where(count == total, 1.0, centre + half),
    )


def spanning_fraction(spanning: np.ndarray, density: np.ndarray) -> tuple[Levels, Shares]:
    """Shares of spanning states over the density: the curve P(p) of a finite lattice; Q(p) = 1 - P(p).

    Args:
      spanning: bool or 0/1 ``[N]``.
      density: float ``[N]``, fraction of occupied sites.

    Returns:
      The densities (pooled where they hardly repeat, see ``levels``) and the shares with Wilson's 95 % interval.

    Raises:
      ValueError: if there is no example, lengths differ, a density is not finite, or an outcome is neither 0 nor 1.

    Example:
      >>> at, of = spanning_fraction([0, 1, 1, 1], [0.5, 0.5, 0.7, 0.7])
      >>> at.density.tolist(), of.share.tolist()
      ([0.5, 0.7], [0.5, 1.0])
    """
    outcome, at = np.asarray(spanning), levels(density)
    if not np.isin(outcome, (0, 1)).all():
        raise ValueError("spanning: expected 0 or 1 for every state")
    return at, shares(outcome, at.codes)


def density_oracle(density: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """The best that a predictor can do that sees only the density: at every density, the more frequent answer.

    It is fitted to the very examples that it answers, so no honest predictor of its kind is better. Where densities
    rarely repeat (independent occupation) a majority of one or two would memorise the examples; the best threshold
    takes its place, since spanning becomes ever more likely with density.

    Args:
      density: float ``[N]``.
      labels: int ``[N]``, 0 or 1.

    Returns:
      Int64 ``[N]``, answers; 0 where both are equally frequent.

    Raises:
      ValueError: if lengths differ, or a label is not 0 or 1.
    """
    density, labels = _numbers(density, "density"), np.asarray(labels)
    if labels.shape != density.shape or not np.all((labels == 0) | (labels == 1)):
        raise ValueError(f"labels: expected {len(density)} times 0 or 1, got shape {labels.shape}")
    distinct, codes = np.unique(density.round(9), return_inverse=True)
    if len(density) < _MIN_PER_DENSITY * len(distinct):
        return threshold_answers(density, labels, density)
    ones = np.bincount(codes, weights=labels)
    return (2 * ones > np.bincount(codes)).astype(np.int64)[codes]


def threshold_answers(train_density: np.ndarray, train_labels: np.ndarray, density: np.ndarray) -> np.ndarray:
    """Answers of the best threshold on the density, fitted on one set and asked about another; int64 ``[N]``."""
    rule = best_threshold(train_density, np.asarray(train_labels).astype(np.int64))
    return ((_numbers(density, "density") > rule.value) == rule.above).astype(np.int64)


def cluster_labels(states: np.ndarray) -> np.ndarray:
    """Clusters of four neighbours with open boundaries, for drawing: int64 ``[n, L, L]``, 0 where empty.

    Labels count from 1 within each state. Simulators label on the device; a page of figures needs a dozen states.
    """
    states = _states(states)
    return np.stack([_label(s)[0].astype(np.int64) for s in states])


def spanning_labels(labels: np.ndarray, *, direction: str = "either") -> list[np.ndarray]:
    """Labels of the clusters that join opposite edges, one sorted array per state.

    Args:
      labels: int ``[n, L, L]``, 0 where empty.
      direction: ``"either"``, ``"vertical"`` (first row to last row) or ``"horizontal"``.

    Returns:
      List of int arrays, empty where a state does not span.

    Raises:
      ValueError: for an unknown direction.
    """
    if direction not in ("either", "vertical", "horizontal"):
        raise ValueError(f"direction: expected 'either', 'vertical' or 'horizontal', got {direction!r}")
    found = []
    for s in np.asarray(labels):
        joined = []
        if direction != "horizontal":
            joined.append(np.intersect1d(s[0], s[-1]))
        if direction != "vertical":
            joined.append(np.intersect1d(s[:, 0], s[:, -1]))
        both = np.unique(np.concatenate(joined))
        found.append(both[both > 0])
    return found


def joined_to_top(states: np.ndarray) -> np.ndarray:
    """Sites joined to the first row, bool ``[n, L, L]``."""
    labels = cluster_labels(states)
    return np.stack([np.isin(s, s[0][s[0] > 0]) for s in labels])


def _numbers(x: np.ndarray, name: str) -> np.ndarray:
    x = np.asarray(x, np.float64)
    if x.ndim != 1 or len(x) == 0 or not np.all(np.isfinite(x)):
        raise ValueError(f"{name}: expected at least one finite number [N], got shape {x.shape}")
    return x


def _states(states: np.ndarray) -> np.ndarray:
    states = np.asarray(states)
    if states.ndim != 3 or states.dtype != np.bool_:
        raise ValueError(f"states: expected bool [n, L, L], got {states.dtype} {states.shape}")
    return states
