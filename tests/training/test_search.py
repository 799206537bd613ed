"""The search: its candidates one by one, who survives, members as trained alone, and a search that is interrupted."""

import copy

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from configs import base, saed_search
from physml_jax.core.rng import step_key, stream_key
from physml_jax.training import candidates, groups, halving, search, setup, sharding
from tests import tiny_patterns


def config(**changes):
    """12 candidates in 4 groups of three learning rates; 2 and 4 steps of 8 pictures."""
    c = base.get_config()
    c.data.name = c.model.name = "tests.tiny_patterns"
    c.data.kwargs = {"num_images": 40, "copies": 1}
    c.data.eval_kwargs = {"copies": 1}
    c.data.probes = {"fresh": {"num_images": 30}}
    c.data.batch_size, c.data.eval_batch_size = 8, 16
    c.model.kwargs = {"width": 4, "norm": True}
    c.task.name = "classification"
    c.report.name = "classification"
    c = setup.plain(c)
    c["search"] = {
        "space": {
            "data": {"kwargs": {"copies": (1, 2)}},
            "model": {"kwargs": {"norm": (True, False)}},
            "optim": {"learning_rate": (0.1, 1e-2, 1e-3)},
        },
        "num_candidates": 12,
        "rungs": (16, 32),
        "keep": 0.5,
        "validation_fraction": 0.25,
        "score": "accuracy",
        "final_seeds": 2,
        "map_members": "loop",
        "num_resamples": 20,
    }
    c["search"] |= changes
    return c


@pytest.fixture(scope="module")
def bench():
    return groups.open_bench(config(), sharding.make_mesh())


def test_the_published_space_is_counted_through():
    """41,472 candidates, every one once and back to its number; the learning rate varies fastest."""
    c = setup.plain(saed_search.get_config())
    space = candidates.read_space(c)
    assert candidates.size(space) == 41_472 == 6 * 6 * 4 * 2 * 2 * 2 * 3 * 2 * 2 * 3
    assert len({tuple(candidates.candidate(space, n).items()) for n in range(41_472)}) == 41_472
    for number in (*range(0, 41_472, 997), 41_471):
        values = candidates.candidate(space, number)
        assert candidates.number_of(space, candidates.candidate_config(c, values)) == number
    rates = [candidates.candidate(space, n)[candidates.RATE] for n in range(4)]
    assert rates == [1e-2, 1e-3, 1e-4, 1e-2]
    assert len(search.by_group(space, range(41_472))) == 13_824
    with pytest.raises(ValueError, match="expected a candidate from 0 to 41471, got 41472"):
        candidates.candidate(space, 41_472)


def test_the_config_itself_is_299_an():
    c = setup.plain(saed_search.get_config("paper"))
    space = candidates.read_space(c)
    values = candidates.candidate(space, candidates.number_of(space, c))
    short = {name.rsplit(".", 1)[-1]: value for name, value in values.items()}
    assert short == {
        "conv_layers": 6,
        "dense_layers": 5,
        "first_dense": 64,
        "batch_norm": True,
        "dropout_2d": 0.0,
        "dropout": 0.0,
        "learning_rate": 1e-3,
        "dense": "constant",
        "num_rotations": 24,
        "batch_size": 32,
    }
    assert search.make_plan(c).counts == (41_472, 4147, 414)


def test_a_sample_holds_whole_groups_once():
    space = candidates.read_space(setup.plain(saed_search.get_config()))
    drawn = candidates.sample(space, 48, seed=0)
    assert len(set(drawn.tolist())) == 48 and np.all(np.diff(drawn) > 0)
    assert all(len(digits) == 3 for digits in search.by_group(space, drawn).values())
    np.testing.assert_array_equal(drawn, candidates.sample(space, 48, seed=0))
    assert set(drawn) != set(candidates.sample(space, 48, seed=1))
    np.testing.assert_array_equal(candidates.sample(space, 41_472, seed=5), np.arange(41_472))
    for number in (0, 47, 41_475):
        with pytest.raises(ValueError, match="search.num_candidates: expected a multiple of the 3 learning rates"):
            candidates.sample(space, number, seed=0)


@pytest.mark.parametrize(
    ("section", "name", "values", "message"),
    [
        ("model", "widht", (1, 2), "the config has no option model.kwargs.widht"),
        ("model", "norm", (), "search.space.model.kwargs.norm: expected at least one value"),
        ("model", "norm", True, "search.space.model.kwargs.norm: expected at least one value, as a tuple"),
        ("model", "norm", (True, 1), "expected values like True, got 1"),
        ("model", "width", (2, 4.0), "expected values like 4, got 4.0"),
        ("model", "width", (2, True), "expected values like 4, got True"),
        ("model", "width", (2, 2, 4), "expected different values"),
        ("model", "width", (2, 3), "model.kwargs.width: expected one of the values of its axis"),
        ("optim", "learning_rate", (0.1, 0.0), "optim.learning_rate: expected positive numbers"),
        ("train", "num_steps", (1, 2), "train.num_steps cannot be searched"),
    ],
)
def test_bad_spaces_are_refused(section, name, values, message):
    c = config()
    inside = {name: values} if section in ("optim", "train") else {"kwargs": {name: values}}
    c["search"]["space"][section] = inside
    with pytest.raises(ValueError, match=message):
        search.make_plan(c)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"rungs": (32, 16)}, "search.rungs: expected increasing"),
        ({"keep": 0.0}, "search.keep: expected a fraction"),
        ({"score": "f1"}, "search.score: expected one of accuracy, balanced_accuracy"),
        ({"map_members": "pmap"}, "search.map_members: expected one of"),
        ({"final_seeds": 0}, "search.final_seeds: expected at least 1"),
    ],
)
def test_bad_options_are_refused(changes, message):
    with pytest.raises(ValueError, match=message):
        search.make_plan(config(**changes))


def test_a_config_without_a_search_is_refused():
    c = config()
    del c["search"]
    with pytest.raises(ValueError, match="expected a config with a section 'search'"):
        search.make_plan(c)


def test_the_best_survive():
    """By score, then loss, then number; what is not finite is last."""
    numbers, scores = [7, 3, 9, 1, 5], [0.5, np.nan, 0.7, 0.5, 0.5]
    losses = [1.0, 0.0, 2.0, 1.0, 0.9]
    assert halving.survivors(numbers, scores, losses, num_kept=5) == (9, 5, 1, 7, 3)
    assert halving.survivors(numbers, scores, losses, num_kept=2) == (9, 5)
    assert halving.survivors([1, 2], [0.5, 0.5], [np.inf, 3.0], num_kept=1) == (2,)
    assert [halving.num_survivors(n, 1 / 3) for n in (48, 16, 5, 2, 1)] == [16, 5, 1, 1, 1]
    assert halving.num_survivors(10, 1.0) == 10 and halving.num_survivors(10, 0.3) == 3
    with pytest.raises(ValueError, match="num_kept: expected a number from 1 to 2, got 3"):
        halving.survivors([1, 2], [0, 0], [0, 0], num_kept=3)


def test_members_under_one_vmap_are_what_they_are_alone(bench):
    """Four steps at two learning rates, one of another seed, against the experiment of each candidate on the same
    batches: its own optimizer with its own rate, as ``train.py`` builds it."""
    mesh, c = sharding.make_mesh(), config(map_members="vmap")
    values = {"data.kwargs.copies": 2, "model.kwargs.norm": True}
    experiment = groups.group_experiment(c, values)
    programs = groups.make_programs(experiment, mesh)
    assert programs.at_once
    rates, replicas = [0.1, 1e-3], [0, 1]
    source = groups._source(experiment, bench, mesh)
    state = programs.init(jnp.asarray(replicas, jnp.int32))
    finite = jnp.ones(2, bool)
    batches = [source.batch(i) for i in range(4)]
    for i, batch in enumerate(batches):
        arguments = (jnp.asarray(rates, jnp.float32), jnp.asarray(replicas, jnp.int32), batch)
        state, finite = programs.step(state, finite, *arguments, step_key(0, "train", i))
    assert np.all(finite)
    for member, (rate, replica) in enumerate(zip(rates, replicas, strict=True)):
        alone = setup.build(candidates.candidate_config(c, values | {candidates.RATE: rate})).member
        seed = lambda key, r=replica: jax.random.fold_in(key, r) if r else key
        single = jax.jit(alone.init)(seed(stream_key(0, "init")), batches[0])
        step = jax.jit(alone.step)
        for i, batch in enumerate(batches):
            single, _ = step(single, batch, seed(step_key(0, "train", i)))
        mine = jax.tree.map(lambda x, k=member: x[k], state)
        for a, b in zip(jax.tree.leaves(mine.params), jax.tree.leaves(single.params), strict=True):
            np.testing.assert_allclose(a, b, atol=1e-5)
        jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-5), mine.mutable, single.mutable)
    # The comparison can fail: another rate or another seed is elsewhere.
    kernel = np.asarray(state.params["Dense_0"]["kernel"])
    assert np.abs(kernel[0] - kernel[1]).max() > 1e-2


def test_validation_images_and_their_copies_are_never_trained_on(bench):
    mesh, c = sharding.make_mesh(), config()
    label = tiny_patterns.SHARES[np.arange(40) % 10]
    trained = set(bench.train_rows.tolist())
    held = sorted(set(range(40)) - trained)
    assert [int((label[held] == k).sum()) for k in range(3)] == [5, 3, 2]  # a quarter of 20, 12 and 8
    np.testing.assert_array_equal(bench.labels["validation"], label[held])
    experiment = groups.group_experiment(c, {"data.kwargs.copies": 2, "model.kwargs.norm": True})
    source = groups._source(experiment, bench, mesh)
    assert source.num_examples == 2 * len(trained)
    whole = jax.jit(experiment.datasets["train"].sample)(None, jnp.arange(80))["image"]
    known = {np.asarray(picture).tobytes(): i for i, picture in enumerate(whole)}
    seen = {known[np.asarray(p).tobytes()] for step in range(8) for p in source.batch(step)["image"]}
    assert {i // 2 for i in seen} <= trained and len(seen) > 50
    pictures = np.concatenate(
        [np.asarray(b["image"])[np.asarray(b["weight"]) > 0] for b in bench.batches["validation"]]
    )
    np.testing.assert_allclose(pictures, whole[::2][np.array(held)], rtol=1e-6)


def results(found):
    """Everything but times."""
    parts = [*found.rungs, *(found.finals[n] for n in sorted(found.finals))]
    return [(p.numbers.tolist(), p.budget, p.answers, p.losses, p.num_params.tolist()) for p in parts]


class Killed(Exception):
    """In place of a signal."""


def test_a_search_that_is_killed_goes_on_to_the_same_result(tmp_path, bench, monkeypatch):
    """Killed after a few groups of each rung, one of its files cut short: what is there at the end is what an
    undisturbed search finds. Another config is refused."""
    monkeypatch.setattr(groups, "open_bench", lambda *_: bench)  # programs are compiled once for all attempts
    mesh, folders = sharding.make_mesh(), [tmp_path / "whole", tmp_path / "parts"]
    for folder in folders:
        folder.mkdir()
    whole = search.run(config(), mesh, folders[0])
    assert [len(r.numbers) for r in whole.rungs] == [12, 6] and whole.selected in whole.rungs[1].numbers
    assert set(whole.finals) == {whole.selected, whole.reference}
    kept = halving.survivors(*search.judged(whole.rungs[0], whole.labels, "accuracy"), num_kept=6)
    assert sorted(kept) == whole.rungs[1].numbers.tolist()

    for limit in (2, 5):  # groups that each attempt finishes, those found on the disk included
        calls = []

        def stop(done, text, calls=calls, limit=limit):
            del done
            calls.append(text)
            if sum("group" in t for t in calls) >= limit:
                raise Killed

        with pytest.raises(Killed):
            search.run(config(), mesh, folders[1], progress=stop)
    files = sorted((folders[1] / "results").rglob("*.npz"))
    assert len(files) == 5
    files[0].write_bytes(files[0].read_bytes()[:200])
    again = search.run(config(), mesh, folders[1])
    assert again.selected == whole.selected
    jax.tree.map(np.testing.assert_array_equal, results(again), results(whole))

    trained = []
    search.run(config(), mesh, folders[1], progress=lambda done, text: trained.append(text))
    assert "opening the data" not in trained  # a finished search only reads
    with pytest.raises(ValueError, match=r"search.keep: 0.5 -> 0.25"):
        search.run(config(keep=0.25), mesh, folders[1])


def test_what_is_not_finite_is_never_selected():
    answers = np.array([[0, 0, 1], [-1, -1, -1], [0, 1, 1]], np.int16)
    found = search.Answers(
        numbers=np.array([4, 5, 6]),
        budget=1,
        answers={"validation": answers},
        losses={"validation": np.array([[1.0] * 3, [groups._LARGE] * 3, [0.5] * 3])},
        num_params=np.ones(3),
        seconds=np.ones(3),
    )
    judged = search.judged(found, {"validation": np.array([0, 0, 0])}, "accuracy")
    assert halving.survivors(*judged, num_kept=3) == (4, 6, 5)


def test_the_estimate_names_what_a_search_costs():
    plan = search.make_plan(copy.deepcopy(config()))
    text = "\n".join(search.describe(plan, sharding.make_mesh()))
    assert "space: 12 candidates on 3 axes" in text and "12 candidates in 4 groups" in text
    assert "programs: about 2;" in text  # with and without normalisation; copies only change the data
    assert "rung 2: 6 candidates see 32 images each" in text
    assert plan.num_images == 12 * 16 + 6 * 32 + 2 * 2 * 32
