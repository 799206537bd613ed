"""The Chebyshev propagator against dense exponentials (SciPy) and against itself."""

import jax
import numpy as np
import pytest
import scipy.linalg

from physml_jax.simulators.diffraction import chebyshev
from physml_jax.simulators.diffraction.bloch import propagate

THICKNESSES = np.array([0.0, 100.0, 450.0, 900.0])


def matrices(kind, *, n=24, num_tilts=5, seed=0):
    """A coupling of the given symmetry with eigenvalues of realistic size (0.02 / angstrom), and excitation errors."""
    rng = np.random.default_rng(seed)
    a, b = rng.normal(size=(2, n, n)) * 0.005 / np.sqrt(n)
    coupling = a + a.T
    if kind in ("hermitian", "general"):
        coupling = coupling + 1j * (b - b.T)
    if kind in ("symmetric", "general"):
        coupling = coupling + 1j * (30.0 * b @ b.T)  # positive: absorbs
    errors = -rng.uniform(0.0, 0.1, size=(num_tilts, n))
    errors[:, 0] = 0.0
    return coupling, errors


def dense(coupling, errors, thicknesses, entrance=0):
    return np.stack(
        [
            [scipy.linalg.expm(2j * np.pi * t * (coupling + np.diag(s)))[:, entrance] for s in errors]
            for t in thicknesses
        ]
    )


KINDS = ("real", "hermitian", "symmetric", "general")


@pytest.mark.parametrize("kind", KINDS)
def test_agrees_with_scipy_expm(kind):
    coupling, errors = matrices(kind)
    assert chebyshev.kind_of(coupling) == kind
    expected = dense(coupling, errors, THICKNESSES)
    with jax.enable_x64(True):
        every = np.asarray(propagate(coupling, errors, THICKNESSES))
        first = np.asarray(propagate(coupling, errors, THICKNESSES, outputs=(0,)))
    assert every.dtype == np.complex128
    np.testing.assert_allclose(every, expected, atol=1e-11)
    np.testing.assert_allclose(first[..., 0], expected[..., 0], atol=1e-11)
    single = np.asarray(propagate(coupling, errors, THICKNESSES))
    assert single.dtype == np.complex64
    np.testing.assert_allclose(single, expected, atol=1e-5)
    np.testing.assert_allclose(
        propagate(coupling, errors, THICKNESSES, outputs=(0,))[..., 0], expected[..., 0], atol=1e-5
    )


@pytest.mark.parametrize("kind", ("real", "hermitian"))
def test_agrees_with_eigh(kind):
    coupling, errors = matrices(kind, n=40, seed=1)
    with jax.enable_x64(True):
        reference = np.asarray(propagate(coupling, errors, THICKNESSES, method="eigh"))
        ours = np.asarray(propagate(coupling, errors, THICKNESSES))
    assert np.abs(ours - reference).max() < 1e-6
    assert np.abs(np.asarray(propagate(coupling, errors, THICKNESSES)) - reference).max() < 1e-5


@pytest.mark.parametrize("kind", KINDS)
def test_any_entrance_and_outputs(kind):
    entrance = 3
    coupling, errors = matrices(kind)
    expected = dense(coupling, errors, [450.0], entrance)
    for outputs in ((entrance,), (5, 0, entrance)):
        ours = propagate(coupling, errors, [450.0], entrance=entrance, outputs=outputs)
        np.testing.assert_allclose(ours, expected[:, :, list(outputs)], atol=1e-5)


@pytest.mark.parametrize("kind", KINDS)
def test_expm_method_is_the_same_function(kind):
    coupling, errors = matrices(kind, n=8)
    expected = dense(coupling, errors, [300.0])
    with jax.enable_x64(True):
        ours = propagate(coupling, errors, [300.0], method="expm", chunk_size=2)
        np.testing.assert_allclose(np.asarray(ours), expected, atol=1e-11)


@pytest.mark.parametrize("outputs", (None, (0,)))
def test_independent_of_chunks(outputs):
    coupling, errors = matrices("symmetric", num_tilts=11)
    whole = propagate(coupling, errors, THICKNESSES, outputs=outputs, chunk_size=None)
    for chunk_size in (4, 64):
        part = propagate(coupling, errors, THICKNESSES, outputs=outputs, chunk_size=chunk_size)
        np.testing.assert_allclose(part, whole, atol=3e-6)


def scaled_problem(kind, num_tilts, dtype=np.float32):
    coupling, errors = matrices(kind, num_tilts=num_tilts)
    bounds = chebyshev.spectral_bounds(coupling, kind)
    e = chebyshev.expand(errors, THICKNESSES, bounds, tolerance=1e-8)
    parts = (coupling.real / e.half_width,)
    if kind != "real":
        parts += (coupling.imag / e.half_width - np.eye(len(coupling)) * e.shift / e.half_width,)
    arrays = ((errors - e.centre[:, None]).T / e.half_width, e.coefficients, e.attenuation)
    return tuple(p.astype(dtype) for p in parts), *(a.astype(dtype) for a in arrays), e


@pytest.mark.parametrize("kind", ("real", "symmetric"))
def test_independent_of_the_number_of_devices(kind):
    parts, detuning, coefficients, attenuation, e = scaled_problem(kind, 16)
    assert len(jax.devices()) == 4
    mesh = jax.make_mesh((4,), ("tilts",), axis_types=(jax.sharding.AxisType.Auto,))
    sharding = jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec(None, "tilts"))

    def run(x):
        return chebyshev.transmitted(parts, x, coefficients, attenuation, e.num_terms, kind=kind)

    one, guard = jax.jit(run)(detuning)
    four, _ = jax.jit(run)(jax.device_put(detuning, sharding))
    assert float(guard) < 1e-5
    np.testing.assert_allclose(one, four, rtol=1e-5, atol=1e-6)


def test_number_of_terms_may_be_traced():
    parts, detuning, coefficients, attenuation, e = scaled_problem("real", 3)
    fixed, _ = chebyshev.transmitted(parts, detuning, coefficients, attenuation, e.num_terms, kind="real")
    longer = chebyshev.padded(coefficients)
    traced, _ = jax.jit(lambda k: chebyshev.transmitted(parts, detuning, longer, attenuation, k, kind="real"))(
        e.num_terms
    )
    np.testing.assert_allclose(fixed, traced, atol=2e-6)


def test_guard_sees_a_spectrum_outside_the_plan():
    """A spectrum that lies half outside the planned interval: the certificate says so, whichever path is taken."""
    parts, detuning, coefficients, attenuation, e = scaled_problem("real", 3)
    wrong = (parts[0] + 0.5 * np.eye(len(parts[0]), dtype=np.float32),)
    for problem, limit in ((parts, (0.0, 1e-5)), (wrong, (1e-2, np.inf))):
        _, first = chebyshev.transmitted(problem, detuning, coefficients, attenuation, e.num_terms, kind="real")
        _, every = chebyshev.diffracted(problem, detuning, coefficients, attenuation, e.num_terms)
        for guard in (first, every):
            assert limit[0] < float(guard) <= limit[1]


def test_strong_absorption_falls_back_to_float64():
    """Absorption as large as the potential over 2000 angstrom: float32 alone would be wrong, the result is not."""
    coupling, errors = matrices("real")
    rng = np.random.default_rng(3)
    b = rng.normal(size=coupling.shape) * 0.01
    coupling = coupling + 1j * (b @ b.T)
    expected = dense(coupling, errors, [2000.0])
    for outputs in (None, (0,)):
        ours = np.asarray(propagate(coupling, errors, [2000.0], outputs=outputs))
        np.testing.assert_allclose(ours, expected[..., : ours.shape[-1]], atol=1e-5)


@pytest.mark.parametrize("n", (5, 200))
def test_bounds_hold_the_spectrum(n):
    rng = np.random.default_rng(n)
    a = rng.normal(size=(n, n))
    a = a + a.T
    a[: n // 2, n // 2 :] = a[n // 2 :, : n // 2] = 0  # two blocks: the start vector must see both
    low, high = chebyshev.extreme_eigenvalues(a)
    values = np.linalg.eigvalsh(a)
    assert low <= values[0] and values[-1] <= high
    assert high - low < 1.25 * (values[-1] - values[0])


def test_derivative_is_finite_where_eigenvalues_are_degenerate():
    """At an exact zone axis eigh's derivative is infinite; the series is a polynomial."""
    n = 5
    coupling = np.full((n, n), 0.01, np.float32) - 0.01 * np.eye(n, dtype=np.float32)
    errors = np.array([[0.0, -0.01, -0.01, -0.01, -0.01]])
    e = chebyshev.expand(errors, [300.0], chebyshev.spectral_bounds(coupling, "real"), tolerance=1e-8)
    detuning = ((errors - e.centre[:, None]).T / e.half_width).astype(np.float32)
    coefficients, attenuation = e.coefficients.astype(np.float32), e.attenuation.astype(np.float32)

    @jax.jit
    def bright(v):
        psi, _ = chebyshev.transmitted(
            (v / np.float32(e.half_width),), detuning, coefficients, attenuation, e.num_terms, kind="real"
        )
        return (psi.real**2 + psi.imag**2).sum()

    gradient = jax.jit(jax.grad(bright))(coupling)
    step = np.zeros_like(coupling)
    step[0, 1] = step[1, 0] = 1e-4
    numeric = (bright(coupling + step) - bright(coupling - step)) / 2e-4
    assert np.all(np.isfinite(gradient))
    np.testing.assert_allclose(gradient[0, 1] + gradient[1, 0], numeric, rtol=2e-2)


def test_general_matrices_have_no_doubling():
    with pytest.raises(ValueError, match="kind"):
        chebyshev.transmitted((), None, None, None, 2, kind="general")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (dict(coupling=np.zeros((3, 4))), "coupling"),
        (dict(excitation_errors=np.zeros((2, 5))), "excitation_errors"),
        (dict(excitation_errors=np.full((2, 4), np.nan)), "excitation_errors"),
        (dict(thicknesses=[]), "thicknesses"),
        (dict(entrance=4), "entrance"),
        (dict(outputs=(7,)), "outputs"),
        (dict(method="magic"), "method"),
        (dict(chunk_size=0), "chunk_size"),
        (dict(coupling=1j * np.eye(4), method="eigh"), "Hermitian"),
    ],
)
def test_bad_input_is_named(change, message):
    arguments = dict(coupling=np.zeros((4, 4)), excitation_errors=np.zeros((2, 4)), thicknesses=[100.0])
    arguments.update(change)
    with pytest.raises(ValueError, match=message):
        propagate(
            arguments.pop("coupling"), arguments.pop("excitation_errors"), arguments.pop("thicknesses"), **arguments
        )


def test_tracers_are_refused_with_a_hint():
    with pytest.raises(ValueError, match="transmitted"):
        jax.jit(lambda s: propagate(np.zeros((4, 4)), s, [1.0]))(np.zeros((2, 4)))
