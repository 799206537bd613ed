"""Diffraction patterns of a crystal: ``python experiments/simulate.py lacbed crystal.cif --thicknesses=500,1000
--reflections="0,0,0;2,2,0" --out=patterns``.

``lacbed`` makes images over tilt, ``cbed`` the pattern of discs, ``rocking`` curves along ``--direction``. The folder
gets report.html, figures/*.png and patterns.npz, which ``refine.py`` reads. With ``--dose`` the images are numbers of
electrons, with their noise.
"""

import session
from absl import flags

OUT = flags.DEFINE_string("out", "patterns", "Folder of the results.")
THICKNESSES = flags.DEFINE_string("thicknesses", "450", "Angstrom, with commas.")
REFLECTIONS = flags.DEFINE_string("reflections", None, 'Such as "0,0,0;2,2,0" (quoted), or "all" with --radius.')
RADIUS = flags.DEFINE_float("radius", None, "All reflections of the zero layer up to this, 1/angstrom.")
ZONE = flags.DEFINE_string("zone", "0,0,1", "Direction u,v,w along the untilted beam.")
AZIMUTH = flags.DEFINE_float("azimuth_deg", 0.0, "Turns the image axes, degrees; at 0 x lies along a.")
DIRECTION = flags.DEFINE_string("direction", None, "rocking: h,k,l of the line; by default the first reflection.")
VOLTAGE = flags.DEFINE_float("voltage_kv", 200.0, "Accelerating voltage, kV.")
HALF_ANGLE = flags.DEFINE_float(
    "half_angle_mrad", None, "Largest tilt; by default 3 times the shortest g (cbed: 0.45)."
)
PIXELS = flags.DEFINE_integer("pixels", 128, "Along each side of an image, or along the line.", lower_bound=2)
ABSORPTION = flags.DEFINE_float("absorption", 0.0, "Imaginary over real potential, such as 0.05; or see next.")
MODEL = flags.DEFINE_enum("absorption_model", "proportional", ("proportional", "thermal"), "thermal: 1 is calculated.")
TOLERANCE = flags.DEFINE_float("tolerance", 0.01, "Wanted error of intensities from the finite number of beams.")
STRONG = flags.DEFINE_integer("num_strong", 256, "Beams of the first attempt; more where they miss --tolerance.")
TABLE = flags.DEFINE_string("form_factors", "kirkland", "Table of electron scattering factors.")
DEFAULT_B = flags.DEFINE_float("default_b_iso", 0.5, "Thermal factor B of atoms that have none, angstrom^2.")
DOSE = flags.DEFINE_float("dose", None, "Electrons per pixel at intensity 1; then images are Poisson numbers.")
BACKGROUND = flags.DEFINE_float("background", 0.0, "With --dose: mean further electrons per pixel.")
SEED = flags.DEFINE_integer("seed", 0, "Of the noise.")


def main(kind, path):
    """Calculates, draws, writes."""
    from physml_jax.analysis import simulation
    from physml_jax.io.cif import read
    from physml_jax.io.patterns import write_patterns
    from physml_jax.io.workdir import claimed
    from physml_jax.reports import simulation as report
    from physml_jax.training import sharding

    if kind not in report.KINDS:
        raise ValueError(f"expected {', '.join(report.KINDS)} before the file, got {kind!r}")
    thicknesses, zone = session.numbers("thicknesses", THICKNESSES.value), session.numbers("zone", ZONE.value, int, 3)
    texts = [] if REFLECTIONS.value in (None, "all") else REFLECTIONS.value.split(";")
    request = simulation.Request(
        kind=kind,
        thicknesses=thicknesses,
        zone_axis=zone,
        reflections=[session.numbers("reflections", r, int, 3) for r in texts] or None,
        radius=RADIUS.value,
        direction=DIRECTION.value and session.numbers("direction", DIRECTION.value, int, 3),
        voltage_kv=VOLTAGE.value,
        half_angle_mrad=HALF_ANGLE.value,
        num_pixels=PIXELS.value,
        azimuth_deg=AZIMUTH.value,
        absorption=ABSORPTION.value,
        absorption_model=MODEL.value,
        tolerance=TOLERANCE.value,
        num_strong=STRONG.value,
        form_factors=TABLE.value,
        dose=DOSE.value,
        background=BACKGROUND.value,
        seed=SEED.value,
    )
    crystal, info = read(session.existing(path), default_b_iso=DEFAULT_B.value)
    sharding.start()
    found, images = simulation.answer(crystal, request)
    page = report.make_report(request, found, images, name=f"{info.formula} ({info.name})")
    with claimed(OUT.value) as folder:
        arrays, about = simulation.contents(crystal, request, found, images)
        write_patterns(folder / "patterns.npz", arrays, {"crystal": info.name, **about})
        session.publish(page, folder)
    print(f"arrays: {folder / 'patterns.npz'}")


if __name__ == "__main__":
    session.run(main, required=(), words=("lacbed|cbed|rocking", "crystal.cif"))
