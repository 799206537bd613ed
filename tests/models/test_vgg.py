"""VGG: published sizes, pooling, what it refuses."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn

from physml_jax.models import pooling, vgg


def shapes_of(model, shape):
    return jax.eval_shape(lambda: model.init(jax.random.key(0), jnp.zeros(shape), train=False))


@pytest.mark.parametrize(
    ("head", "channels", "number"),
    [
        ("flatten", 1, 1_342_255_817),
        ("flatten", 3, 1_342_256_969),
        ("pooled", 1, 134_296_265),
        ("pooled", 3, 134_297_417),
    ],
)
def test_number_of_parameters_of_vgg16(head, channels, number):
    """Nine classes at 800 pixels, where the last map has 25 x 25 positions; nothing is allocated."""
    params = shapes_of(vgg.make_model(num_classes=9, head=head), (1, 800, 800, channels))["params"]
    assert sum(p.size for p in jax.tree.leaves(params)) == number


@pytest.mark.parametrize(
    ("depth", "number"), [(11, 132_863_336), (13, 133_047_848), (16, 138_357_544), (19, 143_667_240)]
)
def test_published_number_of_parameters(depth, number):
    """For 1000 classes and three colours, torchvision's table of models (weights ``IMAGENET1K_V1``)."""
    params = shapes_of(vgg.make_model(depth=depth, num_classes=1000), (1, 224, 224, 3))["params"]
    assert sum(p.size for p in jax.tree.leaves(params)) == number


@pytest.mark.parametrize("size", [(6, 8), (7, 9), (2, 3)])
def test_maxima_of_squares_are_those_of_reduce_window(size):
    x = jnp.asarray(np.random.default_rng(0).normal(size=(2, *size, 3)), jnp.float32)
    plain = lambda x: nn.max_pool(x, (2, 2), (2, 2))
    np.testing.assert_array_equal(pooling.max_pool_2x2(x), plain(x))
    g = jnp.asarray(np.random.default_rng(1).normal(size=plain(x).shape), jnp.float32)
    np.testing.assert_array_equal(jax.vjp(pooling.max_pool_2x2, x)[1](g)[0], jax.vjp(plain, x)[1](g)[0])


@pytest.mark.parametrize(("length", "size"), [(7, 7), (14, 7), (25, 7), (4, 7), (1, 3), (10, 3)])
def test_adaptive_means_cover_the_picture(length, size):
    x = np.random.default_rng(0).normal(size=(1, length, length, 2)).astype(np.float32)
    edges = [(int(np.floor(i * length / size)), int(np.ceil((i + 1) * length / size))) for i in range(size)]
    by_hand = [[x[0, a:b, c:d].mean((0, 1)) for c, d in edges] for a, b in edges]
    np.testing.assert_allclose(pooling.adaptive_mean_pool(jnp.asarray(x), size)[0], by_hand, atol=1e-6)


TINY = {"depth": 11, "num_classes": 3, "width": 2, "hidden": 8}


@pytest.mark.slow
def test_every_parameter_is_trained_and_dropout_acts_in_training_only():
    model = vgg.make_model(**TINY)
    x = jnp.asarray(np.random.default_rng(0).normal(size=(4, 32, 32, 1)), jnp.float32)
    rng = np.random.default_rng(1)
    variables = jax.tree.map(lambda p: jnp.asarray(0.5 * rng.normal(size=p.shape), p.dtype), shapes_of(model, x.shape))
    assert set(variables) == {"params"}

    @jax.jit
    def gradient(variables, key):
        return jax.grad(lambda v: jnp.sum(model.apply(v, x, train=True, rngs={"dropout": key}) ** 2))(variables)

    first, other = (gradient(variables, jax.random.key(i)) for i in range(2))
    assert all(bool(jnp.isfinite(g).all()) and np.any(g) for g in jax.tree.leaves(first))
    difference = first["params"]["head"]["kernel"] - other["params"]["head"]["kernel"]
    assert float(jnp.abs(difference).max()) > 0
    plain = jax.jit(lambda v: model.apply(v, x, train=False))(variables)
    assert plain.shape == (4, 3) and plain.dtype == jnp.float32


def test_half_precision_keeps_parameters_and_outputs():
    model = vgg.make_model(**TINY, dtype="bfloat16")
    shapes = shapes_of(model, (1, 40, 40, 1))
    assert {leaf.dtype for leaf in jax.tree.leaves(shapes)} == {jnp.dtype("float32")}
    out = jax.eval_shape(lambda v: model.apply(v, jnp.zeros((2, 100, 64, 1)), train=False), shapes)
    assert out.shape == (2, 3) and out.dtype == jnp.float32  # pooled: any size


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"depth": 12}, "depth: expected one of"),
        ({"head": "mean"}, "head: expected one of pooled, flatten"),
        ({"hidden": 0}, "at least 1"),
        ({"dropout": 1.0}, "dropout: expected"),
    ],
)
def test_bad_options_are_named(options, message):
    with pytest.raises(ValueError, match=message):
        vgg.make_model(**options)


def test_small_pictures_are_refused():
    with pytest.raises(ValueError, match=r"inputs: 5 halvings need a picture of at least 32 pixels, got \(31, 40\)"):
        shapes_of(vgg.make_model(**TINY), (1, 31, 40, 1))
