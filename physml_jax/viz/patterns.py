"""Figures about classifiers of diffraction patterns: violins over trainings, reliability, curves, galleries."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from physml_jax.viz import style


class Curve(NamedTuple):
    """A score at several settings, with its 95 % interval; all [n]."""

    x: np.ndarray
    value: np.ndarray
    low: np.ndarray
    high: np.ndarray


def violins(
    panels: Mapping[str, Mapping[str, np.ndarray]],
    *,
    published: Mapping[str, Mapping[str, tuple[float, float]]] | None = None,
    baselines: Mapping[str, float] | None = None,
) -> Any:
    """Scores of all trainings of several models: a dot per training, behind them the shape of their distribution.

    Args:
      panels: name of the score -> model -> scores [S]. A violin needs three trainings; of fewer there are dots only.
      published: name of the score -> model -> (mean, best), of other images.
      baselines: name of the score -> value to mark.

    Returns:
      A matplotlib figure, one panel per score, models from top to bottom.
    """
    models = list(dict.fromkeys(m for panel in panels.values() for m in panel))
    shown = published or {}
    with style.styled():
        figure = style.new_figure(style.WIDTH, 1.15 + 0.36 * len(models))
        axes = figure.subplots(1, len(panels), sharey=True, squeeze=False)[0]
        for ax, (name, panel) in zip(axes, panels.items(), strict=True):
            for i, model in enumerate(models):
                values = np.asarray(panel.get(model, ()), np.float64)
                _violin(ax, i, values)
                mean, best = shown.get(name, {}).get(model, (None, None))
                if mean is not None:
                    mark = {"color": style.COLOURS[1], "linestyle": "", "markersize": 5, "zorder": 4}
                    ax.plot([mean], [i + 0.28], marker="D", markerfacecolor="white", **mark)
                    ax.plot([best], [i + 0.28], marker=">", **mark)
            if baselines and name in baselines:
                ax.axvline(baselines[name], color=style.GREY, linewidth=0.8, linestyle=(0, (2, 2)), zorder=0)
            ax.set(xlabel=name, xlim=(0, 1.02))
            ax.grid(axis="x", linewidth=0.3, color="#dddddd")
            ax.tick_params(axis="y", length=0)
        axes[0].set_yticks(range(len(models)), [style.plain_text(m) for m in models])
        axes[0].set_ylim(len(models) - 0.4, -0.6)
        handles = _handles(bool(any(shown.values())), bool(baselines))
        figure.legend(handles=handles, loc="outside upper center", ncols=len(handles), columnspacing=1.2)
        return figure


def reliability(curves: Mapping[str, Any], sizes: np.ndarray, *, sizes_by: np.ndarray) -> Any:
    """Accuracy against confidence, and how many classes an answer holds.

    Args:
      curves: name -> ``analysis.calibration.Reliability``.
      sizes: int [N], number of classes in the set of every example.
      sizes_by: bool [N], is the true class in the set?

    Returns:
      A matplotlib figure.
    """
    with style.styled():
        figure = style.new_figure(style.WIDTH, 2.9)
        left, right = figure.subplots(1, 2)
        left.plot([0, 1], [0, 1], color=style.GREY, linewidth=0.8, zorder=0)
        for i, (name, curve) in enumerate(curves.items()):
            left.plot(
                curve.confidence,
                curve.accuracy,
                marker="os^"[i % 3],
                markersize=4,
                color=style.COLOURS[i],
                linestyle=style.LINES[i],
                label=name,
            )
        left.set(xlabel="largest probability", ylabel="share of right answers", xlim=(0, 1.02), ylim=(0, 1.02))
        left.set_aspect("equal")
        left.legend(loc="upper left")
        values = np.arange(1, max(int(sizes.max()), 3) + 1)
        bottom = np.zeros(len(values))
        for name, chosen, colour, hatch in (
            ("true phase in the set", sizes_by, style.COLOURS[0], None),
            ("true phase missing", ~sizes_by, style.COLOURS[1], "////"),
        ):
            share = np.array([np.mean((sizes == v) & chosen) for v in values])
            right.bar(values, share, 0.7, bottom=bottom, color=colour, hatch=hatch, edgecolor="white", label=name)
            bottom += share
        right.set(xlabel="phases in the set", ylabel="share of patterns", xticks=values)
        right.set_ylim(0, 1.3 * bottom.max())  # room for the legend
        right.legend(loc="upper right")
        return figure


def scores_over(
    curves: Mapping[str, Curve],
    *,
    xlabel: str,
    ylabel: str,
    labels: Sequence[str] | None = None,
    floor: float = 0.0,
) -> Any:
    """Scores over a few settings, evenly spaced along the axis, with their intervals.

    Args:
      curves: name -> ``Curve``, whose ``x`` are numbers of settings, from 0.
      xlabel: what the settings are.
      ylabel: name of the score.
      labels: text per setting.
      floor: value of an answer at random, marked.

    Returns:
      A matplotlib figure.
    """
    with style.styled():
        figure = style.new_figure(style.WIDTH * 0.66, 2.9)
        ax = figure.subplots()
        ax.axhline(floor, color=style.GREY, linewidth=0.8, linestyle=(0, (2, 2)), zorder=0)
        wide = 0.04 * (len(curves) - 1)
        for i, (name, c) in enumerate(curves.items()):
            shift = 0.08 * i - wide  # intervals side by side and not over each other
            ax.errorbar(
                np.asarray(c.x) + shift,
                c.value,
                yerr=np.abs(np.stack([c.value - c.low, c.high - c.value])),
                color=style.COLOURS[i % len(style.COLOURS)],
                linestyle=style.LINES[i % len(style.LINES)],
                marker="os^Dv"[i % 5],
                markersize=4,
                elinewidth=0.8,
                label=style.plain_text(name),
            )
        if labels is not None:
            ax.set_xticks(range(len(labels)), labels)
        ax.set(xlabel=xlabel, ylabel=ylabel, ylim=(0, 1.02))
        ax.grid(axis="y", linewidth=0.3, color="#dddddd")
        figure.legend(loc="outside upper center", ncols=3)
        return figure


def gallery(images: np.ndarray, titles: Sequence[str], *, half_widths: np.ndarray | None = None) -> Any:
    """Diffraction patterns with a text above each, four in a row, and a bar of 0.5 1/angstrom.

    Args:
      images: float [N, P, P], 0 to 1.
      titles: one per image.
      half_widths: [N], half the side in 1/angstrom; ``None`` where it is not known: no bar.

    Returns:
      A matplotlib figure.
    """
    columns = min(4, len(images))
    rows = -(-len(images) // columns)
    with style.styled():
        figure = style.new_figure(style.WIDTH * columns / 4, 2.15 * rows)
        axes = figure.subplots(rows, columns, squeeze=False).ravel()
        for ax in axes:
            ax.set_axis_off()
        for i, (ax, image, title) in enumerate(zip(axes, images, titles, strict=False)):
            size = len(image)
            ax.imshow(image, cmap=style.INTENSITY_MAP, vmin=0, vmax=1)
            ax.set_title(title, fontsize=7, pad=3)
            if half_widths is not None:
                length = 0.5 / (2 * half_widths[i]) * size
                ax.plot([0.05 * size, 0.05 * size + length], [0.94 * size] * 2, color="white", linewidth=2)
                if i == 0:
                    ax.text(0.05 * size, 0.91 * size, "0.5 Å⁻¹", color="white", fontsize=7, va="bottom")
        return figure


def _violin(ax, place, values):
    if len(values) >= 3 and np.ptp(values) > 1e-6:
        body = ax.violinplot([values], [place], orientation="horizontal", widths=0.8, showextrema=False)["bodies"][0]
        body.set(facecolor=style.COLOURS[5], alpha=0.7, edgecolor="none", zorder=1)
    if len(values):
        ax.plot([values.mean()] * 2, [place - 0.3, place + 0.3], color="black", linewidth=1.2, zorder=2)
        dots = {"s": 12, "facecolor": "white", "edgecolor": style.COLOURS[0], "linewidth": 0.9, "zorder": 3}
        ax.scatter(values, np.full(len(values), place), **dots)


def _handles(published, baselines):
    from matplotlib.lines import Line2D

    dot = {"linestyle": "", "markersize": 4.5}
    handles = [
        Line2D([], [], marker="o", markerfacecolor="white", color=style.COLOURS[0], label="one training", **dot),
        Line2D([], [], color="black", linewidth=1.2, label="their mean"),
    ]
    if published:
        colour = style.COLOURS[1]
        handles += [
            Line2D(
                [], [], marker="D", markerfacecolor="white", color=colour, label="published mean (other images)", **dot
            ),
            Line2D([], [], marker=">", color=colour, label="published best", **dot),
        ]
    if baselines:
        handles.append(
            Line2D([], [], color=style.GREY, linewidth=0.8, linestyle=(0, (2, 2)), label="most frequent class")
        )
    return handles
