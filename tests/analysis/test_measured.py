"""Files of patterns as input of a refinement: counts or intensities, settings, starts, and what is wrong with them."""

from pathlib import Path

import numpy as np
import pytest

import physml_jax.data
from physml_jax.analysis import measured, simulation
from physml_jax.analysis import structure_parameters as structure
from physml_jax.io.cif import read_cif

CIFS = Path(physml_jax.data.__file__).parent / "structures" / "cifs"


@pytest.fixture(scope="module")
def crystal():
    return read_cif(CIFS / "205_FeS2_COD5000115.cif")


def arrays(dose=0.0, shape=(1, 2, 4, 4)):
    return {
        "images": np.full(shape, 0.25),
        "thicknesses": np.array([300.0]),
        "reflections": np.array([[0, 0, 0], [2, 0, 0]]),
        "half_width": np.array(0.4),
        "zone_axis": np.array([0, 0, 1]),
        "voltage_kv": np.array(120.0),
        "dose": np.array(dose),
    }


def test_counts_and_fractions(crystal):
    counted = measured.prepare(crystal, arrays(dose=100.0), {})
    assert counted.variance is None and counted.counts.max() == 0.25
    given = measured.prepare(crystal, arrays(), {}, dose=100.0)
    assert given.variance is None and given.counts.max() == 25
    unknown = measured.prepare(crystal, arrays(), {})
    assert np.all(unknown.variance == 1) and unknown.counts.max() == 0.25


def test_settings_are_those_of_the_file(crystal):
    about = {
        "settings": {"max_g": 3.0, "num_strong": 96, "absorption_model": "thermal", "foil_normal": [0, 1, 9]},
        "absorption": 0.5,
        "truth": {"thickness": 300.0},
    }
    found = measured.prepare(crystal, arrays(), about, num_strong=128)
    assert found.settings["max_g"] == 3.0 and found.settings["num_strong"] == 128
    assert found.settings["voltage_kv"] == 120.0 and found.settings["reflections"] == [(0, 0, 0), (2, 0, 0)]
    conventions = found.settings["conventions"]
    assert conventions.absorption_model == "thermal" and conventions.foil_normal == (0, 1, 9)
    assert hash(conventions) and found.plate.absorption == 0.5 and found.truth == {"thickness": 300.0}
    assert measured.prepare(crystal, arrays(), about, absorption=0.1).plate.absorption == 0.1


def test_what_a_simulation_writes_is_what_a_refinement_reads(crystal):
    request = simulation.Request(thicknesses=(300.0,), dose=50.0)
    made = simulation.Simulated(
        np.zeros((1, 1, 4, 4)), np.zeros((4, 4, 2)), ((0, 0, 0),), np.zeros((1, 2)), 0.4, 40.0, 1e-3, 96, {"max_g": 3.0}
    )
    found = measured.prepare(crystal, *simulation.contents(crystal, request, made, made.images))
    assert found.truth["x@S1"] == pytest.approx(0.384) and found.truth["b_iso@Fe1"] == 0.5
    assert found.variance is None and found.plate.thicknesses == (300.0,)


def test_start(crystal):
    images = measured.prepare(crystal, arrays(), {})
    plate = measured.start(images, ["x"], values=["x@S1=0.39", "b_iso@Fe1=0.7"])
    np.testing.assert_allclose(plate.crystal.positions[structure.sites(crystal)[1].first], 0.39)
    np.testing.assert_allclose(plate.crystal.b_iso[:4], 0.7)
    assert plate.thicknesses == (300.0,)  # not refined: as the file says
    # Set by hand: no scan.
    assert measured.start(images, ["thickness"], values=["thickness=250"]).thicknesses[0] == 250.0


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"values": ["x@S1"]}, "start: expected name=value, got 'x@S1'"),
        ({"values": ["x@S1=a"]}, "start: expected name=value"),
        ({"values": ["x=0.39", "y@S1=1"]}, "refine: the symmetry fixes y"),
        ({"scan": (500.0, 100.0)}, "scan: expected two increasing"),
        ({"shake": 3.0}, "shake: expected 0 to 1"),
        ({"names": ["q"]}, "refine: expected names"),
    ],
)
def test_wrong_starts(crystal, options, message):
    images = measured.prepare(crystal, arrays(), {})
    with pytest.raises(ValueError, match=message):
        measured.start(images, options.pop("names", ["x"]), **options)


def test_wrong_files(crystal):
    with pytest.raises(ValueError, match="images: expected patterns"):
        measured.prepare(crystal, arrays(shape=(1, 2, 9)), {})
    with pytest.raises(ValueError, match="dose: expected a positive number"):
        measured.prepare(crystal, arrays(), {}, dose=0.0)
