"""What autoencoders of one phase say about states of the J1-J2 Ising model, and what the states say for themselves."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from physml_jax.analysis import ising, ising_literature, phase_boundary, phase_diagram
from physml_jax.analysis.ising import Distances, Observables
from physml_jax.analysis.phase_boundary import Boundary, Deviation
from physml_jax.analysis.phase_diagram import Grid
from physml_jax.reports import seeds
from physml_jax.typing import Run

#: The methods that a report compares, in the order of its tables. The first one is the network.
VAE, HALF, NEAREST, ORDER, BINDER, HEAT = (
    "VAE",
    "VAE, half way",
    "nearest training state",
    "order parameter",
    "Binder cumulant",
    "specific-heat maximum",
)


class States(NamedTuple):
    """The test states of one size.

    Attributes:
      size: L.
      spins: int8 [N, L, L].
      temperature: float64 [N].
      j2: float64 [N].
      equilibrated: bool [N].
      points: the grid of (T, J2).
      measured: energy and order parameters of every state.
    """

    size: int
    spins: np.ndarray
    temperature: np.ndarray
    j2: np.ndarray
    equilibrated: np.ndarray
    points: Grid
    measured: Observables

    def disorder(self, phase: str) -> np.ndarray:
        """(1 - |o|) / 2 of the order parameter of a phase, which is the error of the nearest ideal state; [N]."""
        return (1 - self.order(phase)) / 2

    def order(self, phase: str) -> np.ndarray:
        """|m|, or the larger one of the two stripe orders; [N]."""
        return self.measured.magnetization if phase == "ferromagnet" else self.measured.stripe_maximum

    def flagged(self) -> np.ndarray:
        """Points some states of which come from chains that did not pass the test of equilibrium; bool [nJ, nT]."""
        return np.nan_to_num(phase_diagram.mean_map(self.equilibrated.astype(np.float64), self.points), nan=1.0) < 1


class Answer(NamedTuple):
    """One region, one size: all seeds that were trained on it.

    Attributes:
      phase: of the training region.
      runs: one per seed.
      states: what they were asked about.
      epsilon: float64 [S, N].
      references: int8 [M, L, L], training states.
      box: (least J2, largest J2, least T, largest T) of the training states.
      direct: distances of the test states from training states.
      maps: method -> float64 [1 + B, nJ, nT], resampled maps.
      boundaries: method -> boundary.
      known: float64 [nJ], transition temperatures in the literature, NaN where there is none.
    """

    phase: str
    runs: Sequence[Run]
    states: States
    epsilon: np.ndarray
    references: np.ndarray
    box: tuple[float, float, float, float]
    direct: Distances
    maps: dict[str, np.ndarray]
    boundaries: dict[str, Boundary]
    known: np.ndarray

    @property
    def title(self) -> str:
        """For captions: which network on which lattice."""
        return f"{self.phase}, L = {self.states.size}"

    def own_side(self) -> np.ndarray:
        """Rows on the side of J2 = 1/2 where the phase may be; bool [nJ]."""
        j2 = self.states.points.j2
        return j2 < 0.5 - 1e-6 if self.phase == "ferromagnet" else j2 > 0.5 + 1e-6

    def away(self) -> np.ndarray:
        """Rows of its side outside the difficult couplings; bool [nJ]."""
        return self.own_side() & ~ising_literature.is_difficult(self.states.points.j2)

    def deviation(self, method: str, *, difficult: bool = False) -> Deviation:
        """Differences from the literature outside, or inside, the difficult couplings."""
        rows = self.own_side() & (ising_literature.is_difficult(self.states.points.j2) == difficult)
        return phase_boundary.deviation(self.boundaries[method].temperature, self.known, rows)

    def by_seed(self) -> np.ndarray:
        """The map of every seed on its own; float64 [S, nJ, nT]."""
        return np.stack([phase_diagram.mean_map(e, self.states.points) for e in self.epsilon])


def answers(runs: Sequence[Run], *, epsilon: str, rule: str, num_references: int, num_resamples: int) -> list[Answer]:
    """Sorts runs by size and region, and finds every boundary.

    Args:
      runs: finished runs; those of one region and size are seeds of one model.
      epsilon: key of the reconstruction error among the predictions.
      rule: of the boundary, see ``phase_boundary``.
      num_references: training states that serve the direct comparison.
      num_resamples: bootstrap samples.

    Returns:
      One entry per region and size: sizes in rising order, the ferromagnet first.

    Raises:
      ValueError: if runs lack what is needed, or runs of one size were evaluated on different states, or those of one
        region and size are different models.
    """
    if not runs:
        raise ValueError("runs: expected at least one finished run")
    by_size: dict[int, States] = {}
    grouped: dict[tuple[int, str], list[Run]] = {}
    for run in runs:
        size = seeds.held(run, "examples", "spins").shape[1]
        if size not in by_size:
            by_size[size] = states(run)
        else:
            _same_states(run, by_size[size])
        grouped.setdefault((size, phase_of(run)), []).append(run)
    found = []
    for size, phase in sorted(grouped):
        held, members = by_size[size], grouped[size, phase]
        if any(m.config.get("model") != members[0].config.get("model") for m in members):
            raise ValueError(f"runs: those on the {phase} at L = {size} are different models; report them apart")
        errors = np.stack([_errors(m, epsilon, len(held.spins)) for m in members])
        references = references_of(members[0])
        direct = ising.distances(held.spins, references, num_references=num_references)
        answer = Answer(
            phase=phase,
            runs=members,
            states=held,
            epsilon=errors,
            references=references,
            box=_box(members[0]),
            direct=direct,
            maps={},
            boundaries={},
            known=ising_literature.transition_temperature(phase, held.points.j2),
        )
        found.append(_with_boundaries(answer, rule, num_resamples))
    return found


def states(run: Run) -> States:
    """Reads the test states of a run.

    Raises:
      ValueError: if they are missing or of another form.
    """
    spins = ising.as_states(seeds.held(run, "examples", "spins"), name=f"run {run.name}: spins")
    temperature, j2 = (seeds.held(run, "examples", k).astype(np.float64).round(6) for k in ("temperature", "j2"))
    if temperature.shape != (len(spins),) or j2.shape != (len(spins),):
        raise ValueError(f"run {run.name}: expected a temperature and j2 per state, {len(spins)} of them")
    equilibrated = np.asarray(run.examples.get("equilibrated", np.ones(len(spins)))).astype(bool)
    points = phase_diagram.grid(temperature, j2)
    return States(
        spins.shape[1], spins, temperature, j2, equilibrated, points, ising.observables(spins, j2.astype(np.float32))
    )


def references_of(run: Run) -> np.ndarray:
    """The training states of a run, int8 [M, L, L].

    Raises:
      ValueError: if there are none.
    """
    return ising.as_states(seeds.held(run, "reference", "spins"), name=f"run {run.name}: reference spins")


def phase_of(run: Run) -> str:
    """The phase that a run was trained on: what its config says, else what its training states are.

    Raises:
      ValueError: if neither tells.
    """
    said = (run.config.get("data", {}).get("kwargs") or {}).get("region")
    if said in ising_literature.PHASES:
        return said
    spins = references_of(run)[:512]
    measured = ising.observables(spins, np.zeros(len(spins), np.float32))
    orders = {
        "ferromagnet": measured.magnetization.mean(),
        "superantiferromagnet": measured.stripe_maximum.mean(),
    }
    phase = max(orders, key=orders.get)
    if orders[phase] < 0.5:
        raise ValueError(f"run {run.name}: its training states have no order; expected those of one ordered phase")
    return phase


def _with_boundaries(answer: Answer, rule: str, num_resamples: int) -> Answer:
    held, phase = answer.states, answer.phase

    def drawn(values):
        return phase_diagram.resampled_maps(values, held.points, num_resamples=num_resamples)

    # A stripe order has two components, rows and columns; U runs from 0 to 2 / (n + 2).
    components = 1 if phase == "ferromagnet" else 2
    order = held.measured.magnetization if components == 1 else held.measured.stripe_norm
    cumulant = ising.binder_cumulant(drawn(order**2), drawn(order**4), components=components)
    vae = drawn(answer.epsilon)
    maps = {
        VAE: vae,
        HALF: vae,
        NEAREST: drawn(answer.direct.nearest),
        ORDER: drawn(held.disorder(phase)),
        # From few replicas U scatters about 0 in the paramagnet; its plateau there is known, and not the largest value.
        BINDER: np.clip((1 - cumulant * (components + 2) / 2) / 2, 0, 0.5),
        HEAT: drawn(held.measured.energy),
    }
    rules = dict.fromkeys(maps, rule) | {HALF: "half", BINDER: "half", HEAT: "slope"}
    boundaries = {
        name: phase_boundary.boundary(m, held.points.temperature, rule=rules[name], size=held.size)
        for name, m in maps.items()
    }
    # Every row has a maximum of the specific heat; on the other side of J2 = 1/2 it belongs to the other phase.
    side = answer.own_side()
    boundaries[HEAT] = Boundary(*(np.where(side, x, np.nan) for x in boundaries[HEAT]))
    return answer._replace(maps=maps, boundaries=boundaries)


def _errors(run: Run, key: str, length: int) -> np.ndarray:
    found = seeds.held(run, "predictions", key).astype(np.float64)
    if found.shape != (length,) or not np.all(np.isfinite(found)):
        raise ValueError(f"run {run.name}: expected finite {key!r} [{length}], got shape {found.shape}")
    return found


def _same_states(run: Run, first: States) -> None:
    spins = ising.as_states(seeds.held(run, "examples", "spins"), name=f"run {run.name}: spins")
    j2, temperature = (seeds.held(run, "examples", k).astype(np.float64).round(6) for k in ("j2", "temperature"))
    same = spins.shape == first.spins.shape and np.array_equal(spins, first.spins)
    if not same or not np.array_equal(j2, first.j2) or not np.array_equal(temperature, first.temperature):
        raise ValueError(
            f"runs: {run.name} was evaluated on other states of L = {first.size} than the first run of that size; "
            "report them apart"
        )


def _box(run: Run) -> tuple[float, float, float, float]:
    ends = []
    for key in ("j2", "temperature"):
        x = seeds.held(run, "reference", key).astype(np.float64)
        ends += [float(x.min().round(6)), float(x.max().round(6))]
    return tuple(ends)
