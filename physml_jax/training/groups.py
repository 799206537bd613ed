"""Groups of candidates: one program trains those that differ in the learning rate or the seed only.

A program knows its learning rate as an argument, so the members of a group share it; on an accelerator they are
stacked under one ``vmap``, on a CPU they take turns. They see the same batches and, but for the seed, the same initial
parameters: what differs between them is the learning rate.
"""

import collections
import json
import math
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from physml_jax.analysis import model_selection
from physml_jax.core.rng import example_key, step_key, stream_key
from physml_jax.training import candidates, metrics, setup
from physml_jax.training.candidates import RATE
from physml_jax.training.sharding import over_batch, replicated
from physml_jax.typing import Array, Batch, Dataset, Key, Metrics, Source, Task, TrainState

METHODS = ("auto", "vmap", "loop")
#: In place of a loss that is not finite.
_LARGE = 1e6
#: Compiled networks that are kept: those of a rung of a default search.
_MAX_PROGRAMS = 32


class Programs(NamedTuple):
    """The jitted functions of one network; for members at once, every argument but the batch has them first.

    Attributes:
      init: replica -> state.
      step: (state, finite, rate, replica, batch, key) -> (state, finite); the state is donated.
      answer: (state, finite, batch) -> (answers [B], losses [B]).
      at_once: whether arguments are those of all members.
      num_params: of one member.
    """

    init: Callable[..., TrainState]
    step: Callable[..., tuple[TrainState, Array]]
    answer: Callable[..., tuple[Array, Array]]
    at_once: bool
    num_params: int


class Bench(NamedTuple):
    """What all groups share: data, and caches.

    Attributes:
      train_rows: int64, images that candidates are trained on.
      num_images: training images before they are divided.
      batches: evaluation batches by name of the set: ``validation``, ``test`` and the probes.
      labels: true classes of these sets.
      sources: training batches by the data section of a candidate.
      programs: by what they depend on.
    """

    train_rows: np.ndarray
    num_images: int
    batches: dict[str, list[Batch]]
    labels: dict[str, np.ndarray]
    sources: dict[str, Source]
    programs: "collections.OrderedDict[str, Programs]"


def at_rate(task: Task) -> Callable[[TrainState, Array, Batch, Key], tuple[TrainState, Metrics]]:
    """A step whose learning rate is an argument, of a task that was built with learning rate 1.

    The parameters move the share ``rate`` of the way that the task's own step takes them. That is the step with that
    learning rate for every optimizer whose update is proportional to it, which those of optax are but for a few.

    Raises:
      ValueError: at tracing, for a task with a moving average of the parameters.
    """

    def step(state: TrainState, rate: Array, batch: Batch, key: Key) -> tuple[TrainState, Metrics]:
        if state.ema is not None:
            raise ValueError("task.kwargs.ema_decay: expected 0 in a search")
        new, values = task.step(state, batch, key)
        params = jax.tree.map(lambda old, far: old + rate * (far - old), state.params, new.params)
        return new._replace(params=params), values

    return step


def train_members(
    config: Mapping[str, Any],
    values: Mapping[str, Any],
    rates: Sequence[float],
    replicas: Sequence[int],
    *,
    budget: int,
    bench: Bench,
    mesh: jax.sharding.Mesh,
) -> tuple[dict[str, tuple[np.ndarray, np.ndarray]], float, int]:
    """Trains members of one group and asks them.

    Args:
      config: nested plain dicts.
      values: of the group, by axis.
      rates: learning rates of the members.
      replicas: their seeds: 0 is the run that ``train.py`` would make of the candidate.
      budget: training examples, rounded up to whole batches.
      bench: what ``open_bench`` returned.
      mesh: the devices.

    Returns:
      (answers [S, N], losses [S, N]) by name of the set, seconds, and the number of parameters.
    """
    start = time.monotonic()
    experiment = group_experiment(config, values)
    source = _source(experiment, bench, mesh)
    programs = _programs(experiment, bench, mesh)
    seed, num_steps = config["seed"], -(-budget // experiment.config["data"]["batch_size"])
    rate, replica = jnp.asarray(rates, jnp.float32), jnp.asarray(replicas, jnp.int32)
    members = [slice(None)] if programs.at_once else list(range(len(rates)))
    finite = [jnp.ones(rate[m].shape, bool) for m in members]
    states = [programs.init(replica[m]) for m in members]
    for step in range(num_steps):
        batch = source.batch(step)
        key = step_key(seed, "train", step)
        for i, m in enumerate(members):
            states[i], finite[i] = programs.step(states[i], finite[i], rate[m], replica[m], batch, key)
    found = {name: _asked(programs, states, finite, batches) for name, batches in bench.batches.items()}
    return found, time.monotonic() - start, programs.num_params


def _asked(programs, states, finite, batches):
    """Answers and losses [S, N] on a set, without the padding."""
    parts = []
    for batch in batches:
        said = jax.device_get([programs.answer(s, ok, batch) for s, ok in zip(states, finite, strict=True)])
        rows = [np.concatenate([np.atleast_2d(member[k]) for member in said]) for k in (0, 1)]
        parts.append([x[:, _real(batch)] for x in rows])
    return tuple(np.concatenate([part[k] for part in parts], axis=1) for k in (0, 1))


def group_experiment(config: Mapping[str, Any], values: Mapping[str, Any]) -> setup.Experiment:
    """The experiment of a group, built with learning rate 1; a schedule spans the last budget."""
    found = candidates.candidate_config(config, {**values, RATE: 1.0})
    found["num_seeds"] = 1
    found["train"]["num_steps"] = -(-config["search"]["rungs"][-1] // found["data"]["batch_size"])
    return setup.build(found)


def program_name(experiment: setup.Experiment) -> str:
    """What a compiled network depends on, as text: equal texts share a program."""
    config = experiment.config
    spec = {k: (s.shape, str(s.dtype)) for k, s in setup.train_spec(experiment).items()}
    parts = [config[k] for k in ("model", "discriminator", "task", "optim")]
    return json.dumps([*parts, config["train"]["num_steps"], spec], sort_keys=True, default=str)


def restricted(dataset: Dataset, rows: np.ndarray, *, seed: int, split: str) -> Dataset:
    """The examples ``rows`` of a simulated split as a data set of their own; each is what it is in the whole split."""
    where = np.asarray(rows, np.int32)

    def sample(keys: Key, index: Array) -> Batch:
        del keys
        chosen = jnp.asarray(where)[index]
        return dataset.sample(example_key(seed, split, chosen), chosen)

    return Dataset(spec=dataset.spec, num_examples=len(where), sample=sample)


def open_bench(config: Mapping[str, Any], mesh: jax.sharding.Mesh) -> Bench:
    """Divides the training images and makes the images of evaluation.

    Raises:
      ValueError: if there is no end of training images.
    """
    from physml_jax.data.source import make_source

    seed, data = config["seed"], config["data"]
    unturned = candidates.candidate_config(config, {"data.kwargs": {**data["kwargs"], **data["eval_kwargs"]}})
    experiment = setup.build(unturned)
    images = experiment.datasets["train"]
    if images.num_examples is None:
        raise ValueError("data.kwargs: a search divides its training images; expected a finite training split")
    label = config["task"]["kwargs"].get("label", "label")
    size = data["eval_batch_size"]

    def evaluated(dataset: Dataset, split: str) -> Source:
        options = {"seed": seed, "split": split, "batch_size": size, "sharding": over_batch(mesh), "shuffle": False}
        return make_source(dataset, **options)

    kept = (config["task"]["kwargs"].get("inputs", "image"), label, "weight")
    found = metrics.examples(evaluated(images, "train"))
    rows, chosen = model_selection.stratified(found[label], config["search"]["validation_fraction"], seed=seed)
    batches = {"validation": _padded({k: found[k][chosen] for k in kept}, size, over_batch(mesh))}
    for name, split in [("test", "test"), *((name, f"probe/{name}") for name in data["probes"])]:
        source = evaluated(experiment.datasets[split], split)
        whole = [source.batch(i) for i in range(metrics.num_batches(source))]
        batches[name] = [{k: batch[k] for k in kept} for batch in whole]
    labels = {name: np.concatenate([np.asarray(b[label])[_real(b)] for b in parts]) for name, parts in batches.items()}
    return Bench(rows, images.num_examples, batches, labels, {}, collections.OrderedDict())


def _padded(rows, size, sharding):
    """Batches of host arrays on the devices; the last one is filled up with weight 0."""
    count = len(rows["weight"])
    found = []
    for start in range(0, count, size):
        where = np.minimum(np.arange(start, start + size), count - 1)
        batch = {k: v[where] for k, v in rows.items()}
        batch["weight"] = (np.arange(start, start + size) < count).astype(np.float32)
        found.append({k: jax.device_put(v, sharding) for k, v in batch.items()})
    return found


def _real(batch):
    """Which rows are no padding."""
    return np.asarray(batch["weight"]) > 0


def _source(experiment: setup.Experiment, bench: Bench, mesh: jax.sharding.Mesh) -> Source:
    """Training batches of a group: its images, with all copies that the data set makes of each."""
    from physml_jax.data.source import make_source

    config = experiment.config
    name = json.dumps(config["data"], sort_keys=True, default=str)
    if name not in bench.sources:
        dataset = experiment.datasets["train"]
        copies, rest = divmod(dataset.num_examples, bench.num_images)
        if rest or not copies:
            raise ValueError(
                f"data: a candidate has {dataset.num_examples} training examples of {bench.num_images} images; expected"
                " the same number of copies of each, those of one image following each other"
            )
        rows = (bench.train_rows[:, None] * copies + np.arange(copies)).reshape(-1)
        bench.sources[name] = make_source(
            restricted(dataset, rows, seed=config["seed"], split="train"),
            seed=config["seed"],
            split="train",
            batch_size=config["data"]["batch_size"],
            sharding=over_batch(mesh),
            shuffle=True,
        )
    return bench.sources[name]


def _programs(experiment: setup.Experiment, bench: Bench, mesh: jax.sharding.Mesh) -> Programs:
    """Kept from the last groups, or made; compiled at their first call."""
    name = program_name(experiment)
    if name not in bench.programs:
        bench.programs[name] = make_programs(experiment, mesh)
    bench.programs.move_to_end(name)
    while len(bench.programs) > _MAX_PROGRAMS:
        bench.programs.popitem(last=False)
    return bench.programs[name]


def make_programs(experiment: setup.Experiment, mesh: jax.sharding.Mesh) -> Programs:
    """The functions of a network that was built with learning rate 1."""
    task, config = experiment.member, experiment.config
    method = config["search"]["map_members"]
    at_once = method == "vmap" or (method == "auto" and jax.default_backend() != "cpu")
    label = config["task"]["kwargs"].get("label", "label")
    spec = setup.train_spec(experiment)
    move = at_rate(task)

    def init(replica: Array) -> TrainState:
        zeros = {k: jnp.zeros(s.shape, s.dtype) for k, s in spec.items()}
        return task.init(replica_key(stream_key(config["seed"], "init"), replica), zeros)

    def step(state, finite, rate, replica, batch, key):
        new, values = move(state, rate, batch, replica_key(key, replica))
        return new, finite & jnp.isfinite(values["loss"])

    def answer(state, finite, batch):
        predictions = task.predict(state, batch, jax.random.key(0))
        if "logits" not in predictions:
            raise ValueError("task.name: a search compares classifiers; expected a task that predicts 'logits'")
        logits = predictions["logits"].astype(jnp.float32)
        good = finite & jnp.isfinite(logits).all()
        losses = optax.softmax_cross_entropy_with_integer_labels(logits, batch[label])
        return jnp.where(good, logits.argmax(-1), -1).astype(jnp.int16), jnp.where(good, losses, _LARGE)

    params = jax.eval_shape(init, jnp.int32(0)).params
    if at_once:
        init = jax.vmap(init)
        step = jax.vmap(step, in_axes=(0, 0, 0, 0, None, None))
        answer = jax.vmap(answer, in_axes=(0, 0, None))
    quick = {"xla_backend_optimization_level": "0"}  # random initialisers are long programs that run once
    whole = replicated(mesh)
    return Programs(
        init=jax.jit(init, out_shardings=whole, compiler_options=quick),
        step=jax.jit(step, donate_argnums=0, out_shardings=whole),
        answer=jax.jit(answer, out_shardings=whole),
        at_once=at_once,
        num_params=sum(math.prod(x.shape) for x in jax.tree.leaves(params)),
    )


def replica_key(key: Key, replica: Array) -> Key:
    """The key of another seed of a candidate; replica 0 has the key itself."""
    other = jax.random.key_data(jax.random.fold_in(key, replica))
    return jax.random.wrap_key_data(jnp.where(replica == 0, jax.random.key_data(key), other), impl="threefry2x32")
