"""The field ``dtype`` of every model: float32 parameters and outputs, half-precision arithmetic, steps that train."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import linen as nn

from physml_jax.models import patch_discriminator, pix2pixhd, resnet, unet, vit
from physml_jax.tasks import classification

#: Small versions, by name; all take [B, 16, 16, 1].
MODELS = {
    "resnet": lambda **kw: resnet.make_model(depth=10, width=8, small_stem=True, **kw),
    "resnet sites": lambda **kw: resnet.make_model(depth=10, width=8, small_stem=True, head="sites", **kw),
    "vit": lambda **kw: vit.make_model(patch=4, dim=16, depth=2, num_heads=2, **kw),
    "vit sites": lambda **kw: vit.make_model(patch=4, dim=16, depth=2, num_heads=2, head="sites", **kw),
    "unet": lambda **kw: unet.make_model(base_features=8, max_features=8, depth=1, num_blocks=1, **kw),
    "pix2pixhd": lambda **kw: pix2pixhd.make_model(base_features=8, num_downsamples=1, num_blocks=1, **kw),
    "patch_discriminator": lambda **kw: patch_discriminator.make_model(
        base_features=4, num_layers=2, num_scales=1, **kw
    ),
}


class Classified(nn.Module):
    """The outputs of any model as logits of two classes: those of a picture by their mean."""

    model: nn.Module

    @nn.compact
    def __call__(self, inputs, *, train):
        y = jax.tree.leaves(self.model(inputs, train=train))[-1]
        if y.ndim == 4:
            y = y.mean((1, 2)) * jnp.array([[1.0, -1.0]])
        return y


def batch():
    image = np.random.default_rng(0).random((4, 16, 16, 1)) < 0.6
    return {"image": jnp.asarray(image, jnp.float32), "label": jnp.arange(4, dtype=jnp.int32) % 2}


def drawn(variables):
    """Random parameters without compiling the initialisation: kernels and biases small, scales near one."""
    rng = np.random.default_rng(1)

    def draw(path, p):
        one = path[-1].key in ("scale", "var")
        return jnp.asarray(one + (0.0 if path[0].key == "batch_stats" else 0.1 * rng.normal(size=p.shape)), p.dtype)

    return jax.tree_util.tree_map_with_path(lambda path, p: jnp.broadcast_to(draw(path, p), p.shape), variables)


def dtypes(tree):
    return {leaf.dtype for leaf in jax.tree.leaves(tree)}


@pytest.mark.parametrize("name", sorted(MODELS))
def test_parameters_and_outputs_are_float32(name):
    model, x = MODELS[name](dtype="bfloat16"), batch()["image"]
    variables = jax.eval_shape(lambda: model.init(jax.random.key(0), x, train=False))
    assert dtypes(variables) == {jnp.dtype("float32")}
    for train in (False, True):
        outputs = jax.eval_shape(lambda v: model.apply(v, x, train=train, mutable=["batch_stats"]), variables)
        assert dtypes(outputs) == {jnp.dtype("float32")}


@pytest.mark.parametrize(
    "name",
    [
        pytest.param(name, marks=pytest.mark.slow) if name != "vit" else name
        for name in sorted(MODELS)
        if "sites" not in name
    ],
)
def test_a_training_step_in_half_precision_is_near_that_in_float32(name):
    """Its gradients are finite and point the same way, and they differ by the rounding to eight bits of mantissa."""
    losses, gradients = {}, {}
    for dtype in ("float32", "bfloat16"):
        task = classification.make_task(models={"model": Classified(MODELS[name](dtype=dtype))}, tx=optax.sgd(1.0))
        state = jax.eval_shape(task.init, jax.random.key(0), batch())
        variables = drawn({"params": state.params, **state.mutable})
        params = variables.pop("params")
        state = state._replace(params=params, mutable=variables, step=jnp.int32(0), opt=optax.sgd(1.0).init(params))
        # One step of a tiny network: compiling is all of the work, so the compiler takes it easy.
        step = jax.jit(task.step, compiler_options={"xla_backend_optimization_level": 0})
        moved, metrics = step(state, batch(), jax.random.key(1))
        assert dtypes(moved.params) == dtypes(moved.mutable) | {jnp.dtype("float32")} == {jnp.dtype("float32")}
        losses[dtype] = float(metrics["loss"])
        difference = jax.tree.map(lambda a, b: np.ravel(a - b), params, moved.params)  # with a learning rate of one
        gradients[dtype] = np.concatenate(jax.tree.leaves(difference))
    full, half = gradients["float32"], gradients["bfloat16"]
    assert np.isfinite(half).all() and np.abs(half).max() > 0
    assert full @ half / np.linalg.norm(full) / np.linalg.norm(half) > 0.95
    assert 0 < np.linalg.norm(full - half)
    np.testing.assert_allclose(losses["bfloat16"], losses["float32"], rtol=0.03)
