"""Labelled images of diffraction patterns per second of processor time, level by level, and what each step costs.

    python benchmarks/saed_images.py [--rounds 3]

Patterns of the nine phases in equal numbers near low-index zone axes, half the image's side from 0.8 to 1.2 1/angstrom,
200 kV, at most 96 spots each, from the compiled ``sample`` of ``data.saed``: keys in, images with labels out. One JSON
line per case:

- ``ours_us``: microseconds per image, from process time (other load on the machine matters little; our threads
  count), the best of ``rounds`` alternating rounds after compilation;
- ``per_cpu_s``: images per second of processor time;
- ``compile_s``: wall seconds of tracing and compiling.

With the extra package diffsims installed, the first line of each size also has ``diffsims_us``: its list of spots, its
picture (``get_diffraction_pattern`` with a Gaussian of the same width) and NumPy's Poisson numbers, alpha-Zr, in the
same process; it is null otherwise.
"""

import argparse
import json
import sys
import time

import jax
import jax.numpy as jnp
import numpy as np

from physml_jax.core.rng import example_key
from physml_jax.data import saed
from physml_jax.data.saed_phases import load_phases
from physml_jax.simulators.diffraction import exposure, noise

BATCH = {128: 288, 256: 144}


def best_microseconds(functions, rounds):
    """Process microseconds per image: name -> (fn, images per call) -> the best of alternating rounds of 1 s."""
    times = {name: [] for name in functions}
    for _ in range(rounds):
        for name, (fn, images) in functions.items():
            calls, start, wall = 0, time.process_time(), time.perf_counter()
            while calls == 0 or time.perf_counter() - wall < 1.0:
                fn()
                calls += 1
            times[name].append((time.process_time() - start) / calls / images * 1e6)
    return {name: min(t) for name, t in times.items()}


def compiled(fn, *args):
    """A function that runs the compiled ``fn`` to its end, and the seconds that compiling took."""
    start = time.perf_counter()
    program = jax.jit(fn).lower(*args).compile()
    seconds = time.perf_counter() - start
    return lambda: jax.block_until_ready(program(*args)), round(seconds, 2)


def diffsims_image(pixels):
    """One noisy image per call of diffsims, or ``None`` if it is not installed."""
    try:
        from diffpy.structure import Atom, Lattice, Structure
        from diffsims.generators.simulation_generator import SimulationGenerator
        from orix.crystal_map import Phase
        from orix.quaternion import Rotation
    except ImportError:
        print("diffsims is not installed; its numbers are null", file=sys.stderr)
        return None
    crystal = load_phases()[0].crystal
    atoms = [Atom("Zr", x) for x in np.asarray(crystal.positions)]
    phase = Phase("zr", space_group=194, structure=Structure(atoms, Lattice(*map(float, crystal.cell))))
    generator, random = SimulationGenerator(200.0), np.random.default_rng(0)
    rotations = iter(Rotation.random(100_000))

    def image():
        found = generator.calculate_diffraction2d(
            phase, next(rotations), reciprocal_radius=1.2, max_excitation_error=0.02, with_direct_beam=True
        )
        picture = found.get_diffraction_pattern(
            shape=(pixels, pixels), sigma=0.009 * pixels, calibration=2.0 / pixels, fast=True
        )
        return random.poisson(np.asarray(picture) * 1000.0)

    image()
    return image


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=3)
    arguments = parser.parse_args()
    print(json.dumps({"device": jax.devices()[0].device_kind, "jax": jax.__version__}), flush=True)
    for pixels, batch in BATCH.items():
        index = jnp.arange(batch)
        keys = example_key(0, "benchmark", index)
        functions, seconds = {}, {}
        mean = jnp.full((batch, pixels, pixels), 3.0)
        functions["Poisson numbers alone"], seconds["Poisson numbers alone"] = compiled(noise.poisson, keys, mean)
        for level in exposure.LEVELS:
            stream = saed.make_dataset(pixels=pixels, examples="stream", classes="balanced", level=level)
            functions[level], seconds[level] = compiled(stream.sample, keys, index)
        peer = diffsims_image(pixels)
        work = {name: (fn, batch) for name, fn in functions.items()} | ({"diffsims": (peer, 1)} if peer else {})
        times = best_microseconds(work, arguments.rounds)
        for name in functions:
            row = {"case": f"{name}, {pixels} x {pixels}", "ours_us": round(times[name], 1)}
            row |= {"per_cpu_s": round(1e6 / times[name]), "diffsims_us": round(times["diffsims"], 1) if peer else None}
            print(json.dumps(row | {"compile_s": seconds[name]}), flush=True)


if __name__ == "__main__":
    main()
