"""Packed Ising sweeps against scalar programs, in one run on one machine.

    XLA_FLAGS=--xla_cpu_prefer_vector_width=512 taskset -c 1 python benchmarks/ising.py [--rounds 5]

The peers are mcising (Rust) and a loop in Numba, both one spin after the other; a peer that is not installed is named
on the error stream and left out. All programs run in turn, round after round, on one thread each, the peers over twelve
points of the published range. One JSON line per case:

- ``ours_flips_per_ns`` and the peers': attempted flips per nanosecond of process time, the best of all rounds; on a
  busy machine both suffer, ours more, since it uses all the width of the processor;
- ``ratios``: ours over the peer, the median of the ratios of single rounds;
- ``compile_s``: wall seconds of tracing and compiling.

``traced`` has temperatures and couplings as data, different ones for every word, ``ladder`` as constants of the
program. Of 48 bits the replicas of a word share 32, see ``packed.sweeps``; all others are a replica's own. The first
line is mcising at each point: a scalar loop is as fast as its branches are predictable, three times faster in cold
states than in hot ones, so that a ratio to one point would say little; ours takes the same time at all. ``agree`` on
the same line: mean energies of mcising and Numba at the hottest points are the exact ones of J2 = 0.
"""

import argparse
import json
import os
import sys
import time

os.environ["XLA_FLAGS"] = os.environ.get("XLA_FLAGS", "") + " --xla_cpu_multi_thread_eigen=false"

import jax
import jax.numpy as jnp
import numpy as np

from physml_jax.simulators.ising import exact, ladder, packed

#: What the peers are timed at: the corners and the middle of the published grid.
POINTS = [(t, j2) for t in (0.5, 1.5, 2.5, 4.0) for j2 in (0.0, 0.5, 1.0)]


def optional(name):
    try:
        return __import__(name)
    except ImportError:
        print(f"{name} is not installed; left out", file=sys.stderr)


def compiled(fn, *args):
    start = time.perf_counter()
    run = jax.jit(fn).lower(*args).compile()
    seconds = time.perf_counter() - start
    return lambda: run(*args).block_until_ready(), round(seconds, 1)


def traced(size, num, sweeps, **kwargs):
    """Every word has a temperature and a coupling of its own."""
    temperature = jnp.asarray(np.tile(np.linspace(0.5, 4.0, num // 4), 4), jnp.float32)
    j2 = jnp.linspace(0.0, 1.0, num, dtype=jnp.float32)
    key, words = jax.random.key(0), jax.random.bits(jax.random.key(1), (num, size, size), jnp.uint32)

    def fn(key, words, temperature, j2, num_sweeps):
        return packed.sweeps(key, words, temperature, j2, num_sweeps=num_sweeps, **kwargs)

    run, seconds = compiled(fn, key, words, temperature, j2, jnp.int32(sweeps))
    return run, 32 * num * size**2 * sweeps, seconds


def fixed(size, num, points, sweeps, **kwargs):
    temperature, j2 = np.linspace(0.5, 4.0, points), np.linspace(0.0, 1.0, points)
    key, words = jax.random.key(0), jax.random.bits(jax.random.key(1), (points, num, size, size), jnp.uint32)

    def fn(key, words, num_sweeps):
        return ladder.ladder_sweeps(key, words, temperature, j2, num_sweeps=num_sweeps, **kwargs)

    run, seconds = compiled(fn, key, words, jnp.int32(sweeps))
    return run, 32 * points * num * size**2 * sweeps, seconds


def mcising(size, sweeps):
    module = optional("mcising")
    if module is None:
        return None
    states = [(module.IsingSimulation(size, 1.0, -j2, 0.0, 0.0, 1), t) for t, j2 in POINTS]

    def run():
        for state, temperature in states:
            state.sweep(sweeps, temperature=temperature)

    return run, len(POINTS) * size**2 * sweeps, states


def scalar(size, sweeps):
    numba = optional("numba")
    if numba is None:
        return None

    @numba.njit
    def sweep(s, table, count, x):
        n = s.shape[0]
        for _ in range(count):
            for i in range(n):
                up, down = (i - 1) % n, (i + 1) % n
                for j in range(n):
                    left, right = (j - 1) % n, (j + 1) % n
                    near = s[up, j] + s[down, j] + s[i, left] + s[i, right]
                    far = s[up, left] + s[up, right] + s[down, left] + s[down, right]
                    x ^= x << np.uint64(13)  # Marsaglia's xorshift
                    x ^= x >> np.uint64(7)
                    x ^= x << np.uint64(17)
                    if np.uint32(x >> np.uint64(32)) < table[(s[i, j] * near + 4) // 2, (s[i, j] * far + 4) // 2]:
                        s[i, j] = -s[i, j]
        return x

    def table(temperature, j2):
        near, far = np.meshgrid(np.arange(-4, 5, 2), np.arange(-4, 5, 2), indexing="ij")
        chance = np.exp(-np.maximum(2 * (near - j2 * far), 0) / temperature)
        return np.minimum(chance * 2.0**32, 2**32 - 1).astype(np.uint32)

    rng = np.random.default_rng(0)
    states = [(rng.choice(np.array([-1, 1], np.int64), (size, size)), table(*point)) for point in POINTS]
    state = [np.uint64(88172645463325252)]

    def run():
        for s, probabilities in states:
            state[0] = np.uint64(sweep(s, probabilities, sweeps, state[0]))

    return run, len(POINTS) * size**2 * sweeps, states


def single_points(mcising_states, numba_states, numba_run):
    """Mcising's rate at every point, and whether both peers have the exact energy at T = 4, J2 = 0."""
    rates = {}
    for (state, temperature), (t, j2) in zip(mcising_states, POINTS, strict=True):
        start = time.process_time()
        state.sweep(300, temperature=temperature)
        rates[f"T = {t}, J2 = {j2}"] = round(300 * state.num_sites / (time.process_time() - start) * 1e-9, 3)
    point = POINTS.index((4.0, 0.0))
    found = {"mcising": [], "numba": []}
    for _ in range(50):
        mcising_states[point][0].sweep(5, temperature=4.0)
        numba_run()
        for name, s in (("mcising", mcising_states[point][0].get_spins()), ("numba", numba_states[point][0])):
            s = np.asarray(s, np.int64).reshape(60, 60)
            found[name].append(-(s * (np.roll(s, 1, 0) + np.roll(s, 1, 1))).mean())
    expected = float(exact.kaufman(60, 4.0).energy)
    agree = {name: bool(abs(np.mean(e) - expected) < 4 * np.std(e) / np.sqrt(len(e))) for name, e in found.items()}
    print(json.dumps({"case": "mcising, single points, L = 60, flips per ns"} | rates | {"agree": agree}), flush=True)


def compare(case, ours, peers, rounds, **more):
    run, flips, seconds = ours
    programs = {"ours": (run, flips), **peers}
    rates = {name: [] for name in programs}
    for program, _ in programs.values():
        program()
    for _ in range(rounds):
        for name, (program, count) in programs.items():
            start = time.process_time()
            program()
            rates[name].append(count / (time.process_time() - start) * 1e-9)
    row = {"case": case} | {f"{name}_flips_per_ns": round(max(r), 3) for name, r in rates.items()}
    row["ratios"] = {
        name: round(float(np.median(np.divide(rates["ours"], rates[name]))), 1) for name in rates if name != "ours"
    }
    print(json.dumps(row | {"compile_s": seconds} | more), flush=True)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    rounds = parser.parse_args().rounds
    peers = {"mcising": mcising(60, 100), "numba": scalar(60, 100)}
    if all(peers.values()):
        single_points(peers["mcising"][2], peers["numba"][2], peers["numba"][0])
    peers = {name: peer[:2] for name, peer in peers.items() if peer is not None}
    compare("traced, L = 60, 24 bits", traced(60, 64, 100), peers, rounds)
    compare("traced, L = 60, 48 bits", traced(60, 64, 100, bits=48), peers, rounds)
    compare("traced, L = 60, 32 bits", traced(60, 64, 100, bits=32), peers, rounds)
    compare("traced, L = 60, 24 bits, heat bath", traced(60, 64, 100, rule="heat_bath"), peers, rounds)
    compare("ladder of 4 points, L = 60, 24 bits", fixed(60, 16, 4, 200), peers, rounds)
    compare("ladder of 4 points, L = 60, 48 bits", fixed(60, 16, 4, 200, bits=48), peers, rounds)
    compare("traced, L = 30, 24 bits", traced(30, 256, 100), peers, rounds)
    compare("traced, L = 30, 48 bits", traced(30, 256, 100, bits=48), peers, rounds)


if __name__ == "__main__":
    main()
