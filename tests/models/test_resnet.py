import jax
import jax.numpy as jnp
import pytest

from physml_jax.models import resnet


def num_params(model, shape):
    variables = jax.eval_shape(lambda: model.init(jax.random.key(0), jnp.zeros(shape), train=False))
    return sum(x.size for x in jax.tree.leaves(variables["params"]))


def test_published_number_of_parameters():
    """ResNet-18 for 1000 classes and three colours has 11,689,512 parameters (torchvision's table of models)."""
    assert num_params(resnet.make_model(depth=18, num_classes=1000), (1, 64, 64, 3)) == 11_689_512


@pytest.mark.parametrize("small_stem", [False, True])
def test_shapes_and_types(small_stem, key):
    model = resnet.make_model(depth=10, num_classes=5, width=4, small_stem=small_stem, dtype="bfloat16")
    x = jax.random.normal(key, (2, 16, 16, 1), jnp.float32)
    variables = jax.jit(lambda: model.init(key, x, train=True))()
    assert {v.dtype for v in jax.tree.leaves(variables)} == {jnp.dtype("float32")}
    out, updates = jax.jit(lambda v: model.apply(v, x, train=True, mutable=["batch_stats"]))(variables)
    assert out.shape == (2, 5) and out.dtype == jnp.float32
    assert "batch_stats" in updates


def test_unknown_depth():
    with pytest.raises(ValueError, match="depth"):
        resnet.make_model(depth=17)
