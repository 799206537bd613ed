"""Vision transformers (Dosovitskiy et al. 2021) for pictures of any size, with an answer per picture or per pixel.

The encoder is the published one: patches as tokens, normalisation in front of attention and of the two-layer network.
With fixed positions nothing in the parameters depends on the size of the picture, so weights trained on small lattices
apply to large ones. Attention works through the queries in chunks where its score matrix would be large.
"""

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn

from physml_jax.models.layers import check_divisible, depth_to_space, space_to_depth
from physml_jax.typing import Array

HEADS = ("classes", "sites")
POSITIONS = ("sincos2d", "learned")
POOLS = ("mean", "cls")

#: Scores (batch x heads x queries x keys) that attention holds at once: 256 MiB in float32.
MAX_SCORES = 2**26


def attention(query: Array, key: Array, value: Array, *, max_scores: int = MAX_SCORES) -> Array:
    """softmax(q k^T / sqrt(d)) v for every head, with the softmax in float32.

    Above ``max_scores`` the queries go through in equal chunks, and the backward pass computes the scores of a chunk
    again instead of keeping them; the result is the same.

    Args:
      query: float [B, N, heads, d].
      key: float [B, M, heads, d].
      value: float [B, M, heads, d].
      max_scores: largest number of scores to hold at once.

    Returns:
      float [B, N, heads, d], the dtype of ``query``.
    """
    b, n, heads, d = query.shape
    per_query = b * heads * key.shape[1]
    if n * per_query <= max_scores:
        return jax.nn.dot_product_attention(query, key, value)
    number = -(-n // max(1, max_scores // per_query))
    chunk = -(-n // number)
    chunks = jnp.pad(query, ((0, 0), (0, number * chunk - n), (0, 0), (0, 0)))
    chunks = chunks.reshape(b, number, chunk, heads, d).swapaxes(0, 1)
    out = jax.lax.map(jax.checkpoint(lambda part: jax.nn.dot_product_attention(part, key, value)), chunks)
    return out.swapaxes(0, 1).reshape(b, number * chunk, heads, d)[:, :n]


def positions(height: int, width: int, dim: int) -> np.ndarray:
    """Fixed positions of a grid of tokens: sine and cosine of row and column at wavelengths from 2 pi to 20000 pi.

    Args:
      height: rows of tokens.
      width: columns of tokens.
      dim: length of the code, a multiple of 4.

    Returns:
      float32 [height * width, dim]: quarters sin(column), cos(column), sin(row), cos(row). A token has the same code
      in every grid that contains it.

    References:
      X. Chen, S. Xie, K. He, ICCV 2021 (MoCo v3), section 5; A. Vaswani et al., 2017, section 3.5.
    """
    frequencies = 10000.0 ** -(np.arange(dim // 4) / max(1, dim // 4 - 1))
    rows, columns = np.meshgrid(np.arange(height), np.arange(width), indexing="ij")
    x, y = columns.reshape(-1, 1) * frequencies, rows.reshape(-1, 1) * frequencies
    return np.concatenate([np.sin(x), np.cos(x), np.sin(y), np.cos(y)], axis=1).astype(np.float32)


class Block(nn.Module):
    """Attention and a network of two layers, each behind its normalisation and around a shortcut: [B, N, dim]."""

    num_heads: int
    mlp_ratio: int
    dropout: float
    dtype: str
    exact_gelu: bool = False

    @nn.compact
    def __call__(self, x: Array, *, train: bool) -> Array:
        b, n, dim = x.shape

        def dense(features: int, name: str) -> nn.Dense:
            return nn.Dense(features, dtype=self.dtype, kernel_init=nn.initializers.xavier_uniform(), name=name)

        def norm(name: str) -> nn.LayerNorm:
            return nn.LayerNorm(epsilon=1e-6, dtype=self.dtype, name=name)

        drop = nn.Dropout(self.dropout, deterministic=not train)
        y = norm("norm1")(x)
        query, key, value = (
            dense(dim, name)(y).reshape(b, n, self.num_heads, dim // self.num_heads)
            for name in ("query", "key", "value")
        )
        x = x + drop(dense(dim, "out")(attention(query, key, value).reshape(b, n, dim)))
        y = dense(self.mlp_ratio * dim, "mlp1")(norm("norm2")(x))
        y = drop(nn.gelu(y, approximate=not self.exact_gelu))
        return x + drop(dense(dim, "mlp2")(y))


class ViT(nn.Module):
    """See ``make_model``."""

    patch: int
    dim: int
    depth: int
    num_heads: int
    mlp_ratio: int
    num_classes: int
    head: str
    position: str
    pool: str
    dropout: float
    dtype: str
    exact_gelu: bool = False

    @nn.compact
    def __call__(self, inputs: Array, *, train: bool) -> Array:
        check_divisible(inputs, self.patch, f"patch = {self.patch}")
        b, height, width = inputs.shape[0], inputs.shape[1] // self.patch, inputs.shape[2] // self.patch
        with_token = self.head == "classes" and self.pool == "cls"

        # A dense layer on squares of pixels is the published convolution with stride and kernel of a patch.
        x = space_to_depth(inputs.astype(self.dtype), self.patch).reshape(b, height * width, -1)
        x = nn.Dense(self.dim, dtype=self.dtype, name="embed")(x)
        if with_token:
            token = self.param("token", nn.initializers.zeros, (1, 1, self.dim), jnp.float32)
            x = jnp.concatenate([jnp.broadcast_to(token, (b, 1, self.dim)).astype(x.dtype), x], axis=1)
        x = x + self._codes(height, width, with_token)[None].astype(x.dtype)
        x = nn.Dropout(self.dropout, deterministic=not train)(x)
        for i in range(self.depth):
            block = Block(
                self.num_heads, self.mlp_ratio, self.dropout, self.dtype, self.exact_gelu, name=f"block{i + 1}"
            )
            x = block(x, train=train)
        x = nn.LayerNorm(epsilon=1e-6, name="norm")(x.astype(jnp.float32))

        outputs = self.num_classes if self.head == "classes" else self.patch**2
        head = nn.Dense(outputs, kernel_init=nn.initializers.zeros, name="head")
        if self.head == "sites":
            return depth_to_space(head(x).reshape(b, height, width, -1), self.patch)
        return head(x[:, 0] if with_token else x.mean(axis=1))

    def _codes(self, height: int, width: int, with_token: bool) -> Array:
        if self.position == "sincos2d":
            return jnp.pad(positions(height, width, self.dim), ((int(with_token), 0), (0, 0)))
        shape = (height * width + with_token, self.dim)
        if self.has_variable("params", "position") and self.get_variable("params", "position").shape != shape:
            raise ValueError(
                f"inputs: learned positions hold for the size they were trained at; {height} x {width} tokens need "
                f"{list(shape)}, the parameters have {list(self.get_variable('params', 'position').shape)}; "
                "position = 'sincos2d' fits any size"
            )
        return self.param("position", nn.initializers.normal(0.02), shape, jnp.float32)


def make_model(
    *,
    patch: int = 4,
    dim: int = 192,
    depth: int = 6,
    num_heads: int = 3,
    mlp_ratio: int = 4,
    num_classes: int = 2,
    head: str = "classes",
    position: str = "sincos2d",
    pool: str = "mean",
    dropout: float = 0.0,
    exact_gelu: bool = False,
    dtype: str = "float32",
) -> nn.Module:
    """A vision transformer: [B, H, W, C] -> float32 [B, num_classes], or one number per pixel.

    The published models are ``depth=12, patch=16, position="learned", pool="cls"`` with (dim, num_heads) = (192, 3) for
    Ti, (384, 6) for S and (768, 12) for B; L has ``depth=24`` and (1024, 16).

    Args:
      patch: side of the squares of pixels that become tokens; height and width must be multiples of it.
      dim: length of a token's vector; a multiple of ``num_heads``, and of 4 for fixed positions.
      depth: blocks.
      num_heads: attention heads.
      mlp_ratio: hidden units of a block's two-layer network, in units of ``dim``.
      num_classes: outputs of the head ``classes``; the other one ignores it.
      head: ``"classes"``: one vector [B, num_classes] per picture; ``"sites"``: one logit per pixel, [B, H, W, 1].
      position: ``"sincos2d"``, fixed and valid for any size; or ``"learned"``, a table for the size of training.
      pool: how the head ``classes`` reads the tokens: their ``"mean"``, or an extra token ``"cls"``.
      dropout: probability behind the positions and every dense layer but query, key and value.
      exact_gelu: the Gaussian error function within the blocks, as the published weights want it, in place of its
        cheaper approximation by a hyperbolic tangent.
      dtype: type of the activations (``"bfloat16"`` on accelerators); parameters, softmax and output are float32.

    Returns:
      A Linen module without mutable collections; with dropout it asks for the random stream ``dropout``.

    Raises:
      ValueError: for an unknown option or sizes that do not divide; when called, for a picture that does not fit.

    References:
      A. Dosovitskiy et al., An image is worth 16x16 words, ICLR 2021, table 1; H. Touvron et al., Training
      data-efficient image transformers, ICML 2021, table 1 (Ti, S).
    """
    for name, choice, known in (("head", head, HEADS), ("position", position, POSITIONS), ("pool", pool, POOLS)):
        if choice not in known:
            raise ValueError(f"model.kwargs.{name}: expected one of {', '.join(known)}, got {choice!r}")
    if min(patch, dim, depth, num_heads, mlp_ratio, num_classes) < 1:
        raise ValueError("model.kwargs: patch, dim, depth, num_heads, mlp_ratio and num_classes must be at least 1")
    if dim % num_heads:
        raise ValueError(f"model.kwargs.dim: expected a multiple of num_heads = {num_heads}, got {dim}")
    if position == "sincos2d" and dim % 4:
        raise ValueError(f"model.kwargs.dim: fixed positions need a multiple of 4, got {dim}")
    if not 0 <= dropout < 1:
        raise ValueError(f"model.kwargs.dropout: expected a number from 0 to below 1, got {dropout}")
    return ViT(patch, dim, depth, num_heads, mlp_ratio, num_classes, head, position, pool, dropout, dtype, exact_gelu)
