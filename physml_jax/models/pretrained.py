"""Weights of torchvision and timm models as variables of ours.

Both libraries name the layers of a ResNet alike; of a VGG, an EfficientNet or a vision transformer both namings are
known and told apart by the names found. What is read here are arrays by name: ``io.weights`` gets them from a file.

Networks trained on photographs expect three channels. A picture with one grey channel that is copied to three goes
through the first layer exactly as a picture with one channel goes through the sum of its kernels over the input, so a
model for one channel takes that sum: the answer of the copied picture, without the copies.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import numpy as np
from flax import traverse_util

from physml_jax.typing import Array, Tree

FAMILIES = ("resnet", "vgg", "efficientnet", "vit")

Path = tuple[str, ...]  # of a leaf in the variables: collection, module, ..., name


class Origin(NamedTuple):
    """Where the values of one leaf come from.

    Attributes:
      names: what torchvision and timm, or their versions, call the array.
      convert: its axes in our order.
    """

    names: tuple[str, ...]
    convert: Callable[[np.ndarray], np.ndarray]


def load(variables: Tree, tensors: Mapping[str, np.ndarray], *, family: str, keep: Sequence[str] = ("head",)) -> Tree:
    """Variables of one of our models with the values of a torch state dict.

    Args:
      variables: of ``model.init``; where ``keep`` is empty their shapes are enough. The model must have the published
        structure, and a vision transformer needs ``exact_gelu`` to give the same answers.
      tensors: arrays by their torch names.
      family: ``resnet``, ``vgg``, ``efficientnet`` or ``vit``, the module of the model.
      keep: modules that keep their values, by name; what the file has for them is ignored. ``head`` is the last layer
        of every family, which answers for other classes.

    Returns:
      The variables; what was loaded are NumPy arrays, float32.

    Raises:
      ValueError: for a family or a module that does not exist, an array that is missing, has another shape or is not
        finite, and for arrays of the file that nothing would read.
    """
    if family not in FAMILIES:
        raise ValueError(f"family: expected one of {', '.join(FAMILIES)}, got {family!r}")
    flat = traverse_util.flatten_dict(variables)
    kept = {"Dense_0" if (family, name) == ("resnet", "head") else name for name in keep}
    if unknown := sorted(kept - {path[1] for path in flat}):
        raise ValueError(
            f"keep: the model has no module {', '.join(unknown)}; it has {', '.join(sorted({p[1] for p in flat}))}"
        )
    origins = _ORIGINS[family](flat)
    read, loaded = set(), {}
    for path, leaf in flat.items():
        names, convert = origins(path)
        if path[1] in kept:
            read.update(names)
            loaded[path] = leaf
            continue
        name = next((n for n in names if n in tensors), None)
        if name is None:
            raise ValueError(
                f"weights: there is no {' or '.join(map(repr, names))} for {'/'.join(path)}; the file has "
                f"{len(tensors)} arrays: {', '.join(sorted(tensors)[:3])}, ..."
            )
        read.add(name)
        loaded[path] = _converted(name, path, leaf.shape, tensors[name], convert)
    extra = sorted(n for n in tensors if n not in read and not n.endswith("num_batches_tracked"))
    if extra:
        shown = ", ".join(extra[:5]) + (", ..." if len(extra) > 5 else "")
        raise ValueError(
            f"weights: the model has no place for {len(extra)} of the {len(tensors)} arrays of the file: {shown}"
        )
    return traverse_util.unflatten_dict(loaded)


def _converted(name, path, shape, tensor, convert):
    where = f"weights: {name!r} for {'/'.join(path)}"
    tensor = np.asarray(tensor)
    if tensor.dtype.kind not in "fV":  # "V" is bfloat16
        raise ValueError(f"{where}: expected floating-point numbers, got {tensor.dtype}")
    values = tensor.astype(np.float32)
    try:
        values = convert(values)
    except ValueError:
        raise ValueError(f"{where}: axes {list(tensor.shape)} do not fit {list(shape)}") from None
    if values.shape != tuple(shape):
        raise ValueError(f"{where}: expected the shape {list(shape)}, got {list(values.shape)}")
    if not np.isfinite(values).all():
        raise ValueError(f"{where}: {int((~np.isfinite(values)).sum())} values are not finite")
    return np.ascontiguousarray(values)


# --- axes


def _same(t: np.ndarray) -> np.ndarray:
    return t


def _dense(t: np.ndarray) -> np.ndarray:
    """[out, in] -> [in, out]; a 1x1 convolution is a dense layer."""
    return (t[:, :, 0, 0] if t.ndim == 4 and t.shape[2:] == (1, 1) else t).transpose(1, 0)


def _conv(t: np.ndarray) -> np.ndarray:
    """[out, in, kh, kw] -> [kh, kw, in, out]; depthwise: [channels, 1, kh, kw] -> [kh, kw, 1, channels]."""
    return t.transpose(2, 3, 1, 0)


def _first(channels: int) -> Callable[[np.ndarray], np.ndarray]:
    """A first convolution, summed over its input channels for a model that reads one."""
    return lambda t: _conv(t.sum(1, keepdims=True) if channels == 1 else t)


def _patches(inputs: int) -> Callable[[np.ndarray], np.ndarray]:
    """The convolution that embeds patches as a dense layer on their [patch, patch, channels] values."""

    def convert(t):
        channels = inputs // (t.shape[2] * t.shape[3])
        return _first(channels)(t).reshape(-1, t.shape[0])

    return convert


def _flattened(channels: int) -> Callable[[np.ndarray], np.ndarray]:
    """The first dense layer behind the maps: [out, channels h w] or [out, channels, h, w] -> [h w channels, out]."""

    def convert(t):
        return t.reshape(t.shape[0], channels, -1).transpose(2, 1, 0).reshape(-1, t.shape[0])

    return convert


# --- names


_NORM = {"scale": "weight", "bias": "bias", "mean": "running_mean", "var": "running_var"}


def _leaf(path: Path, modules: Sequence[str], kernel: Callable[[np.ndarray], np.ndarray]) -> Origin:
    """A leaf of a layer that has the given names: its kernel, or one of its vectors."""
    if path[-1] == "kernel":
        return Origin(tuple(f"{m}.weight" for m in modules), kernel)
    return Origin(tuple(f"{m}.{_NORM[path[-1]]}" for m in modules), _same)


def _resnet(flat: Mapping[Path, Array]) -> Callable[[Path], Origin]:
    blocks, features, stage, within = {}, None, 0, 0
    first = {p[1]: leaf.shape[-1] for p, leaf in flat.items() if "Block_" in p[1] and p[2:] == ("Conv_0", "kernel")}
    for block in sorted(first, key=_number):  # a stage has one number of channels
        stage, within = (stage, within + 1) if first[block] == features else (stage + 1, 0)
        blocks[block], features = f"layer{stage}.{within}", first[block]

    def origin(path):
        if path[1] in ("Conv_0", "BatchNorm_0"):
            return _leaf(path, ["conv1" if path[1] == "Conv_0" else "bn1"], _first(_inputs(flat, "Conv_0")))
        if path[1] == "Dense_0":
            return _leaf(path, ["fc"], _dense)
        kind, number = path[2].split("_")
        convolutions = 3 if path[1].startswith("Bottleneck") else 2
        if int(number) == convolutions:
            inner = "downsample.0" if kind == "Conv" else "downsample.1"
        else:
            inner = f"{'conv' if kind == 'Conv' else 'bn'}{int(number) + 1}"
        return _leaf(path, [f"{blocks[path[1]]}.{inner}"], _conv)

    return origin


def _vgg(flat: Mapping[Path, Array]) -> Callable[[Path], Origin]:
    numbers, at, previous = {}, 0, "1"
    for name in sorted({p[1] for p in flat if p[1].startswith("stage")}):
        stage = name.removeprefix("stage")[0]
        at += stage != previous  # a maximum lies between two stages
        numbers[name], at, previous = at, at + 2, stage  # a ReLU follows every convolution
    channels = flat[("params", max(numbers), "conv", "kernel")].shape[-1]
    dense = {
        "dense1": (["classifier.0", "pre_logits.fc1"], _flattened(channels)),
        "dense2": (["classifier.3", "pre_logits.fc2"], _dense),
        "head": (["classifier.6", "head.fc"], _dense),
    }

    def origin(path):
        if path[1] in dense:
            return _leaf(path, *dense[path[1]])
        kernel = _first(_inputs(flat, "stage1_conv1", "conv")) if path[1] == "stage1_conv1" else _conv
        return _leaf(path, [f"features.{numbers[path[1]]}"], kernel)

    return origin


def _efficientnet(flat: Mapping[Path, Array]) -> Callable[[Path], Origin]:
    modules = {p[1:3] for p in flat}
    last = 1 + max(int(p[1][5]) for p in flat if p[1].startswith("stage"))
    outer = {
        "stem": ("features.0.0", "conv_stem"),
        "stem_norm": ("features.0.1", "bn1"),
        "last": (f"features.{last}.0", "conv_head"),
        "last_norm": (f"features.{last}.1", "bn2"),
        "head": ("classifier.1", "classifier"),
    }
    plain = {
        "depthwise": ("0.0", "conv_dw"),
        "depthwise_norm": ("0.1", "bn1"),
        "squeeze": ("1.fc1", "se.conv_reduce"),
        "excite": ("1.fc2", "se.conv_expand"),
        "project": ("2.0", "conv_pw"),
        "project_norm": ("2.1", "bn2"),
    }
    expanding = {
        "expand": ("0.0", "conv_pw"),
        "expand_norm": ("0.1", "bn1"),
        "depthwise": ("1.0", "conv_dw"),
        "depthwise_norm": ("1.1", "bn2"),
        "squeeze": ("2.fc1", "se.conv_reduce"),
        "excite": ("2.fc2", "se.conv_expand"),
        "project": ("3.0", "conv_pwl"),
        "project_norm": ("3.1", "bn3"),
    }

    def origin(path):
        if path[1] in outer:
            kernel = {"stem": _first(_inputs(flat, "stem")), "head": _dense}.get(path[1], _conv)
            return _leaf(path, outer[path[1]], kernel)
        stage, block = (int(part.lstrip("stageblock")) for part in path[1].split("_"))
        torchvision, timm = (expanding if (path[1], "expand") in modules else plain)[path[2]]
        names = (f"features.{stage}.{block - 1}.block.{torchvision}", f"blocks.{stage - 1}.{block - 1}.{timm}")
        return _leaf(path, names, _dense if path[2] in ("squeeze", "excite") else _conv)

    return origin


def _vit(flat: Mapping[Path, Array]) -> Callable[[Path], Origin]:
    outer = {
        "embed": (("conv_proj", "patch_embed.proj"), _patches(flat[("params", "embed", "kernel")].shape[0])),
        "norm": (("encoder.ln", "norm"), _same),
        "head": (("heads.head", "head"), _dense),
    }
    inner = {
        "norm1": ("ln_1", "norm1"),
        "norm2": ("ln_2", "norm2"),
        "out": ("self_attention.out_proj", "attn.proj"),
        "mlp1": ("mlp.0", "mlp.fc1", "mlp.linear_1"),
        "mlp2": ("mlp.3", "mlp.fc2", "mlp.linear_2"),
    }
    thirds = ("query", "key", "value")

    def third(number, convert):
        return lambda t: convert(np.split(t, 3)[number])

    def origin(path):
        if path[1] == "token":
            return Origin(("class_token", "cls_token"), _same)
        if path[1] == "position":
            return Origin(("encoder.pos_embedding", "pos_embed"), lambda t: t[0])
        if path[1] in outer:
            return _leaf(path, *outer[path[1]])
        block = int(path[1].removeprefix("block")) - 1
        torchvision, timm = f"encoder.layers.encoder_layer_{block}.", f"blocks.{block}."
        if path[2] in thirds:
            kind = "weight" if path[3] == "kernel" else "bias"
            names = (f"{torchvision}self_attention.in_proj_{kind}", f"{timm}attn.qkv.{kind}")
            return Origin(names, third(thirds.index(path[2]), _dense if kind == "weight" else _same))
        names = [
            (timm if name.startswith(("norm", "attn", "mlp.fc")) else torchvision) + name for name in inner[path[2]]
        ]
        return _leaf(path, names, _dense)

    return origin


_ORIGINS = {"resnet": _resnet, "vgg": _vgg, "efficientnet": _efficientnet, "vit": _vit}


def _inputs(flat: Mapping[Path, Array], *module: str) -> int:
    """Input channels of a convolution."""
    return flat[("params", *module, "kernel")].shape[2]


def _number(name: str) -> int:
    return int(name.rsplit("_", 1)[1])
