"""Sums over packed states, the exchange of replicas, and ladders of temperatures against enumeration."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from physml_jax.simulators.ising import counting, exact, exchange, packing
from physml_jax.simulators.ising.initial import initial_words

LADDER = np.asarray([3.5, 2.6, 2.0, 1.5, 1.1], np.float32)


@functools.cache
def enumerated():
    """All 4 x 4 states with their sums over bonds."""
    s = exact.enumerate_states().astype(np.int8).reshape(-1, 4, 4)
    right, below = np.roll(s, -1, -1), np.roll(s, -1, -2)
    nn, nnn = s * (right + below), s * np.roll(below, -1, -1) + right * below
    return s, nn.sum((1, 2), dtype=np.int64), nnn.sum((1, 2), dtype=np.int64)


def spins_of(words):
    """[..., W, L, L] words as [..., 32 W, L, L] spins."""
    words = np.asarray(words)
    up = (words[..., None, :, :] >> np.arange(32, dtype=np.uint32)[:, None, None]) & 1
    return 2 * up.astype(np.int64).reshape(*words.shape[:-3], -1, *words.shape[-2:]) - 1


@pytest.mark.parametrize(("size", "shape"), [(6, (1, 3, 2)), (34, (2,))])
def test_sums_are_exact(size, shape):
    """Of random words, and of words without any bit and with all: byte counters must not overflow."""
    words = np.random.default_rng(0).integers(0, 2**32, (3, *shape, size, size), np.uint32)
    words[1], words[2] = 0, 0xFFFFFFFF
    found = jax.jit(counting.replica_sums)(words)
    s, sign = spins_of(words), 1 - 2 * (np.arange(size) % 2)
    right, below = np.roll(s, -1, -1), np.roll(s, -1, -2)
    truth = (
        s * (right + below),
        s * np.roll(below, -1, -1) + right * below,
        s,
        s * sign[:, None],
        s * sign,
    )
    for name, sums, expected in zip(found._fields, found, truth, strict=True):
        assert sums.dtype == jnp.int32
        np.testing.assert_array_equal(sums, expected.sum((-2, -1)), err_msg=name)


def test_swap_moves_replicas_and_nothing_else():
    rng = np.random.default_rng(1)
    words = rng.integers(0, 2**32, (5, 2, 4, 4), np.uint32)
    accept = (rng.random((4, 64)) < 0.5) & (np.arange(4) % 2 == 1)[:, None]
    before, after = spins_of(words), spins_of(jax.jit(exchange.swap)(words, accept))
    for i in range(5):
        for r in range(64):
            source = i + 1 if i < 4 and accept[i, r] else i - 1 if i > 0 and accept[i - 1, r] else i
            np.testing.assert_array_equal(after[i, r], before[source, r])


def test_exchange_obeys_detailed_balance():
    """P(E_i at T_i, E_j at T_j) p(swap) = P(E_j at T_i, E_i at T_j) p(swap back) for all pairs of levels at J2 = 0.3;
    with the sign of the exponent flipped it is not so.
    """
    _, nn, nnn = enumerated()
    levels = np.unique(np.round(0.3 * nnn - nn, 6))
    one, other = (x.reshape(-1) for x in np.meshgrid(levels, levels))
    temperatures = np.asarray([2.0, 1.4])
    logs = exchange.log_acceptance(jnp.asarray([one, other], jnp.float32), jnp.asarray(temperatures, jnp.float32))[0]
    weight = -one / temperatures[0] - other / temperatures[1]
    swapped = -other / temperatures[0] - one / temperatures[1]

    def violation(logs):
        forth, back = np.minimum(np.asarray(logs, np.float64), 0), np.minimum(-np.asarray(logs, np.float64), 0)
        return np.abs(weight + forth - swapped - back).max()

    assert violation(logs) < 1e-4
    assert violation(-logs) > 1


@pytest.mark.parametrize("flip", [False, True])
def test_one_round_keeps_boltzmann_states(flip, monkeypatch):
    """4 x 4 states drawn from the enumerated distribution at five temperatures, 8192 ladders, J2 = 0.3: after a round
    of each parity the mean energies are the same, abs(z) < 4; with the exponent's sign flipped they are not.
    """
    states, nn, nnn = enumerated()
    energies = 0.3 * nnn - nn
    if flip:
        rule = exchange.log_acceptance
        monkeypatch.setattr(exchange, "log_acceptance", lambda e, t: -rule(e, t))
    num = 8192
    rng = np.random.default_rng(0)
    weights = np.exp(-(energies - energies.min()) / LADDER[:, None].astype(np.float64))
    weights /= weights.sum(1, keepdims=True)
    drawn = np.stack([rng.choice(len(states), num, p=w) for w in weights])
    words, total = packing.pack(jnp.asarray(states[drawn])), jnp.asarray(energies[drawn], jnp.float32)
    for parity in (0, 1):
        found = exchange.exchange(jax.random.key(parity), words, total, jnp.asarray(LADDER), parity)
        assert (np.asarray(found.accepted) > 0).tolist() == [i % 2 == parity for i in range(4)]
        words = found.words
        s = spins_of(words)
        right, below = np.roll(s, -1, -1), np.roll(s, -1, -2)
        total = 0.3 * (s * np.roll(below, -1, -1) + right * below).sum((2, 3)) - (s * (right + below)).sum((2, 3))
        total = jnp.asarray(total, jnp.float32)
    mean, variance = (weights * energies).sum(1), (weights * energies**2).sum(1) - (weights * energies).sum(1) ** 2
    z = np.abs(np.asarray(total, np.float64).mean(1) - mean) / np.sqrt(variance / num)
    assert (z.max() > 10) if flip else (z.max() < 4)


def test_ladders_equal_enumeration():
    """4 x 4, five temperatures, J2 = 0, 0.5, 0.8, 64 ladders of 2000 sweeps, an exchange after each: mean energy,
    abs(m) and stripe order at every point, 45 z scores, abs(z) < 4 with errors from ladders.
    """
    j2, rows = jnp.asarray([0.0, 0.5, 0.8], jnp.float32), jnp.arange(3, dtype=jnp.int32)
    temperatures = jnp.asarray(LADDER)

    @jax.jit
    def run(key):
        words = initial_words(key, rows, j2, size=4, num_words=2, num_slots=5, start="both")
        return exchange.temper(key, words, temperatures, j2, rows, 2000, first_round=0, measure_from=1000, interval=1)

    words, evidence = run(jax.random.key(3))
    truth = exact.thermal_averages(LADDER[None, :], np.asarray(j2)[:, None])
    means = np.stack([truth.energy, truth.abs_magnetization, truth.stripe_norm], axis=-1)
    assert np.abs((np.asarray(evidence.mean) - means) / np.asarray(evidence.error)).max() < 4
    assert bool(evidence.equilibrated.all())
    assert float(evidence.acceptance.min()) > 0.2 and float(evidence.acceptance.max()) <= 1
    assert evidence.sweeps.tolist() == [[2000] * 5] * 3 and evidence.window.tolist() == [[1000] * 5] * 3
    # The last states are Boltzmann states as well, 64 independent ones at every point.
    s = spins_of(words)
    right, below = np.roll(s, -1, -1), np.roll(s, -1, -2)
    nnn = (s * np.roll(below, -1, -1) + right * below).sum((-2, -1))
    energies = (np.asarray(j2)[:, None, None] * nnn - (s * (right + below)).sum((-2, -1))) / 16
    error = LADDER * np.sqrt(truth.specific_heat / 16 / 64)
    assert np.abs((energies.mean(-1) - truth.energy) / error).max() < 4
