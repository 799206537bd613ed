"""The fits must find p_c and nu of synthetic counts inside their intervals, and of percolation itself."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.special import expit
from scipy.stats import binom

from physml_jax.analysis import finite_size as fs
from physml_jax.core.rng import example_key
from physml_jax.simulators import percolation

P_C, NU = 0.59274605, 4 / 3


def curve(x):
    return expit(0.3 + 3 * x + 0.2 * x**3)


def records(*, sizes=(16, 32, 64, 128), n=2000, seed=0, share=lambda p, size: curve((p - P_C) * size ** (1 / NU))):
    p = np.tile(np.linspace(0.5, 0.7, 21), len(sizes))
    size = np.repeat(sizes, 21)
    successes = np.random.default_rng(seed).binomial(n, share(p, size))
    return p, size, successes, np.full(len(p), n)


def z(estimate, truth):
    return (estimate.value - truth) / estimate.error


def test_collapse_finds_both_numbers():
    fit = fs.collapse(*records())
    assert abs(z(fit.threshold, P_C)) < 4 and abs(z(fit.exponent, NU)) < 4
    assert fit.threshold.error < 5e-4 and fit.exponent.error < 0.03
    assert fit.threshold.low < fit.threshold.value < fit.threshold.high
    assert fit.p_value > 1e-4 and fit.degrees_of_freedom == fit.used.sum() - 6
    x = np.linspace(-0.5, 0.5, 11)
    np.testing.assert_allclose(fs.scaling_function(fit, x), curve(x), atol=0.02)
    # A wrong exponent would be noticed: the counts do not lie on the curve that belongs to nu = 1.
    wrong = records(share=lambda p, size: curve((p - P_C) * size**1.0))
    assert abs(z(fs.collapse(*wrong).exponent, NU)) > 20


def test_the_interval_covers():
    """16 fits; a 95 % interval misses 0.8 of them on average, more than 5 has a probability of 1e-4."""
    fits = [fs.collapse(*records(seed=s, sizes=(16, 32), n=500), num_resamples=40) for s in range(16)]
    for name, truth in (("threshold", P_C), ("exponent", NU)):
        found = [getattr(f, name) for f in fits]
        assert sum(not e.low <= truth <= e.high for e in found) <= 5
        spread = np.std([e.value for e in found])
        assert spread == pytest.approx(np.mean([e.error for e in found]), rel=0.5)


def test_correction_to_scaling():
    def shifted(p, size):
        return expit(0.3 + 3 * (p - P_C) * size ** (1 / NU) + 4.0 / size)

    counts = records(sizes=(8, 16, 32, 64, 128), n=20_000, share=shifted)
    with_it = fs.collapse(*counts, correction=1.0)
    without = fs.collapse(*counts)
    assert abs(z(with_it.threshold, P_C)) < 4 and with_it.correction == pytest.approx(4.0, abs=0.5)
    assert abs(z(without.threshold, P_C)) > 10 and without.p_value < 1e-6


def test_exact_counts_are_sharper_and_the_fit_knows():
    """Thresholds with a normal distribution, seen at exact counts and under independent occupation."""
    sizes, width = (16, 32, 64), 0.35
    exact, smeared = [], []
    for s in sizes:
        n = np.arange(s * s + 1)
        spread = np.sqrt((width * s ** (-1 / NU)) ** 2 - P_C * (1 - P_C) / s**2)
        steps = np.random.default_rng(s).normal(P_C, spread, 4000)
        thresholds = np.clip(np.round(steps * s * s), 0, s * s).astype(int)
        p = np.round(np.linspace(0.5, 0.7, 21) * s * s) / s**2
        counts = np.cumsum(np.bincount(thresholds, minlength=len(n)))[np.round(p * s * s).astype(int)]
        exact.append((p, np.full(21, s), counts, np.full(21, 4000)))
        share = fs.occupation_average(thresholds, p, num_sites=s * s)
        smeared.append((p, np.full(21, s), np.round(4000 * share), np.full(21, 4000)))
    exact, smeared = (tuple(np.concatenate(c) for c in zip(*r, strict=True)) for r in (exact, smeared))
    naive = fs.collapse(*exact, num_resamples=0).exponent.value
    knowing = fs.collapse(*exact, exact_count=True, num_resamples=0).exponent.value
    independent = fs.collapse(*smeared, num_resamples=0).exponent.value
    assert naive - NU > 0.1
    assert knowing == pytest.approx(NU, abs=0.05) and independent == pytest.approx(NU, abs=0.05)


def test_crossings():
    found = fs.crossings(*records(n=20_000))
    assert [c.sizes for c in found] == [(16, 32), (32, 64), (64, 128)]
    for c in found:
        assert abs(z(c.threshold, P_C)) < 4 and abs(z(c.exponent, NU)) < 4
        assert c.share == pytest.approx(curve(0.0), abs=0.05)
    parallel = records(share=lambda p, size: curve(20 * (p - 0.55 - size / 1000)))
    assert fs.crossings(*parallel, num_resamples=0) == []


@pytest.mark.slow
def test_percolation():
    """p_c and nu of site percolation from simulated states, both kinds of occupation; 12 densities, L = 8, 16, 32.

    Corrections to scaling of so small sizes are of the order of the counting error: 0.003 and 0.1 are granted to them.
    """
    p, n = np.linspace(0.5, 0.66, 12), 250
    kinds = {}
    for kind in ("exact", "independent"):
        parts = []
        for s in (8, 16, 32):
            used = np.round(p * s * s) / s**2 if kind == "exact" else p
            keys = example_key(0, f"{kind}{s}", jnp.arange(12 * n))
            each = np.repeat(used, n)
            if kind == "exact":
                states = jax.jit(percolation.sample, static_argnames="size")(
                    keys, jnp.asarray(np.round(each * s * s), jnp.int32), size=s
                )
            else:
                states = jax.jit(percolation.bernoulli, static_argnames="size")(
                    keys, jnp.asarray(each, jnp.float32), size=s
                )
            spans = np.asarray(jax.jit(percolation.spanning)(states).either)
            parts.append((used, np.full(12, s), spans.reshape(12, n).sum(axis=1), np.full(12, n)))
        kinds[kind] = tuple(np.concatenate(c) for c in zip(*parts, strict=True))
    for kind, counts in kinds.items():
        fit = fs.collapse(*counts, exact_count=kind == "exact", correction=1.0)
        assert abs(fit.threshold.value - P_C) < 4 * fit.threshold.error + 0.003
        assert abs(fit.exponent.value - NU) < 4 * fit.exponent.error + 0.1
    naive = fs.collapse(*kinds["exact"], num_resamples=0)
    assert naive.exponent.value > 1.5


def test_occupation_average_by_enumeration():
    thresholds = np.array([2, 3, 3, 5])
    p = np.array([0.0, 0.3, 1.0])
    expected = [np.mean([sum(binom.pmf(k, 4, q) for k in range(t, 5)) for t in thresholds]) for q in p]
    np.testing.assert_allclose(fs.occupation_average(thresholds, p, num_sites=4), expected, atol=1e-15)
    assert fs.occupation_average(thresholds, np.array([1.0]), num_sites=4)[0] == 0.75  # one state never spans


def test_the_same_seed_gives_the_same_interval():
    counts = records(sizes=(16, 32), n=300)
    a, b, c = (fs.collapse(*counts, num_resamples=30, seed=s) for s in (0, 0, 1))
    assert a.threshold == b.threshold and a.threshold.low != c.threshold.low
    assert fs.collapse(*counts, num_resamples=0).threshold.low is None


@pytest.mark.parametrize(
    ("change", "match"),
    [
        ({"size": np.full(84, 16)}, "at least two sizes"),
        ({"successes": np.full(84, 3000)}, "0 <= successes <= totals"),
        ({"p": np.full(84, np.nan)}, "p: expected 84 finite numbers"),
        ({"p": np.full(84, 0.5)}, "at least three values at size 16"),
        ({"totals": np.zeros(84)}, "totals >= 1"),
        ({"size": np.arange(3)}, "size: expected 84"),
    ],
)
def test_bad_records(change, match):
    names = ("p", "size", "successes", "totals")
    held = dict(zip(names, records(), strict=True)) | change
    for function in (fs.collapse, fs.crossings):
        with pytest.raises(ValueError, match=match):
            function(*(held[n] for n in names))


def test_bad_settings():
    with pytest.raises(ValueError, match="three sizes"):
        fs.collapse(*records(sizes=(16, 32)), correction=1.0)
    with pytest.raises(ValueError, match="degree"):
        fs.collapse(*records(), degree=0)
    with pytest.raises(ValueError, match="cannot fix"):
        fs.collapse(*(x[[0, 10, 20, 21, 31, 41]] for x in records()), degree=4)
    with pytest.raises(ValueError, match="thresholds"):
        fs.occupation_average(np.array([9]), np.array([0.5]), num_sites=4)
    with pytest.raises(ValueError, match="p: expected"):
        fs.occupation_average(np.array([1]), np.array([1.5]), num_sites=4)


def test_a_step_has_no_width_to_fit():
    step = records(sizes=(16, 32, 64), n=200, share=lambda p, size: expit(300 * (p - 0.585)))
    with pytest.raises(ValueError, match="no width to fit"):
        fs.collapse(*step, exact_count=True, degree=1, num_resamples=0)
