"""Eigenstates of the Anderson model at given disorders W, one per realisation, stored and shown in several ways.

A state takes a direct factorisation, so it is made once and stored. Every realisation has its own key, from the seed of
the simulation, W, whether it is made for training or for the test, and its number: no two states share a realisation,
whatever their W and split, and a set with more states or other W begins with the same ones. How a state is shown, which
W are classes and what is done to it before (``probe``) happens when a batch is read: all experiments at one size share
one stored set.
"""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from physml_jax.core.rng import stream_key
from physml_jax.simulators import anderson
from physml_jax.simulators.anderson.dissection import predicted_bytes
from physml_jax.simulators.anderson.rendering import planes, scaled_density
from physml_jax.typing import Array, Batch, Dataset, Key, Recipe

VERSION = 1  # raised when the content of records changes while all settings stay

#: The 17 disorders of the published study.
WIDTHS = (15.0, 15.25, 15.5, 15.75, 16.0, *(round(16.2 + 0.1 * i, 1) for i in range(7)), 17.0, 17.25, 17.5, 17.75, 18.0)
#: Disorders that are told apart, by name; ``None``: all of the set.
CLASSES = {"all": None, "ends": (15.0, 18.0), "three": (15.0, 16.5, 18.0)}
VIEWS = ("none", "rgba", "density", "slices", "signed", "log_signed", "site_energies")
PROBES = ("none", "shuffle", "blocks", "within_blocks", "signs", "quantise", "threshold")
METHODS = ("auto", "dense", "dissection", "filter", "superlu", "pardiso")
PRECISIONS = {"float32": jnp.float32, "float16": jnp.float16, "uint8": jnp.uint8}
COMPRESSIONS = ("none", "log1p", "log")

#: Realisations of one shard.
BLOCK = 64
#: Side of the blocks of two probes.
PROBE_BLOCK = 2
#: Densities below this share of their mean are equal to a network that sees their logarithm.
LEAST_DENSITY = 1e-6
#: Largest number of realisations that an accelerator solves at once, and their share of its memory.
MAX_CHUNK = 64
CHUNK_MEMORY = 0.25


class Settings(NamedTuple):
    """What a record depends on; see :func:`make_dataset`."""

    size: int
    widths: tuple[float, ...]
    states_per_width: int
    test_states_per_width: int
    energy: float
    method: str
    precision: str
    seed: int


class Block(NamedTuple):
    """Realisations of one shard: ``first`` to ``first + length - 1`` of one part at W number ``width``."""

    width: int
    part: str
    first: int
    length: int


def make_dataset(
    *,
    split: str = "train",
    size: int = 20,
    widths: Sequence[float] = WIDTHS,
    states_per_width: int = 5000,
    test_states_per_width: int = 500,
    validation_fraction: float = 0.1,
    energy: float = 0.0,
    method: str = "auto",
    precision: str = "float32",
    simulation_seed: int = 0,
    states_used: int | None = None,
    classes: str = "all",
    view: str = "none",
    pixels: int = 100,
    supersample: int = 2,
    compression: str = "log1p",
    probe: str = "none",
) -> Dataset:
    """The eigenstate nearest an energy of every realisation, with its disorder; stored, never computed in training.

    ``precision`` decides what is left of a state. Amplitudes are stored as float32 as they are; as float16 or 8 bits
    relative to the largest of their state (8 bits: 127 steps on either side of zero), and normalised again when read.
    What moduli say is hardly touched by float16, the local rule only if it knows their error, 2^-11, and 8 bits leave
    neither the rule nor the bound nor alpha_0; docs/anderson.md has the numbers.

    The input of a network is one of these views, made on the device when a batch is read:

    * ``rgba``: the published picture, coloured cubes (:func:`physml_jax.simulators.anderson.cube_view`).
    * ``density``: abs(psi)^2 L^3 as a volume, compressed; ``slices``: the same, the planes normal to the first axis
      as channels of one picture.
    * ``signed``: psi L^(3/2). ``log_signed``: the same knowledge in numbers of moderate size, two channels: the sign of
      psi, and ln(abs(psi)^2 L^3).
    * ``site_energies``: eps - E = sum_nn psi_j / psi_i, of which W/2 is the largest. This is the answer but for a
      maximum; it shows what a network makes of it.

    A probe changes the states before they are seen, each one with its own random numbers, always the same:

    * ``shuffle``: all sites change places; the values stay. ``blocks``: cubes of 2 x 2 x 2 sites change places as a
      whole, so that far sites do and most neighbours do not; ``within_blocks``: the sites of every such cube.
    * ``signs``: every site gets a random sign; abs(psi) stays.
    * ``quantise``: amplitudes are rounded to 8 bits, as in storage.
    * ``threshold``: the same positive amplitude where abs(psi)^2 L^3 > 1, zero elsewhere: the outline of the picture.

    The order of the examples: in ``"train"`` by realisation, then W, so that the beginning of the split, which
    baselines are fitted on, holds all classes; in the others by W, then realisation.

    Args:
      split: ``"train"``, ``"validation"``, ``"test"``, or ``"probe/<name>"``: one more look at the test states.
      size: L, at least 3.
      widths: full widths W of the box of site energies, increasing.
      states_per_width: realisations of every W for training and validation.
      test_states_per_width: and for the test.
      validation_fraction: share of ``states_per_width`` in the validation, its last ones.
      energy: where the states are looked for, in units of the hopping.
      method: of :func:`physml_jax.simulators.anderson.eigenstates`; ``"auto"``: all states up to L = 6, above that
        nested dissection. Every method has to prove that its state is the nearest.
      precision: of stored amplitudes: ``"float32"``, ``"float16"`` or ``"uint8"``; see above for what is lost.
      simulation_seed: decides the stored states; the experiment's seed does not.
      states_used: use so many realisations of the split at each W, its first ones; ``None`` uses all.
      classes: which W are used, and are the classes: ``"all"``, ``"ends"`` (15 and 18) or ``"three"`` (15, 16.5, 18).
      view: what a network gets to see, see above.
      pixels: side of the picture ``rgba``.
      supersample: its rays per pixel and direction.
      compression: of ``density`` and ``slices``: ``"none"``, ``"log1p"`` (ln(1 + density)) or ``"log"``
        (ln(density + 1e-6)), which keeps the tails.
      probe: what is done to the states, see above.

    Returns:
      A dataset of ``state`` float32 [L, L, L, 1] (of unit norm, after the probe), ``energy`` and ``disorder`` (W)
      float32 [], ``disorder_class`` int32 [], and the view under its own name: ``rgba`` [P, P, 4] in 0..1, ``density``
      [L, L, L, 1], ``slices`` [L, L, L], ``signed`` [L, L, L, 1], ``log_signed`` [L, L, L, 2] or ``site_energies`` [L,
      L, L, 1], all float32. Records hold ``state`` [L, L, L] as stored, ``energy``, ``residual`` (of the float64 state)
      and ``width`` as float32.

    Raises:
      ValueError: for a value outside its range or an unknown name; the message says what was expected.
    """
    settings = Settings(
        size=int(size),
        widths=tuple(float(w) for w in widths),
        states_per_width=int(states_per_width),
        test_states_per_width=int(test_states_per_width),
        energy=float(energy),
        method=method,
        precision=precision,
        seed=int(simulation_seed),
    )
    _check(settings)
    known = ("classes", classes, CLASSES), ("view", view, VIEWS), ("probe", probe, PROBES)
    _check_names(*known, ("compression", compression, COMPRESSIONS))
    if pixels < 1 or supersample < 1:
        raise ValueError(f"pixels, supersample: expected at least 1, got {pixels} and {supersample}")
    if "blocks" in probe and settings.size % PROBE_BLOCK:
        raise ValueError(f"probe: {probe!r} cuts the lattice into {PROBE_BLOCK}^3 sites, got size = {size}")
    chosen = settings.widths if CLASSES[classes] is None else CLASSES[classes]
    missing = sorted(set(chosen) - set(settings.widths))
    if missing:
        raise ValueError(f"classes: {classes!r} needs W = {missing}, got widths = {settings.widths}")

    states = _states(settings, split, validation_fraction, states_used)
    first = np.array([settings.widths.index(w) for w in chosen]) * _per_width(settings)
    order = (first[None, :], states[:, None]) if split == "train" else (first[:, None], states[None, :])
    rows = (order[0] + order[1]).reshape(-1).astype(np.int64)
    recipe = make_recipe(settings)
    shape, cube = jax.ShapeDtypeStruct, (settings.size,) * 3
    forms = {"rgba": (pixels, pixels, 4), "slices": cube, "log_signed": (*cube, 2)}
    spec = {
        "state": shape((*cube, 1), jnp.float32),
        "energy": shape((), jnp.float32),
        "disorder": shape((), jnp.float32),
        "disorder_class": shape((), jnp.int32),
    }
    if view != "none":
        spec[view] = shape(forms.get(view, (*cube, 1)), jnp.float32)

    def show(psi: Array) -> Array:
        if view == "rgba":
            return anderson.cube_view(psi, pixels=pixels, supersample=supersample)
        if view in ("density", "slices"):
            seen = planes(psi) if view == "slices" else scaled_density(psi)[..., None]
            return _compress(seen, compression)
        if view == "signed":
            return (psi * settings.size**1.5)[..., None]
        if view == "log_signed":
            return jnp.stack([jnp.sign(psi), jnp.log(scaled_density(psi) + 1e-30)], axis=-1)
        neighbours = sum(jnp.roll(psi, step, axis) for axis in (1, 2, 3) for step in (1, -1))
        return jnp.where(psi == 0, 0, neighbours / jnp.where(psi == 0, 1, psi))[..., None]

    def decode(records: Batch, index: Array) -> Batch:
        psi = _restored(records["state"])
        if probe != "none":
            numbers = jnp.asarray(rows, jnp.int32)[index]
            base = stream_key(0, f"anderson/probe/{probe}")
            psi = disturb(jax.vmap(lambda i: jax.random.fold_in(base, i))(numbers), psi, probe=probe)
        label = jnp.abs(records["width"][:, None] - jnp.asarray(chosen, jnp.float32)[None, :]).argmin(1)
        found = {
            "state": psi[..., None],
            "energy": records["energy"],
            "disorder": records["width"],
            "disorder_class": label.astype(jnp.int32),
        }
        return found if view == "none" else {**found, view: show(psi)}

    return Dataset(
        spec=spec,
        num_examples=len(rows),
        recipe=recipe,
        rows=rows,
        decode=decode,
        record={key: recipe.spec[key] for key in ("state", "energy", "width")},
    )


def make_recipe(settings: Settings) -> Recipe:
    """How the records are made: by W; of every W first the training states, then the test states, in blocks of 64.

    Args:
      settings: what the records depend on.
    """
    shape = jax.ShapeDtypeStruct
    plan = blocks(settings)
    scalar = shape((), jnp.float32)
    return Recipe(
        name=f"anderson_L{settings.size}",
        config={"version": VERSION, **settings._asdict(), "widths": list(settings.widths)},
        spec={
            "state": shape((settings.size,) * 3, PRECISIONS[settings.precision]),
            "energy": scalar,
            "residual": scalar,
            "width": scalar,
        },
        shard_lengths=tuple(block.length for block in plan),
        shard=lambda i: records(settings, plan[i]),
    )


def blocks(settings: Settings) -> tuple[Block, ...]:
    """The shards, in the order of the records."""
    parts = (("train", settings.states_per_width), ("test", settings.test_states_per_width))
    return tuple(
        Block(width, part, first, min(BLOCK, total - first))
        for width in range(len(settings.widths))
        for part, total in parts
        for first in range(0, total, BLOCK)
    )


def records(settings: Settings, block: Block) -> list[dict[str, np.ndarray]]:
    """Computes the records of one shard, alone: they are the same whichever shards are computed beside it.

    Args:
      settings: of the simulation.
      block: the shard.

    Returns:
      Records as :func:`make_dataset` describes them.

    Raises:
      RuntimeError: if it is not certain that a state is an eigenstate and the one nearest the energy.
    """
    width = settings.widths[block.width]
    found = anderson.eigenstates(
        realisations(settings, block),
        energy=settings.energy,
        method=settings.method,
        certify=True,
        chunk_size=_chunk_size(settings),
    )
    if not found.certified.all():
        number = block.first + int(np.argmin(found.certified))
        raise RuntimeError(f"W = {width:g}, {block.part} realisation {number}: the state found is not certified")
    stored = store(found.states[:, 0], settings.precision)
    return [
        {
            "state": stored[j],
            "energy": np.float32(found.energies[j, 0]),
            "residual": np.float32(found.residuals[j, 0]),
            "width": np.float32(width),
        }
        for j in range(block.length)
    ]


def realisations(settings: Settings, block: Block) -> np.ndarray:
    """Site energies of one shard, float64 [block.length, L, L, L]."""
    width = settings.widths[block.width]
    base = stream_key(settings.seed, f"anderson/{block.part}")
    base = jax.random.fold_in(base, np.float32(width).view(np.uint32))
    with jax.enable_x64(True):
        numbers = jnp.arange(block.first, block.first + block.length, dtype=jnp.uint32)

        def one(number):
            key = jax.random.fold_in(base, number)
            return anderson.sample_disorder(key, width, size=settings.size, dtype=jnp.float64)

        return np.asarray(jax.vmap(one)(numbers))


def store(states: np.ndarray, precision: str) -> np.ndarray:
    """States as they are stored, [B, L, L, L]: see :func:`make_dataset`."""
    if precision == "float32":
        return states.astype(np.float32)
    relative = states / np.abs(states).max((1, 2, 3), keepdims=True)
    if precision == "float16":
        return (relative * 2.0**15).astype(np.float16)  # as far as possible from the smallest numbers that float16 has
    return (np.round(relative * 127) + 128).astype(np.uint8)


def disturb(keys: Key, psi: Array, *, probe: str) -> Array:
    """States after a probe of :func:`make_dataset`: [B] keys, [B, L, L, L] -> [B, L, L, L], of unit norm."""
    size = psi.shape[-1]
    if probe == "quantise":
        relative = psi / jnp.abs(psi).max((1, 2, 3), keepdims=True)
        return _normalised(jnp.round(relative * 127))
    if probe == "threshold":
        return _normalised((scaled_density(psi) > 1).astype(psi.dtype))
    if probe == "signs":
        return psi * jax.vmap(lambda key: jax.random.rademacher(key, psi.shape[1:], psi.dtype))(keys)
    if probe == "shuffle":
        permuted = jax.vmap(jax.random.permutation)(keys, psi.reshape(len(psi), -1))
        return permuted.reshape(psi.shape)
    b, n = PROBE_BLOCK, size // PROBE_BLOCK
    cut = psi.reshape(-1, n, b, n, b, n, b).transpose(0, 1, 3, 5, 2, 4, 6).reshape(-1, n**3, b**3)
    if probe == "blocks":
        cut = jax.vmap(jax.random.permutation)(keys, cut)
    else:
        cut = jax.vmap(lambda key, x: jax.random.permutation(key, x, axis=1, independent=True))(keys, cut)
    return cut.reshape(-1, n, n, n, b, b, b).transpose(0, 1, 4, 2, 5, 3, 6).reshape(psi.shape)


def _restored(stored: Array) -> Array:
    """Amplitudes float32 [B, L, L, L] of unit norm from what is stored."""
    if stored.dtype == jnp.float32:
        return stored
    if stored.dtype == jnp.uint8:
        return _normalised(stored.astype(jnp.float32) - 128)
    return _normalised(stored.astype(jnp.float32) * 2.0**-15)


def _normalised(psi: Array) -> Array:
    return psi / jnp.sqrt((psi * psi).sum((1, 2, 3), keepdims=True))


def _compress(density: Array, compression: str) -> Array:
    rules: dict[str, Callable[[Array], Array]] = {"none": lambda x: x, "log1p": jnp.log1p}
    return rules.get(compression, lambda x: jnp.log(x + LEAST_DENSITY))(density)


def _per_width(settings: Settings) -> int:
    return settings.states_per_width + settings.test_states_per_width


def _states(settings: Settings, split: str, validation_fraction: float, used: int | None) -> np.ndarray:
    """Numbers of the states of a split among those of one W, test states behind the others."""
    if split not in ("train", "validation", "test") and not split.startswith("probe/"):
        raise ValueError(f"split: expected one of train, validation, test, got {split!r}")
    if not 0 <= validation_fraction < 1:
        raise ValueError(f"validation_fraction: expected a number from 0 to below 1, got {validation_fraction}")
    total = settings.states_per_width
    border = total - round(validation_fraction * total)
    ends = {"train": (0, border), "validation": (border, total)}.get(split, (total, _per_width(settings)))
    found = np.arange(*ends)
    if not found.size:
        raise ValueError(f"validation_fraction, test_states_per_width: the split {split!r} has no state")
    if used is not None and not 1 <= used <= found.size:
        raise ValueError(f"states_used: expected 1 to {found.size}, the states per W of {split!r}, got {used}")
    return found[:used]


def _chunk_size(settings: Settings) -> int:
    """Realisations that are solved at once: one on a CPU, on an accelerator as many as fit well."""
    if jax.default_backend() == "cpu":
        return 1
    memory = (jax.devices()[0].memory_stats() or {}).get("bytes_limit", 0)
    return int(max(1, min(MAX_CHUNK, CHUNK_MEMORY * memory // predicted_bytes(settings.size))))


def _check_names(*choices) -> None:
    for name, value, known in choices:
        if value not in known:
            raise ValueError(f"{name}: there is no {value!r}; available: {', '.join(known)}")


def _check(settings: Settings) -> None:
    widths = np.asarray(settings.widths)
    if settings.size < 3:
        raise ValueError(f"size: expected an integer of at least 3, got {settings.size}")
    if not widths.size or not np.isfinite(widths).all() or widths.min() <= 0:
        raise ValueError(f"widths: expected finite positive numbers, got {settings.widths}")
    if (np.diff(widths.astype(np.float32)) <= 0).any():
        raise ValueError(f"widths: expected increasing numbers, got {settings.widths}")
    if settings.states_per_width < 1 or settings.test_states_per_width < 1:
        found = f"{settings.states_per_width} and {settings.test_states_per_width}"
        raise ValueError(f"states_per_width, test_states_per_width: expected at least 1, got {found}")
    if not np.isfinite(settings.energy):
        raise ValueError(f"energy: expected a finite number, got {settings.energy}")
    _check_names(("method", settings.method, METHODS), ("precision", settings.precision, PRECISIONS))
    stream_key(settings.seed, "anderson")  # refuses a seed that is no seed
