"""Diffraction patterns over tilts: panels, convergent-beam discs, rocking curves, and how a refinement went."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from physml_jax.viz import style

#: Pictures of one figure at most; further reflections have files of their own.
MAX_PANELS = 36


def reflection_text(hkl: Sequence[int]) -> str:
    r"""Miller indices as matplotlib text with bars.

    Example:
      >>> print(reflection_text((2, -2, 0)))
      2$\bar{2}$0
    """
    parts = [rf"$\bar{{{-i}}}$" if i < 0 else str(i) for i in hkl]
    return (" " if any(abs(i) > 9 for i in hkl) else "").join(parts)


def panels(
    images: np.ndarray,
    *,
    half_width: float,
    thicknesses: Sequence[float],
    reflections: Sequence[Sequence[int]],
    unit: str = "1/Å",
    label: str = "$I/I_0$",
) -> Any:
    """One row per thickness, one column per reflection (a single thickness wraps); every picture has its own scale.

    Args:
      images: [T, R, N, N], first axis ky (upwards), second kx.
      half_width: tilt at the edge, in ``unit``.
      thicknesses: [T], angstrom.
      reflections: R Miller indices; the first ones are drawn if there are too many.
      unit: of the tilts, ``"1/Å"`` or ``"mrad"``.
      label: of the colour bars.

    Returns:
      A matplotlib figure.

    Raises:
      ValueError: if shapes do not fit or a value is not finite.
    """
    images = np.asarray(images)
    shape = (len(thicknesses), len(reflections))
    if images.ndim != 4 or images.shape[:2] != shape or images.size == 0:
        raise ValueError(f"images: expected shape ({shape[0]}, {shape[1]}, N, N), got {images.shape}")
    if not np.all(np.isfinite(images)):
        raise ValueError("images: values are not finite")
    num_rows, num_columns = min(shape[0], 8), min(shape[1], max(1, MAX_PANELS // min(shape[0], 8)))
    cells = [(i, j) for i in range(num_rows) for j in range(num_columns)]
    if shape[0] == 1 and num_columns > 4:
        num_columns = 6 if num_columns > 16 else 4
        num_rows = -(-len(cells) // num_columns)
    with style.styled():
        size = min(2.2, (style.WIDTH + 1.2) / max(2, num_columns))
        figure = style.new_figure(0.5 + 1.25 * size * num_columns, 0.35 + 1.12 * size * num_rows)
        axes = figure.subplots(num_rows, num_columns, squeeze=False)
        for ax, (i, j) in zip(axes.ravel(), cells, strict=False):
            _tilts(ax, images[i, j], half_width, bar=True)
            ax.set_title(f"{reflection_text(reflections[j])}, {thicknesses[i]:g} Å", fontsize=7.5, pad=3)
        for ax in axes.ravel()[len(cells) :]:
            ax.set_axis_off()
        _outer_labels(axes, unit)
        figure.suptitle(f"{label} over the tilt of the incident beam", fontsize=8.5)
        return figure


def panel(image: np.ndarray, *, half_width: float, title: str, unit: str = "1/Å", label: str = "$I/I_0$") -> Any:
    """One pattern with axes and colour bar; arguments as for ``panels``."""
    with style.styled():
        figure = style.new_figure(style.HALF_WIDTH, 0.85 * style.HALF_WIDTH)
        ax = figure.subplots()
        _tilts(ax, np.asarray(image), half_width, bar=True)
        ax.set_title(title)
        symbol = r"\alpha" if unit == "mrad" else "k"
        ax.set_xlabel(f"${symbol}_x$ ({unit})")
        ax.set_ylabel(f"${symbol}_y$ ({unit})")
        figure.axes[-1].set_ylabel(label)
        return figure


def disc_pattern(
    patterns: np.ndarray,
    *,
    edge: float,
    thicknesses: Sequence[float],
    vectors: np.ndarray,
    reflections: Sequence[Sequence[int]],
    gamma: float = 0.35,
) -> Any:
    """Convergent-beam patterns, one picture per thickness, darkened by a power of the intensity.

    Args:
      patterns: [T, M, M].
      edge: of the picture, 1/angstrom.
      thicknesses: [T], angstrom.
      vectors: [R, 2], centres of the discs, 1/angstrom.
      reflections: their indices; those of the innermost discs are written.
      gamma: exponent.
    """
    from matplotlib.colors import PowerNorm

    patterns = np.asarray(patterns)
    number = min(len(patterns), 6)
    columns = min(number, 2)
    rows = -(-number // columns)
    order = np.argsort(np.linalg.norm(vectors, axis=1), kind="stable")[:13]
    with style.styled():
        size = style.WIDTH / 2 if columns > 1 else 0.7 * style.WIDTH
        figure = style.new_figure(size * columns, (0.8 * size + 0.15) * rows)
        axes = figure.subplots(rows, columns, squeeze=False)
        for ax, pattern, t in zip(axes.ravel(), patterns, thicknesses, strict=False):
            norm = PowerNorm(gamma, vmin=0.0, vmax=float(pattern.max()) or 1.0)
            picture = ax.imshow(pattern, origin="lower", extent=(-edge, edge, -edge, edge), cmap="gray", norm=norm)
            for i in order:
                x, y = vectors[i]
                text = reflection_text(reflections[i])
                ax.text(x, y, text, color=style.COLOURS[4], fontsize=6, ha="center", va="center")
            ax.set_title(f"{t:g} Å")
            bar = figure.colorbar(picture, ax=ax, shrink=0.75)
            bar.set_label("$I/I_0$")
        for ax in axes.ravel()[number:]:
            ax.set_axis_off()
        _outer_labels(axes, "1/Å", symbol="q")
        return figure


def rocking_curves(
    curves: np.ndarray, angles: np.ndarray, *, thicknesses: Sequence[float], reflections: Sequence[Sequence[int]]
) -> Any:
    """Intensity over the angle of incidence: one panel per reflection, one line per thickness.

    Args:
      curves: [T, R, n].
      angles: [n], mrad.
      thicknesses: [T], angstrom.
      reflections: R Miller indices.
    """
    curves = np.asarray(curves)
    if curves.ndim != 3 or curves.shape != (len(thicknesses), len(reflections), len(angles)):
        raise ValueError(
            f"curves: expected shape ({len(thicknesses)}, {len(reflections)}, {len(angles)}), got {curves.shape}"
        )
    number = min(len(reflections), 12)
    columns = min(number, 3)
    rows = -(-number // columns)
    with style.styled():
        figure = style.new_figure(style.WIDTH if columns > 1 else style.HALF_WIDTH, 0.3 + 1.9 * rows)
        axes = figure.subplots(rows, columns, squeeze=False, sharex=True)
        for ax, j in zip(axes.ravel(), range(number), strict=False):
            for i, t in enumerate(thicknesses[:5]):
                ax.plot(angles, curves[i, j], style.LINES[i], color=style.COLOURS[i], label=f"{t:g} Å", linewidth=1.0)
            ax.set_title(reflection_text(reflections[j]))
            ax.set_ylim(bottom=0)
        for ax in axes.ravel()[number:]:
            ax.set_axis_off()
        for ax in axes[:, 0]:
            ax.set_ylabel("$I/I_0$")
        for j in range(columns):
            last = [ax for ax, k in zip(axes[:, j], range(j, rows * columns, columns), strict=True) if k < number][-1]
            last.set_xlabel("angle of incidence (mrad)")
            last.tick_params(labelbottom=True)
        if len(thicknesses) > 1:
            figure.legend(*axes[0, 0].get_legend_handles_labels(), loc="outside upper right", ncols=5)
        return figure


def residual_maps(
    counts: np.ndarray,
    model: np.ndarray,
    residuals: np.ndarray,
    *,
    half_width: float,
    thicknesses: Sequence[float],
    reflections: Sequence[Sequence[int]],
    max_rows: int = 6,
    label: str = "electrons per pixel",
) -> Any:
    """Rows of image, model, and residual in standard deviations, with the distribution of the residuals.

    Args:
      counts: [T, R, N, N].
      model: [T, R, N, N].
      residuals: [T, R, N, N], (counts - model) / standard deviation.
      half_width: tilt at the edge, 1/angstrom.
      thicknesses: [T], angstrom.
      reflections: R Miller indices.
      max_rows: images that are drawn at most.
      label: unit of the counts.
    """
    counts, model, residuals = (np.asarray(a) for a in (counts, model, residuals))
    if not counts.shape == model.shape == residuals.shape or counts.ndim != 4:
        raise ValueError(f"residuals: expected the shape of the images {counts.shape}, got {residuals.shape}")
    cells = [(i, j) for i in range(counts.shape[0]) for j in range(counts.shape[1])][:max_rows]
    with style.styled():
        figure = style.new_figure(style.WIDTH, 0.45 + 1.55 * len(cells))
        axes = figure.subplots(len(cells), 4, squeeze=False)
        for row, (i, j) in zip(axes, cells, strict=True):
            limits = min(counts[i, j].min(), model[i, j].min()), max(counts[i, j].max(), model[i, j].max())
            _tilts(row[0], counts[i, j], half_width, limits=limits)
            _tilts(row[1], model[i, j], half_width, limits=limits, bar=True)
            _tilts(row[2], residuals[i, j], half_width, limits=(-4, 4), colours=style.DIFFERENCE_MAP, bar=True)
            row[0].set_ylabel(f"{reflection_text(reflections[j])}, {thicknesses[i]:.4g} Å\n$k_y$ (1/Å)", labelpad=2)
            for ax in row[1:3]:
                ax.tick_params(labelleft=False)
            edges = np.linspace(-5, 5, 31)
            values = np.clip(residuals[i, j].ravel(), -5, 5)
            row[3].hist(values, edges, density=True, color=style.COLOURS[5], label="residuals")
            x = np.linspace(-5, 5, 101)
            row[3].plot(x, np.exp(-(x**2) / 2) / np.sqrt(2 * np.pi), color=style.COLOURS[6], label="normal")
            row[3].set_yticks([])
            row[3].spines["left"].set_visible(False)
            row[3].set_box_aspect(1)
        for ax, title in zip(axes[0], (f"image\n({label})", "model\n", "residual\n(σ)", "distribution\n"), strict=True):
            ax.set_title(title, fontsize=7.5, pad=3)
        for ax in axes[-1, :3]:
            ax.set_xlabel("$k_x$ (1/Å)", labelpad=1)
        axes[-1, 3].set_xlabel("residual (σ)", labelpad=1)
        return figure


def convergence(
    history: Sequence[Mapping[str, Any]],
    *,
    names: Sequence[str],
    values: Sequence[float],
    uncertainties: Sequence[float],
    truth: Sequence[float | None] | None = None,
    degrees_of_freedom: int | None = None,
) -> Any:
    """The objective, and every parameter with its final uncertainty, over the iterations.

    Args:
      history: rows with ``iteration``, ``objective``, ``values``.
      names: of the k parameters, with units.
      values: [k], final.
      uncertainties: [k].
      truth: [k] where known.
      degrees_of_freedom: drawn as the expectation of the objective.
    """
    from matplotlib.ticker import NullFormatter

    if not history:
        raise ValueError("history: expected at least one iteration")
    iterations = [row["iteration"] for row in history]
    track = np.array([list(row["values"]) for row in history])
    objective = np.array([row["objective"] for row in history])
    number = 1 + len(names)
    columns = min(3, number)
    rows = -(-number // columns)
    with style.styled():
        figure = style.new_figure(style.WIDTH if columns > 1 else style.HALF_WIDTH, 0.3 + 1.65 * rows)
        axes = figure.subplots(rows, columns, squeeze=False).ravel()
        axes[0].plot(iterations, objective, ".-", color=style.COLOURS[0])
        if objective.max() > 10 * objective.min() > 0:
            axes[0].set_yscale("log")
            axes[0].yaxis.set_minor_formatter(NullFormatter())
        if degrees_of_freedom:
            axes[0].axhline(degrees_of_freedom, color=style.GREY, linewidth=0.8, linestyle="--")
        axes[0].set_title("deviance")
        for j, ax in enumerate(axes[1:number]):
            ax.axhspan(
                values[j] - uncertainties[j],
                values[j] + uncertainties[j],
                color=style.COLOURS[5],
                alpha=0.5,
                linewidth=0,
            )
            if truth is not None and truth[j] is not None:
                ax.axhline(truth[j], color=style.COLOURS[1], linewidth=0.9, linestyle="--")
            ax.plot(iterations, track[:, j], ".-", color=style.COLOURS[0])
            ax.set_title(names[j])
            ax.ticklabel_format(useOffset=False)
        for ax in axes[number:]:
            ax.set_axis_off()
        for ax in axes[max(0, number - columns) : number]:
            ax.set_xlabel("iteration")
        for ax in axes[:number]:
            ax.set_xlim(-0.3, iterations[-1] + 0.3)
        return figure


def pulls(values: Mapping[str, np.ndarray]) -> Any:
    """(value - truth) / stated uncertainty of repeated refinements: one row of dots per parameter, the band of 1.

    Args:
      values: name -> [seeds].
    """
    names = list(values)
    with style.styled():
        figure = style.new_figure(style.WIDTH, 0.7 + 0.32 * len(names))
        ax = figure.subplots()
        ax.axvspan(-1, 1, color=style.COLOURS[5], alpha=0.25, linewidth=0)
        ax.axvline(0, color=style.GREY, linewidth=0.8)
        for i, name in enumerate(names):
            x = np.asarray(values[name])
            ax.plot(x, np.full(len(x), i), "o", color=style.COLOURS[0], markersize=3, alpha=0.7)
        ax.set_yticks(range(len(names)), [f"{n}  (rms {np.sqrt(np.mean(np.square(values[n]))):.2f})" for n in names])
        ax.set_ylim(len(names) - 0.5, -0.5)
        ax.set_xlabel("(refined − true) / stated uncertainty")
        return figure


def _tilts(ax, image, half_width, *, limits=(None, None), colours=style.INTENSITY_MAP, bar=False):
    extent = (-half_width, half_width, -half_width, half_width)
    picture = ax.imshow(image, origin="lower", extent=extent, cmap=colours, vmin=limits[0], vmax=limits[1])
    ax.locator_params(nbins=4)
    for spine in ax.spines.values():
        spine.set_visible(True)
    if bar:
        scale = ax.figure.colorbar(picture, ax=ax, shrink=0.8, pad=0.02)
        scale.ax.tick_params(labelsize=6, length=2, pad=1.5)
        scale.outline.set_linewidth(0.4)


def _outer_labels(axes, unit, symbol="k"):
    for ax in axes[:, 0]:
        ax.set_ylabel(f"${symbol}_y$ ({unit})", labelpad=1)
    for j in range(axes.shape[1]):
        visible = [ax for ax in axes[:, j] if ax.axison]
        if visible:
            visible[-1].set_xlabel(f"${symbol}_x$ ({unit})", labelpad=1)
