"""The reference kernel: its transition matrix on 4 x 4 exactly, its averages statistically, its random stream."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.sparse import coo_matrix
from scipy.sparse.csgraph import connected_components

from physml_jax.simulators.ising import exact, hamiltonian, metropolis

RULES = ("metropolis", "heat_bath")
#: Temperature, J2, field: both ordered phases, the frustrated point, the disordered phase, a field in each.
POINTS = np.array(
    [
        (1.5, 0.0, 0.0),
        (2.3, 0.0, 0.0),
        (1.0, 0.3, 0.0),
        (1.0, 0.5, 0.0),
        (1.2, 0.8, 0.0),
        (3.0, 1.2, 0.0),
        (2.0, 0.2, 0.3),
        (1.5, 0.7, 0.5),
    ]
)
#: Sweeps from random states. After 150 the order of the four sublattices still shows: stripes prefer one direction.
REPLICAS, SWEEPS = 512, 400

compiled = jax.jit(metropolis.sweeps, static_argnames=("rule",))


def sweeps(key, spins, t, j2, *, num_sweeps, first_sweep=0, lanes=None, field=None, rule="metropolis"):
    """All arguments given, so that a shape is compiled once."""
    lanes = jnp.arange(len(spins), dtype=jnp.uint32) if lanes is None else lanes
    field = jnp.zeros_like(t) if field is None else field
    return compiled(
        key, spins, t, j2, num_sweeps=num_sweeps, first_sweep=first_sweep, lanes=lanes, field=field, rule=rule
    )


# ---- statistics against enumeration ----


def parameters(points, replicas):
    return tuple(jnp.asarray(np.repeat(np.array(points)[:, i], replicas), jnp.float32) for i in range(3))


def observables(spins, j2, h):
    """[quantity, state]: the quantities of NAMES."""
    stripes = hamiltonian.stripe_order(spins)
    e = np.asarray(hamiltonian.energy(spins, j2, h), np.float64)
    m = np.asarray(hamiltonian.magnetization(spins), np.float64)
    return np.stack([e, m, abs(m), m**2, stripes.maximum, stripes.norm, np.asarray(stripes.row, np.float64) ** 2])


NAMES = (
    "energy",
    "magnetization",
    "abs_magnetization",
    "magnetization_squared",
    "stripe_maximum",
    "stripe_norm",
    "stripe_squared",
)


def z_scores(kernel, seed):
    """How far the replicas' averages and their specific heat are from the exact ones, in standard errors."""
    t, j2, h = parameters(POINTS, REPLICAS)
    start = jax.random.rademacher(jax.random.key(seed), (len(t), 4, 4), jnp.int8)
    spins = kernel(jax.random.key(seed + 1), start, t, j2, field=h, num_sweeps=SWEEPS)
    x = observables(spins, j2, h).reshape(len(NAMES), len(POINTS), REPLICAS)
    want = exact.thermal_averages(*POINTS.T)
    target = np.stack([getattr(want, name) for name in NAMES])
    error = x.std(-1, ddof=1) / np.sqrt(REPLICAS)
    z = {name: row for name, row in zip(NAMES, (x.mean(-1) - target) / error, strict=True)}
    # Variance of the energy: its own standard error from the fourth moment, the exact mean subtracted.
    square = (x[0] - target[0][:, None]) ** 2 * 16 / POINTS[:, :1] ** 2
    z["specific_heat"] = (square.mean(-1) - want.specific_heat) / (square.std(-1, ddof=1) / np.sqrt(REPLICAS))
    return z


@pytest.mark.parametrize("rule", RULES)
def test_averages_agree_with_enumeration(rule):
    """512 independent replicas of each of 8 points after 400 sweeps from random states: 64 scores, all below 4."""
    z = z_scores(functools.partial(sweeps, rule=rule), seed=3)
    for name, row in z.items():
        assert (abs(row) < 4).all(), (name, row)
    # Scores much too small would mean errors much too large.
    assert 0.7 < np.sqrt(np.mean(np.square(list(z.values())))) < 1.4


def two_colours(key, spins, temperature, j2, *, field, num_sweeps):
    """A checkerboard of two colours: right without J2, wrong with it, because sites of a colour are neighbours."""
    colour = jnp.asarray(np.indices((4, 4)).sum(0) % 2 == 0)
    t, j2, field = temperature[:, None, None], j2[:, None, None], field[:, None, None]

    def sweep(i, s):
        for number, mask in enumerate((colour, ~colour)):
            nn = sum(jnp.roll(s, d, a) for a in (1, 2) for d in (1, -1))
            nnn = sum(jnp.roll(s, (d, e), (1, 2)) for d in (1, -1) for e in (1, -1))
            cost = 2 * (s * nn - j2 * (s * nnn) + field * s)
            k = jax.random.fold_in(jax.random.fold_in(key, i), number)
            flip = metropolis.below(jax.random.bits(k, s.shape, jnp.uint32), metropolis.acceptance(cost, t))
            s = jnp.where(flip & mask[None], -s, s)
        return s

    return jax.lax.fori_loop(0, num_sweeps, sweep, spins)


@pytest.mark.slow
def test_two_colours_fail_the_same_test():
    with np.errstate(divide="ignore", invalid="ignore"):  # all replicas may end in one and the same wrong state
        z = z_scores(jax.jit(two_colours), seed=3)
    scores = abs(np.nan_to_num(list(z.values()), nan=0.0))
    assert (scores[:, :2] < 4).all()  # J2 = 0
    # The frustrated point and both points with stripes are wrong, each by far.
    assert (scores[:, [3, 4, 5]].max(0) > 10).all(), scores


def test_energy_of_6x6_with_j2_is_that_of_the_transfer_matrix():
    points = [(2.0, 0.3, 0.0), (1.5, 0.5, 0.0), (1.4, 0.7, 0.2)]
    t, j2, h = parameters(points, 256)
    start = jax.random.rademacher(jax.random.key(7), (len(t), 6, 6), jnp.int8)
    spins = sweeps(jax.random.key(8), start, t, j2, field=h, num_sweeps=200)
    stripes = hamiltonian.stripe_order(spins)
    got = {
        "energy": hamiltonian.energy(spins, j2, h),
        "magnetization_squared": hamiltonian.magnetization(spins) ** 2,
        "stripe_squared": (stripes.row**2 + stripes.column**2) / 2,
    }
    for name, x in got.items():
        x = np.asarray(x, np.float64).reshape(len(points), -1)
        want = [getattr(exact.transfer_matrix(6, *p), name) for p in points]
        z = (x.mean(1) - want) / (x.std(1, ddof=1) / 16)
        assert (abs(z) < 4).all(), (name, z)


# ---- the transition matrix of 65 536 states ----


@functools.cache
def enumeration():
    states = exact.enumerate_states()
    return states, (1 << np.arange(16)).reshape(4, 4)


def flip_probabilities(temperature, j2, field, rule):
    """Of the kernel, for all states, in float64: one [65536, 4] and the bits of the four sites, per sublattice."""
    states, bit = enumeration()
    with jax.enable_x64(True):
        full = [jnp.full(len(states), x, jnp.float64) for x in (temperature, j2, field)]
        spins = jnp.asarray(states)
        return [
            (np.asarray(flips(spins, *full, sublattice=w, rule=rule)).reshape(-1, 4), bit[w[0] :: 2, w[1] :: 2].ravel())
            for w in metropolis.SUBLATTICES
        ]


flips = jax.jit(metropolis.flip_probability, static_argnames=("sublattice", "rule"))


def transitions(probability, bits):
    """One sublattice update, whose sites flip independently: numbers and probabilities of 16 targets, [65536, 16]."""
    chosen = np.arange(16)[:, None] >> np.arange(4) & 1 == 1
    targets = np.arange(len(probability))[:, None] ^ (chosen @ bits)
    return targets, np.where(chosen, probability[:, None], 1 - probability[:, None]).prod(2)


def boltzmann(temperature, j2, field):
    states, _ = enumeration()
    s = states.astype(int)
    right, down = np.roll(s, -1, 2), np.roll(s, -1, 1)
    e = -(s * (right + down)).sum((1, 2)) - field * s.sum((1, 2))
    e = e + j2 * (s * np.roll(right, -1, 1) + right * down).sum((1, 2))
    w = np.exp(-(e - e.min()) / temperature)
    return w / w.sum()


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize(("temperature", "j2", "field"), [(1.3, 0.5, 0.0), (0.9, 0.7, 0.2)])
def test_detailed_balance_is_exact(temperature, j2, field, rule):
    """pi_i K_ij = pi_j K_ji for every sublattice update and pair of states; so the sweep leaves pi as it is."""
    pi = boltzmann(temperature, j2, field)
    after = pi
    for probability, bits in flip_probabilities(temperature, j2, field, rule):
        targets, k = transitions(probability, bits)
        np.testing.assert_allclose(k.sum(1), 1, rtol=1e-13)
        # Back from target j by the same subset of sites.
        back = pi[targets] * k[targets, np.arange(16)]
        np.testing.assert_allclose(pi[:, None] * k, back, rtol=1e-10, atol=1e-300)
        after = np.bincount(targets.ravel(), (after[:, None] * k).ravel())
    np.testing.assert_allclose(after, pi, rtol=1e-10)


def classes(probabilities):
    """Labels of the strongly connected classes of the chain, [65536].

    A sweep has too many targets to be written down, so the graph has four layers, one per sublattice.
    """
    num, layers = 2**16, len(probabilities)
    rows, columns = [], []
    for layer, (probability, bits) in enumerate(probabilities):
        targets, k = transitions(probability, bits)
        source, subset = np.nonzero(k)
        rows.append(source + num * layer)
        columns.append(targets[source, subset] + num * ((layer + 1) % layers))
    rows, columns = np.concatenate(rows), np.concatenate(columns)
    graph = coo_matrix((np.ones(len(rows), bool), (rows, columns)), shape=(num * layers,) * 2)
    return connected_components(graph, directed=True, connection="strong")[1][:num]


@pytest.mark.parametrize(
    ("j2", "rule"), [(0.0, "metropolis"), (0.3, "metropolis"), (0.5, "metropolis"), (0.5, "heat_bath")]
)
def test_every_state_is_reached_from_every_state(j2, rule):
    assert len(np.unique(classes(flip_probabilities(1.0, j2, 0.0, rule)))) == 1


@pytest.mark.parametrize("j2", [0.3, 1.0])
def test_without_the_cure_16_states_are_trapped(j2):
    """Flips that cost nothing always accepted: each sublattice a checkerboard is a cycle with no way out."""
    cured = flip_probabilities(1.0, j2, 0.0, "metropolis")
    uncured = [(np.where(p == metropolis.ZERO_COST_ACCEPTANCE, 1.0, p), bits) for p, bits in cured]
    labels = classes(uncured)
    states, _ = enumeration()
    outside = states[labels != np.bincount(labels).argmax()]
    trapped = {s.tobytes() for s in trapped_states(4)}
    assert {s.tobytes() for s in outside} == trapped and len(trapped) == 16


def trapped_states(size):
    """Every sublattice a checkerboard, in its two phases: 16 states in which no spin feels a field."""
    i, j = np.indices((size, size))
    board = 1 - 2 * ((i // 2 + j // 2) % 2)
    signs = np.array(np.meshgrid(*[(1, -1)] * 4)).reshape(4, -1).T
    return np.stack([board * s[2 * (i % 2) + j % 2] for s in signs]).astype(np.int8)


def test_the_kernel_leaves_the_trapped_states(monkeypatch):
    """On 8 x 8, at four values of J2. Energy 0 is kept for ever without the cure."""
    start = jnp.asarray(trapped_states(8))
    t, j2 = jnp.full(16, 1.0, jnp.float32), jnp.asarray(np.tile([0.0, 0.3, 0.5, 0.8], 4), jnp.float32)
    np.testing.assert_array_equal(hamiltonian.energy(start, j2), 0)
    after = sweeps(jax.random.key(0), start, t, j2, num_sweeps=60)
    assert (np.asarray(hamiltonian.energy(after, j2)) < -0.4).all()
    monkeypatch.setattr(metropolis, "ZERO_COST_ACCEPTANCE", 1.0)
    uncured = jax.jit(functools.partial(metropolis.sweeps))(jax.random.key(0), start, t, j2, num_sweeps=60)
    np.testing.assert_array_equal(uncured, start)  # every spin has turned 60 times


# ---- the random stream ----


def test_a_row_depends_on_its_own_lane_only(key):
    t, j2 = jnp.linspace(3, 5, 16, dtype=jnp.float32), jnp.linspace(0, 1, 16, dtype=jnp.float32)
    h = jnp.linspace(-0.2, 0.2, 16, dtype=jnp.float32)
    start = jax.random.rademacher(key, (16, 8, 8), jnp.int8)
    lanes = jnp.arange(16, dtype=jnp.uint32).at[2].set(4_000_000_000)

    def run(spins, num_sweeps=5, key=key, rows=slice(None), lanes=lanes, **options):
        options = dict(num_sweeps=num_sweeps, lanes=lanes[rows], field=h[rows]) | options
        return np.asarray(sweeps(key, jnp.asarray(spins), t[rows], j2[rows], **options))

    whole = run(start)
    assert set(np.unique(whole)) == {-1, 1} and whole.dtype == np.int8
    some = np.array([14, 1, 2])
    np.testing.assert_array_equal(whole[some], run(start[some], rows=some))
    np.testing.assert_array_equal(whole, run(run(start, 2), 3, first_sweep=2))
    np.testing.assert_array_equal(run(start, 0), start)
    # Another key, first sweep or lane is another stream.
    assert (whole != run(start, key=jax.random.key(9))).any((1, 2)).all()
    assert (whole != run(start, first_sweep=1)).any((1, 2)).all()
    moved = (whole != run(start, lanes=lanes.at[3].set(77))).any((1, 2))
    np.testing.assert_array_equal(moved, np.arange(16) == 3)


def test_defaults_without_jit(key):
    t = j2 = jnp.full(16, 1.5, jnp.float32)
    start = jax.random.rademacher(key, (16, 8, 8), jnp.int8)
    got = metropolis.sweeps(key, start, t, j2, num_sweeps=2)
    np.testing.assert_array_equal(got, sweeps(key, start, t, j2, num_sweeps=2))


def test_a_probability_is_met_to_its_last_bit():
    bits = jnp.asarray([0, 1, 2**31 - 1, 2**31, 2**32 - 1], jnp.uint32)
    for probability, want in [(0.0, 0), (2.0**-32, 1), (0.5, 3), (1.0, 5), (2.0**-33, 0)]:
        assert int(metropolis.below(bits, jnp.full(5, probability, jnp.float32)).sum()) == want


def test_bad_input_is_refused(key):
    s, x = jnp.ones((2, 4, 4), jnp.int8), jnp.ones(2, jnp.float32)
    bad = [
        ("spins", dict(spins=s.astype(jnp.int32))),
        ("spins", dict(spins=jnp.ones((2, 5, 5), jnp.int8))),
        ("spins", dict(spins=jnp.ones((2, 2, 2), jnp.int8))),
        ("spins", dict(spins=s[0])),
        ("temperature", dict(temperature=x[:1])),
        ("temperature", dict(temperature=jnp.asarray([1.0, 0.0]))),
        ("temperature", dict(temperature=jnp.asarray([1.0, jnp.nan]))),
        ("j2", dict(j2=jnp.ones(2, jnp.int32))),
        ("field", dict(field=jnp.ones((2, 1), jnp.float32))),
        ("lanes", dict(lanes=jnp.ones(2, jnp.float32))),
        ("num_sweeps", dict(num_sweeps=-1)),
        ("rule", dict(rule="glauber")),
    ]
    for name, change in bad:
        a = dict(spins=s, temperature=x, j2=x, num_sweeps=1) | change
        with pytest.raises(ValueError, match=f"{name}: "):
            metropolis.sweeps(key, a.pop("spins"), a.pop("temperature"), a.pop("j2"), **a)
    with pytest.raises(ValueError, match="sublattice: "):
        metropolis.flip_probability(s, x, x, sublattice=(2, 0))
