"""Rare classes and classes with kinds: losses by hand, for a network that is one matrix."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import linen as nn

from physml_jax.tasks import classification


class Rows(nn.Module):
    """Logits are the input times a matrix."""

    outputs: int

    @nn.compact
    def __call__(self, x, *, train):
        return nn.Dense(self.outputs, use_bias=False, name="head")(x)


COUNTS = (6, 3, 1)
X = np.random.default_rng(0).normal(size=(8, 4)).astype(np.float32)
LABEL = np.array([0, 0, 1, 0, 2, 1, 0, 1])
KIND = np.array([0, 1, 1, 0, 1, 0, 1, 1])
BATCH = {k: jnp.asarray(v) for k, v in {"image": X, "label": LABEL, "kind": KIND, "weight": np.ones(8)}.items()}


def make(outputs=3, **options):
    task = classification.make_task(models={"model": Rows(outputs)}, tx=optax.sgd(0.0), **options)
    return task, task.init(jax.random.key(0), BATCH)


def log_p(logits):
    return logits - np.log(np.exp(logits).sum(-1, keepdims=True))


def test_losses_of_rare_classes():
    task, state = make(balance="weights", class_counts=COUNTS)
    logits = X @ np.asarray(state.params["head"]["kernel"])
    each = -log_p(logits)[np.arange(8), LABEL]
    weights = np.array([10 / (3 * n) for n in COUNTS])[LABEL]
    np.testing.assert_allclose(
        task.step(state, BATCH, jax.random.key(1))[1]["loss"], (weights * each).mean(), rtol=1e-5
    )

    task, state = make(balance="logits", class_counts=COUNTS)
    adjusted = -log_p(logits + np.log(np.array(COUNTS) / 10))[np.arange(8), LABEL]
    np.testing.assert_allclose(task.step(state, BATCH, jax.random.key(1))[1]["loss"], adjusted.mean(), rtol=1e-5)
    # What predicts and what is scored knows nothing of the frequencies.
    np.testing.assert_allclose(task.predict(state, BATCH, jax.random.key(0))["logits"], logits, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(task.evaluate(state, BATCH, jax.random.key(0))["loss"], each, rtol=1e-4)
    # Equal frequencies change nothing.
    for balance in ("weights", "logits"):
        task, state = make(balance=balance, class_counts=(5, 5, 5))
        np.testing.assert_allclose(task.step(state, BATCH, jax.random.key(1))[1]["loss"], each.mean(), rtol=1e-5)


def test_kinds_are_summed():
    task, state = make(6, sublabel="kind", num_sublabels=2)
    p = np.exp(log_p(X @ np.asarray(state.params["head"]["kernel"]))).reshape(8, 3, 2)
    answer = task.predict(state, BATCH, jax.random.key(0))
    np.testing.assert_allclose(jax.nn.softmax(answer["logits"]), p.sum(2), rtol=1e-4)
    assert answer["sublogits"].shape == (8, 3, 2)
    scores = task.evaluate(state, BATCH, jax.random.key(0))
    np.testing.assert_array_equal(scores["accuracy"], p.sum(2).argmax(1) == LABEL)
    np.testing.assert_array_equal(scores["kind_accuracy"], p[np.arange(8), LABEL].argmax(1) == KIND)
    joint = -np.log(p[np.arange(8), LABEL, KIND])
    np.testing.assert_allclose(scores["loss"], joint, rtol=1e-4)
    np.testing.assert_allclose(task.step(state, BATCH, jax.random.key(1))[1]["loss"], joint.mean(), rtol=1e-4)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"balance": "oversample"}, "balance: expected one of none, weights, logits, got 'oversample'"),
        ({"balance": "weights"}, "class_counts: 'weights' needs a positive number per class"),
        ({"num_sublabels": 2}, "num_sublabels: expected at least 1, and 1 without a sublabel, got 2"),
    ],
)
def test_options_that_do_not_fit_are_named(options, message):
    with pytest.raises(ValueError, match=message):
        make(**options)


def test_another_number_of_outputs_is_named():
    task, state = make(3, balance="logits", class_counts=(1, 2))
    with pytest.raises(ValueError, match="class_counts: they make 2 outputs, the network has 3"):
        task.step(state, BATCH, jax.random.key(0))
    task, state = make(5, sublabel="kind", num_sublabels=2)
    with pytest.raises(ValueError, match="num_sublabels: 5 outputs are no multiple of 2"):
        task.predict(state, BATCH, jax.random.key(0))
