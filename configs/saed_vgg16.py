"""The phase of an electron diffraction pattern: VGG16, on a simulated twin of the published images.

    python experiments/train.py --config=configs/saed_vgg16.py

Images, protocol and variants are those of saed_cnn.py. Default: an eighth of the published width, 64 hidden units.
Without normalisation the network often learns nothing but the most frequent class; in the published table nine of ten
trainings did. ``:stream``: fresh images of known scale. ``:paper``: the published protocol at full size, with the last
map as it is (1.3e9 parameters), for an accelerator. ``:folder``: the same on your own images. ``:frozen``: the same
with weights from a torchvision or timm file, of which only the head is trained; its last map is pooled to 7 x 7:

    python experiments/train.py --config=configs/saed_vgg16.py:frozen --config.model.kwargs.weights=vgg16.pth

``:smoke``: seconds.
"""

from configs import saed_cnn

VARIANTS = (*saed_cnn.VARIANTS, "frozen")


def get_config(arg: str = ""):
    """The experiment, or one of its ``VARIANTS``."""
    c = saed_cnn.data(arg, VARIANTS)
    c.model.name = "vgg"
    c.model.kwargs = {
        "depth": 16,
        "num_classes": saed_cnn.outputs(arg),
        "head": "pooled",
        "width": 8,
        "hidden": 64,
        "dropout": 0.5,
        "dtype": "float32",
    }
    saed_cnn.classification(c, arg)
    if arg == "smoke":
        c.model.kwargs.depth = 11
        c.model.kwargs.width = 2
        c.model.kwargs.hidden = 8
    if arg in ("paper", "folder", "frozen"):
        c.model.kwargs.width = 64
        c.model.kwargs.hidden = 4096
    if arg in ("paper", "folder"):
        c.model.kwargs.head = "flatten"
    if arg == "frozen":
        saed_cnn.freeze(c, "vgg", "head")
    return c
