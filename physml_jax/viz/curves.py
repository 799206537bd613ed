"""Lines and clouds: metrics over a training run, distributions of a score, agreement of two quantities."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from physml_jax.viz import style

#: Columns of a metrics file that say how the machine fared, not the model.
_ERROR = "_stderr"  # what the training loop appends to the name of a metric of an ensemble
_BOOKKEEPING = frozenset({"step", "time_s", "weight"})
_TITLES = {
    "r_index": "index of fit $R$",
    "zncc": "ZNCC",
    "mse": "mean squared error",
    "l1": "L1",
    "ema_r_index": "$R$ (EMA)",
}


def training_curves(history: Sequence[Mapping[str, Any]], *, validation_prefix: str = "validation/") -> Any:
    """Loss terms and validation scores over the steps of a run.

    Training and validation values of the same name share a panel. A panel whose values are positive and span more than
    a factor of 30 has a logarithmic axis. At most twelve quantities are drawn, the loss first. Where a row holds
    ``<name>_stderr`` too, the standard error over the seeds of an ensemble, it is a band around the curve.

    Args:
      history: rows of a metrics file in order, each with ``step`` and scalars; rows may hold different scalars.
      validation_prefix: what marks a validation score.

    Returns:
      A matplotlib figure, one panel per quantity.

    Raises:
      ValueError: if the history holds no quantity with a value that is finite.
    """
    panels: dict[str, dict[str, tuple[np.ndarray, np.ndarray, np.ndarray]]] = {}
    names = dict.fromkeys(k for row in history for k in row)
    for name in names:
        rows = [(row["step"], row[name]) for row in history if _is_number(row.get(name)) and "step" in row]
        base = name.removeprefix(validation_prefix)
        if rows and base not in _BOOKKEEPING and not base.endswith(_ERROR):
            kind = "training" if base == name else "validation"
            errors = [row.get(name + _ERROR, 0.0) for row in history if _is_number(row.get(name)) and "step" in row]
            panels.setdefault(base, {})[kind] = (*np.array(rows, np.float64).T, np.array(errors, np.float64))
    if not panels:
        raise ValueError("history: expected rows with a step and at least one finite number")
    # The total loss first, then other terms, then what only the validation split has.
    order = sorted(panels, key=lambda p: (p != "loss", "training" not in panels[p], list(panels).index(p)))[:12]
    columns = min(3, len(order))
    rows = math.ceil(len(order) / columns)
    last = max(x[-1] for kinds in panels.values() for x, *_ in kinds.values()) or 1
    with style.styled():
        figure = style.new_figure(style.WIDTH if columns > 1 else style.HALF_WIDTH, 0.35 + 1.75 * rows)
        axes = figure.subplots(rows, columns, squeeze=False).ravel()
        for ax, name in zip(axes, order, strict=False):
            _curve(ax, name, panels[name])
            ax.set_xlim(0, 1.02 * last)
        for ax in axes[len(order) :]:
            ax.set_axis_off()
        kinds = {kind for p in order for kind in panels[p]}
        if len(kinds) > 1:
            handles = {h.get_label(): h for ax in axes[: len(order)] for h in ax.get_lines()}
            figure.legend(handles.values(), handles.keys(), loc="outside upper right", ncols=2)
        return figure


def ecdf(
    scores: Mapping[str, np.ndarray],
    *,
    label: str = "$R$",
    threshold: float | None = 0.9,
    limits: tuple[float, float] | None = None,
) -> Any:
    """Share of examples with a score of at most x, one step curve per method; lower and further right is better.

    Args:
      scores: name -> float ``[N]``, the first is drawn thickest.
      label: name of the score.
      threshold: value to mark by a vertical line.
      limits: range of the score's axis; by default from the lowest score to 1 (or to the highest, if above 1).

    Returns:
      A matplotlib figure.

    Raises:
      ValueError: if there is nothing to draw or a score is not finite.
    """
    values = {name: _finite(x, f"scores[{name!r}]") for name, x in scores.items()}
    if not values:
        raise ValueError("scores: expected at least one method")
    low, high = limits or (min(x.min() for x in values.values()), max(1.0, *(x.max() for x in values.values())))
    with style.styled():
        figure = style.new_figure(style.WIDTH * 0.62, 2.6 + 0.17 * len(values))
        ax = figure.subplots()
        for i, (name, x) in enumerate(values.items()):
            x = np.sort(x)
            # One more point at either end carries every curve from 0 to 1 across the axis.
            xs = np.concatenate([[low], x, [high]])
            ys = np.concatenate([[0], np.arange(1, len(x) + 1) / len(x), [1]])
            ax.step(
                xs,
                ys,
                where="post",
                color=style.COLOURS[i % len(style.COLOURS)],
                linestyle=style.LINES[i % len(style.LINES)],
                linewidth=2.0 if i == 0 else 1.2,
                label=f"{style.plain_text(name)} (median {np.median(x):.3f})",
            )
        if threshold is not None and low < threshold < high:
            ax.axvline(threshold, color=style.GREY, linewidth=0.7, linestyle=(0, (2, 2)))
            ax.text(threshold, 1.01, f"{threshold:g}", ha="center", va="bottom", color=style.GREY, fontsize=7)
        span = high - low or 1.0
        ax.set(xlim=(low - 0.02 * span, high + 0.005 * span), ylim=(0, 1), xlabel=label, ylabel="share of examples")
        figure.legend(loc="outside upper left")
        return figure


def parity(
    truth: np.ndarray, predictions: Mapping[str, np.ndarray], *, label: str = "mean intensity", unit: str = "$I/I_0$"
) -> Any:
    """Predicted against true values of one quantity, on equal axes with the line of perfect agreement.

    Args:
      truth: float ``[N]``.
      predictions: name -> float ``[N]``.
      label: name of the quantity.
      unit: its unit; empty for none.

    Returns:
      A matplotlib figure.

    Raises:
      ValueError: if lengths differ or a value is not finite.
    """
    truth = _finite(truth, "truth")
    values = {name: _finite(x, f"predictions[{name!r}]") for name, x in predictions.items()}
    for name, x in values.items():
        if x.shape != truth.shape:
            raise ValueError(f"predictions[{name!r}]: expected {len(truth)} values as in truth, got {len(x)}")
    everything = np.concatenate([truth, *values.values()])
    low, high = everything.min(), everything.max()
    margin = 0.04 * (high - low) or 1.0
    with style.styled():
        figure = style.new_figure(style.HALF_WIDTH, style.HALF_WIDTH + 0.3)
        ax = figure.subplots()
        ends = (low - margin, high + margin)
        ax.plot(ends, ends, color=style.GREY, linewidth=0.8, zorder=1)
        for i, (name, x) in enumerate(values.items()):
            rmse = math.sqrt(np.mean((x - truth) ** 2))
            ax.scatter(
                truth,
                x,
                s=11,
                marker="os^D"[i % 4],
                alpha=0.65,
                linewidths=0,
                color=style.COLOURS[i % len(style.COLOURS)],
                label=f"{style.plain_text(name)} (rms error {rmse:.2g})",
                zorder=2 + (i == 0),
            )
        text = f"{label} ({unit})" if unit else label
        ax.set(xlim=ends, ylim=ends, xlabel=f"true {text}", ylabel=f"predicted {text}", aspect="equal")
        ax.locator_params(nbins=6)
        ax.set_yticks([t for t in ax.get_xticks() if ends[0] <= t <= ends[1]])
        ax.set_xticks(ax.get_yticks())
        figure.legend(loc="outside upper center", handletextpad=0.2)
        return figure


def rate_curves(
    x: np.ndarray,
    curves: Mapping[str, np.ndarray],
    *,
    xlabel: str,
    ylabel: str,
    errors: Mapping[str, np.ndarray] | None = None,
) -> Any:
    """Shares between 0 and 1 over a control parameter, for instance the predicted and the true class over the density.

    Args:
      x: float ``[n]``.
      curves: name -> float ``[n]``.
      xlabel: name and unit of the parameter.
      ylabel: what the share is of.
      errors: name -> half-length of the error bar ``[n]``.

    Returns:
      A matplotlib figure.

    Raises:
      ValueError: if lengths differ or a value is not finite.
    """
    x = _finite(x, "x")
    with style.styled():
        figure = style.new_figure(style.WIDTH * 0.62, 2.7)
        ax = figure.subplots()
        for i, (name, y) in enumerate(curves.items()):
            y = _finite(y, f"curves[{name!r}]")
            if y.shape != x.shape:
                raise ValueError(f"curves[{name!r}]: expected {len(x)} values as in x, got {len(y)}")
            ax.errorbar(
                x,
                y,
                yerr=None if errors is None else errors.get(name),
                color=style.COLOURS[i % len(style.COLOURS)],
                linestyle=style.LINES[i % len(style.LINES)],
                marker="os^D"[i % 4],
                markersize=3.5,
                elinewidth=0.7,
                label=style.plain_text(name),
            )
        ax.set(xlabel=xlabel, ylabel=ylabel, ylim=(-0.03, 1.03))
        ax.legend(loc="best")
        return figure


def _curve(ax, name, kinds):
    values = [y for _, y, _ in kinds.values()]
    low, high = min(y.min() for y in values), max(y.max() for y in values)
    for kind, (x, y, error) in kinds.items():
        validation = kind == "validation"
        if error.any():
            band = (np.maximum(y - error, low), y + error)  # a logarithmic axis has no room below the lowest value
            ax.fill_between(x, *band, color=style.COLOURS[1 if validation else 0], alpha=0.25, linewidth=0)
        ax.plot(
            x,
            y,
            color=style.COLOURS[1 if validation else 0],
            marker="o" if validation or len(x) == 1 else None,
            markersize=3,
            linewidth=1.2 if validation else 0.9,
            label=kind,
            zorder=3 if validation else 2,
        )
    if low > 0 and high / low > 30:
        ax.set_yscale("log")
    ax.set_title(_TITLES.get(name) or style.plain_text(name.replace("_", " ")))
    ax.set_xlabel("step")
    ax.ticklabel_format(axis="x", style="sci", scilimits=(-3, 5))
    if ax.get_yscale() == "linear":
        ax.ticklabel_format(axis="y", style="sci", scilimits=(-2, 4))
    ax.locator_params(axis="x", nbins=5)


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _finite(x: np.ndarray, name: str) -> np.ndarray:
    x = np.asarray(x, np.float64)
    if x.ndim != 1 or len(x) == 0:
        raise ValueError(f"{name}: expected at least one value [N], got shape {x.shape}")
    if not np.all(np.isfinite(x)):
        raise ValueError(f"{name}: values are not finite")
    return x
