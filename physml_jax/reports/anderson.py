"""The disorder of Anderson states: what networks answer, and on which rung of the ladder without learning they stand.

One run, or many of several sizes, views and resolutions. On exactly the test states that a network was asked about
stand the answers that need no learning: the local rule of signed amplitudes, the bound from moduli, several scalars and
one. The question is which of them the network goes with, on the states as they are and after changes that take away
what one or the other needs.
"""

from collections.abc import Callable, Sequence
from typing import Any

from physml_jax.reports import anderson_answers as asked
from physml_jax.reports import anderson_figures as figures
from physml_jax.reports import anderson_numbers as numbers
from physml_jax.reports import anderson_summary as summary
from physml_jax.reports import anderson_tables as tables
from physml_jax.reports import anderson_trends as trends
from physml_jax.typing import Report, Run


def make_report(
    *,
    label: str | None = None,
    title: str = "Anderson model of localization",
    num_resamples: int = 1000,
) -> Callable[[Sequence[Run]], Report]:
    """Report of classifiers of the disorder.

    Args:
      label: batch key of the class; by default the one that the first run's task was told to learn, else
        ``"disorder_class"``.
      title: heading.
      num_resamples: bootstrap samples of the intervals over states.

    Returns:
      A function of finished runs; runs of one name are the seeds of one network, on the same test states. Examples hold
      ``state`` float [N, L, L, L, 1] (signed), ``disorder`` (W), the class, and may hold ``energy`` and the view that
      was learned from; the reference holds training states likewise. Predictions hold ``probabilities`` or ``logits``
      [N, C]. Probes hold changed states under ``state``. Networks of different size or classes each have a ladder of
      their own, and what runs differ in, size or resolution, becomes a trend. What the runs do not hold is left out.
    """
    if num_resamples < 1:
        raise ValueError(f"num_resamples: expected an integer of at least 1, got {num_resamples}")

    def report(runs: Sequence[Run]) -> Report:
        if not runs:
            raise ValueError("runs: expected at least one finished run")
        key = label or runs[0].config.get("task", {}).get("kwargs", {}).get("label") or "disorder_class"
        networks, problems = asked.read(runs, asked.Reader(key, num_resamples))
        standings = [numbers.standing(n, problems[n.problem], num_resamples=num_resamples) for n in networks]
        changed = [
            {k: numbers.changes(n, problems[n.problem], k, num_resamples=num_resamples) for k in n.probes}
            for n in networks
        ]
        over = trends.find(networks, problems)
        first = problems[networks[0].problem]

        drawn: dict[str, Any] = {"ladder": figures.bars(networks, problems)}
        drawn |= {name: trends.figure(t) for name, t in over.items()}
        drawn["probes"] = figures.probes(networks, problems, changed)
        for i, n in enumerate(networks[:6]):
            drawn["confusion" if i == 0 else f"confusion_{i + 1}"] = figures.confusion(n, problems[n.problem])
        drawn["confusion_ladder"] = figures.confusions(networks, first, networks[0].problem)
        drawn["accuracy_by_width"] = figures.over_width(networks, problems)
        drawn["training"] = figures.training(networks, problems)
        largest = max(problems, key=lambda p: (p.states.size, len(p.widths)))
        drawn["states"] = figures.examples(largest, [n for n in networks if problems[n.problem] is largest])
        listed = {
            "scores": tables.scores(networks, problems),
            **{name: trends.table(t) for name, t in over.items()},
            "standing": tables.standings(networks, problems, standings),
            "probes": tables.probes(networks, problems, changed),
            "by_width": tables.by_width(networks, problems, networks[0].problem),
        }
        names = list(dict.fromkeys(n.title for n in networks))
        sizes = sorted({p.states.size for p in problems})
        return Report(
            title=f"{title}: {', '.join(names)}, L = {', '.join(map(str, sizes))}",
            summary=summary.paragraphs(networks, problems, standings, changed, over),
            metrics=numbers.metrics(networks, problems, standings, changed)
            | {"trends": [trends.numbers(t) for t in over.values()]},
            tables={k: t for k, t in listed.items() if t is not None},
            figures={k: f for k, f in drawn.items() if f is not None},
        )

    return report
