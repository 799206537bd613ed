"""A score by group: every example as a dot, the median as a bar, and how many examples stand behind it."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from physml_jax.viz import style

_TRAIN_COLOUR = "#b8b8b8"


def scores_by_group(
    scores: np.ndarray,
    groups: Sequence[int],
    *,
    names: Mapping[int, str] | None = None,
    train_groups: Sequence[int] | None = None,
    reference: np.ndarray | None = None,
    reference_name: str = "baseline",
    label: str = "$R$",
    group_label: str = "space group",
    threshold: float | None = 0.9,
) -> Any:
    """Scores of every group above, numbers of examples below.

    Args:
      scores: float ``[N]``.
      groups: int ``[N]``, for instance space-group numbers; the order along the axis.
      names: group -> text for the axis, mathtext allowed.
      train_groups: groups of the training examples; their numbers are drawn beside those of the test examples.
      reference: float ``[N]``, scores of a baseline; its median per group is marked.
      reference_name: its name.
      label: name of the score.
      group_label: name of the grouping.
      threshold: value to mark by a horizontal line.

    Returns:
      A matplotlib figure with two panels that share their axis of groups.

    Raises:
      ValueError: if lengths differ, there is no example, or a score is not finite.
    """
    scores, groups = np.asarray(scores, np.float64), np.asarray(groups)
    if scores.ndim != 1 or len(scores) == 0 or not np.all(np.isfinite(scores)):
        raise ValueError(f"scores: expected at least one finite score [N], got shape {scores.shape}")
    for x, name in ((groups, "groups"), (reference, "reference")):
        if x is not None and np.shape(x) != scores.shape:
            raise ValueError(f"{name}: expected {len(scores)} values as in scores, got shape {np.shape(x)}")
    keys = np.unique(groups)
    train_counts = None
    if train_groups is not None:
        train_counts = [int(np.sum(np.asarray(train_groups) == k)) for k in keys]
    texts = [(names or {}).get(int(k), str(k)) for k in keys]
    width = min(style.WIDTH, max(style.HALF_WIDTH, 1.2 + 0.42 * len(keys)))
    wide = width > 6
    with style.styled():
        figure = style.new_figure(width, 3.9 if wide else 4.2)
        top, bottom = figure.subplots(2, 1, sharex=True, height_ratios=[2.6, 1])
        for i, k in enumerate(keys):
            values = np.sort(scores[groups == k])
            # A fixed low-discrepancy spread: the same picture every time, and no two dots of a group in one column.
            spread = (np.arange(len(values)) * 0.6180339887 % 1 - 0.5) * 0.56 if len(values) > 1 else [0.0]
            top.scatter(i + np.asarray(spread), values, s=7, color=style.COLOURS[0], alpha=0.45, linewidths=0, zorder=3)
            top.plot([i - 0.34, i + 0.34], [np.median(values)] * 2, color="black", linewidth=1.6, zorder=2)
            if reference is not None:
                median = np.median(np.asarray(reference)[groups == k])
                top.plot(
                    [i], [median], marker="D", markersize=4, color=style.COLOURS[1], markeredgewidth=0, linestyle=""
                )
        if threshold is not None:
            top.axhline(threshold, color=style.GREY, linewidth=0.7, linestyle=(0, (2, 2)), zorder=0)
        low = min(float(scores.min()), float(np.min(reference)) if reference is not None else np.inf)
        top.set_ylim(min(low - 0.03 * (1 - low), 0.98 * (threshold or 1)) if low < 1 else None, None)
        top.set_ylabel(label)
        top.grid(axis="y", linewidth=0.3, color="#dddddd")
        handles = _handles(reference_name if reference is not None else None, train_counts is not None)
        figure.legend(handles=handles, loc="outside upper center", ncols=len(handles) if wide else 2)
        _counts(bottom, [int(np.sum(groups == k)) for k in keys], train_counts)
        rotate = len(keys) > 8 or sum(len(t) for t in texts) > 70
        bottom.set_xticks(
            range(len(keys)), texts, rotation=90 if rotate else 0, fontsize=6.5 if len(keys) > 20 else 7.5
        )
        bottom.set_xlabel(group_label)
        bottom.set_xlim(-0.6, len(keys) - 0.4)
        for ax in (top, bottom):
            ax.tick_params(axis="x", length=0)
        return figure


def _handles(reference_name, with_training):
    from matplotlib.lines import Line2D
    from matplotlib.patches import Patch

    dot = {"linestyle": "", "markeredgewidth": 0}
    handles = [
        Line2D([], [], marker="o", markersize=4, color=style.COLOURS[0], alpha=0.6, label="one structure", **dot),
        Line2D([], [], color="black", linewidth=1.6, label="median"),
    ]
    if reference_name is not None:
        text = f"median of {style.plain_text(reference_name)}"
        handles.append(Line2D([], [], marker="D", markersize=4, color=style.COLOURS[1], label=text, **dot))
    handles.append(Patch(color=style.COLOURS[0], label="test structures"))
    if with_training:
        handles.append(Patch(color=_TRAIN_COLOUR, label="training structures"))
    return handles


def _counts(ax, test, train):
    position = np.arange(len(test))
    most = max([*test, *(train or [])])
    width = 0.38 if train else 0.7
    bars = [(test, -width / 2 if train else 0.0, style.COLOURS[0])]
    if train:
        bars.append((train, width / 2, _TRAIN_COLOUR))
    for values, offset, colour in bars:
        ax.bar(position + offset, values, width, color=colour)
        for x, value in zip(position + offset, values, strict=True):
            if len(test) <= 14:
                ax.text(x, value, f"{value}", ha="center", va="bottom", fontsize=6)
    if most > 20:
        ax.set_yscale("symlog", linthresh=1)
        ticks = [t for t in (0, 1, 10, 100, 1000, 10000) if t <= most]
        ax.set_yticks(ticks, [str(t) for t in ticks])
        ax.minorticks_off()
        ax.set_ylim(0, most * 2.5)
    else:
        ax.set_ylim(0, most * 1.25)
    ax.set_ylabel("structures")
