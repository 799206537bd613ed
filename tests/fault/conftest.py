"""Tools that hurt: processes killed at seeded moments, flipped bits, cut files, full disks; for every fault test.

All moments and places come from seeds, every process has a time limit, and nothing outlives its test.
"""

import contextlib
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest

ROOT = Path(__file__).parents[2]


class Outcome(NamedTuple):
    """What became of a process: exit status (negative: the signal), everything it printed, whether we ended it."""

    returncode: int
    output: str
    killed: bool


@pytest.fixture
def run_command():
    """Returns ``run(command, *, timeout=120, env=None, cwd=ROOT) -> Outcome``: a process that ends by itself.

    Its standard output and error are read together. Past ``timeout`` its whole group is killed and the test fails.
    """

    def run(command, *, timeout=120.0, env=None, cwd=ROOT):
        return _run(command, timeout=timeout, env=env, cwd=cwd, trigger=None, delay=0.0, signum=signal.SIGKILL)

    return run


@pytest.fixture
def run_and_kill():
    """Returns a function that starts a process and ends it at a moment drawn from a seed.

    ``run_and_kill(command, *, seed, after=(0, 0.5), on_line=None, on_file=None, signum=SIGKILL, timeout=120, env=None,
    cwd=ROOT) -> Outcome``. The clock starts with the process, or when a line of its output contains ``on_line``, or
    when the glob pattern ``on_file`` (a Path with wildcards in it) matches a file; the signal goes to the whole process
    group ``after`` seconds later (uniform between the two numbers). A process that ends earlier has ``killed=False``.
    """

    def run(
        command,
        *,
        seed,
        after=(0.0, 0.5),
        on_line=None,
        on_file=None,
        signum=signal.SIGKILL,
        timeout=120.0,
        env=None,
        cwd=ROOT,
    ):
        delay = float(np.random.default_rng(seed).uniform(*after))

        def trigger(output):
            if on_line is not None and on_line not in output:
                return False
            return on_file is None or any(Path(on_file.anchor).glob(str(on_file.relative_to(on_file.anchor))))

        return _run(command, timeout=timeout, env=env, cwd=cwd, trigger=trigger, delay=delay, signum=signum)

    return run


@pytest.fixture
def limit_file_size():
    """Returns ``limit(command, num_bytes) -> command``: the same process on a disk where no file can grow beyond."""

    def limit(command, num_bytes):
        # A limit set between fork and exec would need a hook that is not safe beside threads.
        code = (
            "import os, resource, sys; n = int(sys.argv[1]); "
            "resource.setrlimit(resource.RLIMIT_FSIZE, (n, n)); os.execvp(sys.argv[2], sys.argv[2:])"
        )
        return [sys.executable, "-c", code, str(num_bytes), *map(str, command)]

    return limit


@pytest.fixture
def flip_bits():
    """Returns ``flip(path, seed, n=1) -> offsets``: turns ``n`` different bits of a file, drawn from the seed."""

    def flip(path, seed, n=1):
        data = bytearray(Path(path).read_bytes())
        places = np.random.default_rng(seed).choice(8 * len(data), size=n, replace=False)
        for place in places:
            data[place // 8] ^= 1 << (place % 8)
        Path(path).write_bytes(data)
        return [int(p) // 8 for p in places]

    return flip


@pytest.fixture
def truncate():
    """Returns ``truncate(path, seed) -> new size``: cuts a file somewhere before its end."""

    def cut(path, seed):
        size = int(np.random.default_rng(seed).integers(0, os.path.getsize(path)))
        os.truncate(path, size)
        return size

    return cut


def _run(command, *, timeout, env, cwd, trigger, delay, signum):
    environment = os.environ | {"PYTHONUNBUFFERED": "1"} | (env or {})
    start = time.monotonic()
    process = subprocess.Popen(
        [str(c) for c in command],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        env=environment,
        cwd=cwd,
        start_new_session=True,  # a group of its own, so that its children die with it
    )
    lines = []
    reader = threading.Thread(target=lambda: lines.extend(iter(process.stdout.readline, b"")), daemon=True)
    reader.start()

    def output():
        return b"".join(lines).decode(errors="replace")

    killed, fire_at, deadline = False, None, start + timeout
    try:
        while process.poll() is None:
            now = time.monotonic()
            if now > deadline:
                _signal_group(process, signal.SIGKILL)
                process.wait()
                reader.join(5)
                pytest.fail(f"{command} ran longer than {timeout} s; its last words:\n{output()[-4000:]}")
            if trigger is not None and not killed:
                if fire_at is None and trigger(output()):
                    fire_at = now + delay
                if fire_at is not None and now >= fire_at:
                    _signal_group(process, signum)
                    killed = True
            time.sleep(0.002)
    finally:
        _signal_group(process, signal.SIGKILL)
        process.wait()
        reader.join(5)
        process.stdout.close()
    return Outcome(process.returncode, output(), killed)


def _signal_group(process, signum):
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signum)
