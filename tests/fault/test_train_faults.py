"""Training that is killed, stopped, damaged and misled: the same command ends with the same result, or says why not.

The program under test is the one that a user starts, in a process of its own, on one device.
"""

import contextlib
import json
import os
import re
import shutil
import signal
import sys
from pathlib import Path

import pytest

from physml_jax.io.workdir import claimed
from physml_jax.io.writers import read_metrics

ROOT = Path(__file__).parents[2]
NUM_STEPS = 120
SMALL = (
    f"--config.train.num_steps={NUM_STEPS}",
    "--config.train.log_every=5",
    "--config.train.eval_every=40",
    "--config.train.checkpoint_every=10",
    "--config.model.name=own.flat",
)
# Programs are compiled once for all runs of this file, on one device, and quickly rather than well.
ENV = {
    "XLA_FLAGS": "--xla_backend_optimization_level=0 --xla_llvm_disable_expensive_passes=true",
    "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
}
# A user's own model, by a dotted name: what is tested here does not depend on the network, and this one compiles fast.
# It holds up every step on the host, or a fast machine would have finished before the kill arrives.
MODEL = """
import time

from flax import linen as nn

from physml_jax.training import loop

key_of_step = loop.step_key

def slowly(*args):
    time.sleep(0.03)
    return key_of_step(*args)

loop.step_key = slowly

class Flat(nn.Module):
    @nn.compact
    def __call__(self, inputs, *, train):
        return nn.Dense(31)(nn.tanh(nn.Dense(16)(inputs.reshape(inputs.shape[0], -1))))

def make_model(**kwargs):
    return Flat()
"""
CONFIGS = sorted(p.stem for p in (ROOT / "configs").glob("*.py") if p.stem not in ("__init__", "base"))


@pytest.fixture(scope="module", autouse=True)
def surroundings(tmp_path_factory):
    """Puts the module ``own.flat`` where the programs under test find it, and gives them a cache of programs of
    their own: JAX does not write its cache atomically, and a torn entry would warn for ever.
    """
    folder = tmp_path_factory.mktemp("modules")
    (folder / "own").mkdir()
    (folder / "own" / "flat.py").write_text(MODEL)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("JAX_COMPILATION_CACHE_DIR", str(folder / "xla"))
        patch.setenv("PYTHONPATH", os.pathsep.join([str(folder), *filter(None, [os.environ.get("PYTHONPATH")])]))
        yield


def train(workdir, *options, config="percolation_density", small=SMALL):
    """The command of a run; a ``small`` one has the model above."""
    return [
        sys.executable,
        "experiments/train.py",
        f"--config=configs/{config}.py:smoke",
        f"--workdir={workdir}",
        "--noreport",
        *small,
        *options,
    ]


def steps(workdir):
    return sorted(int(p.name) for p in (workdir / "checkpoints").iterdir() if p.name.isdigit())


def result(workdir):
    """Digests of the final state, and all metrics apart from times."""
    meta = json.loads((workdir / "checkpoints" / str(steps(workdir)[-1]) / "meta" / "metadata").read_text())
    rows = [{k: v for k, v in row.items() if k != "time_s"} for row in read_metrics(workdir / "metrics.jsonl")]
    return meta["step"], meta["leaves"], rows


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """The work directory of an uninterrupted run; tests copy it."""
    return tmp_path_factory.mktemp("finished") / "run"


@pytest.fixture
def reference(finished, run_command):
    """The result of the uninterrupted run, made on first use."""
    if not finished.exists():
        outcome = run_command(train(finished), env=ENV)
        assert outcome.returncode == 0, outcome.output
    found = result(finished)
    assert found[0] == NUM_STEPS
    assert [row["step"] for row in found[2] if "loss" in row] == list(range(5, NUM_STEPS + 1, 5))
    return found


def interrupt_and_finish(run_and_kill, run_command, workdir, moments, **kwargs):
    """Ends a run at every moment in turn, starting it again each time, and lets the last one finish."""
    for seed, moment in enumerate(moments):
        outcome = run_and_kill(train(workdir, **kwargs), seed=seed, env=ENV, **moment)
        signum = moment.get("signum", signal.SIGKILL)
        expected = -signal.SIGKILL if signum == signal.SIGKILL else 128 + signum
        assert outcome.killed and outcome.returncode == expected, outcome.output
        if signum != signal.SIGKILL:
            assert "the state is saved, the same command goes on from here" in outcome.output
            assert "Traceback" not in outcome.output
    outcome = run_command(train(workdir, **kwargs), env=ENV)
    assert outcome.returncode == 0, outcome.output
    starts = json.loads((workdir / "provenance.json").read_text())["starts"]
    assert 1 <= len(starts) <= len(moments) + 1


def when_saved(workdir, step, **kwargs):
    """A moment shortly after a checkpoint has appeared."""
    return {"on_file": workdir / "checkpoints" / f"{step}*", "after": (0.0, 0.3), **kwargs}


def test_killed_runs_end_like_an_uninterrupted_one(run_and_kill, run_command, reference, tmp_path):
    workdir = tmp_path / "run"
    moments = (
        {"on_line": "train 0/", "after": (0.0, 2.0)},  # compiling, or the first steps
        when_saved(workdir, 10),
        when_saved(workdir, "[5-9]0"),
    )
    interrupt_and_finish(run_and_kill, run_command, workdir, moments)
    assert result(workdir) == reference


@pytest.mark.slow
def test_often_killed_runs_end_like_an_uninterrupted_one(run_and_kill, run_command, reference, tmp_path):
    workdir = tmp_path / "run"
    start = [{"after": (0.0, 4.0)} for _ in range(4)]
    later = [when_saved(workdir, step) for step in (10, 20, 30, 40, 50, 60, 70, 80)]
    interrupt_and_finish(run_and_kill, run_command, workdir, [*start, *later])
    assert result(workdir) == reference


@pytest.mark.slow
@pytest.mark.parametrize("config", CONFIGS)
def test_every_experiment_survives_a_kill(run_and_kill, run_command, tmp_path, config):
    def short(last):
        return (f"--config.train.num_steps={last}", "--config.train.log_every=1", "--config.train.checkpoint_every=2")

    whole, killed = tmp_path / "whole", tmp_path / "killed"
    outcome = run_command(train(whole, config=config, small=short(6)), env=ENV, timeout=300)
    assert outcome.returncode == 0, outcome.output
    moment = when_saved(killed, 2, timeout=300)
    interrupt_and_finish(run_and_kill, run_command, killed, [moment], config=config, small=short(6))
    assert result(killed) == result(whole)


def test_stopped_runs_say_so_and_end_like_an_uninterrupted_one(run_and_kill, run_command, reference, tmp_path):
    workdir = tmp_path / "run"
    moments = (
        when_saved(workdir, 10, signum=signal.SIGTERM),
        when_saved(workdir, "[4-9]0", signum=signal.SIGINT),
    )
    interrupt_and_finish(run_and_kill, run_command, workdir, moments)
    assert result(workdir) == reference


@pytest.mark.slow
def test_a_run_moves_to_other_numbers_of_devices(run_and_kill, run_command, reference, tmp_path):
    """Begun on four devices, stopped, continued on two, killed, finished on one; sums differ in their last bits."""
    workdir = tmp_path / "run"

    def on(num_devices):
        return ENV | {"XLA_FLAGS": f"{ENV['XLA_FLAGS']} --xla_force_host_platform_device_count={num_devices}"}

    first = when_saved(workdir, 10, signum=signal.SIGTERM)
    assert run_and_kill(train(workdir), seed=0, env=on(4), **first).returncode == 143
    assert run_and_kill(train(workdir), seed=1, env=on(2), **when_saved(workdir, "[4-9]0")).killed
    assert run_command(train(workdir), env=on(1)).returncode == 0
    starts = json.loads((workdir / "provenance.json").read_text())["starts"]
    assert [s["device"]["count"] for s in starts] == [4, 2, 1]
    rows, expected = result(workdir)[2], reference[2]
    assert [row["step"] for row in rows] == [row["step"] for row in expected]
    for row, other in zip(rows, expected, strict=True):
        assert row == pytest.approx(other, rel=1e-4)


@pytest.fixture
def copied(finished, reference, tmp_path):
    """A finished run that a test may spoil."""
    del reference
    shutil.copytree(finished, tmp_path / "run")
    return tmp_path / "run"


def test_a_finished_run_is_left_as_it_is(run_command, reference, copied):
    before = (copied / "metrics.jsonl").read_bytes()
    outcome = run_command(train(copied), env=ENV)
    assert outcome.returncode == 0, outcome.output
    assert f"train {NUM_STEPS}/{NUM_STEPS} (100%)" in outcome.output
    assert result(copied) == reference
    assert (copied / "metrics.jsonl").read_bytes() == before


def test_a_damaged_checkpoint_costs_steps_and_not_the_result(run_command, reference, copied, flip_bits):
    latest = steps(copied)[-1]
    flip_bits(copied / "checkpoints" / str(latest) / "meta" / "metadata", 0, n=8)
    outcome = run_command(train(copied), env=ENV)
    assert outcome.returncode == 0, outcome.output
    assert f"checkpoint {latest} is damaged" in outcome.output
    assert "going back to checkpoint 110" in outcome.output
    assert result(copied) == reference


def test_only_damaged_checkpoints_stop_the_run(run_command, copied, flip_bits):
    for step in steps(copied):
        flip_bits(copied / "checkpoints" / str(step) / "meta" / "metadata", step, n=8)
    rows = (copied / "metrics.jsonl").read_bytes()
    outcome = run_command(train(copied), env=ENV)
    assert outcome.returncode == 1
    assert "error: no usable checkpoint" in outcome.output and "Delete this folder to start anew" in outcome.output
    assert "Traceback" not in outcome.output
    assert (copied / "metrics.jsonl").read_bytes() == rows


def test_another_config_is_refused_with_the_difference(run_command, copied):
    outcome = run_command(train(copied, "--config.optim.learning_rate=0.5", "--config.seed=7"), env=ENV)
    assert outcome.returncode == 1
    assert "  optim.learning_rate: 0.003 -> 0.5\n  seed: 0 -> 7\n" in outcome.output
    assert "Traceback" not in outcome.output


def test_two_runs_do_not_share_a_folder(run_command, copied):
    with contextlib.ExitStack() as stack:
        stack.enter_context(claimed(copied))
        outcome = run_command(train(copied), env=ENV)
    assert outcome.returncode == 1
    assert "is in use by process" in outcome.output and "Traceback" not in outcome.output


def test_a_loss_that_is_not_finite_stops_the_run_and_names_the_step(run_command, tmp_path):
    outcome = run_command(train(tmp_path / "run", "--config.optim.learning_rate=1e38"), env=ENV)
    assert outcome.returncode == 1
    assert re.search(r"^error: the loss of step [2-5] is not finite", outcome.output, re.MULTILINE), outcome.output
    assert "Traceback" not in outcome.output
    assert not any((tmp_path / "run").glob("checkpoints/*"))


def test_a_full_disk_stops_the_run_with_one_error(run_command, limit_file_size, tmp_path):
    # One kernel alone has 4096 bytes; how many arrays Orbax puts into one file depends on the moment.
    outcome = run_command(limit_file_size(train(tmp_path / "run"), 3500), env=ENV)
    assert outcome.returncode == 1
    assert "error: could not write checkpoint 10" in outcome.output, outcome.output
    assert "Traceback" not in outcome.output
