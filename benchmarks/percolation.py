"""Percolation: spanning flags, cluster labels and sampling against the usual libraries, in one run on one machine.

    python benchmarks/percolation.py [--rounds 5] [--states 10000]

The peers are SciPy and, from the extra ``bench``, Numba, OpenCV and cc3d (connected-components-3d), all with four
neighbours; a peer that is not installed is named on the error stream and its numbers are null. One JSON line per case:

- ``ours_us`` and the peers' ``..._us``: microseconds of one state, from process time (other load on the machine
  matters little; our threads count) of the best of ``rounds`` alternating rounds, after compilation;
- ``ratios``: the peer's time over ours;
- ``compile_s``: wall seconds of tracing and compiling ours;
- ``agree``: whether all programs gave the same flags or numbers of clusters.

The last case samples ``states`` states at each of the 31 published densities, L = 100, labels them (a cluster joins
opposite edges in either direction) and brings states and labels into host arrays; wall seconds, compilation included.
"""

import argparse
import functools
import json
import sys
import time

import jax
import jax.numpy as jnp
import numpy as np
import scipy.ndimage

from physml_jax.core.rng import example_key
from physml_jax.data.percolation import PUBLISHED_DENSITIES
from physml_jax.simulators import percolation

DENSITY = 0.5925
BATCH = {32: 4096, 100: 2048, 200: 512}
PEER_STATES = 64  # a peer handles state after state; these are enough for a steady time


def optional(name):
    try:
        return __import__(name)
    except ImportError:
        print(f"{name} is not installed (extra: bench); its numbers are null", file=sys.stderr)


def best_microseconds(functions, rounds):
    """Process microseconds per state: name -> (fn, states per call) -> the best of alternating rounds of 0.2 s."""
    times = {name: [] for name in functions}
    for _ in range(rounds):
        for name, (fn, states) in functions.items():
            calls, start, wall = 0, time.process_time(), time.perf_counter()
            while calls == 0 or time.perf_counter() - wall < 0.2:
                fn()
                calls += 1
            times[name].append((time.process_time() - start) / calls / states * 1e6)
    return {name: min(t) for name, t in times.items()}


def report(case, times, peers, **more):
    row = {"case": case, "ours_us": round(times["ours"], 2)}
    row |= {f"{name}_us": round(times[name], 1) if name in times else None for name in peers}
    row["ratios"] = {name: round(times[name] / times["ours"], 2) for name in peers if name in times}
    print(json.dumps(row | more), flush=True)


def compiled(fn, *args):
    """A function that runs the compiled ``fn`` to its end, and the seconds that compiling took."""
    start = time.perf_counter()
    program = jax.jit(fn).lower(*args).compile()
    seconds = time.perf_counter() - start
    return lambda: jax.block_until_ready(program(*args)), round(seconds, 2)


def labellers():
    """Functions from bool [L, L] to (labels, number of clusters) by name; four neighbours."""
    found = {"scipy": scipy.ndimage.label}
    if cv2 := optional("cv2"):
        cv2.setNumThreads(1)

        def opencv(state):
            number, labels = cv2.connectedComponents(state.view(np.uint8), connectivity=4)
            return labels, number - 1

        found["opencv"] = opencv
    if cc3d := optional("cc3d"):
        found["cc3d"] = lambda state: cc3d.connected_components(state, connectivity=4, return_N=True, binary_image=True)
    return found


def spans(label, state):
    """Whether labels join (top and bottom, left and right)."""
    labels, number = label(state)
    flags = []
    for a, b in ((labels[0], labels[-1]), (labels[:, 0], labels[:, -1])):
        here = np.zeros(number + 1, bool)
        here[a] = True
        here[0] = False
        flags.append(here[b].any())
    return flags


def numba_flood():
    """A depth-first flood per direction that stops at the far edge, compiled; ``None`` without Numba."""
    numba = optional("numba")
    if numba is None:
        return None

    @numba.njit
    def joined(state, seen, stack):
        size = state.shape[0]
        seen[:] = False
        for start in range(size):
            if not state[0, start] or seen[0, start]:
                continue
            seen[0, start] = True
            stack[0] = start
            top = 1
            while top > 0:
                top -= 1
                row, column = divmod(stack[top], size)
                if row == size - 1:
                    return True
                for i, j in ((row, column - 1), (row, column + 1), (row - 1, column), (row + 1, column)):
                    if 0 <= i < size and 0 <= j < size and state[i, j] and not seen[i, j]:
                        seen[i, j] = True
                        stack[top] = i * size + j
                        top += 1
        return False

    @numba.njit
    def flood(states):
        num, size = states.shape[0], states.shape[1]
        flags = np.zeros((num, 2), np.bool_)
        seen, stack = np.zeros((size, size), np.bool_), np.zeros(size * size, np.int64)
        for n in range(num):
            flags[n, 0] = joined(states[n], seen, stack)
            flags[n, 1] = joined(states[n].T, seen, stack)
        return flags

    return flood


def some_states(size):
    keys = example_key(0, "benchmark", jnp.arange(BATCH[size]))
    return percolation.bernoulli(keys, jnp.full(BATCH[size], DENSITY, jnp.float32), size=size)


def spanning(size, label, flood, rounds):
    states = some_states(size)
    few = np.array(states[:PEER_STATES])  # cc3d refuses arrays that it may not write
    run, seconds = compiled(percolation.spanning, states)
    functions = {"ours": (run, len(states))}
    expected = np.stack(run(), axis=1)[:PEER_STATES]
    agree = True
    for name, fn in label.items():
        functions[name] = (functools.partial(lambda f: [spans(f, s) for s in few], fn), len(few))
        agree &= bool((np.array(functions[name][0]()) == expected).all())
    if flood:
        functions["numba"] = (lambda: flood(few), len(few))
        agree &= bool((flood(few) == expected).all())
    times = best_microseconds(functions, rounds)
    peers = ["scipy", "numba", "opencv", "cc3d"]
    report(f"spanning, L = {size}, p = {DENSITY}", times, peers, compile_s=seconds, agree=agree)


def labels(size, label, rounds):
    states = some_states(size)
    few = np.array(states[:PEER_STATES])  # cc3d refuses arrays that it may not write
    run, seconds = compiled(percolation.label_clusters, states)
    functions = {"ours": (run, len(states))}
    numbers = [len(np.unique(x)) - (x.min() == 0) for x in np.asarray(run()[:PEER_STATES])]
    agree = True
    for name, fn in label.items():
        functions[name] = (functools.partial(lambda f: [f(s) for s in few], fn), len(few))
        agree &= [number for _, number in functions[name][0]()] == numbers
    times = best_microseconds(functions, rounds)
    report(f"labels, L = {size}, p = {DENSITY}", times, ["scipy", "opencv", "cc3d"], compile_s=seconds, agree=agree)


def sampling(size, density, rounds):
    keys = example_key(0, "benchmark", jnp.arange(BATCH[size]))
    counts = jnp.full(len(keys), round(density * size**2), jnp.int32)
    run, seconds = compiled(functools.partial(percolation.sample, size=size), keys, counts)
    agree = bool((run().sum((1, 2)) == counts).all())
    other, _ = compiled(functools.partial(percolation.bernoulli, size=size), keys, counts / size**2)
    times = best_microseconds({"ours": (run, len(keys)), "bernoulli": (other, len(keys))}, rounds)
    report(f"exact count, L = {size}, p = {density}", times, ["bernoulli"], compile_s=seconds, agree=agree)


def thresholds(size, rounds):
    keys = example_key(0, "benchmark", jnp.arange(512))
    run, seconds = compiled(functools.partial(percolation.spanning_threshold, size=size), keys)
    either = float(run().either.mean()) / size**2
    times = best_microseconds({"ours": (run, len(keys))}, rounds)
    report(f"spanning threshold, L = {size}", times, [], compile_s=seconds, mean_either=round(either, 5))


def published(each, size=100, batch=3100):
    """All states of the published data set with labels, in host arrays."""
    counts = jnp.array([round(p * size**2) for p in PUBLISHED_DENSITIES], jnp.int32)
    total = each * len(counts)

    @jax.jit
    def make(first):
        index = first + jnp.arange(batch)
        states = percolation.sample(example_key(0, "train", index), counts[index % len(counts)], size=size)
        return states, percolation.spanning(states).either

    states, flags = np.empty((total, size, size), bool), np.empty(total, bool)
    begin, busy = time.perf_counter(), time.process_time()
    following = make(0)
    for first in range(0, total, batch):
        rows, following = following, make(first + batch)  # the next batch is computed while this one is copied
        end = min(first + batch, total)
        states[first:end], flags[first:end] = (np.asarray(x)[: end - first] for x in rows)
    wall, busy = time.perf_counter() - begin, time.process_time() - busy
    correct = bool((states.sum((1, 2)) == np.resize(counts, total)).all())
    row = {"case": f"{total} labelled states, L = {size}, into host arrays", "wall_s": round(wall, 1)}
    row |= {"cpu_s": round(busy, 1), "share_spanning": round(float(flags.mean()), 4), "agree": correct}
    print(json.dumps(row), flush=True)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--states", type=int, default=10_000, help="states per density of the last case")
    arguments = parser.parse_args()
    print(json.dumps({"device": jax.devices()[0].device_kind, "jax": jax.__version__}), flush=True)
    label, flood = labellers(), numba_flood()
    for size in BATCH:
        spanning(size, label, flood, arguments.rounds)
    for density in (0.1, DENSITY, 0.9):
        sampling(100, density, arguments.rounds)
    sampling(200, DENSITY, arguments.rounds)
    labels(100, label, arguments.rounds)
    thresholds(100, min(arguments.rounds, 2))
    published(arguments.states)


if __name__ == "__main__":
    main()
