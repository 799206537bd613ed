"""Replica exchange over temperature: what one temperature cannot leave, its neighbours walk around.

States at neighbouring temperatures T_i, T_j change places with probability min(1, exp((1/T_i - 1/T_j) (E_i - E_j))),
E total energies. This keeps the product of their Boltzmann distributions, so every temperature stays in its own
equilibrium, while a state that is trapped when cold comes back from the hot end as another one.

All temperatures of a row of J2 exist at once, in packed words. Replica r of every temperature belongs to ladder r and
moves in it alone: ladders are independent of each other, and so are errors that are estimated from them.

References:
  Swendsen, Wang, Phys. Rev. Lett. 57, 2607 (1986); Hukushima, Nemoto, J. Phys. Soc. Jpn. 65, 1604 (1996).
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

from physml_jax.simulators.ising import equilibrium
from physml_jax.simulators.ising.counting import replica_sums
from physml_jax.simulators.ising.equilibrium import Evidence
from physml_jax.simulators.ising.initial import EXCHANGES, SWEEPS, lanes, stream
from physml_jax.simulators.ising.packed import sweeps
from physml_jax.simulators.ising.packing import WORD
from physml_jax.typing import Array, Key


class Exchanged(NamedTuple):
    """States after a round of exchange.

    Attributes:
      words: uint32 [nT, W, L, L].
      accepted: int32 [nT - 1], how many of the 32 W replicas at temperatures i and i + 1 changed places; 0 for the
        pairs that were not tried.
    """

    words: Array
    accepted: Array


def log_acceptance(total_energy: Array, temperatures: Array) -> Array:
    """Logarithm of exp((1/T_i - 1/T_j) (E_i - E_j)) for neighbours i and j = i + 1.

    Args:
      total_energy: float32 [nT, R], of a whole lattice.
      temperatures: float32 [nT].

    Returns:
      float32 [nT - 1, R]; what is positive means certain acceptance.
    """
    beta = 1 / temperatures
    return (beta[:-1] - beta[1:])[:, None] * (total_energy[:-1] - total_energy[1:])


def exchange(key: Key, words: Array, total_energy: Array, temperatures: Array, parity: Array | int) -> Exchanged:
    """One round for all replicas of a ladder of temperatures.

    Only the pairs (i, i + 1) with i = ``parity`` modulo 2 are tried, so that no state is in two of them; alternate.

    Args:
      key: typed key of this row and this round.
      words: uint32 [nT, W, L, L].
      total_energy: float32 [nT, 32 W], energies of whole lattices, of these states.
      temperatures: float32 [nT], positive, in the order of the ladder.
      parity: 0 or 1; may be traced.

    Returns:
      ``Exchanged``.
    """
    ratio = log_acceptance(total_energy, temperatures)
    pairs = jnp.arange(ratio.shape[0], dtype=jnp.int32)
    draws = jax.random.uniform(key, ratio.shape, jnp.float32)
    accept = (draws < jnp.exp(jnp.minimum(ratio, 0.0))) & (pairs % 2 == parity)[:, None]
    return Exchanged(swap(words, accept), accept.sum(1, dtype=jnp.int32))


def swap(words: Array, accept: Array) -> Array:
    """Replicas of neighbouring temperatures change places where ``accept`` says so.

    Args:
      words: uint32 [nT, W, L, L].
      accept: bool [nT - 1, 32 W]; no temperature in two accepted pairs of one replica.

    Returns:
      uint32 [nT, W, L, L].
    """
    num, width = words.shape[:2]
    bits = jnp.arange(WORD, dtype=jnp.uint32)[None, None, :]
    mask = (accept.reshape(num - 1, width, WORD).astype(jnp.uint32) << bits).sum(-1, dtype=jnp.uint32)
    none = jnp.zeros((1, width), jnp.uint32)
    colder = jnp.concatenate([mask, none])[..., None, None]  # replicas that come from temperature i + 1
    hotter = jnp.concatenate([none, mask])[..., None, None]  # and from i - 1
    return (words & ~(colder | hotter)) | (jnp.roll(words, -1, axis=0) & colder) | (jnp.roll(words, 1, axis=0) & hotter)


def temper(
    key: Key,
    words: Array,
    temperatures: Array,
    j2: Array,
    rows: Array,
    end_round: Array | int,
    *,
    first_round: Array | int,
    measure_from: Array | int,
    interval: int,
    **kernel,
) -> tuple[Array, Evidence]:
    """Rounds of sweeps, measurement and exchange of whole rows.

    Args:
      key: typed key.
      words: uint32 [nJ, nT, W, L, L].
      temperatures: float32 [nT].
      j2: float32 [nJ].
      rows: int32 [nJ].
      end_round: number of the round to stop before; may be traced.
      first_round: number of the next round; may be traced.
      measure_from: number of the first round that is measured; may be traced.
      interval: sweeps of a round.
      **kernel: of ``packed.sweeps``.

    Returns:
      The words, and the evidence of the measured rounds.
    """
    nj, nt, width, size, _ = words.shape
    identities = lanes(rows, nt, width).reshape(-1)
    by_word = jnp.tile(jnp.repeat(temperatures, width), nj), jnp.repeat(j2, nt * width)
    keys = jax.vmap(lambda row: jax.random.fold_in(stream(key, EXCHANGES), row))(rows)
    swap_rows = jax.vmap(exchange, in_axes=(0, 0, 0, None, None))

    def body(i, carry):
        words, tally, accepted = carry
        words = sweeps(
            stream(key, SWEEPS),
            words.reshape(-1, size, size),
            *by_word,
            num_sweeps=interval,
            first_sweep=i * interval,
            lanes=identities,
            **kernel,
        ).reshape(words.shape)
        energy, values = equilibrium.measure(replica_sums(words), j2[:, None, None], num_sites=size * size)
        take = i >= measure_from
        tally = equilibrium.add(tally, values, take)
        if nt > 1:
            found = swap_rows(jax.vmap(lambda k: jax.random.fold_in(k, i))(keys), words, energy, temperatures, i % 2)
            words, accepted = found.words, accepted + jnp.where(take, found.accepted, 0)
        return words, tally, accepted

    start = (words, equilibrium.empty_tally((nj, nt, width * WORD)), jnp.zeros((nj, nt - 1), jnp.int32))
    first_round, end_round = jnp.asarray(first_round, jnp.int32), jnp.asarray(end_round, jnp.int32)
    words, tally, accepted = lax.fori_loop(first_round, end_round, body, start)
    measured = jnp.maximum(jnp.asarray(measure_from, jnp.int32), first_round)
    evidence = equilibrium.weigh(
        tally,
        interval=interval,
        sweeps=end_round * interval,
        acceptance=_rates(accepted, nt, width * WORD, measured, end_round),
    )
    return words, evidence


def _rates(accepted, num_temperatures, num_replicas, first, end):
    """Accepted exchanges of every pair over those tried in rounds ``first`` to ``end``, the last pair repeated."""
    if num_temperatures == 1:
        return jnp.zeros((accepted.shape[0], 1), jnp.float32)
    parity = jnp.arange(num_temperatures - 1, dtype=jnp.int32) % 2
    # Rounds below n whose number has parity p: (n + 1 - p) // 2.
    tried = ((end + 1 - parity) // 2 - (first + 1 - parity) // 2) * num_replicas
    rates = accepted.astype(jnp.float32) / jnp.maximum(tried, 1).astype(jnp.float32)[None, :]
    return jnp.concatenate([rates, rates[:, -1:]], axis=1)
