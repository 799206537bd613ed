"""Spin states: what went into a network and what came out, its latent space, and what it draws on its own."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from physml_jax.viz import style

#: Spin up and down: apart in lightness, so that they stay apart in grey.
UP, DOWN = "#12365C", "#F2E6C9"


def pairs(
    states: np.ndarray, reconstructions: np.ndarray, *, titles: Sequence[str], notes: Sequence[str], columns: int = 4
) -> Any:
    """Every state above its reconstruction.

    Args:
      states: int8 ``[n, L, L]``.
      reconstructions: int8 ``[n, L, L]``.
      titles: text above every state.
      notes: text below every reconstruction.
      columns: states per row.

    Returns:
      A matplotlib figure.

    Raises:
      ValueError: if shapes or lengths differ, or there is no state.
    """
    states, reconstructions = np.asarray(states), np.asarray(reconstructions)
    if states.ndim != 3 or not len(states) or states.shape != reconstructions.shape:
        raise ValueError(f"states, reconstructions: expected [n, L, L], got {states.shape}, {reconstructions.shape}")
    if len(titles) != len(states) or len(notes) != len(states):
        raise ValueError(f"titles, notes: expected {len(states)} texts each, got {len(titles)} and {len(notes)}")
    n = len(states)
    columns = min(columns, n)
    rows = -(-n // columns)
    with style.styled():
        side = style.WIDTH / max(columns, 4)
        figure = style.new_figure(side * columns + 0.3, rows * (2 * side + 0.45) + 0.3)
        axes = figure.subplots(2 * rows, columns, squeeze=False)
        for ax in axes.ravel():
            ax.set_axis_off()
        for i in range(n):
            above, below = axes[2 * (i // columns) : 2 * (i // columns) + 2, i % columns]
            for ax, lattice in ((above, states[i]), (below, reconstructions[i])):
                _lattice(ax, lattice)
            above.set_title(titles[i], fontsize=7.5, pad=3)
            below.set_xlabel(notes[i], fontsize=7.5, labelpad=2)
        for k in range(rows):
            for ax, text in zip(axes[2 * k : 2 * k + 2, 0], ("state", "reconstruction"), strict=True):
                ax.set_ylabel(text)
        _key(figure)
        return figure


def galleries(groups: Mapping[str, np.ndarray]) -> Any:
    """One row of states per group.

    Args:
      groups: text at the left -> int8 ``[n, L, L]``, the same n for all.

    Returns:
      A matplotlib figure.

    Raises:
      ValueError: if there is no group or lengths differ.
    """
    if not groups or len({len(g) for g in groups.values()}) != 1:
        raise ValueError(f"groups: expected states of one number, got {[len(g) for g in groups.values()]}")
    n = len(next(iter(groups.values())))
    with style.styled():
        side = (style.WIDTH - 0.4) / max(n, 4)
        figure = style.new_figure(style.WIDTH, len(groups) * (side + 0.1) + 0.3)
        axes = figure.subplots(len(groups), n, squeeze=False)
        for row, (text, lattices) in zip(axes, groups.items(), strict=True):
            for ax, lattice in zip(row, lattices, strict=True):
                _lattice(ax, lattice)
            row[0].set_ylabel(text)
        _key(figure)
        return figure


def histograms(panels: Mapping[str, Mapping[str, np.ndarray]], *, marks: Mapping[str, Mapping[str, float]]) -> Any:
    """Distributions of what true and generated states measure, one panel per quantity.

    Args:
      panels: name and unit of the quantity -> name of the set -> float ``[N]``.
      marks: quantity -> text -> value of a vertical line.

    Returns:
      A matplotlib figure.

    Raises:
      ValueError: if there is no panel.
    """
    if not panels:
        raise ValueError("panels: expected at least one")
    n = len(panels)
    columns = min(n, 4)
    rows = -(-n // columns)
    with style.styled():
        figure = style.new_figure(style.WIDTH if columns > 1 else 0.6 * style.WIDTH, 0.35 + 2.0 * rows)
        axes = figure.subplots(rows, columns, squeeze=False).ravel()
        for ax, (quantity, sets) in zip(axes, panels.items(), strict=False):
            everything = np.concatenate([*sets.values(), list(marks.get(quantity, {}).values())])
            low, high = everything.min(), everything.max()
            margin = 0.02 * (high - low) or 0.05
            bins = np.linspace(low - margin, high + margin, 26)
            for i, (name, values) in enumerate(sets.items()):
                colour = style.COLOURS[i % len(style.COLOURS)]
                weights = np.full(len(values), 1 / len(values))
                ax.hist(values, bins, weights=weights, histtype="stepfilled", alpha=0.25, color=colour)
                look = {"linestyle": style.LINES[i % len(style.LINES)], "linewidth": 1.1}
                ax.hist(values, bins, weights=weights, histtype="step", color=colour, label=name, **look)
            for text, value in marks.get(quantity, {}).items():
                ax.axvline(value, color=style.GREY, linewidth=0.9, linestyle=(0, (2, 2)), label=text)
            ax.set_xlabel(quantity)
        for ax in axes[n:]:
            ax.set_axis_off()
        axes[0].set_ylabel("share of states")
        handles = {t: h for ax in axes for h, t in zip(*ax.get_legend_handles_labels(), strict=True)}
        figure.legend(handles.values(), handles.keys(), loc="outside lower center", ncols=3)
        return figure


def latent(
    points: np.ndarray, colours: Mapping[str, np.ndarray], *, axes_labels: tuple[str, str], cyclic: Sequence[str] = ()
) -> Any:
    """Two coordinates of the latent space, once per quantity that colours them.

    Args:
      points: float ``[N, 2]``.
      colours: name and unit of the quantity -> float ``[N]``.
      axes_labels: of the two coordinates.
      cyclic: quantities that are drawn about zero, with a diverging map.

    Returns:
      A matplotlib figure.

    Raises:
      ValueError: if lengths differ.
    """
    points = np.asarray(points, np.float64)
    for name, values in colours.items():
        if points.ndim != 2 or points.shape[1] != 2 or len(values) != len(points):
            raise ValueError(f"points, colours[{name!r}]: expected [N, 2] and [N], got {points.shape}, {len(values)}")
    n = len(colours)
    with style.styled():
        figure = style.new_figure(style.WIDTH, 2.5)
        axes = figure.subplots(1, n, squeeze=False, sharex=True, sharey=True)[0]
        for ax, (name, values) in zip(axes, colours.items(), strict=True):
            look = {"cmap": "viridis"}
            if name in cyclic:
                look = {"cmap": "PuOr", "vmin": -1, "vmax": 1}
            image = ax.scatter(*points.T, c=values, s=2.5, linewidths=0, rasterized=True, **look)
            ax.set_facecolor("#F7F7F7")
            bar = figure.colorbar(image, ax=ax, location="top", aspect=22, pad=0.02)
            bar.set_label(name)
            bar.outline.set_linewidth(0.4)
            ax.set_xlabel(axes_labels[0])
        axes[0].set_ylabel(axes_labels[1])
        return figure


def _lattice(ax, lattice):
    from matplotlib.colors import ListedColormap

    ax.set_axis_on()
    ax.imshow(lattice, cmap=ListedColormap([DOWN, UP]), vmin=-1, vmax=1)
    ax.set_xticks([])
    ax.set_yticks([])
    for spine in ax.spines.values():
        spine.set_visible(True)
        spine.set_linewidth(0.5)


def _key(figure):
    from matplotlib.patches import Patch

    handles = [Patch(facecolor=c, edgecolor="#555555", linewidth=0.4, label=t) for c, t in ((UP, "up"), (DOWN, "down"))]
    figure.legend(handles=handles, loc="outside lower center", ncols=2, handlelength=1.1, handleheight=1.1)
