"""The vision transformer: published sizes, positions, sizes of the picture, attention in chunks."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from physml_jax.models import vit

TINY = {"dim": 16, "depth": 2, "num_heads": 2, "mlp_ratio": 2}


def shapes_of(model, shape):
    return jax.eval_shape(lambda: model.init(jax.random.key(0), jnp.zeros(shape), train=False))


def drawn(model, shape):
    """Parameters of the right shapes without compiling the initialisation."""
    rng = np.random.default_rng(1)
    return jax.tree.map(lambda p: jnp.asarray(0.2 * rng.normal(size=p.shape), p.dtype), shapes_of(model, shape))


def image(*shape):
    return jnp.asarray(np.random.default_rng(0).normal(size=shape), jnp.float32)


@pytest.mark.parametrize(
    ("dim", "num_heads", "published"), [(192, 3, 5_717_416), (384, 6, 22_050_664), (768, 12, 86_567_656)]
)
def test_published_number_of_parameters(dim, num_heads, published):
    """ViT-Ti, S and B with patches of 16 at 224 x 224 x 3 and 1000 classes: 5.7, 22 and 86 million (Touvron et al.
    2021, table 1); to the digit, torchvision's table for B and the same sum for the others."""
    model = vit.make_model(
        patch=16, dim=dim, depth=12, num_heads=num_heads, num_classes=1000, position="learned", pool="cls"
    )
    block = 12 * dim**2 + 13 * dim  # attention 4 d^2 + 4 d, network 8 d^2 + 5 d, two normalisations 4 d
    embedding = (16 * 16 * 3 + 1) * dim + dim + (14 * 14 + 1) * dim  # patches, the extra token, positions
    by_hand = embedding + 12 * block + 2 * dim + (dim + 1) * 1000
    params = shapes_of(model, (1, 224, 224, 3))["params"]
    assert sum(p.size for p in jax.tree.leaves(params)) == by_hand == published


@pytest.mark.parametrize("size", [12, 16, 32, 64, 100, 200])
def test_weights_of_one_size_apply_to_all(size):
    model = vit.make_model(patch=4, head="sites", **TINY)
    variables = shapes_of(model, (1, 16, 16, 1))
    out = jax.eval_shape(lambda v: model.apply(v, jnp.zeros((2, size, size, 1)), train=False), variables)
    assert out.shape == (2, size, size, 1) and out.dtype == jnp.float32


def test_a_token_keeps_its_code_in_a_larger_picture():
    small, large = vit.positions(3, 4, 16).reshape(3, 4, 16), vit.positions(9, 7, 16).reshape(9, 7, 16)
    np.testing.assert_array_equal(large[:3, :4], small)
    assert len(np.unique(vit.positions(50, 50, 32).round(4), axis=0)) == 2500
    np.testing.assert_allclose(small[2, 1, :4], np.sin(1 / 10000 ** (np.arange(4) / 3)), rtol=1e-6)
    np.testing.assert_allclose(small[2, 1, 12:], np.cos(2 / 10000 ** (np.arange(4) / 3)), rtol=1e-6)


@pytest.mark.parametrize(("position", "sees"), [("sincos2d", True), ("none", False)])
def test_positions_reach_the_output(monkeypatch, position, sees):
    """Two patches change places: without a code for the position nothing could tell."""
    if position == "none":
        monkeypatch.setattr(vit, "positions", lambda height, width, dim: np.zeros((height * width, dim), np.float32))
    model = vit.make_model(patch=2, **TINY)
    x = image(1, 4, 4, 1)
    swapped = x.at[:, :2, :2].set(x[:, 2:, 2:]).at[:, 2:, 2:].set(x[:, :2, :2])
    variables = drawn(model, x.shape)
    apply = jax.jit(lambda x: model.apply(variables, x, train=False))
    difference = float(jnp.abs(apply(x) - apply(swapped)).max())
    assert difference > 1e-3 if sees else difference < 1e-5


def test_every_site_sees_the_whole_picture_and_the_right_place():
    model = vit.make_model(patch=4, head="sites", **TINY)
    x = image(1, 8, 12, 1)
    variables = drawn(model, x.shape)
    corner = jax.jit(jax.grad(lambda x: model.apply(variables, x, train=False)[0, 0, 0, 0]))(x)
    assert bool(jnp.isfinite(corner).all()) and float(jnp.abs(corner[0, -4:, -4:]).max()) > 0
    # A head whose bias numbers the pixels of a patch tiles the picture with them.
    zero = jax.tree.map(jnp.zeros_like, variables)
    zero["params"]["head"]["bias"] = jnp.arange(16.0)
    out = model.apply(zero, x, train=False)
    np.testing.assert_array_equal(out[0, :, :, 0], np.tile(np.arange(16.0).reshape(4, 4), (2, 3)))


def reference_attention(query, key, value):
    scores = np.einsum("bnhd,bmhd->bhnm", query, key) / np.sqrt(query.shape[-1])
    weights = np.exp(scores - scores.max(-1, keepdims=True))
    return np.einsum("bhnm,bmhd->bnhd", weights / weights.sum(-1, keepdims=True), value)


@pytest.mark.parametrize("max_scores", [10**6, 2 * 3 * 11 * 4, 2 * 3 * 11 * 3, 1])
def test_attention_in_chunks_is_attention(max_scores):
    """Whole, in three and four chunks that do not divide the eleven queries, and query by query; gradients too."""
    rng = np.random.default_rng(0)
    operands = [rng.normal(size=(2, 11, 3, 5)).astype(np.float32) for _ in range(3)]
    out = jax.jit(lambda *x: vit.attention(*x, max_scores=max_scores))(*operands)
    np.testing.assert_allclose(out, reference_attention(*operands), rtol=1e-4, atol=1e-5)

    def gradients(limit):
        loss = lambda *x: jnp.sum(jnp.sin(vit.attention(*x, max_scores=limit)))
        return jax.jit(jax.grad(loss, argnums=(0, 1, 2)))(*operands)

    for chunked, whole in zip(gradients(max_scores), gradients(10**6), strict=True):
        np.testing.assert_allclose(chunked, whole, rtol=1e-4, atol=1e-5)


def test_attention_of_a_large_picture_never_holds_all_scores():
    """32 pictures of 200 x 200 sites: 600 million scores, and no array of the program has half of them."""
    spec = jax.ShapeDtypeStruct((32, 2500, 3, 8), jnp.float32)
    gradient = jax.grad(lambda q, k, v: vit.attention(q, k, v).sum(), argnums=(0, 1, 2))
    memory = jax.jit(gradient).lower(spec, spec, spec).compile().memory_analysis()
    assert memory.temp_size_in_bytes < 32 * 3 * 2500**2 * 4 / 2


def test_softmax_is_float32_under_bfloat16():
    """Products of 256 and 257 are one number in bfloat16, so the weights would be equal."""
    query = jnp.ones((1, 1, 1, 2), jnp.bfloat16)
    keys = jnp.asarray([[256.0, 0.0], [256.0, 1.0]], jnp.bfloat16).reshape(1, 2, 1, 2)
    value = jnp.asarray([[0.0, 0.0], [1.0, 1.0]], jnp.bfloat16).reshape(1, 2, 1, 2)
    out = vit.attention(query, keys, value)
    assert out.dtype == jnp.bfloat16
    np.testing.assert_allclose(out.astype(jnp.float32), 1 / (1 + np.exp(-np.sqrt(0.5))), atol=2**-8)


@pytest.mark.parametrize("options", [{"pool": "cls", "position": "learned", "dropout": 0.5}, {"head": "sites"}])
def test_every_parameter_is_trained(options):
    model = vit.make_model(patch=4, **TINY, **options)
    x = image(2, 8, 8, 1)
    variables = drawn(model, x.shape)
    assert set(variables) == {"params"}

    @jax.jit
    def gradient(variables):
        def loss(v):
            return jnp.sum(model.apply(v, x, train=True, rngs={"dropout": jax.random.key(3)})[:, ::3] ** 2)

        return jax.grad(loss)(variables)

    for path, g in jax.tree_util.tree_leaves_with_path(gradient(variables)):
        name = jax.tree_util.keystr(path)
        # A common shift of all keys leaves every softmax as it is.
        assert bool(jnp.isfinite(g).all()) and (float(jnp.abs(g).max()) > 0 or "'key']['bias'" in name), name


def test_dropout_acts_in_training_only():
    model = vit.make_model(patch=4, dropout=0.5, **TINY)
    x = image(1, 8, 8, 1)
    variables = drawn(model, x.shape)
    train = jax.jit(lambda key: model.apply(variables, x, train=True, rngs={"dropout": key}))
    plain = vit.make_model(patch=4, **TINY).apply(variables, x, train=True)
    np.testing.assert_allclose(model.apply(variables, x, train=False), plain, rtol=1e-5)
    assert float(jnp.abs(train(jax.random.key(0)) - train(jax.random.key(1))).max()) > 1e-3


def test_learned_positions_hold_for_one_size():
    model = vit.make_model(patch=4, position="learned", **TINY)
    variables = drawn(model, (1, 8, 8, 1))
    with pytest.raises(ValueError, match=r"inputs: learned positions.*3 x 3 tokens.*sincos2d"):
        model.apply(variables, image(1, 12, 12, 1), train=False)


def test_pictures_that_do_not_divide_are_refused():
    with pytest.raises(
        ValueError, match=r"inputs: height and width must be multiples of 4 \(patch = 4\), got \(8, 10\)"
    ):
        shapes_of(vit.make_model(patch=4, **TINY), (1, 8, 10, 1))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"head": "pixels"}, "head: expected one of classes, sites"),
        ({"position": "rotary"}, "position: expected one of"),
        ({"pool": "max"}, "pool: expected one of"),
        ({"dim": 20, "num_heads": 3}, "dim: expected a multiple of num_heads = 3"),
        ({"dim": 18, "num_heads": 3}, "dim: fixed positions need a multiple of 4"),
        ({"depth": 0}, "at least 1"),
        ({"dropout": 1.0}, "dropout"),
    ],
)
def test_bad_options_are_named(options, message):
    with pytest.raises(ValueError, match=message):
        vit.make_model(**options)
