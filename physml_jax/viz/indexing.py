"""A diffraction pattern with its answer drawn on it."""

from typing import Any

import numpy as np

from physml_jax.analysis.indexing import Hypothesis
from physml_jax.analysis.pattern_spots import Pattern
from physml_jax.viz import style

OBSERVED, PREDICTED, FORBIDDEN = style.COLOURS[4], style.COLOURS[5], style.COLOURS[3]
#: Labels beyond this number would hide the pattern.
_MAX_LABELS = 40


def overlay(
    image: np.ndarray,
    pattern: Pattern,
    *,
    title: str,
    hypothesis: Hypothesis | None = None,
    predicted: np.ndarray | None = None,
    predicted_hkl: np.ndarray | None = None,
    strength: np.ndarray | None = None,
) -> Any:
    """The image with observed spots, predicted spots and their indices.

    Args:
      image: [H, W].
      pattern: of ``read_pattern``.
      title: text above; the axes show pixels and a scale bar 1/angstrom.
      hypothesis: the answer; ``None`` draws the observed spots only.
      predicted: [K, 2], places of all predicted spots in pixels.
      predicted_hkl: int [K, 3], their indices.
      strength: [K], simulated intensities relative to the strongest; the area of a marker follows their root.

    Returns:
      A matplotlib figure.
    """
    with style.styled():
        figure = style.new_figure(style.WIDTH, style.WIDTH * min(1.2, image.shape[0] / image.shape[1]) + 0.55)
        ax = figure.subplots()
        ax.imshow(_compressed(image, pattern), cmap=style.INTENSITY_MAP, interpolation="bilinear")
        size = float(np.clip(1.5 * np.median(pattern.peaks.sizes), 0.008 * min(image.shape), 0.03 * min(image.shape)))
        _rings(ax, pattern.places, size, OBSERVED, "observed")
        if predicted is not None and len(predicted):
            area = 8 + 50 * np.sqrt(np.clip(strength, 0, 1))
            name = "predicted, the strongest large"
            ax.scatter(*predicted.T, s=area, marker="+", color=PREDICTED, linewidths=0.9, label=name)
            _labels(ax, predicted, predicted_hkl, strength, image.shape, size)
        shift = np.zeros(2) if hypothesis is None else hypothesis.shift * [1, -1] / pattern.scale
        ax.plot(*(pattern.centre.position + shift), "x", color=style.COLOURS[1], ms=7, mew=1.4, label="centre")
        _scale_bar(ax, image.shape, pattern.scale * (1.0 if hypothesis is None else hypothesis.factor))
        ax.set_xlim(-0.5, image.shape[1] - 0.5)
        ax.set_ylim(image.shape[0] - 0.5, -0.5)
        ax.set_xticks([])
        ax.set_yticks([])
        for spine in ax.spines.values():
            spine.set_visible(False)
        figure.suptitle(style.plain_text(title), fontsize=9)
        figure.legend(loc="outside lower center", ncols=3)
        return figure


def residuals(pattern: Pattern, hypothesis: Hypothesis) -> Any:
    """Observed minus predicted places of the matched spots, over their distance from the centre.

    Args:
      pattern: of ``read_pattern``.
      hypothesis: the answer.

    Returns:
      A matplotlib figure.
    """
    ok = hypothesis.matched
    observed = pattern.spots.positions[ok]
    gap = (observed - hypothesis.predicted[ok]) * 1e3
    radius = np.linalg.norm(observed, axis=1)
    radial = (gap * observed).sum(1) / radius
    across = (gap[:, 1] * observed[:, 0] - gap[:, 0] * observed[:, 1]) / radius
    with style.styled():
        figure = style.new_figure(style.HALF_WIDTH, 2.4)
        ax = figure.subplots()
        ax.axhline(0, color=style.GREY, lw=0.6)
        error = pattern.spots.errors[ok] * 1e3
        ax.errorbar(radius, radial, error, fmt="o", ms=3.5, lw=0.8, color=style.COLOURS[0], label="along g")
        ax.errorbar(radius, across, error, fmt="s", ms=3.5, lw=0.8, color=style.COLOURS[1], label="across g")
        ax.set_xlabel("distance from the centre (1/Å)")
        ax.set_ylabel("observed − predicted (0.001/Å)")
        ax.legend()
        return figure


def label(hkl: np.ndarray) -> str:
    r"""Miller indices as matplotlib text, bars over negative ones.

    Example:
      >>> label([1, -1, 0])
      '$1\\bar{1}0$'
    """
    gap = r"\," if max(abs(int(i)) for i in hkl) > 9 else ""
    return "$" + gap.join(rf"\bar{{{-i}}}" if i < 0 else str(i) for i in map(int, hkl)) + "$"


def _compressed(image, pattern):
    """Grey values that show faint spots beside the direct beam."""
    low = np.percentile(image, 2)
    y, x = np.round(pattern.places).astype(int).T[::-1]
    bright = np.asarray(image, np.float64)[np.clip(y, 0, image.shape[0] - 1), np.clip(x, 0, image.shape[1] - 1)]
    high = max(float(np.median(bright)), float(np.percentile(image, 99))) if len(bright) else float(image.max())
    return np.clip((image - low) / max(high - low, 1e-12), 0, 1) ** 0.4


def _rings(ax, places, size, colour, name):
    from matplotlib.collections import EllipseCollection

    widths = np.full(len(places), 4.0 * size)
    ax.add_collection(
        EllipseCollection(
            widths, widths, np.zeros(len(places)), units="xy", offsets=places, transOffset=ax.transData,
            facecolors="none", edgecolors=colour, linewidths=0.9,
        )
    )  # fmt: skip
    ax.plot([], [], "o", mfc="none", color=colour, label=name)


def _labels(ax, places, hkl, strength, shape, size):
    """Indices beside the strongest predicted spots, away from the border."""
    for k in np.argsort(-strength, kind="stable")[:_MAX_LABELS]:
        x, y = places[k]
        right = x < 0.9 * shape[1]
        # Points of the page, beside the ring, whose radius is twice the size.
        away = 2 * size * style.WIDTH * 72 / shape[1] * 0.75 + 2
        off = away * (1 if right else -1), away if y > 0.08 * shape[0] else -away - 6
        side = "left" if right else "right"
        ax.annotate(label(hkl[k]), (x, y), off, textcoords="offset points", ha=side, color=PREDICTED, fontsize=6.5)


def _scale_bar(ax, shape, scale):
    """A bar of a round length in the lower left corner."""
    wanted = 0.2 * shape[1] * scale
    length = max((m * 10.0**e for e in range(-4, 3) for m in (1, 2, 5) if m * 10.0**e <= wanted), default=wanted)
    x, y = 0.04 * shape[1], 0.95 * shape[0]
    ax.plot([x, x + length / scale], [y, y], color="white", lw=2.5, solid_capstyle="butt")
    ax.text(x, y - 0.012 * shape[0], f"{length:g} 1/Å", color="white", fontsize=7.5, va="bottom")
