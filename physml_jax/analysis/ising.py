r"""Ising states without a network: what each one measures, and how far it is from other states.

The distance between two states is the reconstruction error that an autoencoder would be given,

.. math:: \epsilon(s, r) = \frac{1}{4 N} \sum_i (s_i - r_i)^2 = \frac{1}{2} \Big(1 - \frac{1}{N} \sum_i s_i r_i\Big),

the share of the spins that differ. A phase with broken symmetry has several kinds of states: two ferromagnets, four
stripes. Averaged over all of them the distance is 1/2 for every state, ordered or not, so a direct comparison must take
the nearest one. With the ideal states themselves as references that gives nothing but order parameters:
(1 - \|m\|) / 2, and (1 - max(\|m_row\|, \|m_column\|)) / 2.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from physml_jax.simulators.ising import exact, hamiltonian
from physml_jax.typing import Array


class Observables(NamedTuple):
    r"""What every state measures, float64 [N] each.

    Attributes:
      energy: per site, units of J1.
      magnetization: \|m\|.
      stripe_maximum: max(\|m_row\|, \|m_column\|).
      stripe_norm: sqrt(m_row^2 + m_column^2).
    """

    energy: np.ndarray
    magnetization: np.ndarray
    stripe_maximum: np.ndarray
    stripe_norm: np.ndarray


class Distances(NamedTuple):
    """Shares of differing spins, float64 [N] each.

    Attributes:
      mean: mean over the references.
      nearest: the smallest one.
    """

    mean: np.ndarray
    nearest: np.ndarray


def observables(spins: np.ndarray, j2: np.ndarray, *, chunk_size: int = 2048) -> Observables:
    """Energy and order parameters of many states.

    Args:
      spins: int8 ``[N, L, L]`` or ``[N, L, L, 1]`` in {-1, +1}, even L.
      j2: float ``[N]``.
      chunk_size: states per call of the compiled function.

    Returns:
      The observables.

    Raises:
      ValueError: if shapes or dtypes are wrong, or a value is no spin.
    """
    spins = as_states(spins)
    j2 = np.asarray(j2, np.float32)
    if j2.shape != spins.shape[:1]:
        raise ValueError(f"j2: expected {len(spins)} values, one per state, got shape {j2.shape}")
    parts = _chunked(_measure, (spins, j2), chunk_size)
    return Observables(*(x.astype(np.float64) for x in parts))


class SignedOrder(NamedTuple):
    """Order parameters with their signs, float64 [N] each.

    Attributes:
      magnetization: m.
      row: mean of (-1)^i s, i the number of the row.
      column: mean of (-1)^j s, j the number of the column.
    """

    magnetization: np.ndarray
    row: np.ndarray
    column: np.ndarray


def signed_order(spins: np.ndarray, *, chunk_size: int = 2048) -> SignedOrder:
    """Order parameters that tell the ideal states of a phase apart.

    Args:
      spins: int8 ``[N, L, L]`` or ``[N, L, L, 1]``.
      chunk_size: states per call of the compiled function.

    Raises:
      ValueError: if shapes or dtypes are wrong, or a value is no spin.
    """
    return SignedOrder(*(x.astype(np.float64) for x in _chunked(_signed, (as_states(spins),), chunk_size)))


def distances(
    spins: np.ndarray, references: np.ndarray, *, num_references: int = 256, chunk_size: int = 1024
) -> Distances:
    """Compares every state with reference states.

    Args:
      spins: int8 ``[N, L, L]`` or ``[N, L, L, 1]``.
      references: int8 ``[M, L, L]`` or ``[M, L, L, 1]``, as states of low temperature.
      num_references: at most so many of them serve, evenly spaced in their order.
      chunk_size: states per call of the compiled function.

    Returns:
      The distances.

    Raises:
      ValueError: if shapes differ, there is no reference, or a value is no spin.
    """
    spins, references = as_states(spins), as_states(references, name="references")
    if references.shape[1:] != spins.shape[1:]:
        raise ValueError(f"references: expected lattices {spins.shape[1:]} as in spins, got {references.shape[1:]}")
    if num_references < 1:
        raise ValueError(f"num_references: expected at least 1, got {num_references}")
    picked = np.unique(np.linspace(0, len(references) - 1, num_references).round().astype(np.int64))
    flat = jnp.asarray(references[picked].reshape(len(picked), -1), jnp.float32)
    mean, nearest = _chunked(lambda s: _distances(s, flat), (spins,), chunk_size)
    return Distances(mean.astype(np.float64), nearest.astype(np.float64))


def ideal_states(phase: str, *, size: int) -> np.ndarray:
    """The ground states of an ordered phase.

    Args:
      phase: ``"ferromagnet"`` (2) or ``"superantiferromagnet"`` (4: rows or columns, either sign).
      size: L, even.

    Returns:
      Int8 ``[2 or 4, L, L]``.

    Raises:
      ValueError: for an unknown phase or an odd size.

    Example:
      >>> ideal_states("superantiferromagnet", size=4)[0, :, 0].tolist()
      [1, -1, 1, -1]
    """
    if size % 2 or size < 2:
        raise ValueError(f"size: expected an even number of at least 2, got {size}")
    one = np.ones((size, size), np.int8)
    if phase == "ferromagnet":
        return np.stack([one, -one])
    if phase == "superantiferromagnet":
        rows = one * (1 - 2 * (np.arange(size) % 2)).astype(np.int8)[:, None]
        return np.stack([rows, -rows, rows.T, -rows.T])
    raise ValueError(f"phase: expected 'ferromagnet' or 'superantiferromagnet', got {phase!r}")


def ground_energy(j2: float) -> float:
    """Lowest energy per site at a coupling, units of J1."""
    return float(hamiltonian.ground_state_energy(np.float32(j2)))


def exact_energy(size: int, temperature: np.ndarray) -> np.ndarray:
    """Energy per site of the finite lattice at J2 = 0 (Kaufman), float64 of the shape of ``temperature``."""
    return np.asarray(exact.kaufman(size, temperature).energy, np.float64)


def exact_magnetization(temperature: np.ndarray) -> np.ndarray:
    """Spontaneous magnetisation of the infinite lattice at J2 = 0 (Onsager, Yang), like ``temperature``."""
    return np.asarray(exact.onsager_magnetization(temperature), np.float64)


def share_of_variance(x: np.ndarray, y: np.ndarray) -> float | None:
    """Squared correlation coefficient of two quantities; ``None`` where one of them is constant."""
    x, y = np.asarray(x, np.float64), np.asarray(y, np.float64)
    if x.std() < 1e-12 or y.std() < 1e-12:
        return None
    return float(np.corrcoef(x, y)[0, 1] ** 2)


def binder_cumulant(second: np.ndarray, fourth: np.ndarray, *, components: int = 1) -> np.ndarray:
    """1 - n <o^4> / ((n + 2) <o^2>^2) of an order parameter with n components, from mean powers.

    2 / (n + 2) in an ordered phase, 0 where o is normally distributed. From samples, with an error:
    ``simulators.ising.observables``.
    """
    second, fourth = np.asarray(second, np.float64), np.asarray(fourth, np.float64)
    return 1 - components * fourth / ((components + 2) * np.maximum(second, 1e-12) ** 2)


def as_states(spins: np.ndarray, *, name: str = "spins") -> np.ndarray:
    """Lattices without a channel axis, int8 ``[N, L, L]``; a view where it can be.

    Raises:
      ValueError: unless the values are -1 and +1 in squares of an even size of at least 4.
    """
    spins = np.asarray(spins)
    if spins.ndim == 4 and spins.shape[-1] == 1:
        spins = spins[..., 0]
    if spins.dtype != np.int8 or spins.ndim != 3 or not len(spins) or spins.shape[1] != spins.shape[2]:
        raise ValueError(f"{name}: expected int8 [N, L, L] or [N, L, L, 1], got {spins.dtype} {spins.shape}")
    if spins.shape[1] % 2 or spins.shape[1] < 4:
        raise ValueError(f"{name}: expected an even L of at least 4, got {spins.shape[1]}")
    for part in range(0, len(spins), 4096):
        if not np.all(np.abs(spins[part : part + 4096]) == 1):
            raise ValueError(f"{name}: expected spins -1 and +1")
    return spins


@jax.jit
def _measure(spins: Array, j2: Array):
    stripes = hamiltonian.stripe_order(spins)
    magnetization = jnp.abs(hamiltonian.magnetization(spins))
    return hamiltonian.energy(spins, j2), magnetization, stripes.maximum, stripes.norm


@jax.jit
def _signed(spins: Array):
    stripes = hamiltonian.stripe_order(spins)
    return hamiltonian.magnetization(spins), stripes.row, stripes.column


@jax.jit
def _distances(spins: Array, references: Array):
    flat = spins.reshape(spins.shape[0], -1).astype(jnp.float32)
    # Sums of +-1 are exact in float32 up to 2^24 sites; the highest precision keeps them so on an accelerator.
    overlap = jnp.matmul(flat, references.T, precision=jax.lax.Precision.HIGHEST) / flat.shape[1]
    return (1 - overlap.mean(axis=1)) / 2, (1 - overlap.max(axis=1)) / 2


def _chunked(function, arrays, chunk_size: int) -> list[np.ndarray]:
    """Applies a compiled function chunk by chunk, the last one filled up, so that it is compiled once."""
    length = len(arrays[0])
    chunk_size = min(chunk_size, length)
    parts = []
    for start in range(0, length, chunk_size):
        held = [x[start : start + chunk_size] for x in arrays]
        missing = chunk_size - len(held[0])
        if missing:
            held = [np.concatenate([x, np.repeat(x[:1], missing, axis=0)]) for x in held]
        found = function(*(jnp.asarray(x) for x in held))
        parts.append([np.asarray(x)[: chunk_size - missing] for x in found])
    return [np.concatenate(x) for x in zip(*parts, strict=True)]
