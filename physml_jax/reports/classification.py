"""A classifier beside the answers that need no network: the most frequent class, and one number with a threshold."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from physml_jax.analysis import classification as scores
from physml_jax.analysis import single_feature
from physml_jax.analysis.scores import Summary, summarise
from physml_jax.reports import seeds
from physml_jax.typing import Report, Run, Table
from physml_jax.viz import confusion, curves


class Scored(NamedTuple):
    """A classifier's answers on the test examples.

    Attributes:
      right: bool [N].
      matrix: int64 [C, C], rows are true classes.
      log_loss: mean of -ln p(true class), or ``None`` for answers without probability.
    """

    right: np.ndarray
    matrix: np.ndarray
    log_loss: float | None


def make_report(
    *,
    label: str | None = None,
    class_names: Sequence[str] = (),
    density: str = "density",
    title: str = "Classification",
) -> Callable[[Sequence[Run]], Report]:
    """Report of one or several classification runs.

    Args:
      label: batch key of the true class; by default the one that the run's task was told to learn, else ``"label"``.
      class_names: text per class; by default the density where every class has one of its own, else numbers.
      density: batch key of the one number per example that a baseline may look at, if the examples hold it.
      title: heading.

    Returns:
      A function of finished runs, all on the same test examples; runs of one name are the seeds of one model.
      Predictions hold ``probabilities`` or ``logits`` [N, C].
    """

    def report(runs: Sequence[Run]) -> Report:
        if not runs:
            raise ValueError("runs: expected at least one finished run")
        names = [r.name if len(runs) == 1 else f"{r.name}, run {i + 1}" for i, r in enumerate(runs)]
        members = seeds.by_model(runs)
        first = runs[0]
        key = label or first.config.get("task", {}).get("kwargs", {}).get("label") or "label"
        truth = _held(first, names[0], "examples", key).astype(np.int64)
        models, shares = {}, {}
        for name, run in zip(names, runs, strict=True):
            if not np.array_equal(_held(run, name, "examples", key), truth):
                raise ValueError(f"runs: {name} was evaluated on other examples than {names[0]}; report them apart")
            shares[name] = _probabilities(run, name, len(truth))
            models[name] = _score(truth, shares[name])
        num_classes = shares[names[0]].shape[1]
        compared, notes = _baselines(first, key, truth, num_classes, density)
        texts = list(class_names) or _density_names(first, truth, num_classes, density)
        figures = {}
        if density in first.examples and num_classes == 2:
            figures["density"] = _density_figure(
                np.asarray(first.examples[density]), truth, shares, class_names, density
            )
        for i, (model, held) in enumerate(members.items()):
            found = [models[n].matrix for n, r in zip(names, runs, strict=True) if r.name == model]
            figures["confusion" if i == 0 else f"confusion_{i + 1}"] = _confusion_figure(model, found, texts)
            if i == 0 and len(held) < len(runs) and len(members) > 4:
                break  # a gallery of many large matrices says less than the table
        if any(set(row) - {"step", "time_s"} for row in first.history):
            figures["training"] = (curves.training_curves(first.history), "Training and validation over the steps.")
        return Report(
            title=f"{title}: {', '.join(members if len(members) < len(runs) else names)}",
            summary=_summary(runs, models, compared, notes, truth),
            metrics=_metrics(models, compared) | _by_model(runs, models),
            tables=_seed_table(runs, models) | {"scores": _table(models, compared)},
            figures=figures,
        )

    return report


def _held(run: Run, name: str, part: str, key: str) -> np.ndarray:
    held = getattr(run, part)
    if key not in held:
        raise ValueError(f"run {name}: {part} lack {key!r}; they hold: {', '.join(sorted(held)) or 'nothing'}")
    return np.asarray(held[key])


def _probabilities(run: Run, name: str, length: int) -> np.ndarray:
    if "probabilities" in run.predictions:
        found = np.asarray(run.predictions["probabilities"], np.float64)
    elif "logits" in run.predictions:
        found = scores.probabilities_from_logits(run.predictions["logits"])
    else:
        held = ", ".join(sorted(run.predictions)) or "nothing"
        raise ValueError(f"run {name}: predictions lack 'probabilities' and 'logits'; they hold: {held}")
    if found.ndim != 2 or len(found) != length or not np.all(np.isfinite(found)):
        raise ValueError(f"run {name}: expected finite predictions [{length}, C], got shape {found.shape}")
    return found


def _score(truth: np.ndarray, probabilities: np.ndarray) -> Scored:
    answers = probabilities.argmax(axis=1)
    matrix = scores.confusion_matrix(truth, answers, num_classes=probabilities.shape[1])
    likely = np.clip(probabilities[np.arange(len(truth)), truth], 1e-12, 1.0)
    return Scored(answers == truth, matrix, float(-np.log(likely).mean()))


def _baselines(
    run: Run, key: str, truth: np.ndarray, num_classes: int, density: str
) -> tuple[dict[str, Scored], list[str]]:
    """Baselines fitted on the training examples, or, without any, on the test examples, which can only flatter them."""
    notes = []
    fitted = run.reference if key in run.reference else run.examples
    if fitted is run.examples:
        notes.append("Baselines are fitted on the test examples themselves, for lack of a finite training set.")
    labels = np.asarray(fitted[key]).astype(np.int64)
    majority = scores.majority_class(labels)
    found = {"most frequent class": _answers(truth, np.full(len(truth), majority), num_classes)}
    if num_classes == 2 and density in fitted and density in run.examples:
        rule = scores.best_threshold(fitted[density], labels)
        answers = ((np.asarray(run.examples[density], np.float64) > rule.value) == rule.above).astype(np.int64)
        found[f"threshold on {density}"] = _answers(truth, answers, num_classes)
        side = "above" if rule.above else "below"
        notes.append(f"The best rule that sees only the {density} answers class 1 {side} {rule.value:.4f}.")
    elif density in fitted and density in run.examples:
        answers = scores.nearest_mean(fitted[density], labels, run.examples[density])
        found[f"nearest class by mean {density}"] = _answers(truth, answers, num_classes)
        # The best rule of one number where classes are no intervals of it, as of a length that peaks at a transition.
        shares = [
            single_feature.binned_mean(fitted[density], (labels == k).astype(np.float64), run.examples[density])
            for k in range(num_classes)
        ]
        found[f"most frequent class at that {density}"] = _answers(truth, np.argmax(shares, axis=0), num_classes)
    if np.ndim(fitted.get("image")) == 4 and np.ndim(run.examples.get("image")) == 4:
        means = single_feature.pooled(fitted["image"]), single_feature.pooled(run.examples["image"])
        if num_classes == 2:
            answers = (single_feature.logistic_regression(means[0], labels, means[1]) > 0.5).astype(np.int64)
        else:
            # With weights 2 m_k and constants -m_k^2, m_k the mean of class k, a linear read-out of one number picks
            # the class of the nearest mean.
            answers = scores.nearest_mean(means[0], labels, means[1])
        found["linear read-out of mean pooling"] = _answers(truth, answers, num_classes)
        if found["linear read-out of mean pooling"].right.all():
            notes.append("Counting is exact here: a linear read-out of mean pooling makes no error.")
    return found, notes


def _answers(truth: np.ndarray, answers: np.ndarray, num_classes: int) -> Scored:
    return Scored(answers == truth, scores.confusion_matrix(truth, answers, num_classes=num_classes), None)


def _accuracies(runs: Sequence[Run], models: Mapping[str, Scored]) -> dict[str, seeds.Mean]:
    """Accuracy over the seeds of every model."""
    found: dict[str, list[float]] = {}
    for run, s in zip(runs, models.values(), strict=True):
        found.setdefault(run.name, []).append(s.right.mean())
    return {name: seeds.mean(values) for name, values in found.items()}


def _seed_table(runs: Sequence[Run], models: Mapping[str, Scored]) -> dict[str, Table]:
    """One row per model where there are several runs; nothing for a single one."""
    if len(runs) == 1:
        return {}
    rows = []
    for name, accuracy in _accuracies(runs, models).items():
        of_model = [s for r, s in zip(runs, models.values(), strict=True) if r.name == name]
        f1 = seeds.mean(scores.macro_f1(s.matrix) for s in of_model)
        loss = seeds.mean(s.log_loss for s in of_model)
        rows.append([name, accuracy.n, accuracy.text(), f1.text(), loss.text()])
    columns = ("model", "seeds", "accuracy", "macro F1", "log loss")
    return {"models": Table("Mean over seeds ± its standard error.", columns, rows)}


def _by_model(runs: Sequence[Run], models: Mapping[str, Scored]) -> dict[str, Any]:
    if len(runs) == 1:
        return {}
    return {"models": {name: {"accuracy": m.numbers()} for name, m in _accuracies(runs, models).items()}}


def _confusion_figure(name: str, found: Sequence[np.ndarray], texts: Sequence[str] | None) -> tuple[Any, str]:
    """The matrix of one seed, or mean and standard error over several."""
    if len(found) == 1:
        matrix, errors, seeds_text = found[0], None, ""
    else:
        matrix, errors = np.mean(found, axis=0), seeds.standard_error(np.array(found))
        seeds_text = f" Mean over {len(found)} seeds" + (
            ", ± standard error." if len(matrix) <= 12 else "; standard errors are in the table."
        )
    caption = f"Confusion matrix of {name}: rows are true classes with their sums, columns the answers.{seeds_text}"
    return confusion.confusion(matrix, names=texts or None, errors=errors), caption


def _density_names(run: Run, truth: np.ndarray, num_classes: int, density: str) -> list[str] | None:
    """Classes of equal density are called by it, if every class occurs."""
    if density not in run.examples or len(np.unique(truth)) < num_classes:
        return None
    x = np.asarray(run.examples[density], np.float64)
    groups = [x[truth == c] for c in range(num_classes)]
    if max(np.ptp(g) for g in groups) > 1e-6:
        return None
    return [f"{g[0]:.4g}" for g in groups]


def _table(models: Mapping[str, Scored], compared: Mapping[str, Scored]) -> Table:
    rows = []
    for name, s in [*models.items(), *((f"baseline: {k}", v) for k, v in compared.items())]:
        low, high = scores.wilson_interval(int(s.right.sum()), len(s.right))
        rows.append(
            [
                name,
                float(s.right.mean()),
                f"{low:.4f} to {high:.4f}",
                scores.balanced_accuracy(s.matrix),
                scores.macro_f1(s.matrix),
                s.log_loss,
                len(s.right),
            ]
        )
    columns = ("method", "accuracy", "95 % interval (Wilson)", "balanced accuracy", "macro F1", "log loss", "n")
    return Table("Scores on held-out examples. Intervals do not contain the scatter between trainings.", columns, rows)


def _summary(runs, models, compared, notes, truth) -> list[str]:
    name, model = next(iter(models.items()))
    low, high = scores.wilson_interval(int(model.right.sum()), len(truth))
    seeds = ", ".join(sorted({str(r.config.get("seed", "unknown")) for r in runs}))
    lines = [
        f"{name}: accuracy {model.right.mean():.4f} (95 % interval {low:.4f} to {high:.4f}) on {len(truth)} held-out "
        f"examples; seed {seeds}" + ("." if len(runs) > 1 else ", one training run.")
    ]
    for name, accuracy in _accuracies(runs, models).items():
        if accuracy.n > 1:
            text = f"{accuracy.text()} (mean and its standard error)"
            lines.append(f"{name}: accuracy over {accuracy.seeds()} {text}.")
    best = max(compared, key=lambda k: compared[k].right.mean())
    gain = summarise(model.right.astype(np.float64) - compared[best].right)
    if gain.low is None or gain.low <= 0 <= gain.high:
        verdict = f"It cannot be told apart from the best baseline, {best}"
    else:
        verdict = f"It {'beats' if gain.mean > 0 else 'loses to'} the best baseline, {best}"
    lines.append(f"{verdict} ({compared[best].right.mean():.4f}): difference {_signed(gain.mean)}{_interval(gain)}.")
    return lines + notes


def _signed(x: float) -> str:
    return f"{x:+.4f}".replace("-", "−")


def _interval(x: Summary) -> str:
    return "" if x.low is None else f" (95 % interval {x.low:+.4f} to {x.high:+.4f})".replace("-", "−")


def _density_figure(density, truth, shares, class_names, name) -> tuple[Any, str]:
    """True and answered share of class 1 per density; nearly equal densities are pooled into at most 40 bins."""
    edges = np.unique(density)
    if len(edges) > 40:
        edges = np.unique(np.quantile(density, np.linspace(0, 1, 41)[:-1]))
    bins = np.searchsorted(edges, density, side="right") - 1
    used = np.unique(bins)
    x = np.array([density[bins == b].mean() for b in used])
    lines = {"true": np.array([truth[bins == b].mean() for b in used])}
    for run, p in shares.items():
        lines[run] = np.array([p[bins == b, 1].mean() for b in used])
    text = class_names[1] if len(class_names) == 2 else "class 1"
    figure = curves.rate_curves(x, lines, xlabel=name, ylabel=f"share of {text}")
    return figure, f"Share of {text} over the {name}: true, and as the mean probability that the network gives."


def _metrics(models: Mapping[str, Scored], compared: Mapping[str, Scored]) -> dict[str, Any]:
    found = [_numbers(s) for s in models.values()]
    out: dict[str, Any] = {
        "model": found[0],
        "baselines": {name.replace(" ", "_").replace("-", "_"): _numbers(s) for name, s in compared.items()},
    }
    if len(found) > 1:
        means = np.array([f["accuracy"] for f in found])
        out["runs"] = dict(zip(models, found, strict=True))
        out["all_runs"] = {"n": len(found), "accuracy": float(means.mean()), "accuracy_std": float(means.std(ddof=1))}
    return out


def _numbers(s: Scored) -> dict[str, Any]:
    low, high = scores.wilson_interval(int(s.right.sum()), len(s.right))
    return {
        "accuracy": float(s.right.mean()),
        "accuracy_low": low,
        "accuracy_high": high,
        "balanced_accuracy": scores.balanced_accuracy(s.matrix),
        "macro_f1": scores.macro_f1(s.matrix),
        "log_loss": s.log_loss,
        "n": len(s.right),
        "confusion": s.matrix.tolist(),
    }
