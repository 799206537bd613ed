"""Spanning or not: what networks answer, beside everything that the density alone can know.

One or several models, each with one or several seeds, on the same test states. The question is never only how often a
network is right, but whether it is right where the density is silent: so there are the density-only oracle, the states
that it misses too, and sets on which it is worth nothing.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from physml_jax.analysis.scores import summarise
from physml_jax.reports import percolation_answers as asked
from physml_jax.reports import percolation_figures as figures
from physml_jax.reports import percolation_published as published
from physml_jax.reports import percolation_scaling as scaling
from physml_jax.reports import percolation_tables as tables
from physml_jax.reports import seeds
from physml_jax.typing import Report, Run
from physml_jax.viz import curves


def make_report(
    *,
    label: str | None = None,
    density: str = "density",
    class_names: Sequence[str] = ("not spanning", "spanning"),
    title: str = "Spanning clusters",
    num_misclassified: int = 20,
    num_failures: int = 6,
    scaling_correction: float = 0.0,
    scaling_window: tuple[float, float] = (0.02, 0.98),
    num_resamples: int = 200,
) -> Callable[[Sequence[Run]], Report]:
    """Report of classifiers and connectivity networks that say whether a state spans.

    Args:
      label: batch key of the truth, ``"spanning"`` (either direction) or ``"vertical"``; by default the one that the
        first run's task was told to learn, else ``"spanning"``.
      density: batch key of the density.
      class_names: texts for 0 and 1.
      title: heading.
      num_misclassified: rows of the table of errors.
      num_failures: lattices in the figure of errors.
      scaling_correction: exponent omega of a term ``b L^-omega`` in the finite-size scaling; 0 for none.
      scaling_window: shares between which densities enter the scaling.
      num_resamples: bootstrap samples of the scaling.

    Returns:
      A function of finished runs, all on the same test states: runs of one name are the seeds of one model.
      Predictions hold ``probabilities`` or ``logits`` [N, 2], and may hold ``arrival`` [N, L, L, 1], the iteration at
      which a site was marked. What the runs do not hold (probes, several sizes, arrivals) is left out.
    """
    if len(class_names) != 2:
        raise ValueError(f"class_names: expected two texts, got {len(class_names)}")

    def report(runs: Sequence[Run]) -> Report:
        models = seeds.by_model(runs)
        key = label or runs[0].config.get("task", {}).get("kwargs", {}).get("label") or "spanning"
        direction = "vertical" if key == "vertical" else "either"
        first = asked.states(f"run {runs[0].name}", runs[0].examples, label=key, density=density)
        answered = asked.of_models(models, first, label=key)
        fitted = asked.fitted_on(runs, first, label=key, density=density)
        compared = asked.baselines(first, fitted)
        oracle = compared["density-only oracle"]
        beside = direction == "either" and published.is_published_distribution(first.density, size=first.size)
        name, model = next(iter(answered.items()))
        probed = tables.probes(models, fitted, label=key, density=density)
        scaled = scaling.scale(
            models,
            first,
            label=key,
            density=density,
            correction=scaling_correction,
            window=tuple(scaling_window),
            num_resamples=num_resamples,
        )

        found = {
            "scores": tables.scores(answered, compared, first, beside=beside),
            "probes": probed and probed[0],
            "scaling": scaling.table(scaled) if scaled else None,
            "crossings": scaling.crossing_table(scaled) if scaled else None,
            "confusion": tables.confusion(answered, first, class_names, beside=beside),
            "misclassified": None
            if model.right[0].all()
            else tables.misclassified(name, model, oracle, first, class_names, num_misclassified),
        }
        drawn = {
            "accuracy": figures.accuracy(answered, oracle, first),
            "confusion": figures.confusions(answered, first, class_names, beside=beside),
            "answers": figures.answered(answered, first, class_names),
            "spanning_probability": figures.spanning_probability(first),
            "clusters": figures.clusters(first, direction=direction),
            "failures": figures.failures(name, model, first, class_names, most=num_failures, direction=direction),
            "flood": figures.flood(models, answered, first),
            "scaling": (scaling.figure(scaled), _SCALING_CAPTION) if scaled else None,
        }
        if any(set(row) - {"step", "time_s"} for row in runs[0].history):
            drawn["training"] = (
                curves.training_curves(runs[0].history),
                f"Training and validation of {name}, first seed.",
            )
        return Report(
            title=f"{title}: {', '.join(answered)}",
            summary=_summary(answered, compared, first, fitted, probed and probed[1], scaled, beside),
            metrics=_metrics(answered, compared, first, probed and probed[1], scaled),
            tables={k: t for k, t in found.items() if t is not None},
            figures={k: f for k, f in drawn.items() if f is not None},
        )

    return report


_SCALING_CAPTION = (
    "Shares of spanning states by size with 95 % intervals (Wilson): as counted (left; dashed, the p_c of the infinite "
    "lattice), and over the scaled variable with the fitted curve (right; first seed, densities in the fitted window)."
)


def _summary(answered, compared, first, fitted, probes, scaled, beside) -> list[str]:
    oracle = compared["density-only oracle"]
    bound = oracle.accuracy().value
    lines = []
    for name, model in answered.items():
        accuracy = model.accuracy()
        lines.append(
            f"{name}: accuracy {accuracy.text()} ({_spread(accuracy)}) on {len(first.truth)} held-out states of "
            f"L = {first.size}. {_verdict(model, oracle)}{_explained(model, oracle)}"
        )
    others = ", ".join(f"{k} {v.accuracy().value:.4f}" for k, v in compared.items() if k != "density-only oracle")
    lines.append(
        f"The density alone: {bound:.4f} for the oracle, which answers at every density what is more frequent in this "
        f"test set; {others}. The label is a function of the state, so 1 is attainable."
    )
    if fitted.note:
        lines.append(fitted.note)
    if beside:
        known, error = published.DENSITY_ONLY
        lines.append(
            f"On this distribution (published densities, L = {published.SIZE}, either direction) a predictor that sees "
            f"only the density reaches {100 * known:.2f} ± {100 * error:.2f} %, counted in two simulations of "
            f"{published.NUM_TEST:,} states. By its confusion matrix the published ResNet18 has "
            f"{100 * published.TEST_ACCURACY:.2f} % there (on the validation split "
            f"{100 * published.VALIDATION_ACCURACY:.2f} % with a loss of {published.VALIDATION_LOSS}): on that bound."
        )
    if probes:
        lines += _probe_lines(probes, answered)
    for name, s in scaled.items():
        if s.fits:
            fit = s.fits[0]
            lines.append(
                f"Finite-size scaling of {name if name == scaling.TRUTH else f'the answers of {name}'}: "
                f"p_c = {_estimate(fit.threshold, 4)}, nu = {_estimate(fit.exponent, 3)}"
                + (" (first seed)." if len(s.fits) > 1 else ".")
            )
    if scaled:
        lines.append(
            f"Infinite lattice: p_c = {published.CRITICAL_DENSITY:.5f}, nu = 4/3. A network that reads the density "
            "has a step at its threshold, equally sharp at every size, that no scaling describes."
        )
    return lines


def _spread(accuracy: seeds.Mean) -> str:
    return "one seed" if accuracy.n == 1 else f"{accuracy.n} seeds, ± is the standard error over them"


def _verdict(model: asked.Answers, oracle: asked.Answers) -> str:
    """Differences state by state scatter less than the two accuracies."""
    gain = summarise(model.right.mean(axis=0) - oracle.right[0])
    if gain.low is None or gain.low <= 0 <= gain.high:
        text = "It cannot be told apart from the density-only oracle"
    else:
        text = "It knows more than the density" if gain.mean > 0 else "It does worse than the density-only oracle"
    interval = "" if gain.low is None else f" (95 % interval {gain.low:+.4f} to {gain.high:+.4f})"
    return f"{text}: difference {gain.mean:+.4f}{interval}.".replace("-0.", "−0.")


def _explained(model: asked.Answers, oracle: asked.Answers) -> str:
    of_model, of_oracle = asked.explained(model, oracle)
    if of_model is None:
        return " It makes no error."
    text = f" The oracle makes {100 * of_model.value:.1f} % of its errors too"
    if of_oracle is None:
        return f"{text}."
    return f"{text}, and it makes {100 * of_oracle.value:.1f} % of the oracle's."


def _probe_lines(probes: Mapping[str, Mapping[str, Any]], answered) -> list[str]:
    lines = []
    for name in answered:
        parts = [
            f"{probe} {found['models'][name]['mean']:.4f} (n = {found['n']}, density "
            f"{found['threshold_on_density']:.4f})"
            for probe, found in probes.items()
            if name in found["models"]
        ]
        if parts:
            lines.append(f"{name} on sets made to mislead or of other size, accuracy: {', '.join(parts)}.")
    return lines


def _estimate(x, digits: int) -> str:
    interval = "" if x.low is None else f" (95 % interval {x.low:.{digits}f} to {x.high:.{digits}f})"
    return f"{x.value:.{digits}f}{interval}"


def _metrics(answered, compared, first, probes, scaled) -> dict[str, Any]:
    oracle = compared["density-only oracle"]

    def numbers(found: asked.Answers) -> dict[str, Any]:
        loss, (matrix, error) = found.log_loss(first.truth), found.confusion(first.truth)
        of_model, of_oracle = asked.explained(found, oracle)
        return {
            "accuracy": found.accuracy().numbers(),
            "log_loss": None if loss is None else loss.numbers(),
            "confusion": matrix.tolist(),
            "confusion_standard_error": None if error is None else error.tolist(),
            "errors_shared_with_oracle": None if of_model is None else of_model.numbers(),
            "oracle_errors_shared": None if of_oracle is None else of_oracle.numbers(),
            "accuracy_by_seed": found.right.mean(axis=1).tolist(),
        }

    return {
        "n": len(first.truth),
        "size": first.size,
        "models": {name: numbers(found) for name, found in answered.items()},
        "baselines": {
            name.replace(" ", "_").replace("-", "_"): float(np.mean(found.right)) for name, found in compared.items()
        },
        "probes": probes or {},
        "scaling": scaling.numbers(scaled) if scaled else {},
    }
