"""Exact answers agree with each other, with published numbers, and with their limits."""

import numpy as np
import pytest

from physml_jax.simulators.ising import exact

T = np.array([0.6, 1.0, 2.0, exact.ONSAGER_TC, 3.0, 10.0])


def brute_force(states, temperature, j2, field):
    """Averages by a double loop over sites: shares nothing with the module."""
    e = np.zeros(len(states))
    s = states.astype(int)
    for i in range(4):
        for j in range(4):
            here = s[:, i, j]
            e -= here * (s[:, (i + 1) % 4, j] + s[:, i, (j + 1) % 4])
            e += j2 * here * (s[:, (i + 1) % 4, (j + 1) % 4] + s[:, (i + 1) % 4, (j - 1) % 4])
            e -= field * here
    w = np.exp(-(e - e.min()) / temperature)
    rows = s.sum(2) @ np.array([1, -1, 1, -1]) / 16
    columns = s.sum(1) @ np.array([1, -1, 1, -1]) / 16
    m = s.sum((1, 2)) / 16

    def mean(x):
        return (w * x).sum() / w.sum()

    return {
        "energy": mean(e) / 16,
        "specific_heat": (mean(e**2) - mean(e) ** 2) / 16 / temperature**2,
        "magnetization": mean(m),
        "abs_magnetization": mean(abs(m)),
        "magnetization_squared": mean(m**2),
        "magnetization_fourth": mean(m**4),
        "stripe_maximum": mean(np.maximum(abs(rows), abs(columns))),
        "stripe_norm": mean(np.sqrt(rows**2 + columns**2)),
        "stripe_squared": mean(rows**2),
        "free_energy": (e.min() - temperature * np.log(w.sum())) / 16,
    }


@pytest.mark.parametrize(("temperature", "j2", "field"), [(2.0, 0.0, 0.0), (0.7, 0.8, 0.0), (1.5, 0.5, 0.3)])
def test_averages_of_classes_are_those_of_all_states(temperature, j2, field):
    states = exact.enumerate_states()
    assert states.shape == (65536, 4, 4) and len(np.unique(states.reshape(-1, 16), axis=0)) == 65536
    assert exact.enumerate_lattice().count.sum() == 65536
    got = exact.thermal_averages(temperature, j2, field)._asdict()
    for name, value in brute_force(states, temperature, j2, field).items():
        np.testing.assert_allclose(got[name], value, rtol=1e-11, atol=1e-14, err_msg=name)


def test_averages_broadcast():
    got = exact.thermal_averages(T[:, None], np.array([0.2, 0.7]), 0.1)
    assert all(x.shape == (6, 2) and np.isfinite(x).all() for x in got)
    one = exact.thermal_averages(T[1], 0.7, 0.1)
    assert [x[1, 1] for x in got] == list(one)


def test_kaufman_is_the_enumeration_of_4x4():
    got, want = exact.kaufman(4, T), exact.thermal_averages(T, 0.0)
    for name in got._fields:
        np.testing.assert_allclose(getattr(got, name), getattr(want, name), rtol=1e-12, atol=1e-14, err_msg=name)


def test_kaufman_at_larger_sizes():
    """Energies of independent programs: at T = 2, and at Tc where the product over even momenta changes sign."""
    np.testing.assert_allclose(exact.kaufman(30, 2.0).energy, -1.74556, atol=5e-6)
    got = [exact.kaufman(size, exact.ONSAGER_TC).energy for size in (30, 60, 120)]
    np.testing.assert_allclose(got, [-1.434954, -1.424587, -1.419400], atol=6e-7)


def test_kaufman_is_finite_and_consistent_everywhere():
    t = np.concatenate(
        [[0.01, 0.075], np.linspace(0.5, 5.0, 46), [100.0, 1e6], exact.ONSAGER_TC + 1e-12 * np.arange(3)]
    )
    for size in (16, 120):
        got = exact.kaufman(size, t)
        assert all(np.isfinite(x).all() for x in got)
        step = 1e-5
        slope = (exact.kaufman(size, t[2:48] + step).energy - exact.kaufman(size, t[2:48] - step).energy) / (2 * step)
        np.testing.assert_allclose(got.specific_heat[2:48], slope, atol=2e-7)
        # e = f + T s with s = -df/dT
        step = 1e-5
        forward, back = (exact.kaufman(size, t[2:48] + d).free_energy for d in (step, -step))
        entropy = (back - forward) / (2 * step)
        np.testing.assert_allclose(got.free_energy[2:48] + t[2:48] * entropy, got.energy[2:48], atol=1e-8)
    # Two ground states.
    np.testing.assert_allclose(exact.kaufman(16, 0.1).free_energy, -2 - 0.1 * np.log(2) / 256, rtol=1e-14)


def test_onsager():
    """Energy -sqrt 2 at Tc; the finite lattice tends to the infinite one exponentially off Tc, like 1/L at it."""
    np.testing.assert_allclose(exact.ONSAGER_TC, 2.269185314213022, rtol=1e-15)
    np.testing.assert_allclose(exact.onsager_energy(exact.ONSAGER_TC), -np.sqrt(2), rtol=1e-7)
    away = np.array([0.5, 1.5, 2.0, 3.0, 4.0])
    np.testing.assert_allclose(exact.kaufman(120, away).energy, exact.onsager_energy(away), atol=1e-9)
    gap = [exact.kaufman(size, exact.ONSAGER_TC).energy + np.sqrt(2) for size in (60, 120)]
    np.testing.assert_allclose(gap[0] / gap[1], 2, rtol=1e-3)
    # High temperature: e = -2 K - O(K^3), two bonds per site; low: four broken bonds per flipped spin.
    np.testing.assert_allclose(exact.onsager_energy(1e3), -2e-3, rtol=1e-5)
    np.testing.assert_allclose(exact.onsager_energy(0.4) + 2, 8 * np.exp(-20.0), rtol=1e-3)
    np.testing.assert_allclose(1 - exact.onsager_magnetization(0.4), 2 * np.exp(-20.0), rtol=1e-3)
    np.testing.assert_allclose(exact.onsager_magnetization([0.01, 2.0, 2.27, 5.0]), [1, 0.911319, 0, 0], atol=5e-7)


@pytest.mark.parametrize("field", [0.0, 0.4])
def test_transfer_matrix_is_the_enumeration_of_4x4(field):
    for temperature, j2 in [(1.0, 0.3), (2.0, 0.0), (0.5, 0.9), (3.0, 0.7)]:
        got, want = exact.transfer_matrix(4, temperature, j2, field), exact.thermal_averages(temperature, j2, field)
        for name in got._fields:
            np.testing.assert_allclose(getattr(got, name), getattr(want, name), rtol=1e-11, atol=1e-14, err_msg=name)


def test_transfer_matrix_without_j2_is_kaufman():
    for temperature in (1.0, exact.ONSAGER_TC, 4.0):
        for size in (6, 8):
            got, want = exact.transfer_matrix(size, temperature, 0.0), exact.kaufman(size, temperature)
            for name in want._fields:
                np.testing.assert_allclose(getattr(got, name), getattr(want, name), rtol=1e-10, err_msg=name)


def test_transfer_matrix_reaches_the_ground_states():
    for j2, energy, stripes, magnetization in [(0.3, -1.4, 0.0, 1.0), (0.9, -1.8, 0.5, 0.0)]:
        got = exact.transfer_matrix(6, 0.1, j2)
        np.testing.assert_allclose(got.energy, energy, atol=1e-8)
        np.testing.assert_allclose(got.stripe_squared, stripes, atol=1e-8)  # half of the four stripes are rows
        np.testing.assert_allclose(got.magnetization_squared, magnetization, atol=1e-8)
        np.testing.assert_allclose(got.free_energy, energy - 0.1 * np.log(4 if j2 > 0.5 else 2) / 36, atol=1e-8)


def test_bad_input_is_refused():
    for call in (
        lambda: exact.enumerate_lattice(6),
        lambda: exact.transfer_matrix(5, 1.0, 0.0),
        lambda: exact.kaufman(2, 1.0),
    ):
        with pytest.raises(ValueError, match="size: "):
            call()
    for call in (
        lambda: exact.thermal_averages(0.0, 0.1),
        lambda: exact.thermal_averages(np.nan, 0.1),
        lambda: exact.transfer_matrix(4, -1.0, 0.0),
        lambda: exact.kaufman(8, [1.0, np.nan]),
        lambda: exact.onsager_energy(0.0),
        lambda: exact.onsager_magnetization(-2.0),
    ):
        with pytest.raises(ValueError, match="temperature: "):
            call()
