"""Reading CIF files: against gemmi's own expansion, against densities, and broken files of every kind."""

import gemmi
import numpy as np
import pytest

from physml_jax.data.crystals import bundled_cifs
from physml_jax.io.cif import formula, read, read_cif, read_crystal_info

CIFS = {p.name.split("_COD")[0]: p for p in bundled_cifs()}

ROCK_SALT = """data_nacl
_cell_length_a 5.64
_cell_length_b 5.64
_cell_length_c 5.64
_cell_angle_alpha 90
_cell_angle_beta 90
_cell_angle_gamma 90
_symmetry_space_group_name_H-M 'F m -3 m'
loop_
_atom_site_label
_atom_site_type_symbol
_atom_site_fract_x
_atom_site_fract_y
_atom_site_fract_z
Na1 Na1+ 0 0 0
Cl1 Cl1- 0.5 0.5 0.5
"""


@pytest.fixture
def write(tmp_path):
    def write(text, name="sample.cif"):
        path = tmp_path / name
        path.write_bytes(text if isinstance(text, bytes) else text.encode())
        return path

    return write


@pytest.mark.parametrize("name", sorted(CIFS))
def test_bundled_files(name):
    crystal, info = read(CIFS[name])
    # gemmi fills the cell in its own way.
    small = gemmi.read_small_structure(str(CIFS[name]))
    sites = small.get_all_unit_cell_sites()
    for z in np.unique(crystal.numbers):
        mine = crystal.occupancies[crystal.numbers == z].sum()
        theirs = sum(s.occ for s in sites if s.element.atomic_number == z)
        assert mine == pytest.approx(theirs, abs=1e-4)
    assert (crystal.positions >= 0).all() and (crystal.positions < 1).all()
    assert ((crystal.b_iso > 0) ^ crystal.u_aniso.any(axis=1)).all()
    assert info.space_group == int(CIFS[name].name[:3])
    assert info.template.startswith(f"{info.space_group}|")
    assert info.source == "COD " + CIFS[name].stem.split("_COD")[1]
    assert info.licence in ("public domain", "CC0")


# g/cm^3: Haynes (ed.), CRC Handbook of Chemistry and Physics, 95th ed.; rounded to 2 %.
@pytest.mark.parametrize(
    ("name", "density"),
    [
        ("225_ClNa", 2.17),
        ("225_Au", 19.3),
        ("227_Si", 2.33),
        ("227_C", 3.51),
        ("229_Fe", 7.87),
        ("205_FeS2", 5.02),
        ("221_O3SrTi", 5.11),
        ("167_CCaO3", 2.71),
        ("225_CeO2", 7.22),
    ],
)
def test_densities(name, density):
    crystal = read_cif(CIFS[name])
    weight = sum(gemmi.Element(int(z)).weight * o for z, o in zip(crystal.numbers, crystal.occupancies, strict=True))
    assert weight * 1.66054 / gemmi.UnitCell(*crystal.cell).volume == pytest.approx(density, rel=0.025)


def test_thermal_factors():
    crystal = read_cif(CIFS["198_Ag7PSe6"])
    # Ag2 .0582 .0570 .0289 -.0065 .0003 .0265: the first image is the atom of the list.
    row = np.argmin(np.abs(crystal.positions - np.array([0.0195, 0.00967, 0.27518])).max(axis=1))
    np.testing.assert_allclose(crystal.u_aniso[row], [0.0582, 0.0570, 0.0289, -0.0065, 0.0003, 0.0265], atol=1e-9)
    assert (crystal.b_iso == 0).all()
    spinel = read_cif(CIFS["227_Al2MgO4"])  # U_iso of oxygen 0.00640
    np.testing.assert_allclose(spinel.b_iso[spinel.numbers == 8], 8 * np.pi**2 * 0.0064)
    assert (read_cif(CIFS["227_Si"], default_b_iso=0.7).b_iso == 0.7).all()
    with pytest.raises(ValueError, match="default_b_iso"):
        read_cif(CIFS["227_Si"], default_b_iso=-1.0)


def test_shared_sites_and_formula():
    crystal, info = read(CIFS["227_Al2MgO4"])
    assert len(crystal.numbers) == 80  # 8 + 16 metal sites with two elements each, 32 oxygen
    assert crystal.occupancies[crystal.numbers == 13].sum() == pytest.approx(16, abs=0.01)
    assert info.formula == formula(crystal) == "Al2MgO4"
    assert read_crystal_info(CIFS["167_CCaO3"]).formula == "CCaO3"


def test_symmetry_from_the_name(write):
    crystal, info = read(write(ROCK_SALT))
    assert (len(crystal.numbers), info.formula, info.space_group) == (8, "ClNa", 225)
    assert info.template == "225|4|4"
    number = ROCK_SALT.replace("_symmetry_space_group_name_H-M 'F m -3 m'", "_symmetry_Int_Tables_number 225")
    assert len(read_cif(write(number)).numbers) == 8
    hall = ROCK_SALT.replace("_symmetry_space_group_name_H-M 'F m -3 m'", "_space_group_name_Hall '-F 4 2 3'")
    assert len(read_cif(write(hall)).numbers) == 8


def test_operations_win_over_the_name(write):
    # The name says F m -3 m, the operations are those of P 1.
    crystal, info = read(write(ROCK_SALT + "loop_\n_symmetry_equiv_pos_as_xyz\n'x, y, z'\n"))
    assert (len(crystal.numbers), info.space_group) == (2, 1)


@pytest.mark.parametrize(
    ("coordinates", "atoms"),
    [("0 0 0", 8), ("0.125 0.125 0.125", 8)],
)
def test_origin_choice_left_open(write, coordinates, atoms):
    # Silicon in F d -3 m: at 0,0,0 with origin choice 1, at 1/8 with choice 2.
    text = ROCK_SALT.replace("F m -3 m", "F d -3 m").replace("Cl1 Cl1- 0.5 0.5 0.5\n", "")
    assert len(read_cif(write(text.replace("Na1 Na1+ 0 0 0", f"Si1 Si {coordinates}"))).numbers) == atoms


def test_origin_choice_from_the_composition(write):
    # The coordinates of spinel fit both origins; only one gives MgAl2O4 and not Mg2AlO4.
    atoms = "Mg1 Mg 0.125 0.125 0.125\nAl1 Al 0.5 0.5 0.5\nO1 O 0.2625 0.2625 0.2625\n"
    text = ROCK_SALT[: ROCK_SALT.index("Na1 Na")].replace("F m -3 m", "F d -3 m") + atoms
    assert read_crystal_info(
        write("data_a\n_chemical_formula_sum 'Al2 Mg O4'\n" + text[text.index("_cell") :])
    ).formula == ("Al2MgO4")


@pytest.mark.parametrize(
    ("symbol", "number"),
    [("Fe3+", 26), ("O2-", 8), ("D", 1), ("Cl-", 17), ("Sival", 14), ("CU2+", 29), ("Cval", 6)],
)
def test_type_symbols(write, symbol, number):
    text = ROCK_SALT.replace("Na1 Na1+ 0 0 0", f"X1 {symbol} 0 0 0").replace("Cl1 Cl1- 0.5 0.5 0.5\n", "")
    assert set(read_cif(write(text)).numbers) == {number}


@pytest.mark.parametrize(
    ("label", "stated", "number"),
    [
        ("Se1a", "Se", 34),
        ("OW1", "O", 8),
        ("Wat", "H2 O", 8),
        ("CA1", "Ca O", 20),
        ("CA1", "C O", 6),
        ("FeT2+", "Fe", 26),
    ],
)
def test_labels_without_type_symbols(write, label, stated, number):
    text = ROCK_SALT.replace("_atom_site_type_symbol\n", "").replace("Cl1 Cl1- 0.5 0.5 0.5\n", "O 0.5 0.5 0.5\n")
    stated = f"data_x\n_chemical_formula_sum '{stated}'\n"
    text = stated + text.replace("Na1 Na1+ 0 0 0", f"{label} 0 0 0").removeprefix("data_nacl\n")
    assert number in read_cif(write(text)).numbers


def test_uncertainties_dummies_and_vacancies(write):
    text = ROCK_SALT.replace("_atom_site_fract_z\n", "_atom_site_fract_z\n_atom_site_occupancy\n_atom_site_calc_flag\n")
    text = text.replace(
        "Na1 Na1+ 0 0 0", "Na1 Na1+ 0.0000(2) 0 0 0.97(1) d\nH1 H -1 -1 -1 1 dum\nVac Vac .25 .25 .25 1 d"
    )
    text = text.replace("Cl1 Cl1- 0.5 0.5 0.5", "Cl1 Cl1- 0.5 0.5 0.5 1.02 d").replace(
        "_length_a 5.64", "_length_a 5.6401(2)"
    )
    crystal = read_cif(write(text))
    assert crystal.numbers.tolist() == [11] * 4 + [17] * 4
    assert crystal.cell[0] == 5.6401
    np.testing.assert_allclose(crystal.occupancies, [0.97] * 4 + [1.0] * 4)  # 1.02 is read as 1


def test_bad_tensors_fall_back_to_the_isotropic_factor(write):
    aniso = "loop_\n_atom_site_aniso_label\n" + "".join(
        f"_atom_site_aniso_U_{i}\n" for i in ("11", "22", "33", "12", "13", "23")
    )
    crystal = read_cif(write(ROCK_SALT + aniso + "Na1 0.01 0.01 0.01 0 0 0\nCl1 0.01 -0.02 0.01 0 0 0\n"))
    assert (crystal.b_iso == np.repeat([0.0, 0.5], 4)).all()
    np.testing.assert_allclose(crystal.u_aniso[:, 0], np.repeat([0.01, 0.0], 4))


NO_ATOMS = ROCK_SALT[: ROCK_SALT.index("loop_")]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "empty"),
        ("  \n\n", "empty"),
        (b"\x89PNG\r\n\0\0\x1a", "not a CIF file"),
        ("this is no CIF at all", "not a CIF file"),
        ("# only a comment\n", "not a CIF file"),
        (ROCK_SALT + "loop_\n_a\n_b\n1 2 3\n", r"not a CIF file \(line \d+: Wrong number of values"),
        (ROCK_SALT + "_cell_length_a 5\n", r"not a CIF file \(.*duplicate"),
        ("data_x\n_journal_year 1999\n", "no unit cell"),
        (ROCK_SALT.replace("_cell_length_b 5.64\n", ""), "no unit cell.*_cell_length_b"),
        (ROCK_SALT.replace("_cell_length_b 5.64", "_cell_length_b ?"), "no unit cell.*_cell_length_b"),
        (NO_ATOMS, "no atom sites"),
        (ROCK_SALT.replace("_fract_", "_Cartn_"), "no fractional coordinates"),
        (ROCK_SALT.replace("Cl1 Cl1- 0.5 0.5 0.5", "Cl1 Cl1- 0.5 ? 0.5"), "'Cl1' has no coordinates"),
        (ROCK_SALT.replace("Cl1- ", "Qq "), "unknown element 'Qq'"),
        (ROCK_SALT.replace("_cell_length_a 5.64", "_cell_length_a 5640"), "absurd unit cell"),
        (ROCK_SALT.replace("_cell_length_a 5.64", "_cell_length_a -5.64"), "absurd unit cell"),
        (ROCK_SALT.replace("_alpha 90", "_alpha 0"), "absurd unit cell"),
        (ROCK_SALT.replace("_cell_length_a 5.64", "_cell_length_a 6.64"), "do not fit the unit cell"),
        (ROCK_SALT.replace("'F m -3 m'", "'nonsense'"), "no known space group"),
        (ROCK_SALT.replace("_symmetry_space_group_name_H-M 'F m -3 m'\n", ""), "no symmetry operations"),
        (ROCK_SALT + "loop_\n_symmetry_equiv_pos_as_xyz\nx,y,z\nx,y,q\n", "not a symmetry operation"),
        (ROCK_SALT + "loop_\n_symmetry_equiv_pos_as_xyz\nx,y,z\ny,z,x\n", "do not form a group"),
        (ROCK_SALT.replace("Cl1 Cl1- 0.5 0.5 0.5", "Cl1 Cl1- 0.05 0 0"), "too close: Na and Cl at 0.28"),
        (ROCK_SALT.replace("data_nacl", "data_nacl\n_chemical_formula_sum 'Cl F Na'"), "formula has F"),
    ],
)
def test_broken_files(write, text, message):
    path = write(text)
    with pytest.raises(ValueError, match=message) as caught:
        read_cif(path)
    assert str(caught.value).startswith(f"{path}: ")
    assert "\n" not in str(caught.value)


def test_missing_file(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"absent\.cif"):
        read_cif(tmp_path / "absent.cif")


def test_old_encodings(write):
    text = ROCK_SALT.replace("data_nacl", "data_nacl\n_publ_author_name 'Müller'")
    assert len(read_cif(write(text.encode("latin-1"))).numbers) == 8
    assert len(read_cif(write(b"\xef\xbb\xbf" + text.encode().replace(b"\n", b"\r\n"))).numbers) == 8
