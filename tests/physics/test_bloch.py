"""Bloch waves: closed forms, conservation laws, symmetry, and programs that share no code with ours."""

from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import physml_jax.data
from physml_jax.io.cif import read_cif
from physml_jax.simulators.diffraction import bloch, chebyshev, scattering
from physml_jax.simulators.diffraction import crystal as geometry

CIFS = Path(physml_jax.data.__file__).parent / "structures" / "cifs"
GAAS, SRTIO3, PYRITE = "216_AsGa_COD9008845", "221_O3SrTi_COD9006864", "205_FeS2_COD5000115"
QUARTZ = "180_O2Si_COD9005025"
K = 1.0 / scattering.wavelength(200.0)
#: Few beams, all of them propagated: fast, and exact for the model that the tests compare with.
SMALL = dict(max_g=1.2, num_strong=None, num_checks=0, num_pixels=12, dtype="float64")


def load(name):
    return read_cif(CIFS / f"{name}.cif")


def without_symmetry(crystal):
    return crystal._replace(rotations=np.eye(3, dtype=np.int32)[None], translations=np.zeros((1, 3)))


def inverted(crystal):
    """The same atoms at -r; the operations of an inverted crystal are not those of the crystal, so it has none."""
    return without_symmetry(crystal)._replace(positions=(-np.asarray(crystal.positions)) % 1.0)


# Closed forms and conservation laws


def test_two_beams():
    """I_g = V^2 / (V^2 + s^2/4) sin^2(2 pi t sqrt(V^2 + s^2/4)) (Hirsch et al. 1965, chapter 8)."""
    v, t = 0.004, np.array([10.0, 123.0, 450.0])
    s = np.linspace(-0.02, 0.02, 9)
    errors = np.stack([np.zeros_like(s), s], axis=1)
    with jax.enable_x64(True):
        psi = np.asarray(bloch.propagate(np.array([[0.0, v], [v, 0.0]]), errors, t))
    w = np.sqrt(v**2 + s**2 / 4)
    expected = (v / w) ** 2 * np.sin(2 * np.pi * t[:, None] * w) ** 2
    np.testing.assert_allclose(np.abs(psi[..., 1]) ** 2, expected, atol=1e-12)
    np.testing.assert_allclose(np.abs(psi[..., 0]) ** 2, 1 - expected, atol=1e-12)


def random_crystal(n=10, absorption=0.0, seed=0):
    rng = np.random.default_rng(seed)
    a, b, c = rng.normal(size=(3, n, n)) * 0.003
    errors = -rng.uniform(0, 0.05, size=(3, n))
    return a + a.T + 1j * (b - b.T) + 1j * absorption * c @ c.T, errors


def test_no_absorption_conserves_electrons():
    coupling, errors = random_crystal()
    psi = bloch.propagate(coupling, errors, [50.0, 450.0, 1500.0])
    np.testing.assert_allclose((np.abs(psi) ** 2).sum(-1), 1.0, atol=1e-5)


def test_thickness_is_a_semigroup():
    coupling, errors = random_crystal(n=5, absorption=20.0)
    with jax.enable_x64(True):
        columns = [np.asarray(bloch.propagate(coupling, errors, [130.0, 320.0, 450.0], entrance=j)) for j in range(5)]
    s = np.stack(columns, axis=-1)  # [T, P, out, in]
    np.testing.assert_allclose(s[1] @ s[0], s[2], atol=1e-12)


def test_obliquity_is_a_similarity():
    """psi = M exp(2 pi i t M A M) M^-1 e_0 by SciPy, with factors that exaggerate a tilted foil."""
    scipy_linalg = pytest.importorskip("scipy.linalg")
    coupling, errors = random_crystal(n=6)
    m = np.array([1.0, 0.9, 1.1, 1.05, 0.95, 1.2])
    with jax.enable_x64(True):
        ours = np.asarray(bloch.propagate(coupling, errors, [200.0], obliquity=m))[0]
    for row, psi in zip(errors, ours, strict=True):
        a = np.diag(m) @ (coupling + np.diag(row)) @ np.diag(m)
        expected = np.diag(m) @ scipy_linalg.expm(2j * np.pi * 200.0 * a) @ np.diag(1 / m)
        np.testing.assert_allclose(psi, expected[:, 0], atol=1e-11)


# Independent programs


def dense_pattern(crystal, *, zone_axis, tilts, thickness, max_g, reflections, absorption=0.0):
    """The pattern from the definition: every hkl of a box, one dense eigenproblem per tilt, no symmetry."""
    with jax.enable_x64(True):
        reciprocal = np.asarray(geometry.reciprocal_vectors(crystal.cell))
        frame = np.asarray(geometry.beam_frame(crystal.cell, zone_axis))
        n = np.arange(-12, 13)
        hkl = np.stack(np.meshgrid(n, n, n), axis=-1).reshape(-1, 3)
        hkl = hkl[(hkl @ np.array(zone_axis) == 0) & (np.linalg.norm(hkl @ reciprocal, axis=1) <= max_g + 1e-9)]
        difference, place = np.unique((hkl[:, None] - hkl[None]).reshape(-1, 3), axis=0, return_inverse=True)
        u = scattering.potential_coefficients(crystal, difference, voltage_kv=200.0, absorption=absorption)
        coupling = np.asarray(u)[place].reshape(len(hkl), -1) / (2 * K)
    g = hkl @ reciprocal @ frame.T
    start = int(np.flatnonzero(~hkl.any(axis=1))[0])
    rows = [int(np.flatnonzero((hkl == r).all(axis=1))[0]) for r in np.array(reflections)]
    out = []
    for kx, ky in tilts.reshape(-1, 2):
        k = np.array([kx, ky, np.sqrt(K**2 - kx**2 - ky**2)])
        a = coupling + np.diag(-(2 * (g @ k) + (g**2).sum(1)) / (2 * K))
        values, vectors = np.linalg.eig(a)
        weights = np.linalg.solve(vectors, np.eye(len(a))[start])
        out.append(np.abs((vectors * np.exp(2j * np.pi * thickness * values)) @ weights)[rows] ** 2)
    return np.moveaxis(np.array(out), -1, 0).reshape(len(rows), *tilts.shape[:2])


@pytest.mark.parametrize(
    ("name", "zone_axis", "reflections", "absorption"),
    [
        (SRTIO3, (0, 0, 1), [(0, 0, 0)], 0.0),
        (SRTIO3, (0, 0, 1), [(0, 0, 0)], 0.1),
        (GAAS, (1, 1, 0), [(0, 0, 0), (0, 0, 2), (1, -1, 1), (-1, 1, -1)], 0.0),
        (GAAS, (1, 1, 0), [(1, -1, 1), (0, 0, 0)], 0.1),
        (QUARTZ, (1, 0, 0), [(0, 0, 0)], 0.05),
        (PYRITE, (1, 1, 1), [(0, 0, 0)], 0.0),
    ],
)
def test_agrees_with_a_dense_program(name, zone_axis, reflections, absorption):
    crystal = load(name)
    ours = bloch.lacbed(
        crystal,
        zone_axis=zone_axis,
        reflections=reflections,
        absorption=absorption,
        thicknesses=(300.0,),
        **{**SMALL, "num_pixels": 4},
    )
    expected = dense_pattern(
        crystal,
        zone_axis=zone_axis,
        tilts=ours.tilts,
        thickness=300.0,
        max_g=1.2,
        reflections=reflections,
        absorption=absorption,
    )
    assert ours.intensities.dtype == np.float64
    np.testing.assert_allclose(ours.intensities[0], expected, atol=1e-7)


def multislice(potential, errors, inside, thickness, steps):
    """Strang steps of propagation (reciprocal space) and phase grating (real space), band-limited to the beams."""
    dz = thickness / steps
    grating = np.exp(2j * np.pi * dz * potential)
    half = np.exp(1j * np.pi * dz * errors) * inside
    psi = np.zeros(errors.shape, complex)
    psi[:, 0, 0] = 1.0
    for _ in range(steps):
        psi = half * np.fft.fft2(grating * np.fft.ifft2(half * psi))
    return np.abs(psi[:, 0, 0]) ** 2


def test_agrees_with_multislice():
    """The cut after each slice loses electrons in proportion to the slice; Richardson's extrapolation removes it."""
    crystal, max_g, n = load(SRTIO3), 1.2, 32
    ours = bloch.lacbed(crystal, thicknesses=(200.0,), **{**SMALL, "num_pixels": 2})
    h = np.fft.fftfreq(n, 1 / n)
    hk = np.stack(np.meshgrid(h, h, indexing="ij"), axis=-1)
    a = float(crystal.cell[0])
    hkl = np.concatenate([hk, np.zeros((n, n, 1))], axis=-1).reshape(-1, 3)
    with jax.enable_x64(True):
        u = np.asarray(scattering.potential_coefficients(crystal, hkl, voltage_kv=200.0)).reshape(n, n)
    u = np.where(np.abs(hk).max(axis=-1) < n // 2, u, 0.0)
    potential = np.fft.ifft2(u) * n**2 / (2 * K)  # sum_g U_g exp(2 pi i g.r)
    tilts = ours.tilts.reshape(-1, 1, 1, 2)
    errors = -(2 * (tilts * hk).sum(-1) / a + (hk**2).sum(-1) / a**2) / (2 * K)
    inside = np.linalg.norm(hk, axis=-1) / a <= max_g + 1e-9
    coarse, fine = (multislice(potential, errors, inside, 200.0, steps) for steps in (300, 600))
    np.testing.assert_allclose(2 * fine - coarse, ours.intensities[0, 0].reshape(-1), atol=2e-4)


# Symmetry


@pytest.mark.parametrize(
    ("name", "zone_axis", "reflections", "pixels"),
    [
        (SRTIO3, (0, 0, 1), [(0, 0, 0)], 21),
        (PYRITE, (0, 0, 1), [(0, 0, 0)], 36),
        (SRTIO3, (0, 0, 1), [(0, 0, 0), (1, 0, 0)], 72),
        (GAAS, (1, 1, 0), [(0, 0, 0)], 36),
    ],
)
def test_folding_changes_nothing(name, zone_axis, reflections, pixels):
    """The same crystal without its operations: every tilt is calculated, on the larger pool of a primitive lattice."""
    crystal = load(name)
    settings = dict(SMALL, zone_axis=zone_axis, reflections=reflections, half_width=0.7, max_g=1.0)
    folded = bloch.lacbed(crystal, **settings)
    whole = bloch.lacbed(without_symmetry(crystal), **settings)
    np.testing.assert_allclose(folded.intensities, whole.intensities, atol=1e-7)
    settings.pop("num_checks")
    assert np.unique(bloch.plan(crystal, **settings).unfold).size == pixels


def test_square_and_rectangular_symmetry_of_the_image():
    settings = dict(SMALL, max_g=0.9, half_width=0.5)
    square = bloch.lacbed(without_symmetry(load(SRTIO3)), **settings).intensities[0, 0]
    for image in (square.T, square[::-1], square[:, ::-1]):
        np.testing.assert_allclose(image, square, atol=1e-8)
    rectangle = bloch.lacbed(without_symmetry(load(PYRITE)), **settings).intensities[0, 0]
    for image in (rectangle[::-1], rectangle[:, ::-1]):
        np.testing.assert_allclose(image, rectangle, atol=1e-8)
    assert np.abs(rectangle - rectangle.T).max() > 0.02  # class m-3 has no four-fold axis


def test_friedel_pairs_and_the_inverted_crystal():
    """U_g of the inverted crystal is conjugate: I_g(k) = I'_-g(-k). In GaAs along [110] g and -g themselves differ."""
    crystal = load(GAAS)
    settings = dict(SMALL, zone_axis=(1, 1, 0), half_width=0.4, thicknesses=(200.0,))
    pair = [(1, -1, 1), (-1, 1, -1)]
    image = bloch.lacbed(crystal, reflections=pair, **settings).intensities[0]
    mirror = bloch.lacbed(inverted(crystal), reflections=pair, **settings).intensities[0]
    np.testing.assert_allclose(mirror[1, ::-1, ::-1], image[0], atol=1e-8)
    np.testing.assert_allclose(mirror[0, ::-1, ::-1], image[1], atol=1e-8)
    assert np.abs(image[1, ::-1, ::-1] - image[0]).max() > 0.01


def test_enantiomorph_has_the_conjugate_coupling():
    coupling, errors = random_crystal()
    psi = bloch.propagate(coupling, errors, [300.0], outputs=(0, 1))
    other = bloch.propagate(coupling.conj(), errors, [-300.0], outputs=(0, 1))
    np.testing.assert_allclose(other, psi.conj(), atol=2e-5)


def test_weak_scattering_peaks_where_bragg_says():
    """A reflection along +x is excited where K.g = -g^2 / 2, kx = -g / 2, ky free; the second image axis is kx."""
    crystal = load(SRTIO3)
    g = 1.0 / float(crystal.cell[0])
    settings = dict(SMALL, max_g=0.6, num_pixels=20, half_width=1.25 * g, thicknesses=(200.0,))
    thin = crystal._replace(occupancies=np.asarray(crystal.occupancies) * 1e-3)
    image = bloch.lacbed(thin, reflections=[(1, 0, 0)], **settings)
    column = np.argmax(image.intensities[0, 0].mean(axis=0))
    assert abs(image.tilts[0, column, 0] + g / 2) <= 1.01 * 1.25 * g / 20
    assert np.ptp(image.intensities[0, 0][:, column]) < 0.05 * image.intensities[0, 0][:, column].max()


# Absorption


def test_absorption_takes_electrons_away():
    crystal = load(GAAS)
    settings = dict(SMALL, max_g=0.8, thicknesses=(0.0, 100.0, 450.0, 900.0))
    reflections = [tuple(hkl) for hkl in bloch.lacbed(crystal, **settings).beams]
    total = bloch.lacbed(crystal, reflections=reflections, absorption=0.1, **settings).intensities.sum(axis=1)
    np.testing.assert_allclose(total[0], 1.0, atol=1e-9)
    assert np.all(np.diff(total, axis=0) < 0) and total.min() > 0
    free = bloch.lacbed(crystal, reflections=reflections, **settings).intensities.sum(axis=1)
    np.testing.assert_allclose(free, 1.0, atol=1e-9)


# Strong and weak beams, convergence, precision


def test_far_beams_as_a_perturbation():
    """More strong beams: closer to the whole pool, and the reported error is of the true size."""
    crystal = load(SRTIO3)
    settings = dict(num_pixels=16, half_width=0.5, max_g=2.2)
    exact = bloch.lacbed(crystal, num_strong=None, num_checks=0, **settings)
    errors = []
    for num_strong in (32, 64, 128):
        found = bloch.lacbed(crystal, num_strong=num_strong, **settings)
        assert num_strong <= found.num_beams < len(found.beams)
        errors.append(np.abs(found.intensities - exact.intensities).max())
    assert errors[0] > 3 * errors[1] > 9 * errors[2]
    assert errors[2] < 0.01
    assert found.convergence_error > 0.3 * errors[2]


def test_convergence_error_sees_a_small_pool():
    crystal = load(SRTIO3)
    settings = dict(num_pixels=16, half_width=0.5)
    poor = bloch.lacbed(crystal, max_g=1.0, **settings)
    good = bloch.lacbed(crystal, max_g=3.0, **settings)
    true_error = np.abs(poor.intensities - good.intensities).max()
    assert poor.convergence_error > 0.3 * true_error > 0.01
    assert good.convergence_error < 0.01


def test_float32_is_as_good_as_float64():
    crystal = load(SRTIO3)
    settings = dict(num_pixels=16, max_g=2.0, num_checks=0, thicknesses=(450.0, 900.0), absorption=0.05)
    single = bloch.lacbed(crystal, **settings).intensities
    double = bloch.lacbed(crystal, dtype="float64", **settings).intensities
    assert single.dtype == np.float32 and double.dtype == np.float64
    assert np.abs(single - double).max() < 1e-5


def test_thicknesses_are_independent():
    crystal = load(SRTIO3)
    settings = dict(SMALL, max_g=1.0, dtype="float32")
    series = bloch.lacbed(crystal, thicknesses=(0.0, 100.0, 450.0), **settings).intensities
    np.testing.assert_allclose(series[0], 1.0, atol=1e-6)
    for t, image in zip((100.0, 450.0), series[1:], strict=True):
        alone = bloch.lacbed(crystal, thicknesses=(t,), **settings).intensities[0]
        np.testing.assert_allclose(image, alone, atol=5e-6)


# The traced function


@pytest.fixture(scope="module")
def traced():
    crystal = load(SRTIO3)
    settings = dict(num_pixels=8, max_g=1.5, num_strong=32, half_width=0.4)
    return crystal, settings, bloch.plan(crystal, **settings)


def test_traced_equals_host(traced):
    crystal, settings, plan = traced
    images, guard = jax.jit(bloch.intensities)(crystal, plan)
    expected = bloch.lacbed(crystal, num_checks=0, **settings)
    assert images.shape == (1, 1, 8, 8) and float(guard) < 1e-5
    assert plan.num_beams == expected.num_beams == 32
    np.testing.assert_allclose(images, expected.intensities, atol=1e-5)


def test_traced_with_absorption_and_reflections():
    crystal = load(GAAS)
    settings = dict(num_pixels=5, max_g=0.9, zone_axis=(1, 1, 0), absorption=0.1, reflections=[(1, -1, 1), (0, 0, 0)])
    images, guard = jax.jit(bloch.intensities)(crystal, bloch.plan(crystal, **settings))
    assert float(guard) < 1e-5
    np.testing.assert_allclose(images, bloch.lacbed(crystal, num_checks=0, **settings).intensities, atol=1e-5)


def test_mapped_over_crystals(traced):
    crystal, settings, plan = traced
    hot = crystal._replace(b_iso=np.asarray(crystal.b_iso) + 0.5)
    plans = [plan, bloch.plan(hot, **settings)]
    stack = lambda *x: np.stack(x)
    images, _ = jax.jit(jax.vmap(bloch.intensities))(jax.tree.map(stack, crystal, hot), jax.tree.map(stack, *plans))
    for c, image in zip((crystal, hot), images, strict=True):
        np.testing.assert_allclose(image, bloch.lacbed(c, num_checks=0, **settings).intensities, atol=1e-5)


def test_derivative_reaches_the_atoms(traced):
    crystal, _, plan = traced
    crystal = jax.tree.map(jnp.asarray, crystal)

    def brightness(b):
        return bloch.intensities(crystal._replace(b_iso=b), plan)[0][0, 0, 2, 1]

    b = jnp.asarray(crystal.b_iso, jnp.float32)
    value, gradient = jax.jit(jax.value_and_grad(brightness))(b)
    numeric = (jax.jit(brightness)(b + 0.05) - jax.jit(brightness)(b - 0.05)) / 0.1
    assert np.all(np.isfinite(gradient)) and 0 < value < 1
    np.testing.assert_allclose(gradient.sum(), numeric, rtol=0.02)


def test_second_crystal_of_a_bucket_compiles_nothing(monkeypatch):
    traces = []
    original = chebyshev.transmitted

    def counted(*args, **kwargs):
        traces.append(1)
        return original(*args, **kwargs)

    monkeypatch.setattr(chebyshev, "transmitted", counted)
    settings = dict(num_pixels=14, max_g=1.3, num_checks=0, half_width=0.45, num_strong=64)
    bloch.lacbed(load(SRTIO3), **settings)
    assert len(traces) == 1
    bloch.lacbed(load("221_BaO3Ti_COD5910149"), **settings)
    assert len(traces) == 1


# Bad input


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (dict(zone_axis=(0, 0, 0)), "zone_axis"),
        (dict(zone_axis=(0.5, 0, 1)), "zone_axis"),
        (dict(voltage_kv=-1.0), "voltage_kv"),
        (dict(voltage_kv=float("nan")), "voltage_kv"),
        (dict(half_width=0.0), "half_width"),
        (dict(num_pixels=0), "num_pixels"),
        (dict(thicknesses=()), "thicknesses"),
        (dict(thicknesses=(float("inf"),)), "thicknesses"),
        (dict(reflections=[(0, 0, 1)]), "not in the zero layer"),
        (dict(reflections=[(9, 9, 0)]), "raise max_g"),
        (dict(reflections=(0, 0, 0)), "reflections"),
        (dict(absorption=-0.1), "absorption"),
        (dict(max_g=0.0), "max_g"),
        (dict(dtype="float16"), "dtype"),
        (dict(form_factors="magic"), "table"),
        (dict(num_strong=0), "num_strong"),
        (dict(num_strong=None, max_g=6.0, max_memory_gb=0.01), "need about .* GB"),
    ],
)
def test_bad_input_is_named(change, message):
    with pytest.raises(ValueError, match=message):
        bloch.lacbed(load(SRTIO3), **{**SMALL, **change})


def test_a_crystal_that_lacks_its_symmetry_is_refused():
    crystal = load(SRTIO3)
    moved = np.asarray(crystal.positions).copy()
    moved[-1, 0] += 0.1
    with pytest.raises(ValueError, match="symmetry"):
        bloch.lacbed(crystal._replace(positions=moved), **SMALL)


def test_number_of_beams_is_a_cheap_measure():
    found = bloch.lacbed(load(SRTIO3), **{**SMALL, "max_g": 2.75})
    assert bloch.num_beams(load(SRTIO3), max_g=2.75) == len(found.beams)
