"""The architecture search behind 299-AN: 41,472 candidates, of which some are trained and most of those soon given up.

    python experiments/search.py --config=configs/saed_search.py

Successive halving in place of brute force. A part of the training images decides; the published search let the test
images decide, and the report says what that is worth. The values beside ``search`` are those of 299-AN: it is trained
again at the end, beside the network that was found, and ``experiments/train.py`` with this config trains it alone.

Default: 48 candidates (16 networks at three learning rates) at 64 pixels. Budgets count images and not epochs, so that
turned copies and small batches cost what the others cost. Results of a smaller search: docs/saed.md.

``:paper``: every candidate at 800 pixels, the last rung as long as 20 epochs of the images that are not turned; for
accelerators. ``:smoke``: seconds.
"""

from configs import base, saed_cnn

VARIANTS = ("", "smoke", "paper")


def get_config(arg: str = ""):
    """The search, or its variant ``smoke`` or ``paper``."""
    if arg not in VARIANTS:
        raise base.unknown_variant(arg, VARIANTS)
    c = saed_cnn.data("", VARIANTS)
    c.data.kwargs.pixels = 64
    c.data.kwargs.max_offset = 0.0
    # Images that no candidate was trained on or chosen by: how good they really are.
    c.data.probes = {"fresh": {"examples": "stream", "num_examples": 512}}
    c.data.eval_batch_size = 128
    c.model.name = "saed_cnn"
    c.model.kwargs = {
        "num_classes": 9,
        "conv_layers": 6,
        "dense_layers": 5,
        "first_dense": 64,
        "dense": "constant",
        "batch_norm": True,
        "dropout_2d": 0.0,
        "dropout": 0.0,
        "sigmoid": True,
        "features": 32,
        "padding": "same",  # six blocks without padding need 190 pixels
        "dtype": "float32",
    }
    c.task.name = "classification"
    c.task.kwargs = {
        "inputs": "image",
        "label": "phase",
        "ema_decay": 0.0,
        "balance": "none",
        "class_counts": (),
        "sublabel": "",
        "num_sublabels": 1,
    }
    c.optim.learning_rate = 1e-3
    c.report.name = "classification"  # of train.py; the search has a report of its own
    c.report.kwargs = {"label": "phase", "class_names": (), "density": "density", "title": "299-AN"}
    c.train.num_steps = 300
    c.train.eval_every = 100
    c.train.checkpoint_every = 100

    c.search = {
        # The values of every axis, at the place of the option that they replace.
        "space": {
            "data": {"batch_size": (8, 16, 32), "kwargs": {"num_rotations": (1, 24)}},
            "model": {
                "kwargs": {
                    "batch_norm": (True, False),
                    "conv_layers": (1, 2, 3, 4, 5, 6),
                    "dense": ("constant", "encoder"),
                    "dense_layers": (1, 2, 3, 4, 5, 6),
                    "dropout": (0.0, 0.5),
                    "dropout_2d": (0.0, 0.5),
                    "first_dense": (8, 16, 32, 64),
                }
            },
            "optim": {"learning_rate": (1e-2, 1e-3, 1e-4)},
        },
        "num_candidates": 48,  # whole groups that differ in the learning rate only
        "rungs": (1200, 3600, 10_800),  # training images that a candidate has seen when it is judged
        "keep": 0.25,  # fraction of a rung's candidates that go on
        "validation_fraction": 0.2,  # of the training images of each class
        "score": "accuracy",  # on them; or "balanced_accuracy"
        "final_seeds": 3,  # trainings of the selected network and of 299-AN at the last budget
        "map_members": "auto",  # "vmap": candidates of a group at once; "loop": in turn; "auto": loop on a CPU
        "num_resamples": 1000,
    }
    if arg == "smoke":
        c.data.probes.fresh.num_examples = 64
        c.search.space.model.kwargs.conv_layers = (1, 6)
        c.search.num_candidates = 6
        c.search.rungs = (64, 128)
        c.search.final_seeds = 2
        c.search.num_resamples = 100
        c.train.num_steps = 4
        c.train.log_every = 1
        c.train.eval_every = 2
        c.train.checkpoint_every = 2
    if arg == "paper":
        c.data.kwargs.pixels = 800
        c.data.eval_batch_size = 32
        c.data.probes.fresh.num_examples = 2000
        c.model.kwargs.padding = "valid"
        c.search.num_candidates = 41_472
        c.search.rungs = (590, 2360, 11_800)
        c.search.keep = 0.1
        c.search.final_seeds = 10
        c.train.num_steps = 20 * 14_160 // 32
        c.train.eval_every = 442
        c.train.checkpoint_every = 442
    return c
