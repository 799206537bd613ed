"""The phase of an electron diffraction pattern: EfficientNet-B3, on a simulated twin of the published images.

    python experiments/train.py --config=configs/saed_efficientnet.py

Images, protocol and variants are those of saed_cnn.py. Default: a third of the channels and half the blocks of B0.
``:stream``: fresh images of known scale. ``:paper``: the published protocol at full size, for an accelerator.
``:folder``: the same on your own images. ``:frozen``: the same with weights from a torchvision or timm file, of which
only the head is trained:

    python experiments/train.py --config=configs/saed_efficientnet.py:frozen --config.model.kwargs.weights=b3.pth

``:smoke``: seconds.
"""

from configs import saed_cnn

VARIANTS = (*saed_cnn.VARIANTS, "frozen")


def get_config(arg: str = ""):
    """The experiment, or one of its ``VARIANTS``."""
    c = saed_cnn.data(arg, VARIANTS)
    c.model.name = "efficientnet"
    c.model.kwargs = {
        "width": 0.33,
        "depth": 0.5,
        "num_classes": saed_cnn.outputs(arg),
        "dropout": 0.3,
        "drop_path": 0.2,
        "dtype": "float32",
    }
    saed_cnn.classification(c, arg)
    if arg == "smoke":
        c.model.kwargs.width = 0.25
        c.model.kwargs.depth = 0.25
    if arg in ("paper", "folder", "frozen"):
        c.model.kwargs.width = 1.2
        c.model.kwargs.depth = 1.4
    if arg == "frozen":
        saed_cnn.freeze(c, "efficientnet", "head")
    return c
