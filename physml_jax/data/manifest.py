"""What a stored data set says about itself: sizes and digests of its files, digests of its decoded records, its origin.

The manifest is written last. A folder without a whole manifest is not a data set, and a data set that differs from its
manifest is damaged.
"""

import hashlib
import importlib.metadata
import json
import platform
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np

from physml_jax.io import files
from physml_jax.typing import Batch, Recipe

FORMAT = 1  # part of every folder name: a new layout never meets an old folder
MANIFEST = "manifest.json"
RECORDS = "records"
_PACKAGES = ("physml_jax", "jax", "numpy", "tensorflow-datasets", "array_record", "gemmi")


def canonical_json(value: Any) -> str:
    """JSON with sorted keys and nothing optional, so that equal values give equal text.

    Raises:
      ValueError: if the value holds something that JSON cannot say, NaN and infinity included.

    """
    try:
        return json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False)
    except TypeError as error:
        raise ValueError(f"expected numbers, texts, lists and dicts, but {error}") from error


def folder_name(recipe: Recipe) -> str:
    """Name of the folder of a recipe's data set: its short name and a hash of everything that the content depends on.

    Raises:
      ValueError: if the recipe's name cannot be a folder name, or its config is not JSON-serialisable.

    """
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]*", recipe.name):
        raise ValueError(f"recipe.name: expected letters, digits, '.', '_' and '-', got {recipe.name!r}")
    content = {
        "format": FORMAT,
        "config": dict(recipe.config),
        "spec": spec_to_json(recipe.spec),
        "shards": [int(n) for n in recipe.shard_lengths],
    }
    try:
        text = canonical_json(content)
    except ValueError as error:
        raise ValueError(f"recipe.config of {recipe.name!r}: {error}") from error
    return f"{recipe.name}-{hashlib.sha256(text.encode()).hexdigest()[:16]}"


def spec_to_json(spec: Batch) -> dict[str, list[Any]]:
    """``{key: [dtype name, shape]}`` of a record's specification."""
    return {key: [np.dtype(s.dtype).name, [int(n) for n in s.shape]] for key, s in spec.items()}


def spec_from_json(spec: Mapping[str, Sequence[Any]]) -> Batch:
    """The inverse of :func:`spec_to_json`."""
    return {key: jax.ShapeDtypeStruct(tuple(shape), np.dtype(dtype)) for key, (dtype, shape) in spec.items()}


def record_bytes(spec: Batch) -> int:
    """Bytes of one decoded record."""
    return sum(int(np.prod(s.shape, dtype=np.int64)) * np.dtype(s.dtype).itemsize for s in spec.values())


def digest_arrays(arrays: Mapping[str, np.ndarray]) -> str:
    """Hexadecimal SHA-256 of named arrays: names, dtypes, shapes and content, whatever the order of the names."""
    digest = hashlib.sha256()
    for key in sorted(arrays):
        array = np.ascontiguousarray(arrays[key])
        digest.update(canonical_json([key, array.dtype.name, list(array.shape)]).encode())
        digest.update(array.tobytes())
    return digest.hexdigest()


def write_manifest(folder: Path, recipe: Recipe, shard_digests: Sequence[str], remarks: Sequence[str] = ()) -> None:
    """Describes the finished records in ``folder``; after this the folder is a data set."""
    content = {
        "format": FORMAT,
        "name": recipe.name,
        "config": json.loads(canonical_json(dict(recipe.config))),
        "spec": spec_to_json(recipe.spec),
        "num_records": sum(recipe.shard_lengths),
        "shard_lengths": [int(n) for n in recipe.shard_lengths],
        "shard_digests": list(shard_digests),
        "digest": hashlib.sha256("".join(shard_digests).encode()).hexdigest(),
        "files": {
            path.relative_to(folder).as_posix(): {"size": path.stat().st_size, "sha256": files.sha256_file(path)}
            for path in sorted((folder / RECORDS).rglob("*"))
            if path.is_file()
        },
        "versions": {"python": platform.python_version(), **{p: _version(p) for p in _PACKAGES}},
        "attribution": [dict(a) for a in recipe.attribution],
        "labels": list(recipe.labels),
        "remarks": list(remarks),
    }
    content["self"] = _self_digest(content)
    files.write_atomic(folder / MANIFEST, json.dumps(content, indent=1, ensure_ascii=False) + "\n")


def read_manifest(folder: Path) -> dict[str, Any]:
    """The manifest of a data set.

    Raises:
      OSError: if it is missing, cannot be parsed, or differs from the digest that it holds of itself.

    """
    path = Path(folder) / MANIFEST
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise OSError(f"{path}: missing, so the folder is not a finished data set") from None
    except ValueError as error:
        raise OSError(f"{path}: not JSON ({error})") from error
    if not isinstance(content, dict) or content.get("self") != _self_digest(content):
        raise OSError(f"{path}: differs from its own digest")
    if content["format"] != FORMAT:
        raise OSError(f"{path}: expected format {FORMAT}, found {content['format']}")
    return content


def quick_problems(folder: Path, manifest: Mapping[str, Any]) -> list[str]:
    """What file sizes alone can tell: one line per file that is missing or has another size."""
    problems = []
    for name, expected in manifest["files"].items():
        path = Path(folder) / name
        if not path.is_file():
            problems.append(f"{name}: missing")
        elif path.stat().st_size != expected["size"]:
            problems.append(f"{name}: {path.stat().st_size} bytes, expected {expected['size']}")
    return problems


def file_problems(folder: Path, manifest: Mapping[str, Any]) -> list[str]:
    """Like :func:`quick_problems`, with the content of every file, and files that do not belong here."""
    folder = Path(folder)
    problems = quick_problems(folder, manifest)
    named = {p.split(":")[0] for p in problems}
    for name, expected in manifest["files"].items():
        if name not in named and files.sha256_file(folder / name) != expected["sha256"]:
            problems.append(f"{name}: content differs from its SHA-256")
    known = {MANIFEST, *manifest["files"]}
    extra = (p.relative_to(folder).as_posix() for p in sorted(folder.rglob("*")) if not p.is_dir())
    return problems + [f"{name}: does not belong to the data set" for name in extra if name not in known]


def _self_digest(content: Mapping[str, Any]) -> str:
    return hashlib.sha256(canonical_json({k: v for k, v in content.items() if k != "self"}).encode()).hexdigest()


def _version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None
