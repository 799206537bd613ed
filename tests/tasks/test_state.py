"""The life of a TrainState: optimizers by name, the moving average, what evaluation uses."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from physml_jax.tasks.state import apply_gradients, create, evaluation_variables
from physml_jax.typing import Best

PARAMS = {"w": jnp.array([1.0, 2.0])}
GRADS = {"w": jnp.array([10.0, -10.0])}


def test_gradient_step_by_hand():
    tx = optax.sgd(0.1)
    state = apply_gradients(create(PARAMS, {}, tx), GRADS, tx)
    np.testing.assert_allclose(state.params["w"], [0.0, 3.0])
    assert int(state.step) == 1 and state.step.dtype == jnp.int32 and state.ema is None and state.mutable == {}


def test_moving_average_by_hand():
    """After n steps the decay is min(0.9, (1 + n) / (10 + n)): 0.1, then 2/11."""
    tx = optax.sgd(0.1)
    state = create(PARAMS, {}, tx, ema_decay=0.9)
    np.testing.assert_array_equal(state.ema["w"], PARAMS["w"])
    state = apply_gradients(state, GRADS, tx, ema_decay=0.9)
    first = 0.1 * np.array([1.0, 2.0]) + 0.9 * np.array([0.0, 3.0])
    np.testing.assert_allclose(state.ema["w"], first, rtol=1e-6)
    state = apply_gradients(state, GRADS, tx, ema_decay=0.9)
    np.testing.assert_allclose(state.ema["w"], 2 / 11 * first + 9 / 11 * np.array([-1.0, 4.0]), rtol=1e-6)
    late = apply_gradients(state._replace(step=jnp.int32(1000)), GRADS, tx, ema_decay=0.9)
    np.testing.assert_allclose(late.ema["w"], 0.9 * state.ema["w"] + 0.1 * np.array([-2.0, 5.0]), rtol=1e-6)


def test_the_average_is_a_copy_that_survives_donation():
    tx = optax.sgd(0.1)
    state = create(PARAMS, {}, tx, ema_decay=0.5)
    assert state.ema["w"].unsafe_buffer_pointer() != state.params["w"].unsafe_buffer_pointer()


def test_optimizers_by_name_do_not_mix():
    txs = {"a": optax.sgd(1.0), "b": optax.adam(0.5)}
    params = {"a": PARAMS, "b": PARAMS}
    state = create(params, {}, txs)
    assert set(state.opt) == {"a", "b"}
    state = apply_gradients(state, {"a": GRADS, "b": {"w": jnp.zeros(2)}}, txs)
    np.testing.assert_allclose(state.params["a"]["w"], [-9.0, 12.0])
    np.testing.assert_array_equal(state.params["b"]["w"], PARAMS["w"])


def test_evaluation_prefers_best_then_average_then_current():
    tx = optax.sgd(0.1)
    plain = create(PARAMS, {"stats": {"mean": jnp.zeros(1)}}, tx)
    assert evaluation_variables(plain)[0] is plain.params
    averaged = plain._replace(ema={"w": jnp.array([5.0, 5.0])})
    assert evaluation_variables(averaged)[0] is averaged.ema
    best = averaged._replace(best=Best(jnp.float32(1), {"w": jnp.zeros(2)}, {"stats": {"mean": jnp.ones(1)}}))
    params, mutable = evaluation_variables(best)
    assert params is best.best.params and mutable is best.best.mutable


@pytest.mark.parametrize("decay", [-0.1, 1.0, 2.0])
def test_decay_out_of_range_is_named(decay):
    with pytest.raises(ValueError, match="ema_decay"):
        create(PARAMS, {}, optax.sgd(0.1), ema_decay=decay)


def test_mutable_is_replaced_only_when_given():
    tx = optax.sgd(0.1)
    state = create(PARAMS, {"stats": jnp.zeros(1)}, tx)
    assert apply_gradients(state, GRADS, tx).mutable is state.mutable
    new = {"stats": jnp.ones(1)}
    assert jax.tree.leaves(apply_gradients(state, GRADS, tx, mutable=new).mutable)[0] == 1
