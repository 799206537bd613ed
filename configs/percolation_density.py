"""Which of a few densities does a percolation state have? The smallest complete experiment, and a check of the
machinery.

    python experiments/train.py --config=configs/percolation_density.py

Default: 16x16 lattices at 9 densities, a small ResNet, 20 seconds on two CPU cores. Counting the occupied sites
answers the question exactly, so a network below 100 %
has learned something other than counting. Variants: ``:smoke`` (seconds).
"""

from configs import base

VARIANTS = ("", "smoke")


def get_config(arg: str = ""):
    """The experiment, or its variant ``smoke``."""
    if arg not in VARIANTS:
        raise base.unknown_variant(arg, VARIANTS)
    c = base.get_config()
    c.data.name = "percolation"
    c.data.kwargs = {
        "size": 16,
        "densities": (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9),
    }
    c.data.eval_kwargs = {"num_examples": 900}
    c.data.batch_size = 64
    c.data.eval_batch_size = 100
    c.model.name = "resnet"
    c.model.kwargs = {"depth": 10, "num_classes": 9, "width": 8, "small_stem": True, "dtype": "float32"}
    c.task.name = "classification"
    c.task.kwargs = {"inputs": "image", "label": "label", "ema_decay": 0.0}
    c.optim.name = "adam"
    c.optim.learning_rate = 2e-3
    c.optim.schedule = {"name": "cosine", "warmup_steps": 20}
    c.train.num_steps = 600
    c.train.eval_every = 100
    c.train.checkpoint_every = 100
    c.train.keep_best = "accuracy"
    c.report.name = "classification"
    if arg == "smoke":
        c.data.kwargs.size = 8
        c.data.eval_kwargs.num_examples = 36
        c.data.batch_size = 16
        c.data.eval_batch_size = 16
        c.model.kwargs.width = 4
        c.train.num_steps = 8
        c.train.log_every = 2
        c.train.eval_every = 4
        c.train.checkpoint_every = 4
    return c
