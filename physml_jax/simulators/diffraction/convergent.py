"""Convergent-beam patterns as they are recorded: discs of all reflections side by side, and rocking curves.

Thin layers over ``bloch``: a disc is the map of one reflection's intensity over the directions inside the aperture, at
the place in the diffraction plane where that direction of that beam arrives. A rocking curve is a line of directions.
"""

from collections.abc import Sequence
from typing import NamedTuple

import jax
import numpy as np

from physml_jax.simulators.diffraction import beams, bloch, excitation, scattering
from physml_jax.simulators.diffraction import crystal as geometry
from physml_jax.simulators.diffraction.crystal import Crystal
from physml_jax.simulators.diffraction.excitation import DEFAULT


class Cbed(NamedTuple):
    """A convergent-beam pattern, NumPy arrays.

    Attributes:
      pattern: [T, H, W], intensity per pixel of the detector; where discs overlap, their sum without interference (a
        source of incoherent directions).
      coordinates: [W], place of the pixels along either axis, 1/angstrom; first image axis y, second x.
      reflections: int [R, 3], the discs.
      convergence_error: see ``bloch.Lacbed``.
    """

    pattern: np.ndarray
    coordinates: np.ndarray
    reflections: np.ndarray
    convergence_error: float | None


class RockingCurve(NamedTuple):
    """Intensity along a line of tilts, NumPy arrays.

    Attributes:
      intensities: [T, R, N].
      tilts: [N, 2], 1/angstrom.
      excitation_errors: [R, N], of every reflection, 1/angstrom.
      convergence_error: see ``bloch.Lacbed``.
    """

    intensities: np.ndarray
    tilts: np.ndarray
    excitation_errors: np.ndarray
    convergence_error: float | None


def reflections_within(
    crystal: Crystal, *, zone_axis: bloch.Reflection = (0, 0, 1), max_g: float
) -> list[bloch.Reflection]:
    """Reflections of the zero layer that symmetry allows, the incident beam first, by length.

    Args:
      crystal: arrays on the host.
      zone_axis: direction [uvw] of the direct lattice.
      max_g: largest abs(g), 1/angstrom.

    Returns:
      Miller indices: a list for the argument ``reflections`` of ``bloch.lacbed`` and ``bloch.plan``, in which case the
      result is the whole panel of patterns.
    """
    layer = beams.zero_layer(crystal, zone_axis)
    return [tuple(int(i) for i in row) for row in beams.beams_within(layer, max_g) @ layer.hkl]


def cbed(
    crystal: Crystal,
    *,
    zone_axis: bloch.Reflection = (0, 0, 1),
    semi_angle_mrad: float,
    radius: float,
    num_pixels: int = 128,
    tilt: Sequence[float] = (0.0, 0.0),
    voltage_kv: float = 200.0,
    **settings,
) -> Cbed:
    """Convergent-beam pattern of a crystal on a square detector.

    Pixel i lies at (i - (n - 1) / 2) / (n / 2) of ``radius``. A reflection's disc takes the pixels within the
    aperture's radius of g; their directions of incidence are calculated for each disc, so nothing is interpolated.

    Args:
      crystal: arrays on the host.
      zone_axis: direction [uvw] of the direct lattice along the untilted beam.
      semi_angle_mrad: half the convergence angle.
      radius: half the width of the pattern, 1/angstrom.
      num_pixels: pixels along each side.
      tilt: (kx, ky) of the aperture's middle, 1/angstrom; the pattern is centred on it.
      voltage_kv: accelerating voltage, 30 to 1000 kV.
      settings: further arguments of ``bloch.lacbed``: thicknesses, absorption, conventions, max_g, ...

    Returns:
      ``Cbed``.

    Raises:
      ValueError: as ``bloch.lacbed``, and for an aperture or a detector without size.
    """
    for name, value in (("semi_angle_mrad", semi_angle_mrad), ("radius", radius)):
        if not (np.isfinite(value) and value > 0):
            raise ValueError(f"{name}: expected a positive number, got {value!r}")
    for name in ("tilts", "reflections", "half_width"):
        if name in settings:
            raise ValueError(f"{name}: cbed sets it itself")
    conventions = settings.get("conventions", DEFAULT)
    aperture = np.sin(1e-3 * semi_angle_mrad) / scattering.wavelength(float(voltage_kv))
    layer = beams.zero_layer(crystal, zone_axis, azimuth_deg=conventions.azimuth_deg)
    pq = beams.beams_within(layer, np.sqrt(2.0) * radius + aperture)
    places = pq @ layer.vectors
    grid = beams.tilt_grid(radius, num_pixels)
    # Directions of all discs are one list; a pixel may belong to several discs.
    inside = np.linalg.norm(grid[None] - places[:, None, None], axis=-1) <= aperture
    kept = inside.any(axis=(1, 2))
    pq, places, inside = pq[kept], places[kept], inside[kept]
    disc, row, column = np.nonzero(inside)
    if not len(disc):
        raise ValueError("num_pixels: expected pixels inside the aperture, found none; take more")
    offsets = np.round(grid[row, column] - places[disc], 9)
    directions, place = np.unique(offsets, axis=0, return_inverse=True)
    hkl = pq @ layer.hkl
    found = bloch.lacbed(
        crystal,
        zone_axis=zone_axis,
        voltage_kv=voltage_kv,
        tilts=directions + np.asarray(tilt, np.float64),
        reflections=[tuple(int(i) for i in r) for r in hkl],
        **settings,
    )
    pattern = np.zeros((found.intensities.shape[0], num_pixels, num_pixels))
    values = found.intensities[:, disc, place.reshape(-1)]
    for t, value in enumerate(values):
        np.add.at(pattern[t], (row, column), value)
    return Cbed(pattern, grid[0, :, 0], hkl.astype(np.int32), found.convergence_error)


def rocking_curve(
    crystal: Crystal,
    *,
    start: Sequence[float],
    stop: Sequence[float],
    num_points: int = 101,
    zone_axis: bloch.Reflection = (0, 0, 1),
    reflections: Sequence[bloch.Reflection] = ((0, 0, 0),),
    voltage_kv: float = 200.0,
    **settings,
) -> RockingCurve:
    """Intensities along a line of tilts.

    Args:
      crystal: arrays on the host.
      start: (kx, ky) of the first point, 1/angstrom in the beam frame.
      stop: (kx, ky) of the last point.
      num_points: points, both ends included.
      zone_axis: direction [uvw] of the direct lattice.
      reflections: Miller indices.
      voltage_kv: accelerating voltage, 30 to 1000 kV.
      settings: further arguments of ``bloch.lacbed``.

    Returns:
      ``RockingCurve``.

    Raises:
      ValueError: as ``bloch.lacbed``.
    """
    if num_points < 1:
        raise ValueError(f"num_points: expected an integer of at least 1, got {num_points!r}")
    tilts = np.linspace(np.asarray(start, np.float64), np.asarray(stop, np.float64), num_points)
    if tilts.shape[1:] != (2,):
        raise ValueError(f"start: expected two numbers, as stop, got {start!r} and {stop!r}")
    found = bloch.lacbed(
        crystal, zone_axis=zone_axis, reflections=reflections, voltage_kv=voltage_kv, tilts=tilts, **settings
    )
    conventions = settings.get("conventions", DEFAULT)
    with jax.enable_x64(True):
        cell = np.asarray(crystal.cell, np.float64)
        basis = np.asarray(geometry.reciprocal_vectors(cell))
        frame = np.asarray(geometry.beam_frame(cell, zone_axis, azimuth_deg=conventions.azimuth_deg))
    g = np.asarray(reflections, np.float64) @ basis @ frame.T
    s, _ = excitation.excitation(
        g, tilts, 1.0 / scattering.wavelength(float(voltage_kv)), np.array([0.0, 0.0, 1.0]), DEFAULT
    )
    return RockingCurve(found.intensities, tilts, s.T, found.convergence_error)
