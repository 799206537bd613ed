"""The packed kernel against everything that is known exactly, and against the reference kernel."""

import functools
import hashlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from physml_jax.simulators.ising import bond_sums, energy, exact, ladder, metropolis, packed, packing, stripe_order

POINTS = ((1.0, 0.0), (2.5, 0.0), (1.2, 0.5), (2.0, 0.5), (1.5, 0.8), (1.0, 0.3), (3.0, 1.0), (0.8, 0.7))
WORDS = 32  # at every point
#: (bits, rule) -> digest of states, from before the kernel was rewritten; 48 bits came with the new one.
KNOWN = {
    (24, "metropolis"): "cb7973623d09ce96",
    (32, "heat_bath"): "0b35e0a9606e1a1b",
    (48, "metropolis"): "1f325863256c7e07",
}


# Two bits per loop body: a fraction of the compilation, and the same states, as test_layout shows.
@functools.partial(jax.jit, static_argnames=("bits", "generator", "rule", "chunk_bits", "tile_size"))
def run(key, words, temperature, j2, num_sweeps, first_sweep=0, lanes=None, field=None, *, chunk_bits=2, **kwargs):
    return packed.sweeps(
        key, words, temperature, j2, num_sweeps=num_sweeps, first_sweep=first_sweep, lanes=lanes, field=field,
        chunk_bits=chunk_bits, **kwargs,
    )  # fmt: skip


def grid(points=POINTS, num=WORDS):
    temperature, j2 = np.repeat(np.asarray(points, np.float32), num, axis=0).T
    return jnp.asarray(temperature), jnp.asarray(j2)


def hot(key, num, size):
    return jax.random.bits(key, (num, size, size), jnp.uint32)


def deviations(words, points=POINTS, field=0.0):
    """Standard errors between replicas and enumeration: energy, its variance, abs(m), stripes."""
    spins = packing.unpack(words.reshape(len(points), -1, 4, 4))
    bonds = [np.asarray(x, np.float64) / 16 for x in bond_sums(spins)]
    stripes = np.asarray(stripe_order(spins).maximum, np.float64)
    z = []
    for (temperature, j2), near, diagonal, up, stripe in zip(points, *bonds, stripes, strict=True):
        truth = exact.thermal_averages(temperature, float(np.float32(j2)), field)
        m = 2 * up - 1
        e = -near + j2 * diagonal - field * m
        variance = truth.specific_heat * temperature**2 / 16
        pairs = [(e, truth.energy), ((e - truth.energy) ** 2, variance), (np.abs(m), truth.abs_magnetization)]
        for x, expected in [*pairs, (stripe, truth.stripe_maximum)]:
            z.append((x.mean() - expected) / (x.std() / np.sqrt(x.size) + 1e-9))
    return np.abs(z)


@pytest.mark.parametrize(
    ("rule", "bits"),
    [("metropolis", 24), ("heat_bath", 24), ("metropolis", 48), pytest.param("heat_bath", 48, marks=pytest.mark.slow)],
)
def test_enumeration(key, rule, bits):
    words = hot(key, WORDS * len(POINTS), 4)
    assert deviations(run(key, words, *grid(), 300, generator="hash", rule=rule, bits=bits)).max() < 4


@pytest.mark.slow
def test_enumeration_threefry(key):
    points = POINTS[2:6]
    words = run(key, hot(key, 8 * len(points), 4), *grid(points, 8), 60, generator="threefry", chunk_bits=1)
    assert deviations(words, points).max() < 4


@pytest.mark.slow
@pytest.mark.parametrize("rule", packed.RULES)
def test_enumeration_in_a_field(key, rule):
    temperature, j2 = grid()
    words = hot(key, len(j2), 4)
    points = [p for p in POINTS if p[0] > 1]  # cold states against the field live too long
    words = run(key, words, temperature, j2, 300, field=jnp.full_like(j2, 0.3), rule=rule)
    words = words.reshape(len(POINTS), WORDS, 4, 4)[np.array([p[0] > 1 for p in POINTS])]
    assert deviations(words, points, float(np.float32(0.3))).max() < 4


def test_coarse_thresholds_fail(key, monkeypatch):
    """The test of enumeration finds thresholds of eight bits."""
    monkeypatch.setattr(packed, "BITS", (8,))
    words = hot(key, WORDS * len(POINTS), 4)
    assert deviations(run(key, words, *grid(), 300, bits=8)).max() > 8


@pytest.mark.slow
def test_shared_bits(key):
    """Flips rarer than 2^-16 happen as often as they should, and to one replica of a word at a time."""
    num, size, exponent = 512, 30, 18
    temperature = jnp.full(num, 8 / (exponent * np.log(2)), jnp.float32)
    ordered = jnp.zeros((num, size, size), jnp.uint32)
    flips = {
        bits: np.asarray(jax.lax.population_count(run(key, ordered, temperature, jnp.zeros(num), 1, bits=bits)))
        for bits in (16, 48)
    }
    expected = num * size**2 * 32 * 2.0**-exponent
    assert flips[16].sum() == 0
    assert abs(flips[48].sum() - expected) < 4 * np.sqrt(expected)
    # Two in a word: 31/2 pairs per flip, 2^-16 each. Were all bits shared, flips would come 32 at a time.
    assert (flips[48] > 1).sum() <= 1


def test_trapped_states_escape(key):
    """Checkerboards on each sublattice: nothing costs anything, and certain acceptance would never leave them."""
    board = jnp.asarray(np.kron((-1) ** np.add.outer(np.arange(2), np.arange(2)), np.ones((2, 2))), jnp.int8)
    trapped = packing.pack(jnp.broadcast_to(board, (WORDS * len(POINTS), 32, 4, 4)))[:, 0]
    assert np.all(np.asarray(bond_sums(board[None])[:2]) == 0)
    assert deviations(run(key, trapped, *grid(), 300, generator="hash", rule="metropolis")).max() < 4


def test_layout(key):
    """Tiles, bits per body, companions and cuts in time change nothing."""
    temperature, j2 = grid(num=1)
    words, lanes = hot(key, 8, 6), jnp.arange(100, 108, dtype=jnp.uint32)
    expected = run(key, words, temperature, j2, 3, lanes=lanes)
    for kwargs in ({"tile_size": 3}, {"chunk_bits": 4}):
        np.testing.assert_array_equal(run(key, words, temperature, j2, 3, lanes=lanes, **kwargs), expected)
    part = jnp.asarray([6, 1])
    few = run(key, words[part], temperature[part], j2[part], 3, lanes=lanes[part])
    np.testing.assert_array_equal(few, expected[part])
    halfway = run(key, words, temperature, j2, 1, lanes=lanes)
    np.testing.assert_array_equal(run(key, halfway, temperature, j2, 2, first_sweep=1, lanes=lanes), expected)
    np.testing.assert_array_equal(run(key, words, temperature, j2, 0, lanes=lanes), words)
    other = run(key, words, temperature, j2, 3, lanes=lanes + jnp.uint32(1))
    assert (other != expected).mean() > 0.3


@pytest.mark.parametrize(
    ("rule", "bits"),
    [("metropolis", 48), *(pytest.param(r, 24, marks=pytest.mark.slow) for r in ("metropolis", "heat_bath"))],
)
def test_ladder_is_the_same(key, rule, bits):
    points = POINTS[1:3]
    words = hot(key, 8, 6)
    expected = run(key, words, *grid(points, 4), 3, rule=rule, bits=bits)
    temperature, j2 = zip(*points, strict=True)
    fixed = jax.jit(
        lambda w: ladder.ladder_sweeps(key, w, temperature, j2, num_sweeps=3, rule=rule, bits=bits, tile_size=3)
    )
    np.testing.assert_array_equal(fixed(words.reshape(2, 4, 6, 6)).reshape(8, 6, 6), expected)


def test_same_as_reference(key):
    """On the way to equilibrium too, since the sublattices come in the same order."""
    temperature, j2 = grid(((1.2, 0.8), (0.7, 0.3)), 48)
    words = run(key, hot(key, 96, 6), temperature, j2, 3)
    start = jax.random.rademacher(jax.random.key(9), (2 * 1536, 6, 6), jnp.int8)
    states = metropolis.sweeps(key, start, temperature.repeat(32), j2.repeat(32), num_sweeps=3)
    ours, theirs = packing.unpack(words.reshape(2, 48, 6, 6)), states.reshape(2, 1536, 6, 6)
    for point in range(2):
        for fn in (lambda s: energy(s, j2[48 * point]), lambda s: jnp.abs(stripe_order(s).row)):
            x, y = np.asarray(fn(ours[point])), np.asarray(fn(theirs[point]))
            assert abs(x.mean() - y.mean()) < 4 * np.sqrt((x.var() + y.var()) / 1536)


@functools.partial(jax.jit, static_argnames=("snapshots",))
def energies(key, words, temperature, j2, snapshots):
    """Energies of all replicas every 20 sweeps."""

    def snapshot(words, i):
        words = packed.sweeps(key, words, temperature, j2, num_sweeps=20, first_sweep=20 * i, chunk_bits=2)
        return words, energy(packing.unpack(words[:, None]), j2[:, None])

    return jax.lax.scan(snapshot, words, jnp.arange(snapshots))[1]


def average_energy(key, words, temperature, j2, *, snapshots, first=10):
    """Energy per site over replicas and snapshots, with its standard error from the replicas."""
    t, j = jnp.full(len(words), temperature, jnp.float32), jnp.full(len(words), j2, jnp.float32)
    each = np.asarray(energies(key, words, t, j, first + snapshots), np.float64)[first:].mean(0)
    return each.mean(), each.std() / np.sqrt(each.size)


@pytest.mark.parametrize(
    ("size", "temperature", "num", "snapshots"),
    [
        pytest.param(16, 1.5, 128, 60, marks=pytest.mark.slow),
        pytest.param(30, 2.0, 128, 100, marks=pytest.mark.slow),
        pytest.param(60, 2.0, 64, 60, marks=pytest.mark.slow),
    ],
)
def test_kaufman(key, size, temperature, num, snapshots):
    ordered = jnp.full((num, size, size), 0xFFFFFFFF, jnp.uint32)
    mean, error = average_energy(key, ordered, temperature, 0.0, snapshots=snapshots)
    assert error < 1e-4
    assert abs(mean - float(exact.kaufman(size, temperature).energy)) < 3e-4


def test_transfer_matrix(key):
    mean, error = average_energy(key, hot(key, 32, 6), 1.4, 0.7, snapshots=20)
    assert error < 2e-3
    assert abs(mean - exact.transfer_matrix(6, 1.4, 0.7).energy) < 4 * error


@pytest.mark.slow
def test_chunks_of_a_field(key):
    """The default chunks, which differ with a field, against those of the other tests, bit for bit."""
    words = hot(key, 2, 4)
    temperature, j2, field = jnp.full(2, 1.4), jnp.array([0.0, 0.7]), jnp.array([0.3, 0.0])
    found, known = (run(key, words, temperature, j2, 20, field=field, chunk_bits=c) for c in (None, 2))
    np.testing.assert_array_equal(found, known)
    assert (found[0] != run(key, words, temperature, j2, 20)[0]).any()


@pytest.mark.parametrize("bits", packed.BITS)
def test_threshold_digits(bits):
    """Digits against float64."""
    p = jnp.asarray([0.0, 1e-9, 2.0**-20, 0.018315639, 0.5, 0.9999999, 1.0], jnp.float32)
    digits, tails = packed.thresholds.split_thresholds(p, bits)
    found = (np.asarray(digits) / 0xFFFFFFFF * 2.0 ** np.arange(len(digits))[:, None]).sum(0)
    if tails is not None:
        found = found * 2.0**packed.thresholds.SHARED + np.asarray(tails)
    largest = 2.0**bits - 1 if bits <= 32 else 2.0**bits - 2.0**8  # the largest float32 below 1
    expected = np.minimum(np.round(np.asarray(p, np.float64) * 2.0**bits), largest)
    np.testing.assert_array_equal(found, expected)


def test_known_states(key):
    """The states of a setting stay what they are, bit for bit: stored data sets rely on them."""
    words = hot(jax.random.key(1), 2, 4)
    temperature, j2 = jnp.asarray([0.7, 2.0]), jnp.asarray([0.0, 0.5])
    for (bits, rule), known in KNOWN.items():
        found = run(jax.random.key(2), words, temperature, j2, 5, bits=bits, rule=rule)
        assert hashlib.sha256(np.asarray(found).tobytes()).hexdigest()[:16] == known, (bits, rule)


def bad(**changes):
    good = dict(
        words=jnp.zeros((2, 4, 4), jnp.uint32), temperature=jnp.ones(2), j2=jnp.ones(2), num_sweeps=1
    )  # fmt: skip
    return good | changes


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("words", jnp.zeros((2, 4, 4), jnp.int32)),
        ("words", jnp.zeros((2, 5, 5), jnp.uint32)),
        ("words", jnp.zeros((2, 2, 2), jnp.uint32)),
        ("words", jnp.zeros((4, 4), jnp.uint32)),
        ("temperature", jnp.ones(3)),
        ("temperature", jnp.asarray([1.0, -1.0])),
        ("temperature", jnp.asarray([1.0, jnp.nan])),
        ("j2", jnp.ones(2, jnp.int32)),
        ("j2", jnp.asarray([jnp.inf, 1.0])),
        ("field", jnp.ones(1)),
        ("lanes", jnp.ones(2)),
        ("num_sweeps", -1),
        ("bits", 8),
        ("chunk_bits", 7),
        ("generator", "xorshift"),
        ("rule", "glauber"),
    ],
)
def test_refuses(key, name, value):
    with pytest.raises(ValueError, match=f"{name}: expected"):
        packed.sweeps(key, **bad(**{name: value}))


@pytest.mark.parametrize(
    ("name", "value"), [("temperature", [1.0]), ("j2", [1.0, np.nan]), ("words", None), ("bits", 8)]
)
def test_ladder_refuses(key, name, value):
    good = dict(words=jnp.zeros((2, 1, 4, 4), jnp.uint32), temperature=[1.0, 2.0], j2=[0.0, 0.0], num_sweeps=1)
    value = jnp.zeros((2, 4, 4), jnp.uint32) if value is None else value
    with pytest.raises(ValueError, match=f"{name}: expected"):
        ladder.ladder_sweeps(key, **(good | {name: value}))
