"""Searches an architecture: ``python experiments/search.py --config=configs/saed_search.py``.

Candidates of the config's ``search.space`` are trained a little, judged by validation images, halved, and trained more;
the report says what was found, what each option is worth, and what choosing by the test images would have pretended.
Stop with Ctrl-C whenever you like: the same command goes on with the first group of candidates that lacks.
"""

import session
from absl import flags

CONFIG = session.define_config()
WORKDIR = flags.DEFINE_string("workdir", None, "Folder of the search; by default in workdirs/search.")
DRY_RUN = flags.DEFINE_bool("dry_run", False, "Print candidates, programs and an estimate of the time, and stop.")


def main():
    """Searches and reports."""
    from physml_jax.io.workdir import claimed
    from physml_jax.io.writers import open_progress
    from physml_jax.reports import search as reports
    from physml_jax.training import search, sharding

    sharding.start()
    plan, mesh = search.make_plan(CONFIG.value), sharding.make_mesh()
    if DRY_RUN.value:
        print("\n".join(search.describe(plan, mesh)))
        return
    with claimed(session.workdir_of(CONFIG, WORKDIR.value, root="workdirs/search")) as folder:
        print(f"work directory: {folder}", flush=True)
        progress = open_progress(plan.num_images, label="images")
        try:
            found = search.run(CONFIG.value, mesh, folder, progress=progress.update)
        finally:
            progress.close()
        session.publish(reports.make_report(**found._asdict()), folder)


if __name__ == "__main__":
    session.run(main)
