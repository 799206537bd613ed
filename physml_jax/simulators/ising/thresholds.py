"""Neighbourhoods of packed spins, the chance of a flip in each, and the comparison of that chance with random bits.

Turning a spin s over changes the energy by ``dE = 4 a + 4 J2 b + 2 h s``, where a = (parallel nearest neighbours) - 2
and b = 2 - (parallel diagonal neighbours) run from -2 to 2. Without a field (a, b) and (-a, -b) cost the same up to
sign, which leaves 12 classes besides (0, 0), and abs(a), abs(b) and the relative sign of a and b do not depend on s.
With a field the classes are the 25 pairs of numbers of neighbours up, and dE = s e. Either way dE is e or -e with the
energy e of the class, so that a spin needs the sign of dE and one random decision with the chance of its class:

    Metropolis: flip if dE < 0, or with probability exp(-abs(dE) / T); 1/2 for dE = 0.
    Heat bath:  flip with probability p = 1 / (1 + exp(abs(dE) / T)) for dE >= 0, and 1 - p for dE < 0.

Both turn a spin without cost over with probability 1/2. Certain acceptance would make the sweep in a fixed order of
sites deterministic on such spins, and trap 16 states of the 4 x 4 lattice at every J2 (on each sublattice a
checkerboard), and others like them at all multiples of 4.

A random number below the threshold is one whose leading digits are, or whose leading digits are equal and whose other
digits are below. With n leading digits the second case has probability 2^-n, so that replicas may share the other
digits at a site: given that one of them flips for this reason, another one of the same class does with a chance of 2^-n
instead of its own p < 2^-n. The mean is exact, and digits are compared 16 times instead of 24.
"""

import functools
import itertools
import math

import jax.numpy as jnp

from physml_jax.typing import Array

#: (abs(a), abs(b), relative sign) of the classes without a field; (0, 0) is decided by a coin of its own.
PAIRS = tuple((a, b, sign) for a in range(3) for b in range(3) if a or b for sign in ((1, -1) if a and b else (1,)))
#: Random bits that the replicas of a word have in common, where decisions use more than 32.
SHARED = 32
#: Lists of classes whose cost has one sign at every J2, by the ratio of a and b.
SIGNS = tuple(
    [n for n, (a, b, sign) in enumerate(PAIRS) if (a // math.gcd(a, b), b // math.gcd(a, b), sign) == ratio]
    for ratio in PAIRS
    if math.gcd(*ratio[:2]) == 1
)
#: Neighbours up, (nearest, diagonal), of the classes with a field.
COUNTS = tuple(itertools.product(range(5), range(5)))


def class_energies(j2: Array, field: Array | None) -> Array:
    """What a flip costs in every class, up to sign: float32 [classes, P], in units of J1."""
    if field is None:
        return jnp.stack([4.0 * a + 4.0 * sign * b * j2 for a, b, sign in PAIRS])
    return jnp.stack([4.0 * (near - 2) - 4.0 * (diagonal - 2) * j2 + 2.0 * field for near, diagonal in COUNTS])


def flip_probability(energies: Array, temperature: Array, rule: str) -> Array:
    """Probability of a flip that costs abs(e), float32 [classes, P]; 1/2 without a cost, also at zero temperature."""
    cost = jnp.abs(energies)
    reduced = jnp.where(cost == 0, 0.0, cost / temperature[None])
    boltzmann = jnp.exp(-reduced)
    return jnp.where(cost == 0, 0.5, boltzmann if rule == "metropolis" else boltzmann / (1 + boltzmann))


def threshold_masks(probability: Array, bits: int) -> Array:
    """Binary digits of probabilities: uint32 [bits, ...], 0 or all ones, the least significant digit first.

    A probability is rounded to a multiple of 2^-bits; those that round to 1 become 1 - 2^-bits.
    """
    half = bits - bits // 2  # in two parts, since float32 cannot hold all numbers of 32 bits
    scaled = jnp.round(probability * 2.0**bits) if bits <= 24 else probability * 2.0**bits
    high = jnp.floor(scaled * 2.0**-half)
    low = jnp.round(scaled - high * 2.0**half)
    high, low = high.astype(jnp.uint32), low.astype(jnp.uint32)
    high, low = high + (low >> half), low & jnp.uint32(2**half - 1)  # the rounding may carry
    full = high >> (bits // 2)
    return _digits(jnp.where(full > 0, jnp.uint32(2**bits - 1), (high << half) | low), bits)


def split_thresholds(probability: Array, bits: int) -> tuple[Array, Array | None]:
    """Probabilities as what a replica decides for itself and what the replicas of a word decide together.

    Returns:
      (digits as from ``threshold_masks``, uint32 [own_bits(bits), ...]; the ``SHARED`` bits that follow as a number,
      uint32 [...], or ``None``).
    """
    own = own_bits(bits)
    if own == bits:
        return threshold_masks(probability, bits), None
    scaled = probability * 2.0**own
    high = jnp.minimum(jnp.floor(scaled), 2.0**own - 1)
    rest = jnp.minimum(scaled - high, 1 - 2.0**-24)  # exact, as the line above
    return _digits(high.astype(jnp.uint32), own), jnp.round(rest * 2.0**SHARED).astype(jnp.uint32)


def own_bits(bits: int) -> int:
    """Random bits of a decision that every replica has for itself."""
    return bits if bits <= 32 else bits - SHARED


def _digits(threshold, bits):
    digits = jnp.arange(bits, dtype=jnp.uint32).reshape(bits, *(1,) * threshold.ndim)
    return all_ones((threshold[None] >> digits) & 1)


def all_ones(flag: Array) -> Array:
    """1 or True -> the word of all ones, 0 or False -> 0."""
    return jnp.uint32(0) - flag.astype(jnp.uint32)


def count(neighbours: list[Array]) -> tuple[Array, Array, Array]:
    """Number of bits set among four words: its binary digits (ones, twos, fours)."""
    p, q, r, s = neighbours
    x, y, z, w = p ^ q, p & q, r ^ s, r & s
    carry = x & z
    return x ^ z, y ^ w ^ carry, y & w


def one_hot(near: list[Array], diagonal: list[Array], *, field: bool) -> list[Array]:
    """The class of every spin from its four nearest and four diagonal neighbours: one mask per class."""
    n, d = count(near), count(diagonal)
    if field:
        n, d = _counted(n), _counted(d)
        return [n[i] & d[j] for i, j in COUNTS]
    na, da = _sizes(n), _sizes(d)
    opposite = _above(n) ^ _above(
        d
    )  # more than two up on one side only, where neither count is 2: a and b alike in sign
    signs = {1: opposite, -1: ~opposite}
    return [na[a] & da[b] & signs[sign] if a and b else na[a] & da[b] for a, b, sign in PAIRS]


def _counted(digits):
    """Masks of the counts 0 to 4."""
    ones, twos, fours = digits
    return [~(ones | twos | fours), ones & ~twos, twos & ~ones, ones & twos, fours]


def _sizes(digits):
    """Masks of abs(count - 2) = 0, 1, 2."""
    ones, twos, _ = digits
    return [twos & ~ones, ones, ~(ones | twos)]


def _above(digits):
    """Mask of counts 3 and 4."""
    ones, twos, fours = digits
    return (ones & twos) | fours


def orientation(near: list[Array], diagonal: list[Array], spin: Array, *, field: bool) -> Array:
    """Mask of the spins whose dE is the energy of their class; it is minus that energy for the others."""
    if field:
        return spin
    n, d = count(near), count(diagonal)
    level, even = _sizes(n)[0], _sizes(d)[0]
    up = (~level & _above(n)) | (level & ~even & ~_above(d))  # a > 0, or a = 0 and b > 0, if the spin is up
    return ~(up ^ spin)


def select(classes: list[Array], masks: Array | list[Array]) -> Array:
    """For every spin the mask of its class: ``masks`` uint32 [classes, W] or a list; result as one of ``classes``."""
    return functools.reduce(jnp.bitwise_or, [m & masks[i][None, None] for i, m in enumerate(classes)])


def below(result: Array, digit: Array, random: Array) -> Array:
    """One step of the comparison of a random number with a threshold, from the least significant digit upwards.

    The complement of the random bit serves as well as the bit itself, so that the step is a majority of three. Of the
    ways to write it, this is the one that compilers turn into two operations of AVX-512, with the last one of the hash.
    """
    return result ^ ((result ^ digit) & (result ^ random))


def shared_decision(classes: list[Array], tails: Array, random: Array) -> Array:
    """Spins for whose class a number per word and site, all 32 bits, is small enough: ``tails`` uint32 [classes, W]."""
    chosen = [jnp.where(random < tails[i][None, None], m, jnp.uint32(0)) for i, m in enumerate(classes)]
    return functools.reduce(jnp.bitwise_or, chosen)


def gains(classes: list[Array], signs: Array, upwards: Array) -> Array:
    """Mask of the spins with dE < 0: ``signs`` uint32 [2, classes, W], masks of the energies > 0 and < 0."""
    if len(classes) != len(PAIRS):
        return (upwards & select(classes, signs[1])) | (~upwards & select(classes, signs[0]))
    groups = [functools.reduce(jnp.bitwise_or, [classes[n] for n in same]) for same in SIGNS]
    positive, negative = (jnp.stack([signs[k, same[0]] for same in SIGNS]) for k in (0, 1))
    return select(groups, positive | negative) & (upwards ^ select(groups, positive))


def both_level(near: list[Array], diagonal: list[Array]) -> Array:
    """Mask of the spins with a = b = 0."""
    return _sizes(count(near))[0] & _sizes(count(diagonal))[0]
