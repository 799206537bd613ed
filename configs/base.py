"""What every experiment config has. An experiment states its differences; a variant follows the colon of
``--config=configs/<name>.py:<variant>``.

Configs are Python: they run with your rights. Read a config before you run one that somebody sent you.
"""

import ml_collections
from ml_collections.config_dict import placeholder


def get_config(arg: str = "") -> ml_collections.ConfigDict:
    """The defaults. Not an experiment: the names of data, model, task and report are empty."""
    del arg
    c = ml_collections.ConfigDict()
    c.seed = 0  # decides every random number of the run
    c.num_seeds = 1  # trainings in one run, with their own initial parameters; scores get a standard error

    c.data = ml_collections.ConfigDict()
    c.data.name = ""  # module of physml_jax.data, or a dotted path of your own
    c.data.kwargs = {}  # arguments of its make_dataset, for every split
    c.data.eval_kwargs = {}  # and those that differ in evaluation
    c.data.test_kwargs = {}  # and those that differ from them for the test split
    c.data.probes = {}  # extra evaluation sets of the report: name -> arguments that differ from eval_kwargs
    # "simulate": rows made on the device, step by step; "stored": generated once, kept in the cache folder
    c.data.source = "simulate"
    c.data.batch_size = 64  # global, over all devices
    c.data.eval_batch_size = 64

    c.model = ml_collections.ConfigDict()
    c.model.name = ""  # module of physml_jax.models
    c.model.kwargs = {}

    c.discriminator = ml_collections.ConfigDict()
    c.discriminator.name = ""  # second model, for the adversarial task only
    c.discriminator.kwargs = {}

    c.task = ml_collections.ConfigDict()
    c.task.name = ""  # module of physml_jax.tasks
    c.task.kwargs = {}

    c.optim = ml_collections.ConfigDict()
    c.optim.name = "adam"  # an optax optimizer
    c.optim.learning_rate = 1e-3
    c.optim.kwargs = {}  # its other arguments
    c.optim.schedule = {"name": "constant", "warmup_steps": 0}  # see training/optim.py
    c.optim.clip_norm = 0.0  # global gradient norm; 0 for no clipping
    c.optim.frozen = ()  # parameters that do not move: patterns of their paths, see training/freezing.py
    c.optim.accumulate = 1  # parts of a batch whose gradients are averaged one after the other: less memory, same step

    c.train = ml_collections.ConfigDict()
    c.train.num_steps = 1000
    c.train.log_every = 20
    c.train.eval_every = 200  # on the validation split
    c.train.checkpoint_every = 200
    c.train.keep_checkpoints = 2
    c.train.keep_best = ""  # a validation score to keep the best parameters by; a leading "-" where smaller is better
    c.train.init_from = placeholder(str)  # work directory of another run of the same model: start from its parameters
    c.train.reload_best = False  # go on from the best parameters after every validation
    c.train.shared_batches = False  # members of an ensemble see the same batches
    c.train.map_seeds = "auto"  # how an ensemble runs: "vmap", "scan", or what suits the device

    c.report = ml_collections.ConfigDict()
    c.report.name = ""  # module of physml_jax.reports
    c.report.kwargs = {}
    c.report.split = "test"
    c.report.max_reference = 4096  # training examples handed to the baselines
    return c


def unknown_variant(arg: str, known: tuple[str, ...]) -> ValueError:
    """The error for a variant that an experiment does not have."""
    return ValueError(f"config: there is no variant {arg!r}; available: {', '.join(repr(k) for k in known)}")
