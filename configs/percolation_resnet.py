"""A ResNet-18 on the protocol of percolation_looped.py: trained on 16 x 16 states with the mask of connected sites,
tested at L = 100 and 200.

    python experiments/train.py --config=configs/percolation_resnet.py

The head gives one answer per site instead of one per state. Five seeds, a quarter of the published width. Wall time and
scores: docs/results.md.

``:paper``: the published test set (31,000 states) and the published width. ``:smoke``: seconds.
"""

from configs import base, percolation_looped, percolation_spanning

VARIANTS = ("", "smoke", "paper")


def get_config(arg: str = ""):
    """The experiment, or its variant ``smoke`` or ``paper``."""
    if arg not in VARIANTS:
        raise base.unknown_variant(arg, VARIANTS)
    c = percolation_looped.connected(arg)
    c.model.name = "resnet"
    c.model.kwargs = {
        "depth": 18,
        "num_classes": 1,
        "width": 16,
        "small_stem": True,
        "head": "sites",
        "dtype": "float32",
    }
    c.optim.learning_rate = 1e-3
    c.train.num_steps = 1500
    if arg == "smoke":
        c.model.kwargs.depth = 10
        c.model.kwargs.width = 4
    if arg == "paper":
        c.model.kwargs.width = 64
        c.train.num_steps = 20_000
    percolation_spanning.few_steps(c, arg)
    return c
