"""Form factors against closed forms and against each other, structure factors against gemmi and selection rules."""

import gemmi
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from physml_jax.data.crystals import bundled_cifs
from physml_jax.io.cif import read_cif
from physml_jax.simulators.diffraction import scattering
from physml_jax.simulators.diffraction.crystal import Crystal

enable_x64 = jax.enable_x64 if hasattr(jax, "enable_x64") else jax.experimental.enable_x64

BOHR = 0.529177210903
HKL = np.array([(h, k, l) for h in range(-1, 4) for k in (-2, 0, 3) for l in (-3, 0, 1)])
CIFS = {p.name.split("_COD")[0]: p for p in bundled_cifs()}


jitted_structure_factors = jax.jit(scattering.structure_factors, static_argnames="table")
jitted_form_factors = jax.jit(scattering.form_factors, static_argnames="table")


def padded(crystal, n=192):
    """The crystal with added atoms of occupancy 0 and without operations: all crystals share one compiled program."""

    def pad(x):
        return np.pad(x, [(0, n - len(x))] + [(0, 0)] * (x.ndim - 1))

    arrays = {k: pad(getattr(crystal, k)) for k in ("positions", "occupancies", "b_iso", "u_aniso")}
    numbers = np.pad(crystal.numbers, (0, n - len(crystal.numbers)), constant_values=1)
    return crystal._replace(numbers=numbers, rotations=None, translations=None, **arrays)


def structure_factors(crystal, hkl, table="kirkland"):
    """Double precision, for any number of reflections up to that of HKL."""
    hkl = np.asarray(hkl)
    rows = np.zeros_like(HKL)
    rows[: len(hkl)] = hkl
    with enable_x64(True):
        return np.asarray(jitted_structure_factors(padded(crystal), rows, table=table))[: len(hkl)]


def factors(numbers, g, table):
    with enable_x64(True):
        return np.asarray(jitted_form_factors(np.asarray(numbers), np.asarray(g, float), table=table))


# De Graef (2003), Introduction to Conventional TEM, table 2.2; 100 and 300 kV to its digits.
@pytest.mark.parametrize(("voltage", "angstrom"), [(100.0, 0.037014), (200.0, 0.0250793), (300.0, 0.0196875)])
def test_wavelength(voltage, angstrom):
    assert scattering.wavelength(voltage) == pytest.approx(angstrom, abs=1e-6)
    assert scattering.wavelength(jnp.float32(voltage)).dtype == jnp.float32


def test_relativistic_factor_and_wavelength_are_consistent():
    # gamma beta = h / (m c lambda)
    gamma = scattering.relativistic_factor(200.0)
    momentum = scattering.PLANCK_LIGHT / (scattering.REST_ENERGY * scattering.wavelength(200.0))
    assert gamma**2 - momentum**2 == pytest.approx(1, rel=1e-12)


@pytest.mark.parametrize(("table", "error"), [("kirkland", 0.01), ("lobato", 0.001), ("peng", 0.01)])
def test_hydrogen_closed_form(table, error):
    # Mott-Bethe formula with the exact 1s density: f_x = 1 / (1 + (pi a0 g)^2)^2.
    g = np.linspace(0.05, 2.0, 40)
    exact = (1 - (1 + (np.pi * BOHR * g) ** 2) ** -2.0) / (2 * np.pi**2 * BOHR * g**2)
    np.testing.assert_allclose(factors([1], g, table)[:, 0], exact, rtol=error)


@pytest.mark.parametrize("table", ["kirkland", "lobato"])
def test_coulomb_tail(table):
    # The nucleus alone scatters at large angles: f -> Z / (2 pi^2 a0 g^2), less the core electrons' few per cent.
    g, numbers = np.array([10.0]), np.arange(3, 21)
    ratio = factors(numbers, g, table)[0] * 2 * np.pi**2 * BOHR * g**2 / numbers
    assert (ratio > 0.85).all() and (ratio < 1.02).all()


def test_tables_agree():
    # Fits by different authors from different atomic calculations: 0.3 % typical, more for heavy atoms at small angles.
    numbers, g = np.arange(1, 99), np.linspace(0.0, 2.0, 21)
    kirkland, lobato, peng = (factors(numbers, g, t) for t in ("kirkland", "lobato", "peng"))
    for other in (lobato, peng):
        relative = np.abs(other / kirkland - 1)
        assert np.median(relative) < 0.005
        assert relative.max() < 0.12
        assert relative[3:].max() < 0.05  # g >= 0.3
    beyond = np.linspace(2.0, 3.0, 6)
    relative = np.abs(factors(numbers, beyond, "peng") / factors(numbers, beyond, "kirkland") - 1)
    assert relative.max() < 0.08  # the worst are the alkali metals


def test_older_table():
    """Doyle and Turner's Gaussians: 0.4 % typical, 3.6 % at most (near g = 2)."""
    numbers, g = scattering.elements("doyle_turner"), np.linspace(0.0, 2.0, 21)
    assert len(numbers) == 52 and numbers[-1] == 92
    ours, kirkland = (factors(numbers, g, t) for t in ("doyle_turner", "kirkland"))
    relative = np.abs(ours / kirkland - 1)
    assert np.median(relative) < 0.005 and np.quantile(relative, 0.9) < 0.015
    assert relative.max() < 0.04


def test_peng_table_is_that_of_gemmi():
    numbers, g = np.arange(1, 99), np.array([0.0, 0.3, 1.0, 3.0])
    reference = [[gemmi.Element(int(z)).c4322.calculate_sf(float(x / 2) ** 2) for z in numbers] for x in g]
    np.testing.assert_allclose(factors(numbers, g, "peng"), reference, rtol=2e-5)


@pytest.mark.parametrize(
    ("table", "numbers"), [("peng", [14, 99]), ("kirkland", [104]), ("lobato", [0]), ("doyle_turner", [14, 21])]
)
def test_elements_outside_a_table(table, numbers):
    with pytest.raises(ValueError, match=str(numbers[-1])):
        scattering.form_factors(np.array(numbers), np.zeros(1), table=table)
    traced = jax.jit(lambda z: scattering.form_factors(z, jnp.zeros(1), table=table))(jnp.array(numbers))
    assert np.isnan(traced[0, -1])


def test_unknown_table():
    with pytest.raises(ValueError, match="kirkland, lobato, peng"):
        scattering.form_factors(np.array([14]), np.zeros(1), table="doyle")


@pytest.mark.parametrize("name", sorted(CIFS))
def test_structure_factors_agree_with_gemmi(name):
    # Cells, operations, occupancies, shared sites and thermal tensors all enter; gemmi's F has the other sign of phase.
    crystal = read_cif(CIFS[name], default_b_iso=0.5)
    small = gemmi.read_small_structure(str(CIFS[name]))
    small.change_occupancies_to_crystallographic()
    for site in small.sites:
        if not site.aniso.nonzero() and not site.u_iso > 0:
            site.u_iso = 0.5 / (8 * np.pi**2)
    calculator = gemmi.StructureFactorCalculatorE(small.cell)
    reference = np.array([calculator.calculate_sf_from_small_structure(small, h.tolist()) for h in HKL])
    mine = structure_factors(crystal, HKL, table="peng")
    mean = reference.real.max()
    np.testing.assert_allclose(mine.conj() / mean, reference / mean, atol=1e-6)


@pytest.mark.parametrize(
    ("name", "absent"),
    [
        ("225_ClNa", [(1, 0, 0), (2, 1, 0), (2, 2, 1)]),  # F: mixed parity
        ("229_Fe", [(1, 0, 0), (1, 1, 1)]),  # I: odd sum
        ("227_Si", [(2, 0, 0), (2, 2, 2), (4, 2, 0)]),  # d glide; (222) by the special position
        ("205_FeS2", [(0, 1, 0), (0, 1, 2)]),  # glide: 0kl with k odd
    ],
)
def test_systematic_absences(name, absent):
    crystal = read_cif(CIFS[name])
    mean = structure_factors(crystal, [[0, 0, 0]]).real[0]
    assert np.abs(structure_factors(crystal, absent)).max() < 1e-9 * mean


def test_symmetry_of_structure_factors():
    # F(h R) = F(h) exp(-2 pi i h.t) for x -> R x + t, anisotropic tensors included.
    crystal = read_cif(CIFS["198_Ag7PSe6"])
    hkl = np.array([[1, 2, 3], [0, 2, 5], [-3, 1, 4]])
    reference = structure_factors(crystal, hkl)
    for rotation, translation in zip(crystal.rotations, crystal.translations, strict=True):
        image = structure_factors(crystal, hkl @ rotation)
        np.testing.assert_allclose(image * np.exp(-2j * np.pi * hkl @ translation), reference, atol=1e-4)
    np.testing.assert_allclose(structure_factors(crystal, -hkl), reference.conj(), atol=1e-10)


def test_isotropic_tensor_equals_isotropic_factor():
    # In an oblique cell the tensor of an isotropic atom is not diagonal: U_ij = u (a*_i.a*_j) / (a*_i a*_j).
    crystal = read_cif(CIFS["014_AlF6Na3"])
    u = 0.013
    with enable_x64(True):
        reciprocal = np.asarray(scattering.geometry.reciprocal_vectors(crystal.cell))
    unit = reciprocal / np.linalg.norm(reciprocal, axis=1, keepdims=True)
    cosine = unit @ unit.T
    tensor = u * np.array([1, 1, 1, cosine[0, 1], cosine[0, 2], cosine[1, 2]])
    n = len(crystal.numbers)
    isotropic = crystal._replace(b_iso=np.full(n, 8 * np.pi**2 * u), u_aniso=np.zeros((n, 6)))
    anisotropic = crystal._replace(b_iso=np.zeros(n), u_aniso=np.tile(tensor, (n, 1)))
    hkl = np.array([[1, 2, -3], [2, 0, 4], [0, -5, 1]])
    np.testing.assert_allclose(structure_factors(anisotropic, hkl), structure_factors(isotropic, hkl), rtol=1e-10)


def test_potential_coefficients():
    crystal = read_cif(CIFS["221_O3SrTi"])
    hkl = np.array([[0, 0, 0], [1, 0, 0], [2, 1, 0]])
    with enable_x64(True):
        jitted = jax.jit(scattering.potential_coefficients)
        plain = np.asarray(jitted(crystal, hkl, voltage_kv=200.0, absorption=0.0))
        absorbing = np.asarray(jitted(crystal, hkl, voltage_kv=200.0, absorption=0.1))
    volume = np.prod(crystal.cell[:3])
    expected = 1.3913902 / (np.pi * volume) * structure_factors(crystal, hkl)
    np.testing.assert_allclose(plain, expected, rtol=1e-7)
    np.testing.assert_allclose(absorbing, plain * (1 + 0.1j), rtol=1e-12)  # the mean too
    # U = 2 m e gamma V / h^2, and V_g = 47.878 F_g / volume: the two constants belong together.
    volts = scattering.POTENTIAL_FACTOR * structure_factors(crystal, hkl) / volume
    hbar_c, rest = scattering.PLANCK_LIGHT / (2 * np.pi), scattering.REST_ENERGY
    np.testing.assert_allclose(plain, 2 * rest * 1.3913902 * volts * 1e-3 / (hbar_c * 2 * np.pi) ** 2, rtol=1e-6)


def test_float32_jit_padding_and_gradient():
    crystal = Crystal(*(jnp.asarray(x) for x in read_cif(CIFS["205_FeS2"])))
    assert crystal.positions.dtype == jnp.float32
    reference = structure_factors(read_cif(CIFS["205_FeS2"]), HKL)
    single = jax.jit(scattering.structure_factors)(crystal, HKL)
    assert single.dtype == jnp.complex64
    np.testing.assert_allclose(single, reference, atol=2e-5 * np.abs(reference).max())
    longer = padded(read_cif(CIFS["205_FeS2"]), 15)
    np.testing.assert_allclose(jax.jit(scattering.structure_factors)(longer, HKL), single, atol=1e-4)
    hkl = jnp.zeros((1, 3), jnp.int32)

    def mean(cell):
        return scattering.structure_factors(crystal._replace(cell=cell), hkl).real.sum()

    np.testing.assert_array_equal(
        jax.jit(jax.grad(mean))(crystal.cell), np.zeros(6)
    )  # F_000 does not depend on the cell
