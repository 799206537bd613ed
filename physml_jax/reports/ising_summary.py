"""The Ising report in words, all of which follow from its numbers."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from physml_jax.analysis import ising_literature
from physml_jax.reports.ising_answers import HALF, ORDER, VAE, Answer

_RULES = {
    "critical": "where ε has risen by 1 − L^(−1/8) of its way, as it has at a transition of this kind",
    "half": "where ε is half way between its plateaus",
    "steepest": "where ε rises fastest",
}


def paragraphs(found: Sequence[Answer], measured: dict[str, Any], tolerance: float) -> list[str]:
    """The result, what the network adds to it, sizes, data, and what is inside the network.

    Args:
      found: all regions and sizes.
      measured: the metrics of the report.
      tolerance: difference from the literature that counts as agreement.
    """
    lines = []
    for a, entry in zip(found, measured["regions"], strict=True):
        lines += [_result(a, tolerance, measured["rule"]), _added(a, entry)]
    lines += _trend(measured["finite_size"])
    lines += _data(measured["data"])
    return lines + [_inside(entry) for entry in measured["regions"] if entry["latent"] or entry["generated"]]


def _result(a: Answer, tolerance: float, rule: str) -> str:
    low, high = ising_literature.DIFFICULT
    away, inside = a.deviation(VAE), a.deviation(VAE, difficult=True)
    own, half = a.deviation(ORDER), a.deviation(HALF)
    seeds_text = "one seed" if len(a.epsilon) == 1 else f"{len(a.epsilon)} seeds"
    text = f"Boundary of the {a.title} ({seeds_text}), {_RULES[rule]}: "
    if away.n:
        verdict = "within" if away.largest <= tolerance else "not within"
        text += (
            f"{verdict} {tolerance:g} of the literature away from {low:g} ≤ J2 ≤ {high:g}: mean |difference| "
            f"{away.mean:.3f}, largest {away.largest:.3f}, mean with sign {signed(away.signed)}, {_couplings(away.n)}"
        )
    else:
        text += "none found at couplings with a known value"
    if away.missing:
        text += f", not found at {_couplings(away.missing)}"
    if own.n:
        text += (
            f". The order parameter at the same size by the same rule: mean {own.mean:.3f}, largest {own.largest:.3f}, "
            f"with sign {signed(own.signed)}"
            + ("; so much lies in the data (size, grid, equilibrium)" if away.n else "")
        )
    if rule != "half" and half.n:
        text += (
            f". Half way up, which knows nothing of the transition, the network is off by {half.mean:.3f} in the mean "
            f"and {half.largest:.3f} at most"
        )
    text += f". Inside {low:g} ≤ J2 ≤ {high:g}: "
    if inside.n:
        text += f"mean {inside.mean:.3f}, largest {inside.largest:.3f} at {inside.n} tabulated ones"
    else:
        text += "nothing to compare"
    return text + (f", not found at {_couplings(inside.missing)}." if inside.missing else ".")


def _added(a: Answer, entry: dict[str, Any]) -> str:
    """What the network says beyond the order parameter."""
    known = entry["beyond_the_order_parameter"]
    squared = known["squared_correlation"]
    text = f"What the network adds ({a.title}): "
    if squared is None:
        text += "its ε is the same for all states"
    else:
        text += (
            f"over all test states its ε shares {100 * squared['mean']:.1f} % of its variance with (1 − order "
            "parameter)/2, the error of the nearest ideal state, from which it differs by "
            f"{known['rms_difference']:.3f} (root mean square; mean {signed(known['mean_difference'])})"
        )
    if known["rows_compared"]:
        text += (
            f"; the two boundaries differ by {known['boundary_difference_mean']:.3f} in the mean and "
            f"{known['boundary_difference_largest']:.3f} at most"
        )
        vae, order = a.deviation(VAE), a.deviation(ORDER)
        if vae.n and order.n:
            gain = order.mean - vae.mean
            if abs(gain) < 0.005:
                text += "; neither is closer to the literature by 0.005: the network finds the order parameter again"
            elif gain > 0:
                text += f"; the network is closer to the literature, by {gain:.3f} in the mean"
            else:
                text += f"; the order parameter is closer to the literature, by {-gain:.3f} in the mean"
    strangers = entry["found_on_the_other_side"]
    if strangers:
        text += f". It takes states of the other phase for its own at J2 = {', '.join(f'{j:g}' for j in strangers)}"
    epsilon = [(name, e) for name, e in entry["epsilon"].items() if e is not None]
    text += ". Mean ε by phase of the literature: " + ", ".join(f"{n} {e['mean']:.3f}" for n, e in epsilon)
    spread = entry["spread_over_seeds"]
    if spread is not None:
        text += (
            f". Spread of the maps over {entry['num_seeds']} seeds (standard deviation): {spread['mean']:.3f} in the "
            f"mean, {spread['largest']:.3f} at most"
        )
    return text + "."


def _trend(entries: Sequence[dict[str, Any]]) -> list[str]:
    lines = []
    for phase in ising_literature.PHASES:
        by_rule, by_half, limit = [], [], []
        for e in entries:
            away = not ising_literature.is_difficult(np.array([e["j2"]]))[0]
            if e["phase"] == phase and away and e["literature"] is not None and e[HALF]["infinite"] is not None:
                by_rule.append(abs(e[VAE]["temperatures"][-1] - e["literature"]))
                by_half.append(abs(e[HALF]["temperatures"][-1] - e["literature"]))
                limit.append(abs(e[HALF]["infinite"]["temperature"] - e["literature"]))
        if limit:
            sizes = sorted({s for e in entries if e["phase"] == phase for s in e[VAE]["sizes"]})
            lines.append(
                f"Sizes {', '.join(map(str, sizes))}, {phase}, mean |difference| from the literature away from the "
                f"difficult couplings: {np.mean(by_rule):.3f} (largest {np.max(by_rule):.3f}) at the largest size; "
                f"half way up {np.mean(by_half):.3f} (largest {np.max(by_half):.3f}) there, and {np.mean(limit):.3f} "
                f"(largest {np.max(limit):.3f}) after extrapolation in 1/L."
            )
    return lines


def _data(data: dict[str, Any]) -> list[str]:
    lines = []
    for name, found in data.items():
        share = 100 * found["share_equilibrated"]
        text = f"Data, {name[0]} = {name[1:]}: {share:.1f} % of the points passed the test of equilibrium"
        if found["not_equilibrated"]:
            rows = ", ".join(f"{j} ({n})" for j, n in found["not_equilibrated"].items())
            text += f"; the others lie at J2 = {rows}"
        if "no_j2" in found:
            row = found["no_j2"]
            text += (
                f". Energies at J2 = 0 lie {row['rms_z']:.2f} standard errors (root mean square) from the exact ones "
                f"of the finite lattice, at most {row['largest_difference']:.4f} J1"
            )
            few = row["num_states"]
            if few > 3:  # the variance of Student's t with few - 1 degrees of freedom
                text += f"; {((few - 1) / (few - 3)) ** 0.5:.2f} is expected of errors that {few} states tell"
        lines.append(text + ".")
    return lines


def _inside(entry: dict[str, Any]) -> str:
    parts = []
    if entry["latent"]:
        codes = entry["latent"]
        own = codes["active_inside"]
        parts.append(
            f"{codes['active']} of {codes['units']} latent units are active over all test states"
            + ("" if own is None else f", {own} over those of its training region")
        )
    if entry["generated"]:
        made = entry["generated"]
        parts.append(
            f"generated states have a mean energy of {made['generated']['energy']:.3f} at J2 = {made['j2']:g} and a "
            f"mean order of {made['generated']['order']:.3f}, training states {made['training']['energy']:.3f} and "
            f"{made['training']['order']:.3f}; {100 * made['share_within']:.0f} % of the generated ones lie within the "
            "energies of the middle 98 % of the training states"
        )
    return f"Inside the network ({entry['phase']}, L = {entry['size']}, first seed): {'; '.join(parts)}."


def signed(x: float) -> str:
    """A number with its sign, to three digits."""
    return f"{x:+.3f}".replace("-", "−")


def _couplings(n: int) -> str:
    return f"{n} coupling" + ("" if n == 1 else "s")
