"""Trains an experiment, evaluates it and writes its report: ``python experiments/train.py
--config=configs/lacbed.py``.

A variant follows a colon (``configs/lacbed.py:smoke``), and any value of the config can be set
(``--config.train.num_steps=100``). Stop with Ctrl-C whenever you like:
the same command goes on where it was. Status 130 (Ctrl-C) or 143 (SIGTERM) means stopped with the state saved.
"""

import session
from absl import flags

CONFIG = session.define_config()
WORKDIR = flags.DEFINE_string("workdir", None, "Folder of the run; by default workdirs/<config>[-<variant>][-<hash>].")
DRY_RUN = flags.DEFINE_bool("dry_run", False, "Print parameters, memory and an estimate of the time, and stop.")
DISTRIBUTED = flags.DEFINE_bool("distributed", False, "Connect to the other processes of this job (jax.distributed).")
REPORT = flags.DEFINE_bool("report", True, "Evaluate and write the report after training.")


def main():
    """Builds, trains, reports."""
    from physml_jax.io.workdir import claimed
    from physml_jax.training import loop, setup, sharding

    sharding.start(distributed=DISTRIBUTED.value)
    experiment = setup.build(CONFIG.value)
    mesh = sharding.make_mesh()
    if DRY_RUN.value:
        return session.dry_run(experiment, mesh)
    with claimed(session.workdir_of(CONFIG, WORKDIR.value)) as folder:
        print(f"work directory: {folder}", flush=True)
        sources = session.open_sources(experiment, mesh)
        state = loop.train(experiment, sources, mesh, folder)
        if REPORT.value:
            session.report(experiment, sources, state, folder)


if __name__ == "__main__":
    session.run(main)
