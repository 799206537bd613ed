"""3D convolutions against XLA's own, the numbers of parameters of the 3D networks, and their symmetries."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

from physml_jax.models import conv3d, resnet3d
from physml_jax.models.convolution3d import convolve

LAYOUT = ("NDHWC", "DHWIO", "NDHWC")


def count(model, shape):
    params = jax.eval_shape(lambda: model.init(jax.random.key(0), jnp.zeros(shape), train=False))["params"]
    return sum(x.size for x in jax.tree.leaves(params))


@pytest.mark.parametrize(
    ("sites", "kernel", "stride", "padding"),
    [((4, 5, 6), 3, 1, 1), ((5, 4, 6), 3, 2, 1), ((2, 2, 2), 5, 1, 2), ((4, 4, 3), 1, 2, 0)],
)
@pytest.mark.parametrize("periodic", [False, True])
def test_a_convolution_and_its_gradients_are_those_of_lax(sites, kernel, stride, padding, periodic):
    kx, kw, kg = jax.random.split(jax.random.key(sum(sites)), 3)
    x, w = jax.random.normal(kx, (2, *sites, 3)), jax.random.normal(kw, (kernel,) * 3 + (3, 4))

    def reference(x, w):
        mode = "wrap" if periodic else "constant"
        x = jnp.pad(x, ((0, 0), *((padding, padding),) * 3, (0, 0)), mode=mode)
        return lax.conv_general_dilated(x, w, (stride,) * 3, "VALID", dimension_numbers=LAYOUT)

    def mine(x, w):
        return convolve(x, w, stride=stride, padding=padding, periodic=periodic)

    g = jax.random.normal(kg, jax.eval_shape(reference, x, w).shape)

    @jax.jit
    def both(x, w, g):
        found = [jax.vjp(f, x, w) for f in (mine, reference)]
        return [(out, *pull(g)) for out, pull in found]

    for found, expected in zip(*both(x, w, g), strict=True):
        np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-3)


@pytest.mark.parametrize("backend", ["gpu", "cpu"])
def test_an_accelerator_gets_the_same_from_lax(backend, monkeypatch):
    x, w = jax.random.normal(jax.random.key(0), (2, 4, 4, 4, 2)), jax.random.normal(jax.random.key(1), (3, 3, 3, 2, 2))
    convolution = partial(convolve, stride=2, padding=1, periodic=True)
    here = jax.jit(convolution)(x, w)
    monkeypatch.setattr(jax, "default_backend", lambda: backend)
    text = str(jax.make_jaxpr(lambda x, w: convolution(x, w))(x, w))
    assert ("custom_vjp" in text) == (backend == "cpu")
    np.testing.assert_allclose(jax.jit(lambda x, w: convolution(x, w))(x, w), here, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(("depth", "channels", "width", "classes"), [(18, 1, 64, 17), (18, 1, 8, 2), (10, 2, 6, 3)])
def test_parameters_of_the_residual_network(depth, channels, width, classes):
    """Stem, blocks of two kernels and two normalisations, projections where the channels change, the last layer."""
    blocks = {10: 1, 18: 2}[depth]
    expected = 27 * channels * width + 2 * width
    for stage in range(4):
        n, before = width * 2**stage, width * 2 ** max(0, stage - 1)
        expected += 27 * before * n + 27 * n * n * (2 * blocks - 1) + 2 * n * 2 * blocks
        expected += (before * n + 2 * n) if stage else 0
    expected += 8 * width * classes + classes
    model = resnet3d.make_model(depth=depth, width=width, num_classes=classes)
    assert count(model, (1, 8, 8, 8, channels)) == expected
    if (depth, width) == (18, 64):
        # torchvision's R3D-18 (weights KINETICS400_V1): three colours, a stem of 3 x 7 x 7, 400 classes.
        assert expected - 27 * width - 513 * 17 + 3 * 147 * width + 513 * 400 == 33_371_472


@pytest.mark.parametrize(("size", "last"), [(20, 2), (8, 1), (40, 5)])
def test_parameters_of_the_plain_network(size, last):
    """With the published channels and kernels; three pools leave ``last`` sites in every direction."""
    channels, kernels = (1, 64, 64, 96, 96, 128, 128), (5, 5, 3, 3, 3, 3)
    expected = sum(k**3 * c * n + n for k, c, n in zip(kernels, channels[:-1], channels[1:], strict=True))
    expected += (last**3 * 128 + 1) * 1024 + 1025 * 17
    assert count(conv3d.make_model(), (1, size, size, size, 1)) == expected


MODELS = {
    "resnet": lambda **options: resnet3d.make_model(depth=10, width=2, num_classes=3, **options),
    "plain": lambda **options: conv3d.make_model(
        num_classes=3, features=(3, 4), kernels=(3, 1), pools=(1,), hidden=(5,), readout="mean", **options
    ),
    "sites": lambda **options: conv3d.make_model(
        num_classes=3, features=(3, 4), kernels=(3, 1), pools=(), hidden=(), readout="max", **options
    ),
}


@pytest.mark.parametrize("name", ["plain", pytest.param("resnet", marks=pytest.mark.slow), "sites"])
def test_a_periodic_network_does_not_know_where_the_origin_is(name):
    """Where the steps of the network (8, 2 and 1 sites) divide the translation; the open network sees the border."""
    step = {"resnet": 8, "plain": 2, "sites": 1}[name]
    x = jax.random.normal(jax.random.key(0), (2, *(16 if name == "resnet" else 4,) * 3, 1))
    for periodic in (True, False):
        model = MODELS[name](periodic=periodic)
        shapes = jax.eval_shape(lambda m=model: m.init(jax.random.key(0), x, train=False))
        rng = np.random.default_rng(0)
        variables = jax.tree.map(lambda s, rng=rng: jnp.asarray(rng.uniform(0.1, 1, s.shape) - 0.4, s.dtype), shapes)
        if "batch_stats" in variables:
            variables["batch_stats"] = jax.tree.map(lambda s: jnp.ones(s.shape), shapes["batch_stats"])
        apply = jax.jit(lambda x, m=model, v=variables: m.apply(v, x, train=False))
        moved = apply(jnp.roll(x, (step, step, 0), (1, 2, 3)))
        assert apply(x).shape == (2, 3) and apply(x).dtype == jnp.float32
        same = np.allclose(moved, apply(x), rtol=1e-4, atol=1e-5)
        assert same == periodic, np.abs(moved - apply(x)).max()


def test_types_and_statistics(key):
    model = MODELS["resnet"](dtype="bfloat16", readout="flatten", stem_stride=2)
    x = jax.random.normal(key, (2, 6, 6, 6, 1))
    variables = jax.eval_shape(lambda: model.init(key, x, train=False))
    assert {v.dtype for v in jax.tree.leaves(variables)} == {jnp.dtype("float32")}
    out, updates = jax.eval_shape(lambda v: model.apply(v, x, train=True, mutable=["batch_stats"]), variables)
    assert out.shape == (2, 3) and out.dtype == jnp.float32 and "batch_stats" in updates


@pytest.mark.parametrize(
    ("make", "change", "message"),
    [
        (resnet3d, dict(depth=50), "depth: expected one of"),
        (resnet3d, dict(readout="sum"), "readout: expected one of mean, max, flatten"),
        (resnet3d, dict(width=0), "width"),
        (conv3d, dict(readout="sum"), "readout: expected one of"),
        (conv3d, dict(kernels=(3,)), "kernels: expected one per entry of features"),
        (conv3d, dict(kernels=(2, 3, 3, 3, 3, 3)), "odd kernels"),
        (conv3d, dict(pools=(7,)), "pools: expected numbers from 1 to 6"),
        (conv3d, dict(dropout=1.0), "dropout: expected a number from 0 to below 1"),
    ],
)
def test_bad_options_are_named(make, change, message):
    with pytest.raises(ValueError, match=message):
        make.make_model(**change)


def test_too_small_a_lattice_is_refused():
    with pytest.raises(ValueError, match=r"inputs: \(4, 4, 4\) sites are fewer than 3 pools need"):
        count(conv3d.make_model(), (1, 4, 4, 4, 1))
