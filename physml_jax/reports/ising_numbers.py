"""Numbers of the Ising report: what the network adds, the trend with the size, checks of the data, all metrics."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from physml_jax.analysis import ising, ising_literature, phase_boundary, phase_diagram
from physml_jax.reports import seeds
from physml_jax.reports.ising_answers import BINDER, HALF, HEAT, NEAREST, ORDER, VAE, Answer, States

METHODS = (VAE, HALF, NEAREST, ORDER, BINDER, HEAT)
PARAMAGNET = "paramagnet"


def true_phase(held: States) -> np.ndarray:
    """The phase of every state by the literature: 0 ferromagnet, 1 superantiferromagnet, 2 paramagnet, -1 open."""
    j2, result = held.j2, np.full(len(held.j2), -1)
    for k, phase in enumerate(ising_literature.PHASES):
        known = ising_literature.transition_temperature(phase, j2)
        result[held.temperature < known] = k
        result[held.temperature > known] = 2
    return result


def added(a: Answer) -> dict[str, Any]:
    """What the network's epsilon says beyond the order parameter.

    Returns:
      Share of the variance over all states that the two have in common (per seed), mean and root mean square of their
      difference, mean and largest difference of their boundaries, and mean deviations of both from the literature.
    """
    disorder = a.states.disorder(a.phase)
    difference = a.epsilon - disorder[None]
    shared = [ising.share_of_variance(e, disorder) for e in a.epsilon]
    vae, order = (a.boundaries[m].temperature for m in (VAE, ORDER))
    both = np.isfinite(vae) & np.isfinite(order) & a.own_side()
    gap = np.abs(vae - order)[both]
    return {
        "squared_correlation": None if None in shared else seeds.mean(shared).numbers(),
        "mean_difference": float(difference.mean()),
        "rms_difference": float(np.sqrt(np.mean(difference**2))),
        "boundary_difference_mean": float(gap.mean()) if len(gap) else None,
        "boundary_difference_largest": float(gap.max()) if len(gap) else None,
        "rows_compared": int(both.sum()),
    }


def spread_over_seeds(a: Answer) -> dict[str, Any] | None:
    """Standard deviation over the seeds of the maps, mean and largest over the grid; ``None`` with one seed."""
    if len(a.epsilon) < 2:
        return None
    deviation = a.by_seed().std(axis=0, ddof=1)
    return {"mean": float(np.nanmean(deviation)), "largest": float(np.nanmax(deviation))}


def strangers(a: Answer) -> list[float]:
    """Couplings on the other side of J2 = 1/2 where the network finds the phase that it was trained on."""
    j2 = a.states.points.j2
    return j2[np.isfinite(a.boundaries[VAE].temperature) & ~a.own_side() & (np.abs(j2 - 0.5) > 1e-6)].tolist()


def trend(found: Sequence[Answer]) -> list[dict[str, Any]]:
    """Boundaries of the network over sizes, one entry per region and coupling that at least two sizes have."""
    result = []
    for phase in ising_literature.PHASES:
        held = [a for a in found if a.phase == phase]
        if len(held) < 2:
            continue
        for j2 in np.unique(np.concatenate([a.states.points.j2[a.own_side()] for a in held])):
            entry = {"phase": phase, "j2": float(j2)}
            for method in (VAE, HALF, ORDER):
                rows = [(a, int(np.argmin(np.abs(a.states.points.j2 - j2)))) for a in held]
                rows = [(a, j) for a, j in rows if abs(a.states.points.j2[j] - j2) < 1e-6]
                b = [a.boundaries[method] for a, _ in rows]
                sizes = np.array([a.states.size for a, _ in rows])
                t = np.array([x.temperature[j] for x, (_, j) in zip(b, rows, strict=True)])
                error = np.array([(x.high[j] - x.low[j]) / 3.92 for x, (_, j) in zip(b, rows, strict=True)])
                there = np.isfinite(t)
                line = phase_boundary.extrapolated(sizes, t, np.maximum(error, 1e-3))
                entry[method] = {
                    "sizes": sizes[there].tolist(),
                    "temperatures": t[there].tolist(),
                    "standard_errors": [number(e) for e in error[there]],
                    "infinite": None if line is None else {"temperature": line[0], "error": line[1], "slope": line[2]},
                }
            known = ising_literature.transition_temperature(phase, [j2])[0]
            entry["literature"] = number(known)
            if len(entry[VAE]["sizes"]) > 1:
                result.append(entry)
    return result


def sanity(held: States) -> dict[str, Any]:
    """What can be checked about the data: equilibrium flags, and energies at J2 = 0 against the exact finite lattice.

    Returns:
      Share of points that passed the test of equilibrium, the ones that did not by coupling, and for J2 = 0 the
      temperatures, mean energies, their standard errors, exact energies, z scores and |m|.
    """
    flagged = held.flagged() & (held.points.count > 0)
    result: dict[str, Any] = {
        "share_equilibrated": float(1 - flagged.sum() / np.sum(held.points.count > 0)),
        "not_equilibrated": {f"{j:g}": int(n) for j, n in zip(held.points.j2, flagged.sum(axis=1), strict=True) if n},
    }
    row = np.flatnonzero(np.abs(held.points.j2) < 1e-6)
    if len(row):
        here = held.points.count[row[0]] > 1
        t = held.points.temperature[here]
        mean, square, m = (
            phase_diagram.mean_map(x, held.points)[row[0]][here]
            for x in (held.measured.energy, held.measured.energy**2, held.measured.magnetization)
        )
        n = held.points.count[row[0]][here]
        error = np.sqrt(np.maximum(square - mean**2, 0) / (n - 1))
        known = ising.exact_energy(held.size, t)
        # Equal energies, as near T = 0, have no scatter to measure by; the smallest step of the energy stands in.
        z = (mean - known) / np.maximum(error, 4 / held.size**2 / np.sqrt(n))
        result["no_j2"] = {
            "temperature": t.tolist(),
            "energy": mean.tolist(),
            "standard_error": error.tolist(),
            "exact_energy": known.tolist(),
            "z": z.tolist(),
            "rms_z": float(np.sqrt(np.mean(z**2))),
            "num_states": int(n.min()),
            "largest_difference": float(np.abs(mean - known).max()),
            "magnetization": m.tolist(),
        }
    return result


def metrics(found: Sequence[Answer], rule: str) -> dict[str, Any]:
    """Everything for ``metrics.json``."""
    result: dict[str, Any] = {"rule": rule, "regions": []}
    for a in found:
        true = true_phase(a.states)
        entry = {
            "phase": a.phase,
            "size": a.states.size,
            "num_seeds": len(a.epsilon),
            "n": len(a.states.spins),
            "training_region": dict(zip(("min_j2", "max_j2", "min_t", "max_t"), a.box, strict=True)),
            "epsilon": {
                name: seeds.mean(a.epsilon[:, true == k].mean(axis=1)).numbers() if np.any(true == k) else None
                for k, name in enumerate(phase_names())
            },
            "spread_over_seeds": spread_over_seeds(a),
            "beyond_the_order_parameter": added(a),
            "found_on_the_other_side": strangers(a),
            "methods": {m: _method(a, m) for m in METHODS},
        }
        result["regions"].append(entry)
    result["finite_size"] = trend(found)
    result["data"] = {f"L{held.size}": sanity(held) for held in {a.states.size: a.states for a in found}.values()}
    return result


def _method(a: Answer, method: str) -> dict[str, Any]:
    b = a.boundaries[method]
    rows = [
        {
            "j2": float(a.states.points.j2[j]),
            "temperature": number(b.temperature[j]),
            "low": number(b.low[j]),
            "high": number(b.high[j]),
            "literature": number(a.known[j]),
        }
        for j in np.flatnonzero(a.own_side())
    ]
    return {
        "boundary": rows,
        "away": a.deviation(method)._asdict(),
        "difficult": a.deviation(method, difficult=True)._asdict(),
    }


def phase_names() -> tuple[str, ...]:
    """Ordered phases, then the paramagnet, in the order of ``true_phase``."""
    return (*ising_literature.PHASES, PARAMAGNET)


def number(x: float) -> float | None:
    """A number for JSON or a table; ``None`` for NaN."""
    return float(x) if np.isfinite(x) else None
