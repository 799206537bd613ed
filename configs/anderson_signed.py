"""The disorder of an Anderson eigenstate from psi with its signs: a 3D network where a local rule gives the answer.

    python experiments/train.py --config=configs/anderson_signed.py

The amplitudes of a site and its six neighbours give the energy of the site, and the largest of those is W/2: 100 % is
the right answer at large L. Does a network find the rule? It has what the rule needs, no more: a 3 x 3 x 3 kernel,
layers that see one site, the largest value over the lattice. Its input is the sign of psi and ln abs(psi)^2, because
ratios of neighbours are differences there. States and classes are those of anderson_image.py. Wall time and scores:
docs/results.md.

``:psi``: psi L^(3/2) itself as input. ``:resnet``: psi in a 3D ResNet-18, as published. ``:sites``: the site energies
as input, of which only the largest is left to be found. ``:two`` and ``:three``: W = 15 or 18, and 15, 16.5 or 18.
``:L12`` and ``:L20``: larger lattices. ``:paper``: the published protocol at L = 20, ten seeds. ``:smoke``: seconds.
"""

from configs import anderson_density, anderson_image, base

VIEWS = {"psi": "signed", "resnet": "signed", "paper": "signed", "sites": "site_energies"}  # "log_signed" elsewhere
VARIANTS = (*anderson_image.VARIANTS, "psi", "resnet", "sites")


def get_config(arg: str = ""):
    """The experiment, or one of its ``VARIANTS``."""
    if arg not in VARIANTS:
        raise base.unknown_variant(arg, VARIANTS)
    # What a variant of its own changes is the network and its input.
    common = "" if arg in ("psi", "resnet", "sites") else arg
    c = anderson_image.data(common, view=VIEWS.get(arg, "log_signed"))
    names = ("shuffle", "blocks", "within_blocks", "signs", "quantise", "threshold")
    c.data.probes = anderson_image.probes(common, *names)
    if arg in ("resnet", "paper"):
        anderson_density.resnet(c, common)
    else:
        site_network(c, common)
    anderson_image.classification(c, common)
    if arg == "sites":
        c.model.kwargs.kernels = (1, 1, 1)
        c.model.kwargs.features = (32, 32, 32)
        c.optim.learning_rate = 1e-2
    return c


def site_network(c, arg: str):
    """Every site and its neighbours, and the largest value over the lattice."""
    c.model.name = "conv3d"
    c.model.kwargs = {
        "num_classes": anderson_image.num_classes(arg),
        "features": (64, 64, 64),
        "kernels": (3, 1, 1),
        "pools": (),
        "hidden": (64,),
        "readout": "max",
        "dropout": 0.0,
        "norm": True,
        "periodic": True,
        "dtype": "float32",
    }
    if arg == "smoke":
        c.model.kwargs.features = (4, 4)
        c.model.kwargs.kernels = (3, 1)
        c.model.kwargs.hidden = (4,)
