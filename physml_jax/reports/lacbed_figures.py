"""The figures of the LACBED report: which crystals are shown, how they are labelled, and their units."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from physml_jax.typing import Run
from physml_jax.viz import curves, groups, images, style

#: Smallest abs(g) of the zero layer at [001] in units of 1/a, by the lattice letter of a cubic space group.
_SMALLEST_G = {"P": 1.0, "I": math.sqrt(2.0), "F": 2.0}


def draw(
    run: Run,
    *,
    name: str,
    target: str,
    inputs: str,
    r: np.ndarray,
    others: Mapping[str, np.ndarray],
    means: Mapping[str, np.ndarray],
    num_rows: int,
    row_groups: Sequence[int],
    num_extremes: int,
    threshold: float,
) -> dict[str, tuple[Any, str]]:
    """All figures of one run, by short name, with captions.

    Args:
      run: the run.
      name: its name in legends.
      target: key of the patterns.
      inputs: key of the potentials.
      r: float [N], index of fit of the run.
      others: name -> float [N], index of fit of other runs and of baselines; ``nearest neighbour`` among them.
      means: name -> float [N], mean intensity of predictions.
      num_rows: rows of the figure of predictions.
      row_groups: space groups preferred there.
      num_extremes: rows of the figures of best and worst cases.
      threshold: marked value of R.

    Returns:
      Short name -> (figure, caption).
    """
    found: dict[str, tuple[Any, str]] = {}
    group = np.asarray(run.examples["space_group"]) if "space_group" in run.examples else None
    rows = typical_rows(r, group, num_rows=num_rows, preferred=row_groups)
    note = _scales(run)
    found["predictions"] = (
        _rows(run, rows, r, target, inputs),
        "Held-out crystals: potential, prediction, exact pattern and their difference; of each space group shown, the "
        f"crystal whose R is the median of its group. {note}",
    )
    if group is not None:
        training = run.reference.get("space_group")
        found["space_groups"] = (
            groups.scores_by_group(
                r,
                group,
                names={int(g): _group_label(int(g)) for g in np.unique(group)},
                train_groups=training,
                reference=others.get("nearest neighbour"),
                reference_name="nearest neighbour",
                threshold=threshold,
            ),
            "R of every held-out structure by space group, and the number of structures in the test and training sets.",
        )
    found["distribution"] = (
        curves.ecdf({name: r, **others}, threshold=threshold),
        "Share of held-out crystals with an R of at most the value on the axis. The lower a curve, the better.",
    )
    truth = np.asarray(run.examples[target]).mean(axis=(1, 2, 3), dtype=np.float64)
    found["mean_intensity"] = (
        curves.parity(truth, means),
        "Mean intensity of a pattern, predicted against true. R does not see this.",
    )
    if any(set(row) - {"step", "time_s"} for row in run.history):
        found["training"] = (curves.training_curves(run.history), "Training and validation over the optimizer steps.")
    order = np.argsort(r, kind="stable")
    extremes = min(num_extremes, len(r))
    if extremes:
        found["best"] = (_rows(run, order[::-1][:extremes], r, target, inputs), f"The best cases. {note}")
        found["worst"] = (_rows(run, order[:extremes], r, target, inputs), f"The worst cases. {note}")
    return found


def typical_rows(r: np.ndarray, group: np.ndarray | None, *, num_rows: int, preferred: Sequence[int]) -> np.ndarray:
    """The crystals to show: per space group the one with the (lower) median R, so that none is hand-picked.

    Args:
      r: float [N].
      group: int [N], or ``None``; then the crystals at evenly spread quantiles of R are taken.
      num_rows: how many.
      preferred: groups to show first, in this order; the most frequent others follow.

    Returns:
      Int [min(num_rows, N)], row numbers without repetition.
    """
    order = np.argsort(r, kind="stable")
    if group is None:
        return order[np.unique(np.linspace(0, len(r) - 1, min(num_rows, len(r))).astype(int))][::-1]
    keys, counts = np.unique(group, return_counts=True)
    wanted = [g for g in preferred if g in keys]
    wanted += [g for g in keys[np.argsort(-counts, kind="stable")] if g not in wanted]
    rows: list[int] = []
    for g in wanted[:num_rows]:
        members = order[group[order] == g]
        rows.append(int(members[(len(members) - 1) // 2]))
    # Fewer groups than rows: the remaining crystals in the middle of the ranking.
    rest = [int(i) for i in order[np.argsort(np.abs(np.arange(len(r)) - len(r) // 2), kind="stable")] if i not in rows]
    return np.array((rows + rest)[: min(num_rows, len(r))])


def space_group_name(number: int) -> str:
    """Number and short symbol of a space group in its standard setting, for example ``"216 F-43m"``."""
    return f"{number} {_symbol(number).replace(' ', '')}".strip()


def _group_label(number: int) -> str:
    return f"{style.space_group_text(_symbol(number))} {number}".strip()


def _symbol(number: int) -> str:
    import gemmi

    found = gemmi.find_spacegroup_by_number(number)
    return found.hm if found else ""


def _rows(run: Run, rows: np.ndarray, r: np.ndarray, target: str, inputs: str) -> Any:
    labels = []
    for i in rows:
        text = style.formula_text(str(run.labels[i])) if i < len(run.labels) else f"crystal {i}"
        if "space_group" in run.examples:
            text += f"\n{_group_label(int(run.examples['space_group'][i]))}"
        labels.append(text)
    cell = None
    if "log_a" in run.examples:
        cell = np.exp(np.asarray(run.examples["log_a"], np.float64).reshape(-1)[rows])
    # With several thicknesses the last channel is shown: the thickest crystal has the richest pattern.
    return images.prediction_rows(
        np.asarray(run.examples[inputs])[rows, ..., 0],
        np.asarray(run.predictions[target])[rows, ..., -1],
        np.asarray(run.examples[target])[rows, ..., -1],
        labels=labels,
        scores=[float(r[i]) for i in rows],
        cell=cell,
        half_width=_half_width(run, rows, cell),
    )


def _data_option(run: Run, name: str) -> Any:
    return run.config.get("data", {}).get("kwargs", {}).get(name)


def _half_width(run: Run, rows: np.ndarray, cell: np.ndarray | None) -> Any:
    """Tilt at the edge of the patterns, 1/angstrom: as configured, or the simulator's default for cubic cells."""
    if (given := _data_option(run, "half_width")) is not None:
        return float(given)
    zone = _data_option(run, "zone_axis")
    if cell is None or "space_group" not in run.examples or (zone is not None and tuple(zone) != (0, 0, 1)):
        return None
    numbers = [int(run.examples["space_group"][i]) for i in rows]
    if not all(195 <= n <= 230 for n in numbers):
        return None
    return [3.0 * _SMALLEST_G[_symbol(n)[0]] / a for n, a in zip(numbers, cell, strict=True)]


def _scales(run: Run) -> str:
    thicknesses = _data_option(run, "thicknesses")
    last = f" Thickness {float(thicknesses[-1]):g} Å." if thicknesses else ""
    return f"Prediction and exact pattern share one intensity scale in each row.{last}"
