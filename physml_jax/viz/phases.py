"""Phase diagrams in the plane of coupling and temperature: maps, boundaries, finite sizes."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from physml_jax.viz import style

MARKERS = "os^Dv<>P"
#: Filled regions, light enough for lines on top of them; apart in lightness too.
PHASE_COLOURS = ("#A9CDE8", "#F6CBA6", "#EFEFEF")
JLABEL, TLABEL = "$J_2 / J_1$", "$T / J_1$"


class Line(NamedTuple):
    """A known boundary.

    Attributes:
      x: float [n].
      y: float [n].
    """

    x: np.ndarray
    y: np.ndarray


class Points(NamedTuple):
    """A boundary that was measured; NaN where there is none.

    Attributes:
      x: float [n].
      y: float [n].
      low: float [n], lower end of the interval, or ``None``; NaN for a point without one.
      high: float [n].
    """

    x: np.ndarray
    y: np.ndarray
    low: np.ndarray | None = None
    high: np.ndarray | None = None


def maps(
    panels: Mapping[str, np.ndarray],
    *,
    x: np.ndarray,
    y: np.ndarray,
    lines: Sequence[Line] = (),
    dotted: Mapping[str, np.ndarray] | None = None,
    boxes: Mapping[str, tuple[float, float, float, float]] | None = None,
    label: str = r"reconstruction error $\epsilon$",
) -> Any:
    """Quantities between 0 and 1 over the plane, one panel each; 1/2 is white.

    Args:
      panels: title -> float ``[nJ, nT]``, NaN where nothing is known (grey).
      x: float ``[nJ]``, rising couplings; cells end half way between them.
      y: float ``[nT]``, rising temperatures.
      lines: known boundaries, drawn in all panels.
      dotted: title -> bool ``[nJ, nT]``, points marked by a dot.
      boxes: title -> (x0, x1, y0, y1) of a region to outline.
      label: of the colour bar.

    Returns:
      A matplotlib figure.

    Raises:
      ValueError: if there is no panel, or shapes do not fit.
    """
    if not panels:
        raise ValueError("panels: expected at least one map")
    for title, values in panels.items():
        _shape(values, (len(x), len(y)), f"panels[{title!r}]")
    n = len(panels)
    with style.styled():
        from matplotlib import colormaps

        figure = style.new_figure(style.WIDTH if n > 1 else 0.62 * style.WIDTH, 3.0)
        axes = figure.subplots(1, n, squeeze=False, sharex=True, sharey=True)[0]
        colours = colormaps[style.DIFFERENCE_MAP].with_extremes(bad="#BDBDBD")
        for ax, (title, values) in zip(axes, panels.items(), strict=True):
            image = ax.pcolormesh(
                edges(x), edges(y), np.ma.masked_invalid(values).T, cmap=colours, vmin=0, vmax=1, rasterized=True
            )
            for line in lines:
                ax.plot(line.x, line.y, color="black", linewidth=1.1)
            here = (dotted or {}).get(title)
            if here is not None and np.any(here):
                j, t = np.nonzero(here)
                ax.scatter(x[j], y[t], s=1.6, color="black", linewidths=0)
            if boxes and title in boxes:
                _box(ax, boxes[title])
            ax.set_title(title)
            ax.set_xlabel(JLABEL)
            ax.set_xlim(edges(x)[[0, -1]])
            ax.set_ylim(edges(y)[[0, -1]])
        axes[0].set_ylabel(TLABEL)
        bar = figure.colorbar(image, ax=list(axes), aspect=25, pad=0.02)
        bar.set_ticks([0, 0.5, 1], labels=["0 (best)", "0.5 (random)", "1 (worst)"])
        bar.set_label(label)
        bar.outline.set_linewidth(0.5)
        return figure


def diagram(
    codes: np.ndarray,
    *,
    x: np.ndarray,
    y: np.ndarray,
    names: Sequence[str],
    boundaries: Mapping[str, Points],
    lines: Sequence[Line] = (),
    known: str = "literature",
) -> Any:
    """Phases as regions, measured boundaries with their intervals as points, known ones as lines.

    Args:
      codes: int ``[nJ, nT]``: number of the phase, -1 for none of them, -2 where nothing is known.
      x: float ``[nJ]``, rising couplings.
      y: float ``[nT]``, rising temperatures.
      names: texts of the phases 0, 1, .. and, last, of what is none of them.
      boundaries: name -> points.
      lines: known boundaries.
      known: text for them.

    Returns:
      A matplotlib figure.

    Raises:
      ValueError: if shapes do not fit.
    """
    _shape(codes, (len(x), len(y)), "codes")
    colours = [*PHASE_COLOURS[: len(names) - 1], PHASE_COLOURS[-1]]
    with style.styled():
        from matplotlib.colors import ListedColormap
        from matplotlib.patches import Patch

        figure = style.new_figure(0.78 * style.WIDTH, 3.5)
        ax = figure.subplots()
        shown = np.where(codes == -1, len(names) - 1, codes).astype(np.float64)
        ax.pcolormesh(
            edges(x),
            edges(y),
            np.ma.masked_less(shown, 0).T,
            cmap=ListedColormap(colours),
            vmin=-0.5,
            vmax=len(names) - 0.5,
            rasterized=True,
        )
        for i, line in enumerate(lines):
            ax.plot(line.x, line.y, color="black", linewidth=1.1, label=known if i == 0 else "_")
        for i, (name, points) in enumerate(boundaries.items()):
            _points(ax, points, i, name)
        handles, texts = ax.get_legend_handles_labels()
        handles += [Patch(facecolor=c, edgecolor="#555555", linewidth=0.4) for c in colours]
        figure.legend(handles, [*texts, *names], loc="outside right upper", fontsize=7)
        ax.set(xlabel=JLABEL, ylabel=TLABEL, xlim=edges(x)[[0, -1]], ylim=edges(y)[[0, -1]])
        return figure


def methods(
    panels: Mapping[str, Mapping[str, Points]],
    *,
    lines: Mapping[str, Line],
    known: Mapping[str, np.ndarray],
    tolerance: float | None = None,
    shaded: tuple[float, float] | None = None,
) -> Any:
    """Boundaries by several methods, and below each panel how far they are from the known one.

    Args:
      panels: title -> method -> points.
      lines: title -> known boundary.
      known: title -> float [n], known values at the ``x`` of the points; NaN where nothing is known.
      tolerance: half-width of a grey band about zero difference; the frame of the differences ends at four times it.
      shaded: range of couplings drawn in grey.

    Returns:
      A matplotlib figure with two rows of panels.

    Raises:
      ValueError: if there is no panel.
    """
    if not panels:
        raise ValueError("panels: expected at least one")
    n = len(panels)
    with style.styled():
        figure = style.new_figure(style.WIDTH if n > 1 else 0.68 * style.WIDTH, 4.6)
        axes = figure.subplots(2, n, squeeze=False, sharex="col", height_ratios=(1.25, 1))
        gaps = [np.abs(p.y - known[title]) for title, found in panels.items() for p in found.values()]
        largest = np.nan_to_num(np.concatenate(gaps)).max(initial=0.0)
        reach = max(1.15 * largest, 1.2 * (tolerance or 0), 0.02)
        if tolerance is not None:
            reach = min(reach, 4 * tolerance)  # one wild method must not flatten the others
        for (above, below), (title, found) in zip(axes.T, panels.items(), strict=True):
            above.plot(lines[title].x, lines[title].y, color="black", linewidth=1.0, label="literature")
            below.axhline(0, color="black", linewidth=0.8)
            if tolerance is not None:
                below.axhspan(-tolerance, tolerance, color="#E2E2E2", linewidth=0, zorder=0)
            below.set_ylim(-reach, reach)
            for i, (name, points) in enumerate(found.items()):
                shift = i - (len(found) - 1) / 2
                _points(above, Points(points.x, points.y), i, name, size=3.2, shift=shift)
                gap = known[title]
                moved = Points(points.x, points.y - gap, *(None if p is None else p - gap for p in points[2:]))
                _points(below, moved, i, name, size=3.2, joined=True, shift=shift)
            rows = np.concatenate([p.x for p in found.values()])
            for ax in (above, below):
                if shaded is not None:
                    ax.axvspan(*shaded, color="#F3EFE2", linewidth=0, zorder=-1)
                margin = 0.05 * max(np.ptp(rows), 0.1)
                ax.set_xlim(rows.min() - margin, rows.max() + margin)
            above.set_title(title)
            below.set_xlabel(JLABEL)
        axes[0, 0].set_ylabel(f"transition {TLABEL}")
        axes[1, 0].set_ylabel("difference from literature")
        handles = {h.get_label(): h for ax in axes[0] for h in _entries(ax)}
        figure.legend(handles.values(), handles.keys(), loc="outside lower center", ncols=3, fontsize=7)
        return figure


def finite_size(panels: Mapping[str, Mapping[str, tuple[Points, float]]], *, ylabel: str = "") -> Any:
    """Boundaries over 1/L.

    Args:
      panels: title -> row (a coupling) -> (points over 1/L, known value or NaN). Differences from the known value are
        drawn where there is one, else rows are left out.
      ylabel: of the first panel.

    Returns:
      A matplotlib figure.

    Raises:
      ValueError: if there is no panel.
    """
    if not panels:
        raise ValueError("panels: expected at least one")
    n = len(panels)
    columns = min(n, 2)
    rows = -(-n // columns)
    with style.styled():
        figure = style.new_figure(style.WIDTH if n > 1 else 0.68 * style.WIDTH, 0.2 + 2.6 * rows)
        axes = figure.subplots(rows, columns, squeeze=False, sharex=True, sharey=True)
        for ax, (title, curves) in zip(axes.ravel(), panels.items(), strict=False):
            ax.axhline(0, color="black", linewidth=0.8)
            for i, (name, (points, value)) in enumerate(curves.items()):
                if np.isfinite(value):
                    moved = Points(points.x, points.y - value, *(None if p is None else p - value for p in points[2:]))
                    _points(ax, moved, i, name, joined=True)
            ax.set_xlim(left=0)
            ax.set_title(title)
            ax.legend(fontsize=6.5, ncols=2)
        for ax in axes.ravel()[n:]:
            ax.set_axis_off()
        for ax in axes[-1]:
            ax.set_xlabel("$1 / L$")
        for ax in axes[:, 0]:
            ax.set_ylabel(ylabel or f"{TLABEL}: boundary − literature")
        return figure


def exact_check(x: np.ndarray, panels: Mapping[str, tuple], *, residual: np.ndarray, label: str = "test states") -> Any:
    """Measured points over exact curves, and the difference in standard errors.

    Args:
      x: float ``[n]``, temperatures.
      panels: quantity -> (float [n], half-widths of its intervals or ``None``, text -> (x, y) of an exact curve).
      residual: float ``[n]``, difference of the first quantity from its exact curve over its standard error.
      label: what was measured.

    Returns:
      A matplotlib figure.
    """
    with style.styled():
        figure = style.new_figure(style.WIDTH, 2.4)
        axes = figure.subplots(1, len(panels) + 1)
        for ax, (name, (y, error, lines)) in zip(axes, panels.items(), strict=False):
            for i, (text, (a, b)) in enumerate(lines.items()):
                ax.plot(a, b, color="black", linewidth=1.0, linestyle=style.LINES[i], label=text)
            look = {"color": style.COLOURS[0], "marker": "o", "markersize": 2.5, "linestyle": "", "elinewidth": 0.8}
            ax.errorbar(x, y, yerr=error, label=label, zorder=3, **look)
            ax.set(xlabel=TLABEL, ylabel=name)
            ax.legend(fontsize=6.5, loc="best" if error is not None else "upper right")
        axes[-1].axhspan(-2, 2, color="#E2E2E2", linewidth=0)
        axes[-1].axhline(0, color="black", linewidth=0.8)
        axes[-1].plot(x, residual, "o", color=style.COLOURS[0], markersize=2.5)
        reach = max(3.5, 1.1 * np.abs(residual).max())
        axes[-1].set(xlabel=TLABEL, ylabel="energy − exact / standard error", ylim=(-reach, reach))
        return figure


def edges(centres: np.ndarray) -> np.ndarray:
    """Edges of cells about rising centres, half way between them; float64 ``[n + 1]``."""
    centres = np.asarray(centres, np.float64)
    if len(centres) == 1:
        return centres[0] + np.array([-0.5, 0.5])
    middle = (centres[1:] + centres[:-1]) / 2
    return np.concatenate([[2 * centres[0] - middle[0]], middle, [2 * centres[-1] - middle[-1]]])


def _points(ax, points: Points, place: int, name: str, *, size: float = 4.0, joined: bool = False, shift: float = 0):
    """Markers with intervals; several methods at one coupling stand beside each other."""
    colour = style.COLOURS[place % (len(style.COLOURS) - 1)]
    there = np.isfinite(points.y)
    x = np.asarray(points.x, np.float64)[there]
    x = x + 0.01 * shift * (np.ptp(points.x) if len(points.x) > 1 else 1) / 1.5
    y = np.asarray(points.y)[there]
    error = None
    if points.low is not None:
        low, high = (np.asarray(p)[there] for p in (points.low, points.high))
        error = np.nan_to_num(np.maximum([y - low, high - y], 0))
    ax.errorbar(
        x,
        y,
        yerr=error,
        color=colour,
        marker=MARKERS[place % len(MARKERS)],
        markersize=size,
        markeredgecolor="white",
        markeredgewidth=0.3,
        linestyle=style.LINES[place % len(style.LINES)] if joined else "",
        linewidth=0.7,
        elinewidth=0.9,
        capsize=1.5,
        label=style.plain_text(name),
        zorder=3,
    )


def _entries(ax):
    handles, texts = ax.get_legend_handles_labels()
    for handle, text in zip(handles, texts, strict=True):
        handle.set_label(text)
    return handles


def _box(ax, box):
    from matplotlib.patches import Rectangle

    x0, x1, y0, y1 = box
    ax.add_patch(
        Rectangle((x0, y0), x1 - x0, y1 - y0, fill=False, edgecolor="black", linewidth=0.9, linestyle=(0, (3, 2)))
    )


def _shape(values, shape, name):
    if np.shape(values) != shape:
        raise ValueError(f"{name}: expected shape {shape} as couplings and temperatures, got {np.shape(values)}")
