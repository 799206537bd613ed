"""The correlation length of a percolation state by regression, with the ResNet-18 of the published study.

    python experiments/train.py --config=configs/percolation_correlation_regression.py

The target is log(1 + xi) of the state's own correlation length, scaled. The report holds the network against the best
function of the density alone. Default: L = 100, an eighth of the published width, three seeds.

``:below`` and ``:above`` use only the 12 densities below 0.585 or the 18 above. ``:paper``: full width, 279,000 states,
ten seeds. ``:smoke``: seconds.
"""

from configs import base, percolation_correlation, percolation_density_regression, percolation_spanning

VARIANTS = percolation_correlation.VARIANTS


def get_config(arg: str = ""):
    """The experiment, or one of its variants."""
    if arg not in VARIANTS:
        raise base.unknown_variant(arg, VARIANTS)
    c = percolation_correlation.data(arg)
    c.data.kwargs.targets = ("label", "density", "correlation_length")
    percolation_spanning.classifier(c, percolation_correlation.size(arg), num_classes=1, label="label")
    percolation_density_regression.regression(c, "correlation_length", scale=(2.25, 1.0), transform="log1p")
    return c
