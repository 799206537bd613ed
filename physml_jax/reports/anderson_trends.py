"""Networks and rungs over one thing in which runs differ: the size of the lattice or the resolution of pictures."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from physml_jax.analysis.anderson_ladder import RUNGS
from physml_jax.reports.anderson_answers import SCORES, Answers, Network, Problem, class_text
from physml_jax.typing import Table
from physml_jax.viz import ladder

#: Scores that are drawn.
_DRAWN = ("accuracy", "loss")


class Trend(NamedTuple):
    """The same question asked at several values of one thing.

    Attributes:
      over: ``"size"`` or ``"resolution"``.
      axis: what it is, for an axis.
      unit: with ``{}`` in place of a value.
      same: what does not differ, in words.
      networks: title -> value -> answers.
      rungs: name -> value -> answers; of the same states at every resolution.
      chance: score by name of an answer that does not look.
    """

    over: str
    axis: str
    unit: str
    same: str
    networks: Mapping[str, Mapping[int, Answers]]
    rungs: Mapping[str, Mapping[int, Answers]]
    chance: Mapping[str, float]

    def values(self) -> list[int]:
        """All values that occur, rising."""
        return sorted({x for held in (*self.networks.values(), *self.rungs.values()) for x in held})


def find(networks: Sequence[Network], problems: Sequence[Problem]) -> dict[str, Trend]:
    """Everything in which the networks of a report differ, by name of its figure and table.

    Sizes are beside each other where the classes are the same, resolutions where the test states are.
    """
    found: dict[str, Trend] = {}
    for trend in (*_over_size(networks, problems), *_over_resolution(networks, problems)):
        place = sum(t.over == trend.over for t in found.values())
        found[trend.over if not place else f"{trend.over}_{place + 1}"] = trend
    return found


def figure(trend: Trend) -> tuple[Any, str]:
    """Accuracy and loss, with intervals."""
    panels: dict[str, dict[str, dict[int, ladder.Value]]] = {SCORES[s]: {} for s in _DRAWN}
    for held, learned in ((trend.networks, True), (trend.rungs, False)):
        for name, by_value in held.items():
            for s in _DRAWN:
                ends = {x: (a.scores[s].value, *a.scores[s].ends()) for x, a in by_value.items()}
                panels[SCORES[s]][name] = {x: ladder.Value(*e, learned) for x, e in ends.items()}
    drawn = ladder.trends(
        panels,
        xlabel=trend.axis,
        chance={SCORES[s]: trend.chance[s] for s in _DRAWN},
        logarithmic=(SCORES["accuracy"],),
    )
    states = {"size": "each on test states of its size", "resolution": "on the same states at every resolution"}
    return drawn, (
        f"Accuracy and loss over the {trend.over}, {trend.same}: networks black, answers without learning coloured, "
        f"{states[trend.over]}. Lines: 95 % intervals over the test states, or two standard errors over seeds where "
        "that is wider. Dotted: chance."
    )


def table(trend: Trend) -> Table:
    """A row per method, a column per value."""
    values = trend.values()
    every = {**trend.networks, **{f"rung: {name}": a for name, a in trend.rungs.items()}}
    rows = [[name, *(_cell(held[x]) if x in held else None for x in values)] for name, held in every.items()]
    rows.append(["chance", *[f"{trend.chance['accuracy']:.4f}"] * len(values)])
    return Table(
        f"Accuracy by {trend.over}, {trend.same}, with 95 % intervals over test states, or two standard errors over "
        "seeds where that is wider.",
        ("method", *(trend.unit.format(x) for x in values)),
        rows,
    )


def sentence(trend: Trend) -> str:
    """What rises, what falls, and what is open; empty where no method was asked twice."""
    asked = {name: held for name, held in (*trend.networks.items(), *trend.rungs.items()) if len(held) > 1}
    if not asked:
        return ""
    values, parts = trend.values(), []
    for name, held in asked.items():
        x = sorted(held)
        text = ", ".join(f"{held[k].scores['accuracy'].value:.3f}" for k in x)
        if trend.over == "resolution" and name in trend.rungs:
            parts.append(f"{name} {held[x[0]].scores['accuracy'].value:.3f}")
            continue
        where = "" if x == values else f" at {', '.join(trend.unit.format(k) for k in x)}"
        (low, high), (last_low, last_high) = (held[k].scores["accuracy"].ends() for k in (x[0], x[-1]))
        way = "rises" if last_low > high else ("falls" if last_high < low else "open")
        parts.append(f"{name} {text}{where} ({way})")
    listed = ", ".join(trend.unit.format(x) for x in values)
    return (
        f"Trend with the {trend.over}, {trend.same}, {listed}, accuracy: {'; '.join(parts)}; chance "
        f"{trend.chance['accuracy']:.3f}. Open: the intervals of the first and the last value overlap."
    )


def numbers(trend: Trend) -> dict[str, Any]:
    """For ``metrics.json``: accuracy with its interval, by method and value."""
    every = {**trend.networks, **trend.rungs}
    return {
        "over": trend.over,
        "same": trend.same,
        "chance": trend.chance["accuracy"],
        "learned": list(trend.networks),
        "accuracy": {
            name: {
                str(x): dict(zip(("low", "high"), held[x].scores["accuracy"].ends(), strict=True))
                | {"mean": held[x].scores["accuracy"].value, "num_seeds": held[x].scores["accuracy"].n}
                for x in sorted(held)
            }
            for name, held in every.items()
        },
    }


def _over_size(networks: Sequence[Network], problems: Sequence[Problem]) -> Iterator[Trend]:
    by_classes: dict[tuple[float, ...], list[int]] = {}
    for i, p in enumerate(problems):
        by_classes.setdefault(tuple(p.widths.tolist()), []).append(i)
    for numbered in by_classes.values():
        numbered = sorted(numbered, key=lambda i: problems[i].states.size)
        if len({problems[i].states.size for i in numbered}) < 2:
            continue
        learned: dict[str, dict[int, Answers]] = {}
        rungs: dict[str, dict[int, Answers]] = {}
        for i in numbered:
            size = problems[i].states.size
            for n in (n for n in networks if n.problem == i):
                learned.setdefault(n.title, {})[size] = n.answers
            for name, answered in problems[i].rungs.items():
                rungs.setdefault(name, {}).setdefault(size, answered)
        first = problems[numbered[0]]
        axis = "$L$ (lattice constants)"
        yield Trend("size", axis, "L = {}", class_text(first.widths), learned, _ordered(rungs), first.chance)


def _over_resolution(networks: Sequence[Network], problems: Sequence[Problem]) -> Iterator[Trend]:
    for i, p in enumerate(problems):
        held = [n for n in networks if n.problem == i and n.pixels]
        pixels = sorted({n.pixels for n in held})
        if len(pixels) < 2:
            continue
        learned: dict[str, dict[int, Answers]] = {}
        for n in held:
            learned.setdefault(n.title.removesuffix(f", {n.pixels} px"), {})[n.pixels] = n.answers
        rungs = {name: dict.fromkeys(pixels, a) for name, a in p.rungs.items()}
        axis = "side of the picture (pixels)"
        yield Trend("resolution", axis, "{} px", p.title(), learned, _ordered(rungs), p.chance)


def _ordered(rungs: Mapping[str, Mapping[int, Answers]]) -> dict[str, Mapping[int, Answers]]:
    """The highest rung first."""
    return {name: rungs[name] for name in RUNGS if name in rungs}


def _cell(a: Answers) -> str:
    low, high = a.scores["accuracy"].ends()
    return f"{a.scores['accuracy'].value:.4f} ({low:.4f} to {high:.4f})"
