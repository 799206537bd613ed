"""Energies, order parameters and estimators of the Ising model on states and numbers whose answers are known."""

import functools
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from physml_jax.simulators import ising
from physml_jax.simulators.ising import exact


@functools.cache
def random_states():
    return np.asarray(jax.random.rademacher(jax.random.key(1), (2, 3, 6, 6), jnp.int8))


def patterns(size):
    """Ferromagnet, the four stripes, the checkerboard."""
    i, j = np.indices((size, size))
    row, column = (-1) ** i, (-1) ** j
    return np.stack([np.ones_like(i), row, -row, column, -column, row * column]).astype(np.int8)


# ---- one state ----


def test_bond_sums_count_every_bond_once():
    states = random_states()
    nn, nnn = np.zeros(states.shape[:-2], int), np.zeros(states.shape[:-2], int)
    s = states.astype(int)
    for i, j in itertools.product(range(6), repeat=2):
        for k, l in itertools.product(range(6), repeat=2):
            dy, dx = min((i - k) % 6, (k - i) % 6), min((j - l) % 6, (l - j) % 6)
            if dy + dx == 1:
                nn += s[..., i, j] * s[..., k, l]
            elif dy == dx == 1:
                nnn += s[..., i, j] * s[..., k, l]
    sums = ising.bond_sums(jnp.asarray(states))
    assert all(x.dtype == jnp.int32 for x in sums)
    np.testing.assert_array_equal(sums.nn, nn // 2)
    np.testing.assert_array_equal(sums.nnn, nnn // 2)
    np.testing.assert_array_equal(sums.up, (states > 0).sum((-2, -1)))


def test_bond_sums_and_orders_are_those_of_the_enumeration():
    states = exact.enumerate_states()
    sums, stripes = ising.bond_sums(jnp.asarray(states)), ising.stripe_order(jnp.asarray(states))
    rows = np.stack([sums.nn, sums.nnn, 2 * sums.up - 16, 16 * stripes.row, 16 * stripes.column], 1).astype(int)
    found, count = np.unique(rows, axis=0, return_counts=True)
    want = exact.enumerate_lattice()
    np.testing.assert_array_equal(np.concatenate([count[:, None], found], 1), np.stack(want, 1))


@pytest.mark.parametrize("size", [4, 10])
def test_order_parameters_of_perfect_patterns(size):
    states = jnp.asarray(patterns(size))
    np.testing.assert_array_equal(ising.magnetization(states), [1, 0, 0, 0, 0, 0])
    np.testing.assert_array_equal(ising.staggered_magnetization(states), [0, 0, 0, 0, 0, 1])
    stripes = ising.stripe_order(states)
    np.testing.assert_array_equal(stripes.row, [0, 1, -1, 0, 0, 0])
    np.testing.assert_array_equal(stripes.column, [0, 0, 0, 1, -1, 0])
    np.testing.assert_array_equal(stripes.maximum, [0, 1, 1, 1, 1, 0])
    np.testing.assert_array_equal(stripes.norm, [0, 1, 1, 1, 1, 0])


def test_both_stripe_orders_differ_in_a_mixed_state():
    """Two sublattices free to turn against each other: row = column = 1/2 when one of four is against the stripes."""
    state = patterns(8)[1].copy()
    state[0::2, 0::2] *= -1
    stripes = ising.stripe_order(jnp.asarray(state))
    np.testing.assert_allclose([stripes.row, stripes.column], [0.5, -0.5])
    np.testing.assert_allclose([stripes.maximum, stripes.norm], [0.5, 0.5**0.5])


@pytest.mark.parametrize("j2", [0.0, 0.3, 0.5, 0.7, 1.5])
def test_ground_states(j2):
    """Ferromagnet below J2 = 1/2, stripes above, both at it; no state of 4 x 4 is lower."""
    energy = np.asarray(ising.energy(jnp.asarray(patterns(8)), j2))
    lowest = float(ising.ground_state_energy(j2))
    np.testing.assert_allclose(lowest, -2 + 2 * j2 if j2 <= 0.5 else -2 * j2, rtol=1e-6)
    np.testing.assert_array_equal(np.isclose(energy, lowest), [j2 <= 0.5] + [j2 >= 0.5] * 4 + [False])
    classes = exact.enumerate_lattice()
    np.testing.assert_allclose(((-classes.nn + j2 * classes.nnn) / 16).min(), lowest, rtol=1e-6)


def test_energy_takes_couplings_per_state():
    states = jnp.asarray(random_states())
    sums = ising.bond_sums(states)
    j2, h = jnp.linspace(0, 1, 6, dtype=jnp.float32).reshape(2, 3), 0.25
    want = (j2 * sums.nnn - sums.nn - h * (2 * sums.up - 36)) / 36
    np.testing.assert_allclose(ising.energy(states, j2, h), want, rtol=1e-6)
    np.testing.assert_allclose(ising.energy(states, j2[:, :1])[:, 0], ising.energy(states[:, 0], j2[:, 0]), rtol=1e-6)
    assert ising.energy(states, j2).dtype == jnp.float32
    with jax.enable_x64(True):
        assert ising.energy(jnp.asarray(random_states()), jnp.float64(0.1)).dtype == jnp.float64


def test_correlation_function_is_the_sum_over_pairs():
    states = random_states()
    got = np.asarray(ising.correlation_function(jnp.asarray(states)))
    want = np.zeros(states.shape, np.float32)
    for dy, dx in itertools.product(range(6), repeat=2):
        pairs = states.astype(int) * np.roll(states, (-dy, -dx), (-2, -1))
        want[..., dy, dx] = pairs.sum((-2, -1), dtype=int) / np.float32(36)
    np.testing.assert_allclose(got, want, rtol=2e-7)
    nn = ising.bond_sums(jnp.asarray(states)).nn
    np.testing.assert_allclose((got[..., 0, 1] + got[..., 1, 0]) * 36, nn, atol=1e-4)


def test_correlation_function_is_exact_at_the_largest_size():
    large = jax.random.rademacher(jax.random.key(2), (120, 120), jnp.int8)
    got = np.asarray(ising.correlation_function(large)) * np.float32(14400)
    s = np.asarray(large, int)
    for dy, dx in [(0, 0), (1, 0), (17, 60), (119, 3)]:
        np.testing.assert_allclose(got[dy, dx], (s * np.roll(s, (-dy, -dx), (0, 1))).sum(), rtol=2e-7)
    np.testing.assert_array_equal(np.asarray(ising.correlation_function(jnp.ones((120, 120), jnp.int8))), 1)


# ---- many states ----


def coverage(estimates, truth):
    """Mean square score of independent estimates: 1 when their errors are right."""
    return float(np.mean(((np.asarray(estimates.value) - truth) / np.asarray(estimates.error)) ** 2))


def test_jackknife_of_a_mean_is_the_standard_error():
    x = jax.random.normal(jax.random.key(0), (5, 64), jnp.float32)
    got = ising.mean(x)
    np.testing.assert_allclose(got.value, x.mean(-1), rtol=1e-5, atol=1e-7)
    np.testing.assert_allclose(got.error, x.std(-1, ddof=1) / 8, rtol=1e-5)
    blocks = ising.mean(x, num_blocks=10)  # six samples each, the last four unused
    np.testing.assert_allclose(blocks.error, x[:, :60].reshape(5, 10, 6).mean(-1).std(-1, ddof=1) / 10**0.5, rtol=1e-5)


def test_errors_cover_the_truth():
    """2000 sets of 50 Gaussian numbers: mean square score 1 (49/47 by Student) for means, ratios and variances."""
    sets = jax.random.normal(jax.random.key(4), (2000, 50), jnp.float32)
    assert abs(coverage(ising.mean(sets), 0.0) - 1) < 0.1
    ratio = ising.jackknife(lambda a, b: a / b, sets + 5, jnp.roll(sets, 1, 0) + 5)
    assert abs(coverage(ratio, 1.0) - 1) < 0.15
    # A variance of few numbers is lowest where its error is, so 200 sets of 500.
    variance = ising.specific_heat(sets.reshape(200, 500), 1.0, num_sites=1)
    assert abs(coverage(variance, 499 / 500) - 1) < 0.3
    assert coverage(ising.Estimate(variance.value, variance.error / 2), 499 / 500) > 2


def test_binder_cumulant_limits():
    gaussian = jax.random.normal(jax.random.key(5), (2, 200_000), jnp.float32)
    disordered = ising.binder_cumulant(gaussian)
    assert (abs(disordered.value / disordered.error) < 4).all() and (disordered.error < 0.01).all()
    np.testing.assert_allclose(ising.binder_cumulant(jnp.asarray([0.9, -0.9, 0.9])).value, 2 / 3, rtol=1e-6)
    norm = jnp.sqrt((gaussian**2).sum(0))
    both = ising.binder_cumulant(norm, components=2)
    assert abs(both.value / both.error) < 4
    np.testing.assert_allclose(ising.binder_cumulant(norm, components=1).value, 1 / 3, atol=0.01)
    np.testing.assert_allclose(ising.binder_cumulant(jnp.ones(8), components=2).value, 0.5)


@pytest.mark.slow
def test_response_functions_of_enumerated_states():
    """Replicas drawn from the exact distribution of 4 x 4 give the exact Cv, Binder cumulant and susceptibilities."""
    temperature, j2, count = np.array([1.5, 3.0]), 0.2, 20_000
    classes = exact.enumerate_lattice()
    e = (-classes.nn + j2 * classes.nnn) / 16
    energy, m = [], []
    for t, k in zip(temperature, jax.random.split(jax.random.key(6), 2), strict=True):
        p = jnp.asarray(np.log(classes.count) - 16 * (e - e.min()) / t, jnp.float32)
        drawn = np.asarray(jax.random.categorical(k, p, shape=(count,)))
        energy.append(e[drawn])
        m.append(classes.total[drawn] / 16)
    energy, m, t = jnp.asarray(energy, jnp.float32), jnp.asarray(m, jnp.float32), jnp.asarray(temperature, jnp.float32)
    want = exact.thermal_averages(temperature, j2)
    m2, m4, m1 = want.magnetization_squared, want.magnetization_fourth, want.abs_magnetization
    for got, truth in [
        (ising.specific_heat(energy, t, num_sites=16), want.specific_heat),
        (ising.susceptibility(m, t, num_sites=16), 16 * m2 / temperature),
        (ising.connected_susceptibility(m, t, num_sites=16), 16 * (m2 - m1**2) / temperature),
        (ising.binder_cumulant(m), 1 - m4 / (3 * m2**2)),
    ]:
        z = (np.asarray(got.value) - truth) / np.asarray(got.error)
        assert (abs(z) < 4).all() and (np.asarray(got.error) < 0.05 * truth).all(), (got, truth)


# ---- time series ----


@jax.jit
def recursion(rho):
    noise = jax.random.normal(jax.random.key(7), (4096, 64), jnp.float32)
    scale = jnp.sqrt(1 - rho**2)
    _, x = jax.lax.scan(lambda x, z: (y := rho * x + scale * z, y), noise[0], noise)
    return x.T


@functools.cache
def autoregression(rho):
    """64 Gaussian series of 4096 with covariance rho^t, for which tau = (1 + rho) / (1 - rho) / 2."""
    return recursion(jnp.float32(rho))


autocorrelation = jax.jit(
    lambda x: (ising.integrated_autocorrelation_time(x), ising.integrated_autocorrelation_time(x, replicas=True))
)
block = jax.jit(lambda x: (ising.blocking(x), ising.blocked_mean(x), ising.mean(x), ising.mean(x, num_blocks=32)))


@pytest.mark.parametrize(("rho", "tau"), [(0.0, 0.5), (0.9, 9.5)])
def test_autocorrelation_time_of_an_autoregression(rho, tau):
    single, together = autocorrelation(autoregression(rho))
    assert single.value.shape == (64,)
    mean = ising.mean(single.value)
    # The window leaves out exp(-5) of the sum, and a mean that is estimated takes away a little more.
    assert -0.04 * tau - 4 * mean.error < mean.value - tau < 4 * mean.error
    # The quoted errors are the scatter of the series, or somewhat more where the window fluctuates with tau.
    assert 0.8 < np.sqrt((single.error**2).mean()) / np.std(single.value) < 1.6
    np.testing.assert_allclose(together.value, tau, atol=0.02 * tau + 4 * together.error)
    assert together.error < single.error.mean() / 4


def test_a_frozen_or_short_series_has_no_autocorrelation_time():
    assert np.isinf(ising.integrated_autocorrelation_time(jnp.ones(64)).value)
    drift = jnp.linspace(0, 1, 64, dtype=jnp.float32)
    assert np.isinf(ising.integrated_autocorrelation_time(drift).value)
    # Replicas that are frozen in different states never forget.
    frozen = jnp.broadcast_to(jnp.asarray([[1.0], [-1.0]]), (2, 64))
    assert np.isinf(ising.integrated_autocorrelation_time(frozen, replicas=True).value)


def test_blocking_finds_the_error_of_a_correlated_mean():
    truth = float(np.sqrt(2 * 9.5 / 4096))  # unit variance
    levels, got, naive, fixed = block(autoregression(0.9))
    assert levels.errors.shape == levels.scatter.shape == (64, 12)
    np.testing.assert_allclose(levels.errors[:, 0], 1 / 64, rtol=0.2)  # naive: as if independent
    np.testing.assert_allclose(got.error.mean(), truth, rtol=0.1)
    assert 0.6 < coverage(got, 0.0) < 1.6 < coverage(naive, 0.0)
    np.testing.assert_allclose(fixed.error.mean(), truth, rtol=0.1)
    # Independent numbers need no blocks, constant ones have no error.
    np.testing.assert_allclose(block(autoregression(0.0))[1].error, 1 / 64, rtol=0.25)
    np.testing.assert_array_equal(ising.blocked_mean(jnp.full(64, 2.0)), (2, 0))


def test_bad_input_is_refused():
    ones = jnp.ones((4, 6, 6), jnp.int8)
    for fn in (ising.bond_sums, ising.magnetization, ising.stripe_order, ising.staggered_magnetization):
        for spins in (ones.astype(jnp.float32), ones[..., :4], ones[:, :5, :5], ones[0, 0], ones[:, :2, :2]):
            with pytest.raises(ValueError, match="spins: "):
                fn(spins)
    with pytest.raises(ValueError, match="spins: "):
        ising.correlation_function(ones[..., :4])
    x = jnp.ones(8)
    for fn, name in [
        (lambda: ising.mean(x[:1]), "samples"),
        (lambda: ising.mean(jnp.float32(1)), "samples"),
        (lambda: ising.specific_heat(jnp.float32(1), 1.0, num_sites=4), "samples"),
        (lambda: ising.jackknife(lambda a, b: a, x, x[:4]), "samples"),
        (lambda: ising.jackknife(lambda: 0), "samples"),
        (lambda: ising.mean(x, num_blocks=9), "num_blocks"),
        (lambda: ising.mean(x, num_blocks=1), "num_blocks"),
        (lambda: ising.binder_cumulant(x, components=0), "components"),
        (lambda: ising.blocking(x[:3]), "series"),
        (lambda: ising.blocked_mean(x[:3]), "series"),
        (lambda: ising.integrated_autocorrelation_time(x[:3]), "series"),
        (lambda: ising.integrated_autocorrelation_time(x, replicas=True), "series"),
        (lambda: ising.integrated_autocorrelation_time(x, window=0.0), "window"),
    ]:
        with pytest.raises(ValueError, match=f"{name}: "):
            fn()
