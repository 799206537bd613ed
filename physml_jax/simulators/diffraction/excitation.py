"""How far each beam is from the Bragg condition, and how obliquely it crosses the foil: the diagonal of a Bloch-wave
matrix, in the named conventions that programs differ by.

The same formulas serve the host's plan (NumPy, float64) and the traced calculation. With k the wave vector of the
incident beam, n the foil normal and all of g from one beam list,

    "chord"    s = -(2 k.g + g^2) / (2 k), the distance along k to the plane through the chord of the sphere;
    "beam"     the distance from the reciprocal lattice point to the sphere along k;
    "normal"   the same along n.

Beams cross a foil at different angles. The equations along the normal, B = M A M with M_g = (1 + g.n / k.n)^(-1/2),
have a thickness along n when multiplied by k / k.n; the factors of the coupling's rows and columns, m = M sqrt(k /
k.n), are what is called obliquity here (Metherell 1975, in Electron Microscopy in Materials Science II).
"""

import dataclasses
from types import ModuleType
from typing import Literal

import jax.numpy as jnp
import numpy as np

from physml_jax.core.precision import matmul
from physml_jax.simulators.diffraction import crystal as geometry
from physml_jax.typing import Array

ExcitationError = Literal["chord", "beam", "normal"]
AbsorptionModel = Literal["proportional", "thermal"]


@dataclasses.dataclass(frozen=True)
class Conventions:
    """Choices in which programs differ; the measured size of each is in docs/diffraction.md.

    Attributes:
      excitation_error: "chord", "beam" or "normal", see the module. The obliquity already turns a chord into the
        distance along the normal to first order.
      foil_normal: direction [uvw] of the direct lattice, real numbers; thicknesses are then measured along it.
        ``None``: normal along the zone axis, and thicknesses along the beam.
      mean_inner_potential: whether the beam is refracted, k^2 = K^2 + Re U_0, and amplitudes carry the phase of U_0;
        otherwise k = 1 / lambda.
      absorption_model: what ``absorption`` multiplies: "proportional", Im U_g = absorption Re U_g; "thermal", the
        absorption that thermal diffuse scattering causes (``absorption.absorptive_factors``), 1 for as calculated. The
        mean absorption belongs to both.
      azimuth_deg: turns the image axes about the zone axis, from x towards y.
      laue_zones: layers above and below the zero layer whose beams take part.
      max_holz_error: beams of those layers count where their excitation error can come below this, 1/angstrom.
    """

    excitation_error: ExcitationError = "chord"
    foil_normal: tuple[float, float, float] | None = None
    mean_inner_potential: bool = False
    absorption_model: AbsorptionModel = "proportional"
    azimuth_deg: float = 0.0
    laue_zones: int = 0
    max_holz_error: float = 0.02

    def __post_init__(self):
        for name, allowed in (
            ("excitation_error", ("chord", "beam", "normal")),
            ("absorption_model", ("proportional", "thermal")),
        ):
            if getattr(self, name) not in allowed:
                raise ValueError(f"{name}: expected one of {', '.join(allowed)}, got {getattr(self, name)!r}")
        n = self.foil_normal
        if n is not None and (np.shape(n) != (3,) or not np.all(np.isfinite(n)) or not np.any(n)):
            raise ValueError(f"foil_normal: expected three numbers, not all zero, got {n!r}")
        if not np.isfinite(self.azimuth_deg):
            raise ValueError(f"azimuth_deg: expected a finite number, got {self.azimuth_deg!r}")
        if self.laue_zones not in range(10):
            raise ValueError(f"laue_zones: expected an integer from 0 to 9, got {self.laue_zones!r}")
        if not (np.isfinite(self.max_holz_error) and self.max_holz_error > 0):
            raise ValueError(f"max_holz_error: expected a positive number, got {self.max_holz_error!r}")


DEFAULT = Conventions()


def beam_geometry(
    cell: Array, rows: Array, zone_axis: tuple[int, int, int], conventions: Conventions
) -> tuple[Array, Array]:
    """Basis of the beam list and the foil normal in the beam frame, traced.

    Args:
      cell: float [6].
      rows: int [d, 3], Miller indices of b1, b2 (and b3).
      zone_axis: integers [uvw].
      conventions: azimuth and foil normal count.

    Returns:
      float [d, 3], b1, b2 (b3) in 1/angstrom; float [3], unit vector.
    """
    frame = geometry.beam_frame(cell, zone_axis, azimuth_deg=conventions.azimuth_deg)
    basis = matmul(matmul(jnp.asarray(rows, frame.dtype), geometry.reciprocal_vectors(cell)), frame.T)
    if conventions.foil_normal is None:
        return basis, jnp.asarray([0, 0, 1], frame.dtype)
    normal = jnp.asarray(conventions.foil_normal, frame.dtype)
    normal = matmul(frame, matmul(normal, geometry.lattice_vectors(cell)))
    return basis, normal / jnp.sqrt((normal**2).sum())


def excitation(
    g: Array, tilts: Array, wave_number: Array, normal: Array, conventions: Conventions, *, xp: ModuleType = np
) -> tuple[Array, Array | None]:
    """Diagonal of the matrix and obliquity of every beam and tilt.

    Args:
      g: [n, 3], beams in the beam frame, 1/angstrom.
      tilts: [P, 2], tangential part of the wave vector, 1/angstrom.
      wave_number: k, 1/angstrom.
      normal: [3], foil normal in the beam frame.
      conventions: see there.
      xp: ``numpy`` or ``jax.numpy``.

    Returns:
      s [P, n] in 1/angstrom; the matrix has s m^2 on its diagonal and m V m off it. And m [P, n], ``None`` where it is
      exactly 1: reflections of the zero layer, foil normal along the zone axis, thickness along the beam.
    """
    across = xp.sum(tilts**2, axis=-1)
    k = xp.concatenate([tilts, xp.sqrt(wave_number**2 - across)[:, None]], axis=1)  # [P, 3]
    # Sums of three terms: no matrix unit has a say in their precision.
    k_g = sum(k[:, None, i] * g[None, :, i] for i in range(3))
    g2 = xp.sum(g**2, axis=-1)[None, :]
    c = 2.0 * k_g + g2
    chord = -c / (2.0 * wave_number)
    flat = g.shape[0] == 0 or conventions.laue_zones == 0
    k_n = xp.sum(k * normal[None, :], axis=1)[:, None]
    g_n = xp.sum(g * normal[None, :], axis=1)[None, :]
    along_normal = conventions.foil_normal is not None
    if flat and not along_normal:
        m2 = None
    else:
        m2 = 1.0 / (1.0 + g_n / k_n)
        m2 = m2 * (wave_number / k_n) if along_normal else m2
    if conventions.excitation_error == "chord":
        s = chord
    elif conventions.excitation_error == "beam":
        b = wave_number + k_g / wave_number
        s = -c / (b + xp.sqrt(b**2 - c))
    else:
        b = k_n + g_n
        s = -c / (b + xp.sqrt(b**2 - c)) * (1.0 if along_normal else k_n / wave_number)
        s = s if m2 is None else s / m2
    return s, None if m2 is None else xp.sqrt(m2)
