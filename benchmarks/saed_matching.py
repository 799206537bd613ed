"""Template matching of diffraction patterns: accuracy against the error of the scale, and patterns per second.

    python benchmarks/saed_matching.py [--images 360]

Fresh patterns of the nine phases in equal numbers, near zone axes with indices up to 2, tilted by up to 3 degrees, 128
pixels, half the image's side from 0.8 to 1.2 1/angstrom. The matcher has templates of the same zones and the true
settings of the simulation; the lattice of each phase is the average one. It takes the centre as known but at the level
``distorted``, where it looks for it. One JSON line per case:

- ``balanced``: balanced accuracy of the phase; ``zone``: share of right zone axes where the phase is right, both with
  95 % intervals; ``recall``: of each phase;
- ``first_stage``: balanced accuracy without the comparison of tilts;
- ``per_cpu_s``: patterns per second of processor time with both stages, after compilation.
"""

import argparse
import json
import time

import jax
import jax.numpy as jnp
import numpy as np

from physml_jax.analysis import template_matching
from physml_jax.core.batching import chunked
from physml_jax.core.rng import example_key
from physml_jax.data import saed
from physml_jax.data.saed_phases import load_phases

#: Name -> level, largest relative error of the scale (``None``: the level's), window of the matcher.
CASES = {
    "scale known, clean": ("clean", None, 0.0),
    "scale known": ("detector", None, 0.0),
    "scale to 2 %": ("detector", 0.02, 0.02),
    "distorted": ("distorted", None, 0.02),
    "scale to 5 %": ("detector", 0.05, 0.05),
    "scale to 25 %": ("detector", 0.25, 0.25),
}


def scores(library, batch, window, centred, top):
    """Scores [N, T] and processor seconds."""

    def fn(images, scale):
        centre = None if centred else template_matching.find_centre(images)
        return template_matching.match(images, library, scale=scale, centre=centre, scale_window=window, top=top).scores

    inputs = batch["image"], batch["scale"]
    program = jax.jit(chunked(fn, chunk_size=18)).lower(*inputs).compile()
    start = time.process_time()
    return np.asarray(program(*inputs)), time.process_time() - start


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--images", type=int, default=360)
    num = parser.parse_args().images
    print(json.dumps({"device": jax.devices()[0].device_kind, "jax": jax.__version__, "images": num}), flush=True)
    start = time.process_time()
    crystals = [phase.crystal for phase in load_phases()]
    library = template_matching.zone_templates(crystals, deformations=saed.average_deformations())
    seconds = time.process_time() - start
    print(json.dumps({"case": "library", "templates": len(library.phase), "cpu_s": round(seconds, 1)}), flush=True)
    index = jnp.arange(num)
    for name, (level, error, window) in CASES.items():
        stream = saed.make_dataset(examples="stream", classes="balanced", level=level, scale_error=error)
        batch = jax.tree.map(np.asarray, jax.jit(stream.sample)(example_key(0, "benchmark", index), index))
        found, seconds = scores(library, batch, window, level != "distorted", 3)
        first, _ = scores(library, batch, window, level != "distorted", 0)
        both = [template_matching.accuracy(s, library, batch["phase"], batch["zone"]) for s in (found, first)]
        right = library.phase[found.argmax(1)] == batch["phase"]
        row = {"case": name, "window": window}
        for field, value in both[0]._asdict().items():
            row[field] = np.round(value, 3).tolist()
        row["recall"] = [round(float(right[batch["phase"] == p].mean()), 2) for p in range(len(crystals))]
        row |= {"first_stage": round(both[1].balanced, 3), "per_cpu_s": round(num / seconds)}
        print(json.dumps(row), flush=True)


if __name__ == "__main__":
    main()
