"""The disorder of an Anderson eigenstate from abs(psi)^2: a vision transformer on the slices of the volume.

    python experiments/train.py --config=configs/anderson_slices.py

The planes of the lattice are the channels of one picture; squares of 2 x 2 columns are the tokens. Everything else is
that of anderson_density.py. Wall time and scores: docs/results.md.

``:two`` and ``:three``: W = 15 or 18, and 15, 16.5 or 18. ``:L12`` and ``:L20``: larger lattices. ``:paper``: the
published states at L = 20, ViT-Ti, ten seeds. ``:smoke``: seconds.
"""

from configs import anderson_image
from configs.anderson_image import VARIANTS as VARIANTS


def get_config(arg: str = ""):
    """The experiment, or one of its ``VARIANTS``."""
    c = anderson_image.data(arg, view="slices")
    c.data.probes = anderson_image.probes(arg, "shuffle", "blocks", "within_blocks", "quantise", "threshold")
    c.model.name = "vit"
    c.model.kwargs = {
        "patch": 2,
        "dim": 48,
        "depth": 4,
        "num_heads": 3,
        "mlp_ratio": 4,
        "num_classes": anderson_image.num_classes(arg),
        "head": "classes",
        "position": "sincos2d",
        "pool": "mean",
        "dropout": 0.0,
        "exact_gelu": False,
        "dtype": "float32",
    }
    anderson_image.classification(c, arg)
    c.optim.learning_rate = 1e-3
    if arg == "smoke":
        c.model.kwargs.dim = 12
        c.model.kwargs.depth = 1
    if arg == "paper":
        c.model.kwargs.dim = 192
        c.model.kwargs.depth = 12
    return c
