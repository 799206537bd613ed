"""Diffraction patterns of one crystal as a user asks for them: LACBED images, convergent-beam discs, rocking curves, to
a tolerance, with or without counting noise.
"""

import dataclasses
from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import numpy as np
import scipy.ndimage

from physml_jax.analysis import structure_parameters as structure
from physml_jax.core.rng import stream_key
from physml_jax.simulators.diffraction import beams, bloch, convergent, scattering
from physml_jax.simulators.diffraction.crystal import Crystal
from physml_jax.simulators.diffraction.excitation import DEFAULT, Conventions

Reflection = tuple[int, int, int]
#: Calculations of one pattern, each with more beams than the one before.
ATTEMPTS = 3


class Simulated(NamedTuple):
    """Patterns and where they lie; T thicknesses, R reflections.

    Attributes:
      images: float32 [T, R, N, N], or [T, R, n] along a line: fractions of the incident intensity.
      tilts: [N, N, 2] or [n, 2], 1/angstrom.
      reflections: R Miller indices.
      vectors: [R, 2], the reflections in the beam frame, 1/angstrom.
      half_width: of the tilts, 1/angstrom.
      wave_number: 1 / lambda in vacuum, 1/angstrom; a tilt k is the angle k / wave_number.
      convergence_error: estimated largest error of an intensity.
      num_beams: beams that were propagated for one tilt at most.
      settings: of ``bloch.plan`` that lead to the same beams.
    """

    images: np.ndarray
    tilts: np.ndarray
    reflections: tuple[Reflection, ...]
    vectors: np.ndarray
    half_width: float
    wave_number: float
    convergence_error: float
    num_beams: int
    settings: dict[str, Any]


class Request(NamedTuple):
    """What a user asks for; the fields without a word here are those of ``simulate``.

    Attributes:
      kind: ``"lacbed"``, images over tilt; ``"cbed"``, discs; ``"rocking"``, curves along a line.
      reflections: ``None``: all up to ``radius``, or if that is ``None`` too: of "lacbed" the bright field, of
        "rocking" the bright field and the direction, of "cbed" those up to four times the shortest.
      direction: h, k, l of the line of "rocking"; ``None``: the first reflection that is not (0, 0, 0).
      half_angle_mrad: largest tilt; ``None``: three times the shortest g, of "cbed" 0.45 times, so that discs do not
        overlap.
      absorption_model: see ``excitation.Conventions``, as ``azimuth_deg``.
      dose: electrons per pixel at intensity 1; ``None``: intensities without noise.
      background: electrons per pixel.
      seed: of the noise.
    """

    kind: str = "lacbed"
    thicknesses: tuple[float, ...] = (450.0,)
    zone_axis: Reflection = (0, 0, 1)
    reflections: Sequence[Reflection] | None = None
    radius: float | None = None
    direction: Reflection | None = None
    voltage_kv: float = 200.0
    half_angle_mrad: float | None = None
    num_pixels: int = 128
    azimuth_deg: float = 0.0
    absorption: float = 0.0
    absorption_model: str = "proportional"
    tolerance: float = 0.01
    num_strong: int = bloch.NUM_STRONG
    form_factors: str = "kirkland"
    dose: float | None = None
    background: float = 0.0
    seed: int = 0


def answer(crystal: Crystal, request: Request) -> tuple[Simulated, np.ndarray]:
    """Calculates what is asked for.

    Args:
      crystal: arrays on the host.
      request: see there.

    Returns:
      The patterns, and the images: intensities or numbers of electrons.

    Raises:
      ValueError: as ``simulate``; the message names the setting.
    """
    kind, angle = request.kind, request.half_angle_mrad
    if angle is not None and not 0 < angle < 500:
        raise ValueError(f"half_angle_mrad: expected a number from 0 to 500, got {angle!r}")
    if request.dose is not None and kind != "lacbed":
        raise ValueError("dose: expected none; only the images of lacbed count electrons")
    conventions = Conventions(azimuth_deg=request.azimuth_deg, absorption_model=request.absorption_model)
    shortest = beams.zero_layer(crystal, request.zone_axis).shortest
    half_width = None if kind != "cbed" else 0.45 * shortest
    if angle is not None:
        half_width = np.sin(1e-3 * angle) / scattering.wavelength(float(request.voltage_kv))
    reflections, radius, line = request.reflections, request.radius, None
    if reflections is None and radius is None:
        reflections, radius = (None, 4.0 * shortest) if kind == "cbed" else (((0, 0, 0),), None)
    if kind == "rocking":
        direction = request.direction or next((r for r in reflections or () if any(r)), None)
        if direction is None:
            raise ValueError("direction: expected h,k,l of the line (or a reflection that is not 0,0,0), got none")
        line = line_angle(crystal, direction, zone_axis=request.zone_axis, azimuth_deg=request.azimuth_deg)
    found = simulate(
        crystal,
        reflections=reflections,
        radius=radius,
        half_width=half_width,
        line_deg=line,
        conventions=conventions,
        **{
            k: getattr(request, k)
            for k in (
                "thicknesses",
                "zone_axis",
                "voltage_kv",
                "num_pixels",
                "absorption",
                "tolerance",
                "num_strong",
                "form_factors",
            )
        },
    )
    if request.dose is None:
        return found, found.images
    return found, count_electrons(found.images, request.dose, seed=request.seed, background=request.background)


def contents(
    crystal: Crystal, request: Request, found: Simulated, images: np.ndarray
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Arrays and settings of a file of patterns, see ``io.patterns``; the truth of every parameter is among them."""
    arrays = {
        "images": images,
        "thicknesses": np.array(request.thicknesses),
        "reflections": np.array(found.reflections, np.int32),
        "vectors": found.vectors,
        "tilts": found.tilts,
        "half_width": np.array(found.half_width),
        "zone_axis": np.array(request.zone_axis, np.int32),
        "voltage_kv": np.array(float(request.voltage_kv)),
        "dose": np.array(request.dose or 0.0),
    }
    plate = structure.Specimen(crystal, request.thicknesses, request.absorption)
    names = ["thickness", "absorption", "b_iso", "occupancy", *structure.free_coordinates(crystal)]
    about = {
        "kind": request.kind,
        "settings": found.settings,
        "absorption": request.absorption,
        "convergence_error": found.convergence_error,
        "num_beams": found.num_beams,
        "background": request.background,
        "seed": request.seed,
        "truth": {p.name: p.start for p in structure.parameters(plate, names)},
    }
    return arrays, about


def simulate(
    crystal: Crystal,
    *,
    reflections: Sequence[Reflection] | None = ((0, 0, 0),),
    radius: float | None = None,
    thicknesses: Sequence[float] = (450.0,),
    zone_axis: Reflection = (0, 0, 1),
    voltage_kv: float = 200.0,
    half_width: float | None = None,
    num_pixels: int = 128,
    line_deg: float | None = None,
    absorption: float = 0.0,
    tolerance: float = 0.01,
    max_g: float = bloch.MAX_G,
    num_strong: int = bloch.NUM_STRONG,
    form_factors: str = "kirkland",
    conventions: Conventions = DEFAULT,
) -> Simulated:
    """Diffracted intensities over a square of tilts, or along a line of them.

    Args:
      crystal: arrays on the host.
      reflections: Miller indices; ``None``: all of the zero layer up to ``radius``.
      radius: 1/angstrom, for ``reflections=None``.
      thicknesses: angstrom.
      zone_axis: see ``bloch.lacbed``, as the settings without a word here.
      voltage_kv: kV.
      half_width: of the tilts, 1/angstrom; ``None``: three times the shortest reciprocal vector.
      num_pixels: along each side, or along the line.
      line_deg: rocking curves along this direction, degrees from x of the beam frame towards y; ``None``: images.
      absorption: see ``bloch.lacbed``.
      tolerance: a pattern whose convergence error is larger is calculated again with more beams, twice at most.
      max_g: 1/angstrom, of the first attempt.
      num_strong: of the first attempt.
      form_factors: table.
      conventions: see ``excitation.Conventions``.

    Raises:
      ValueError: as ``bloch.lacbed``; or if no reflections are chosen or ``tolerance`` is not positive.
    """
    if not tolerance > 0:
        raise ValueError(f"tolerance: expected a positive number, got {tolerance!r}")
    if len(thicknesses) == 0 or not all(np.isfinite(t) and t > 0 for t in thicknesses):
        raise ValueError(f"thicknesses: expected positive numbers, got {tuple(thicknesses)}")
    layer = beams.zero_layer(crystal, zone_axis, azimuth_deg=conventions.azimuth_deg)
    if reflections is None:
        if radius is None or not 0 < radius <= max_g:
            raise ValueError(f"radius: expected a number from 0 to max_g = {max_g:g} 1/angstrom, got {radius!r}")
        reflections = convergent.reflections_within(crystal, zone_axis=zone_axis, max_g=radius)
    reflections = tuple(tuple(int(i) for i in r) for r in reflections)
    half_width = 3.0 * layer.shortest if half_width is None else float(half_width)
    tilts = None
    if line_deg is not None:
        direction = np.array([np.cos(np.deg2rad(line_deg)), np.sin(np.deg2rad(line_deg))])
        tilts = np.linspace(-half_width, half_width, num_pixels)[:, None] * direction
    for attempt in range(ATTEMPTS):
        settings = {"max_g": max_g, "num_strong": num_strong, "form_factors": form_factors}
        found = bloch.lacbed(
            crystal,
            zone_axis=zone_axis,
            voltage_kv=voltage_kv,
            half_width=half_width,
            num_pixels=num_pixels,
            thicknesses=thicknesses,
            reflections=reflections,
            absorption=absorption,
            conventions=conventions,
            tilts=tilts,
            **settings,
        )
        if found.convergence_error <= tolerance or attempt == ATTEMPTS - 1:
            break
        max_g, num_strong = 1.15 * max_g, num_strong + 128
    vectors = np.array([beams.beam_of(layer, r) @ layer.vectors for r in reflections])
    return Simulated(
        found.intensities.astype(np.float32),
        found.tilts,
        reflections,
        vectors,
        half_width,
        1.0 / scattering.wavelength(float(voltage_kv)),
        found.convergence_error,
        found.num_beams,
        {**settings, **{k: v for k, v in dataclasses.asdict(conventions).items() if v is not None}},
    )


def line_angle(crystal: Crystal, direction: Reflection, *, zone_axis: Reflection, azimuth_deg: float = 0.0) -> float:
    """Direction of a reflection of the zero layer in the beam frame, degrees from x towards y.

    Raises:
      ValueError: if it is not in the zero layer, or is (0, 0, 0).
    """
    layer = beams.zero_layer(crystal, zone_axis, azimuth_deg=azimuth_deg)
    rows, *_ = np.linalg.lstsq(layer.hkl.T.astype(float), np.asarray(direction, float), rcond=None)
    if not np.any(direction) or np.abs(rows @ layer.hkl - direction).max() > 1e-6:
        raise ValueError(f"direction: expected a reflection h,k,l across the zone axis, got {tuple(direction)}")
    x, y = rows @ layer.vectors
    return float(np.rad2deg(np.arctan2(y, x)))


def disc_pattern(images: np.ndarray, vectors: np.ndarray, half_width: float, *, num_pixels: int = 512) -> np.ndarray:
    """A convergent-beam pattern on the detector: one disc per reflection, where discs overlap their intensities add.

    The beam from tilt k through reflection g leaves in the direction k + g. Adding intensities is right for an
    incoherent source; interference in overlaps is not described.

    Args:
      images: [T, R, N, N] over a square of tilts.
      vectors: [R, 2], 1/angstrom.
      half_width: of the tilts, the radius of a disc, 1/angstrom.
      num_pixels: M of the picture.

    Returns:
      float32 [T, M, M]; the picture reaches one disc beyond the longest vector, first axis y upwards.
    """
    n = images.shape[-1]
    edge = float(np.abs(vectors).max()) + 1.1 * half_width
    axis = (np.arange(num_pixels) + 0.5) / num_pixels * 2 * edge - edge
    out = np.zeros((len(images), num_pixels, num_pixels), np.float32)
    for r, (gx, gy) in enumerate(vectors):
        columns, rows = np.flatnonzero(np.abs(axis - gx) <= half_width), np.flatnonzero(np.abs(axis - gy) <= half_width)
        ky, kx = np.meshgrid(axis[rows] - gy, axis[columns] - gx, indexing="ij")
        inside = kx**2 + ky**2 <= half_width**2
        places = np.stack([ky, kx]) / half_width * (n / 2) + (n - 1) / 2
        for t, image in enumerate(images[:, r]):
            value = scipy.ndimage.map_coordinates(image, places, order=1, mode="nearest")
            out[t][np.ix_(rows, columns)] += np.where(inside, value, 0.0)
    return out


def count_electrons(images: np.ndarray, dose: float, *, seed: int = 0, background: float = 0.0) -> np.ndarray:
    """Poisson numbers of electrons, float32.

    Args:
      images: fractions of the incident intensity.
      dose: electrons per pixel at intensity 1.
      seed: of the noise.
      background: mean electrons per pixel beside the pattern.

    Raises:
      ValueError: if the dose is not positive, or the background negative.
    """
    if not (np.isfinite(dose) and dose > 0):
        raise ValueError(f"dose: expected a positive number, got {dose!r}")
    if not (np.isfinite(background) and background >= 0):
        raise ValueError(f"background: expected a number of at least 0, got {background!r}")
    mean = np.maximum(np.asarray(images, np.float32), 0) * np.float32(dose) + np.float32(background)
    return np.asarray(jax.random.poisson(stream_key(seed, "electrons"), mean), np.float32)
