"""Which of the 31 published densities does a percolation state have? A ResNet-18, as published.

    python experiments/train.py --config=configs/percolation_density.py

Default: L = 100, an eighth of the published width, three seeds. Counting the occupied sites answers the question
exactly, and the mean over the picture followed by a linear map does it: both stand in the report. Wall time and scores:
docs/results.md.

``:paper``: the published protocol, ten seeds. ``:smoke``: seconds.
"""

from configs import base, percolation_spanning

VARIANTS = ("", "smoke", "paper")


def get_config(arg: str = ""):
    """The experiment, or its variant ``smoke`` or ``paper``."""
    if arg not in VARIANTS:
        raise base.unknown_variant(arg, VARIANTS)
    c = percolation_spanning.data(arg)
    percolation_spanning.classifier(c, arg, num_classes=31, label="label")
    c.report.name = "classification"
    c.report.kwargs = {
        "class_names": tuple(f"{p:g}" for p in percolation_spanning.DENSITIES),
        "title": "Density classes",
    }
    return c
