"""The shared layers against their definitions."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from physml_jax.models import layers


def image(*shape):
    return jnp.asarray(np.random.default_rng(0).normal(size=shape) * 3 + 1, jnp.float32)


def test_instance_norm_standardises_every_channel_and_erases_scale_and_offset():
    x = image(2, 6, 5, 3)
    y = layers.instance_norm(x)
    np.testing.assert_allclose(y.mean((1, 2)), 0, atol=1e-6)
    np.testing.assert_allclose(y.std((1, 2)), 1, atol=1e-4)
    np.testing.assert_allclose(layers.instance_norm(3 * x + 5), y, atol=1e-4)
    constant = layers.instance_norm(jnp.full((1, 4, 4, 1), 7.5))
    np.testing.assert_array_equal(constant, jnp.zeros((1, 4, 4, 1)))


def test_group_norm_is_flax_without_parameters():
    x = image(2, 4, 3, 16)
    ours = layers.GroupNorm(group_size=8).apply({}, x)
    reference = nn.GroupNorm(num_groups=2, epsilon=1e-5, use_bias=False, use_scale=False).apply({}, x)
    np.testing.assert_allclose(ours, reference, atol=2e-5)


def test_group_norm_refuses_channels_that_do_not_divide():
    with pytest.raises(ValueError, match="group_size"):
        layers.GroupNorm(group_size=8).init(jax.random.key(0), image(1, 2, 2, 12))


def test_reflection_padding_mirrors_at_the_border_pixel():
    padded = layers.reflect_pad(jnp.arange(9.0).reshape(1, 3, 3, 1), 2)[0, :, :, 0]
    np.testing.assert_array_equal(padded[2], [2, 1, 0, 1, 2, 1, 0])
    np.testing.assert_array_equal(padded[:, 2], [6, 3, 0, 3, 6, 3, 0])
    with pytest.raises(ValueError, match="reflection padding of 3"):
        layers.reflect_pad(image(1, 3, 8, 1), 3)


def test_halving_averages_over_what_exists():
    y = layers.halve(jnp.arange(16.0).reshape(1, 4, 4, 1))[0, :, :, 0]
    # By hand: the top left window holds 0, 1, 4, 5; the top right one 1, 2, 3, 5, 6, 7; and so on.
    np.testing.assert_allclose(y, [[2.5, 4.0], [8.5, 10.0]])


def test_doubling_copies_pixels():
    y = layers.double(jnp.arange(4.0).reshape(1, 2, 2, 1))[0, :, :, 0]
    np.testing.assert_array_equal(y, [[0, 0, 1, 1], [0, 0, 1, 1], [2, 2, 3, 3], [2, 2, 3, 3]])


def test_up_convolution_is_the_adjoint_of_the_strided_one():
    x = image(2, 4, 5, 6)
    layer = layers.UpConv(3)
    variables = layer.init(jax.random.key(0), x)
    assert variables["params"]["kernel"].shape == (3, 3, 3, 6)
    y = jax.jit(layer.apply)(variables, x)
    assert y.shape == (2, 8, 10, 3)
    z = image(2, 8, 10, 3)
    down = jax.lax.conv_general_dilated(
        z, variables["params"]["kernel"], (2, 2), ((1, 1), (1, 1)), dimension_numbers=("NHWC", "HWIO", "NHWC")
    )
    np.testing.assert_allclose(jnp.vdot(y, z), jnp.vdot(x, down), rtol=1e-4)


def test_convolution_pads_by_reflection_or_zeros():
    x = image(1, 5, 5, 2)
    zeros, mirrored = layers.Conv(3), layers.Conv(3, reflect=True)
    variables = zeros.init(jax.random.key(0), x)
    a, b = zeros.apply(variables, x), mirrored.apply(variables, x)
    np.testing.assert_allclose(a[:, 1:-1, 1:-1], b[:, 1:-1, 1:-1], rtol=1e-5, atol=1e-5)
    assert jnp.abs(a - b)[:, 0].max() > 0.1


def test_unknown_activation_is_named():
    with pytest.raises(ValueError, match="out_activation.*tanh.*softplus"):
        layers.activation("softplus")


def test_squares_of_pixels_become_channels_and_come_back():
    x = jnp.arange(16.0).reshape(1, 4, 4, 1)
    packed = layers.space_to_depth(x, 2)
    np.testing.assert_array_equal(packed[0, 0, 1], [2, 3, 6, 7])
    np.testing.assert_array_equal(layers.depth_to_space(packed, 2), x)
    y = image(2, 3, 2, 12)
    np.testing.assert_array_equal(layers.space_to_depth(layers.depth_to_space(y, 2), 2), y)
