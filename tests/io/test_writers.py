import io
import json
import os

import jax.numpy as jnp
import numpy as np
import pytest

from physml_jax.io import writers


def _without_times(path):
    return [{k: v for k, v in row.items() if k != "time_s"} for row in writers.read_metrics(path)]


def test_rows_are_json_lines(tmp_path):
    path = tmp_path / "metrics.jsonl"
    writer = writers.open_metrics(path, resume_step=0)
    writer.write(1, {"loss": jnp.float32(0.5), "count": np.int32(3), "split": "train", "none": None})
    assert path.read_text().endswith("\n")  # already on disk before close
    writer.write(2, {"loss": jnp.bfloat16(0.25)})
    writer.close()
    first, second = (json.loads(line) for line in path.read_text().splitlines())
    assert list(first)[:2] == ["step", "time_s"]
    assert (first["loss"], first["count"], first["split"], first["none"]) == (0.5, 3, "train", None)
    assert second["loss"] == 0.25 and second["time_s"] >= first["time_s"] >= 0


@pytest.mark.parametrize("torn", [b"", b'{"step": 7, "loss"', b"\x00\x00\xff", b'{"step": 7}'])
def test_resume_equals_uninterrupted(tmp_path, torn):
    def rows(path, resume, steps):
        writer = writers.open_metrics(path, resume_step=resume)
        for step in steps:
            writer.write(step, {"loss": 1 / step})
        writer.close()

    rows(tmp_path / "a", 0, range(1, 9))
    rows(tmp_path / "b", 0, range(1, 7))
    with open(tmp_path / "b", "ab") as f:
        f.write(torn)
    rows(tmp_path / "b", 4, range(5, 9))
    assert _without_times(tmp_path / "a") == _without_times(tmp_path / "b")
    times = [row["time_s"] for row in writers.read_metrics(tmp_path / "b")]
    assert times == sorted(times)


def test_damaged_line_in_the_middle_is_named(tmp_path):
    path = tmp_path / "m"
    path.write_text('{"step": 1}\n{"step": \n{"step": 3}\n')
    for call in (writers.read_metrics, lambda p: writers.open_metrics(p, resume_step=3)):
        with pytest.raises(ValueError, match="line 2 is damaged"):
            call(path)
    assert len(path.read_text().splitlines()) == 3


@pytest.mark.parametrize("value", [float("nan"), jnp.inf, np.float32("-inf")])
def test_values_that_are_not_finite_are_refused(tmp_path, value):
    writer = writers.open_metrics(tmp_path / "m", resume_step=0)
    with pytest.raises(ValueError, match=r"step 12: loss is -?(nan|inf)"):
        writer.write(12, {"loss": value})
    writer.close()
    assert writers.read_metrics(tmp_path / "m") == []


def test_what_is_no_scalar_is_refused(tmp_path):
    writer = writers.open_metrics(tmp_path / "m", resume_step=0)
    with pytest.raises(ValueError, match=r"step 1: loss is float32\[2\]"):
        writer.write(1, {"loss": jnp.zeros(2)})
    with pytest.raises(ValueError, match="taken"):
        writer.write(1, {"step": 3})
    writer.close()


class _Terminal(io.StringIO):
    def isatty(self):
        return True


def test_progress_on_a_terminal_is_one_line(monkeypatch):
    now = [100.0]
    monkeypatch.setattr(writers.time, "monotonic", lambda: now[0])
    stream = _Terminal()
    progress = writers.open_progress(10, label="train", stream=stream)
    for done in range(2, 11, 2):
        progress.update(done, f"loss {done}")
        now[0] += 4.0
    progress.close()
    assert stream.getvalue().count("\n") == 1
    shown = [text.strip() for text in stream.getvalue().split("\r")[1:]]
    assert shown[1] == "train 4/10 (40%), 0.5/s, 0:04 spent, 0:12 left | loss 4"
    assert shown[-1].startswith("train 10/10 (100%)")


def test_progress_elsewhere_is_a_line_now_and_then(monkeypatch):
    now = [0.0]
    monkeypatch.setattr(writers.time, "monotonic", lambda: now[0])
    stream = io.StringIO()
    progress = writers.open_progress(100, label="patterns", stream=stream)
    for done in range(101):
        progress.update(done)
        now[0] += 0.5
    progress.close()
    progress.close()
    lines = stream.getvalue().splitlines()
    assert 5 <= len(lines) <= 7
    assert lines[-1].startswith("patterns 100/100 (100%)")


def test_the_last_line_is_not_repeated():
    stream = io.StringIO()
    progress = writers.open_progress(8, label="train", stream=stream)
    progress.update(8)
    progress.close()
    assert stream.getvalue() == "train 8/8 (100%), 0:00 spent\n"


def test_rate_forgets_the_compilation(monkeypatch):
    now = [0.0]
    monkeypatch.setattr(writers.time, "monotonic", lambda: now[0])
    stream = io.StringIO()
    progress = writers.open_progress(1000, label="train", stream=stream, every_s=1.0)
    progress.update(0)
    now[0] += 100.0
    for done in range(1, 101):
        progress.update(done)
        now[0] += 1.0
    assert ", 1/s" in stream.getvalue().splitlines()[-1]


def test_progress_survives_a_closed_stream():
    read, write = os.pipe()
    os.close(read)
    stream = os.fdopen(write, "w")
    progress = writers.open_progress(2, label="train", stream=stream, every_s=0.0)
    progress.update(1)
    progress.update(2)
    progress.close()
    with pytest.raises(BrokenPipeError):
        stream.close()
    closed = io.StringIO()
    closed.close()
    writers.open_progress(2, label="train", stream=closed).update(1)


def test_progress_can_be_silent():
    stream = io.StringIO()
    progress = writers.open_progress(2, label="train", stream=stream, enabled=False)
    progress.update(1)
    progress.close()
    assert stream.getvalue() == ""
