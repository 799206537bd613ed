"""Tables of the Ising report: agreement with the literature, boundaries by method, sizes, epsilon in every phase."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from physml_jax.analysis import ising_literature, phase_boundary
from physml_jax.reports import seeds
from physml_jax.reports.ising_answers import HALF, NEAREST, VAE, Answer
from physml_jax.reports.ising_numbers import METHODS, number, phase_names, true_phase
from physml_jax.typing import Table


def boundaries(found: Sequence[Answer]) -> Table:
    """Transition temperatures by method, one row per region, size and coupling."""
    rows = []
    for a in found:
        tabulated = ising_literature.is_tabulated(a.phase, a.states.points.j2)
        for j in np.flatnonzero(a.own_side()):
            if not any(np.isfinite(b.temperature[j]) for b in a.boundaries.values()):
                continue
            known = a.known[j]
            known_text = None if np.isnan(known) else f"{known:.3f}" + ("" if tabulated[j] else " (interpolated)")
            vae = a.boundaries[VAE]
            rows.append(
                [
                    a.phase,
                    a.states.size,
                    float(a.states.points.j2[j]),
                    known_text,
                    _with_interval(vae, j),
                    number(vae.temperature[j] - known),
                    *(_with_interval(a.boundaries[m], j) for m in METHODS[1:]),
                ]
            )
    columns = ("phase", "L", "J2", "literature", VAE, f"{VAE} − literature", *METHODS[1:])
    caption = (
        "Transition temperatures in units of J1, in brackets 95 % intervals from resampled replicas and seeds. The "
        "order parameter is |m| or the larger stripe order; the distance from the nearest ideal state (2 ferromagnets, "
        "4 stripes) is (1 − order parameter)/2, so its boundary is that of the order parameter. The literature values "
        "are those of the infinite lattice; half way up, finite lattices lie above them. The Binder cumulant is taken "
        "half way too, and from few replicas per point it is a poor estimate."
    )
    return Table(caption, columns, rows)


def agreement(found: Sequence[Answer]) -> Table:
    """Differences from the literature by method, outside and inside the difficult couplings."""
    rows = []
    low, high = ising_literature.DIFFICULT
    for a in found:
        for method in METHODS:
            away, inside = a.deviation(method), a.deviation(method, difficult=True)
            rows.append(
                [
                    a.phase,
                    a.states.size,
                    method,
                    away.n,
                    away.mean,
                    away.largest,
                    away.signed,
                    away.missing,
                    inside.n,
                    inside.mean,
                    inside.largest,
                    inside.missing,
                ]
            )
    columns = (
        "phase",
        "L",
        "method",
        "couplings",
        "mean |difference|",
        "largest",
        "mean with sign",
        "not found",
        "couplings inside",
        "mean inside",
        "largest inside",
        "not found inside",
    )
    caption = (
        f"Differences from the literature in units of J1: away from {low:g} ≤ J2 ≤ {high:g}, and inside it (last four "
        "columns), where finite lattices say little and only tabulated couplings count."
    )
    return Table(caption, columns, rows)


def scores(found: Sequence[Answer]) -> Table:
    """Mean epsilon of the network and of direct comparisons in each phase."""
    rows = []
    for a in found:
        true = true_phase(a.states)
        sets = {
            VAE: a.epsilon,
            NEAREST: a.direct.nearest[None],
            "mean over training states": a.direct.mean[None],
            "nearest ideal state = (1 − order parameter)/2": a.states.disorder(a.phase)[None],
        }
        for name, values in sets.items():
            means = []
            for k in range(3):
                here = true == k
                means.append(seeds.mean(values[:, here].mean(axis=1)).text(3) if here.any() else None)
            rows.append([a.phase, a.states.size, name, len(values), *means])
    columns = ("trained or compared with", "L", "method", "seeds", *(f"ε in the {p}" for p in phase_names()))
    caption = (
        "Mean ε of test states by the phase that the literature gives to their (T, J2); states whose phase it leaves "
        f"open are left out ({ising_literature.DIFFICULT[0]:g} ≤ J2 ≤ {ising_literature.DIFFICULT[1]:g} between "
        "tabulated couplings). ± is the standard error over seeds. The mean over training states is 1/2 inside the "
        "phase too, since states of both signs are among them."
    )
    return Table(caption, columns, rows)


def sizes(entries: Sequence[dict[str, Any]]) -> Table | None:
    """Boundaries over sizes with the line through them; ``None`` with one size."""
    if not entries:
        return None
    sizes = sorted({s for e in entries for s in e[VAE]["sizes"]})
    rows = []
    for e in entries:
        cells = []
        for method in (VAE, HALF):
            at = dict(zip(e[method]["sizes"], e[method]["temperatures"], strict=True))
            cells += [at.get(s) for s in sizes]
        limit = e[HALF]["infinite"]
        rows.append(
            [
                e["phase"],
                e["j2"],
                e["literature"],
                *cells,
                None if limit is None else f"{limit['temperature']:.3f} ± {limit['error']:.3f}",
                None if limit is None or e["literature"] is None else limit["temperature"] - e["literature"],
            ]
        )
    columns = (
        "phase",
        "J2",
        "literature",
        *(f"{m}, L = {s}" for m in (VAE, HALF) for s in sizes),
        f"{HALF}, 1/L → 0",
        "difference from literature",
    )
    caption = (
        "Boundaries over sizes by the rule of this report and half way up, and the line T + a/L through the latter "
        "(weighted by their errors)."
    )
    return Table(caption, columns, rows)


def _with_interval(b: phase_boundary.Boundary, j: int) -> str | None:
    if np.isnan(b.temperature[j]):
        return None
    if np.isnan(b.low[j]):
        return f"{b.temperature[j]:.3f}"
    return f"{b.temperature[j]:.3f} [{b.low[j]:.3f}, {b.high[j]:.3f}]"
