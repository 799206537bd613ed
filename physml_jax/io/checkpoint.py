"""Checkpoints that are whole, verified, or refused: Orbax behind three functions.

A step is written next to the others and renamed when it is complete, so a kill at any moment leaves the earlier steps
as they were. What Orbax does not notice is a flipped bit in array data; so every step carries the SHA-256 of every
leaf, and a step that does not agree with its digests is passed over for the one before, loudly. The state is stored as
a flat dictionary of arrays named by their path, so that plain Orbax reads it without this package, and any number of
devices restores what any other number has saved.
"""

import asyncio.log
import contextlib
import gc
import hashlib
import json
import os
import re
import shutil
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
import orbax.checkpoint as ocp
from absl import logging
from jax.experimental import multihost_utils

from physml_jax.typing import Tree


class Checkpoints(NamedTuple):
    """The checkpoints of one run.

    Attributes:
      save: (step, state) -> None. Copies the state to the host, then writes in the background; the caller may donate
        the state at once. Every process calls it. Saving a step that this object has saved or restored does nothing.
        A failure of the write is raised by the next call of ``save`` or by ``close``.
      restore: abstract state -> (step, state), or ``None`` if there is no checkpoint. Leaves of the abstract state are
        ``ShapeDtypeStruct`` with the shardings wanted now (the default device where there is none). Reads only;
        damaged steps are removed by the next ``save``.
      close: waits for the write under way. A program that ends without it may hang in Orbax' threads.
    """

    save: Callable[[int, Tree], None]
    restore: Callable[[Tree], tuple[int, Tree] | None]
    close: Callable[[], None]


class _Damaged(Exception):
    """A stored step is not what was saved."""


def leaf_digests(state: Tree) -> dict[str, dict[str, Any]]:
    """Shape, dtype and SHA-256 of every leaf.

    Args:
      state: pytree of arrays, each replicated or with all its shards in this process.

    Returns:
      By path of the leaf (``"params/Dense_0/kernel"``): ``shape`` (list), ``dtype`` (name), ``sha256`` (hexadecimal, of
      the bytes in C order).
    """
    return {
        name: _describe(value) | {"sha256": _sha256(_to_host(name, value))} for name, value in _flatten(state).items()
    }


def open_checkpoints(directory: str | Path, *, keep: int = 2) -> Checkpoints:
    """Opens the checkpoints of one run; nothing is created before the first ``save``.

    Args:
      directory: folder that holds one sub-folder per step.
      keep: number of latest steps to keep; at least 2 leaves one to fall back to.

    Returns:
      The three functions.

    Raises:
      ValueError: if ``keep`` is smaller than 1; by ``restore`` if the state has other leaves than the checkpoint; by
        ``save`` for a step that is not after the latest one.
      OSError: by ``restore`` if there are checkpoints and all are damaged; by ``save`` and ``close`` if a checkpoint
        cannot be written.
    """
    if keep < 1:
        raise ValueError(f"keep: expected an integer of at least 1, got {keep}")
    directory = Path(directory).absolute()
    manager: ocp.CheckpointManager | None = None
    stack = contextlib.ExitStack()
    current: int | None = None  # the step that this object has saved or restored last
    damaged: list[int] = []
    pending: int | None = None

    def opened() -> ocp.CheckpointManager:
        nonlocal manager
        if manager is None:
            options = ocp.CheckpointManagerOptions(
                preservation_policy=ocp.checkpoint_managers.LatestN(keep),
                create=False,
                save_root_metadata=False,
                lightweight_initialize=True,
            )
            manager = ocp.CheckpointManager(directory, options=options)
            stack.enter_context(_quiet_orbax())
        return manager

    def finish(action: Callable[[], Any]) -> None:
        """Runs what may report a failed write, and says which step it was."""
        nonlocal pending
        step, pending = pending, None
        try:
            action()
        except Exception as error:
            _let_stragglers_pass()
            raise OSError(
                f"could not write checkpoint {step} to {directory}: {_reason(error)}. Earlier "
                "checkpoints are as they were; make room or choose another workdir, then run the same command again"
            ) from error

    def save(step: int, state: Tree) -> None:
        nonlocal current, pending
        step = int(step)
        if step == current:
            return
        if pending is not None:
            finish(lambda: opened().wait_until_finished())
        if manager is None or damaged:
            pending = step
            finish(lambda: _make_room(directory))
        stale = [s for s in damaged if s in opened().all_steps()]
        later = [s for s in opened().all_steps() if s >= step and s not in stale]
        if later:
            raise ValueError(
                f"step: {directory} already holds checkpoint {max(later)}, not before step {step}; restore it first"
            )
        for s in stale:
            opened().delete(s)
        damaged.clear()
        host = {name: _to_host(name, value) for name, value in _flatten(state).items()}
        leaves = {name: _describe(value) | {"sha256": _sha256(value)} for name, value in host.items()}
        meta = {"step": step, "leaves": leaves}
        items = ocp.args.Composite(
            state=ocp.args.StandardSave(host), meta=ocp.args.JsonSave(meta | {"sha256": _sha256_of_json(meta)})
        )
        pending = step
        try:
            opened().save(step, args=items, force=True)
        except Exception as error:
            cause = error
            finish(lambda: _reraise(cause))
        current = step

    def restore(abstract_state: Tree) -> tuple[int, Tree] | None:
        nonlocal current
        if not directory.is_dir():
            return None
        steps = sorted(opened().all_steps(), reverse=True)
        reasons: dict[int, str] = {}
        for step in steps:
            state, reason = _read_verified(opened(), directory, step, abstract_state)
            if reason is not None:
                _let_stragglers_pass()
            if _all_processes(reason is None):
                current = step
                damaged.extend(reasons)
                return step, state
            reasons[step] = reason or "another process could not read it"
            before = [s for s in steps if s < step]
            then = f"going back to checkpoint {before[0]}" if before else "there is none before it"
            logging.warning("checkpoint %d is damaged (%s); %s [%s]", step, reasons[step], then, directory)
        if steps:
            found = "; ".join(f"checkpoint {s} is damaged ({r})" for s, r in reasons.items())
            raise OSError(
                f"no usable checkpoint in {directory}: {found}. "
                "Delete this folder to start anew, or put back a copy of it"
            )
        return None

    def close() -> None:
        nonlocal manager
        if manager is None:
            return
        closing, manager = manager, None
        with stack:
            try:
                if pending is not None:
                    finish(lambda: closing.wait_until_finished())
            finally:
                closing.close()

    return Checkpoints(save=save, restore=restore, close=close)


def _flatten(tree: Tree) -> dict[str, Any]:
    leaves = jax.tree_util.tree_leaves_with_path(tree)
    named = {jax.tree_util.keystr(path, simple=True, separator="/"): leaf for path, leaf in leaves}
    if len(named) != len(leaves):
        raise ValueError("state: two leaves have the same path; keys of dictionaries in the state must not contain '/'")
    return named


def _to_host(name: str, value: Any) -> np.ndarray:
    """A copy that outlives the donation of the array."""
    if isinstance(value, jax.Array) and not (value.is_fully_replicated or value.is_fully_addressable):
        raise ValueError(f"state: {name} is spread over several processes; a state must be replicated to be saved")
    return np.array(value, order="C", copy=True)


def _describe(value: Any) -> dict[str, Any]:
    return {"shape": list(value.shape), "dtype": np.dtype(value.dtype).name}


def _sha256(value: np.ndarray) -> str:
    return hashlib.sha256(value.reshape(-1).view(np.uint8)).hexdigest()


def _sha256_of_json(meta: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(meta, sort_keys=True).encode()).hexdigest()


def _reason(error: BaseException) -> str:
    """One line of an error whose text may fill pages and name the operating system's reason in the middle."""
    text = " ".join(str(error).split())
    if found := re.search(r": ([^:\[]+) \[os_error_code=", text):
        return found[1]
    return f"{type(error).__name__}: {text[:200]}{'...' if len(text) > 200 else ''}"


def _reraise(error: Exception) -> None:
    raise error


def _all_processes(good: bool) -> bool:
    """Whether every process says so; all must fall back to the same step."""
    if jax.process_count() == 1:
        return good
    return bool(multihost_utils.process_allgather(np.asarray(good)).all())


def _make_room(directory: Path) -> None:
    """Creates the folder and removes what killed writes left in it; called before the first write of this object."""
    if jax.process_index() == 0:
        directory.mkdir(parents=True, exist_ok=True)
        for path in directory.glob("*.orbax-checkpoint-tmp*"):
            shutil.rmtree(path, ignore_errors=True)
    if jax.process_count() > 1:
        multihost_utils.sync_global_devices("checkpoint folder")


def _read_verified(
    manager: ocp.CheckpointManager, directory: Path, step: int, abstract_state: Tree
) -> tuple[Tree, str | None]:
    """One stored step and ``None``, or nothing and why it is damaged; raises only if the state itself has changed."""
    try:
        meta = manager.restore(step, args=ocp.args.Composite(meta=ocp.args.JsonRestore())).meta
        leaves = _checked_leaves(meta, step)
    except Exception as error:
        return None, str(error) if isinstance(error, _Damaged) else _reason(error)
    wanted = _flatten(abstract_state)
    difference = _first_difference(leaves, {name: _describe(value) for name, value in wanted.items()})
    if difference:
        raise ValueError(
            f"checkpoint {step} in {directory} does not fit this model and optimizer: {difference}. "
            "Use another workdir, or delete that folder to start anew"
        )
    default = jax.sharding.SingleDeviceSharding(jax.local_devices()[0])
    target = {
        name: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=getattr(x, "sharding", None) or default)
        for name, x in wanted.items()
    }
    try:
        state = manager.restore(step, args=ocp.args.Composite(state=ocp.args.StandardRestore(target))).state
        for name, value in state.items():
            if _sha256(_to_host(name, value)) != leaves[name]["sha256"]:
                raise _Damaged(f"{name} differs from its sha256")
    except Exception as error:
        return None, str(error) if isinstance(error, _Damaged) else _reason(error)
    return jax.tree.unflatten(jax.tree.structure(abstract_state), [state[name] for name in wanted]), None


@contextlib.contextmanager
def _quiet_orbax() -> Iterator[None]:
    """Keeps what Orbax prints beside the exceptions that it raises from the terminal.

    It tells every move at info level, and of a failed read or write hundreds of lines: a traceback per thread that saw
    it, exceptions that nobody retrieved, and callbacks that find its event loop closed.
    """
    folder = f"{os.sep}orbax{os.sep}"
    hook = sys.unraisablehook

    def quiet_hook(unraisable: Any) -> None:
        code = getattr(unraisable.object, "cr_code", None)  # of an abandoned coroutine
        if "Event loop is closed" in str(unraisable.exc_value) or (code and folder in code.co_filename):
            return
        hook(unraisable)

    def own(record: Any) -> bool:
        return logging.level_debug() or (folder not in record.pathname and folder not in record.getMessage())

    loggers = (logging.get_absl_logger(), asyncio.log.logger)
    for logger in loggers:
        logger.addFilter(own)
    sys.unraisablehook = quiet_hook
    try:
        yield
    finally:
        sys.unraisablehook = hook
        for logger in loggers:
            logger.removeFilter(own)


def _let_stragglers_pass() -> None:
    """Waits, after a failure, for what else will complain about it, while it is still kept quiet."""
    gc.collect()
    time.sleep(0.2)


def _checked_leaves(meta: Any, step: int) -> dict[str, dict[str, Any]]:
    """The leaves by a step's digest file, which has a digest of its own: damage must not look like a changed model."""
    if not isinstance(meta, dict) or not isinstance(meta.get("leaves"), dict):
        raise _Damaged("its digests are missing")
    if meta.pop("sha256", None) != _sha256_of_json(meta):
        raise _Damaged("its digest file differs from its own sha256")
    if meta.get("step") != step:
        raise _Damaged(f"it holds step {meta.get('step')}")
    return meta["leaves"]


def _first_difference(stored: Mapping[str, Mapping[str, Any]], wanted: Mapping[str, Mapping[str, Any]]) -> str | None:
    def text(leaf: Mapping[str, Any] | None) -> str:
        return "absent" if leaf is None else f"{leaf['dtype']}{list(leaf['shape'])}"

    for name in [*wanted, *(n for n in stored if n not in wanted)]:
        old, new = stored.get(name), wanted.get(name)
        if text(old) != text(new):
            return f"{name} is {text(old)} in the checkpoint and {text(new)} now"
    return None
