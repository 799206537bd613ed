"""A vision transformer on the protocol of percolation_looped.py: trained on 16 x 16 states with the mask of connected
sites, tested at L = 100 and 200.

    python experiments/train.py --config=configs/percolation_vit.py

Positions are fixed sines and cosines, so the weights apply to every size. Five seeds. Wall time and scores:
docs/results.md.

``:paper``: the published test set (31,000 states) and twelve blocks. ``:smoke``: seconds.
"""

from configs import base, percolation_looped, percolation_spanning

VARIANTS = ("", "smoke", "paper")


def get_config(arg: str = ""):
    """The experiment, or its variant ``smoke`` or ``paper``."""
    if arg not in VARIANTS:
        raise base.unknown_variant(arg, VARIANTS)
    c = percolation_looped.connected(arg)
    c.model.name = "vit"
    c.model.kwargs = {
        "patch": 4,
        "dim": 96,
        "depth": 4,
        "num_heads": 3,
        "mlp_ratio": 4,
        "num_classes": 1,
        "head": "sites",
        "position": "sincos2d",
        "pool": "mean",
        "dropout": 0.0,
        "exact_gelu": False,
        "dtype": "float32",
    }
    c.optim.learning_rate = 1e-3
    c.train.num_steps = 1600
    if arg == "smoke":
        c.model.kwargs.dim = 12
        c.model.kwargs.depth = 2
    if arg == "paper":
        c.model.kwargs.dim = 192
        c.model.kwargs.depth = 12
        c.train.num_steps = 40_000
    percolation_spanning.few_steps(c, arg)
    return c
