"""What the disorder of an Anderson state is without learning: the local rule, the bound of the moduli, one scalar."""

import functools

import jax
import numpy as np
import pytest
from scipy.sparse.linalg import eigsh

from physml_jax.analysis import anderson as ladder
from physml_jax.simulators import anderson

WIDTHS = np.array([15.0, 16.5, 18.0])


@functools.cache
def state(size, width, seed):
    """Disorder, energy and the state nearest 0, by SciPy's shift-invert Lanczos."""
    key = jax.random.fold_in(jax.random.key(seed), int(1000 * width))
    eps = np.asarray(anderson.sample_disorder(key, width, size=size), np.float64)
    start = np.random.default_rng(seed).normal(size=size**3)
    energy, psi = eigsh(anderson.sparse(eps).tocsc(), k=1, sigma=1e-9, v0=start)
    return eps, float(energy[0]), psi[:, 0].reshape(eps.shape)


@functools.cache
def ensemble(first, count, size=6):
    """States, energies and class numbers of ``count`` realisations of every width."""
    rows = [(state(size, w, s), c) for c, w in enumerate(WIDTHS) for s in range(first, first + count)]
    states, energies = np.stack([r[0][2] for r in rows]), np.array([r[0][1] for r in rows])
    return states, energies, np.array([r[1] for r in rows])


def test_site_energies_are_those_of_the_hamiltonian():
    eps, energy, psi = state(6, 16.5, 0)
    found = ladder.site_energies(psi[None])
    np.testing.assert_allclose(found.relative[0] + energy, eps, atol=1e-8)
    np.testing.assert_allclose(ladder.site_energies(-psi[None]).relative, found.relative)
    single = ladder.site_energies(psi[None].astype(np.float32))
    wrong = np.abs(single.relative[0] + energy - eps)
    assert (wrong <= single.error[0] + 1e-8).all() and wrong.max() > 1e-7


def test_local_rule_finds_the_largest_site_energy():
    states, energies, labels = ensemble(0, 4)
    n = 216
    largest = np.array([2 * np.abs(state(6, WIDTHS[c], i % 4)[0]).max() for i, c in enumerate(labels)])
    extent = np.array([np.ptp(state(6, WIDTHS[c], i % 4)[0]) for i, c in enumerate(labels)])
    with_energy = ladder.width_from_signs(states, energies)
    np.testing.assert_allclose(with_energy, largest * (n + 1) / n, atol=1e-6)
    np.testing.assert_allclose(ladder.width_from_signs(states), extent * (n + 1) / (n - 1), atol=1e-6)
    np.testing.assert_allclose(ladder.width_from_signs(states, energies, chunk_size=5), with_energy)
    # The largest of N uniform numbers is within a few W/N of W.
    assert np.abs(with_energy - WIDTHS[labels]).max() < 8 * 18 / n


def test_coarse_amplitudes_destroy_the_local_rule():
    """float32 does not matter; 8 bits ruin it, and are refused unless asked for."""
    states, energies, labels = ensemble(0, 4)
    single = ladder.width_from_signs(states.astype(np.float32), energies)
    np.testing.assert_allclose(single, ladder.width_from_signs(states, energies), atol=2e-3)
    peak = np.abs(states).max((1, 2, 3), keepdims=True)
    coarse = np.round(states / peak * 127) / 127
    found = ladder.width_from_signs(coarse, energies, tolerance=np.inf)
    assert np.abs(found - WIDTHS[labels]).mean() > 1.5
    with pytest.raises(ValueError, match="too coarse"):
        ladder.width_from_signs(states.astype(np.float16), energies, tolerance=1e-4)
    # Wrong signs are no state of any such Hamiltonian.
    flipped = states * np.random.default_rng(0).choice([-1, 1], states.shape)
    assert np.abs(ladder.width_from_signs(flipped, energies) - WIDTHS[labels]).min() > 3


def test_float16_needs_its_error():
    """Read as float32, float16 amplitudes put single sites wrong by much; who knows their error leaves them out."""
    states, energies, labels = ensemble(0, 12, size=8)
    exact = ladder.width_from_signs(states, energies)
    peak = np.abs(states).max((1, 2, 3), keepdims=True)
    stored = (2.0**15 * states / peak).astype(np.float16).astype(np.float32)
    believed = np.abs(ladder.width_from_signs(stored, energies) - exact)
    known = np.abs(ladder.width_from_signs(stored, energies, tolerance=0.03, relative_error=2.0**-11) - exact)
    assert known.max() < 0.5 < believed.max() and known.mean() < 0.03 < believed.mean() / 3
    # What the distribution of moduli says does not notice, the bound does at single states.
    alpha = ladder.scalar_alpha0(states)
    assert np.abs(ladder.scalar_alpha0(stored) - alpha).max() < 1e-3 * alpha.std()
    change = np.abs(ladder.width_bound_from_moduli(stored) - ladder.width_bound_from_moduli(states))
    assert np.median(change) < 0.02
    # 8 bits leave neither the rule nor the bound.
    coarse = np.round(127 * states / peak)
    assert np.abs(ladder.width_from_signs(coarse, energies, tolerance=np.inf) - exact).mean() > 3
    bound = ladder.width_bound_from_moduli(coarse)
    assert (bound > WIDTHS[labels] + 2 * np.abs(energies)).mean() > 0.2 and (coarse == 0).mean() > 0.05


def test_moduli_bound_the_width_from_below():
    states, energies, labels = ensemble(0, 12)
    bound = ladder.width_bound_from_moduli(states)
    assert (bound <= WIDTHS[labels] + 2 * np.abs(energies) + 1e-9).all()
    assert (bound > 0.6 * WIDTHS[labels]).mean() > 0.9
    np.testing.assert_array_equal(ladder.width_bound_from_moduli(np.abs(states)), bound)
    assert ladder.width_bound_from_moduli(np.ones((1, 4, 4, 4)))[0] == 0


def test_bound_tightens_with_size():
    small = np.mean([ladder.width_bound_from_moduli(state(6, 16.5, s)[2][None]) for s in range(12)])
    large = np.mean([ladder.width_bound_from_moduli(state(10, 16.5, s)[2][None]) for s in range(6)])
    assert small < large < 16.6


def test_scalar_alpha0():
    states = ensemble(0, 12)[0]
    alpha = ladder.scalar_alpha0(states)
    np.testing.assert_allclose(alpha, np.log(states**2).mean((1, 2, 3)) / -np.log(6), rtol=1e-9)
    np.testing.assert_allclose(ladder.scalar_alpha0(3 * states, chunk_size=7), alpha, rtol=1e-9)
    np.testing.assert_allclose(ladder.scalar_alpha0(np.ones((2, 4, 4, 4), np.float32)), 3, rtol=1e-6)


def test_ladder_has_its_order():
    """The local rule is exact; of the others one number tells W = 15 from 18 better than chance, 16.5 from neither."""
    train, _, train_labels = ensemble(12, 24)
    states, energies, labels = ensemble(0, 12)
    found = ladder.ladder(train, train_labels, states, widths=WIDTHS, signed=True, energies=energies)
    assert (found.local_rule == labels).all()
    assert (ladder.ladder(train, train_labels, states, widths=WIDTHS, signed=True).local_rule == labels).all()
    outer = labels != 1
    for rung in (found.modulus_bound, found.alpha0):
        right = (rung == labels).mean()
        assert 1 / 3 < right < 0.95
        # Half of 24 would be right among those that are called 15 or 18; the rung does better.
        called = outer & (rung != 1)
        assert (rung == labels)[called].mean() > 0.5
    assert ladder.ladder(train, train_labels, np.abs(states), widths=WIDTHS, signed=False).local_rule is None


def test_classes_from_scalar_are_bayes():
    """Normal classes at 0 and 3 with spreads 1 and 1: the boundary is in the middle; a far value has a class too."""
    rng = np.random.default_rng(0)
    values = np.concatenate([rng.normal(0, 1, 400), rng.normal(3, 1, 400)])
    found = ladder.classes_from_scalar(
        values, np.repeat([0, 1], 400), np.array([-50.0, 0, 1.1, 1.9, 3, 50]), num_classes=2
    )
    assert found.tolist() == [0, 0, 0, 1, 1, 1]
    constant = ladder.classes_from_scalar(np.array([1.0, 1, 2, 2]), [0, 0, 1, 1], np.array([1.2, 1.9]), num_classes=2)
    assert constant.tolist() == [0, 1]
    assert ladder.nearest_class(np.array([15.7, 15.76, 40]), WIDTHS).tolist() == [0, 1, 2]


def test_ladder_refuses():
    states = np.ones((2, 4, 4, 4))
    with pytest.raises(ValueError, match=r"states: expected \[S, L, L, L\]"):
        ladder.width_from_signs(states[0])
    with pytest.raises(ValueError, match="floating"):
        ladder.width_bound_from_moduli(states.astype(np.int8))
    with pytest.raises(ValueError, match="finite"):
        ladder.scalar_alpha0(states * np.nan)
    with pytest.raises(ValueError, match="energies: expected 2"):
        ladder.width_from_signs(states, np.zeros(3))
    with pytest.raises(ValueError, match="at least two of class 1"):
        ladder.classes_from_scalar(np.ones(3), [0, 0, 1], np.ones(1), num_classes=2)


@pytest.mark.slow
def test_one_state_of_20_gives_the_width():
    """2 max abs(eps) of 8000 sites: 16.5 * 8000/8001 = 16.498, standard deviation 0.002."""
    eps, energy, psi = state(20, 16.5, 0)
    found = ladder.width_from_signs(psi[None].astype(np.float32), np.array([energy]))[0]
    assert abs(found * 8000 / 8001 - 2 * np.abs(eps).max()) < 1e-3
    assert abs(found - 16.5) < 4 * 0.0021
