"""Figures of the report on diffraction patterns."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from physml_jax.analysis import calibration
from physml_jax.analysis.classification_intervals import Interval
from physml_jax.reports import saed_answers as asked
from physml_jax.reports import seeds
from physml_jax.reports.saed_answers import Network
from physml_jax.viz import confusion as matrices
from physml_jax.viz import curves, patterns

Figure = tuple[Any, str]


def violins(networks: Sequence[Network], majority: Mapping[str, float]) -> Figure:
    """Fig. 2 of the paper: accuracy and weighted F1 of all trainings."""
    panels = {"accuracy": "accuracy", "weighted F1": "weighted_f1"}
    shown = {
        "accuracy": {n.title: (n.published.mean, n.published.best) for n in networks if n.published},
        "weighted F1": {n.title: (n.published.mean_f1, n.published.best_f1) for n in networks if n.published},
    }
    figure = patterns.violins(
        {name: {n.title: n.test.scores[key].by_seed for n in networks} for name, key in panels.items()},
        published=shown if asked.is_simulated(networks[0]) else None,
        baselines={name: majority[key] for name, key in panels.items()},
    )
    return figure, (
        "Every training of every model, as in Fig. 2 of the paper. Published values are of other, experimental images:"
        " they say how hard those were, not who is better."
    )


def confusion(n: Network) -> Figure:
    """The matrix of one model."""
    found = n.test.matrices
    errors = seeds.standard_error(found) if len(found) > 1 else None
    names = asked.names_of(n)
    over = f" Mean over {len(found)} trainings ± its standard error." if len(found) > 1 else ""
    text = f"Confusion matrix of {n.title}; intervals of its diagonal are in the table of classes.{over}"
    return matrices.confusion(found.mean(0) if len(found) > 1 else found[0], names=names, errors=errors), text


def certainty(n: Network) -> Figure | None:
    """Reliability and sizes of sets."""
    c = n.certainty
    if c is None:
        return None
    inside = c.sets[np.arange(len(c.sets)), n.test.truth]
    pair = {"as trained": c.curves[0], f"T = {c.temperature.mean():.2f}": c.curves[1]}
    return patterns.reliability(pair, c.sets.sum(1), sizes_by=inside), (
        f"{n.title}. Left: how often it is right when it is so sure, before and after the temperature; ten groups of"
        " equally many answers. Right: phases in the set-valued answer of the first training."
    )


def scales(networks: Sequence[Network]) -> Figure | None:
    """Balanced accuracy over the uncertainty of the scale."""
    lines = {n.title: {x: a.scores["balanced_accuracy"] for x, a in asked.scale_errors(n)} for n in networks}
    lines = {k: v for k, v in lines.items() if v}
    settings = sorted({x for line in lines.values() for x in line})
    if len(settings) < 2:
        return None
    drawn = {name: _curve({settings.index(x): v for x, v in line.items()}) for name, line in lines.items()}
    figure = patterns.scores_over(
        drawn,
        xlabel="the scale is known to ± %",
        ylabel="balanced accuracy",
        labels=[f"{100 * x:g}" for x in settings],
        floor=1 / networks[0].test.logits.shape[2],
    )
    return figure, (
        "Balanced accuracy when the true scale is uniform within so much of the believed one; bars are 95 % intervals"
        " over patterns and trainings. Dashed: an answer at random."
    )


def levels(networks: Sequence[Network]) -> Figure | None:
    """Balanced accuracy by level of difficulty."""
    lines = {n.title: dict(asked.levels(n)) for n in networks}
    order = [x for x in ("clean", "detector", "distorted", "dynamical") if any(x in line for line in lines.values())]
    if len(order) < 2:
        return None
    drawn = {
        name: _curve({order.index(x): a.scores["balanced_accuracy"] for x, a in line.items()})
        for name, line in lines.items()
        if line
    }
    own = networks[0].runs[0].config["data"]["kwargs"].get("level")
    figure = patterns.scores_over(
        drawn,
        xlabel="level of difficulty",
        ylabel="balanced accuracy",
        labels=order,
        floor=1 / networks[0].test.logits.shape[2],
    )
    return figure, f"Balanced accuracy on images of other levels than that of the training ({own}); 95 % intervals."


def examples(n: Network) -> Figure | None:
    """Patterns that it is most wrong about, and one of every class that it is right about."""
    images = n.runs[0].examples.get("image")
    if images is None or np.ndim(images) != 4:
        return None
    names = asked.names_of(n)
    p = np.exp(calibration.log_softmax(n.test.logits[0]))
    said, truth = p.argmax(1), n.test.truth
    wrong = np.flatnonzero(said != truth)
    wrong = wrong[np.argsort(-p[wrong, said[wrong]], kind="stable")][:8]
    right = [np.flatnonzero((truth == c) & (said == c))[:1] for c in range(len(names))]
    chosen = np.concatenate([*right, wrong])[:16].astype(int)
    titles = [
        f"{names[truth[i]]}, right ({p[i, said[i]]:.2f})"
        if said[i] == truth[i]
        else f"{names[truth[i]]}\nanswer: {names[said[i]]} ({p[i, said[i]]:.2f})"
        for i in chosen
    ]
    scale = n.runs[0].examples.get("scale")
    pixels = np.shape(images)[1]
    half = None if scale is None else np.asarray(scale)[chosen] * pixels / 2
    return patterns.gallery(np.asarray(images)[chosen][..., 0], titles, half_widths=half), (
        f"{n.title}: a right answer of every class, then the wrong answers it is surest of, with their probability."
    )


def training(n: Network) -> Figure | None:
    """Loss and accuracy over the steps."""
    history = n.runs[0].history
    if not any(set(row) - {"step", "time_s"} for row in history):
        return None
    return curves.training_curves(history), f"{n.title}: training and validation over the steps."


def _curve(points: Mapping[int, Interval]) -> patterns.Curve:
    order = sorted(points)
    of = [[getattr(points[x], field) for x in order] for field in ("value", "low", "high")]
    return patterns.Curve(np.array(order, np.float64), *map(np.array, of))
