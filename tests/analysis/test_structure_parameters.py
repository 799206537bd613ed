"""Free parameters of structures: site symmetry, images, shared sites, polar axes, and what symmetry forbids."""

from pathlib import Path

import jax
import numpy as np
import pytest

import physml_jax.data
from physml_jax.analysis import structure_parameters as structure
from physml_jax.analysis.structure_parameters import Specimen
from physml_jax.io.cif import read_cif
from physml_jax.simulators.diffraction.crystal import from_asymmetric_unit

CIFS = Path(physml_jax.data.__file__).parent / "structures" / "cifs"


@pytest.fixture(scope="module")
def crystals():
    names = {"pyrite": "205_FeS2_COD5000115", "wurtzite": "186_AlN_COD9008860", "quartz": "180_O2Si_COD9005025"}
    names |= {"rutile": "136_O2Si_COD9012691", "mixed": "221_O3PbTi0.35Zr0.65_COD2102946"}
    return {k: read_cif(CIFS / f"{v}.cif") for k, v in names.items()}


def filled_again(crystal, site, position):
    """The crystal with one independent atom moved, filled anew from its asymmetric unit."""
    found = structure.sites(crystal)
    rows = np.array([s.first for s in found])
    positions = np.array(crystal.positions)[rows]
    positions[[s.label for s in found].index(site)] = position
    pick = [np.asarray(getattr(crystal, f))[rows] for f in ("occupancies", "b_iso", "u_aniso")]
    return from_asymmetric_unit(
        crystal.cell, crystal.numbers[rows], positions, *pick, crystal.rotations, crystal.translations
    )


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        # International Tables A: Pa-3 8c (x, x, x); P4_2/mnm 4f (x, x, 0); P6_222 6j (x, 2x, 1/2) as (x, x/2, 1/6).
        ("pyrite", {"Fe1": {}, "S1": {0: [1, 1, 1]}}),
        ("rutile", {"Si1": {}, "O1": {0: [1, 1, 0]}}),
        ("quartz", {"Si1": {}, "O1": {0: [1, 0.5, 0]}}),
        ("wurtzite", {"Al1": {2: [0, 0, 1]}, "N1": {2: [0, 0, 1]}}),
        ("mixed", {"Pb1": {}, "Zr1/Ti1": {}, "O1": {}}),
    ],
)
def test_free_directions_are_those_of_the_wyckoff_position(crystals, name, expected):
    found = {s.label: {k: v.tolist() for k, v in s.directions.items()} for s in structure.sites(crystals[name])}
    assert found.keys() == expected.keys()
    for label, directions in expected.items():
        assert found[label].keys() == directions.keys()
        for k, v in directions.items():
            np.testing.assert_allclose(found[label][k], v, atol=1e-12)


@pytest.mark.parametrize(("name", "parameter"), [("pyrite", "x@S1"), ("quartz", "x@O1"), ("rutile", "x@O1")])
def test_images_move_as_the_symmetry_says(crystals, name, parameter):
    crystal = crystals[name]
    (p,) = structure.parameters(Specimen(crystal, (1.0,)), [parameter])
    (site,) = [s for s in structure.sites(crystal) if s.label == parameter[2:]]
    shift = 0.013
    moved = structure.changed(Specimen(crystal, (1.0,)), {parameter: p.start + shift}).crystal
    position = crystal.positions[site.first] + shift * site.directions[0]
    expected = filled_again(crystal, site.label, position)
    gap = moved.positions[:, None] - expected.positions[None]
    gap = np.abs(gap - np.round(gap)).max(-1)
    assert sorted(gap.argmin(axis=1).tolist()) == list(range(len(gap))) and gap.min(axis=1).max() < 1e-12
    assert moved.positions.dtype == np.float64


def test_length_is_the_way_of_the_atom(crystals):
    (p,) = structure.parameters(Specimen(crystals["pyrite"], (1.0,)), ["x"])
    assert p.length == pytest.approx(np.sqrt(3) * 5.4179, rel=1e-6)
    (p,) = structure.parameters(Specimen(crystals["quartz"], (1.0,)), ["x"])  # |a + b/2| with 120 degrees
    assert p.length == pytest.approx(4.9965 * np.sqrt(1 + 0.25 - 0.5), rel=1e-6)


def test_polar_axis_keeps_the_heaviest_site(crystals):
    plate = Specimen(crystals["wurtzite"], (1.0,))
    assert [p.name for p in structure.parameters(plate, ["z"])] == ["z@N1"]
    assert [p.name for p in structure.parameters(plate, ["z@Al1"])] == ["z@Al1"]


def test_elements_of_one_site_stay_together(crystals):
    plate = Specimen(crystals["mixed"], (1.0,))
    by_name = {p.name: p for p in structure.parameters(plate, ["b_iso", "occupancy"])}
    crystal = plate.crystal
    shared = np.isin(crystal.numbers, (22, 40))
    np.testing.assert_array_equal(by_name["b_iso@Zr1/Ti1"].b_iso > 0, shared)
    start = by_name["occupancy@Zr1/Ti1"].start
    found = structure.changed(plate, {"occupancy@Zr1/Ti1": 0.8 * start}).crystal
    np.testing.assert_allclose(found.occupancies, np.where(shared, 0.8, 1.0) * crystal.occupancies)


def test_specimen_parameters_and_shaking(crystals):
    plate = Specimen(crystals["pyrite"], (300.0, 500.0), 0.05)
    names = ["thickness", "absorption", "tilt", "b_iso", "x"]
    chosen = structure.parameters(plate, names)
    assert [p.name for p in chosen][:5] == ["thickness 1", "thickness 2", "absorption", "tilt x", "tilt y"]
    with jax.enable_x64(True):
        values = np.array([p.start for p in chosen]) + np.arange(len(chosen))
        moved = structure.apply(plate, structure.stack(chosen), values)
    np.testing.assert_allclose(moved.thicknesses, [300, 501])
    np.testing.assert_allclose([moved.absorption, *moved.tilt], [2.05, 3, 4])
    off = structure.shaken(plate, names, 0.1, seed=3)
    gap = np.asarray(off.crystal.positions - plate.crystal.positions) * 5.4179
    np.testing.assert_allclose(np.linalg.norm(gap, axis=1), np.where(plate.crystal.numbers == 16, 0.1, 0.0), atol=1e-9)
    np.testing.assert_allclose(off.crystal.b_iso, 1.5 * plate.crystal.b_iso)


@pytest.mark.parametrize(
    ("names", "message"),
    [
        ([], "got none"),
        (["xx"], "expected names of thickness"),
        (["y"], "symmetry fixes y; free coordinates are x@S1"),
        (["x@Fe1"], "symmetry fixes x of Fe1"),
        (["x@O1"], "there is no site 'O1'; sites are Fe1, S1"),
        (["thickness@S1"], "thickness belongs to no site"),
    ],
)
def test_wrong_names(crystals, names, message):
    with pytest.raises(ValueError, match=f"refine: .*{message}"):
        structure.parameters(Specimen(crystals["pyrite"], (1.0,)), names)


@pytest.mark.parametrize(
    ("values", "message"), [({"b_iso@S1": -1.0}, "b_iso@S1: expected 0 to"), ({"b_iso": 1.0}, "single parameters")]
)
def test_wrong_start(crystals, values, message):
    with pytest.raises(ValueError, match=f"start: .*{message}"):
        structure.changed(Specimen(crystals["pyrite"], (1.0,)), values)
