"""Eigenstates of the Anderson model nearest E = 0 at W = 16.5: nested dissection against SciPy and PARDISO, in one run.

    python benchmarks/anderson.py --sizes 20 --repeats 5

Processor time per realisation, one thread, best of the repeats after the first call; plan and compilation (the first
call's surplus) apart. "certified" is the whole answer with the count of eigenvalues, "uncounted" one factorisation with
the iteration to the same residual, as the peers do. SciPy is ``eigsh`` with a shift (SuperLU); PARDISO is measured if
``pypardiso`` is installed. One JSON line per case; ``ratio`` is the peer's time over that of "uncounted".
"""

import argparse
import importlib.util
import json
import os
import time

# One thread each: the peers are compared by the work they do.
for variable in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ.setdefault(variable, "1")
os.environ["XLA_FLAGS"] = os.environ.get("XLA_FLAGS", "") + " --xla_cpu_multi_thread_eigen=false"

import numpy as np  # noqa: E402

from physml_jax.simulators import anderson  # noqa: E402
from physml_jax.simulators.anderson import dissection  # noqa: E402


def timed(fn, fields):
    """(result of the last call, processor seconds of the first call, best of the later ones)."""
    seconds = []
    for field in fields:
        start = time.process_time()
        out = fn(field)
        seconds.append(time.process_time() - start)
    return out, seconds[0], min(seconds[1:])


def measure(size, repeats, peers):
    rng = np.random.default_rng(size)
    fields = [16.5 * (rng.random((size,) * 3) - 0.5) for _ in range(repeats + 1)]
    start = time.process_time()
    dissection.plan(size)
    plan = time.process_time() - start
    lines, answers = [], {}
    cases = {
        "uncounted": lambda d: anderson.eigenstates(d, method="dissection", certify=False),
        "certified": lambda d: anderson.eigenstates(d, method="dissection"),
    }
    cases |= {name: (lambda d, name=name: anderson.eigenstates(d, method=name)) for name in peers}
    for name, fn in cases.items():
        found, first, best = timed(fn, fields)
        answers[name] = found
        line = {"size": size, "case": name, "seconds": round(best, 4), "first_call": round(first, 2)}
        line |= {"residual": float(found.residuals.max()), "certified": bool(found.certified)}
        line["overlap"] = float(abs((found.states * answers["uncounted"].states).sum()))
        lines.append(line)
        print(json.dumps(line | {"plan": round(plan, 2), "ratio": round(best / lines[0]["seconds"], 2)}), flush=True)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--sizes", type=int, nargs="+", default=[12, 20])
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--peers", nargs="*", default=None, help="superlu, pardiso; default: those installed")
    arguments = parser.parse_args()
    installed = ["superlu"] + ["pardiso"] * (importlib.util.find_spec("pypardiso") is not None)
    for size in arguments.sizes:
        measure(size, arguments.repeats, installed if arguments.peers is None else arguments.peers)
