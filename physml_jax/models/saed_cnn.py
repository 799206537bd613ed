"""The space of small networks that an architecture search on electron diffraction patterns went through.

Equal blocks of convolution, ReLU, 2x2 maximum and normalisation, then dense layers. The defaults are the network that
the search returned, 299-AN; its sigmoid in front of the cross entropy bounds the logits to (0, 1), so that with nine
classes the loss cannot fall below log(1 + 8/e) = 1.372.
"""

import jax
import jax.numpy as jnp
from flax import linen as nn

from physml_jax.models.convolution import conv_general_dilated
from physml_jax.models.pooling import max_pool_2x2
from physml_jax.typing import Array

DENSE = ("constant", "encoder")
PADDINGS = ("valid", "same")

# U(-1/sqrt(fan_in), 1/sqrt(fan_in)), the default of the framework that the published network was trained with.
_UNIFORM = nn.initializers.variance_scaling(1 / 3, "fan_in", "uniform")


class SaedCNN(nn.Module):
    """See ``make_model``."""

    num_classes: int
    conv_layers: int
    dense_layers: int
    first_dense: int
    dense: str
    batch_norm: bool
    dropout_2d: float
    dropout: float
    sigmoid: bool
    features: int
    padding: str
    dtype: str

    @nn.compact
    def __call__(self, inputs: Array, *, train: bool) -> Array:
        x = inputs.astype(self.dtype)

        def norm(x: Array, name: str) -> Array:
            if not self.batch_norm:
                return x
            options = {"momentum": 0.9, "epsilon": 1e-5, "dtype": self.dtype}
            return nn.BatchNorm(use_running_average=not train, **options, name=name)(x)

        for i in range(self.conv_layers):
            if min(x.shape[1:3]) < (4 if self.padding == "valid" else 2):
                raise ValueError(
                    f"inputs: a picture of {inputs.shape[1:3]} is too small for conv_layers = {self.conv_layers} with "
                    f"padding {self.padding!r}; layer {i + 1} would see {x.shape[1:3]} pixels"
                )
            x = nn.Conv(
                self.features,
                (3, 3),
                padding=self.padding.upper(),
                kernel_init=_UNIFORM,
                dtype=self.dtype,
                conv_general_dilated=conv_general_dilated,
                name=f"conv{i + 1}",
            )(x)
            x = norm(max_pool_2x2(nn.relu(x)), f"conv{i + 1}_norm")
            # Whole channels of a picture are dropped.
            x = nn.Dropout(self.dropout_2d, broadcast_dims=(1, 2), deterministic=not train)(x)
        x = x.reshape(x.shape[0], -1)
        for i in range(self.dense_layers - 1):
            units = self.first_dense if self.dense == "constant" else max(1, self.first_dense // 2**i)
            x = nn.relu(nn.Dense(units, kernel_init=_UNIFORM, dtype=self.dtype, name=f"dense{i + 1}")(x))
            x = nn.Dropout(self.dropout, deterministic=not train)(norm(x, f"dense{i + 1}_norm"))
        x = nn.Dense(self.num_classes, kernel_init=_UNIFORM, name="head")(x.astype(jnp.float32))
        return jax.nn.sigmoid(x) if self.sigmoid else x


def make_model(
    *,
    num_classes: int = 9,
    conv_layers: int = 6,
    dense_layers: int = 5,
    first_dense: int = 64,
    dense: str = "constant",
    batch_norm: bool = True,
    dropout_2d: float = 0.0,
    dropout: float = 0.0,
    sigmoid: bool = True,
    features: int = 32,
    padding: str = "valid",
    dtype: str = "float32",
) -> nn.Module:
    """A network of the search space: [B, H, W, C] -> float32 [B, num_classes]; the defaults are 299-AN.

    Args:
      num_classes: number of outputs.
      conv_layers: blocks of 3x3 convolution, ReLU, 2x2 maximum and normalisation; the search took 1 to 6.
      dense_layers: dense layers, the one with the outputs included; the search took 1 to 6.
      first_dense: units of the first hidden dense layer; the search took 8, 16, 32 and 64.
      dense: hidden dense layers of ``"constant"`` size, or each half of the one before (``"encoder"``).
      batch_norm: normalise behind every block and every hidden dense layer.
      dropout_2d: probability that a channel of a picture is dropped behind a block; the search took it or left it.
      dropout: probability of dropout behind a hidden dense layer.
      sigmoid: the outputs go through a sigmoid, as published, in front of the softmax of the loss; ``False`` gives
        logits.
      features: channels of the convolutions.
      padding: ``"valid"`` (six blocks need at least 190 pixels) or ``"same"`` (64).
      dtype: type of the activations (``"bfloat16"`` on accelerators); parameters and output are float32.

    Returns:
      A Linen module; with ``batch_norm`` it has the mutable collection ``batch_stats``, with dropout it asks for the
      random stream ``dropout``. Parameters hold for one size of picture.

    Raises:
      ValueError: for an unknown option; when called, for a picture that is too small.

    References:
      N. Tomczak, S. Kuppannagari, Automated indexing of TEM diffraction patterns using machine learning, IEEE HPEC
      2023, and the authors' published scripts.
    """
    for name, choice, known in (("dense", dense, DENSE), ("padding", padding, PADDINGS)):
        if choice not in known:
            raise ValueError(f"model.kwargs.{name}: expected one of {', '.join(known)}, got {choice!r}")
    for name, number in (
        ("num_classes", num_classes),
        ("conv_layers", conv_layers),
        ("dense_layers", dense_layers),
        ("first_dense", first_dense),
        ("features", features),
    ):
        if number < 1:
            raise ValueError(f"model.kwargs.{name}: expected an integer of at least 1, got {number}")
    for name, rate in (("dropout_2d", dropout_2d), ("dropout", dropout)):
        if not 0 <= rate < 1:
            raise ValueError(f"model.kwargs.{name}: expected a number from 0 to below 1, got {rate}")
    return SaedCNN(
        num_classes=num_classes,
        conv_layers=conv_layers,
        dense_layers=dense_layers,
        first_dense=first_dense,
        dense=dense,
        batch_norm=batch_norm,
        dropout_2d=dropout_2d,
        dropout=dropout,
        sigmoid=sigmoid,
        features=features,
        padding=padding,
        dtype=dtype,
    )
