"""The folder of one run: its name, its owner, its config, and where its numbers come from."""

import contextlib
import datetime
import hashlib
import importlib.metadata
import json
import os
import platform
import re
import socket
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
from absl import logging

import physml_jax
from physml_jax.io import files

CONFIG = "config.json"
PROVENANCE = "provenance.json"
LOCK = ".lock"

#: What a later command may change without being another experiment: how long, how often something is written, and the
#: report with its extra evaluation sets, which is made anew from the finished state.
CADENCES = (
    "data.probes",
    "train.num_steps",
    "train.log_every",
    "train.eval_every",
    "train.checkpoint_every",
    "train.keep_checkpoints",
    "report",
)

_PACKAGES = ("jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "numpy")


def default_workdir(
    config_path: str | Path, arg: str = "", overrides: Mapping[str, Any] | None = None, *, root: str | Path = "workdirs"
) -> Path:
    """The folder that a command uses if none is named: the same command finds its run again, another one its own.

    Args:
      config_path: config file, with or without ``:variant``.
      arg: variant of the config, the text after the colon.
      overrides: options that the command line changed, by dotted name, JSON-serialisable.
      root: parent folder.

    Returns:
      ``root/<config>[-<variant>][-<hash>]``; the hash stands for the overrides, and for a variant that is no file name.

    Example:
      >>> default_workdir("configs/lacbed.py", "smoke").as_posix()
      'workdirs/lacbed-smoke'
    """
    path, _, variant = str(config_path).partition(":")
    variant = arg or variant
    name = Path(path).stem
    plain = re.sub(r"[^A-Za-z0-9_.]+", "_", variant)
    name += f"-{plain}" if plain else ""
    distinguish = dict(overrides or {}) | ({":variant": variant} if plain != variant else {})
    if distinguish:
        name += "-" + hashlib.sha256(json.dumps(distinguish, sort_keys=True, default=str).encode()).hexdigest()[:8]
    return Path(root) / name


@contextlib.contextmanager
def claimed(workdir: str | Path) -> Iterator[Path]:
    """Creates a folder if needed and holds it for this process; its death, however it comes, sets the folder free.

    Args:
      workdir: folder of the run.

    Yields:
      The absolute path of the folder.

    Raises:
      OSError: if another process holds the folder (it is named), or the folder cannot be created.
    """
    workdir = Path(workdir).absolute()
    with contextlib.ExitStack() as stack:
        try:
            workdir.mkdir(parents=True, exist_ok=True)
            stack.enter_context(files.locked(workdir / LOCK, timeout=0))
            (workdir / LOCK).write_text(f"process {os.getpid()} on {socket.gethostname()}\n")
        except TimeoutError:
            owner = (workdir / LOCK).read_text().strip() or "another process"
            raise OSError(
                f"workdir {workdir} is in use by {owner}; wait for it, stop it, or choose another --workdir"
            ) from None
        except OSError as error:
            raise OSError(f"cannot use workdir {workdir}: {error.strerror}; choose another --workdir") from error
        yield workdir


def prepare(workdir: str | Path, config: Mapping[str, Any], *, ignore: Sequence[str] = CADENCES) -> None:
    """Writes the config of a new run, or holds the config of a later command against the stored one.

    Called by one process, between ``claimed`` and the first restore. Differences in ``ignore`` are accepted and stored.

    Args:
      workdir: existing folder of the run.
      config: nested mapping of JSON-serialisable values.
      ignore: dotted names of options (or of groups of them) that may differ.

    Raises:
      ValueError: if the stored config differs (the message lists every difference) or cannot be read, or if the folder
        holds checkpoints of a run without config.
      OSError: if the file cannot be written.
    """
    path = Path(workdir) / CONFIG
    text = _to_json(config)
    if path.exists():
        changes = differences(read_config(workdir), json.loads(text))
        refused = [c for c in changes if not any(c[0] == i or c[0].startswith(i + ".") for i in ignore)]
        if refused:
            lines = "\n".join(f"  {key}: {old} -> {new}" for key, old, new in refused)
            raise ValueError(
                f"workdir {workdir} holds a run with another config (option: stored -> now):\n{lines}\n"
                "Repeat the command with the stored options, choose another --workdir, or delete the folder to start "
                "anew"
            )
        if not changes:
            return
    elif any((Path(workdir) / "checkpoints").glob("[0-9]*")):
        raise ValueError(
            f"workdir {workdir} holds checkpoints but no {CONFIG}, so it is not known which config they belong to; "
            "choose another --workdir, or delete the folder to start anew"
        )
    files.write_atomic(path, text)


def read_config(workdir: str | Path) -> dict[str, Any]:
    """The config that a run was started with.

    Raises:
      ValueError: if the file is not valid.
      OSError: if there is none.
    """
    path = Path(workdir) / CONFIG
    try:
        config = json.loads(path.read_bytes())
        if not isinstance(config, dict):
            raise ValueError("not a JSON object")
    except FileNotFoundError:
        raise OSError(f"{path} does not exist: {workdir} is not the workdir of a run") from None
    except ValueError as error:
        raise ValueError(
            f"{path} is damaged ({error}); put back a copy of it, or delete the folder {workdir} to start anew"
        ) from error
    return config


def differences(old: Mapping[str, Any], new: Mapping[str, Any]) -> list[tuple[str, str, str]]:
    """Every leaf in which two nested configs differ, as (dotted name, old value, new value) in JSON, sorted by name.

    An option that is not set (null) is as good as absent, so that a later version may add one.
    """
    a, b = _leaves(old), _leaves(new)
    keys = sorted({*a, *b})
    differ = [k for k in keys if a.get(k, "null") != b.get(k, "null")]
    return [(k, a.get(k, "(absent)"), b.get(k, "(absent)")) for k in differ]


def write_provenance(workdir: str | Path, *, seed: int, config: Mapping[str, Any]) -> None:
    """Appends one entry to ``provenance.json``: what ran, on what, from which source, when.

    Called once per start by one process, after the devices are known. Environment variables are not recorded.

    Args:
      workdir: existing folder of the run.
      seed: the experiment's seed.
      config: nested mapping of JSON-serialisable values; its digest is stored.

    Raises:
      OSError: if the file cannot be written.
    """
    path = Path(workdir) / PROVENANCE
    starts: list[Any] = []
    if path.exists():
        try:
            starts = list(json.loads(path.read_bytes())["starts"])
        except (ValueError, KeyError, TypeError) as error:
            # Nothing is computed from this file, so a damaged one must not stop a run.
            logging.warning("%s is damaged (%s); starting it anew", path, error)
    device = jax.devices()[0]
    starts.append(
        {
            "started": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
            "command": sys.argv,
            "seed": seed,
            "config_sha256": hashlib.sha256(_to_json(config).encode()).hexdigest(),
            "device": {
                "platform": device.platform,
                "kind": device.device_kind,
                "count": jax.device_count(),
                "processes": jax.process_count(),
            },
            "versions": {"python": platform.python_version(), "physml_jax": physml_jax.__version__}
            | {name: importlib.metadata.version(name) for name in _PACKAGES},
            "git": _git_commit(),
        }
    )
    files.write_atomic(path, json.dumps({"starts": starts}, indent=2) + "\n")


def _to_json(config: Mapping[str, Any]) -> str:
    try:
        return json.dumps(config, indent=2, sort_keys=True) + "\n"
    except TypeError as error:
        raise ValueError(f"config: expected nested mappings of plain values: {error}") from error


def _leaves(config: Mapping[str, Any], prefix: str = "") -> dict[str, str]:
    """Values as JSON text by dotted name; text and not values, since NaN is not equal to itself."""
    out: dict[str, str] = {}
    for key, value in config.items():
        if isinstance(value, Mapping) and value:
            out |= _leaves(value, f"{prefix}{key}.")
        else:
            out[f"{prefix}{key}"] = json.dumps(value)
    return out


def _git_commit() -> dict[str, Any] | None:
    """Commit of the checkout that the package runs from; ``None`` for an installed copy or without git."""
    package = Path(physml_jax.__file__).resolve().parent

    def git(*args: str) -> str:
        command = ["git", "-C", str(package), *args]
        return subprocess.run(command, capture_output=True, text=True, timeout=10, check=True).stdout.strip()

    try:
        # A virtual environment inside some other repository must not lend its commit to an installed copy.
        if Path(git("rev-parse", "--show-toplevel")).resolve() != package.parent:
            return None
        return {"commit": git("rev-parse", "HEAD"), "dirty": bool(git("status", "--porcelain", "--untracked-files=no"))}
    except (OSError, subprocess.SubprocessError):
        return None
