"""Autoencoding: errors and divergences by hand, symmetry operations, generated states, learning all ground states."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from physml_jax.models import vae
from physml_jax.tasks import autoencoding


class Stub(nn.Module):
    """Encodes the magnetisation with a given width, and decodes a number as uniform mean spins."""

    def setup(self):
        self.scale = self.param("scale", nn.initializers.constant(0.5), ())

    def encode(self, inputs):
        mean = inputs.astype(jnp.float32).mean(axis=(1, 2))
        return mean, jnp.full_like(mean, -2.0)

    def decode(self, latent):
        return jnp.broadcast_to((self.scale * latent).reshape(-1, 1, 1, 1), (latent.shape[0], 4, 4, 1))

    def __call__(self, inputs, *, train):
        return self.decode(self.encode(inputs)[0])


def make(model=None, tx=None, **options):
    return autoencoding.make_task(models={"model": model or Stub()}, tx=tx or optax.sgd(0.1), **options)


def batch_of(spins):
    spins = jnp.asarray(spins, jnp.int8)
    return {"spins": spins, "weight": jnp.ones(len(spins), jnp.float32)}


def random_states(rows, size=4, seed=0):
    return 2 * np.random.default_rng(seed).integers(0, 2, (rows, size, size, 1)) - 1


def stripes(size):
    """The four striped ground states, [4, L, L, 1]."""
    row = np.broadcast_to((-1) ** np.arange(size)[:, None], (size, size))
    return np.stack([row, -row, row.T, -row.T]).astype(np.int8)[..., None]


def test_error_is_0_for_perfect_half_for_unrelated_1_for_inverted():
    up, (striped, *_) = np.ones((1, 4, 4, 1), np.int8), stripes(4)
    for other, error in ((up, 0), (-up, 1), (striped[None], 0.5), (np.zeros_like(up), 0.25), (0.5 * up, 0.0625)):
        found = autoencoding.reconstruction_error(jnp.asarray(up), jnp.asarray(other))
        assert found.shape == (1,) and found.dtype == jnp.float32 and found == error


def test_divergence_is_that_of_gaussians():
    mean, variance = np.array([[0.0, 0.0], [1.0, -2.0]], np.float32), np.array([[1, 1], [0.25, 2]], np.float32)
    found = autoencoding.divergence(jnp.asarray(mean), jnp.log(jnp.asarray(variance)))
    z = np.linspace(-12, 12, 200_001)
    for i, (means, variances) in enumerate(zip(mean, variance, strict=True)):
        total = 0.0
        for m, v in zip(means, variances, strict=True):
            log_ratio = -0.5 * ((z - m) ** 2 / v + np.log(v) - z**2)
            density = np.exp(-0.5 * (z - m) ** 2 / v) / np.sqrt(2 * np.pi * v)
            total += np.sum(density * log_ratio) * (z[1] - z[0])
        np.testing.assert_allclose(found[i], total, atol=1e-5)


def test_scores_and_predictions_by_hand(key):
    """Stub decodes half of the magnetisation."""
    batch = batch_of(np.concatenate([np.ones((1, 4, 4, 1)), -np.ones((1, 4, 4, 1)), stripes(4)[:1]]))
    task = make(beta=2.0)
    state = task.init(key, batch)
    scores, out = task.evaluate(state, batch, key), task.predict(state, batch, key)
    epsilon = [0.0625, 0.0625, 0.25]
    kl = 0.5 * (np.array([1.0, 1.0, 0.0]) + np.exp(-2.0) - 1 + 2.0)
    assert set(scores) == {"loss", "epsilon", "kl", "weight"}
    np.testing.assert_allclose(scores["epsilon"], epsilon)
    np.testing.assert_allclose(scores["kl"], kl, rtol=1e-6)
    np.testing.assert_allclose(scores["loss"], epsilon + 2 * kl / 16, rtol=1e-6)
    np.testing.assert_allclose(out["epsilon"], epsilon)
    np.testing.assert_allclose(out["epsilon_sign"], [0, 0, 0.5])
    np.testing.assert_allclose(out["latent"], [[1], [-1], [0]])
    np.testing.assert_allclose(out["latent_std"], np.full((3, 1), np.exp(-1)), rtol=1e-6)
    np.testing.assert_array_equal(out["reconstruction"][:, 0, 0, 0], [1, -1, 1])
    assert {k: (v.dtype.name, v.shape) for k, v in out.items()} == {
        **dict.fromkeys(("epsilon", "epsilon_sign"), ("float32", (3,))),
        **dict.fromkeys(("latent", "latent_std"), ("float32", (3, 1))),
        **dict.fromkeys(("reconstruction", "generated"), ("int8", (3, 4, 4, 1))),
    }


def test_a_step_trains_on_latent_numbers_with_noise(key):
    """Its epsilon averages (1 - z/2)^2 / 4 over z ~ N(1, e^-2), which exceeds the score by e^-2 / 16."""
    batch, task = batch_of(np.ones((4000, 4, 4, 1))), make()
    state = task.init(key, batch)
    new, metrics = jax.jit(task.step)(state, batch, key)
    z = np.random.default_rng(0).normal(1, np.exp(-1), 10**6)
    spread = np.std((1 - z / 2) ** 2 / 4) / np.sqrt(4000)
    assert abs(float(metrics["epsilon"]) - (0.0625 + np.exp(-2) / 16)) < 5 * spread
    assert abs(float(metrics["epsilon"]) - 0.0625) > 5 * spread  # what it is without noise
    assert int(new.step) == 1 and float(new.params["scale"]) > 0.5


def test_the_average_predicts(key):
    batch, task = batch_of(np.ones((2, 4, 4, 1))), make(ema_decay=0.9)
    state = task.init(key, batch)
    state = state._replace(params={"scale": jnp.zeros(())})  # the average still holds the initial 1/2
    np.testing.assert_allclose(task.predict(state, batch, key)["epsilon"], 0.0625)


def bonds(spins):
    """Sums over both kinds of bonds, [B, 2]: no symmetry changes them."""
    s = np.asarray(spins, np.int64)[..., 0]
    near = s * np.roll(s, 1, axis=1) + s * np.roll(s, 1, axis=2)
    far = s * np.roll(s, (1, 1), axis=(1, 2)) + s * np.roll(s, (1, -1), axis=(1, 2))
    return np.stack([near.sum(axis=(1, 2)), far.sum(axis=(1, 2))], axis=-1)


def test_symmetry_operations_keep_bonds(key):
    spins = random_states(64, size=6)
    moved = autoencoding.transformed(key, jnp.asarray(spins, jnp.int8), autoencoding.SYMMETRIES)
    assert moved.dtype == jnp.int8 and np.any(np.asarray(moved) != spins, axis=(1, 2, 3)).mean() > 0.9
    np.testing.assert_array_equal(bonds(moved), bonds(spins))
    same = autoencoding.transformed(key, jnp.asarray(spins, jnp.int8), ())
    np.testing.assert_array_equal(same, spins)


def test_symmetry_operations_reach_every_image_equally(key):
    """Chi-square of 8000 draws against a uniform distribution over the orbit, five standard deviations."""

    def chi_square(spins, symmetries, size):
        copies = jnp.broadcast_to(jnp.asarray(spins, jnp.int8), (8000, *spins.shape))
        moved = np.asarray(autoencoding.transformed(key, copies, symmetries)).reshape(8000, -1)
        _, counts = np.unique(moved, axis=0, return_counts=True)
        assert len(counts) == size
        return (np.sum((counts - 8000 / size) ** 2) / (8000 / size) - (size - 1)) / np.sqrt(2 * (size - 1))

    single = np.ones((4, 4, 1))
    single[1, 2] = -1
    assert abs(chi_square(single, ("translation",), 16)) < 5
    assert abs(chi_square(single, ("flip",), 2)) < 5
    assert abs(chi_square(single, ("flip", "translation"), 32)) < 5
    assert abs(chi_square(stripes(4)[0], ("translation",), 2)) < 5
    assert abs(chi_square(stripes(4)[0], ("dihedral", "translation"), 4)) < 5


def test_generated_states(key):
    """With mean spins z/2 a spin is up with probability (1 + z/2)/2; the sign of z decides for the likelier state."""
    batch = batch_of(np.ones((2000, 4, 4, 1)))
    sampled, signed = (
        task.predict(task.init(key, batch), batch, key)["generated"].astype(jnp.float32).mean(axis=(1, 2, 3))
        for task in (make(), make(generate="sign"))
    )
    assert set(np.unique(signed)) == {-1.0, 1.0}
    assert abs(float(signed.mean())) < 5 / np.sqrt(2000)
    # Given z the mean over 16 spins has variance (1 - z^2/4) / 16, to which z adds 1/4 itself; |z| > 2 is rare.
    assert abs(float(sampled.mean())) < 5 * np.sqrt((0.25 + 0.75 / 16) / 2000)
    assert abs(float(jnp.square(sampled).mean()) - (0.25 + 0.75 / 16)) < 0.03
    assert 0.2 < np.corrcoef(sampled, signed)[0, 1] < 0.95
    task = make()
    state = task.init(key, batch)
    again, other = (task.predict(state, batch, k)["generated"] for k in (key, jax.random.key(1)))
    np.testing.assert_array_equal(again.astype(jnp.float32).mean(axis=(1, 2, 3)), sampled)
    assert np.any(again != other)


def trained(model, states, *, num_steps, rate, **options):
    """The task, the state after some steps on the same states, and the metrics of every step."""
    task, batch = make(model, optax.adam(rate), **options), batch_of(states)

    def run(key):
        state = task.init(key, batch)
        return jax.lax.scan(lambda s, k: task.step(s, batch, k), state, jax.random.split(key, num_steps))

    state, metrics = jax.jit(run)(jax.random.key(2))
    return task, state, jax.device_get(metrics)


@pytest.mark.slow
def test_learns_all_four_stripes_from_one():
    model = vae.make_model(size=8, latent_dim=2, features=(4, 8), strides=(2, 2))
    stripe = np.repeat(stripes(8)[:1], 48, axis=0)
    task, state, metrics = trained(model, stripe, num_steps=250, rate=1e-2, beta=0.2, augment=autoencoding.SYMMETRIES)
    assert metrics["loss"][-1] < 0.2 * metrics["loss"][0]
    batch = batch_of(np.concatenate([np.ones((2, 8, 8, 1)), -np.ones((2, 8, 8, 1)), *[stripes(8)] * 50]))
    out = jax.device_get(jax.jit(task.predict)(state, batch, jax.random.key(1)))
    assert np.abs(out["epsilon_sign"][:4] - 0.5).max() < 0.1  # exactly 0.5 if any stripe is answered
    assert out["epsilon"][4:8].max() < 0.02
    np.testing.assert_array_equal(out["reconstruction"][4:8], stripes(8))
    # The latent space holds them apart: four places two standard deviations or more from each other.
    z, width = out["latent"][4:8], out["latent_std"][4:8].mean(axis=0)
    distance = np.linalg.norm((z[:, None] - z[None]) / width, axis=-1)
    assert distance[~np.eye(4, dtype=bool)].min() > 2
    # And from standard normal numbers each of them is drawn.
    generated = out["generated"].astype(np.float32)
    overlap = np.einsum("nijc,kijc->nk", generated, stripes(8).astype(np.float32)) / 64
    assert min((overlap > 0.9).mean(axis=0)) > 0.05


class Dense(nn.Module):
    """The smallest autoencoder that can learn, or ignore, which of two states it sees."""

    def setup(self):
        self.gaussian, self.mean_spin = nn.Dense(2), nn.Dense(16)

    def encode(self, inputs):
        return jnp.split(self.gaussian(inputs.reshape(-1, 16).astype(jnp.float32)), 2, axis=-1)

    def decode(self, latent):
        return jnp.tanh(self.mean_spin(latent)).reshape(-1, 4, 4, 1)

    def __call__(self, inputs, *, train):
        return self.decode(self.encode(inputs)[0])


@pytest.mark.parametrize(("beta", "collapses"), [(1.0, False), (100.0, True)])
def test_an_enormous_beta_collapses(beta, collapses):
    """A bit costs log(2) nats and saves at most 1/4 of epsilon: with beta far above N/4 the state is ignored."""
    up = np.ones((64, 4, 4, 1))
    task, state, metrics = trained(Dense(), up, num_steps=500, rate=2e-2, beta=beta, augment=("flip",))
    out = jax.jit(task.predict)(state, batch_of(np.concatenate([up[:1], -up[:1]])), jax.random.key(0))
    if collapses:
        assert metrics["kl"][-1] < 0.02
        np.testing.assert_allclose(out["epsilon"], 0.25, atol=0.02)
    else:
        assert 0.5 < metrics["kl"][-1] < 3
        assert np.max(out["epsilon"]) < 0.02


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"augment": ("flip", "nonsense")}, "augment: expected names from flip.*got nonsense"),
        ({"generate": "nonsense"}, "generate: expected one of sample, sign, got 'nonsense'"),
        ({"beta": -1.0}, "beta: expected a number of at least 0"),
        ({"beta": float("nan")}, "beta: expected a number of at least 0"),
    ],
)
def test_unknown_options_are_named(options, message):
    with pytest.raises(ValueError, match=f"task.kwargs.{message}"):
        make(**options)


def test_states_of_another_shape_are_refused(key):
    task = make()
    with pytest.raises(ValueError, match=r"spins: expected states \[B, L, L, 1\], got \[2, 4, 4\]"):
        task.init(key, {"spins": jnp.ones((2, 4, 4), jnp.int8)})
