"""The phase diagram of the J1-J2 Ising model, seen by a VAE that knows the ferromagnet only.

    python experiments/train.py --config=configs/ising_ferromagnet.py

Trained on states with T <= 0.5 and J2 <= 0.4, tested on the whole plane: where the error of its reconstruction is near
0 the state is ferromagnetic, where it is near 1/2 it is not. ising_superantiferromagnet.py does the same for the
striped phase, and what neither reconstructs is the paramagnet; experiments/compare.py draws both into one report.
States come from replica exchange over the ladder of 158 temperatures at 22 couplings, L = 30; they are made once for
both experiments and kept in the cache. Default: tested at every fourth temperature, three seeds. Wall time and scores:
docs/results.md.

``:paper``: longer simulations, tested at every temperature, a wider network, ten seeds. ``:L60`` and ``:L120``: the
default on larger lattices. ``:smoke``: seconds.
"""

from ml_collections.config_dict import placeholder

from configs import base

VARIANTS = ("", "smoke", "paper", "L60", "L120")

#: Side of the lattice, and strides that take it to 5 x 5 (2 x 2 in the variant ``smoke``).
SIZES = {"": 30, "paper": 30, "smoke": 8, "L60": 60, "L120": 120}
STRIDES = {8: (2, 2), 30: (2, 3), 60: (2, 2, 3), 120: (2, 2, 2, 3)}

#: From hot to cold, and the couplings, as published.
TEMPERATURES = tuple(round(4.0 - 0.025 * i, 3) for i in range(158))
FRUSTRATED = (0.45, 0.48, 0.49, 0.5, 0.51, 0.52, 0.55)
J2 = (0.0, 0.1, 0.2, 0.3, 0.4, *FRUSTRATED, 0.6, 0.65, 0.7, 0.8, 0.9, 1.0, 1.1, 1.2, 1.35, 1.5)


def get_config(arg: str = ""):
    """The experiment, or one of its variants ``smoke``, ``paper``, ``L60``, ``L120``."""
    return of_region(arg, region="ferromagnet", title="J1-J2 Ising model")


def of_region(arg: str, *, region: str, title: str):
    """A VAE that is trained on one region and tested everywhere; shared by the experiments on both phases."""
    if arg not in VARIANTS:
        raise base.unknown_variant(arg, VARIANTS)
    c = data(arg, region)
    autoencoder(c, arg)
    c.report.name = "ising"
    c.report.kwargs = {
        "title": title,
        "epsilon": "epsilon_sign",
        "rule": "critical",
        "tolerance": 0.05,
        "num_references": 256,
        "num_resamples": 200,
    }
    return c


def data(arg: str, region: str):
    """Stored states in equilibrium; the experiments on both regions share them."""
    c = base.get_config()
    c.data.name = "ising"
    c.data.source = "stored"
    c.data.kwargs = {
        "size": SIZES[arg],
        "temperatures": TEMPERATURES,
        "j2": J2,
        "num_replicas": 64,
        "sweeps_per_temperature": 1000,
        "max_sweeps": 16_000,
        "exchange": True,
        "exchange_every": 10,
        "start": "both",
        "bits": 24,
        "generator": "hash",
        "rule": "metropolis",
        "simulation_seed": 0,
        "region": region,
        "max_temperature": placeholder(float),
        "min_j2": placeholder(float),
        "max_j2": placeholder(float),
        "temperature_stride": 1,
        "j2_subset": placeholder(tuple),
        "replicas_per_point": placeholder(int),
        "only_equilibrated": True,  # in training; the test shows every point, and the report says which were not
        "fractions": (0.5, 0.25, 0.25),
    }
    # Within the region again; the whole plane is for the test.
    c.data.eval_kwargs = {"temperature_stride": 4, "replicas_per_point": 4}
    c.data.test_kwargs = {"region": "all", "temperature_stride": 4, "replicas_per_point": 8, "only_equilibrated": False}
    c.data.batch_size = 64
    c.data.eval_batch_size = 440
    c.report.max_reference = 2048
    if arg == "smoke":
        c.data.kwargs.temperatures = (3.0, 2.0, 1.0, 0.5)
        c.data.kwargs.j2 = (0.0, 0.5, 1.0)
        c.data.kwargs.num_replicas = 32
        c.data.kwargs.sweeps_per_temperature = 20
        c.data.kwargs.max_sweeps = 40
        c.data.kwargs.only_equilibrated = False  # so few sweeps prove nothing
        c.data.eval_kwargs.temperature_stride = 1
        c.data.test_kwargs.temperature_stride = 1
        c.data.batch_size = 8
        c.data.eval_batch_size = 32
    if arg == "paper":
        c.data.kwargs.max_sweeps = 64_000
        c.data.eval_kwargs.temperature_stride = 1
        c.data.test_kwargs.temperature_stride = 1
        c.data.test_kwargs.replicas_per_point = 16
        c.data.batch_size = 128
    return c


def autoencoder(c, arg: str):
    """The network, its loss, its optimizer and the length."""
    strides = STRIDES[SIZES[arg]]
    c.num_seeds = 3
    c.model.name = "vae"
    c.model.kwargs = {
        "size": SIZES[arg],
        "latent_dim": 8,
        "features": (*(16,) * (len(strides) - 1), 32),
        "strides": strides,
        "dtype": "float32",
    }
    c.task.name = "autoencoding"
    c.task.kwargs = {
        "inputs": "spins",
        # A nat costs 1/300 of epsilon up to L = 30, a tenth of what makes trainings ignore the state; where the same
        # price was paid at L = 60, two of three trainings on stripes did ignore it.
        "beta": min(SIZES[arg] ** 2 / 300, 3.0),
        # What the Hamiltonian allows: some thousand nearly perfect states then show all ground states equally often.
        "augment": ("flip", "translation", "dihedral"),
        "generate": "sample",
        "ema_decay": 0.0,
    }
    c.optim.name = "adam"
    c.optim.learning_rate = 2e-3
    c.optim.schedule = {"name": "cosine", "warmup_steps": 20}
    c.optim.clip_norm = 1.0
    c.train.num_steps = 800
    c.train.eval_every = 200
    c.train.checkpoint_every = 200
    if arg == "smoke":
        c.num_seeds = 1
        c.model.kwargs.features = (4, 8)
        c.model.kwargs.latent_dim = 2
        c.train.num_steps = 8
        c.train.log_every = 2
        c.train.eval_every = 4
        c.train.checkpoint_every = 4
    if arg == "paper":
        c.num_seeds = 10
        c.model.kwargs.features = (64, 128)
        c.model.kwargs.latent_dim = 16
        c.train.num_steps = 5000
        c.train.eval_every = 1000
        c.train.checkpoint_every = 1000
