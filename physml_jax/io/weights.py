"""Weight files of other programs as NumPy arrays by name: safetensors, and PyTorch's ``.pth`` where torch is installed.

Nothing in a file is trusted: sizes and offsets are checked against the file before memory is touched, and a ``.pth``
goes through torch's weights-only loader, which builds tensors and runs no code.
"""

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np

_DTYPES = {
    "F64": np.dtype("<f8"),
    "F32": np.dtype("<f4"),
    "F16": np.dtype("<f2"),
    "BF16": np.dtype(ml_dtypes.bfloat16),
    "I64": np.dtype("<i8"),
    "I32": np.dtype("<i4"),
    "I16": np.dtype("<i2"),
    "I8": np.dtype("i1"),
    "U8": np.dtype("u1"),
    "BOOL": np.dtype("?"),
}
#: The format's own bound on the length of the header.
_MAX_HEADER = 100_000_000
#: Names under which training programs keep the weights within their checkpoints.
_NESTED = ("state_dict", "model", "model_state_dict")


def read_weights(path: str | Path) -> dict[str, np.ndarray]:
    """The arrays of a weight file.

    Args:
      path: ``.safetensors``; or ``.pth``, ``.pt`` or ``.bin``, which need torch.

    Returns:
      Arrays by name, as stored (dtype, axes in the order of the program that wrote them), read-only.

    Raises:
      ValueError: for a file that is damaged or holds no arrays.
      ImportError: for a PyTorch file without torch.
    """
    path = Path(path)
    if not path.is_file():
        raise ValueError(f"weights: there is no file {path}")
    if path.suffix == ".safetensors":
        return read_safetensors(path)
    if path.suffix in (".pth", ".pt", ".bin"):
        return read_torch(path)
    raise ValueError(f"weights: expected a .safetensors or .pth file, got {path.name}")


def read_safetensors(path: Path) -> dict[str, np.ndarray]:
    """Arrays of a safetensors file: 8 bytes with the length of a JSON header, the header, then the raw arrays.

    The arrays are views of the file: what is not used is not read.

    Raises:
      ValueError: naming the file and what is wrong with it.

    References:
      https://huggingface.co/docs/safetensors, "Format".
    """
    size = path.stat().st_size
    with open(path, "rb") as f:
        start = f.read(8)
        length = int.from_bytes(start, "little")
        if len(start) < 8 or length > min(size - 8, _MAX_HEADER):
            raise ValueError(f"{path}: not a safetensors file, or cut off: {size} bytes do not hold its header")
        try:
            header = json.loads(f.read(length))
        except ValueError:  # UnicodeDecodeError is one too
            header = None
    if not isinstance(header, dict):
        raise ValueError(f"{path}: not a safetensors file: its header is no JSON object")
    header.pop("__metadata__", None)
    if not header:
        raise ValueError(f"{path}: holds no arrays")

    data_size = size - 8 - length
    data = np.memmap(path, np.uint8, "r", offset=8 + length, shape=(data_size,)) if data_size else np.zeros(0, np.uint8)
    arrays, reached = {}, 0
    for name, entry in sorted(header.items(), key=_begin):
        dtype, shape, begin, end = _checked_entry(path, name, entry)
        if begin != reached:
            raise ValueError(
                f"{path}: the arrays overlap or leave a gap at {name!r} (byte {begin}, expected {reached})"
            )
        if end > data_size:
            raise ValueError(f"{path}: cut off: {name!r} ends at byte {end} of the arrays, the file has {data_size}")
        arrays[name] = np.frombuffer(data[begin:end], np.uint8).view(dtype).reshape(shape)
        reached = end
    if reached != data_size:
        raise ValueError(f"{path}: {data_size - reached} bytes behind the last array")
    return arrays


def read_torch(path: Path) -> dict[str, np.ndarray]:
    """Arrays of a PyTorch state dict, also within a checkpoint under ``state_dict`` or ``model``.

    Raises:
      ValueError: for a file that the weights-only loader refuses or that holds no tensors.
      ImportError: without torch.
    """
    try:
        import torch
    except ImportError:
        raise ImportError(
            f"{path.name} is a PyTorch file, and torch is not installed: pip install torch, or take the .safetensors "
            "version of the weights"
        ) from None
    try:
        found = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # zipfile, pickle, EOF and runtime errors, by the kind of damage
        raise ValueError(f"{path}: torch cannot read it as weights only ({str(error).splitlines()[0]})") from error
    for name in _NESTED:
        if isinstance(found, Mapping) and isinstance(found.get(name), Mapping):
            found = found[name]
    tensors = {k: v for k, v in found.items() if isinstance(v, torch.Tensor)} if isinstance(found, Mapping) else {}
    if not tensors:
        raise ValueError(f"{path}: holds no tensors by name; expected a state dict")
    # NumPy knows no bfloat16 of torch's; float32 holds all its values.
    return {
        k.removeprefix("module."): (v.float() if v.dtype == torch.bfloat16 else v).numpy() for k, v in tensors.items()
    }


def _begin(item: tuple[str, Any]) -> tuple[int, int]:
    """Order of an entry within the file; damaged entries first, where they are refused."""
    try:
        begin, end = item[1]["data_offsets"]
        return int(begin), int(end)
    except (TypeError, KeyError, ValueError):
        return -1, -1


def _checked_entry(path, name, entry):
    try:
        kind, shape, (begin, end) = entry["dtype"], tuple(entry["shape"]), entry["data_offsets"]
    except (TypeError, KeyError, ValueError):
        raise ValueError(f"{path}: the header's entry for {name!r} lacks dtype, shape or data_offsets") from None
    if kind not in _DTYPES:
        raise ValueError(f"{path}: {name!r} has the dtype {kind!r}; known: {', '.join(_DTYPES)}")
    if not all(type(n) is int and n >= 0 for n in (*shape, begin, end)):
        raise ValueError(f"{path}: {name!r}: shape and offsets must be integers of at least 0")
    if end - begin != math.prod(shape) * _DTYPES[kind].itemsize:
        raise ValueError(f"{path}: {name!r}: {end - begin} bytes do not hold {kind} {list(shape)}")
    return _DTYPES[kind], shape, begin, end
