"""What a run tells while it runs: a file of metrics, one JSON object per line, and a line of progress for a person."""

import collections
import json
import math
import shutil
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple, TextIO

import numpy as np

from physml_jax.io import files


class Writer(NamedTuple):
    """The metrics file of a run.

    Attributes:
      write: (step, mapping of names to scalars, text or ``None``) -> None; appends one line that survives a kill.
      close: closes the file.
    """

    write: Callable[[int, Mapping[str, Any]], None]
    close: Callable[[], None]


class Progress(NamedTuple):
    """A line of progress.

    Attributes:
      update: (units done, text="") -> None; the first call sets where the rate is counted from.
      close: ends the line.
    """

    update: Callable[..., None]
    close: Callable[[], None]


def read_metrics(path: str | Path) -> list[dict[str, Any]]:
    """Rows of a metrics file, in order; a last line that a kill has cut off is left out.

    Raises:
      ValueError: if another line is damaged; the message names it.
      OSError: if the file cannot be read.
    """
    lines = Path(path).read_bytes().splitlines()
    rows = []
    for number, line in enumerate(lines, start=1):
        try:
            row = json.loads(line)
            if not isinstance(row, dict) or not isinstance(row.get("step"), int):
                raise ValueError("no step")
        except ValueError as error:
            if number == len(lines):
                break
            raise ValueError(f"{path}, line {number} is damaged ({error}); delete this line to go on") from error
        rows.append(row)
    return rows


def open_metrics(path: str | Path, *, resume_step: int) -> Writer:
    """Opens a metrics file for appending after ``resume_step``.

    Rows of later steps, which a killed run wrote after its last checkpoint, are removed first; the file then becomes
    that of an uninterrupted run, apart from times. For this to hold, the rows of a step are written before its
    checkpoint. ``time_s`` counts the seconds spent in all runs together.

    Args:
      path: the file; its folder exists.
      resume_step: the step that training goes on from; 0 for a new run.

    Returns:
      The two functions. ``write`` raises ValueError for a value that is not finite or not a scalar.

    Raises:
      ValueError: if a line other than the last is damaged.
      OSError: if the file cannot be written.
    """
    path = Path(path)
    rows = [r for r in read_metrics(path) if r["step"] <= resume_step] if path.exists() else []
    files.write_atomic(path, "".join(json.dumps(r) + "\n" for r in rows))
    start = time.monotonic() - (rows[-1].get("time_s", 0.0) if rows else 0.0)
    file = open(path, "a", buffering=1, encoding="utf-8")

    def write(step: int, metrics: Mapping[str, Any]) -> None:
        if {"step", "time_s"} & set(metrics):
            raise ValueError(f"metrics of step {step}: the names 'step' and 'time_s' are taken")
        values = {name: _plain(step, name, value) for name, value in metrics.items()}
        row = {"step": int(step), "time_s": round(time.monotonic() - start, 3), **values}
        try:
            file.write(json.dumps(row) + "\n")
            file.flush()
        except OSError as error:
            raise OSError(f"could not write metrics to {path}: {error.strerror}") from error

    return Writer(write=write, close=file.close)


def open_progress(
    total: int, *, label: str, stream: TextIO | None = None, enabled: bool | None = None, every_s: float = 10.0
) -> Progress:
    """A line with the share done, rate, time spent and time left, and a text of the caller.

    On a terminal one line is drawn over; elsewhere a line is printed every ``every_s`` seconds and at the end. A stream
    that has gone away silences the progress and never stops the work.

    Args:
      total: units of work.
      label: what is counted, for example ``"train"``.
      stream: where to write; standard error by default.
      enabled: ``False`` writes nothing; ``None`` writes if there is a stream.
      every_s: seconds between lines where there is no terminal.

    Returns:
      The two functions.
    """
    out = sys.stderr if stream is None else stream
    alive = out is not None and enabled is not False
    try:
        terminal = alive and out.isatty()
    except (OSError, ValueError):
        terminal = alive = False
    interval = 0.1 if terminal else every_s
    start = time.monotonic()
    # The rate of the last minute forgets the compilation at the start.
    recent: collections.deque[tuple[float, int]] = collections.deque()
    last_shown = -math.inf
    unseen = False
    last_text = ""
    last_done: int | None = None
    ended = False

    def show(text: str, end: str) -> None:
        nonlocal alive
        try:
            out.write(text + end)
            out.flush()
        except (OSError, ValueError):  # a closed pipe or a closed file
            alive = False

    def line(done: int, now: float) -> str:
        since, before = recent[0]
        rate = (done - before) / (now - since) if done > before and now > since else 0.0
        parts = [f"{label} {done}/{total} ({100 * done / total if total else 100:.0f}%)"]
        if rate:
            parts.append(f"{rate:.3g}/s")
        parts.append(f"{_duration(now - start)} spent")
        if rate and done < total:
            parts.append(f"{_duration((total - done) / rate)} left")
        return ", ".join(parts) + (f" | {last_text}" if last_text else "")

    def draw(done: int, now: float) -> None:
        nonlocal last_shown, unseen
        last_shown, unseen = now, False
        if terminal:
            width = max(20, shutil.get_terminal_size().columns - 1)
            show("\r" + line(done, now)[:width].ljust(width), "")
        else:
            show(line(done, now), "\n")

    def update(done: int, text: str = "") -> None:
        nonlocal last_text, last_done, unseen
        if not alive or ended:
            return
        now = time.monotonic()
        last_text, last_done, unseen = text or last_text, int(done), True
        if not recent or now - recent[-1][0] >= 0.1:
            recent.append((now, last_done))
        while len(recent) > 2 and now - recent[1][0] > 60:
            recent.popleft()
        if now - last_shown >= interval:
            draw(last_done, now)

    def close() -> None:
        nonlocal ended
        if alive and not ended and last_done is not None:
            if unseen:
                draw(last_done, time.monotonic())
            if terminal:
                show("", "\n")
        ended = True

    return Progress(update=update, close=close)


def _plain(step: int, name: str, value: Any) -> Any:
    """A value that JSON can hold."""
    if value is None or isinstance(value, str | bool | int):
        return value
    array = np.asarray(value)
    if array.ndim or array.dtype.kind not in "biufV":
        raise ValueError(f"metrics of step {step}: {name} is {array.dtype}{list(array.shape)}, expected a scalar")
    if array.dtype.kind in "biu":
        return array.item()
    number = float(array)
    if not math.isfinite(number):
        raise ValueError(f"metrics of step {step}: {name} is {number}, expected a finite number")
    return number


def _duration(seconds: float) -> str:
    seconds = round(seconds)
    hours, minutes = divmod(seconds // 60, 60)
    return f"{hours}:{minutes:02d}:{seconds % 60:02d}" if hours else f"{minutes}:{seconds % 60:02d}"
