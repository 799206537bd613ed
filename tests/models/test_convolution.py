"""The convolution rule against ``lax.conv_general_dilated``: values, gradients, loops, maps and what is passed on."""

import itertools
import zlib

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

from physml_jax.models import convolution

LAYOUT = ("NHWC", "HWIO", "NHWC")


def ours(x, w, strides=(1, 1), padding="SAME", **options):
    return convolution.conv_general_dilated(x, w, strides, padding, dimension_numbers=LAYOUT, **options)


def reference(x, w, strides=(1, 1), padding="SAME", **options):
    return lax.conv_general_dilated(x, w, strides, padding, dimension_numbers=LAYOUT, **options)


def operands(size, kernel, channels=(3, 4), batch=2):
    rng = np.random.default_rng(zlib.crc32(repr((size, kernel, channels, batch)).encode()))
    x = jnp.asarray(rng.normal(size=(batch, *size, channels[0])), jnp.float32)
    w = jnp.asarray(rng.normal(size=(*kernel, *channels)), jnp.float32)
    return x, w


def close(actual, expected, rtol=1e-5):
    for a, b in zip(jax.tree.leaves(actual), jax.tree.leaves(expected), strict=True):
        assert a.shape == b.shape and a.dtype == b.dtype
        scale = max(float(jnp.abs(b).max()), 1e-3)
        assert float(jnp.abs(a - b).max()) <= rtol * scale


def both_gradients(conv, x, w, **options):
    """Value and gradients of a weighted sum of the output, so that every output pixel has its own weight."""

    def loss(x, w):
        y = conv(x, w, **options)
        weight = jnp.cos(jnp.arange(y.size, dtype=y.dtype)).reshape(y.shape)
        return jnp.sum(y * weight), y

    (_, y), grads = jax.value_and_grad(loss, argnums=(0, 1), has_aux=True)(x, w)
    return y, grads


CASES = [
    # size, kernel, strides, padding, channels: each line reaches another branch or an edge of one
    ((8, 8), (1, 1), (1, 1), "VALID", (3, 4)),
    ((9, 7), (1, 1), (2, 2), "VALID", (3, 4)),
    ((7, 9), (1, 1), (3, 2), "SAME", (3, 4)),
    ((1, 1), (3, 3), (1, 1), "SAME", (12, 9)),
    ((2, 2), (3, 3), (1, 1), "SAME", (12, 9)),
    ((2, 5), (3, 3), (1, 1), "SAME", (9, 12)),
    ((2, 2), (3, 3), (2, 2), "SAME", (9, 12)),
    ((3, 2), (4, 4), (2, 2), ((1, 1), (1, 1)), (9, 12)),
    ((1, 1), (4, 4), (2, 2), ((2, 1), (2, 1)), (9, 12)),
    ((5, 6), (7, 7), (1, 1), ((3, 3), (3, 3)), (2, 9)),
    ((8, 8), (3, 3), (1, 1), "SAME", (9, 12)),
    ((9, 12), (3, 3), (1, 1), "VALID", (9, 12)),
    ((12, 9), (3, 3), (2, 2), "VALID", (9, 12)),
    ((10, 11), (4, 4), (1, 1), ((2, 2), (2, 2)), (9, 12)),
    ((10, 11), (4, 4), (1, 1), ((2, 2), (2, 2)), (12, 1)),
    ((10, 11), (2, 3), (1, 1), ((1, 0), (0, 2)), (9, 12)),
    ((8, 8), (3, 3), (1, 1), ((4, 4), (4, 4)), (9, 12)),
    ((12, 14), (7, 7), (1, 1), "VALID", (9, 1)),
    ((12, 14), (7, 7), (1, 1), "VALID", (2, 9)),
    ((20, 24), (3, 3), (2, 2), "SAME", (9, 12)),
    ((21, 23), (3, 3), (2, 2), ((1, 1), (1, 1)), (9, 12)),
    ((20, 21), (4, 4), (2, 2), ((2, 2), (2, 2)), (9, 12)),
    ((21, 20), (4, 4), (2, 2), ((1, 1), (1, 1)), (2, 12)),
    ((30, 31), (3, 3), (3, 3), "SAME", (9, 12)),
    ((24, 25), (2, 2), (2, 2), "VALID", (9, 12)),
    ((20, 24), (3, 3), (2, 1), ((0, 2), (1, 0)), (9, 12)),
    ((12, 24), (3, 3), (1, 2), "SAME", (9, 12)),
    ((41, 30), (2, 2), (3, 3), "VALID", (9, 12)),
    ((31, 31), (5, 5), (2, 2), "SAME", (9, 10)),
    ((8, 6), (3, 3), (1, 1), "SAME_LOWER", (3, 4)),
]


@pytest.mark.parametrize(("size", "kernel", "strides", "padding", "channels"), CASES)
def test_value_and_gradients_equal_lax(size, kernel, strides, padding, channels):
    x, w = operands(size, kernel, channels)
    options = {"strides": strides, "padding": padding}
    run = lambda conv: jax.jit(lambda x, w: both_gradients(conv, x, w, **options))(x, w)
    close(run(ours), run(reference))


def by_definition(x, w, strides, padding):
    """The sum over taps, written out: lax itself aborts in the compiler for some of the gradients of the next test."""
    x = jnp.pad(x, ((0, 0), *padding, (0, 0)))
    (kh, kw), (sh, sw) = w.shape[:2], strides
    oh, ow = (x.shape[1] - kh) // sh + 1, (x.shape[2] - kw) // sw + 1
    seen = lambda i, j: x[:, i : i + (oh - 1) * sh + 1 : sh, j : j + (ow - 1) * sw + 1 : sw]
    return sum(jnp.einsum("nhwc,co->nhwo", seen(i, j), w[i, j]) for i in range(kh) for j in range(kw))


@pytest.mark.parametrize(
    "kernel", [2, pytest.param(3, marks=pytest.mark.slow), pytest.param(4, marks=pytest.mark.slow)]
)
def test_every_small_geometry_against_the_definition(kernel):
    """Heights 1 to 5, strides 1 and 2, paddings up to k - 1, in one compiled program per kernel size."""
    paddings = [(0, kernel - 1), (kernel - 1, 1), (1, 1)]
    cases = [
        ((h, 6 - h % 3), (s, s), ((lo, hi), (hi, lo)))
        for h, s, (lo, hi) in itertools.product(range(1, 6), (1, 2), paddings)
        if h + lo + hi >= kernel
    ]
    rng = np.random.default_rng(1)
    draw = lambda *shape: jnp.asarray(rng.normal(size=shape), jnp.float32)
    inputs = [(draw(2, *size, 2), draw(kernel, kernel, 2, 2)) for size, _, _ in cases]

    def all_cases(conv):
        return [
            both_gradients(conv, x, w, strides=strides, padding=padding)
            for (x, w), (_, strides, padding) in zip(inputs, cases, strict=True)
        ]

    actual, expected = (jax.jit(lambda conv=conv: all_cases(conv))() for conv in (ours, by_definition))
    for a, b, case in zip(actual, expected, cases, strict=True):
        try:
            close(a, b)
        except AssertionError as error:
            raise AssertionError(f"size, strides, padding = {case}") from error


@pytest.mark.parametrize("strides", [(1, 1), (2, 2)])
def test_jit_equals_eager(strides):
    x, w = operands((9, 10), (3, 3), (9, 10))
    eager = both_gradients(ours, x, w, strides=strides)
    close(jax.jit(lambda x, w: both_gradients(ours, x, w, strides=strides))(x, w), eager)


def test_gradients_inside_scan_and_map():
    x, w = operands((6, 6), (3, 3), (9, 9))

    def loop(conv):
        def scanned(w):
            return jnp.sum(lax.scan(lambda h, _: (jnp.tanh(conv(h, w)), None), x, length=3)[0] ** 2)

        def mapped(w):
            return jnp.sum(lax.map(lambda row: conv(row[None], w, strides=(2, 2)), x) ** 3)

        return jax.jit(jax.grad(scanned))(w), jax.jit(jax.grad(mapped))(w)

    close(loop(ours), loop(reference))


@pytest.mark.parametrize("in_axes", [(0, None), (None, 0), (0, 0)])
@pytest.mark.parametrize("padding", ["SAME", "VALID"])
def test_vmap(in_axes, padding):
    rng = np.random.default_rng(2)
    shapes = [(3, 2, 7, 8, 4), (3, 3, 3, 4, 9)]
    x, w = (
        jnp.asarray(rng.normal(size=s if a == 0 else s[1:]), jnp.float32) for s, a in zip(shapes, in_axes, strict=True)
    )
    run = lambda conv: jax.jit(jax.vmap(lambda x, w: both_gradients(conv, x, w, padding=padding), in_axes=in_axes))(
        x, w
    )
    close(run(ours), run(reference))
    gradient_of_map = lambda conv: jax.jit(
        jax.grad(lambda x, w: jnp.sum(jax.vmap(lambda x, w: conv(x, w), in_axes=in_axes)(x, w) ** 2), argnums=(0, 1))
    )(x, w)
    close(gradient_of_map(ours), gradient_of_map(reference))


def test_vmap_unrolls_small_ensembles_only():
    x, w = operands((6, 6), (3, 3), (4, 9))
    count = lambda n: str(jax.make_jaxpr(jax.vmap(ours, in_axes=(None, 0)))(x, jnp.stack([w] * n))).count(
        "conv_general_dilated["
    )
    assert count(4) == 4
    assert count(convolution.MAX_UNROLL + 1) == 1


def test_vmap_of_vmap():
    rng = np.random.default_rng(3)
    x = jnp.asarray(rng.normal(size=(2, 3, 1, 5, 5, 2)), jnp.float32)
    w = jnp.asarray(rng.normal(size=(2, 3, 3, 2, 9)), jnp.float32)
    nested = lambda conv: jax.jit(jax.vmap(lambda x, w: jax.vmap(lambda x: conv(x, w))(x)))(x, w)
    close(nested(ours), nested(reference))


@pytest.mark.parametrize("strides", [(1, 1), (2, 2)])
def test_second_order_reverse_mode(strides):
    x, w = operands((6, 7), (3, 3), (2, 3))

    def penalty(conv):
        inner = lambda x, w: jnp.sum(jnp.sin(conv(x, w, strides=strides)))
        norm = lambda x, w: sum(jnp.sum(g**2) for g in jax.grad(inner, argnums=(0, 1))(x, w))
        return jax.jit(jax.grad(norm, argnums=(0, 1)))(x, w)

    close(penalty(ours), penalty(reference), rtol=2e-5)


def test_forward_mode_is_refused_loudly():
    x, w = operands((4, 4), (3, 3))
    with pytest.raises(TypeError, match="custom_vjp"):
        jax.jvp(ours, (x, w), (x, w))


@pytest.mark.parametrize(
    ("size", "kernel", "strides", "padding"),
    [
        ((8, 10), (3, 3), (2, 2), ((1, 1), (1, 1))),
        ((20, 18), (3, 3), (2, 2), ((0, 1), (0, 1))),
        ((9, 9), (4, 4), (1, 1), ((1, 2), (1, 2))),
        ((2, 2), (4, 4), (2, 2), ((1, 1), (1, 1))),
        ((22, 20), (2, 2), (2, 2), ((0, 0), (0, 0))),
    ],
)
def test_transposed_convolution_is_the_adjoint(size, kernel, strides, padding):
    """<g, conv(x, w)> = <conv_transpose(g, w), x>, and its own gradients follow from lax's version."""
    x, w = operands(size, kernel, (9, 10))
    y = reference(x, w, strides, padding)
    g = jnp.asarray(np.random.default_rng(4).normal(size=y.shape), jnp.float32)
    options = {"strides": strides, "padding": padding, "size": size}
    transposed = convolution.conv_transpose(g, w, **options)
    np.testing.assert_allclose(jnp.vdot(transposed, x), jnp.vdot(g, y), rtol=1e-4)

    def by_lax(g, w):
        return jax.linear_transpose(lambda x: reference(x, w, strides, padding), x)(g)[0]

    loss = lambda fn: lambda g, w: jnp.sum(jnp.sin(fn(g, w)))
    ours_grads = jax.jit(jax.grad(loss(lambda g, w: convolution.conv_transpose(g, w, **options)), argnums=(0, 1)))(g, w)
    close(ours_grads, jax.jit(jax.grad(loss(by_lax), argnums=(0, 1)))(g, w), rtol=2e-5)


def test_transposed_convolution_on_other_platforms(monkeypatch):
    x, w = operands((8, 10), (3, 3), (3, 4))
    options = {"strides": (2, 2), "padding": ((1, 1), (1, 1)), "size": (8, 10)}
    g = reference(x, w, (2, 2), ((1, 1), (1, 1)))
    here = convolution.conv_transpose(g, w, **options)
    monkeypatch.setattr(jax, "default_backend", lambda: "gpu")
    close(convolution.conv_transpose(g, w, **options), here)


def test_transposed_convolution_refuses_a_size_that_does_not_fit():
    g, w = operands((4, 4), (3, 3), (3, 3))
    with pytest.raises(ValueError, match="size"):
        convolution.conv_transpose(g, w, strides=(2, 2), padding=((1, 1), (1, 1)), size=(9, 8))


@pytest.mark.parametrize(
    "options",
    [
        {"rhs_dilation": (2, 2)},
        {"lhs_dilation": (2, 1), "padding": ((1, 0), (1, 1))},
        {"padding": ((-1, 1), (0, 0))},
        {"feature_group_count": 2},
        {"preferred_element_type": jnp.float32},
    ],
)
def test_other_cases_go_to_lax(options, monkeypatch):
    monkeypatch.setattr(convolution, "_forward", None)
    x, w = operands((8, 8), (3, 3), (4, 6))
    if "preferred_element_type" in options:
        x, w = x.astype(jnp.bfloat16), w.astype(jnp.bfloat16)
    w = w[:, :, :2] if "feature_group_count" in options else w
    np.testing.assert_array_equal(ours(x, w, **options), reference(x, w, **options))


def test_one_and_three_dimensions_integers_and_accelerators_go_to_lax(monkeypatch):
    monkeypatch.setattr(convolution, "_forward", None)
    numbers = ("NWC", "WIO", "NWC")
    x, w = jnp.ones((2, 9, 3)), jnp.ones((3, 3, 4))
    same = convolution.conv_general_dilated(x, w, (1,), "SAME", dimension_numbers=numbers)
    np.testing.assert_array_equal(same, lax.conv_general_dilated(x, w, (1,), "SAME", dimension_numbers=numbers))
    x, w = jnp.ones((1, 4, 4, 2), jnp.int32), jnp.ones((3, 3, 2, 2), jnp.int32)
    np.testing.assert_array_equal(ours(x, w), reference(x, w))
    monkeypatch.setattr(jax, "default_backend", lambda: "tpu")
    x, w = operands((5, 5), (3, 3))
    np.testing.assert_array_equal(ours(x, w), reference(x, w))


def test_flax_layer_and_bfloat16():
    x, _ = operands((8, 8), (3, 3), (3, 4))
    layer = lambda conv, **kw: nn.Conv(16, (3, 3), strides=2, conv_general_dilated=conv, **kw)
    variables = layer(None).init(jax.random.key(0), x)
    close(layer(convolution.conv_general_dilated).apply(variables, x), layer(None).apply(variables, x))
    half = layer(convolution.conv_general_dilated, dtype=jnp.bfloat16)
    y, grads = jax.value_and_grad(lambda v: jnp.sum(half.apply(v, x).astype(jnp.float32) ** 2))(variables)
    assert half.apply(variables, x).dtype == jnp.bfloat16
    assert all(g.dtype == jnp.float32 for g in jax.tree.leaves(grads))
    full = jax.value_and_grad(lambda v: jnp.sum(layer(None).apply(v, x) ** 2))(variables)
    close((y, grads), full, rtol=3e-2)  # bfloat16 keeps 8 bits
