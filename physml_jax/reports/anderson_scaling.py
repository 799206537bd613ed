"""Finite-size scaling of bars as a report: W_c and nu, by how many forms of the fit they were obtained, the figure."""

import numpy as np

from physml_jax.analysis import anderson_scaling as scaling
from physml_jax.analysis.finite_size import Estimate
from physml_jax.reports.anderson_published import CRITICAL_WIDTH
from physml_jax.typing import Report, Table
from physml_jax.viz import scaling as figures

#: A. Rodriguez, L. J. Vasquez, K. Slevin and R. A. Roemer, Phys. Rev. B 84, 134209 (2011): W_c with its interval, nu.
KNOWN_INTERVAL, KNOWN_EXPONENT = (16.524, 16.536), 1.590
#: Fits below this probability do not describe the data, whatever their intervals.
_POOR = 0.01


def make_report(
    width: np.ndarray,
    size: np.ndarray,
    length: np.ndarray,
    error: np.ndarray,
    *,
    omega: float = 3.0,
    degree: int = 2,
    num_resamples: int = 100,
) -> Report:
    """The report of bars.

    Args:
      width: float ``[K]``, W.
      size: int ``[K]``, width M of the bars; at least three.
      length: float ``[K]``, their localization lengths.
      error: float ``[K]``, standard errors.
      omega: exponent of the correction of the main fit.
      degree: of its polynomial in x.
      num_resamples: samples for the intervals.

    Returns:
      The report; its metrics hold the records too.

    Raises:
      ValueError: as for ``scaling_fit``.
    """
    value, spread = scaling.log_reduced_length(length, error, size)
    records = (np.asarray(width, np.float64), np.asarray(size), value, spread)
    main = scaling.scaling_fit(*records, degree=degree, omega=omega, num_resamples=num_resamples)
    choices = scaling.survey(*records, num_resamples=num_resamples)
    crossings = scaling.crossings(*records, num_resamples=num_resamples)
    ylabel = r"$\ln(\xi / M)$"
    figure = figures.collapse(*records, main, ylabel=ylabel, known=KNOWN_INTERVAL)
    caption = "Bars of width M. Left: as measured, with the fit; right: without its correction. Bars: 95 % intervals."
    metrics = {
        "W_c": _numbers(main.threshold),
        "nu": _numbers(main.exponent),
        "reduced_length": float(np.exp(main.critical_value.value)),
        "deviance": main.deviance,
        "degrees_of_freedom": main.degrees_of_freedom,
        "records": {
            k: np.asarray(v).tolist() for k, v in zip(("width", "size", "value", "error"), records, strict=True)
        },
    }
    tables = {"forms": _form_table(choices), "crossings": _crossing_table(crossings)}
    return Report(
        "Localization transition: finite-size scaling",
        _summary(main, choices),
        metrics,
        {k: t for k, t in tables.items() if t.rows},
        {"collapse": (figure, caption)},
    )


def _summary(main, choices):
    fair = [c.fit for c in choices if c.fit.p_value > _POOR]
    lines = [
        f"W_c = {_text(main.threshold, 3)} and nu = {_text(main.exponent, 3)} with the correction M^-{main.omega:g};"
        f" xi/M at the transition is {np.exp(main.critical_value.value):.3f}. The deviance is {main.deviance:.0f} for"
        f" {main.degrees_of_freedom} degrees of freedom. Known: {CRITICAL_WIDTH} (16.524 to 16.536) and"
        f" {KNOWN_EXPONENT:.3f}.",
    ]
    if fair:
        w, nu = ([getattr(f, k).value for f in fair] for k in ("threshold", "exponent"))
        lines.append(
            f"What is assumed matters more than the noise: {len(fair)} of {len(choices)} forms describe the data, with"
            f" W_c from {min(w):.2f} to {max(w):.2f}, nu from {min(nu):.2f} to {max(nu):.2f}. Narrow bars have strong"
            " corrections; an interval knows the noise only."
        )
    return lines


def _form_table(choices):
    rows = [
        [
            c.smallest,
            "none" if c.omega is None else f"M^-{c.omega:g}",
            c.degree,
            c.fit.threshold.value,
            _interval(c.fit.threshold, 3),
            c.fit.exponent.value,
            _interval(c.fit.exponent, 3),
            f"{c.fit.deviance:.0f} / {c.fit.degrees_of_freedom}",
            c.fit.p_value,
        ]
        for c in choices
    ]
    columns = (
        "smallest M",
        "correction",
        "degree",
        "W_c",
        "95 % interval",
        "nu",
        "95 % interval ",
        "deviance / degrees of freedom",
        "p",
    )
    return Table("The same bars by other forms of the fit.", columns, rows)


def _crossing_table(crossings):
    rows = [
        [
            f"{c.sizes[0]} and {c.sizes[1]}",
            c.threshold.value,
            _interval(c.threshold, 3),
            float(np.exp(c.value.value)),
            c.exponent.value,
            _interval(c.exponent, 2),
        ]
        for c in crossings
    ]
    columns = ("M", "W of the crossing", "95 % interval", "xi/M there", "nu from slopes", "95 % interval ")
    return Table("Where the curves of neighbouring widths cross, which assumes no scaling function.", columns, rows)


def _numbers(x: Estimate):
    return {"value": x.value, "low": x.low, "high": x.high, "error": x.error}


def _interval(x: Estimate, digits):
    return None if x.low is None else f"{x.low:.{digits}f} to {x.high:.{digits}f}"


def _text(x: Estimate, digits):
    return f"{x.value:.{digits}f}" + ("" if x.low is None else f" ({_interval(x, digits)})")
