"""Bright-field LACBED patterns of cubic crystals at [001] and the projected potentials that cause them.

A record is one crystal. The crystals are the bundled ones, the CIF files of a folder, or both; the records of a data
set depend on the list of crystals and on the settings of the calculation only, and any record can be computed alone
(:func:`record`). All splits share one stored data set and differ in the rows they read.
"""

import hashlib
import math
from collections.abc import Sequence
from concurrent import futures
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from physml_jax.data import crystals, selection
from physml_jax.data.selection import Entry
from physml_jax.simulators.diffraction import beams, bloch, potential, scattering, zone
from physml_jax.simulators.diffraction.crystal import Crystal
from physml_jax.typing import Batch, Dataset, Recipe

VERSION = 1  # raised when the content of records changes while all settings stay
SPLITS = ("train", "validation", "test")
ATTEMPTS = 3  # calculations of one pattern, each with more beams than the one before


class Settings(NamedTuple):
    """What a record depends on beside its crystal; see :func:`make_dataset`."""

    num_pixels: int = 64
    thicknesses: tuple[float, ...] = (450.0,)
    voltage_kv: float = 200.0
    absorption: float = 0.0
    max_g: float = bloch.MAX_G
    min_beams: int = 400
    num_strong: int = 192
    tolerance: float = 0.02
    few_beams: int = 21
    form_factors: str = "kirkland"


def make_dataset(
    *,
    split: str = "train",
    num_pixels: int = 64,
    thicknesses: Sequence[float] = (450.0,),
    voltage_kv: float = 200.0,
    absorption: float = 0.0,
    max_g: float = bloch.MAX_G,
    min_beams: int = 400,
    num_strong: int = 192,
    tolerance: float = 0.02,
    few_beams: int = 21,
    form_factors: str = "kirkland",
    default_b_iso: float = 0.5,
    max_lattice_parameter: float | None = 10.0,
    max_beams: int | None = 10000,
    num_structures: int | None = None,
    cif_dir: str | None = None,
    include_bundled: bool = True,
    split_by: str = "template",
    split_seed: int = 0,
    fractions: Sequence[float] = (0.8, 0.1, 0.1),
    shard_size: int = 32,
    max_memory_gb: float = 8.0,
) -> Dataset:
    """Pairs of projected potential and LACBED pattern; stored, never simulated during training.

    Making the data set costs no calculation; its recipe does. Crystals that are left out are named in the log, one
    line each with the reason, and in the manifest of the stored data set.

    Args:
      split: ``"train"``, ``"validation"`` or ``"test"``.
      num_pixels: N, pixels along each side of potential and pattern.
      thicknesses: T thicknesses in angstrom, one channel each.
      voltage_kv: accelerating voltage, kV.
      absorption: imaginary part of the potential as a fraction of the real one. The default is 0, because no thermal
        factors are known for most of the bundled structures, and a calculation with absorption takes four times longer.
        Something between 0.03 and 0.1 is usual for a comparison with measured patterns.
      max_g: radius of the pool of beams, 1/angstrom.
      min_beams: small cells get a larger radius, so that the pool holds about so many beams.
      num_strong: beams that are propagated exactly; the rest of the pool enters in second order.
      tolerance: a pattern whose convergence error is larger is calculated again with more beams, twice at most.
      few_beams: beams of ``few_beam``, the cheap pattern: the strongest ones, and all that equal the last.
      form_factors: table of ``scattering.form_factors``.
      default_b_iso: thermal factor B in angstrom^2 where nothing better is known.
      max_lattice_parameter: larger cells are left out, angstrom; ``None`` is no limit.
      max_beams: crystals with a larger pool are left out; ``None`` is no limit.
      num_structures: use at most so many crystals, those of ``cif_dir`` first.
      cif_dir: folder of CIF files, searched with its subfolders.
      include_bundled: whether the bundled crystals are used (a crystal of ``cif_dir`` replaces its bundled twin).
      split_by: ``"template"`` puts no structure template in two splits, ``"random"`` is the published protocol.
      split_seed: chooses the split, not the records.
      fractions: shares of the three splits.
      shard_size: largest number of crystals in a shard, the unit that a killed generation computes again.
      max_memory_gb: a crystal that needs more is left out.

    Returns:
      A data set of ``potential`` float32 [N, N, 1] in V (pixel (i, j) at y = (i + 1/2)/N a, x = (j + 1/2)/N a),
      ``pattern`` and ``few_beam`` float32 [N, N, T], ``log_a`` float32 [1], and the scalars ``space_group``,
      ``template``, ``structure``, ``num_beams`` (int32) and ``convergence_error`` (float32).

    Raises:
      ValueError: for a setting outside its range, or if no crystal is left; the message says what was expected.
    """
    settings = Settings(
        num_pixels=int(num_pixels),
        thicknesses=tuple(float(t) for t in thicknesses),
        voltage_kv=float(voltage_kv),
        absorption=float(absorption),
        max_g=float(max_g),
        min_beams=int(min_beams),
        num_strong=int(num_strong),
        tolerance=float(tolerance),
        few_beams=int(few_beams),
        form_factors=form_factors,
    )
    _check(settings, split=split, split_by=split_by, shard_size=shard_size, num_structures=num_structures)
    entries, left_out = selection.choose(
        cif_dir=cif_dir,
        include_bundled=include_bundled,
        default_b_iso=float(default_b_iso),
        num_structures=num_structures,
        unfit=lambda entry: _too_large(entry, settings, max_lattice_parameter, max_beams, max_memory_gb),
    )
    names = [e.info.template for e in entries]
    if split_by == "template":
        parts = crystals.split_by_template(names, seed=split_seed, fractions=tuple(fractions))
    else:
        parts = crystals.split_random(len(entries), seed=split_seed, fractions=tuple(fractions))
    order, lengths = _shards([_cost(e, settings) for e in entries], shard_size)
    place = np.argsort(order)  # row of every crystal
    templates = {label: i for i, label in enumerate(sorted(set(names)))}
    starts = np.cumsum([0, *lengths])

    def one(j: int) -> dict[str, np.ndarray]:
        try:
            return record(entries[j], settings, template=templates[names[j]], structure=int(j))
        except ValueError as error:
            raise ValueError(f"{entries[j].info.name}: {error}") from error

    def shard(i: int) -> list[dict[str, np.ndarray]]:
        # Half of the time goes to planning in Python: the device has work while the other thread plans.
        with futures.ThreadPoolExecutor(2) as pool:
            return list(pool.map(one, order[starts[i] : starts[i + 1]]))

    content = hashlib.sha256("".join(entries[j].digest for j in order).encode()).hexdigest()
    recipe = Recipe(
        name="lacbed",
        config={"version": VERSION, **settings._asdict(), "crystals": content},
        spec=_spec(settings),
        shard_lengths=lengths,
        shard=shard,
        attribution=selection.attribution(entries, left_out),
        labels=tuple(entries[j].info.formula for j in order),
    )
    rows = np.sort(place[getattr(parts, split)])
    return Dataset(spec=recipe.spec, num_examples=len(rows), recipe=recipe, rows=rows.astype(np.int64))


def record(entry: Entry, settings: Settings, *, template: int, structure: int) -> dict[str, np.ndarray]:
    """Computes the record of one crystal; the keys are those of :func:`make_dataset`.

    Args:
      entry: the crystal.
      settings: of the calculation.
      template: number of its structure template in the data set.
      structure: number of the crystal in the data set.
    """
    crystal = entry.load()
    max_g, num_strong = _radius(entry, settings), settings.num_strong
    for _ in range(ATTEMPTS):
        found = bloch.lacbed(
            crystal,
            voltage_kv=settings.voltage_kv,
            num_pixels=settings.num_pixels,
            thicknesses=settings.thicknesses,
            absorption=settings.absorption,
            max_g=max_g,
            num_strong=num_strong,
            form_factors=settings.form_factors,
            max_memory_gb=math.inf,  # make_dataset has compared the estimate with the limit
        )
        if found.convergence_error <= settings.tolerance:
            break
        max_g, num_strong = _more(max_g, num_strong)
    return {
        "potential": _potential(crystal, settings)[..., None],
        "pattern": np.moveaxis(found.intensities[:, 0], 0, -1).astype(np.float32),
        "few_beam": few_beam_pattern(crystal, settings),
        "log_a": np.array([math.log(entry.a)], np.float32),
        "space_group": np.int32(entry.info.space_group),
        "template": np.int32(template),
        "structure": np.int32(structure),
        "num_beams": np.int32(found.num_beams),
        "convergence_error": np.float32(found.convergence_error),
    }


def few_beam_pattern(crystal: Crystal, settings: Settings) -> np.ndarray:
    """The pattern that a handful of beams gives: what a fast approximate calculation would offer.

    Args:
      crystal: arrays on the host.
      settings: ``few_beams`` reflections with the largest potential are used, and all that are as strong as the last,
        so that the set keeps the symmetry.

    Returns:
      float32 [N, N, T].
    """
    # The strongest reflections are short: a circle of four times the wanted area holds them.
    a = float(np.asarray(crystal.cell)[0])
    z = zone.prepare(
        crystal,
        zone_axis=(0, 0, 1),
        voltage_kv=settings.voltage_kv,
        half_width=None,
        num_pixels=settings.num_pixels,
        thicknesses=settings.thicknesses,
        reflections=((0, 0, 0),),
        absorption=settings.absorption,
        max_g=min(settings.max_g, 2.0 * math.sqrt(4 * settings.few_beams / math.pi) / a),
        form_factors=settings.form_factors,
        check=False,
    )
    centre = np.array(z.coupling.shape) // 2

    def between(delta):
        return z.coupling[delta[..., 0] + centre[0], delta[..., 1] + centre[1]]

    strength = np.abs(between(z.pool))
    strength[0] = np.inf
    last = np.sort(strength)[::-1][min(settings.few_beams, len(strength)) - 1]
    chosen = z.pool[strength >= last * (1 - 1e-6)]
    # Padded with beams that nothing couples to, so that few shapes are compiled.
    n = -(-len(chosen) // 32) * 32
    coupling = np.zeros((n, n), z.coupling.dtype)
    coupling[: len(chosen), : len(chosen)] = between(chosen[:, None] - chosen[None, :])
    errors = np.zeros((len(z.tilts), n))
    errors[:, : len(chosen)] = beams.excitation_errors(chosen @ z.layer.vectors, z.tilts, z.wave_number)
    amplitude = bloch.propagate(coupling, errors[z.groups.reshape(-1)], z.thicknesses, outputs=[0])[:, :, 0]
    mean = np.exp(-4 * math.pi * z.thicknesses * z.mean_absorption)
    intensity = np.abs(np.asarray(amplitude)) ** 2 * mean[:, None]
    image = intensity[:, z.unfold].reshape(-1, settings.num_pixels, settings.num_pixels)
    return np.moveaxis(image, 0, -1).astype(np.float32)


def _potential(crystal: Crystal, settings: Settings) -> np.ndarray:
    """The projected potential in V, [N, N]; atoms are padded and compiled for few shapes."""
    atoms = len(crystal.numbers)
    spare = max(16, 1 << (atoms - 1).bit_length()) - atoms

    def pad(x, value=0):
        x = np.asarray(x)
        x = x.astype(np.float32) if x.dtype.kind == "f" else x
        return np.pad(x, [(0, spare)] + [(0, 0)] * (x.ndim - 1), constant_values=value)

    padded = crystal._replace(
        cell=np.asarray(crystal.cell, np.float32),
        positions=pad(crystal.positions),
        numbers=pad(crystal.numbers, 1),
        occupancies=pad(crystal.occupancies),
        b_iso=pad(crystal.b_iso),
        u_aniso=pad(crystal.u_aniso),
        # Not needed, and their number would make another shape.
        rotations=np.zeros((0, 3, 3), np.int32),
        translations=np.zeros((0, 3), np.float32),
    )
    shape = (settings.num_pixels, settings.num_pixels)
    compiled = jax.jit(potential.projected_potential, static_argnames=("shape", "table"))
    return np.asarray(compiled(padded, shape=shape, table=settings.form_factors), np.float32)


def _spec(settings: Settings) -> Batch:
    n, t = settings.num_pixels, len(settings.thicknesses)
    shape = jax.ShapeDtypeStruct
    scalars = {key: shape((), jnp.int32) for key in ("space_group", "template", "structure", "num_beams")}
    return {
        "potential": shape((n, n, 1), jnp.float32),
        "pattern": shape((n, n, t), jnp.float32),
        "few_beam": shape((n, n, t), jnp.float32),
        "log_a": shape((1,), jnp.float32),
        **scalars,
        "convergence_error": shape((), jnp.float32),
    }


def _too_large(
    entry: Entry, settings: Settings, max_lattice_parameter: float | None, max_beams: int | None, max_memory_gb: float
) -> str | None:
    """Why a crystal is beyond the limits, with the estimate; ``None`` if it is within."""
    if max_lattice_parameter is not None and entry.a > max_lattice_parameter:
        return f"a = {entry.a:.2f} angstrom, more than max_lattice_parameter = {max_lattice_parameter:g}"
    max_g, num_strong = _radius(entry, settings), settings.num_strong
    pool = selection.estimated_beams(entry.info, entry.a, max_g)
    for _ in range(ATTEMPTS - 1):
        max_g, num_strong = _more(max_g, num_strong)
    kind = "symmetric" if settings.absorption else "real"
    beams_at_most = selection.estimated_beams(entry.info, entry.a, max_g)
    needed = bloch.memory_gb(beams_at_most, kind, num_strong=num_strong, dtype="float32")
    if max_beams is not None and pool > max_beams:
        return f"about {pool} beams, more than max_beams = {max_beams}; it would need up to {needed:.2g} GB"
    if needed > max_memory_gb:
        return f"{beams_at_most} beams need about {needed:.2g} GB, more than max_memory_gb = {max_memory_gb:g}"
    return None


def _more(max_g: float, num_strong: int) -> tuple[float, int]:
    """Radius and number of strong beams of the next attempt at a pattern that did not converge."""
    return 1.15 * max_g, num_strong + 128


def _radius(entry: Entry, settings: Settings) -> float:
    """Radius of the pool of beams, 1/angstrom: heavy atoms in small cells scatter further than ``max_g``."""
    within_one = selection.estimated_beams(entry.info, entry.a, 1.0)
    return max(settings.max_g, math.sqrt(settings.min_beams / within_one))


def _cost(entry: Entry, settings: Settings) -> float:
    """Time of a record, relative: products of strong beams, their potential from weak ones, what all records need."""
    pool = selection.estimated_beams(entry.info, entry.a, _radius(entry, settings))
    strong = min(pool, settings.num_strong)
    return strong**2 + pool * strong / 8 + 100.0**2


def _shards(costs: Sequence[float], shard_size: int) -> tuple[np.ndarray, tuple[int, ...]]:
    """Orders crystals by cost, so that compiled shapes repeat, and cuts the order into shards of about equal cost."""
    order = np.argsort(costs, kind="stable")
    share = sum(costs) / math.ceil(len(costs) / shard_size)
    lengths, filled = [0], 0.0
    for j in order:
        if lengths[-1] and (lengths[-1] >= shard_size or filled + costs[j] > share * 1.2):
            lengths.append(0)
            filled = 0.0
        lengths[-1] += 1
        filled += costs[j]
    return order, tuple(lengths)


def _check(settings: Settings, *, split, split_by, shard_size, num_structures) -> None:
    """What the simulator would refuse too, but minutes later."""
    if split not in SPLITS:
        raise ValueError(f"split: expected one of {', '.join(SPLITS)}, got {split!r}")
    if split_by not in ("template", "random"):
        raise ValueError(f"split_by: expected 'template' or 'random', got {split_by!r}")
    for name, value in (
        ("num_pixels", settings.num_pixels),
        ("min_beams", settings.min_beams),
        ("num_strong", settings.num_strong),
        ("few_beams", settings.few_beams),
        ("shard_size", shard_size),
        ("num_structures", num_structures),
    ):
        if value is not None and value < 1:
            raise ValueError(f"{name}: expected an integer of at least 1, got {value}")
    for name in ("voltage_kv", "max_g", "tolerance"):
        if not 0 < getattr(settings, name) < math.inf:
            raise ValueError(f"{name}: expected a positive number, got {getattr(settings, name)}")
    if not 0 <= settings.absorption < 1:
        raise ValueError(f"absorption: expected a number from 0 to below 1, got {settings.absorption}")
    if settings.form_factors not in scattering.TABLES:
        raise ValueError(f"form_factors: expected one of {', '.join(scattering.TABLES)}, got {settings.form_factors!r}")
    if not settings.thicknesses or not all(0 < t < math.inf for t in settings.thicknesses):
        raise ValueError(f"thicknesses: expected positive numbers in angstrom, got {settings.thicknesses}")
