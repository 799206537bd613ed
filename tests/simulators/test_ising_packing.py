import jax
import jax.numpy as jnp
import numpy as np
import pytest

from physml_jax.simulators.ising import packing, sublattices


@pytest.mark.parametrize("shape", [(32, 4, 4), (2, 64, 6, 6), (2, 3, 32, 4, 4)])
def test_round_trip(key, shape):
    spins = jax.random.rademacher(key, shape, jnp.int8)
    words = packing.pack(spins)
    assert words.dtype == jnp.uint32 and words.shape == (*shape[:-3], shape[-3] // 32, *shape[-2:])
    back = packing.unpack(words)
    assert back.dtype == jnp.int8
    np.testing.assert_array_equal(back, spins)


def test_bit_is_the_replica():
    spins = -np.ones((64, 4, 6), np.int8)
    spins[37, 1, 2] = 1  # bit 5 of word 1
    expected = np.zeros((2, 4, 6), np.uint32)
    expected[1, 1, 2] = 1 << 5
    np.testing.assert_array_equal(packing.pack(jnp.asarray(spins)), expected)


@pytest.mark.parametrize(
    "spins", [np.ones((31, 4, 4), np.int8), np.ones((32, 4, 4), np.int32), np.ones((4, 4), np.int8)]
)
def test_pack_refuses(spins):
    with pytest.raises(ValueError, match="spins: expected int8"):
        packing.pack(jnp.asarray(spins))


@pytest.mark.parametrize("words", [np.ones((1, 4, 4), np.int32), np.ones((4, 4), np.uint32)])
def test_unpack_refuses(words):
    with pytest.raises(ValueError, match="words: expected uint32"):
        packing.unpack(jnp.asarray(words))


def test_sublattices(key):
    words = jax.random.bits(key, (3, 6, 6), jnp.uint32)
    parts = sublattices.split(words)
    assert [p.shape for p in parts] == [(4, 4, 3)] * 4
    np.testing.assert_array_equal(parts[1][2, 1], words[:, 4, 1])  # even rows, odd columns
    np.testing.assert_array_equal(sublattices.join(parts), words)


@pytest.mark.parametrize("number", range(4))
def test_neighbours_and_replacement(key, number):
    """Slices against rolls of the whole lattice, before and after another sublattice has changed."""
    words = np.array(jax.random.bits(key, (3, 6, 6), jnp.uint32))
    parts = sublattices.split(jnp.asarray(words))
    for other in range(4):
        inner = sublattices.interior(parts, other) ^ jnp.uint32(other + 1)
        parts = sublattices.replace(parts, other, inner)
        words[:, other // 2 :: 2, other % 2 :: 2] ^= np.uint32(other + 1)
    a, b = divmod(number, 2)
    near, diagonal = sublattices.neighbours(parts, number)
    for found, shifts in ((near, ((1, 0), (-1, 0), (0, 1), (0, -1))), (diagonal, ((1, 1), (1, -1), (-1, 1), (-1, -1)))):
        expected = sorted(np.roll(words, s, (1, 2))[:, a::2, b::2].transpose(1, 2, 0).tolist() for s in shifts)
        assert sorted(np.asarray(x).tolist() for x in found) == expected
