"""Trainings of one name are one model: their mean, and the standard error over seeds."""

from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

import numpy as np

from physml_jax.typing import Run


class Mean(NamedTuple):
    """A score over the seeds of a model.

    Attributes:
      value: mean over seeds.
      error: standard error of that mean; ``None`` with one seed.
      n: number of seeds.
    """

    value: float
    error: float | None
    n: int

    def text(self, digits: int = 4) -> str:
        """For a sentence or a table: ``0.9270 ± 0.0003``."""
        if self.error is None:
            return f"{self.value:.{digits}f}"
        return f"{self.value:.{digits}f} ± {self.error:.{digits}f}"

    def seeds(self) -> str:
        """How many trainings stand behind the number."""
        return "one seed" if self.n == 1 else f"{self.n} seeds"

    def numbers(self) -> dict[str, Any]:
        """For ``metrics.json``."""
        return {"mean": self.value, "standard_error": self.error, "num_seeds": self.n}


def by_model(runs: Sequence[Run]) -> dict[str, list[Run]]:
    """Runs by name in the order of their first appearance, the members of an ensemble in order.

    Raises:
      ValueError: without a run.
    """
    if not runs:
        raise ValueError("runs: expected at least one finished run")
    found: dict[str, list[Run]] = {}
    for run in runs:
        found.setdefault(run.name, []).append(run)
    return {name: sorted(members, key=lambda r: r.member) for name, members in found.items()}


def mean(values: Iterable[float]) -> Mean:
    """Mean and standard error over seeds; the spread is that of a sample (n - 1)."""
    x = np.asarray(list(values), np.float64)
    return Mean(float(x.mean()), float(x.std(ddof=1) / np.sqrt(len(x))) if len(x) > 1 else None, len(x))


def standard_error(values: np.ndarray) -> np.ndarray | None:
    """Standard error over the first axis, or ``None`` with one seed."""
    values = np.asarray(values, np.float64)
    return values.std(axis=0, ddof=1) / np.sqrt(len(values)) if len(values) > 1 else None


def held(run: Run, part: str, key: str) -> np.ndarray:
    """``run.<part>[key]`` as an array.

    Raises:
      ValueError: if it is missing; the message lists what is there.
    """
    found = getattr(run, part)
    if key not in found:
        raise ValueError(f"run {run.name}: {part} lack {key!r}; they hold: {', '.join(sorted(found)) or 'nothing'}")
    return np.asarray(found[key])
