"""The readable reference kernel: single-spin updates on four sublattices, one int8 per spin, threefry throughout.

Sites of one sublattice (row and column of given parity) are neighbours neither along the edges nor across the
diagonals, so all of them may be updated at once, each as if it were alone. Two colours of a checkerboard are not
enough: their sites are neighbours across the diagonals.
"""

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from physml_jax.simulators.ising.hamiltonian import check_spins
from physml_jax.typing import Array, Key

#: Parities (row, column) of the sublattices, in the order of their updates.
SUBLATTICES = ((0, 0), (1, 1), (0, 1), (1, 0))

#: Probability that a flip that costs nothing is accepted by the Metropolis rule.
ZERO_COST_ACCEPTANCE = 0.5

RULES = ("metropolis", "heat_bath")


def sweeps(
    key: Key,
    spins: Array,
    temperature: Array,
    j2: Array,
    *,
    num_sweeps: int,
    first_sweep: Array | int = 0,
    lanes: Array | None = None,
    field: Array | None = None,
    rule: str = "metropolis",
) -> Array:
    """Updates every spin of every state ``num_sweeps`` times.

    Row p of the result depends on the key, ``lanes[p]``, the numbers of the sweeps, and row p of the other arguments,
    and on nothing else; n sweeps followed by m sweeps that start at number n are n + m sweeps, bit for bit.

    Args:
      key: typed key.
      spins: int8 [P, L, L] in {-1, +1}, even L >= 4.
      temperature: float32 [P], in units of J1, positive.
      j2: float32 [P].
      num_sweeps: how many sweeps.
      first_sweep: number of the first sweep in the random stream.
      lanes: int32 or uint32 [P], the identity of each state in the random stream; 0 to P - 1 if not given. Two states
        with equal lanes share their random numbers.
      field: float32 [P], external field h; none by default.
      rule: ``"metropolis"`` or ``"heat_bath"``, see ``acceptance``.

    Returns:
      int8 [P, L, L].

    Raises:
      ValueError: if a shape or dtype is wrong, the rule is unknown, ``num_sweeps`` is negative, or a temperature that
        is known at the call is not positive.

    Example:
      >>> import jax, jax.numpy as jnp
      >>> hot = jax.random.rademacher(jax.random.key(0), (2, 8, 8), jnp.int8)
      >>> sweeps(jax.random.key(1), hot, jnp.asarray([4.0, 0.5]), jnp.asarray([0.0, 1.0]), num_sweeps=10).shape
      (2, 8, 8)
    """
    check_spins(spins, rank=3)
    num, size, _ = spins.shape
    lanes = jnp.arange(num, dtype=jnp.uint32) if lanes is None else jnp.asarray(lanes)
    field = jnp.zeros_like(temperature) if field is None else field
    for name, value in (("temperature", temperature), ("j2", j2), ("field", field)):
        if value.shape != (num,) or not jnp.issubdtype(value.dtype, jnp.floating):
            raise ValueError(f"{name}: expected float [{num}], one per state, got {value.dtype} {list(value.shape)}")
    if lanes.shape != (num,) or lanes.dtype not in (jnp.int32, jnp.uint32):
        raise ValueError(f"lanes: expected int32 or uint32 [{num}], got {lanes.dtype} {list(lanes.shape)}")
    if not isinstance(temperature, jax.core.Tracer) and not bool((np.asarray(temperature) > 0).all()):
        raise ValueError(f"temperature: expected positive numbers, got a smallest one of {np.min(temperature)}")
    if isinstance(num_sweeps, int) and num_sweeps < 0:
        raise ValueError(f"num_sweeps: expected at least 0, got {num_sweeps}")
    _check_rule(rule)

    def sweep(i, parts):
        sweep_key = jax.random.fold_in(key, first_sweep + i)
        bits = _bits(sweep_key, lanes, size // 2)
        for number, which in enumerate(SUBLATTICES):
            probability = acceptance(_cost(parts, which, j2, field), temperature[:, None, None], rule=rule)
            parts[which] = jnp.where(below(bits[number], probability), -parts[which], parts[which])
        return parts

    return _join(lax.fori_loop(0, num_sweeps, sweep, _split(spins)))


def acceptance(cost: Array, temperature: Array, *, rule: str = "metropolis") -> Array:
    """Probability that a flip of the given cost happens.

    ``"heat_bath"``: 1 / (1 + exp(dE / T)), the spin is drawn anew given its neighbours.

    ``"metropolis"``: min(1, exp(-dE / T)), but 1/2 where dE = 0. If flips that cost nothing were always accepted, a
    sublattice all of whose spins have neighbours that cancel would turn over as a whole in every sweep, for certain:
    states each of whose sublattices is a checkerboard would cycle for ever at any temperature, and the chain would
    not be ergodic. Detailed balance asks for p(dE) = exp(-dE / T) p(-dE) only, which at dE = 0 is p(0) = p(0): any
    value will do, and every value between 0 and 1 leaves the outcome to chance, spin by spin. 1/2 is what the heat
    bath has there, and it costs one random bit.

    Args:
      cost: float [...], dE, what the flip adds to the total energy.
      temperature: float, broadcasts with ``cost`` at the same rank.
      rule: the name of the rule.

    Returns:
      float [...] between 0 and 1.

    Raises:
      ValueError: if the rule is unknown.
    """
    _check_rule(rule)
    ratio = cost / temperature
    if rule == "heat_bath":
        return jax.nn.sigmoid(-ratio)
    return jnp.where(cost == 0, ZERO_COST_ACCEPTANCE, jnp.minimum(1, jnp.exp(-ratio)))


def flip_probability(
    spins: Array,
    temperature: Array,
    j2: Array,
    field: Array | None = None,
    *,
    sublattice: tuple[int, int],
    rule: str = "metropolis",
) -> Array:
    """Probability of every spin of one sublattice to be flipped by its update; the spins flip independently.

    These numbers and the order of the sublattices are the whole transition matrix of ``sweeps``, but for the rounding
    of a probability to a multiple of 2^-32.

    Args:
      spins: int8 [P, L, L].
      temperature: float [P].
      j2: float [P].
      field: float [P], or none.
      sublattice: parities of row and column, one of ``SUBLATTICES``.
      rule: see ``acceptance``.

    Returns:
      float [P, L/2, L/2]: of site (2 i + row parity, 2 j + column parity) at (i, j).

    Raises:
      ValueError: if the spins are no int8 [P, L, L] or a name is unknown.
    """
    check_spins(spins, rank=3)
    if sublattice not in SUBLATTICES:
        raise ValueError(f"sublattice: expected one of {SUBLATTICES}, got {sublattice!r}")
    field = jnp.zeros_like(temperature) if field is None else field
    return acceptance(_cost(_split(spins), sublattice, j2, field), temperature[:, None, None], rule=rule)


def below(bits: Array, probability: Array) -> Array:
    """True with the given probability, rounded down to a multiple of 2^-32 and exact for 0 and 1.

    Args:
      bits: uint32 [...], uniform.
      probability: float [...].
    """
    # 1.0 does not fit; the largest float32 below it does.
    certain = probability >= 1
    return certain | (bits < (jnp.where(certain, 0, probability) * 2.0**32).astype(jnp.uint32))


def _bits(sweep_key, lanes, half):
    """Random words of one sweep, uint32 [4, P, L/2, L/2]: a key per sublattice and lane."""

    def one(number, lane):
        own = jax.random.fold_in(jax.random.fold_in(sweep_key, number), lane)
        return jax.random.bits(own, (half, half), jnp.uint32)

    return jax.vmap(jax.vmap(one, (None, 0)), (0, None))(jnp.arange(len(SUBLATTICES)), lanes)


def _cost(parts, which, j2, field):
    """DE of flipping each spin of one sublattice: 2 s (sum of neighbours - J2 sum across diagonals + h)."""
    row, column = which

    def pair(x, parity, axis):
        # Between two sites of this sublattice lies one of the other: neighbours i - 1, i of an even site, i, i + 1
        # of an odd one.
        return x + jnp.roll(x, -1 if parity else 1, axis)

    nn = pair(parts[row, 1 - column], column, -1) + pair(parts[1 - row, column], row, -2)
    nnn = pair(pair(parts[1 - row, 1 - column], column, -1), row, -2)
    s = parts[which]
    j2, field = j2[:, None, None], field[:, None, None]
    # The products of spins are exact, so a flip that costs nothing is seen as such, and the cost of the flip back is
    # minus this one to the last bit.
    return 2 * ((s * nn).astype(j2.dtype) - j2 * (s * nnn).astype(j2.dtype) + field * s.astype(j2.dtype))


def _split(spins):
    return {(r, c): spins[:, r::2, c::2] for r, c in SUBLATTICES}


def _join(parts):
    num, half, _ = parts[0, 0].shape
    rows = [jnp.stack([parts[r, 0], parts[r, 1]], axis=-1).reshape(num, half, 2 * half) for r in (0, 1)]
    return jnp.stack(rows, axis=2).reshape(num, 2 * half, 2 * half)


def _check_rule(rule):
    if rule not in RULES:
        raise ValueError(f"rule: expected one of {', '.join(RULES)}, got {rule!r}")
