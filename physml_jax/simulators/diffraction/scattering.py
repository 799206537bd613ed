"""How atoms scatter fast electrons: wavelength, form factors, structure factors, Fourier coefficients of the potential.

Conventions: angstrom; reciprocal lengths g = 1/d in 1/angstrom without 2 pi; B = 8 pi^2 <u^2>. A structure factor is

    F_g = sum_j occ_j f_j(g) exp(-B_j g^2 / 4) exp(-2 pi^2 h.U*_j.h) exp(-2 pi i h.r_j)

in angstrom, h = (h k l), so a potential is sum_g V_g exp(+2 pi i g.r) and a plane wave is exp(2 pi i k.r).

The literature tabulates form factors against g = 2 sin(theta)/lambda (Kirkland; Lobato and Van Dyck) or against s = g/2
(Peng and others; Doyle and Turner); here the argument is g throughout.
"""

import functools
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np

from physml_jax.core.precision import einsum, matmul
from physml_jax.simulators.diffraction import crystal as geometry
from physml_jax.simulators.diffraction.crystal import Crystal
from physml_jax.typing import Array

#: h c in keV angstrom and the electron's rest energy in keV (CODATA 2018).
PLANCK_LIGHT = 12.398419843320026
REST_ENERGY = 510.99895
#: h^2 / (2 pi m e) in V angstrom^2: V_g = POTENTIAL_FACTOR F_g / V.
POTENTIAL_FACTOR = 47.877647

#: name of a table -> its last element; all but "doyle_turner" hold every element up to there
TABLES = {"kirkland": 103, "lobato": 103, "peng": 98, "doyle_turner": 92}
_COLUMNS = {"kirkland": 14, "lobato": 12, "peng": 12, "doyle_turner": 10}


def wavelength(voltage_kv: Array | float) -> Array | float:
    """Relativistic de Broglie wavelength, h c / sqrt(E (E + 2 m c^2)).

    Args:
      voltage_kv: accelerating voltage in kV; a Python float stays one (double precision), an array keeps its dtype.

    Returns:
      Wavelength in angstrom.

    Example:
      >>> round(wavelength(200.0), 7)
      0.0250793
    """
    return PLANCK_LIGHT / (voltage_kv * (voltage_kv + 2 * REST_ENERGY)) ** 0.5


def relativistic_factor(voltage_kv: Array | float) -> Array | float:
    """Ratio of the electron's relativistic mass to its rest mass, gamma = 1 + E / (m c^2); type as for ``wavelength``.

    Example:
      >>> round(relativistic_factor(200.0), 5)
      1.39139
    """
    return 1.0 + voltage_kv / REST_ENERGY


def form_factors(numbers: Array, g: Array, *, table: str = "kirkland") -> Array:
    """Electron scattering factors of neutral atoms at rest, in the first Born approximation and for the rest mass.

    Args:
      numbers: int [n], atomic numbers; may be traced.
      g: float [m], length of the scattering vector 1/d in 1/angstrom.
      table: ``"kirkland"``, ``"lobato"``, ``"peng"`` or ``"doyle_turner"``. The first two have the Coulomb tail Z/g^2
        and hold to g = 12; the others hold to g = 4.

    Returns:
      float [m, n] in angstrom, dtype of ``g``. Elements outside the table give NaN where ``numbers`` is traced.

    Raises:
      ValueError: if the table is unknown, or does not hold an element of ``numbers``.

    References:
      Kirkland (2010), Advanced Computing in Electron Microscopy, appendix C. Lobato and Van Dyck (2014), Acta Cryst. A
      70, 636. Peng, Ren, Dudarev and Whelan (1996), Acta Cryst. A 52, 257, table 1. Doyle and Turner (1968), Acta
      Cryst. A 24, 390.

    Example:
      >>> f = form_factors(jnp.array([14]), jnp.array([0.0]))
      >>> round(float(f[0, 0]), 2)
      5.81
    """
    check_elements(numbers, table=table)
    g = jnp.asarray(g)
    rows = jnp.asarray(_table(table), g.dtype).at[jnp.asarray(numbers)].get(mode="fill", fill_value=jnp.nan)
    g2 = (g**2)[:, None, None]
    first, second = rows[None, :, 0::2], rows[None, :, 1::2]
    if table == "kirkland":
        lorentzian = first[..., :3] / (g2 + second[..., :3])
        gaussian = first[..., 3:] * jnp.exp(-second[..., 3:] * g2)
        return (lorentzian + gaussian).sum(axis=-1)
    if table == "lobato":
        x = second * g2
        return (first * (2.0 + x) / (1.0 + x) ** 2).sum(axis=-1)
    return (first * jnp.exp(-second * g2 / 4.0)).sum(axis=-1)  # the table's variable is s = g / 2


def elements(table: str) -> np.ndarray:
    """Atomic numbers that ``table`` holds, int [n]."""
    return np.flatnonzero(np.isfinite(_table(table)).all(axis=1))


def check_elements(numbers: Array, *, table: str = "kirkland") -> None:
    """Raises a ValueError if ``table`` is unknown or lacks an element; traced ``numbers`` pass unseen."""
    if table not in TABLES:
        raise ValueError(f"table: expected one of {', '.join(TABLES)}, got {table!r}")
    if isinstance(numbers, jax.core.Tracer):
        return
    held = set(elements(table).tolist())
    missing = sorted({int(z) for z in np.ravel(numbers)} - held)
    if missing:
        extent = f"elements 1 to {TABLES[table]}" if len(held) == TABLES[table] else f"{len(held)} elements"
        raise ValueError(f"numbers: the table {table!r} holds {extent}, not {missing}")


def debye_waller(crystal: Crystal, hkl: Array) -> Array:
    """Thermal damping exp(-B g^2 / 4 - 2 pi^2 sum_ij h_i h_j a*_i a*_j U_ij) of the amplitudes of every atom.

    Args:
      crystal: n atoms.
      hkl: [m, 3], Miller indices.

    Returns:
      float [m, n], dtype of ``crystal.positions``.
    """
    reciprocal, h, g = _reflections(crystal, hkl)
    lengths = jnp.linalg.norm(reciprocal, axis=1)
    x = h * lengths[None, :]
    # U11 U22 U33 U12 U13 U23
    products = jnp.stack([x[:, i] * x[:, j] for i, j in ((0, 0), (1, 1), (2, 2), (0, 1), (0, 2), (1, 2))], axis=1)
    weights = jnp.asarray([1.0, 1.0, 1.0, 2.0, 2.0, 2.0], h.dtype)
    anisotropic = matmul(products * weights[None, :], jnp.asarray(crystal.u_aniso, h.dtype).T)
    isotropic = (g**2 / 4.0)[:, None] * jnp.asarray(crystal.b_iso, h.dtype)[None, :]
    return jnp.exp(-isotropic - 2.0 * jnp.pi**2 * anisotropic)


def structure_factors(crystal: Crystal, hkl: Array, *, table: str = "kirkland") -> Array:
    """Structure factors F_g for electrons (see the module's formula), for the rest mass.

    Rows with occupancy 0 do not count, so crystals can be padded to a common number of atoms (atomic number 1,
    occupancy 0).

    Args:
      crystal: n atoms.
      hkl: [m, 3], Miller indices.
      table: see ``form_factors``.

    Returns:
      complex [m] in angstrom, precision of ``crystal.positions``.

    Raises:
      ValueError: as ``form_factors``.
    """
    _, h, g = _reflections(crystal, hkl)
    f = form_factors(crystal.numbers, g, table=table)
    amplitude = f * debye_waller(crystal, h) * jnp.asarray(crystal.occupancies, h.dtype)[None, :]
    turns = einsum("mi,ni->mn", h, jnp.asarray(crystal.positions, h.dtype))
    phase = -2.0 * jnp.pi * (turns - jnp.round(turns))  # whole turns dropped before the product rounds
    return jax.lax.complex((amplitude * jnp.cos(phase)).sum(axis=1), (amplitude * jnp.sin(phase)).sum(axis=1))


def potential_coefficients(
    crystal: Crystal,
    hkl: Array,
    *,
    voltage_kv: Array | float,
    table: str = "kirkland",
    absorption: Array | float = 0.0,
) -> Array:
    """Fourier coefficients U_g = gamma / (pi V) F_g (1 + i absorption) of the scattering potential.

    U_g / (2 K) couples beams; the relativistic mass enters here and nowhere else. Absorption is proportional to the
    elastic part for every g, the mean U_0 included: without it beams would gain intensity, up to more than 1.

    Args:
      crystal: n atoms.
      hkl: [m, 3], Miller indices.
      voltage_kv: accelerating voltage in kV.
      table: see ``form_factors``.
      absorption: ratio of the imaginary to the real part of the potential, typically 0 to 0.1.

    Returns:
      complex [m] in 1/angstrom^2, precision of ``crystal.positions``.

    Raises:
      ValueError: as ``form_factors``.

    References:
      Humphreys and Hirsch (1968), Phil. Mag. 18, 115, for proportional absorption.
    """
    factors = structure_factors(crystal, hkl, table=table)
    real = factors.real.dtype
    volume = geometry.volume(jnp.asarray(crystal.cell, real))
    scale = jnp.asarray(relativistic_factor(voltage_kv), real) / (jnp.pi * volume)
    ratio = jnp.asarray(absorption, real)
    return factors * (scale * jax.lax.complex(jnp.ones_like(ratio), ratio))


def _reflections(crystal: Crystal, hkl: Array) -> tuple[Array, Array, Array]:
    """Reciprocal vectors [3, 3], indices as floats [m, 3], lengths of g [m]; all with the dtype of the positions."""
    dtype = jnp.asarray(crystal.positions).dtype
    reciprocal = geometry.reciprocal_vectors(jnp.asarray(crystal.cell, dtype))
    h = jnp.asarray(hkl, dtype)
    g2 = (matmul(h, reciprocal) ** 2).sum(axis=1)
    # The derivative of a square root is infinite at g = 0, where every form factor is flat.
    g = jnp.where(g2 > 0, jnp.sqrt(jnp.where(g2 > 0, g2, 1.0)), 0.0)
    return reciprocal, h, g


@functools.cache
def _table(name: str) -> np.ndarray:
    """Coefficients float64 [Z + 1, k] in the order of the file; row number is atomic number, NaN for missing ones."""
    path = Path(__file__).parent / "tables" / f"{name}.txt"
    rows = np.loadtxt(path, comments="#", usecols=(0, *range(2, _COLUMNS[name])), ndmin=2)
    out = np.full((TABLES[name] + 1, rows.shape[1] - 1), np.nan)
    out[rows[:, 0].astype(int)] = rows[:, 1:]
    return out
