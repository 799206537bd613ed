"""Confusion matrices as pictures: the share of every true class, with the counts written in."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from physml_jax.viz import style


def confusion(matrix: np.ndarray, *, names: Sequence[str] | None = None, errors: np.ndarray | None = None) -> Any:
    """One cell per (true class, predicted class), coloured by the share of the true class; row sums beside the names.

    Counts are written into the cells up to 12 classes; with more classes the colours speak alone.

    Args:
      matrix: counts ``[C, C]``, rows are true classes; means over seeds need not be integers.
      names: text per class; numbers by default.
      errors: standard error of every count over seeds, ``[C, C]``.

    Returns:
      A matplotlib figure.

    Raises:
      ValueError: if the matrix is not square, is empty, holds a negative count, or the names do not fit.
    """
    matrix, names, share = _checked(matrix, names)
    n = len(matrix)
    level = n * max(map(len, names)) <= 30  # horizontal labels fit
    with style.styled():
        size = min(style.WIDTH, max(2.9, 1.3 + 0.42 * n))
        figure = style.new_figure(size + (0.9 if level else 1.2), 0.86 * size if level else size)
        ax = figure.subplots()
        image = _draw(ax, matrix, share, names, errors, level=level)
        # Attached to the matrix: a bar of its own would push the labels of a square matrix off the figure.
        bar = figure.colorbar(image, cax=ax.inset_axes([1.04, 0.0, 0.04, 1.0]))
        bar.set_label("share of the true class")
        bar.outline.set_linewidth(0.4)
        return figure


def confusions(
    matrices: Mapping[str, np.ndarray],
    *,
    names: Sequence[str] | None = None,
    errors: Mapping[str, np.ndarray | None] | None = None,
) -> Any:
    """Several confusion matrices of the same few classes side by side, for instance those of several models.

    Args:
      matrices: title -> counts ``[C, C]``, rows are true classes.
      names: text per class; numbers by default.
      errors: title -> standard error of every count.

    Returns:
      A matplotlib figure, three matrices per row.

    Raises:
      ValueError: as ``confusion``, or without a matrix.
    """
    if not matrices:
        raise ValueError("matrices: expected at least one")
    columns = min(3, len(matrices))
    rows = -(-len(matrices) // columns)
    with style.styled():
        figure = style.new_figure(style.WIDTH * columns / 3 + 0.3, 2.3 * rows)
        axes = figure.subplots(rows, columns, squeeze=False)
        for i, (ax, (title, matrix)) in enumerate(zip(axes.ravel(), matrices.items(), strict=False)):
            matrix, texts, share = _checked(matrix, names)
            _draw(ax, matrix, share, texts, (errors or {}).get(title), level=True)
            ax.set_title(style.plain_text(title), pad=4)
            ax.tick_params(axis="y", labelrotation=90)
            for text in ax.get_yticklabels():
                text.set(va="center", ha="center", multialignment="center")
            ax.tick_params(axis="y", pad=10)
            if i % columns:
                ax.set_ylabel("")
        for ax in axes.ravel()[len(matrices) :]:
            ax.set_axis_off()
        return figure


def _checked(matrix, names):
    matrix = np.asarray(matrix)
    if matrix.ndim != 2 or matrix.shape[0] != matrix.shape[1] or not matrix.size or matrix.min() < 0:
        raise ValueError(f"matrix: expected counts [C, C], got shape {matrix.shape}")
    n = len(matrix)
    names = [str(i) for i in range(n)] if names is None else [style.plain_text(t) for t in names]
    if len(names) != n:
        raise ValueError(f"names: expected {n} names, got {len(names)}")
    total = matrix.sum(axis=1, keepdims=True)
    return matrix, names, matrix / np.where(total == 0, 1, total)


def _draw(ax, matrix, share, names, errors, *, level):
    n = len(matrix)
    image = ax.imshow(share, cmap=style.COUNT_MAP, vmin=0, vmax=1)
    step = max(1, n // 40)
    small = {"fontsize": 6} if n > 16 else {}
    ax.set_xticks(range(0, n, step), names[::step], rotation=0 if level else 90, **small)
    sums = [_count(x) for x in matrix.sum(axis=1)]
    join = "\n" if n <= 6 else "  "
    ax.set_yticks(
        range(0, n, step), [f"{t}{join}({x})" for t, x in list(zip(names, sums, strict=True))[::step]], **small
    )
    ax.set(xlabel="predicted class", ylabel="true class (row sum)")
    ax.tick_params(length=0)
    for spine in ax.spines.values():
        spine.set_visible(True)
    if n <= 12:
        for i, j in np.ndindex(n, n):
            text = _count(matrix[i, j], None if errors is None else errors[i, j])
            if n <= 6:
                text += f"\n{100 * share[i, j]:.1f} %"
            colour = "white" if share[i, j] > 0.55 else "black"
            ax.text(j, i, text, ha="center", va="center", fontsize=7, color=colour)
    return image


def _count(value, error=None):
    text = f"{value:.0f}" if abs(value - round(value)) < 1e-6 and error is None else f"{value:.1f}"
    return text if error is None else f"{text}\n± {error:.1f}"
