"""A structure refined against diffraction patterns: ``python experiments/refine.py crystal.cif --images=patterns.npz
--refine=thickness,b_iso,x --workdir=workdirs/refine``.

The images are those of ``simulate.py lacbed --dose=...``, or measured ones in the same format (``io/patterns.py``).
Thicknesses to refine are first looked for in ``--scan``; ``--shake=0.1`` moves the atoms before, for a test. After
Ctrl-C the same command goes on where it was.
"""

import session
from absl import flags

IMAGES = flags.DEFINE_string("images", None, "Patterns, npz.")
WORKDIR = flags.DEFINE_string("workdir", "workdirs/refine", "Folder of the run.")
REFINE = flags.DEFINE_list("refine", ["thickness"], "thickness, absorption, tilt, b_iso, occupancy, x, y, z, or x@S1.")
START = flags.DEFINE_list("start", [], "Values to start from, such as x@S1=0.38,absorption=0.05.")
SHAKE = flags.DEFINE_float("shake", 0.0, "Moves what is refined before: coordinates by so many angstrom, B by 50 %.")
SCAN = flags.DEFINE_string("scan", "50,1500", "Thicknesses to look at first, from,to in angstrom.")
flags.DEFINE_float("dose", None, "Electrons per pixel at intensity 1, if the images are fractions.")
flags.DEFINE_float("absorption", None, "At the start; by default that of the file.")
flags.DEFINE_integer("num_strong", None, "Beams of the model; by default as in the file.", lower_bound=1)
COMMON = flags.DEFINE_bool("common_scale", False, "One intensity scale for all images instead of one each.")
DEFAULT_B = flags.DEFINE_float("default_b_iso", 0.5, "Thermal factor B of atoms that have none, angstrom^2.")
SEED = flags.DEFINE_integer("seed", 0, "Of --shake.")


def main(path):
    """Reads, refines, reports."""
    from physml_jax.analysis import measured, refinement
    from physml_jax.io import patterns, workdir
    from physml_jax.io.cif import read
    from physml_jax.io.files import sha256_file
    from physml_jax.reports.refinement import make_report
    from physml_jax.training import sharding

    crystal, info = read(session.existing(path), default_b_iso=DEFAULT_B.value)
    given = {n: flags.FLAGS[n].value for n in ("dose", "absorption", "num_strong")}
    images = measured.prepare(crystal, *patterns.read_patterns(session.existing(IMAGES.value)), **given)
    names = ("refine", "start", "shake", "scan", "common_scale", "default_b_iso", "seed")
    options = given | {n: flags.FLAGS[n].value for n in names}
    options |= {"crystal": sha256_file(path), "images": sha256_file(IMAGES.value)}
    sharding.start()
    with workdir.claimed(WORKDIR.value) as folder:
        workdir.prepare(folder, options)
        workdir.write_provenance(folder, seed=SEED.value, config=options)
        stored = patterns.read_state(folder)
        start = measured.start(
            images,
            REFINE.value,
            values=START.value,
            shake=SHAKE.value,
            seed=SEED.value,
            scan=session.numbers("scan", SCAN.value, count=2),
            common_scale=COMMON.value,
        )
        print(f"start: thickness {', '.join(f'{t:g}' for t in start.thicknesses)} Å", flush=True)

        def save(state):
            patterns.write_state(folder, state._asdict())
            row = state.history[-1]
            print(f"iteration {state.iteration}: deviance {row['objective']:.6g}, step {row['step']:.2g} σ", flush=True)

        result = refinement.refine(
            images.counts,
            start,
            REFINE.value,
            settings=images.settings,
            variance=images.variance,
            known_variance=images.variance is None,
            common_scale=COMMON.value,
            state=refinement.state_from(stored) if stored else None,
            callback=save,
        )
        error = measured.model_error(result, images)
        report = make_report(result, images, name=f"{info.formula} ({info.name})", model_error=error)
        session.publish(report, folder)


if __name__ == "__main__":
    session.run(main, required=("images",), words=("crystal.cif",))
