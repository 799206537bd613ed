"""Tables of the Anderson report: scores, rungs beside networks, probes, accuracy by W."""

from collections.abc import Mapping, Sequence

import numpy as np

from physml_jax.reports import anderson_published as published
from physml_jax.reports.anderson_answers import Answers, Network, Problem
from physml_jax.reports.anderson_numbers import Change, Standing, by_class
from physml_jax.typing import Table


def scores(networks: Sequence[Network], problems: Sequence[Problem]) -> Table:
    """All scores of all methods, problem by problem."""
    rows = []
    for i, p in enumerate(problems):
        head = [p.states.size, len(p.widths)]
        for n in (n for n in networks if n.problem == i):
            rows.append([n.title, *head, len(n.runs), *_row(n.answers)])
        rows += [[f"rung: {name}", *head, None, *_row(a)] for name, a in p.rungs.items()]
        c = p.chance
        rows.append(
            ["chance", *head, None, c["accuracy"], *[None] * 3, c["loss"], None, None, c["adjacent"], c["error"]]
        )
        if (p.states.size, len(p.widths)) == (published.SIZE, published.NUM_CLASSES):
            text = f"published: early ResNet18, {published.PIXELS} px"
            rows.append([text, *head, 1, published.ACCURACY, *[None] * 3, published.LOSS, *[None] * 4])
    columns = (
        "method",
        "L",
        "classes",
        "seeds",
        "accuracy",
        "± over seeds",
        "95 % over seeds",
        "95 % over states",
        "cross entropy (nats)",
        "its ± over seeds",
        "its 95 % over states",
        "accuracy to one class",
        "mean abs error of W",
    )
    sets = "; ".join(
        f"{p.title()}: {len(p.states.truth)} test states, {p.num_fitted} training states" for p in problems
    )
    return Table(
        f"Networks beside answers without learning, on the same test states ({sets}). The local rules are fitted to "
        "nothing, the other rungs to those training states. ± is the standard error over seeds, its interval Student's "
        "t; intervals over states are from the bootstrap (Wilson where all states are alike). W is the mean over the "
        "probabilities, of a local rule its estimate. Chance: equal probabilities; to one class, the best constant; "
        "of W, its mean.",
        columns,
        rows,
    )


def standings(networks: Sequence[Network], problems: Sequence[Problem], found: Sequence[Standing]) -> Table:
    """Every network beside every rung."""
    rows = []
    for n, s in zip(networks, found, strict=True):
        for name, b in s.beside.items():
            rows.append(
                [
                    n.title,
                    problems[n.problem].states.size,
                    len(problems[n.problem].widths),
                    name,
                    _signed(b.gain),
                    f"{_signed(b.low)} to {_signed(b.high)}",
                    None if b.kappa is None else b.kappa.text(3),
                    None if b.together is None else b.together.text(3),
                    f"± {s.noise:.3f}",
                    b.profile,
                ]
            )
    columns = (
        "network",
        "L",
        "classes",
        "rung",
        "accuracy: network − rung",
        "95 % over states",
        "Cohen's κ of the answers",
        "correlation of W beyond the class",
        "by chance",
        "distance over probes",
    )
    return Table(
        "Which rung a network stands on. κ: agreement in excess of chance (the true class, which both know something "
        "of, makes part of it). Correlation: of the W that both find, after the mean of every true class is taken out; "
        "two answers that use the same thing have the same errors. Distance: root mean square difference of the "
        "accuracies on the test states and on all probes.",
        columns,
        rows,
    )


def probes(
    networks: Sequence[Network], problems: Sequence[Problem], changed: Sequence[Mapping[str, Mapping[str, Change]]]
) -> Table | None:
    """Accuracy of networks and rungs on the changed states; ``None`` without probes."""
    names = list(dict.fromkeys(p for c in changed for p in c))
    if not names:
        return None
    rows, done = [], set()
    for n, c in zip(networks, changed, strict=True):
        p = problems[n.problem]
        if not c:
            continue
        head = [p.states.size, len(p.widths)]
        cells = [None if k not in c else c[k][n.title].accuracy for k in names]
        rows.append([n.title, *head, n.answers.scores["accuracy"].value, *cells])
        same = [None if k not in c else n.probes[k].same for k in names]
        rows.append([f"{n.title}: same answer", *head, None, *same])
        if n.problem not in done:
            done.add(n.problem)
            for r, a in p.rungs.items():
                cells = [None if k not in c or r not in c[k] else c[k][r].accuracy for k in names]
                rows.append([f"rung: {r}", *head, a.scores["accuracy"].value, *cells])
    return Table(
        "Accuracy on the test states as they are, and after changes that were in no training. Same answer: share of "
        "states whose answer stays. Rungs are fitted on unchanged training states, as networks are.",
        ("method", "L", "classes", "as they are", *names),
        rows,
    )


def by_width(networks: Sequence[Network], problems: Sequence[Problem], number: int) -> Table:
    """Accuracy by W of one problem."""
    p = problems[number]
    held = {n.title: n.answers for n in networks if n.problem == number} | dict(p.rungs)
    rates = {name: by_class(a, p) for name, a in held.items()}
    classes = next(iter(rates.values()))[1]
    counts = np.bincount(p.states.truth)
    rows = [
        [f"{p.widths[c]:g}", int(counts[c]), *(float(r.mean(0)[i]) for r, _ in rates.values())]
        for i, c in enumerate(classes)
    ]
    return Table(f"Accuracy by W, {p.title()}; mean over seeds.", ("W", "test states", *rates), rows)


def _row(a: Answers) -> list:
    acc, loss = a.scores["accuracy"], a.scores["loss"]
    seeds = None
    if acc.seed_low is not None:
        seeds = f"{max(acc.seed_low, 0):.4f} to {min(acc.seed_high, 1):.4f}"
    cells = [acc.value, acc.error, seeds, f"{acc.low:.4f} to {acc.high:.4f}"]
    cells += [loss.value, loss.error, f"{loss.low:.3f} to {loss.high:.3f}"]
    return [*cells, a.scores["adjacent"].value, a.scores["error"].value]


def _signed(x: float) -> str:
    return f"{x:+.4f}".replace("-", "−")
