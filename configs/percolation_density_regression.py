"""The density of a percolation state by regression with a ResNet-18, as published.

    python experiments/train.py --config=configs/percolation_density_regression.py

Default: L = 100, an eighth of the published width, three seeds. The mean over the picture is the density, so a linear
map has no error at all; the network's error says what its non-linear layers cost. Wall time and scores:
docs/results.md.

``:paper``: the published protocol (mean squared error), ten seeds. ``:smoke``: seconds.
"""

from configs import base, percolation_spanning

VARIANTS = ("", "smoke", "paper")


def get_config(arg: str = ""):
    """The experiment, or its variant ``smoke`` or ``paper``."""
    if arg not in VARIANTS:
        raise base.unknown_variant(arg, VARIANTS)
    c = percolation_spanning.data(arg)
    percolation_spanning.classifier(c, arg, num_classes=1, label="label")
    regression(c, "density", scale=(0.0, 1.0) if arg == "paper" else (0.57, 0.14))
    return c


def regression(c, target: str, *, scale: tuple[float, float], transform: str = "none"):
    """Mean squared error on the scaled target, and its report."""
    c.task.name = "regression"
    c.task.kwargs = {
        "inputs": "image",
        "target": target,
        "target_scale": scale,
        "transform": transform,
        "loss": "mse",
        "huber_delta": 1.0,
        "ema_decay": 0.0,
    }
    if c.train.keep_best:
        c.train.keep_best = "-squared_error"
    c.report.name = "regression"
