"""Confusion matrices as pictures: the share of every true class, with the counts written in."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from physml_jax.viz import style


def confusion(matrix: np.ndarray, *, names: Sequence[str] | None = None) -> Any:
    """One cell per (true class, predicted class), coloured by the share of the true class.

    Counts are written into the cells up to 12 classes; with more classes the colours speak alone.

    Args:
      matrix: counts ``[C, C]``, rows are true classes.
      names: text per class; numbers by default.

    Returns:
      A matplotlib figure.

    Raises:
      ValueError: if the matrix is not square, is empty, holds a negative count, or the names do not fit.
    """
    matrix = np.asarray(matrix)
    if matrix.ndim != 2 or matrix.shape[0] != matrix.shape[1] or not matrix.size or matrix.min() < 0:
        raise ValueError(f"matrix: expected counts [C, C], got shape {matrix.shape}")
    n = len(matrix)
    names = [str(i) for i in range(n)] if names is None else [style.plain_text(t) for t in names]
    if len(names) != n:
        raise ValueError(f"names: expected {n} names, got {len(names)}")
    total = matrix.sum(axis=1, keepdims=True)
    share = matrix / np.where(total == 0, 1, total)
    level = n * max(map(len, names)) <= 30  # horizontal labels fit
    with style.styled():
        size = min(style.WIDTH, max(2.9, 1.3 + 0.42 * n))
        figure = style.new_figure(size + 0.9, 0.86 * size if level else size)
        ax = figure.subplots()
        image = ax.imshow(share, cmap=style.COUNT_MAP, vmin=0, vmax=1)
        # Attached to the matrix: a bar of its own would push the labels of a square matrix off the figure.
        bar = figure.colorbar(image, cax=ax.inset_axes([1.04, 0.0, 0.04, 1.0]))
        bar.set_label("share of the true class")
        bar.outline.set_linewidth(0.4)
        step = max(1, n // 16)
        ax.set_xticks(range(0, n, step), names[::step], rotation=0 if level else 90)
        ax.set_yticks(range(0, n, step), names[::step])
        ax.set(xlabel="predicted class", ylabel="true class")
        ax.tick_params(length=0)
        for spine in ax.spines.values():
            spine.set_visible(True)
        if n <= 12:
            for i, j in np.ndindex(n, n):
                text = f"{matrix[i, j]}\n{100 * share[i, j]:.1f} %" if n <= 6 else f"{matrix[i, j]}"
                ax.text(
                    j, i, text, ha="center", va="center", fontsize=7, color="white" if share[i, j] > 0.55 else "black"
                )
        return figure
