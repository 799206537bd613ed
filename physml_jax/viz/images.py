"""Rows of pictures: what went in, what the network says, what is true, and where they differ."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from physml_jax.viz import style


def prediction_rows(
    potentials: np.ndarray,
    predictions: np.ndarray,
    truths: np.ndarray,
    *,
    labels: Sequence[str],
    scores: Sequence[float] | None = None,
    cell: Sequence[float] | None = None,
    half_width: Sequence[float] | float | None = None,
    titles: Sequence[str] = ("potential", "prediction", "Bloch waves", "difference"),
    potential_label: str = "V",
    intensity_label: str = "$I/I_0$",
) -> Any:
    """One row per crystal: potential, predicted pattern, true pattern, difference.

    Prediction and truth of a row share one intensity scale, that of both together; the difference has a scale
    symmetric about zero. So a wrong brightness is seen, which the index R forgives.

    Args:
      potentials: float ``[n, H, W]``, first axis y (drawn upwards).
      predictions: float ``[n, H, W]``.
      truths: float ``[n, H, W]``.
      labels: text at the left of every row; matplotlib mathtext and one line break are allowed.
      scores: R of every row, written above the prediction.
      cell: edge of the drawn cell in angstrom, per row; ``None`` draws fractions of the cell.
      half_width: tilt at the edge of the pattern, per row or for all, in 1/angstrom (tangential part of the wave
        vector, without 2 pi); ``None`` draws tilts as a fraction of the half-width.
      titles: of the four columns.
      potential_label: unit of the potential.
      intensity_label: quantity of the patterns.

    Returns:
      A matplotlib figure with four panels and three colour bars per row.

    Raises:
      ValueError: if shapes or lengths differ, there is no row, or a value is not finite.
    """
    potentials, predictions, truths = (
        _stack(x, name) for x, name in ((potentials, "potentials"), (predictions, "predictions"), (truths, "truths"))
    )
    n = len(truths)
    for value, name in (
        (potentials, "potentials"),
        (predictions, "predictions"),
        (labels, "labels"),
        (scores, "scores"),
    ):
        if value is not None and len(value) != n:
            raise ValueError(f"{name}: expected {n} rows as in truths, got {len(value)}")
    if predictions.shape != truths.shape:
        raise ValueError(f"predictions: expected shape {truths.shape} as truths, got {predictions.shape}")
    cells = _per_row(cell, n, "cell")
    widths = _per_row(half_width, n, "half_width")

    scales = [f"({potential_label})", *[f"({intensity_label})"] * 3]
    with style.styled():
        figure = style.new_figure(style.WIDTH, 0.3 + 1.68 * n)
        axes = figure.subplots(n, 4, squeeze=False)
        for i in range(n):
            _row(axes[i], potentials[i], predictions[i], truths[i], cell=cells[i], width=widths[i], label=labels[i])
        for j, (title, scale) in enumerate(zip(titles, scales, strict=True)):
            # The second line holds R above the prediction and keeps the titles at one height.
            axes[0, j].set_title(f"{title} {scale}\n" + " " * (scores is not None), fontsize=7.5, pad=3)
        if scores is not None:
            for i in range(n):
                text = f"$R$ = {scores[i]:.4f}"
                axes[i, 1].set_title(axes[i, 1].get_title().rstrip(" ") + text, fontsize=7.5, pad=3)
        return figure


def _row(axes, potential, prediction, truth, *, cell, width, label):
    edge = 1.0 if cell is None else cell
    _show(axes[0], potential, (0, edge, 0, edge), style.POTENTIAL_MAP, bar=True)
    axes[0].set_xlabel("$x$ (Å)" if cell is not None else "$x/a$", labelpad=1)
    axes[0].set_ylabel(f"{label}\n$y$ (Å)" if cell is not None else f"{label}\n$y/a$", labelpad=2)

    edge = 1.0 if width is None else width
    extent = (-edge, edge, -edge, edge)
    limits = min(prediction.min(), truth.min()), max(prediction.max(), truth.max())
    _show(axes[1], prediction, extent, style.INTENSITY_MAP, limits)
    _show(axes[2], truth, extent, style.INTENSITY_MAP, limits, bar=True)
    difference = prediction - truth
    bound = float(np.abs(difference).max()) or 1e-12
    _show(axes[3], difference, extent, style.DIFFERENCE_MAP, (-bound, bound), bar=True)
    for ax in axes[1:]:
        ax.set_xlabel("$k_x$ (1/Å)" if width is not None else "$k_x$ / half-width", labelpad=1)
    axes[1].set_ylabel("$k_y$ (1/Å)" if width is not None else "$k_y$ / half-width", labelpad=0)
    for ax in axes[2:]:
        ax.tick_params(labelleft=False)


def _show(ax, values, extent, colours, limits=(None, None), *, bar=False):
    image = ax.imshow(values, origin="lower", extent=extent, cmap=colours, vmin=limits[0], vmax=limits[1])
    ax.locator_params(nbins=4)
    for spine in ax.spines.values():
        spine.set_visible(True)
    if bar:
        # Attached to the picture, so that the bar has its height whatever the layout does.
        scale = ax.figure.colorbar(image, cax=ax.inset_axes([1.035, 0.0, 0.05, 1.0]))
        scale.ax.tick_params(labelsize=6.5, length=2, pad=1.5)
        scale.ax.locator_params(nbins=5)
        scale.outline.set_linewidth(0.4)


def _stack(x: np.ndarray, name: str) -> np.ndarray:
    x = np.asarray(x)
    if x.ndim != 3 or len(x) == 0:
        raise ValueError(f"{name}: expected at least one image [n, H, W], got shape {x.shape}")
    if not np.all(np.isfinite(x)):
        raise ValueError(f"{name}: values are not finite")
    return x


def _per_row(value, n: int, name: str) -> list[float | None]:
    if value is None or np.ndim(value) == 0:
        return [None if value is None else float(value)] * n
    if len(value) != n:
        raise ValueError(f"{name}: expected {n} numbers, got {len(value)}")
    return [float(v) for v in value]
