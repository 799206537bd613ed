import jax
import jax.numpy as jnp
import numpy as np
import pytest

from physml_jax.models import resnet


def variables_of(model, shape):
    return jax.eval_shape(lambda: model.init(jax.random.key(0), jnp.zeros(shape), train=False))


def drawn(model, shape):
    """Variables of the right shapes without compiling the initialisation; variances stay positive."""
    rng = np.random.default_rng(1)
    variables = variables_of(model, shape)
    params = jax.tree.map(lambda p: jnp.asarray(0.1 * rng.normal(size=p.shape), p.dtype), variables["params"])
    return {"params": params, "batch_stats": jax.tree.map(lambda p: jnp.ones(p.shape), variables["batch_stats"])}


@pytest.mark.parametrize(("depth", "number"), [(18, 11_689_512), (34, 21_797_672), (50, 25_557_032)])
def test_published_number_of_parameters(depth, number):
    """For 1000 classes and three colours, torchvision's table of models (weights ``IMAGENET1K_V1``)."""
    params = variables_of(resnet.make_model(depth=depth, num_classes=1000), (1, 64, 64, 3))["params"]
    assert sum(x.size for x in jax.tree.leaves(params)) == number


@pytest.mark.parametrize(("depth", "small_stem"), [(10, False), (10, True), (50, True)])
def test_shapes_and_types(depth, small_stem, key):
    model = resnet.make_model(depth=depth, num_classes=5, width=4, small_stem=small_stem, dtype="bfloat16")
    variables = drawn(model, (2, 16, 16, 1))
    assert {v.dtype for v in jax.tree.leaves(variables)} == {jnp.dtype("float32")}
    x = jax.random.normal(key, (2, 16, 16, 1), jnp.float32)
    out, updates = jax.eval_shape(lambda v: model.apply(v, x, train=True, mutable=["batch_stats"]), variables)
    assert out.shape == (2, 5) and out.dtype == jnp.float32
    assert "batch_stats" in updates


@pytest.mark.parametrize(("depth", "per_block"), [(10, 2), pytest.param(50, 3, marks=pytest.mark.slow)])
def test_a_block_starts_at_its_shortcut(depth, per_block, key):
    """The last scale of every block is zero at the start, all other scales are one."""
    model = resnet.make_model(depth=depth, width=2, small_stem=True)
    params = jax.jit(lambda: model.init(key, jnp.zeros((1, 8, 8, 1)), train=False))()["params"]
    blocks = {name: block for name, block in params.items() if "Block" in name}
    assert blocks
    for block in blocks.values():
        scales = {name: np.unique(norm["scale"]).tolist() for name, norm in block.items() if "scale" in norm}
        last = f"norm_{per_block - 1}" if f"norm_{per_block - 1}" in scales else f"BatchNorm_{per_block - 1}"
        assert scales.pop(last) == [0.0] and all(values == [1.0] for values in scales.values())


@pytest.mark.parametrize(
    ("small_stem", "size"),
    [(False, (1, 1)), (False, (33, 40)), (False, (100, 100)), (True, (12, 17)), (True, (16, 16))],
)
def test_sites_have_the_size_of_the_picture(small_stem, size):
    model = resnet.make_model(depth=10, width=4, small_stem=small_stem, head="sites")
    shape = (2, *size, 1)
    out = jax.eval_shape(lambda v: model.apply(v, jnp.zeros(shape), train=False), variables_of(model, shape))
    assert out.shape == shape and out.dtype == jnp.float32
    # The parameters know nothing of the size.
    assert jax.tree.map(jnp.shape, variables_of(model, shape)) == jax.tree.map(
        jnp.shape, variables_of(model, (1, 64, 64, 1))
    )


def test_a_position_of_the_last_map_speaks_for_its_square():
    """With all but the last layer zero, the bias of the head tiles the picture."""
    model = resnet.make_model(depth=10, width=2, small_stem=True, head="sites")
    variables = jax.tree.map(jnp.zeros_like, drawn(model, (1, 20, 12, 1)))
    bias = jnp.arange(64.0)
    variables["params"]["Dense_0"]["bias"] = bias
    out = jax.jit(lambda v: model.apply(v, jnp.ones((1, 20, 12, 1)), train=False))(variables)
    np.testing.assert_array_equal(out[0, :, :, 0], np.tile(np.asarray(bias).reshape(8, 8), (3, 2))[:20, :12])


@pytest.mark.parametrize(("argument", "value"), [("depth", 17), ("head", "pixels")])
def test_unknown_options_are_named(argument, value):
    with pytest.raises(ValueError, match=f"{argument}: expected one of"):
        resnet.make_model(**{argument: value})
