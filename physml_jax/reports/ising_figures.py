"""Figures of the Ising report: maps, diagram, methods, states, latent space, generated states, sizes, checks."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from physml_jax.analysis import ising, ising_literature, latent, phase_diagram
from physml_jax.reports.ising_answers import BINDER, HALF, HEAT, NEAREST, ORDER, VAE, Answer, States
from physml_jax.viz import phases, spins, transitions
from physml_jax.viz.phases import Line, Points
from physml_jax.viz.transitions import Band

_LOW, _HIGH = ising_literature.DIFFICULT
_STATES_SHOWN = 8
_LATENT_POINTS = 4000
_TEMPERATURES_SHOWN = 41


def maps(found: Sequence[Answer]) -> tuple[Any, str]:
    """Epsilon over the plane for every region of one size: the paper's Fig. 6."""
    held = found[0].states
    figure = phases.maps(
        {_panel_title(a): a.maps[VAE][0] for a in found},
        x=held.points.j2,
        y=held.points.temperature,
        lines=_known_lines(),
        dotted={_panel_title(a): held.flagged() for a in found},
        boxes={_panel_title(a): a.box for a in found},
    )
    counts = {len(a.epsilon) for a in found}
    over = "one seed" if counts == {1} else f"mean over {', '.join(str(c) for c in sorted(counts))} seeds"
    dots = " Dots: points whose chains did not pass the test of equilibrium." if held.flagged().any() else ""
    return figure, (
        f"Reconstruction error ε of autoencoders trained on one phase, L = {held.size}, {over}, all test replicas. "
        f"Dashed: the training region. Black: boundaries in the literature, down to T = 0 at J2 = 1/2.{dots} Compare "
        "Fig. 6 of the paper."
    )


def diagram(found: Sequence[Answer]) -> tuple[Any, str]:
    """The phase diagram that follows from the maps of one size."""
    held = found[0].states
    codes = phase_diagram.phases([a.boundaries[VAE].temperature for a in found], held.points)
    measured = {f"VAE, {a.phase}": _measured(a, VAE, rows=np.isfinite(a.boundaries[VAE].temperature)) for a in found}
    both = len(found) > 1
    figure = phases.diagram(
        codes,
        x=held.points.j2,
        y=held.points.temperature,
        names=[*(a.phase for a in found), "paramagnet (by exclusion)" if both else f"no {found[0].phase}"],
        boundaries=measured,
        lines=_known_lines(),
    )
    return figure, (
        f"Phase diagram from the reconstruction errors, L = {held.size}. Points: where the error rises, with 95 % "
        "intervals from resampled replicas and seeds; often smaller than the marker. "
        + ("What neither network reconstructs is the paramagnet. " if both else "")
        + "Lines: literature, infinite lattice. A finite lattice keeps its order to a slightly higher temperature."
    )


def methods(found: Sequence[Answer], *, tolerance: float) -> tuple[Any, str]:
    """Boundaries of one size by all methods, and their differences from the literature."""
    panels, lines, known = {}, {}, {}
    for a in found:
        rows = a.own_side()
        title = _panel_title(a, trained=False)
        panels[title] = {m: _measured(a, m, rows=rows) for m in (VAE, HALF, NEAREST, ORDER, BINDER, HEAT)}
        lines[title] = Line(*ising_literature.curve(a.phase))
        known[title] = a.known[rows]
    figure = phases.methods(panels, lines=lines, known=known, tolerance=tolerance, shaded=(_LOW, _HIGH))
    return figure, (
        f"Boundaries by method, L = {found[0].states.size}: above over the literature, below the differences where the "
        f"literature has a value; grey band ± {tolerance:g} about it, yellowish {_LOW:g} ≤ J2 ≤ {_HIGH:g}. Symbols at "
        "one coupling are set apart sideways; differences beyond the frame are in the table. Intervals 95 %. The order "
        "parameter is the same thing as the distance from the nearest ideal state. What lies above zero in all methods "
        "is the finite size, not the network."
    )


def curves(a: Answer, *, most: int = 6) -> tuple[Any, str] | None:
    """Epsilon over the temperature for some couplings, with the direct comparisons."""
    held = a.states
    rows = np.flatnonzero(np.isfinite(a.known) & a.own_side() & np.all(held.points.count > 0, axis=1))
    if not len(rows):
        return None
    rows = np.unique(rows[np.linspace(0, len(rows) - 1, most).round().astype(int)])
    average = phase_diagram.mean_map(a.direct.mean, held.points)
    shown = np.unique(np.linspace(0, len(held.points.temperature) - 1, _TEMPERATURES_SHOWN).round().astype(int))
    groups = {}
    for j in rows:
        vae = a.maps[VAE][:, j, shown]
        interval = np.percentile(vae[1:], [2.5, 97.5], axis=0) if len(vae) > 1 else (None, None)
        groups[f"J2 = {held.points.j2[j]:g}, Tc = {a.known[j]:.3f}"] = {
            "nearest ideal state, (1 − order parameter)/2": Band(a.maps[ORDER][0, j, shown], reference=True),
            VAE: Band(vae[0], *interval),
            NEAREST: Band(a.maps[NEAREST][0, j, shown]),
            "mean over training states": Band(average[j, shown]),
        }
    figure = transitions.panels(
        held.points.temperature[shown], groups, xlabel=phases.TLABEL, ylabel=r"$\epsilon$", ylim=(-0.02, 0.62)
    )
    return figure, (
        f"Errors over the temperature, {a.title}; Tc is that of the literature. The mean over training states is 1/2 "
        "inside the phase as outside: states of opposite sign cancel. The nearest of a few hundred training states is "
        "close to the ideal state."
    )


def examples(a: Answer, *, most: int = _STATES_SHOWN) -> tuple[Any, str] | None:
    """States of all phases and their reconstructions by the first seed: the paper's Fig. 5."""
    reconstruction = a.runs[0].predictions.get("reconstruction")
    if reconstruction is None or np.shape(reconstruction)[:3] != a.states.spins.shape:
        return None
    picked = pick(a)[:most]
    rebuilt = np.asarray(reconstruction).reshape(a.states.spins.shape)[[i for i, _ in picked]]
    figure = spins.pairs(
        a.states.spins[[i for i, _ in picked]],
        rebuilt,
        titles=[f"{name}\n$J_2$ = {a.states.j2[i]:g}, $T$ = {a.states.temperature[i]:.3g}" for i, name in picked],
        notes=[rf"$\epsilon$ = {a.epsilon[0, i]:.3f}" for i, _ in picked],
    )
    return figure, (
        f"Test states and the signs of their reconstructions by the network trained on the {a.phase}, "
        f"L = {a.states.size}, first seed. At every point the state of median ε is shown. Compare Fig. 5 of the paper."
    )


def pick(a: Answer) -> list[tuple[int, str]]:
    """States to show, by rule: in each phase one deep inside and one near the boundary, two of the paramagnet above
    them, and two hot or frustrated ones; at each of these points the state of median epsilon of the first seed.
    """
    held = a.states
    t, j2 = held.points.temperature, held.points.j2
    targets = []
    for phase, coupling in (("ferromagnet", 0.1), ("superantiferromagnet", 0.8)):
        known = ising_literature.transition_temperature(phase, [coupling])[0]
        targets += [(coupling, x * known, name) for x, name in ((0.5, phase), (0.95, phase), (1.15, "paramagnet"))]
    targets += [(0.5, 0.1 * t[-1], "frustrated"), (0.5, t[-1], "paramagnet")]
    result = []
    for coupling, temperature, name in targets:
        distance = ((held.points.j2 - coupling)[:, None]) ** 2 + ((t - temperature)[None] / t[-1]) ** 2
        j, k = np.unravel_index(np.argmin(np.where(held.points.count > 0, distance, np.inf)), held.points.count.shape)
        here = np.flatnonzero((held.points.row == j) & (held.points.column == k))
        known = [ising_literature.transition_temperature(p, j2[j : j + 1])[0] for p in ising_literature.PHASES]
        if name != "frustrated":
            # A coarse grid may have its nearest point on the other side of the boundary.
            inside = [p for p, x in zip(ising_literature.PHASES, known, strict=True) if t[k] < x]
            name = inside[0] if inside else "paramagnet"
        order = np.argsort(a.epsilon[0, here], kind="stable")
        result.append((int(here[order[len(order) // 2]]), name))
    return list(dict.fromkeys(result))


def latent_space(a: Answer) -> tuple[Any, str] | None:
    """The latent means of the test states along their two principal directions."""
    codes = a.runs[0].predictions.get("latent")
    if codes is None or np.ndim(codes) != 2 or np.shape(codes)[1] < 2:
        return None
    rows = np.linspace(0, len(codes) - 1, min(_LATENT_POINTS, len(codes))).round().astype(int)
    found = latent.principal(np.asarray(codes, np.float64))
    colours = {phases.TLABEL: a.states.temperature[rows], phases.JLABEL: a.states.j2[rows]}
    measured = ising.signed_order(a.states.spins[rows])
    orders = {"magnetisation": measured.magnetization}
    if a.phase == "superantiferromagnet":
        orders = {"row order": measured.row, "column order": measured.column}
    colours |= orders
    figure = spins.latent(
        found.points[rows, :2],
        colours,
        axes_labels=tuple(f"component {i + 1} ({100 * s:.0f} %)" for i, s in enumerate(found.share[:2])),
        cyclic=list(orders),
    )
    return figure, (
        f"Latent means of {len(rows)} test states of all phases in the network trained on the {a.phase}, "
        f"L = {a.states.size}, first seed: the two principal components, with their shares of the variance."
    )


def generated(a: Answer, *, most: int = 8) -> tuple[Any, str] | None:
    """Training states beside states that the decoder drew."""
    drawn = drawn_states(a)
    if drawn is None:
        return None
    sets = {}
    for name, states in (("training", a.references), ("generated", drawn)):
        count = min(most, len(a.references), len(drawn))
        sets[name] = states[np.linspace(0, len(states) - 1, count).round().astype(int)]
    return spins.galleries(sets), (
        f"Training states of the {a.phase} (above) and states that the decoder drew from random latent vectors "
        f"(below), L = {a.states.size}, first seed; evenly spaced in the order of their sets, not chosen."
    )


def generated_histograms(a: Answer) -> tuple[Any, str] | None:
    """Energies and order parameters of training states and generated ones."""
    found = drawn_measures(a)
    if found is None:
        return None
    j2, measured = found
    name = "$|m|$" if a.phase == "ferromagnet" else "stripe order"
    energy = f"energy per site at $J_2$ = {j2:g}"
    panels = {
        energy: {k: m.energy for k, m in measured.items()},
        name: {k: m.magnetization if a.phase == "ferromagnet" else m.stripe_maximum for k, m in measured.items()},
    }
    ground = ising.ground_energy(j2)
    return spins.histograms(panels, marks={energy: {"ground state": ground}}), (
        f"Energies per site (units of J1, all states taken at J2 = {j2:g}, the middle of the training region) and "
        f"order parameters of training states of the {a.phase} and of generated ones, L = {a.states.size}, first seed."
    )


def drawn_states(a: Answer) -> np.ndarray | None:
    """What the decoder of the first seed drew, int8 [N, L, L]; ``None`` where the run does not hold it."""
    held = a.runs[0].predictions.get("generated")
    if held is None or np.shape(held)[:3] != a.states.spins.shape:
        return None
    return ising.as_states(held, name=f"run {a.runs[0].name}: generated")


def drawn_measures(a: Answer, *, most: int = 4096) -> tuple[float, dict[str, ising.Observables]] | None:
    """A coupling of the training region, and what training and generated states measure at it."""
    drawn = drawn_states(a)
    if drawn is None:
        return None
    couplings = np.unique(np.asarray(a.runs[0].reference["j2"], np.float64).round(6))
    j2 = float(couplings[len(couplings) // 2])
    measured = {}
    for name, states in (("training", a.references), ("generated", drawn)):
        states = states[np.unique(np.linspace(0, len(states) - 1, most).round().astype(int))]
        measured[name] = ising.observables(states, np.full(len(states), j2, np.float32))
    return j2, measured


def finite_size(entries: Sequence[dict[str, Any]]) -> tuple[Any, str] | None:
    """Boundaries of the network over 1/L; ``None`` with one size."""
    panels: dict[str, dict[str, Any]] = {}
    for method in (HALF, VAE):
        for e in entries:
            if e["literature"] is None or _LOW <= e["j2"] <= _HIGH or method not in e:
                continue
            t, error = np.array(e[method]["temperatures"]), np.array([x or 0.0 for x in e[method]["standard_errors"]])
            points = Points(1 / np.array(e[method]["sizes"]), t, t - 1.96 * error, t + 1.96 * error)
            panels.setdefault(f"{e['phase']}: {method}", {})[f"J2 = {e['j2']:g}"] = (points, e["literature"])
    if not panels:
        return None
    return phases.finite_size(panels), (
        "Boundary of the network minus the literature value over 1/L, with 95 % intervals; couplings away from "
        f"{_LOW:g} ≤ J2 ≤ {_HIGH:g}. Above the temperature half way up the curve of ε, below that of the rule of this "
        "report. What is due to the finite lattice goes to zero at the left edge."
    )


def checks(held: States, found: dict[str, Any]) -> tuple[Any, str] | None:
    """Energy and magnetisation at J2 = 0 over the temperature, beside exact curves."""
    row = found.get("no_j2")
    if row is None or len(row["temperature"]) < 2:
        return None
    t = np.array(row["temperature"])
    fine = np.linspace(t[0], t[-1], 200)
    figure = phases.exact_check(
        t,
        {
            "energy per site / $J_1$": (
                np.array(row["energy"]),
                1.96 * np.array(row["standard_error"]),
                {f"exact, L = {held.size}": (fine, ising.exact_energy(held.size, fine))},
            ),
            "$|m|$": (
                np.array(row["magnetization"]),
                None,
                {"exact, infinite lattice": (fine, ising.exact_magnetization(fine))},
            ),
        },
        residual=np.array(row["z"]),
    )
    return figure, (
        f"Test states at J2 = 0, L = {held.size}: energy against the exact finite lattice (Kaufman), its difference in "
        f"standard errors (root mean square {row['rms_z']:.2f}), and |m| against the infinite lattice (Onsager, Yang), "
        "which a finite one rounds."
    )


def _known_lines() -> list[Line]:
    return [Line(*ising_literature.curve(p)) for p in ising_literature.PHASES]


def _measured(a: Answer, method: str, *, rows: np.ndarray) -> Points:
    b = a.boundaries[method]
    return Points(a.states.points.j2[rows], b.temperature[rows], b.low[rows], b.high[rows])


def _panel_title(a: Answer, *, trained: bool = True) -> str:
    return f"trained on the {a.phase}" if trained else a.phase
