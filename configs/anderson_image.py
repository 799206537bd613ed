"""The disorder of an Anderson eigenstate from its picture: a ResNet-18 on coloured cubes, as published.

    python experiments/train.py --config=configs/anderson_image.py

Default: L = 8, the 17 published disorders, 500 states of each for training and 100 for the test, made once and kept in
the cache; smaller and coarser pictures, an eighth of the published width, ten seeds on common batches. The report holds
the network against the answers that need no learning, and against states in which one thing is destroyed: where the
sites are, far or near, the values, the sizes of the cubes. Wall time and scores: docs/results.md.

``:two`` and ``:three``: W = 15 or 18, and 15, 16.5 or 18. ``:L12`` and ``:L20``: the default on larger lattices.
``:paper``: the published protocol at L = 20, ten seeds. ``:smoke``: seconds.

Any variant takes another lattice (``--config.data.kwargs.size=12``) or finer pictures
(``--config.data.kwargs.pixels=96``). ``experiments/compare.py --runs=a,b`` puts such runs into one report, with the
accuracy over the size or the resolution and the answers that need no learning beside it.
"""

import ml_collections
from ml_collections.config_dict import placeholder

from configs import base

VARIANTS = ("", "smoke", "two", "three", "L12", "L20", "paper")

SIZES = {"smoke": 4, "L12": 12, "L20": 20, "paper": 20}  # 8 elsewhere
CLASSES = {"two": "ends", "three": "three"}
#: As published: closer around the transition at 16.53.
WIDTHS = (15.0, 15.25, 15.5, 15.75, 16.0, 16.2, 16.3, 16.4, 16.5, 16.6, 16.7, 16.8, 17.0, 17.25, 17.5, 17.75, 18.0)


def get_config(arg: str = ""):
    """The experiment, or one of its ``VARIANTS``."""
    c = data(arg, view="rgba")
    c.data.probes = probes(arg, "shuffle", "blocks", "within_blocks", "quantise", "threshold")
    c.model.name = "resnet"
    c.model.kwargs = {
        "depth": 18,
        "num_classes": num_classes(arg),
        "width": 8,
        "small_stem": False,
        "head": "classes",
        "dtype": "float32",
    }
    classification(c, arg)
    if arg == "smoke":
        c.model.kwargs.depth = 10
        c.model.kwargs.width = 4
        c.model.kwargs.small_stem = True
    if arg == "paper":
        c.model.kwargs.width = 64
    return c


def num_classes(arg: str) -> int:
    """Disorders that the variant tells apart."""
    return {"two": 2, "three": 3, "smoke": 3}.get(arg, len(WIDTHS))


def data(arg: str, *, view: str):
    """Stored eigenstates; all experiments at one size share them."""
    if arg not in VARIANTS:
        raise base.unknown_variant(arg, VARIANTS)
    c = base.get_config()
    c.data.name = "anderson"
    c.data.source = "stored"
    c.data.kwargs = {
        "size": SIZES.get(arg, 8),
        "widths": WIDTHS,
        "states_per_width": 500,
        "test_states_per_width": 100,
        "validation_fraction": 0.1,
        "energy": 0.0,
        "method": "dissection",
        "precision": "float32",
        "simulation_seed": 0,
        "states_used": placeholder(int),
        "classes": CLASSES.get(arg, "all"),
        "view": view,
        "pixels": 48,
        "supersample": 1,
        "compression": "log",
        "probe": "none",
    }
    c.data.batch_size = 64
    c.data.eval_batch_size = 170
    c.report.name = "anderson"
    c.report.kwargs = {"label": "disorder_class", "title": "Anderson model of localization", "num_resamples": 1000}
    if arg in CLASSES:
        c.data.batch_size = 60
        c.data.eval_batch_size = 100
    if arg == "smoke":
        c.data.kwargs.widths = (15.0, 16.5, 18.0)
        c.data.kwargs.states_per_width = 20
        c.data.kwargs.test_states_per_width = 4
        c.data.kwargs.method = "dense"
        c.data.kwargs.pixels = 12
        c.data.batch_size = 8
        c.data.eval_batch_size = 12
    if arg == "paper":
        c.data.kwargs.states_per_width = 5000
        c.data.kwargs.test_states_per_width = 500
        c.data.kwargs.pixels = 100
        c.data.kwargs.supersample = 2
        c.data.batch_size = 32
        c.data.eval_batch_size = 500
        c.report.max_reference = 17_000
    return c


def probes(arg: str, *names: str):
    """Test states in which something is destroyed, see physml_jax/data/anderson.py."""
    used = {"smoke": 4, "paper": 100}.get(arg, 40)
    if arg == "smoke":
        names = names[:1]  # every other one compiles programs of its own
    return ml_collections.ConfigDict({name: {"probe": name, "states_used": used} for name in names})


def classification(c, arg: str):
    """Cross entropy, the optimizer and the length."""
    c.task.name = "classification"
    c.task.kwargs = {
        "inputs": c.data.kwargs.view,
        "label": "disorder_class",
        "ema_decay": 0.0,
        "balance": "none",
        "class_counts": (),
        "sublabel": "",
        "num_sublabels": 1,
    }
    c.optim.name = "adam"
    c.optim.learning_rate = 2e-3
    c.optim.schedule = {"name": "cosine", "warmup_steps": 20}
    c.num_seeds = 10
    c.train.shared_batches = True  # states are decoded once for all members
    c.train.num_steps = 400
    c.train.eval_every = 100
    c.train.checkpoint_every = 100
    c.train.keep_best = "accuracy"
    if arg == "smoke":
        c.num_seeds = 1
        c.train.num_steps = 8
        c.train.log_every = 2
        c.train.eval_every = 4
        c.train.checkpoint_every = 4
    if arg == "paper":
        epoch = len(WIDTHS) * 4500 // 32
        c.optim.learning_rate = 1e-3
        c.optim.schedule = {"name": "step", "every": 7 * epoch, "factor": 0.1, "warmup_steps": 0}
        c.train.shared_batches = False
        c.train.num_steps = 50 * epoch
        c.train.log_every = 100
        c.train.eval_every = epoch
        c.train.checkpoint_every = epoch
