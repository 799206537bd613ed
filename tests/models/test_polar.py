"""Polar coordinates: rotations are circular shifts, exactly for quarter turns and for pictures known at every point."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from physml_jax.models import polar

RNG = np.random.default_rng(0)


def test_quarter_turns_are_shifts_by_a_quarter():
    x = RNG.normal(size=(2, 21, 21, 3)).astype(np.float32)
    resample = jax.jit(lambda x: polar.to_polar(x, num_radii=6, num_angles=16))
    plain = resample(x)
    for quarters in (1, 2, 3):  # np.rot90 turns counter-clockwise, towards larger angles
        turned = resample(np.rot90(x, quarters, (1, 2)).copy())
        np.testing.assert_allclose(turned, np.roll(plain, 4 * quarters, 2), atol=1e-5)


def plane(centre, gradient, size=(30, 40)):
    rows, columns = np.indices(size)
    values = gradient[0] * (rows - centre[0]) + gradient[1] * (columns - centre[1])
    return values.astype(np.float32)[None, :, :, None]


@pytest.mark.parametrize("log", [False, True])
def test_positions_in_closed_form(log):
    """A plane is exact under bilinear interpolation: its value is r (g_column cos - g_row sin)."""
    centre, radii = (13.2, 21.7), (np.geomspace if log else np.linspace)(2.0, 9.0, 5)
    angles = 2 * np.pi * np.arange(12) / 12
    x = np.concatenate([plane(centre, (1.0, 0.3)), plane((13.2, 21.7), (0.0, 2.0))])
    options = {"num_radii": 5, "num_angles": 12, "r_min": 2.0, "r_max": 9.0, "log": log}
    for where in (centre, np.tile(np.float32(centre), (2, 1))):
        found = polar.to_polar(jnp.asarray(x), centre=jnp.asarray(where), **options)[..., 0]
        for row, (g_row, g_column) in zip(found, ((1.0, 0.3), (0.0, 2.0)), strict=True):
            expected = radii[:, None] * (g_column * np.cos(angles) - g_row * np.sin(angles))
            np.testing.assert_allclose(row, expected, atol=1e-4)


@pytest.mark.slow
def test_outside_is_zero_and_the_centre_has_a_gradient():
    x = jnp.ones((1, 9, 9, 1))
    found = polar.to_polar(x, num_radii=3, num_angles=8, r_max=8.0)[0, :, :, 0]
    np.testing.assert_allclose(found[0], 1.0)
    assert float(jnp.abs(found[2, ::2]).max()) == 0.0
    ramp = jnp.asarray(plane((0.0, 0.0), (0.0, 2.0), (20, 20)))
    total = lambda centre: polar.to_polar(ramp, num_radii=2, num_angles=4, r_max=3.0, centre=centre).mean()
    np.testing.assert_allclose(jax.grad(total)(jnp.asarray([9.3, 9.6])), [0.0, 2.0], atol=1e-4)


def test_circular_padding():
    x = jnp.arange(5.0).reshape(1, 1, 5, 1)
    np.testing.assert_array_equal(polar.pad_angle(x, 2)[0, 0, :, 0], [3, 4, 0, 1, 2, 3, 4, 0, 1])
    with pytest.raises(ValueError, match="columns: expected 0 to 5, got 6"):
        polar.pad_angle(x, 6)


SMALL = {"num_classes": 3, "num_radii": 8, "num_angles": 16, "r_min": 1.0, "features": 2, "depth": 2}


def test_the_network_does_not_see_rotations():
    """By a quarter turn, to rounding; a mirror image and another scale are seen."""
    model = polar.make_model(**SMALL)
    x = RNG.normal(size=(2, 21, 21, 1)).astype(np.float32)
    shapes = jax.eval_shape(lambda: model.init(jax.random.key(0), jnp.asarray(x), train=False))
    rng = np.random.default_rng(1)
    positive = lambda path: path[-1].key in ("scale", "var")
    variables = jax.tree_util.tree_map_with_path(
        lambda path, p: (
            jnp.asarray(1.0 * positive(path) + 0.3 * rng.normal(size=p.shape) ** 2, p.dtype)
            if positive(path)
            else jnp.asarray(0.5 * rng.normal(size=p.shape), p.dtype)
        ),
        shapes,
    )
    apply = jax.jit(lambda x: model.apply(variables, x, train=False))
    plain = apply(x)
    np.testing.assert_allclose(apply(np.rot90(x, 1, (1, 2)).copy()), plain, rtol=1e-4, atol=1e-4)
    assert np.abs(apply(x[:, :, ::-1].copy()) - plain).max(1).min() > 1e-3
    assert np.abs(apply(np.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0)))[:, :21, :21]) - plain).max(1).min() > 1e-3


def test_half_precision_keeps_parameters_and_outputs():
    model = polar.make_model(**SMALL, dropout=0.1, dtype="bfloat16")
    x = jnp.zeros((2, 21, 21, 1))
    shapes = jax.eval_shape(lambda: model.init(jax.random.key(0), x, train=False))
    assert {leaf.dtype for leaf in jax.tree.leaves(shapes)} == {jnp.dtype("float32")}
    rngs = {"dropout": jax.random.key(0)}
    out, _ = jax.eval_shape(lambda v: model.apply(v, x, train=True, rngs=rngs, mutable=["batch_stats"]), shapes)
    assert out.shape == (2, 3) and out.dtype == jnp.float32


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"num_angles": 18}, r"num_angles: expected a multiple of 4 \(depth = 2\), got 18"),
        ({"depth": 0}, "depth: expected an integer of at least 1"),
        ({"dropout": 1.0}, "dropout: expected"),
    ],
)
def test_bad_options_are_named(options, message):
    with pytest.raises(ValueError, match=message):
        polar.make_model(**SMALL | options)


def test_bad_geometry_is_named():
    x = jnp.zeros((2, 9, 9, 1))
    with pytest.raises(ValueError, match="r_min, r_max: expected 0 < r_min < r_max in pixels, got 0.0 and 4.0"):
        polar.to_polar(x, num_radii=2, num_angles=4, log=True)
    with pytest.raises(ValueError, match=r"centre: expected \(row, column\) as \[2\] or \[2, 2\], got \[3\]"):
        polar.to_polar(x, num_radii=2, num_angles=4, centre=jnp.zeros(3))
