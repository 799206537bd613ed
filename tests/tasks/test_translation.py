"""Image-to-image regression on toy pairs, with networks of one layer."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from physml_jax.analysis.zncc import r_index
from physml_jax.tasks import translation
from physml_jax.tasks.images import image_scores, network_inputs
from physml_jax.typing import Best

OPTIONS = {"input_scale": {"potential": (0.0, 2.0)}, "augment": "none"}


class Linear(nn.Module):
    """A 3x3 convolution; with batch statistics on request."""

    norm: bool = False

    @nn.compact
    def __call__(self, inputs, *, train):
        x = nn.Conv(1, (3, 3))(inputs)
        return nn.BatchNorm(use_running_average=not train)(x) if self.norm else x


def pairs(rows=4, size=6):
    rng = np.random.default_rng(0)
    potential = jnp.asarray(rng.normal(size=(rows, size, size, 1)), jnp.float32)
    log_a = jnp.asarray(rng.normal(size=(rows, 1)), jnp.float32)
    pattern = 0.3 * jnp.roll(potential, 1, axis=1) + 0.1 * log_a[:, None, None, :] + 0.5
    return {"potential": potential, "log_a": log_a, "pattern": pattern}


def make(model=None, tx=None, **options):
    tx = tx or optax.adam(3e-2)
    return translation.make_task(models={"model": model or Linear()}, tx=tx, **{**OPTIONS, **options})


def test_inputs_are_scaled_and_numbers_become_planes():
    batch = pairs()
    x = network_inputs(batch, ("log_a", "potential"), {"potential": (1.0, 4.0)})
    assert x.shape == (4, 6, 6, 2) and x.dtype == jnp.float32
    np.testing.assert_array_equal(x[..., 0], np.broadcast_to(batch["log_a"].reshape(4, 1, 1), (4, 6, 6)))
    np.testing.assert_allclose(x[..., 1:], (batch["potential"] - 1) / 4, rtol=1e-6)


def test_missing_or_unequal_inputs_are_named():
    batch = pairs()
    with pytest.raises(ValueError, match="inputs.*few_beam.*pattern"):
        network_inputs(batch, ("potential", "few_beam"), {})
    with pytest.raises(ValueError, match="one size"):
        network_inputs({**batch, "image": jnp.ones((4, 3, 3, 1))}, ("potential", "image"), {})
    with pytest.raises(ValueError, match="one size"):
        network_inputs(batch, ("log_a",), {})


def test_loss_by_hand():
    """One example, prediction forced to 0: loss = 1 (no correlation) + weight x Huber with delta 0.1."""
    batch = {"potential": jnp.ones((1, 1, 2, 1)), "pattern": jnp.array([0.05, 0.5]).reshape(1, 1, 2, 1)}
    task = make(inputs=("potential",), huber_weight=3.0, huber_delta=0.1)
    state = task.init(jax.random.key(0), batch)
    state = state._replace(params=jax.tree.map(jnp.zeros_like, state.params))
    _, metrics = task.step(state, batch, jax.random.key(0))
    huber = (0.5 * 0.05**2 + 0.1 * (0.5 - 0.05)) / 2
    np.testing.assert_allclose(metrics["huber"], huber, rtol=1e-5)
    np.testing.assert_allclose(metrics["loss"], 1 + 3 * huber, rtol=1e-5)
    np.testing.assert_allclose(metrics["r_index"], 0.5)


def test_learns_a_shift_and_a_condition():
    task, batch = make(ema_decay=0.9, augment="c2v"), pairs(16)
    # Mirrored pairs have mirrored shifts: only the part that is symmetric can be learned with augmentation.
    batch["pattern"] = 0.5 + 0.2 * batch["potential"] + 0.1 * batch["log_a"][:, None, None, :]
    state, step = jax.jit(task.init)(jax.random.key(0), batch), jax.jit(task.step)
    losses = []
    for i in range(60):
        state, metrics = step(state, batch, jax.random.fold_in(jax.random.key(1), i))
        losses.append(float(metrics["loss"]))
    assert losses[-1] < 0.1 * losses[0]
    scores = task.evaluate(state, batch, jax.random.key(0))
    assert float(scores["r_index"].min()) > 0.9


@pytest.mark.slow
def test_replayed_key_gives_the_same_state_and_jit_equals_eager():
    task, batch = make(augment="dihedral"), pairs()
    state = task.init(jax.random.key(0), batch)
    step = jax.jit(task.step)
    first, second = step(state, batch, jax.random.key(5)), step(state, batch, jax.random.key(5))
    jax.tree.map(np.testing.assert_array_equal, first, second)
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-6),
        first,
        task.step(state, batch, jax.random.key(5)),
    )
    other = step(state, batch, jax.random.key(6))
    assert float(other[1]["loss"]) != float(first[1]["loss"])


@pytest.mark.slow
def test_batch_statistics_travel_in_mutable():
    task, batch = make(model=Linear(norm=True)), pairs()
    state = task.init(jax.random.key(0), batch)
    moved, _ = task.step(state, batch, jax.random.key(0))
    change = jax.tree.map(lambda a, b: float(jnp.abs(a - b).max()), state.mutable, moved.mutable)
    assert set(moved.mutable) == {"batch_stats"} and max(jax.tree.leaves(change)) > 0


def test_prediction_uses_the_target_scale_and_the_best_parameters():
    task, batch = make(target_scale=(0.5, 0.25)), pairs()
    state = task.init(jax.random.key(0), batch)
    zero = jax.tree.map(jnp.zeros_like, state.params)
    kept = state._replace(best=Best(jnp.float32(0), zero, {}))
    prediction = task.predict(kept, batch, jax.random.key(0))
    assert set(prediction) == {"pattern"}
    np.testing.assert_allclose(prediction["pattern"], 0.5)
    assert float(jnp.abs(task.predict(state, batch, jax.random.key(0))["pattern"] - 0.5).max()) > 1e-3


def test_scores_per_example_with_weights():
    batch = pairs(3)
    flat = jnp.full_like(batch["pattern"][:1], 0.5)
    prediction = jnp.concatenate([2 * batch["pattern"][:1] + 1, -batch["pattern"][1:2], flat])
    scores = image_scores(prediction, batch, "pattern")
    np.testing.assert_allclose(scores["r_index"], [1.0, 0.0, 0.5], atol=1e-6)
    np.testing.assert_allclose(scores["r_index"], r_index(prediction, batch["pattern"]))
    np.testing.assert_allclose(scores["mse"][2], np.mean((0.5 - np.asarray(batch["pattern"][2])) ** 2), rtol=1e-5)
    np.testing.assert_array_equal(scores["weight"], [1.0, 1.0, 1.0])
    weighted = image_scores(prediction, {**batch, "weight": jnp.array([1.0, 0.0, 1.0])}, "pattern")
    np.testing.assert_array_equal(weighted["weight"], [1.0, 0.0, 1.0])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"augment": "spin"}, "augment"),
        ({"target_scale": (0.0, 0.0)}, "target_scale"),
        ({"input_scale": {"potential": (0.0, -1.0)}}, "input_scale.*potential"),
        ({"target_scale": (1.0,)}, "target_scale"),
    ],
)
def test_bad_options_are_named(options, message):
    with pytest.raises(ValueError, match=message):
        make(**options)
