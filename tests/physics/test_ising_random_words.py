"""The words themselves: averages of the lattice hardly notice words that share bits."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from physml_jax.simulators.ising.random_words import GENERATORS, RandomWords

HASH = GENERATORS["hash"]


def words(random, *, lanes, half, sweeps, bits):
    """uint32 [sweeps, sublattices, bits, half, half, W]."""

    sites = random.sites(lanes, half)

    def one(sweep):
        keys = random.keys(jax.random.key(3), sweep, (4, bits))
        return jax.vmap(jax.vmap(lambda key: random.word(sites, key)))(keys)

    return np.asarray(jax.jit(lambda sweeps: jax.lax.map(one, sweeps))(jnp.arange(sweeps)))


def correlations(series):
    """Deviation, in standard deviations, of all correlations between bits of uint32 [series, N] from zero: as a sum of
    squares over all pairs, and the largest of them."""
    signs = 1 - 2 * ((series[:, None, :] >> np.arange(32, dtype=np.uint32)[:, None]) & 1).astype(np.float32)
    signs = signs.reshape(-1, series.shape[1])
    z = np.append((signs @ signs.T)[np.triu_indices(len(signs), 1)], signs.sum(1)) / np.sqrt(signs.shape[1])
    return (z.astype(np.float64) ** 2 - 1).sum() / np.sqrt(2 * len(z)), np.abs(z).max()


def patterns(series):
    """Chi-square, in standard deviations, of the joint patterns of eight words at every bit: uint32 [8, N]."""
    bits = (series[:, :, None] >> np.arange(32, dtype=np.uint32)) & 1
    counts = np.bincount((bits.astype(np.int64) << np.arange(8)[:, None, None]).sum(0).ravel(), minlength=256)
    expected = counts.sum() / 256
    return (((counts - expected) ** 2 / expected).sum() - 255) / np.sqrt(2 * 255)


def worst(random):
    """The largest deviation that any test of the words finds."""
    found = []
    many = words(random, lanes=jnp.arange(256, dtype=jnp.uint32), half=4, sweeps=2, bits=8)
    across = many.reshape(64, -1)  # sweeps, sublattices and bits over sites and lanes
    found += correlations(across)
    # The eight bits of a decision, the same bit of eight sublattices and sweeps, and a mixture of both.
    found += [patterns(across[:8]), patterns(across[::8]), patterns(across[3::7][:8])]
    long = words(random, lanes=jnp.uint32(1 << 20) + jnp.arange(16, dtype=jnp.uint32), half=2, sweeps=128, bits=8)
    found += correlations(np.ascontiguousarray(long.reshape(-1, 64).T))  # sites and lanes over all else
    return found


def shared(step):
    """A generator that saves work: the words of all bits of one decision from a single hashed word."""

    def keys(key, sweep, shape):
        return HASH.keys(key, sweep, shape[:1])[:, None].repeat(shape[1], 1), jnp.arange(shape[1], dtype=jnp.uint32)

    def indexed(key, sweep, shape):
        base, k = keys(key, sweep, shape)
        return jnp.concatenate([base, jnp.broadcast_to(k[None, :, None], (*shape, 1))], axis=-1)

    return RandomWords(HASH.sites, indexed, lambda sites, keys: step(HASH.word(sites, keys[:2]), keys[2]))


def test_hash():
    """Correlations between all bits of words and patterns of eight: bits, sublattices, sweeps, lanes, sites."""
    deviations = worst(HASH)
    assert max(deviations[0], deviations[5]) < 4  # sums of squares
    assert max(deviations[1], deviations[6]) < 6.2  # the largest of two million
    assert np.abs(deviations[2:5]).max() < 4


@pytest.mark.parametrize(
    "step",
    [
        lambda x, k: (x >> k) | (x << ((32 - k) & 31)),  # rotations
        lambda x, k: x * (jnp.uint32(2) * k + jnp.uint32(0x9E3779B1)),  # multiples
        lambda x, k: x ^ (x << (k + jnp.uint32(1))),  # one shift
    ],
    ids=["rotated", "multiplied", "shifted"],
)
def test_words_that_share_a_base_fail(step):
    assert max(worst(shared(step))) > 10


def test_a_word_belongs_to_its_lane():
    for random in GENERATORS.values():
        lanes = jnp.asarray([5, 0, 9], jnp.uint32)
        three = words(random, lanes=lanes, half=2, sweeps=1, bits=2)
        one = words(random, lanes=lanes[2:], half=2, sweeps=1, bits=2)
        np.testing.assert_array_equal(three[..., 2:], one)
        assert len(np.unique(three)) == three.size
