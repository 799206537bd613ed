"""Simulated diffraction patterns of the nine phases of the published Pu-Zr set, with every effect of a real camera.

The published images are private. Here are a twin of their table (the same number of training and test images of each
class) and an unlimited stream. Patterns are kinematic, or at the level ``dynamical`` two-beam dynamical.

What would give a class away without being physics is taken out. The three phases on the hexagonal lattice of zirconium
(alpha-Zr and two arrangements of oxygen in it) draw the two lengths of that lattice from one distribution; the cells of
all others vary a little. All classes draw scale, tilt and conditions alike. Where a zone of two of the three shows no
oxygen spot they remain the same picture, as they are under the microscope.
"""

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from physml_jax.core.precision import matmul
from physml_jax.core.rng import stream_key
from physml_jax.data.saed_phases import Phase, load_phases
from physml_jax.simulators.diffraction import (
    exposure,
    kinematic,
    noise,
    orientations,
    peaks,
    reflections,
    regrid,
    specimen,
)
from physml_jax.typing import Array, Batch, Dataset, Key

#: Classes on the lattice of alpha-Zr: cells of it along a (times sqrt 3, except in the first) and c.
SUBCELLS = {0: (1.0, 1), 6: (3**0.5, 6), 7: (3**0.5, 3)}
#: The lengths of that lattice, from pure to oxygen-saturated with the scatter of measurements, angstrom.
SUBCELL_A, SUBCELL_C = (3.21, 3.25), (5.13, 5.20)
#: Relative variation of the other cells.
CELL_SPREAD = 0.003
#: Phases whose fine powder may lie on the specimen (PuO2 and ZrO2), and rings of each.
OXIDES, NUM_RINGS = (5, 8), 4
#: What lies nearer to the direct beam is no spot, 1/angstrom.
MIN_G = 0.06
SETS, CLASSES, ORIENTATIONS = ("twin", "stream"), ("published", "balanced"), ("zones", "uniform")


def make_dataset(
    *,
    split: str = "train",
    pixels: int = 128,
    examples: str = "twin",
    classes: str = "published",
    num_examples: int | None = None,
    num_rotations: int = 1,
    level: str = "detector",
    scale_error: float | None = None,
    orientation: str = "zones",
    max_zone_index: int = 2,
    max_tilt_deg: float = 3.0,
    extent: tuple[float, float] = (0.8, 1.2),
    voltage_kv: float = 200.0,
    max_excitation_error: float = 0.02,
    thickness: float = 300.0,
    max_g: float = 1.2,
    num_spots: int = 96,
    exponent: float = 0.5,
    grid: float | None = None,
    num_peaks: int = 0,
    max_offset: float = 0.0,
    simulation_seed: int = 0,
) -> Dataset:
    """Patterns with their phase, scale, zone axis and orientation.

    ``examples="twin"``: the published numbers of each class, 590 images in ``"train"`` and 148 in any other split,
    class after class. They are a function of ``simulation_seed``, the split's name and the number of the image, so that
    every training sees the same images, as with the published ones; the experiment's seed only orders them.
    ``examples="stream"``: fresh images from the experiment's seed, as many as wanted. With ``classes="balanced"`` the
    class of example i is i mod 9, else it is drawn with the frequencies of the published training set.

    Args:
      split: name of the split; splits of other names hold other images.
      pixels: side P.
      examples: ``"twin"`` or ``"stream"``.
      classes: of the stream: ``"published"`` or ``"balanced"``.
      num_examples: of the stream; ``None`` is unlimited.
      num_rotations: examples made of each image of the twin, turned by equal steps (24: by 15 degrees); those of one
        image follow each other. The image is drawn anew in its turned position, and not interpolated.
      level: of ``exposure.LEVELS``: ``"clean"``, ``"detector"``, ``"distorted"`` or ``"dynamical"``.
      scale_error: largest relative error of the scale, instead of the level's.
      orientation: ``"zones"``: near a zone axis, families with equal probability; ``"uniform"``: anywhere.
      max_zone_index: largest index of a zone axis.
      max_tilt_deg: largest tilt off the zone axis.
      extent: range of half the image's side in 1/angstrom, from which the scale follows.
      voltage_kv: accelerating voltage.
      max_excitation_error: s_max, 1/angstrom.
      thickness: of the kinematic shape factor, angstrom.
      max_g: reflections beyond are not drawn, 1/angstrom.
      num_spots: of a pattern, the largest structure factors first.
      exponent: of the display: grey value against intensity.
      grid: calibration as input: the image is resampled about its centre to this half side in 1/angstrom, as the
        believed scale says; scales then tell of the new image. ``None``: the image as recorded.
      num_peaks: places for the spots that are found in the recorded image; 0: no list.
      max_offset: how far from the middle, in image sides, the centre is looked for; 0: the middle is taken for it.
      simulation_seed: decides the twin.

    Returns:
      A dataset of ``image`` float32 [P, P, 1] from 0 to 1, ``phase`` int32 [] from 0 to 8, ``scale`` and
      ``true_scale`` float32 [] in 1/angstrom per pixel as believed and as it is, ``zone`` int32 [3] and
      ``zone_number`` int32 [], its number in the phase's list (zeros where the orientation is uniform),
      ``orientation`` float32 [3, 3], crystal to lab as in ``kinematic``; with ``num_peaks`` also ``spots`` float32
      [num_peaks, 3]: g_x, g_y in 1/angstrom as believed and the height relative to the highest, the highest first,
      zeros where fewer were found.

    Raises:
      ValueError: for a value outside its range or an unknown name.
    """
    _check(examples, classes, num_examples, num_rotations, orientation, extent, pixels, max_tilt_deg, scale_error)
    _check_reading(grid, num_peaks, max_offset, pixels)
    error = {} if scale_error is None else {"scale_error": exposure.Range(-scale_error, scale_error)}
    chosen = exposure.ranges(level, **error)
    world = _world(max_g, voltage_kv, max_zone_index)
    phases, plan = world.phases, world.plan
    counts = np.array([p.num_train if split == "train" else p.num_test for p in phases])
    of_twin = np.repeat(np.arange(len(phases), dtype=np.int32), counts)
    share = np.cumsum([p.num_train for p in phases]) / sum(p.num_train for p in phases)
    excited = {"max_excitation_error": max_excitation_error, "thickness": thickness}

    def crystals(keys: Key, phase: Array, turn: Array, num: int):
        """Spots, zones (numbers and indices) and orientations of one grain per key."""
        parts = _split(keys, 3)
        if orientation == "uniform":
            rotation, zone = orientations.uniform(parts[1]), jnp.zeros((len(keys), 3), jnp.int32)
            number = jnp.zeros(len(keys), jnp.int32)
        else:
            number = (noise.uniform(parts[0], ()) * jnp.asarray(world.num_zones)[phase]).astype(jnp.int32)
            zone = jnp.asarray(world.zones)[phase, number]
            rotation = jnp.asarray(world.frames)[phase, number]
            rotation = orientations.near_zone_axes(parts[1], rotation, max_tilt_deg=max_tilt_deg)
        rotation = matmul(orientations.about_beam(turn), rotation)
        strain = _deformations(noise.uniform(parts[2], (2,)), phase, phases)
        found = kinematic.spots(plan, rotation, num_spots=num, deformation=strain, phase=phase, **excited)
        return found, number, zone, rotation

    def sample(keys: Key, index: Array) -> Batch:
        image = index // num_rotations
        turn = (index % num_rotations).astype(jnp.float32) * (2 * np.pi / num_rotations)
        if examples == "twin":
            base = stream_key(simulation_seed, f"saed/{split}")
            keys = jax.vmap(lambda i: jax.random.fold_in(base, i))(image)
        parts = _split(keys, 5)
        mine = noise.uniform(parts[0], (3,))
        if examples == "twin":
            phase = jnp.asarray(of_twin)[image]
        elif classes == "balanced":
            phase = index % len(phases)
        else:
            phase = (mine[:, :1] > jnp.asarray(share[:-1], jnp.float32)[None, :]).sum(1)
        phase = phase.astype(jnp.int32)
        spots, number, zone, rotation = crystals(parts[1], phase, turn, num_spots)
        second = None
        if "second_grain" in chosen:
            second, *_ = crystals(parts[2], phase, turn, min(32, num_spots))
        oxide = (mine[:, 1] < 0.5).astype(jnp.int32)
        scale = (extent[0] + (extent[1] - extent[0]) * mine[:, 2]) * (2.0 / pixels)
        pictures, true_scale = exposure.expose(
            parts[4],
            spots,
            _turned(exposure.draw(parts[3], chosen), turn),
            chosen,
            pixels=pixels,
            scale=scale,
            wave_number=jnp.asarray(plan.wave_number)[phase],
            max_excitation_error=max_excitation_error,
            coupling=jnp.asarray(plan.coupling)[phase],
            second=second,
            ring_radii=jnp.asarray(world.radii)[oxide],
            ring_weights=jnp.asarray(world.weights)[oxide],
            exponent=exponent,
            chunk_size=max(1, 32 * 128**2 // pixels**2),  # arrays of 2 MB stay in a processor's cache
        )
        found = {"phase": phase, "zone": zone, "zone_number": number, "orientation": rotation}
        return found | _read(pictures, scale, true_scale, grid, num_peaks, max_offset)

    shape = jax.ShapeDtypeStruct
    spec = {
        "image": shape((pixels, pixels, 1), jnp.float32),
        "phase": shape((), jnp.int32),
        "scale": shape((), jnp.float32),
        "true_scale": shape((), jnp.float32),
        "zone": shape((3,), jnp.int32),
        "zone_number": shape((), jnp.int32),
        "orientation": shape((3, 3), jnp.float32),
    }
    if num_peaks:
        spec["spots"] = shape((num_peaks, 3), jnp.float32)
    size = len(of_twin) * num_rotations if examples == "twin" else num_examples
    return Dataset(spec=spec, num_examples=size, sample=sample)


class _World(NamedTuple):
    """What the host prepares: phases, their reflections, zone axes (indices, orientations) and rings of the oxides."""

    phases: tuple[Phase, ...]
    plan: reflections.Reflections
    num_zones: np.ndarray
    zones: np.ndarray
    frames: np.ndarray
    radii: np.ndarray
    weights: np.ndarray


@functools.lru_cache(maxsize=4)  # training, evaluation and probes ask for the same
def _world(max_g: float, voltage_kv: float, max_zone_index: int) -> _World:
    phases = load_phases()
    plans = [reflections.reflections(p.crystal, max_g=max_g, voltage_kv=voltage_kv, min_factor=0.01) for p in phases]
    zones = [orientations.zone_axes(p.crystal, max_index=max_zone_index) for p in phases]
    rings = [specimen.powder(plans[i], num_rings=NUM_RINGS) for i in OXIDES]
    return _World(
        phases=phases,
        plan=reflections.stack(plans),
        num_zones=np.array([len(z.uvw) for z in zones], np.int32),
        zones=_stacked([z.uvw for z in zones]),
        frames=_stacked([z.orientations.astype(np.float32) for z in zones]),
        radii=np.stack([radii for radii, _ in rings]),
        weights=np.stack([weights for _, weights in rings]),
    )


def zone_counts(max_zone_index: int = 2) -> tuple[int, ...]:
    """Zone axes in the list of every phase: ``zone_number`` runs from 0 to below them."""
    return tuple(len(orientations.zone_axes(p.crystal, max_index=max_zone_index).uvw) for p in load_phases())


def average_deformations() -> np.ndarray:
    """Of the listed cells of all phases, float32 [9, 3, 3], to the middle of those that are drawn."""
    phases = load_phases()
    numbers = jnp.full((len(phases), 2), 0.5, jnp.float32)
    return np.asarray(_deformations(numbers, jnp.arange(len(phases)), phases))


def _read(pictures, scale, true_scale, grid, num_peaks, max_offset) -> Batch:
    """Images with their scales as a network gets them, and the spots found in them."""
    found = {"image": pictures[..., None], "scale": scale, "true_scale": true_scale}
    if grid is None and not num_peaks:
        return found
    pixels = pictures.shape[1]
    middle = (pixels - 1) / 2
    peak = peaks.find_peaks(pictures, num_peaks=max(num_peaks + 1, peaks.NUM_VOTERS))
    centre = peaks.centre_of_inversion(peak, middle=middle, max_offset=max_offset * pixels)
    if num_peaks:
        off = (peak.positions - centre[:, None, :]) * scale[:, None, None]
        vectors = jnp.stack([off[..., 0], -off[..., 1]], axis=-1)  # y up
        heights = jnp.where((vectors**2).sum(-1) > MIN_G**2, peak.heights, 0.0)
        heights, order = jax.lax.top_k(heights, num_peaks)
        vectors = jnp.where(heights[..., None] > 0, jnp.take_along_axis(vectors, order[..., None], axis=1), 0.0)
        heights = heights / jnp.where(heights[:, :1] > 0, heights[:, :1], 1.0)
        found["spots"] = jnp.concatenate([vectors, heights[..., None]], axis=-1)
    if grid is not None:
        step = (2 * grid / pixels) / scale
        image = regrid.magnify(pictures, centre=centre, step=step, pixels=pixels)
        found |= {"image": image[..., None], "scale": scale * step, "true_scale": true_scale * step}
    return found


def _deformations(numbers: Array, phase: Array, phases: tuple[Phase, ...]) -> Array:
    """Deformations [B, 3, 3] of the cells: a shared lattice for the classes of ``SUBCELLS``, small changes for others.

    Args:
      numbers: [B, 2], uniform from 0 to 1.
      phase: [B].
      phases: all of them.
    """
    listed = np.ones((len(phases), 2), np.float32)
    for number, (along_a, along_c) in SUBCELLS.items():
        listed[number] = phases[number].crystal.cell[[0, 2]] / np.array([along_a, along_c])
    shared = np.isin(np.arange(len(phases)), list(SUBCELLS))
    drawn = [low + (high - low) * numbers[:, i] for i, (low, high) in enumerate((SUBCELL_A, SUBCELL_C))]
    other = 1.0 + CELL_SPREAD * (2.0 * numbers[:, 0] - 1.0)
    a, c = (
        jnp.where(jnp.asarray(shared)[phase], x / jnp.asarray(listed)[phase, i], other) for i, x in enumerate(drawn)
    )
    return jnp.stack([a, a, c], axis=-1)[:, :, None] * jnp.eye(3, dtype=a.dtype)[None]


def _turned(conditions: exposure.Conditions, turn: Array) -> exposure.Conditions:
    """The conditions of an image turned counterclockwise: lens, stop, streaks and the place of the direct beam."""
    c, s = jnp.cos(turn), jnp.sin(turn)
    x, y = conditions.offset_x, conditions.offset_y  # y downwards, as is the angle of the stop
    return conditions._replace(
        offset_x=c * x + s * y,
        offset_y=c * y - s * x,
        ellipse_axis=conditions.ellipse_axis + turn,
        streak_angle=conditions.streak_angle + turn,
        stop_angle=conditions.stop_angle - turn,
    )


def _split(keys, num):
    parts = jax.vmap(lambda key: jax.random.split(key, num))(keys)
    return [parts[:, i] for i in range(num)]


def _stacked(arrays):
    """Arrays [n_i, ...] as one [P, max n, ...], padded with the last row."""
    longest = max(len(a) for a in arrays)
    return np.stack([np.concatenate([a, np.repeat(a[-1:], longest - len(a), axis=0)]) for a in arrays])


def _check(examples, classes, num_examples, num_rotations, orientation, extent, pixels, max_tilt_deg, scale_error):
    choices = ("examples", examples, SETS), ("classes", classes, CLASSES), ("orientation", orientation, ORIENTATIONS)
    for name, value, known in choices:
        if value not in known:
            raise ValueError(f"{name}: there is no {value!r}; available: {', '.join(known)}")
    if examples == "twin" and num_examples is not None:
        raise ValueError(f"num_examples: the twin has the published numbers, expected None, got {num_examples}")
    if num_rotations < 1 or (examples == "stream" and num_rotations != 1):
        raise ValueError(f"num_rotations: expected at least 1, and 1 for a stream, got {num_rotations}")
    if len(extent) != 2 or not 0 < extent[0] <= extent[1]:
        raise ValueError(f"extent: expected two increasing positive numbers, got {tuple(extent)}")
    if pixels < 8:
        raise ValueError(f"pixels: expected at least 8, got {pixels}")
    if not 0 <= max_tilt_deg <= 90:
        raise ValueError(f"max_tilt_deg: expected a number from 0 to 90, got {max_tilt_deg}")
    if scale_error is not None and not 0 <= scale_error < 0.5:
        raise ValueError(f"scale_error: expected a number from 0 to below 0.5, got {scale_error}")


def _check_reading(grid, num_peaks, max_offset, pixels):
    if grid is not None and not grid > 0:
        raise ValueError(f"grid: expected None or a positive number in 1/angstrom, got {grid}")
    if not 0 <= num_peaks < (pixels // 2) ** 2:
        raise ValueError(f"num_peaks: expected 0 to below {(pixels // 2) ** 2}, got {num_peaks}")
    if not 0 <= max_offset < 0.5:
        raise ValueError(f"max_offset: expected a number from 0 to below 0.5, got {max_offset}")
