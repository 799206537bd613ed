"""Stored data sets: built once from a recipe, shard by shard, and read by record number.

``build`` survives a kill at any moment. Every shard is computed on its own and kept as a *part*, a file with a digest;
a part that is torn or changed is computed again. When all parts exist they are written as array_record files, decoded
again, compared, described in a manifest and deleted. Any number of processes may build the same data set at once, on
one machine or on several with a common file system that has locks: each takes the shards that nobody else is at.
"""

import os
import shutil
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from physml_jax.core import rng
from physml_jax.data import manifest as manifests
from physml_jax.data import parts
from physml_jax.io import files
from physml_jax.typing import Batch, Dataset, Read, Recipe

Progress = Callable[[int, int, str], None]  # finished shards, all shards, one line of text

FILE_BYTES = 128 << 20  # a file of records closes after the shard that passes this size
_TEMPORARY = (".removed.", f".{manifests.RECORDS}.", f".{manifests.MANIFEST}.")  # names that a kill may leave behind


class Store(NamedTuple):
    """A finished data set, open for reading.

    Attributes:
      path: its folder.
      length: number of records.
      spec: ``ShapeDtypeStruct`` of one record by key.
      read: int array [n] of record numbers -> dict of arrays [n, ...]; safe to call from several threads.
      labels: one short text per record, or empty.
      manifest: what the data set says about itself.
      remarks: what its recipe found worth telling about its records, or empty.

    """

    path: Path
    length: int
    spec: Batch
    read: Read
    labels: tuple[str, ...]
    manifest: Mapping[str, Any]
    remarks: tuple[str, ...] = ()


def build(
    recipe: Recipe,
    *,
    root: Path | str | None = None,
    progress: Progress | None = None,
    process_index: int = 0,
    num_processes: int = 1,
) -> Path:
    """Makes the data set of a recipe, or finds it made.

    A finished data set is recognised by its manifest and the sizes of its files (:func:`verify` checks the content);
    a damaged one is built again. Processes that build at once share the work: process ``i`` of ``n`` begins with the
    shards ``i, i + n, ...``, then helps with what is left, and every one returns when the data set is whole.

    Args:
      recipe: what to build.
      root: folder of data sets; by default ``datasets`` in the cache folder.
      progress: called with (finished shards, all shards, one line of text) after each shard, and before waiting.
      process_index: number of this process, from 0.
      num_processes: how many processes build this data set together.

    Returns:
      The folder of the finished data set.

    Raises:
      ValueError: if the recipe contradicts itself, or a record differs from the spec or holds a value that is not
        finite; the message names the record, its label and the key.
      OSError: if the disk is full, or what was written reads back different.

    """
    _check_recipe(recipe)
    if not 0 <= process_index < num_processes:
        raise ValueError(f"process_index: expected 0 to {num_processes - 1} (num_processes - 1), got {process_index}")
    root = files.cache_dir("datasets") if root is None else Path(root)
    folder = root / manifests.folder_name(recipe)
    folder.mkdir(parents=True, exist_ok=True)
    total = len(recipe.shard_lengths)
    tell = progress or (lambda done, total, text: None)

    def wait() -> None:
        tell(total, total, f"{recipe.name}: waiting for another process that is finishing {folder}")

    def locked():
        return files.locked(root / f".{folder.name}.lock", on_wait=wait)

    if not _finished(folder):
        with locked():
            damage = _damage(folder)
            if damage:
                tell(0, total, f"{recipe.name}: damaged, so it is built again: {damage}")
                (folder / manifests.MANIFEST).unlink()
        if parts.compute_parts(
            recipe,
            folder,
            finished=lambda: _finished(folder),
            tell=tell,
            process_index=process_index,
            num_processes=num_processes,
        ):
            with locked():
                if not _finished(folder):
                    tell(total, total, f"{recipe.name}: writing {sum(recipe.shard_lengths)} records")
                    _assemble(recipe, folder)
    if _leftovers(folder):
        with locked():
            _remove(_leftovers(folder))
    return folder


def open_store(path: Path | str, *, memory_limit: int = 2 << 30) -> Store:
    """Opens a finished data set.

    Args:
      path: its folder, as :func:`build` returns it.
      memory_limit: a data set whose decoded records need at most this many bytes is read whole on first use, checked
        against the digests in its manifest, and kept; a larger one is read from the disk record by record, with no
        check but the one of array_record.

    Returns:
      The open data set; nothing but the manifest has been read yet.

    Raises:
      OSError: if the folder holds no whole manifest, or a file is missing or has another size. Reading raises it for
        damaged records.

    """
    path = Path(path)
    manifest = manifests.read_manifest(path)
    problems = manifests.quick_problems(path, manifest)
    if problems:
        raise OSError(f"{path}: {problems[0]}; delete the folder and build it again")
    spec = manifests.spec_from_json(manifest["spec"])
    length = manifest["num_records"]
    small = manifests.record_bytes(spec) * length <= memory_limit
    lock = threading.Lock()
    held: dict[str, Any] = {}

    def open_once() -> Callable[[Sequence[int]], dict[str, np.ndarray]]:
        with lock:
            if "gather" not in held:
                if small:
                    arrays = _load_all(path, spec, manifest)
                    held["gather"] = lambda rows: {key: array[rows] for key, array in arrays.items()}
                else:
                    held["gather"] = _open_records(path, spec, length)
            return held["gather"]

    def read(rows: Sequence[int] | np.ndarray) -> dict[str, np.ndarray]:
        rows = np.asarray(rows, np.int64).reshape(-1)
        if rows.size and not 0 <= rows.min() <= rows.max() < length:
            raise ValueError(f"rows: expected record numbers from 0 to {length - 1}, got {rows.min()} to {rows.max()}")
        return open_once()(rows)

    return Store(path, length, spec, read, tuple(manifest["labels"]), manifest, tuple(manifest.get("remarks", ())))


def in_memory(recipe: Recipe) -> Read:
    """Computes all records of a recipe and keeps them; nothing is written. For small sets, and for use as a library.

    Args:
      recipe: what to compute.

    Returns:
      int array [n] of record numbers -> dict of arrays [n, ...], as ``Store.read``.

    Raises:
      ValueError: as :func:`build`.

    """
    _check_recipe(recipe)
    shards = [parts.compute(recipe, i) for i in range(len(recipe.shard_lengths))]
    arrays = {key: np.concatenate([shard[key] for shard in shards]) for key in recipe.spec}
    return lambda rows: {key: array[np.asarray(rows, np.int64)] for key, array in arrays.items()}


def verify(path: Path | str) -> list[str]:
    """Checks a data set against its manifest: every file, then every decoded record.

    Args:
      path: its folder.

    Returns:
      One line per problem; an empty list for a whole data set.

    """
    path = Path(path)
    try:
        manifest = manifests.read_manifest(path)
    except OSError as error:
        return [str(error)]
    problems = manifests.file_problems(path, manifest)
    if problems:
        return problems
    try:
        spec = manifests.spec_from_json(manifest["spec"])
        shards = _shards(path, spec, manifest["shard_lengths"])
        for i, (expected, arrays) in enumerate(zip(manifest["shard_digests"], shards, strict=True)):
            if manifests.digest_arrays(arrays) != expected:
                problems.append(f"shard {i}: its decoded records differ from their digest")
    except (OSError, KeyError, ValueError) as error:
        problems.append(f"records: {error}")
    return problems


def recipe_from_samples(
    dataset: Dataset,
    *,
    name: str,
    config: Mapping[str, Any],
    seed: int,
    split: str,
    size: int | None = None,
    shard_size: int = 1024,
) -> Recipe:
    """The recipe that stores the first rows of a simulated data set.

    Args:
      dataset: a data set with ``sample``.
      name: short name for the folder.
      config: everything beside ``seed``, ``split`` and ``size`` that the rows depend on.
      seed: seed of the rows, as for :func:`physml_jax.core.rng.example_key`.
      split: name of the split, ditto.
      size: number of records; by default that of the split.
      shard_size: records per shard, and the fixed shape in which they are computed.

    Returns:
      The recipe; record ``i`` is row ``i`` of the split.

    Raises:
      ValueError: if the data set is not simulated or a size is below 1.

    """
    if dataset.sample is None:
        raise ValueError(f"dataset: {name!r} has no sample function to take records from")
    size = dataset.num_examples if size is None else size
    if size is None or size < 1 or shard_size < 1:
        raise ValueError(f"size, shard_size: expected at least 1, got {size}, {shard_size}")
    sample = jax.jit(lambda indices: dataset.sample(rng.example_key(seed, split, indices), indices))

    def shard(i: int) -> list[dict[str, np.ndarray]]:
        rows = np.arange(i * shard_size, (i + 1) * shard_size)
        batch = jax.device_get(sample(jnp.asarray(np.minimum(rows, size - 1), jnp.int32)))
        return [{key: np.asarray(batch[key][j]) for key in dataset.spec} for j in range(int(np.sum(rows < size)))]

    return Recipe(
        name=name,
        config={**config, "seed": seed, "split": split, "size": size, "shard_size": shard_size},
        spec=dataset.spec,
        shard_lengths=tuple(min(shard_size, size - s) for s in range(0, size, shard_size)),
        shard=shard,
    )


def _check_recipe(recipe: Recipe) -> None:
    lengths = recipe.shard_lengths
    if not lengths or min(lengths) < 1:
        raise ValueError(
            f"recipe.shard_lengths of {recipe.name!r}: expected positive numbers, got {tuple(lengths)[:5]}"
        )
    if recipe.workers < 1:
        raise ValueError(f"recipe.workers of {recipe.name!r}: expected at least 1, got {recipe.workers}")
    if len(recipe.labels) not in (0, sum(lengths)):
        raise ValueError(f"recipe.labels of {recipe.name!r}: expected {sum(lengths)} or none, got {len(recipe.labels)}")
    for key, s in recipe.spec.items():
        if np.dtype(s.dtype).kind not in "biuf":
            raise ValueError(
                f"recipe.spec of {recipe.name!r}: {key} is {s.dtype}; store real and imaginary parts apart"
            )


def _damage(folder: Path) -> str | None:
    """Why a folder with a manifest is not a data set; ``None`` if it is one, or never claimed to be."""
    if not (folder / manifests.MANIFEST).exists():
        return None
    try:
        return next(iter(manifests.quick_problems(folder, manifests.read_manifest(folder))), None)
    except OSError as error:
        return str(error)


def _finished(folder: Path) -> bool:
    return (folder / manifests.MANIFEST).exists() and _damage(folder) is None


def _leftovers(folder: Path) -> list[Path]:
    """What a build that was killed may leave beside a finished data set."""
    return [p for p in folder.iterdir() if p.name == parts.PARTS or p.name.startswith(_TEMPORARY)]


def _remove(paths: Sequence[Path]) -> None:
    for path in paths:
        if path.is_dir():
            # Renamed first, so that no other process opens a file in a folder that is half gone.
            gone = path.with_name(f"{_TEMPORARY[0]}{os.getpid()}")
            os.replace(path, gone)
            shutil.rmtree(gone)
        else:
            path.unlink()


def _assemble(recipe: Recipe, folder: Path) -> None:
    """Writes the parts as records, reads them back and describes them. The caller holds the data set's lock."""
    _remove([p for p in folder.iterdir() if p.name != parts.PARTS])
    lengths = recipe.shard_lengths
    digests: list[str] = []
    remarks: list[str] = []

    def records(shards: Sequence[int]) -> Iterator[dict[str, np.ndarray]]:
        for i in shards:
            arrays = parts.read_part(recipe, folder, i)
            if arrays is None:
                raise OSError(f"{folder}: the part of shard {i} was changed while it was in use; start the build again")
            digests.append(manifests.digest_arrays(arrays))
            remarks.extend(recipe.remarks(arrays) if recipe.remarks else ())
            for j in range(lengths[i]):
                yield {key: array[j] for key, array in arrays.items()}

    groups = _files_of_shards(lengths, manifests.record_bytes(recipe.spec))
    from physml_jax.io import records as records_io  # imports TFDS

    records_io.write_records(
        folder / manifests.RECORDS,
        spec=recipe.spec,
        lengths=[sum(lengths[i] for i in group) for group in groups],
        read=lambda k: records(groups[k]),
    )
    for i, (digest, arrays) in enumerate(zip(digests, _shards(folder, recipe.spec, lengths), strict=True)):
        if manifests.digest_arrays(arrays) != digest:
            raise OSError(f"{folder}: shard {i} reads back different from what was written; is the disk sound?")
    manifests.write_manifest(folder, recipe, digests, remarks)


def _files_of_shards(lengths: Sequence[int], bytes_per_record: int) -> list[list[int]]:
    """Consecutive shards share a file until it passes ``FILE_BYTES``."""
    groups: list[list[int]] = [[]]
    size = 0
    for i, n in enumerate(lengths):
        if size >= FILE_BYTES:
            groups.append([])
            size = 0
        groups[-1].append(i)
        size += n * bytes_per_record
    return groups


def _open_records(folder: Path, spec: Batch, length: int) -> Callable[[Sequence[int]], dict[str, np.ndarray]]:
    from physml_jax.io import records  # imports TFDS

    found, gather = records.open_records(folder / manifests.RECORDS, spec=spec)
    if found != length:
        raise OSError(f"{folder}: holds {found} records, expected {length}")
    return gather


def _shards(folder: Path, spec: Batch, lengths: Sequence[int]) -> Iterator[dict[str, np.ndarray]]:
    """The decoded records of every shard, in order."""
    gather = _open_records(folder, spec, sum(lengths))
    start = 0
    for n in lengths:
        yield gather(np.arange(start, start + n))
        start += n


def _load_all(folder: Path, spec: Batch, manifest: Mapping[str, Any]) -> dict[str, np.ndarray]:
    """All records in memory, checked against the manifest."""
    lengths, digests = manifest["shard_lengths"], manifest["shard_digests"]
    whole = {key: np.empty((sum(lengths), *s.shape), s.dtype) for key, s in spec.items()}
    start = 0
    for n, digest, arrays in zip(lengths, digests, _shards(folder, spec, lengths), strict=True):
        if manifests.digest_arrays(arrays) != digest:
            last = start + n - 1
            raise OSError(
                f"{folder}: records {start} to {last} differ from the manifest; delete the folder, build again"
            )
        for key, array in arrays.items():
            whole[key][start : start + n] = array
        start += n
    return whole
