"""Pictures in polar coordinates, where a rotation about the centre is a circular shift, and a network that keeps it so.

Rows are radii (evenly or logarithmically spaced), columns are angles, counter-clockwise with x to the right and y
up, as the columns and negative rows of the picture. The network pads circularly in the angle and averages over it at
the end, so its answer is the same for all rotations by whole steps of its last map, up to the resampling.
"""

import jax.numpy as jnp
import numpy as np
from flax import linen as nn

from physml_jax.models.convolution import conv_general_dilated
from physml_jax.models.pooling import max_pool_2x2
from physml_jax.typing import Array


def to_polar(
    images: Array,
    *,
    num_radii: int,
    num_angles: int,
    r_min: float = 0.0,
    r_max: float | None = None,
    log: bool = False,
    centre: Array | None = None,
) -> Array:
    """Bilinear resampling to polar coordinates: [B, H, W, C] -> [B, num_radii, num_angles, C].

    Args:
      images: float [B, H, W, C].
      num_radii: rows; their radii run from ``r_min`` to ``r_max``, both included.
      num_angles: columns; angle j is 2 pi j / num_angles.
      r_min: first radius in pixels; positive for ``log``.
      r_max: last radius in pixels; ``None``: the distance from the picture's centre to its nearest edge.
      log: radii evenly spaced in their logarithm, so that a change of scale is a shift of rows.
      centre: float [2] or [B, 2], (row, column) in pixels; ``None``: ((H - 1) / 2, (W - 1) / 2).

    Returns:
      The samples; zero outside the picture.

    Raises:
      ValueError: for radii out of order, or a centre of another shape.
    """
    b, height, width, _ = images.shape
    last = (min(height, width) - 1) / 2 if r_max is None else r_max
    if not (0 < r_min if log else 0 <= r_min) or not r_min < last:
        least = "0 < r_min" if log else "0 <= r_min"
        raise ValueError(f"r_min, r_max: expected {least} < r_max in pixels, got {r_min} and {last}")
    middle = jnp.asarray([(height - 1) / 2, (width - 1) / 2]) if centre is None else jnp.asarray(centre)
    if middle.shape not in ((2,), (b, 2)):
        raise ValueError(f"centre: expected (row, column) as [2] or [{b}, 2], got {list(middle.shape)}")
    middle = jnp.broadcast_to(middle.reshape(-1, 2), (b, 2)).astype(jnp.float32)
    radii = (np.geomspace if log else np.linspace)(r_min, last, num_radii)[:, None]
    angles = 2 * np.pi * np.arange(num_angles)[None] / num_angles
    offsets = jnp.asarray(np.stack([-radii * np.sin(angles), radii * np.cos(angles)]), jnp.float32)
    rows, columns = (middle[:, i, None, None] + offsets[None, i] for i in range(2))

    first_row, first_column = jnp.floor(rows), jnp.floor(columns)
    batch = jnp.arange(b)[:, None, None]
    total = jnp.zeros((), images.dtype)
    for i in range(2):
        for j in range(2):
            row, column = first_row + i, first_column + j
            weight = (1 - jnp.abs(rows - row)) * (1 - jnp.abs(columns - column))
            inside = (row >= 0) & (row < height) & (column >= 0) & (column < width)
            at_row = jnp.clip(row, 0, height - 1).astype(jnp.int32)
            at_column = jnp.clip(column, 0, width - 1).astype(jnp.int32)
            weight = jnp.where(inside, weight, 0.0).astype(images.dtype)
            total = total + images[batch, at_row, at_column] * weight[..., None]
    return total


def pad_angle(x: Array, columns: int) -> Array:
    """The picture continued around the circle by ``columns`` on both sides: [B, R, A, C] -> [B, R, A + 2 columns, C].

    Raises:
      ValueError: for more columns than there are.
    """
    if not 0 <= columns <= x.shape[2]:
        raise ValueError(f"columns: expected 0 to {x.shape[2]}, got {columns}")
    return jnp.concatenate([x[:, :, x.shape[2] - columns :], x, x[:, :, :columns]], axis=2)


class PolarCNN(nn.Module):
    """See ``make_model``."""

    num_classes: int
    num_radii: int
    num_angles: int
    r_min: float
    r_max: float | None
    log: bool
    features: int
    depth: int
    dropout: float
    dtype: str

    @nn.compact
    def __call__(self, inputs: Array, *, train: bool) -> Array:
        x = to_polar(
            inputs.astype(jnp.float32),
            num_radii=self.num_radii,
            num_angles=self.num_angles,
            r_min=self.r_min,
            r_max=self.r_max,
            log=self.log,
        ).astype(self.dtype)

        def layer(x: Array, features: int, name: str) -> Array:
            x = nn.Conv(
                features,
                (3, 3),
                padding=((1, 1), (0, 0)),
                use_bias=False,
                dtype=self.dtype,
                conv_general_dilated=conv_general_dilated,
                name=name,
            )(pad_angle(x, 1))
            options = {"momentum": 0.9, "epsilon": 1e-5, "dtype": self.dtype}
            return nn.relu(nn.BatchNorm(use_running_average=not train, **options, name=f"{name}_norm")(x))

        for i in range(self.depth):
            for j in range(2):
                x = layer(x, self.features * min(2**i, 4), f"stage{i + 1}_conv{j + 1}")
            x = max_pool_2x2(x)
        # Radii keep their places, because lengths tell phases apart; angles do not.
        x = x.astype(jnp.float32)
        x = jnp.concatenate([x.mean(axis=2), x.max(axis=2)], axis=-1).reshape(x.shape[0], -1)
        x = nn.Dropout(self.dropout, deterministic=not train)(x)
        return nn.Dense(self.num_classes, name="head")(x)


def make_model(
    *,
    num_classes: int = 9,
    num_radii: int = 64,
    num_angles: int = 96,
    r_min: float = 2.0,
    r_max: float | None = None,
    log: bool = False,
    features: int = 16,
    depth: int = 3,
    dropout: float = 0.0,
    dtype: str = "float32",
) -> nn.Module:
    """A network on polar coordinates about the picture's centre: [B, H, W, C] -> float32 logits [B, num_classes].

    Stages of two circular 3x3 convolutions and a 2x2 maximum; at the end, mean and maximum over the angles.

    Args:
      num_classes: number of outputs.
      num_radii: radii of the resampled picture, a multiple of 2^depth.
      num_angles: its angles, a multiple of 2^depth. Rotations by 2 pi 2^depth / num_angles change nothing.
      r_min: first radius in pixels.
      r_max: last radius in pixels; ``None``: to the nearest edge.
      log: radii evenly spaced in their logarithm.
      features: channels of the first stage; 2, 4, 4, ... times as many in the others.
      depth: stages.
      dropout: probability in front of the head.
      dtype: type of the activations (``"bfloat16"`` on accelerators); parameters and output are float32.

    Returns:
      A Linen module with the mutable collection ``batch_stats``; with dropout it asks for the random stream
      ``dropout``.

    Raises:
      ValueError: for an option out of range.
    """
    for name, number in (("num_classes", num_classes), ("features", features), ("depth", depth)):
        if number < 1:
            raise ValueError(f"model.kwargs.{name}: expected an integer of at least 1, got {number}")
    for name, number in (("num_radii", num_radii), ("num_angles", num_angles)):
        if number < 1 or number % 2**depth:
            raise ValueError(f"model.kwargs.{name}: expected a multiple of {2**depth} (depth = {depth}), got {number}")
    if not 0 <= dropout < 1:
        raise ValueError(f"model.kwargs.dropout: expected a number from 0 to below 1, got {dropout}")
    return PolarCNN(num_classes, num_radii, num_angles, r_min, r_max, log, features, depth, dropout, dtype)
