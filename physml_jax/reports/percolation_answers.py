"""What networks answered about percolation states, seed by seed, and what rules that see only the density answer."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from physml_jax.analysis import classification, percolation, single_feature
from physml_jax.reports import seeds
from physml_jax.typing import Run


class States(NamedTuple):
    """A set of labelled states.

    Attributes:
      truth: int64 [N], 1 where the state spans.
      density: float64 [N].
      levels: the densities, and the one of every state.
      size: linear size L.
      images: [N, L, L, C], the network's input.
      index: int64 [N], numbers of the examples.
      exact: whether states are sorted by their number of sites, not by the probability of occupation.
    """

    truth: np.ndarray
    density: np.ndarray
    levels: percolation.Levels
    size: int
    images: np.ndarray
    index: np.ndarray
    exact: bool


class Answers(NamedTuple):
    """What the seeds of one model say about the same states.

    Attributes:
      probability: float64 [S, N], of class 1; ``None`` for a rule without probabilities.
      said: int64 [S, N].
      right: bool [S, N].
    """

    probability: np.ndarray | None
    said: np.ndarray
    right: np.ndarray

    def accuracy(self) -> seeds.Mean:
        """Mean over the seeds."""
        return seeds.mean(self.right.mean(axis=1))

    def log_loss(self, truth: np.ndarray) -> seeds.Mean | None:
        """Mean of -ln p(true class) over the seeds."""
        if self.probability is None:
            return None
        likely = np.where(truth == 1, self.probability, 1 - self.probability)
        return seeds.mean(-np.log(np.clip(likely, 1e-12, 1)).mean(axis=1))

    def confusion(self, truth: np.ndarray) -> tuple[np.ndarray, np.ndarray | None]:
        """Counts [2, 2], mean over seeds, and their standard error."""
        found = np.array([classification.confusion_matrix(truth, s, num_classes=2) for s in self.said])
        return found.mean(axis=0), seeds.standard_error(found)


def states(name: str, examples: Mapping[str, np.ndarray], *, label: str, density: str, image: str = "image") -> States:
    """Reads labelled states.

    Args:
      name: of the set, for messages.
      examples: arrays by batch key.
      label: key of the truth, 0 or 1.
      density: key of the density; without it the mean of the images serves.
      image: key of the lattices.

    Returns:
      The states.

    Raises:
      ValueError: if the truth or the images are missing or of another form.
    """
    for key in (label, image):
        if key not in examples:
            raise ValueError(f"{name}: examples lack {key!r}; they hold: {', '.join(sorted(examples)) or 'nothing'}")
    truth, images = np.asarray(examples[label]), np.asarray(examples[image])
    if truth.ndim != 1 or not len(truth) or not np.all((truth == 0) | (truth == 1)):
        raise ValueError(f"{name}: expected {label!r} to be 0 or 1 [N], got shape {truth.shape}")
    if images.ndim != 4 or len(images) != len(truth) or images.shape[1] != images.shape[2]:
        raise ValueError(f"{name}: expected {image!r} [{len(truth)}, L, L, C], got shape {images.shape}")
    found = np.asarray(examples[density], np.float64) if density in examples else single_feature.pooled(images)
    groups = np.asarray(examples["label"]) if "label" in examples and label != "label" else None
    # States that were counted are sorted by their count. Under independent occupation nearly every state has a count
    # of its own; there the probability that it was drawn with sorts them.
    exact = groups is None or len(np.unique(found.round(9))) <= 64
    levels = percolation.levels(found, groups=None if exact else groups)
    index = np.asarray(examples.get("index", np.arange(len(truth))), np.int64)
    return States(truth.astype(np.int64), found, levels, images.shape[1], images, index, exact)


def answers(name: str, predictions: Sequence[Mapping[str, np.ndarray]], truth: np.ndarray) -> Answers:
    """Reads what the members of one model answered.

    Args:
      name: of the model, for messages.
      predictions: one mapping per seed, with ``probabilities`` or ``logits`` [N, 2].
      truth: int ``[N]``.

    Returns:
      The answers.

    Raises:
      ValueError: if predictions are missing, of another form, or not finite.
    """
    rows = []
    for held in predictions:
        if "probabilities" in held:
            found = np.asarray(held["probabilities"], np.float64)
        elif "logits" in held:
            found = classification.probabilities_from_logits(held["logits"])
        else:
            raise ValueError(
                f"run {name}: predictions lack 'probabilities' and 'logits'; they hold: "
                f"{', '.join(sorted(held)) or 'nothing'}"
            )
        if found.shape != (len(truth), 2) or not np.all(np.isfinite(found)):
            raise ValueError(f"run {name}: expected finite predictions [{len(truth)}, 2], got shape {found.shape}")
        rows.append(found)
    said = np.array([r.argmax(axis=1) for r in rows]).astype(np.int64)
    return Answers(np.array([r[:, 1] for r in rows]), said, said == truth[None])


def of_models(models: Mapping[str, Sequence[Run]], first: States, *, label: str) -> dict[str, Answers]:
    """The answers of every model on the test set, which must be the same for all.

    Raises:
      ValueError: if a run was evaluated on other examples.
    """
    found = {}
    for name, members in models.items():
        for run in members:
            truth = seeds.held(run, "examples", label)
            same = truth.shape == first.truth.shape and np.array_equal(truth, first.truth)
            if not same or np.shape(run.examples.get("image")) != first.images.shape:
                raise ValueError(f"runs: {name} was evaluated on other examples than the first run; report them apart")
        found[name] = answers(name, [r.predictions for r in members], first.truth)
    return found


def rule(said: np.ndarray, truth: np.ndarray) -> Answers:
    """The answers of something that has no seeds and gives no probability."""
    said = np.asarray(said, np.int64)[None]
    return Answers(None, said, said == truth[None])


class Fitted(NamedTuple):
    """Where density-only rules are fitted.

    Attributes:
      density: float64 [M].
      truth: int64 [M].
      note: where they come from, as a sentence, if not from the training set.
    """

    density: np.ndarray
    truth: np.ndarray
    note: str


def fitted_on(runs: Sequence[Run], first: States, *, label: str, density: str) -> Fitted:
    """Training states of the size that is tested, from any of the runs; else the test states themselves."""
    for run in runs:
        reference = run.reference
        if label in reference and "image" in reference and np.shape(reference["image"])[1] == first.size:
            found = states("reference", reference, label=label, density=density)
            return Fitted(found.density, found.truth, "")
    return Fitted(
        first.density,
        first.truth,
        "Baselines are fitted on the test states themselves, for lack of training states of that size; that can only "
        "flatter them.",
    )


def baselines(first: States, fitted: Fitted) -> dict[str, Answers]:
    """Rules that see the density and nothing else, and the most frequent class; the oracle comes first."""
    truth, density = first.truth, first.density
    linear = single_feature.logistic_regression(fitted.density, fitted.truth, single_feature.pooled(first.images))
    found = {
        "density-only oracle": percolation.density_oracle(density, truth),
        "threshold on density": percolation.threshold_answers(fitted.density, fitted.truth, density),
        "linear read-out of mean pooling": linear > 0.5,
        "most frequent class": np.full(len(truth), classification.majority_class(fitted.truth)),
    }
    return {name: rule(said, truth) for name, said in found.items()}


def explained(model: Answers, oracle: Answers) -> tuple[seeds.Mean | None, seeds.Mean | None]:
    """Of the states that a model gets wrong, the share that the density-only oracle gets wrong too; and the reverse.

    Both near 1: the model is the oracle. ``None`` where nothing is wrong.
    """
    missed = ~oracle.right[0]
    of_model = [(w & missed).sum() / w.sum() for w in ~model.right if w.any()]
    of_oracle = [(w & missed).sum() / missed.sum() for w in ~model.right] if missed.any() else []
    return (seeds.mean(of_model) if of_model else None), (seeds.mean(of_oracle) if of_oracle else None)


def kind_of_states(config: Mapping[str, Any], probe: str | None = None) -> str:
    """The ``states`` of the test set or of a probe, as the config of the run says; ``"random"`` where it is silent."""
    data = config.get("data", {})
    found = "random"
    for part in (
        data.get("kwargs"),
        data.get("eval_kwargs"),
        data.get("test_kwargs"),
        (data.get("probes") or {}).get(probe),
    ):
        found = (part or {}).get("states", found)
    return found
