"""What networks answered about Anderson states, seed by seed, and what every rung of the ladder answers beside them.

Runs on the same test states share one ladder, fitted on the training states of the same size and read off exactly the
states that the networks were asked about.
"""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import scipy.stats

from physml_jax.analysis import anderson_ladder as ladder
from physml_jax.analysis.bootstrap import mean_intervals
from physml_jax.analysis.classification import confusion_matrix, probabilities_from_logits, wilson_interval
from physml_jax.reports import seeds
from physml_jax.typing import Run

#: Scores of an answer by name: what an axis or a column calls them.
SCORES = {
    "accuracy": "accuracy",
    "loss": "cross entropy (nats)",
    "adjacent": "accuracy to one class",
    "error": "mean absolute error of W",
}
#: Views of a state in words.
VIEWS = {
    "rgba": "pictures",
    "density": "abs(ψ)²",
    "slices": "slices of abs(ψ)²",
    "signed": "signed ψ",
    "log_signed": "signs and ln abs(ψ)²",
    "site_energies": "site energies",
}
#: Views that hold the signs, so that the local rule can be formed from them.
SIGNED = ("signed", "log_signed", "site_energies")
_LEAST = 1e-12  # probability that counts as the smallest, as in the other reports


class Score(NamedTuple):
    """A mean score.

    Attributes:
      value: over states and seeds.
      low: lower end of the 95 % interval over test states.
      high: upper end.
      error: standard error over seeds; ``None`` with one.
      seed_low: lower end of the 95 % interval (Student's t) over seeds; ``None`` with one.
      seed_high: upper end.
      n: number of seeds.
    """

    value: float
    low: float
    high: float
    error: float | None
    seed_low: float | None
    seed_high: float | None
    n: int

    def text(self, digits: int = 4) -> str:
        """For a sentence or a table."""
        return seeds.Mean(self.value, self.error, self.n).text(digits)

    def ends(self) -> tuple[float, float]:
        """The interval over states or two standard errors over seeds, whichever is wider."""
        if self.error is None or 4 * self.error <= self.high - self.low:
            return self.low, self.high
        return max(self.value - 2 * self.error, 0.0), self.value + 2 * self.error

    def numbers(self) -> dict[str, Any]:
        """For ``metrics.json``."""
        return {
            "mean": self.value,
            "low": self.low,
            "high": self.high,
            "standard_error_over_seeds": self.error,
            "seed_low": self.seed_low,
            "seed_high": self.seed_high,
            "num_seeds": self.n,
        }


class States(NamedTuple):
    """Labelled states.

    Attributes:
      truth: int64 [N], numbers of classes.
      psi: float [N, L, L, L], signed.
      energies: float64 [N], or ``None``.
      disorder: float64 [N], W.
      size: L.
      relative_error: of the amplitudes; ``None``: their rounding.
    """

    truth: np.ndarray
    psi: np.ndarray
    energies: np.ndarray | None
    disorder: np.ndarray
    size: int
    relative_error: float | None = None


class Answers(NamedTuple):
    """What the seeds of one network, or one rung, say about the same states.

    Attributes:
      probability: float64 [S, N, C].
      said: int64 [S, N].
      right: bool [S, N].
      width: float64 [S, N], the W that it finds: of a network the mean over its probabilities.
      scores: by name of ``SCORES``.
      per_state: by name of ``SCORES``, float64 [S, N].
    """

    probability: np.ndarray
    said: np.ndarray
    right: np.ndarray
    width: np.ndarray
    scores: Mapping[str, Score]
    per_state: Mapping[str, np.ndarray]

    def confusion(self, truth: np.ndarray) -> np.ndarray:
        """Counts [C, C], mean over seeds; rows are true classes."""
        num = self.probability.shape[2]
        return np.mean([confusion_matrix(truth, s, num_classes=num) for s in self.said], axis=0)


class Problem(NamedTuple):
    """One set of test states, and the ladder on it.

    Attributes:
      states: the test states.
      widths: float64 [C], W of every class.
      fitted: training states as the rungs need them; ``None`` without.
      num_fitted: how many they are.
      rungs: answers of every rung by name.
      chance: score by name of an answer that does not look: equal probabilities, the middle class, the mean W.
    """

    states: States
    widths: np.ndarray
    fitted: ladder.Fitted | None
    num_fitted: int
    rungs: Mapping[str, Answers]
    chance: Mapping[str, float]

    def title(self) -> str:
        """Size and classes in words."""
        return f"L = {self.states.size}, {class_text(self.widths)}"


class Probe(NamedTuple):
    """Answers on the test states after a change.

    Attributes:
      answers: of the network.
      rungs: of every rung.
      same: share of states whose answer is that of the unchanged state, mean over seeds; ``None`` where states could
        not be paired.
      n: number of states.
    """

    answers: Answers
    rungs: Mapping[str, Answers]
    same: float | None
    n: int


class Network(NamedTuple):
    """One network, all its seeds.

    Attributes:
      title: what it is and what it sees; of one title are networks of the same kind at several sizes.
      view: batch key of its input.
      pixels: side of the picture that it sees, ``None`` for volumes.
      runs: its seeds.
      problem: number of its problem.
      answers: on the test states.
      probes: by name.
    """

    title: str
    view: str
    pixels: int | None
    runs: Sequence[Run]
    problem: int
    answers: Answers
    probes: Mapping[str, Probe]


class Reader(NamedTuple):
    """How to read runs.

    Attributes:
      label: batch key of the class.
      num_resamples: bootstrap samples.
    """

    label: str
    num_resamples: int


def read(runs: Sequence[Run], reader: Reader) -> tuple[list[Network], list[Problem]]:
    """Networks in the order of their first run, and the problems that they were asked.

    Raises:
      ValueError: if something is missing, of another shape, or not finite; the message names the run.
    """
    models = seeds.by_model(runs)
    problems: list[Problem] = []
    networks: list[Network] = []
    cache: list[tuple[States, int, Mapping[str, Answers]]] = []
    for name, members in models.items():
        first = members[0]
        stored = (first.config.get("data", {}).get("kwargs") or {}).get("precision")
        states = states_of(f"run {name}", first.examples, label=reader.label)
        states = states._replace(relative_error=ladder.STORED_ERROR.get(stored))
        for member in members[1:]:
            other = states_of(f"run {name}", member.examples, label=reader.label)
            if not same_states(states, other):
                raise ValueError(f"run {name}: its members were evaluated on different states")
        probability = [probabilities(name, m.predictions, len(states.truth)) for m in members]
        num = probability[0].shape[1]
        if states.truth.max() >= num:
            raise ValueError(
                f"run {name}: {reader.label!r} reaches {states.truth.max()}, predictions have {num} classes"
            )
        widths = class_widths(name, states, [m.reference for m in members], num, label=reader.label)
        number = next(
            (
                i
                for i, p in enumerate(problems)
                if len(p.widths) == num and np.allclose(p.widths, widths) and same_states(p.states, states)
            ),
            None,
        )
        if number is None:
            number = len(problems)
            same_size = [
                r for r in runs if np.shape(r.reference.get("state", ()))[1:] == np.shape(first.examples["state"])[1:]
            ]
            own = [r for r in same_size if r.name == name] or same_size
            problems.append(_problem(states, widths, own, reader))
        problem = problems[number]
        answered = answers(np.array(probability), problem.states.truth, problem.widths, reader=reader)
        probes = {
            probe: _probe(name, probe, members, problem, number, answered, reader, cache)
            for probe in dict.fromkeys(p for m in members for p in m.probes)
        }
        title, view, pixels = describe(first)
        networks.append(Network(title, view, pixels, members, number, answered, probes))
    return _distinct(networks, problems), problems


def states_of(name: str, examples: Mapping[str, np.ndarray], *, label: str) -> States:
    """Reads labelled states.

    Raises:
      ValueError: if the states, their W or class are missing or of another form.
    """
    for key in ("state", "disorder", label):
        if key not in examples:
            raise ValueError(f"{name}: examples lack {key!r}; they hold: {', '.join(sorted(examples)) or 'nothing'}")
    truth, psi = np.asarray(examples[label]), np.asarray(examples["state"])
    disorder = np.asarray(examples["disorder"], np.float64)
    if truth.ndim != 1 or not len(truth) or not np.issubdtype(truth.dtype, np.integer) or truth.min() < 0:
        raise ValueError(f"{name}: expected {label!r} to hold classes [N] from 0, got {truth.dtype} {truth.shape}")
    if psi.ndim != 5 or len(psi) != len(truth) or psi.shape[4] != 1 or len(set(psi.shape[1:4])) != 1:
        raise ValueError(f"{name}: expected 'state' [{len(truth)}, L, L, L, 1], got shape {psi.shape}")
    if not np.isfinite(psi).all():
        raise ValueError(f"{name}: 'state' holds amplitudes that are not finite")
    if disorder.shape != truth.shape or not np.isfinite(disorder).all():
        raise ValueError(f"{name}: expected finite 'disorder' [{len(truth)}], got shape {disorder.shape}")
    energies = np.asarray(examples["energy"], np.float64) if "energy" in examples else None
    if energies is not None and (energies.shape != truth.shape or not np.isfinite(energies).all()):
        raise ValueError(f"{name}: expected finite 'energy' [{len(truth)}], got shape {energies.shape}")
    return States(truth.astype(np.int64), psi[..., 0], energies, disorder, psi.shape[1])


def probabilities(name: str, predictions: Mapping[str, np.ndarray], length: int) -> np.ndarray:
    """Probabilities float64 [N, C] of one run.

    Raises:
      ValueError: if there are none, or they are of another form or not finite.
    """
    if "probabilities" in predictions:
        found = np.asarray(predictions["probabilities"], np.float64)
    elif "logits" in predictions:
        found = probabilities_from_logits(predictions["logits"])
    else:
        held = ", ".join(sorted(predictions)) or "nothing"
        raise ValueError(f"run {name}: predictions lack 'probabilities' and 'logits'; they hold: {held}")
    if found.ndim != 2 or len(found) != length or found.shape[1] < 2:
        raise ValueError(f"run {name}: expected predictions [{length}, C], got shape {found.shape}")
    bad = np.flatnonzero(~np.isfinite(found).all(1))
    if len(bad):
        raise ValueError(
            f"run {name}: predictions of {len(bad)} of {length} states are not finite, the first is state {bad[0]};"
            " the training diverged"
        )
    return found


def class_widths(
    name: str, states: States, references: Sequence[Mapping[str, np.ndarray]], num: int, *, label: str
) -> np.ndarray:
    """W of every class, float64 [C], from the states that have it.

    Raises:
      ValueError: if a class has no state anywhere, or states of different W.
    """
    labels, values = [states.truth], [states.disorder]
    for reference in references[:1]:
        if label in reference and "disorder" in reference:
            labels.append(np.asarray(reference[label], np.int64))
            values.append(np.asarray(reference["disorder"], np.float64))
    every, disorder = np.concatenate(labels), np.concatenate(values)
    widths = np.full(num, np.nan)
    for c in range(num):
        held = disorder[every == c]
        if not len(held):
            raise ValueError(f"run {name}: no test or training state has class {c}, so its W is unknown")
        if np.ptp(held) > 1e-4:
            raise ValueError(f"run {name}: class {c} holds W from {held.min():g} to {held.max():g}, expected one W")
        widths[c] = held[0].round(5)
    return widths


def answers(probability: np.ndarray, truth: np.ndarray, widths: np.ndarray, *, reader: Reader, width=None) -> Answers:
    """Scores of probabilities [S, N, C].

    Args:
      probability: of every seed.
      truth: int [N].
      widths: [C].
      reader: number of bootstrap samples.
      width: [S, N], W that is found; by default the mean over the probabilities.
    """
    said = probability.argmax(2)
    width = probability @ widths if width is None else width
    likely = np.take_along_axis(probability, np.broadcast_to(truth, said.shape)[..., None], 2)[..., 0]
    right = said == truth
    per_state = {
        "accuracy": right.astype(np.float64),
        "loss": -np.log(np.clip(likely, _LEAST, 1)),
        "adjacent": (np.abs(said - truth) <= 1).astype(np.float64),
        # An estimate beyond the range of W counts as its end, as every answer in classes does.
        "error": np.abs(np.clip(width, widths.min(), widths.max()) - widths[truth]),
    }
    means = np.stack([v.mean(0) for v in per_state.values()])
    intervals = mean_intervals(means, num_resamples=reader.num_resamples)
    scores = {k: _score(v, interval) for (k, v), interval in zip(per_state.items(), intervals, strict=True)}
    return Answers(probability, said, right, width, scores, per_state)


def of_rungs(states: States, widths: np.ndarray, fitted: ladder.Fitted | None, *, reader: Reader) -> dict[str, Answers]:
    """Every rung on some states."""
    found = ladder.answers(
        states.psi, widths, energies=states.energies, fitted=fitted, relative_error=states.relative_error
    )
    return {
        name: answers(r.probability[None], states.truth, widths, reader=reader, width=np.nan_to_num(r.width)[None])
        for name, r in found.items()
    }


def same_states(first: States, second: States) -> bool:
    """Are these the same states with the same labels?"""
    return (
        first.psi.shape == second.psi.shape
        and np.array_equal(first.truth, second.truth)
        and np.array_equal(first.disorder, second.disorder)
        and np.array_equal(first.psi, second.psi)
    )


def describe(run: Run) -> tuple[str, str, int | None]:
    """What a run trained, as its config says: title, view, pixels."""
    model = run.config.get("model", {})
    view = run.config.get("task", {}).get("kwargs", {}).get("inputs") or ""
    name = str(model.get("name") or run.name).rsplit(".", 1)[-1]
    kwargs = model.get("kwargs") or {}
    texts = {"resnet": "ResNet", "vit": "ViT"}
    title = texts.get(name, name.replace("_", " "))
    if isinstance(kwargs.get("depth"), int):
        title = f"{title}-{kwargs['depth']}"
    shape = np.shape(run.examples.get(view, ()))
    pixels = int(shape[1]) if view == "rgba" and len(shape) == 4 else None
    if view:
        title += f" on {VIEWS.get(view, view)}"
    return title, view, pixels


def class_text(widths: np.ndarray) -> str:
    """The classes in words."""
    if len(widths) > 5:
        return f"{len(widths)} values of W from {widths.min():g} to {widths.max():g}"
    return "W = " + " or ".join(f"{w:g}" for w in widths)


def _problem(states: States, widths: np.ndarray, runs: Sequence[Run], reader: Reader) -> Problem:
    fitted, used = None, 0
    usable = [r for r in runs if {"state", "disorder", reader.label} <= set(r.reference)]
    if usable:
        best = max(usable, key=lambda r: len(r.reference["state"]))
        held = states_of(f"run {best.name}, reference", best.reference, label=reader.label)
        labels = _by_width(held.disorder, widths)
        known = labels >= 0
        if len(np.unique(labels[known])) >= 2:
            fitted = ladder.fit(held.psi[known], labels[known])
            used = len(fitted.labels)
    rungs = of_rungs(states, widths, fitted, reader=reader)
    num, w = len(widths), widths[states.truth]
    middle = min(range(num), key=lambda c: (-np.mean(np.abs(states.truth - c) <= 1), abs(c - (num - 1) / 2)))
    chance = {
        "accuracy": 1 / num,
        "loss": float(np.log(num)),
        "adjacent": float(np.mean(np.abs(states.truth - middle) <= 1)),
        "error": float(np.abs(w - w.mean()).mean()),
    }
    return Problem(states, widths, fitted, used, rungs, chance)


def _probe(name, probe, members, problem: Problem, number, clean: Answers, reader, cache) -> Probe:
    """Answers of one network and of the rungs on one probe; rungs on states seen before are not computed again."""
    held = [m.probes[probe] for m in members if probe in m.probes]
    text = f"run {name}, probe {probe}"
    states = states_of(text, held[0].examples, label=reader.label)
    states = states._replace(relative_error=problem.states.relative_error)
    if states.size != problem.states.size or states.truth.max() >= len(problem.widths):
        raise ValueError(f"{text}: expected states of L = {problem.states.size} and {len(problem.widths)} classes")
    for other in held[1:]:
        if not same_states(states, states_of(text, other.examples, label=reader.label)):
            raise ValueError(f"{text}: its members were asked about different states")
    found = [probabilities(text.removeprefix("run "), p.predictions, len(states.truth)) for p in held]
    if found[0].shape[1] != len(problem.widths):
        raise ValueError(f"{text}: expected {len(problem.widths)} classes, got {found[0].shape[1]}")
    answered = answers(np.array(found), states.truth, problem.widths, reader=reader)
    rungs = next((r for s, i, r in cache if i == number and same_states(s, states)), None)
    if rungs is None:
        rungs = of_rungs(states, problem.widths, problem.fitted, reader=reader)
        cache.append((states, number, rungs))
    rows = _pairs(states, problem.states)
    same = None
    if rows is not None and len(held) == len(members):
        same = float(np.mean(answered.said == clean.said[:, rows]))
    return Probe(answered, rungs, same, len(states.truth))


def _pairs(changed: States, original: States) -> np.ndarray | None:
    """Which original every changed state comes from: the one of the same W and energy; ``None`` if that is unclear."""
    if changed.energies is None or original.energies is None:
        return None
    numbers = {k: i for i, k in enumerate(zip(original.disorder, original.energies, strict=True))}
    found = [numbers.get(k, -1) for k in zip(changed.disorder, changed.energies, strict=True)]
    return np.array(found) if len(numbers) == len(original.truth) and min(found) >= 0 else None


def _score(per_state: np.ndarray, interval: np.ndarray) -> Score:
    by_seed = per_state.mean(1)
    mean = seeds.mean(by_seed)
    low, high = (float(x) for x in interval)
    if low == high and set(np.unique(per_state)) <= {0.0, 1.0}:
        # All states alike: resampling them shows nothing.
        low, high = wilson_interval(round(mean.value * per_state.shape[1]), per_state.shape[1])
    half = None if mean.error is None else float(scipy.stats.t.ppf(0.975, mean.n - 1) * mean.error)
    ends = (None, None) if half is None else (mean.value - half, mean.value + half)
    return Score(mean.value, low, high, mean.error, *ends, mean.n)


def _by_width(disorder: np.ndarray, widths: np.ndarray) -> np.ndarray:
    """Classes of states by their W, -1 for a W that is no class."""
    gap = np.abs(disorder[:, None] - widths[None, :])
    return np.where(gap.min(1) < 1e-4, gap.argmin(1), -1)


def _distinct(networks: list[Network], problems: Sequence[Problem]) -> list[Network]:
    """Titles that tell networks of one size and its classes apart: by their pixels where these differ, else by the
    run's name.
    """

    def place(n: Network):
        p = problems[n.problem]
        return n.title, p.states.size, tuple(p.widths.tolist())

    found = []
    for n in networks:
        twins = [m for m in networks if place(m) == place(n)]
        title = n.title
        if len({m.pixels for m in twins}) > 1 and n.pixels:
            title += f", {n.pixels} px"
        if sum(m.pixels == n.pixels for m in twins) > 1:
            title += f" [{n.runs[0].name}]"
        found.append(n._replace(title=title))
    return found
