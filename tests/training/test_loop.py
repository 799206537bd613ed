"""The loop on a task whose result can be worked out by hand, and on the smallest real experiment."""

import json
import os
import signal

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from configs import percolation_density
from physml_jax.io.writers import read_metrics
from physml_jax.tasks.state import apply_gradients, create
from physml_jax.training import loop, setup, sharding
from physml_jax.typing import Source, Task


def experiment(
    num_steps=6, *, poison_at=None, on_step=None, keep_best="", reload_best=False, init_from=None, checkpoint_every=2
):
    """Minimises (w - mean(x))^2 with SGD; batch of step s is all s, so every state is known in closed form."""
    tx = optax.sgd(0.25)

    def step(state, batch, key):
        del key
        loss, grads = jax.value_and_grad(lambda p: (p["w"] - batch["x"].mean()) ** 2)(state.params)
        return apply_gradients(state, grads, tx), {"loss": loss}

    task = Task(
        init=lambda key, batch: create({"w": jnp.zeros(())}, {}, tx),
        step=step,
        predict=lambda state, batch, key: {"w": jnp.broadcast_to(state.params["w"], batch["x"].shape)},
        evaluate=lambda state, batch, key: {
            "distance": jnp.abs(state.params["w"] - batch["x"]),
            "weight": batch["weight"],
        },
    )

    def batch(step):
        if on_step:
            on_step(step)
        value = np.nan if step == poison_at else float(step)
        return {"x": jnp.full(4, value, jnp.float32), "index": jnp.arange(4), "weight": jnp.ones(4)}

    spec = jax.tree.map(lambda v: jax.ShapeDtypeStruct(v.shape, v.dtype), batch(-1))
    train = Source(batch=batch, spec=spec, num_examples=None)
    rows = {"x": jnp.array([0.0, 1.0, 2.0, 99.0]), "index": jnp.arange(4), "weight": jnp.array([1.0, 1.0, 1.0, 0.0])}
    validation = Source(batch=lambda s: rows, spec=spec, num_examples=3)
    cadence = {"log_every": 2, "eval_every": 3, "checkpoint_every": checkpoint_every, "keep_checkpoints": 2}
    config = {
        "seed": 0,
        "train": {"num_steps": num_steps, "keep_best": keep_best, "reload_best": reload_best, "init_from": init_from}
        | cadence,
        "report": {"split": "validation", "max_reference": 9},
        "task": {"name": "toy"},
        "model": {"name": "line"},
    }
    built = setup.Experiment(config=config, task=task, member=task, datasets={}, report=None)
    return built, {"train": train, "validation": validation}


def closed_form(num_steps):
    w = 0.0
    for s in range(num_steps):
        w -= 0.25 * 2 * (w - s)
    return w


def run(tmp_path, **kwargs):
    built, sources = experiment(**kwargs)
    return loop.train(built, sources, sharding.make_mesh(), tmp_path)


def without_times(path):
    return [{k: v for k, v in row.items() if k != "time_s"} for row in read_metrics(path / "metrics.jsonl")]


def test_every_step_is_taken_once(tmp_path):
    state = run(tmp_path)
    assert int(state.step) == 6
    np.testing.assert_allclose(state.params["w"], closed_form(6), rtol=1e-6)


def test_the_step_is_compiled_once(tmp_path, monkeypatch):
    made = []
    make = loop._make_step
    monkeypatch.setattr(loop, "_make_step", lambda *args: made.append(make(*args)) or made[-1])
    run(tmp_path, num_steps=3)
    run(tmp_path, num_steps=6)
    assert [step._cache_size() for step in made] == [1, 1]


def test_rows_have_the_step_that_they_describe(tmp_path):
    run(tmp_path)
    rows = without_times(tmp_path)
    assert [r["step"] for r in rows] == [2, 3, 4, 6, 6]
    np.testing.assert_allclose(rows[0]["loss"], (closed_form(1) - 1) ** 2, rtol=1e-6)
    w = closed_form(3)
    np.testing.assert_allclose(rows[1]["validation/distance"], np.mean(np.abs(w - np.arange(3))), rtol=1e-6)


def test_resume_gives_the_run_that_was_never_stopped(tmp_path):
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    whole.mkdir()
    parts.mkdir()
    run(whole, num_steps=9)
    run(parts, num_steps=5)
    state = run(parts, num_steps=9)
    np.testing.assert_array_equal(state.params["w"], np.float32(closed_form(9)))
    # The stop at step 5 adds its own last rows; every row of the whole run is there, unchanged.
    rows = without_times(parts)
    assert all(row in rows for row in without_times(whole))


def test_a_finished_run_is_left_alone(tmp_path):
    run(tmp_path)
    before = (tmp_path / "metrics.jsonl").read_bytes()
    state = run(tmp_path, on_step=lambda s: pytest.fail("trained again") if s >= 0 else None)
    assert int(state.step) == 6
    assert (tmp_path / "metrics.jsonl").read_bytes() == before


def test_a_loss_that_is_not_finite_stops_and_names_the_step(tmp_path):
    with pytest.raises(FloatingPointError, match="step 4 "):
        run(tmp_path, poison_at=3)
    # What was saved before is whole, and nothing after the bad step was saved.
    built, sources = experiment()
    assert int(loop.restore(built, sources["train"], sharding.make_mesh(), tmp_path).step) == 2


@pytest.mark.parametrize(("signum", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_a_signal_ends_the_run_after_a_whole_step(tmp_path, signum, code):
    with pytest.raises(loop.Interrupted, match="after step 4") as stopped:
        run(tmp_path, on_step=lambda s: os.kill(os.getpid(), signum) if s == 3 else None, checkpoint_every=100)
    assert stopped.value.code == code
    state = run(
        tmp_path, on_step=lambda s: pytest.fail("step taken twice") if 0 <= s < 4 else None, checkpoint_every=100
    )
    np.testing.assert_allclose(state.params["w"], closed_form(6), rtol=1e-6)


def test_best_parameters_are_kept(tmp_path):
    """Validation at steps 3 and 6: w moves away from the validation points, so the first is the best."""
    state = run(tmp_path, keep_best="-distance")
    np.testing.assert_allclose(state.best.params["w"], closed_form(3), rtol=1e-6)
    np.testing.assert_allclose(state.params["w"], closed_form(6), rtol=1e-6)


def test_training_goes_on_from_the_best_parameters(tmp_path):
    """Validation at steps 3, 6 and 9; the first is the best, so every stretch of three steps starts from it again."""
    state = run(tmp_path, num_steps=9, keep_best="-distance", reload_best=True)
    w = closed_form(3)
    np.testing.assert_allclose(state.params["w"], w, rtol=1e-6)
    rows = [r for r in without_times(tmp_path) if "validation/distance" in r]
    for s in (6, 7, 8):
        w -= 0.25 * 2 * (w - s)
    np.testing.assert_allclose(rows[-1]["validation/distance"], np.mean(np.abs(w - np.arange(3))), rtol=1e-6)


def test_reloading_needs_a_score(tmp_path):
    with pytest.raises(ValueError, match=r"train.reload_best: needs train.keep_best"):
        run(tmp_path, reload_best=True)


def test_a_run_starts_from_the_parameters_of_another(tmp_path):
    first, second = tmp_path / "first", tmp_path / "second"
    first.mkdir()
    second.mkdir()
    run(first, num_steps=6)
    state = run(second, num_steps=2, init_from=str(first))
    w = closed_form(6)
    for s in range(2):
        w -= 0.25 * 2 * (w - s)
    assert int(state.step) == 2
    np.testing.assert_allclose(state.params["w"], w, rtol=1e-6)


def test_a_start_from_nowhere_is_refused(tmp_path):
    with pytest.raises(ValueError, match=r"train.init_from: there is no checkpoint in .*nowhere"):
        run(tmp_path, init_from=str(tmp_path / "nowhere"))


def test_an_unknown_score_is_refused(tmp_path):
    with pytest.raises(ValueError, match=r"keep_best.*'r_index'.*distance"):
        run(tmp_path, keep_best="r_index")


def test_restore_without_a_run(tmp_path):
    built, sources = experiment()
    with pytest.raises(FileNotFoundError, match="no checkpoint"):
        loop.restore(built, sources["train"], sharding.make_mesh(), tmp_path)


def test_finished_run_holds_the_split_without_padding(tmp_path):
    built, sources = experiment()
    state = loop.train(built, sources, sharding.make_mesh(), tmp_path)
    (result,) = loop.finished_runs(built, sources, state, tmp_path)
    assert result.examples["x"].tolist() == [0, 1, 2]
    assert result.predictions["w"].shape == (3,) and result.scores["distance"].shape == (3,)
    assert result.history[-1]["step"] == 6


def small():
    c = percolation_density.get_config("smoke")
    c.model.name = "tests.tiny_model"
    c.model.kwargs = {"num_classes": c.model.kwargs.num_classes}
    return setup.build(c)


def smoke(tmp_path, num_devices):
    mesh = sharding.make_mesh(num_devices)
    built = small()
    tmp_path.mkdir()
    return loop.train(built, setup.open_sources(built, mesh), mesh, tmp_path)


def test_layouts_agree(tmp_path):
    """The same rows bit for bit; parameters to the rounding of sums in another order."""
    one, four = smoke(tmp_path / "one", 1), smoke(tmp_path / "four", 4)
    assert jax.tree.leaves(four.params)[0].sharding.num_devices == 4
    # Eight steps of Adam move a weight by at most 0.016; rounding may flip the sign of a tiny gradient.
    for a, b in zip(jax.tree.leaves(one.params), jax.tree.leaves(four.params), strict=True):
        assert np.abs(np.asarray(a) - np.asarray(b)).mean() < 1e-4


def test_checkpoint_moves_to_other_devices(tmp_path):
    four = smoke(tmp_path / "run", 4)
    built = small()
    mesh = sharding.make_mesh(2)
    two = loop.restore(built, setup.open_sources(built, mesh)["train"], mesh, tmp_path / "run")
    jax.tree.map(np.testing.assert_array_equal, two, four)


def test_metrics_are_json_lines(tmp_path):
    run(tmp_path)
    assert all(isinstance(json.loads(line), dict) for line in (tmp_path / "metrics.jsonl").read_text().splitlines())
