"""Checkpoints under kill -9, flipped bits, cut files and a full disk: nothing lost, nothing wrong accepted."""

import re
import shutil
import sys
import textwrap

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from absl import logging

from physml_jax.io.checkpoint import leaf_digests, open_checkpoints

# The same state in this process and in the ones that get killed; NumPy, so that they start quickly.
STATE = textwrap.dedent(
    """
    import numpy as np
    def make_state(step, size):
        rng = np.random.default_rng(step)
        kernel = rng.standard_normal((size, 1000), dtype=np.float32)
        return {"params": {"kernel": kernel, "bias": kernel[0]}, "step": np.int32(step).reshape(())}
    """
)
SAVE_FOR_EVER = STATE + textwrap.dedent(
    """
    import sys
    import jax
    from physml_jax.io.checkpoint import open_checkpoints

    folder, size = sys.argv[1], int(sys.argv[2])
    checkpoints = open_checkpoints(folder)
    found = checkpoints.restore(make_state(0, size))
    step = 0 if found is None else found[0]
    print("from", step, flush=True)
    while True:
        step += 1
        checkpoints.save(step, make_state(step, size))
        print("saved", step, flush=True)
    """
)
scope = {}
exec(STATE, scope)
make_state = scope["make_state"]


def restore(folder, size):
    """(step, state) of the latest whole checkpoint, or ``None``, and the warnings."""
    said = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(logging, "warning", lambda text, *args: said.append(text % args))
        checkpoints = open_checkpoints(folder)
        try:
            return checkpoints.restore(make_state(0, size)), said
        finally:
            checkpoints.close()


def kill_and_check(run_and_kill, folder, seeds, size):
    """Kills one run after the other in the same folder; each goes on from the last."""
    before = 0
    for seed in seeds:
        command = [sys.executable, "-c", SAVE_FOR_EVER, folder, str(size)]
        outcome = run_and_kill(command, seed=seed, on_line="saved", after=(0.0, 0.4))
        assert outcome.killed, outcome.output
        assert outcome.output.startswith(f"from {before}\n"), outcome.output
        begun = max(int(n) for n in re.findall(r"saved (\d+)", outcome.output))
        found, said = restore(folder, size)
        step = 0 if found is None else found[0]
        # A save waits for the one before it: only the last one begun, or one more that had no time to say so, may miss.
        assert begun - 1 <= step <= begun + 1
        assert said == []
        if found is not None:
            chex.assert_trees_all_equal(jax.device_get(found[1]), make_state(step, size))
        before = step
    assert before > 0


def test_kill_while_saving(run_and_kill, tmp_path):
    kill_and_check(run_and_kill, tmp_path / "c", range(5), size=500)


@pytest.mark.slow
def test_kill_while_saving_often(run_and_kill, tmp_path):
    kill_and_check(run_and_kill, tmp_path / "c", range(100, 130), size=3000)


@pytest.fixture(scope="module")
def two_steps(tmp_path_factory):
    """A folder with checkpoints 2 and 4, and the digests of their states."""
    folder = tmp_path_factory.mktemp("checkpoints") / "c"
    checkpoints = open_checkpoints(folder)
    digests = {}
    for step in (2, 4):
        checkpoints.save(step, make_state(step, 3))
        digests[step] = leaf_digests(make_state(step, 3))
    checkpoints.close()
    return folder, digests


def damage_and_check(two_steps, tmp_path, damage, seeds):
    """Damages one file of step 4 per seed, every file in turn; counts how often the step before was taken."""
    folder, digests = two_steps
    names = sorted(p.relative_to(folder) for p in (folder / "4").rglob("*") if p.is_file())
    fallbacks = 0
    for seed in seeds:
        copy = tmp_path / str(seed)
        shutil.copytree(folder, copy)
        victim = copy / names[seed % len(names)]
        damage(victim, seed)
        (step, state), said = restore(copy, 3)
        assert leaf_digests(state) == digests[step], f"{victim} damaged with seed {seed} was restored wrong"
        if step == 2:
            assert len(said) == 1 and "checkpoint 4 is damaged" in said[0] and "checkpoint 2" in said[0]
            fallbacks += 1
        else:
            assert said == []  # a place that holds no data
    return fallbacks


def test_flipped_bits_never_restore_wrong(two_steps, tmp_path, flip_bits):
    assert damage_and_check(two_steps, tmp_path, flip_bits, range(6)) >= 2


def test_cut_files_never_restore_wrong(two_steps, tmp_path, truncate):
    assert damage_and_check(two_steps, tmp_path, truncate, range(100, 108)) >= 2


@pytest.mark.slow
def test_flipped_and_cut_often(two_steps, tmp_path, flip_bits, truncate):
    assert damage_and_check(two_steps, tmp_path, flip_bits, range(1000, 1400)) >= 80
    assert damage_and_check(two_steps, tmp_path, truncate, range(1400, 1600)) >= 40


def test_missing_files_never_restore_wrong(two_steps, tmp_path):
    assert damage_and_check(two_steps, tmp_path, lambda path, seed: path.unlink(), range(8)) >= 2


def test_values_swapped_between_steps_are_noticed(two_steps, tmp_path):
    """Whole files, each valid in itself, in the wrong place."""
    folder, digests = two_steps
    shutil.copytree(folder, tmp_path / "c")
    shutil.rmtree(tmp_path / "c" / "4" / "state")
    shutil.copytree(folder / "2" / "state", tmp_path / "c" / "4" / "state")
    (step, state), said = restore(tmp_path / "c", 3)
    assert step == 2 and leaf_digests(state) == digests[2]
    assert len(said) == 1 and "differs from its sha256" in said[0]


def test_all_damaged_is_one_clear_error(two_steps, tmp_path, flip_bits):
    folder, _ = two_steps
    shutil.copytree(folder, tmp_path / "c")
    for seed, step in enumerate(("2", "4")):
        flip_bits(tmp_path / "c" / step / "meta" / "metadata", seed, n=8)
    with pytest.raises(OSError, match=r"no usable checkpoint in .*4 is damaged .*2 is damaged .*start anew"):
        restore(tmp_path / "c", 3)


SAVE_TWO = STATE + textwrap.dedent(
    """
    import sys
    from physml_jax.io.checkpoint import open_checkpoints

    checkpoints = open_checkpoints(sys.argv[1])
    try:
        checkpoints.save(1, make_state(1, 3))
        checkpoints.save(2, make_state(2, 500))
        checkpoints.close()
    except OSError as error:
        print("refused:", error)
        try:
            checkpoints.close()
        except OSError as again:
            print("refused again:", again)
        sys.exit(3)
    """
)


def test_full_disk_is_one_clear_error_and_keeps_what_was_there(run_command, limit_file_size, tmp_path):
    folder = tmp_path / "c"
    outcome = run_command(limit_file_size([sys.executable, "-c", SAVE_TWO, folder], 200_000))
    assert outcome.returncode == 3, outcome.output
    assert f"refused: could not write checkpoint 2 to {folder}" in outcome.output
    assert "Earlier checkpoints are as they were" in outcome.output
    assert len(outcome.output.splitlines()) == 1  # and not the pages that Orbax would print
    (step, state), said = restore(folder, 3)
    assert step == 1 and said == []
    chex.assert_trees_all_equal(jax.device_get(state), make_state(1, 3))
    # With room again, the same folder goes on.
    code = SAVE_FOR_EVER.replace("while True:", "while step < 3:") + "checkpoints.close()"
    outcome = run_command([sys.executable, "-c", code, folder, "3"])
    assert outcome.returncode == 0, outcome.output
    assert restore(folder, 3)[0][0] == 3
    assert not list(folder.glob("*tmp*"))


def test_a_state_that_changes_during_the_write_is_saved_as_it_was(tmp_path):
    """The save returns before the write has ended; overwriting the arrays at once must not reach the file."""
    state = {"w": np.zeros((2000, 500), np.float32), "n": jnp.int32(1)}
    checkpoints = open_checkpoints(tmp_path / "c")
    checkpoints.save(1, state)
    state["w"][:] = 7
    checkpoints.close()
    checkpoints = open_checkpoints(tmp_path / "c")
    _, restored = checkpoints.restore(state)
    checkpoints.close()
    assert not np.any(restored["w"])
