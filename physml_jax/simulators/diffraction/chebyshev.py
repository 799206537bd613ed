"""exp(2 pi i t A) e_0 for many matrices A = V + diag(s) that differ in their diagonal only.

Across the tilts of a diffraction pattern the coupling V [n, n] is shared and only the excitation errors s [P, n]
change. The Chebyshev expansion

    exp(2 pi i t A) = exp(2 pi i t c) sum_k (2 - delta_k0) i^k J_k(2 pi t h) T_k(B),      B = (A - c) / h,

with c the centre of one tilt's spectrum and h the half-width that all tilts share, is then a chain of matrix products V
X with X [n, P], one column per tilt, and an elementwise diagonal: no matrix per tilt, no eigenvectors, no degenerate
derivative (Tal-Ezer and Kosloff 1984, J. Chem. Phys. 81, 3967, for one matrix). The chain does not depend on t, so any
number of thicknesses costs one small product at the end.

What fixes shapes and accuracy (c, h, number of terms, Bessel coefficients) is an ``Expansion``, made on the host in
float64 and cast last. The traced functions take the scaled coupling ``V / h`` and the scaled detuning ``(s - c) / h``
and return, beside the amplitudes, a ``guard``: an estimate of the rounding and truncation error. It is the certificate
that the spectrum lay inside the interval which the plan assumed, because T_k grows exponentially outside.

The chain itself and its derivative are in ``recurrence``.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import scipy.special

from physml_jax.core.precision import matmul
from physml_jax.simulators.diffraction import recurrence
from physml_jax.simulators.diffraction.recurrence import Kind, State
from physml_jax.typing import Array


class Expansion(NamedTuple):
    """Chebyshev coefficients of a group of tilts, float64 on the host.

    Attributes:
      centre: [P], centres c of the spectra, 1/angstrom.
      shift: [], imaginary shift of the spectra, 1/angstrom; 0 without absorption.
      half_width: [], shared half-width h, 1/angstrom.
      num_terms: number of terms, even.
      coefficients: [T, K] with K >= num_terms, (2 - delta_k0) (-1)^(k // 2) J_k(2 pi t h): real weights of even terms,
        imaginary ones of odd terms.
      attenuation: [T], exp(-2 pi t shift).
      thicknesses: [T], angstrom.

    """

    centre: np.ndarray
    shift: float
    half_width: float
    num_terms: int
    coefficients: np.ndarray
    attenuation: np.ndarray
    thicknesses: np.ndarray


def kind_of(coupling: np.ndarray, *, tolerance: float = 1e-12) -> Kind:
    """The symmetry of a coupling matrix, judged to a relative ``tolerance``."""
    coupling = np.asarray(coupling)
    scale = tolerance * max(float(np.max(np.abs(coupling), initial=0.0)), 1e-300)
    symmetric = bool(np.all(np.abs(coupling - coupling.T) <= scale))
    if symmetric and (not np.iscomplexobj(coupling) or bool(np.all(np.abs(coupling.imag) <= scale))):
        return "real"
    if bool(np.all(np.abs(coupling - coupling.conj().T) <= scale)):
        return "hermitian"
    return "symmetric" if symmetric else "general"


def extreme_eigenvalues(matrix: np.ndarray, *, num_steps: int = 24) -> tuple[float, float]:
    """Smallest and largest eigenvalue of a Hermitian matrix, with a margin that makes them bounds in practice.

    Dense below 48 rows. Above, Lanczos with full reorthogonalisation from a fixed start vector; its Ritz values lie
    inside the spectrum, so the interval is widened by the residual of the extreme Ritz pairs (an eigenvalue lies within
    the residual) and by 1 % of its width.

    Args:
      matrix: [n, n], Hermitian, any precision.
      num_steps: Lanczos steps.

    """
    n = matrix.shape[0]
    if n < 48:
        values = np.linalg.eigvalsh(matrix.astype(np.complex128 if np.iscomplexobj(matrix) else np.float64))
        return float(values[0]), float(values[-1])
    # The start favours no symmetry: a vector symmetric under an operation of V would never see the other
    # representations.
    start = 1.0 + 0.5 * np.cos(np.arange(n) ** 2 * 0.7)
    basis = np.zeros((num_steps + 1, n), matrix.dtype)
    basis[0] = start / np.linalg.norm(start)
    alpha, beta = np.zeros(num_steps), np.zeros(num_steps)
    steps = num_steps
    for j in range(num_steps):
        w = matrix @ basis[j]
        alpha[j] = float(np.vdot(basis[j], w).real)
        for _ in range(2):
            w = w - basis[: j + 1].T @ (basis[: j + 1].conj() @ w)
        beta[j] = float(np.linalg.norm(w))
        if beta[j] <= 1e-7 * (abs(alpha[0]) + beta[0] + 1e-300):
            steps = j + 1
            break
        basis[j + 1] = w / beta[j]
    values, vectors = np.linalg.eigh(
        np.diag(alpha[:steps]) + np.diag(beta[: steps - 1], 1) + np.diag(beta[: steps - 1], -1)
    )
    residual = beta[steps - 1] * np.abs(vectors[-1])
    margin = 0.01 * (values[-1] - values[0])
    return float(values[0] - residual[0] - margin), float(values[-1] + residual[-1] + margin)


def spectral_bounds(coupling: np.ndarray, kind: Kind) -> tuple[float, float, float, float]:
    """Bounds of the Hermitian part (low, high) and of the anti-Hermitian part (low, high) of V, in the units of V."""
    if kind in ("real", "hermitian"):
        low, high = extreme_eigenvalues(coupling.real if kind == "real" else coupling)
        return low, high, 0.0, 0.0
    adjoint = coupling.conj().T
    low, high = extreme_eigenvalues((coupling + adjoint) / 2)
    return low, high, *extreme_eigenvalues((coupling - adjoint) / 2j)


def expand(
    excitation_errors: np.ndarray,
    thicknesses: np.ndarray,
    bounds: tuple[float, float, float, float],
    *,
    tolerance: float,
    half_width: float | None = None,
) -> Expansion:
    """Plans an expansion for a group of tilts.

    Every spectrum lies in [min s + low, max s + high] (Weyl's inequalities); c is its middle, h half the widest. Terms
    are kept until J_k, times the growth of T_k over the imaginary part of the spectrum, falls below ``tolerance``.

    Args:
      excitation_errors: [P, n], 1/angstrom; only the smallest and largest of each row matter.
      thicknesses: [T], angstrom.
      bounds: of ``spectral_bounds``, 1/angstrom.
      tolerance: size of the first neglected coefficient.
      half_width: overrides h; must not be smaller than the widest spectrum.

    Raises:
      ValueError: if ``half_width`` is too small.

    """
    s = np.asarray(excitation_errors, np.float64)
    t = np.atleast_1d(np.asarray(thicknesses, np.float64))
    low, high, imag_low, imag_high = bounds
    bottom, top = s.min(axis=1) + low, s.max(axis=1) + high
    widest = float(np.max(top - bottom)) / 2
    shift, imag_half = (imag_low + imag_high) / 2, (imag_high - imag_low) / 2
    # A wider ellipse keeps the corners of the rectangle (real times imaginary extent) from growing: 4 % more terms,
    # orders of magnitude less growth.
    needed = max(widest * (1.04 if imag_half > 0 else 1.0), imag_half, 1e-9)
    if half_width is not None and half_width < needed:
        raise ValueError(f"half_width: the spectra need at least {needed:.3e}, got {half_width:.3e}")
    h = needed if half_width is None else float(half_width)
    z = 2 * np.pi * np.abs(t).max() * h
    growth = np.arcsinh(imag_half / h)
    limit = int(np.ceil(z * (1 + 2 * growth) + 20 * (z + 1) ** (1 / 3) + 20))
    k = np.arange(limit)
    bessel = scipy.special.jv(k[None, :], 2 * np.pi * t[:, None] * h)
    log_growth = k * growth - 2 * np.pi * np.minimum(0.0, t.min()) * abs(shift)
    with np.errstate(divide="ignore"):
        weight = np.max(np.log(np.abs(bessel)), axis=0) + log_growth
    attenuation = np.exp(-2 * np.pi * t * shift)
    significant = np.nonzero(weight + np.log(max(1e-300, float(attenuation.max()))) > np.log(tolerance))[0]
    num_terms = int(significant[-1]) + 1 if significant.size else 1
    num_terms += num_terms % 2
    signs = np.where((k // 2) % 2 == 0, 1.0, -1.0) * np.where(k == 0, 1.0, 2.0)
    coefficients = np.zeros((t.size, max(num_terms, 2)))
    m = min(num_terms, limit)
    coefficients[:, :m] = (signs * bessel)[:, :m]
    return Expansion((bottom + top) / 2, shift, h, coefficients.shape[1], coefficients, attenuation, t)


def padded(coefficients: np.ndarray, *, multiple: int = 128) -> np.ndarray:
    """Coefficients [T, K] with zeros up to a multiple of terms, so that few shapes are compiled."""
    return np.pad(coefficients, ((0, 0), (0, -coefficients.shape[1] % multiple)))


def moved(coefficients: Array, phase: Array) -> Array:
    """Coefficients of exp(i (z + phase) x) from those of exp(i z x): thicknesses that differ from the planned ones.

    The function is multiplied at as many Chebyshev nodes as there are terms. The change alone is calculated, so phase 0
    returns the input exactly; a change that needs more terms than there are shows in the guard.

    Args:
      coefficients: [T, K], as in ``Expansion``.
      phase: [T], 2 pi h times the change of thickness.

    Returns:
      [T, K].
    """
    k = coefficients.shape[1]
    # Angles as whole numbers of pi / 2K: exact in every precision.
    turns = (np.arange(k)[:, None] * (2 * np.arange(k)[None, :] + 1)) % (4 * k)
    cosines = np.cos(np.pi / (2 * k) * turns).astype(coefficients.dtype)  # [term, node]
    is_even = np.arange(k) % 2 == 0
    nodes = cosines[1] if k > 1 else np.zeros(1, coefficients.dtype)
    real = matmul(jnp.where(is_even[None], coefficients, 0), cosines)
    imag = matmul(jnp.where(is_even[None], 0, coefficients), cosines)
    angle = phase[:, None] * nodes[None, :]
    a, b = -2 * jnp.sin(angle / 2) ** 2, jnp.sin(angle)  # exp(i angle) - 1
    changes = [matmul(x, cosines.T) for x in (real * a - imag * b, real * b + imag * a)]
    norm = np.where(np.arange(k) == 0, 1.0, 2.0).astype(coefficients.dtype) / k
    return coefficients + norm[None] * jnp.where(is_even[None], *changes)


def _combine(even: State, odd: State) -> Array:
    """Even sum + i odd sum, each (real,) or (real, imaginary)."""
    if len(even) == 1:
        return jax.lax.complex(even[0], odd[0])
    return jax.lax.complex(even[0] - odd[1], even[1] + odd[0])


def _guard(peak: Array, tail: Array, dtype) -> Array:
    value = jnp.finfo(dtype).eps * peak + tail
    return jnp.where(jnp.isnan(value), jnp.inf, value)  # an overflow is an error, not an unknown


def transmitted(
    coupling: tuple[Array, ...],
    detuning: Array,
    coefficients: Array,
    attenuation: Array,
    num_terms: Array | int,
    *,
    kind: Kind,
    entrance: int = 0,
    obliquity: Array | None = None,
    forward_mode: bool = False,
) -> tuple[Array, Array]:
    """Amplitude of the beam that entered (the bright field), with half the products of ``diffracted``.

    Moments double: mu_2k = 2 <X_k, X_k> - mu_0 and mu_2k+1 = 2 <X_k+1, X_k> - mu_1 with X_k = T_k(B) e_0, so K terms
    need K / 2 products. Hermitian B takes the inner product, complex symmetric B the bilinear form.

    Args:
      coupling: (V / h,) real [n, n], or its (real, imaginary) parts; the imaginary shift is already subtracted from the
        diagonal.
      detuning: [n, P], (s - c) / h.
      coefficients: [T, K], K even; zero from ``num_terms`` on.
      attenuation: [T].
      num_terms: even number of terms, a Python integer or traced (one compilation for all numbers up to K).
      kind: "real", "hermitian" or "symmetric".
      entrance: number of the incident beam.
      obliquity: [n, P], factors m of a matrix m V m + diag(s) in place of V + diag(s); ``None`` means 1.
      forward_mode: differentiable in forward mode, for a few parameters and many tilts; ``num_terms`` must then be a
        Python integer. Otherwise in reverse mode, by the adjoint recurrence.

    Returns:
      Complex amplitudes [T, P] without the phase exp(2 pi i t c), and the guard [].

    """
    if kind == "general":
        raise ValueError('kind: moments do not double for a general matrix; use "diffracted"')
    bounds = jnp.max(jnp.abs(coefficients * attenuation[:, None]), axis=0)
    found, peak = recurrence.moments(
        coupling,
        detuning,
        num_terms // 2,
        bounds[0::2],
        kind=kind,
        entrance=entrance,
        obliquity=obliquity,
        forward_mode=forward_mode,
    )
    even, odd = (
        tuple(matmul(coefficients[:, parity::2], found[:, parity, c]) for c in range(found.shape[2]))
        for parity in (0, 1)
    )
    sizes = jnp.max(jnp.abs(jax.lax.stop_gradient(found)), axis=(1, 2, 3)) * bounds[0::2]
    last = sizes[num_terms // 2 - 1]
    guard = _guard(jnp.maximum(peak, jnp.max(sizes)), last, detuning.dtype)
    return _combine(even, odd) * attenuation[:, None], guard


def diffracted(
    coupling: tuple[Array, ...],
    detuning: Array,
    coefficients: Array,
    attenuation: Array,
    num_terms: Array | int,
    *,
    entrance: int = 0,
    outputs: tuple[int, ...] | None = None,
    obliquity: Array | None = None,
    forward_mode: bool = False,
) -> tuple[Array, Array]:
    """Amplitudes of all beams, or of some.

    Args:
      coupling: as in ``transmitted``; any kind of matrix.
      detuning: [n, P].
      coefficients: [T, K], K even.
      attenuation: [T].
      num_terms: even number of terms, Python integer or traced.
      entrance: number of the incident beam.
      outputs: numbers of the wanted beams; ``None`` means all n.
      obliquity: as in ``transmitted``.
      forward_mode: as in ``transmitted``.

    Returns:
      Complex amplitudes [T, R, P] without the phase exp(2 pi i t c), and the guard [].

    """
    bounds = jnp.max(jnp.abs(coefficients * attenuation[:, None]), axis=0)
    even, odd, peak, last = recurrence.sums(
        coupling,
        detuning,
        coefficients,
        num_terms // 2,
        bounds,
        entrance=entrance,
        outputs=outputs,
        obliquity=obliquity,
        forward_mode=forward_mode,
    )
    return _combine(even, odd) * attenuation[:, None, None], _guard(peak, last, detuning.dtype)
