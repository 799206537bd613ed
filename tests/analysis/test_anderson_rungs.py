"""The ladder as probabilities: laws of extremes, scalars of a state, densities whose mean moves with W."""

import numpy as np
import pytest

from physml_jax.analysis import anderson_ladder as ladder
from physml_jax.simulators import anderson

WIDTHS = np.array([15.0, 16.5, 18.0])


def eigenstates(count, seed, size=5):
    """States nearest 0 by LAPACK, with energies and classes."""
    rng = np.random.default_rng(seed)
    hopping = anderson.sparse(np.zeros((size,) * 3)).toarray()
    rows = []
    for c, width in enumerate(WIDTHS):
        for _ in range(count):
            energies, states = np.linalg.eigh(hopping + np.diag(width * (rng.random(size**3) - 0.5)))
            k = np.abs(energies).argmin()
            rows.append((states[:, k].reshape((size,) * 3), energies[k], c))
    states, energies, labels = (np.array(x) for x in zip(*rows, strict=True))
    return states, energies, labels


@pytest.fixture(scope="module")
def train():
    return eigenstates(40, 0)


@pytest.fixture(scope="module")
def test_set():
    return eigenstates(20, 1)


@pytest.mark.parametrize("known", [True, False])
def test_local_rules_are_bayes(known):
    """With E: right unless the largest of N numbers falls below the next smaller class, 1 - (W'/W)^N."""
    widths, n, draws = np.array([16.0, 16.2, 16.3, 16.4]), 216, 4000
    rng = np.random.default_rng(0)
    right = []
    for c, width in enumerate(widths):
        eps = width * (rng.random((draws, n)) - 0.5)
        estimate = (2 * np.abs(eps).max(1) * (n + 1) / n) if known else (np.ptp(eps, axis=1) * (n + 1) / (n - 1))
        assert estimate.mean() == pytest.approx(width, abs=5 * 1.5 * width / n / np.sqrt(draws))
        log = ladder.local_log_likelihood(estimate, widths, num_sites=n, energy_known=known, rounding=1e-6)
        right.append((log.argmax(1) == c).mean())
    expected = np.array([1, *(1 - (widths[:-1] / widths[1:]) ** n)])
    error = 5 * np.sqrt(expected * (1 - expected) / draws) + 1e-9
    if known:
        assert (np.abs(right - expected) <= error).all()
    else:
        assert (np.array(right[1:]) < expected[1:] - error[1:]).all()  # the range knows less
        # ... but more than the class nearest to the unbiased estimate.
        nearest = []
        for c, width in enumerate(widths):
            r = np.ptp(width * (rng.random((draws, n)) - 0.5), axis=1) * (n + 1) / (n - 1)
            nearest.append((np.abs(r[:, None] - widths).argmin(1) == c).mean())
        assert np.mean(right) > np.mean(nearest) + 0.01


def test_likelihoods_are_normalised():
    """Integrated over the extreme, every class has weight one but for the same constant."""
    n, widths = 27, np.array([10.0, 12.0])
    for known, scale in ((True, n / (n + 1)), (False, (n - 1) / (n + 1))):
        extreme = np.linspace(1e-3, 12, 40001)
        log = ladder.local_log_likelihood(extreme / scale, widths, num_sites=n, energy_known=known, rounding=1e-7)
        weight = np.trapezoid(np.exp(log), extreme, axis=0)
        assert weight[0] == pytest.approx(weight[1], rel=1e-3)


def test_destroyed_amplitudes_still_have_an_answer():
    found = ladder.posterior(
        ladder.local_log_likelihood(np.array([-np.inf, 0, 1, 30, np.nan]), WIDTHS, num_sites=125, energy_known=False)
    )
    assert np.isfinite(found).all() and found.argmax(1).tolist() == [0, 0, 0, 2, 0]


def test_scalars(train):
    states = train[0][:7]
    found = ladder.scalars(states, chunk_size=3)
    weight = (states**2).reshape(7, -1)
    names = list(ladder.SCALAR_NAMES)
    assert found.shape == (7, len(names))
    np.testing.assert_allclose(found[:, 0], -np.log(weight).mean(1) / np.log(5))
    np.testing.assert_allclose(found[:, names.index("ln P_2")], np.log((states**4).sum((1, 2, 3))))
    np.testing.assert_allclose(np.exp(found[:, names.index("ln of the largest abs(ψ)²")]), weight.max(1))
    uniform = dict(zip(names, ladder.scalars(np.full((1, 4, 4, 4), -2.0))[0], strict=True))
    assert uniform["entropy"] == pytest.approx(np.log(64)) and uniform["α₀"] == pytest.approx(3)
    assert uniform["ln P_3"] == pytest.approx(-2 * np.log(64)) and uniform["spread of ln abs(ψ)²"] < 1e-12
    # Sites may change places, signs and norm do not matter.
    shuffled = np.random.default_rng(0).permuted(states.reshape(7, -1), axis=1).reshape(states.shape)
    np.testing.assert_allclose(ladder.scalars(-3 * shuffled), found)
    one = np.zeros((1, 3, 3, 3))
    one[0, 1, 1, 1] = 1
    assert np.isfinite(ladder.scalars(one)).all()


def test_density_moves_with_the_disorder():
    """Normal numbers with mean W: the most probable class is the nearest one, and a class not trained on is known."""
    widths = np.array([15.0, 16, 17, 18])
    rng = np.random.default_rng(0)
    labels = np.repeat([0, 1, 3], 400)
    log = ladder.class_log_densities(
        widths[labels] + rng.normal(0, 0.4, 1200), labels, np.array([-90, 15.2, 16.2, 17, 17.8, 90]), widths
    )
    assert np.isfinite(log).all() and log.argmax(1).tolist() == [0, 0, 1, 2, 3, 3]
    exact = -0.5 * ((16.2 - widths) / 0.4) ** 2
    np.testing.assert_allclose((log[2] - log[2].max())[[1]], (exact - exact.max())[[1]], atol=0.2)
    with pytest.raises(ValueError, match="at least two classes, got 1"):
        ladder.class_log_densities(np.ones(3), np.zeros(3, int), np.ones(1), widths)
    with pytest.raises(ValueError, match="finite"):
        ladder.class_log_densities(np.full(1200, np.nan), labels, np.ones(1), widths)


def test_discriminant_is_that_of_normal_classes():
    """W moves the first number; the second is its noise: their difference is the answer."""
    rng = np.random.default_rng(0)
    labels = np.repeat([0, 1, 2], 2000)
    noise = rng.normal(0, 5, len(labels))
    values = np.stack([WIDTHS[labels] + noise + rng.normal(0, 0.1, len(labels)), 100 * noise], axis=1)
    direction = ladder.discriminant(values, labels, WIDTHS, ridge=1e-8)
    assert direction[1] / direction[0] == pytest.approx(-0.01, rel=1e-3)
    np.testing.assert_allclose(ladder.discriminant(np.c_[values, np.ones(6000)], labels, WIDTHS)[2], 0)


def test_rungs(train, test_set):
    states, energies, labels = test_set
    fitted = ladder.fit(train[0], train[2])
    found = ladder.answers(states, WIDTHS, energies=energies, fitted=fitted)
    assert set(found) == set(ladder.RUNGS)
    for rung in found.values():
        np.testing.assert_allclose(rung.probability.sum(1), 1)
        assert rung.probability.shape == (60, 3) and rung.width.shape == (60,)
    right = {name: (r.probability.argmax(1) == labels).mean() for name, r in found.items()}
    assert right[ladder.LOCAL_ENERGY] == 1 and right[ladder.LOCAL] > 0.95
    assert all(right[name] > 0.38 for name in (ladder.BOUND, ladder.SCALARS, ladder.ALPHA))
    np.testing.assert_allclose(found[ladder.LOCAL_ENERGY].width, WIDTHS[labels], atol=1.5)
    # The moduli do not know the signs; the bound does not survive an exchange of sites, scalars do.
    rng = np.random.default_rng(0)
    flipped = ladder.answers(states * rng.choice([-1, 1], states.shape), WIDTHS, energies=energies, fitted=fitted)
    for name in (ladder.BOUND, ladder.SCALARS, ladder.ALPHA):
        np.testing.assert_allclose(flipped[name].probability, found[name].probability, atol=1e-12)
    assert (flipped[ladder.LOCAL].probability.argmax(1) == labels).mean() < 0.5
    shuffled = rng.permuted(states.reshape(60, -1), axis=1).reshape(states.shape)
    exchanged = ladder.answers(shuffled, WIDTHS, fitted=fitted)
    assert ladder.LOCAL_ENERGY not in exchanged
    np.testing.assert_allclose(exchanged[ladder.ALPHA].probability, found[ladder.ALPHA].probability, atol=1e-9)
    assert np.abs(exchanged[ladder.BOUND].width - found[ladder.BOUND].width).max() > 0.1
    assert list(ladder.answers(states, WIDTHS)) == [ladder.LOCAL]
    # Amplitudes of 8 bits: the rules take what there is.
    coarse = np.round(states / np.abs(states).max((1, 2, 3), keepdims=True) * 127).astype(np.float32)
    damaged = ladder.answers(coarse, WIDTHS, energies=energies, fitted=fitted)
    assert all(np.isfinite(r.probability).all() for r in damaged.values())
    assert (damaged[ladder.LOCAL_ENERGY].probability.argmax(1) == labels).mean() < 0.6


def test_fit_refuses(train):
    with pytest.raises(ValueError, match="one per state"):
        ladder.fit(train[0], train[2][:3])
    with pytest.raises(ValueError, match="at least two classes"):
        ladder.fit(train[0][:3], np.zeros(3, int))
