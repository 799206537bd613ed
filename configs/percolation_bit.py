"""The looped network of percolation_looped.py, taught by one bit per state: does it span from top to bottom?

    python experiments/train.py --config=configs/percolation_bit.py
    python experiments/train.py --config=configs/percolation_bit.py:sharpen
    python experiments/train.py --config=configs/percolation_bit.py:sharpen_again

No mask says which sites belong together. Two ideas make it work: the training states are pivotal pairs, where the
density says nothing, and they are small (5 x 5), where a bit says much. The second and third command go on from the
one before at sizes 8 and 12 and learn from the hardest quarter of each batch. Three seeds. Tested at L = 16, 32 and
100. Wall time and scores, which fall with the size: docs/results.md.

``:smoke``: seconds.
"""

from configs import base, percolation_looped, percolation_spanning

VARIANTS = ("", "smoke", "sharpen", "sharpen_again")


def get_config(arg: str = ""):
    """The experiment, one of its later stages, or its variant ``smoke``."""
    if arg not in VARIANTS:
        raise base.unknown_variant(arg, VARIANTS)
    c = percolation_looped.get_config("smoke" if arg == "smoke" else "")
    c.num_seeds = 2 if arg == "smoke" else 3
    c.data.kwargs.targets = ("density", "spanning", "vertical")
    c.data.kwargs.states = "pivotal"
    c.data.kwargs.direction = "vertical"
    c.data.kwargs.size = 5
    c.data.eval_kwargs.size = 16
    c.data.test_kwargs = {"num_examples": 620, "size": 16}
    for probe in c.data.probes.values():
        probe.targets = ("density", "spanning", "vertical")
    if arg != "smoke":
        large = {k: c.data.probes[k] for k in ("pivotal", "cross_cut", "row_cut", "path")}
        random = {"size": 100, "num_examples": 310, "targets": c.data.kwargs.targets}
        small = {f"pivotal_{n}": {"states": "pivotal", "size": n, "num_examples": 400} for n in (16, 32)}
        c.data.probes = {**large, **small, "random": random}
    c.model.kwargs.num_iterations = 30
    c.model.kwargs.max_iterations = 1000  # a network that leaks fills a lattice slowly; a wave needs some 3 L
    c.task.kwargs.label = "vertical"
    c.task.kwargs.supervision = "bit"
    c.optim.learning_rate = 1e-2
    c.train.num_steps = 2000
    if arg.startswith("sharpen"):
        c.data.batch_size = 256
        c.task.kwargs.hardest = 0.25
        c.optim.learning_rate = 3e-3
        c.optim.schedule.warmup_steps = 20
        c.data.kwargs.size = 8
        c.model.kwargs.num_iterations = 32
        c.train.num_steps = 600
        c.train.init_from = "workdirs/percolation_bit"
    if arg == "sharpen_again":
        c.data.kwargs.size = 12
        c.model.kwargs.num_iterations = 48
        c.train.num_steps = 300
        c.train.init_from = "workdirs/percolation_bit-sharpen"
    percolation_spanning.few_steps(c, arg)
    return c
