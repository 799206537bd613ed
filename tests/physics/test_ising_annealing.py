"""Cooling and exchange: starts, evidence of equilibrium, ordered states, rows alone and together, resuming."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from physml_jax.simulators import ising
from physml_jax.simulators.ising import cooling, equilibrium
from physml_jax.simulators.ising.initial import initial_words

#: One small problem, so that the tests share compiled programs.
TEMPERATURES = np.asarray([2.4, 1.9, 1.5, 1.2, 1.0, 0.8, 0.65, 0.5, 0.4, 0.3, 0.2, 0.1], np.float32)
PROBLEM = {"size": 8, "temperatures": TEMPERATURES, "num_replicas": 64}
J2 = np.asarray([0.45, 0.55, 0.0], np.float32)


def equilibrate(**changes):
    return ising.equilibrate(jax.random.key(0), **PROBLEM | {"exchange_every": 10, "max_sweeps": 8000} | changes)


@functools.cache
def together(exchange):
    """All rows at once by ``anneal``, 80 sweeps."""
    arguments = PROBLEM | {"j2": J2, "sweeps_per_temperature": 80, "exchange": exchange}
    return jax.tree.map(np.asarray, jax.jit(lambda key: ising.anneal(key, **arguments))(jax.random.key(0)))


def spins_of(words):
    up = (words[..., None, :, :] >> np.arange(32, dtype=np.uint32)[:, None, None]) & 1
    return 2 * up.astype(np.int64).reshape(*words.shape[:-3], -1, *words.shape[-2:]) - 1


def order(spins):
    """abs(m) and the norm of the stripe order."""
    sign = 1 - 2 * (np.arange(spins.shape[-1]) % 2)
    row, column = (spins * sign[:, None]).mean((-2, -1)), (spins * sign).mean((-2, -1))
    return np.abs(spins.mean((-2, -1))), np.sqrt(row**2 + column**2)


def test_starts():
    """Ordered replicas are ground states, all images of them; with both, the even ones are the hot ones."""
    start = jax.jit(initial_words, static_argnames=("size", "num_words", "num_slots", "start"))
    rows = np.asarray([3, 4], np.int32)
    sizes = {"size": 6, "num_words": 2, "num_slots": 3}
    found = {
        name: np.asarray(start(jax.random.key(1), rows, J2[:2], **sizes, start=name))
        for name in ("hot", "ordered", "both")
    }
    spins = {name: spins_of(words) for name, words in found.items()}
    m, stripes = order(spins["ordered"])
    assert (m[0] == 1).all() and (stripes[1] == 1).all()
    assert len(np.unique(spins["ordered"][0].reshape(-1, 36), axis=0)) == 2
    assert len(np.unique(spins["ordered"][1].reshape(-1, 36), axis=0)) == 4
    assert order(spins["hot"])[0].max() < 0.8
    np.testing.assert_array_equal(spins["both"][:, :, ::2], spins["hot"][:, :, ::2])
    np.testing.assert_array_equal(spins["both"][:, :, 1::2], spins["ordered"][:, :, 1::2])


def test_cooled_and_heated_words_interleave():
    words = np.random.default_rng(0).integers(0, 2**32, (3, 4, 4, 4), np.uint32)
    a, b = spins_of(words[:, :2]), spins_of(words[:, 2:])
    found = spins_of(np.asarray(cooling._interleave_bits(jnp.asarray(words[:, :2]), jnp.asarray(words[:, 2:]), 1)))
    np.testing.assert_array_equal(found[:, ::2], a)
    np.testing.assert_array_equal(found[:, 1::2], b)


@pytest.mark.parametrize("exchange", [True, pytest.param(False, marks=pytest.mark.slow)])
def test_rows_alone_equal_rows_together(exchange):
    """Bit for bit, evidence included, whatever the order, from two threads; spins and words are the same states."""
    arguments = {"sweeps_per_temperature": 80, "max_sweeps": 80, "exchange": exchange}
    all_rows = together(exchange)
    some = equilibrate(j2=J2[[2, 0]], rows=[2, 0], packed=True, workers=2, **arguments)
    assert all_rows.states.dtype == np.int8 and all_rows.states.shape == (3, 12, 64, 8, 8)
    assert some.states.dtype == np.uint32 and some.states.shape == (2, 12, 2, 8, 8)
    np.testing.assert_array_equal(spins_of(some.states), all_rows.states[[2, 0]])
    for one, other in zip(some.evidence, all_rows.evidence, strict=True):
        np.testing.assert_allclose(one, other[[2, 0]], rtol=2e-4, atol=2e-5)
    other = equilibrate(j2=J2[:1], rows=[7], packed=True, **arguments)
    assert (other.states != some.states[1]).any()


def test_resuming_changes_nothing():
    seen = []
    whole = equilibrate(
        j2=J2[:1], sweeps_per_temperature=80, max_sweeps=160, packed=True, progress=lambda *x: seen.append(x[:2])
    )
    first = equilibrate(j2=J2[:1], sweeps_per_temperature=80, max_sweeps=80, packed=True)
    then = equilibrate(
        j2=J2[:1], sweeps_per_temperature=80, max_sweeps=160, packed=True, first_sweep=80, words=first.states
    )
    assert seen == [(0, 80), (0, 160)]
    np.testing.assert_array_equal(then.states, whole.states)
    for one, other in zip(then.evidence, whole.evidence, strict=True):
        np.testing.assert_array_equal(one, other)


@pytest.mark.parametrize("exchange", [True, pytest.param(False, marks=pytest.mark.slow)])
def test_evidence_tells_a_quench_from_equilibrium(exchange):
    """80 sweeps per temperature are not enough near J2 = 0.5 and the evidence says so; longer runs pass."""
    quench = together(exchange).evidence
    assert not quench.equilibrated[:2].all(1).any()
    text = ising.not_equilibrated(quench, TEMPERATURES, J2)
    assert text[0].startswith("J2 = 0.45: ") and text[1].startswith("J2 = 0.55: ") and "80 sweeps" in text[0]
    # Without exchange L = 8 would need long runs at J2 = 0.45 and 0.55; the ferromagnet does not.
    rows = [0, 1, 2] if exchange else [2]
    found = equilibrate(j2=J2[rows], rows=rows, sweeps_per_temperature=1000, exchange=exchange, packed=True)
    assert found.evidence.equilibrated.all()
    assert ising.not_equilibrated(found.evidence, TEMPERATURES, J2[rows]) == []
    assert not exchange or found.evidence.acceptance.min() > 0.1
    assert (order(spins_of(found.states))[0][-1, -1] > 0.99).all()  # both ways lead to order at J2 = 0


@pytest.mark.slow
def test_exchange_orders_hot_starts():
    """L = 8, T = 0.1, no ordered start anywhere: at least 0.98 of the replicas are in the ordered phase."""
    found = equilibrate(j2=J2[:2], sweeps_per_temperature=4000, max_sweeps=4000, start="hot", packed=True)
    m, stripes = order(spins_of(found.states)[:, -1])
    assert (m[0] > 0.9).mean() >= 0.98 and (stripes[1] > 0.9).mean() >= 0.98


@pytest.mark.slow
def test_exchange_orders_hot_starts_of_the_published_size():
    """L = 30 on the published ladder, 16 000 sweeps; 1.00 and 1.00 of the replicas when it was written. Successive
    cooling with 100 sweeps per temperature leaves 0.17 and 0.19 of the replicas disordered there.
    """
    temperatures = 0.025 * np.arange(160, 2, -1)
    found = ising.equilibrate(
        jax.random.key(1),
        size=30,
        temperatures=temperatures,
        j2=J2[:2],
        num_replicas=64,
        sweeps_per_temperature=16_000,
        max_sweeps=16_000,
        start="hot",
        packed=True,
        workers=2,
    )
    cold = int(np.argmin(np.abs(temperatures - 0.1)))
    m, stripes = order(spins_of(found.states[:, cold]))
    assert (m[0] > 0.9).mean() >= 0.98 and (stripes[1] > 0.9).mean() >= 0.98


def tally_of(series):
    """A tally of one observable, [time, R], at one point; the other two do not move."""
    values = np.zeros((3, 1, 1, series.shape[1]), np.float32)
    tally = equilibrium.empty_tally((1, 1, series.shape[1]))

    def step(tally, x):
        return equilibrium.add(tally, jnp.asarray(values).at[0, 0, 0].set(x)), None

    return jax.lax.scan(step, tally, jnp.asarray(series, jnp.float32))[0]


def weigh(series):
    evidence = equilibrium.weigh(
        tally_of(series), interval=5, sweeps=jnp.int32(1000), acceptance=jnp.zeros((1, 1), jnp.float32)
    )
    return jax.tree.map(lambda x: np.asarray(x)[0, 0], evidence)


def test_evidence_of_known_series():
    """Independent numbers, an autoregressive process of known time, frozen replicas, halves that differ, no change."""
    rng = np.random.default_rng(0)
    noise = rng.normal(size=(1000, 64))
    free = weigh(-1.9 + 0.01 * noise)
    assert free.equilibrated and abs(free.z_energy) < 4 and free.window == 5000
    assert free.autocorrelation_time == pytest.approx(2.5, rel=0.6)  # half an interval; 18 % standard error
    assert abs(free.mean[0] + 1.9) < 5 * free.error[0] and free.error[0] == pytest.approx(0.01 / np.sqrt(64e3), rel=0.5)

    slow = noise.copy()
    for i in range(1, 1000):
        slow[i] = 0.8 * slow[i - 1] + 0.6 * noise[i]
    # 1/2 + sum of 0.8^k = 4.5 intervals
    assert weigh(slow).equilibrated and weigh(slow).autocorrelation_time == pytest.approx(22.5, rel=0.6)

    frozen = np.broadcast_to(rng.normal(size=64), (1000, 64))
    found = weigh(frozen)
    assert not found.equilibrated and found.autocorrelation_time == pytest.approx(2500, rel=0.05)

    apart = weigh(noise + 0.1 * (np.arange(64) % 2))
    assert not apart.equilibrated and abs(apart.z_energy) > 10

    still = weigh(np.full((1000, 64), -1.1))
    assert still.equilibrated and still.z_energy == 0 and still.autocorrelation_time == 0 and still.error[0] == 0
    stuck = weigh(np.broadcast_to(-1.1 + 0.2 * (np.arange(64) % 2), (1000, 64)))
    assert not stuck.equilibrated and abs(stuck.z_energy) == 1000

    rare = np.full((1000, 64), -1.1)
    rare[300, 5] += 0.01  # one excitation in the whole run is no sign of trouble
    assert weigh(rare).equilibrated


@pytest.mark.parametrize(
    ("change", "name"),
    [
        ({"size": 5}, "size"),
        ({"size": 2}, "size"),
        ({"temperatures": [1.0, 2.0]}, "temperatures"),
        ({"temperatures": [1.0, 0.0]}, "temperatures"),
        ({"temperatures": [np.nan]}, "temperatures"),
        ({"temperatures": 1.0}, "temperatures"),
        ({"j2": [np.inf]}, "j2"),
        ({"j2": []}, "j2"),
        ({"rows": [0, 1]}, "rows"),
        ({"rows": [-1]}, "rows"),
        ({"num_replicas": 33}, "num_replicas"),
        ({"num_replicas": 32, "exchange": False}, "num_replicas"),
        ({"start": "cold"}, "start"),
        ({"sweeps_per_temperature": 0}, "sweeps_per_temperature"),
        ({"sweeps_per_temperature": 25}, "sweeps_per_temperature"),
        ({"exchange_every": 0}, "exchange_every"),
        ({"max_sweeps": 10}, "max_sweeps"),
        ({"workers": 0}, "workers"),
        ({"first_sweep": 10}, "first_sweep"),
        ({"first_sweep": 5000, "words": np.zeros((1, 12, 2, 8, 8), np.uint32)}, "first_sweep"),
        ({"first_sweep": 15, "words": np.zeros((1, 12, 2, 8, 8), np.uint32)}, "first_sweep"),
        ({"first_sweep": 10, "words": np.zeros((1, 12, 1, 8, 8), np.uint32)}, "words"),
        ({"generator": "xoshiro"}, "generator"),
        ({"bits": 8}, "bits"),
        ({"rule": "wolff"}, "rule"),
    ],
)
def test_bad_input(change, name):
    with pytest.raises(ValueError, match=f"(^|, ){name}"):
        equilibrate(**{"j2": [0.5], "sweeps_per_temperature": 80} | change)
