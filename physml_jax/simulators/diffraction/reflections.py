"""Which reflections a crystal can show: the host's plan of a kinematic simulation, in float64.

All reflections with abs(g) <= max_g whose structure factor is not negligible, the strongest first, so that a list of
spots that is cut short loses the faintest. See ``kinematic`` for the conventions.
"""

from collections.abc import Sequence
from typing import NamedTuple

import jax
import numpy as np

from physml_jax.simulators.diffraction import crystal as geometry
from physml_jax.simulators.diffraction import scattering, zone
from physml_jax.simulators.diffraction.compaction import WORD
from physml_jax.simulators.diffraction.crystal import Crystal
from physml_jax.typing import Array

#: Largest Miller index: three of them share one integer.
MAX_INDEX = 511
#: The part of the Ewald sphere that its series (three terms) may leave out, 1/angstrom.
MAX_REMAINDER = 1e-6


class Reflections(NamedTuple):
    """The reflections of one crystal, or with a leading axis P those of several (``stack``).

    Arrays only: it passes through jit, vmap and grad. Rows from ``count`` on are padding: (0, 0, 0).

    Attributes:
      hkl: int32 [N, 3], Miller indices; N is a multiple of 32.
      structure_factors: float [N], abs(F_g) in angstrom with the thermal factors, decreasing.
      basis: float [3, 3], rows a*, b*, c* in 1/angstrom, in the Cartesian frame of ``crystal.lattice_vectors``.
      wave_number: float [], K = 1 / lambda in 1/angstrom.
      coupling: float [], gamma lambda / V in 1/angstrom^2: pi / (coupling abs(F_g)) is the extinction distance.
      count: int32 [], reflections without the padding.
    """

    hkl: Array
    structure_factors: Array
    basis: Array
    wave_number: Array
    coupling: Array
    count: Array


def reflections(
    crystal: Crystal,
    *,
    max_g: float,
    voltage_kv: float,
    min_factor: float = 1e-4,
    form_factors: str = "kirkland",
    dtype: str = "float32",
) -> Reflections:
    """Lists the reflections of a crystal by falling structure factor, on the host.

    Equal structure factors are ordered by abs(g), then by Miller indices, so the list is the same on every machine.

    Args:
      crystal: arrays on the host, for example from ``read_cif``.
      max_g: largest length of g, 1/angstrom.
      voltage_kv: accelerating voltage, kV.
      min_factor: reflections below this fraction of the largest abs(F_g) are left out; 0 keeps those that symmetry
        forbids as well.
      form_factors: table of ``scattering.form_factors``.
      dtype: "float32" or "float64", precision of the result.

    Returns:
      ``Reflections``, NumPy arrays.

    Raises:
      ValueError: for settings that make no sense, a sphere too small or too large for the crystal, or an element that
        the table lacks.
    """
    for name, value in (("max_g", max_g), ("voltage_kv", voltage_kv)):
        if not (np.isfinite(value) and value > 0):
            raise ValueError(f"{name}: expected a positive number, got {value!r}")
    if not 0 <= min_factor < 1:
        raise ValueError(f"min_factor: expected a number from 0 to below 1, got {min_factor!r}")
    if dtype not in ("float32", "float64"):
        raise ValueError(f"dtype: expected 'float32' or 'float64', got {dtype!r}")
    wave_number = 1.0 / scattering.wavelength(float(voltage_kv))
    if 5 * max_g**8 / (128 * wave_number**7) > MAX_REMAINDER:
        limit = (MAX_REMAINDER * 128 * wave_number**7 / 5) ** 0.125
        raise ValueError(f"max_g: expected at most {limit:.2f} at {voltage_kv:g} kV, got {max_g:g}")
    basis, volume = _cell(crystal)
    hkl = _within(crystal, basis, volume, max_g)
    factors = np.abs(zone.structure_factors(crystal, hkl, form_factors)) if len(hkl) else np.zeros(1)
    if not factors.max() > 0:
        raise ValueError(f"max_g: expected a sphere with reflections in it, found none within {max_g:g} 1/angstrom")
    keep = factors >= min_factor * factors.max()
    hkl, factors = hkl[keep], factors[keep]
    # Rounded, or equivalent reflections would stand in the order of their rounding errors.
    g = np.linalg.norm(hkl @ basis, axis=1)
    order = np.lexsort((*-hkl.T[::-1], np.round(g, 9), -np.round(factors / factors.max(), 9)))
    padding = -len(order) % WORD
    return Reflections(
        hkl=np.pad(hkl[order], ((0, padding), (0, 0))).astype(np.int32),
        structure_factors=np.pad(factors[order], (0, padding)).astype(dtype),
        basis=basis.astype(dtype),
        wave_number=np.asarray(wave_number, dtype),
        coupling=np.asarray(scattering.relativistic_factor(voltage_kv) / (wave_number * volume), dtype),
        count=np.asarray(len(order), np.int32),
    )


def stack(plans: Sequence[Reflections]) -> Reflections:
    """Several crystals as one plan with a leading axis: lists are padded to the longest.

    Args:
      plans: results of ``reflections``.

    Returns:
      ``Reflections`` with arrays [P, ...]; ``kinematic.spots`` picks a row per pattern by its argument ``phase``.

    Raises:
      ValueError: if there is no plan.
    """
    if not plans:
        raise ValueError("plans: expected at least one, got none")
    longest = max(p.hkl.shape[0] for p in plans)

    def padded(p: Reflections) -> Reflections:
        rows = longest - p.hkl.shape[0]
        return p._replace(
            hkl=np.pad(p.hkl, ((0, rows), (0, 0))), structure_factors=np.pad(p.structure_factors, (0, rows))
        )

    return jax.tree.map(lambda *arrays: np.stack(arrays), *(padded(p) for p in plans))


def num_spots_needed(
    plan: Reflections, orientations: np.ndarray, *, max_excitation_error: float, precession_mrad: float = 0.0
) -> int:
    """The number of spots of the richest of some patterns, rounded up to a multiple of 16, on the host in float64.

    Low-index zone axes are the richest; a lattice has few of them (``orientations.zone_axes``).

    Args:
      plan: reflections of one crystal.
      orientations: float [..., 3, 3], see ``kinematic.spots``.
      max_excitation_error: see ``kinematic.spots``.
      precession_mrad: see ``kinematic.spots``.

    Returns:
      A value for ``num_spots``.
    """
    g = np.asarray(plan.hkl[: int(plan.count)], np.float64) @ np.asarray(plan.basis, np.float64)
    wave_number = float(plan.wave_number)
    most = 0
    for rotation in np.asarray(orientations, np.float64).reshape(-1, 3, 3):
        x, y, z = rotation @ g.T
        q = x**2 + y**2
        s = -z - q / (wave_number + np.sqrt(wave_number**2 - q))
        near = np.abs(s) <= max_excitation_error + np.sqrt(q) * 1e-3 * precession_mrad
        most = max(most, int(near.sum()))
    return max(16, -(-most // 16) * 16)


def _cell(crystal: Crystal) -> tuple[np.ndarray, float]:
    """Reciprocal vectors and the volume of the cell in float64."""
    with jax.enable_x64(True):
        cell = np.asarray(crystal.cell, np.float64)
        basis, volume = jax.jit(lambda c: (geometry.reciprocal_vectors(c), geometry.volume(c)))(cell)
        return np.asarray(basis), float(volume)


def _within(crystal: Crystal, basis: np.ndarray, volume: float, max_g: float) -> np.ndarray:
    """All Miller indices with 0 < abs(g) <= max_g, int [n, 3]."""
    # |h| = |g . a| <= |g| |a|
    limit = np.floor(max_g * np.asarray(crystal.cell, np.float64)[:3] + 1e-6).astype(int)
    if limit.max() > MAX_INDEX or volume * max_g**3 > 1e6:
        raise ValueError(
            f"max_g: expected fewer reflections, got about {4.19 * volume * max_g**3:.0f} within {max_g:g} 1/angstrom"
        )
    hkl = np.stack(np.meshgrid(*(np.arange(-m, m + 1) for m in limit), indexing="ij"), axis=-1).reshape(-1, 3)
    g2 = ((hkl @ basis) ** 2).sum(axis=1)
    return hkl[(g2 <= max_g**2 * (1 + 1e-9)) & hkl.any(axis=1)]
