"""One report of several runs: ``python experiments/compare.py --runs=workdirs/a,workdirs/b --workdir=workdirs/ab``.

Every run is restored from its work directory with the options it was trained with and answers the examples of its own
report; nothing is trained. The report is the one of the first run's config, and decides what it compares: that of the
Anderson model groups runs by size, classes and resolution, others refuse runs that were evaluated on other examples.
"""

import session
from absl import flags

RUNS = flags.DEFINE_list("runs", None, "Work directories of finished runs, separated by commas.")
WORKDIR = flags.DEFINE_string("workdir", None, "Folder of the comparison: metrics.json, figures, report.html.")


def main():
    """Restores every run, asks it, and reports on all together."""
    from pathlib import Path

    from physml_jax.io.workdir import claimed, read_config
    from physml_jax.training import loop, setup, sharding

    sharding.start()
    mesh = sharding.make_mesh()
    folders = [Path(name) for name in RUNS.value]
    if len(set(folders)) < len(folders):
        raise ValueError(f"--runs: expected different folders, got {', '.join(map(str, folders))}")
    experiments = [setup.build(read_config(folder)) for folder in folders]
    finished = []
    for folder, experiment in zip(folders, experiments, strict=True):
        print(f"restoring {folder}", flush=True)
        sources = session.open_sources(experiment, mesh)
        state = loop.restore(experiment, sources["train"], mesh, folder)
        labels = setup.labels(experiment, experiment.config["report"]["split"])
        found = loop.finished_runs(experiment, sources, state, folder, labels=labels)
        name = _free_name(found[0].name, folder, {run.name for run in finished})
        finished += [run._replace(name=name) for run in found]
    with claimed(Path(WORKDIR.value)) as folder:
        session.publish(experiments[0].report(finished), folder)


def _free_name(name, folder, taken):
    """Runs of one name would pass for seeds of one model: the folder's name, or else its path, tells them apart."""
    return next(n for n in (name, f"{name} ({folder.name})", f"{name} ({folder})") if n not in taken)


if __name__ == "__main__":
    session.run(main, required=("runs", "workdir"))
