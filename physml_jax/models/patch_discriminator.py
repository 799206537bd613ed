"""PatchGAN discriminators at several scales: is every patch of an image real?"""

from functools import partial

from flax import linen as nn

from physml_jax.models.layers import Conv, halve, instance_norm
from physml_jax.typing import Array

_INIT = nn.initializers.normal(0.02)


class PatchDiscriminator(nn.Module):
    """One scale: strided 4x4 convolutions, features of every layer, then one logit per patch."""

    base_features: int
    num_layers: int
    dtype: str

    @nn.compact
    def __call__(self, x: Array) -> list[Array]:
        conv = partial(Conv, kernel_size=4, padding=2, kernel_init=_INIT, dtype=self.dtype)
        widths = [self.base_features * min(2**i, 8) for i in range(self.num_layers + 1)]
        features = [nn.leaky_relu(conv(widths[0], stride=2, name="conv1")(x), 0.2)]
        for i, width in enumerate(widths[1:], start=2):
            stride = 2 if i <= self.num_layers else 1
            y = conv(width, stride=stride, use_bias=False, name=f"conv{i}")(features[-1])
            features.append(nn.leaky_relu(instance_norm(y), 0.2))
        return [*features, conv(1, name="logits")(features[-1])]


class MultiScale(nn.Module):
    """See ``make_model``."""

    base_features: int
    num_layers: int
    num_scales: int
    dtype: str

    @nn.compact
    def __call__(self, inputs: Array, *, train: bool) -> list[list[Array]]:
        del train  # neither dropout nor running statistics
        x = inputs.astype(self.dtype)
        outputs = []
        for scale in range(self.num_scales):
            x = halve(x) if scale else x
            net = PatchDiscriminator(self.base_features, self.num_layers, self.dtype, name=f"scale{scale + 1}")
            outputs.append([y.astype("float32") for y in net(x)])
        return outputs


def make_model(
    *, base_features: int = 64, num_layers: int = 3, num_scales: int = 2, dtype: str = "float32"
) -> nn.Module:
    """Multi-scale PatchGAN: [B, H, W, C] (condition and image) -> outputs per scale.

    The defaults are the published discriminators of pix2pixHD: patches of 70x70 pixels, at full and at half size, 2.8
    million parameters each. ``num_scales=1`` is the discriminator of pix2pix, but for its normalisation (instance in
    place of batch).

    Args:
      base_features: channels of the first layer; they double per layer, up to 8-fold.
      num_layers: layers with stride 2; the patch has 16, 34, 70 or 142 pixels for 1, 2, 3 or 4.
      num_scales: discriminators; each sees half the size of the one before.
      dtype: dtype of the computation, ``"float32"`` or ``"bfloat16"``; parameters and outputs are float32.

    Returns:
      A module whose call takes the images and ``train`` (which changes nothing), and returns one list per scale, the
      largest first: the features of every layer, [B, h, w, c], and last the logits [B, h, w, 1].

    References:
      P. Isola et al., CVPR 2017, appendix 6.1.2; T.-C. Wang et al., CVPR 2018, section 3.2.
    """
    return MultiScale(base_features, num_layers, num_scales, dtype)
