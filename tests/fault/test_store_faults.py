"""Stored data sets under kill -9, damaged files and several builders at once: nothing lost, nothing wrong accepted."""

import json
import os
import shutil
import signal
import subprocess
import sys
import textwrap
import time

import numpy as np
import pytest

from physml_jax.data import store
from physml_jax.typing import Recipe

# The same recipe in this process and in the ones that get killed. It notes every shard that it computes.
RECIPE = textwrap.dedent(
    """
    import os, time
    import jax
    import numpy as np
    from physml_jax.data import store
    from physml_jax.typing import Recipe

    SPEC = {"image": jax.ShapeDtypeStruct((16, 16, 1), np.float32), "label": jax.ShapeDtypeStruct((), np.int32)}
    LENGTHS = (4, 3, 4, 4, 2, 4)

    def make_recipe(delay, note=None):
        def shard(i):
            if note:
                with open(note, "a") as f:
                    f.write(f"{i}\\n")
            records = []
            for j in range(LENGTHS[i]):
                time.sleep(delay)
                image = np.random.default_rng([i, j]).normal(size=(16, 16, 1)).astype(np.float32)
                records.append({"image": image, "label": np.int32(10 * i + j)})
            return records
        return Recipe("slow", {"kind": "test"}, SPEC, LENGTHS, shard)
    """
)
scope = {"Recipe": Recipe}
exec(RECIPE, scope)
make_recipe, LENGTHS = scope["make_recipe"], scope["LENGTHS"]


def start(root, *, delay, arguments="", note=None):
    """A process that builds, prints ``started`` before and the folder after."""
    code = RECIPE + textwrap.dedent(
        f"""
        store.FILE_BYTES = 5000
        import physml_jax.io.records  # so that the time of the import is not part of the build
        print("started", flush=True)
        say = lambda done, total, text: print(text, flush=True)
        recipe = make_recipe({delay}, {str(note) if note else None!r})
        path = store.build(recipe, root={str(root)!r}, progress=say{arguments})
        print(path, flush=True)
        """
    )
    environment = {**os.environ, "JAX_PLATFORMS": "cpu"}
    return subprocess.Popen(
        [sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=environment
    )


def lines_until(process, text):
    seen = []
    for line in process.stdout:
        seen.append(line.strip())
        if text in line:
            return seen
    raise AssertionError(f"the process ended without {text!r}: {seen}")


def noted(path):
    return [int(n) for n in path.read_text().split()] if path.exists() else []


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """A finished data set in several files, and its digest."""
    before, store.FILE_BYTES = store.FILE_BYTES, 5000
    try:
        path = store.build(make_recipe(0.0), root=tmp_path_factory.mktemp("whole"))
    finally:
        store.FILE_BYTES = before
    assert store.verify(path) == []
    return path, store.open_store(path).manifest["digest"]


def test_kill_at_any_moment_loses_at_most_the_shard_in_progress(tmp_path, whole):
    rng = np.random.default_rng(7)
    note = tmp_path / "note"
    resumed = 0
    for trial in range(4):
        root = tmp_path / str(trial)
        process = start(root, delay=0.02, note=note)
        try:
            lines_until(process, "started")
            time.sleep(rng.uniform(0.0, 0.45))  # the whole build takes about half a second
        finally:
            process.kill()
            process.communicate(timeout=20)
        assert process.returncode in (-signal.SIGKILL, 0)
        before = noted(note)
        note.unlink(missing_ok=True)
        path = store.build(make_recipe(0.0, str(note)), root=root)
        after = noted(note)
        note.unlink(missing_ok=True)
        assert store.open_store(path).manifest["digest"] == whole[1] and store.verify(path) == []
        # Every shard that was begun and followed by another one had been finished.
        assert len(set(before) & set(after)) <= 1 and set(before) | set(after) == set(range(len(LENGTHS)))
        resumed += 0 < len(after) < len(LENGTHS)
        assert sorted(p.name for p in path.iterdir()) == ["manifest.json", "records"]
    assert resumed >= 2, "the kills were meant to fall into the computation"


@pytest.mark.parametrize("moment", ["write_records", "write_manifest", "_remove"])
def test_kill_while_the_parts_are_put_together(tmp_path, whole, moment):
    where = {
        "write_records": "physml_jax.io.records.tfds.core.DatasetInfo.write_to_directory",
        "write_manifest": "physml_jax.data.manifest.files.write_atomic",
        "_remove": "physml_jax.data.store.shutil.rmtree",
    }[moment]
    owner, name = where.rsplit(".", 1)
    code = RECIPE + textwrap.dedent(
        f"""
        import signal, importlib
        import physml_jax.io.records
        import physml_jax.data.manifest
        owner = physml_jax
        for part in {owner!r}.split(".")[1:]:
            owner = getattr(owner, part)
        real = owner.{name}
        def die(*args, **kwargs):
            if "npz" not in str(args[0]):
                os.kill(os.getpid(), signal.SIGKILL)
            return real(*args, **kwargs)
        owner.{name} = die
        store.build(make_recipe(0.0), root={str(tmp_path)!r})
        """
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert done.returncode == -signal.SIGKILL, done.stderr
    note = tmp_path / "note"
    path = store.build(make_recipe(0.0, str(note)), root=tmp_path)
    assert noted(note) == []
    assert sorted(p.name for p in path.iterdir()) == ["manifest.json", "records"]
    assert store.verify(path) == [] and store.open_store(path).manifest["digest"] == whole[1]


def test_two_builders_at_once_share_the_work(tmp_path, whole):
    note = tmp_path / "note"
    processes = [start(tmp_path / "root", delay=0.05, note=note) for _ in range(2)]
    outputs = [p.communicate(timeout=60)[0] for p in processes]
    assert [p.returncode for p in processes] == [0, 0], outputs
    assert sorted(noted(note)) == list(range(len(LENGTHS))), "a shard was computed twice"
    assert any("sharing the work" in text for text in outputs)
    path = store.build(make_recipe(0.0), root=tmp_path / "root")
    assert store.verify(path) == [] and store.open_store(path).manifest["digest"] == whole[1]


def test_survivor_finishes_the_shards_of_a_dead_process(tmp_path, whole):
    note = tmp_path / "note"
    first = start(tmp_path / "root", delay=0.05, note=note, arguments=", process_index=0, num_processes=2")
    second = start(tmp_path / "root", delay=0.05, note=note, arguments=", process_index=1, num_processes=2")
    try:
        lines_until(first, "started")
        lines_until(second, "started")
        time.sleep(0.1)
        first.kill()
        output, _ = second.communicate(timeout=60)
    finally:
        for p in (first, second):
            p.kill()
            p.communicate(timeout=20)
    assert second.returncode == 0, output
    path = store.build(make_recipe(0.0), root=tmp_path / "root")
    assert store.verify(path) == [] and store.open_store(path).manifest["digest"] == whole[1]


def copy(whole, tmp_path):
    return shutil.copytree(whole[0], tmp_path / whole[0].name)


def same_content(path, digest):
    opened = store.open_store(path)
    opened.read([0])  # checks every record against the manifest
    return opened.manifest["digest"] == digest


@pytest.mark.parametrize("seed", range(12))
def test_flipped_bit_is_found(tmp_path, whole, seed):
    path, rng = copy(whole, tmp_path), np.random.default_rng(seed)
    files = sorted(p for p in path.rglob("*") if p.is_file())
    victim = files[seed % len(files)]
    data = bytearray(victim.read_bytes())
    data[rng.integers(len(data))] ^= 1 << int(rng.integers(8))
    victim.write_bytes(bytes(data))
    problems = store.verify(path)
    assert len(problems) >= 1 and all("\n" not in p for p in problems)
    assert any(victim.name in p for p in problems), problems
    # Reading either refuses or returns what was stored.
    try:
        content_is_right = same_content(path, whole[1])
    except OSError:
        content_is_right = True
    assert content_is_right


@pytest.mark.parametrize("seed", range(6))
def test_truncated_file_is_found_and_the_next_build_repairs(tmp_path, whole, seed):
    path, rng = copy(whole, tmp_path), np.random.default_rng(seed)
    files = sorted(p for p in path.rglob("*") if p.is_file())
    victim = files[seed % len(files)]
    os.truncate(victim, int(rng.integers(victim.stat().st_size)))
    assert any(victim.name in p for p in store.verify(path))
    with pytest.raises(OSError):
        store.open_store(path)
    said = []
    assert store.build(make_recipe(0.0), root=tmp_path, progress=lambda *a: said.append(a[2])) == path
    assert any("damaged, so it is built again" in s for s in said)
    assert store.verify(path) == [] and same_content(path, whole[1])


def test_missing_swapped_and_foreign_files_are_found(tmp_path, whole):
    path = copy(whole, tmp_path)
    shards = sorted((path / "records").glob("*array_record*"))
    assert len(shards) >= 2
    (path / "records" / "notes.txt").write_text("mine")
    assert store.verify(path) == ["records/notes.txt: does not belong to the data set"]
    (path / "records" / "notes.txt").unlink()
    spare = tmp_path / "spare"
    shards[0].rename(spare)
    shards[1].rename(shards[0])
    assert {p.split(":")[0].split("/")[-1] for p in store.verify(path)} == {s.name for s in shards[:2]}
    spare.rename(shards[1])
    assert len(store.verify(path)) == 2
    with pytest.raises(OSError):
        same_content(path, whole[1])
    shards[0].unlink()
    assert any("missing" in p for p in store.verify(path))
    assert store.verify(tmp_path / "nowhere")[0].endswith("so the folder is not a finished data set")


def test_manifest_of_another_data_set_is_found(tmp_path, whole):
    path = copy(whole, tmp_path)
    other = make_recipe(0.0)
    other = other._replace(
        config={"kind": "other"}, shard=lambda i: [{**r, "label": r["label"] + 1} for r in make_recipe(0.0).shard(i)]
    )
    (path / "manifest.json").write_bytes((store.build(other, root=tmp_path / "b") / "manifest.json").read_bytes())
    assert store.verify(path) != []


@pytest.mark.parametrize("damage", ["flip", "truncate", "empty", "swap"])
def test_damaged_part_is_computed_again(tmp_path, whole, damage):
    def stop(i):
        if i == 4:
            raise KeyboardInterrupt
        return make_recipe(0.0).shard(i)

    with pytest.raises(KeyboardInterrupt):
        store.build(make_recipe(0.0)._replace(shard=stop), root=tmp_path)
    parts = sorted(tmp_path.glob("slow-*/parts/*.npz"))
    assert len(parts) == 4
    data = parts[2].read_bytes()
    if damage == "flip":
        parts[2].write_bytes(data[:700] + bytes([data[700] ^ 4]) + data[701:])
    elif damage == "swap":
        parts[2].write_bytes(parts[3].read_bytes())
    else:
        parts[2].write_bytes(data[: len(data) // 2] if damage == "truncate" else b"")
    note = tmp_path / "note"
    path = store.build(make_recipe(0.0, str(note)), root=tmp_path)
    assert noted(note) == [2, 4, 5]
    assert store.verify(path) == [] and same_content(path, whole[1])


@pytest.mark.slow
def test_a_killed_simulation_of_spins_goes_on(run_command, run_and_kill, tmp_path):
    """By the command itself: rows of real Markov chains, killed, finished by the experiment on the other region."""

    def generate(region, *options):
        config = f"--config=configs/ising_{region}.py:smoke"
        return [sys.executable, "experiments/generate.py", config, *options]

    def result(cache):
        (path,) = (tmp_path / cache / "datasets").glob("ising_L8-*/manifest.json")
        return json.loads(path.read_text())["shard_digests"]

    whole, cut = ({"PHYSML_CACHE": str(tmp_path / cache), "JAX_PLATFORMS": "cpu"} for cache in ("whole", "cut"))
    outcome = run_command(generate("ferromagnet"), env=whole, timeout=300)
    assert outcome.returncode == 0, outcome.output
    part = tmp_path / "cut" / "datasets" / "ising_L8-*" / "parts" / "*.npz"
    outcome = run_and_kill(generate("ferromagnet"), seed=3, on_file=part, after=(0.0, 0.2), env=cut, timeout=300)
    assert outcome.killed, outcome.output
    outcome = run_command(generate("superantiferromagnet", "--verify"), env=cut, timeout=300)
    assert outcome.returncode == 0 and "verified" in outcome.output, outcome.output
    assert result("cut") == result("whole") and len(result("cut")) == 3
