"""From the projected potential of a cubic crystal to its bright-field LACBED pattern at [001], with a conditional GAN.

    python experiments/train.py --config=configs/lacbed.py

Default: 900 bundled cubic structures with a lattice parameter up to 10 angstrom at 64x64 pixels, 200 kV, 450 angstrom;
patterns from Bloch waves (kept in the cache folder), a small U-Net generator and a two-scale patch discriminator, with
1 - ZNCC added to the published loss because a short training needs it. Wall time and expected score: docs/results.md.

``:paper``: the published protocol at 128x128 with the pix2pixHD generator, 100 epochs, batch 16, least-squares GAN and
feature matching, no pixel loss and a random split; for an accelerator. The published set of 12 454 crystals comes from
a database that cannot be distributed; give your own with ``--config.data.kwargs.cif_dir=<folder>``, otherwise the
bundled structures are used.
``:smoke``: a dozen crystals at 16x16, seconds.
"""

import ml_collections
from ml_collections.config_dict import placeholder

from configs import base

VARIANTS = ("", "smoke", "paper")


def get_config(arg: str = ""):
    """The experiment, or its variant ``smoke`` or ``paper``."""
    if arg not in VARIANTS:
        raise base.unknown_variant(arg, VARIANTS)
    c = data(arg)
    c.model.name = "unet"
    c.model.kwargs = {
        "base_features": 16,
        "max_features": 96,
        "depth": 4,
        "num_blocks": 2,
        "patch": 2,
        "spectrum": 8,
        "out_channels": 1,
        "out_activation": "tanh",
        "dtype": "float32",
    }
    c.discriminator.name = "patch_discriminator"
    c.discriminator.kwargs = {"base_features": 16, "num_layers": 3, "num_scales": 2, "dtype": "float32"}
    c.task.name = "adversarial"
    c.task.kwargs = {
        "inputs": ("potential", "log_a"),
        "target": "pattern",
        "adversarial_loss": "lsgan",
        "adversarial_weight": 1.0,
        "feature_matching": 10.0,
        "pixel_loss": 0.0,
        "zncc_loss": 5.0,
        "discriminator_rate": 1.0,
        "augment": "dihedral",
        "symmetry": "c2v",
        "input_scale": {"potential": (0.0, 30.0), "log_a": (1.7, 0.4)},
        "target_scale": (0.5, 0.5),
        "ema_decay": 0.99,
    }
    c.optim.name = "adam"
    c.optim.learning_rate = 1e-3
    c.optim.kwargs = {"b1": 0.5, "b2": 0.999}
    c.optim.schedule = {"name": "hold_then_linear", "hold": 0.5, "warmup_steps": 0}
    c.train.num_steps = 1200
    c.train.log_every = 10
    c.train.eval_every = 200
    c.train.checkpoint_every = 100
    if arg == "smoke":
        c.model.kwargs.base_features = 4
        c.model.kwargs.max_features = 8
        c.model.kwargs.depth = 2
        c.model.kwargs.num_blocks = 1
        c.discriminator.kwargs.base_features = 4
        c.discriminator.kwargs.num_layers = 1
        _few_steps(c)
    if arg == "paper":
        c.model.name = "pix2pixhd"
        c.model.kwargs = {
            "base_features": 64,
            "num_downsamples": 4,
            "num_blocks": 9,
            "out_channels": 1,
            "out_activation": "tanh",
            "stem_norm": True,
            "dtype": "float32",
        }
        c.discriminator.kwargs = {"base_features": 64, "num_layers": 3, "num_scales": 2, "dtype": "float32"}
        c.task.kwargs.augment = "none"
        c.task.kwargs.symmetry = "none"
        c.task.kwargs.zncc_loss = 0.0
        c.task.kwargs.ema_decay = 0.0
        c.optim.learning_rate = 2e-4
        c.optim.schedule = {"name": "constant", "warmup_steps": 0}
        c.train.num_steps = 100 * 67  # 100 epochs of the bundled structures in batches of 16
        c.train.log_every = 50
        c.train.eval_every = 670
        c.train.checkpoint_every = 670
    return c


def data(arg: str) -> ml_collections.ConfigDict:
    """The LACBED data set and its report, shared by the experiments on it."""
    c = base.get_config()
    c.data.name = "lacbed"
    c.data.source = "stored"
    c.data.kwargs = {
        "num_pixels": 64,
        "thicknesses": (450.0,),
        "voltage_kv": 200.0,
        "absorption": 0.0,
        "max_g": 2.75,
        "min_beams": 400,
        "tolerance": 0.03,
        "num_strong": 192,
        "few_beams": 21,
        "form_factors": "kirkland",
        "default_b_iso": 0.5,
        "max_lattice_parameter": 10.0,
        "max_beams": 4000,
        "num_structures": 900,
        "cif_dir": placeholder(str),
        "include_bundled": True,
        "split_by": "template",
        "split_seed": 0,
        "fractions": (0.8, 0.1, 0.1),
        "shard_size": 32,
        "max_memory_gb": 8.0,
    }
    c.data.batch_size = 16
    c.data.eval_batch_size = 32
    c.report.name = "lacbed"
    c.report.kwargs = {
        "target": "pattern",
        "inputs": "potential",
        "num_rows": 3,
        "row_groups": (216, 213, 223),
        "num_extremes": 3,
        "threshold": 0.9,
        "log_a_weight": 1.0,
        "dihedral": True,
    }
    if arg == "smoke":
        c.data.kwargs.num_pixels = 16
        c.data.kwargs.max_lattice_parameter = 5.0
        c.data.kwargs.num_structures = 12
        c.data.kwargs.max_g = 2.0
        c.data.kwargs.num_strong = 64
        c.data.kwargs.min_beams = 64
        c.data.kwargs.tolerance = 1.0
        c.data.kwargs.fractions = (0.5, 0.25, 0.25)
        c.data.kwargs.shard_size = 4
        c.data.batch_size = 4
        c.data.eval_batch_size = 4
    if arg == "paper":
        c.data.kwargs.num_pixels = 128
        c.data.kwargs.num_strong = 256
        c.data.kwargs.num_structures = placeholder(int)
        c.data.kwargs.max_lattice_parameter = placeholder(float)
        c.data.kwargs.max_beams = placeholder(int)
        c.data.kwargs.split_by = "random"
    return c


def _few_steps(c):
    c.train.num_steps = 8
    c.train.log_every = 2
    c.train.eval_every = 4
    c.train.checkpoint_every = 4
