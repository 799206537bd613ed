"""The phase of an electron diffraction pattern: a network that knows the scale and does not care about rotation.

    python experiments/train.py --config=configs/saed_polar.py:stream

The image is resampled to a fixed grid in 1/angstrom, then to polar coordinates, where a rotation is a shift that the
network ignores; radii keep their places, because lengths tell phases apart. Images, protocol and variants are those of
saed_cnn.py. Default: the twin of the published images without their rotated copies, which would teach nothing here.
``:stream``: fresh images. ``:paper``: 800 pixels, for an accelerator. ``:smoke``: seconds.
"""

from configs import saed_cnn

VARIANTS = ("", "smoke", "stream", "paper")


def get_config(arg: str = ""):
    """The experiment, or one of its ``VARIANTS``."""
    c = saed_cnn.data(arg, VARIANTS, grid=1.0)
    c.data.kwargs.num_rotations = 1
    c.model.name = "polar"
    c.model.kwargs = {
        "num_classes": saed_cnn.outputs(arg),
        "num_radii": 64,
        "num_angles": 96,
        "r_min": 4.0,
        "r_max": 63.0,  # 0.98 of the 1/angstrom at the edge
        "log": False,
        "features": 16,
        "depth": 3,
        "dropout": 0.0,
        "dtype": "float32",
    }
    saed_cnn.classification(c, arg)
    if arg == "smoke":
        c.model.kwargs.num_radii = 16
        c.model.kwargs.num_angles = 24
        c.model.kwargs.features = 4
        c.model.kwargs.r_max = 15.0
    if arg == "paper":
        c.model.kwargs.num_radii = 256
        c.model.kwargs.num_angles = 384
        c.model.kwargs.features = 32
        c.model.kwargs.depth = 5
        c.model.kwargs.r_min = 20.0
        c.model.kwargs.r_max = 399.0
    return c
