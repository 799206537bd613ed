"""The disorder of an Anderson eigenstate from abs(psi)^2: a 3D ResNet-18 on the volume.

    python experiments/train.py --config=configs/anderson_density.py

Default: L = 8, the 17 published disorders, the states of anderson_image.py, an eighth of the published width, ten seeds
on common batches. The network sees the logarithm of the density, so the tails count as much as the peaks. Moduli bound
W from below; what the network makes of them shows beside that bound. Wall time and scores: docs/results.md.

``:two`` and ``:three``: W = 15 or 18, and 15, 16.5 or 18. ``:L12`` and ``:L20``: larger lattices. ``:paper``: the
published protocol at L = 20, ten seeds. ``:smoke``: seconds.
"""

from configs import anderson_image
from configs.anderson_image import VARIANTS as VARIANTS


def get_config(arg: str = ""):
    """The experiment, or one of its ``VARIANTS``."""
    c = anderson_image.data(arg, view="density")
    c.data.probes = anderson_image.probes(arg, "shuffle", "blocks", "within_blocks", "quantise", "threshold")
    resnet(c, arg)
    anderson_image.classification(c, arg)
    return c


def resnet(c, arg: str):
    """The 3D ResNet-18 with a stem of 3 x 3 x 3."""
    c.model.name = "resnet3d"
    c.model.kwargs = {
        "depth": 18,
        "num_classes": anderson_image.num_classes(arg),
        "width": 8,
        "stem_stride": 1,
        "readout": "mean",
        "periodic": True,
        "dtype": "float32",
    }
    if arg == "smoke":
        c.model.kwargs.depth = 10
        c.model.kwargs.width = 2
    if arg == "paper":
        c.model.kwargs.width = 64
        c.model.kwargs.periodic = False
