"""Does a percolation state span? A ResNet-18 reads the density instead of the cluster, as published.

    python experiments/train.py --config=configs/percolation_spanning.py

Default: L = 100, the 31 published densities, an eighth of the published width, three seeds. The report holds the
network against a predictor that sees only the density, and against states on which that predictor fails: pivotal pairs,
cuts, paths. Wall time and scores: docs/results.md.

``:paper``: the published protocol (Bayo, Honecker, Roemer 2023): 310,000 states, Adadelta, 20 epochs, ten seeds; but
without ImageNet weights. ``:smoke``: seconds.
"""

import ml_collections
from ml_collections.config_dict import placeholder

from configs import base

VARIANTS = ("", "smoke", "paper")

#: 0.55 to 0.66 in steps of 0.005 around the threshold, coarser elsewhere.
DENSITIES = (0.1, 0.2, 0.3, 0.4, 0.5, *(round(0.55 + 0.005 * i, 3) for i in range(23)), 0.7, 0.8, 0.9)


def get_config(arg: str = ""):
    """The experiment, or its variant ``smoke`` or ``paper``."""
    if arg not in VARIANTS:
        raise base.unknown_variant(arg, VARIANTS)
    c = data(arg)
    c.data.kwargs.targets = ("label", "density", "spanning")
    c.data.probes = {**probes(arg), **sizes(arg, {32: 2300, 64: 2300})}
    classifier(c, arg, num_classes=2, label="spanning")
    report(c)
    return c


def data(arg: str):
    """Percolation states at the published densities; shared by the experiments on them."""
    c = base.get_config()
    c.data.name = "percolation"
    c.data.kwargs = {
        "size": 100,
        "densities": DENSITIES,
        "subset": "all",
        "num_examples": placeholder(int),  # a stream: no state is seen twice
        "states": "random",
        "targets": ("label", "density"),
        "correlation": "textbook",
        "correlation_edges": (),
        "direction": "either",
        "law": "wandering",
        "orientation": "vertical",
        "thickness": 1,
        "num_lines": 1,
    }
    c.data.eval_kwargs = {"num_examples": 620}
    c.data.test_kwargs = {"num_examples": 6200}
    # Rows of a stream come in order of their density, so every batch holds every density twice. In random batches the
    # mean density that batch normalisation subtracts scatters by three steps of the grid: that hides the classes.
    c.data.batch_size = 62
    c.data.eval_batch_size = 100
    c.report.max_reference = 3100
    if arg == "smoke":
        c.data.kwargs.size = 12
        c.data.eval_kwargs.num_examples = 31
        c.data.test_kwargs.num_examples = 62
        c.data.batch_size = 16
        c.data.eval_batch_size = 32
    if arg == "paper":
        c.data.kwargs.num_examples = 279_000
        c.data.eval_kwargs.num_examples = 31_000
        c.data.test_kwargs.num_examples = 31_000
        c.data.batch_size = 256
        c.data.eval_batch_size = 500
        c.report.max_reference = 31_000
    return c


def probes(arg: str, *, num_examples: int = 400):
    """States on which a reader of the density is wrong, or right for the wrong reason."""
    common = {"num_examples": num_examples, "size": 100}
    if arg == "smoke":
        common = {"num_examples": 12, "size": 12}
    if arg == "paper":
        common["num_examples"] = 4000
    sets = {
        "pivotal": {"states": "pivotal", **common},
        "cross_cut": {"states": "cross_cut", "densities": (0.7, 0.8, 0.9), **common},
        "row_cut": {"states": "row_cut", "densities": (0.7, 0.8, 0.9), **common},
        "path": {"states": "path", "densities": (0.1, 0.2, 0.3, 0.4, 0.5), **common},
        "anti_path": {"states": "anti_path", "orientation": "both", "densities": (0.7, 0.8, 0.9), **common},
    }
    if arg == "smoke":
        sets = {"pivotal": sets["pivotal"]}  # every other set compiles a sampler of its own
    return ml_collections.ConfigDict(sets)


def sizes(arg: str, num_examples: dict[int, int]):
    """States of other sizes around the threshold, for finite-size scaling: size -> number of states."""
    critical = tuple(p for p in DENSITIES if 0.54 < p < 0.67)
    if arg == "smoke":
        num_examples = {8: 23}
    sets = {f"size_{n}": {"size": n, "densities": critical, "num_examples": k} for n, k in num_examples.items()}
    return ml_collections.ConfigDict(sets)


def report(c):
    """Networks beside the density, probes, errors, finite-size scaling."""
    c.report.name = "percolation_spanning"
    c.report.kwargs = {
        "title": "Spanning clusters",
        "num_misclassified": 20,
        "num_failures": 6,
        "scaling_correction": 0.0,
        "scaling_window": (0.02, 0.98),
        "num_resamples": 200,
    }


def classifier(c, arg: str, *, num_classes: int, label: str):
    """The ResNet-18 of the published study, its optimizer and its length."""
    c.model.name = "resnet"
    c.model.kwargs = {
        "depth": 18,
        "num_classes": num_classes,
        "width": 8,
        "small_stem": False,
        "head": "classes",
        "dtype": "float32",
    }
    c.task.name = "classification"
    c.task.kwargs = {
        "inputs": "image",
        "label": label,
        "ema_decay": 0.0,
        "balance": "none",
        "class_counts": (),
        "sublabel": "",
        "num_sublabels": 1,
    }
    length(c, arg)
    c.train.keep_best = "accuracy" if arg == "paper" else ""


def length(c, arg: str):
    """Optimizer and number of steps."""
    c.optim.name = "adam"
    c.num_seeds = 3
    c.optim.learning_rate = 3e-3
    c.optim.schedule = {"name": "cosine", "warmup_steps": 20}
    c.train.num_steps = 600
    c.train.eval_every = 300
    c.train.checkpoint_every = 100
    if arg == "smoke":
        c.num_seeds = 1
        c.model.kwargs.width = 4
        c.model.kwargs.depth = 10
        c.model.kwargs.small_stem = True
        few_steps(c, arg)
    if arg == "paper":
        epoch = 279_000 // 256
        c.num_seeds = 10
        c.model.kwargs.width = 64
        c.optim.name = "adadelta"
        c.optim.learning_rate = 1.0
        c.optim.kwargs = {"rho": 0.9, "eps": 1e-6}
        c.optim.schedule = {"name": "step", "every": 7 * epoch, "factor": 0.1, "warmup_steps": 0}
        c.train.num_steps = 20 * epoch
        c.train.log_every = 50
        c.train.eval_every = epoch
        c.train.checkpoint_every = epoch
        c.train.reload_best = True


def few_steps(c, arg: str):
    """The length of the variant ``smoke``."""
    if arg == "smoke":
        c.train.num_steps = 8
        c.train.log_every = 2
        c.train.eval_every = 4
        c.train.checkpoint_every = 4
