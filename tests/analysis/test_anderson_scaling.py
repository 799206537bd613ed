"""The fits must find W_c and nu of synthetic values inside their intervals, notice what is wrong, and see a transition
in real bars."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from physml_jax.analysis import anderson_scaling as scaling
from physml_jax.simulators import anderson

W_C, NU = 16.53, 1.59
WIDTHS = np.array([14, 15, 15.75, 16.5, 17.25, 18, 19])


def curve(x):
    return np.log(0.576) - 0.9 * x - 0.15 * x**2


def records(*, sizes=(4, 6, 8, 10), widths=WIDTHS, nu=NU, noise=0.004, seed=0, extra=lambda x, size: 0.0):
    """ln(xi/M) of bars: as steep and as curved as real ones."""
    width, size = np.tile(widths, len(sizes)), np.repeat(np.asarray(sizes), len(widths))
    x = (width / W_C - 1) * size ** (1 / nu)
    value = curve(x) + extra(x, size)
    return width, size, value + noise * np.random.default_rng(seed).normal(size=len(value)), np.full(len(value), noise)


def z(estimate, truth):
    return (estimate.value - truth) / estimate.error


def test_fit_finds_both_numbers():
    fit = scaling.scaling_fit(*records(), num_resamples=100)
    assert abs(z(fit.threshold, W_C)) < 4 and abs(z(fit.exponent, NU)) < 4
    assert abs(z(fit.critical_value, np.log(0.576))) < 4
    assert fit.threshold.error < 0.05 and fit.exponent.error < 0.1
    assert fit.threshold.low < fit.threshold.value < fit.threshold.high
    assert fit.p_value > 1e-4 and fit.degrees_of_freedom == 28 - 6
    x = np.linspace(-0.6, 0.6, 11)
    np.testing.assert_allclose(scaling.scaling_function(fit, x), curve(x), atol=0.02)
    np.testing.assert_allclose(scaling.predicted(fit, 16.0, 6), curve((16 / W_C - 1) * 6 ** (1 / NU)), atol=0.01)
    np.testing.assert_allclose(fit.corrected, records()[2])
    # A wrong exponent would be noticed, and so would a wrong disorder.
    wrong = scaling.scaling_fit(*records(nu=1.0), num_resamples=60)
    assert abs(z(wrong.exponent, NU)) > 20
    width, *rest = records()
    moved = scaling.scaling_fit(width * 1.02, *rest, num_resamples=60)
    assert abs(z(moved.threshold, W_C)) > 5


def test_the_interval_covers():
    """16 fits; a 95 % interval misses 0.8 of them on average, more than 5 has a probability of 1e-4."""
    fits = [scaling.scaling_fit(*records(seed=s, sizes=(4, 8)), field_degree=1, num_resamples=40) for s in range(16)]
    for name, truth in (("threshold", W_C), ("exponent", NU)):
        found = [getattr(f, name) for f in fits]
        assert sum(not e.low <= truth <= e.high for e in found) <= 5
        spread = np.std([e.value for e in found])
        assert spread == pytest.approx(np.mean([e.error for e in found]), rel=0.5)
    assert 0.5 < np.mean([f.deviance / f.degrees_of_freedom for f in fits]) < 1.5


def test_correction_to_scaling():
    """A correction moves a fit that ignores it by many errors, shows in its deviance, and is taken away by the term."""
    shifted = records(noise=0.001, extra=lambda x, size: 2.0 * size**-3.0)
    without = scaling.scaling_fit(*shifted, num_resamples=40)
    with_it = scaling.scaling_fit(*shifted, omega=3.0, num_resamples=40)
    assert abs(z(without.threshold, W_C)) > 10 and without.p_value < 1e-6
    assert abs(z(with_it.threshold, W_C)) < 4 and abs(z(with_it.exponent, NU)) < 4 and with_it.p_value > 1e-4
    assert with_it.correction == pytest.approx([2.0], rel=0.15) and without.correction.size == 0
    np.testing.assert_allclose(with_it.corrected, curve(with_it.x), atol=0.01)
    np.testing.assert_allclose(scaling.predicted(with_it, *shifted[:2]), shifted[2], atol=0.005)
    # What is wrong without the correction gets better without the smallest sizes.
    found = scaling.survey(*shifted, degrees=(2,), omegas=(3.0, None), num_resamples=0)
    assert [(c.smallest, c.omega) for c in found] == [(4, None), (6, None), (8, None), (4, 3.0)]
    off = [abs(c.fit.threshold.value - W_C) for c in found]
    assert off[0] > off[1] > off[2] > 2 * off[3]


def test_curved_field_and_correction_with_a_slope():
    bent = records(
        widths=np.linspace(10, 24, 15), noise=0.001, extra=lambda x, size: (1 + x) / size**3
    )  # the same x, so only the correction is new
    fit = scaling.scaling_fit(*bent, omega=3.0, correction_degree=1, num_resamples=20)
    assert abs(z(fit.threshold, W_C)) < 4 and abs(z(fit.exponent, NU)) < 4 and fit.field == pytest.approx([0], abs=0.1)
    assert fit.degrees_of_freedom == 60 - 8
    w = bent[0] / W_C - 1
    field = (w + 0.8 * w**2) * bent[1] ** (1 / NU)
    value = curve(field) + 0.001 * np.random.default_rng(1).normal(size=60)
    fit = scaling.scaling_fit(*bent[:2], value, bent[3], num_resamples=0)
    assert fit.field == pytest.approx([0.8], abs=0.1) and fit.p_value > 1e-4
    assert scaling.scaling_fit(*bent[:2], value, bent[3], field_degree=1, num_resamples=0).p_value < 1e-6


def test_crossings():
    found = scaling.crossings(*records(noise=0.001))
    assert [c.sizes for c in found] == [(4, 6), (6, 8), (8, 10)]
    for c in found:
        # Polynomials in W of every size are not exactly the curve in x.
        assert abs(c.threshold.value - W_C) < 4 * c.threshold.error + 0.02
        assert abs(c.exponent.value - NU) < 4 * c.exponent.error + 0.05
        assert c.value.value == pytest.approx(np.log(0.576), abs=0.01)
    # A correction makes them drift towards W_c.
    shifted = records(noise=1e-4, extra=lambda x, size: 2.0 * size**-3.0)
    drift = [abs(c.threshold.value - W_C) for c in scaling.crossings(*shifted, num_resamples=0)]
    assert drift[0] > drift[1] > drift[2] > 0.05
    width, size, *_ = records()
    parallel = -0.05 * width + 0.01 * size, np.full(28, 0.001)
    assert scaling.crossings(width, size, *parallel, num_resamples=0) == []


def test_values_that_rise_with_disorder():
    """alpha_0 and its like: the sign of the slope is free."""
    width, size, value, error = records()
    fit = scaling.scaling_fit(width, size, 4 - value, error, num_resamples=40)
    assert abs(z(fit.threshold, W_C)) < 4 and abs(z(fit.exponent, NU)) < 4
    assert all(abs(c.threshold.value - W_C) < 0.3 for c in scaling.crossings(width, size, 4 - value, error))


def test_the_same_seed_gives_the_same_interval():
    a, b, c = (scaling.scaling_fit(*records(sizes=(4, 8)), num_resamples=30, seed=s) for s in (0, 0, 1))
    assert a.threshold == b.threshold and a.threshold.low != c.threshold.low
    assert scaling.scaling_fit(*records(), num_resamples=0).threshold.low is None


def test_log_reduced_length():
    value, error = scaling.log_reduced_length([2.0, 6.0], [0.02, 0.03], [4, 6])
    np.testing.assert_allclose(value, [-np.log(2), 0])
    np.testing.assert_allclose(error, [0.01, 0.005])
    with pytest.raises(ValueError, match="positive"):
        scaling.log_reduced_length([-1.0], [0.1], [4])


@pytest.mark.parametrize(
    ("change", "match"),
    [
        ({"size": np.full(28, 4)}, "at least two sizes"),
        ({"value": np.full(28, np.nan)}, "value: expected 28 finite numbers"),
        ({"error": np.zeros(28)}, "error: expected positive"),
        ({"width": np.zeros(28)}, "width: expected positive"),
        ({"size": np.arange(3)}, "size: expected 28"),
    ],
)
def test_bad_records(change, match):
    names = ("width", "size", "value", "error")
    held = dict(zip(names, records(), strict=True)) | change
    for function in (scaling.scaling_fit, scaling.crossings, scaling.survey):
        with pytest.raises(ValueError, match=match):
            function(*(held[n] for n in names))


def test_bad_settings():
    with pytest.raises(ValueError, match="three sizes"):
        scaling.scaling_fit(*records(sizes=(4, 8)), omega=3.0)
    with pytest.raises(ValueError, match="degree"):
        scaling.scaling_fit(*records(), degree=0)
    with pytest.raises(ValueError, match="cannot fix"):
        scaling.scaling_fit(*records(sizes=(4, 8), widths=WIDTHS[:3]), degree=3)
    with pytest.raises(ValueError, match="more than 2 disorders at size 4"):
        scaling.crossings(*records(widths=WIDTHS[:2]))


@pytest.mark.slow
def test_bars():
    """W_c and nu of real bars of M = 4 and 6 at seven disorders, 8 bars of 4000 slices each.

    Corrections to scaling of so narrow bars are granted 0.5 of W_c and 0.2 of nu; bars whose W is wrong by a tenth
    (uniform in a box that is too wide) are found out.
    """
    lengths = {}
    for size in (4, 6):
        bars = functools.partial(anderson.bar_localization_length, size=size, num_slices=4000, num_bars=8)
        keys = jax.random.split(jax.random.key(size), len(WIDTHS))
        lengths[size] = jax.jit(jax.vmap(bars))(keys, jnp.asarray(WIDTHS, jnp.float32))
    size = np.repeat([4, 6], len(WIDTHS))
    length, error = (np.concatenate([getattr(lengths[s], k) for s in (4, 6)]) for k in ("value", "error"))
    value = scaling.log_reduced_length(length, error, size)
    fit = scaling.scaling_fit(np.tile(WIDTHS, 2), size, *value)
    assert abs(fit.threshold.value - W_C) < 4 * fit.threshold.error + 0.5 and fit.threshold.error < 0.4
    assert abs(fit.exponent.value - NU) < 4 * fit.exponent.error + 0.2
    assert np.exp(fit.critical_value.value) == pytest.approx(0.576, abs=0.04)
    wrong = scaling.scaling_fit(np.tile(WIDTHS, 2) / 1.1, size, *value)
    assert abs(wrong.threshold.value - W_C) > 4 * wrong.threshold.error
