"""The electrostatic potential of a crystal, averaged along the beam.

    V(x, y) = sum_g V_g exp(2 pi i g.r),  V_g = 47.878 V angstrom^2 F_g / V_cell,  over reflections with g.[uvw] = 0,

in volts, positive where it attracts electrons. Only the reflections of the zero layer survive the mean along [uvw], and
the mean over the projected cell is the mean inner potential V_0.
"""

import math

import jax
import jax.numpy as jnp
import numpy as np

from physml_jax.core.precision import matmul
from physml_jax.simulators.diffraction import crystal as geometry
from physml_jax.simulators.diffraction import scattering
from physml_jax.simulators.diffraction.crystal import Crystal
from physml_jax.typing import Array


def projection_axes(cell: Array, zone_axis: tuple[int, int, int]) -> np.ndarray:
    """Direct-lattice vectors p, q, t that span the cell, t along the zone axis; p and q, seen along t, span the image.

    For a zone axis along a, b or c these are the other two axes of the cell. Otherwise p and q have the shortest
    projections, p as close to x of ``crystal.beam_frame`` as these allow. (p, q, t) is right-handed with determinant 1.

    Args:
      cell: float [6]; may be traced only where the zone axis is along a, b or c.
      zone_axis: integers [uvw]; a common factor is removed.

    Returns:
      int [3, 3], rows p, q, t in units of a, b, c.

    Raises:
      ValueError: if ``zone_axis`` is not three integers with one different from 0, or if the axes need the cell and the
        cell is traced.
    """
    t = _primitive(zone_axis)
    if (t != 0).sum() == 1:
        k = int(np.flatnonzero(t)[0])
        others = [i for i in range(3) if i != k]
        axes = np.stack([*np.eye(3, dtype=int)[others], t])
        axes[1] *= round(np.linalg.det(axes))
        return axes
    if isinstance(cell, jax.core.Tracer):
        raise ValueError(f"cell: image axes along {tuple(t.tolist())} need a cell that is not traced; pass axes")
    p, q = _complement(t)
    frame, lattice = _frame(cell, t)
    plane = lattice @ frame[:2].T  # [3, 2]: a, b, c seen along the beam

    def length(v: np.ndarray) -> float:
        return float(((v @ plane) ** 2).sum())

    while True:  # Gauss: subtract multiples until neither vector gets shorter
        if length(q) < length(p) * (1 - 1e-9):
            p, q = q, p
        multiple = round(float((p @ plane) @ (q @ plane)) / length(p))
        if multiple == 0:
            break
        q = q - multiple * p
    candidates = [v for v in (p, -p, q, -q) if (v @ plane)[0] > 0]
    first = max(candidates, key=lambda v: (round((v @ plane)[0] / math.sqrt(length(v)), 6), -length(v)))
    second = q if (first == p).all() or (first == -p).all() else p
    axes = np.stack([first, second, t])
    axes[1] *= round(np.linalg.det(axes))
    # Multiples of t do not show in the image; the shortest representatives are the readable ones.
    for row in axes[:2]:
        row -= round(float((row @ lattice) @ (t @ lattice)) / float(((t @ lattice) ** 2).sum())) * t
    return axes


def projected_potential(
    crystal: Crystal,
    *,
    zone_axis: tuple[int, int, int] = (0, 0, 1),
    shape: tuple[int, int] = (128, 128),
    table: str = "kirkland",
    max_g: float | None = None,
    axes: np.ndarray | None = None,
) -> Array:
    """Mean of the electrostatic potential along the zone axis, sampled over one projected cell.

    Pixel (i, j) lies at ((j + 1/2)/W) p + ((i + 1/2)/H) q, p and q of ``projection_axes``; for [001] these are a and b.
    The sum holds every reflection that the grid resolves: indices below W/2 along p and below H/2 along q.

    Args:
      crystal: n atoms (see ``scattering.structure_factors`` for padding).
      zone_axis: integers [uvw] of the direct lattice.
      shape: (H, W), number of pixels.
      table: form factors, see ``scattering.form_factors``.
      max_g: if given, reflections beyond this length in 1/angstrom are left out.
      axes: int [3, 3], rows p, q, t as ``projection_axes`` returns; computed if not given.

    Returns:
      float [H, W] in volts, first axis along q, precision of ``crystal.positions``.

    Raises:
      ValueError: if ``shape`` is not two positive integers, and as ``projection_axes`` and ``scattering.form_factors``.
    """
    if len(shape) != 2 or min(shape) < 1:
        raise ValueError(f"shape: expected two positive integers (H, W), got {shape}")
    if axes is None:
        axes = projection_axes(crystal.cell, zone_axis)
    height, width = shape
    h, k = np.arange((width - 1) // 2 + 1), np.arange(-((height - 1) // 2), (height - 1) // 2 + 1)
    # Rows of the inverse transpose are dual to p, q, t: reflection (H, K) has g.p = H, g.q = K, g.t = 0.
    dual = np.round(np.linalg.inv(np.asarray(axes, np.float64)).T).astype(np.int32)
    indices = np.stack(np.meshgrid(k, h, indexing="ij")[::-1], axis=-1).reshape(-1, 2)
    hkl = indices @ dual[:2]
    coefficients = scattering.structure_factors(crystal, hkl, table=table)
    real = coefficients.real.dtype
    cell = jnp.asarray(crystal.cell, real)
    if max_g is not None:
        g = matmul(jnp.asarray(hkl, real), geometry.reciprocal_vectors(cell))
        coefficients = jnp.where((g**2).sum(axis=1) <= max_g**2, coefficients, 0.0)
    coefficients = (scattering.POTENTIAL_FACTOR / geometry.volume(cell)) * coefficients.reshape(len(k), len(h))
    # The potential is real, so H < 0 repeats H > 0.
    twice = jnp.asarray(np.where(h == 0, 1.0, 2.0), real)
    x, y = (np.arange(width) + 0.5) / width, (np.arange(height) + 0.5) / height
    along_p = jnp.asarray(np.exp(2j * np.pi * np.outer(h, x)), coefficients.dtype)
    along_q = jnp.asarray(np.exp(2j * np.pi * np.outer(y, k)), coefficients.dtype)
    return matmul(along_q, matmul(coefficients * twice[None, :], along_p)).real


def _primitive(zone_axis: tuple[int, int, int]) -> np.ndarray:
    t = np.asarray(zone_axis)
    if t.shape != (3,) or not np.issubdtype(t.dtype, np.integer) or not t.any():
        raise ValueError(f"zone_axis: expected three integers, not all zero, got {zone_axis!r}")
    return t.astype(int) // math.gcd(*map(int, t))


def _complement(t: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Integer vectors p, q with det(p, q, t) = 1: column steps take t to a unit vector, their inverse holds p and q."""
    steps, v = np.eye(3, dtype=int), t.copy()
    while (v != 0).sum() > 1:
        smallest = min(np.flatnonzero(v), key=lambda i: abs(v[i]))
        for i in range(3):
            if i != smallest:
                multiple = v[i] // v[smallest]
                v[i] -= multiple * v[smallest]
                steps[:, i] -= multiple * steps[:, smallest]
    # Now t @ steps = v = +-e_k, so t is +-row k of the inverse.
    inverse = np.round(np.linalg.inv(steps)).astype(int)
    k = int(np.flatnonzero(v)[0])
    p, q = np.delete(inverse, k, axis=0)
    return (p, q) if np.linalg.det(np.stack([p, q, t])) > 0 else (q, p)


def _frame(cell: Array, t: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Beam frame and lattice vectors as NumPy arrays; single precision is enough to choose integers."""
    cell = jnp.asarray(cell)
    return np.asarray(geometry.beam_frame(cell, tuple(t.tolist()))), np.asarray(geometry.lattice_vectors(cell))
