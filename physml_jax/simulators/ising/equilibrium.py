"""Evidence that states are in equilibrium, from replicas that know nothing of each other.

Two questions are asked at every point (J2, T), of observables that do not depend on which of several symmetric phases
a replica fell into: the energy per site, abs(m), and the norm of the stripe order.

* Do chains that started at opposite ends agree? The z score is the difference between the mean of the even replicas
  (which began hot) and of the odd ones (which began in a ground state), over its standard error from the scatter
  between replicas. Chains that all began alike can agree and be wrong together.
* Was each chain long enough? The variance of the time means of independent replicas over the variance of single
  measurements is 2 tau / window, tau the integrated autocorrelation time: 1 where every replica is stuck in a state of
  its own, however well the halves agree on average. This needs no time series, only sums.

A point passes if abs(z) < ``Z_MAX`` for all three observables and the window of measurement is at least ``TAUS`` times
the longest autocorrelation time. Of the 3 * 158 * 22 z scores of the full grid two are expected beyond 4 by chance, so
about one row in ten is made to run longer than it needs.

References:
  Sokal, Monte Carlo Methods in Statistical Mechanics (1989), section 3, for variance and autocorrelation time;
  Bhatt, Young, Phys. Rev. B 37, 5606 (1988), for two starts that must agree.
"""

from collections.abc import Sequence
from typing import NamedTuple

import jax.numpy as jnp
import numpy as np

from physml_jax.simulators.ising.counting import ReplicaSums
from physml_jax.typing import Array

#: What is tested: energy per site, abs(m), norm of the stripe order.
OBSERVABLES = ("energy", "magnetization", "stripe_order")
#: Largest abs(z) between the two starts, and least window in autocorrelation times.
Z_MAX, TAUS = 4.0, 20.0
#: Where the halves differ without any scatter the z score is this.
Z_CLIP = 1000.0


class Tally(NamedTuple):
    """Running sums over measurements of one replica at one point.

    Attributes:
      reference: float32 [3, ..., R], the first measurement; sums of differences from it do not cancel.
      total: float32 [3, ..., R], sum of the differences.
      squares: float32 [3, ..., R], sum of their squares.
      count: int32 [], number of measurements.
    """

    reference: Array
    total: Array
    squares: Array
    count: Array


class Evidence(NamedTuple):
    """What shows equilibrium, per point; [nJ, nT] unless another shape is given.

    Attributes:
      z_energy: float32, even replicas against odd ones, energy per site; 0 where no replica ever changed and all are
        equal, clipped to +-1000.
      z_order: float32, the same for abs(m) or for the stripe order, whichever is larger in magnitude.
      autocorrelation_time: float32, integrated, in sweeps, the longest of the three observables. A value near half the
        window means at least that long; 0 means that nothing changed and all replicas were equal.
      acceptance: float32, of exchanges between temperatures t and t + 1; the last entry repeats the last pair. 0
        without exchange.
      sweeps: int32, all sweeps so far at this temperature.
      window: int32, the last sweeps, during which measurements were taken.
      mean: float32 [nJ, nT, 3], average over window and replicas of energy per site, abs(m), stripe order (norm).
      error: float32 [nJ, nT, 3], its standard error from independent replicas.
      equilibrated: bool, whether the point passes, see the module.
    """

    z_energy: Array
    z_order: Array
    autocorrelation_time: Array
    acceptance: Array
    sweeps: Array
    window: Array
    mean: Array
    error: Array
    equilibrated: Array


def measure(sums: ReplicaSums, j2: Array, *, num_sites: int) -> tuple[Array, Array]:
    """The tested observables of packed states, from their sums.

    Args:
      sums: ``ReplicaSums`` of int32 [..., R].
      j2: float32 [..., 1], in units of J1.
      num_sites: L^2.

    Returns:
      Total energy float32 [..., R], and float32 [3, ..., R]: energy per site, abs(m), norm of the stripe order.
    """
    nn, nnn, spin, row, column = (x.astype(jnp.float32) for x in sums)
    energy = j2 * nnn - nn
    values = jnp.stack([energy, jnp.abs(spin), jnp.sqrt(row * row + column * column)]) / num_sites
    return energy, values


def empty_tally(shape: Sequence[int]) -> Tally:
    """A tally of observables [3, ..., R] without measurements."""
    zero = jnp.zeros((len(OBSERVABLES), *shape), jnp.float32)
    return Tally(zero, zero, zero, jnp.int32(0))


def add(tally: Tally, values: Array, take: Array | bool = True) -> Tally:
    """One more measurement, if ``take``.

    Args:
      tally: sums so far.
      values: float32 [3, ..., R].
      take: bool [], whether it counts.
    """
    take = jnp.asarray(take)
    reference = jnp.where(take & (tally.count == 0), values, tally.reference)
    change = jnp.where(take, values - reference, 0.0)
    return Tally(reference, tally.total + change, tally.squares + change * change, tally.count + take.astype(jnp.int32))


def weigh(tally: Tally, *, interval: int, sweeps: Array, acceptance: Array) -> Evidence:
    """The evidence from the sums.

    Args:
      tally: of float32 [3, nJ, nT, R], R even.
      interval: sweeps between measurements.
      sweeps: int32 [], all sweeps so far at each temperature.
      acceptance: float32 [nJ, nT].
    """
    count = jnp.maximum(tally.count, 1).astype(jnp.float32)
    shift = tally.total / count
    # Replicas that agree exactly must have no scatter at all, so all differences are from replica 0.
    origin = tally.reference[..., :1]
    means = tally.reference - origin + shift
    num = means.shape[-1]
    scatter = _variance(means)
    within = jnp.maximum(tally.squares / count - shift * shift, 0.0).mean(-1)
    pooled = within + scatter * ((num - 1) / num)
    ratio = jnp.where(pooled > 0, scatter / jnp.where(pooled > 0, pooled, 1.0), 0.0)  # 2 tau / window

    even, odd = means[..., ::2], means[..., 1::2]
    difference = even.mean(-1) - odd.mean(-1)
    error = jnp.sqrt((_variance(even) + _variance(odd)) / (num // 2))
    z = jnp.where(error > 0, difference / jnp.where(error > 0, error, 1.0), jnp.sign(difference) * Z_CLIP)
    z = jnp.clip(z, -Z_CLIP, Z_CLIP)

    window = tally.count * interval
    passed = (jnp.abs(z).max(0) < Z_MAX) & (ratio.max(0) * TAUS <= 2)
    points = passed.shape
    return Evidence(
        z_energy=z[0],
        z_order=jnp.where(jnp.abs(z[1]) >= jnp.abs(z[2]), z[1], z[2]),
        autocorrelation_time=ratio.max(0) * window.astype(jnp.float32) / 2,
        acceptance=acceptance,
        sweeps=jnp.broadcast_to(jnp.asarray(sweeps, jnp.int32), points),
        window=jnp.broadcast_to(window, points),
        mean=jnp.moveaxis(origin[..., 0] + means.mean(-1), 0, -1),
        error=jnp.moveaxis(jnp.sqrt(scatter / num), 0, -1),
        equilibrated=passed,
    )


def not_equilibrated(evidence: Evidence, temperatures: Sequence[float], j2: Sequence[float]) -> list[str]:
    """One line for every row of J2 with points that are not in equilibrium, for a person; empty if all are.

    Args:
      evidence: of [nJ, nT] points.
      temperatures: [nT].
      j2: [nJ].
    """
    passed = np.asarray(evidence.equilibrated)
    z = np.maximum(np.abs(evidence.z_energy), np.abs(evidence.z_order))
    taus = np.asarray(evidence.autocorrelation_time) / np.asarray(evidence.window)
    lines = []
    for j in np.flatnonzero(~passed.all(1)):
        bad = np.flatnonzero(~passed[j])
        worst = bad[np.argmax(np.where(taus[j, bad] > 0, taus[j, bad], 0))]
        lines.append(
            f"J2 = {float(j2[j]):g}: {len(bad)} of {passed.shape[1]} temperatures are not in equilibrium after "
            f"{int(evidence.sweeps[j, bad[0]])} sweeps, between T = {float(temperatures[bad[0]]):g} and "
            f"{float(temperatures[bad[-1]]):g}; abs(z) up to {z[j, bad].max():.1f} (limit {Z_MAX:g}), autocorrelation "
            f"time up to {taus[j, worst]:.2f} of the window (limit {1 / TAUS:g}, at T = {float(temperatures[worst]):g})"
        )
    return lines


def _variance(x):
    """Unbiased variance over the last axis, exactly zero for equal values."""
    x = x - x[..., :1]
    return ((x - x.mean(-1, keepdims=True)) ** 2).sum(-1) / (x.shape[-1] - 1)
