"""Tables of the report on diffraction patterns."""

from collections.abc import Mapping, Sequence

import numpy as np

from physml_jax.analysis import calibration
from physml_jax.analysis.classification import wilson_interval
from physml_jax.analysis.classification_intervals import Interval
from physml_jax.reports import saed_answers as asked
from physml_jax.reports import saed_published as published
from physml_jax.reports.saed_answers import Network
from physml_jax.typing import Table

_COLUMNS = ("accuracy", "weighted_f1", "macro_f1", "balanced_accuracy")


def scores(networks: Sequence[Network], baselines: Mapping[str, Mapping[str, Interval]]) -> Table:
    """Every model beside what needs no training."""
    rows = [[n.title, len(n.runs), *(text(n.test.scores[k]) for k in _COLUMNS)] for n in networks]
    rows += [[f"baseline: {name}", "", *(text(s[k]) for k in _COLUMNS)] for name, s in baselines.items()]
    number = len(networks[0].test.truth)
    caption = (
        f"Scores on {number} test images; in brackets the 95 % interval of the mean over trainings, from resampled"
        " images and trainings."
    )
    return Table(caption, ("method", "trainings", "accuracy", "weighted F1", "macro F1", "balanced accuracy"), rows)


def by_seed(networks: Sequence[Network]) -> Table | None:
    """Every training."""
    if all(len(n.runs) == 1 for n in networks):
        return None
    rows = []
    for n in networks:
        for i in range(len(n.runs)):
            right = int((n.test.logits[i].argmax(1) == n.test.truth).sum())
            low, high = wilson_interval(right, len(n.test.truth))
            values = [float(n.test.scores[k].by_seed[i]) for k in _COLUMNS]
            rows.append([n.title, i, values[0], f"{low:.3f} to {high:.3f}", *values[1:]])
    columns = ("model", "training", "accuracy", "95 % (Wilson)", "weighted F1", "macro F1", "balanced accuracy")
    return Table("Every training; intervals over the test images.", columns, rows)


def published_table(networks: Sequence[Network]) -> Table | None:
    """Table III of the paper, with our values beside it."""
    if not asked.is_simulated(networks[0]):
        return None
    ours: dict[str, Network] = {n.published.title + str(n.published.frozen): n for n in networks if n.published}
    rows = []
    for p in published.TABLE.values():
        n = ours.get(p.title + str(p.frozen))
        mine = ["", "", "", ""]
        if n is not None:
            accuracy, f1 = (n.test.scores[k].by_seed for k in ("accuracy", "weighted_f1"))
            mine = [float(accuracy.max()), float(accuracy.mean()), float(f1.max()), float(f1.mean())]
        rows.append([p.title, "yes" if p.frozen else "no", p.parameters, p.best, p.mean, p.best_f1, p.mean_f1, *mine])
    caption = (
        "Table III of Tomczak and Kuppannagari (HPEC 2023), ten trainings each, and this run. The images are NOT the"
        " same: theirs are experimental and private, ours a simulated twin with their numbers of each class. With 148"
        " test images an accuracy of 0.75 has a 95 % interval of ± 0.07, so the best published models cannot be told"
        f" apart; always answering the most frequent class gives {published.MAJORITY:.3f}. Not in the paper: from its"
        f" released answers, 299-AN has a mean balanced accuracy of {published.BALANCED_299AN:.3f} and a mean macro F1"
        f" of {published.MACRO_F1_299AN:.3f}. 'best' is the best training on the test images, which flatters."
    )
    columns = ("model", "frozen", "10⁶ parameters", "best", "mean", "best F1", "mean F1")
    return Table(caption, (*columns, *(f"here: {c}" for c in columns[3:])), rows)


def classes(n: Network) -> Table:
    """Recall and precision of every class with intervals."""
    names = asked.names_of(n)
    matrix = n.test.matrices.sum(0)
    trainings = len(n.runs)
    rows = []
    for c, name in enumerate(names):
        cells: list = [name, int(matrix[c].sum()) // trainings]
        for total in (matrix[c].sum(), matrix[:, c].sum()):
            if total == 0:
                cells += ["", ""]
                continue
            share = matrix[c, c] / total
            # As many independent images as there are, not as many as there are answers.
            images = max(1, round(total / trainings))
            low, high = wilson_interval(min(images, round(share * images)), images)
            cells += [float(share), f"{low:.2f} to {high:.2f}"]
        rows.append(cells)
    caption = f"{n.title}: share of a class that is found, and share of its answers that are right (Wilson intervals)."
    return Table(caption, ("class", "images", "found", "95 %", "right", "95 %"), rows)


def pairs(n: Network) -> Table | None:
    """Which classes are taken for each other."""
    names = asked.names_of(n)
    nine = names == published.NAMES
    rows = []
    for i, j, share in calibration.confused_pairs(n.test.matrices.sum(0))[:12]:
        why = next((text for group, text in published.GROUPS.items() if nine and {i, j} <= set(group)), "")
        rows.append([f"{names[i]} / {names[j]}", share, why])
    if not rows:
        return None
    return Table(f"{n.title}: pairs that are taken for each other.", ("pair", "mean share of the class", "why"), rows)


def certainties(networks: Sequence[Network], coverage: float) -> Table | None:
    """Calibration and sets."""
    rows = []
    for n in networks:
        if (c := n.certainty) is None:
            continue
        right = "" if c.single_right is None else c.single_right
        cells = [n.title, float(c.temperature.mean()), *c.loss, *c.error]
        rows.append([*cells, c.coverage, float(np.nanmin(c.by_class)), c.size, 1 - c.single, right])
    if not rows:
        return None
    caption = (
        f"Temperature and sets fitted on {networks[0].certainty.num_validation if networks[0].certainty else 0}"
        f" validation images, judged on the test images. Sets promise to hold the true phase in {coverage:.0%} of all"
        " images, not in that share of every class."
    )
    columns = ("model", "T", "log loss", "after", "calibration error", "after", "covered", "rarest class covered")
    return Table(caption, (*columns, "phases in a set", "cannot tell", "right where it can"), rows)


def zones(networks: Sequence[Network]) -> Table | None:
    """Zone axes, where networks were taught them."""
    rows = [
        [n.title, float(n.test.kind.mean()), float(n.test.both.mean()), float(asked.merged_accuracy(n.test).mean())]
        for n in networks
        if n.test.kind is not None
    ]
    if not rows:
        return None
    caption = "Zone axis by the second half of the output: among the families of the true phase, and together with it."
    return Table(caption, ("model", "zone, given the phase", "phase and zone", "phase, 0/6/7 as one"), rows)


def probes(networks: Sequence[Network]) -> Table | None:
    """Scores on the other sets of images."""
    rows = []
    for n in networks:
        for name, a in n.probes.items():
            zone = "" if a.kind is None else float(a.kind.mean())
            rows.append([n.title, name.replace("_", " "), len(a.truth), text(a.scores["accuracy"]),
                         text(a.scores["balanced_accuracy"]), zone])  # fmt: skip
    if not rows:
        return None
    columns = ("model", "images", "number", "accuracy", "balanced accuracy", "zone, given the phase")
    return Table("Other sets of images.", columns, rows)


def text(s: Interval) -> str:
    """A score with its interval."""
    return f"{s.value:.3f} ({s.low:.3f} to {s.high:.3f})"
