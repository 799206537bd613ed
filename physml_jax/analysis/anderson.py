"""How well the disorder W can be told from one eigenstate without learning: answers to hold networks against.

1. Signed amplitudes: the Schroedinger equation gives every site energy, eps_i = E + sum_nn psi_j / psi_i, and the
   largest of N = L^3 uniform numbers gives W to about W/N. It is a rule of seven neighbouring points. A network that
   sees signs and is right has learned it, or should have; no wisdom about localisation is needed.
2. Moduli only: abs(sum_nn psi_j) is at least 2 max_j abs(psi_j) - sum_j abs(psi_j), which bounds W + 2 abs(E) from
   below. The bound tightens as L grows.
3. One scalar, alpha_0 of one size: what a histogram of abs(psi)^2 knows.

The second and third number become classes by the densities of training examples (``classes_from_scalar``).
"""

from typing import NamedTuple

import jax
import numpy as np

from physml_jax.simulators.anderson.multifractal import one_size_alpha0


class SiteEnergies(NamedTuple):
    """Site energies that states imply, float64 [S, L, L, L] each.

    Attributes:
      relative: eps_i - E; 0 where psi_i = 0.
      error: bound of its error from the rounding of the amplitudes; infinite where psi_i = 0.
    """

    relative: np.ndarray
    error: np.ndarray


class Ladder(NamedTuple):
    """Class numbers that the answers give to every state, int64 [S]; ``None`` where the input lacks what they need.

    Attributes:
      local_rule: from signed amplitudes.
      modulus_bound: from the bound of the moduli.
      alpha0: from one scalar.
    """

    local_rule: np.ndarray | None
    modulus_bound: np.ndarray
    alpha0: np.ndarray


def site_energies(states: np.ndarray, *, relative_error: float | None = None) -> SiteEnergies:
    """eps_i - E = sum_nn psi_j / psi_i of signed states.

    Args:
      states: float [S, L, L, L], signed.
      relative_error: of an amplitude; ``None``: half a unit in the last place of the dtype.

    Raises:
      ValueError: for another shape or dtype, or amplitudes that are not finite.
    """
    states = as_states(states)
    rounding = np.finfo(states.dtype).eps / 2 if relative_error is None else relative_error
    psi = states.astype(np.float64)
    modulus = np.abs(psi)
    divisor = np.where(modulus > 0, psi, 1)
    relative = np.where(modulus > 0, _neighbour_sum(psi) / divisor, 0)
    error = rounding * (_neighbour_sum(modulus) / np.abs(divisor) + np.abs(relative))
    return SiteEnergies(relative, np.where(modulus > 0, error, np.inf))


def width_from_signs(
    states: np.ndarray,
    energies: np.ndarray | None = None,
    *,
    tolerance: float = 0.01,
    relative_error: float | None = None,
    chunk_size: int = 256,
) -> np.ndarray:
    """The local rule: W from signed states.

    With E it is 2 max abs(eps_i), whose mean is W N/(N + 1); without, max eps - min eps, whose mean is
    W (N - 1)/(N + 1). Both are divided by this factor. Their standard deviation is about W/N and sqrt(2) times that.

    Args:
      states: float [S, L, L, L], signed; float32 is enough for L = 20, eight bits are not.
      energies: [S], energies of the states; ``None``: not known.
      tolerance: sites whose energy is less certain than this are left out, in units of the hopping; infinity keeps
        all but exact zeros, whatever the damage to the amplitudes.
      relative_error: of an amplitude, where states were stored in fewer bits than their dtype has (float16: 2^-11);
        ``None``: half a unit in the last place of the dtype.
      chunk_size: states at a time.

    Returns:
      float64 [S].

    Raises:
      ValueError: for wrong shapes, or if fewer than half of the sites of a state remain: its amplitudes are too coarse.
    """
    states = as_states(states)
    num_sites = states[0].size
    if energies is not None and np.shape(energies) != states.shape[:1]:
        raise ValueError(f"energies: expected {len(states)} numbers, one per state, got shape {np.shape(energies)}")
    found = []
    for first in range(0, len(states), chunk_size):
        part = site_energies(states[first : first + chunk_size], relative_error=relative_error)
        used = np.isfinite(part.error) & (part.error <= tolerance)
        share = used.mean((1, 2, 3)).min()
        if share < 0.5 and np.isfinite(tolerance):
            raise ValueError(
                f"states: the amplitudes are too coarse, only {100 * share:.0f} % of the site energies of a state are"
                f" known to {tolerance}"
            )
        if energies is None:
            high = np.where(used, part.relative, -np.inf).max((1, 2, 3))
            low = np.where(used, part.relative, np.inf).min((1, 2, 3))
            found.append((high - low) * (num_sites + 1) / (num_sites - 1))
        else:
            energy = np.asarray(energies, np.float64)[first : first + chunk_size, None, None, None]
            largest = np.where(used, np.abs(part.relative + energy), 0).max((1, 2, 3))
            found.append(2 * largest * (num_sites + 1) / num_sites)
    return np.concatenate(found)


def width_bound_from_moduli(states: np.ndarray, *, chunk_size: int = 256) -> np.ndarray:
    """Lower bound of W + 2 abs(E): twice the largest (2 max_j abs(psi_j) - sum_j abs(psi_j)) / abs(psi_i).

    Args:
      states: float [S, L, L, L]; signs do not matter.
      chunk_size: states at a time.

    Returns:
      float64 [S], at least 0.

    Raises:
      ValueError: for another shape or dtype, or amplitudes that are not finite.
    """
    states = as_states(states)
    found = []
    for first in range(0, len(states), chunk_size):
        modulus = np.abs(states[first : first + chunk_size].astype(np.float64))
        neighbours = list(_neighbours(modulus))
        least = 2 * np.maximum.reduce(neighbours) - sum(neighbours)
        ratio = np.where(modulus > 0, least / np.where(modulus > 0, modulus, 1), 0)
        found.append(2 * np.maximum(ratio.max((1, 2, 3)), 0))
    return np.concatenate(found)


def scalar_alpha0(states: np.ndarray, *, chunk_size: int = 256) -> np.ndarray:
    """alpha_0 of single states from one size, float64 [S]; signs do not matter.

    Raises:
      ValueError: for another shape or dtype, or amplitudes that are not finite.
    """
    states = as_states(states)
    parts = []
    with jax.enable_x64(True):
        for first in range(0, len(states), chunk_size):
            parts.append(np.asarray(one_size_alpha0(states[first : first + chunk_size].astype(np.float64))))
    return np.concatenate(parts)


def nearest_class(values: np.ndarray, classes: np.ndarray) -> np.ndarray:
    """Number of the class whose value is nearest, [S] and [C] -> int64 [S]; the lower one of two equally near."""
    classes = np.asarray(classes, np.float64)
    return np.abs(np.asarray(values, np.float64)[:, None] - classes).argmin(1)


def classes_from_scalar(
    train_values: np.ndarray, train_labels: np.ndarray, values: np.ndarray, *, num_classes: int
) -> np.ndarray:
    """The most probable class of one number, by Gaussian kernel densities of the training values of every class.

    Classes are weighted equally. The bandwidth of each is Silverman's, 0.9 min(standard deviation, quartile distance /
    1.34) n^(-1/5).

    Args:
      train_values: [M].
      train_labels: int [M], 0 to ``num_classes`` - 1, at least two of each.
      values: [S].
      num_classes: number of classes C.

    Returns:
      int64 [S].

    Raises:
      ValueError: for wrong lengths, numbers that are not finite, or a class with fewer than two values.
    """
    x, y, at = (np.asarray(v) for v in (train_values, train_labels, values))
    if x.ndim != 1 or y.shape != x.shape or at.ndim != 1:
        raise ValueError(
            f"train_values, train_labels, values: expected [M], [M], [S], got {x.shape} {y.shape} {at.shape}"
        )
    if not (np.isfinite(x).all() and np.isfinite(at).all()):
        raise ValueError("train_values, values: expected finite numbers")
    scores = np.empty((num_classes, len(at)))
    for c in range(num_classes):
        members = x[y == c].astype(np.float64)
        if len(members) < 2:
            raise ValueError(f"train_labels: expected at least two of class {c}, got {len(members)}")
        quartiles = np.subtract(*np.percentile(members, [75, 25])) / 1.34
        spread = min(members.std(ddof=1), quartiles) or members.std(ddof=1) or 1e-12
        bandwidth = 0.9 * spread * len(members) ** -0.2
        exponent = -0.5 * ((at[:, None] - members) / bandwidth) ** 2
        # In logarithms, so that a value far from all classes still has a nearest one.
        top = exponent.max(1)
        scores[c] = top + np.log(np.exp(exponent - top[:, None]).mean(1)) - np.log(bandwidth)
    return scores.argmax(0)


def ladder(
    train_states: np.ndarray,
    train_labels: np.ndarray,
    states: np.ndarray,
    *,
    widths: np.ndarray,
    signed: bool,
    energies: np.ndarray | None = None,
    tolerance: float = 0.01,
) -> Ladder:
    """The class of every state by every answer.

    Args:
      train_states: float [M, L, L, L].
      train_labels: int [M], class numbers.
      states: float [S, L, L, L].
      widths: [C], W of every class.
      signed: whether the states carry signs, without which there is no local rule.
      energies: [S], energies of ``states`` if known.
      tolerance: of ``width_from_signs``.

    Raises:
      ValueError: as for the functions that it calls.
    """
    num = len(widths)
    local = nearest_class(width_from_signs(states, energies, tolerance=tolerance), widths) if signed else None
    by_scalar = [
        classes_from_scalar(f(train_states), train_labels, f(states), num_classes=num)
        for f in (width_bound_from_moduli, scalar_alpha0)
    ]
    return Ladder(local, *by_scalar)


def as_states(states: np.ndarray) -> np.ndarray:
    """``states`` as an array, float [S, L, L, L].

    Raises:
      ValueError: for another shape or dtype, L below 3, or amplitudes that are not finite.
    """
    states = np.asarray(states)
    shape = states.shape
    if states.ndim != 4 or not len(states) or len(set(shape[1:])) != 1 or shape[1] < 3:
        raise ValueError(f"states: expected [S, L, L, L] with L of at least 3, got {list(shape)}")
    if not np.issubdtype(states.dtype, np.floating):
        raise ValueError(f"states: expected floating-point amplitudes, got {states.dtype}")
    if not np.isfinite(states).all():
        raise ValueError("states: expected finite amplitudes")
    return states


def _neighbours(x):
    return (np.roll(x, step, axis) for axis in (1, 2, 3) for step in (1, -1))


def _neighbour_sum(x):
    return sum(_neighbours(x))
