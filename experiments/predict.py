"""Answers for measured images: ``python experiments/predict.py saed image.tif --scale=0.0018 --cif=a.cif,b.cif``.

``saed`` indexes a diffraction pattern: finds centre and spots, ranks candidate crystals and their orientations, refines
the best. ``--workdir`` receives report.html, the overlay and the tables.
"""

import session
from absl import flags

WORKDIR = flags.DEFINE_string("workdir", None, "Folder of the answer; by default workdirs/predict_<image>.")
SCALE = flags.DEFINE_float("scale", None, "1/angstrom per pixel; by default as the file says.")
CAMERA = flags.DEFINE_float("camera_constant", None, "Pixel angstrom, in place of a scale: distance of a spot times d.")
VOLTAGE = flags.DEFINE_float("voltage_kv", None, "Accelerating voltage; by default as the file says, else 200.")
CIF = flags.DEFINE_list("cif", [], "Candidate crystals: CIF files separated by commas.")
PHASES = flags.DEFINE_list("phases", [], "Candidates by name: phases of the Pu-Zr set, or all; all if --cif is absent.")
CENTRE = flags.DEFINE_string("centre", None, "x,y of the direct beam in pixels of the file; by default found.")
CROP = flags.DEFINE_string("crop", "0,0,0,0", "left,top,right,bottom: pixels cut off, for example a line of text.")
SCALE_ERROR = flags.DEFINE_float("scale_error", 0.01, "Relative standard deviation of the scale.", lower_bound=1e-6)
MAX_ERROR = flags.DEFINE_float(
    "max_excitation_error", 0.03, "Of the spots that are seen, 1/angstrom.", lower_bound=1e-3
)
THRESHOLD = flags.DEFINE_float("threshold", 7.0, "Least height of a spot, in standard deviations of its surroundings.")
FRAME = flags.DEFINE_integer("frame", 0, "Number of the image in a file with several.", lower_bound=0)
NETWORK = flags.DEFINE_string("network", None, "Work directory of a trained classification of saed, asked as well.")


def saed(path):
    """Indexes one image and returns the report."""
    from pathlib import Path

    from physml_jax.analysis import indexing, pattern_spots
    from physml_jax.analysis.pattern_refinement import Priors
    from physml_jax.data.candidates import load_candidates
    from physml_jax.io.micrographs import cropped, read_micrograph, scale_of
    from physml_jax.reports import indexing as reports

    found = read_micrograph(path, frame=FRAME.value)
    scale, note = scale_of(found, scale=SCALE.value, camera_constant=CAMERA.value)
    voltage = VOLTAGE.value or found.voltage_kv or 200.0
    names, crystals = load_candidates(CIF.value, PHASES.value)
    crop = session.numbers("crop", CROP.value, int, 4)
    image, centre = cropped(found.image, crop), None
    if CENTRE.value is not None:
        centre = tuple(c - o for c, o in zip(session.numbers("centre", CENTRE.value, count=2), crop, strict=False))
    pattern = pattern_spots.read_pattern(image, scale=scale, centre=centre, threshold=THRESHOLD.value)
    priors = Priors(SCALE_ERROR.value, scale * max(1.0, pattern.centre.uncertainty), ellipticity=0.01)
    options = {"voltage_kv": voltage, "max_excitation_error": MAX_ERROR.value}
    result = indexing.index_spots(pattern.spots, crystals, pattern.view, priors=priors, **options)
    network = None
    if NETWORK.value:
        from physml_jax.training import asking

        network = asking.probabilities(NETWORK.value, image, pattern)
    return reports.make_report(
        image, pattern, result, names, crystals, source=Path(path).name, scale_note=note, network=network, **options
    )


COMMANDS = {"saed": saed}


def main(command, path):
    """Writes the report of a command."""
    from pathlib import Path

    from physml_jax.io.tables import write_tables
    from physml_jax.io.workdir import claimed
    from physml_jax.training import sharding

    if command not in COMMANDS:
        raise ValueError(f"command: there is no {command!r}; available: {', '.join(COMMANDS)}")
    sharding.start()
    report = COMMANDS[command](path)
    with claimed(Path(WORKDIR.value or f"workdirs/predict_{Path(path).stem}")) as folder:
        write_tables(folder, report)
        session.publish(report, folder)


if __name__ == "__main__":
    session.run(main, required=(), words=("command", "image"))
