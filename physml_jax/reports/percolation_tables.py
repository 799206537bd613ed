"""Tables of the percolation reports: scores beside baselines, confusion beside the published one, errors, probes."""

from collections.abc import Mapping, Sequence

import numpy as np

from physml_jax.analysis import classification, percolation
from physml_jax.reports import percolation_published as published
from physml_jax.reports import seeds
from physml_jax.reports.percolation_answers import Answers, Fitted, States, answers, explained, states
from physml_jax.typing import Run, Table


def scores(models: Mapping[str, Answers], compared: Mapping[str, Answers], first: States, *, beside: bool) -> Table:
    """Accuracy of every model and baseline; ``beside`` adds the published row."""
    rows = []
    oracle = compared["density-only oracle"]
    everyone = [*models.items(), *((f"baseline: {k}", v) for k, v in compared.items())]
    for name, found in everyone:
        accuracy, loss = found.accuracy(), found.log_loss(first.truth)
        low, high = classification.wilson_interval(round(accuracy.value * len(first.truth)), len(first.truth))
        share = explained(found, oracle)[0] if name in models else None
        rows.append(
            [
                name,
                accuracy.n if name in models else None,
                accuracy.value,
                accuracy.error,
                f"{low:.4f} to {high:.4f}",
                None if loss is None else loss.value,
                None if share is None else share.value,
            ]
        )
    if beside:
        rows.append(["published: ResNet18, test split", 10, published.TEST_ACCURACY, None, None, None, None])
        rows.append(
            [
                "published: ResNet18, validation split",
                10,
                published.VALIDATION_ACCURACY,
                None,
                None,
                published.VALIDATION_LOSS,
                None,
            ]
        )
    columns = (
        "method",
        "seeds",
        "accuracy",
        "standard error over seeds",
        "95 % interval from the test set (Wilson)",
        "log loss",
        "errors that the oracle makes too",
    )
    caption = (
        f"Scores on {len(first.truth)} held-out states of L = {first.size}. The density-only oracle gives at every "
        "density the more frequent answer of the test set itself: nothing that sees only the density does better. "
        "The last column is the share of a model's errors that the density explains."
    )
    return Table(caption, columns, rows)


def confusion(models: Mapping[str, Answers], first: States, names: Sequence[str], *, beside: bool) -> Table:
    """Confusion as counts with row sums and as shares of all states, the published one beside it where it applies."""
    rows = []
    found = {name: a.confusion(first.truth) for name, a in models.items()}
    if beside:
        found["published: ResNet18"] = (np.array(published.CONFUSION), None)
    for name, (matrix, error) in found.items():
        for i in range(2):
            cells = [f"{matrix[i, j]:.1f}" + ("" if error is None else f" ± {error[i, j]:.1f}") for j in range(2)]
            shares = [float(matrix[i, j] / matrix.sum()) for j in range(2)]
            rows.append([name, names[i], *cells, f"{matrix[i].sum():.1f}", *shares])
    columns = (
        "method",
        "true class",
        *(f"answered {n}" for n in names),
        "row sum",
        *(f"share of all states, answered {n}" for n in names),
    )
    return Table(
        "Confusion: counts, mean and standard error over seeds; shares compare sets of any size.", columns, rows
    )


def misclassified(name: str, model: Answers, oracle: Answers, first: States, names: Sequence[str], most: int) -> Table:
    """The first states that the first seed of a model gets wrong."""
    wrong = np.flatnonzero(~model.right[0])
    rows = [
        [
            int(first.index[i]),
            float(first.density[i]),
            names[first.truth[i]],
            names[model.said[0, i]],
            None if model.probability is None else float(model.probability[0, i]),
            "also wrong" if not oracle.right[0, i] else "right",
        ]
        for i in wrong[:most]
    ]
    columns = ("example", "density", "true", "answered", f"probability of {names[1]}", "density-only oracle")
    caption = f"States that {name} (first seed) gets wrong: {len(rows)} of {len(wrong)} among {len(first.truth)}."
    return Table(caption, columns, rows)


def probes(
    models: Mapping[str, Sequence[Run]], fitted: Fitted, *, label: str, density: str
) -> tuple[Table, dict[str, dict]] | None:
    """Accuracy on every extra set, by model; also as numbers. ``None`` where there is no probe."""
    names = list(dict.fromkeys(p for members in models.values() for r in members for p in r.probes))
    if not names:
        return None
    rows, numbers = [], {}
    for probe in names:
        holders = {m: [r for r in members if probe in r.probes] for m, members in models.items()}
        run = next(r for members in holders.values() for r in members)
        found = states(f"probe {probe}", run.probes[probe].examples, label=label, density=density)
        rule = percolation.threshold_answers(fitted.density, fitted.truth, found.density)
        blind = float(np.mean(rule == found.truth))
        share = float(found.truth.mean())
        numbers[probe] = {
            "n": len(found.truth),
            "size": found.size,
            "share_spanning": share,
            "threshold_on_density": blind,
            "models": {},
        }
        cells = []
        for model, members in holders.items():
            if not members:
                cells.append(None)
                continue
            for member in members:
                held = member.probes[probe].examples.get(label)
                if held is None or not np.array_equal(held, found.truth):
                    raise ValueError(f"probe {probe}: {model} was asked about other states than the first model")
            accuracy = answers(model, [m.probes[probe].predictions for m in members], found.truth).accuracy()
            numbers[probe]["models"][model] = accuracy.numbers()
            cells.append(accuracy.text())
        rows.append([probe, found.size, len(found.truth), share, *cells, blind, max(share, 1 - share)])
    columns = ("set", "L", "n", "share spanning", *models, "threshold on density", "one answer for all")
    text = "; ".join(f"{m}: {seeds.mean(np.zeros(len(r))).seeds()}" for m, r in models.items())
    caption = (
        "Accuracy on sets made to separate the cluster from the density, mean ± standard error over seeds "
        f"({text}). The threshold is that of the scores above; on pivotal pairs, which have equal density and opposite "
        "labels, no rule of the density can differ from 0.5. The last column is what constant silence is worth."
    )
    return Table(caption, columns, rows), numbers
