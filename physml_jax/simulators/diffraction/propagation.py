"""Electron waves through a crystal for many tilts at once: exp(2 pi i t A) e_0 by one of three methods.

``A = coupling + diag(excitation_errors)`` in 1/angstrom, thickness t in angstrom; the conventions are those of
``bloch``.
"""

from collections.abc import Sequence
from typing import Literal

import jax
import jax.numpy as jnp
import numpy as np

from physml_jax.core.batching import chunked_vmap
from physml_jax.core.precision import einsum
from physml_jax.simulators.diffraction import chebyshev
from physml_jax.typing import Array

#: Largest rounding error of an amplitude that a float32 calculation may have before float64 takes over.
GUARD_LIMIT = 1e-5
#: First neglected Chebyshev coefficient.
TOLERANCE = {"float32": 1e-8, "float64": 1e-15}


def propagate(
    coupling: Array,
    excitation_errors: Array,
    thicknesses: Array,
    *,
    entrance: int = 0,
    outputs: Sequence[int] | None = None,
    method: Literal["chebyshev", "eigh", "expm"] = "chebyshev",
    chunk_size: int | None = 512,
    obliquity: Array | None = None,
) -> Array:
    """Amplitudes psi_g(t) = [M exp(2 pi i t M A M) M^-1 e_0]_g behind a crystal, for many tilts and thicknesses.

    ``method="chebyshev"`` is a chain of products with the shared coupling, real where the coupling is, of half the
    length where only the incident beam is wanted. It plans on the host, so its arguments must be concrete; inside
    ``jit`` use ``chebyshev.transmitted`` and ``chebyshev.diffracted`` with a plan made outside. ``"eigh"`` diagonalises
    one Hermitian matrix per tilt and ``"expm"`` exponentiates one matrix per tilt and thickness: references, 10 to 100
    times slower.

    Float64 arrays under ``jax.enable_x64`` give complex128; otherwise complex64, from a plan in the precision of the
    arguments: pass the excitation errors as NumPy float64. Where absorption would let float32 lose more than
    ``GUARD_LIMIT`` the Chebyshev method calculates in float64 and rounds the result.

    Args:
      coupling: [n, n], U_(g-h) / 2K in 1/angstrom, real or complex; not Hermitian with absorption.
      excitation_errors: [P, n], s_g of every tilt in 1/angstrom.
      thicknesses: [T], angstrom.
      entrance: number of the incident beam.
      outputs: numbers of the wanted beams; ``None`` means all.
      method: see above.
      chunk_size: tilts at a time; bounds the memory.
      obliquity: [n], the diagonal of M, 1 / sqrt(1 + g.n / K.n) with the foil normal n, at the mean tilt; ``None``
        means 1, exact for reflections of the zero layer and a foil normal along the zone axis.

    Returns:
      Complex [T, P, n_out].

    Raises:
      ValueError: if shapes disagree, a number is not finite, a method is unknown or does not fit the matrix.
    """
    traced = any(isinstance(x, jax.core.Tracer) for x in (coupling, excitation_errors, thicknesses))
    if method not in ("chebyshev", "eigh", "expm"):
        raise ValueError(f"method: expected chebyshev, eigh or expm, got {method!r}")
    if traced and method == "chebyshev":
        raise ValueError(
            "propagate: the chebyshev method plans on the host and needs concrete arrays; inside jit call"
            " chebyshev.transmitted or chebyshev.diffracted with an expansion planned outside"
        )
    n = _check(coupling, excitation_errors, thicknesses, entrance, outputs, chunk_size, traced)
    rows = tuple(range(n)) if outputs is None else tuple(int(i) for i in outputs)
    xp = jnp if traced else np
    coupling, excitation_errors = xp.asarray(coupling), xp.asarray(excitation_errors)
    thicknesses = xp.asarray(thicknesses).reshape(-1)
    scale = None
    if obliquity is not None:
        m = xp.asarray(obliquity)
        coupling, excitation_errors = coupling * m[:, None] * m[None, :], excitation_errors * (m**2)[None, :]
        scale = m[np.asarray(rows)] / m[entrance]
    if method == "chebyshev":
        psi = _by_chebyshev(coupling, excitation_errors, thicknesses, entrance, rows, chunk_size)
    else:
        psi = _by_matrices(coupling, excitation_errors, thicknesses, entrance, rows, method, chunk_size, traced)
    return psi if scale is None else psi * jnp.asarray(scale, psi.real.dtype)[None, None, :]


def _check(coupling, excitation_errors, thicknesses, entrance, outputs, chunk_size, traced) -> int:
    shape = np.shape(coupling)
    if len(shape) != 2 or shape[0] != shape[1] or shape[0] == 0:
        raise ValueError(f"coupling: expected a square matrix, got shape {shape}")
    n = shape[0]
    if np.ndim(excitation_errors) != 2 or np.shape(excitation_errors)[1] != n or np.shape(excitation_errors)[0] == 0:
        raise ValueError(f"excitation_errors: expected shape [tilts, {n}], got {np.shape(excitation_errors)}")
    if np.ndim(thicknesses) > 1 or np.size(thicknesses) == 0:
        raise ValueError(f"thicknesses: expected a list of numbers, got shape {np.shape(thicknesses)}")
    if not 0 <= entrance < n:
        raise ValueError(f"entrance: expected a beam number from 0 to {n - 1}, got {entrance}")
    if outputs is not None and (len(outputs) == 0 or not all(0 <= i < n for i in outputs)):
        raise ValueError(f"outputs: expected beam numbers from 0 to {n - 1}, got {tuple(outputs)}")
    if chunk_size is not None and chunk_size < 1:
        raise ValueError(f"chunk_size: expected None or an integer of at least 1, got {chunk_size}")
    if not traced:
        for name, x in (("coupling", coupling), ("excitation_errors", excitation_errors), ("thicknesses", thicknesses)):
            if not np.all(np.isfinite(np.asarray(x))):
                raise ValueError(f"{name}: expected finite numbers")
    return n


def _chain(coupling, detuning, coefficients, attenuation, num_terms, *, kind, entrance, outputs, chunk_size):
    """Amplitudes [T, P, R] and guard [] over chunks of the tilts; ``detuning`` is [P, n]."""

    def part(rows):  # [p, n] -> [p, T, R]
        if outputs == (entrance,) and kind != "general":
            psi, guard = chebyshev.transmitted(
                coupling, rows.T, coefficients, attenuation, num_terms, kind=kind, entrance=entrance
            )
            return psi.T[:, :, None], guard
        psi, guard = chebyshev.diffracted(
            coupling, rows.T, coefficients, attenuation, num_terms, entrance=entrance, outputs=outputs
        )
        return jnp.transpose(psi, (2, 0, 1)), guard

    num_tilts = detuning.shape[0]
    size = min(chunk_size or num_tilts, num_tilts)
    num_chunks = -(-num_tilts // size)
    rows = jnp.minimum(jnp.arange(num_chunks * size), num_tilts - 1).reshape(num_chunks, size)
    psi, guard = jax.lax.map(lambda r: part(detuning[r]), rows)
    return jnp.moveaxis(psi.reshape(num_chunks * size, *psi.shape[2:])[:num_tilts], 0, 1), jnp.max(guard)


def scaled(coupling: np.ndarray, kind: chebyshev.Kind, expansion: chebyshev.Expansion, dtype) -> tuple[np.ndarray, ...]:
    """V / h with the imaginary shift taken off the diagonal, as (real,) or (real, imaginary), cast last."""
    h = expansion.half_width
    if kind == "real":
        return (np.asarray(coupling.real / h, dtype),)
    imag = coupling.imag / h - np.eye(coupling.shape[0]) * (expansion.shift / h)
    return np.asarray(coupling.real / h, dtype), np.asarray(imag, dtype)


def _by_chebyshev(coupling, excitation_errors, thicknesses, entrance, rows, chunk_size):
    wants_double = jax.dtypes.canonicalize_dtype(np.float64) == np.float64 and excitation_errors.dtype == np.float64
    coupling = np.asarray(coupling, np.complex128 if np.iscomplexobj(coupling) else np.float64)
    s = np.asarray(excitation_errors, np.float64)
    thicknesses = np.asarray(thicknesses, np.float64)
    kind = chebyshev.kind_of(coupling)
    bounds = chebyshev.spectral_bounds(coupling, kind)
    chain = jax.jit(_chain, static_argnames=("kind", "entrance", "outputs", "chunk_size"))

    def run(dtype):
        expansion = chebyshev.expand(s, thicknesses, bounds, tolerance=TOLERANCE[np.dtype(dtype).name])
        h, c = expansion.half_width, expansion.centre
        psi, guard = chain(
            scaled(coupling, kind, expansion, dtype),
            np.asarray((s - c[:, None]) / h, dtype),
            np.asarray(chebyshev.padded(expansion.coefficients), dtype),
            np.asarray(expansion.attenuation, dtype),
            num_terms=np.int32(expansion.num_terms),
            kind=kind,
            entrance=entrance,
            outputs=rows,
            chunk_size=chunk_size,
        )
        turns = thicknesses[:, None] * c[None, :]
        phase = np.exp(2j * np.pi * (turns - np.round(turns)))[:, :, None]
        return psi, float(guard), phase

    psi, guard, phase = run(np.float64 if wants_double else np.float32)
    if not wants_double and not guard < GUARD_LIMIT:
        with jax.enable_x64(True):
            psi, guard, phase = run(np.float64)
            psi = np.asarray(psi)
    if not guard < 10 * GUARD_LIMIT:
        raise ValueError(f"propagate: the Chebyshev series lost its precision (estimated error {guard:.1e}); use expm")
    return jnp.asarray(psi, np.complex128 if wants_double else np.complex64) * jnp.asarray(
        phase, np.complex128 if wants_double else np.complex64
    )


def _by_matrices(coupling, excitation_errors, thicknesses, entrance, rows, method, chunk_size, traced):
    if (
        method == "eigh"
        and not traced
        and chebyshev.kind_of(np.asarray(coupling), tolerance=1e-6)
        not in (
            "real",
            "hermitian",
        )
    ):
        raise ValueError('coupling: method "eigh" needs a Hermitian matrix (no absorption); use chebyshev or expm')
    s = jnp.asarray(excitation_errors)
    run = jax.jit(_matrices, static_argnames=("entrance", "rows", "method", "chunk_size"))
    return run(
        jnp.asarray(coupling),
        s,
        jnp.asarray(thicknesses, s.dtype),
        entrance=entrance,
        rows=rows,
        method=method,
        chunk_size=chunk_size,
    )


def _matrices(coupling, s, t, *, entrance, rows, method, chunk_size):
    select = np.asarray(rows, np.int32)

    def single(row):  # [n] -> [T, R]
        matrix = coupling + jnp.diag(row.astype(coupling.dtype))
        if method == "eigh":
            values, vectors = jnp.linalg.eigh(matrix)
            # Column of the incident beam: psi_g = sum_j C_gj exp(2 pi i t gamma_j) conj(C_0j).
            weights = jnp.exp(2j * jnp.pi * t[:, None] * values[None, :]) * vectors[entrance].conj()[None, :]
            return einsum("rj,tj->tr", vectors[select].astype(weights.dtype), weights)
        generator = jax.lax.complex(jnp.zeros((), s.dtype), 2 * jnp.pi * t)[:, None, None] * matrix[None]
        return jax.vmap(jax.scipy.linalg.expm)(generator)[:, select, entrance]

    return jnp.swapaxes(chunked_vmap(single, chunk_size=chunk_size)(s), 0, 1)
