"""What the Anderson report says in words, all of it from the numbers."""

from collections.abc import Mapping, Sequence

from physml_jax.analysis import anderson_ladder as ladder
from physml_jax.reports import anderson_published as published
from physml_jax.reports.anderson_answers import SIGNED, Network, Problem, Score
from physml_jax.reports.anderson_numbers import Change, Standing, closest, missing, nearest_profile
from physml_jax.reports.anderson_trends import Trend, sentence

#: What a network needs that no longer answers right after a change: probe -> (change, what it takes away).
_TAKES = {
    "shuffle": ("all sites exchanged", "where the amplitudes are"),
    "blocks": ("blocks of 2 × 2 × 2 sites exchanged", "how such blocks lie to each other"),
    "within_blocks": ("sites exchanged within blocks of 2 × 2 × 2", "the arrangement of neighbours"),
    "signs": ("random signs", "the signs"),
    "quantise": ("amplitudes of 8 bits", "amplitudes finer than 8 bits"),
    "threshold": ("only the outline of abs(ψ)² L³ > 1", "how large amplitudes are"),
}


def paragraphs(
    networks: Sequence[Network],
    problems: Sequence[Problem],
    standings: Sequence[Standing],
    changed: Sequence[Mapping[str, Mapping[str, Change]]],
    trends: Mapping[str, Trend],
) -> list[str]:
    """One paragraph per finding."""
    lines = []
    for n, s, c in zip(networks, standings, changed, strict=True):
        p = problems[n.problem]
        lines += [_result(n, p, s), _stands(n, s)]
        if c:
            lines.append(_probes(n, p, c, s))
    lines += [_ladder(p) for p in problems]
    lines += [sentence(t) for t in trends.values()]
    lines += _published(networks, problems)
    return [line for line in lines if line]


def _result(n: Network, p: Problem, s: Standing) -> str:
    a = n.answers.scores
    intervals = f"{_interval(a['accuracy'])} over {len(p.states.truth)} test states"
    if a["accuracy"].n > 2:  # two seeds have an interval six times their difference wide
        intervals += f", {max(a['accuracy'].seed_low, 0):.4f} to {a['accuracy'].seed_high:.4f} over seeds"
    text = (
        f"{n.title}, {p.title()}: accuracy {a['accuracy'].text()} ({_count(n)}; 95 % interval {intervals}), cross "
        f"entropy {a['loss'].text(3)} nats; by chance {p.chance['accuracy']:.4f} and ln {len(p.widths)} = "
        f"{p.chance['loss']:.3f}. "
    )
    if len(p.widths) > 2:
        text += (
            f"Right to one class {a['adjacent'].value:.3f} (the best constant {p.chance['adjacent']:.3f}); mean "
            f"absolute error of W {a['error'].value:.3f} (of a constant {p.chance['error']:.3f})."
        )
    if not s.above_chance:
        text += " Its accuracy cannot be told from chance."
    if a["loss"].value > p.chance["loss"]:
        text += " Its loss is worse than that of equal probabilities: it is surer than it should be."
    gone = missing(p)
    if gone:
        text += f" No test state has W = {', '.join(f'{w:g}' for w in gone)}."
    return text


def _stands(n: Network, s: Standing) -> str:
    groups = {1: [], 0: [], -1: []}
    for name, b in s.beside.items():
        groups[b.verdict()].append(f"{name} ({_signed(b.gain)})")
    says = {1: "better than", 0: "not to be told from", -1: "worse than"}
    parts = [f"{says[k]} {_list(v)}" for k, v in groups.items() if v]
    text = f"The ladder and {n.title}, accuracy on the same states: {'; '.join(parts)}."
    best = closest(s)
    if best is None:
        text += (
            " Beyond the true class its answers go with no rung: no correlation of the W that they find exceeds what "
            f"chance makes, {s.noise:.3f}."
        )
    else:
        others = [
            f"{name} {b.together.value:+.2f}".replace("-", "−")
            for name, b in s.beside.items()
            if name != best and b.together is not None
        ]
        text += (
            f" Beyond the true class its answers go most with {best}: correlation {s.beside[best].together.text(2)}"
            + (f" ({', '.join(others)}; {s.noise:.2f} by chance)" if others else "")
        )
        if s.explained is not None:
            text += f", and all rungs together explain {100 * max(s.explained.value, 0):.0f} % of what varies in them"
        text += "."
    if n.view in SIGNED:
        text += " Its input holds the signs, so the local rule without E can be formed from it: that is what to reach."
    return text


def _probes(n: Network, p: Problem, changed: Mapping[str, Mapping[str, Change]], s: Standing) -> str:
    chance = p.chance["accuracy"]
    parts, keeps, loses = [], [], []
    for probe, by_method in changed.items():
        own = by_method[n.title]
        name, takes = _TAKES.get(probe, (probe.replace("_", " "), f"what {probe.replace('_', ' ')} changes"))
        text = f"{name} {own.accuracy:.3f}"
        details = []
        if own.kept is not None:
            details.append(f"{100 * max(own.kept, 0):.0f} % of its gain over chance left")
        same = n.probes[probe].same
        if same is not None:
            details.append(f"{100 * same:.0f} % of the answers unchanged")
        parts.append(text + (f" ({', '.join(details)})" if details else ""))
        if not s.above_chance:
            continue
        if same == 1.0:
            keeps.append(f"{takes} (no answer changes)")
        elif own.low > 0:
            loses.append(takes)
        elif n.probes[probe].answers.scores["accuracy"].low > chance:
            keeps.append(takes)
    text = f"Changed states, {n.title}, accuracy: {'; '.join(parts)}."
    if not s.above_chance:
        text += " What answers no better than chance cannot show what it uses."
    if loses:
        text += f" It is worse without {_list(loses)}."
    if keeps:
        text += f" It does without {_list(keeps)}: no loss can be told from zero."
    if loses:
        text += " A loss may also come from states that are unlike any in training; no loss says more."
    near = nearest_profile(s)
    if near is not None:
        text += (
            f" Over test states and changes together it moves like {near} (root mean square difference of accuracies "
            f"{s.beside[near].profile:.3f})."
        )
    return text


def _ladder(p: Problem) -> str:
    found = ", ".join(f"{name} {a.scores['accuracy'].value:.4f}" for name, a in p.rungs.items())
    text = f"Without learning, {p.title()}: accuracy {found}; chance {p.chance['accuracy']:.4f}."
    if ladder.LOCAL_ENERGY in p.rungs:
        text += (
            " The local rules read the largest site energy off signed amplitudes; that takes no knowledge of "
            "localisation."
        )
    if p.fitted is None:
        text += " The rungs that must be fitted are missing, for lack of training states of this size in the report."
    return text


def _published(networks: Sequence[Network], problems: Sequence[Problem]) -> list[str]:
    if not any(len(p.widths) == published.NUM_CLASSES for p in problems):
        return []
    text = (
        f"Published: {published.NUM_CLASSES} classes at L = {published.SIZE} from pictures of {published.PIXELS} "
        f"pixels, an early training of the authors, {100 * published.ACCURACY:.1f} % with a loss of {published.LOSS}. "
        "Their other scores are not known to us."
    )
    sizes = sorted({p.states.size for p in problems if len(p.widths) == published.NUM_CLASSES})
    if published.SIZE not in sizes:
        return [f"{text} Numbers of another L ({', '.join(map(str, sizes))} here) cannot be compared with it."]
    i = next(
        i for i, p in enumerate(problems) if p.states.size == published.SIZE and len(p.widths) == published.NUM_CLASSES
    )
    rungs = problems[i].rungs
    if ladder.ALPHA in rungs:
        text += f" One number, α₀, gives {100 * rungs[ladder.ALPHA].scores['accuracy'].value:.1f} % on our states."
    own = [n for n in networks if n.problem == i and n.view == "rgba"]
    if own:
        gap = own[0].answers.scores["accuracy"].value - published.ACCURACY
        text += f" {own[0].title} is {100 * abs(gap):.1f} points {'above' if gap >= 0 else 'below'} it."
    return [text]


def _interval(s: Score) -> str:
    return f"{s.low:.4f} to {s.high:.4f}"


def _count(n: Network) -> str:
    k = len(n.runs)
    return "one seed" if k == 1 else f"{k} seeds, ± standard error"


def _signed(x: float) -> str:
    return f"{x:+.3f}".replace("-", "−")


def _list(parts: Sequence[str]) -> str:
    return parts[0] if len(parts) == 1 else f"{', '.join(parts[:-1])} and {parts[-1]}"
