import jax
import jax.numpy as jnp
import numpy as np
import pytest

from physml_jax.analysis import zncc as z


def images(seed, shape=(3, 8, 8, 1)):
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


def test_hand_computed():
    # a = (0, 1, 2), b = (0, 2, 1): centred (-1, 0, 1) and (-1, 1, 0), product 1, norms sqrt(2) each -> ZNCC 1/2, R 3/4
    a = np.array([0.0, 1.0, 2.0]).reshape(1, 3, 1)
    b = np.array([0.0, 2.0, 1.0]).reshape(1, 3, 1)
    assert float(z.zncc(a, b)) == pytest.approx(0.5, abs=1e-7)
    assert float(z.r_index(a, b)) == pytest.approx(0.75, abs=1e-7)


def test_against_corrcoef():
    a, b = images(0), images(1)
    expected = [
        np.corrcoef(x.ravel().astype(np.float64), y.ravel().astype(np.float64))[0, 1] for x, y in zip(a, b, strict=True)
    ]
    np.testing.assert_allclose(z.zncc(a, b), expected, atol=2e-7)
    np.testing.assert_allclose(jax.jit(z.zncc)(a, b), expected, atol=2e-7)


def test_perfect_opposite_and_affine():
    a, b = images(0), images(1)
    np.testing.assert_allclose(z.r_index(a, a), 1, atol=1e-6)
    np.testing.assert_allclose(z.r_index(a, -a), 0, atol=1e-6)
    np.testing.assert_allclose(z.r_index(3 * a + 7, 0.01 * b - 2), z.r_index(a, b), atol=1e-5)
    assert np.all(np.asarray(z.r_index(a, a)) <= 1) and np.all(np.asarray(z.r_index(a, -a)) >= 0)


@pytest.mark.parametrize("value", [0.0, 0.1, 1 / 3, 1e-30, 12345.678])
def test_constant_is_exactly_half_with_zero_gradient(value):
    a = np.full((2, 16, 16, 1), value, np.float32)
    b = images(1, a.shape)
    for x, y in ((a, b), (b, a), (a, a)):
        np.testing.assert_array_equal(z.r_index(x, y), np.full(2, 0.5, np.float32))
        gradients = jax.grad(lambda x, y: z.r_index(x, y).sum(), argnums=(0, 1))(jnp.asarray(x), jnp.asarray(y))
        assert all(np.all(np.asarray(g) == 0) for g in gradients)


def test_gradient_against_differences():
    a, b = (images(s, (1, 4, 4, 1)).astype(np.float64)[0] for s in (0, 1))

    def reference(x):
        return np.corrcoef(x.ravel(), b.ravel())[0, 1]

    found = np.asarray(jax.grad(z.zncc)(jnp.asarray(a, jnp.float32), jnp.asarray(b, jnp.float32)))
    for index in np.ndindex(a.shape):
        step = np.zeros_like(a)
        step[index] = 1e-5
        assert found[index] == pytest.approx((reference(a + step) - reference(a - step)) / 2e-5, abs=2e-6)


@pytest.mark.parametrize("scale", [1e-25, 1e-12, 1e12, 1e25])
def test_float32_range(scale):
    a, b = images(0), images(1)
    np.testing.assert_allclose(z.zncc(np.float32(scale) * a, b), z.zncc(a, b), atol=1e-6)


def test_small_contrast_on_a_large_background():
    # contrast 1/256 on 4096: representable exactly, lost by the one-pass formula in float32
    shape = np.random.default_rng(0).integers(-4, 5, size=(1, 32, 32, 1)).astype(np.float32)
    other = np.random.default_rng(1).integers(-4, 5, size=(1, 32, 32, 1)).astype(np.float32)
    np.testing.assert_allclose(z.zncc(4096 + shape / 256, other), z.zncc(shape, other), atol=1e-6)


def test_axes_and_integer_input():
    a, b = images(0, (2, 4, 4, 3)), images(1, (2, 4, 4, 3))
    per_channel = z.r_index(a, b, axes=(-3, -2))
    assert per_channel.shape == (2, 3)
    np.testing.assert_allclose(per_channel[0, 1], z.r_index(a[0, :, :, 1:2], b[0, :, :, 1:2]), atol=1e-6)
    spins = np.sign(a).astype(np.int8)
    np.testing.assert_allclose(z.zncc(spins, b), z.zncc(spins.astype(np.float32), b), atol=1e-7)
    assert z.zncc(jnp.asarray(a, jnp.bfloat16), jnp.asarray(b, jnp.bfloat16)).dtype == jnp.float32


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_not_finite_is_not_hidden(bad):
    a = np.zeros((1, 4, 4, 1), np.float32)
    a[0, 1, 1, 0] = bad
    assert np.isnan(z.r_index(a, images(0, a.shape)))[0]


@pytest.mark.parametrize(
    ("shape_a", "shape_b", "axes", "match"),
    [
        ((2, 4, 4, 1), (1, 4, 4, 1), (-3, -2, -1), "b: expected the shape of a"),
        ((4, 4), (4, 4), (-3, -2, -1), "axes: expected distinct"),
        ((4, 4), (4, 4), (), "axes"),
        ((4, 4), (4, 4), (0, -2), "axes"),
    ],
)
def test_bad_input(shape_a, shape_b, axes, match):
    with pytest.raises(ValueError, match=match):
        z.zncc(np.zeros(shape_a, np.float32), np.zeros(shape_b, np.float32), axes=axes)


def test_complex_is_refused():
    with pytest.raises(ValueError, match="expected real"):
        z.zncc(np.zeros((1, 2, 2), np.complex64), np.zeros((1, 2, 2), np.complex64))
