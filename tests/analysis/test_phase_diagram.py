"""Maps, boundaries and comparisons on synthetic data whose boundary is known."""

import numpy as np
import pytest

from physml_jax.analysis import ising, ising_literature, latent, phase_boundary, phase_diagram

T = np.arange(0.2, 4.01, 0.1)
J2 = np.array([0.0, 0.3, 0.7, 1.2])
TC = np.array([2.27, 1.25, 1.29, 2.57])


def ordered(t, tc, *, beta=0.125):
    """An order parameter that vanishes at tc."""
    return np.where(t < tc, np.clip(1 - (t / tc) ** 6, 0, 1) ** beta, 0)


def plane(num_replicas=8, noise=0.02, seed=0, shuffle=True):
    """States of a number epsilon with a known boundary: temperature, j2, epsilon."""
    generator = np.random.default_rng(seed)
    j, t, _ = (x.ravel() for x in np.meshgrid(np.arange(len(J2)), T, np.arange(num_replicas), indexing="ij"))
    epsilon = (1 - ordered(t, TC[j])) / 2 + generator.normal(0, noise, t.shape)
    order = generator.permutation(len(t)) if shuffle else np.arange(len(t))
    return t[order].astype(np.float32), J2[j][order].astype(np.float32), epsilon[order]


def test_grid_sorts_states():
    points = phase_diagram.grid([2.0, 1.0, 2.0, 2.0], [0.5, 0.5, 0.1, 0.5])
    assert points.temperature.tolist() == [1.0, 2.0] and points.j2.tolist() == [0.1, 0.5]
    assert points.count.tolist() == [[0, 1], [1, 2]]
    assert points.replica.tolist() == [0, 0, 0, 1]
    found = phase_diagram.mean_map([4.0, 1.0, 2.0, 6.0], points)
    np.testing.assert_array_equal(found, [[np.nan, 2.0], [1.0, 5.0]])


def test_maps_of_resampled_data():
    t, j2, epsilon = plane()
    points = phase_diagram.grid(t, j2)
    maps = phase_diagram.resampled_maps(epsilon, points, num_resamples=400)
    np.testing.assert_allclose(maps[0], phase_diagram.mean_map(epsilon, points), rtol=1e-12)
    # The spread of a mean of 8 independent numbers, a bootstrap being too narrow by sqrt(7/8).
    spread = np.sqrt(maps[1:].var(axis=0).mean())
    assert spread == pytest.approx(0.02 / np.sqrt(8) * np.sqrt(7 / 8), rel=0.05)
    again = phase_diagram.resampled_maps(np.stack([epsilon, epsilon]), points, num_resamples=400)
    np.testing.assert_allclose(again, maps, atol=1e-12)  # two equal seeds are no second sample


def test_seeds_are_resampled_too():
    t, j2, epsilon = plane(noise=0.0)
    points = phase_diagram.grid(t, j2)
    members = epsilon[None] + np.array([-0.1, 0.0, 0.1])[:, None]
    maps = phase_diagram.resampled_maps(members, points, num_resamples=400)
    offsets = (maps[1:] - maps[:1]).reshape(400, -1)
    np.testing.assert_allclose(offsets, offsets[:, :1].repeat(offsets.shape[1], 1), atol=1e-9)
    assert offsets[:, 0].std() == pytest.approx(0.1 * np.sqrt(2 / 3) / np.sqrt(3), rel=0.1)


def test_replicas_are_drawn_together_along_a_row():
    """A chain that is off at all temperatures is one accident, not forty."""
    t, j2, _ = plane(shuffle=False)
    points = phase_diagram.grid(t, j2)
    offsets = np.random.default_rng(0).normal(0, 0.1, 8)[points.replica]
    maps = phase_diagram.resampled_maps(offsets, points, num_resamples=50)
    assert maps[1:, 0].std(axis=0).min() > 0.02
    np.testing.assert_allclose(maps[:, 0], maps[:, 0, :1].repeat(len(T), 1), atol=1e-12)


def test_points_with_fewer_replicas():
    t, j2, epsilon = plane(noise=0.0)
    keep = (t < 3) | (np.random.default_rng(1).random(len(t)) < 0.5)
    points = phase_diagram.grid(t[keep], j2[keep])
    assert points.count.min() < points.count.max()
    maps = phase_diagram.resampled_maps(epsilon[keep], points, num_resamples=20)
    np.testing.assert_array_equal(np.isnan(maps[0]), points.count == 0)
    # A draw may miss all replicas of a point; what it has is the mean, since all replicas are equal here.
    held = np.isfinite(maps)
    np.testing.assert_allclose(maps[held], np.broadcast_to(maps[:1], maps.shape)[held], atol=1e-9)


@pytest.mark.parametrize("rule", ["half", "steepest"])
def test_boundary_is_found_where_it_is(rule):
    t, j2, epsilon = plane()
    points = phase_diagram.grid(t, j2)
    maps = phase_diagram.resampled_maps(epsilon, points, num_resamples=100)
    found = phase_boundary.boundary(maps, points.temperature, rule=rule)
    assert np.all(np.abs(found.temperature - TC) < 0.05)  # half a step of the grid
    assert np.all((found.low <= found.temperature) & (found.temperature <= found.high)) and np.all(found.share == 1)


@pytest.mark.parametrize("rule", ["half", "steepest"])
def test_fine_grids_converge_to_the_inflection(rule):
    t = np.arange(1.0, 3.0, 0.01)
    curve = 0.25 * (1 + np.tanh((t - 2.123) / 0.1))
    found = phase_boundary.boundary(curve[None, None], t, rule=rule).temperature[0]
    assert found == pytest.approx(2.123, abs=0.002)


def test_the_two_rules_differ_on_a_rounded_curve():
    """A rise with a long tail above: half way up lies above the steepest point, as on a finite lattice."""
    t = np.arange(1.0, 4.0, 0.02)
    curve = 0.5 * np.exp(-np.exp(-(t - 2.0) / 0.2))  # Gumbel: steepest at 2, half way at 2 + 0.2 ln(1/ln 2)
    half, steep = (phase_boundary.boundary(curve[None, None], t, rule=r).temperature[0] for r in ("half", "steepest"))
    assert steep == pytest.approx(2.0, abs=0.01)
    assert half == pytest.approx(2.0 - 0.2 * np.log(np.log(2.0)), abs=0.005)


def test_the_critical_share_removes_the_finite_size():
    """Curves of |m| = L^(-1/8) f((T - Tc) L) with f(0) = 1, as on finite lattices: Tc at both sizes."""
    t = np.arange(1.0, 3.5, 0.01)
    for size in (16, 64):
        x = (t - 2.0) * size / 2
        order = size**-0.125 * np.where(x < 0, (1 + np.abs(x)) ** 0.125, (1 + np.abs(x)) ** -0.875)
        curve = (0.5 - np.minimum(order, 1) / 2)[None, None]
        found = phase_boundary.boundary(curve, t, rule="critical", size=size).temperature[0]
        half = phase_boundary.boundary(curve, t, rule="half").temperature[0]
        assert half > 2.005 and abs(found - 2.0) < 0.4 * (half - 2.0)


def test_intervals_cover():
    """95 % intervals of the half-way point hold the noiseless value in most of many noisy planes."""
    t, j2, exact = plane(noise=0.0)
    points = phase_diagram.grid(t, j2)
    true = phase_boundary.boundary(phase_diagram.mean_map(exact, points)[None], points.temperature, rule="half")[0]
    hits = []
    for seed in range(10):
        t, j2, epsilon = plane(num_replicas=16, noise=0.03, seed=seed)
        maps = phase_diagram.resampled_maps(epsilon, phase_diagram.grid(t, j2), num_resamples=200, seed=seed)
        b = phase_boundary.boundary(maps, points.temperature, rule="half")
        hits += ((b.low <= true) & (true <= b.high)).tolist()
    assert 0.8 <= np.mean(hits) <= 1.0 and np.mean(b.high - b.low) < 0.05


def test_slope_of_an_energy():
    t = np.arange(0.2, 4.0, 0.05)
    energy = -1 + 0.3 * t + np.tanh((t - 1.9) / 0.2)
    found = phase_boundary.boundary(energy[None, None], t, rule="slope").temperature[0]
    assert found == pytest.approx(1.9, abs=0.01)


@pytest.mark.parametrize(
    "curve",
    [
        np.full(len(T), 0.5),  # no phase
        np.full(len(T), 0.02),  # never left
        0.5 - 0.4 * ordered(T[::-1], 2.0),  # falls
        0.3 + 0.2 * (T > 2),  # rises, from nowhere near 0
        0.2 + 0.05 * (T > 2),  # hardly rises
    ],
)
@pytest.mark.parametrize("rule", ["half", "steepest"])
def test_rows_without_a_boundary(curve, rule):
    noisy = curve + np.random.default_rng(0).normal(0, 0.01, (30, 1, len(T)))
    found = phase_boundary.boundary(noisy, T, rule=rule)
    assert np.isnan(found.temperature[0]) and np.isnan(found.low[0]) and found.share[0] == 0


def test_frozen_states_at_low_temperature_do_not_move_the_boundary():
    curve = (1 - ordered(T, 2.0)) / 2
    frozen = curve + np.where(T < 0.5, 0.15, 0.0)  # domain walls that never left
    centre, moved = (phase_boundary.rise(c, T) for c in (curve, frozen))
    assert abs(moved - centre) < 0.02


def test_missing_points_and_bad_input():
    t, j2, epsilon = plane(noise=0.0)
    points = phase_diagram.grid(t, j2)
    maps = phase_diagram.mean_map(epsilon, points)[None].copy()
    maps[0, 0, 30:], maps[0, 1, 2:] = np.nan, np.nan
    found = phase_boundary.boundary(maps, points.temperature, rule="half").temperature
    assert abs(found[0] - TC[0]) < 0.05 and np.isnan(found[1])
    with pytest.raises(ValueError, match="rule: expected one of critical, half, .*, got 'middle'"):
        phase_boundary.boundary(maps, points.temperature, rule="middle")
    with pytest.raises(ValueError, match="size: the rule 'critical' needs"):
        phase_boundary.boundary(maps, points.temperature, rule="critical")
    with pytest.raises(ValueError, match="maps, temperature"):
        phase_boundary.boundary(maps, points.temperature[::-1])
    with pytest.raises(ValueError, match="finite numbers per seed"):
        phase_diagram.mean_map(epsilon[:-1], points)
    with pytest.raises(ValueError, match="j2: expected"):
        phase_diagram.grid([1.0, 2.0], [0.1, np.nan])


def test_phases_by_exclusion():
    points = phase_diagram.grid(np.tile([1.0, 2.0], 3), np.repeat([0.0, 0.5, 1.0], 2))
    found = phase_diagram.phases([np.array([1.5, np.nan, np.nan]), np.array([np.nan, np.nan, 2.5])], points)
    assert found.tolist() == [[0, -1], [-1, -1], [1, 1]]


def test_deviation_counts_what_is_missing():
    found = phase_boundary.deviation(
        np.array([1.1, np.nan, 3.0, 5.0]), np.array([1.0, 2.0, np.nan, 4.8]), np.array([True, True, True, True])
    )
    assert (found.n, found.missing) == (2, 1)
    assert found.mean == pytest.approx(0.15) and found.signed == pytest.approx(0.15)
    assert found.largest == pytest.approx(0.2)
    assert phase_boundary.deviation(np.ones(2), np.ones(2), np.zeros(2, bool)).mean is None


def test_extrapolation_removes_the_shift():
    sizes = np.array([30, 60, 120])
    t, error, slope = phase_boundary.extrapolated(sizes, 2.27 + 1.5 / sizes, np.array([0.01, 0.005, 0.005]))
    assert t == pytest.approx(2.27) and slope == pytest.approx(1.5) and 0 < error < 0.02
    assert phase_boundary.extrapolated([30, 60], [2.3, np.nan], [0.1, 0.1]) is None


def test_literature():
    known = ising_literature.transition_temperature("superantiferromagnet", [0.4, 0.5, 0.52, 0.55, 0.65, 0.9, 1.5])
    assert np.isnan(known[:3]).all() and known[3] == 0.77 and known[6] == 3.287
    assert 0.973 < known[4] < 1.29 and 1.569 < known[5] < 2.082
    ferro = ising_literature.transition_temperature("ferromagnet", [0.0, 0.45, 0.48])
    assert ferro[0] == pytest.approx(2 / np.log(1 + np.sqrt(2)), abs=1e-5) and ferro[1] == 0.64 and np.isnan(ferro[2])
    assert ising_literature.is_difficult(np.array([0.4, 0.45, 0.6, 0.65])).tolist() == [False, True, True, False]
    with pytest.raises(ValueError, match="phase: expected one of"):
        ising_literature.transition_temperature("spin glass", [0.5])


@pytest.fixture(scope="module")
def states():
    """Ideal states of both phases with a share of flipped spins, and random ones; int8 [90, 8, 8]."""
    generator = np.random.default_rng(3)
    images = np.concatenate([ising.ideal_states(p, size=8) for p in ising_literature.PHASES])
    picked = images[generator.integers(6, size=60)]
    flipped = np.where(generator.random(picked.shape) < 0.05, -1, 1)
    random = np.where(generator.random((30, 8, 8)) < 0.5, -1, 1)
    return np.concatenate([picked * flipped, random]).astype(np.int8)


@pytest.mark.parametrize("phase", ising_literature.PHASES)
def test_nearest_ideal_state_is_the_order_parameter(states, phase):
    images = ising.ideal_states(phase, size=8)
    found = ising.distances(states, images, chunk_size=32)
    measured = ising.observables(states, np.zeros(len(states)), chunk_size=32)
    order = measured.magnetization if phase == "ferromagnet" else measured.stripe_maximum
    np.testing.assert_allclose(found.nearest, (1 - order) / 2, atol=1e-6)
    # Both signs of every image are there, so the mean says nothing about any state.
    np.testing.assert_allclose(found.mean, 0.5, atol=1e-6)


def test_distances_are_shares_of_spins(states):
    found = ising.distances(states[:, :, :, None], states[:10], chunk_size=32)
    share = (states[:, None] != states[None, :10]).mean(axis=(2, 3))
    np.testing.assert_allclose(found.mean, share.mean(axis=1), atol=1e-6)
    np.testing.assert_allclose(found.nearest, share.min(axis=1), atol=1e-6)
    one = ising.distances(states, states, num_references=1, chunk_size=32)
    np.testing.assert_allclose(one.nearest, (states != states[:1]).mean(axis=(1, 2)), atol=1e-6)


def test_observables_of_ideal_states():
    images = np.concatenate([ising.ideal_states(p, size=8) for p in ising_literature.PHASES])
    found = ising.observables(images, np.full(6, 0.3, np.float32), chunk_size=32)
    np.testing.assert_allclose(found.energy, [-1.4] * 2 + [-0.6] * 4, atol=1e-6)
    assert found.magnetization.tolist() == [1, 1, 0, 0, 0, 0]
    assert found.stripe_maximum.tolist() == found.stripe_norm.tolist() == [0, 0, 1, 1, 1, 1]
    signed = ising.signed_order(images, chunk_size=32)
    assert signed.magnetization.tolist() == [1, -1, 0, 0, 0, 0]
    assert signed.row.tolist() == [0, 0, 1, -1, 0, 0] and signed.column.tolist() == [0, 0, 0, 0, 1, -1]


def test_binder_cumulant_of_known_distributions():
    normal = np.random.default_rng(0).normal(size=(2, 200_000))
    one, two = normal[0] ** 2, (normal**2).sum(axis=0)
    assert ising.binder_cumulant(one.mean(), (one**2).mean()) == pytest.approx(0, abs=0.02)
    assert ising.binder_cumulant(two.mean(), (two**2).mean(), components=2) == pytest.approx(0, abs=0.02)
    assert ising.binder_cumulant(1.0, 1.0) == pytest.approx(2 / 3)
    assert ising.binder_cumulant(1.0, 1.0, components=2) == pytest.approx(1 / 2)


@pytest.mark.parametrize(
    ("spins", "match"),
    [
        (np.ones((3, 8, 8), np.float32), "expected int8"),
        (np.ones((3, 8, 6), np.int8), "expected int8"),
        (np.ones((3, 7, 7), np.int8), "even L"),
        (np.zeros((3, 8, 8), np.int8), "spins -1 and"),
    ],
)
def test_bad_states_are_refused(spins, match):
    with pytest.raises(ValueError, match=match):
        ising.observables(spins, np.zeros(3))
    with pytest.raises(ValueError, match="references: expected lattices"):
        ising.distances(np.ones((2, 8, 8), np.int8), np.ones((2, 4, 4), np.int8))


def test_latent_space():
    generator = np.random.default_rng(0)
    codes = np.zeros((500, 4))
    codes[:, 2], codes[:, 0] = generator.normal(0, 2.0, 500), generator.normal(0, 0.5, 500)
    codes[:, 1] = generator.normal(0, 0.05, 500)
    found = latent.principal(codes)
    np.testing.assert_allclose(found.points[:, 0], codes[:, 2] - codes[:, 2].mean(), atol=0.1)
    assert found.share.sum() == pytest.approx(1) and found.share[0] > 0.9
    assert latent.active_units(codes) == 2
    with pytest.raises(ValueError, match="latent: expected finite"):
        latent.principal(np.full((3, 2), np.nan))
