"""Finite-size scaling in a report: p_c and nu from true labels and from what each network says."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from physml_jax.analysis import finite_size, percolation
from physml_jax.reports import percolation_published as published
from physml_jax.reports import seeds
from physml_jax.reports.percolation_answers import States, answers, kind_of_states, states
from physml_jax.typing import Run, Table
from physml_jax.viz import transitions

TRUTH = "true labels"
#: Sets of ordinary states; the others are made to mislead and have no scaling.
_ORDINARY = ("random", "bernoulli")
_MIN_LEVELS = 5
#: States per density, on average; fewer are noise in a figure and nothing in a fit.
_MIN_STATES = 10
#: Slopes of two sizes that are equal within the noise give any exponent.
_LARGEST_EXPONENT = 10


class Records(NamedTuple):
    """Shares of spanning states by density and size.

    Attributes:
      p: float64 [K].
      size: int64 [K].
      successes: int64 [K].
      totals: int64 [K].
      low: float64 [K], end of Wilson's interval.
      high: float64 [K].
    """

    p: np.ndarray
    size: np.ndarray
    successes: np.ndarray
    totals: np.ndarray
    low: np.ndarray
    high: np.ndarray


class Scaled(NamedTuple):
    """Scaling of the truth, or of what the seeds of a model say.

    Attributes:
      records: of the truth or of the first seed.
      fits: one per seed; empty where none could be made.
      crossings: of the truth or of the first seed.
      exact: whether the records are sorted by the number of sites, see ``States``.
    """

    records: Records
    fits: Sequence[finite_size.Collapse]
    crossings: Sequence[finite_size.Crossing]
    exact: bool


def scale(
    models: Mapping[str, Sequence[Run]],
    first: States,
    *,
    label: str,
    density: str,
    correction: float,
    window: tuple[float, float],
    num_resamples: int,
) -> dict[str, Scaled]:
    """Fits the truth and every model; empty where the runs hold fewer than two sizes of ordinary states."""
    everyone = [r for members in models.values() for r in members]
    sets = _sets(everyone, first, label=label, density=density)
    if len({s.size for s in sets.values()}) < 2:
        return {}
    exact = next(iter(sets.values())).exact
    settings = {"window": window, "num_resamples": num_resamples}
    fit_settings = settings | {"correction": correction or None, "exact_count": exact}

    def scaled(outcomes: Sequence[Mapping[str | None, np.ndarray]]) -> Scaled:
        all_records = [_records(sets, outcome) for outcome in outcomes]
        fits = [f for r in all_records if (f := _fit(r, **fit_settings)) is not None]
        try:
            crossings = finite_size.crossings(*all_records[0][:4], **settings)
        except (ValueError, np.linalg.LinAlgError):
            crossings = []
        return Scaled(all_records[0], fits, crossings, exact)

    found = {TRUTH: scaled([{name: s.truth for name, s in sets.items()}])}
    for model, members in models.items():
        if any(name is not None and name not in r.probes for r in members for name in sets):
            continue
        outcomes = []
        for run in members:
            said = {}
            for name, s in sets.items():
                predictions = run.predictions if name is None else run.probes[name].predictions
                said[name] = answers(model, [predictions], s.truth).said[0]
            outcomes.append(said)
        found[model] = scaled(outcomes)
    return found


def table(found: Mapping[str, Scaled]) -> Table:
    """p_c and nu with intervals."""
    rows = []
    for name, s in found.items():
        if not s.fits:
            rows.append([name, None, None, None, None, None, None, "no fit: flat, or a step in the density"])
            continue
        threshold, exponent = (seeds.mean([getattr(f, k).value for f in s.fits]) for k in ("threshold", "exponent"))
        fit = s.fits[0]
        rows.append(
            [
                name,
                threshold.value,
                threshold.error,
                _interval(fit.threshold, 4),
                exponent.value,
                exponent.error,
                _interval(fit.exponent, 3),
                f"{fit.deviance:.0f} / {fit.degrees_of_freedom}",
            ]
        )
    rows.append(
        ["infinite lattice, known", published.CRITICAL_DENSITY, None, None, published.EXPONENT_NU, None, None, None]
    )
    columns = (
        "source",
        "p_c",
        "standard error over seeds",
        "95 % interval (counts)",
        "nu",
        "standard error over seeds ",
        "95 % interval (counts) ",
        "deviance / degrees of freedom",
    )
    sizes = ", ".join(map(str, np.unique(next(iter(found.values())).records.size)))
    kind = (
        "States have exact densities; the smearing to independent occupation is part of the fit."
        if found[TRUTH].exact
        else "States have independent occupation."
    )
    caption = (
        f"Finite-size scaling over L = {sizes}: one curve of (p − p_c) L^(1/nu) fitted to the counts by maximum "
        f"likelihood. Intervals resample the counts (of the first seed). {kind}"
    )
    return Table(caption, columns, rows)


def crossing_table(found: Mapping[str, Scaled]) -> Table | None:
    """Where the curves of neighbouring sizes cross, which assumes no scaling function."""
    rows = [
        [
            name,
            f"{c.sizes[0]} and {c.sizes[1]}",
            c.threshold.value,
            _interval(c.threshold, 4),
            c.share,
            c.exponent.value if c.exponent.value < _LARGEST_EXPONENT else None,
            _interval(c.exponent, 2),
        ]
        for name, s in found.items()
        for c in s.crossings
    ]
    if not rows:
        return None
    columns = (
        "source",
        "sizes",
        "p at the crossing",
        "95 % interval",
        "share there",
        "nu from slopes",
        "95 % interval ",
    )
    caption = (
        "Crossings of the shares of neighbouring sizes, as counted: at exact densities nu from slopes comes out too "
        "large, since the smearing by independent occupation is missing."
    )
    return Table(caption, columns, rows)


def figure(found: Mapping[str, Scaled]) -> Any:
    """Shares as counted at the left, on one curve at the right."""
    drawn = {}
    for name, s in found.items():
        r = s.records
        fit = s.fits[0] if s.fits else None
        x = curve = used = None
        text = ""
        if fit is not None:
            x, used = fit.x, fit.used
            grid = np.linspace(x[used].min(), x[used].max(), 200)
            curve = (grid, finite_size.scaling_function(fit, grid))
            text = rf"$p_c$ = {_plus(fit.threshold, 4)}, $\nu$ = {_plus(fit.exponent, 2)}"
        drawn[name] = transitions.Scaling(r.p, r.size, r.successes / r.totals, r.low, r.high, x, used, curve, text)
    return transitions.collapse(drawn, critical=published.CRITICAL_DENSITY)


def numbers(found: Mapping[str, Scaled]) -> dict[str, Any]:
    """For ``metrics.json``."""
    out = {}
    for name, s in found.items():
        if s.fits:
            fit = s.fits[0]
            out[name] = {
                "p_c": seeds.mean([f.threshold.value for f in s.fits]).numbers()
                | {"low": fit.threshold.low, "high": fit.threshold.high},
                "nu": seeds.mean([f.exponent.value for f in s.fits]).numbers()
                | {"low": fit.exponent.low, "high": fit.exponent.high},
                "deviance": fit.deviance,
                "degrees_of_freedom": fit.degrees_of_freedom,
            }
    return out


def _sets(runs, first, *, label, density) -> dict[str | None, States]:
    """Sets of ordinary states by probe name, ``None`` for the test set; only one kind of occupation among them."""
    found: dict[str | None, States] = {}
    if kind_of_states(runs[0].config) in _ORDINARY:
        found[None] = first
    for run in runs:
        for name, probe in run.probes.items():
            if name not in found and kind_of_states(run.config, name) in _ORDINARY:
                found[name] = states(f"probe {name}", probe.examples, label=label, density=density)
    found = {
        name: s
        for name, s in found.items()
        if len(s.levels.density) >= _MIN_LEVELS and len(s.truth) >= _MIN_STATES * len(s.levels.density)
    }
    by_kind = {kind: {n: s for n, s in found.items() if s.exact == kind} for kind in (True, False)}
    return max(by_kind.values(), key=lambda sets: len({s.size for s in sets.values()}))


def _records(sets, outcome) -> Records:
    parts = []
    for name, s in sets.items():
        found = percolation.shares(outcome[name], s.levels.codes)
        size = np.full(len(found.total), s.size)
        parts.append((s.levels.density, size, found.count, found.total, found.low, found.high))
    return Records(*(np.concatenate(column) for column in zip(*parts, strict=True)))


def _fit(records: Records, **settings) -> finite_size.Collapse | None:
    """A network that says the same everywhere, or has a step, has no transition to fit; nor a curve that goes down."""
    try:
        fit = finite_size.collapse(*records[:4], **settings)
    except (ValueError, np.linalg.LinAlgError):
        return None
    inside = np.linspace(fit.x[fit.used].min(), fit.x[fit.used].max(), 100)
    rising = np.diff(finite_size.scaling_function(fit, inside)).min() > -0.02
    sound = 0 < fit.threshold.value < 1 and 0.1 < fit.exponent.value < 20
    return fit if sound and rising else None


def _interval(x: finite_size.Estimate, digits: int) -> str | None:
    return None if x.low is None else f"{x.low:.{digits}f} to {x.high:.{digits}f}"


def _plus(x: finite_size.Estimate, digits: int) -> str:
    return f"{x.value:.{digits}f}" + ("" if x.error is None else f" ± {x.error:.{digits}f}")
