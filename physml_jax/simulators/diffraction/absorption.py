"""What thermal diffuse scattering takes out of the elastic beams: an imaginary part of every form factor.

Electrons that meet a displaced atom leave the Bragg directions. To second order in the displacements' potential, for
atoms that vibrate independently (Einstein), and with the Ewald sphere as a plane, the absorptive form factor is

    f'(g, B) = (gamma lambda / 2) integral d^2q f(q) f(g - q) [exp(-B g^2 / 4) - exp(-B (q^2 + (g - q)^2) / 4)],

in angstrom, its thermal damping included (Hall and Hirsch 1965, Proc. R. Soc. A 286, 158; Bird and King 1990, Acta
Cryst. A 46, 202). For form factors that are sums of Gaussians the integral is a sum of Gaussians too (Weickenmeier and
Kohl 1991, Acta Cryst. A 47, 590, for their own parametrisation). Here any table is first written as such a sum, with
positive amplitudes and exponents that all elements share, so f' has derivatives in B, g and the voltage.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import scipy.optimize

from physml_jax.core.precision import einsum, matmul
from physml_jax.simulators.diffraction import crystal as geometry
from physml_jax.simulators.diffraction import scattering
from physml_jax.simulators.diffraction.crystal import Crystal
from physml_jax.simulators.diffraction.excitation import AbsorptionModel
from physml_jax.typing import Array

#: Exponents beta of exp(-beta g^2) in angstrom^2: f is wanted to g = 24, beyond which the Coulomb tail has 0.5 % of the
#: integral, and is smooth on a logarithmic scale.
EXPONENTS = np.geomspace(0.0008, 60.0, 19)
#: Tables that end at g = 4.
_SHORT = ("peng", "doyle_turner")


@functools.cache
def gaussians(table: str) -> np.ndarray:
    """Amplitudes [Z + 1, G] in angstrom of f(g) = sum_m A_m exp(-EXPONENTS_m g^2), row number = atomic number.

    Fitted without negative amplitudes to g = 24 (4 for tables that end there), relative to f.
    """
    g = np.concatenate([np.linspace(0.0, 2.0, 81), np.geomspace(2.05, 4.0 if table in _SHORT else 24.0, 80)])
    numbers = scattering.elements(table)
    with jax.ensure_compile_time_eval(), jax.enable_x64(True):
        f = np.asarray(scattering.form_factors(numbers, g, table=table))
    basis = np.exp(-EXPONENTS[None, :] * g[:, None] ** 2)
    out = np.full((scattering.TABLES[table] + 1, len(EXPONENTS)), np.nan)
    for z, target in zip(numbers, f.T, strict=True):
        weight = 1.0 / (np.abs(target) + 1e-4 * target[0])
        out[z] = scipy.optimize.nnls(basis * weight[:, None], target * weight)[0]
    return out


def absorptive_factors(numbers: Array, g: Array, b_iso: Array, *, table: str = "kirkland") -> Array:
    """The integral of f'(g, B) without its factor gamma lambda / 2.

    Args:
      numbers: int [n], atomic numbers; may be traced.
      g: float [m], 1/angstrom.
      b_iso: float [n], angstrom^2.
      table: see ``scattering.form_factors``.

    Returns:
      float [m, n] in 1 (angstrom^2 / angstrom^2), dtype of ``g``.

    Raises:
      ValueError: as ``scattering.form_factors``.
    """
    scattering.check_elements(numbers, table=table)
    g = jnp.asarray(g)
    a = jnp.asarray(gaussians(table), g.dtype).at[jnp.asarray(numbers)].get(mode="fill", fill_value=jnp.nan)  # [n, G]
    b = jnp.asarray(b_iso, g.dtype)[None, :]
    g2 = (g**2)[:, None]
    first, second = np.triu_indices(len(EXPONENTS))
    pairs = np.stack([first, second], axis=1)

    @jax.checkpoint  # the terms of all pairs would be kept for the backward pass
    def add(total, pair):
        i, j = pair[0], pair[1]
        x, y = jnp.asarray(EXPONENTS, g.dtype)[i], jnp.asarray(EXPONENTS, g.dtype)[j]
        coherent = jnp.exp(-g2 * (b / 4 + x * y / (x + y))) / (x + y)
        p, q = x + b / 4, y + b / 4
        together = jnp.exp(-g2 * p * q / (p + q)) / (p + q)
        weight = jnp.where(i == j, 1.0, 2.0).astype(g.dtype) * jnp.pi
        return total + weight * (a[:, i] * a[:, j])[None, :] * (coherent - together), None

    return jax.lax.scan(add, jnp.zeros((g.shape[0], a.shape[0]), g.dtype), jnp.asarray(pairs))[0]


def equivalent_b(crystal: Crystal) -> Array:
    """B of every atom, that of an anisotropic one averaged over directions: 8 pi^2 U_eq added to ``b_iso``, [n]."""
    dtype = jnp.asarray(crystal.positions).dtype
    cell = jnp.asarray(crystal.cell, dtype)
    direct, reciprocal = geometry.lattice_vectors(cell), geometry.reciprocal_vectors(cell)
    lengths = jnp.sqrt((reciprocal**2).sum(axis=1))
    metric = matmul(direct, direct.T) * lengths[:, None] * lengths[None, :]
    u = jnp.asarray(crystal.u_aniso, dtype)
    weights = jnp.stack(
        [metric[i, j] * (1 if i == j else 2) for i, j in ((0, 0), (1, 1), (2, 2), (0, 1), (0, 2), (1, 2))]
    )
    return jnp.asarray(crystal.b_iso, dtype) + 8 * jnp.pi**2 / 3 * matmul(u, weights)


def absorptive_structure_factors(crystal: Crystal, hkl: Array, *, table: str = "kirkland") -> Array:
    """Sum over atoms of occ f'(g, B) exp(-2 pi i h.r), without the factor gamma lambda / 2.

    Args:
      crystal: n atoms.
      hkl: [m, 3], Miller indices.
      table: see ``scattering.form_factors``.

    Returns:
      complex [m], precision of ``crystal.positions``.
    """
    dtype = jnp.asarray(crystal.positions).dtype
    h = jnp.asarray(hkl, dtype)
    g2 = (matmul(h, geometry.reciprocal_vectors(jnp.asarray(crystal.cell, dtype))) ** 2).sum(axis=1)
    g = jnp.where(g2 > 0, jnp.sqrt(jnp.where(g2 > 0, g2, 1.0)), 0.0)
    f = absorptive_factors(crystal.numbers, g, equivalent_b(crystal), table=table)
    f = f * jnp.asarray(crystal.occupancies, dtype)[None, :]
    turns = einsum("mi,ni->mn", h, jnp.asarray(crystal.positions, dtype))
    phase = -2.0 * jnp.pi * (turns - jnp.round(turns))
    return jax.lax.complex((f * jnp.cos(phase)).sum(axis=1), (f * jnp.sin(phase)).sum(axis=1))


def potential_coefficients(
    crystal: Crystal,
    hkl: Array,
    *,
    voltage_kv: Array | float,
    table: str = "kirkland",
    absorption: Array | float = 0.0,
    model: AbsorptionModel = "proportional",
    structure_factors: Array | None = None,
) -> Array:
    """Fourier coefficients U_g + i U'_g of the scattering potential with either kind of absorption.

    Args:
      crystal: n atoms.
      hkl: [m, 3], Miller indices.
      voltage_kv: accelerating voltage in kV.
      table: see ``scattering.form_factors``.
      absorption: see ``excitation.Conventions.absorption_model``.
      model: likewise.
      structure_factors: complex [m] in angstrom, elastic ones to use in place of the crystal's.

    Returns:
      complex [m] in 1/angstrom^2, precision of ``crystal.positions``.
    """
    factors = structure_factors
    if factors is None:
        factors = scattering.structure_factors(crystal, hkl, table=table)
    real = factors.real.dtype
    gamma = jnp.asarray(scattering.relativistic_factor(voltage_kv), real)
    scale = gamma / (jnp.pi * geometry.volume(jnp.asarray(crystal.cell, real)))
    ratio = jnp.asarray(absorption, real)
    if model == "proportional":
        return factors * (scale * jax.lax.complex(jnp.ones_like(ratio), ratio))
    lost = absorptive_structure_factors(crystal, hkl, table=table)
    ratio = ratio * gamma * jnp.asarray(scattering.wavelength(voltage_kv), real) / 2
    return scale * (factors + 1j * ratio * lost)
