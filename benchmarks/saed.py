"""Electron diffraction spots: lists of spots against the usual programs, in one run on one machine.

    python benchmarks/saed.py [--rounds 5] [--orientations 8192] [--peers /path/to/python]

Random orientations of silicon, alpha-Zr and ZrO2: abs(g) <= 1.5 1/angstrom, abs(s) <= 0.02 1/angstrom, 200 kV. The
peers are py4DSTEM, diffsims and pymatgen (two zone axes, it has no free orientation). They need other versions of NumPy
than we do, so they may run in an interpreter of their own (``--peers``), in turns with ours; a peer that is missing is
named on the error stream and its numbers are null. Every BLAS has one thread: threads that wait for work would double
the peers' processor time. One JSON line per crystal:

- ``ours_us``, ``masks_us`` and the peers' ``..._us``: microseconds of processor time per pattern (all threads count),
  the best of alternating rounds, after compilation. ``ours`` is the compacted list with all its fields, ``masks`` the
  number of excited reflections alone;
- ``ratios``: the peer's time over ours;
- ``compile_s``: wall seconds of tracing and compiling ours; ``spots``: mean number per pattern, ours and the peers'.
"""

import argparse
import functools
import json
import os
import subprocess
import sys
import time

for variable in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ.setdefault(variable, "1")

import numpy as np  # noqa: E402

PEERS = ("py4DSTEM", "diffsims", "pymatgen")
MAX_G, MAX_S, VOLTAGE_KV = 1.5, 0.02, 200.0
PLACES = {"Si": 48, "alpha-Zr": 64, "ZrO2": 144}


def best_microseconds(fn, patterns, seconds=0.3):
    """Processor microseconds per pattern of calls for ``seconds`` of wall time."""
    calls, start, wall = 0, time.process_time(), time.perf_counter()
    while calls == 0 or time.perf_counter() - wall < seconds:
        fn()
        calls += 1
    return (time.process_time() - start) / calls / patterns * 1e6


def peer_functions(crystal):
    """Name -> (function that makes patterns and returns the mean number of their spots, patterns per call)."""
    cell, numbers, positions = (np.array(crystal[k]) for k in ("cell", "numbers", "positions"))
    rotations = np.array(crystal["rotations"])
    symbols = {8: "O", 14: "Si", 40: "Zr"}
    found = {}
    try:
        from py4DSTEM.process.diffraction import Crystal

        material = Crystal(positions, numbers, cell)
        material.setup_diffraction(VOLTAGE_KV * 1e3)
        material.calculate_structure_factors(MAX_G)

        def py4dstem():
            made = [
                material.generate_diffraction_pattern(
                    orientation_matrix=r.T, sigma_excitation_error=MAX_S / 3, tol_excitation_error_mult=3
                )
                for r in rotations
            ]
            return np.mean([len(p.data) for p in made])

        found["py4DSTEM"] = (py4dstem, len(rotations))
    except ImportError:
        print("py4DSTEM is not installed; its numbers are null", file=sys.stderr)
    try:
        from diffpy.structure import Atom, Lattice, Structure
        from diffsims.generators.simulation_generator import SimulationGenerator
        from orix.crystal_map import Phase
        from orix.quaternion import Rotation

        atoms = [Atom(symbols[int(z)], xyz=x) for z, x in zip(numbers, positions, strict=True)]
        phase = Phase(name="x", space_group=1, structure=Structure(atoms, lattice=Lattice(*cell)))
        generator, some = SimulationGenerator(VOLTAGE_KV), Rotation.from_matrix(rotations[:24])

        def diffsims():
            made = generator.calculate_diffraction2d(
                phase, some, reciprocal_radius=MAX_G, max_excitation_error=MAX_S, with_direct_beam=False
            )
            return np.mean([len(v.intensity) for v in made.coordinates])

        found["diffsims"] = (diffsims, 24)
    except ImportError:
        print("diffsims is not installed; its numbers are null", file=sys.stderr)
    try:
        from pymatgen.analysis.diffraction.tem import TEMCalculator
        from pymatgen.core import Lattice as PymatgenLattice
        from pymatgen.core import Structure as PymatgenStructure

        lattice = PymatgenLattice.from_parameters(*cell)
        structure = PymatgenStructure(lattice, [symbols[int(z)] for z in numbers], positions)
        calculators = [TEMCalculator(voltage=VOLTAGE_KV, beam_direction=axis) for axis in ((0, 0, 1), (0, 1, 1))]

        def pymatgen():
            return np.mean([len(c.get_pattern(structure)) for c in calculators])

        found["pymatgen"] = (pymatgen, 2)
    except ImportError:
        print("pymatgen is not installed; its numbers are null", file=sys.stderr)
    return found


def serve_peers():
    """Reads one crystal as JSON from the input; then, for every further line, times one round and prints it."""
    functions = peer_functions(json.loads(sys.stdin.readline()))
    numbers = {name: float(fn()) for name, (fn, _) in functions.items()}
    print(json.dumps(numbers), flush=True)
    for _ in sys.stdin:
        times = {name: best_microseconds(fn, patterns) for name, (fn, patterns) in functions.items()}
        print(json.dumps(times), flush=True)


def crystals():
    import gemmi

    from physml_jax.data.saed_phases import load_phases
    from physml_jax.simulators.diffraction.crystal import from_asymmetric_unit

    phases = {p.label: p.crystal for p in load_phases()}
    operations = list(gemmi.find_spacegroup_by_name("F d -3 m:1").operations())
    silicon = from_asymmetric_unit(
        np.array([5.4309] * 3 + [90.0] * 3),
        np.array([14]),
        np.zeros((1, 3)),
        np.ones(1),
        np.full(1, 0.5),
        np.zeros((1, 6)),
        np.array([np.array(op.rot) // op.DEN for op in operations]),
        np.array([np.array(op.tran) / op.DEN for op in operations]),
    )
    return {"Si": silicon, "alpha-Zr": phases["alpha-Zr"], "ZrO2": phases["ZrO2"]}


def compare(name, crystal, num_orientations, rounds, python):
    import jax

    from physml_jax.simulators.diffraction import kinematic
    from physml_jax.simulators.diffraction.orientations import uniform
    from physml_jax.simulators.diffraction.reflections import reflections

    plan = reflections(crystal, max_g=MAX_G, voltage_kv=VOLTAGE_KV)
    orientations = uniform(jax.random.split(jax.random.key(0), num_orientations))
    settings = {"max_excitation_error": MAX_S, "num_spots": PLACES[name]}
    run = functools.partial(kinematic.spots, plan, **settings)
    start = time.perf_counter()
    whole = jax.jit(run).lower(orientations).compile()
    compile_s = time.perf_counter() - start
    masks = jax.jit(lambda r: run(r).count).lower(orientations).compile()
    given = {k: np.asarray(getattr(crystal, k)).tolist() for k in ("cell", "numbers", "positions")}
    given["rotations"] = np.asarray(orientations[:200], np.float64).tolist()
    found = whole(orientations)
    numbers, times = {"ours": float(found.count.mean())}, {}
    with subprocess.Popen(
        [python, __file__, "--serve"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=sys.stderr, text=True
    ) as peers:
        print(json.dumps(given), file=peers.stdin, flush=True)
        numbers |= json.loads(peers.stdout.readline())
        for _ in range(rounds):
            one = {
                "ours": best_microseconds(lambda: jax.block_until_ready(whole(orientations)), num_orientations),
                "masks": best_microseconds(lambda: jax.block_until_ready(masks(orientations)), num_orientations),
            }
            print("go", file=peers.stdin, flush=True)
            one |= json.loads(peers.stdout.readline())
            times = {k: min(v, times.get(k, v)) for k, v in one.items()}
        peers.stdin.close()
    row = {"case": f"spots of {name}", "reflections": int(plan.count), "places": PLACES[name]}
    row |= {f"{k}_us": round(times[k], 3) if k in times else None for k in ("ours", "masks", *PEERS)}
    row["ratios"] = {k: round(times[k] / times["ours"], 1) for k in PEERS if k in times}
    row |= {"compile_s": round(compile_s, 2), "spots": {k: round(v, 1) for k, v in numbers.items()}}
    print(json.dumps(row), flush=True)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--orientations", type=int, default=8192)
    parser.add_argument("--peers", default=sys.executable, help="interpreter in which the peers are installed")
    parser.add_argument("--serve", action="store_true", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.serve:
        serve_peers()
        return
    import jax

    print(json.dumps({"device": jax.devices()[0].device_kind, "jax": jax.__version__}), flush=True)
    for name, crystal in crystals().items():
        compare(name, crystal, arguments.orientations, arguments.rounds, arguments.peers)


if __name__ == "__main__":
    main()
