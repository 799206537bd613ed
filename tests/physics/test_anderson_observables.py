"""Observables of the Anderson model: hand-made states, exact limits, known values near and away from the transition."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from physml_jax.simulators import anderson
from physml_jax.simulators.anderson import spectrum

dos = jax.jit(functools.partial(anderson.density_of_states, num_moments=64, num_vectors=2))
bar = jax.jit(functools.partial(anderson.bar_localization_length, size=3, num_slices=1600, num_bars=4))
moments = jax.jit(spectrum.chebyshev_moments, static_argnames=("num_moments", "num_vectors"))
ipr = jax.jit(anderson.inverse_participation_ratio)
sums = jax.jit(anderson.box_sums, static_argnames="box")


@functools.cache
def exponential(size=20, length=1.5, centre=(5, 17, 0)):
    """abs(psi) = exp(-r/length) around a site of the torus, with random signs; float32."""
    line = np.minimum(np.arange(size), size - np.arange(size)) ** 2
    psi = np.exp(-np.sqrt(line[:, None, None] + line[:, None] + line) / length)
    sign = np.random.default_rng(0).choice([-1, 1], psi.shape)
    return jnp.asarray(np.roll(psi, centre, (0, 1, 2)) * sign, jnp.float32)


@functools.cache
def gaussian(count=3, size=12):
    return jax.random.normal(jax.random.key(1), (count, size, size, size), jnp.float32)


def site(size=12):
    return jnp.zeros((size, size, size)).at[1, 2, 3].set(-2.0)


# ---- participation ratios ----


def test_participation_of_simple_states():
    """One site: P_q = 1; uniform: N^(1-q); random amplitudes: 3/N for q = 2, 15/N^2 for q = 3 (moments of a normal)."""
    n = 12**3
    states = jnp.stack([site(), jnp.full((12, 12, 12), 7.0), gaussian()[0]])
    second, third = np.asarray(ipr(states, 2.0)), np.asarray(ipr(states, 3.0))
    # A sum of N numbers one after the other is good to N units of rounding, 1e-4.
    np.testing.assert_allclose(second[:2], [1, 1 / n], rtol=1e-4)
    np.testing.assert_allclose(third[:2], [1, n**-2.0], rtol=1e-4)
    np.testing.assert_allclose(anderson.participation_number(site()), 1)
    second = np.asarray(ipr(gaussian(), 2.0))
    # var(x^4) = 96, and the norm takes its share away: 5 standard errors of 1728 numbers are generous.
    assert second.shape == (3,) and np.abs(second * n / 3 - 1).max() < 5 * (96 / 9 / n) ** 0.5


@pytest.mark.parametrize("q", [-1.0, 0.0, 0.5, 2.0, 3.0])
@pytest.mark.parametrize("box", [1, 3])
def test_box_sums_are_their_definition(q, box):
    psi = gaussian()
    n = 12 // box
    mu = np.asarray(psi, np.float64) ** 2
    mu = mu.reshape(3, n, box, n, box, n, box).sum((2, 4, 6)).reshape(3, -1)
    mu /= mu.sum(1, keepdims=True)
    got = sums(psi, q, box=box)
    moment = (mu**q).sum(1)
    np.testing.assert_allclose(got.log_moment, np.log(moment), rtol=2e-5, atol=2e-5)
    np.testing.assert_allclose(got.mean_log, (mu**q * np.log(mu)).sum(1) / moment, rtol=2e-5)
    np.testing.assert_allclose(anderson.box_probabilities(psi, box=box).sum((1, 2, 3)), 1, rtol=1e-5)


def test_alpha0_of_one_size():
    """Uniform: every box holds lambda^3, alpha_0 = 3. Normal: <ln x^2> = -ln 2 - gamma = -1.27036, variance pi^2/2."""
    np.testing.assert_allclose(anderson.one_size_alpha0(jnp.ones((12, 12, 12)), box=2), 3, rtol=1e-6)
    want = 3 + 1.27036 / np.log(12)
    error = (np.pi**2 / 2 / 12**3) ** 0.5 / np.log(12)
    assert np.abs(np.asarray(anderson.one_size_alpha0(gaussian())) - want).max() < 4 * error
    assert np.isfinite(anderson.one_size_alpha0(site()))


def test_exponents_of_extended_and_localised_states():
    """tau_2 = 3 in a metal; alpha_0 = 3 by slope, free of the amplitude that one size has; 0 on a site."""
    log_lambda = -np.log([6.0, 12.0])
    found = [sums(jax.random.normal(jax.random.key(n), (24, n, n, n), jnp.float32), 2.0) for n in (6, 12)]
    for exponent in (anderson.typical_exponent, anderson.ensemble_exponent):
        tau = exponent([s.log_moment for s in found], log_lambda)
        # P_2 of 6^3 normal numbers is below 3/N by 2/N of itself, 0.013 of the slope.
        assert abs(tau.value - 3) < 4 * tau.error + 0.015 and tau.error < 0.05
    zeroth = [sums(jax.random.normal(jax.random.key(n), (24, n, n, n), jnp.float32), 0.0) for n in (6, 12)]
    alpha = anderson.typical_exponent([s.mean_log for s in zeroth], log_lambda)
    assert abs(alpha.value - 3) < 4 * alpha.error and alpha.error < 0.05
    one_site = [np.asarray(sums(jnp.stack([site()] * 3), 2.0, box=b).log_moment) for b in (1, 3)]
    assert anderson.typical_exponent(one_site, np.log(np.array([1, 3]) / 12), same_states=True) == (0.0, 0.0)


def test_typical_and_ensemble_averages_differ_and_their_errors_are_those_of_resampling():
    """ln P normal with variance s^2 growing with -ln lambda: the ensemble exponent is lower by half of its slope."""
    rng = np.random.default_rng(0)
    log_lambda = -np.log([6.0, 12.0, 24.0])
    draw = lambda: [rng.normal(1.2 * x, np.sqrt(0.2 * -x), 400) for x in log_lambda]
    typical = [anderson.typical_exponent(draw(), log_lambda) for _ in range(60)]
    ensemble = [anderson.ensemble_exponent(draw(), log_lambda) for _ in range(60)]
    for found, want in ((typical, 1.2), (ensemble, 1.1)):
        values, errors = np.array(found).T
        assert abs(values.mean() - want) < 4 * values.std() / 60**0.5 + 2e-3
        assert 0.7 < errors.mean() / values.std() < 1.4
    shared = [np.arange(9.0) for _ in log_lambda]
    assert anderson.typical_exponent(shared, log_lambda, same_states=True).error < 1e-12
    assert anderson.typical_exponent(shared, log_lambda).error > 0.1


def test_multifractal_functions_refuse():
    with pytest.raises(ValueError, match="box: expected a divisor of L = 12"):
        anderson.box_sums(gaussian(), 2.0, box=5)
    with pytest.raises(ValueError, match="whole lattice"):
        anderson.one_size_alpha0(gaussian(), box=12)
    with pytest.raises(ValueError, match=r"psi: expected \[..., L, L, L\]"):
        anderson.inverse_participation_ratio(jnp.ones((3, 4, 4)))
    with pytest.raises(ValueError, match="log_lambda"):
        anderson.typical_exponent([np.ones(3)], np.ones(1))
    with pytest.raises(ValueError, match="finite"):
        anderson.typical_exponent([np.ones(3), np.array([1, np.nan])], np.array([1.0, 2.0]))


# ---- lengths ----


def test_lengths_of_an_exponential_state():
    psi = exponential()
    np.testing.assert_allclose(anderson.decay_length(psi), 1.5, rtol=1e-5)
    # On a lattice, and with 20 sites, the second moment of exp(-2 r/xi) misses 3 xi^2 by little.
    np.testing.assert_allclose(anderson.second_moment_length(psi), 1.5, rtol=0.03)
    moved = jnp.roll(psi, (3, 9, 4), (0, 1, 2))
    np.testing.assert_allclose(anderson.second_moment_length(moved), anderson.second_moment_length(psi), rtol=1e-5)


def test_second_moment_of_a_uniform_state():
    """sqrt((L^2 + 2)/12) about any site of an even L, whatever centre the rounding picks."""
    got = float(anderson.second_moment_length(jnp.ones((12, 12, 12))))
    assert (144 / 12) ** 0.5 - 0.05 < got < (146 / 12) ** 0.5 + 0.05
    assert float(anderson.second_moment_length(site())) < 1e-3


def test_bar_without_disorder():
    """Outside the band the slowest wave has the largest energy in the plane, 2 at M = 3: cosh(1/xi) = (E - 2)/2."""
    np.testing.assert_allclose(bar(jax.random.key(0), 0.0, energy=10.0).value, 1 / np.arccosh(4.0), rtol=1e-5)


def test_bar_at_strong_disorder():
    """A localised bar: xi far below its width, falling with W; leading order 1/xi = <ln abs(eps)> = ln(W/2) - 1."""
    weak, strong = (bar(jax.random.key(1), w, energy=0.0) for w in (40.0, 4e4))
    assert weak.value > strong.value
    # The best of nine paths decays a little slower than a single one.
    leading = 1 / (np.log(2e4) - 1)
    assert leading < strong.value < 1.15 * leading


def test_bar_refuses():
    with pytest.raises(ValueError, match="multiple"):
        anderson.bar_localization_length(jax.random.key(0), 1.0, size=3, num_slices=10)
    with pytest.raises(ValueError, match="size"):
        anderson.bar_localization_length(jax.random.key(0), 1.0, size=2)
    with pytest.raises(ValueError, match="num_bars"):
        anderson.bar_localization_length(jax.random.key(0), 1.0, size=3, num_bars=1)


# ---- spectra ----


def levels(width, size, count, num):
    """The ``num`` central levels of ``count`` realisations."""
    found = []
    for seed in range(count):
        eps = np.asarray(anderson.sample_disorder(jax.random.key(seed), width, size=size), np.float64)
        found.append(np.linalg.eigvalsh(anderson.sparse(eps).toarray()))
    found = np.stack(found)
    first = (size**3 - num) // 2
    return found[:, first : first + num]


@pytest.mark.parametrize(
    ("width", "want"), [(6.0, spectrum.GOE_GAP_RATIO), (200.0, spectrum.POISSON_GAP_RATIO)], ids=["goe", "poisson"]
)
def test_gap_ratio_of_both_phases(width, want):
    """abs(z) < 4 for the mean over 12 realisations of 7^3 sites; the other phase's value is 10 errors away."""
    ratio = np.asarray(anderson.gap_ratio(jnp.asarray(levels(width, 7, 12, 150), jnp.float32))).mean(1)
    error = ratio.std(ddof=1) / len(ratio) ** 0.5
    assert abs(ratio.mean() - want) < 4 * error
    other = spectrum.GOE_GAP_RATIO + spectrum.POISSON_GAP_RATIO - want
    assert abs(ratio.mean() - other) > 10 * error


def test_gap_ratio_by_hand():
    found = anderson.gap_ratio(jnp.asarray([[3.0, 0.0, 1.0, 1.0, 1.0]]))
    np.testing.assert_allclose(found, [[0, 0, 0]])
    np.testing.assert_allclose(anderson.gap_ratio(jnp.asarray([0.0, 1.0, 3.0, 3.5])), [0.5, 0.25])
    with pytest.raises(ValueError, match="at least 3"):
        anderson.gap_ratio(jnp.ones(2))


#: Density of states per site at E = 0, from large lattices.
DENSITY = {5.0: 0.1192, 15.0: 0.0620, 16.5: 0.0569, 18.0: 0.0528, 30.0: 0.0333}


@functools.cache
def density(width):
    eps = jax.vmap(lambda k: anderson.sample_disorder(k, width, size=16))(jax.random.split(jax.random.key(0), 6))
    return jax.tree.map(np.asarray, dos(jax.random.key(1), eps, jnp.asarray([0.0, -40.0])))


@pytest.mark.parametrize("width", DENSITY)
def test_density_of_states(width):
    """abs(z) < 4, with an error small enough to tell W = 15, 16.5 and 18 apart by two or more."""
    found = density(width)
    assert abs(found.value[0] - DENSITY[width]) < 4 * found.error[0]
    assert found.error[0] < 0.025 * found.value[0]
    assert found.value[1] == 0


def test_density_of_states_tells_disorders_apart():
    """The estimate at W = 15 fails the test of W = 30 and 5."""
    found = density(15.0)
    assert all(abs(found.value[0] - DENSITY[w]) > 10 * found.error[0] for w in (5.0, 30.0))


def test_chebyshev_moments_are_traces():
    """With all unit vectors' worth of random signs, moments average to those of the exact spectrum."""
    eps = anderson.sample_disorder(jax.random.key(2), 16.5, size=4)
    got = np.asarray(moments(jax.random.key(0), eps, num_moments=8, num_vectors=512))
    low, high = (float(x) for x in anderson.spectral_interval(eps))
    x = (np.linalg.eigvalsh(anderson.sparse(np.asarray(eps)).toarray()) - (high + low) / 2) / (1.01 * (high - low) / 2)
    want = np.cos(np.arange(8)[:, None] * np.arccos(x)).mean(1)
    error = got.std(0, ddof=1) / 512**0.5
    np.testing.assert_allclose(got[:, 0], 1, rtol=1e-6)
    assert (np.abs(got.mean(0) - want) < 4 * error + 1e-5).all()


def test_jackson_kernel():
    """1 at order 0, falling to nearly 0; a delta function stays positive."""
    kernel = spectrum.jackson_kernel(64)
    assert kernel[0] == 1 and (np.diff(kernel) < 0).all() and 0 < kernel[-1] < 1e-3
    angle = np.linspace(0, np.pi, 501)
    series = kernel[0] + 2 * (kernel[1:] @ np.cos(np.arange(1, 64)[:, None] * angle))
    assert series.min() > -1e-12


def test_spectra_refuse():
    eps = jnp.zeros((4, 4, 4))
    with pytest.raises(ValueError, match="num_moments"):
        anderson.density_of_states(jax.random.key(0), eps, jnp.zeros(1), num_moments=7)
    with pytest.raises(ValueError, match="num_vectors"):
        anderson.density_of_states(jax.random.key(0), eps, jnp.zeros(1), num_vectors=0)
    with pytest.raises(ValueError, match=r"energies: expected \[E\]"):
        anderson.density_of_states(jax.random.key(0), eps, jnp.zeros(()))
