"""A transformer over the list of spots of a diffraction pattern: no order, no grid, any number of spots.

A spot is a token; attention between two spots is biased by their distance and by the angle between their vectors, which
is what indexing by hand uses. With ``invariant`` nothing else is read besides the lengths and the intensities, so the
answer does not change when the pattern is turned about the origin. Lengths are absolute: with spots in 1/angstrom the
network knows the calibration.
"""

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn

from physml_jax.typing import Array


def pair_features(vectors: Array, *, max_g: float, num_radial: int, num_harmonics: int) -> Array:
    """Distance and angle of every pair of spots, none of which changes under a rotation.

    Args:
      vectors: float [..., N, 2].
      max_g: largest length of a vector; distances reach twice that.
      num_radial: Gaussians over the distance, evenly spaced.
      num_harmonics: cosines and sines of 1, 2, ... times the angle from the first spot to the second.

    Returns:
      float [..., N, N, num_radial + 2 num_harmonics]. A spot at the origin has no direction: its harmonics are zero.
    """
    difference = vectors[..., :, None, :] - vectors[..., None, :, :]
    radial = _gaussians(_length(difference), 2 * max_g, num_radial)
    length = _length(vectors)[..., None]
    unit = jnp.where(length > 1e-6, vectors / jnp.maximum(length, 1e-6), 0.0)
    x, y = unit[..., 0], unit[..., 1]
    cosine = x[..., :, None] * x[..., None, :] + y[..., :, None] * y[..., None, :]
    sine = x[..., :, None] * y[..., None, :] - y[..., :, None] * x[..., None, :]
    harmonics, c, s = [], cosine, sine
    for _ in range(num_harmonics):
        harmonics += [c, s]
        c, s = c * cosine - s * sine, s * cosine + c * sine
    return jnp.concatenate([radial, jnp.stack(harmonics, -1)], -1) if harmonics else radial


def _length(vectors: Array) -> Array:
    """Lengths whose gradient is zero, and not NaN, at zero."""
    square = jnp.sum(vectors**2, axis=-1)
    return jnp.where(square > 0, jnp.sqrt(jnp.where(square > 0, square, 1.0)), 0.0)


def _gaussians(values: Array, largest: float, number: int) -> Array:
    """Soft one-hot codes [..., number] of values between 0 and ``largest``."""
    centres = np.linspace(0.0, largest, number, dtype=np.float32)
    width = largest / max(1, number - 1)
    distance = (values[..., None] - centres.reshape((1,) * values.ndim + (-1,))) / width
    return jnp.exp(-0.5 * distance**2)


class Block(nn.Module):
    """Attention with a bias per pair, and a network of two layers: [B, N, dim]."""

    num_heads: int
    dropout: float
    dtype: str

    @nn.compact
    def __call__(self, x: Array, pairs: Array, mask: Array, *, train: bool) -> Array:
        b, n, dim = x.shape
        drop = nn.Dropout(self.dropout, deterministic=not train)

        def dense(features: int, name: str) -> nn.Dense:
            return nn.Dense(features, dtype=self.dtype, kernel_init=nn.initializers.xavier_uniform(), name=name)

        def norm(name: str) -> nn.LayerNorm:
            return nn.LayerNorm(epsilon=1e-6, dtype=self.dtype, name=name)

        y = norm("norm1")(x)
        query, key, value = (
            dense(dim, name)(y).reshape(b, n, self.num_heads, dim // self.num_heads)
            for name in ("query", "key", "value")
        )
        bias = dense(self.num_heads, "pair")(pairs).transpose(0, 3, 1, 2)
        attended = jax.nn.dot_product_attention(query, key, value, bias=bias, mask=mask[:, None, None, :])
        x = x + drop(dense(dim, "out")(attended.reshape(b, n, dim)))
        return x + drop(dense(dim, "mlp2")(nn.gelu(dense(4 * dim, "mlp1")(norm("norm2")(x)))))


class SpotSet(nn.Module):
    """See ``make_model``."""

    num_classes: int
    dim: int
    depth: int
    num_heads: int
    max_g: float
    num_radial: int
    num_harmonics: int
    invariant: bool
    dropout: float
    dtype: str

    @nn.compact
    def __call__(self, inputs: Array, *, train: bool) -> Array:
        if inputs.ndim != 3 or inputs.shape[2] != 3:
            raise ValueError(f"inputs: expected spots [B, N, 3] with g_x, g_y and intensity, got {list(inputs.shape)}")
        vectors, intensity = inputs[..., :2], inputs[..., 2]
        mask = intensity > 0
        vectors = jnp.where(mask[..., None], vectors, 0.0)
        # Relative intensities span decades.
        strength = jnp.log(jnp.where(mask, intensity, 1.0))
        tokens = [_gaussians(_length(vectors), self.max_g, self.num_radial), strength[..., None]]
        if not self.invariant:
            tokens.append(vectors / self.max_g)
        pairs = pair_features(
            vectors, max_g=self.max_g, num_radial=self.num_radial, num_harmonics=self.num_harmonics
        ).astype(self.dtype)
        pairs = nn.gelu(nn.Dense(self.dim // 2, dtype=self.dtype, name="pairs")(pairs))
        x = nn.Dense(self.dim, dtype=self.dtype, name="embed")(jnp.concatenate(tokens, -1).astype(self.dtype))
        for i in range(self.depth):
            x = Block(self.num_heads, self.dropout, self.dtype, name=f"block{i + 1}")(x, pairs, mask, train=train)
        x = nn.LayerNorm(epsilon=1e-6, name="norm")(x.astype(jnp.float32))
        number = mask.sum(axis=1, keepdims=True)
        x = jnp.where(mask[..., None], x, 0.0).sum(axis=1) / jnp.maximum(number, 1)
        return nn.Dense(self.num_classes, kernel_init=nn.initializers.zeros, name="head")(x)


def make_model(
    *,
    num_classes: int = 9,
    dim: int = 64,
    depth: int = 3,
    num_heads: int = 4,
    max_g: float = 1.5,
    num_radial: int = 32,
    num_harmonics: int = 6,
    invariant: bool = True,
    dropout: float = 0.0,
    dtype: str = "float32",
) -> nn.Module:
    """A transformer over spots: [B, N, 3] -> float32 logits [B, num_classes].

    The rows of the input are g_x, g_y in 1/angstrom and an intensity; rows whose intensity is not positive are padding
    and change nothing. The order of the rows does not matter.

    Args:
      num_classes: number of outputs.
      dim: length of a token's vector, a multiple of ``num_heads``.
      depth: blocks.
      num_heads: attention heads.
      max_g: largest length of a vector, 1/angstrom; what lies beyond by more than a spacing of the codes is not told
        apart.
      num_radial: Gaussians that code a length or a distance.
      num_harmonics: cosines and sines of multiples of the angle between two spots.
      invariant: read lengths, distances and angles only: the answer does not change under rotations about the origin.
        Otherwise tokens also hold their vector.
      dropout: probability behind attention and the two-layer networks.
      dtype: type of the activations (``"bfloat16"`` on accelerators); parameters and output are float32.

    Returns:
      A Linen module without mutable collections; with dropout it asks for the random stream ``dropout``.

    Raises:
      ValueError: for an option out of range; when called, for another shape of input.

    References:
      J. Lee et al., Set transformer, ICML 2019; A. Vaswani et al., Attention is all you need, 2017.
    """
    for name, number, least in (
        ("num_classes", num_classes, 1),
        ("dim", dim, 2),
        ("depth", depth, 1),
        ("num_heads", num_heads, 1),
        ("num_radial", num_radial, 1),
        ("num_harmonics", num_harmonics, 0),
    ):
        if number < least:
            raise ValueError(f"model.kwargs.{name}: expected an integer of at least {least}, got {number}")
    if dim % num_heads:
        raise ValueError(f"model.kwargs.dim: expected a multiple of num_heads = {num_heads}, got {dim}")
    if not max_g > 0:
        raise ValueError(f"model.kwargs.max_g: expected a positive number, got {max_g}")
    if not 0 <= dropout < 1:
        raise ValueError(f"model.kwargs.dropout: expected a number from 0 to below 1, got {dropout}")
    return SpotSet(num_classes, dim, depth, num_heads, max_g, num_radial, num_harmonics, invariant, dropout, dtype)
