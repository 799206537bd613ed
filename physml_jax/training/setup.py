"""``build(config)``: the one place where names of a config become functions."""

import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import jax
from absl import logging

from physml_jax.core.resolve import check_kwargs, factory
from physml_jax.training.accumulation import accumulated
from physml_jax.training.ensemble import ensemble
from physml_jax.training.freezing import frozen_model
from physml_jax.training.optim import make_optimizer
from physml_jax.training.sharding import over_batch
from physml_jax.typing import Batch, Dataset, Read, Recipe, Report, Run, Source, Task

#: Splits that every experiment has. ``reference`` is the training split once through, in order: baselines are fitted on
#: it.
SPLITS = ("train", "validation", "test")


#: Sections that a config must have; ``configs/base.py`` explains them.
SECTIONS = ("seed", "num_seeds", "data", "model", "discriminator", "task", "optim", "train", "report")


class Experiment(NamedTuple):
    """A config with its names resolved.

    Attributes:
      config: the config as nested plain dicts.
      task: what is trained: the task of one member, or with ``num_seeds`` above 1 that of the ensemble.
      member: what one member learns.
      datasets: the splits by name, and the extra evaluation sets as ``probe/<name>``.
      report: makes the report of finished runs.
    """

    config: dict[str, Any]
    task: Task
    member: Task
    datasets: dict[str, Dataset]
    report: Callable[[Sequence[Run]], Report]


def plain(config: Any) -> Any:
    """Nested plain dicts of any nested Mapping; other values are kept."""
    if isinstance(config, Mapping) or hasattr(config, "items"):
        return {str(k): plain(v) for k, v in config.items()}
    return config


def build(config: Mapping[str, Any]) -> Experiment:
    """Resolves the names of a config and checks every keyword against the factory that takes it.

    Args:
      config: any nested Mapping with the keys of ``configs/base.py``.

    Returns:
      The experiment. Nothing has been computed, written or put on a device.

    Raises:
      ValueError: for a missing key, an unknown name or an unknown keyword; the message lists what exists.
    """
    config = plain(config)
    missing = [k for k in SECTIONS if k not in config]
    if missing:
        raise ValueError(f"config: missing {', '.join(missing)}; start from configs/base.py")

    data = config["data"]
    make_dataset = _checked("data", data["name"], data["kwargs"])
    check_kwargs("data.eval_kwargs", make_dataset, data["eval_kwargs"])
    check_kwargs("data.test_kwargs", make_dataset, data["test_kwargs"])
    for name, kwargs in data["probes"].items():
        check_kwargs(f"data.probes.{name}", make_dataset, kwargs)
    splits = (*SPLITS, *(f"probe/{name}" for name in data["probes"]))
    datasets = {s: make_dataset(split=s, **_settings(data, s)) for s in splits}

    models = {}
    for role in ("model", "discriminator"):
        if config[role]["name"]:
            kwargs = config[role]["kwargs"]
            models[role] = _checked("model", config[role]["name"], kwargs, where=role)(**kwargs)

    make_task = _checked("task", config["task"]["name"], config["task"]["kwargs"])
    tx = make_optimizer(config["optim"], config["train"]["num_steps"])
    if frozen := config["optim"].get("frozen", ()):
        models = {role: frozen_model(model, frozen) for role, model in models.items()}
    member = make_task(models=models, tx=tx, **config["task"]["kwargs"])
    member = accumulated(member, config["optim"]["accumulate"])
    task = member
    if config["num_seeds"] != 1:
        shared, method = config["train"]["shared_batches"], config["train"]["map_seeds"]
        task = ensemble(member, config["num_seeds"], shared_batches=shared, method=method)
    report = _checked("report", config["report"]["name"], config["report"]["kwargs"])(**config["report"]["kwargs"])
    return Experiment(config=config, task=task, member=member, datasets=datasets, report=report)


def num_members(experiment: Experiment) -> int | None:
    """S of an ensemble whose members have training batches of their own; ``None`` where batches are [B, ...]."""
    config = experiment.config
    return None if config["num_seeds"] == 1 or config["train"]["shared_batches"] else config["num_seeds"]


def train_spec(experiment: Experiment) -> Batch:
    """``ShapeDtypeStruct`` of one training batch, without opening any data."""
    from physml_jax.data.source import batch_spec

    return batch_spec(experiment.datasets["train"], experiment.config["data"]["batch_size"], num_members(experiment))


def open_sources(
    experiment: Experiment, mesh: jax.sharding.Mesh, *, progress: Callable[[int, int, str], None] | None = None
) -> dict[str, Source]:
    """Sources of batches for every split and probe, and ``reference``; stored data that the cache lacks are generated.

    Args:
      experiment: what ``build`` returned.
      mesh: the devices.
      progress: called with (done, total, text) while data are generated.

    Raises:
      ValueError: if the config's ``data.source`` does not fit the dataset.
    """
    from physml_jax.data.source import make_source  # the store behind it imports TFDS; a dry build must stay light

    data, seed = experiment.config["data"], experiment.config["seed"]
    splits = tuple(experiment.datasets)
    opened: dict[str, Read] = {}  # splits that share records share the memory that holds them
    readers = {s: _reader(recipe(experiment, s), opened, progress) for s in splits}
    sources = {
        s: make_source(
            experiment.datasets[s],
            seed=seed,
            split=s,
            batch_size=data["batch_size"] if s == "train" else data["eval_batch_size"],
            sharding=over_batch(mesh),
            shuffle=s == "train",
            read=readers[s],
            num_members=num_members(experiment) if s == "train" else None,
        )
        for s in splits
    }
    train = experiment.datasets["train"]
    if train.num_examples is None:  # the beginning of the stream
        train = train._replace(num_examples=experiment.config["report"]["max_reference"])
    sources["reference"] = make_source(
        train,
        seed=seed,
        split="train",
        batch_size=data["eval_batch_size"],
        sharding=over_batch(mesh),
        shuffle=False,
        read=readers["train"],
    )
    return sources


def recipe(experiment: Experiment, split: str) -> Recipe | None:
    """How the stored records of a split are made; ``None`` where rows are simulated on the fly.

    Raises:
      ValueError: if the config's ``data.source`` does not fit the dataset.
    """
    data, dataset = experiment.config["data"], experiment.datasets[split]
    if data["source"] not in ("simulate", "stored"):
        raise ValueError(f"data.source: expected 'simulate' or 'stored', got {data['source']!r}")
    if data["source"] == "simulate":
        return None
    if dataset.recipe is not None:
        return dataset.recipe
    if dataset.num_examples is None:
        raise ValueError(f"data.source: the split {split!r} is unlimited and cannot be stored; set num_examples")
    from physml_jax.data import store

    settings, seed = _settings(data, split), experiment.config["seed"]
    return store.recipe_from_samples(dataset, name=data["name"], config=settings, seed=seed, split=split)


def recipes(experiment: Experiment) -> list[Recipe]:
    """The recipes of all splits, each one once (splits may share one)."""
    found: dict[str, Recipe] = {}
    for split in experiment.datasets:
        if (one := recipe(experiment, split)) is not None:
            found.setdefault(one.name + json.dumps(plain(one.config), sort_keys=True, default=str), one)
    return list(found.values())


def labels(experiment: Experiment, split: str) -> list[str]:
    """Short texts for the examples of a split, for tables and figures; empty if the dataset has none."""
    dataset = experiment.datasets[split]
    if dataset.recipe is None or not dataset.recipe.labels or dataset.keep is not None:
        return []
    rows = range(dataset.num_examples) if dataset.rows is None else dataset.rows
    return [dataset.recipe.labels[i] for i in rows]


def _reader(made_by, opened, progress):
    if made_by is None:
        return None
    from physml_jax.data import manifest, store

    name = manifest.folder_name(made_by)
    if name not in opened:
        found = store.open_store(store.build(made_by, progress=progress))
        if found.remarks:
            logging.warning("%s: %s", made_by.name, "; ".join(found.remarks))
        opened[name] = found.read
    return opened[name]


def _settings(data, split):
    """Arguments of ``make_dataset`` for a split: what the more special section names replaces the common value."""
    found = {**data["kwargs"], **({} if split == "train" else data["eval_kwargs"])}
    if split == "test":
        found |= data["test_kwargs"]
    if split.startswith("probe/"):
        found |= data["probes"][split.removeprefix("probe/")]
    return found


def _checked(kind, name, kwargs, where=None):
    make = factory(kind, name)
    check_kwargs(f"{where or kind}.kwargs", make, kwargs)
    return make
