"""Discs and rocking curves against the patterns that they are made of, and against the two-beam formula."""

from pathlib import Path

import numpy as np
import pytest

import physml_jax.data
from physml_jax.io.cif import read_cif
from physml_jax.simulators.diffraction import bloch, convergent, scattering

CIFS = Path(physml_jax.data.__file__).parent / "structures" / "cifs"
SETTINGS = dict(max_g=0.8, num_strong=None, num_checks=0, thicknesses=(150.0, 300.0))


@pytest.fixture(scope="module")
def crystal():
    return read_cif(CIFS / "221_O3SrTi_COD9006864.cif")


def test_discs_are_lacbed_patterns(crystal):
    """Every pixel of a disc is the intensity of that beam for that direction; electrons are the sum over discs."""
    found = convergent.cbed(crystal, semi_angle_mrad=2.0, radius=0.4, num_pixels=40, **SETTINGS)
    assert found.pattern.shape == (2, 40, 40) and len(found.reflections) == 9
    aperture = 2e-3 / scattering.wavelength(200.0)
    y, x = np.meshgrid(found.coordinates, found.coordinates, indexing="ij")
    a = float(crystal.cell[0])
    for h, k in ((0, 0), (1, 0), (-1, 1)):
        distance = np.hypot(x - h / a, y - k / a)
        row, column = (int(i[0]) for i in np.nonzero(distance == distance.min()))
        tilt = np.array([[x[row, column] - h / a, y[row, column] - k / a]])
        alone = bloch.lacbed(crystal, reflections=[(h, k, 0)], tilts=tilt, **SETTINGS).intensities[:, 0, 0]
        np.testing.assert_allclose(found.pattern[:, row, column], alone, atol=1e-5)
    outside = np.all([np.hypot(x - h / a, y - k / a) > aperture for h in (-1, 0, 1) for k in (-1, 0, 1)], axis=0)
    assert not found.pattern[:, outside].any() and outside.any()


def test_rocking_curve_of_a_weak_reflection(crystal):
    """Kinematic: I = (2 pi t V)^2 sinc^2(s t), with the excitation error that the function reports."""
    thin = crystal._replace(occupancies=np.asarray(crystal.occupancies) * 1e-3)
    a = float(crystal.cell[0])
    found = convergent.rocking_curve(
        thin,
        start=(-0.5 / a - 0.4, 0.0),
        stop=(-0.5 / a + 0.4, 0.0),
        num_points=41,
        reflections=[(1, 0, 0)],
        **SETTINGS,
    )
    assert found.intensities.shape == (2, 1, 41) and abs(found.excitation_errors[0, 20]) < 1e-12
    for t, curve in zip((150.0, 300.0), found.intensities[:, 0], strict=True):
        np.testing.assert_allclose(
            curve, curve[20] * np.sinc(found.excitation_errors[0] * t) ** 2, atol=0.02 * curve[20]
        )


def test_panel_of_reflections(crystal):
    found = convergent.reflections_within(crystal, max_g=0.4)
    assert found[0] == (0, 0, 0) and len(found) == 9
    images = bloch.lacbed(crystal, reflections=found, half_width=0.2, num_pixels=3, **SETTINGS).intensities
    assert images.shape == (2, 9, 3, 3)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (dict(semi_angle_mrad=0.0), "semi_angle_mrad"),
        (dict(radius=-1.0), "radius"),
        (dict(tilts=np.zeros((1, 2))), "tilts"),
        (dict(semi_angle_mrad=1e-4, num_pixels=2), "num_pixels"),
    ],
)
def test_bad_input_is_named(crystal, change, message):
    with pytest.raises(ValueError, match=message):
        convergent.cbed(crystal, **{**dict(semi_angle_mrad=2.0, radius=0.4), **change})
    with pytest.raises(ValueError, match="num_points"):
        convergent.rocking_curve(crystal, start=(0, 0), stop=(1, 0), num_points=0)
