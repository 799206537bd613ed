"""Refinements recover what made the images with uncertainties that are those of the scatter; derivatives; bad input."""

import itertools
from pathlib import Path

import jax
import numpy as np
import pytest

import physml_jax.data
from physml_jax.analysis import refinement, simulation
from physml_jax.analysis import structure_parameters as structure
from physml_jax.analysis.structure_parameters import Specimen
from physml_jax.io.cif import read_cif
from physml_jax.simulators.diffraction import bloch

CIFS = Path(physml_jax.data.__file__).parent / "structures" / "cifs"
#: Few beams, all propagated, so that model and images are the same function.
SMALL = dict(reflections=((0, 0, 0), (2, 0, 0)), max_g=0.8, num_strong=None, half_width=0.4)
NAMES = ("thickness", "b_iso@S1", "x")
THICKNESS = 300.0


@pytest.fixture(scope="module")
def pyrite():
    return Specimen(read_cif(CIFS / "205_FeS2_COD5000115.cif"), (THICKNESS,))


@pytest.fixture(scope="module")
def intensities(pyrite):
    found = bloch.lacbed(pyrite.crystal, thicknesses=pyrite.thicknesses, num_pixels=12, num_checks=0, **SMALL)
    return found.intensities


def counts_of(intensities, seed, dose=2e4):
    return simulation.count_electrons(intensities, dose, seed=seed, background=20.0)


def off(plate):
    """0.1 angstrom, 8 % of the thickness and half of B away from the truth."""
    return structure.shaken(plate, NAMES, 0.1, seed=1)._replace(thicknesses=(1.08 * THICKNESS,))


def truth_of(plate):
    return np.array([p.start for p in structure.parameters(plate, NAMES)])


def test_recovers_what_made_the_images(pyrite, intensities):
    seen = []
    counts = counts_of(intensities, 0)
    found = refinement.refine(counts, off(pyrite), NAMES, settings=SMALL, callback=seen.append)
    assert found.state.converged and [s.iteration for s in seen] == list(range(1, found.state.iteration + 1))
    pulls = (found.values - truth_of(pyrite)) / found.uncertainties
    assert np.all(np.abs(pulls) < 4)
    (x,) = [p for p in found.parameters if p.name == "x@S1"]
    i = found.parameters.index(x)
    assert abs(x.start - truth_of(pyrite)[i]) * x.length == pytest.approx(0.1)
    assert abs(found.values[i] - truth_of(pyrite)[i]) * x.length < 0.01
    assert found.uncertainties[i] * x.length < 0.003
    # chi^2 of n - k Poisson numbers, of variance 2 (n - k) or a little more.
    free = found.degrees_of_freedom
    assert free == counts.size - len(NAMES) - 2 * 2
    assert abs(found.chi2 - free) < 5 * np.sqrt(2 * free)
    np.testing.assert_allclose(found.fit.scale, 2e4, rtol=0.05)
    np.testing.assert_allclose(found.fit.background, 20.0, atol=15)
    np.testing.assert_allclose(found.residuals**2 * found.fit.variance, (counts - found.fit.counts) ** 2)
    np.testing.assert_allclose(found.specimen.thicknesses, found.values[:1])
    objective = [row["objective"] for row in found.state.history]
    assert all(b <= a * (1 + 1e-6) for a, b in itertools.pairwise(objective))


def test_an_interrupted_refinement_goes_on(pyrite, intensities):
    counts, states = counts_of(intensities, 0), []
    whole = refinement.refine(counts, off(pyrite), NAMES, settings=SMALL, callback=states.append)
    stored = states[1]._asdict()
    again = refinement.refine(
        counts, off(pyrite), NAMES, settings=SMALL, state=refinement.state_from(stored), callback=states.append
    )
    np.testing.assert_allclose(again.values, whole.values, atol=0.05 * whole.uncertainties.max(), rtol=1e-5)
    assert again.state.iteration == whole.state.iteration
    assert [r["iteration"] for r in again.state.history] == list(range(whole.state.iteration + 1))


def test_derivatives_are_those_of_finite_differences(pyrite):
    """In float64, all kinds of parameters of a plate with absorption, tilted by a little."""
    plate = pyrite._replace(absorption=0.05)
    names = ("thickness", "absorption", "tilt", "b_iso", "occupancy@S1", "x")
    chosen = structure.parameters(plate, names)
    settings = {**SMALL, "max_g": 0.5, "dtype": "float64"}
    directions = structure.stack(chosen)
    plan = bloch.plan(plate.crystal, num_pixels=4, thicknesses=[300.0], absorption=0.05, fold=False, **settings)
    start = np.array([p.start for p in chosen])
    with jax.enable_x64(True):
        run = jax.jit(refinement._with_jacobian)
        _, guard, jacobian = run(start, refinement._arrays(plate), directions, plan)
        assert guard < 1e-9
        for i, p in enumerate(chosen):
            step = 1e-4 * np.eye(len(start))[i] * (100 if p.unit == "Å" else 1)
            ends = [run(start + s * step, refinement._arrays(plate), directions, plan)[0] for s in (1, -1)]
            difference = (ends[0] - ends[1]) / (2 * step[i])
            scale = np.abs(difference).max()
            np.testing.assert_allclose(jacobian[..., i] / scale, difference / scale, atol=1e-5, err_msg=p.name)


def test_scale_and_background_are_the_best_ones():
    x = np.linspace(0, 1, 16).reshape(1, 1, 4, 4) ** 2
    exact = np.concatenate([3 * x + 1, 5 * x + 2], axis=1)
    model = np.concatenate([x, x], axis=1)
    maps, fit = refinement.residuals(exact, model, variance=np.ones_like(exact))
    np.testing.assert_allclose(maps, 0, atol=1e-12)
    np.testing.assert_allclose([fit.scale, fit.background], [[[3, 5]], [[1, 2]]])
    _, fit = refinement.residuals(exact, model, variance=np.ones_like(exact), common_scale=True)
    np.testing.assert_allclose(fit.scale, 4)
    _, fit = refinement.residuals(exact, np.ones_like(exact), variance=np.ones_like(exact))
    np.testing.assert_allclose(fit.background, exact.mean(axis=(2, 3)))  # no contrast: all of it is background


def test_scan_finds_the_thickness(pyrite, intensities):
    grid = np.arange(100.0, 520.0, 20.0)
    plate = structure.shaken(pyrite, NAMES, 0.05, seed=1)
    found = refinement.scan_thickness(counts_of(intensities, 0), plate, grid, settings=SMALL)
    assert found.shape == (1, len(grid)) and grid[found[0].argmin()] == THICKNESS


def test_what_the_images_do_not_say_is_an_error():
    """z is along the beam."""
    crystal = read_cif(CIFS / "186_AlN_COD9008860.cif")
    settings = {**SMALL, "reflections": ((0, 0, 0), (1, 0, 0)), "max_g": 0.5}
    plate = Specimen(crystal, (200.0,))
    image = bloch.lacbed(crystal, thicknesses=(200.0,), num_pixels=12, num_checks=0, **settings).intensities
    with pytest.raises(ValueError, match="do not determine z@N1"):
        refinement.refine(counts_of(image, 0), plate, ["z"], settings=settings)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda c: c[:, :1], r"counts: expected shape \(1, 2, N, N\)"),
        (lambda c: np.where(c > c.mean(), np.nan, c), "counts: expected finite numbers"),
        (lambda c: -c, "counts: expected no negative counts"),
        (lambda c: 0 * c, "counts: the images are constant"),
    ],
)
def test_bad_images(pyrite, intensities, change, message):
    with pytest.raises(ValueError, match=message):
        refinement.refine(change(counts_of(intensities, 0)), pyrite, ["thickness"], settings=SMALL)


def test_bad_parameters(pyrite, intensities):
    counts = counts_of(intensities, 0)
    with pytest.raises(ValueError, match="refine: the symmetry fixes z"):
        refinement.refine(counts, pyrite, ["z"], settings=SMALL)
    with pytest.raises(ValueError, match="refine: absorption needs a start above 0"):
        refinement.refine(counts, pyrite, ["absorption"], settings=SMALL)
    with pytest.raises(ValueError, match="variance: expected positive numbers"):
        refinement.refine(counts, pyrite, ["x"], settings=SMALL, variance=np.zeros_like(counts))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "zone_axis", "reflections", "letters"),
    [
        ("205_FeS2_COD5000115", (0, 0, 1), ((0, 0, 0), (2, 0, 0), (2, -2, 0)), ("x",)),
        ("186_AlN_COD9008860", (1, 0, 0), ((0, 0, 0), (0, 0, 2), (0, 1, 0)), ("z",)),  # no centre of symmetry
    ],
)
def test_uncertainties_are_those_of_the_scatter(name, zone_axis, reflections, letters):
    """Twelve noise seeds from starts 0.1 angstrom off."""
    crystal = read_cif(CIFS / f"{name}.cif")
    plate = Specimen(crystal, (400.0,), 0.05)
    common = dict(zone_axis=zone_axis, half_width=0.5, reflections=reflections)
    image = bloch.lacbed(
        crystal, thicknesses=(400.0,), absorption=0.05, num_pixels=16, num_checks=0, num_strong=96, **common
    ).intensities
    names = ("thickness", "absorption", "b_iso", *letters)
    settings = {**common, "num_strong": 96}
    truth = np.array([p.start for p in structure.parameters(plate, names)])
    pulls, shifts = [], []
    for seed in range(12):
        start = structure.shaken(plate, names, 0.1, seed=seed)._replace(thicknesses=(420.0,), absorption=0.06)
        found = refinement.refine(counts_of(image, seed, 1e4), start, names, settings=settings)
        assert found.state.converged
        pulls.append((found.values - truth) / found.uncertainties)
        lengths = [p.length if p.unit == "of the cell" else 0.0 for p in found.parameters]
        shifts.append((found.values - truth) * lengths)
    assert np.abs(shifts).max() < 0.01
    rms = np.sqrt(np.mean(np.square(pulls), axis=0))
    # chi / sqrt(12) of 12 seeds: outside 0.5 to 1.6 once in a thousand.
    assert np.all((rms > 0.5) & (rms < 1.8)), rms
