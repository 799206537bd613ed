import json
import subprocess
import sys

import pytest

import physml_jax
from physml_jax.io import workdir

CONFIG = {"seed": 1, "data": {"name": "percolation", "kwargs": {"size": 8}}, "train": {"num_steps": 10, "lr": 0.1}}


def test_default_workdir_is_plain_without_overrides():
    assert workdir.default_workdir("configs/lacbed.py").as_posix() == "workdirs/lacbed"
    assert workdir.default_workdir("configs/lacbed.py", "smoke").as_posix() == "workdirs/lacbed-smoke"
    assert workdir.default_workdir("configs/lacbed.py:smoke", root="x").as_posix() == "x/lacbed-smoke"


def test_default_workdir_separates_other_options():
    commands = [
        ("", {}),
        ("smoke", {}),
        ("a b", {}),
        ("a_b", {}),
        ("", {"seed": 1}),
        ("", {"seed": "1"}),
        ("", {"seed": 2}),
        ("", {"data.size": 1}),
        ("smoke", {"seed": 1}),
    ]
    folders = {workdir.default_workdir("c.py", arg, overrides) for arg, overrides in commands}
    assert len(folders) == len(commands)
    a, b = {"x": 1, "y": 2}, {"y": 2, "x": 1}
    assert workdir.default_workdir("c.py", "", a) == workdir.default_workdir("c.py", "", b)


def test_default_workdir_never_leaves_root():
    assert workdir.default_workdir("c.py", "../../etc", {}).parent.as_posix() == "workdirs"


def test_prepare_accepts_the_same_config_and_stores_ignored_changes(tmp_path):
    workdir.prepare(tmp_path, CONFIG)
    workdir.prepare(tmp_path, CONFIG)
    longer = CONFIG | {"train": {"num_steps": 20, "lr": 0.1}}
    workdir.prepare(tmp_path, longer)
    assert workdir.read_config(tmp_path) == longer


def test_prepare_lists_every_difference(tmp_path):
    workdir.prepare(tmp_path, CONFIG)
    before = (tmp_path / "config.json").read_bytes()
    other = {"seed": 2, "data": {"name": "percolation", "kwargs": {"size": 8, "p": None}}, "train": {"num_steps": 20}}
    with pytest.raises(ValueError, match="another config") as error:
        workdir.prepare(tmp_path, other)
    lines = str(error.value).splitlines()
    assert "  seed: 1 -> 2" in lines
    assert not any("kwargs.p" in line for line in lines)  # what is not set is as good as absent
    assert "  train.lr: 0.1 -> (absent)" in lines
    assert not any("num_steps" in line for line in lines)
    assert (tmp_path / "config.json").read_bytes() == before


def test_prepare_ignores_groups_but_not_prefixes_of_names(tmp_path):
    workdir.prepare(tmp_path, {"log": {"every": 1}, "logger": 1})
    workdir.prepare(tmp_path, {"log": {"every": 2}, "logger": 1}, ignore=("log",))
    with pytest.raises(ValueError, match="logger: 1 -> 2"):
        workdir.prepare(tmp_path, {"log": {"every": 2}, "logger": 2}, ignore=("log",))


def test_tuples_equal_the_lists_that_json_makes_of_them(tmp_path):
    workdir.prepare(tmp_path, {"shape": (1, 2), "bad": float("nan")})
    workdir.prepare(tmp_path, {"shape": [1, 2], "bad": float("nan")})


@pytest.mark.parametrize("content", [b"", b'{"seed": 1', b"\xff\xfe\x00", b"[1]", b"null"])
def test_damaged_config_is_one_clear_error(tmp_path, content):
    (tmp_path / "config.json").write_bytes(content)
    with pytest.raises(ValueError, match=r"config\.json is damaged .* start anew"):
        workdir.prepare(tmp_path, CONFIG)
    assert (tmp_path / "config.json").read_bytes() == content


def test_checkpoints_without_config_are_refused(tmp_path):
    (tmp_path / "checkpoints" / "10").mkdir(parents=True)
    with pytest.raises(ValueError, match="holds checkpoints but no config"):
        workdir.prepare(tmp_path, CONFIG)


def test_read_config_of_no_run(tmp_path):
    with pytest.raises(OSError, match="not the workdir of a run"):
        workdir.read_config(tmp_path)


def test_config_with_an_object_is_refused(tmp_path):
    with pytest.raises(ValueError, match="plain values"):
        workdir.prepare(tmp_path, {"model": object()})


def test_claimed_refuses_a_second_owner_and_is_free_again_after_death(tmp_path):
    folder = tmp_path / "a" / "run"
    code = (
        f"from physml_jax.io.workdir import claimed\nwith claimed({str(folder)!r}): print('held', flush=True); input()"
    )
    root = str(workdir.Path(physml_jax.__file__).parents[1])
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True, "cwd": root}
    with subprocess.Popen([sys.executable, "-c", code], **pipes) as child:
        try:
            assert child.stdout.readline().strip() == "held"
            with pytest.raises(OSError, match=f"in use by process {child.pid} "), workdir.claimed(folder):
                pass
        finally:
            child.kill()
    with workdir.claimed(folder) as held:
        assert held == folder


def test_claimed_names_an_impossible_folder(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(OSError, match=r"cannot use workdir .*file"), workdir.claimed(tmp_path / "file"):
        pass


def test_provenance_appends_one_entry_per_start(tmp_path, monkeypatch):
    monkeypatch.setenv("A_SECRET", "do not tell")
    for seed in (3, 4):
        workdir.write_provenance(tmp_path, seed=seed, config=CONFIG)
    text = (tmp_path / "provenance.json").read_text()
    starts = json.loads(text)["starts"]
    assert [s["seed"] for s in starts] == [3, 4]
    assert {"python", "jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "numpy", "physml_jax"} == set(
        starts[0]["versions"]
    )
    assert starts[0]["device"]["count"] == 4
    assert starts[0]["started"].endswith("+00:00")
    assert "do not tell" not in text


def test_damaged_provenance_does_not_stop_a_run(tmp_path):
    (tmp_path / "provenance.json").write_text('{"starts": [')
    workdir.write_provenance(tmp_path, seed=0, config=CONFIG)
    assert len(json.loads((tmp_path / "provenance.json").read_text())["starts"]) == 1
