"""Successive cooling: hot replicas go down the temperatures, ordered ones come up from a ground state."""

import jax.numpy as jnp
from jax import lax

from physml_jax.simulators.ising import equilibrium
from physml_jax.simulators.ising.counting import replica_sums
from physml_jax.simulators.ising.equilibrium import Evidence, Tally
from physml_jax.simulators.ising.initial import SWEEPS, initial_words, lanes, stream
from physml_jax.simulators.ising.packed import sweeps
from physml_jax.simulators.ising.packing import WORD
from physml_jax.typing import Array, Key


def cool(
    key: Key,
    temperatures: Array,
    j2: Array,
    rows: Array,
    num_rounds: Array | int,
    *,
    size: int,
    num_replicas: int,
    start: str,
    interval: int,
    **kernel,
) -> tuple[Array, Evidence]:
    """Hot replicas down the temperatures, ordered ones up, with a snapshot at each.

    Args:
      key: typed key.
      temperatures: float32 [nT], descending.
      j2: float32 [nJ].
      rows: int32 [nJ].
      num_rounds: rounds at every temperature, the second half of them measured; may be traced.
      size: L.
      num_replicas: R.
      start: "hot", "ordered" or "both".
      interval: sweeps of a round.
      **kernel: of ``packed.sweeps``.

    Returns:
      uint32 [nJ, nT, R/32, L, L], and the evidence.
    """
    nj, nt, width = len(rows), len(temperatures), num_replicas // WORD
    rounds = jnp.asarray(num_rounds, jnp.int32)
    # A word has one temperature, so cooled and heated replicas have words of their own until the end.
    cooled = {"hot": width, "ordered": 0, "both": width // 2}[start]
    heated = jnp.tile(jnp.arange(width) >= cooled, nj)
    words = [
        initial_words(key, rows, j2, size=size, num_words=width, num_slots=1, start=way)[:, 0]
        for way in ("hot", "ordered")
    ]
    words = jnp.where(heated.reshape(nj, width, 1, 1), words[1], words[0]).reshape(-1, size, size)
    identities, couplings = lanes(rows, 1, width).reshape(-1), jnp.repeat(j2, width)

    def visit(words, t):
        temperature = jnp.where(heated, temperatures[nt - 1 - t], temperatures[t])

        def body(i, carry):
            words, tally = carry
            words = sweeps(
                stream(key, SWEEPS),
                words,
                temperature,
                couplings,
                num_sweeps=interval,
                first_sweep=(t * rounds + i) * interval,
                lanes=identities,
                **kernel,
            )
            sums = replica_sums(words.reshape(nj, width, size, size))
            _, values = equilibrium.measure(sums, j2[:, None], num_sites=size * size)
            return words, equilibrium.add(tally, values, i >= rounds // 2)

        words, tally = lax.fori_loop(0, rounds, body, (words, equilibrium.empty_tally((nj, num_replicas))))
        return words, (words, tally)

    _, (snapshots, tally) = lax.scan(visit, words, jnp.arange(nt, dtype=jnp.int32))
    # Ascending temperatures are turned around, then even replicas are cooled ones and odd replicas heated ones.
    snapshots = _merge(snapshots.reshape(nt, nj, width, size, size), cooled, axis=2, interleave=_interleave_bits)
    tally = Tally(*(_merge(x, cooled * WORD, axis=3, interleave=_interleave) for x in tally[:3]), tally.count[0])
    tally = Tally(*(jnp.moveaxis(x, 0, 2) for x in tally[:3]), tally.count)  # [3, nJ, nT, R]
    none = jnp.zeros((nj, nt), jnp.float32)
    evidence = equilibrium.weigh(tally, interval=interval, sweeps=rounds * interval, acceptance=none)
    return jnp.moveaxis(snapshots, 0, 1), evidence


def _merge(x, cooled, *, axis, interleave):
    """[nT, ...] of which the first ``cooled`` along ``axis`` went down the temperatures and the others up."""
    down, up = jnp.split(x, [cooled], axis=axis)
    up = up[::-1]
    if not up.shape[axis] or not down.shape[axis]:
        return down if down.shape[axis] else up
    return interleave(down, up, axis)


def _interleave(a, b, axis):
    """a0, b0, a1, b1, ... along ``axis``."""
    shape = list(a.shape)
    shape[axis] *= 2
    return jnp.stack([a, b], axis=axis + 1).reshape(shape)


def _interleave_bits(a, b, axis):
    """The words of replicas a0, b0, a1, b1, ..., from the words of a and of b along ``axis``."""

    def spread(x):  # 16 bits to the even places of 32
        for shift, mask in ((8, 0x00FF00FF), (4, 0x0F0F0F0F), (2, 0x33333333), (1, 0x55555555)):
            x = (x | (x << jnp.uint32(shift))) & jnp.uint32(mask)
        return x

    halves = [(x & jnp.uint32(0xFFFF), x >> jnp.uint32(16)) for x in (a, b)]
    low, high = (spread(x) | (spread(y) << jnp.uint32(1)) for x, y in zip(*halves, strict=True))
    return _interleave(low, high, axis)
