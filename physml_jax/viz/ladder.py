"""Networks beside answers without learning: bars, answers under probes, trends with size, matrices of many classes.

Networks are black, answers without learning have a colour of their own, the same in all figures; chance is a dotted
grey line.
"""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from physml_jax.viz import style

_MARKERS = "os^Dv<>P"
_PLAIN = {"facecolor": "white", "edgecolor": "none", "pad": 0.6}
CHANCE = {"color": style.GREY, "linewidth": 0.8, "linestyle": (0, (1, 2))}


class Value(NamedTuple):
    """A number with its interval.

    Attributes:
      value: the number.
      low: lower end, or ``None``.
      high: upper end.
      learned: whether it is a network's.
    """

    value: float
    low: float | None = None
    high: float | None = None
    learned: bool = False


def colours(names: Sequence[str]) -> dict[str, Any]:
    """A colour per answer without learning, in their order."""
    return {name: style.COLOURS[i % (len(style.COLOURS) - 1)] for i, name in enumerate(names)}


def bars(
    groups: Mapping[str, Mapping[str, Mapping[str, Value]]],
    *,
    labels: Mapping[str, str],
    chance: Mapping[str, Mapping[str, float]],
) -> Any:
    """Horizontal bars of several scores: one row of panels per group, a bar per method.

    Args:
      groups: title -> score -> method -> value; every score of a group has the same methods.
      labels: score -> text of the axis.
      chance: title -> score -> what an answer without the input gets, drawn as a line.

    Returns:
      A matplotlib figure.

    Raises:
      ValueError: without a group, or with a value that is not finite.
    """
    if not groups:
        raise ValueError("groups: expected at least one")
    scores = list(labels)
    heights = [0.55 + 0.23 * len(next(iter(g.values()))) for g in groups.values()]
    fixed = colours(_rungs(v for g in groups.values() for v in g.values()))
    with style.styled():
        figure = style.new_figure(style.WIDTH, sum(heights) + 0.25)
        axes = figure.subplots(len(groups), len(scores), squeeze=False, height_ratios=heights)
        for row, (title, group) in zip(axes, groups.items(), strict=True):
            for ax, score in zip(row, scores, strict=True):
                _bar_panel(ax, group[score], fixed, chance.get(title, {}).get(score))
                if len(groups) == 1 or ax is axes[-1][scores.index(score)]:
                    ax.set_xlabel(labels[score])
                if ax is not row[0]:
                    ax.set_yticklabels([])
            row[0].set_title(style.plain_text(title), loc="left", pad=6)
        return figure


def _bar_panel(ax, values: Mapping[str, Value], fixed, chance):
    ends = []
    for i, (name, v) in enumerate(values.items()):
        _finite(v, name)
        colour = "black" if v.learned else fixed[name]
        ax.barh(i, v.value, 0.66, color=colour if v.learned else "white", edgecolor=colour, linewidth=0.8)
        if not v.learned:
            ax.barh(i, v.value, 0.66, color=colour, alpha=0.35, linewidth=0)
        if v.low is not None:
            ax.plot([v.low, v.high], [i, i], color=style.COLOURS[1] if v.learned else "black", linewidth=1.0, zorder=3)
        ends.append(max(v.value, v.high if v.high is not None else v.value))
    most = max([*ends, chance or 0]) or 1
    for i, (v, end) in enumerate(zip(values.values(), ends, strict=True)):
        ax.text(end + 0.015 * most, i, f"{v.value:.3f}", va="center", ha="left", fontsize=6.5, zorder=6, bbox=_PLAIN)
    if chance is not None:
        ax.axvline(chance, zorder=4, **CHANCE)
        ax.text(chance, -0.62, "chance", ha="center", va="bottom", color=style.GREY, fontsize=6.5)
    ax.set_yticks(range(len(values)), [style.plain_text(n) for n in values])
    ax.tick_params(axis="y", length=0)
    ax.set(ylim=(len(values) - 0.5, -1.0), xlim=(0, 1.16 * most))


def probes(panels: Mapping[str, Mapping[str, Sequence[Value | None]]], *, names: Sequence[str], chance: float) -> Any:
    """Accuracies on the same states, changed in several ways: one panel per network, with the rungs beside it.

    Args:
      panels: title -> method -> one value per set of states, ``None`` where it was not asked.
      names: of the sets of states; a line break is allowed.
      chance: accuracy by chance.

    Returns:
      A matplotlib figure.

    Raises:
      ValueError: without a panel, or if lengths differ.
    """
    if not panels:
        raise ValueError("panels: expected at least one")
    fixed = colours(_rungs({n: _first(v) for n, v in p.items()} for p in panels.values()))
    n = len(panels)
    columns = min(n, 2)
    rows = -(-n // columns)
    with style.styled():
        figure = style.new_figure(style.WIDTH if columns > 1 else 0.8 * style.WIDTH, 0.5 + 2.3 * rows)
        axes = figure.subplots(rows, columns, squeeze=False, sharex=True, sharey=True)
        for ax, (title, methods) in zip(axes.ravel(), panels.items(), strict=False):
            for i, (name, values) in enumerate(methods.items()):
                if len(values) != len(names):
                    raise ValueError(f"panels: {name!r} has {len(values)} values for {len(names)} sets")
                learned = bool(_first(values).learned)
                place = [j + (0 if learned else 0.09 * (i - (len(methods) - 1) / 2)) for j in range(len(names))]
                shown = [(x, v) for x, v in zip(place, values, strict=True) if v is not None]
                look = {"color": "black" if learned else fixed[name], "linestyle": "", "label": style.plain_text(name)}
                look |= {"marker": "_", "markersize": 22, "markeredgewidth": 2.4} if learned else {}
                look |= {} if learned else {"marker": _MARKERS[i % len(_MARKERS)], "markersize": 4.5, "zorder": 3}
                error = [[v.value - (v.value if v.low is None else v.low) for _, v in shown]]
                error += [[(v.value if v.high is None else v.high) - v.value for _, v in shown]]
                ax.errorbar(
                    [x for x, _ in shown],
                    [v.value for _, v in shown],
                    yerr=np.maximum(error, 0),
                    elinewidth=0.8,
                    **look,
                )
            ax.axhline(chance, zorder=0, **CHANCE)
            ax.set_title(style.plain_text(title), loc="left")
            ax.set_xticks(range(len(names)), names)
            ax.set_xlim(-0.55, len(names) - 0.45)
            _accuracy_axis(ax, chance)
        for ax in axes.ravel()[n:]:
            ax.set_axis_off()
        for ax in axes[:, 0]:
            ax.set_ylabel("accuracy")
        for ax in axes.ravel()[max(0, n - columns) : n]:
            ax.tick_params(labelbottom=True)
        handles = {}
        for ax in axes.ravel()[:n]:
            handles |= {text: handle for handle, text in zip(*ax.get_legend_handles_labels(), strict=True)}
        figure.legend(handles.values(), handles.keys(), loc="outside lower center", ncols=4, markerscale=0.6)
        return figure


def over_width(
    widths: np.ndarray,
    panels: Mapping[str, Mapping[str, tuple[np.ndarray, np.ndarray | None]]],
    *,
    learned: str,
    chance: float,
    critical: float | None = None,
) -> Any:
    """Accuracy by W: one panel per network.

    Args:
      widths: float [K], rising.
      panels: title -> method -> (accuracy [K], half-width of its band [K] or ``None``).
      learned: the method that is the network.
      chance: accuracy by chance.
      critical: W_c, drawn as a line.

    Returns:
      A matplotlib figure.

    Raises:
      ValueError: without a panel, or if lengths differ.
    """
    if not panels:
        raise ValueError("panels: expected at least one")
    fixed = colours([name for name in dict.fromkeys(k for p in panels.values() for k in p) if name != learned])
    columns = min(len(panels), 2)
    rows = -(-len(panels) // columns)
    with style.styled():
        figure = style.new_figure(style.WIDTH if columns > 1 else 0.75 * style.WIDTH, 0.6 + 2.2 * rows)
        axes = figure.subplots(rows, columns, squeeze=False, sharex=True, sharey=True)
        for ax, (title, methods) in zip(axes.ravel(), panels.items(), strict=False):
            for i, (name, (y, band)) in enumerate(methods.items()):
                y = np.asarray(y, np.float64)
                if y.shape != np.shape(widths):
                    raise ValueError(f"panels: {name!r} has {len(y)} values for {len(widths)} W")
                look = {"color": "black", "linewidth": 1.8, "marker": "o", "markersize": 3.5, "zorder": 4}
                if name != learned:
                    look = {"color": fixed[name], "linewidth": 0.8, "marker": _MARKERS[i % len(_MARKERS)]}
                    look |= {"markersize": 3, "markerfacecolor": "white", "zorder": 3}
                ax.plot(widths, y, label=style.plain_text(name), **look)
                if band is not None:
                    low, high = np.clip([y - band, y + band], 0, 1)
                    ax.fill_between(widths, low, high, color=look["color"], alpha=0.2, linewidth=0, zorder=2)
            ax.axhline(chance, zorder=0, label="chance", **CHANCE)
            if critical is not None:
                ax.axvline(critical, color=style.GREY, linewidth=0.7, linestyle=(0, (4, 2)), zorder=0, label="$W_c$")
            ax.set_title(style.plain_text(title), loc="left")
            ax.set_ylim(-0.02, 1.03)
        for ax in axes.ravel()[len(panels) :]:
            ax.set_axis_off()
        for ax in axes[:, 0]:
            ax.set_ylabel("accuracy")
        for ax in axes.ravel()[max(0, len(panels) - columns) : len(panels)]:
            ax.set_xlabel("disorder $W$ (units of the hopping)")
            ax.tick_params(labelbottom=True)
        handles = {}
        for ax in axes.ravel()[: len(panels)]:
            held = zip(*ax.get_legend_handles_labels(), strict=True)
            handles |= {text: handle for handle, text in held}
        figure.legend(handles.values(), handles.keys(), loc="outside lower center", ncols=4)
        return figure


def trends(
    panels: Mapping[str, Mapping[str, Mapping[float, Value]]],
    *,
    xlabel: str,
    chance: Mapping[str, float],
    logarithmic: Sequence[str] = (),
) -> Any:
    """Scores over the size of the lattice (or of the picture): a panel per score, a line per method.

    Args:
      panels: score -> method -> x -> value.
      xlabel: text of the axis of x.
      chance: score -> value by chance.
      logarithmic: accuracies, whose axis is logarithmic where chance is small.

    Returns:
      A matplotlib figure.

    Raises:
      ValueError: without a panel, or with a value that is not finite.
    """
    if not panels:
        raise ValueError("panels: expected at least one")
    fixed = colours(_rungs({n: next(iter(v.values())) for n, v in p.items()} for p in panels.values()))
    with style.styled():
        figure = style.new_figure(style.WIDTH, 3.3)
        axes = figure.subplots(1, len(panels), squeeze=False)[0]
        for ax, (score, methods) in zip(axes, panels.items(), strict=True):
            place, every = 0, sorted({k for m in methods.values() for k in m})
            apart = 0.012 * (every[-1] - every[0])  # or intervals would lie on each other
            for i, (name, values) in enumerate(methods.items()):
                x = sorted(values)
                held = [values[k] for k in x]
                for v in held:
                    _finite(v, name)
                y = np.array([v.value for v in held])
                low = np.array([v.value if v.low is None else v.low for v in held])
                high = np.array([v.value if v.high is None else v.high for v in held])
                if held[0].learned:
                    look = {"color": "black", "linestyle": style.LINES[place % len(style.LINES)], "linewidth": 1.6}
                    look |= {"marker": _MARKERS[place % len(_MARKERS)], "markersize": 5, "zorder": 4}
                    place += 1
                else:
                    look = {"color": fixed[name], "linewidth": 0.9, "marker": _MARKERS[i % len(_MARKERS)]}
                    look |= {"markersize": 4, "markerfacecolor": "white", "zorder": 3}
                error = np.maximum([y - low, high - y], 0)
                beside = np.array(x) + apart * (i - (len(methods) - 1) / 2)
                ax.errorbar(beside, y, yerr=error, elinewidth=0.8, label=style.plain_text(name), **look)
            if score in chance:
                ax.axhline(chance[score], zorder=0, label="chance", **CHANCE)
            ax.set_xticks(every, [f"{k:g}" for k in every])
            ax.set(xlabel=xlabel, ylabel=score)
            if score in logarithmic:
                _accuracy_axis(ax, chance[score])
            else:
                ax.set_ylim(0, None)
        handles, texts = axes[0].get_legend_handles_labels()
        figure.legend(handles, texts, loc="outside lower center", ncols=3)
        return figure


def matrices(
    found: Mapping[str, np.ndarray], *, names: Sequence[str], quantity: str = "$W$", values: bool | None = None
) -> Any:
    """Confusion matrices of ordered classes, as shares of the true class; the colours end at the largest share.

    Args:
      found: title -> counts [C, C], rows are true classes; rows without a count stay grey.
      names: text per class.
      quantity: what the classes are of.
      values: write percentages into the cells; ``None``: if there is one matrix.

    Returns:
      A matplotlib figure, one matrix or panels of three per row.

    Raises:
      ValueError: without a matrix, or if shapes do not fit.
    """
    if not found:
        raise ValueError("found: expected at least one matrix")
    one = len(found) == 1
    values = one if values is None else values
    shares = {}
    for title, matrix in found.items():
        matrix = np.asarray(matrix, np.float64)
        if matrix.shape != (len(names), len(names)) or not np.isfinite(matrix).all() or matrix.min() < 0:
            raise ValueError(f"{title}: expected counts [{len(names)}, {len(names)}], got shape {matrix.shape}")
        total = matrix.sum(1, keepdims=True)
        shares[title] = np.ma.masked_where(
            np.broadcast_to(total == 0, matrix.shape), matrix / np.maximum(total, 1e-300)
        )
    columns = min(3, len(found))
    rows = -(-len(found) // columns)
    with style.styled():
        from matplotlib import colormaps

        colour_map = colormaps[style.COUNT_MAP].with_extremes(bad="#dddddd")
        if one:
            size = min(6.4, max(2.9, 1.5 + 0.3 * len(names)))
            figure = style.new_figure(size + 0.6, 0.92 * size)
        else:
            figure = style.new_figure(style.WIDTH * columns / 3, 2.25 * rows + 0.25)
        axes = figure.subplots(rows, columns, squeeze=False)
        for i, (ax, (title, share)) in enumerate(zip(axes.ravel(), shares.items(), strict=False)):
            top = max(float(share.max()), 1e-6) if one else 1.0
            image = ax.imshow(share, cmap=colour_map, vmin=0, vmax=top)
            # Small panels have room for every fourth W; the grid is not even, so each one shown is named.
            step = 1 if one or len(names) <= 5 else 4
            ticks = range(0, len(names), step)
            upright = 90 if len(names) > 5 else 0
            ax.set_xticks(ticks, [names[t] for t in ticks], rotation=upright)
            ax.set_yticks(ticks, [names[t] for t in ticks])
            ax.tick_params(length=0, labelsize=7 if one else 6.5)
            for spine in ax.spines.values():
                spine.set_visible(True)
            if i % columns == 0:
                ax.set_ylabel(f"true {quantity}")
            if i >= len(found) - columns:
                ax.set_xlabel(f"answered {quantity}")
            ax.set_title(style.plain_text(title), pad=4, fontsize=8)
            if values:
                _write(ax, share, top)
        for ax in axes.ravel()[len(found) :]:
            ax.set_axis_off()
        bar = figure.colorbar(image, ax=axes, shrink=0.75, aspect=28, pad=0.015)
        bar.set_label("share of the true class")
        bar.outline.set_linewidth(0.4)
        return figure


def training(runs: Mapping[str, Sequence[Mapping[str, Any]]], *, chance: Mapping[str, float]) -> Any:
    """Loss and accuracy over the steps, training thin and pale, validation with symbols; bands are two standard errors.

    Args:
      runs: name -> rows of a metrics file, as ``viz.curves.training_curves`` takes them.
      chance: ``"loss"``, ``"accuracy"`` -> value by chance.

    Returns:
      A matplotlib figure of two panels; ``None`` where no run holds a loss or an accuracy.
    """
    drawn = {name: rows for name, rows in runs.items() if any("loss" in r or "validation/loss" in r for r in rows)}
    if not drawn:
        return None
    with style.styled():
        figure = style.new_figure(style.WIDTH, 2.7 + 0.17 * len(drawn))
        axes = figure.subplots(1, 2)
        for ax, score in zip(axes, ("loss", "accuracy"), strict=True):
            lowest, highest = np.inf, -np.inf
            for i, (name, rows) in enumerate(drawn.items()):
                colour = style.COLOURS[i % (len(style.COLOURS) - 1)]
                for prefix, kind in (("", "training"), ("validation/", "validation")):
                    x, y, error = _curve(rows, prefix + score)
                    if not len(x):
                        continue
                    look = {"linewidth": 0.8, "alpha": 0.6, "zorder": 2}
                    if prefix:
                        look = {"linewidth": 1.4, "marker": _MARKERS[i % len(_MARKERS)], "markersize": 3.5, "zorder": 3}
                    text = kind if len(drawn) == 1 else (name if prefix else "")
                    shade = colour if len(drawn) > 1 or prefix else style.COLOURS[1]
                    ax.plot(x, y, color=shade, label=style.plain_text(text) or None, **look)
                    lowest, highest = min(lowest, y.min()), max(highest, y.max())
                    if error.any():
                        ax.fill_between(x, y - 2 * error, y + 2 * error, color=shade, alpha=0.18, linewidth=0)
            if score in chance:
                ax.axhline(chance[score], zorder=0, label="chance", **CHANCE)
            ax.set(xlabel="step", ylabel="cross entropy (nats)" if score == "loss" else score)
            ax.set_xlim(0, None)
            if lowest < 0.5 * highest:
                ax.set_ylim(0, None)
        handles, texts = axes[0].get_legend_handles_labels()
        figure.legend(handles, texts, loc="outside lower center", ncols=3 if len(drawn) == 1 else 2)
        return figure


def _curve(rows, name):
    held = [r for r in rows if "step" in r and isinstance(r.get(name), int | float) and np.isfinite(r[name])]
    x, y = (np.array([r[k] for r in held], np.float64) for k in ("step", name))
    return x, y, np.array([r.get(f"{name}_stderr", 0.0) or 0.0 for r in held], np.float64)


def _write(ax, share, top):
    for i, j in np.ndindex(*share.shape):
        if np.ma.is_masked(share[i, j]) or share[i, j] < 0.005:
            continue
        colour = "white" if share[i, j] > 0.55 * top else "black"
        ax.text(j, i, f"{100 * share[i, j]:.0f}", ha="center", va="center", fontsize=6, color=colour)


def _rungs(groups) -> list[str]:
    """Names of all answers without learning, in the order of their first appearance."""
    return list(dict.fromkeys(n for g in groups for n, v in g.items() if not v.learned))


def _accuracy_axis(ax, chance):
    """Logarithmic where chance is small: differences near chance and near 1 are then both seen."""
    if chance > 0.2:
        ax.set_ylim(-0.02, 1.03)
        return
    ax.set_yscale("log")
    ticks = [t for t in (0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0) if t > 0.4 * chance]
    ax.set_yticks(ticks, [f"{t:g}" for t in ticks])
    ax.minorticks_off()
    ax.set_ylim(0.45 * chance, 1.15)


def _first(values):
    return next((v for v in values if v is not None), Value(0.0))


def _finite(v: Value, name: str):
    if not all(x is None or np.isfinite(x) for x in (v.value, v.low, v.high)):
        raise ValueError(f"{name}: expected finite numbers, got {v}")
