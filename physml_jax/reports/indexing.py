"""An indexed diffraction pattern as a report: the answer in words, ranking, spots, calibration, and the overlay."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from physml_jax.analysis.indexing import UNDECIDED, Hypothesis, Indexing, predicted_spots, undistorted
from physml_jax.analysis.pattern_spots import Pattern
from physml_jax.analysis.spot_geometry import lattice
from physml_jax.typing import Report, Table
from physml_jax.viz import indexing as figures

#: A refined scale further off than this is worth a word.
_SCALE_OFF = 0.01
#: An answer of whose strong spots a smaller share is seen is doubtful.
_SEEN = 0.5


def make_report(
    image: np.ndarray,
    pattern: Pattern,
    result: Indexing,
    names: Sequence[str],
    crystals: Sequence[Any],
    *,
    source: str,
    voltage_kv: float,
    scale_note: str = "",
    max_excitation_error: float = 0.03,
    network: Mapping[str, float] | None = None,
) -> Report:
    """The report of one image.

    Args:
      image: [H, W].
      pattern: of ``read_pattern``.
      result: of ``index_spots``.
      names: of the candidate phases.
      crystals: the phases, of type ``Crystal``.
      source: name of the image.
      voltage_kv: accelerating voltage.
      scale_note: where the scale comes from.
      max_excitation_error: as given to ``index_spots``.
      network: probabilities of a trained network by the name of the class; ``None`` without one.

    Returns:
      The report; its metrics hold everything that the tables show and the orientation matrices.
    """
    best = result.hypotheses[0] if result.hypotheses else None
    tables = {}
    if best is not None:
        tables["ranking"] = _ranking(result, names)
        tables["spots"] = _spots(pattern, best, crystals[best.phase], voltage_kv)
        tables["calibration"] = _calibration(pattern, best)
    if network:
        rows = sorted(network.items(), key=lambda item: -item[1])
        tables["network"] = Table(
            "Probabilities of the trained network.", ("phase", "probability"), list(map(list, rows))
        )
    summary = _summary(pattern, result, names, scale_note, network)
    title = f"{source}: not indexed"
    if best is not None:
        title = f"{source}: {_name(best, names)}, {best.tilt_deg:.1f}° off, residual {best.residual:.4f} 1/Å"
    return Report(
        f"Indexing of {source}",
        summary,
        {
            "source": source,
            "voltage_kv": voltage_kv,
            "scale": pattern.scale,
            "centre": pattern.centre.position,
            "significant": result.significant,
            "undecided": result.undecided,
            "orientations_tested": result.num_tested,
            "hypotheses": [_numbers(h, names) for h in result.hypotheses],
            "spots": _records(tables["spots"]) if best is not None else [],
            "network": dict(network or {}),
        },
        tables,
        _figures(image, pattern, best, crystals, voltage_kv, max_excitation_error, title),
    )


def _figures(image, pattern, best, crystals, voltage_kv, max_excitation_error, title):
    found = f"{len(pattern.places)} spots were found"
    if best is None:
        return {"overlay": (figures.overlay(image, pattern, title=title), f"{found}; no crystal explains them.")}
    reach = 1.05 * best.factor * np.linalg.norm(pattern.spots.positions, axis=1).max()
    known = lattice(crystals[best.phase], max_g=reach, voltage_kv=voltage_kv)
    affine = undistorted(best.shift, best.ellipticity)
    fit = best.rotation, best.factor, affine
    rows, places, weight = predicted_spots(known, pattern.view, *fit, max_excitation_error)
    drawn = figures.overlay(
        image, pattern, title=title, hypothesis=best,
        predicted=pattern.centre.position + places * [1, -1] / pattern.scale,
        predicted_hkl=known.plan.hkl[rows], strength=weight / weight.max(),
    )  # fmt: skip
    caption = f"{found} (circles), {len(rows)} are predicted in view (plus signs); ×: refined centre."
    gaps = "Observed minus predicted places of the matched spots, along and across g; bars: standard errors assumed."
    return {"overlay": (drawn, caption), "residuals": (figures.residuals(pattern, best), gaps)}


def _summary(pattern, result, names, scale_note, network):
    n = len(pattern.places)
    x, y = pattern.centre.position
    seen = "the direct beam is seen there" if pattern.centre.direct else "no direct beam is seen there"
    lines = [
        f"{n} spots about the centre ({x:.1f}, {y:.1f}) px ({seen}); scale {pattern.scale:.6g} 1/Å per pixel"
        + (f", {scale_note}." if scale_note else ".")
    ]
    if not result.hypotheses:
        return [
            "No candidate explains the pattern: no orientation of any of them puts three spots where spots are. The"
            " scale, the centre or the list of candidates may be wrong.",
            *lines,
        ]
    best = result.hypotheses[0]
    verdict = (
        f"{_name(best, names)}, {best.tilt_deg:.1f}° off that axis: {best.matched.sum()} of {n} spots with"
        f" {100 * best.explained:.0f} % of their intensity, residual {best.residual:.4f} 1/Å;"
        f" {100 * best.seen:.0f} % of the strong spots it predicts are seen."
    )
    if not result.significant:
        verdict = (
            f"No candidate explains the pattern well: the best, below, is no better than chance among the"
            f" {result.num_tested} orientations that were tried. The scale, the centre or the list of candidates may be"
            f" wrong. {verdict}"
        )
    lines = [verdict, *_undecided(result, names), *lines]
    if result.significant and best.seen < _SEEN:
        lines.append(
            f"Doubtful: only {100 * best.seen:.0f} % of the strong spots that the answer predicts are seen. A wrong"
            " scale or a crystal that is not among the candidates looks like this."
        )
    off = best.factor - 1
    if abs(off) > max(_SCALE_OFF, 3 * best.errors[3]):
        lines.append(
            f"Calibration: the refined scale is {100 * off:+.1f} % off the given one. The calibration, the lattice"
            " parameters of the candidate or the candidate itself is wrong by that."
        )
    if network:
        first = max(network, key=network.get)
        lines.append(f"The trained network says {first} with probability {network[first]:.2f}.")
    return lines


def _undecided(result, names):
    """The note on hypotheses that are equally good."""
    others = result.hypotheses[1 : result.undecided]
    if not others:
        return []
    listed = "; ".join(_name(h, names) for h in others)
    return [
        f"Cannot tell these apart: {listed}. Their evidence is less than {np.exp(UNDECIDED):.0f} to 1 below the"
        " first (ln E in the ranking differs by less than 3). A tilt to another zone, or a better calibration, decides."
    ]


def _ranking(result, names):
    first = result.hypotheses[0].evidence
    rows = [
        [
            i + 1,
            names[h.phase],
            _zone(h.zone),
            h.tilt_deg,
            f"{h.matched.sum()} / {len(h.matched)}",
            h.explained,
            h.seen,
            h.residual,
            h.factor,
            h.evidence - first,
            "equally good" if 0 < i < result.undecided else "",
        ]
        for i, h in enumerate(result.hypotheses)
    ]
    columns = (
        "rank", "phase", "zone axis", "tilt (°)", "spots", "intensity explained", "strong spots seen",
        "residual (1/Å)", "scale factor", "ln E", "note",
    )  # fmt: skip
    caption = (
        "Hypotheses by evidence. Tilt: of the zone axis off the beam. Scale factor: refined over given. ln E: logarithm"
        " of the odds against the first."
    )
    return Table(caption, columns, rows)


def _spots(pattern, best, crystal, voltage_kv):
    """One row per spot, by distance from the centre; angles are counterclockwise from the first matched one."""
    reach = 1.05 * best.factor * np.linalg.norm(pattern.spots.positions, axis=1).max()
    known = lattice(crystal, max_g=reach, voltage_kv=voltage_kv)
    true = (pattern.spots.positions - best.shift) * best.factor
    length = np.linalg.norm(true, axis=1)
    calculated = (best.hkl @ known.plan.basis) @ best.rotation.T
    order = np.argsort(length, kind="stable")
    first = next(i for i in order if best.matched[i])
    turn, turn_calculated = (
        (np.rad2deg(np.arctan2(v[:, 1], v[:, 0]) - np.arctan2(v[first, 1], v[first, 0])) + 360.0) % 360.0
        for v in (true, calculated)
    )
    gap = np.linalg.norm(best.predicted - pattern.spots.positions, axis=1)
    rows = []
    for number, i in enumerate(order, start=1):
        ok = bool(best.matched[i])
        rows.append(
            [
                number,
                float(pattern.places[i, 0]),
                float(pattern.places[i, 1]),
                float(pattern.spots.intensities[i] / pattern.spots.intensities.max()),
                " ".join(map(str, best.hkl[i].tolist())) if ok else "",
                float(1 / length[i]),
                float(1 / np.linalg.norm(calculated[i])) if ok else None,
                _degrees(turn[i]),
                _degrees(turn_calculated[i]) if ok else None,
                float(gap[i]) if ok else None,
                float(best.excitation_errors[i]) if ok else None,
            ]
        )
    columns = (
        "spot", "x (px)", "y (px)", "intensity", "hkl", "d (Å)", "d of the crystal (Å)", "angle (°)",
        "angle predicted (°)", "residual (1/Å)", "excitation error (1/Å)",
    )  # fmt: skip
    caption = "Spots by distance from the centre; d and angles with refined scale and centre, angles from the first."
    return Table(caption, columns, rows)


def _calibration(pattern, best):
    x, y = best.shift * [1, -1] / pattern.scale
    dx = best.errors[4] / pattern.scale
    e = float(np.hypot(*best.ellipticity))
    axis = 0.5 * np.rad2deg(np.arctan2(best.ellipticity[1], best.ellipticity[0]))
    rows = [
        ["scale (1/Å per pixel)", pattern.scale * best.factor, pattern.scale * best.errors[3] * best.factor],
        ["scale, refined over given", best.factor, best.errors[3] * best.factor],
        ["centre x (px)", pattern.centre.position[0] + x, dx],
        ["centre y (px)", pattern.centre.position[1] + y, dx],
        ["ellipticity (longest over mean radius − 1)", e, float(best.errors[6:8].max())],
        ["direction of the longest radius (°)", axis, None],
        ["width in excitation error (1/Å)", best.width, None],
    ]
    caption = "Refined calibration with standard errors; lattice parameters are taken for exact."
    return Table(caption, ("quantity", "value", "error"), rows)


def _numbers(h: Hypothesis, names) -> dict[str, Any]:
    return {
        "phase": names[h.phase],
        "zone_axis": list(h.zone),
        "in_zone": h.in_zone,
        "tilt_deg": h.tilt_deg,
        "orientation": h.rotation,
        "scale_factor": h.factor,
        "scale_factor_error": float(h.errors[3] * h.factor),
        "matched": int(h.matched.sum()),
        "explained_intensity": h.explained,
        "strong_spots_seen": h.seen,
        "residual": h.residual,
        "evidence": h.evidence,
        "log_likelihood": h.log_likelihood,
    }


def _records(table: Table) -> list[dict[str, Any]]:
    return [dict(zip(table.columns, row, strict=True)) for row in table.rows]


def _name(h, names):
    return f"{names[h.phase]} {'along' if h.in_zone else 'near'} {_zone(h.zone)}"


def _zone(uvw):
    return "[" + " ".join(map(str, uvw)) + "]"


def _degrees(angle):
    return float(angle if angle < 359.95 else 0.0)
