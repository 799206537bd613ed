"""Figures of the percolation reports: curves over the density, lattices, failures, the flood of a looped network."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from physml_jax.analysis import percolation
from physml_jax.reports import percolation_published as published
from physml_jax.reports import seeds
from physml_jax.reports.percolation_answers import Answers, States
from physml_jax.typing import Run
from physml_jax.viz import confusion, lattices, transitions
from physml_jax.viz.transitions import Band

_XLABEL = "density $p$"
_MARKS = {"$p_c$": published.CRITICAL_DENSITY}


def accuracy(models: Mapping[str, Answers], oracle: Answers, first: States) -> tuple[Any, str]:
    """Accuracy over the density, of models and of what the density allows."""
    codes = first.levels.codes
    curves = {"density-only oracle": Band(percolation.shares(oracle.right[0], codes).share, reference=True)}
    for name, found in models.items():
        curves[name] = _over_seeds(found.right, codes)
    figure = transitions.bands(
        first.levels.density, curves, xlabel=_XLABEL, ylabel="accuracy", limits=focus(first), marks=_marks(first)
    )
    return figure, (
        f"Accuracy over the density, L = {first.size}. {_band_text(models)} The black line is the best that a "
        f"predictor can do that sees only the density.{_outside(first)}"
    )


def spanning_probability(first: States) -> tuple[Any, str]:
    """P and Q of the true labels with binomial intervals."""
    found = percolation.shares(first.truth, first.levels.codes)
    curves = {
        "P: a spanning cluster": Band(found.share, found.low, found.high),
        "Q = 1 − P: none": Band(1 - found.share, 1 - found.high, 1 - found.low),
    }
    figure = transitions.bands(
        first.levels.density,
        curves,
        xlabel=_XLABEL,
        ylabel="share of states",
        limits=focus(first),
        marks=_marks(first),
        ylim=(-0.03, 1.03),
    )
    return figure, (
        f"Shares of states with and without a spanning cluster, L = {first.size}, {len(first.truth)} states, with "
        "95 % intervals (Wilson). Compare Fig. 1(b) of the paper."
    )


def answered(models: Mapping[str, Answers], first: States, names: Sequence[str]) -> tuple[Any, str]:
    """What every model answers over the density, beside the truth: the second half of the paper's Fig. 2."""
    codes = first.levels.codes
    truth = percolation.shares(first.truth, codes).share
    groups = {}
    for name, found in models.items():
        groups[name] = {
            f"truly {names[1]}": Band(truth, reference=True),
            f"truly {names[0]}": Band(1 - truth, reference=True),
            f"answered {names[1]}": _over_seeds(found.said == 1, codes),
            f"answered {names[0]}": _over_seeds(found.said == 0, codes),
            "answered wrongly": _over_seeds(~found.right, codes),
        }
    figure = transitions.panels(
        first.levels.density,
        groups,
        xlabel=_XLABEL,
        ylabel="share of states",
        limits=focus(first),
        marks=_marks(first),
    )
    return figure, (
        f"Answers over the density. {_band_text(models)} A network that reads the density answers one class below and "
        "the other above a threshold, a step where the truth is smooth, and is wrong on every state of the minority."
        f"{_outside(first)}"
    )


def confusions(models: Mapping[str, Answers], first: States, names: Sequence[str], *, beside: bool) -> tuple[Any, str]:
    """Confusion matrices of all models and, where the test set is the published one, the published matrix."""
    found = {name: a.confusion(first.truth) for name, a in models.items()}
    matrices = {name: m for name, (m, _) in found.items()}
    text = "Confusion matrices with row sums"
    if beside:
        matrices["published ResNet18"] = np.array(published.CONFUSION)
        text += f", the published one per {published.NUM_TEST:,} states"
    figure = confusion.confusions(matrices, names=names, errors={name: e for name, (_, e) in found.items()})
    return figure, f"{text}; counts are means over seeds, ± standard error, percentages shares of the true class."


def clusters(first: States, *, direction: str) -> tuple[Any, str] | None:
    """Three lattices: far below the transition, at it with a spanning cluster, and far above."""
    share = percolation.shares(first.truth, first.levels.codes).share
    middle = int(np.argmin(np.abs(share - 0.5)))
    spread = np.abs(first.levels.density - first.levels.density[middle])
    below = [i for i in np.flatnonzero(share < 0.02) if spread[i] >= 0.04]
    above = [i for i in np.flatnonzero(share > 0.98) if spread[i] >= 0.04]
    wanted = [(below[-1], 0)] if below else []
    wanted += [(middle, 1)]
    wanted += [(above[0], 1)] if above else []
    picked = []
    for level, label in wanted:
        rows = np.flatnonzero((first.levels.codes == level) & (first.truth == label))
        if len(rows):
            picked.append(int(rows[0]))
    if not picked:
        return None
    labels = percolation.cluster_labels(_occupied(first, picked))
    figure = lattices.clusters(
        labels,
        percolation.spanning_labels(labels, direction=direction),
        titles=[f"$p$ = {first.density[i]:.3f}" for i in picked],
    )
    return figure, f"Clusters of test states, L = {first.size}; a cluster that joins two opposite edges is orange."


def failures(
    name: str, model: Answers, first: States, names: Sequence[str], *, most: int, direction: str
) -> tuple[Any, str] | None:
    """States that a model gets wrong with the most confidence, half of each kind where there are both."""
    wrong = np.flatnonzero(~model.right[0])
    if not len(wrong) or most < 1:
        return None
    sure = np.ones(len(first.truth)) if model.probability is None else np.abs(model.probability[0] - 0.5)
    ranked = wrong[np.argsort(-sure[wrong], kind="stable")]
    sides = [[int(i) for i in ranked if first.truth[i] == label] for label in (1, 0)]
    half = max(most // 2, most - len(sides[1]))
    picked = sides[0][:half]
    picked += sides[1][: most - len(picked)]
    labels = percolation.cluster_labels(_occupied(first, picked))

    def title(i):
        share = "" if model.probability is None else f" ({model.probability[0, i]:.2f})"
        return f"$p$ = {first.density[i]:.3f}, {names[first.truth[i]]}\nanswer: {names[model.said[0, i]]}{share}"

    figure = lattices.clusters(
        labels, percolation.spanning_labels(labels, direction=direction), titles=[title(i) for i in picked]
    )
    return figure, (
        f"States that {name} (first seed) gets wrong with the most confidence; in brackets the probability that it "
        f"gives to {names[1]!r}. A spanning cluster is orange."
    )


def flood(models: Mapping[str, Sequence[Run]], answers: Mapping[str, Answers], first: States) -> Any | None:
    """The flood of the first model that reports when it marked each site; its hardest states near the transition."""
    for name, members in models.items():
        arrival = members[0].predictions.get("arrival")
        if arrival is None or np.shape(arrival)[:3] != first.images.shape[:3]:
            continue
        arrival = np.asarray(arrival, np.float64).reshape(first.images.shape[:3])
        latest = arrival.max(axis=(1, 2))
        picked = [
            int(rows[np.argmax(latest[rows])])
            for label in (1, 0)
            if len(rows := np.flatnonzero((first.truth == label) & np.isfinite(latest)))
        ]
        occupied = _occupied(first, picked)
        figure = lattices.flood(
            occupied,
            percolation.joined_to_top(occupied),
            arrival[picked],
            titles=[
                f"$p$ = {first.density[i]:.3f}, {'spans' if first.truth[i] else 'does not span'}\n"
                f"answer: {'spans' if answers[name].said[0, i] else 'does not span'}"
                for i in picked
            ],
        )
        return figure, (
            f"How {name} (first seed) floods the lattice from the top row: the two test states that take it longest, "
            "one that spans and one that does not. An answer on either direction also looks at the transposed lattice."
        )
    return None


def focus(first: States) -> tuple[float, float] | None:
    """The densities around the transition: where not all states agree, and two levels to each side."""
    share = percolation.shares(first.truth, first.levels.codes).share
    mixed = np.flatnonzero((share > 0) & (share < 1))
    x = first.levels.density
    if not len(mixed) or len(x) < 6:
        return None
    ends = x[max(mixed[0] - 2, 0)], x[min(mixed[-1] + 2, len(x) - 1)]
    # A neighbouring density may lie far away from the transition.
    middle, reach = x[mixed].mean(), max(np.ptp(x[mixed]), 0.02)
    return float(max(ends[0], middle - reach)), float(min(ends[1], middle + reach))


def _over_seeds(outcome: np.ndarray, codes: np.ndarray) -> Band:
    """Mean over the seeds of a share by level, with its 95 % interval; without one where there is one seed."""
    by_seed = np.array([percolation.shares(o, codes).share for o in outcome])
    centre, error = by_seed.mean(axis=0), seeds.standard_error(by_seed)
    if error is None:
        return Band(centre)
    return Band(centre, np.clip(centre - 2 * error, 0, 1), np.clip(centre + 2 * error, 0, 1))


def _band_text(models: Mapping[str, Answers]) -> str:
    counts = {len(a.said) for a in models.values()}
    if counts == {1}:
        return "One seed, no interval."
    return f"Bands: two standard errors of the mean over {', '.join(str(c) for c in sorted(counts - {1}))} seeds."


def _outside(first: States) -> str:
    limits = focus(first)
    shown = limits is not None and (first.levels.density < limits[0]).any()
    return " Densities further away, where all states agree, are left out." if shown else ""


def _marks(first: States) -> Mapping[str, float]:
    limits = focus(first)
    low, high = (first.levels.density.min(), first.levels.density.max()) if limits is None else limits
    return _MARKS if low < published.CRITICAL_DENSITY < high else {}


def _occupied(first: States, rows: Sequence[int]) -> np.ndarray:
    return first.images[list(rows), :, :, 0] > 0.5
