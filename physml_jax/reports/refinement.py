"""The report of a structure refinement: values with uncertainties, convergence, what the model does not explain."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from physml_jax.analysis.measured import Measured
from physml_jax.analysis.refinement import Refinement
from physml_jax.typing import Report, Table
from physml_jax.viz import diffraction


def make_report(
    result: Refinement, images: Measured, *, name: str, model_error: tuple[float, float] | None = None
) -> Report:
    """The report of one refinement.

    Args:
      result: the refinement.
      images: what it was made with; its ``truth`` is shown where it is known.
      name: of the crystal.
      model_error: see ``measured.model_error``.

    Returns:
      The report.
    """
    truth, counts, in_counts = images.truth, images.counts, images.variance is None
    half_width, reflections = images.settings["half_width"], images.settings["reflections"]
    seconds = sum(row.get("seconds", 0.0) for row in result.state.history)
    true = [truth.get(p.name) for p in result.parameters]
    labels = [f"{p.name}{f' ({p.unit})' if p.unit else ''}" for p in result.parameters]
    rows, metrics = [], {}
    for i, p in enumerate(result.parameters):
        value, error = float(result.values[i]), float(result.uncertainties[i])
        is_coordinate = p.unit == "of the cell"
        pull = None if true[i] is None or error == 0 else (value - true[i]) / error
        off = None if true[i] is None else (value - true[i]) * p.length
        rows.append(
            [
                labels[i],
                f"{p.start:.5g}",
                _with_error(value, error),
                f"{error * p.length:.1e} Å".replace("e-0", "e-") if is_coordinate else None,
                None if true[i] is None else f"{true[i]:.5g}",
                None if off is None else f"{off:+.4f} Å" if is_coordinate else f"{off:+.3g}",
                None if pull is None else f"{pull:+.1f}",
            ]
        )
        metrics[p.name] = {
            "start": p.start,
            "value": value,
            "uncertainty": error,
            "length": p.length,
            "truth": true[i],
            "pull": pull,
        }
    state, ratio = result.state, result.chi2 / result.degrees_of_freedom
    known = any(t is not None for t in true)
    columns = ("parameter", "start", "refined ± uncertainty", "uncertainty", "truth", "off by", "in uncertainties")
    if not known:
        rows, columns = [r[:4] for r in rows], columns[:4]
    tables = {
        "parameters": Table(
            "Uncertainties are one standard deviation from the Fisher matrix at the solution, scales and backgrounds"
            " included; a value at its bound has none (±0).",
            columns,
            rows,
        ),
        "images": _image_table(result, reflections),
    }
    strong = _correlations(result)
    if strong:
        tables["correlations"] = Table("Pairs that the images tell apart badly.", ("", "and", "correlation"), strong)
    figures: dict[str, tuple[Any, str]] = {}
    if state.history:
        figures["convergence"] = (
            diffraction.convergence(
                state.history,
                names=labels,
                values=result.values,
                uncertainties=result.uncertainties,
                truth=true if known else None,
                degrees_of_freedom=result.degrees_of_freedom if in_counts else None,
            ),
            "Deviance and parameters over the iterations; bands are the final values with their uncertainties"
            + (", dashed lines the truth (for the deviance: its expectation)." if known else "."),
        )
    thicknesses = np.asarray(result.specimen.thicknesses).tolist()
    figures["residuals"] = (
        diffraction.residual_maps(
            counts,
            result.fit.counts,
            result.residuals,
            half_width=half_width,
            thicknesses=thicknesses,
            reflections=reflections,
            label="electrons per pixel" if in_counts else "intensity",
        ),
        "Image, model and their difference in standard deviations. A good model leaves no pattern in the third column.",
    )
    time = f" in {seconds:.0f} s" if seconds else ""
    summary = [
        f"{name}: {len(result.parameters)} parameters from {counts.shape[0] * counts.shape[1]} images of"
        f" {counts.shape[2]} × {counts.shape[3]} pixels, {'converged' if state.converged else 'NOT converged'} after"
        f" {state.iteration} iterations{time}. χ² is {result.chi2:.0f} for {result.degrees_of_freedom} degrees of"
        f" freedom ({ratio:.3f}).",
    ]
    if in_counts and ratio > 1 + 5 * np.sqrt(2 / result.degrees_of_freedom):
        summary.append(
            "χ² is larger than counting noise explains: look at the residuals. The model may lack something"
            " (absorption, a distorted image, a wrong zone axis), and the uncertainties know of noise only."
        )
    if model_error is not None:
        error, sigmas = model_error
        summary.append(
            f"Beams that the model leaves out change an intensity by up to {error:.1e} of the incident beam,"
            f" {sigmas:.2g} standard deviations of a typical pixel."
            + (" That is no small part of the noise: repeat it with a larger --num_strong." if sigmas > 0.25 else "")
        )
    metrics = {
        "model_error": None if model_error is None else model_error[0],
        "parameters": metrics,
        "chi2": result.chi2,
        "degrees_of_freedom": result.degrees_of_freedom,
        "iterations": state.iteration,
        "converged": state.converged,
        "seconds": seconds,
        "scale": result.fit.scale.tolist(),
        "background": result.fit.background.tolist(),
        "correlation": result.correlation.tolist(),
        "history": list(state.history),
    }
    return Report(f"Structure refinement: {name}", summary, metrics, tables, figures)


def _with_error(value: float, error: float) -> str:
    if error <= 0:
        return f"{value:.5g} ± 0"
    digits = min(8, max(0, 1 - int(np.floor(np.log10(error)))))
    return f"{value:.{digits}f} ± {error:.{digits}f}"


def _image_table(result: Refinement, reflections: Sequence[Sequence[int]]) -> Table:
    rows = []
    for i, t in enumerate(np.asarray(result.specimen.thicknesses).tolist()):
        for j, r in enumerate(reflections):
            rows.append(
                [
                    " ".join(str(int(k)) for k in r),
                    f"{t:.1f}",
                    f"{result.fit.scale[i, j]:.5g}",
                    f"{result.fit.background[i, j]:.3g}",
                    float(np.mean(result.residuals[i, j] ** 2)),
                ]
            )
    columns = ("reflection", "thickness (Å)", "scale", "background", "mean squared residual")
    return Table("Scale and background of every image, and how well it is described (1 is noise).", columns, rows)


def _correlations(result: Refinement, limit: float = 0.8) -> list[list[Any]]:
    found = []
    for i, p in enumerate(result.parameters):
        for j, other in enumerate(result.parameters[:i]):
            value = float(result.correlation[i, j])
            if abs(value) > limit:
                found.append([other.name, p.name, f"{value:+.2f}"])
    return found
