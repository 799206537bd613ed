"""What the commands of this folder share: work directory, error messages, progress of data generation, the report at
the end.
"""

import contextlib
import logging
import math
import os
import re
import sys
import time
import traceback
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))  # configs/ import each other as configs.<name>

from absl import app, flags
from absl import logging as absl_logging
from ml_collections import config_flags


def define_config():
    """The flag ``--config``, shared by all commands."""
    return config_flags.DEFINE_config_file("config", None, "Experiment: configs/<name>.py[:variant].", lock_config=True)


def run(main, required=("config",), words=()):
    """Runs a command: bad input becomes one line and status 1, a stop by a signal its own status, anything else a
    traceback. ``words`` names what the command takes without dashes; ``main`` receives them in this order.
    """

    def guarded(argv):
        if len(argv) > 1 + len(words):
            unexpected = argv[1 + len(words)]
            sys.exit(f"error: unexpected argument {unexpected!r}; options are written --name=value")
        if len(argv) < 1 + len(words):
            usage = f"usage: python {argv[0]} {' '.join(words)} [--<flag>=<value>] (--help lists all flags)"
            sys.exit(_say(f"error: {words[len(argv) - 1]} is missing\n{usage}", 2))
        if not flags.FLAGS["verbosity"].present:
            absl_logging.set_verbosity(absl_logging.WARNING)  # libraries would tell every file they open
        absl_logging.get_absl_handler().setFormatter(logging.Formatter("%(levelname)s: %(message)s"))
        try:
            main(*argv[1:])
        except KeyboardInterrupt:
            sys.exit(_say("stopped; the same command goes on from the last whole piece of work", 130))
        except Exception as error:
            if type(error).__name__ == "Interrupted":
                sys.exit(_say(str(error), error.code))
            if _ours(error) and not os.environ.get("PHYSML_TRACEBACK"):
                sys.exit(_say(f"error: {error}", 1))
            raise

    # A library's note on a missing accelerator or on a flag is no news for a user who runs on what there is.
    logging.getLogger("jax._src.xla_bridge").setLevel(logging.ERROR)
    flags.mark_flags_as_required(required)
    app.run(guarded, flags_parser=_parse)


def numbers(name, text, kind=float, count=None):
    """The values of a list on the command line, one text or several; what is wrong with it names the flag."""
    text = text if isinstance(text, str) else ",".join(text)
    try:
        values = tuple(kind(t) for t in text.replace(" ", "").split(","))
        if count not in (None, len(values)):
            raise ValueError
    except ValueError:
        wanted = f"{count} {'whole ' if kind is int else ''}numbers" if count else "numbers"
        raise ValueError(f"--{name}: expected {wanted} with commas between them, got {text!r}") from None
    return values


def existing(path):
    """The path of a file that there is."""
    if not Path(path).is_file():
        raise ValueError(f"{path}: there is no such file")
    return Path(path)


def workdir_of(config_flag, value, root="workdirs"):
    """The folder that ``--workdir`` names, or the default one of this config and its options."""
    from physml_jax.io import workdir

    if value:
        return Path(value)
    flag = flags.FLAGS[config_flag.name]
    path, _, arg = config_flags.get_config_filename(flag).partition(":")
    overrides = config_flags.get_override_values(flag)
    # What only changes the report belongs to the same run.
    training = {k: v for k, v in overrides.items() if not k.startswith(("report.", "data.probes."))}
    return workdir.default_workdir(path, arg, training, root=root)


@contextlib.contextmanager
def data_progress():
    """A ``progress(done, total, text)`` callable that draws a line with the time left."""
    from physml_jax.io.writers import open_progress

    lines = []

    def progress(done, total, text=""):
        if not lines:
            lines.append(open_progress(total, label="data"))
        lines[0].update(done, text)

    try:
        yield progress
    finally:
        if lines:
            lines[0].close()


def open_sources(experiment, mesh):
    """Sources of batches; data that the cache lacks are generated with progress on the terminal."""
    from physml_jax.training import setup

    with data_progress() as progress:
        return setup.open_sources(experiment, mesh, progress=progress)


def report(experiment, sources, state, folder):
    """Evaluates a trained state, writes metrics, figures and page, and says where to look."""
    import jax

    from physml_jax.training import loop, setup

    start = time.monotonic()
    split = experiment.config["report"]["split"]
    print(f"evaluating on the {split} split", flush=True)
    labels = setup.labels(experiment, split)
    finished = loop.finished_runs(experiment, sources, state, folder, labels=labels)
    if jax.process_index() != 0:
        return
    publish(experiment.report(finished), folder)
    print(f"evaluated in {time.monotonic() - start:.0f} s", flush=True)


def publish(result, folder):
    """Writes a report into a folder, prints its summary and says where to look."""
    from physml_jax.io.page import write_report

    page = write_report(folder, result)
    for paragraph in result.summary:
        print(paragraph)
    print(f"figures: {folder / 'figures'}; numbers: {folder / 'metrics.json'}")
    print(f"open this first: {page}", flush=True)


def dry_run(experiment, mesh):
    """Prints parameters, memory and an estimate of the time, from two steps on zeros, and stops."""
    import jax
    import jax.numpy as jnp

    from physml_jax.training import loop, setup

    config = experiment.config
    size, spec = config["data"]["batch_size"], setup.train_spec(experiment)
    state = jax.eval_shape(lambda: loop.init_state(experiment, spec))
    steps, examples = config["train"]["num_steps"], experiment.datasets["train"].num_examples
    print(f"devices: {mesh.size} x {jax.devices()[0].device_kind}")
    print(f"parameters: {_count(state.params):,}; state: {_gib(state):.3f} GiB; batch of {size}: {_gib(spec):.3f} GiB")
    if examples:
        print(f"training examples: {examples:,}; {steps:,} steps are {steps * size / examples:.1f} epochs")
    state = jax.jit(lambda: loop.init_state(experiment, spec))()
    batch = {k: jnp.zeros(s.shape, s.dtype) for k, s in spec.items()}
    start = time.monotonic()
    step = jax.jit(experiment.task.step, donate_argnums=0).lower(state, batch, jax.random.key(0)).compile()
    compiled = time.monotonic() - start
    memory = step.memory_analysis()
    state, _ = step(state, batch, jax.random.key(0))
    start = time.monotonic()
    jax.block_until_ready(step(state, batch, jax.random.key(0)))
    once = time.monotonic() - start
    if memory is not None:
        print(f"memory of a step beside its arguments: {memory.temp_size_in_bytes / 2**30:.3f} GiB")
    total = f"training: about {steps * once / 60:.1f} min, without data and evaluation"
    print(f"compilation: {compiled:.1f} s; one step: {once:.3f} s; {total}")


def _count(tree):
    import jax

    return sum(math.prod(x.shape) for x in jax.tree.leaves(tree))


def _gib(tree):
    import jax

    return sum(math.prod(x.shape) * x.dtype.itemsize for x in jax.tree.leaves(tree)) / 2**30


def _parse(argv):
    """Flags; an option that the config does not have, or a variant that it lacks, is one line and not a traceback."""
    try:
        rest = flags.FLAGS(argv)
        if "config" in flags.FLAGS and flags.FLAGS["config"].present:
            path = config_flags.get_config_filename(flags.FLAGS["config"]).partition(":")[0]
            if not Path(path).is_file():
                raise ValueError(f"--config: there is no file {path}")
        return rest
    except (flags.Error, AttributeError, KeyError, ValueError, TypeError, OSError) as error:
        usage = f"usage: python {argv[0]} "
        if "config" in flags.FLAGS:
            usage += "--config=configs/<name>.py[:<variant>] [--config.<option>=<value>]"
        else:
            usage += "--<flag>=<value>"
        sys.exit(_say(f"error: {_reason(error)}\n{usage} (--help lists all flags)", 2))


def _reason(error):
    """The one line of a loading error that says what is wrong; the flag library wraps it in a traceback."""
    text = str(error)
    if isinstance(error, KeyError | AttributeError):  # these quote their message, once or twice
        text = text.replace("\\n", " ").replace("\\'", "").strip("'\"")
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    causes = [line for line in lines if re.match(r"(\w+Error: |\[Errno)", line)]
    return re.sub(r"^\w+Error: ", "", causes[-1]) if causes else " ".join(lines)


def _ours(error):
    """Was the error raised by this project's own code, and so written for the user?"""
    if not isinstance(error, ValueError | OSError | FloatingPointError):
        return False
    last = traceback.extract_tb(error.__traceback__)[-1].filename
    return Path(last).resolve().is_relative_to(ROOT) and "site-packages" not in last


def _say(text, status):
    print(text, file=sys.stderr, flush=True)
    return status
