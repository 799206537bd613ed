r"""Participation ratios and multifractal exponents of states, with boxes, by typical and by ensemble averages.

The lattice is cut into (L/b)^3 boxes of b^3 sites, lambda = b/L, and mu_k is the probability of box k. At the
transition

.. math:: P_q = \sum_k \mu_k^q \sim \lambda^{\tau_q} , \qquad \tau_q = D_q (q - 1) ,

with D_q = 3 for extended and 0 for localised states. Averages of P_q over states are dominated by rare states for large
q, averages of ln P_q by typical ones; both give exponents, and the two are equal only where a single state averages
itself. They are called ``ensemble`` and ``typical`` here and never mixed:

.. math:: \tau_q^{ens} = \frac{d \ln \langle P_q \rangle}{d \ln \lambda} , \qquad
   \tau_q^{typ} = \frac{d \langle \ln P_q \rangle}{d \ln \lambda} .

lambda is varied by L at fixed b (usually b = 1), or by b at fixed L, where boxes of few sites have strong corrections.
alpha_0 = d <ln mu> / d ln lambda, with the mean over all boxes, is 3 in the metal, 4.048 at the transition and grows
without bound with L in the insulator. Taken from one size, without a slope (``one_size_alpha0``), it contains
amplitudes and is another number.

References:
  A. Rodriguez, L. J. Vasquez, K. Slevin and R. A. Roemer, Phys. Rev. B 84, 134209 (2011), sections II and III.
  A. Chhabra and R. V. Jensen, Phys. Rev. Lett. 62, 1327 (1989), for alpha_q and f_q.
"""

from typing import NamedTuple

import jax.numpy as jnp
import numpy as np

from physml_jax.typing import Array


class Slope(NamedTuple):
    """An exponent as a slope, and its jackknife error over states; floats."""

    value: float
    error: float


class BoxSums(NamedTuple):
    """What multifractal exponents of one q are made of, [...] each.

    Attributes:
      moment: P_q = sum mu^q.
      log_moment: ln P_q.
      mean_log: sum (mu^q / P_q) ln mu; its slope against ln lambda is alpha_q (typical).
    """

    moment: Array
    log_moment: Array
    mean_log: Array


def probabilities(psi: Array) -> Array:
    """abs(psi)^2, normalised to a sum of one per state, [..., L, L, L]; a state of zeros gives zeros."""
    _check(psi, 1)
    weight = psi * psi
    total = weight.sum((-3, -2, -1), keepdims=True)
    return weight / jnp.where(total > 0, total, 1)


def inverse_participation_ratio(psi: Array, q: float = 2.0) -> Array:
    """P_q = sum abs(psi)^(2q) of every state, [..., L, L, L] -> [...].

    1 for a state on one site, N^(1-q) for a uniform one; 1/P_2 is the participation number. Gaussian amplitudes, the
    limit of a metal, give 3/N for q = 2.

    Example:
      >>> import jax.numpy as jnp
      >>> float(inverse_participation_ratio(jnp.ones((4, 4, 4)))) * 64
      1.0
    """
    return (probabilities(psi) ** q).sum((-3, -2, -1))


def participation_number(psi: Array) -> Array:
    """Number of sites that a state occupies, 1/P_2, [..., L, L, L] -> [...]; infinite for a state of zeros."""
    return 1 / inverse_participation_ratio(psi)


def box_probabilities(psi: Array, *, box: int = 1) -> Array:
    """Probability of every box of ``box``^3 sites, [..., L, L, L] -> [..., L/box, L/box, L/box].

    Raises:
      ValueError: if ``psi`` has no cubes, or ``box`` does not divide L.
    """
    _check(psi, box)
    mu = probabilities(psi)
    if box == 1:
        return mu
    n = psi.shape[-1] // box
    return mu.reshape(*psi.shape[:-3], n, box, n, box, n, box).sum((-5, -3, -1))


def box_sums(psi: Array, q: float, *, box: int = 1) -> BoxSums:
    """P_q, ln P_q and the weighted mean of ln mu of every state.

    Everything is computed from ln mu, so that negative q and tiny mu do no harm; a mu that is zero counts as the
    smallest normal number of its dtype.

    Args:
      psi: [..., L, L, L].
      q: any real number.
      box: side of a box, a divisor of L.
    """
    log_mu = _log_boxes(psi, box)
    exponent = q * log_mu
    top = exponent.max(-1, keepdims=True)
    weight = jnp.exp(exponent - top)
    total = weight.sum(-1)
    log_moment = top[..., 0] + jnp.log(total)
    return BoxSums(jnp.exp(log_moment), log_moment, (weight * log_mu).sum(-1) / total)


def mean_log_probability(psi: Array, *, box: int = 1) -> Array:
    """Mean of ln mu over the boxes of every state, [..., L, L, L] -> [...]; its slope in ln lambda is alpha_0."""
    return _log_boxes(psi, box).mean(-1)


def one_size_alpha0(psi: Array, *, box: int = 1) -> Array:
    """alpha_0 of single states, <ln mu>_boxes / ln lambda: [..., L, L, L] -> [...]; exceeds the slope in small sizes.

    It is one scalar that orders states by their disorder.

    Raises:
      ValueError: as for ``box_probabilities``, or if one box holds the whole lattice.
    """
    if psi.shape[-1] == box:
        raise ValueError(f"box: expected less than the whole lattice of L = {psi.shape[-1]}, got {box}")
    return mean_log_probability(psi, box=box) / np.log(box / psi.shape[-1])


def typical_exponent(values: list[np.ndarray], log_lambda: np.ndarray, *, same_states: bool = False) -> Slope:
    """Slope of <value> against ln lambda, least squares with equal weights, and its jackknife error.

    With ln P_q it is tau_q (typical), with ``mean_log`` of ``box_sums`` alpha_q (typical), alpha_0 for q = 0.

    Args:
      values: for every lambda, one number per state [S].
      log_lambda: [n], ln(b/L), at least two different values.
      same_states: position s is the same state at every lambda (boxes of different size), so it is left out everywhere
        at once; otherwise all sets are independent.

    Raises:
      ValueError: for less than two points or two states, sets of different lengths with ``same_states``, or numbers
        that are not finite.
    """
    return _slope(values, log_lambda, same_states, ensemble=False)


def ensemble_exponent(values: list[np.ndarray], log_lambda: np.ndarray, *, same_states: bool = False) -> Slope:
    """Slope of ln <exp value> against ln lambda: with ln P_q, tau_q of the ensemble. Otherwise ``typical_exponent``."""
    return _slope(values, log_lambda, same_states, ensemble=True)


def _slope(values, log_lambda, same_states, *, ensemble):
    values = [np.asarray(v, np.float64) for v in values]
    x = np.asarray(log_lambda, np.float64)
    if x.ndim != 1 or len(x) != len(values) or len(np.unique(x)) < 2:
        raise ValueError(f"log_lambda: expected one number per set of states, at least two different, got {x.shape}")
    if any(v.ndim != 1 or len(v) < 2 or not np.isfinite(v).all() for v in values):
        raise ValueError("values: expected at least two finite numbers [S] at every lambda")
    if same_states and len({len(v) for v in values}) > 1:
        raise ValueError(f"values: expected equal numbers of states, got {[len(v) for v in values]}")
    weight = (x - x.mean()) / ((x - x.mean()) ** 2).sum()
    mean, left_out = zip(*(_leave_one_out(v, ensemble) for v in values), strict=True)
    # The slope is linear in the averages.
    changes = [w * (out - out.mean()) for w, out in zip(weight, left_out, strict=True)]
    if same_states:
        changes = [np.sum(changes, axis=0)]
    variance = sum((len(c) - 1) / len(c) * (c**2).sum() for c in changes)
    return Slope(float(weight @ np.asarray(mean)), float(np.sqrt(variance)))


def _leave_one_out(values, ensemble):
    """The average and those without one state each."""
    n = len(values)
    if not ensemble:
        return values.mean(), (values.sum() - values) / (n - 1)
    top = values.max()
    share = np.exp(values - top)
    # One state may hold nearly all of the sum; the difference must not become negative by rounding.
    rest = np.maximum(share.sum() - share, np.finfo(np.float64).tiny)
    return top + np.log(share.mean()), top + np.log(rest / (n - 1))


def _log_boxes(psi, box):
    mu = box_probabilities(psi, box=box)
    mu = mu.reshape(*mu.shape[:-3], -1)
    return jnp.log(jnp.maximum(mu, jnp.finfo(mu.dtype).tiny))


def _check(psi, box):
    shape = tuple(psi.shape)
    if len(shape) < 3 or len(set(shape[-3:])) != 1:
        raise ValueError(f"psi: expected [..., L, L, L], got {list(shape)}")
    if not jnp.issubdtype(psi.dtype, jnp.floating):
        raise ValueError(f"psi: expected real amplitudes, got {psi.dtype}")
    if box < 1 or shape[-1] % box:
        raise ValueError(f"box: expected a divisor of L = {shape[-1]}, got {box}")
