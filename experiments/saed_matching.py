"""Trained networks beside template matching on the same patterns: ``python experiments/saed_matching.py
--runs=workdirs/a,workdirs/b --workdir=workdirs/matched``.

Every run is restored and asked as by compare.py; then zone-axis templates of the nine phases are matched to the test
images and to those of the probes, with the believed scale and a window for its error. The matcher is a row of the
tables and a curve in the figures, with probabilities whose temperature the validation images choose. Runs need images
as recorded (``data.kwargs.grid`` unset) or resampled; the matcher sees what the first run saw.
"""

import session
from absl import flags

RUNS = flags.DEFINE_list("runs", None, "Work directories of finished runs, separated by commas.")
WORKDIR = flags.DEFINE_string("workdir", None, "Folder of the report: metrics.json, figures, report.html.")
CHUNK = flags.DEFINE_integer("chunk", 20, "Images at a time.", lower_bound=1)


def main():
    """Restores the runs, asks them and the matcher, and reports."""
    from pathlib import Path

    from physml_jax.io.workdir import claimed, read_config
    from physml_jax.training import loop, setup, sharding

    sharding.start()
    mesh = sharding.make_mesh()
    folders = [Path(name) for name in RUNS.value]
    experiments = [setup.build(read_config(folder)) for folder in folders]
    if any(e.config["data"]["name"] != "saed" for e in experiments):
        raise ValueError("runs: expected experiments on the simulated patterns (data.name = 'saed')")
    finished = []
    for folder, experiment in zip(folders, experiments, strict=True):
        print(f"restoring {folder}", flush=True)
        sources = session.open_sources(experiment, mesh)
        state = loop.restore(experiment, sources["train"], mesh, folder)
        finished += loop.finished_runs(experiment, sources, state, folder)
    finished.append(_matched(finished[0]))
    with claimed(Path(WORKDIR.value)) as folder:
        session.publish(experiments[0].report(finished), folder)


def _matched(run):
    """The matcher's answers in the form of a run, on the images of ``run``."""
    config = dict(run.config)
    data = config["data"]
    config["model"] = {"name": "template_matching", "kwargs": {}}
    ask = _matcher(data["kwargs"])

    def told(name):
        """What the matcher is told of a set of images: how wrong the scale may be, and whether the centre is known."""
        settings = data["kwargs"] | data["eval_kwargs"] | data["probes"].get(name, {})
        off = settings["level"] in ("distorted", "dynamical")
        error = settings["scale_error"]
        return (0.02 if off else 0.0) if error is None else error, not off or settings["grid"] is not None

    probes = {}
    for name, probe in run.probes.items():
        print(f"matching {name}", flush=True)
        probes[name] = probe._replace(predictions=ask(probe.examples, *told(name)))
    print("matching the test images", flush=True)
    predictions = ask(run.examples, *told(""))
    return run._replace(
        name="template matching", config=config, history=[], predictions=predictions, probes=probes, member=0
    )


def _matcher(settings):
    """A function (examples, error of the scale, is the centre known?) -> logits [N, 9] and sublogits [N, 9, Z]."""
    import jax
    import numpy as np

    from physml_jax.analysis import template_matching
    from physml_jax.data import saed
    from physml_jax.data.saed_phases import load_phases

    names = ("voltage_kv", "max_g", "max_zone_index", "max_tilt_deg", "max_excitation_error", "thickness")
    library = template_matching.zone_templates(
        [phase.crystal for phase in load_phases()],
        deformations=saed.average_deformations(),
        **{name: settings[name] for name in names},
    )
    phase = np.asarray(library.phase)
    number = np.concatenate([np.arange(n) for n in np.bincount(phase)])

    def ask(examples, error, centred):
        @jax.jit
        def match(images, scale):
            centre = None if centred else template_matching.find_centre(images)
            return template_matching.match(images, library, scale=scale, centre=centre, scale_window=error).scores

        images, scales, found = examples["image"][..., 0], examples["scale"], []
        for start in range(0, len(images), CHUNK.value):
            rows = np.arange(start, start + CHUNK.value) % len(images)  # one shape, one program
            found.append(np.asarray(match(images[rows], scales[rows]))[: len(images) - start])
        scores = np.full((len(images), phase.max() + 1, number.max() + 1), -1.0)
        found = np.concatenate(found)
        scores[:, phase, number] = np.where(np.isfinite(found), found, -1.0)
        # Any factor would do: the temperature comes from the validation images.
        return {"logits": 100.0 * scores.max(2), "sublogits": 100.0 * scores}

    return ask


if __name__ == "__main__":
    session.run(main, required=("runs", "workdir"))
