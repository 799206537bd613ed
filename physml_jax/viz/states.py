"""Eigenstates as pictures: the cube view with its box and the colours of its slices, and what a network sees of it."""

import itertools
import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from physml_jax.viz import style

#: The view of ``simulators.anderson.cube_view``.
AZIMUTH, ELEVATION, SLICE_AXIS = -60.0, 25.0, 1
_AXES = ("x", "y", "z")


def cubes(
    pictures: np.ndarray,
    *,
    size: int,
    titles: Sequence[str],
    margin: float = 0.02,
    seen: np.ndarray | None = None,
    seen_title: str = "",
) -> Any:
    """States in the cube view, in the box of the lattice, with the colours of the slices.

    Args:
      pictures: float [n, P, P, 4], RGBA in 0..1 as ``simulators.anderson.cube_view`` draws them with its own camera.
      size: L.
      titles: text above every state.
      margin: that they were drawn with.
      seen: float [n, Q, Q, 4], the same states as a network gets them, drawn below on black, every pixel as it is.
      seen_title: text at the left of that row.

    Returns:
      A matplotlib figure.

    Raises:
      ValueError: if shapes or lengths differ, there is no state, or a value is outside 0..1.
    """
    pictures = _pictures(pictures, "pictures")
    n = len(pictures)
    if len(titles) != n:
        raise ValueError(f"titles: expected {n} texts as pictures, got {len(titles)}")
    if seen is not None:
        seen = _pictures(seen, "seen")
        if len(seen) != n:
            raise ValueError(f"seen: expected {n} pictures as in pictures, got {len(seen)}")
    rows = 1 if seen is None else 2
    side = style.WIDTH / 3
    with style.styled():
        figure = style.new_figure(min(side * n + 1.2, style.WIDTH + 0.5), rows * side + 0.35)
        axes = figure.subplots(rows, n, squeeze=False)
        for ax, picture, title in zip(axes[0], pictures, titles, strict=True):
            hidden, front = _edges(size, picture.shape[0], margin)
            for a, b in hidden:
                ax.plot(*zip(a, b, strict=True), color=style.GREY, linewidth=0.5, linestyle=(0, (3, 2)), zorder=1)
            ax.imshow(picture, zorder=2, interpolation="antialiased")
            for a, b in front:
                ax.plot(*zip(a, b, strict=True), color="black", linewidth=0.6, zorder=3)
            ax.set_title(title, pad=4)
            _bare(ax, picture.shape[0])
        for i in range(n if seen is not None else 0):
            ax = axes[1, i]
            ax.imshow(on_black(seen[i]))
            _bare(ax, seen[i].shape[0])
            if i == 0 and seen_title:
                ax.set_ylabel(seen_title)
        _slices(figure, axes[0, -1], size)
        return figure


def on_black(rgba: np.ndarray) -> np.ndarray:
    """What is transparent becomes black, [..., 4] -> [..., 3]."""
    return rgba[..., :3] * rgba[..., 3:]


def box_corners(size: int, pixels: int, margin: float = 0.02) -> np.ndarray:
    """Where the corners of the lattice's box lie in the picture, float64 [8, 2] (column, row), bits xyz of the number.

    Sites have integer coordinates and fill unit cubes, so the box reaches from -1/2 to L - 1/2.
    """
    right, up = _camera()[1:]
    corners = np.array(list(itertools.product((-0.5, size - 0.5), repeat=3))) - (size - 1) / 2
    extent = size * max(np.abs(right).sum(), np.abs(up).sum()) / (1 - 2 * margin)
    step = pixels / extent
    return np.stack([corners @ right * step, -(corners @ up) * step], axis=1) + (pixels - 1) / 2


def _camera():
    az, el = math.radians(AZIMUTH), math.radians(ELEVATION)
    direction = np.array([math.cos(el) * math.cos(az), math.cos(el) * math.sin(az), math.sin(el)])
    right = np.array([-math.sin(az), math.cos(az), 0.0])
    return direction, right, np.cross(direction, right)


def _edges(size, pixels, margin):
    """Edges that meet the corner farthest from the viewer, and the others, as pairs of points."""
    points = box_corners(size, pixels, margin)
    corners = np.array(list(itertools.product((0, 1), repeat=3)))
    far = int(np.argmin(corners @ _camera()[0]))
    pairs = [(a, b) for a, b in itertools.combinations(range(8), 2) if np.abs(corners[a] - corners[b]).sum() == 1]
    lines = {far_one: [] for far_one in (True, False)}
    for a, b in pairs:
        lines[far in (a, b)].append((points[a], points[b]))
    return lines[True], lines[False]


def _bare(ax, pixels):
    ax.set(xlim=(-0.5 - 0.02 * pixels, 1.02 * pixels - 0.5), ylim=(1.02 * pixels - 0.5, -0.5 - 0.02 * pixels))
    ax.set_aspect("equal")
    ax.set(xticks=[], yticks=[])
    ax.spines[:].set_visible(False)
    ax.patch.set_visible(False)


def _slices(figure, ax, size):
    """Colour bar of the slice numbers, attached to the last picture."""
    from matplotlib import cm, colors

    hues = colors.hsv_to_rgb(np.stack([np.arange(size) / size, np.ones(size), np.ones(size)], axis=1))
    norm = colors.BoundaryNorm(np.arange(size + 1) + 0.5, size)
    scale = cm.ScalarMappable(norm, colors.ListedColormap(hues))
    bar = figure.colorbar(scale, cax=ax.inset_axes([1.03, 0.1, 0.04, 0.8]), ticks=np.unique([1, (size + 1) // 2, size]))
    bar.set_label(f"slice ${_AXES[SLICE_AXIS]}$ (lattice constants)", fontsize=7)
    bar.outline.set_linewidth(0.4)
    bar.ax.minorticks_off()


def _pictures(x, name):
    x = np.asarray(x, np.float64)
    if x.ndim != 4 or not len(x) or x.shape[1] != x.shape[2] or x.shape[3] != 4:
        raise ValueError(f"{name}: expected pictures [n, P, P, 4], got shape {x.shape}")
    if not (np.isfinite(x).all() and x.min() >= 0 and x.max() <= 1 + 1e-6):
        raise ValueError(f"{name}: expected colours in 0..1")
    return np.clip(x, 0, 1)
