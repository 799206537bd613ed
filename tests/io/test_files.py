import errno
import hashlib
import os
import threading

import pytest

from physml_jax.io import files


def test_write_atomic_replaces_and_leaves_nothing_else(tmp_path):
    path = tmp_path / "a.json"
    files.write_atomic(path, "Ångström")
    assert path.read_text(encoding="utf-8") == "Ångström"
    files.write_atomic(path, b"\x00\x01")
    assert path.read_bytes() == b"\x00\x01"
    assert os.listdir(tmp_path) == ["a.json"]


def test_failed_write_keeps_the_old_content(tmp_path, monkeypatch):
    path = tmp_path / "a"
    files.write_atomic(path, "old")

    def full(_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(files.os, "fsync", full)
    with pytest.raises(OSError, match="No space left"):
        files.write_atomic(path, "new")
    assert path.read_text() == "old"
    assert os.listdir(tmp_path) == ["a"]


def test_sha256_file(tmp_path):
    (tmp_path / "a").write_bytes(b"abc" * 100_000)
    assert files.sha256_file(tmp_path / "a") == hashlib.sha256(b"abc" * 100_000).hexdigest()


def test_locked_excludes_and_waits(tmp_path):
    path = tmp_path / "lock"
    waited, order = [], []

    def second():
        with files.locked(path, on_wait=lambda: waited.append(True)):
            order.append("second")

    with files.locked(path):
        with pytest.raises(TimeoutError, match="locked by another"), files.locked(path, timeout=0):
            pass
        thread = threading.Thread(target=second)
        thread.start()
        while not waited:
            thread.join(0.01)
        order.append("first")
    thread.join(5)
    assert order == ["first", "second"] and waited == [True]


def test_cache_dir_follows_the_environment(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    monkeypatch.delenv("PHYSML_CACHE", raising=False)
    assert files.cache_dir("a", "b") == tmp_path / "xdg" / "physml_jax" / "a" / "b"
    monkeypatch.setenv("PHYSML_CACHE", str(tmp_path / "own"))
    assert files.cache_dir() == tmp_path / "own"
    assert files.cache_dir().is_dir()
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("PHYSML_CACHE", str(tmp_path / "file"))
    with pytest.raises(OSError, match="set PHYSML_CACHE"):
        files.cache_dir("x")
