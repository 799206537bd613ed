"""The phase diagram of the J1-J2 Ising model from autoencoders that were trained on one phase.

One run answers for one region; runs on both regions, with several seeds and sizes, make the whole diagram in one
report. The question is not only whether the network finds the boundaries, but what it adds to comparing states
directly and to the order parameters that everybody knows: all go through the same estimator, side by side.
"""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from physml_jax.analysis import latent
from physml_jax.reports import ising_answers as asked
from physml_jax.reports import ising_figures as figures
from physml_jax.reports import ising_numbers as numbers
from physml_jax.reports import ising_summary as summary
from physml_jax.reports import ising_tables as tables
from physml_jax.reports.ising_answers import Answer
from physml_jax.typing import Report, Run
from physml_jax.viz import curves


def make_report(
    *,
    title: str = "J1-J2 Ising model",
    epsilon: str = "epsilon",
    rule: str = "critical",
    tolerance: float = 0.05,
    num_references: int = 256,
    num_resamples: int = 200,
) -> Callable[[Sequence[Run]], Report]:
    """Report of autoencoders of ordered phases.

    Args:
      title: heading.
      epsilon: key of the reconstruction error among the predictions: ``"epsilon"`` with decoded mean spins,
        ``"epsilon_sign"`` with their signs.
      rule: where a curve epsilon(T) has its transition: ``"critical"``, ``"half"`` or ``"steepest"``, see
        ``analysis.phase_boundary``. Half way up is reported beside the others.
      tolerance: difference from the literature that counts as agreement, units of J1.
      num_references: training states that the direct comparison looks at.
      num_resamples: bootstrap samples for the intervals; 0 for none.

    Returns:
      A function of finished runs. Examples hold ``spins`` int8 [N, L, L, 1], ``temperature``, ``j2`` and may hold
      ``equilibrated``; the reference holds the training states. Predictions hold the reconstruction error and may hold
      ``reconstruction``, ``generated`` and ``latent``. Runs on one region and size are the seeds of one model. What
      the runs do not hold is left out.
    """
    if rule not in ("critical", "half", "steepest"):
        raise ValueError(f"rule: expected 'critical', 'half' or 'steepest', got {rule!r}")

    def report(runs: Sequence[Run]) -> Report:
        found = asked.answers(
            runs, epsilon=epsilon, rule=rule, num_references=num_references, num_resamples=num_resamples
        )
        measured = numbers.metrics(found, rule)
        sizes = list(dict.fromkeys(a.states.size for a in found))
        first = found[0].states.size
        drawn: dict[str, Any] = {}
        for size in sizes:
            of_size = [a for a in found if a.states.size == size]
            end = "" if size == first else f"_L{size}"
            drawn[f"phase_diagram{end}"] = figures.diagram(of_size)
            drawn[f"maps{end}"] = figures.maps(of_size)
            drawn[f"methods{end}"] = figures.methods(of_size, tolerance=tolerance)
        drawn["finite_size"] = figures.finite_size(measured["finite_size"])
        for entry, a in zip(measured["regions"], found, strict=True):
            entry["latent"] = _latent_numbers(a)
            entry["generated"] = _generated_numbers(a)
            if a.states.size != first:
                continue
            drawn[f"curves_{a.phase}"] = figures.curves(a)
            drawn[f"states_{a.phase}"] = figures.examples(a)
            drawn[f"latent_{a.phase}"] = figures.latent_space(a)
            drawn[f"generated_{a.phase}"] = figures.generated(a)
            drawn[f"generated_measures_{a.phase}"] = figures.generated_histograms(a)
        drawn["data"] = figures.checks(found[0].states, measured["data"][f"L{first}"])
        for a in found:
            history = a.runs[0].history
            if a.states.size == first and any(set(row) - {"step", "time_s"} for row in history):
                caption = f"Training and validation on the {a.title}, mean over its seeds."
                drawn[f"training_{a.phase}"] = (curves.training_curves(history), caption)
        listed = {
            "agreement": tables.agreement(found),
            "boundaries": tables.boundaries(found),
            "finite_size": tables.sizes(measured["finite_size"]),
            "scores": tables.scores(found),
        }
        phases = " and ".join(dict.fromkeys(a.phase for a in found))
        return Report(
            title=f"{title}: {phases}, L = {', '.join(map(str, sizes))}",
            summary=summary.paragraphs(found, measured, tolerance),
            metrics=measured,
            tables={k: t for k, t in listed.items() if t is not None},
            figures={k: f for k, f in drawn.items() if f is not None},
        )

    return report


def _latent_numbers(a: Answer) -> dict[str, Any] | None:
    codes = a.runs[0].predictions.get("latent")
    if codes is None or np.ndim(codes) != 2:
        return None
    j0, j1, t0, t1 = a.box
    own = (a.states.j2 >= j0) & (a.states.j2 <= j1) & (a.states.temperature >= t0) & (a.states.temperature <= t1)
    return {
        "units": int(np.shape(codes)[1]),
        "active": latent.active_units(codes),
        "active_inside": latent.active_units(np.asarray(codes)[own]) if own.sum() > 1 else None,
    }


def _generated_numbers(a: Answer) -> dict[str, Any] | None:
    found = figures.drawn_measures(a)
    if found is None:
        return None
    j2, measured = found
    result: dict[str, Any] = {"j2": j2}
    for name, m in measured.items():
        order = m.magnetization if a.phase == "ferromagnet" else m.stripe_maximum
        result[name] = {"energy": float(m.energy.mean()), "order": float(order.mean())}
    low, high = np.percentile(measured["training"].energy, [1, 99])
    made = measured["generated"].energy
    result["share_within"] = float(np.mean((made >= low - 1e-6) & (made <= high + 1e-6)))
    return result
