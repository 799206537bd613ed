"""What trained networks said about diffraction patterns, brought into one form and scored."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from physml_jax.analysis import calibration
from physml_jax.analysis.classification_intervals import Interval, intervals
from physml_jax.reports import saed_published as published
from physml_jax.reports import seeds
from physml_jax.typing import Run

#: Probe that calibration is fitted on.
VALIDATION = "validation"
#: Title of the answers that experiments/saed_matching.py adds.
MATCHER = "template matching"
_TITLES = {
    "saed_cnn": "299-AN",
    "efficientnet": "EfficientNet",
    "vgg": "VGG",
    "resnet": "ResNet",
    "vit": "ViT",
    "polar": "polar network",
    "spot_set": "spot transformer",
    "template_matching": MATCHER,
}
_LEVELS = ("clean", "detector", "distorted", "dynamical")


class Certainty(NamedTuple):
    """Probabilities before and after a temperature that the validation images chose; means over trainings.

    Attributes:
      temperature: float64 [S].
      loss: log loss before and after.
      error: expected calibration error before and after.
      curves: reliability before and after, of all trainings together.
      sets: of the first training.
      coverage: share of true classes within their sets.
      size: mean number of classes in a set.
      single: share of sets with one class.
      single_right: accuracy of these; ``None`` without any.
      by_class: float64 [C], coverage of every class.
      num_validation: images that it was fitted on.
    """

    temperature: np.ndarray
    loss: tuple[float, float]
    error: tuple[float, float]
    curves: tuple[calibration.Reliability, calibration.Reliability]
    sets: np.ndarray
    coverage: float
    size: float
    single: float
    single_right: float | None
    by_class: np.ndarray
    num_validation: int


class Asked(NamedTuple):
    """Answers on one set of images.

    Attributes:
      truth: int64 [N].
      logits: float64 [S, N, C].
      scores: by name.
      kind: accuracy of the zone axis given the phase, by training [S]; ``None`` if it was not asked for.
      both: phase and zone axis right, by training.
    """

    truth: np.ndarray
    logits: np.ndarray
    scores: Mapping[str, Interval]
    kind: np.ndarray | None
    both: np.ndarray | None

    @property
    def matrices(self) -> np.ndarray:
        """Confusion matrices [S, C, C]."""
        c = self.logits.shape[2]
        codes = self.truth[None] * c + self.logits.argmax(2)
        return np.stack([np.bincount(x, minlength=c * c).reshape(c, c) for x in codes])


class Network(NamedTuple):
    """One model with all its trainings.

    Attributes:
      title: what it is.
      runs: its trainings.
      published: its row of the published table, or ``None``.
      test: answers on the test images.
      certainty: ``None`` without validation images.
      probes: answers on the probes, except the validation images.
    """

    title: str
    runs: Sequence[Run]
    published: published.Published | None
    test: Asked
    certainty: Certainty | None
    probes: Mapping[str, Asked]


def read(runs: Sequence[Run], *, num_resamples: int, coverage: float) -> list[Network]:
    """Networks in the order of their first run.

    Raises:
      ValueError: if labels or predictions are missing, or networks were asked about different images.
    """
    networks: list[Network] = []
    for name, members in seeds.by_model(runs).items():
        first = members[0]
        test = _asked(name, members, [(r.examples, r.predictions) for r in members], num_resamples)
        if networks and not np.array_equal(networks[0].test.truth, test.truth):
            raise ValueError(f"runs: {name} was asked about other images than {networks[0].title}; report them apart")
        probes = {}
        for probe in first.probes:
            pairs = [(r.probes[probe].examples, r.probes[probe].predictions) for r in members]
            probes[probe] = _asked(f"{name}, probe {probe}", members, pairs, num_resamples)
        held = probes.pop(VALIDATION, None)
        certainty = None if held is None else _certainty(held, test, coverage)
        key, frozen = _model(first)
        title = _title(first, key, frozen)
        networks.append(Network(title, members, published.TABLE.get((key, frozen)), test, certainty, probes))
    return _distinct(networks)


def label_of(run: Run) -> str:
    """Batch key of the class that a run learned."""
    return run.config.get("task", {}).get("kwargs", {}).get("label") or "phase"


def names_of(network: Network) -> tuple[str, ...]:
    """Names of the classes: the nine phases, those that the config lists, or numbers."""
    num = network.test.logits.shape[2]
    if label_of(network.runs[0]) == "phase" and num == len(published.NAMES):
        return published.NAMES
    listed = network.runs[0].config.get("data", {}).get("kwargs", {}).get("classes")
    return tuple(listed) if isinstance(listed, list | tuple) and len(listed) == num else tuple(map(str, range(num)))


def is_simulated(network: Network) -> bool:
    """Simulated patterns of the nine phases, or somebody's own images?"""
    return network.runs[0].config.get("data", {}).get("name") == "saed"


def scale_errors(network: Network) -> list[tuple[float, Asked]]:
    """Answers by the largest relative error of the believed scale, in increasing order."""
    data = network.runs[0].config.get("data", {})
    own, settings = data.get("kwargs", {}), data.get("probes", {})
    found = {}
    for name, asked in network.probes.items():
        changed = settings.get(name, {})
        if set(changed) == {"scale_error"} and changed["scale_error"] is not None:
            found[float(changed["scale_error"])] = asked
    if found and own.get("scale_error") is not None:
        found.setdefault(float(own["scale_error"]), network.test)
    return sorted(found.items())


def levels(network: Network) -> list[tuple[str, Asked]]:
    """Answers by level of difficulty, the experiment's own among them."""
    data = network.runs[0].config.get("data", {})
    found = {level: asked for level, asked in network.probes.items() if level in _LEVELS}
    own = data.get("kwargs", {}).get("level")
    if found and own in _LEVELS:
        found.setdefault(own, network.test)
    return [(level, found[level]) for level in _LEVELS if level in found]


def merged_accuracy(asked: Asked) -> np.ndarray:
    """Accuracy [S] when classes 0, 6 and 7, several zones of which are one picture, count as one."""
    same = np.array([0 if c in (0, 6, 7) else c for c in range(asked.logits.shape[2])])
    return (same[asked.logits.argmax(2)] == same[asked.truth][None]).mean(1)


def _asked(name: str, members: Sequence[Run], pairs: Sequence[tuple], num_resamples: int) -> Asked:
    key, truth, logits, kind, both = label_of(members[0]), None, [], [], []
    for examples, predictions in pairs:
        if key not in examples or "logits" not in predictions:
            held = ", ".join(sorted([*examples, *predictions])) or "nothing"
            raise ValueError(f"run {name}: expected examples with {key!r} and predictions with 'logits', got {held}")
        labels = np.asarray(examples[key]).astype(np.int64)
        if truth is not None and not np.array_equal(labels, truth):
            raise ValueError(f"run {name}: its trainings were asked about different images")
        truth, x = labels, np.asarray(predictions["logits"], np.float64)
        if x.ndim != 2 or len(x) != len(labels) or not np.isfinite(x).all():
            raise ValueError(f"run {name}: expected finite logits [{len(labels)}, C], got shape {x.shape}")
        logits.append(x)
        if "sublogits" in predictions and "zone_number" in examples:
            own = np.asarray(predictions["sublogits"])[np.arange(len(labels)), labels].argmax(-1)
            right = own == np.asarray(examples["zone_number"])
            kind.append(right.mean())
            both.append((right & (x.argmax(1) == labels)).mean())
    stacked = np.stack(logits)
    scores = intervals(truth, stacked.argmax(2), num_classes=stacked.shape[2], num_resamples=num_resamples)
    return Asked(truth, stacked, scores, np.array(kind) if kind else None, np.array(both) if both else None)


def _certainty(held: Asked, test: Asked, coverage: float) -> Certainty:
    temperature, before, after, sets = [], [], [], []
    for fitted, x in zip(held.logits, test.logits, strict=True):
        t = calibration.fit_temperature(fitted, held.truth)
        p_held, p = (np.exp(calibration.log_softmax(v / t)) for v in (fitted, x))
        threshold = calibration.conformal_threshold(p_held, held.truth, coverage=coverage)
        sets.append(calibration.conformal_sets(p, test.truth, threshold=threshold))
        temperature.append(t)
        before.append(np.exp(calibration.log_softmax(x)))
        after.append(p)
    labels = np.tile(test.truth, len(before))
    curves = tuple(calibration.reliability(np.concatenate(p), labels) for p in (before, after))
    losses = [
        np.mean([calibration.log_loss(x / t, test.truth) for x, t in zip(test.logits, ts, strict=True)])
        for ts in (np.ones(len(temperature)), temperature)
    ]
    errors = [np.mean([calibration.reliability(p, test.truth).error for p in ps]) for ps in (before, after)]
    right = [s.single_right for s in sets if s.single_right is not None]
    return Certainty(
        temperature=np.array(temperature),
        loss=tuple(map(float, losses)),
        error=tuple(map(float, errors)),
        curves=curves,
        sets=sets[0].members,
        coverage=float(np.mean([s.coverage for s in sets])),
        size=float(np.mean([s.size for s in sets])),
        single=float(np.mean([s.single for s in sets])),
        single_right=float(np.mean(right)) if right else None,
        by_class=np.mean([s.by_class for s in sets], axis=0),
        num_validation=len(held.truth),
    )


def _model(run: Run) -> tuple[str, bool]:
    """Module of the model, and whether it started from a weight file with its body frozen."""
    model = run.config.get("model", {})
    key, kwargs = str(model.get("name") or run.name).rsplit(".", 1)[-1], model.get("kwargs") or {}
    if key == "pretrained":
        key = str(kwargs.get("family"))
    return key, bool(run.config.get("optim", {}).get("frozen"))


def _title(run: Run, key: str, frozen: bool) -> str:
    kwargs: Mapping[str, Any] = run.config.get("model", {}).get("kwargs") or {}
    kwargs = kwargs.get("options", kwargs)
    title = _TITLES.get(key, key.replace("_", " "))
    if isinstance(kwargs.get("depth"), int) and key in ("resnet", "vgg"):
        title += f"-{kwargs['depth']}" if key == "resnet" else str(kwargs["depth"])
    return f"{title}, frozen" if frozen else title


def _distinct(networks: list[Network]) -> list[Network]:
    """Titles that tell networks apart: by the run's name where models are alike."""
    titles = [n.title for n in networks]
    return [n._replace(title=f"{n.title} [{n.runs[0].name}]") if titles.count(n.title) > 1 else n for n in networks]
