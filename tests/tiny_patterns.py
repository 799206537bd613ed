"""Pictures and a network that compile in a moment, for tests of a search; selected by dotted names."""

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn

from physml_jax.core.rng import stream_key
from physml_jax.typing import Dataset

SHARES = np.array([0, 0, 0, 0, 0, 1, 1, 1, 2, 2], np.int32)  # classes of ten images


def make_dataset(*, split: str, num_images: int = 40, copies: int = 1) -> Dataset:
    """4 x 4 pictures of three classes with noise; the copies of an image differ by a sign of the last column."""

    def sample(keys, index):
        del keys
        image = index // copies
        label = jnp.asarray(SHARES)[image % len(SHARES)]
        noise = jax.vmap(lambda i: jax.random.normal(jax.random.fold_in(stream_key(0, split), i), (4, 4)))(image)
        picture = noise + 1.5 * jnp.eye(4)[label][:, None, :]
        sign = 1.0 - 2.0 * (index % copies).astype(jnp.float32)
        picture = picture.at[:, :, 3].multiply(sign[:, None])
        return {"image": picture[..., None], "label": label}

    spec = {"image": jax.ShapeDtypeStruct((4, 4, 1), jnp.float32), "label": jax.ShapeDtypeStruct((), jnp.int32)}
    return Dataset(spec=spec, num_examples=num_images * copies, sample=sample)


class Tiny(nn.Module):
    """Two dense layers, normalisation and dropout."""

    width: int
    norm: bool

    @nn.compact
    def __call__(self, x, *, train: bool):
        # A bias in front of normalisation has no gradient but rounding, which Adam makes a step of.
        x = nn.Dense(self.width, use_bias=not self.norm)(x.reshape(x.shape[0], -1))
        if self.norm:
            x = nn.BatchNorm(use_running_average=not train)(x)
        x = nn.Dropout(0.2, deterministic=not train)(nn.tanh(x))
        return nn.Dense(3)(x)


def make_model(*, width: int, norm: bool) -> nn.Module:
    return Tiny(width, norm)
