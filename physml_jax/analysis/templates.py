"""Templates of zone-axis diffraction patterns: what ``template_matching`` compares an image with, made on the host.

For every zone axis of every phase the kinematic pattern is simulated at a grid of small tilts. The first stage of a
match uses the mean over the tilts, as Fourier series in the angle for every radius; the second the tilts themselves, as
lists of spots. Intensities are taken to a small power, or the few strongest spots would decide alone.
"""

import math
from collections.abc import Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from physml_jax.analysis.polar_transform import log_radii
from physml_jax.core.precision import matmul
from physml_jax.simulators.diffraction import kinematic, orientations, reflections
from physml_jax.simulators.diffraction.crystal import Crystal
from physml_jax.typing import Array


class Library(NamedTuple):
    """T templates, NumPy arrays: R radii, F angular frequencies from 1 on, N tilts, K spots.

    Attributes:
      spectra: float32 [F, 2 R, 2 T], the real form of the conjugate series, so that one product of real matrices takes
        real and imaginary parts of an image's series to those of its correlation.
      norms: float32 [R, T], power on each circle; the sum over R is 1.
      radii: float64 [R], 1/angstrom, with equal ratios; they decide shapes and must stay on the host.
      phase: int32 [T], number of the crystal; also on the host.
      uvw: int32 [T, 3], zone axis.
      frames: float32 [T, 3, 3], orientation of the zone axis, see ``orientations``.
      tilts: float32 [N, 2], radian, as ``orientations.tilt`` takes them.
      positions: float32 [T, K, 2], of the spots that any tilt shows, 1/angstrom.
      weights: float32 [T, N, K], intensity at every tilt to the power of the library; 0 where not excited.
    """

    spectra: Array
    norms: Array
    radii: Array
    phase: Array
    uvw: Array
    frames: Array
    tilts: Array
    positions: Array
    weights: Array


def zone_templates(
    crystals: Sequence[Crystal],
    *,
    deformations: Array | None = None,
    voltage_kv: float = 200.0,
    min_g: float = 0.08,
    max_g: float = 1.2,
    max_zone_index: int = 2,
    directed: bool = False,
    max_tilt_deg: float = 3.0,
    tilt_rings: int = 5,
    max_excitation_error: float = 0.02,
    thickness: float = 300.0,
    exponent: float = 0.25,
    num_radii: int = 256,
    num_angles: int = 120,
    spot_width: float = 0.025,
    num_spots: int = 256,
) -> Library:
    """Templates of the low-index zone axes of some crystals, on the host.

    Args:
      crystals: the phases in question.
      deformations: float [P, 3, 3], the lattice of each to use, see ``kinematic.spots``; ``None``: as it is.
      voltage_kv: accelerating voltage.
      min_g: first radius, 1/angstrom, outside the direct beam.
      max_g: last radius, 1/angstrom.
      max_zone_index: largest index of a zone axis.
      directed: templates for opposite directions where these show mirror images, see ``orientations.zone_axes``.
      max_tilt_deg: largest tilt off a zone axis.
      tilt_rings: rings of the hexagonal grid of tilts: 1 + 3 n (n + 1) of them.
      max_excitation_error: see ``kinematic.spots``.
      thickness: the same.
      exponent: power of the intensities.
      num_radii: R; R - 1 equal ratios from ``min_g`` to ``max_g`` are the steps of the scale.
      num_angles: steps of the rotation; F is half of it less one.
      spot_width: standard deviation of a spot in the transformed image, 1/angstrom.
      num_spots: K, the strongest.

    Returns:
      ``Library``.

    Raises:
      ValueError: if there is no crystal or a setting makes no sense.
    """
    if not crystals:
        raise ValueError("crystals: expected at least one, got none")
    if not 0 < exponent <= 1:
        raise ValueError(f"exponent: expected a number above 0 and up to 1, got {exponent}")
    if not (max_tilt_deg >= 0 and tilt_rings >= 0):
        raise ValueError(f"max_tilt_deg, tilt_rings: expected at least 0, got {max_tilt_deg} and {tilt_rings}")
    if num_angles < 4 or num_angles % 2:
        raise ValueError(f"num_angles: expected an even number of at least 4, got {num_angles}")
    radii = log_radii(num_radii, min_g, max_g)
    if deformations is None:
        deformations = np.broadcast_to(np.eye(3), (len(crystals), 3, 3))
    deformations = np.asarray(deformations, np.float32)
    if deformations.shape != (len(crystals), 3, 3):
        raise ValueError(f"deformations: expected [{len(crystals)}, 3, 3], got {list(deformations.shape)}")
    plan = reflections.stack(
        [reflections.reflections(c, max_g=max_g, voltage_kv=voltage_kv, min_factor=0.01) for c in crystals]
    )
    tilts = (_hexagon(tilt_rings) * math.radians(max_tilt_deg)).astype(np.float32)
    turns = np.asarray(orientations.tilt(jnp.asarray(tilts)))

    @jax.jit
    def patterns(frame, phase, deformation):
        found = kinematic.all_reflections(
            plan,
            matmul(jnp.asarray(turns), frame),
            max_excitation_error=max_excitation_error,
            thickness=thickness,
            deformation=jnp.broadcast_to(deformation, (len(tilts), 3, 3)),
            phase=jnp.broadcast_to(phase, (len(tilts),)),
        )
        length = jnp.sqrt((found.positions**2).sum(-1))
        seen = found.mask & (length >= min_g) & (length <= max_g)
        weights = jnp.where(seen, jnp.where(seen, found.intensities, 1.0) ** exponent, 0.0)
        # A tilt moves spots of the zero layer by less than a thousandth.
        places = found.positions.sum(0) / jnp.maximum(found.mask.sum(0), 1)[:, None]
        _, strongest = jax.lax.top_k(weights.max(0), min(num_spots, weights.shape[1]))
        return places[strongest], weights[:, strongest]

    rows = []
    for number, crystal in enumerate(crystals):
        zones = orientations.zone_axes(crystal, max_index=max_zone_index, directed=directed)
        for axis, frame in zip(zones.uvw, zones.orientations, strict=True):
            places, weights = (np.asarray(x) for x in patterns(frame.astype(np.float32), number, deformations[number]))
            if weights.any():
                series = _series(places, weights.mean(0), radii, num_angles // 2 - 1, spot_width)
                rows.append((series, number, axis, frame, places, weights))
    if not rows:
        raise ValueError("min_g, max_g: expected a range with spots in it, no zone axis shows any")
    series, phase, uvw, frames, places, weights = (np.stack(x) for x in zip(*rows, strict=True))
    power = np.abs(series) ** 2
    size = power.sum((1, 2))
    series = np.moveaxis(series / np.sqrt(size)[:, None, None], 0, -1)
    real, imaginary = series.real, series.imag
    block = np.concatenate([np.concatenate([real, -imaginary], -1), np.concatenate([imaginary, real], -1)], 1)
    return Library(
        spectra=block.astype(np.float32),
        norms=(power.sum(1) / size[:, None]).T.astype(np.float32),
        radii=radii,
        phase=phase.astype(np.int32),
        uvw=uvw.astype(np.int32),
        frames=frames.astype(np.float32),
        tilts=tilts,
        positions=places.astype(np.float32),
        weights=weights.astype(np.float32),
    )


def _hexagon(rings: int) -> np.ndarray:
    """Points of a triangular lattice in a hexagon of radius 1, the middle included."""
    n = np.arange(-rings, rings + 1)
    i, j = (a.reshape(-1) for a in np.meshgrid(n, n, indexing="ij"))
    keep = np.abs(i + j) <= rings
    return np.stack([i + 0.5 * j, math.sqrt(0.75) * j], axis=-1)[keep] / max(rings, 1)


def _series(places, weights, radii, num_frequencies, width):
    """Fourier coefficients [F, R] of round Gaussian spots; without frequency 0, which is the mean of a circle.

    The circle's amplitude counts with its radius, so that equal spots weigh the same at any radius.
    """
    places, weights = places[weights > 0], weights[weights > 0]
    length, angle = np.hypot(*places.T), np.arctan2(places[:, 1], places[:, 0])
    relative = width / length
    radial = np.exp(-0.5 * (np.log(radii[:, None] / length) / relative) ** 2) * radii[:, None]
    f = np.arange(1, num_frequencies + 1)[:, None]
    angular = np.exp(-0.5 * (f * relative) ** 2 - 1j * f * angle) * (weights * relative)
    return np.einsum("rk,fk->fr", radial, angular)
