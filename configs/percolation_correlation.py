"""The correlation length of a percolation state in classes, with the ResNet-18 of the published study.

    python experiments/train.py --config=configs/percolation_correlation.py

Every state is labelled by its own correlation length (textbook definition: open clusters, the spanning ones left out),
in eight classes that are about equally frequent at the published densities. Most of it is decided by the density, so
the report shows what the density alone gives. Default: L = 100, an eighth of the published width, three seeds.

``:below`` and ``:above`` use only the 12 densities below 0.585 or the 18 above. ``:paper``: full width, 279,000 states,
ten seeds. ``:smoke``: seconds.
"""

import itertools

from configs import base, percolation_spanning

VARIANTS = ("", "smoke", "paper", "below", "above")

#: Near the octiles of the correlation length over the published densities at L = 100.
EDGES = (1.5, 4.0, 6.0, 10.0, 15.0, 22.0, 27.0)


def get_config(arg: str = ""):
    """The experiment, or one of its variants."""
    if arg not in VARIANTS:
        raise base.unknown_variant(arg, VARIANTS)
    c = data(arg)
    c.data.kwargs.targets = ("label", "density", "correlation_class")
    c.data.kwargs.correlation_edges = EDGES
    percolation_spanning.classifier(c, size(arg), num_classes=len(EDGES) + 1, label="correlation_class")
    c.report.name = "classification"
    bounds = ("0", *(f"{x:g}" for x in EDGES), "")
    names = tuple(f"{a} to {b}" if b else f"above {a}" for a, b in itertools.pairwise(bounds))
    c.report.kwargs = {"class_names": names, "title": "Correlation length in classes"}
    return c


def data(arg: str):
    """States of all densities, or of those on one side of the threshold."""
    c = percolation_spanning.data(size(arg))
    if arg in ("below", "above"):
        c.data.kwargs.subset = arg
        c.data.batch_size = {"below": 60, "above": 72}[arg]  # every one of the 12 or 18 densities equally often
    return c


def size(arg: str) -> str:
    """The variant of the other percolation experiments that this one has the size of."""
    return "" if arg in ("below", "above") else arg
