"""The noise of the camera against SciPy's distributions: exact quantiles, moments, chi-square, and wrong variants."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.special
import scipy.stats

from physml_jax.core.rng import example_key
from physml_jax.simulators.diffraction import noise

MEANS = (0.02, 0.5, 2.0, 3.9, 4.1, 7.0, 30.0, 1000.0)
ROWS, SIDE = len(MEANS), 256  # 65536 numbers of every mean


@pytest.fixture(scope="module")
def keys():
    return example_key(3, "noise", jnp.arange(ROWS))


@pytest.fixture(scope="module")
def drawn(keys):
    mean = jnp.broadcast_to(jnp.asarray(MEANS, jnp.float32)[:, None, None], (ROWS, SIDE, SIDE))
    return np.asarray(jax.jit(noise.poisson)(keys, mean), np.float64).reshape(ROWS, -1)


def moments_z(x, m):
    """Deviations of mean, variance and third central moment of Poisson numbers, in standard errors (n large)."""
    n, d = len(x), x - m
    k = np.arange(0, m + 40 * np.sqrt(m) + 40)
    p = scipy.stats.poisson.pmf(k, m)
    found = []
    for power in (1, 2, 3):
        expected, square = ((k - m) ** power) @ p, ((k - m) ** (2 * power)) @ p
        found.append(((d**power).mean() - expected) / np.sqrt((square - expected**2) / n))
    return np.array(found)


def chi_square_p(x, m):
    """Probability of a larger chi-square, cells with at least 20 expected."""
    k = np.arange(0, int(m + 12 * np.sqrt(m) + 12))
    expected = scipy.stats.poisson.pmf(k, m) * len(x)
    low, high = np.flatnonzero(expected >= 20)[[0, -1]]
    edges = np.concatenate([[-0.5], np.arange(low + 1, high + 1) - 0.5, [np.inf]])
    cdf = np.concatenate([[0.0], scipy.stats.poisson.cdf(edges[1:-1], m), [1.0]])
    found = np.histogram(x, edges)[0]
    cells = np.diff(cdf) * len(x)
    return scipy.stats.chi2.sf(((found - cells) ** 2 / cells).sum(), len(cells) - 1)


def test_poisson_statistics(drawn):
    """n = 2^16 per mean; mean, variance, third moment within 5 standard errors, chi-square not below 1e-5."""
    for m, x in zip(MEANS, drawn, strict=True):
        assert (np.abs(moments_z(x, m)) < 5).all(), m
        assert chi_square_p(x, m) > 1e-5, m
        assert (x == np.floor(x)).all() and x.min() >= 0


def test_wrong_variants_fail(drawn):
    """A rounded normal number, and numbers of a mean that is 2 % too large, do not pass the same tests."""
    z = scipy.stats.norm.ppf((np.arange(SIDE**2) + 0.5) / SIDE**2)
    for m in (7.0, 30.0):
        rounded = np.maximum(np.round(m + np.sqrt(m) * z), 0)
        assert np.abs(moments_z(rounded, m)).max() > 5 and chi_square_p(rounded, m) < 1e-5
    assert np.abs(moments_z(drawn[MEANS.index(2.0)], 2.04)).max() > 5


def test_poisson_quantile_is_scipys():
    """As a function of the uniform number: exact below 4, off by one on at most 2e-3 of the numbers above."""
    u = ((np.arange(4096) + 0.5) / 4096).astype(np.float32)
    for m in MEANS:
        expected = scipy.stats.poisson.ppf(np.float64(u), m)
        found = np.asarray(noise.poisson_quantile(jnp.asarray(u), jnp.full(4096, m, jnp.float32)))
        assert np.abs(found - expected).max() <= 1
        assert (found != expected).mean() <= (0 if m < 4 else 2e-3), m


def test_rare_numbers():
    """Past the 14th term the expansion goes on; small means have no outliers."""
    u = jnp.asarray([1 - 2.0**-24, 1 - 2.0**-22, 2.0**-24], jnp.float32)
    for m in (3.0, 3.9, 4.0, 12.0):
        expected = scipy.stats.poisson.ppf(np.asarray(u, np.float64), m)
        np.testing.assert_allclose(noise.poisson_quantile(u, jnp.full(3, m, jnp.float32)), expected, atol=1)
    assert float(noise.poisson_quantile(u, jnp.full(3, 1e-3, jnp.float32)).max()) <= 3
    assert float(noise.poisson_quantile(u, jnp.zeros(3)).max()) == 0
    assert float(noise.poisson_quantile(u, jnp.full(3, -1.0)).max()) == 0


def test_normal_quantile():
    u = jnp.concatenate([jnp.logspace(-7.2, -0.31, 2000), 1 - jnp.logspace(-6.5, -0.31, 2000)]).astype(jnp.float32)
    found = np.asarray(noise._normal_quantile(u))
    np.testing.assert_allclose(found, scipy.special.ndtri(np.asarray(u, np.float64)), atol=1e-5)


def test_uniform_numbers(keys):
    """n = 8 * 2^14: Kolmogorov-Smirnov, no correlation with the neighbour, and other keys give other numbers."""
    x = np.asarray(jax.jit(lambda k: noise.uniform(k, (16384,)))(keys), np.float64)
    assert 0 < x.min() and x.max() < 1
    for row in x:
        assert scipy.stats.kstest(row, "uniform").pvalue > 1e-5
    limit = 5 / np.sqrt(x.size)
    c = x - 0.5
    for lag in (1, 2, 128):
        assert abs((c[:, lag:] * c[:, :-lag]).mean() * 12) < limit
    assert abs((c[1:] * c[:-1]).mean() * 12) < limit
    bits = np.round(x[:, :4096] * 2**23 - 0.5).astype(np.int64)
    ones = ((bits[..., None] >> np.arange(23)) & 1).mean((0, 1))
    assert np.abs(ones - 0.5).max() < 5 * 0.5 / np.sqrt(8 * 4096)


@pytest.mark.slow
def test_a_row_knows_only_its_key(keys):
    mean = jnp.full((ROWS, 8, 8), 3.0)
    whole = noise.poisson(keys, mean)
    np.testing.assert_array_equal(whole[2:3], noise.poisson(keys[2:3], mean[:1]))
    assert (whole[0] != whole[1]).any()


def test_record_moments(keys):
    """Mean image, variance (image + read^2 + spread^2 image dose) / dose^2; infinite dose is exact."""
    value, dose, read, spread = 2e-3, 3000.0, 0.7, 0.4
    image = jnp.full((ROWS, 256, 256), value)
    given = {"gain": 3.0, "gain_spread": spread, "read_noise": read}
    found = np.asarray(jax.jit(lambda k, i: noise.record(k, i, dose=dose, **given))(keys, image), np.float64) / 3.0
    n, electrons = found.size, value * dose
    variance = (electrons * (1 + spread**2) + read**2) / dose**2
    assert abs(found.mean() - value) < 5 * np.sqrt(variance / n)
    assert abs(found.var() / variance - 1) < 5 * np.sqrt(3 / n)
    assert abs(found.var() / (variance - read**2 / dose**2) - 1) > 5 * np.sqrt(3 / n)
    exact = noise.record(keys, image[:, :8, :8], dose=jnp.inf, **given)
    np.testing.assert_array_equal(exact, 3.0 * image[:, :8, :8])


def test_bad_input(keys):
    with pytest.raises(ValueError, match="keys and mean"):
        noise.poisson(keys, jnp.ones((2, 3)))
    with pytest.raises(ValueError, match="keys: expected one axis"):
        noise.uniform(keys[0], (3,))
