"""Figures of the Anderson report: states, ladder, confusion, training, probes, accuracy by W."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from physml_jax.analysis import anderson_pictures
from physml_jax.reports import anderson_published as published
from physml_jax.reports import seeds
from physml_jax.reports.anderson_answers import SCORES, Network, Problem, Score
from physml_jax.reports.anderson_numbers import Change, by_class
from physml_jax.viz import ladder, states
from physml_jax.viz.ladder import Value

#: Of the pictures of states: their side, and the empty border that large cubes reach into.
PIXELS, _MARGIN = 400, 0.1
_MOST_MATRICES = 9
#: Probes as an axis calls them.
_PROBES = {
    "shuffle": "sites\nshuffled",
    "blocks": "2³ blocks\nshuffled",
    "within_blocks": "shuffled\nin 2³ blocks",
    "signs": "random\nsigns",
    "quantise": "8 bits",
    "threshold": "outline\nonly",
}


def examples(problem: Problem, networks: Sequence[Network]) -> tuple[Any, str]:
    """An extended, a critical and a localised state: the paper's Fig. 3."""
    picked = pick(problem)
    psi = problem.states.psi[[i for i, _ in picked]]
    number = anderson_pictures.participation_number(psi)
    seen = text = None
    for n in networks:
        rgba = n.runs[0].examples.get("rgba")
        if rgba is not None and np.shape(rgba)[0] == len(problem.states.truth):
            seen = np.asarray(rgba)[[i for i, _ in picked]]
            text = f"seen by the network\n({seen.shape[1]} × {seen.shape[1]} pixels)"
            break
    every = anderson_pictures.participation_number(problem.states.psi)
    figure = states.cubes(
        anderson_pictures.cubes(psi, pixels=PIXELS, margin=_MARGIN),
        margin=_MARGIN,
        size=problem.states.size,
        titles=[
            f"{kind}\n$W$ = {problem.states.disorder[i]:g}, $1/P_2$ = {x:.0f} sites"
            for (i, kind), x in zip(picked, number, strict=True)
        ],
        seen=seen,
        seen_title=text or "",
    )
    spread = []
    for i, _ in picked:
        held = every[problem.states.truth == problem.states.truth[i]]
        low, middle, high = np.percentile(held, [10, 50, 90])
        spread.append(f"{middle:.0f} ({low:.0f} to {high:.0f}) at W = {problem.states.disorder[i]:g}")
    below = " Below: as the network sees them, transparent as black." if seen is not None else ""
    return figure, (
        f"Test states of L = {problem.states.size}: a cube of volume abs(ψ)² L³ at every site where that exceeds 1, "
        f"coloured by slice; of every W the state of median participation 1/P_2. Median and 10th to 90th percentile: "
        f"{', '.join(spread)} of {problem.states.size**3} sites. Extended is W < W_c = {published.CRITICAL_WIDTH:.2f}."
        f"{below} Compare Fig. 3 of the paper."
    )


def pick(problem: Problem) -> list[tuple[int, str]]:
    """States to show, by rule: of the smallest W, the one nearest W_c and the largest, the state of median
    participation; each with its name.
    """
    classes = np.unique(problem.states.truth)
    widths = problem.widths[classes]
    wanted = [int(np.argmin(widths)), int(np.argmin(np.abs(widths - published.CRITICAL_WIDTH))), int(np.argmax(widths))]
    result = []
    for k in dict.fromkeys(wanted):
        rows = np.flatnonzero(problem.states.truth == classes[k])
        number = anderson_pictures.participation_number(problem.states.psi[rows])
        order = np.argsort(number, kind="stable")
        if abs(widths[k] - published.CRITICAL_WIDTH) < 0.1:
            kind = "critical"
        else:
            kind = "extended" if widths[k] < published.CRITICAL_WIDTH else "localised"
        result.append((int(rows[order[(len(order) - 1) // 2]]), kind))
    return result


def bars(networks: Sequence[Network], problems: Sequence[Problem]) -> tuple[Any, str]:
    """Accuracy and loss of networks and rungs."""
    groups, chance = {}, {}
    for i, p in enumerate(problems):
        held = {n.title: n.answers for n in networks if n.problem == i} | dict(p.rungs)
        title = f"{p.title()} ({len(p.states.truth)} test states)"
        groups[title] = {
            s: {name: _value(a.scores[s], learned=name not in p.rungs) for name, a in held.items()}
            for s in ("accuracy", "loss")
        }
        chance[title] = p.chance
    figure = ladder.bars(groups, labels={s: SCORES[s] for s in ("accuracy", "loss")}, chance=chance)
    return figure, (
        "The ladder: networks (black) beside answers without learning (coloured), on the same test states. Lines: 95 % "
        "intervals over the test states, or two standard errors over seeds where that is wider. "
        "The rules at the top need the signs of ψ, the others only its modulus; the bound and α₀ are one number each."
    )


def confusion(network: Network, problem: Problem) -> tuple[Any, str]:
    """The matrix of a network: the paper's Fig. 4(a)."""
    names = [f"{w:g}" for w in problem.widths]
    title = f"{network.title}, L = {problem.states.size}"
    figure = ladder.matrices({title: network.answers.confusion(problem.states.truth)}, names=names)
    return figure, (
        f"Confusion matrix of {network.title}, {problem.title()}: percentages of the true class, "
        f"{_seeds(network)}; the colour scale ends at the largest. W_c = {published.CRITICAL_WIDTH:.2f}. Compare "
        "Fig. 4(a) of the paper."
    )


def confusions(networks: Sequence[Network], problem: Problem, number: int) -> tuple[Any, str]:
    """Matrices of networks and rungs on one colour scale."""
    held = {n.title: n.answers for n in networks if n.problem == number}
    held = dict(list(held.items())[: _MOST_MATRICES - len(problem.rungs)]) | dict(problem.rungs)
    names = [f"{w:g}" for w in problem.widths]
    found = {name: a.confusion(problem.states.truth) for name, a in held.items()}
    figure = ladder.matrices(found, names=names, values=False)
    return figure, f"Confusion of networks and rungs, {problem.title()}; one colour scale, means over seeds."


def training(networks: Sequence[Network], problems: Sequence[Problem]) -> tuple[Any, str] | None:
    """Loss and accuracy over the steps: the paper's Fig. 4(b)."""
    several = len({problems[n.problem].states.size for n in networks}) > 1
    runs = {}
    for n in networks[:6]:
        end = f", L = {problems[n.problem].states.size}" if several else ""
        runs[n.title + end if n.title + end not in runs else n.runs[0].name] = n.runs[0].history
    counts = {len(problems[n.problem].widths) for n in networks[:6]}
    figure = ladder.training(runs, chance=problems[networks[0].problem].chance if len(counts) == 1 else {})
    if figure is None:
        return None
    of = sorted({len(n.runs) for n in networks[:6]})
    over = "one seed" if of == [1] else f"mean over {', '.join(map(str, of))} seeds, bands two standard errors"
    return figure, (
        f"Training (thin) and validation (symbols), {over}. Chance: equal probabilities. Compare Fig. 4(b) of the "
        "paper."
    )


def probes(
    networks: Sequence[Network], problems: Sequence[Problem], changed: Sequence[Mapping[str, Mapping[str, Change]]]
) -> tuple[Any, str] | None:
    """Accuracies after changes of the states, of networks with the same classes as the first."""
    first = next((n for n, c in zip(networks, changed, strict=True) if c), None)
    if first is None:
        return None
    count = len(problems[first.problem].widths)
    held = [n for n in networks if n.probes and len(problems[n.problem].widths) == count][:6]
    names = list(dict.fromkeys(k for n in held for k in n.probes))
    panels = {}
    for n in held:
        p = problems[n.problem]
        methods = {r: [_value(a.scores["accuracy"])] for r, a in p.rungs.items()}
        methods["network"] = [_value(n.answers.scores["accuracy"], learned=True)]
        for k in names:
            probe = n.probes.get(k)
            for r in p.rungs:
                asked = probe is not None and r in probe.rungs
                methods[r].append(_value(probe.rungs[r].scores["accuracy"]) if asked else None)
            methods["network"].append(None if probe is None else _value(probe.answers.scores["accuracy"], learned=True))
        panels[f"{n.title}, L = {p.states.size}"] = methods
    texts = ["as they\nare", *(_PROBES.get(k, k.replace("_", "\n")) for k in names)]
    figure = ladder.probes(panels, names=texts, chance=1 / count)
    return figure, (
        "Accuracy on the test states as they are and after changes that were in no training. Black: the network; "
        "symbols: rungs, fitted on unchanged states. Intervals 95 %. A network that stands on a rung moves with it. "
        "Dotted: chance."
    )


def over_width(networks: Sequence[Network], problems: Sequence[Problem]) -> tuple[Any, str] | None:
    """Accuracy by W, a panel per network; ``None`` for fewer than three classes."""
    groups, held = {}, [n for n in networks if len(problems[n.problem].widths) > 2]
    if not held:
        return None
    p = problems[held[0].problem]
    classes = np.unique(p.states.truth)
    held = [
        n
        for n in held
        if np.array_equal(problems[n.problem].widths, p.widths)
        and np.array_equal(np.unique(problems[n.problem].states.truth), classes)
    ]
    if len(classes) < 2:
        return None
    for n in held[:6]:
        q = problems[n.problem]
        rates = by_class(n.answers, q)[0]
        error = seeds.standard_error(rates)
        groups[f"{n.title}, L = {q.states.size}"] = {
            "network": (rates.mean(0), None if error is None else 2 * error),
            **{r: (by_class(a, q)[0][0], None) for r, a in q.rungs.items()},
        }
    low, high = p.widths[classes].min(), p.widths[classes].max()
    critical = published.CRITICAL_WIDTH if low < published.CRITICAL_WIDTH < high else None
    figure = ladder.over_width(
        p.widths[classes], groups, learned="network", chance=1 / len(p.widths), critical=critical
    )
    return figure, (
        "Accuracy by W. Bands: two standard errors over seeds. The first and the last W have one neighbour only. "
        f"Neighbours are {np.diff(p.widths).min():.3g} to {np.diff(p.widths).max():.3g} apart; where they are close, "
        "every answer is worse."
    )


def _value(s: Score, *, learned: bool = False) -> Value:
    """With the wider of the interval over states and two standard errors over seeds."""
    return Value(s.value, *s.ends(), learned)


def _seeds(network: Network) -> str:
    return "one seed" if len(network.runs) == 1 else f"mean over {len(network.runs)} seeds"
