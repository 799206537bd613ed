"""Parts: the shards of a data set under construction, one file each, whole or absent.

A part starts with a line that names its data set, its shard and the SHA-256 of the rest, so a torn, changed or
misplaced file is recognised and computed again.
"""

import contextlib
import enum
import hashlib
import io
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent import futures
from pathlib import Path

import numpy as np

from physml_jax.io import files
from physml_jax.typing import Recipe

PARTS = "parts"
_POLL_SECONDS = 0.2


class _Outcome(enum.Enum):
    FOUND = " (found)"
    COMPUTED = ""
    BUSY = "another process is at it"
    OBSOLETE = "the whole data set is finished"


def compute_parts(
    recipe: Recipe,
    folder: Path,
    *,
    finished: Callable[[], bool],
    tell: Callable[[int, int, str], None],
    process_index: int,
    num_processes: int,
) -> bool:
    """Returns when every part exists, having computed those that no other process was at.

    Args:
      recipe: what to build.
      folder: the data set's folder.
      finished: whether another process has finished the whole data set meanwhile.
      tell: called with (finished shards, all shards, one line of text).
      process_index: number of this process; it begins with the shards ``process_index + k num_processes``.
      num_processes: how many processes build together.

    Returns:
      False if another process finished the data set, so that the parts are gone.

    """
    total = len(recipe.shard_lengths)
    (folder / PARTS).mkdir(exist_ok=True)
    missing = sorted(range(total), key=lambda i: ((i - process_index) % num_processes != 0, i))
    done, told = 0, False
    while missing:
        busy = []
        with contextlib.closing(_outcomes(recipe, folder, missing, finished)) as outcomes:
            for i, outcome in outcomes:
                if outcome is _Outcome.OBSOLETE:
                    return False
                if outcome is _Outcome.BUSY:
                    busy.append(i)
                    if not told:
                        tell(done, total, f"{recipe.name}: another process is building it too; sharing the work")
                    told = True
                    continue
                done += 1
                tell(done, total, f"{recipe.name}: shard {i + 1} of {total}{outcome.value}")
        if len(busy) == len(missing):
            time.sleep(_POLL_SECONDS)
        missing = busy
    return True


def read_part(recipe: Recipe, folder: Path, i: int) -> dict[str, np.ndarray] | None:
    """The records of shard ``i``, stacked by key, or ``None`` where there is no whole part."""
    try:
        data = _path(folder, i).read_bytes()
    except FileNotFoundError:
        return None
    header, _, payload = data.partition(b"\n")
    if header != _header(folder, i, payload):
        return None
    with np.load(io.BytesIO(payload), allow_pickle=False) as arrays:
        return {key: arrays[key] for key in recipe.spec}


def compute(recipe: Recipe, i: int) -> dict[str, np.ndarray]:
    """The records of shard ``i``, computed, checked against the recipe and stacked by key.

    Raises:
      ValueError: if the records do not fit the recipe or hold values that are not finite.

    """
    return _stack(recipe, i, recipe.shard(i))


def write_part(recipe: Recipe, folder: Path, i: int) -> None:
    """Computes shard ``i``, checks its records and writes its part.

    Raises:
      ValueError: if the records do not fit the recipe or hold values that are not finite.

    """
    arrays = compute(recipe, i)
    buffer = io.BytesIO()
    np.savez(buffer, **arrays)
    payload = buffer.getvalue()
    files.write_atomic(_path(folder, i), _header(folder, i, payload) + b"\n" + payload)


def _outcomes(
    recipe: Recipe, folder: Path, missing: Sequence[int], finished: Callable[[], bool]
) -> Iterator[tuple[int, _Outcome]]:
    """Tries the shards in order, ``recipe.workers`` at a time, and yields them as they end."""
    if recipe.workers == 1:
        for i in missing:
            yield i, _one_part(recipe, folder, i, finished)
        return
    with futures.ThreadPoolExecutor(recipe.workers) as pool:
        running = {pool.submit(_one_part, recipe, folder, i, finished): i for i in missing}
        try:
            for one in futures.as_completed(running):
                yield running[one], one.result()
        finally:  # after an error no further shard is begun
            pool.shutdown(wait=False, cancel_futures=True)


def _one_part(recipe: Recipe, folder: Path, i: int, finished: Callable[[], bool]) -> _Outcome:
    if read_part(recipe, folder, i) is not None:
        return _Outcome.FOUND
    # Parts vanish only after the manifest has been written: absent and not finished means that there is work.
    if finished():
        return _Outcome.OBSOLETE
    claim = files.locked(_path(folder, i).with_suffix(".lock"), timeout=0)
    try:
        claim.__enter__()
    except TimeoutError:
        return _Outcome.BUSY
    except FileNotFoundError:
        if finished():
            return _Outcome.OBSOLETE
        raise
    try:
        if read_part(recipe, folder, i) is not None:
            return _Outcome.FOUND
        if finished():
            return _Outcome.OBSOLETE
        write_part(recipe, folder, i)
        return _Outcome.COMPUTED
    finally:
        claim.__exit__(None, None, None)


def _stack(recipe: Recipe, i: int, records: Sequence[Mapping[str, np.ndarray]]) -> dict[str, np.ndarray]:
    """Checks the records of a shard against the recipe and stacks them."""
    if len(records) != recipe.shard_lengths[i]:
        raise ValueError(f"{recipe.name}: expected {recipe.shard_lengths[i]} records in shard {i}, got {len(records)}")
    start = sum(recipe.shard_lengths[:i])
    for number, record in enumerate(records, start):
        name = f"record {number}" + (f" ({recipe.labels[number]})" if recipe.labels else "")
        if set(record) != set(recipe.spec):
            raise ValueError(f"{recipe.name}: {name} has the keys {sorted(record)}, expected {sorted(recipe.spec)}")
        for key, spec in recipe.spec.items():
            value, shape, dtype = np.asarray(record[key]), tuple(spec.shape), np.dtype(spec.dtype)
            if value.shape != shape or value.dtype != dtype:
                found = f"{value.dtype.name}{list(value.shape)}"
                raise ValueError(f"{recipe.name}: {name}: {key} is {found}, expected {dtype.name}{list(shape)}")
            bad = 0 if dtype.kind != "f" else int(value.size - np.isfinite(value).sum())
            if bad:
                raise ValueError(f"{recipe.name}: {name}: {key} has {bad} of {value.size} values that are not finite")
    return {key: np.stack([np.asarray(record[key]) for record in records]) for key in recipe.spec}


def _path(folder: Path, i: int) -> Path:
    return folder / PARTS / f"{i:05d}.npz"


def _header(folder: Path, i: int, payload: bytes) -> bytes:
    return f"physml_jax part {folder.name} {i} {hashlib.sha256(payload).hexdigest()}".encode()
