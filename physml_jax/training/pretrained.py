"""A model that starts from a weight file of torchvision or timm: ``model.name = "physml_jax.training.pretrained"``.

Only the first state differs: parameters and batch statistics come from the file, the head is drawn anew. With
``optim.frozen`` naming everything but the head, the head alone is trained.
"""

import functools
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np
from flax import traverse_util

from physml_jax.core.resolve import check_kwargs, factory
from physml_jax.io.weights import read_weights
from physml_jax.models import pretrained
from physml_jax.training.freezing import Model


def make_model(*, family: str, weights: str, options: Mapping[str, Any]) -> Model:
    """A network of the package whose initial variables come from a file, except those of its head.

    Args:
      family: ``resnet``, ``vgg``, ``efficientnet`` or ``vit``, the module of the network.
      weights: path of the file, ``.safetensors``, or ``.pth`` where torch is installed.
      options: arguments of the network's factory; with its published sizes, or the file does not fit.

    Returns:
      ``init`` and ``apply``. The file is read when ``init`` is traced, and is no part of the compiled program.

    Raises:
      ValueError: for an unknown family or option, or if there is no such file; when traced, if it does not fit.
    """
    if family not in pretrained.FAMILIES:
        raise ValueError(f"model.kwargs.family: expected one of {', '.join(pretrained.FAMILIES)}, got {family!r}")
    if not Path(weights).is_file():
        raise ValueError(f"model.kwargs.weights: there is no file {weights}; it comes from torchvision or timm")
    make = factory("model", family)
    check_kwargs("model.kwargs.options", make, options)
    model = make(**options)

    def init(key, *args, **kwargs):
        flat = traverse_util.flatten_dict(model.init(key, *args, **kwargs))
        shapes = tuple((path, leaf.shape) for path, leaf in flat.items())
        loaded = _loaded(weights, Path(weights).stat().st_mtime_ns, family, shapes)
        kinds = {path: jax.ShapeDtypeStruct(values.shape, values.dtype) for path, values in loaded.items()}
        # Constants of a program would be compiled into it, more than a gigabyte of them for the largest networks.
        placed = jax.pure_callback(lambda: tuple(loaded.values()), tuple(kinds.values()))
        return traverse_util.unflatten_dict(flat | dict(zip(kinds, placed, strict=True)))

    return Model(init=init, apply=model.apply)


@functools.lru_cache(maxsize=1)  # states are traced more than once
def _loaded(weights: str, changed: int, family: str, shapes: tuple) -> dict[tuple[str, ...], np.ndarray]:
    """Arrays by the path of their leaf; the head has none."""
    del changed
    empty = traverse_util.unflatten_dict({path: jax.ShapeDtypeStruct(shape, np.float32) for path, shape in shapes})
    found = traverse_util.flatten_dict(pretrained.load(empty, read_weights(weights), family=family))
    return {path: leaf for path, leaf in found.items() if isinstance(leaf, np.ndarray)}
