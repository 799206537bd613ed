"""Sets of percolation states that defeat a reader of the density: what defines each of them, checked by scipy."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.ndimage

from physml_jax.core.rng import example_key
from physml_jax.simulators import percolation
from physml_jax.simulators.percolation import pivotal, walks

LAWS = ("wandering", "staircase")


def keys(n, split="x"):
    return example_key(0, split, jnp.arange(n))


@functools.cache
def compiled(fn, **options):
    return jax.jit(functools.partial(fn, **options))


def states_of(fn, number, *, size=20, **options):
    """States of a set, one per number of sites (60 states for one number)."""
    number = np.full(60, number) if np.ndim(number) == 0 else np.asarray(number)
    return np.asarray(compiled(fn, size=size, **options)(keys(len(number)), jnp.asarray(number, jnp.int32)))


def flags(states):
    """Vertical and horizontal spanning of each state by scipy's labels."""
    out = []
    for state in np.asarray(states):
        labels, _ = scipy.ndimage.label(state)
        edges = (labels[0], labels[-1]), (labels[:, 0], labels[:, -1])
        out.append([bool((np.intersect1d(a, b) > 0).any()) for a, b in edges])
    vertical, horizontal = np.array(out).T
    return {"vertical": vertical, "horizontal": horizontal, "either": vertical | horizontal}


def counts(states):
    return np.asarray(states).sum((1, 2))


#: Every set with some of its options, for checks that hold for all.
SETS = {
    "path": (percolation.path, {}),
    "both_paths": (percolation.path, {"orientation": "both"}),
    "staircase": (percolation.path, {"law": "staircase"}),
    "anti_path": (percolation.anti_path, {}),
    "cross_cut": (percolation.cross_cut, {"thickness": 1}),
    "row_cut": (percolation.row_cut, {}),
    "lines": (percolation.lines, {"num_lines": 3, "thickness": 2}),
    "empty_lines": (percolation.lines, {"num_lines": 2, "value": 0}),
}


@pytest.mark.parametrize(
    ("size", "number", "direction"),
    [
        (8, 400, "either"),
        (32, 200, "vertical"),
        *(pytest.param(*x, "either", marks=pytest.mark.slow) for x in ((32, 200), (100, 40))),
    ],
)
def test_pivotal_pairs_move_one_site_and_flip_the_label(size, number, direction):
    pairs = compiled(percolation.pivotal_pairs, size=size, direction=direction)(keys(number))
    first, second, valid = map(np.asarray, pairs)
    assert valid.mean() > 0.99
    np.testing.assert_array_equal((first ^ second).sum((1, 2))[valid], 2)
    np.testing.assert_array_equal(counts(first), counts(second))
    np.testing.assert_array_equal(flags(first)[direction] & ~flags(second)[direction], valid)


def test_the_number_of_sites_predicts_exactly_half_of_the_pairs():
    """The best rule that sees only the number, fitted on these very states, is right in one state of each pair."""
    pairs = compiled(percolation.pivotal_pairs, size=8, direction="either")(keys(400))
    assert bool(pairs.valid.all())
    number = np.concatenate([counts(pairs.spanning_state), counts(pairs.other_state)])
    label = np.concatenate([flags(pairs.spanning_state)["either"], flags(pairs.other_state)["either"]])
    right = sum(max(label[number == n].sum(), (~label[number == n]).sum()) for n in np.unique(number))
    assert right == 400
    assert len(np.unique(number)) > 10


@pytest.mark.slow
def test_the_moved_site_is_uniform_among_those_that_do_not_span():
    """In a 3x3 lattice, given the sites before the last one and that one, each admissible place is as likely.

    Chi-square over all cases with more than 5 pairs per place, n = 20,000 pairs; abs(z) < 5. A choice of the first
    admissible place in reading order fails.
    """
    first, second, valid = map(np.asarray, compiled(percolation.pivotal_pairs, size=3)(keys(20_000, "uniform")))
    code = lambda s: s.reshape(-1, 9)[valid] @ (1 << np.arange(9))
    case = code(first & second) * 512 + code(first & ~second)

    def statistic(place):
        chi2 = freedom = 0
        for c in np.unique(case):
            admissible = np.unique(code(second & ~first)[case == c])
            n = np.array([(place[case == c] == p).sum() for p in admissible])
            if n.sum() > 5 * len(n) and len(n) > 1:
                chi2 += ((n - n.mean()) ** 2 / n.mean()).sum()
                freedom += len(n) - 1
        assert freedom > 50
        return abs(chi2 - freedom) / np.sqrt(2 * freedom)

    place = code(second & ~first)
    assert statistic(place) < 5
    lowest = {c: place[case == c].min() for c in np.unique(case)}
    assert statistic(np.array([lowest[c] for c in case])) > 5


@pytest.mark.parametrize("direction", ["either", "vertical"])
def test_pivotal_sites_against_trying_every_site(direction):
    states = percolation.bernoulli(keys(60), jnp.linspace(0.3, 0.6, 60, dtype=jnp.float32), size=6)
    states = np.asarray(states)[~flags(states)[direction]]
    found = np.asarray(compiled(pivotal.pivotal_sites, direction=direction)(jnp.asarray(states)))
    tried = np.repeat(states[:, None], 36, axis=1) | np.eye(36, dtype=bool).reshape(36, 6, 6)
    expected = flags(tried.reshape(-1, 6, 6))[direction].reshape(-1, 6, 6) & ~states
    assert expected.any() and len(states) > 20
    np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize("size", [pytest.param(1, marks=pytest.mark.slow), 2])
def test_where_no_site_can_move_the_pair_says_so(size):
    pairs = compiled(percolation.pivotal_pairs, size=size)(keys(50))
    valid = np.asarray(pairs.valid)
    assert not valid.all()
    np.testing.assert_array_equal(pairs.spanning_state[~valid], pairs.other_state[~valid])
    np.testing.assert_array_equal(flags(pairs.spanning_state)["either"], True)


@pytest.mark.parametrize("law", LAWS)
@pytest.mark.parametrize("size", [1, 2, 12])
def test_a_walk_is_one_cluster_from_edge_to_edge(size, law):
    visited = np.asarray(compiled(walks.walk, size=size, law=law)(keys(100)))
    assert all(scipy.ndimage.label(v)[1] == 1 for v in visited)
    np.testing.assert_array_equal(flags(visited)["vertical"], True)


def test_the_staircase_takes_one_step_aside_and_one_down():
    """Two sites in every row but the first and last, from the middle; at the edges it turns inwards."""
    stairs = np.asarray(compiled(walks.walk, size=12, law="staircase")(keys(100)))
    np.testing.assert_array_equal(counts(stairs), 23)
    np.testing.assert_array_equal(stairs[:, 0, 6], True)
    assert set(np.unique(stairs[:, 0, [5, 7]].sum(1))) == {1}  # one of the neighbours of the start
    np.testing.assert_array_equal(stairs[:, :-1].sum(2), 2)
    assert stairs[:, :, 0].any() and stairs[:, :, -1].any()


def test_a_wandering_walk_against_one_step_after_the_other():
    """The distribution of the number of visited sites agrees with a loop that refuses steps off the lattice.

    n = 3000 walks each; abs(z) < 5 for the difference of means. A walk that never goes up fails.
    """
    size, n = 8, 3000

    def slow(rng, moves):
        row, column, seen = 0, int(rng.integers(size)), set()
        while True:
            seen.add((row, column))
            if row == size - 1:
                return len(seen)
            down, right = moves[int(5 * rng.random())]
            row, column = max(row + down, 0), min(max(column + right, 0), size - 1)

    fast = counts(compiled(walks.walk, size=size)(keys(n)))
    rng = np.random.default_rng(0)
    directed = [(1, 0), (1, 0), (0, 1), (0, -1), (0, 1)]
    for moves, agrees in (([(1, 0), (1, 0), (-1, 0), (0, 1), (0, -1)], True), (directed, False)):
        loop = np.array([slow(rng, moves) for _ in range(n)])
        z = (fast.mean() - loop.mean()) / np.sqrt((fast.var() + loop.var()) / n)
        assert (abs(z) < 5) == agrees, z


@pytest.mark.parametrize(
    ("law", "orientation"), [("wandering", "vertical"), ("wandering", "both"), ("staircase", "both")]
)
def test_a_path_spans_and_an_empty_one_blocks(law, orientation):
    numbers = np.tile([40, 120, 240, 330], 15)
    spans = flags(states_of(percolation.path, numbers, law=law, orientation=orientation))
    blocked = flags(states_of(percolation.anti_path, 400 - numbers // 4, law=law, orientation=orientation))
    np.testing.assert_array_equal(spans["vertical"], True)
    np.testing.assert_array_equal(blocked["horizontal"], False)
    if orientation == "both":
        np.testing.assert_array_equal(spans["horizontal"], True)
        np.testing.assert_array_equal(blocked["vertical"], False)


def test_an_empty_walk_on_a_full_lattice():
    """The published set: nothing is empty but the walk, and what is on its sides spans downward."""
    states = states_of(percolation.anti_path, 400, law="staircase")
    assert all(scipy.ndimage.label(~s)[1] == 1 for s in states)
    np.testing.assert_array_equal(counts(states), 400 - 39)
    assert flags(states)["vertical"].mean() > 0.9


@pytest.mark.parametrize("thickness", [1, 3])
def test_cuts_block(thickness):
    numbers = np.repeat([220, 300, 400], 20)
    cross = states_of(percolation.cross_cut, numbers, thickness=thickness)
    row = states_of(percolation.row_cut, numbers, **({"thickness": thickness} if thickness > 1 else {}))
    np.testing.assert_array_equal(flags(cross)["either"], False)
    np.testing.assert_array_equal(flags(row)["vertical"], False)
    np.testing.assert_array_equal(counts(cross), np.minimum(numbers, (20 - thickness) ** 2))
    np.testing.assert_array_equal(counts(row), np.minimum(numbers, (20 - thickness) * 20))
    assert flags(row)["horizontal"][40:].all()
    starts = np.argmin(row[40:].any(2), axis=1)
    assert len(set(starts)) > 8 and starts.max() <= 20 - thickness


@pytest.mark.parametrize("name", SETS)
def test_numbers_are_exact_and_rows_know_their_own_key_only(name):
    """Any number that the prescribed sites permit; here they need fewer than 120 and leave room for 280 of 400."""
    fn, options = SETS[name]
    numbers = np.linspace(200, 280, 60).astype(np.int32)
    states = states_of(fn, numbers, **options)
    assert states.dtype == np.bool_ and states.shape == (60, 20, 20)
    np.testing.assert_array_equal(counts(states), numbers)
    assert len(np.unique(states.reshape(60, -1), axis=0)) == 60
    shuffled = np.random.default_rng(0).permutation(60)
    again = compiled(fn, size=20, **options)(keys(60)[shuffled], jnp.asarray(numbers[shuffled], jnp.int32))
    np.testing.assert_array_equal(again, states[shuffled])


@pytest.mark.parametrize(
    ("fn", "args"), [(percolation.path, (200,)), pytest.param(percolation.pivotal_pairs, (), marks=pytest.mark.slow)]
)
def test_rows_do_not_depend_on_the_batch_size(fn, args):
    make = compiled(fn, size=20)
    many = make(keys(60), *(jnp.full(60, a) for a in args))
    one = make(keys(60)[17:18], *(jnp.full(1, a) for a in args))
    jax.tree.map(lambda a, b: np.testing.assert_array_equal(a[17], b[0]), many, one)


def test_what_the_prescribed_sites_do_not_permit():
    few, fewer = (states_of(percolation.path, n) for n in (0, -7))
    np.testing.assert_array_equal(few, fewer)
    np.testing.assert_array_equal([scipy.ndimage.label(s)[1] for s in few], 1)
    np.testing.assert_array_equal(counts(states_of(percolation.cross_cut, 999, thickness=1)), 19 * 19)


@pytest.mark.parametrize("orientation", ["horizontal", "vertical", "diagonal"])
def test_lines_lie_where_they_should(orientation):
    """On an empty lattice only the line is left. Diagonals of thickness 1 join nothing with four neighbours."""
    states = states_of(percolation.lines, np.zeros(80), size=9, orientation=orientation)
    if orientation == "diagonal":
        assert all(scipy.ndimage.label(s)[1] == s.sum() for s in states)
        assert all(scipy.ndimage.label(s, structure=np.ones((3, 3)))[1] == 1 for s in states)
        assert {int(np.sign(np.diff(np.nonzero(s)[1])[0])) for s in states if s.sum() > 1} == {-1, 1}
        thick = states_of(percolation.lines, np.zeros(80), size=9, orientation=orientation, thickness=2)
        assert all(scipy.ndimage.label(s)[1] == 1 for s in thick)
    else:
        whole = states.all(2 if orientation == "horizontal" else 1)
        np.testing.assert_array_equal(whole.sum(1), 1)
        np.testing.assert_array_equal(counts(states), 9)
        assert whole.any(0).all()  # anywhere, edges included


def test_lines_of_any_kind_are_empty_or_full():
    marked = states_of(percolation.lines, 0, size=9, num_lines=3, value=1)
    np.testing.assert_array_equal(marked, ~states_of(percolation.lines, 81, size=9, num_lines=3, value=0))
    kinds = [marked.all(2).any(), marked.all(1).any(), (counts(marked) % 9 != 0).any()]
    assert kinds == [True, True, True]
    np.testing.assert_array_equal(counts(states_of(percolation.lines, 30, size=9, num_lines=0)), 30)


def test_what_fills_a_set_up_is_uniform():
    """Which sites join a row of a 3x3 lattice: all 15 pairs of the other six, chi-square, n = 6000, abs(z) < 5."""
    n = 6000
    states = states_of(percolation.lines, np.full(n, 5), size=3, orientation="horizontal")
    row = np.argmax(states.all(2), axis=1)  # two more sites complete no second row
    others = np.array([np.delete(s, r, axis=0).reshape(-1) for s, r in zip(states, row, strict=True)])
    _, found = np.unique(others @ (1 << np.arange(6)), return_counts=True)
    assert len(found) == 15
    chi2 = ((found - n / 15) ** 2 / (n / 15)).sum()
    assert abs(chi2 - 14) / np.sqrt(28) < 5


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda k, n: percolation.pivotal_pairs(k, size=0), "size: expected an integer of at least 1"),
        (lambda k, n: percolation.pivotal_pairs(k, size=4, direction="up"), "direction: expected one of either, vert"),
        (lambda k, n: percolation.pivotal_pairs(k[0], size=4), r"keys: expected typed keys \[B\]"),
        (lambda k, n: percolation.path(k, n, size=0), "size: expected"),
        (lambda k, n: percolation.path(k, n[:1], size=4), r"num_occupied: expected int \[2\], one per key"),
        (lambda k, n: percolation.path(k, n.astype(jnp.float32), size=4), "num_occupied: expected int .* got float32"),
        (lambda k, n: percolation.path(k, n, size=4, law="drunk"), "law: expected one of wandering, staircase"),
        (lambda k, n: percolation.anti_path(k, n, size=4, orientation="up"), "orientation: expected one of vertical"),
        (lambda k, n: percolation.cross_cut(k, n, size=4, thickness=5), "thickness: expected an integer from 1 to"),
        (lambda k, n: percolation.row_cut(k, n, size=4, thickness=0), "thickness: expected"),
        (lambda k, n: percolation.lines(k, n, size=4, value=2), "value: expected one of 0, 1"),
        (lambda k, n: percolation.lines(k, n, size=4, num_lines=-1), "num_lines: expected"),
        (lambda k, n: percolation.lines(k, n, size=4, orientation="both"), "orientation: expected one of horizontal"),
    ],
)
def test_bad_arguments_are_named(call, message):
    with pytest.raises(ValueError, match=message):
        call(keys(2), jnp.array([3, 4]))


def test_a_walk_that_takes_too_long_goes_straight_down(monkeypatch):
    """After four steps no walk has crossed 13 rows: the rest is one straight column, and all is still one cluster."""
    monkeypatch.setattr(walks, "max_steps", lambda size: 4)
    visited = np.asarray(walks.walk(keys(40), size=13))
    np.testing.assert_array_equal(flags(visited)["vertical"], True)
    assert all(scipy.ndimage.label(v)[1] == 1 for v in visited)
    np.testing.assert_array_equal(visited[:, 5:].sum(2), 1)
    np.testing.assert_array_equal(visited[:, 5:].any(1).sum(1), 1)
