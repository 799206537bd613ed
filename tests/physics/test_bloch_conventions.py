"""Named conventions against a dense program that is written from the definitions, and symmetry of all plane groups."""

from pathlib import Path

import jax
import numpy as np
import pytest
import scipy.integrate
import scipy.linalg

import physml_jax.data
from physml_jax.io.cif import read_cif
from physml_jax.simulators.diffraction import absorption, bloch, scattering
from physml_jax.simulators.diffraction import crystal as geometry
from physml_jax.simulators.diffraction.bloch import Conventions

CIFS = Path(physml_jax.data.__file__).parent / "structures" / "cifs"
SRTIO3, GAAS = "221_O3SrTi_COD9006864", "216_AsGa_COD9008845"
IDENTITY = dict(rotations=np.eye(3, dtype=np.int32)[None], translations=np.zeros((1, 3)))

jitted_intensities = jax.jit(bloch.intensities)
jitted_amplitudes = jax.jit(bloch.amplitudes)


def load(name):
    return read_cif(CIFS / f"{name}.cif")


def crystal_of(cell, positions, numbers, *, b_iso=0.4):
    """A crystal without symmetry."""
    n = len(numbers)
    return geometry.Crystal(
        cell=np.asarray(cell, float),
        positions=np.asarray(positions, float) % 1.0,
        numbers=np.asarray(numbers, np.int32),
        occupancies=np.linspace(1.0, 0.7, n),
        b_iso=np.full(n, b_iso),
        u_aniso=np.zeros((n, 6)),
        **IDENTITY,
    )


TRICLINIC = crystal_of(
    (4.1, 4.6, 5.2, 81.0, 97.0, 105.0), [(0.0, 0.0, 0.0), (0.31, 0.42, 0.17), (0.62, 0.11, 0.73)], (22, 14, 33)
)._replace(u_aniso=np.array([[0.004, 0.006, 0.005, 0.001, -0.001, 0.0005]] * 3))


# The definitions


def dense(crystal, hkl, *, zone_axis, tilts, thickness, reflections, ratio, conventions, voltage_kv=200.0):
    """Amplitudes [R, P] by a matrix exponential per tilt, (K^2 - |K + g|^2) and all, over a given list of beams."""
    with jax.enable_x64(True):
        reciprocal = np.asarray(geometry.reciprocal_vectors(crystal.cell))
        lattice = np.asarray(geometry.lattice_vectors(crystal.cell))
        frame = np.asarray(geometry.beam_frame(crystal.cell, zone_axis))
        difference, place = np.unique((hkl[:, None] - hkl[None]).reshape(-1, 3), axis=0, return_inverse=True)
        options = dict(voltage_kv=voltage_kv, absorption=ratio, model=conventions.absorption_model)
        u = np.asarray(absorption.potential_coefficients(crystal, difference, **options))
    angle = np.deg2rad(conventions.azimuth_deg)
    turn = np.array([[np.cos(angle), np.sin(angle), 0], [-np.sin(angle), np.cos(angle), 0], [0, 0, 1]])
    frame = turn @ frame
    matrix = u[place.reshape(-1)].reshape(len(hkl), len(hkl))
    mean = matrix[0, 0]
    np.fill_diagonal(matrix, 1j * mean.imag)
    vacuum = 1 / scattering.wavelength(voltage_kv)
    big_k = np.sqrt(vacuum**2 + mean.real) if conventions.mean_inner_potential else vacuum
    g = hkl @ reciprocal @ frame.T
    normal = np.array([0, 0, 1.0])
    if conventions.foil_normal is not None:
        normal = frame @ (np.array(conventions.foil_normal) @ lattice)
        normal /= np.linalg.norm(normal)
    start = int(np.flatnonzero(~hkl.any(axis=1))[0])
    rows = [int(np.flatnonzero((hkl == r).all(axis=1))[0]) for r in np.array(reflections)]
    out = []
    for kx, ky in tilts.reshape(-1, 2):
        k = np.array([kx, ky, np.sqrt(big_k**2 - kx**2 - ky**2)])
        defect = big_k**2 - ((k + g) ** 2).sum(axis=1)  # 2 K s of the chord
        along = k @ normal
        crossing = (k + g) @ normal
        unit = big_k if conventions.foil_normal is None else along  # what a thickness is measured against
        m = np.sqrt(along / crossing)
        if conventions.excitation_error == "chord":
            diagonal = m**2 * defect / (2 * unit)
        elif conventions.excitation_error == "beam":
            b = (k + g) @ k / big_k
            diagonal = m**2 * (np.sqrt(b**2 + defect) - b) * big_k / unit
        else:
            diagonal = (np.sqrt(crossing**2 + defect) - crossing) * along / unit
        a = m[:, None] * matrix * m[None, :] / (2 * unit) + np.diag(diagonal)
        s = m[:, None] * scipy.linalg.expm(2j * np.pi * thickness * a) / m[None, :]
        phase = np.exp(2j * np.pi * thickness * mean.real / (2 * vacuum)) if conventions.mean_inner_potential else 1.0
        out.append(s[rows, start] * phase)
    return np.array(out).T


@pytest.mark.parametrize(
    ("crystal", "zone_axis", "reflections", "ratio", "conventions"),
    [
        # Every departure from the defaults at once, in a cell without right angles.
        (
            TRICLINIC,
            (1, 0, 1),
            [(0, 0, 0), (0, 1, 0), (-1, 0, 1)],
            1.0,
            Conventions(
                foil_normal=(1.0, 0.4, 1.0),
                laue_zones=1,
                max_holz_error=0.004,
                absorption_model="thermal",
                mean_inner_potential=True,
                azimuth_deg=20.0,
            ),
        ),
        *(
            pytest.param(*case, marks=pytest.mark.slow)
            for case in (
                (TRICLINIC, (1, 2, 1), [(0, 0, 0), (1, -1, 1)], 0.05, Conventions(excitation_error="beam")),
                (
                    GAAS,
                    (1, 1, 0),
                    [(0, 0, 0), (1, -1, 1)],
                    0.0,
                    Conventions(excitation_error="normal", foil_normal=(1.0, 1.0, 0.6)),
                ),
                (SRTIO3, (0, 0, 1), [(0, 0, 0), (1, 0, 0)], 1.0, Conventions(absorption_model="thermal", laue_zones=1)),
            )
        ),
    ],
)
def test_agrees_with_the_definitions(crystal, zone_axis, reflections, ratio, conventions):
    crystal = crystal if not isinstance(crystal, str) else load(crystal)
    # At 40 kV the first Laue zone has fewer beams.
    tilts = np.array([[0.0, 0.0], [0.11, -0.07], [-0.15, 0.1]])
    settings = dict(
        voltage_kv=40.0,
        zone_axis=zone_axis,
        reflections=reflections,
        absorption=ratio,
        conventions=conventions,
        thicknesses=(150.0,),
        max_g=0.75,
        num_strong=None,
        tilts=tilts,
        dtype="float64",
    )
    hkl = bloch.lacbed(crystal, num_checks=0, **settings)
    expected = dense(
        crystal,
        hkl.beams,
        zone_axis=zone_axis,
        tilts=tilts,
        thickness=150.0,
        reflections=reflections,
        ratio=ratio,
        conventions=conventions,
        voltage_kv=40.0,
    )
    if conventions.laue_zones:
        assert (hkl.beams @ np.array(zone_axis) != 0).any()
    np.testing.assert_allclose(hkl.intensities[0], np.abs(expected) ** 2, atol=1e-9)
    with jax.enable_x64(True):
        psi, guard = jitted_amplitudes(crystal._replace(**IDENTITY), bloch.plan(crystal, **settings))
    assert float(guard) < 1e-9
    np.testing.assert_allclose(psi[0], expected, atol=1e-8)


def test_planned_and_traced_conditions_agree():
    """What the traced function changes of a plan is what a plan for the changed numbers holds."""
    crystal = load(GAAS)
    settings = dict(
        zone_axis=(1, 1, 0),
        reflections=[(1, -1, 1), (0, 0, 0)],
        max_g=0.7,
        num_strong=None,
        dtype="float64",
        absorption=0.1,
        tilts=np.array([[0.0, 0.0], [0.1, -0.2], [0.3, 0.05]]),
    )
    larger = crystal._replace(cell=np.asarray(crystal.cell) * np.array([1.01, 1.01, 1.01, 1, 1, 1]))
    shift = np.array([0.03, -0.02])
    plan = bloch.plan(crystal, **settings, thicknesses=(100.0, 200.0), voltage_kv=200.0, margin=0.3)
    changed = {**settings, "tilts": settings["tilts"] + shift, "absorption": 0.07}
    wanted = bloch.plan(larger, **changed, thicknesses=(130.0, 190.0), voltage_kv=240.0)
    conditions = bloch.Conditions(np.array([130.0, 190.0]), np.array(240.0), shift, np.array(0.07))
    with jax.enable_x64(True):
        ours, guard = jax.jit(bloch.amplitudes)(larger, plan, conditions)
        expected, _ = jitted_amplitudes(larger, wanted)
        unchanged, _ = jitted_amplitudes(crystal, plan)
    assert float(guard) < 1e-9
    np.testing.assert_allclose(ours, expected, atol=1e-9)
    assert np.abs(unchanged - expected).max() > 0.1


# Electrons, reciprocity, batches


def test_amplitudes_of_all_beams():
    """A column of a unitary matrix; intensities are its squares; the inverted crystal gives it for opposite tilts."""
    crystal = load(GAAS)
    settings = dict(zone_axis=(1, 1, 0), max_g=0.7, num_strong=None, tilts=np.array([[0.1, -0.2]]), dtype="float64")
    beams = [tuple(b) for b in bloch.lacbed(crystal, num_checks=0, **settings).beams.tolist()]
    plan = bloch.plan(crystal, reflections=beams, thicknesses=(90.0, 160.0, 250.0), **settings)
    with jax.enable_x64(True):
        psi = np.asarray(jitted_amplitudes(crystal, plan)[0])[..., 0]  # [T, R]
        images = np.asarray(jitted_intensities(crystal, plan)[0])[..., 0]
    np.testing.assert_allclose((np.abs(psi) ** 2).sum(axis=1), 1.0, atol=1e-12)
    np.testing.assert_allclose(images, np.abs(psi) ** 2, atol=1e-14)
    turned = bloch.plan(
        crystal._replace(positions=-np.asarray(crystal.positions) % 1.0, **IDENTITY),
        **{
            **settings,
            "tilts": -settings["tilts"],
            "thicknesses": (160.0,),
            "reflections": [tuple(-i for i in b) for b in beams],
        },
    )
    inverse = crystal._replace(positions=-np.asarray(crystal.positions) % 1.0)
    with jax.enable_x64(True):
        mirror = np.asarray(jitted_amplitudes(inverse, turned)[0])[0, :, 0]
    np.testing.assert_allclose(mirror, psi[1], atol=1e-10)


def test_reciprocity():
    """Source and detector change places: psi_g at K is psi_g at -(K + g), in a projection without inversion centre."""
    crystal = load(GAAS)
    g_hkl = (1, -1, 1)
    with jax.enable_x64(True):
        frame = np.asarray(geometry.beam_frame(crystal.cell, (1, 1, 0)))
        g = (frame @ (np.array(g_hkl) @ np.asarray(geometry.reciprocal_vectors(crystal.cell))))[:2]
    k = np.array([0.07, -0.21])
    settings = dict(zone_axis=(1, 1, 0), reflections=[g_hkl], max_g=3.2, num_strong=None, thicknesses=(60.0,))
    found = bloch.lacbed(crystal, tilts=np.array([k, -k - g, -k + g]), absorption=0.1, num_checks=0, **settings)
    there, back, wrong = found.intensities[0, 0]
    assert abs(there - back) < 3e-3 * there  # the circle of beams is not closed under h -> g - h
    assert abs(there - wrong) > 0.05 * there


def test_independent_of_batches():
    """Each tilt for itself, whatever the tiles: float32 to 1e-5."""
    crystal = load(SRTIO3)
    tilts = np.random.default_rng(0).uniform(-0.5, 0.5, size=(300, 2))
    settings = dict(max_g=0.9, num_strong=None, num_checks=0, reflections=[(0, 0, 0), (1, 0, 0)])
    whole = bloch.lacbed(crystal, tilts=tilts, **settings).intensities
    part = bloch.lacbed(crystal, tilts=tilts[7:20].reshape(13, 1, 2), **settings).intensities
    np.testing.assert_allclose(part[..., 0], whole[..., 7:20], atol=1e-5)
    assert whole.shape == (1, 2, 300)


# Symmetry


def rotation(degrees):
    c, s = np.cos(np.deg2rad(degrees)), np.sin(np.deg2rad(degrees))
    return np.array([[c, -s], [s, c]])


MIRROR = np.diag([1.0, -1.0])
PLANE_GROUPS = {
    "1": [],
    "2": [rotation(180)],
    "m": [MIRROR],
    "2mm": [rotation(180), MIRROR],
    "4": [rotation(90)],
    "4mm": [rotation(90), MIRROR],
    "3": [rotation(120)],
    "3m": [rotation(120), MIRROR],
    "6": [rotation(60)],
    "6mm": [rotation(60), MIRROR],
}


def group_of(generators):
    found = [np.eye(2)]
    for a in found:
        for b in generators:
            if not any(np.allclose(a @ b, c) for c in found):
                found.append(a @ b)
    return found


def plane_crystal(name):
    """Two general atoms and their images under a plane point group, in a square or hexagonal cell."""
    hexagonal = name[0] in "36"
    cell = (4.2, 4.2, 4.0, 90.0, 90.0, 120.0 if hexagonal else 90.0)
    with jax.enable_x64(True):
        lattice = np.asarray(geometry.lattice_vectors(np.array(cell)))[:2, :2]
    rows, numbers = [], []
    for x, z in (((0.13, 0.29), 14), ((0.41, 0.08), 31)):
        for r in group_of(PLANE_GROUPS[name]):
            rows.append((*(r @ (np.array(x) @ lattice) @ np.linalg.inv(lattice)), 0.0))
            numbers.append(z)
    crystal = crystal_of(cell, rows, numbers)
    return crystal._replace(occupancies=np.full(len(rows), 2.0 / len(rows)))


@pytest.mark.parametrize("name", list(PLANE_GROUPS))
def test_symmetry_of_plane_point_groups(name):
    """Bright and dark fields of the 10 plane point groups, from crystals whose operations are not made use of.

    I_Rg(R k) = I_g(k) for every operation R; the bright field has an inversion beside (the Laue group of the
    projection), dark fields have not, and operations of larger groups are absent.
    """
    crystal = plane_crystal(name)
    group = group_of(PLANE_GROUPS[name])
    k = np.array([[0.11, 0.05], [0.21, -0.13], [-0.04, 0.3]])
    every = group_of([rotation(60 if name[0] in "36" else 90), MIRROR])
    tilts = np.stack([k @ r.T for r in every] + [k] * (12 - len(every)))  # [12, 3, 2], one program for all groups
    with jax.enable_x64(True):
        reciprocal = np.asarray(geometry.reciprocal_vectors(crystal.cell))[:2, :2]
    image = lambda r, hk: np.round(np.array(hk) @ reciprocal @ r.T @ np.linalg.inv(reciprocal)).astype(int)
    star = [tuple(int(i) for i in (*image(r, (1, 0)), 0)) for r in every]
    star += [star[0]] * (12 - len(star))
    found = bloch.lacbed(
        crystal,
        reflections=[(0, 0, 0), *star],
        tilts=tilts,
        max_g=1.0,
        num_strong=None,
        thicknesses=(400.0,),
        num_checks=0,
        dtype="float64",
    ).intensities[0]
    member = [any(np.allclose(r, s) for s in group) for r in every]
    laue = [any(np.allclose(r, s) or np.allclose(-r, s) for s in group) for r in every]
    for i in range(len(every)):
        bright = np.abs(found[0, i] - found[0, 0]).max()
        dark = np.abs(found[1 + i, i] - found[1, 0]).max()
        assert bright < 1e-10 if laue[i] else bright > 1e-5
        assert dark < 1e-10 if member[i] else dark > 1e-5


def test_higher_layers_keep_the_symmetry_of_space():
    """[001] of SrTiO3 with its first Laue zone: folded and not."""
    crystal = load(SRTIO3)
    settings = dict(
        voltage_kv=40.0,
        max_g=0.6,
        num_strong=None,
        half_width=0.1,
        num_pixels=4,
        thicknesses=(300.0,),
        conventions=Conventions(laue_zones=1, max_holz_error=0.001),
        dtype="float64",
        num_checks=0,
    )
    folded = bloch.lacbed(crystal, **settings)
    whole = bloch.lacbed(crystal._replace(**IDENTITY), **settings)
    assert len(folded.beams) == len(whole.beams)
    np.testing.assert_allclose(folded.intensities, whole.intensities, atol=1e-9)
    flat = bloch.lacbed(crystal, **{**settings, "conventions": Conventions()})
    assert np.abs(flat.intensities - folded.intensities).max() > 1e-5


# Thermal diffuse absorption


def test_absorptive_form_factor_is_its_integral():
    """Kirkland's factors by quadrature over the plane; the Gaussians stand for them to 1 %."""
    g = np.array([0.0, 0.5, 1.5])
    numbers, b = np.array([8, 31, 79]), np.array([1.0, 0.67, 0.5])
    # Polar coordinates about the middle of g: q = g/2 + p, to abs(p) = 60.
    p, angle = np.geomspace(1e-3, 60.0, 1200), (np.arange(48) + 0.5) * np.pi / 24
    offset = p[:, None, None] * np.stack([np.cos(angle), np.sin(angle)], axis=-1)
    fine = np.concatenate([np.linspace(0, 8, 3201), np.geomspace(8.01, 61.0, 800)])
    with jax.enable_x64(True):
        ours = np.asarray(jax.jit(absorption.absorptive_factors)(numbers, g, b))
        f = np.asarray(scattering.form_factors(numbers, fine))
    for i, shift in enumerate(g):
        first, second = (np.linalg.norm(offset + sign * np.array([shift / 2, 0]), axis=-1) for sign in (1, -1))
        for j in range(3):
            product = np.interp(first, fine, f[:, j]) * np.interp(second, fine, f[:, j])
            damping = np.exp(-b[j] * shift**2 / 4) - np.exp(-b[j] * (first**2 + second**2) / 4)
            radial = (product * damping).mean(axis=1) * 2 * np.pi * p
            np.testing.assert_allclose(ours[i, j], scipy.integrate.trapezoid(radial, p), rtol=0.01)


def test_absorptive_form_factor_is_that_of_a_peer():
    """Ratio of absorptive to elastic part at 200 kV from py4DSTEM 0.14.18 (``compute_WK_factor`` without core losses),
    which has Weickenmeier and Kohl's own parametrisation and integrals."""
    numbers, b, g = np.array([8, 14, 31, 79]), np.array([1.0, 0.46, 0.67, 0.6]), np.array([1e-6, 1.0, 1.5])
    peer = [
        [0.01134, 0.006344, 0.02524, 0.07685],
        [0.02802, 0.03827, 0.09693, 0.2191],
        [0.0377, 0.0540, 0.1292, 0.3183],
    ]
    with jax.enable_x64(True):
        f = np.asarray(scattering.form_factors(numbers, g)) * np.exp(-b[None] * g[:, None] ** 2 / 4)
        lost = np.asarray(jax.jit(absorption.absorptive_factors)(numbers, g, b))
    ours = scattering.relativistic_factor(200.0) * scattering.wavelength(200.0) / 2 * lost / f
    np.testing.assert_allclose(ours, peer, rtol=0.03)


def test_thermal_absorption_takes_electrons_away():
    crystal = load(GAAS)
    settings = dict(max_g=0.8, thicknesses=(0.0, 100.0, 450.0, 900.0), num_strong=None, num_pixels=3, num_checks=0)
    settings |= dict(absorption=1.0, conventions=Conventions(absorption_model="thermal"))
    reflections = [tuple(hkl) for hkl in bloch.lacbed(crystal, **settings).beams]
    total = bloch.lacbed(crystal, reflections=reflections, **settings).intensities.sum(axis=1)
    np.testing.assert_allclose(total[0], 1.0, atol=1e-6)
    assert np.all(np.diff(total, axis=0) < 0) and 0.1 < total[-1].min() < total[-1].max() < 0.95


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (dict(excitation_error="plain"), "excitation_error"),
        (dict(absorption_model="none"), "absorption_model"),
        (dict(foil_normal=(0, 0, 0)), "foil_normal"),
        (dict(laue_zones=-1), "laue_zones"),
        (dict(max_holz_error=0.0), "max_holz_error"),
        (dict(azimuth_deg=float("nan")), "azimuth_deg"),
    ],
)
def test_bad_conventions_are_named(change, message):
    with pytest.raises(ValueError, match=message):
        Conventions(**change)


@pytest.mark.parametrize("voltage", [29.9, 1000.1, float("nan"), -200.0])
def test_voltages_outside_the_range_are_refused(voltage):
    with pytest.raises(ValueError, match="voltage_kv: expected 30 to 1000"):
        bloch.lacbed(load(SRTIO3), voltage_kv=voltage)


def test_amplitudes_refuse_a_folded_plan():
    crystal = load(SRTIO3)
    plan = bloch.plan(crystal, num_pixels=4, max_g=0.5, reflections=[(1, 0, 0)])
    with pytest.raises(ValueError, match="fold=False"):
        bloch.amplitudes(crystal, plan)
    with pytest.raises(ValueError, match="absorption"):
        bloch.intensities(crystal, plan, bloch.Conditions(absorption=np.array(0.1)))
    with pytest.raises(ValueError, match="thicknesses"):
        bloch.intensities(crystal, plan, bloch.Conditions(np.ones(2)))


@pytest.mark.parametrize("table", list(scattering.TABLES))
def test_every_table_serves(table):
    """Patterns differ by as much as the tables do; the oldest has no hydrogen, which pads lists of atoms elsewhere."""
    settings = dict(max_g=0.7, num_strong=None, num_checks=0, tilts=np.array([[0.0, 0.0], [0.1, 0.2]]), dtype="float64")
    crystal = load(GAAS)
    ours = bloch.lacbed(crystal, form_factors=table, **settings).intensities
    kirkland = bloch.lacbed(crystal, **settings).intensities
    assert (np.abs(ours - kirkland).max() < 0.03) and (table == "kirkland" or np.abs(ours - kirkland).max() > 1e-6)
