"""EfficientNet: a small one trains; types; what it refuses."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from physml_jax.models import efficientnet


def shapes_of(model, shape):
    return jax.eval_shape(lambda: model.init(jax.random.key(0), jnp.zeros(shape), train=False))


def drawn(shapes):
    rng = np.random.default_rng(1)
    positive = lambda path: path[-1].key in ("scale", "var")
    return jax.tree_util.tree_map_with_path(
        lambda path, p: jnp.asarray(1.0 * positive(path) + 0.2 * rng.normal(size=p.shape) ** 2, p.dtype), shapes
    )


@pytest.mark.slow
def test_a_small_one_trains_every_parameter():
    """The step of a classification; sizes whose last map is a single position."""
    model = efficientnet.make_model(width=0.25, depth=0.3, num_classes=3, drop_path=0.0, dropout=0.0)
    x = jnp.asarray(np.random.default_rng(0).normal(size=(4, 33, 40, 1)), jnp.float32)
    variables = drawn(shapes_of(model, x.shape))

    @jax.jit
    def gradient(params):
        def loss(params):
            out, _ = model.apply({**variables, "params": params}, x, train=True, mutable=["batch_stats"])
            return jnp.sum(out**2)

        return jax.grad(loss)(params)

    for path, g in jax.tree_util.tree_leaves_with_path(gradient(variables["params"])):
        assert bool(jnp.isfinite(g).all()) and np.any(g), jax.tree_util.keystr(path)


def test_half_precision_keeps_parameters_and_outputs():
    model = efficientnet.make_model(width=0.25, depth=0.3, num_classes=3, dtype="bfloat16")
    shapes = shapes_of(model, (1, 33, 40, 1))
    assert {leaf.dtype for leaf in jax.tree.leaves(shapes)} == {jnp.dtype("float32")}
    out = jax.eval_shape(lambda v: model.apply(v, jnp.zeros((2, 20, 20, 1)), train=False), shapes)
    assert out.shape == (2, 3) and out.dtype == jnp.float32


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"width": 0.0}, "width: expected a positive number"),
        ({"depth": float("nan")}, "depth: expected a positive number"),
        ({"num_classes": 0}, "num_classes"),
        ({"drop_path": 1.0}, "drop_path: expected"),
    ],
)
def test_bad_options_are_named(options, message):
    with pytest.raises(ValueError, match=message):
        efficientnet.make_model(**options)
