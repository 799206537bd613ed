"""The phase of an electron diffraction pattern: a vision transformer, on a simulated twin of the published images.

    python experiments/train.py --config=configs/saed_vit.py

Images, protocol and variants are those of saed_cnn.py. Default: patches of 16 pixels, four blocks of 96. ``:stream``:
fresh images of known scale. ``:paper``: ViT-L/16 at 224 pixels, as published, for an accelerator. ``:folder``: the same
on your own images. ``:frozen``: the same with weights from a torchvision or timm file, of which only the head is
trained:

    python experiments/train.py --config=configs/saed_vit.py:frozen --config.model.kwargs.weights=vit_l_16.pth

``:smoke``: seconds.
"""

from configs import saed_cnn

VARIANTS = (*saed_cnn.VARIANTS, "frozen")


def get_config(arg: str = ""):
    """The experiment, or one of its ``VARIANTS``."""
    c = saed_cnn.data(arg, VARIANTS, pixels=224)
    c.model.name = "vit"
    c.model.kwargs = {
        "patch": 16,
        "dim": 96,
        "depth": 4,
        "num_heads": 3,
        "mlp_ratio": 4,
        "num_classes": saed_cnn.outputs(arg),
        "head": "classes",
        "position": "learned",
        "pool": "cls",
        "dropout": 0.0,
        "exact_gelu": True,
        "dtype": "float32",
    }
    saed_cnn.classification(c, arg)
    if arg == "smoke":
        c.model.kwargs.dim = 24
        c.model.kwargs.depth = 1
    if arg in ("paper", "folder", "frozen"):
        c.model.kwargs.dim = 1024
        c.model.kwargs.depth = 24
        c.model.kwargs.num_heads = 16
    if arg == "frozen":
        saed_cnn.freeze(c, "vit", "head")
    return c
