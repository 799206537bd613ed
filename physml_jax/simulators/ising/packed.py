"""Single-spin Monte Carlo of the J1-J2 Ising model, 32 replicas in a word.

Diagonal neighbours need four sublattices. Words of 32 replicas of one (T, J2) are updated by bitwise arithmetic: the
numbers of neighbours by full adders, the comparison of random numbers with thresholds digit by digit, so that T and J2
are data and every replica has its own random numbers. A tile of a few words stays in the caches of a processor while
it goes through all its sweeps.

References:
  Block, Virnau, Preis, Comput. Phys. Commun. 181, 1549 (2010), for many spins in one word on graphics processors;
  Jacobs and Rebbi, J. Comput. Phys. 41, 203 (1981), for multi-spin coding.
"""

import functools
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from physml_jax.simulators.ising import sublattices, thresholds
from physml_jax.simulators.ising.random_words import GENERATORS, RandomWords
from physml_jax.typing import Array, Key

#: Random bits that a decision may use.
BITS = (16, 24, 32, 48)
RULES = ("metropolis", "heat_bath")
#: Words that share one pass on a CPU: one vector of 512 bits.
CPU_TILE = 16
#: bits -> bits of one loop body on a CPU. Beyond 20 the vectoriser gives up.
CPU_CHUNK = {16: 8, 24: 12, 32: 8, 48: 16}
#: The same with a field, where a bit has twice as many masks.
CPU_CHUNK_FIELD = 8


def sweeps(
    key: Key,
    words: Array,
    temperature: Array,
    j2: Array,
    *,
    num_sweeps: int | Array,
    first_sweep: int | Array = 0,
    lanes: Array | None = None,
    field: Array | None = None,
    bits: int = 24,
    generator: str = "hash",
    rule: str = "metropolis",
    tile_size: int | None = None,
    chunk_bits: int | None = None,
) -> Array:
    """Sweeps of all sites of packed lattices, each at its own temperature and couplings.

    What becomes of a word depends on ``key``, its lane, ``first_sweep``, its temperature, couplings and spins, and the
    keyword arguments before ``tile_size``; bit for bit on nothing else. Sweeps can be cut: n sweeps, then m more with
    ``first_sweep`` advanced by n, give the same as n + m. Call it inside ``jax.jit``. On processors with AVX-512, the
    flag ``--xla_cpu_prefer_vector_width=512`` of ``XLA_FLAGS`` may help; it is left to you.

    Args:
      key: typed key.
      words: uint32 [P, L, L], bit r is the spin of replica r of the word, 1 for up; even L >= 4, periodic.
      temperature: float32 [P], in units of J1, not negative.
      j2: float32 [P], coupling across the diagonals in units of J1, positive is antiferromagnetic.
      num_sweeps: updates of every site, from 0; may be traced.
      first_sweep: number of the first sweep in the random stream; may be traced.
      lanes: int32 or uint32 [P], identity of every word in the random stream; ``None`` is 0 to P - 1. Stay
        below 2^34 / L^2: beyond that, lanes share random numbers.
      field: float32 [P], magnetic field in units of J1; ``None`` costs nothing; with one, sweeps on a CPU
        take about twice as long.
      bits: random bits of a decision, 16, 24, 32 or 48. Probabilities are multiples of 2^-bits, and smaller ones than
        half of that never happen: 24 bits know excitations up to 17 T, 32 bits up to 22 T, 48 bits up to 33 T. With 16
        (11 T) ordered phases are visibly too cold. The last 32 of 48 bits are common to the replicas of a word, and
        matter where the first 16, their own, do not decide: faster and finer than 24 bits, at the price that the other
        31 replicas join a rare flip with a chance of 2^-16 each.
      generator: "hash", or "threefry" as a slow reference.
      rule: "metropolis" (a flip without cost happens with probability 1/2) or "heat_bath".
      tile_size: words of one pass; ``None`` is 16 on a CPU and all elsewhere.
      chunk_bits: random bits of one loop body, a divisor of those that a replica has for itself; ``None`` is 8 to 16
        on a CPU, all elsewhere, and 1 for threefry.

    Returns:
      uint32 [P, L, L].

    Raises:
      ValueError: if an argument has the wrong shape, dtype or value.
    """
    _check(words, temperature, j2, lanes, field, num_sweeps)
    check_choices(bits, generator, rule)
    cpu = jax.default_backend() == "cpu"
    own = thresholds.own_bits(bits)
    if chunk_bits is None:
        on_cpu = CPU_CHUNK[bits] if field is None else CPU_CHUNK_FIELD
        chunk_bits = 1 if generator == "threefry" else on_cpu if cpu else own
    if chunk_bits < 1 or own % chunk_bits:
        raise ValueError(f"chunk_bits: expected a divisor of the {own} bits of a replica, got {chunk_bits}")
    num = words.shape[0]
    if num == 0:
        return words
    tile_size = min(tile_size or (CPU_TILE if cpu else num), num)
    lanes = jnp.arange(num, dtype=jnp.uint32) if lanes is None else lanes.astype(jnp.uint32)

    energies = thresholds.class_energies(j2, field)
    probability = thresholds.flip_probability(energies, temperature, rule)
    signs = jnp.stack([thresholds.all_ones(energies > 0), thresholds.all_ones(energies < 0)])
    digits, tails = thresholds.split_thresholds(probability, bits)
    digits = digits.reshape(own // chunk_bits, chunk_bits, -1, num)

    def tile(args):
        words, lanes, *tables = args
        decide = functools.partial(_decide, tables=tables, rule=rule, field=field is not None)
        return run(key, words, lanes, decide, GENERATORS[generator], bits, num_sweeps, first_sweep)

    # The last axis of everything goes to the front, in whole tiles; what fills the last one repeats the last word.
    number = jnp.minimum(jnp.arange(-(-num // tile_size) * tile_size), num - 1).reshape(-1, tile_size)
    tables = (digits, signs) if tails is None else (digits, signs, tails)
    tiles = (words[number], lanes[number], *(jnp.moveaxis(x[..., number], -2, 0) for x in tables))
    return lax.map(tile, tiles).reshape(-1, *words.shape[1:])[:num]


def run(
    key: Key,
    words: Array,
    lanes: Array,
    decide: Callable,
    random: RandomWords,
    bits: int,
    num_sweeps: int | Array,
    first_sweep: int | Array,
) -> Array:
    """All sweeps of one tile of words, uint32 [W, L, L].

    ``decide(parts, number, word, keys, scratch) -> (flip, scratch)`` says which spins of a sublattice turn over, as
    masks [h, h, W]; ``word(keys[k])`` are the random words of bit k, the next of ``keys`` is for a coin, and one more
    for what the replicas of a word share. ``scratch`` [h, h, W] has any content: an array that a loop may use at once,
    where zeros would be copied first.
    """
    half = words.shape[1] // 2
    sites = random.sites(lanes, half)
    own = thresholds.own_bits(bits)
    draws = own + 1 if bits == own else own + 2

    def sweep(i, carry):
        parts, scratch = carry
        keys = random.keys(key, first_sweep + i, (4, draws))
        for n, number in enumerate(sublattices.ORDER):
            flip, scratch = decide(parts, number, functools.partial(random.word, sites), keys[n], scratch)
            parts = sublattices.replace(parts, number, sublattices.interior(parts, number) ^ flip)
        return parts, scratch

    scratch = jnp.zeros((half, half, len(lanes)), jnp.uint32)
    parts, _ = lax.fori_loop(0, num_sweeps, sweep, (sublattices.split(words), scratch))
    return sublattices.join(parts)


def _decide(parts, number, word, keys, scratch, *, tables, rule, field):
    """Thresholds as data: digits [chunks, bits, classes, W], signs [2, classes, W] and maybe tails [classes, W]."""
    digits, signs, *tails = tables
    chunks, bits = digits.shape[:2]

    def compare(result, classes, digits, keys):
        for k in range(bits):
            # One slice per mask: slices of a slice become inputs of the loop, too many for the vectoriser with a field.
            masks = [digits[k, i] for i in range(len(classes))]
            result = thresholds.below(result, thresholds.select(classes, masks), word(keys[k]))
        return result

    def chunk(result, xs):
        # The barrier keeps XLA from slicing the chunk anew for every word, inside the loop that should be vectorised.
        digits, keys, zero, keep = lax.optimization_barrier(xs)
        classes = thresholds.one_hot(*sublattices.neighbours(parts, number, zero), field=field)
        return compare(result & keep, classes, digits, keys), None

    near, diagonal = sublattices.neighbours(parts, number)
    classes = thresholds.one_hot(near, diagonal, field=field)
    own, coin, *shared = keys[: chunks * bits], *keys[chunks * bits :]
    if tails:
        scratch = thresholds.shared_decision(classes, tails[0], word(shared[0]))
    if chunks == 1:
        result = compare(scratch if tails else jnp.zeros_like(scratch), classes, digits[0], own)
    else:
        # All zeros, but XLA does not know: it would compute the classes once, store them and read them for every chunk.
        zeros = (lax.population_count(digits[:, 0, 0, 0]) >> 6).astype(jnp.int32)
        keep = thresholds.all_ones((jnp.arange(chunks) > 0) | bool(tails))
        result, _ = lax.scan(chunk, scratch, (digits, own.reshape(chunks, bits, *own.shape[1:]), zeros, keep))

    upwards = thresholds.orientation(near, diagonal, sublattices.interior(parts, number), field=field)
    negative = thresholds.gains(classes, signs, upwards)
    flip = result ^ negative if rule == "heat_bath" else result | negative
    if not field:
        flip |= thresholds.both_level(near, diagonal) & word(coin)
    return flip, result


def check_choices(bits: int, generator: str, rule: str) -> None:
    """Raises ValueError if one of them is unknown."""
    if bits not in BITS:
        raise ValueError(f"bits: expected one of {list(BITS)}, got {bits}")
    if generator not in GENERATORS:
        raise ValueError(f"generator: expected one of {sorted(GENERATORS)}, got {generator!r}")
    if rule not in RULES:
        raise ValueError(f"rule: expected one of {list(RULES)}, got {rule!r}")


def check_words(words: Array, num_sweeps: int | Array) -> None:
    """Raises ValueError unless ``words`` is uint32 [..., L, L] with an even L >= 4."""
    if words.ndim < 2 or words.dtype != jnp.uint32 or words.shape[-2] != words.shape[-1]:
        raise ValueError(f"words: expected uint32 [..., L, L], got {words.dtype} {list(words.shape)}")
    size = words.shape[-1]
    if size < 4 or size % 2:
        raise ValueError(f"words: expected an even size L >= 4, got L = {size}")
    if isinstance(num_sweeps, int) and num_sweeps < 0:
        raise ValueError(f"num_sweeps: expected 0 or more, got {num_sweeps}")


def _check(words, temperature, j2, lanes, field, num_sweeps):
    check_words(words, num_sweeps)
    if words.ndim != 3:
        raise ValueError(f"words: expected uint32 [P, L, L], got {words.dtype} {list(words.shape)}")
    num = len(words)
    for name, x in (("temperature", temperature), ("j2", j2), ("field", field)):
        if x is None and name == "field":
            continue
        if jnp.shape(x) != (num,) or x.dtype != jnp.float32:
            raise ValueError(f"{name}: expected float32 [{num}], one per word, got {x.dtype} {list(jnp.shape(x))}")
        if not isinstance(x, jax.core.Tracer):
            x = np.asarray(x)
            if not np.isfinite(x).all() or (name == "temperature" and (x < 0).any()):
                bound = " that are not negative" if name == "temperature" else ""
                raise ValueError(f"{name}: expected finite numbers{bound}")
    if lanes is not None and (lanes.shape != (num,) or lanes.dtype not in (jnp.int32, jnp.uint32)):
        raise ValueError(f"lanes: expected int32 or uint32 [{num}], got {lanes.dtype} {list(lanes.shape)}")
