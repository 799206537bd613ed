"""The search space around 299-AN: its published size, its shapes, and an independent computation of one member."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.signal import correlate

from physml_jax.models import saed_cnn


def shapes_of(model, shape):
    return jax.eval_shape(lambda: model.init(jax.random.key(0), jnp.zeros(shape), train=False))


def number_of(params):
    return sum(p.size for p in jax.tree.leaves(params))


def test_the_published_network():
    """265,385 parameters at 800 pixels; the maps shrink to 10 x 10."""
    params = shapes_of(saed_cnn.make_model(), (1, 800, 800, 1))["params"]
    assert number_of(params) == 265_385
    assert params["dense1"]["kernel"].shape == (10 * 10 * 32, 64)
    assert [params[f"dense{i}"]["kernel"].shape for i in (2, 3, 4)] == [(64, 64)] * 3


def test_architectures_of_the_space_have_the_size_counted_by_hand():
    """One in 23 of the 576 that differ in their parameters, at 190 pixels, the smallest size that all of them read."""
    space = list(itertools.product(range(1, 7), range(1, 7), (8, 16, 32, 64), saed_cnn.DENSE, (0, 1)))
    assert len(space) == 576
    for convs, layers, first, dense, norm in space[5::23]:
        options = {"conv_layers": convs, "dense_layers": layers, "first_dense": first, "dense": dense}
        params = shapes_of(saed_cnn.make_model(**options, batch_norm=bool(norm)), (1, 190, 190, 1))["params"]
        size, expected = 190, 0
        for i in range(convs):
            size, expected = (size - 2) // 2, expected + 9 * (32 if i else 1) * 32 + 32 + 64 * norm
        inputs, units = size * size * 32, first
        for _ in range(layers - 1):
            expected += inputs * units + units + 2 * units * norm
            inputs, units = units, units if dense == "constant" else max(1, units // 2)
        assert number_of(params) == expected + inputs * 9 + 9, options


OPTIONS = {"num_classes": 3, "conv_layers": 2, "dense_layers": 2, "first_dense": 4, "features": 2}


def drawn(model, shape):
    rng = np.random.default_rng(1)
    positive = lambda path: path[-1].key in ("scale", "var")
    return jax.tree_util.tree_map_with_path(
        lambda path, p: jnp.asarray(1.0 * positive(path) + 0.3 * rng.random(p.shape), p.dtype), shapes_of(model, shape)
    )


def by_hand(variables, x, sigmoid):
    """One picture through two blocks and two dense layers, in the order of the published script."""
    p, s = jax.tree.map(lambda v: np.asarray(v, np.float64), (variables["params"], variables["batch_stats"]))

    def norm(x, name):
        return (x - s[name]["mean"]) / np.sqrt(s[name]["var"] + 1e-5) * p[name]["scale"] + p[name]["bias"]

    for name in ("conv1", "conv2"):
        kernel = p[name]["kernel"]
        maps = [
            sum(correlate(x[..., c], kernel[..., c, o], "valid") for c in range(x.shape[-1]))
            for o in range(kernel.shape[-1])
        ]
        x = np.maximum(np.stack(maps, -1) + p[name]["bias"], 0)
        h, w = x.shape[0] // 2, x.shape[1] // 2
        x = norm(x[: 2 * h, : 2 * w].reshape(h, 2, w, 2, -1).max((1, 3)), f"{name}_norm")
    x = norm(np.maximum(x.ravel() @ p["dense1"]["kernel"] + p["dense1"]["bias"], 0), "dense1_norm")
    x = x @ p["head"]["kernel"] + p["head"]["bias"]
    return 1 / (1 + np.exp(-x)) if sigmoid else x


@pytest.mark.parametrize("sigmoid", [True, False])
def test_blocks_come_in_the_published_order(sigmoid):
    """Convolution, ReLU, maximum, normalisation: another order would give other numbers."""
    model = saed_cnn.make_model(**OPTIONS, sigmoid=sigmoid)
    x = np.random.default_rng(0).normal(size=(2, 17, 20, 1)).astype(np.float32)
    variables = drawn(model, x.shape)
    found = jax.jit(lambda x: model.apply(variables, x, train=False))(x)
    np.testing.assert_allclose(found, [by_hand(variables, row, sigmoid) for row in x], rtol=1e-4, atol=1e-5)


def test_the_sigmoid_bounds_the_loss():
    """The best that nine numbers in (0, 1) can do under a softmax: one of them 1 and eight 0."""
    best = jax.nn.log_softmax(jnp.asarray([1.0] + [0.0] * 8))[0]
    np.testing.assert_allclose(-best, 1.372, atol=5e-4)


@pytest.mark.parametrize("options", [{"dropout_2d": 0.5}, {"dropout": 0.5}])
def test_dropout_acts_in_training_only(options):
    model = saed_cnn.make_model(**OPTIONS, **options, batch_norm=False)
    x = jnp.asarray(np.random.default_rng(0).normal(size=(3, 17, 20, 1)), jnp.float32)
    variables = drawn(model, x.shape)
    assert set(variables) == {"params"}
    train = jax.jit(lambda key: model.apply(variables, x, train=True, rngs={"dropout": key}))
    assert float(jnp.abs(train(jax.random.key(0)) - train(jax.random.key(1))).max()) > 0
    plain = saed_cnn.make_model(**OPTIONS, batch_norm=False).apply(variables, x, train=True)
    np.testing.assert_allclose(model.apply(variables, x, train=False), plain, rtol=1e-5)


def test_whole_channels_are_dropped():
    """With two-dimensional dropout a map is dropped as a whole, so equal positions stay equal."""
    model = saed_cnn.make_model(**OPTIONS | {"conv_layers": 1, "dense_layers": 1}, dropout_2d=0.5, batch_norm=False)
    x = jnp.ones((8, 8, 8, 1))  # 3 x 3 positions of 2 channels, all equal
    variables = drawn(model, x.shape)
    head = jnp.zeros((18, 3)).at[0, 0].set(1.0).at[2, 1].set(1.0).at[1, 2].set(1.0)  # channel 0 twice, channel 1
    variables["params"]["head"] = {"kernel": head, "bias": jnp.zeros(3)}
    out = jax.jit(lambda key: model.apply(variables, x, train=True, rngs={"dropout": key}))(jax.random.key(0))
    np.testing.assert_array_equal(out[:, 0], out[:, 1])
    assert np.any(np.asarray(out[:, 0] == 0.5) != np.asarray(out[:, 2] == 0.5))


def test_half_precision_keeps_parameters_and_outputs():
    model = saed_cnn.make_model(**OPTIONS, padding="same", dtype="bfloat16")
    shapes = shapes_of(model, (1, 16, 16, 1))
    assert {leaf.dtype for leaf in jax.tree.leaves(shapes)} == {jnp.dtype("float32")}
    out, updates = jax.eval_shape(
        lambda v: model.apply(v, jnp.zeros((2, 16, 16, 1)), train=True, mutable=["batch_stats"]), shapes
    )
    assert out.shape == (2, 3) and out.dtype == jnp.float32 and "batch_stats" in updates


def test_padding_lets_small_pictures_through_six_blocks():
    assert shapes_of(saed_cnn.make_model(padding="same"), (1, 64, 64, 1))["params"]["dense1"]["kernel"].shape == (
        32,
        64,
    )
    message = (
        r"inputs: a picture of \(189, 200\) is too small for conv_layers = 6 .*'valid'; layer 6 would see \(3, 4\)"
    )
    with pytest.raises(ValueError, match=message):
        shapes_of(saed_cnn.make_model(), (1, 189, 200, 1))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"dense": "decoder"}, "dense: expected one of constant, encoder"),
        ({"padding": "circular"}, "padding: expected one of valid, same"),
        ({"conv_layers": 0}, "conv_layers: expected an integer of at least 1"),
        ({"dense_layers": 0}, "dense_layers: expected an integer of at least 1"),
        ({"dropout_2d": 1.0}, "dropout_2d: expected a number from 0"),
    ],
)
def test_bad_options_are_named(options, message):
    with pytest.raises(ValueError, match=message):
        saed_cnn.make_model(**options)
