"""Eigenstates of the Anderson model nearest E = 0 at W = 16.5: nested dissection against SciPy, PARDISO and PRIMME.

    taskset -c 1 python benchmarks/anderson.py --sizes 20 32 40 --repeats 5 [--peers superlu pardiso primme]

Processor time per realisation, one thread, all programs on the same realisations in one process, in turn. The peers are
``eigsh`` with a shift (SuperLU), the same with PARDISO's LDL^T (``pypardiso``), and PRIMME (no factorisation); one that
is not installed is named on the error stream and its numbers are null. None of them counts eigenvalues. One JSON line
per case:

- ``certified`` is the whole answer with the count of eigenvalues, ``uncounted`` the iteration alone, as the peers do;
- ``seconds``: median of the realisations after the first call, ``best``: the least of them;
- ``ratios``: the peer's median over that of ``uncounted`` and of ``certified``;
- ``plan_s``, ``first_call_s``: the host plan, and the first call, nearly all of it compilation;
- ``predicted_gb``: memory of one factorisation as predicted before it starts;
- ``overlap``: the least of the realisations, with the state of ``certified``.
"""

import argparse
import importlib.util
import json
import os
import sys
import time

# One thread each: the programs are compared by the work they do.
for variable in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ.setdefault(variable, "1")
os.environ["XLA_FLAGS"] = os.environ.get("XLA_FLAGS", "") + " --xla_cpu_multi_thread_eigen=false"

import numpy as np  # noqa: E402

from physml_jax.simulators import anderson  # noqa: E402
from physml_jax.simulators.anderson import dissection  # noqa: E402

#: Peers and the module that each needs.
PEERS = {"superlu": "scipy", "pardiso": "pypardiso", "primme": "primme"}


def program(name):
    """Function from the disorder to (energy, state)."""
    if name == "primme":
        import primme

        def run(disorder):
            start = np.cos(np.arange(disorder.size))[:, None]
            values, vectors = primme.eigsh(anderson.sparse(disorder), k=1, which=0.0, tol=1e-10, v0=start)
            return values[0], vectors[:, 0].reshape(disorder.shape)

        return run
    options = {"method": name} if name in PEERS else {"method": "dissection", "certify": name == "certified"}

    def run(disorder):
        found = anderson.eigenstates(disorder, **options)
        return found.energies[0], found.states[0]

    return run


def measure(size, repeats, peers):
    rng = np.random.default_rng(size)
    fields = [16.5 * (rng.random((size,) * 3) - 0.5) for _ in range(repeats + 1)]
    start = time.process_time()
    dissection.plan(size)
    plan = time.process_time() - start
    cases = {name: program(name) for name in ("certified", "uncounted", *peers)}
    seconds, states, residuals = ({name: [] for name in cases} for _ in range(3))
    for field in fields:
        for name, run in cases.items():
            start = time.process_time()
            energy, state = run(field)
            seconds[name].append(time.process_time() - start)
            states[name].append(state)
            residual = anderson.sparse(field) @ state.reshape(-1) - energy * state.reshape(-1)
            residuals[name].append(float(np.linalg.norm(residual)))
    median = {name: float(np.median(s[1:])) for name, s in seconds.items()}
    for name in ("certified", "uncounted", *PEERS):
        row = {"case": f"{name}, L = {size}"}
        if name not in cases:
            print(json.dumps(row | {"seconds": None, "best": None, "residual": None, "ratios": None}), flush=True)
            continue
        row |= {"seconds": round(median[name], 4), "best": round(min(seconds[name][1:]), 4)}
        row |= {"first_call_s": round(seconds[name][0], 2), "residual": max(residuals[name])}
        both = zip(states[name], states["certified"], strict=True)
        row["overlap"] = min(float(abs((a * b).sum())) for a, b in both)
        if name in PEERS:
            row["ratios"] = {ours: round(median[name] / median[ours], 2) for ours in ("uncounted", "certified")}
        else:
            row |= {"plan_s": round(plan, 2), "predicted_gb": round(dissection.predicted_bytes(size) / 1e9, 2)}
        print(json.dumps(row), flush=True)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sizes", type=int, nargs="+", default=[12, 20])
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--peers", nargs="*", choices=list(PEERS), default=list(PEERS))
    arguments = parser.parse_args()
    if arguments.repeats < 1:
        parser.error(f"--repeats: expected at least 1, got {arguments.repeats}")
    installed = []
    for name in arguments.peers:
        if importlib.util.find_spec(PEERS[name]) is None:
            print(f"{PEERS[name]} is not installed; its numbers are null", file=sys.stderr)
        else:
            installed.append(name)
    for size in arguments.sizes:
        measure(size, arguments.repeats, installed)


if __name__ == "__main__":
    main()
