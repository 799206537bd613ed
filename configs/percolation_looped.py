"""A network that sees the cluster: a looped, monotone convolutional net, trained on small lattices, used on large ones.

    python experiments/train.py --config=configs/percolation_looped.py

Trained on 8 x 8 states with the mask of the sites that are joined to the first row as target, five seeds, 465
parameters each; the answer "spans in either direction" is read from the last row of the state and of its transpose.
Tested at L = 100 on the published densities, on pivotal pairs, cuts and paths, and at L = 200. The same protocol for a
ResNet-18 and a vision transformer is in percolation_resnet.py and percolation_vit.py; experiments/compare.py puts them
into one table. Wall time and scores: docs/results.md.

``:paper``: the published test set (31,000 states). ``:smoke``: seconds.
"""

from configs import base, percolation_spanning

VARIANTS = ("", "smoke", "paper")


def get_config(arg: str = ""):
    """The experiment, or its variant ``smoke`` or ``paper``."""
    if arg not in VARIANTS:
        raise base.unknown_variant(arg, VARIANTS)
    c = connected(arg)
    c.model.name = "looped"
    c.model.kwargs = {
        "hidden": 16,
        "num_iterations": 32,
        "max_iterations": 5000,
        "tolerance": 1e-4,
        "monotone": True,
        "dtype": "float32",
    }
    c.data.kwargs.size = 8
    c.optim.learning_rate = 2e-2
    c.train.num_steps = 2000
    percolation_spanning.few_steps(c, arg)
    return c


def connected(arg: str):
    """Small states with the mask of connected sites, and large ones to be tested on; shared by all architectures."""
    c = percolation_spanning.data(arg)
    c.num_seeds = 2 if arg == "smoke" else 5
    c.data.kwargs.size = 16
    c.data.kwargs.states = "bernoulli"
    c.data.kwargs.densities = tuple(round(0.3 + 0.05 * i, 2) for i in range(11))
    c.data.kwargs.targets = ("density", "spanning", "vertical", "connected")
    c.data.kwargs.direction = "either"
    tested = {"states": "random", "densities": percolation_spanning.DENSITIES}
    c.data.eval_kwargs = {"num_examples": 310, **tested}
    c.data.test_kwargs = {"num_examples": 620, "size": 100}
    c.data.batch_size = 64
    c.data.eval_batch_size = 50
    c.data.probes = percolation_spanning.probes(arg, num_examples=100)
    if arg != "smoke":
        c.data.probes.pivotal_200 = {"states": "pivotal", "size": 200, "num_examples": 20}
        c.data.probes.random_200 = {"size": 200, "num_examples": 31}
    c.data.probes.update(percolation_spanning.sizes(arg, {16: 4600, 32: 2300, 64: 690}))
    c.task.name = "connectivity"
    c.task.kwargs = {
        "inputs": "image",
        "mask": "connected",
        "label": "spanning",
        "supervision": "mask",
        "hardest": 1.0,
        "ema_decay": 0.0,
    }
    c.optim.name = "adam"
    c.optim.schedule = {"name": "cosine", "warmup_steps": 50}
    c.optim.clip_norm = 1.0
    c.train.eval_every = 400
    c.train.checkpoint_every = 200
    percolation_spanning.report(c)
    if arg == "smoke":
        c.data.kwargs.size = 8
        c.data.eval_kwargs.num_examples = 31
        c.data.test_kwargs = {"num_examples": 62, "size": 12}
        c.data.batch_size = 16
        c.data.eval_batch_size = 32
    if arg == "paper":
        c.data.test_kwargs.num_examples = 31_000
        c.data.eval_batch_size = 250
    return c
