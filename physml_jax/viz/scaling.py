"""Finite-size scaling of a quantity with errors: its values over the disorder, and all sizes on one curve."""

from typing import Any

import numpy as np

from physml_jax.analysis.anderson_scaling import ScalingFit, predicted, scaling_function
from physml_jax.viz import style

_MARKERS = "os^Dv<>"


def collapse(
    width: np.ndarray,
    size: np.ndarray,
    value: np.ndarray,
    error: np.ndarray,
    fit: ScalingFit,
    *,
    ylabel: str,
    size_name: str = "M",
    known: tuple[float, float] | None = None,
) -> Any:
    """Values and fitted curves over W on the left, without the correction and over x on the right.

    Args:
      width: float ``[K]``, W.
      size: int ``[K]``.
      value: float ``[K]``.
      error: float ``[K]``, standard error, drawn twice as long in each direction: about a 95 % interval.
      fit: of these records.
      ylabel: what is drawn.
      size_name: symbol of the size.
      known: interval of W_c that others found, shaded.

    Returns:
      A matplotlib figure.

    Raises:
      ValueError: if the fit is not one of these records.
    """
    width, size, value, error = (np.asarray(x) for x in (width, size, value, error))
    if width.shape != fit.x.shape:
        raise ValueError(f"fit: expected one of {width.size} records, got one of {fit.x.size}")
    fine = np.linspace(width.min(), width.max(), 200)
    with style.styled():
        figure = style.new_figure(style.WIDTH, 2.9)
        left, right = figure.subplots(1, 2, sharey=True)
        for i, s in enumerate(np.unique(size)):
            here, colour = size == s, style.COLOURS[i % len(style.COLOURS)]
            look = {"color": colour, "marker": _MARKERS[i % len(_MARKERS)], "markersize": 3, "elinewidth": 0.7}
            left.plot(fine, predicted(fit, fine, s), color=colour, linewidth=0.8)
            label = f"${size_name}$ = {s:g}"
            left.errorbar(width[here], value[here], 2 * error[here], linestyle="", label=label, **look)
            right.errorbar(fit.x[here], fit.corrected[here], 2 * error[here], linestyle="", **look)
        x = np.linspace(fit.x.min(), fit.x.max(), 200)
        right.plot(x, scaling_function(fit, x), color="black", linewidth=0.9, zorder=1)
        if known is not None:
            left.axvspan(*known, color=style.GREY, alpha=0.4, linewidth=0, zorder=0)
        left.axvline(fit.threshold.value, color=style.GREY, linewidth=0.7, linestyle=(0, (2, 2)), zorder=0)
        left.set(xlabel="disorder $W$", ylabel=ylabel)
        right.set_xlabel(rf"$u(W)\,{size_name}^{{1/\nu}}$")
        left.set_title(f"$W_c$ = {_plus(fit.threshold, 2)}", loc="left")
        without = "" if fit.omega is None else rf", without the term in ${size_name}^{{-{fit.omega:g}}}$"
        right.set_title(rf"$\nu$ = {_plus(fit.exponent, 2)}{without}", loc="left")
        left.legend()
        return figure


def _plus(x, digits):
    return f"{x.value:.{digits}f}" + ("" if x.error is None else f" ± {x.error:.{digits}f}")
