"""Packed sweeps at a few fixed temperatures, compiled for them: for replica exchange on a ladder.

The thresholds are constants of the program, so that a random bit is compared with those classes only whose threshold
has this bit set, or with the others if they are fewer, without reading masks. Every point becomes a body of its own,
with its own compilation: worth it from about ten thousand sweeps on, for at most some sixty points.
"""

import functools
from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from physml_jax.simulators.ising import sublattices, thresholds
from physml_jax.simulators.ising.packed import CPU_TILE, check_choices, check_words, run
from physml_jax.simulators.ising.random_words import GENERATORS
from physml_jax.typing import Array, Key


def ladder_sweeps(
    key: Key,
    words: Array,
    temperature: Sequence[float],
    j2: Sequence[float],
    *,
    num_sweeps: int | Array,
    first_sweep: int | Array = 0,
    lanes: Array | None = None,
    bits: int = 24,
    generator: str = "hash",
    rule: str = "metropolis",
    tile_size: int | None = None,
) -> Array:
    """``packed.sweeps`` for temperatures and couplings that are known when the program is compiled.

    The same random numbers and the same decisions: with equal lanes, the states are those of ``packed.sweeps``.

    Args:
      key: typed key.
      words: uint32 [N, W, L, L], W words at each of N points.
      temperature: N numbers, in units of J1, not negative.
      j2: N numbers.
      num_sweeps: updates of every site; may be traced.
      first_sweep: number of the first sweep in the random stream; may be traced.
      lanes: int32 or uint32 [N, W]; ``None`` is 0 to N W - 1.
      bits: as for ``packed.sweeps``.
      generator: as for ``packed.sweeps``.
      rule: as for ``packed.sweeps``.
      tile_size: words of one pass; ``None`` is 16 on a CPU and all of a point elsewhere.

    Returns:
      uint32 [N, W, L, L].

    Raises:
      ValueError: if an argument has the wrong shape, dtype or value, or the temperatures are traced.
    """
    check_words(words, num_sweeps)
    check_choices(bits, generator, rule)
    if words.ndim != 4:
        raise ValueError(f"words: expected uint32 [N, W, L, L], got {words.dtype} {list(words.shape)}")
    num, width = words.shape[:2]
    values = {}
    for name, x in (("temperature", temperature), ("j2", j2)):
        if isinstance(x, jax.core.Tracer):
            raise ValueError(f"{name}: expected numbers that are known at compilation, got a traced array")
        values[name] = np.asarray(x, np.float32)
        if values[name].shape != (num,) or not np.isfinite(values[name]).all():
            raise ValueError(f"{name}: expected {num} finite numbers, one per point, got {x}")
    if (values["temperature"] < 0).any():
        raise ValueError(f"temperature: expected numbers that are not negative, got {temperature}")
    if lanes is None:
        lanes = jnp.arange(num * width, dtype=jnp.uint32).reshape(num, width)
    if lanes.shape != (num, width) or lanes.dtype not in (jnp.int32, jnp.uint32):
        raise ValueError(f"lanes: expected int32 or uint32 [{num}, {width}], got {lanes.dtype} {list(lanes.shape)}")
    lanes = lanes.astype(jnp.uint32)
    if words.size == 0:
        return words

    tile_size = min(tile_size or (CPU_TILE if jax.default_backend() == "cpu" else width), width)
    number = np.minimum(np.arange(-(-width // tile_size) * tile_size), width - 1).reshape(-1, tile_size)
    done = []
    for n in range(num):
        with jax.ensure_compile_time_eval():
            energies = thresholds.class_energies(jnp.asarray(values["j2"][n : n + 1]), None)
            chance = thresholds.flip_probability(energies, jnp.asarray(values["temperature"][n : n + 1]), rule)
            masks, tails = thresholds.split_thresholds(chance, bits)
            digits, tails = np.asarray(masks)[:, :, 0] != 0, None if tails is None else np.asarray(tails)[:, 0]
            signs = np.sign(np.asarray(energies)[:, 0])
        decide = functools.partial(_decide, digits=digits, tails=tails, signs=signs, rule=rule)

        def tile(args, decide=decide):
            return run(key, *args, decide, GENERATORS[generator], bits, num_sweeps, first_sweep)

        moved = lax.map(tile, (words[n][number], lanes[n][number]))
        done.append(moved.reshape(-1, *words.shape[2:])[:width])
    return jnp.stack(done)


def _decide(parts, number, word, keys, scratch, *, digits, tails, signs, rule):
    """Thresholds as constants: digits bool [bits, classes], tails uint32 [classes] or ``None``, signs [classes]."""
    near, diagonal = sublattices.neighbours(parts, number)
    classes = thresholds.one_hot(near, diagonal, field=False)
    zero = jnp.zeros_like(classes[0])
    result = zero
    if tails is not None:
        result = thresholds.shared_decision(classes, tails[:, None], word(keys[len(digits) + 1]))
    for k, digit in enumerate(digits):
        result = thresholds.below(result, _any_of(classes, digit, zero), word(keys[k]))
    upwards = thresholds.orientation(near, diagonal, sublattices.interior(parts, number), field=False)
    negative = (upwards & _any_of(classes, signs < 0, zero)) | (~upwards & _any_of(classes, signs > 0, zero))
    flip = result ^ negative if rule == "heat_bath" else result | negative
    level = thresholds.both_level(near, diagonal)  # decided by a coin, whatever the digits said
    return (level & word(keys[len(digits)])) | (~level & flip), scratch


def _any_of(classes, chosen, zero):
    """Mask of the spins of the chosen classes, of any content where a = b = 0."""
    if 2 * sum(chosen) > len(classes):
        return ~_any_of(classes, [not yes for yes in chosen], zero)
    return functools.reduce(jnp.bitwise_or, [c for c, yes in zip(classes, chosen, strict=True) if yes], zero)
