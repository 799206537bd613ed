"""Frozen parts: what moves, what acts as in evaluation, and the patterns that are refused."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn

from physml_jax.tasks import classification
from physml_jax.training import freezing, optim

OPTIM = {"learning_rate": 0.1, "kwargs": {}, "schedule": {"name": "constant"}, "clip_norm": 0.0, "accumulate": 1}


class Net(nn.Module):
    """Two layers with normalisation and dropout, and a head; with dropout the answers of training vary by key."""

    @nn.compact
    def __call__(self, x, *, train):
        for name in ("first", "second"):
            x = nn.relu(nn.Dense(4, name=name)(x))
            x = nn.BatchNorm(use_running_average=not train, momentum=0.5, name=f"{name}_norm")(x)
            x = nn.Dropout(0.5, deterministic=not train, name=f"{name}_drop")(x)
        return nn.Dense(3, name="head")(x)


BATCH = {
    "image": jnp.asarray(np.random.default_rng(0).normal(2.0, 3.0, (8, 5)), jnp.float32),
    "label": jnp.arange(8, dtype=jnp.int32) % 3,
}


def stepped(frozen, *, key=0, **options):
    """(before, after) of one step; adamw decays every weight that it may touch."""
    tx = optim.make_optimizer(
        {"name": "adamw", **OPTIM, "kwargs": {"weight_decay": 0.1}, "frozen": frozen, **options}, 9
    )
    model = freezing.frozen_model(Net(), frozen) if frozen else Net()
    task = classification.make_task(models={"model": model}, tx=tx)
    before = task.init(jax.random.key(0), BATCH)
    return before, *jax.jit(task.step)(before, BATCH, jax.random.key(key))


def changed(before, after):
    """Modules any of whose leaves has moved."""
    return {
        path[0].key
        for (path, a), b in zip(jax.tree_util.tree_leaves_with_path(before), jax.tree.leaves(after), strict=True)
        if np.any(np.asarray(a) != np.asarray(b))
    }


ALL = {"first", "first_norm", "second", "second_norm", "head"}


@pytest.mark.parametrize(
    ("frozen", "moved", "statistics"),
    [
        ((), ALL, {"first_norm", "second_norm"}),
        (("(?!head/)",), {"head"}, set()),
        (("first",), {"second", "second_norm", "head"}, {"second_norm"}),
        (("first/kernel", "second"), {"first", "first_norm", "head"}, {"first_norm"}),
    ],
)
def test_only_what_is_trained_moves(frozen, moved, statistics):
    before, after, _ = stepped(frozen)
    assert changed(before.params, after.params) == moved
    assert changed(before.mutable["batch_stats"], after.mutable["batch_stats"]) == statistics
    if "first/kernel" in frozen:
        np.testing.assert_array_equal(before.params["first"]["kernel"], after.params["first"]["kernel"])


def test_a_frozen_backbone_acts_as_in_evaluation():
    """Its loss in training is that of evaluation, whatever the key of the dropout; an unfrozen one differs."""
    before, _, metrics = stepped(("(?!head/)",))
    logits = Net().apply({"params": before.params, **before.mutable}, BATCH["image"], train=False)
    expected = -jnp.take_along_axis(jax.nn.log_softmax(logits), BATCH["label"][:, None], 1).mean()
    np.testing.assert_allclose(metrics["loss"], expected, rtol=1e-5)
    np.testing.assert_allclose(stepped(("(?!head/)",), key=1)[2]["loss"], expected, rtol=1e-5)
    assert abs(float(stepped(())[2]["loss"] - expected)) > 1e-2


def test_the_optimizer_keeps_no_state_for_frozen_parameters():
    size = lambda state: sum(x.size for x in jax.tree.leaves(state.opt))
    head = 4 * 3 + 3
    assert size(stepped(("(?!head/)",))[0]) == 2 * head + 2 and size(stepped(())[0]) > 100


def test_gradients_are_clipped_by_the_norm_of_what_is_trained_and_accumulate():
    before, after, _ = stepped(("(?!head/)",), name="sgd", kwargs={}, clip_norm=1e-3)
    moves = jax.tree.map(lambda a, b: a - b, before.params["head"], after.params["head"])
    np.testing.assert_allclose(np.sqrt(sum(float((m**2).sum()) for m in jax.tree.leaves(moves))), 1e-4, rtol=1e-2)
    before, after, _ = stepped(("(?!head/)",), accumulate=2)
    assert changed(before.params, after.params) == set()  # half of an accumulated step


@pytest.mark.parametrize(
    ("frozen", "message"),
    [
        ("head", "expected a sequence of regular expressions, got the text 'head'"),
        (("(",), r"'\(' is no regular expression"),
        (("tail/",), "no parameter matches 'tail/'; modules: first, first_norm, head"),
        (("",), "nothing would be trained; the patterns match all 10 parameters"),
    ],
)
def test_bad_patterns_are_refused(frozen, message):
    with pytest.raises(ValueError, match=rf"optim.frozen: {message}"):
        stepped(frozen)
