"""States in equilibrium at all temperatures of rows of J2: successive cooling, replica exchange, and runs of adaptive
length.

Without exchange the hot replicas of a row are cooled from temperature to temperature, and the ordered ones are heated
in the opposite direction from a ground state at the lowest temperature. Where both ways lead to the same averages there
is no hysteresis; cooling alone could never show one. A replica's states at different temperatures are one chain.

With exchange all temperatures of a row run at the same time and hand states to their neighbours, see
``simulators.ising.exchange``. Ladders of different replica number are independent.

What happens to a word of a row is a function of the key, the number of the row, the temperatures and the keywords, and
not of the rows beside it.
"""

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from physml_jax.simulators.ising import packing
from physml_jax.simulators.ising.cooling import cool
from physml_jax.simulators.ising.equilibrium import Evidence
from physml_jax.simulators.ising.exchange import temper
from physml_jax.simulators.ising.initial import initial_words
from physml_jax.simulators.ising.packing import WORD
from physml_jax.typing import Array, Key

STARTS = ("hot", "ordered", "both")


class Annealed(NamedTuple):
    """States at every point and the evidence that they are in equilibrium.

    Attributes:
      states: int8 [nJ, nT, R, L, L], or packed uint32 [nJ, nT, R/32, L, L].
      evidence: ``Evidence`` of [nJ, nT] points.
    """

    states: Array
    evidence: Evidence


def anneal(
    key: Key,
    *,
    size: int,
    temperatures: Array,
    j2: Array,
    num_replicas: int,
    sweeps_per_temperature: int,
    exchange: bool = False,
    start: str = "both",
    rows: Array | None = None,
    exchange_every: int = 10,
    packed: bool = False,
    bits: int = 24,
    generator: str = "hash",
    rule: str = "metropolis",
) -> Annealed:
    """States of the J1-J2 model at all temperatures of all rows, after equally many sweeps of each.

    Observables are measured during the second half of the sweeps at every temperature. Call it inside ``jax.jit``.

    Args:
      key: typed key.
      size: linear size L, even, at least 4.
      temperatures: float32 [nT], positive and descending, in units of J1.
      j2: float32 [nJ], couplings across the diagonals in units of J1, antiferromagnetic.
      num_replicas: states R of every point, a multiple of 32; of 64 without exchange if ``start`` is "both".
      sweeps_per_temperature: updates of every site at each temperature; a multiple of ``exchange_every`` if larger.
      exchange: replica exchange over the temperatures, all at the same time; else one after the other.
      start: "hot" (random spins), "ordered" (a ground state, random among its symmetry images), or "both": even
        replicas hot, odd ones ordered. Only "both" can show that the start is forgotten.
      rows: int32 [nJ], numbers of the rows, which make their random numbers different; ``None`` is 0 to nJ - 1.
      exchange_every: sweeps between exchanges, and between measurements.
      packed: return words instead of spins.
      bits: random bits of a decision, see ``packed.sweeps``.
      generator: "hash" or "threefry".
      rule: "metropolis" or "heat_bath".

    Returns:
      ``Annealed``.

    Raises:
      ValueError: if an argument is outside what is described here.

    Example:
      >>> import jax
      >>> import jax.numpy as jnp
      >>> temperatures = jnp.linspace(3.0, 1.0, 5, dtype=jnp.float32)
      >>> run = jax.jit(lambda key: anneal(key, size=4, temperatures=temperatures, j2=jnp.zeros(1, jnp.float32),
      ...                                  num_replicas=32, sweeps_per_temperature=100, exchange=True))
      >>> run(jax.random.key(0)).states.shape
      (1, 5, 32, 4, 4)
    """
    temperatures, j2, rows = _grid(temperatures, j2, rows)
    interval = _interval(sweeps_per_temperature, exchange_every)
    _check(size, num_replicas, start, exchange)
    kernel = {"bits": bits, "generator": generator, "rule": rule}
    rounds = sweeps_per_temperature // interval
    if exchange:
        words = initial_words(
            key, rows, j2, size=size, num_words=num_replicas // WORD, num_slots=len(temperatures), start=start
        )
        words, evidence = temper(
            key,
            words,
            temperatures,
            j2,
            rows,
            rounds,
            first_round=0,
            measure_from=rounds // 2,
            interval=interval,
            **kernel,
        )
    else:
        words, evidence = cool(
            key,
            temperatures,
            j2,
            rows,
            rounds,
            size=size,
            num_replicas=num_replicas,
            start=start,
            interval=interval,
            **kernel,
        )
    return Annealed(words if packed else packing.unpack(words), evidence)


def equilibrate(
    key: Key,
    *,
    size: int,
    temperatures: Sequence[float],
    j2: Sequence[float],
    num_replicas: int,
    sweeps_per_temperature: int = 1000,
    max_sweeps: int = 64_000,
    exchange: bool = True,
    start: str = "both",
    rows: Sequence[int] | None = None,
    exchange_every: int = 10,
    packed: bool = False,
    bits: int = 24,
    generator: str = "hash",
    rule: str = "metropolis",
    first_sweep: int = 0,
    words: np.ndarray | None = None,
    workers: int = 1,
    progress: Callable[[int, int, Evidence], None] | None = None,
) -> Annealed:
    """Runs every row until all of its points pass the test of equilibrium, doubling the number of sweeps each time.

    A host function; it compiles what it needs. With exchange a row goes on where it was, and each test looks at the
    second half of all sweeps so far. Without, cooling starts again with twice the sweeps at every temperature.

    Nothing is raised where ``max_sweeps`` do not suffice: ``evidence.equilibrated`` is False there, and
    ``equilibrium.not_equilibrated`` says it in words.

    A row alone gives the same bits as the row among others, and ends when it passes itself. With exchange rows run one
    by one, each on one core of a CPU; ``workers=2`` keeps two busy. Who calls it for one row at a time, such as a
    builder of shards, gets the same from two threads of his own (XLA releases the interpreter) or from two processes.
    Without exchange the rows of a worker run together: a single row costs as much there as eight.

    Args:
      key: typed key.
      size: linear size L.
      temperatures: [nT], descending, in units of J1.
      j2: [nJ], in units of J1.
      num_replicas: states of every point.
      sweeps_per_temperature: sweeps before the first test.
      max_sweeps: no test after more than these.
      exchange: as for :func:`anneal`.
      start: likewise.
      rows: likewise.
      exchange_every: likewise.
      packed: likewise.
      bits: likewise.
      generator: likewise.
      rule: likewise.
      first_sweep: go on after so many sweeps, which left ``words`` behind; the next test is after twice as many. The
        result is that of a run without interruption.
      words: uint32 [nJ, nT, R/32, L, L], only with ``first_sweep``.
      workers: rows that are simulated at the same time.
      progress: called with the number of the row, its sweeps and its evidence after every test, from any thread.

    Returns:
      ``Annealed`` of NumPy arrays.

    Raises:
      ValueError: if an argument is outside what is described here.
    """
    temperatures, j2, rows = _grid(temperatures, j2, rows)
    interval = _interval(sweeps_per_temperature, exchange_every)
    _check(size, num_replicas, start, exchange)
    if max_sweeps < sweeps_per_temperature:
        raise ValueError(f"max_sweeps: expected at least sweeps_per_temperature, got {max_sweeps}")
    if workers < 1:
        raise ValueError(f"workers: expected at least 1, got {workers}")
    shape = (len(j2), len(temperatures), num_replicas // WORD, size, size)
    if (words is None) != (first_sweep == 0):
        raise ValueError("first_sweep, words: expected both or none of them")
    if words is not None:
        if not exchange or first_sweep < 0 or first_sweep % interval:
            raise ValueError(f"first_sweep: expected a multiple of {interval}, with exchange, got {first_sweep}")
        if 2 * first_sweep > max_sweeps:
            raise ValueError(f"first_sweep: expected at most half of max_sweeps = {max_sweeps}, got {first_sweep}")
        if words.shape != shape or words.dtype != np.uint32:
            raise ValueError(f"words: expected uint32 {list(shape)}, got {words.dtype} {list(words.shape)}")

    names = ("interval", "bits", "generator", "rule")
    sizes = {"size": size, "num_replicas": num_replicas, "start": start}
    kernel = {"interval": interval, "bits": bits, "generator": generator, "rule": rule}
    go_on = jax.jit(temper, static_argnames=names)
    begin = jax.jit(initial_words, static_argnames=("size", "num_words", "num_slots", "start"))
    again = jax.jit(cool, static_argnames=(*names, *sizes))

    def attempt(which, state, done, target):
        """The rows ``which``, from ``done`` to ``target`` sweeps."""
        coupling, row, rounds = j2[which], rows[which], np.int32(target // interval)
        if not exchange:
            return again(key, temperatures, coupling, row, rounds, **sizes, **kernel)
        if state is None and words is not None:
            state = jnp.asarray(words[which])
        elif state is None:
            state = begin(key, row, coupling, size=size, num_words=shape[2], num_slots=shape[1], start=start)
        past = {"first_round": np.int32(done // interval), "measure_from": rounds // 2}
        return go_on(key, state, temperatures, coupling, row, rounds, **past, **kernel)

    def run(which):
        found, state, done, target = {}, None, first_sweep, first_sweep * 2 or sweeps_per_temperature
        while True:
            state, evidence = attempt(which, state, done, target)
            evidence = jax.tree.map(np.asarray, evidence)
            finished = evidence.equilibrated.all(1) | (2 * target > max_sweeps)
            for k, i in enumerate(which):
                one = jax.tree.map(lambda x: x[k : k + 1], evidence)
                if progress is not None:
                    progress(int(rows[i]), target, one)
                if finished[k]:
                    found[i] = Annealed(np.asarray(state[k : k + 1]), one)
            which, done, target = which[~finished], target, 2 * target
            if not len(which):
                return found

    # Cooling has a few words of each row at a time, too few to fill the vector units: all rows share a loop. An
    # exchange has the words of all temperatures.
    every = np.arange(len(j2))
    groups = np.array_split(every, len(every) if exchange else min(workers, len(every)))
    with ThreadPoolExecutor(workers) as pool:
        found = {i: one for part in pool.map(run, groups) for i, one in part.items()}
    result = jax.tree.map(lambda *x: np.concatenate(x), *(found[i] for i in every))
    return result if packed else result._replace(states=np.asarray(packing.unpack(jnp.asarray(result.states))))


def _interval(sweeps, exchange_every):
    if exchange_every < 1 or sweeps < 1:
        raise ValueError(
            f"sweeps_per_temperature, exchange_every: expected at least 1, got {sweeps} and {exchange_every}"
        )
    interval = min(exchange_every, sweeps)
    if sweeps % interval:
        raise ValueError(
            f"sweeps_per_temperature: expected a multiple of exchange_every = {exchange_every}, got {sweeps}"
        )
    return interval


def _grid(temperatures, j2, rows):
    """The grid as arrays float32 [nT], float32 [nJ], int32 [nJ], checked where the values are known."""
    temperatures, j2 = jnp.asarray(temperatures, jnp.float32), jnp.asarray(j2, jnp.float32)
    if temperatures.ndim != 1 or not len(temperatures):
        raise ValueError(f"temperatures: expected one axis of at least one number, got shape {temperatures.shape}")
    if j2.ndim != 1 or not len(j2):
        raise ValueError(f"j2: expected one axis of at least one number, got shape {j2.shape}")
    rows = jnp.arange(len(j2), dtype=jnp.int32) if rows is None else jnp.asarray(rows, jnp.int32)
    if rows.shape != j2.shape:
        raise ValueError(f"rows: expected one number for each of {len(j2)} j2, got shape {rows.shape}")
    if not isinstance(temperatures, jax.core.Tracer):
        known = np.asarray(temperatures)
        if not (np.isfinite(known).all() and (known > 0).all() and (np.diff(known) < 0).all()):
            raise ValueError("temperatures: expected finite positive numbers in descending order, each one once")
    if not isinstance(j2, jax.core.Tracer) and not np.isfinite(np.asarray(j2)).all():
        raise ValueError("j2: expected finite numbers")
    if not isinstance(rows, jax.core.Tracer):
        known = np.asarray(rows)
        if (known < 0).any() or len(np.unique(known)) < len(known):
            raise ValueError(f"rows: expected different numbers of at least 0, got {known.tolist()}")
    return temperatures, j2, rows


def _check(size, num_replicas, start, exchange):
    if size < 4 or size % 2:
        raise ValueError(f"size: expected an even integer of at least 4, got {size}")
    if start not in STARTS:
        raise ValueError(f"start: expected one of {', '.join(STARTS)}, got {start!r}")
    multiple = WORD if exchange or start != "both" else 2 * WORD
    if num_replicas < 1 or num_replicas % multiple:
        why = " without exchange, from both starts" if multiple > WORD else ""
        raise ValueError(f"num_replicas: expected a multiple of {multiple}{why}, got {num_replicas}")
