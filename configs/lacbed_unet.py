"""From the projected potential of a cubic crystal to its bright-field LACBED pattern at [001], by regression.

    python experiments/train.py --config=configs/lacbed_unet.py

The map is deterministic, so nothing needs an adversary: the same data and the same generator as configs/lacbed.py,
trained on 1 - ZNCC and a Huber term. Wall time and expected score: docs/results.md.

``:paper``: the same data as ``configs/lacbed.py:paper`` with a larger U-Net. ``:smoke``: seconds.
"""

from configs import base, lacbed

VARIANTS = ("", "smoke", "paper")


def get_config(arg: str = ""):
    """The experiment, or its variant ``smoke`` or ``paper``."""
    if arg not in VARIANTS:
        raise base.unknown_variant(arg, VARIANTS)
    c = lacbed.data(arg)
    cgan = lacbed.get_config(arg)
    c.model.name = "unet"
    c.model.kwargs = lacbed.get_config("smoke" if arg == "smoke" else "").model.kwargs
    c.model.kwargs.out_activation = "none"
    c.task.name = "translation"
    c.task.kwargs = {
        "inputs": ("potential", "log_a"),
        "target": "pattern",
        "zncc_weight": 1.0,
        "huber_weight": 10.0,
        "huber_delta": 0.1,
        "augment": "dihedral",
        "symmetry": "c2v",
        "input_scale": cgan.task.kwargs.input_scale,
        "target_scale": (0.0, 1.0),
        "ema_decay": 0.99,
    }
    c.optim.name = "adamw"
    c.optim.learning_rate = 2e-3
    c.optim.kwargs = {"weight_decay": 1e-4}
    c.optim.schedule = {"name": "cosine", "warmup_steps": 0 if arg == "smoke" else 50}
    c.optim.clip_norm = 1.0
    c.train = cgan.train
    if arg == "":
        c.train.num_steps = 1500
    if arg == "paper":
        c.model.kwargs.base_features = 64
        c.model.kwargs.max_features = 512
        c.optim.learning_rate = 5e-4
    return c
