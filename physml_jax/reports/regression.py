"""A number predicted for every example, beside the mean, the best function of the density, and a line through the mean
of the image.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from physml_jax.analysis import single_feature
from physml_jax.analysis.scores import Summary, summarise
from physml_jax.reports import seeds
from physml_jax.typing import Report, Run, Table
from physml_jax.viz import curves, transitions

#: Squared error of the density below which a predictor is exact up to float32.
EXACT = 1e-8
#: A parity plot with more dots is a blot.
_MAX_DOTS = 3000


class Scored(NamedTuple):
    """Predictions of one method.

    Attributes:
      value: float64 [S, N], one row per seed.
      squared: float64 [N], squared error, mean over the seeds.
      summary: of ``squared``; its interval is that of the test set.
      mse: mean squared error over the seeds.
      mae: mean absolute error over the seeds.
    """

    value: np.ndarray
    squared: np.ndarray
    summary: Summary
    mse: seeds.Mean
    mae: seeds.Mean


def make_report(
    *,
    target: str | None = None,
    density: str = "density",
    quantity: str | None = None,
    unit: str = "",
    title: str = "Regression",
) -> Callable[[Sequence[Run]], Report]:
    """Report of one or several regression models, each with one or several seeds.

    Args:
      target: batch key of the true value; by default the one that the first run's task was told to learn, else
        ``"density"``.
      density: batch key of the one number per example that a baseline may look at, if the examples hold it.
      quantity: name of the target for texts and axes; by default its key.
      unit: its unit, empty for none.
      title: heading.

    Returns:
      A function of finished runs, all on the same test examples: runs of one name are the seeds of one model.
      Predictions hold ``value`` [N] or [N, 1].
    """

    def report(runs: Sequence[Run]) -> Report:
        models = seeds.by_model(runs)
        key = target or runs[0].config.get("task", {}).get("kwargs", {}).get("target") or "density"
        text = quantity or key.replace("_", " ")
        truth = _column(seeds.held(runs[0], "examples", key), f"run {runs[0].name}: examples[{key!r}]")
        scored = {}
        for name, members in models.items():
            for run in members:
                other = np.asarray(seeds.held(run, "examples", key), np.float64).reshape(-1)
                if not np.array_equal(other, truth):
                    raise ValueError(f"runs: {name} was evaluated on other examples than {runs[0].name}")
            scored[name] = _score(truth, np.array([_values(run, len(truth)) for run in members]))
        images, notes = _baselines(runs, key, density)
        compared = {name: _score(truth, value[None]) for name, value in images.items()}
        if key == density and "linear read-out of mean pooling" in compared:
            notes.append(_exactness(compared["linear read-out of mean pooling"]))
        drawn = _figures(runs[0], scored, compared, truth, key=key, density=density, text=text, unit=unit)
        return Report(
            title=f"{title}: {', '.join(models)}",
            summary=[*_summary(scored, compared, text, unit, len(truth)), *notes],
            metrics={
                "n": len(truth),
                "models": {name: _numbers(s, truth) for name, s in scored.items()},
                "baselines": {
                    name.replace(" ", "_").replace("-", "_"): _numbers(s, truth) for name, s in compared.items()
                },
            },
            tables={"scores": _table(scored, compared, truth, text, unit)},
            figures=drawn,
        )

    return report


def _column(x: np.ndarray, name: str) -> np.ndarray:
    x = np.asarray(x, np.float64)
    if x.ndim == 2 and x.shape[1] == 1:
        x = x[:, 0]
    if x.ndim != 1 or not len(x) or not np.all(np.isfinite(x)):
        raise ValueError(f"{name}: expected finite numbers [N], got shape {x.shape}")
    return x


def _values(run: Run, length: int) -> np.ndarray:
    found = _column(seeds.held(run, "predictions", "value"), f"run {run.name}: predictions['value']")
    if len(found) != length:
        raise ValueError(f"run {run.name}: predictions['value']: expected {length} numbers, got {len(found)}")
    return found


def _score(truth: np.ndarray, value: np.ndarray) -> Scored:
    error = value - truth[None]
    squared = (error**2).mean(axis=0)
    return Scored(
        value,
        squared,
        summarise(squared),
        seeds.mean((error**2).mean(axis=1)),
        seeds.mean(np.abs(error).mean(axis=1)),
    )


def _baselines(runs: Sequence[Run], key: str, density: str) -> tuple[dict[str, np.ndarray], list[str]]:
    """Baselines fitted on training examples of the same image size, or, without any, on the test examples."""
    examples = runs[0].examples
    fitted, notes = examples, []
    for run in runs:
        held = run.reference
        if key in held and np.shape(held.get("image"))[1:] == np.shape(examples.get("image"))[1:]:
            fitted = held
            break
    if fitted is examples:
        notes.append("Baselines are fitted on the test examples themselves, for lack of a training set of that size.")
    known = _column(fitted[key], f"reference[{key!r}]")
    found = {"mean of the training set": np.full(len(examples[key]), known.mean())}
    if density in fitted and density in examples and density != key:
        pair = np.asarray(fitted[density], np.float64), known
        asked = np.asarray(examples[density], np.float64)
        found[f"mean at each {density}"] = single_feature.binned_mean(*pair, asked)
        found[f"monotone function of {density}"] = single_feature.monotone_regression(*pair, asked)
    if "image" in fitted and "image" in examples:
        found["linear read-out of mean pooling"] = single_feature.linear_regression(
            single_feature.pooled(fitted["image"]), known, single_feature.pooled(examples["image"])
        )
    return found, notes


def _exactness(linear: Scored) -> str:
    if linear.mse.value <= EXACT:
        return (
            f"The mean of the image is the density, so a linear read-out of mean pooling is exact (mean squared error "
            f"{linear.mse.value:.1e}). A network with a larger error has learned something less than counting."
        )
    return f"A linear read-out of mean pooling is not exact here: mean squared error {linear.mse.value:.1e}."


def _table(scored, compared, truth, text, unit) -> Table:
    rows = []
    for name, s in [*scored.items(), *((f"baseline: {k}", v) for k, v in compared.items())]:
        x = s.summary
        rows.append(
            [
                name,
                s.mse.n if name in scored else None,
                _small(s.mse.value),
                "–" if s.mse.error is None else _small(s.mse.error),
                "–" if x.low is None else f"{_small(x.low)} to {_small(x.high)}",
                _small(np.sqrt(s.mse.value)),
                _small(s.mae.value),
                _explained(s, truth),
            ]
        )
    columns = (
        "method",
        "seeds",
        "mean squared error",
        "standard error over seeds",
        "95 % interval from the test set",
        "root of it",
        "mean absolute error",
        "variance explained",
    )
    where = f" ({unit})" if unit else ""
    return Table(f"Errors of the predicted {text}{where} on {len(truth)} held-out examples.", columns, rows)


def _summary(scored, compared, text, unit, n) -> list[str]:
    lines = []
    best = min(compared, key=lambda k: compared[k].mse.value)
    for name, s in scored.items():
        mse = s.mse
        spread = "one seed" if mse.error is None else f"standard error {_small(mse.error)} over {mse.n} seeds"
        gain = summarise(compared[best].squared - s.squared)
        if gain.low is None or gain.low <= 0 <= gain.high:
            verdict = f"It cannot be told apart from the best baseline, {best}"
        else:
            verdict = f"It {'beats' if gain.mean > 0 else 'loses to'} the best baseline, {best}"
        unit_text = f" {unit}" if unit else ""
        lines.append(
            f"{name}: mean squared error of the {text} {_small(mse.value)} ({spread}), mean absolute error "
            f"{_small(s.mae.value)}{unit_text} on {n} held-out examples. {verdict} "
            f"({_small(compared[best].mse.value)})."
        )
    others = ", ".join(f"{k} {_small(v.mse.value)}" for k, v in compared.items())
    lines.append(f"Mean squared errors without a network: {others}.")
    return lines


def _figures(run, scored, compared, truth, *, key, density, text, unit) -> dict[str, tuple[Any, str]]:
    dots = np.unique(np.linspace(0, len(truth) - 1, min(len(truth), _MAX_DOTS)).astype(int))
    label = f"{text} ({unit})" if unit else text
    first = {name: s.value[0] for name, s in scored.items()}
    best = min(compared, key=lambda k: compared[k].mse.value)
    few = f" Every {len(truth) // len(dots)}th example is drawn." if len(truth) >= 2 * len(dots) else ""
    errors = {name: (v - truth)[dots] for name, v in first.items()}
    errors[f"baseline: {best}"] = (compared[best].value[0] - truth)[dots]
    drawn = {
        "parity": (
            curves.parity(truth[dots], {k: v[dots] for k, v in first.items()}, label=text, unit=unit),
            f"Predicted against true {text}, first seed of every model; the line is perfect agreement.{few}",
        ),
        "error": (
            transitions.scatter_of_errors(truth[dots], errors, xlabel=f"true {label}", ylabel=f"error of {label}"),
            f"Error against the true {text}; the line is the mean of twenty bins.{few} Errors that rise against the "
            "truth are a pull to the mean.",
        ),
    }
    if density in run.examples and density != key:
        x = np.asarray(run.examples[density], np.float64)[dots]
        drawn["error_density"] = (
            transitions.scatter_of_errors(x, errors, xlabel=density, ylabel=f"error of {label}"),
            f"Error against the {density}; the line is the mean of twenty bins.{few}",
        )
    if any(set(row) - {"step", "time_s"} for row in run.history):
        drawn["training"] = (curves.training_curves(run.history), f"Training and validation of {run.name}.")
    return drawn


def _explained(s: Scored, truth: np.ndarray) -> float | None:
    variance = float(truth.var())
    return 1 - s.mse.value / variance if variance > 0 else None


def _numbers(s: Scored, truth: np.ndarray) -> Mapping[str, Any]:
    return {
        "mse": s.mse.numbers() | {"low": s.summary.low, "high": s.summary.high},
        "mae": s.mae.numbers(),
        "variance_explained": _explained(s, truth),
        "mse_by_seed": (((s.value - truth[None]) ** 2).mean(axis=1)).tolist(),
    }


def _small(x: float) -> str:
    """Three digits; powers of ten where the number is small, which squared errors of a share always are."""
    return (f"{x:.3g}" if x == 0 or 1e-3 <= abs(x) < 1e5 else f"{x:.2e}").replace("-", "−")
