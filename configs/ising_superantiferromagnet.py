"""The phase diagram of the J1-J2 Ising model, seen by a VAE that knows the superantiferromagnet (stripes) only.

    python experiments/train.py --config=configs/ising_superantiferromagnet.py

Trained on states with T <= 0.5 and J2 >= 0.6, tested on the whole plane; everything else as in ising_ferromagnet.py,
which shares its states. Wall time and scores: docs/results.md.

``:paper``, ``:L60``, ``:L120`` and ``:smoke`` as there.
"""

from configs import ising_ferromagnet

VARIANTS = ising_ferromagnet.VARIANTS


def get_config(arg: str = ""):
    """The experiment, or one of its variants ``smoke``, ``paper``, ``L60``, ``L120``."""
    title = "J1-J2 Ising model"
    return ising_ferromagnet.of_region(arg, region="superantiferromagnet", title=title)
