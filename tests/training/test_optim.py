import jax.numpy as jnp
import numpy as np
import optax
import pytest

from physml_jax.training import optim


@pytest.mark.parametrize(
    ("name", "options", "expected"),
    [
        ("constant", {}, [0.1, 0.1, 0.1]),
        ("cosine", {}, [0.1, 0.05, 0.0]),
        ("linear", {}, [0.1, 0.05, 0.0]),
        ("hold_then_linear", {"hold": 0.5}, [0.1, 0.1, 0.0]),
        ("step", {"every": 50, "factor": 0.1}, [0.1, 0.01, 0.001]),
    ],
)
def test_schedules_at_start_middle_and_end(name, options, expected):
    schedule = optim.make_schedule(name, 0.1, 100, **options)
    np.testing.assert_allclose([schedule(s) for s in (0, 50, 100)], expected, atol=1e-7)


def test_warmup_rises_from_zero():
    schedule = optim.make_schedule("constant", 0.1, 100, warmup_steps=10)
    np.testing.assert_allclose([schedule(s) for s in (0, 5, 10, 99)], [0, 0.05, 0.1, 0.1], atol=1e-7)


def config(**changes):
    base = {
        "name": "sgd",
        "learning_rate": 0.1,
        "kwargs": {},
        "schedule": {"name": "constant"},
        "clip_norm": 0.0,
        "accumulate": 1,
    }
    return {**base, **changes}


def test_clipping_bounds_the_global_norm():
    tx = optim.make_optimizer(config(clip_norm=1.0), 10)
    params = {"w": jnp.zeros(2)}
    updates, _ = tx.update({"w": jnp.array([30.0, 40.0])}, tx.init(params), params)
    np.testing.assert_allclose(optax.tree.norm(updates), 0.1, rtol=1e-6)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"name": "adamm"}, r"optax has no optimizer 'adamm'.*adam.*sgd"),
        ({"name": "chain"}, "optax has no optimizer"),
        ({"learning_rate": 0.0}, "learning_rate"),
        ({"learning_rate": float("nan")}, "learning_rate"),
        ({"kwargs": {"momentumm": 1}}, "optim.kwargs: unknown momentumm"),
        ({"schedule": {"name": "cosin"}}, "no schedule 'cosin'.*cosine"),
        ({"schedule": {"name": "step"}}, "optim.schedule.*every"),
    ],
)
def test_bad_options_are_refused(change, message):
    with pytest.raises(ValueError, match=message):
        optim.make_optimizer(config(**change), 10)
