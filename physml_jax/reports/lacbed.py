"""LACBED patterns predicted from projected potentials: the index R beside the baselines, per space group, with figures.

Every number of a network stands beside what needs no learning: the mean training pattern, the pattern of the most
similar training crystal, and, where the data hold it, a Bloch-wave calculation with a handful of beams.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from physml_jax.analysis import baselines
from physml_jax.analysis.scores import Summary, summarise, summarise_groups
from physml_jax.analysis.zncc import r_index
from physml_jax.reports import lacbed_figures as figures
from physml_jax.typing import Report, Run, Table

#: R above which a test pattern counts as one that the training set already holds.
SEEN = 0.99


class Scored(NamedTuple):
    """A method with its scores on every test crystal.

    Attributes:
      r: float64 [N], index of fit.
      mse: float64 [N], mean squared error of the intensity.
      mean: float64 [N], mean intensity of the prediction.
      summary: statistics of ``r``.
    """

    r: np.ndarray
    mse: np.ndarray
    mean: np.ndarray
    summary: Summary


def make_report(
    *,
    target: str = "pattern",
    inputs: str = "potential",
    num_rows: int = 3,
    row_groups: Sequence[int] = (216, 213, 223),
    num_extremes: int = 3,
    threshold: float = 0.9,
    log_a_weight: float = 1.0,
    dihedral: bool = True,
) -> Callable[[Sequence[Run]], Report]:
    """Report of one or several runs that predict patterns.

    Args:
      target: batch key of the true pattern [N, H, W, T]; predictions have the same key.
      inputs: batch key of the image in which neighbours are looked for.
      num_rows: rows of the figure of predictions.
      row_groups: space groups shown there, as far as present; the most frequent ones fill up.
      num_extremes: crystals in the figures of the best and of the worst cases.
      threshold: limit of the share of bad predictions.
      log_a_weight: weight of the lattice parameter in the nearest-neighbour baseline, used where the data hold it.
      dihedral: lets that baseline rotate and mirror training crystals.

    Returns:
      A function of finished runs. Baselines are those of the first run; further runs must have the same test examples.
    """

    def report(runs: Sequence[Run]) -> Report:
        if not runs:
            raise ValueError("runs: expected at least one finished run")
        names = _names(runs)
        for name, run in zip(names, runs, strict=True):
            _check(name, run, target, inputs)
            if not np.array_equal(run.examples[target], runs[0].examples[target]):
                raise ValueError(f"runs: {name} was evaluated on other examples than {names[0]}; report them apart")
        first = runs[0]
        truth = np.asarray(first.examples[target], np.float32)
        clusters = _optional(first, "template")

        def scored(prediction: np.ndarray) -> Scored:
            return _score(truth, prediction, clusters=clusters, threshold=threshold)

        models = {n: scored(np.asarray(r.predictions[target], np.float32)) for n, r in zip(names, runs, strict=True)}
        images = _baseline_images(first, target=target, inputs=inputs, weight=log_a_weight, dihedral=dihedral)
        compared = {name: scored(image) for name, image in images.items()}
        seen, oracle = _closest_patterns(first.reference[target], truth, dihedral=dihedral)
        groups = _optional(first, "space_group")

        tables = {"scores": _score_table(models, compared, scored(oracle), threshold)}
        model = models[names[0]]
        if groups is not None:
            tables["space_groups"] = _group_table(model, compared, groups, clusters, threshold)
        error = _optional(first, "convergence_error")
        drawn = figures.draw(
            first,
            name=names[0],
            target=target,
            inputs=inputs,
            r=model.r,
            others={k: v.r for k, v in [*list(models.items())[1:], *compared.items()]},
            means={names[0]: model.mean, "nearest neighbour": compared["nearest neighbour"].mean},
            num_rows=num_rows,
            row_groups=row_groups,
            num_extremes=num_extremes,
            threshold=threshold,
        )
        return Report(
            title=f"LACBED patterns from projected potentials: {', '.join(names)}",
            summary=_summary(runs, models, compared, clusters, seen, error, truth),
            metrics=_metrics(models, compared, groups, clusters, seen, error, threshold),
            tables=tables,
            figures=drawn,
        )

    return report


def _names(runs: Sequence[Run]) -> list[str]:
    """Names for rows; runs of equal name are told apart by their seeds, then by their place."""
    names = [run.name for run in runs]
    if len(set(names)) < len(names):
        names = [f"{n}, seed {r.config.get('seed', '?')}" for n, r in zip(names, runs, strict=True)]
    if len(set(names)) < len(names):
        names = [f"{n}, run {i + 1}" for i, n in enumerate(names)]
    return names


def _check(name: str, run: Run, target: str, inputs: str) -> None:
    needed = (("examples", (target, inputs)), ("predictions", (target,)), ("reference", (target, inputs)))
    for part, keys in needed:
        held = getattr(run, part)
        for key in keys:
            if key not in held:
                raise ValueError(f"run {name}: {part} lack {key!r}; they hold: {', '.join(sorted(held)) or 'nothing'}")
            if not np.all(np.isfinite(held[key])):
                raise ValueError(f"run {name}: {part}[{key!r}] has values that are not finite")
    shapes = run.predictions[target].shape, run.examples[target].shape
    if shapes[0] != shapes[1] or len(shapes[0]) != 4 or not shapes[0][0]:
        raise ValueError(
            f"run {name}: expected predictions and examples {target!r} of one shape [N, H, W, T], got "
            f"{shapes[0]} and {shapes[1]}"
        )


def _optional(run: Run, key: str) -> np.ndarray | None:
    return np.asarray(run.examples[key]) if key in run.examples else None


def _score(truth, prediction, *, clusters, threshold, chunk_size=256) -> Scored:
    r, mse = [], []
    for start in range(0, len(truth), chunk_size):
        rows = slice(start, start + chunk_size)
        # One index per thickness: over all of them together the change of mean intensity with thickness would count.
        index = np.asarray(r_index(prediction[rows], truth[rows], axes=(-3, -2)), np.float64)
        r.append(index.mean(axis=-1))
        mse.append(np.mean((prediction[rows].astype(np.float64) - truth[rows]) ** 2, axis=(1, 2, 3)))
    r = np.concatenate(r)
    mean = prediction.mean(axis=(1, 2, 3), dtype=np.float64)
    return Scored(r, np.concatenate(mse), mean, summarise(r, clusters=clusters, threshold=threshold))


def _baseline_images(run: Run, *, target, inputs, weight, dihedral) -> dict[str, np.ndarray]:
    patterns, potentials = np.asarray(run.reference[target]), np.asarray(run.reference[inputs])
    truth = run.examples[target]
    log_a = {}
    if weight and "log_a" in run.reference and "log_a" in run.examples:
        log_a = {"train_log_a": run.reference["log_a"], "test_log_a": run.examples["log_a"], "log_a_weight": weight}
    found = baselines.nearest_neighbour(
        potentials, run.examples[inputs], dihedral=dihedral and _square(potentials, patterns), **log_a
    )
    images = {
        "mean image": np.broadcast_to(baselines.mean_image(patterns), truth.shape),
        "nearest neighbour": baselines.turn(patterns[found.index], found.operation),
    }
    if "few_beam" in run.examples:
        images["few-beam Bloch waves"] = np.asarray(run.examples["few_beam"])
        if images["few-beam Bloch waves"].shape != truth.shape:
            raise ValueError(
                f"examples['few_beam']: expected shape {truth.shape}, got {run.examples['few_beam'].shape}"
            )
    return images


def _closest_patterns(patterns, truth, *, dihedral) -> tuple[np.ndarray, np.ndarray]:
    """R of the training pattern closest to every true pattern, and that pattern: what no lookup can beat."""
    patterns = np.asarray(patterns)
    found = baselines.nearest_neighbour(patterns, truth, dihedral=dihedral and _square(patterns))
    return 1 - found.distance**2 / 2, baselines.turn(patterns[found.index], found.operation)


def _square(*images: np.ndarray) -> bool:
    return all(x.shape[1] == x.shape[2] for x in images)


def _score_table(models, compared, oracle, threshold) -> Table:
    rows = [[name, *_row(s)] for name, s in models.items()]
    rows += [[f"baseline: {name}", *_row(s)] for name, s in compared.items()]
    rows.append(["closest training pattern (knows the truth)", *_row(oracle)])
    columns = (
        "method",
        "mean R",
        "95 % interval",
        "median R",
        "5th percentile",
        f"R < {threshold:g}",
        "MSE",
        "n",
    )
    caption = (
        "Index of fit R = (1 + ZNCC) / 2 on held-out crystals; 1 is perfect, 0.5 unrelated. Intervals of the mean come "
        "from resampling structure templates. MSE of the intensity as a fraction of the incident beam. The last row is "
        "no prediction: it takes the training pattern most similar to the true one."
    )
    return Table(caption, columns, rows)


def _row(s: Scored) -> list[Any]:
    x = s.summary
    return [x.mean, _interval(x), x.median, x.percentile_5, x.share_below, float(s.mse.mean()), x.n]


def _group_table(model, compared, groups, clusters, threshold) -> Table:
    found = summarise_groups(model.r, groups, clusters=clusters, threshold=threshold, num_resamples=500)
    others = {name: summarise_groups(s.r, groups, num_resamples=1) for name, s in compared.items()}
    columns = ("space group", "n", "templates", "mean R", "median R", "worst R", *(f"mean R, {n}" for n in others))
    rows = [
        [
            figures.space_group_name(int(g)),
            x.n,
            x.num_clusters if clusters is not None else None,
            x.mean,
            x.median,
            float(model.r[groups == g].min()),
            *(o[g].mean for o in others.values()),
        ]
        for g, x in found.items()
    ]
    return Table("The same by space group. Groups with one template say little about the group.", columns, rows)


def _summary(runs, models, compared, clusters, seen, error, truth) -> list[str]:
    name, model = next(iter(models.items()))
    x = model.summary
    units = f"{x.num_clusters} structure templates" if clusters is not None else "crystals taken as independent"
    seeds = sorted({str(run.config.get("seed", "unknown")) for run in runs})
    lines = [
        f"{name}: mean R = {x.mean:.4f} (95 % interval {_interval(x)}), median {x.median:.4f}, 5th percentile "
        f"{x.percentile_5:.4f} over {x.n} held-out crystals, {units}; "
        + (
            f"seed {seeds[0]}, one training run, so the scatter between trainings is not in the interval."
            if len(runs) == 1
            else f"first of {len(runs)} runs, seeds {', '.join(seeds)}."
        )
    ]
    if len(runs) > 1:
        means = np.array([s.summary.mean for s in models.values()])
        lines.append(
            f"Mean R over the runs: {means.mean():.4f} ± {means.std(ddof=1):.4f} (standard deviation of a run)."
        )
    lines.append(_verdict(name, model, compared, clusters))
    new = seen < SEEN
    if new.all():
        lines.append(f"No test pattern has a twin (R ≥ {SEEN:g}) among the training patterns.")
    else:
        rest = f"on the other {new.sum()} the mean R is {model.r[new].mean():.4f}" if new.any() else "no other is left"
        twins = f"{np.sum(~new)} of {len(new)} test patterns have a twin (R ≥ {SEEN:g})"
        lines.append(f"{twins} among the training patterns; {rest}.")
    rms = float(np.sqrt(np.mean((model.mean - truth.mean(axis=(1, 2, 3), dtype=np.float64)) ** 2)))
    lines.append(f"R forgives a wrong brightness: the mean intensity is off by {rms:.3g} of the incident beam (rms).")
    if error is not None and np.all(np.isfinite(error)):
        lines.append(
            f"The truth itself is a calculation with finitely many beams: its estimated largest error is "
            f"{np.median(error):.2g} in the median crystal and {error.max():.2g} in the worst, in fractions of the "
            "incident beam. Smaller differences of intensity mean nothing."
        )
    return lines


def _verdict(name, model, compared, clusters) -> str:
    """Who wins, from the differences crystal by crystal, which scatter less than the scores."""
    best = max(compared, key=lambda k: compared[k].summary.mean)
    gain = summarise(model.r - compared[best].r, clusters=clusters)
    text = ", ".join(f"{k} {s.summary.mean:.4f}" for k, s in compared.items())
    if gain.low is None or gain.low <= 0 <= gain.high:
        result = f"The network and the best baseline, {best}, cannot be told apart"
    elif gain.mean > 0:
        result = f"The network beats the best baseline, {best}"
    else:
        result = f"The network loses to a baseline, {best}"
    wins = np.mean(model.r > compared[best].r)
    difference = f"{gain.mean:+.4f}".replace("-", "−")
    return (
        f"{result}: difference in mean R {difference} (95 % interval {_interval(gain, sign='+')}), and it is the "
        f"better of the two on {100 * wins:.0f} % of the crystals. Mean R of the baselines: {text}."
    ).replace("The network", f"The network ({name})", 1)


def _interval(x: Summary, sign: str = "") -> str:
    return "–" if x.low is None else f"{x.low:{sign}.3f} to {x.high:{sign}.3f}".replace("-", "−")


def _metrics(models, compared, groups, clusters, seen, error, threshold) -> dict[str, Any]:
    found = [_numbers(s) for s in models.values()]
    model = found[0] | {"threshold": threshold}
    r = next(iter(models.values())).r
    new = seen < SEEN
    out: dict[str, Any] = {
        "model": model,
        "baselines": {name.replace(" ", "_").replace("-", "_"): _numbers(s) for name, s in compared.items()},
        "without_twins": {"n": int(new.sum()), "r_mean": float(r[new].mean()) if new.any() else None},
    }
    if len(found) > 1:
        means = np.array([f["r_mean"] for f in found])
        out["runs"] = dict(zip(models, found, strict=True))
        out["all_runs"] = {"n": len(found), "r_mean": float(means.mean()), "r_mean_std": float(means.std(ddof=1))}
    if groups is not None:
        by_group = summarise_groups(r, groups, clusters=clusters, threshold=threshold, num_resamples=500)
        out["space_groups"] = {str(g): {"n": x.n, "r_mean": x.mean, "r_median": x.median} for g, x in by_group.items()}
    if error is not None:
        out["truth"] = {
            "convergence_error_median": float(np.median(error)),
            "convergence_error_percentile_95": float(np.percentile(error, 95)),
            "convergence_error_max": float(np.max(error)),
        }
    return out


def _numbers(s: Scored) -> Mapping[str, Any]:
    x = s.summary
    return {
        "r_mean": x.mean,
        "r_low": x.low,
        "r_high": x.high,
        "r_median": x.median,
        "r_percentile_5": x.percentile_5,
        "r_share_below": x.share_below,
        "mse": float(s.mse.mean()),
        "n": x.n,
        "num_templates": x.num_clusters,
    }
