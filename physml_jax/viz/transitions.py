"""Curves over the control parameter of a transition: shares with bands, panels of answers, scaling and collapse."""

import textwrap
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from physml_jax.viz import style

_MARKERS = "os^Dv<>"


class Band(NamedTuple):
    """A curve with its interval.

    Attributes:
      y: float [n].
      low: float [n], or ``None`` for a curve without interval.
      high: float [n].
      reference: drawn as a thin dark line behind the others: a truth or a bound, not a model.
    """

    y: np.ndarray
    low: np.ndarray | None = None
    high: np.ndarray | None = None
    reference: bool = False


class Scaling(NamedTuple):
    """Shares of several sizes, and the fit that lays them on one curve.

    Attributes:
      p: float [K].
      size: int [K].
      share: float [K].
      low: float [K], lower end of the interval.
      high: float [K].
      x: float [K], scaled variable; ``None`` without a fit.
      used: bool [K], records inside the fitted window.
      curve: (x, share) of the fitted function; ``None`` without a fit.
      text: result of the fit, in a few words.
    """

    p: np.ndarray
    size: np.ndarray
    share: np.ndarray
    low: np.ndarray
    high: np.ndarray
    x: np.ndarray | None
    used: np.ndarray | None
    curve: tuple[np.ndarray, np.ndarray] | None
    text: str


def bands(
    x: np.ndarray,
    curves: Mapping[str, Band],
    *,
    xlabel: str,
    ylabel: str,
    limits: tuple[float, float] | None = None,
    marks: Mapping[str, float] | None = None,
    ylim: tuple[float, float] | None = None,
) -> Any:
    """Curves with shaded intervals in one panel.

    Args:
      x: float ``[n]``, rising.
      curves: name -> curve.
      xlabel: name of the parameter.
      ylabel: what is drawn.
      limits: range of x that is shown.
      marks: text -> value of x, drawn as vertical lines.
      ylim: range of y; by default what the shown curves need.

    Returns:
      A matplotlib figure.

    Raises:
      ValueError: if lengths differ or a value is not finite.
    """
    with style.styled():
        figure = style.new_figure(style.WIDTH * 0.68, 3.0)
        ax = figure.subplots()
        _panel(ax, _checked(x, "x"), curves, limits, marks, ylim)
        ax.set(xlabel=xlabel, ylabel=ylabel)
        figure.legend(loc="outside right upper", fontsize=7)
        return figure


def panels(
    x: np.ndarray,
    groups: Mapping[str, Mapping[str, Band]],
    *,
    xlabel: str,
    ylabel: str,
    limits: tuple[float, float] | None = None,
    marks: Mapping[str, float] | None = None,
    ylim: tuple[float, float] = (-0.03, 1.03),
) -> Any:
    """One panel per group with common axes and one legend; the same names have the same looks in all panels.

    Args:
      x: float ``[n]``, rising.
      groups: title -> curves by name.
      xlabel: name of the parameter.
      ylabel: what is drawn.
      limits: range of x that is shown.
      marks: text -> value of x, drawn as vertical lines.
      ylim: range of y.

    Returns:
      A matplotlib figure.

    Raises:
      ValueError: if there is no group, lengths differ or a value is not finite.
    """
    if not groups:
        raise ValueError("groups: expected at least one panel")
    n = len(groups)
    columns = min(n, 3)
    rows = -(-n // columns)
    with style.styled():
        figure = style.new_figure(style.WIDTH if columns > 1 else 0.68 * style.WIDTH, 0.4 + 2.2 * rows)
        axes = figure.subplots(rows, columns, squeeze=False, sharex=True, sharey=True)
        for ax, (title, curves) in zip(axes.ravel(), groups.items(), strict=False):
            _panel(ax, _checked(x, "x"), curves, limits, marks, ylim)
            ax.set_title(_wrapped(title), pad=10)
        for ax in axes.ravel()[n:]:
            ax.set_axis_off()
        for ax in axes[:, 0]:
            ax.set_ylabel(ylabel)
        for ax in axes.ravel()[max(0, n - columns) : n]:
            ax.set_xlabel(xlabel)
            ax.tick_params(labelbottom=True)
        handles = {h.get_label(): h for ax in axes.ravel() for h in ax.get_lines() if not h.get_label().startswith("_")}
        figure.legend(handles.values(), handles.keys(), loc="outside lower center", ncols=3, fontsize=7)
        return figure


def collapse(
    sources: Mapping[str, Scaling], *, xlabel: str = "density $p$", ylabel: str = "share that spans", critical=None
) -> Any:
    """Shares over the parameter on the left, over the scaled variable on the right, one row per source.

    Args:
      sources: name (the truth, a network) -> shares and fit.
      xlabel: name of the parameter.
      ylabel: what the share is of.
      critical: true p_c, drawn as a line, if known.

    Returns:
      A matplotlib figure.

    Raises:
      ValueError: if there is no source.
    """
    if not sources:
        raise ValueError("sources: expected at least one")
    n = len(sources)
    sizes = np.unique(np.concatenate([s.size for s in sources.values()]))
    fitted = [s.p[s.used] for s in sources.values() if s.used is not None]
    # All rows show the densities of the first fit, the one of the truth.
    ends = (fitted[0].min(), fitted[0].max()) if fitted else None
    with style.styled():
        figure = style.new_figure(style.WIDTH, 0.45 + 2.15 * n)
        axes = figure.subplots(n, 2, squeeze=False, sharey=True)
        for (left, right), (name, s) in zip(axes, sources.items(), strict=True):
            for i, size in enumerate(sizes):
                here = s.size == size
                if not np.any(here):
                    continue
                look = {
                    "color": style.COLOURS[i % len(style.COLOURS)],
                    "marker": _MARKERS[i % len(_MARKERS)],
                    "markersize": 3,
                    "elinewidth": 0.6,
                }
                error = np.maximum([s.share - s.low, s.high - s.share], 0)
                left.errorbar(s.p[here], s.share[here], yerr=error[:, here], linewidth=0.7, label=f"L = {size}", **look)
                if s.x is not None:
                    used = here & s.used
                    right.errorbar(s.x[used], s.share[used], yerr=error[:, used], linestyle="", **look)
            if s.curve is not None:
                right.plot(*s.curve, color="black", linewidth=0.9, zorder=1)
            else:
                right.text(0.5, 0.5, "no fit", ha="center", va="center", color=style.GREY, transform=right.transAxes)
            if critical is not None:
                left.axvline(critical, color=style.GREY, linewidth=0.7, linestyle=(0, (2, 2)), zorder=0)
            left.set(ylabel=ylabel, ylim=(-0.03, 1.03))
            if ends is not None:
                margin = 0.1 * (ends[1] - ends[0])
                left.set_xlim(ends[0] - margin, ends[1] + margin)
            left.set_title(style.plain_text(name), loc="left")
            right.set_title(s.text, loc="left")
        axes[-1, 0].set_xlabel(xlabel)
        axes[-1, 1].set_xlabel(r"$(p - p_c)\,L^{1/\nu}$")
        handles, texts = axes[0, 0].get_legend_handles_labels()
        figure.legend(handles, texts, loc="outside lower center", ncols=len(texts))
        return figure


def scatter_of_errors(x: np.ndarray, errors: Mapping[str, np.ndarray], *, xlabel: str, ylabel: str) -> Any:
    """Prediction errors over a quantity: every example as a dot, the mean of twenty bins as a line.

    Args:
      x: float ``[N]``.
      errors: name -> float ``[N]``, prediction minus truth.
      xlabel: name and unit of the quantity.
      ylabel: name and unit of the error.

    Returns:
      A matplotlib figure, one panel per method with a common axis of errors.

    Raises:
      ValueError: if lengths differ or a value is not finite.
    """
    x = _checked(x, "x")
    columns = min(3, len(errors))
    rows = -(-len(errors) // columns)
    edges = np.unique(np.quantile(x, np.linspace(0, 1, 21)[:-1]))
    codes = np.searchsorted(edges, x, side="right") - 1
    with style.styled():
        figure = style.new_figure(style.WIDTH if columns > 1 else 0.6 * style.WIDTH, 0.2 + 2.1 * rows)
        axes = figure.subplots(rows, columns, squeeze=False, sharex=True, sharey=True)
        for i, (ax, (name, e)) in enumerate(zip(axes.ravel(), errors.items(), strict=False)):
            e = _checked(e, f"errors[{name!r}]")
            if e.shape != x.shape:
                raise ValueError(f"errors[{name!r}]: expected {len(x)} values as in x, got {len(e)}")
            ax.axhline(0, color=style.GREY, linewidth=0.7)
            ax.scatter(x, e, s=4, alpha=0.35, linewidths=0, color=style.COLOURS[i % len(style.COLOURS)])
            bins = np.unique(codes)
            ax.plot([x[codes == b].mean() for b in bins], [e[codes == b].mean() for b in bins], color="black")
            ax.set_title(_wrapped(name))
            ax.ticklabel_format(axis="y", style="sci", scilimits=(-2, 4))
        for ax in axes.ravel()[len(errors) :]:
            ax.set_axis_off()
        for ax in axes[:, 0]:
            ax.set_ylabel(ylabel)
        for ax in axes.ravel()[max(0, len(errors) - columns) : len(errors)]:
            ax.set_xlabel(xlabel)
            ax.tick_params(labelbottom=True)
        return figure


def _panel(ax, x, curves: Mapping[str, Band], limits, marks, ylim):
    shown = np.ones(len(x), bool) if limits is None else (x >= limits[0]) & (x <= limits[1])
    values, place = [], 0
    for name, band in curves.items():
        y = _checked(band.y, f"curves[{name!r}]")
        if y.shape != x.shape:
            raise ValueError(f"curves[{name!r}]: expected {len(x)} values as in x, got {len(y)}")
        values.append(y[shown])
        if band.reference:
            dashes = [line for line in ax.get_lines() if line.get_zorder() == 1.5]
            look = {"color": "black", "linewidth": 1.0, "linestyle": ("-", (0, (4, 2)), ":")[len(dashes) % 3]}
            ax.plot(x, y, zorder=1.5, label=style.plain_text(name), **look)
            colour = "black"
        else:
            colour = style.COLOURS[place % (len(style.COLOURS) - 1)]
            look = {"linestyle": style.LINES[place % len(style.LINES)], "marker": _MARKERS[place % len(_MARKERS)]}
            ax.plot(x, y, color=colour, markersize=3, zorder=3, label=style.plain_text(name), **look)
            place += 1
        if band.low is not None:
            ax.fill_between(x, band.low, band.high, color=colour, alpha=0.18, linewidth=0, zorder=1)
            values += [np.asarray(band.low)[shown], np.asarray(band.high)[shown]]
    if ylim is None:
        low, high = min(v.min() for v in values), max(v.max() for v in values)
        margin = 0.04 * (high - low) or 0.01
        ylim = (low - margin, high + margin)
    ax.set_ylim(*ylim)
    if limits is not None:
        ax.set_xlim(*limits)
    for text, value in (marks or {}).items():
        ax.axvline(value, color=style.GREY, linewidth=0.7, linestyle=(0, (2, 2)), zorder=0)
        ax.annotate(
            text,
            (value, 1.0),
            xycoords=("data", "axes fraction"),
            xytext=(0, 1.5),
            textcoords="offset points",
            ha="center",
            va="bottom",
            color=style.GREY,
            fontsize=7,
        )


def _wrapped(text: str) -> str:
    """A title that fits a third of the page."""
    return style.plain_text(textwrap.fill(text, 28))


def _checked(x: Sequence[float] | np.ndarray, name: str) -> np.ndarray:
    x = np.asarray(x, np.float64)
    if x.ndim != 1 or not len(x) or not np.all(np.isfinite(x)):
        raise ValueError(f"{name}: expected at least one finite value [n], got shape {x.shape}")
    return x
