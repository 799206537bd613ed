"""A network that compiles in a second and has all that the engine must carry: parameters and batch statistics.

Tests select it by its dotted name, as users select their own models.
"""

from flax import linen as nn


class TinyModel(nn.Module):
    """One convolution, batch normalisation, mean over the sites, one dense layer."""

    num_classes: int
    width: int = 4

    @nn.compact
    def __call__(self, x, *, train: bool):
        x = nn.Conv(self.width, (3, 3), use_bias=False)(x)
        x = nn.relu(nn.BatchNorm(use_running_average=not train)(x))
        return nn.Dense(self.num_classes)(x.mean(axis=(1, 2)))


def make_model(*, num_classes: int) -> nn.Module:
    return TinyModel(num_classes)
