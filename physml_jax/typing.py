"""The vocabulary that every part of physml_jax shares: arrays, batches, datasets, tasks, sources, runs and reports.

Nothing here behaves; these are names for tuples of arrays and tuples of pure functions. A module of the package that
wants to work with another one speaks through these types and through the key names of ``BATCH_KEYS``.
"""

from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import Any, NamedTuple

import jax
import numpy as np

Array = jax.Array
Key = jax.Array  # a typed threefry key, scalar or batched
Tree = Any  # a pytree of arrays
Batch = dict[str, Any]  # key name -> array with a leading batch axis (or ShapeDtypeStruct in a spec)
Metrics = dict[str, Any]  # name -> scalar array

#: The closed list of names that a batch may hold, with the shape of one example.
BATCH_KEYS: dict[str, str] = {
    "index": "int32 []: number of the example in its dataset",
    "weight": "float32 []: 1 for a real row, 0 for the padding of the last evaluation batch",
    "image": "float32 [H, W, C]: a network input that is one picture (a lattice, a photograph)",
    "label": "int32 []: class",
    "density": "float32 []: fraction of occupied sites; of eigenstates [L, L, L, 1]: abs(psi)^2 L^3, compressed",
    "spanning": "int32 []: 1 if a cluster joins two opposite edges",
    "vertical": "int32 []: 1 if a cluster joins the first and the last row",
    "connected": "float32 [H, W, 1]: 1 on occupied sites that are joined to the first row",
    "correlation_length": "float32 []: correlation length of a percolation state, lattice units",
    "correlation_class": "int32 []: number of given edges that the correlation length exceeds",
    "spins": "int8 [L, L, 1]: Ising spins, -1 or +1",
    "temperature": "float32 []: temperature, in units of the first coupling",
    "j2": "float32 []: coupling across the diagonals, in units of the first coupling; positive is antiferromagnetic",
    "equilibrated": "int32 []: 1 if the chains that made the state passed the test of equilibrium at its point",
    "state": "float32 [L, L, L, 1]: eigenstate with its signs, of unit norm",
    "energy": "float32 []: energy of the eigenstate, in units of the hopping",
    "disorder": "float32 []: full width W of the box of site energies, in units of the hopping",
    "disorder_class": "int32 []: number of W among those that are told apart",
    "rgba": "float32 [P, P, 4]: picture of an eigenstate as coloured cubes, 0 to 1",
    "slices": "float32 [L, L, L]: abs(psi)^2 L^3, compressed, planes as channels",
    "signed": "float32 [L, L, L, 1]: psi L^(3/2)",
    "log_signed": "float32 [L, L, L, 2]: sign of psi, and ln(abs(psi)^2 L^3)",
    "site_energies": "float32 [L, L, L, 1]: site energies less the energy of the state, from psi",
    "potential": "float32 [H, W, 1]: electrostatic potential averaged along the zone axis, V",
    "pattern": "float32 [H, W, T]: intensity over tilts, as a fraction of the incident beam, one channel per thickness",
    "few_beam": "float32 [H, W, T]: the same pattern from a handful of strong beams",
    "log_a": "float32 [1]: natural logarithm of the lattice parameter in angstrom",
    "space_group": "int32 []: number of the space group, 1 to 230",
    "template": "int32 []: number of the structure template that the crystal belongs to",
    "structure": "int32 []: number of the crystal in its list of structures",
    "num_beams": "int32 []: beams in the Bloch-wave calculation",
    "phase": "int32 []: number of the crystal phase that made a diffraction pattern",
    "scale": "float32 []: 1/angstrom per pixel as it is believed to be",
    "true_scale": "float32 []: 1/angstrom per pixel as it is",
    "zone": "int32 [3]: direction [uvw] of the crystal along the beam, zeros where none is defined",
    "zone_number": "int32 []: number of that direction in its phase's list of families",
    "spots": "float32 [K, 3]: g_x, g_y in 1/angstrom as believed, relative height; zeros where fewer were found",
    "orientation": "float32 [3, 3]: rotation from the crystal's Cartesian frame to the lab's",
    "convergence_error": "float32 []: estimated largest error of the pattern from the finite number of beams",
}

SampleFn = Callable[[Key, Array], Batch]  # [B] keys, [B] indices -> B rows; row j knows only its own key and index
Read = Callable[[np.ndarray], dict[str, np.ndarray]]  # record numbers [B] -> stacked records


class Recipe(NamedTuple):
    """A stored dataset as a pure function of the shard index.

    Attributes:
      name: short name, used for folder names.
      config: everything that the content depends on, JSON-serialisable; its hash names the folder.
      spec: ``ShapeDtypeStruct`` of one record (no batch axis) by key.
      shard_lengths: number of records of every shard.
      shard: shard number -> list of records (dicts of NumPy arrays); may take minutes, must be deterministic.
      attribution: one JSON-serialisable entry per source of the data (licence, citation), kept in the manifest.
      labels: one short text per record (a formula, a name), or empty.
      remarks: the records of one shard, stacked by key -> lines of text about what a user of them should know. They are
        kept in the manifest, and the log repeats them whenever the data are opened for training.
      workers: shards that one process computes at the same time, in threads; for shards that occupy one core each.
    """

    name: str
    config: Mapping[str, Any]
    spec: Batch
    shard_lengths: tuple[int, ...]
    shard: Callable[[int], list[dict[str, np.ndarray]]]
    attribution: Sequence[Mapping[str, Any]] = ()
    labels: Sequence[str] = ()
    remarks: Callable[[Mapping[str, np.ndarray]], Sequence[str]] | None = None
    workers: int = 1


class Dataset(NamedTuple):
    """One split of a dataset, as ``data/<name>.make_dataset`` returns it.

    Attributes:
      spec: ``ShapeDtypeStruct`` of one example (no batch axis) by key.
      num_examples: size of the split; ``None`` for an unlimited simulated stream.
      sample: traced generator of rows; ``None`` where only stored records exist.
      recipe: how to build the stored records; ``None`` where rows are always simulated.
      rows: for a dataset with a recipe, int64 [num_examples] record numbers of this split; ``None`` means all in
        order.
      decode: for a dataset whose records are not its examples (packed, or several in one): (records [B, ...] by key,
        numbers of the examples int32 [B]) -> batch [B, ...], traced, run on the device; ``None``: a record is an
        example.
      record: ``ShapeDtypeStruct`` by key of what ``decode`` needs of a record; ``None`` without ``decode``.
      keep: for a choice that depends on what is stored: reader of records -> int64 numbers of the examples to use,
        increasing; ``None`` uses all ``num_examples``.
    """

    spec: Batch
    num_examples: int | None
    sample: SampleFn | None = None
    recipe: Recipe | None = None
    rows: np.ndarray | None = None
    decode: Callable[[Batch, Array], Batch] | None = None
    record: Batch | None = None
    keep: Callable[[Read], np.ndarray] | None = None


class Source(NamedTuple):
    """Batches as a function of the step: the only thing that the training loop knows about data.

    Attributes:
      batch: step -> global batch, sharded over the mesh.
      spec: ``ShapeDtypeStruct`` of one batch (with the batch axis) by key.
      num_examples: size of the split; ``None`` for an unlimited stream.
    """

    batch: Callable[[int], Batch]
    spec: Batch
    num_examples: int | None


class Best(NamedTuple):
    """The best parameters seen by a keep-best protocol. ``score`` is float32 [], larger is better."""

    score: Array
    params: Tree
    mutable: Tree


class TrainState(NamedTuple):
    """Everything that training carries from step to step.

    Attributes:
      step: int32 [], number of finished steps.
      params: trainable parameters.
      mutable: other variables of the models (batch statistics), possibly empty.
      opt: optimizer state.
      ema: exponential moving average of ``params``, or ``None``.
      best: best parameters so far, or ``None``.
    """

    step: Array
    params: Tree
    mutable: Tree
    opt: Tree
    ema: Tree | None = None
    best: Best | None = None


class Task(NamedTuple):
    """What is learned, as four pure functions.

    Attributes:
      init: (key, batch) -> TrainState; ``batch`` may hold zeros, only shapes matter.
      step: (state, batch, key) -> (state, metrics); one optimizer step, metrics are scalars, ``loss`` among them.
      predict: (state, batch, key) -> arrays with the batch axis first.
      evaluate: (state, batch, key) -> per-example scores [B] by name, and ``weight`` [B].
      score: (predictions, batch) -> what ``evaluate`` gives, for tasks whose prediction is so expensive that a report
        should not pay for it twice; ``None`` otherwise.
    """

    init: Callable[[Key, Batch], TrainState]
    step: Callable[[TrainState, Batch, Key], tuple[TrainState, Metrics]]
    predict: Callable[[TrainState, Batch, Key], dict[str, Array]]
    evaluate: Callable[[TrainState, Batch, Key], dict[str, Array]]
    score: Callable[[dict[str, Array], Batch], dict[str, Array]] | None = None


class Probe(NamedTuple):
    """What a trained network answers on an extra set of examples: another size, a set made to mislead.

    Attributes:
      examples: the set by batch key, [N, ...].
      predictions: outputs of ``Task.predict`` on it, [N, ...].
      scores: outputs of ``Task.evaluate`` on it, [N].
    """

    examples: Mapping[str, np.ndarray]
    predictions: Mapping[str, np.ndarray]
    scores: Mapping[str, np.ndarray]


class Run(NamedTuple):
    """A finished training run, as reports receive it: plain NumPy, nothing to compute.

    The members of an ensemble are runs of one name.

    Attributes:
      name: text for table rows and legends.
      config: the experiment's config as nested dicts.
      history: rows of the metrics file, in order.
      examples: the evaluation split by batch key, [N, ...].
      predictions: outputs of ``Task.predict`` on it, [N, ...].
      scores: outputs of ``Task.evaluate`` on it, [N].
      reference: the training split by batch key, [M, ...]; baselines are fitted on it.
      labels: short text per evaluation example.
      probes: answers on the extra evaluation sets of the config (``data.probes``) by name.
      member: number of the run within its ensemble, from 0.
    """

    name: str
    config: Mapping[str, Any]
    history: Sequence[Mapping[str, Any]]
    examples: Mapping[str, np.ndarray]
    predictions: Mapping[str, np.ndarray]
    scores: Mapping[str, np.ndarray]
    reference: Mapping[str, np.ndarray]
    labels: Sequence[str] = ()
    probes: Mapping[str, Probe] = MappingProxyType({})
    member: int = 0


class Table(NamedTuple):
    """A table of a report: one caption, column names, rows of text or numbers."""

    caption: str
    columns: Sequence[str]
    rows: Sequence[Sequence[Any]]


class Report(NamedTuple):
    """What a person looks at first.

    Attributes:
      title: heading of the page.
      summary: paragraphs of plain text: the result, its baseline, what to distrust.
      metrics: JSON-serialisable numbers; written to ``metrics.json``.
      tables: tables by short name.
      figures: (matplotlib figure, caption) by short name; written to ``figures/<name>.png``.
    """

    title: str
    summary: Sequence[str]
    metrics: Mapping[str, Any]
    tables: Mapping[str, Table]
    figures: Mapping[str, tuple[Any, str]]
