"""The transformer over spots: order, padding and rotations that must not matter, and what must."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from physml_jax.models import spot_set

OPTIONS = {"num_classes": 3, "dim": 8, "depth": 2, "num_heads": 2, "num_radial": 8, "num_harmonics": 2}
RNG = np.random.default_rng(0)


def spots(batch=2, number=6):
    g = RNG.uniform(-1, 1, (batch, number, 2))
    return np.concatenate([g, RNG.uniform(0.01, 1, (batch, number, 1))], -1).astype(np.float32)


X = spots()


def drawn(model, shape=X.shape):
    shapes = jax.eval_shape(lambda: model.init(jax.random.key(0), jnp.zeros(shape), train=False))
    rng = np.random.default_rng(1)
    return jax.tree.map(lambda p: jnp.asarray(0.4 * rng.normal(size=p.shape), p.dtype), shapes)


def answers(**options):
    model = spot_set.make_model(**OPTIONS | options)
    variables = drawn(model)
    return jax.jit(lambda x: model.apply(variables, x, train=False))


@pytest.fixture(scope="module")
def invariant():
    return answers()


def turned(x, degrees):
    c, s = np.cos(np.radians(degrees)), np.sin(np.radians(degrees))
    return np.concatenate([x[..., :2] @ np.array([[c, s], [-s, c]]), x[..., 2:]], -1).astype(np.float32)


@pytest.mark.parametrize("degrees", [15, 90, 137.5])
def test_rotations_do_not_change_the_answer(invariant, degrees):
    np.testing.assert_allclose(invariant(turned(X, degrees)), invariant(X), rtol=1e-4, atol=1e-5)


def test_everything_else_does(invariant):
    """Another scale, a mirror image, one spot moved along its circle, one intensity; and rotations where asked for."""
    mirrored, moved, stronger = X * np.float32([1, -1, 1]), X.copy(), X.copy()
    moved[:, 0] = turned(X[:, :1], 20)[:, 0]
    stronger[:, 0, 2] *= 3
    for other in (X * np.float32([1.05, 1.05, 1]), mirrored, moved, stronger):
        assert np.abs(invariant(other) - invariant(X)).max(1).min() > 1e-4
    sees = answers(invariant=False)
    assert np.abs(sees(turned(X, 15)) - sees(X)).max(1).min() > 1e-4


def test_neither_order_nor_padding_matter(invariant):
    np.testing.assert_allclose(invariant(X[:, [3, 1, 0, 5, 4, 2]]), invariant(X), rtol=1e-4, atol=1e-5)
    padding = np.concatenate([spots(2, 4)[..., :2], np.float32([[[0], [-1], [0], [0]]] * 2)], -1)
    np.testing.assert_allclose(invariant(np.concatenate([X, padding], 1)), invariant(X), rtol=1e-4, atol=1e-5)


def test_gradients_are_finite_for_empty_and_degenerate_lists():
    """No spots, the direct beam at the origin, two spots in one place."""
    model = spot_set.make_model(**OPTIONS)
    variables, x = drawn(model), X.copy()
    x[0, :, 2] = 0
    x[1, 0, :2] = 0
    x[1, 1] = x[1, 2]
    loss = lambda v, x: jnp.sum(model.apply(v, x, train=False) ** 2)
    for tree in jax.jit(jax.grad(loss, argnums=(0, 1)))(variables, jnp.asarray(x)):
        assert all(bool(jnp.isfinite(g).all()) for g in jax.tree.leaves(tree))


def test_pair_features_against_complex_numbers():
    g = X[0, :, :2]
    found = spot_set.pair_features(jnp.asarray(g), max_g=1.5, num_radial=4, num_harmonics=3)
    z = g[:, 0] + 1j * g[:, 1]
    angle = np.angle(z[None, :] / z[:, None])  # from the first to the second
    for m in (1, 2, 3):
        expected = np.stack([np.cos(m * angle), np.sin(m * angle)], -1)
        np.testing.assert_allclose(found[..., 2 + 2 * m : 4 + 2 * m], expected, atol=1e-5)
    expected = np.exp(-0.5 * np.abs(z[None, :] - z[:, None]) ** 2)  # the first Gaussian: centre 0, width 1
    np.testing.assert_allclose(found[..., 0], expected, atol=1e-5)


def test_half_precision_keeps_parameters_and_outputs():
    model = spot_set.make_model(**OPTIONS, dropout=0.1, dtype="bfloat16")
    shapes = jax.eval_shape(lambda: model.init(jax.random.key(0), jnp.asarray(X), train=False))
    assert {leaf.dtype for leaf in jax.tree.leaves(shapes)} == {jnp.dtype("float32")}
    rngs = {"dropout": jax.random.key(0)}
    out = jax.eval_shape(lambda v: model.apply(v, jnp.asarray(X), train=True, rngs=rngs), shapes)
    assert out.shape == (2, 3) and out.dtype == jnp.float32


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"dim": 9}, "dim: expected a multiple of num_heads = 2"),
        ({"max_g": 0.0}, "max_g: expected a positive number"),
        ({"depth": 0}, "depth: expected an integer of at least 1"),
        ({"dropout": 1.0}, "dropout: expected"),
    ],
)
def test_bad_options_are_named(options, message):
    with pytest.raises(ValueError, match=message):
        spot_set.make_model(**OPTIONS | options)


def test_other_inputs_are_refused():
    with pytest.raises(ValueError, match=r"inputs: expected spots \[B, N, 3\].*got \[2, 6, 4\]"):
        drawn(spot_set.make_model(**OPTIONS), (2, 6, 4))
