"""EfficientNet: published sizes, its depthwise convolution against lax, its blocks."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

from physml_jax.models import efficientnet
from physml_jax.models.depthwise import depthwise_conv


def shapes_of(model, shape):
    return jax.eval_shape(lambda: model.init(jax.random.key(0), jnp.zeros(shape), train=False))


def number_of(tree):
    return sum(p.size for p in jax.tree.leaves(tree))


@pytest.mark.parametrize(("channels", "number"), [(1, 10_709_345), (3, 10_710_065)])
def test_number_of_parameters_of_b3(channels, number):
    assert number_of(shapes_of(efficientnet.make_model(num_classes=9), (1, 64, 64, channels))["params"]) == number


@pytest.mark.parametrize(("name", "number"), [("b0", 5_288_548), ("b3", 12_233_232)])
def test_published_number_of_parameters(name, number):
    """For 1000 classes and three colours, torchvision's table of models (weights ``IMAGENET1K_V1``)."""
    width, depth, dropout = efficientnet.PUBLISHED[name]
    model = efficientnet.make_model(width=width, depth=depth, dropout=dropout, num_classes=1000)
    assert number_of(shapes_of(model, (1, 64, 64, 3))["params"]) == number


def test_stages_of_b3():
    published = [(1, 3, 1, 24, 2), (6, 3, 2, 32, 3), (6, 5, 2, 48, 3), (6, 3, 2, 96, 5)]
    published += [(6, 5, 1, 136, 5), (6, 5, 2, 232, 6), (6, 3, 1, 384, 2)]
    assert efficientnet.stages(1.2, 1.4) == tuple(published)
    params = shapes_of(efficientnet.make_model(num_classes=9), (1, 64, 64, 1))["params"]
    assert params["stem"]["kernel"].shape[-1] == 40 and params["last"]["kernel"].shape[-1] == 1536
    assert params["stage1_block1"]["squeeze"]["kernel"].shape == (40, 10)
    assert params["stage5_block2"]["squeeze"]["kernel"].shape == (136 * 6, 34)


def reference(x, kernel, stride):
    p = kernel.shape[0] // 2
    return lax.conv_general_dilated(
        x,
        kernel,
        (stride, stride),
        ((p, p), (p, p)),
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
        feature_group_count=x.shape[3],
    )


@pytest.mark.parametrize(("k", "stride", "size"), [(3, 1, (6, 5)), (3, 2, (6, 5)), (5, 2, (7, 8)), (5, 1, (2, 1))])
def test_depthwise_convolution_and_its_gradients(k, stride, size):
    rng = np.random.default_rng(0)
    x, kernel = (jnp.asarray(rng.normal(size=s), jnp.float32) for s in ((2, *size, 3), (k, k, 1, 3)))
    expected, vjp = jax.vjp(lambda x, w: reference(x, w, stride), x, kernel)
    g = jnp.asarray(rng.normal(size=expected.shape), jnp.float32)

    @jax.jit
    def found(x, kernel):
        out, back = jax.vjp(lambda x, w: depthwise_conv(x, w, stride=stride), x, kernel)
        return out, *back(g)

    for ours, theirs in zip(found(x, kernel), (expected, *vjp(g)), strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-4, atol=1e-5)


def test_depthwise_convolution_of_several_networks():
    """Mapped over kernels and pictures, as an ensemble of seeds does it."""
    rng = np.random.default_rng(0)
    x, kernels = (jnp.asarray(rng.normal(size=s), jnp.float32) for s in ((2, 2, 6, 5, 3), (2, 3, 3, 1, 3)))
    loss = lambda w, x: jnp.sum(jnp.sin(depthwise_conv(x, w, stride=2)))
    mapped = jax.jit(jax.vmap(jax.grad(loss)))(kernels, x)
    for i in range(2):
        expected = jax.grad(lambda w, i=i: jnp.sum(jnp.sin(reference(x[i], w, 2))))(kernels[i])
        np.testing.assert_allclose(mapped[i], expected, rtol=1e-4, atol=1e-5)


def test_kernels_that_do_not_fit_are_refused():
    for shape in ((2, 2, 1, 3), (3, 3, 1, 4), (3, 3, 3, 3)):
        with pytest.raises(ValueError, match=r"kernel: expected \[.*, 1, 3\] with odd k, got"):
            depthwise_conv(jnp.zeros((1, 8, 8, 3)), jnp.zeros(shape))


def drawn(shapes):
    rng = np.random.default_rng(1)
    positive = lambda path: path[-1].key in ("scale", "var")
    return jax.tree_util.tree_map_with_path(
        lambda path, p: jnp.asarray(1.0 * positive(path) + 0.2 * rng.normal(size=p.shape) ** 2, p.dtype), shapes
    )


BLOCK = efficientnet.MBConv(features=4, expand=2, kernel_size=3, stride=1, drop_path=0.5, dtype="float32")


def test_squeeze_and_excitation_weighs_channels():
    """With an excitation of one half everywhere the block answers as with half of its kernels behind it."""
    x = jnp.asarray(np.random.default_rng(0).normal(size=(2, 8, 8, 4)), jnp.float32)
    variables = drawn(jax.eval_shape(lambda: BLOCK.init(jax.random.key(0), x, train=False)))
    zeros = jax.tree.map(jnp.zeros_like, variables["params"]["excite"])
    on = jax.tree.map(lambda p: p, zeros) | {"bias": jnp.full(8, 50.0)}
    apply = jax.jit(lambda v: BLOCK.apply(v, x, train=False))
    half = apply({**variables, "params": {**variables["params"], "excite": zeros}})
    project = {"kernel": 0.5 * variables["params"]["project"]["kernel"]}
    whole = apply({**variables, "params": {**variables["params"], "excite": on, "project": project}})
    np.testing.assert_allclose(half, whole, rtol=1e-4, atol=1e-5)


def test_pictures_take_the_shortcut_as_a_whole():
    x = jnp.asarray(np.random.default_rng(0).normal(size=(16, 8, 8, 4)), jnp.float32)
    variables = drawn(jax.eval_shape(lambda: BLOCK.init(jax.random.key(0), x, train=False)))
    out, _ = jax.jit(
        lambda v: BLOCK.apply(v, x, train=True, mutable=["batch_stats"], rngs={"dropout": jax.random.key(0)})
    )(variables)
    same = np.asarray((out == x).all((1, 2, 3)))
    assert 2 <= same.sum() <= 14  # 16 coins; anything else has a probability of 5e-4
    assert not np.any(np.asarray((out == x).any((1, 2, 3)))[~same])
