"""The phase of an electron diffraction pattern: ResNet-50, on a simulated twin of the published images.

    python experiments/train.py --config=configs/saed_resnet50.py

Images, protocol and variants are those of saed_cnn.py. Default: a quarter of the published width. ``:stream``: fresh
images of known scale. ``:paper``: the published protocol at full size, for an accelerator. ``:folder``: the same on
your own images. ``:frozen``: the same with weights from a torchvision or timm file, of which only the head is trained:

    python experiments/train.py --config=configs/saed_resnet50.py:frozen --config.model.kwargs.weights=resnet50.pth

``:smoke``: seconds.
"""

from configs import saed_cnn

VARIANTS = (*saed_cnn.VARIANTS, "frozen")


def get_config(arg: str = ""):
    """The experiment, or one of its ``VARIANTS``."""
    c = saed_cnn.data(arg, VARIANTS)
    c.model.name = "resnet"
    c.model.kwargs = {
        "depth": 50,
        "num_classes": saed_cnn.outputs(arg),
        "width": 16,
        "small_stem": False,
        "head": "classes",
        "dtype": "float32",
    }
    saed_cnn.classification(c, arg)
    if arg == "smoke":
        c.model.kwargs.depth = 10
        c.model.kwargs.width = 4
    if arg in ("paper", "folder", "frozen"):
        c.model.kwargs.width = 64
    if arg == "frozen":
        saed_cnn.freeze(c, "resnet", "Dense_0")
    return c
