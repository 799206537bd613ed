"""Connectivity: what is read from a map of sites, what each supervision learns from, batch statistics, learning."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from scipy import ndimage

from physml_jax.models import looped
from physml_jax.tasks import connectivity


class Echo(nn.Module):
    """Logits that are 4 (x - 1/2) times a parameter: every occupied site is called joined."""

    norm: bool = False

    @nn.compact
    def __call__(self, inputs, *, train):
        x = nn.BatchNorm(use_running_average=not train)(inputs) if self.norm else inputs
        return 4 * (x - 0.5) * self.param("scale", nn.initializers.ones, ())


def batch_of(states):
    """A batch with masks and labels from scipy."""
    states = np.asarray(states, np.float32)

    def joined(state):
        labels, _ = ndimage.label(state)
        return np.isin(labels, np.setdiff1d(labels[0], [0]))

    masks = np.array([joined(s) for s in states])
    vertical = masks[:, -1].any(axis=-1)
    either = vertical | np.array([joined(s.T)[-1].any() for s in states])
    return {
        "image": jnp.asarray(states[..., None]),
        "connected": jnp.asarray(masks[..., None], jnp.float32),
        "vertical": jnp.asarray(vertical, jnp.int32),
        "spanning": jnp.asarray(either, jnp.int32),
        "weight": jnp.ones(len(states), jnp.float32),
    }


def random_batch(rows, size, seed):
    rng = np.random.default_rng(seed)
    return batch_of(rng.random((rows, size, size)) < rng.uniform(0.4, 0.8, (rows, 1, 1)))


def make(model=None, tx=None, **options):
    return connectivity.make_task(models={"model": model or Echo()}, tx=tx or optax.adam(1e-2), **options)


#: A column, a row, nothing, and a last row that is empty.
STATES = np.zeros((4, 3, 3), bool)
STATES[0, :, 1] = STATES[1, 1] = STATES[3, :2] = True


def test_readout_by_hand(key):
    """Echo calls occupied sites joined: a state 'spans' downwards if its last row has an occupied site."""
    batch, probability = batch_of(STATES), {}
    for label in ("vertical", "spanning"):
        task = make(label=label)
        out = task.predict(task.init(key, batch), batch, key)
        assert out["probabilities"].shape == (4, 2) and out["connected"].shape == (4, 3, 3, 1)
        assert set(out) == {"probabilities", "connected"}
        np.testing.assert_allclose(out["probabilities"].sum(-1), 1, rtol=1e-6)
        probability[label] = np.asarray(out["probabilities"])[:, 1]
    high, never = 1 / (1 + np.exp(-2)), 1 / (1 + np.exp(20))
    np.testing.assert_allclose(probability["vertical"], [high, never, never, never], rtol=1e-4)
    np.testing.assert_allclose(probability["spanning"], [high, high, never, high], rtol=1e-4)


def test_scores_by_hand(key):
    batch, task = batch_of(STATES), make(label="vertical")
    scores = task.evaluate(task.init(key, batch), batch, key)
    assert set(scores) == {"accuracy", "loss", "site_accuracy", "weight"}
    np.testing.assert_array_equal(scores["accuracy"], [1, 1, 1, 1])
    np.testing.assert_allclose(scores["site_accuracy"], [1, 0, 1, 1])  # the row in the middle hangs on nothing
    np.testing.assert_allclose(scores["loss"][0], np.log1p(np.exp(-2.0)), rtol=1e-5)
    del batch["connected"]
    assert "site_accuracy" not in task.evaluate(task.init(key, batch), batch, key)
    # In either direction Echo is wrong about the last state: its columns reach the right edge, but not the left one.
    either = make(label="spanning")
    batch["image"], batch["spanning"] = batch["image"].at[3, :2, 0].set(0), batch["spanning"].at[3].set(0)
    np.testing.assert_array_equal(either.evaluate(either.init(key, batch), batch, key)["accuracy"], [1, 1, 1, 0])


def test_each_supervision_sees_its_target_only(key):
    """Other targets may be missing from the batch, and do not move the loss."""
    batch = random_batch(6, 5, seed=1)
    task = make(supervision="mask")
    state = task.init(key, batch)
    _, metrics = task.step(state, {k: batch[k] for k in ("image", "connected")}, key)
    logits, target = 4 * (np.asarray(batch["image"]) - 0.5), np.asarray(batch["connected"])
    np.testing.assert_allclose(
        metrics["loss"], np.log1p(np.exp(-np.where(target > 0, 1, -1) * logits)).mean(), rtol=1e-5
    )
    for label in ("vertical", "spanning"):
        task = make(supervision="bit", label=label)
        _, metrics = task.step(state, {k: batch[k] for k in ("image", label)}, key)
        scores = task.evaluate(state, batch, key)
        np.testing.assert_allclose(metrics["loss"], scores["loss"].mean(), rtol=1e-5)
        np.testing.assert_allclose(metrics["accuracy"], scores["accuracy"].mean(), rtol=1e-6)


@pytest.mark.parametrize("supervision", ["mask", "bit"])
def test_batch_statistics_move_in_training_only(supervision, key):
    batch, task = random_batch(6, 5, seed=2), make(Echo(norm=True), supervision=supervision, label="spanning")
    state = jax.jit(task.init)(key, batch)
    assert set(state.mutable) == {"batch_stats"}
    new, _ = jax.jit(task.step)(state, batch, key)
    assert not np.allclose(jax.tree.leaves(new.mutable)[0], jax.tree.leaves(state.mutable)[0])
    first, again = (jax.jit(task.predict)(new, batch, key) for _ in range(2))
    jax.tree.map(np.testing.assert_array_equal, first, again)


def test_arrival_is_handed_on_for_the_lattices_as_given(key):
    batch = random_batch(3, 6, seed=3)
    task = make(looped.make_model(hidden=2, num_iterations=4, max_iterations=40), label="spanning")
    state = jax.jit(task.init)(key, batch)
    assert state.mutable == {}
    out = jax.jit(task.predict)(state, batch, key)
    assert out["arrival"].shape == (3, 6, 6, 1)
    np.testing.assert_array_equal(np.asarray(out["arrival"]) > 0, np.asarray(out["connected"]) > 0.5)


def test_the_average_predicts(key):
    batch, task = random_batch(4, 5, seed=4), make(ema_decay=0.9)
    state = task.init(key, batch)
    state = state._replace(params={"scale": jnp.zeros(())})  # the average still holds the initial 1
    assert float(jnp.abs(task.predict(state, batch, key)["connected"] - 0.5).min()) > 0.3


@pytest.mark.slow
def test_learns_to_flood_lattices_larger_than_any_it_has_seen(key):
    """Trained on 8x8 with the mask, it finds the joined sites of other 8x8 and of 40x40 lattices."""
    model = looped.make_model(hidden=16, num_iterations=32, max_iterations=1000)
    rate = optax.warmup_cosine_decay_schedule(0.0, 1e-2, 50, 1000)
    task = make(model, optax.chain(optax.clip_by_global_norm(1.0), optax.adam(rate)))
    batches = [random_batch(64, 8, seed=s) for s in range(40)]
    state, step = jax.jit(task.init)(key, batches[0]), jax.jit(task.step)
    for i in range(1000):
        state, _ = step(state, batches[i % len(batches)], key)
    evaluate = jax.jit(task.evaluate)
    for size in (8, 40):
        scores = evaluate(state, random_batch(32, size, seed=100), key)
        assert float(scores["site_accuracy"].mean()) > 0.98, size
        assert float(scores["accuracy"].mean()) == 1, size


@pytest.mark.parametrize("name", ["label", "supervision"])
def test_unknown_options_are_named(name):
    with pytest.raises(ValueError, match=f"{name}.*nonsense"):
        make(**{name: "nonsense"})


def test_either_direction_needs_squares(key):
    task = make(label="spanning")
    batch = {"image": jnp.ones((2, 3, 4, 1)), "spanning": jnp.ones(2, jnp.int32), "weight": jnp.ones(2)}
    with pytest.raises(ValueError, match="square"):
        task.evaluate(task.init(key, batch), batch, key)


@pytest.mark.slow
@pytest.mark.parametrize("supervision", ["mask", "bit"])
def test_the_hardest_share_is_learned_from(key, supervision):
    """One of four states is judged wrongly; a quarter of the batch holds only that one, so the loss is its loss."""
    island = np.zeros((3, 3), bool)
    island[2, 0] = True  # Echo calls it joined to the first row
    batch = batch_of([STATES[0], STATES[0], STATES[0], island])
    every, hardest = (
        make(tx=optax.sgd(0.0), supervision=supervision, hardest=share, label="vertical") for share in (1.0, 0.25)
    )
    state = every.init(key, batch)
    of_all, of_hardest = (task.step(state, batch, key)[1]["loss"] for task in (every, hardest))
    alone = [
        float(every.step(state, {k: v[i : i + 1] for k, v in batch.items()}, key)[1]["loss"])
        for i in range(len(STATES))
    ]
    np.testing.assert_allclose(of_all, np.mean(alone), rtol=1e-5)
    np.testing.assert_allclose(of_hardest, max(alone), rtol=1e-5)
    assert of_hardest > of_all


def test_a_share_outside_its_range_is_refused():
    with pytest.raises(ValueError, match=r"task.kwargs.hardest: expected a share above 0"):
        make(hardest=0.0)
