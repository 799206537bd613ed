"""The phase of an electron diffraction pattern: a transformer over the list of spots that are found in it.

    python experiments/train.py --config=configs/saed_spots.py:stream

Spots are found in the noisy image, not handed over by the simulator: places with the believed scale in 1/angstrom, and
heights. The network reads lengths, distances and angles, so that a turned pattern has the same answer. Images, protocol
and variants are those of saed_cnn.py. Default: the twin of the published images without their rotated copies, which
would teach nothing here. ``:stream``: fresh images. ``:paper``: 800 pixels, for an accelerator. ``:smoke``: seconds.
"""

from configs import saed_cnn

VARIANTS = ("", "smoke", "stream", "paper")


def get_config(arg: str = ""):
    """The experiment, or one of its ``VARIANTS``."""
    c = saed_cnn.data(arg, VARIANTS, num_peaks=32)
    c.data.kwargs.num_rotations = 1
    c.model.name = "spot_set"
    c.model.kwargs = {
        "num_classes": saed_cnn.outputs(arg),
        "dim": 64,
        "depth": 3,
        "num_heads": 4,
        "max_g": 1.2,
        "num_radial": 32,
        "num_harmonics": 4,
        "invariant": True,
        "dropout": 0.0,
        "dtype": "float32",
    }
    saed_cnn.classification(c, arg, inputs="spots", steps=800)
    if arg == "stream":
        c.data.kwargs.grid = None  # the list holds the scale
    if arg == "smoke":
        c.data.kwargs.num_peaks = 16
        c.model.kwargs.dim = 8
        c.model.kwargs.depth = 1
        c.model.kwargs.num_heads = 2
        c.model.kwargs.num_radial = 8
    if arg == "paper":
        c.model.kwargs.dim = 128
        c.model.kwargs.depth = 6
    return c
