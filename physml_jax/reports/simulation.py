"""The report of simulated diffraction patterns: what was calculated, how far it is from convergence, the pictures."""

from typing import Any

import numpy as np

from physml_jax.analysis.simulation import Request, Simulated, disc_pattern
from physml_jax.typing import Report, Table
from physml_jax.viz import diffraction

KINDS = ("lacbed", "cbed", "rocking")
_TITLES = {"lacbed": "Large-angle patterns", "cbed": "Convergent-beam patterns", "rocking": "Rocking curves"}
#: Single pictures that are written at most, beside the figure with all.
MAX_PICTURES = 60


def make_report(request: Request, found: Simulated, images: np.ndarray, *, name: str) -> Report:
    """The report of one command.

    Args:
      request: what was asked for.
      found: the calculation.
      images: what is shown: ``found.images``, or electrons per pixel.
      name: of the crystal.

    Returns:
      The report.

    Raises:
      ValueError: for an unknown kind.
    """
    kind, thicknesses, dose, tolerance = request.kind, request.thicknesses, request.dose, request.tolerance
    if kind not in KINDS:
        raise ValueError(f"kind: expected one of {', '.join(KINDS)}, got {kind!r}")
    angle = 1e3 * found.half_width / found.wave_number
    label = "electrons per pixel" if dose else "$I/I_0$"
    figures: dict[str, tuple[Any, str]] = {}
    if kind == "rocking":
        along = found.tilts @ (found.tilts[-1] / np.linalg.norm(found.tilts[-1]))
        figures["rocking"] = (
            diffraction.rocking_curves(
                found.images, 1e3 * along / found.wave_number, thicknesses=thicknesses, reflections=found.reflections
            ),
            "Intensity over the angle of incidence along the line, one panel per reflection.",
        )
    elif kind == "cbed":
        patterns = disc_pattern(found.images, found.vectors, found.half_width)
        edge = float(np.abs(found.vectors).max()) + 1.1 * found.half_width
        figures["cbed"] = (
            diffraction.disc_pattern(
                patterns, edge=edge, thicknesses=thicknesses, vectors=found.vectors, reflections=found.reflections
            ),
            "Discs on the detector; intensities of overlapping discs add. The grey scale is a power of the intensity.",
        )
    else:
        figures["patterns"] = (
            diffraction.panels(
                images, half_width=found.half_width, thicknesses=thicknesses, reflections=found.reflections, label=label
            ),
            "Intensity over the tilt of the incident beam; every picture has its own scale.",
        )
        cells = [(i, j) for i in range(len(thicknesses)) for j in range(len(found.reflections))]
        for i, j in cells[:MAX_PICTURES] if len(cells) > 1 else []:
            hkl = found.reflections[j]
            title = f"{diffraction.reflection_text(hkl)}, {thicknesses[i]:g} Å"
            picture = diffraction.panel(
                images[i, j],
                half_width=1e3 * found.half_width / found.wave_number,
                title=title,
                unit="mrad",
                label=label,
            )
            short = f"{thicknesses[i]:g}A_{'_'.join(str(k) for k in hkl)}"
            figures[short] = (picture, f"{thicknesses[i]:g} Å, reflection {' '.join(str(k) for k in hkl)}.")
    reached = found.convergence_error <= tolerance
    summary = [
        f"{name}: {len(thicknesses)} thickness{'es' if len(thicknesses) > 1 else ''} and {len(found.reflections)}"
        f" reflection{'s' if len(found.reflections) > 1 else ''}, tilts up to {angle:.1f} mrad"
        f" ({found.half_width:.3f} 1/Å). {found.num_beams} beams were propagated at a time.",
        f"Estimated largest error of an intensity from the finite number of beams: {found.convergence_error:.1e} of the"
        f" incident beam, {'within' if reached else 'MORE than'} the tolerance of {tolerance:g}.",
    ]
    if dose:
        summary.append(f"Images are Poisson numbers of electrons, {dose:g} per pixel at intensity 1.")
    metrics = {
        "convergence_error": found.convergence_error,
        "num_beams": found.num_beams,
        "half_width": found.half_width,
        "half_angle_mrad": angle,
        "thicknesses": list(map(float, thicknesses)),
        "reflections": [list(r) for r in found.reflections],
        "mean_intensity": found.images.reshape(*found.images.shape[:2], -1).mean(axis=-1).tolist(),
        "largest_intensity": found.images.reshape(*found.images.shape[:2], -1).max(axis=-1).tolist(),
    }
    options = {**request._asdict(), "reflections": len(found.reflections), **found.settings}
    rows = [[k, "–" if v is None else str(v)] for k, v in options.items()]
    tables = {"options": Table("Settings of the calculation.", ("setting", "value"), rows)}
    return Report(f"{_TITLES[kind]}: {name}", summary, metrics, tables, figures)
