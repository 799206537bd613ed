"""Indexing of simulated patterns: known orientation, scale and phase come back; chance is recognised as chance."""

from pathlib import Path

import jax
import numpy as np
import pytest
from scipy.spatial.transform import Rotation

import physml_jax
from physml_jax.analysis import indexing, spot_geometry
from physml_jax.analysis.pattern_likelihood import field_of_view, log_prior
from physml_jax.analysis.pattern_refinement import Priors, refine
from physml_jax.analysis.pattern_spots import read_pattern
from physml_jax.data.candidates import load_candidates
from physml_jax.simulators.diffraction import kinematic, orientations
from physml_jax.simulators.diffraction.reflections import reflections

CIFS = Path(physml_jax.__file__).parent / "data" / "structures" / "cifs"
NAMES, CRYSTALS = load_candidates([CIFS / "216_AsGa_COD9008845.cif"], ["delta-(Pu,Zr)", "PuO", "PuO2", "ZrO2"])
SIDE, SCALE, VOLTAGE = 256, 0.0085, 200.0


def rotation_of(name, uvw, tilt_deg=(0.0, 0.0), azimuth=0.4):
    crystal = CRYSTALS[NAMES.index(name)]
    frame = orientations.zone_axis_orientation(crystal, uvw, azimuth)
    return np.asarray(orientations.tilt(np.deg2rad(tilt_deg)) @ frame, np.float64)


def simulated(name, rotation, *, scale=SCALE, centre=(131.0, 122.0), electrons=4e4, stop=False, e=(0.0, 0.0), seed=0):
    """A noisy image of a crystal, drawn here from the list of spots."""
    plan = reflections(CRYSTALS[NAMES.index(name)], max_g=1.1, voltage_kv=VOLTAGE, min_factor=1e-3)
    found = kinematic.all_reflections(plan, rotation, max_excitation_error=0.02)
    mask = np.asarray(found.mask)
    g = np.asarray(found.positions)[mask] @ np.array([[1 + e[0], e[1]], [e[1], 1 - e[0]]])
    places = np.array(centre) + g * [1, -1] / scale
    weights = np.asarray(found.intensities)[mask]
    y, x = np.mgrid[:SIDE, :SIDE]
    image = 3.0 + 40 / (1 + (np.hypot(x - centre[0], y - centre[1]) / 20) ** 2)
    for (u, v), w in zip([*places, centre], [*(electrons * weights / weights.max()), 4 * electrons], strict=True):
        image += w / (2 * np.pi * 1.3**2) * np.exp(-((x - u) ** 2 + (y - v) ** 2) / (2 * 1.3**2))
    if stop:
        image[112:132, 118:] = 0.5
    return np.random.default_rng(seed).poisson(image).astype(np.float32)


def indexed(image, *, scale=SCALE, scale_error=0.01, crystals=CRYSTALS, **options):
    pattern = read_pattern(image, scale=scale)
    priors = Priors(scale_error, scale * max(1.0, pattern.centre.uncertainty), 0.01)
    return indexing.index_spots(pattern.spots, crystals, pattern.view, voltage_kv=VOLTAGE, priors=priors, **options)


def misorientation_deg(a, b, name):
    symmetry = orientations.laue_rotations(CRYSTALS[NAMES.index(name)])
    trace = spot_geometry.misorientation_trace(a[None], b, symmetry)[0]
    return np.rad2deg(np.arccos(np.clip((trace - 1) / 2, -1, 1)))


@pytest.mark.parametrize(
    ("name", "uvw", "tilt_deg", "stop"),
    [
        ("AsGa", (0, 1, 1), (0.8, -0.5), True),
        pytest.param("AsGa", (0, 1, 1), (0.8, -0.5), False, marks=pytest.mark.slow),
        pytest.param("ZrO2", (0, 1, 0), (-0.6, 0.4), False, marks=pytest.mark.slow),
        pytest.param("PuO2", (1, 3, 5), (0.0, 1.5), False, marks=pytest.mark.slow),
    ],
)
def test_recovers_phase_orientation_and_scale(name, uvw, tilt_deg, stop):
    """The scale is given 1.5 % too small, the camera is elliptic by 0.6 %, the centre is 9 pixels off the middle."""
    rotation = rotation_of(name, uvw, tilt_deg)
    result = indexed(simulated(name, rotation, scale=1.015 * SCALE, stop=stop, e=(0.005, -0.003)))
    best = result.hypotheses[0]
    assert NAMES[best.phase] == name
    assert result.significant
    assert misorientation_deg(best.rotation, rotation, name) < 0.3
    assert best.factor == pytest.approx(1.015, rel=2e-3)
    np.testing.assert_allclose(best.ellipticity, (0.005, -0.003), atol=2e-3)
    assert best.residual < 0.3 * SCALE
    assert best.explained > 0.9


@pytest.mark.slow
def test_scale_decides_between_phases_of_one_geometry():
    """Face-centred cells of 4.60, 4.96 and 5.40 angstrom: told apart by a known scale, and not by an unknown one."""
    image = simulated("PuO", rotation_of("PuO", (0, 0, 1)))
    sure = indexed(image)
    assert NAMES[sure.hypotheses[0].phase] == "PuO" and sure.undecided == 1
    unsure = indexed(image, scale_error=0.2)
    assert {NAMES[h.phase] for h in unsure.hypotheses[: unsure.undecided]} >= {"PuO", "PuO2"}


def test_random_spots_are_not_explained():
    rng = np.random.default_rng(5)
    positions = rng.uniform(-0.9, 0.9, (12, 2))
    errors = np.full(12, 0.004)
    spots = spot_geometry.PatternSpots(positions, errors, np.ones(12), np.full(12, 30.0))
    view = field_of_view([-1, -1], [1, 1], 0.05, 1.3)
    result = indexing.index_spots(spots, CRYSTALS, view, priors=Priors(0.01, 0.004, 0.01))
    assert not result.significant


def test_refusals():
    view = field_of_view([-1, -1], [1, 1], 0.05, 1.3)
    row = np.array([[0.2, 0.1], [0.4, 0.2], [-0.2, -0.1], [-0.4, -0.2]])
    spots = spot_geometry.PatternSpots(row, np.full(4, 0.004), np.ones(4), np.full(4, 30.0))
    priors = Priors(0.01, 0.004, 0.01)
    with pytest.raises(ValueError, match="on one line"):
        indexing.index_spots(spots, CRYSTALS, view, priors=priors)
    with pytest.raises(ValueError, match="at least 3"):
        indexing.index_spots(jax.tree.map(lambda x: x[:2], spots), CRYSTALS, view, priors=priors)
    with pytest.raises(ValueError, match="crystals: expected at least one"):
        indexing.index_spots(spots, [], view, priors=priors)


@pytest.mark.parametrize(
    "name", [pytest.param(n, marks=() if n in ("AsGa", "ZrO2") else pytest.mark.slow) for n in NAMES]
)
def test_pairs_propose_the_orientation(name):
    """From exact places; a triclinic turn of the lattice would not be found by families of zone axes."""
    crystal = CRYSTALS[NAMES.index(name)]
    known = spot_geometry.lattice(crystal, max_g=1.0, voltage_kv=VOLTAGE)
    rotation = np.asarray(orientations.uniform(jax.random.split(jax.random.key(3), 1))[0], np.float64)
    plan = reflections(crystal, max_g=1.0, voltage_kv=VOLTAGE, min_factor=1e-2)
    found = kinematic.all_reflections(plan, rotation, max_excitation_error=0.01)
    positions = np.asarray(found.positions, np.float64)[np.asarray(found.mask)]
    n = len(positions)
    spots = spot_geometry.PatternSpots(positions * 0.99, np.full(n, 1e-3), np.ones(n), np.full(n, 30.0))
    proposed, factors = spot_geometry.orientations_of_pairs(spots, known)
    angle = misorientation_deg(rotation, rotation, name)
    trace = spot_geometry.misorientation_trace(proposed, rotation, known.rotations)
    angle = np.rad2deg(np.arccos(np.clip((trace - 1) / 2, -1, 1)))
    assert angle.min() < 2.0
    assert np.abs(factors[angle < 2.0] * 0.99 - 1).min() < 5e-3
    # The fast score lets it pass.
    score = spot_geometry.fit_of_lattice(spots, known, proposed, factors, max_excitation_error=0.03)
    assert score[angle < 2.0].max() > 0.9 * score.max()
    other = Rotation.random(300, random_state=0).as_matrix()
    chance = spot_geometry.fit_of_lattice(spots, known, other, np.full(300, 1 / 0.99), max_excitation_error=0.03)
    assert np.median(chance) < 0.6 * score[angle < 2.0].max()


def test_lattice_lists_what_double_diffraction_reaches():
    """In the fluorite cell of PuO2 mixed indices are absent for good; 010 of monoclinic ZrO2 is forbidden only."""
    fcc = spot_geometry.lattice(CRYSTALS[NAMES.index("PuO2")], max_g=0.7, voltage_kv=VOLTAGE)
    hkl = fcc.plan.hkl[: int(fcc.plan.count)]
    assert (np.ptp(hkl % 2, axis=1) == 0).all()
    assert len(fcc.rotations) == 24
    families = {tuple(sorted(np.abs(h))) for h in hkl}
    assert fcc.representative.sum() == len(families)
    monoclinic = spot_geometry.lattice(CRYSTALS[NAMES.index("ZrO2")], max_g=0.7, voltage_kv=VOLTAGE)
    rows = {tuple(h): i for i, h in enumerate(monoclinic.plan.hkl[: int(monoclinic.plan.count)])}
    assert not monoclinic.allowed[rows[(0, 1, 0)]] and monoclinic.allowed[rows[(0, 2, 0)]]


def test_refinement_is_exact_without_noise():
    """Positions of a shifted, scaled pattern of a tilted crystal: all comes back, and errors shrink with the spots'."""
    name = "AsGa"
    crystal = CRYSTALS[NAMES.index(name)]
    truth = rotation_of(name, (1, 1, 2), (2.0, -1.0))
    plan = reflections(crystal, max_g=1.1, voltage_kv=VOLTAGE, min_factor=0.1, dtype="float64")
    with jax.enable_x64(True):
        found = kinematic.all_reflections(plan, truth, max_excitation_error=0.03)
        mask = np.asarray(found.mask)
        hkl, g, factors = (np.asarray(x)[mask] for x in (found.hkl, found.positions, found.structure_factors))
        intensities = np.asarray(found.intensities)[mask]
    shift, factor = np.array([0.003, -0.001]), 1.012
    observed = g / factor + shift
    start = np.asarray(orientations.tilt(np.deg2rad([0.7, 0.4])) @ truth, np.float64)
    n = len(hkl)
    errors = []
    for sigma in (1e-4, 1e-5):
        fit = refine(
            [plan], hkl[None], factors[None], np.ones((1, n), bool), start[None], np.ones(1), observed,
            np.full(n, sigma), intensities, priors=Priors(1.0, 1.0, 0.0, 1.0),
        )  # fmt: skip
        errors.append(fit.errors[0])
    np.testing.assert_allclose(fit.factors, factor, rtol=2e-4)
    np.testing.assert_allclose(fit.shifts[0], shift, atol=1e-5)
    np.testing.assert_array_equal(fit.ellipticity, 0)
    np.testing.assert_allclose(fit.predicted[0], observed, atol=2e-5)
    assert misorientation_deg(fit.rotations[0], truth, name) < 0.1
    assert errors[1][4] == pytest.approx(0.1 * errors[0][4], rel=0.2)


def test_zone_axes_are_more_probable():
    """The prior integrates to one over directions, whatever the symmetry."""
    keys = jax.random.split(jax.random.key(0), 4000)
    rotations = np.asarray(orientations.uniform(keys), np.float64)
    for name in ("AsGa", "ZrO2"):
        known = spot_geometry.lattice(CRYSTALS[NAMES.index(name)], max_g=0.7, voltage_kv=VOLTAGE)
        value = log_prior([known], np.zeros(4000, int), rotations, np.ones(4000), scale_error=0.01)
        density = np.exp(value) / len(known.rotations)
        error = density.std() / 4000**0.5
        assert abs(density.mean() - 1) < 5 * error
        assert density.max() > 4 * density.min()
