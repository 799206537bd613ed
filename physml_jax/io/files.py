"""Files that are whole or absent: atomic writes, digests, locks, and where the cache lives."""

import contextlib
import fcntl
import hashlib
import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path


def cache_dir(*parts: str) -> Path:
    """The folder for what can be made again: generated datasets, compiled programs.

    ``$PHYSML_CACHE`` if set, else ``physml_jax`` in ``$XDG_CACHE_HOME`` or ``~/.cache``. The folder is created.

    Raises:
      OSError: if the folder cannot be created; the message names the variable to set.
    """
    base = os.environ.get("PHYSML_CACHE")
    root = Path(base) if base else Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "physml_jax"
    path = root.joinpath(*parts)
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OSError(
            f"cannot create the cache folder {path} ({error.strerror}); set PHYSML_CACHE to a writable folder"
        ) from error
    return path


def write_atomic(path: Path, data: bytes | str) -> None:
    """Writes a file so that a reader, or a kill at any moment, finds the old content or the new one and nothing
    between.

    Args:
      path: target; its folder must exist.
      data: content; text is encoded as UTF-8.

    Raises:
      OSError: if the disk is full or the folder read-only; the old file is untouched.
    """
    path = Path(path)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with open(temporary, "wb") as f:
            f.write(data.encode() if isinstance(data, str) else data)
            f.flush()
            os.fsync(f.fileno())
        os.replace(temporary, path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def sha256_file(path: Path) -> str:
    """Hexadecimal SHA-256 of a file's content."""
    with open(path, "rb") as f:
        return hashlib.file_digest(f, "sha256").hexdigest()


@contextlib.contextmanager
def locked(path: Path, *, on_wait: Callable[[], None] | None = None, timeout: float | None = None) -> Iterator[None]:
    """Holds an advisory lock on the file ``path``; the system drops it when the process dies, however it dies.

    Args:
      path: lock file, created if absent and left in place (removing it would let two holders in).
      on_wait: called once if another process holds the lock.
      timeout: seconds to wait; ``None`` waits for ever, 0 does not wait.

    Raises:
      TimeoutError: if the lock is still held after ``timeout``.
    """
    start = time.monotonic()
    with open(path, "a") as f:
        told = False
        while True:
            try:
                fcntl.flock(f, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if timeout is not None and time.monotonic() - start >= timeout:
                    raise TimeoutError(f"{path} is locked by another process") from None
                if on_wait and not told:
                    on_wait()
                    told = True
                time.sleep(0.2)
        yield
