"""From spots to the image that a microscopist would save: all effects in their order, and four levels of difficulty.

Order: what is diffracted and what is not (shares of the beam's electrons), double diffraction, second grain, streaks;
the image with direct beam and background (``render``); bands on the background, rings; beam stop; tails of the camera's
point spread; electrons, gain and read-out; full well; display. The levels, each with all of the one before:

* ``clean``: spots and direct beam.
* ``detector``: spot size, background, dose, read noise, spread of the gain, tails, saturation, sometimes a beam stop.
* ``distorted``: ellipticity to 3 %, centre off by up to 10 % of the image, a scale error of 2 %, sometimes streaks,
  double diffraction, a second grain, oxide rings, bands.
* ``dynamical``: the same with intensities that the structure factors do not order: two-beam intensities in a wedge,
  times a log-normal factor for what other beams do, or those of the caller.
"""

from collections.abc import Mapping
from types import MappingProxyType
from typing import NamedTuple

import jax
import jax.numpy as jnp

from physml_jax.core.batching import chunked
from physml_jax.simulators.diffraction import detector, noise, specimen
from physml_jax.simulators.diffraction.kinematic import Spots
from physml_jax.simulators.diffraction.rendering import render
from physml_jax.typing import Array, Key

#: The strongest reflections of the crystal, which streaks are drawn for.
NUM_STREAKED = 24


class Range(NamedTuple):
    """Values from ``low`` to ``high``, uniform, in a share of the images; 0 in the others."""

    low: float
    high: float
    share: float = 1.0


class Conditions(NamedTuple):
    """How one image is taken; every field is float32 [B].

    Attributes:
      scale_error: true scale over believed scale, minus 1.
      ellipticity: see ``detector.distortion``.
      ellipse_axis: radian.
      offset_x: of the direct beam from the middle, image sides.
      offset_y: the same, downwards.
      sigma: of a spot, in thousandths of the image side.
      diffracted: share of the elastic electrons that leave the direct beam.
      background: share of all electrons in the radial background.
      dose: log10 of the electrons in the image; infinite: no noise.
      gain_spread: see ``noise.record``.
      read_noise: electrons.
      tail: see ``detector.point_spread``.
      saturation: strength of ``detector.saturate``.
      stop: strength of ``detector.beam_stop``.
      stop_angle: radian.
      second_grain: strength.
      double: strength of ``specimen.double_diffraction``.
      streak: strength of ``specimen.streak``, in spot widths.
      streak_angle: radian.
      rings: electrons in the rings, as a share of the diffracted ones.
      bands: strength.
      thickness: angstrom, for dynamical intensities; 0: kinematic ones.
      third_beams: standard deviation of the logarithm of intensities.
    """

    scale_error: Array
    ellipticity: Array
    ellipse_axis: Array
    offset_x: Array
    offset_y: Array
    sigma: Array
    diffracted: Array
    background: Array
    dose: Array
    gain_spread: Array
    read_noise: Array
    tail: Array
    saturation: Array
    stop: Array
    stop_angle: Array
    second_grain: Array
    double: Array
    streak: Array
    streak_angle: Array
    rings: Array
    bands: Array
    thickness: Array
    third_beams: Array


_CLEAN = {"sigma": Range(8.0, 8.0), "diffracted": Range(0.5, 0.5), "dose": Range(float("inf"), float("inf"))}
_DETECTOR = {
    "sigma": Range(6.0, 12.0),
    "diffracted": Range(0.3, 0.8),
    "background": Range(0.1, 0.5),
    "dose": Range(4.5, 6.5),
    "gain_spread": Range(0.2, 0.6),
    "read_noise": Range(0.05, 0.5),
    "tail": Range(0.02, 0.15),
    "saturation": Range(0.3, 0.97),
    "stop": Range(0.995, 1.0, 0.3),
    "stop_angle": Range(-3.1416, 3.1416),
}
_DISTORTED = _DETECTOR | {
    "scale_error": Range(-0.02, 0.02),
    "ellipticity": Range(0.0, 0.03),
    "ellipse_axis": Range(-1.5708, 1.5708),
    "offset_x": Range(-0.1, 0.1),
    "offset_y": Range(-0.1, 0.1),
    "second_grain": Range(0.02, 0.2, 0.2),
    "double": Range(0.2, 1.0, 0.5),
    "streak": Range(0.5, 1.5, 0.2),
    "streak_angle": Range(-1.5708, 1.5708),
    "rings": Range(0.05, 0.4, 0.3),
    "bands": Range(0.4, 2.0, 0.5),
}
_DYNAMICAL = _DISTORTED | {"thickness": Range(200.0, 1200.0), "third_beams": Range(0.3, 0.7)}

#: The ranges of every level by field of ``Conditions``; a field that is not named is 0.
LEVELS: Mapping[str, Mapping[str, Range]] = MappingProxyType(
    {"clean": _CLEAN, "detector": _DETECTOR, "distorted": _DISTORTED, "dynamical": _DYNAMICAL}
)


def ranges(level: str, **changes: Range) -> dict[str, Range]:
    """The ranges of a level, some of them replaced, for :func:`draw` and :func:`expose`.

    Raises:
      ValueError: if there is no such level or field.
    """
    if level not in LEVELS:
        raise ValueError(f"level: there is no {level!r}; available: {', '.join(LEVELS)}")
    unknown = sorted(set(changes) - set(Conditions._fields))
    if unknown:
        raise ValueError(f"ranges: there is no {', '.join(unknown)}; available: {', '.join(Conditions._fields)}")
    return dict(LEVELS[level]) | changes


def draw(keys: Key, chosen: Mapping[str, Range]) -> Conditions:
    """Conditions of images, independent of each other: typed keys [B] -> fields [B].

    Args:
      keys: an image's conditions depend on its key only.
      chosen: ranges by field; missing ones give 0.
    """
    numbers = noise.uniform(keys, (2, len(Conditions._fields)))

    def value(i, name):
        low, high, share = chosen.get(name, Range(0.0, 0.0))
        # Not low + u (high - low) for fixed values: an infinite one would turn into NaN.
        values = jnp.full(len(keys), low) if low == high else low + (high - low) * numbers[:, 0, i]
        return values.astype(jnp.float32) if share >= 1 else jnp.where(numbers[:, 1, i] < share, values, 0.0)

    return Conditions(*(value(i, name) for i, name in enumerate(Conditions._fields)))


def expose(
    keys: Key,
    spots: Spots,
    conditions: Conditions,
    chosen: Mapping[str, Range],
    *,
    pixels: int,
    scale: Array,
    wave_number: Array | float,
    max_excitation_error: Array | float,
    coupling: Array | float = 0.0,
    second: Spots | None = None,
    ring_radii: Array | None = None,
    ring_weights: Array | None = None,
    dynamical: Array | None = None,
    exponent: float = 0.5,
    chunk_size: int | None = 32,
) -> tuple[Array, Array]:
    """Images of patterns under given conditions; traced, call it under ``jax.jit``.

    Args:
      keys: typed keys [B]; an image depends on its key, spots and conditions only.
      spots: [B, K], kinematic.
      conditions: [B].
      chosen: the ranges that the conditions were drawn from; an effect that they leave out is no part of the program.
      pixels: side P.
      scale: [B], 1/angstrom per pixel as it is believed to be.
      wave_number: [] or [B], 1/angstrom.
      max_excitation_error: [] or [B], 1/angstrom.
      coupling: [] or [B], of the plan, for two-beam intensities.
      second: spots [B, M] of the second grain; ``None``: no second grain.
      ring_radii: [R] or [B, R], 1/angstrom; ``None``: no rings.
      ring_weights: [R] or [B, R], shares of the rings.
      dynamical: [B, K] intensities to use instead of the two-beam ones where ``chosen`` has a thickness.
      exponent: of the display.
      chunk_size: images at a time.

    Returns:
      Images float32 [B, P, P] from 0 to 1, and the true scales [B], 1/angstrom per pixel.
    """
    batch = len(keys)
    wave_number, max_excitation_error, coupling = (
        jnp.broadcast_to(jnp.asarray(x, jnp.float32), (batch,)) for x in (wave_number, max_excitation_error, coupling)
    )
    if ring_radii is not None:
        ring_radii, ring_weights = (
            jnp.broadcast_to(jnp.asarray(x, jnp.float32), (batch, jnp.shape(x)[-1])) for x in (ring_radii, ring_weights)
        )
    has = {name for name, (low, high, share) in chosen.items() if (low or high) and share > 0}

    def fn(keys, spots, conditions, scale, wave_number, s_max, coupling, second, ring_radii, ring_weights, dynamical):
        true_scale = scale * (1.0 + conditions.scale_error)
        halves = jax.vmap(jax.random.split)(keys)
        if "thickness" in has:
            spots = _with_dynamical(halves[:, 0], spots, conditions, coupling, dynamical)
        elastic = 1.0 - conditions.background
        lit = conditions.diffracted * elastic
        crystal = spots = _sharing(spots, 1.0)
        if "double" in has:
            doubled = {"wave_number": wave_number, "max_excitation_error": s_max}
            spots = specimen.double_diffraction(spots, strength=conditions.double, **doubled)
        if "second_grain" in has and second is not None:
            spots = specimen.second_grain(spots, _sharing(second, 1.0), strength=conditions.second_grain)
        sigma = conditions.sigma * (pixels / 1000)
        if "streak" in has:
            length = conditions.streak * sigma * true_scale
            first, rest = _split(spots, NUM_STREAKED)
            spots = specimen.joined(specimen.streak(first, strength=length, angle=conditions.streak_angle, num=3), rest)
        drawn = _sharing(spots, lit)
        lens = None
        if "ellipticity" in has:
            lens = detector.distortion(ellipticity=conditions.ellipticity, axis=conditions.ellipse_axis)
        centre = (pixels - 1) / 2 + pixels * jnp.stack([conditions.offset_x, conditions.offset_y], axis=-1)
        view = {"pixels": pixels, "scale": true_scale, "centre": centre, "distortion": lens}
        beam = {"sigma": sigma, "direct_beam": elastic - lit}
        if "bands" in has:
            image = render(_faded(drawn), background=conditions.background, **view, sigma=sigma, chunk_size=None)
            pattern = specimen.bands(crystal, wave_number=wave_number, **view)
            image = image * (1.0 + conditions.bands[:, None, None] * pattern)
            image = image + render(drawn, **view, **beam, background_widths=(), background_shares=(), chunk_size=None)
        else:
            image = render(drawn, background=conditions.background, **view, **beam, chunk_size=None)
        if "rings" in has and ring_radii is not None:
            share = conditions.rings * lit
            image = image + specimen.rings(radii=ring_radii, weights=ring_weights, strength=share, **view)
        if "stop" in has:
            image = detector.beam_stop(image, strength=conditions.stop, tip=centre, angle=conditions.stop_angle)
        if "tail" in has:
            image = detector.point_spread(image, tail=conditions.tail)
        if chosen["dose"].low < float("inf"):
            camera = {"gain_spread": conditions.gain_spread, "read_noise": conditions.read_noise}
            image = noise.record(halves[:, 1], image, dose=10.0**conditions.dose, **camera)
        if "saturation" in has:
            image = detector.saturate(image, strength=conditions.saturation)
        return detector.display(image, exponent=exponent), true_scale

    rows = (keys, spots, conditions, jnp.asarray(scale, jnp.float32), wave_number, max_excitation_error, coupling)
    return chunked(fn, chunk_size=chunk_size)(*rows, second, ring_radii, ring_weights, dynamical)


def _sharing(spots, total):
    """Spots whose intensities sum to ``total``."""
    values = jnp.where(spots.mask, spots.intensities, 0)
    whole = values.sum(-1, keepdims=True)
    total = jnp.asarray(total, values.dtype)
    return spots._replace(intensities=values / jnp.where(whole > 0, whole, 1.0) * total.reshape(-1, 1))


def _split(spots, num):
    """The first ``num`` places and the others."""
    lists = spots._replace(count=spots.mask)  # the count has no axis of places
    parts = (jax.tree.map(lambda x: x[:, :num], lists), jax.tree.map(lambda x: x[:, num:], lists))
    return tuple(part._replace(count=spots.count) for part in parts)


def _faded(spots):
    """One spot without intensity per pattern: ``render`` then draws the background alone."""
    first, _ = _split(spots, 1)
    return first._replace(intensities=jnp.zeros_like(first.intensities))


def _with_dynamical(keys, spots, conditions, coupling, dynamical):
    if dynamical is None:
        dynamical = specimen.two_beam(spots, coupling=coupling, thickness=conditions.thickness)
    size = spots.intensities.shape[-1:]
    factor = jnp.exp(conditions.third_beams[:, None] * noise.normal(keys, size))
    thick = conditions.thickness[:, None] > 0
    return spots._replace(intensities=jnp.where(thick, dynamical * factor, spots.intensities))
