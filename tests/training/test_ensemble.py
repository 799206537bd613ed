"""Several seeds in one run: member by member what single runs give, whatever the method."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from configs import percolation_density
from physml_jax.io.writers import read_metrics
from physml_jax.training import ensemble as ensembles
from physml_jax.training import loop, setup, sharding


def config(num_seeds=3, **changes):
    c = percolation_density.get_config("smoke")
    c.num_seeds = num_seeds
    c.model.name = "tests.tiny_model"
    c.model.kwargs = {"num_classes": c.model.kwargs.num_classes}
    for name, value in changes.items():
        c.train[name] = value
    return c


def step_once(built):
    spec = setup.train_spec(built)
    keys = jax.random.split(jax.random.key(3), len(spec))
    batch = {
        k: jax.random.uniform(key, s.shape, s.dtype) if s.dtype == jnp.float32 else jnp.zeros(s.shape, s.dtype)
        for key, (k, s) in zip(keys, sorted(spec.items()), strict=True)
    }
    state = jax.jit(built.task.init)(jax.random.key(0), batch)
    return batch, state, *jax.jit(built.task.step)(state, batch, jax.random.key(1))


@pytest.mark.parametrize(
    ("method", "shared"),
    [
        ("scan", False),
        ("vmap", True),
        *(pytest.param(*x, marks=pytest.mark.slow) for x in (("scan", True), ("vmap", False))),
    ],
)
def test_members_are_the_single_runs(method, shared):
    """One step of every member against the same step of the task alone. Sums in another order move a weight by up to
    1e-3 where Adam divides a tiny gradient by its size, and on average far less."""
    built = setup.build(config(map_seeds=method, shared_batches=shared))
    batch, state, new, metrics = step_once(built)
    assert metrics["loss"].shape == (3,)
    for i, (before, after) in enumerate(zip(ensembles.members(state), ensembles.members(new), strict=True)):
        key = ensembles.member_keys(jax.random.key(1), 3)[i]
        mine = batch if shared else {k: v[i] for k, v in batch.items()}
        alone, alone_metrics = jax.jit(built.member.step)(before, mine, key)
        np.testing.assert_allclose(metrics["loss"][i], alone_metrics["loss"], rtol=1e-5)
        for a, b in zip(jax.tree.leaves(after.params), jax.tree.leaves(alone.params), strict=True):
            assert np.abs(np.asarray(a) - np.asarray(b)).mean() < 1e-5


def test_members_start_from_different_parameters_and_the_first_is_the_single_run():
    built = setup.build(config())
    _, state, *_ = step_once(built)
    kernels = [jax.tree.leaves(s.params)[-1] for s in ensembles.members(state)]
    assert not np.allclose(kernels[0], kernels[1]) and not np.allclose(kernels[1], kernels[2])
    alone = setup.build(config(num_seeds=1))
    single = jax.jit(lambda: loop.init_state(alone, setup.train_spec(alone)))()
    whole = jax.jit(lambda: loop.init_state(built, setup.train_spec(built)))()
    jax.tree.map(np.testing.assert_array_equal, ensembles.members(whole)[0].params, single.params)


@pytest.mark.slow
def test_a_run_of_three_seeds(tmp_path):
    """Trains, stops, goes on, and gives three runs with predictions of their own and means with standard errors."""
    built = setup.build(config(keep_best="accuracy"))
    mesh = sharding.make_mesh()
    sources = setup.open_sources(built, mesh)
    assert sources["train"].batch(0)["image"].shape == (3, 16, 12, 12, 1)
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    whole.mkdir()
    parts.mkdir()
    state = loop.train(built, sources, mesh, whole)
    assert ensembles.step_of(state) == 8 and state.best.score.shape == (3,)
    short = setup.build({**built.config, "train": {**built.config["train"], "num_steps": 4}})
    loop.train(short, sources, mesh, parts)
    again = loop.train(built, sources, mesh, parts)
    jax.tree.map(np.testing.assert_array_equal, state, again)

    runs = loop.finished_runs(built, sources, state, whole)
    assert [r.member for r in runs] == [0, 1, 2] and len({r.name for r in runs}) == 1
    assert not np.allclose(runs[0].predictions["logits"], runs[1].predictions["logits"])
    rows = [r for r in read_metrics(whole / "metrics.jsonl") if "validation/accuracy" in r]
    assert rows[-1]["validation/accuracy_stderr"] >= 0
    best = max(r["validation/accuracy"] for r in rows)
    assert np.mean(state.best.score) >= best - 1e-6  # every member keeps its own best
    report = built.report(runs)
    json.dumps(report.metrics)


def test_members_of_own_batches_see_different_examples():
    built = setup.build(config())
    batch = setup.open_sources(built, sharding.make_mesh())["train"].batch(2)
    assert len(np.unique(batch["index"])) == 3 * 16


def test_scalars_and_members_are_summarised():
    found = ensembles.summarised({"a": np.float32(2.0), "b": np.array([1.0, 2.0, 3.0])})
    assert found == {"a": 2.0, "b": 2.0, "b_stderr": pytest.approx(1 / np.sqrt(3))}


@pytest.mark.parametrize(
    ("change", "message"), [({"map_seeds": "pmap"}, "train.map_seeds: expected one of"), ({}, "num_seeds: expected")]
)
def test_bad_options_are_refused(change, message):
    c = config(**change)
    if not change:
        c.num_seeds = 0
    with pytest.raises(ValueError, match=message):
        setup.build(c)
