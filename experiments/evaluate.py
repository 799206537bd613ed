"""Evaluates a trained run again and rewrites its report: ``python experiments/evaluate.py
--config=configs/lacbed.py``.

The config and options must be those of the run. ``--config.report.split=validation`` looks at another split.
"""

import session
from absl import flags

CONFIG = session.define_config()
WORKDIR = flags.DEFINE_string("workdir", None, "Folder of the run; by default the one that train.py uses.")


def main():
    """Restores the latest checkpoint and reports on it."""
    from physml_jax.io.workdir import claimed, prepare
    from physml_jax.training import loop, setup, sharding

    sharding.start()
    experiment = setup.build(CONFIG.value)
    mesh = sharding.make_mesh()
    folder = session.workdir_of(CONFIG, WORKDIR.value)
    if not folder.is_dir():
        raise FileNotFoundError(f"{folder}: there is no such work directory; train first, or name one with --workdir")
    with claimed(folder) as folder:
        prepare(folder, experiment.config)
        sources = session.open_sources(experiment, mesh)
        state = loop.restore(experiment, sources["train"], mesh, folder)
        session.report(experiment, sources, state, folder)


if __name__ == "__main__":
    session.run(main)
