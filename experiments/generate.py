"""Generates the stored data of an experiment, or verifies them: ``python experiments/generate.py
--config=configs/lacbed.py [--verify]``.

Training does this by itself. On its own it serves several processes at once (``--process_index``,
``--num_processes``) and checks of what is there.
"""

import session
from absl import flags

CONFIG = session.define_config()
VERIFY = flags.DEFINE_bool("verify", False, "Read every record again and compare it with the manifest.")
PROCESS_INDEX = flags.DEFINE_integer("process_index", 0, "Number of this process among those that share the work.")
NUM_PROCESSES = flags.DEFINE_integer("num_processes", 1, "Processes that share the work, all with the same options.")


def main():
    """Builds the stored records of every split."""
    from physml_jax.data import store
    from physml_jax.training import setup, sharding

    sharding.start()
    experiment = setup.build(CONFIG.value)
    recipes = setup.recipes(experiment)
    if not recipes:
        raise ValueError("data.source: this experiment simulates its data during training; nothing is stored")
    problems = []
    for recipe in recipes:
        with session.data_progress() as progress:
            path = store.build(
                recipe, progress=progress, process_index=PROCESS_INDEX.value, num_processes=NUM_PROCESSES.value
            )
        print(f"{recipe.name}: {sum(recipe.shard_lengths)} records in {path}", flush=True)
        if VERIFY.value:
            problems += store.verify(path)
    if problems:
        raise ValueError("the stored data are damaged; delete the folder and generate again:\n" + "\n".join(problems))
    if VERIFY.value:
        print("verified: every record is as it was written")


if __name__ == "__main__":
    session.run(main)
