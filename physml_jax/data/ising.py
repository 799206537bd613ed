"""States of the J1-J2 Ising model over a grid of temperatures and couplings, in equilibrium, stored 32 to a word.

Unlike a percolation state, a state in equilibrium cannot be made from its own key: it is what a long simulation of a
whole ladder of temperatures leaves behind. The unit is the row of one J2: all temperatures and replicas at that
coupling, simulated together (replica exchange joins neighbouring temperatures), a function of the seed of the
simulation and the number of the row. A record holds 32 replicas of one point (T, J2) as one uint32 word per site; an
example is one bit of a record. Region, split and stride choose among the examples; they are no part of what is
stored, so that all splits and the experiments on both ordered regions share one set. The full grid at L = 30 takes
25 MB, at L = 120 400 MB; as bytes the latter would be 3 GB.
"""

import os
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from physml_jax.core.rng import stream_key
from physml_jax.data import ising_grid
from physml_jax.data.ising_grid import J2, TEMPERATURES
from physml_jax.simulators import ising
from physml_jax.simulators.ising.packed import BITS, RULES
from physml_jax.simulators.ising.packing import WORD
from physml_jax.simulators.ising.random_words import GENERATORS
from physml_jax.typing import Array, Batch, Dataset, Read, Recipe

VERSION = 1  # raised when the content of records changes while all settings stay

#: What a record holds of the ``Evidence`` of its point, with the shape of each entry.
EVIDENCE = {
    "z_energy": (),
    "z_order": (),
    "autocorrelation_time": (),
    "acceptance": (),
    "sweeps": (),
    "window": (),
    "mean": (3,),
    "error": (3,),
}
STARTS = ("hot", "ordered", "both")
_LABELS = ("temperature", "j2", "equilibrated")  # of a point; a record and each of its examples have them


class Settings(NamedTuple):
    """What a record depends on; see :func:`make_dataset`."""

    size: int
    temperatures: tuple[float, ...]
    j2: tuple[float, ...]
    num_replicas: int
    sweeps_per_temperature: int
    max_sweeps: int
    exchange: bool
    exchange_every: int
    start: str
    bits: int
    generator: str
    rule: str
    seed: int


def make_dataset(
    *,
    split: str = "train",
    size: int = 30,
    temperatures: Sequence[float] = TEMPERATURES,
    j2: Sequence[float] = J2,
    num_replicas: int = 64,
    sweeps_per_temperature: int = 1000,
    max_sweeps: int = 16000,
    exchange: bool = True,
    exchange_every: int = 10,
    start: str = "both",
    bits: int = 24,
    generator: str = "hash",
    rule: str = "metropolis",
    simulation_seed: int = 0,
    region: str = "all",
    max_temperature: float | None = None,
    min_j2: float | None = None,
    max_j2: float | None = None,
    temperature_stride: int = 1,
    j2_subset: Sequence[float] | None = None,
    replicas_per_point: int | None = None,
    only_equilibrated: bool = False,
    fractions: Sequence[float] = (0.5, 0.25, 0.25),
) -> Dataset:
    """Spin states with their temperature and coupling; stored, never simulated during training.

    Splits are disjoint in replicas. Replicas 2 k and 2 k + 1 stay together, because with ``start="both"`` one began
    hot and the other ordered: every split holds as many of either. A replica is a chain of its own at every
    temperature, but exchange moves states along its ladder, so two splits never share a ladder.

    Order of the examples: in ``"validation"`` and ``"test"`` by coupling, then temperature from hot to cold, then
    replica. In ``"train"`` (visited in random order) the replica comes first, so that the beginning of the split, which
    baselines are fitted on, covers all points.

    Points whose chains did not reach equilibrium within ``max_sweeps`` are stored and flagged, named in the manifest,
    and the log says so whenever the data are opened.

    Args:
      split: ``"train"``, ``"validation"`` or ``"test"``.
      size: linear size L, even, at least 4.
      temperatures: of the simulation, in units of J1, monotonic; the whole ladder is simulated whatever is used of it.
      j2: couplings across the diagonals in units of J1, increasing; antiferromagnetic.
      num_replicas: states of every point, a multiple of 32.
      sweeps_per_temperature: sweeps of the first attempt at every temperature.
      max_sweeps: the sweeps are doubled until the test of equilibrium holds, or these are reached.
      exchange: whether replicas at neighbouring temperatures are exchanged.
      exchange_every: sweeps between exchanges.
      start: ``"hot"``, ``"ordered"`` or ``"both"`` (even replicas hot, odd ones ordered), which the test needs.
      bits: 16, 24 or 32, of the comparison with a random number; what is less probable than 2**-bits never happens.
      generator: random words: ``"hash"`` or ``"threefry"``.
      rule: ``"metropolis"`` or ``"heat_bath"``.
      simulation_seed: decides the stored states; the experiment's seed does not.
      region: ``"all"``, ``"ferromagnet"`` (T <= 0.5, J2 <= 0.4) or ``"superantiferromagnet"`` (T <= 0.5, J2 >= 0.6).
      max_temperature: use no higher temperature; narrows the region.
      min_j2: use no smaller coupling; narrows the region.
      max_j2: use no larger coupling; narrows the region.
      temperature_stride: use every so many temperatures of the simulated ones, counted from the hottest.
      j2_subset: use these couplings only; each must be one of ``j2``.
      replicas_per_point: use so many replicas of the split at each point; ``None`` uses all.
      only_equilibrated: leave out the examples of points that did not reach equilibrium.
      fractions: shares of the three splits in the replicas.

    Returns:
      A dataset of ``spins`` int8 [L, L, 1] in {-1, +1}, ``temperature`` and ``j2`` float32 [], ``equilibrated`` int32
      [] (1 if the point passed the test). Records hold ``words`` uint32 [L, L] (bit r is a replica, set is up), the
      same three scalars, and as float32 the evidence of equilibrium with the averages over the last sweeps, see
      :class:`physml_jax.simulators.ising.Evidence`.

    Raises:
      ValueError: for a value outside its range, or a choice that leaves no point or no replica; the message says what
        was expected.
    """
    ladder = _monotonic(temperatures)
    settings = Settings(
        size=int(size),
        temperatures=ladder,
        j2=tuple(float(x) for x in j2),
        num_replicas=int(num_replicas),
        sweeps_per_temperature=int(sweeps_per_temperature),
        max_sweeps=int(max_sweeps),
        exchange=bool(exchange),
        exchange_every=int(exchange_every),
        start=start,
        bits=int(bits),
        generator=generator,
        rule=rule,
        seed=int(simulation_seed),
    )
    _check(settings)
    limits = {"max_temperature": max_temperature, "min_j2": min_j2, "max_j2": max_j2}
    points = ising_grid.points(
        ladder,
        settings.j2,
        region=ising_grid.region(region, **limits),
        temperature_stride=temperature_stride,
        j2_subset=j2_subset,
    )
    replicas = ising_grid.replicas(
        settings.num_replicas, split=split, fractions=fractions, replicas_per_point=replicas_per_point
    )
    order = (points[None, :], replicas[:, None]) if split == "train" else (points[:, None], replicas[None, :])
    point, replica = (x.reshape(-1) for x in np.broadcast_arrays(*order))
    rows = point * (settings.num_replicas // WORD) + replica // WORD
    recipe = make_recipe(settings)
    return Dataset(
        spec={
            "spins": jax.ShapeDtypeStruct((settings.size, settings.size, 1), jnp.int8),
            **{key: recipe.spec[key] for key in _LABELS},
        },
        num_examples=len(rows),
        recipe=recipe,
        rows=rows,
        decode=_decoder((replica % WORD).astype(np.uint8)),
        record={key: recipe.spec[key] for key in ("words", *_LABELS)},
        keep=_equilibrated(rows) if only_equilibrated else None,
    )


def make_recipe(settings: Settings) -> Recipe:
    """How the records are made: shard ``i`` is the row of coupling ``i``, temperature by temperature, word by word.

    Args:
      settings: what the records depend on.
    """
    shape = jax.ShapeDtypeStruct
    words_per_point = settings.num_replicas // WORD
    config = settings._asdict() | {"temperatures": list(settings.temperatures), "j2": list(settings.j2)}
    return Recipe(
        name=f"ising_L{settings.size}",
        config={"version": VERSION, **config},
        spec={
            "words": shape((settings.size, settings.size), jnp.uint32),
            "temperature": shape((), jnp.float32),
            "j2": shape((), jnp.float32),
            "equilibrated": shape((), jnp.int32),
            **{name: shape(form, jnp.float32) for name, form in EVIDENCE.items()},
        },
        shard_lengths=(len(settings.temperatures) * words_per_point,) * len(settings.j2),
        shard=lambda i: row(settings, i),
        remarks=_remarks,
        workers=_cores(),  # the simulation of a row keeps one of them busy
    )


def row(settings: Settings, i: int) -> list[dict[str, np.ndarray]]:
    """Simulates the row of one coupling, alone: its records are the same whichever rows are simulated beside it.

    Args:
      settings: of the simulation.
      i: number of the coupling in ``settings.j2``.

    Returns:
      Records as :func:`make_dataset` describes them, by temperature, then by word.
    """
    found = ising.equilibrate(
        stream_key(settings.seed, "ising"),
        size=settings.size,
        temperatures=np.asarray(settings.temperatures, np.float32),
        j2=np.asarray(settings.j2[i : i + 1], np.float32),
        rows=np.array([i], np.int32),
        num_replicas=settings.num_replicas,
        sweeps_per_temperature=settings.sweeps_per_temperature,
        max_sweeps=settings.max_sweeps,
        exchange=settings.exchange,
        exchange_every=settings.exchange_every,
        start=settings.start,
        bits=settings.bits,
        generator=settings.generator,
        rule=settings.rule,
        packed=True,
    )
    words = np.asarray(found.states, np.uint32)[0]
    evidence = {name: np.asarray(getattr(found.evidence, name), np.float32)[0] for name in EVIDENCE}
    passed = np.asarray(found.evidence.equilibrated)[0].astype(np.int32)
    return [
        {
            "words": word,
            "temperature": np.float32(temperature),
            "j2": np.float32(settings.j2[i]),
            "equilibrated": passed[t],
            **{name: values[t] for name, values in evidence.items()},
        }
        for t, temperature in enumerate(settings.temperatures)
        for word in words[t]
    ]


def _cores() -> int:
    """Processor cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _remarks(records: Mapping[str, np.ndarray]) -> list[str]:
    """One line for a row with points that did not reach equilibrium."""
    temperatures, first = np.unique(records["temperature"], return_index=True)
    passed = records["equilibrated"][first] == 1
    if passed.all():
        return []
    named = []
    for stretch in np.split(np.arange(len(passed)), np.flatnonzero(np.diff(passed)) + 1):
        if not passed[stretch[0]]:
            ends = dict.fromkeys(f"{temperatures[k]:g}" for k in (stretch[0], stretch[-1]))
            named.append(" to ".join(ends))
    count = f"{np.sum(~passed)} of {len(passed)} temperatures"
    return [f"J2 = {records['j2'][0]:g}: {count} did not reach equilibrium (T = {', '.join(named)})"]


def _decoder(bits: np.ndarray) -> Callable[[Batch, Array], Batch]:
    """``Dataset.decode`` for examples of which number i is bit ``bits[i]`` of its record."""

    def decode(records: Batch, index: Array) -> Batch:
        bit = jnp.asarray(bits)[index].astype(jnp.uint32)[:, None, None]
        up = ((records["words"] >> bit) & 1).astype(jnp.int8)
        return {"spins": (2 * up - 1)[..., None], **{key: records[key] for key in _LABELS}}

    return decode


def _equilibrated(rows: np.ndarray) -> Callable[[Read], np.ndarray]:
    """``Dataset.keep`` for the examples whose records are flagged as equilibrated."""

    def keep(read: Read) -> np.ndarray:
        records, place = np.unique(rows, return_inverse=True)
        chunks = np.split(records, range(1024, len(records), 1024))
        flags = np.concatenate([read(chunk)["equilibrated"] for chunk in chunks])
        return np.flatnonzero(flags[place] == 1)

    return keep


def _monotonic(temperatures: Sequence[float]) -> tuple[float, ...]:
    """The temperatures from hot to cold."""
    ladder = np.asarray(temperatures, np.float64)
    if ladder.ndim != 1 or not ladder.size or not np.isfinite(ladder).all() or ladder.min() <= 0:
        raise ValueError(f"temperatures: expected finite positive numbers, got {tuple(temperatures)}")
    ladder = ladder if ladder[0] > ladder[-1] else ladder[::-1]
    if (np.diff(ladder) >= 0).any():
        raise ValueError("temperatures: expected them in descending or ascending order, each one once")
    return tuple(ladder.tolist())


def _check(settings: Settings) -> None:
    couplings = np.asarray(settings.j2, np.float64)
    if settings.size < 4 or settings.size % 2:
        raise ValueError(f"size: expected an even integer of at least 4, got {settings.size}")
    if not couplings.size or not np.isfinite(couplings).all() or couplings.min() < 0 or (np.diff(couplings) <= 0).any():
        raise ValueError(f"j2: expected increasing finite numbers of at least 0, got {settings.j2}")
    if settings.num_replicas < WORD or settings.num_replicas % WORD:
        raise ValueError(f"num_replicas: expected a multiple of {WORD}, got {settings.num_replicas}")
    if settings.sweeps_per_temperature < 1 or settings.exchange_every < 1:
        found = f"{settings.sweeps_per_temperature} and {settings.exchange_every}"
        raise ValueError(f"sweeps_per_temperature, exchange_every: expected integers of at least 1, got {found}")
    if settings.sweeps_per_temperature % min(settings.exchange_every, settings.sweeps_per_temperature):
        expected = f"a multiple of exchange_every = {settings.exchange_every}"
        raise ValueError(f"sweeps_per_temperature: expected {expected}, got {settings.sweeps_per_temperature}")
    if not settings.exchange and settings.start == "both" and settings.num_replicas % (2 * WORD):
        expected = f"a multiple of {2 * WORD} without exchange, from both starts"
        raise ValueError(f"num_replicas: expected {expected}, got {settings.num_replicas}")
    if settings.max_sweeps < settings.sweeps_per_temperature:
        expected = f"at least sweeps_per_temperature = {settings.sweeps_per_temperature}"
        raise ValueError(f"max_sweeps: expected {expected}, got {settings.max_sweeps}")
    for name, known in (("start", STARTS), ("bits", BITS), ("generator", GENERATORS), ("rule", RULES)):
        if getattr(settings, name) not in known:
            available = ", ".join(map(str, known))
            raise ValueError(f"{name}: there is no {getattr(settings, name)!r}; available: {available}")
    stream_key(settings.seed, "ising")  # refuses a seed that is no seed
