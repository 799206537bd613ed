"""The image models: shapes, published parameter counts, gradients, precision and sizes that do not fit."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from physml_jax.models import patch_discriminator, pix2pixhd, unet

SMALL = {
    "pix2pixhd": lambda **kw: pix2pixhd.make_model(base_features=8, num_downsamples=1, num_blocks=1, **kw),
    "unet": lambda **kw: unet.make_model(base_features=8, max_features=8, depth=1, num_blocks=1, spectrum=2, **kw),
}


def image(*shape):
    return jnp.asarray(np.random.default_rng(0).normal(size=shape), jnp.float32)


def shapes_of(model, shape):
    return jax.eval_shape(lambda: model.init(jax.random.key(0), jnp.zeros(shape), train=False))


def drawn(model, shape):
    """Parameters of the right shapes without compiling the initialisation."""
    rng = np.random.default_rng(1)
    return jax.tree.map(lambda p: jnp.asarray(0.1 * rng.normal(size=p.shape), p.dtype), shapes_of(model, shape))


def count(tree):
    return sum(int(np.prod(leaf.shape)) for leaf in jax.tree.leaves(tree))


def test_published_generator_has_182_million_parameters():
    """By hand, without the biases that a normalisation would remove; the published count is 182.5 million."""
    variables = shapes_of(pix2pixhd.make_model(), (1, 128, 128, 1))
    scaling = 9 * 2 * (64 * 128 + 128 * 256 + 256 * 512 + 512 * 1024)
    assert count(variables) == 49 * 64 + scaling + 18 * 9 * 1024**2 + (49 * 64 + 1) == 182_409_345
    assert abs(count(variables) / 182.5e6 - 1) < 1e-3


def test_published_discriminator_has_2_8_million_parameters_per_scale():
    by_hand = 16 * (2 * 64 + 64 * 128 + 128 * 256 + 256 * 512 + 512) + 64 + 1
    for scales in (1, 2):
        variables = shapes_of(patch_discriminator.make_model(num_scales=scales), (1, 128, 128, 2))
        assert count(variables) == scales * by_hand
    assert abs(by_hand / 2.8e6 - 1) < 0.02


@pytest.mark.parametrize(("num_layers", "patch"), [(1, 16), (2, 34), (3, 70)])
def test_patch_size_is_the_published_one(num_layers, patch):
    """Receptive field of the logits by hand: r -> r s + (4 - s), backwards from one pixel."""
    field = 1
    for stride in [1, 1, *[2] * num_layers]:
        field = field * stride + 4 - stride
    assert field == patch
    outputs = jax.eval_shape(
        lambda: patch_discriminator.make_model(base_features=8, num_layers=num_layers, num_scales=1).init_with_output(
            jax.random.key(0), jnp.zeros((1, 64, 64, 2)), train=False
        )[0]
    )
    strides = [64 // (f.shape[1] - 1) for f in outputs[0]]
    assert [s >= 2**i for i, s in enumerate(strides[:num_layers], start=1)] == [True] * num_layers
    assert len(outputs[0]) == num_layers + 2 and outputs[0][-1].shape[-1] == 1


def test_discriminator_outputs_one_list_per_scale_with_the_logits_last():
    model = patch_discriminator.make_model(base_features=4, num_layers=2, num_scales=2)
    variables = drawn(model, (2, 16, 16, 3))
    outputs = jax.eval_shape(lambda v: model.apply(v, jnp.zeros((2, 16, 16, 3)), train=True), variables)
    assert [[y.shape for y in scale] for scale in outputs] == [
        [(2, 9, 9, 4), (2, 5, 5, 8), (2, 6, 6, 16), (2, 7, 7, 1)],
        [(2, 5, 5, 4), (2, 3, 3, 8), (2, 4, 4, 16), (2, 5, 5, 1)],
    ]


@pytest.mark.parametrize("model", [patch_discriminator.make_model(base_features=8), SMALL["pix2pixhd"]()])
def test_adversarial_networks_start_from_the_published_distribution(model):
    variables = jax.jit(lambda key: model.init(key, jnp.zeros((1, 32, 32, 1)), train=False))(jax.random.key(0))
    kernels = [leaf for leaf in jax.tree.leaves(variables) if leaf.ndim == 4 and leaf.size > 1000]
    assert kernels and all(0.018 < float(k.std()) < 0.022 for k in kernels)


@pytest.mark.parametrize("name", sorted(SMALL))
def test_generators_keep_the_size_and_differentiate(name):
    x = image(2, 8, 12, 3)
    model = SMALL[name](out_channels=2)
    variables = drawn(model, x.shape)
    assert set(variables) == {"params"}  # no batch statistics

    @jax.jit
    def value_and_gradient(variables):
        def loss(v):
            y = model.apply(v, x, train=True)
            return jnp.sum(y[:, ::3] ** 2), y

        (_, y), grads = jax.value_and_grad(loss, has_aux=True)(variables)
        return y, grads

    y, grads = value_and_gradient(variables)
    assert y.shape == (2, 8, 12, 2) and y.dtype == jnp.float32
    for path, g in jax.tree_util.tree_leaves_with_path(grads):
        assert bool(jnp.isfinite(g).all()) and float(jnp.abs(g).max()) > 0, jax.tree_util.keystr(path)


@pytest.mark.parametrize("name", sorted(SMALL))
def test_bfloat16_computes_in_half_precision_with_float32_parameters(name):
    x = image(1, 8, 8, 1)
    variables = drawn(SMALL[name](), x.shape)
    full = jax.jit(lambda v: SMALL[name]().apply(v, x, train=False))(variables)
    half = jax.jit(lambda v: SMALL[name](dtype="bfloat16").apply(v, x, train=False))(variables)
    assert half.dtype == jnp.float32
    scale = float(jnp.abs(full).max())
    assert 0 < float(jnp.abs(half - full).max()) < 0.1 * scale
    other = shapes_of(SMALL[name](dtype="bfloat16"), x.shape)
    assert {leaf.dtype for leaf in jax.tree.leaves(other)} == {jnp.dtype("float32")}


@pytest.mark.parametrize(("activation", "low", "high"), [("sigmoid", 0.0, 1.0), ("tanh", -1.0, 1.0)])
def test_output_activation_bounds_the_output(activation, low, high):
    model = SMALL["pix2pixhd"](out_activation=activation)
    variables = jax.tree.map(lambda p: 10 * p, drawn(model, (1, 8, 8, 1)))
    y = jax.jit(lambda v: model.apply(v, image(1, 8, 8, 1), train=False))(variables)
    assert low <= float(y.min()) < low + 0.1 and high - 0.1 < float(y.max()) <= high


def test_unet_goes_down_to_one_pixel():
    model = unet.make_model(base_features=8, max_features=8, depth=1, num_blocks=1)
    x = image(1, 4, 4, 1)  # two by two squares, then one pixel
    variables = drawn(model, x.shape)
    corner = jax.jit(jax.grad(lambda x: model.apply(variables, x, train=False)[0, 0, 0, 0]))(x)
    assert bool(jnp.isfinite(corner).all()) and float(jnp.abs(corner[0, -1, -1, 0])) > 0


def test_spectrum_of_a_single_wave():
    """2 + 6 cos(2 pi (2 x + y)) has order (0, 0) of size 2 and orders +-(1, 2) of size 3, and nothing else."""
    y, x = np.meshgrid((np.arange(20) + 0.5) / 20, (np.arange(20) + 0.5) / 20, indexing="ij")
    wave = jnp.asarray(2 + 6 * np.cos(2 * np.pi * (2 * x + y)), jnp.float32)[None, :, :, None]
    spectrum = unet.log_spectrum(wave, 2)
    assert spectrum.shape == (1, 20, 20, 1)
    orders = np.full((5, 5), np.log(0.01) + 2)  # rows: order along y from -2 to 2, columns: along x
    orders[2, 2], orders[3, 4], orders[1, 0] = np.log(2.01) + 2, np.log(3.01) + 2, np.log(3.01) + 2
    np.testing.assert_allclose(spectrum[0, :, :, 0], np.kron(orders, np.ones((4, 4))), atol=1e-3)


def test_spectrum_follows_mirrors_and_turns_and_ignores_shifts():
    x = image(1, 12, 12, 1)
    spectrum = unet.log_spectrum(x, 3)
    np.testing.assert_allclose(unet.log_spectrum(jnp.roll(x, (3, 5), (1, 2)), 3), spectrum, atol=1e-4)
    np.testing.assert_allclose(unet.log_spectrum(x[:, ::-1], 3), spectrum[:, ::-1], atol=1e-4)
    turned = unet.log_spectrum(jnp.rot90(x, axes=(1, 2)), 3)
    np.testing.assert_allclose(turned, jnp.rot90(spectrum, axes=(1, 2)), atol=1e-4)


def test_unet_of_default_size_is_small():
    assert 1e6 < count(shapes_of(unet.make_model(), (1, 64, 64, 2))) < 2.5e6


@pytest.mark.parametrize(
    ("model", "visible"),
    [(SMALL["pix2pixhd"](), False), (SMALL["pix2pixhd"](stem_norm=False), True), (SMALL["unet"](), True)],
    ids=["published", "stem without normalisation", "unet"],
)
def test_conditions_given_as_planes_reach_the_output(model, visible):
    """Instance normalisation removes constants: the published generator cannot see such a condition."""
    x = image(1, 8, 8, 1)
    variables = drawn(model, (1, 8, 8, 2))
    apply = jax.jit(lambda v, c: model.apply(v, jnp.concatenate([x, jnp.full_like(x, c)], axis=-1), train=False))
    difference = float(jnp.abs(apply(variables, 1.0) - apply(variables, -1.0)).max())
    assert difference > 1e-2 if visible else difference < 1e-3


@pytest.mark.parametrize(
    ("model", "shape", "message"),
    [
        (pix2pixhd.make_model(base_features=4), (1, 40, 32, 1), "num_downsamples = 4"),
        (pix2pixhd.make_model(base_features=4), (1, 16, 16, 1), "leave a single pixel"),
        (unet.make_model(depth=3, patch=2), (1, 16, 24, 1), "patch = 2, depth = 3"),
    ],
)
def test_sizes_that_do_not_fit_are_named(model, shape, message):
    with pytest.raises(ValueError, match=message):
        shapes_of(model, shape)


@pytest.mark.parametrize("make_model", [pix2pixhd.make_model, unet.make_model])
def test_unknown_activation_fails_at_once(make_model):
    with pytest.raises(ValueError, match="out_activation"):
        make_model(out_activation="relu6")
