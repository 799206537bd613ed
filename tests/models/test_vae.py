"""VAE: shapes, types, the torus, the pattern of period two, bounded variances, bad sizes."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn

from physml_jax.models import vae

SMALL = {"size": 12, "latent_dim": 3, "features": (4, 6), "strides": (2, 3)}


def drawn(model, size, scale=0.3):
    """Variables of the right shapes without compiling the initialisation."""
    rng = np.random.default_rng(1)
    shapes = jax.eval_shape(lambda: model.init(jax.random.key(0), jnp.zeros((1, size, size, 1)), train=False))
    return jax.tree.map(lambda p: jnp.asarray(scale * rng.normal(size=p.shape), p.dtype), shapes)


def states(rows, size, seed=0):
    spins = 2 * np.random.default_rng(seed).integers(0, 2, (rows, size, size, 1)) - 1
    return jnp.asarray(spins, jnp.int8)


@pytest.mark.parametrize(("size", "strides"), [(30, (2, 3)), (60, (2, 2, 3)), (120, (2, 2, 2, 3)), (10, (1, 2))])
def test_shapes_and_types(size, strides):
    features = (4, 6, 8, 10)[: len(strides)]
    model = vae.make_model(size=size, latent_dim=5, features=features, strides=strides, dtype="bfloat16")
    x = states(2, size)
    variables = jax.eval_shape(lambda: model.init(jax.random.key(0), x, train=False))
    assert set(variables) == {"params"}
    assert {v.dtype for v in jax.tree.leaves(variables)} == {jnp.dtype("float32")}
    assert variables["params"]["gaussian"]["kernel"].shape == (25 * features[-1], 10)  # the coarsest map is 5 x 5
    decoded, mean, log_variance = jax.eval_shape(lambda v: model.apply(v, x, train=True), variables)
    assert decoded.shape == x.shape and mean.shape == log_variance.shape == (2, 5)
    assert {decoded.dtype, mean.dtype, log_variance.dtype} == {jnp.dtype("float32")}


def test_halves_make_the_whole_and_rows_are_independent():
    model, x = vae.make_model(**SMALL), states(4, 12)
    variables = drawn(model, 12)

    @jax.jit
    def both_ways(x):
        halves = model.apply(variables, x[1:2], method="encode")
        return model.apply(variables, x), (model.apply(variables, halves[0], method="decode"), *halves)

    whole, halves = both_ways(x)
    for one, other in zip(whole, halves, strict=True):
        np.testing.assert_allclose(one[1:2], other, rtol=1e-4, atol=1e-5)
    decoded = whole[0]
    assert np.abs(decoded).max() <= 1 and np.std(decoded, axis=0).max() > 0.01


def test_half_precision_is_near_full():
    x = states(3, 12)
    variables = drawn(vae.make_model(**SMALL), 12, scale=0.1)
    full, half = (jax.jit(vae.make_model(**SMALL, dtype=d).apply)(variables, x)[0] for d in ("float32", "bfloat16"))
    assert 0 < np.abs(full - half).max() < 0.05


def test_convolutions_live_on_a_torus():
    """States shifted by the product of the strides give maps shifted by one, and the other way round."""
    model, x = vae.make_model(**SMALL), states(2, 12).astype(jnp.float32)
    variables = drawn(model, 12)
    contract = jax.jit(nn.apply(vae.VAE.contract, model))
    maps, shifted = (contract(variables, y) for y in (x, jnp.roll(x, (6, 6), axis=(1, 2))))
    assert maps.shape == (2, 2, 2, 6)
    np.testing.assert_allclose(jnp.roll(maps, (1, 1), axis=(1, 2)), shifted, rtol=1e-5, atol=1e-6)
    refine = jax.jit(nn.apply(vae.VAE.refine, model))
    means, shifted = (refine(variables, y) for y in (maps, jnp.roll(maps, 1, axis=2)))
    assert means.shape == (2, 12, 12, 1)
    np.testing.assert_allclose(jnp.roll(means, 6, axis=2), shifted, rtol=1e-5, atol=1e-6)


def test_uniform_maps_can_become_stripes():
    """What enlarging by repeated pixels cannot do."""
    model = vae.make_model(**SMALL)
    means = nn.apply(vae.VAE.refine, model)(drawn(model, 12), jnp.ones((1, 2, 2, 6)))[0, ..., 0]
    np.testing.assert_allclose(means, np.roll(means, 6, axis=0), atol=1e-6)
    assert np.abs(means - np.roll(means, 1, axis=0)).max() > 0.01


def test_log_variances_are_bounded():
    model = vae.make_model(**SMALL)
    _, log_variance = model.apply(drawn(model, 12, scale=100.0), states(8, 12), method="encode")
    assert {float(log_variance.min()), float(log_variance.max())} == set(vae.LOG_VARIANCE_RANGE)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"size": 0}, "size: expected integers"),
        ({"latent_dim": 0}, "latent_dim: expected integers"),
        ({"features": (4, 0)}, "features: expected integers"),
        ({"features": (), "strides": ()}, "features: expected integers"),
        ({"features": (4,)}, r"features: expected one per stride \(2, 3\)"),
        ({"size": 20}, r"strides: their product must divide the size 20"),
    ],
)
def test_impossible_sizes_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        vae.make_model(**{**SMALL, **options})


def test_states_of_another_size_are_refused():
    model = vae.make_model(**SMALL)
    with pytest.raises(ValueError, match=r"inputs: expected \[B, 12, 12, 1\], got \[2, 10, 10, 1\]"):
        jax.eval_shape(lambda: model.init(jax.random.key(0), states(2, 10)))
