import json

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import orbax.checkpoint as ocp
import pytest
from absl import logging
from jax.sharding import NamedSharding, PartitionSpec

from physml_jax.io import checkpoint
from physml_jax.typing import Best, TrainState

TX = optax.chain(optax.clip_by_global_norm(1.0), optax.adam(1e-3))


def _state(step=0, *, width=3, ema=False, best=False):
    """A state with every kind of leaf that training knows, whose values are a function of the step."""
    kernel = jax.random.normal(jax.random.key(step), (4, width), jnp.float32)
    params = {"Dense_0": {"kernel": kernel, "bias": jnp.full((width,), step, jnp.bfloat16)}}
    opt = jax.tree.map(lambda x: x + jnp.asarray(step, x.dtype), TX.init(params))
    return TrainState(
        step=jnp.int32(step),
        params=params,
        mutable={"batch_stats": {"mean": jnp.full((8,), step / 7, jnp.float32)}},
        opt=opt,
        ema=jax.tree.map(lambda x: x / 2, params) if ema else None,
        best=Best(jnp.float32(0.1 * step), params, {}) if best else None,
    )


def _mesh(num_devices):
    return jax.make_mesh((num_devices,), ("data",), (jax.sharding.AxisType.Auto,), devices=jax.devices()[:num_devices])


def _abstract(state, sharding=None):
    return jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=sharding), state)


def _save(folder, steps, **kwargs):
    checkpoints = checkpoint.open_checkpoints(folder, **kwargs)
    for step in steps:
        checkpoints.save(step, _state(step))
    checkpoints.close()


def _restore(folder, like=None):
    checkpoints = checkpoint.open_checkpoints(folder)
    found = checkpoints.restore(_abstract(_state() if like is None else like))
    checkpoints.close()
    return found


def _damage(folder, step):
    """Turns one bit in every data file of a step."""
    for path in (folder / str(step) / "state").rglob("d/*"):
        data = bytearray(path.read_bytes())
        data[len(data) // 2] ^= 1
        path.write_bytes(data)


@pytest.mark.parametrize("ema", [False, True])
@pytest.mark.parametrize("best", [False, True])
def test_round_trip_is_exact(tmp_path, ema, best):
    state = _state(5, ema=ema, best=best)
    checkpoints = checkpoint.open_checkpoints(tmp_path / "c")
    checkpoints.save(5, state)
    checkpoints.close()
    step, restored = _restore(tmp_path / "c", state)
    assert step == 5
    assert jax.tree.structure(restored) == jax.tree.structure(state)
    chex.assert_trees_all_equal_shapes_and_dtypes(restored, state)
    chex.assert_trees_all_equal(restored, state)
    assert checkpoint.leaf_digests(restored) == checkpoint.leaf_digests(state)


def test_nothing_is_created_before_the_first_save(tmp_path):
    checkpoints = checkpoint.open_checkpoints(tmp_path / "c")
    assert checkpoints.restore(_abstract(_state())) is None
    checkpoints.close()
    assert not (tmp_path / "c").exists()


def test_an_empty_folder_holds_no_checkpoint(tmp_path):
    assert _restore(tmp_path) is None


@pytest.mark.parametrize("spread", [False, True])
def test_other_number_of_devices(tmp_path, spread):
    """Saved from four devices, replicated or spread; restored on four, two and one."""
    state = _state(3)
    state = state._replace(params=jax.device_put(state.params, NamedSharding(_mesh(4), PartitionSpec())))
    if spread:
        kernel = jax.device_put(state.params["Dense_0"]["kernel"], NamedSharding(_mesh(4), PartitionSpec("data")))
        state.params["Dense_0"]["kernel"] = kernel
    checkpoints = checkpoint.open_checkpoints(tmp_path / "c")
    checkpoints.save(3, state)
    checkpoints.close()
    for num_devices in (4, 2, 1):
        sharding = NamedSharding(_mesh(num_devices), PartitionSpec())
        step, restored = checkpoint.open_checkpoints(tmp_path / "c").restore(_abstract(state, sharding))
        assert step == 3
        assert all(leaf.sharding == sharding for leaf in jax.tree.leaves(restored))
        chex.assert_trees_all_equal(jax.device_get(restored), jax.device_get(state))


def test_state_may_be_donated_right_after_save(tmp_path):
    sharding = NamedSharding(_mesh(4), PartitionSpec())
    advance = jax.jit(lambda x: jax.tree.map(lambda v: v + 1, x), donate_argnums=0)
    state = jax.device_put({"w": jnp.zeros((256, 256)), "n": jnp.int32(0)}, sharding)
    checkpoints = checkpoint.open_checkpoints(tmp_path / "c")
    for step in range(1, 4):
        state = advance(state)
        checkpoints.save(step, state)
        for _ in range(3):
            state = advance(state)
    checkpoints.close()
    step, restored = checkpoint.open_checkpoints(tmp_path / "c").restore(_abstract(state, sharding))
    assert (step, int(restored["n"])) == (3, 9)
    np.testing.assert_array_equal(restored["w"], np.full((256, 256), 9.0, np.float32))
    # What was restored is donated without losing it for others.
    again = advance(advance(restored))
    assert int(again["n"]) == 11


def test_keeps_the_latest(tmp_path):
    _save(tmp_path / "c", range(1, 6), keep=2)
    assert sorted(p.name for p in (tmp_path / "c").iterdir()) == ["4", "5"]


def test_the_same_step_twice_is_harmless_and_an_earlier_one_refused(tmp_path):
    checkpoints = checkpoint.open_checkpoints(tmp_path / "c")
    checkpoints.save(4, _state(4))
    checkpoints.save(4, _state(4))
    with pytest.raises(ValueError, match=r"already holds checkpoint 4, not before step 2"):
        checkpoints.save(2, _state(2))
    checkpoints.close()
    step, restored = _restore(tmp_path / "c")
    assert step == 4
    chex.assert_trees_all_equal(restored, _state(4))
    checkpoints = checkpoint.open_checkpoints(tmp_path / "c")
    checkpoints.restore(_abstract(_state()))
    checkpoints.save(4, _state(4))
    checkpoints.close()


def test_damaged_step_falls_back_warns_and_is_replaced(tmp_path, monkeypatch):
    said = []
    monkeypatch.setattr(logging, "warning", lambda text, *args: said.append(text % args))
    _save(tmp_path / "c", (2, 4))
    _damage(tmp_path / "c", 4)
    checkpoints = checkpoint.open_checkpoints(tmp_path / "c")
    step, restored = checkpoints.restore(_abstract(_state()))
    assert step == 2
    chex.assert_trees_all_equal(restored, _state(2))
    assert (
        len(said) == 1 and said[0].startswith("checkpoint 4 is damaged (") and "going back to checkpoint 2" in said[0]
    )
    assert (tmp_path / "c" / "4").is_dir()  # reading changes nothing
    checkpoints.save(3, _state(3))
    checkpoints.save(4, _state(4))
    checkpoints.close()
    step, restored = _restore(tmp_path / "c")
    assert step == 4
    chex.assert_trees_all_equal(restored, _state(4))
    assert len(said) == 1


def test_all_damaged_is_one_error_and_never_a_fresh_start(tmp_path):
    _save(tmp_path / "c", (2, 4))
    _damage(tmp_path / "c", 4)
    _damage(tmp_path / "c", 2)
    with pytest.raises(OSError, match=r"checkpoint 4 is damaged .*checkpoint 2 is damaged .*Delete this folder"):
        _restore(tmp_path / "c")
    assert sorted(p.name for p in (tmp_path / "c").iterdir()) == ["2", "4"]


def test_a_step_under_another_name_is_not_believed(tmp_path):
    _save(tmp_path / "c", (2,))
    (tmp_path / "c" / "2").rename(tmp_path / "c" / "9")
    with pytest.raises(OSError, match=r"checkpoint 9 is damaged \(it holds step 2"):
        _restore(tmp_path / "c")


@pytest.mark.parametrize(
    ("other", "text"),
    [
        (
            lambda: _state(width=5),
            r"params/Dense_0/bias is bfloat16\[3\] in the checkpoint and bfloat16\[5\] now",
        ),
        (lambda: _state(ema=True), r"ema/Dense_0/bias is absent in the checkpoint and bfloat16\[3\] now"),
        (lambda: _state()._replace(mutable={}), r"mutable/batch_stats/mean is float32\[8\] .* and absent now"),
        (lambda: _state()._replace(step=jnp.float32(0)), r"step is int32\[\] .* and float32\[\] now"),
    ],
)
def test_another_model_is_refused_by_its_first_leaf(tmp_path, other, text):
    _save(tmp_path / "c", (2,))
    with pytest.raises(ValueError, match=text):
        _restore(tmp_path / "c", other())


def test_bad_arguments(tmp_path):
    with pytest.raises(ValueError, match="keep"):
        checkpoint.open_checkpoints(tmp_path, keep=0)
    checkpoints = checkpoint.open_checkpoints(tmp_path / "c")
    with pytest.raises(ValueError, match="same path"):
        checkpoints.save(1, {"a/b": jnp.zeros(1), "a": {"b": jnp.zeros(1)}})
    (tmp_path / "file").write_text("")
    with pytest.raises(OSError, match=r"could not write checkpoint 1 to .*file"):
        checkpoint.open_checkpoints(tmp_path / "file").save(1, _state(1))


def test_plain_orbax_reads_a_step(tmp_path):
    _save(tmp_path / "c", (2,))
    with ocp.CheckpointManager((tmp_path / "c").absolute()) as manager:
        arrays = manager.restore(2, args=ocp.args.Composite(state=ocp.args.StandardRestore())).state
    np.testing.assert_array_equal(arrays["params/Dense_0/kernel"], _state(2).params["Dense_0"]["kernel"])
    meta = json.loads((tmp_path / "c" / "2" / "meta" / "metadata").read_text())
    assert set(meta["leaves"]) == set(arrays)
