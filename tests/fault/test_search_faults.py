"""A search of the command line that is killed: the same command ends with the same answers and the same report."""

import json
import signal
import sys

import numpy as np
import pytest

CONFIG = """
import ml_collections

from tests.training.test_search import config


def get_config(arg=""):
    return ml_collections.ConfigDict(config())
"""


def answers(workdir):
    """All stored arrays but times, and the numbers of the report."""
    found = {}
    for path in sorted((workdir / "results").rglob("*.npz")):
        with np.load(path) as stored:
            found |= {f"{path.relative_to(workdir)}/{k}": stored[k] for k in stored.files if k != "seconds"}
    metrics = json.loads((workdir / "metrics.json").read_text())
    for rung in metrics["rungs"]:
        del rung["seconds"]
    return found, metrics


@pytest.mark.slow
def test_a_killed_search_goes_on(tmp_path, run_command, run_and_kill):
    """SIGKILL at two moments, then to the end; an undisturbed search says the same. Other options are refused."""
    (tmp_path / "tiny_search.py").write_text(CONFIG)
    env = {"JAX_COMPILATION_CACHE_DIR": str(tmp_path / "xla"), "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0"}

    def command(name, *options):
        flags = f"--config={tmp_path / 'tiny_search.py'}", f"--workdir={tmp_path / name}"
        return [sys.executable, "experiments/search.py", *flags, *options]

    whole = run_command(command("whole"), env=env, timeout=600)
    assert whole.returncode == 0, whole.output
    assert "open this first" in whole.output
    for seed, rung in enumerate(("rung0", "rung1")):
        found = tmp_path / "parts" / "results" / rung / "*.npz"
        outcome = run_and_kill(command("parts"), seed=seed, on_file=found, after=(0, 0.2), timeout=600, env=env)
        assert outcome.killed and outcome.returncode == -signal.SIGKILL, outcome.output
    again = run_command(command("parts"), env=env, timeout=600)
    assert again.returncode == 0, again.output
    (arrays, metrics), (expected, expected_metrics) = answers(tmp_path / "parts"), answers(tmp_path / "whole")
    assert metrics == expected_metrics and set(arrays) == set(expected)
    for name, array in arrays.items():
        np.testing.assert_array_equal(array, expected[name], err_msg=name)
    refused = run_command(command("parts", "--config.search.keep=0.25"), env=env, timeout=600)
    assert refused.returncode == 1 and "search.keep: 0.5 -> 0.25" in refused.output
