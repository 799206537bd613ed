"""An architecture search in pictures: who went on, what size and options are worth, what the choice pretends."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from physml_jax.viz import style


def survival(budgets: Sequence[int], scores: Sequence[Mapping[int, float]], *, selected: int, label: str) -> Any:
    """The score of every candidate at the rungs that it reached.

    Args:
      budgets: images seen at the end of every rung.
      scores: per rung, candidate -> score.
      selected: the candidate that was picked, drawn thick.
      label: name of the score.

    Returns:
      A matplotlib figure.

    Raises:
      ValueError: if there is not one set of scores per budget.
    """
    if len(budgets) != len(scores) or not scores:
        raise ValueError(f"scores: expected one mapping for each of {len(budgets)} rungs, got {len(scores)}")
    with style.styled():
        figure = style.new_figure(style.WIDTH * 0.62, 3.0)
        ax = figure.subplots()
        for number in scores[0]:
            y = [rung[number] for rung in scores if number in rung]
            last = len(y) == len(scores)
            colour = style.COLOURS[1] if number == selected else style.COLOURS[0] if last else style.GREY
            width = 2.0 if number == selected else 1.0 if last else 0.6
            x = budgets[: len(y)]
            ax.plot(x, y, color=colour, linewidth=width, alpha=1.0 if last else 0.5, zorder=2 + last)
            ax.plot(x[-1], y[-1], marker="o" if last else "x", markersize=3, color=colour, zorder=2 + last)
        ax.set_xscale("log")
        ax.set_xticks(list(budgets), [f"{b:,}" for b in budgets])
        ax.minorticks_off()
        ax.set(xlabel="training images seen", ylabel=label)
        ax.set_title("  ".join(f"{b:,}: {len(s)} candidates" for b, s in zip(budgets, scores, strict=True)), loc="left")
        return figure


def against(
    quantities: Mapping[str, np.ndarray],
    scores: np.ndarray,
    colours: np.ndarray,
    *,
    colour_label: str,
    label: str,
    marked: Mapping[str, int],
) -> Any:
    """Scores of all candidates over numbers that describe them, one panel each.

    Args:
      quantities: name -> float ``[K]``; one that spans more than a factor of 30 gets a logarithmic axis.
      scores: float ``[K]``.
      colours: float ``[K]``, shown as colour.
      colour_label: what the colour is.
      label: name of the score.
      marked: text -> position of a candidate to ring.

    Returns:
      A matplotlib figure.
    """
    scores = np.asarray(scores, np.float64)
    with style.styled():
        figure = style.new_figure(style.WIDTH, 2.8)
        axes = np.atleast_1d(figure.subplots(1, len(quantities), sharey=True))
        for ax, (name, x) in zip(axes, quantities.items(), strict=True):
            x = np.asarray(x, np.float64)
            logarithmic = x.min() > 0 and x.max() > 30 * x.min()
            # A fixed spread keeps candidates of one depth apart.
            spread = 0.0 if logarithmic else ((np.arange(len(x)) * 0.618034) % 1 - 0.5) * 0.5
            dots = ax.scatter(x + spread, scores, c=colours, cmap="viridis", s=14, linewidths=0, alpha=0.85)
            for i, (text, j) in enumerate(marked.items()):
                place = (x + spread)[j], scores[j]
                ring = {"facecolors": "none", "edgecolors": style.COLOURS[1 + 2 * i], "linewidths": 1.3}
                ax.scatter(*place, s=70, label=text if ax is axes[0] else None, **ring)
            if logarithmic:
                ax.set_xscale("log")
            ax.set_xlabel(name)
        axes[0].set_ylabel(label)
        figure.colorbar(dots, ax=axes[-1], label=colour_label)
        if marked:
            figure.legend(loc="outside upper left", ncols=len(marked))
        return figure


def effects(
    rows: Sequence[tuple[str, str, float, float | None, float | None, int]], *, overall: float, label: str
) -> Any:
    """The mean score of the candidates that have a value of an option, one row per value.

    Args:
      rows: (option, value, mean, low, high, number of groups); ends of the interval are ``None`` for a single group.
      overall: mean of all candidates, a vertical line.
      label: name of the score.

    Returns:
      A matplotlib figure.

    Raises:
      ValueError: without a row.
    """
    if not rows:
        raise ValueError("rows: expected at least one value of an option")
    with style.styled():
        figure = style.new_figure(style.WIDTH * 0.75, 0.9 + 0.19 * len(rows))
        ax = figure.subplots()
        names = list(dict.fromkeys(row[0] for row in rows))
        places, y = [], 0.0
        for i, (name, _, mean, low, high, _) in enumerate(rows):
            y -= 1.0 if i == 0 or rows[i - 1][0] == name else 1.5
            places.append(y)
            colour = style.COLOURS[names.index(name) % 6]
            if low is not None:
                ax.plot([low, high], [y, y], color=colour, linewidth=1.4)
            ax.plot([mean], [y], marker="o", markersize=4, color=colour)
        ax.axvline(overall, color=style.GREY, linewidth=0.7, linestyle=(0, (2, 2)), zorder=0)
        texts = [f"{style.plain_text(name)} = {value}  ({n})" for name, value, _, _, _, n in rows]
        ax.set_yticks(places, texts)
        ax.tick_params(axis="y", length=0)
        ax.set_xlabel(label)
        return figure


def learning_rates(rates: Sequence[float], scores: np.ndarray, *, label: str) -> Any:
    """The score over the learning rate: one thin line per network, and their mean with its standard error.

    Args:
      rates: R learning rates.
      scores: float ``[G, R]``.
      label: name of the score.

    Returns:
      A matplotlib figure.

    Raises:
      ValueError: if the shapes do not fit.
    """
    scores = np.asarray(scores, np.float64)
    if scores.ndim != 2 or scores.shape[1] != len(rates):
        raise ValueError(f"scores: expected [G, {len(rates)}], got shape {scores.shape}")
    order = np.argsort(rates)
    x, scores = np.asarray(rates, np.float64)[order], scores[:, order]
    with style.styled():
        figure = style.new_figure(style.HALF_WIDTH, 2.8)
        ax = figure.subplots()
        for row in scores:
            ax.plot(x, row, color=style.GREY, linewidth=0.5, alpha=0.6)
        error = scores.std(axis=0, ddof=1) / np.sqrt(len(scores)) if len(scores) > 1 else None
        ax.errorbar(x, scores.mean(axis=0), error, color=style.COLOURS[0], marker="o", markersize=4, linewidth=1.8)
        ax.set_xscale("log")
        ax.set_xticks(x, [f"{v:g}" for v in x])
        ax.minorticks_off()
        ax.set(xlabel="learning rate", ylabel=label)
        return figure


def optimism(
    counts: Sequence[int],
    lines: Mapping[str, tuple[np.ndarray, np.ndarray, np.ndarray]],
    *,
    label: str,
) -> Any:
    """What is reported and what is true, over the number of candidates that were chosen from.

    Args:
      counts: numbers of candidates.
      lines: name -> (mean, low, high), each ``[len(counts)]``.
      label: name of the score.

    Returns:
      A matplotlib figure.
    """
    with style.styled():
        figure = style.new_figure(style.WIDTH * 0.62, 3.2)
        ax = figure.subplots()
        for i, (name, (mean, low, high)) in enumerate(lines.items()):
            look = {"color": style.COLOURS[i % 7], "linestyle": style.LINES[i % 5]}
            ax.plot(counts, mean, label=name, marker="o", markersize=2.5, **look)
            ax.fill_between(counts, low, high, color=look["color"], alpha=0.08, linewidth=0)
        ax.set_xscale("log")
        ax.set_xticks(list(counts), [str(c) for c in counts])
        ax.minorticks_off()
        ax.set(xlabel="candidates to choose from", ylabel=label)
        figure.legend(loc="outside upper left", ncols=2)
        return figure
