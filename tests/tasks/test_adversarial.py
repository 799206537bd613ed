"""The conditional GAN: losses by hand, who moves whom, replay, options."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from physml_jax.models import patch_discriminator
from physml_jax.tasks import adversarial


class Generator(nn.Module):
    """A pointwise map of the potential."""

    @nn.compact
    def __call__(self, inputs, *, train):
        return nn.tanh(nn.Conv(1, (1, 1))(inputs))


class Judge(nn.Module):
    """One scale: the features are the image times a weight, the logit is its mean plus a bias."""

    @nn.compact
    def __call__(self, inputs, *, train):
        image = inputs[..., -1:]
        w = self.param("w", nn.initializers.ones, (), jnp.float32)
        b = self.param("b", nn.initializers.zeros, (), jnp.float32)
        return [[w * image, w * image.mean((1, 2), keepdims=True) + b]]


def pairs(rows=4, size=4):
    rng = np.random.default_rng(0)
    potential = jnp.asarray(rng.normal(size=(rows, size, size, 1)), jnp.float32)
    return {"potential": potential, "pattern": 0.5 + 0.4 * jnp.tanh(potential)}


def make(discriminator=None, tx=None, **options):
    models = {"model": Generator(), "discriminator": discriminator or Judge()}
    options = {"inputs": ("potential",), "input_scale": {}, **options}
    return adversarial.make_task(models=models, tx=tx or optax.adam(1e-2), **options)


def started(task, batch):
    return jax.jit(task.init)(jax.random.key(0), batch), jax.jit(task.step)


def test_least_squares_terms_by_hand():
    """Generator output 0 (all parameters 0), truth y in [-1, 1]: logits 0 and mean(y), features 0 and y."""
    task, batch = make(target_scale=(0.5, 0.5)), pairs()
    state, step = started(task, batch)
    params = {**state.params, "generator": jax.tree.map(jnp.zeros_like, state.params["generator"])}
    _, metrics = step(state._replace(params=params), batch, jax.random.key(0))
    truth = (np.asarray(batch["pattern"]) - 0.5) / 0.5
    means = truth.mean((1, 2, 3))
    np.testing.assert_allclose(metrics["adversarial"], 1.0, rtol=1e-6)  # (0 - 1)^2
    np.testing.assert_allclose(metrics["pixel_l1"], np.abs(truth).mean(), rtol=1e-5)
    # One layer per scale here, so the published factor 4 / layers is 4.
    np.testing.assert_allclose(metrics["feature_matching"], 4 * np.abs(truth).mean(), rtol=1e-5)
    np.testing.assert_allclose(metrics["loss"], 1 + 10 * 4 * np.abs(truth).mean(), rtol=1e-5)
    np.testing.assert_allclose(metrics["discriminator_loss"], 0.5 * (0 + np.mean((means - 1) ** 2)), rtol=1e-5)
    np.testing.assert_allclose(metrics["r_index"], 0.5)


def test_cross_entropy_and_pixel_loss_by_hand():
    task = make(adversarial_loss="bce", feature_matching=0.0, pixel_loss=100.0, target_scale=(0.0, 1.0))
    batch = pairs()
    state, step = started(task, batch)
    params = {**state.params, "generator": jax.tree.map(jnp.zeros_like, state.params["generator"])}
    _, metrics = step(state._replace(params=params), batch, jax.random.key(0))
    truth = np.asarray(batch["pattern"])
    np.testing.assert_allclose(metrics["adversarial"], np.log(2), rtol=1e-5)
    np.testing.assert_allclose(metrics["loss"], np.log(2) + 100 * np.abs(truth).mean(), rtol=1e-5)
    real = np.log1p(np.exp(-truth.mean((1, 2, 3)))).mean()
    np.testing.assert_allclose(metrics["discriminator_loss"], 0.5 * (np.log(2) + real), rtol=1e-5)


def test_feature_matching_weights_layers_and_scales_as_published():
    """Two scales of four layers: 4/4 per layer, mean over scales, logits left out."""
    ones = [jnp.ones((1, 2, 2, 1))] * 4
    fake = [[*ones, jnp.full((1, 1, 1, 1), 100.0)], [3 * f for f in ones] + [jnp.zeros((1, 1, 1, 1))]]
    real = [[0 * f for f in scale] for scale in fake]
    np.testing.assert_allclose(adversarial.feature_matching_loss(fake, real), (4 * 1 + 4 * 3) / 2)
    to_real = jax.grad(lambda r: adversarial.feature_matching_loss(fake, r))(real)
    assert all(float(jnp.abs(g).max()) == 0 for g in jax.tree.leaves(to_real))


def moved(before, after):
    change = jax.tree.map(lambda a, b: float(jnp.abs(a - b).max()), before, after)
    return {role: max(jax.tree.leaves(tree)) > 0 for role, tree in change.items()}


def test_a_step_moves_both_networks():
    task, batch = make(), pairs()
    state, step = started(task, batch)
    after, _ = step(state, batch, jax.random.key(0))
    assert moved(state.params, after.params) == {"generator": True, "discriminator": True}
    assert int(after.step) == 1


def test_each_loss_reaches_only_its_own_network():
    """A discriminator rate of 0 freezes the discriminator although the generator's loss runs through it, and a
    generator without any loss term stays although the discriminator judges its images."""
    batch = pairs()
    frozen = make(discriminator_rate=0.0)
    state, step = started(frozen, batch)
    assert moved(state.params, step(state, batch, jax.random.key(0))[0].params) == {
        "generator": True,
        "discriminator": False,
    }
    idle = make(adversarial_weight=0.0, feature_matching=0.0)
    state, step = started(idle, batch)
    assert moved(state.params, step(state, batch, jax.random.key(0))[0].params) == {
        "generator": False,
        "discriminator": True,
    }


def test_gradients_of_both_networks_by_finite_differences():
    """With plain descent of rate 1 the step is the gradient; compare with differences of the reported losses."""
    batch = pairs()
    task = make(tx=optax.sgd(1.0), feature_matching=0.5, pixel_loss=0.3, zncc_loss=0.2)
    state, step = started(task, batch)
    after, _ = step(state, batch, jax.random.key(0))

    def loss(role, name, delta):
        params = jax.tree.map(lambda x: x, state.params)
        leaf = jax.tree.leaves(params[role])
        index = [jax.tree_util.keystr(p) for p, _ in jax.tree_util.tree_leaves_with_path(params[role])].index(name)
        leaf[index] = leaf[index] + delta
        params[role] = jax.tree.unflatten(jax.tree.structure(params[role]), leaf)
        metrics = step(state._replace(params=params), batch, jax.random.key(0))[1]
        return float(metrics["loss" if role == "generator" else "discriminator_loss"])

    for role in ("generator", "discriminator"):
        before, now = (jax.tree_util.tree_leaves_with_path(s.params[role]) for s in (state, after))
        for (path, old), (_, new) in zip(before, now, strict=True):
            name = jax.tree_util.keystr(path)
            gradient = float((old - new).reshape(-1)[0])
            numeric = (loss(role, name, 1e-2) - loss(role, name, -1e-2)) / 2e-2
            np.testing.assert_allclose(gradient, numeric, rtol=2e-2, atol=2e-3, err_msg=f"{role} {name}")


@pytest.mark.slow
def test_learns_with_the_real_discriminator_and_replays():
    discriminator = patch_discriminator.make_model(base_features=4, num_layers=1, num_scales=1)
    task = make(discriminator=discriminator, augment="dihedral", ema_decay=0.5, discriminator_rate=0.5)
    batch = pairs(8, 8)
    state, step = started(task, batch)
    assert state.ema is not None and set(state.ema) == {"generator", "discriminator"}
    first = step(state, batch, jax.random.key(3))
    jax.tree.map(np.testing.assert_array_equal, first, step(state, batch, jax.random.key(3)))
    history = []
    for i in range(40):
        state, metrics = step(state, batch, jax.random.fold_in(jax.random.key(1), i))
        history.append({k: float(v) for k, v in metrics.items()})
    assert all(np.isfinite(list(row.values())).all() for row in history)
    assert history[-1]["feature_matching"] < history[0]["feature_matching"]
    scores = jax.jit(task.evaluate)(state, {**batch, "weight": jnp.arange(8.0)}, jax.random.key(0))
    np.testing.assert_array_equal(scores["weight"], np.arange(8.0))
    assert scores["r_index"].shape == (8,) and float(scores["r_index"].min()) > 0.9


@pytest.mark.slow
def test_jit_equals_eager():
    task, batch = make(), pairs()
    state, step = started(task, batch)
    close = lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-6)
    jax.tree.map(close, step(state, batch, jax.random.key(0)), task.step(state, batch, jax.random.key(0)))


def test_bad_options_are_named():
    with pytest.raises(ValueError, match="adversarial_loss.*bce.*'hinge'"):
        make(adversarial_loss="hinge")
    with pytest.raises(ValueError, match="discriminator"):
        adversarial.make_task(models={"model": Generator()}, tx=optax.adam(1e-3))
    with pytest.raises(ValueError, match="augment"):
        make(augment="all")
    with pytest.raises(ValueError, match="target_scale"):
        make(target_scale=(0.0, -1.0))
