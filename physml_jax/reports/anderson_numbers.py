"""Numbers of the Anderson report: scores, which rung a network stands on, and what changes of the states do to it."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from physml_jax.analysis import agreement
from physml_jax.analysis.bootstrap import mean_intervals
from physml_jax.reports import seeds
from physml_jax.reports.anderson_answers import SCORES, Answers, Network, Problem

#: Below this the profile of accuracies of a rung is called near that of a network.
_NEAR = 0.05


class Beside(NamedTuple):
    """One network beside one rung.

    Attributes:
      gain: accuracy of the network less that of the rung.
      low: lower end of its 95 % bootstrap interval over states.
      high: upper end.
      kappa: agreement of the two in excess of chance, mean over seeds; ``None`` where undefined.
      together: correlation of the W that both find, beyond the true class, mean over seeds; ``None`` where one of them
        does not vary.
      profile: root mean square difference of the accuracies on the test states and all probes; ``None`` without probes.
    """

    gain: float
    low: float
    high: float
    kappa: seeds.Mean | None
    together: seeds.Mean | None
    profile: float | None

    def verdict(self) -> int:
        """1 where the network is better, -1 where it is worse, 0 where that is open."""
        return 0 if self.low <= 0 <= self.high else (1 if self.gain > 0 else -1)


class Standing(NamedTuple):
    """Where a network stands.

    Attributes:
      beside: rung -> comparison.
      noise: size up to which a correlation of ``n`` states comes about by chance (95 %).
      explained: share of what the network's W varies within classes that all rungs together explain, mean over seeds.
      above_chance: whether its accuracy exceeds chance by more than its interval.
    """

    beside: Mapping[str, Beside]
    noise: float
    explained: seeds.Mean | None
    above_chance: bool


class Change(NamedTuple):
    """What a probe does to one method.

    Attributes:
      accuracy: on the changed states.
      drop: accuracy on the same states unchanged less that, where all states were asked; else of the means.
      low: lower end of the 95 % interval of the drop.
      high: upper end.
      kept: share of the accuracy above chance that is left; ``None`` where there was none.
    """

    accuracy: float
    drop: float
    low: float
    high: float
    kept: float | None


def standing(network: Network, problem: Problem, *, num_resamples: int) -> Standing:
    """Compares a network with every rung on the same states."""
    truth, found = problem.states.truth, network.answers
    names = list(problem.rungs)
    right = found.right.mean(0)
    gains = np.array([right - problem.rungs[r].right[0] for r in names])
    intervals = mean_intervals(gains, num_resamples=num_resamples)
    beside = {}
    for name, gain, (low, high) in zip(names, gains, intervals, strict=True):
        rung = problem.rungs[name]
        kappa = [agreement.cohen_kappa(s, rung.said[0], num_classes=len(problem.widths)) for s in found.said]
        together = [agreement.partial_correlation(w, rung.width[0], truth) for w in found.width]
        beside[name] = Beside(
            float(gain.mean()), float(low), float(high), _mean(kappa), _mean(together), _profile(network, problem, name)
        )
    predictors = np.stack([problem.rungs[n].width[0] for n in names], axis=1)
    explained = _mean([agreement.explained_share(w, predictors, truth) for w in found.width])
    left = max(len(truth) - len(np.unique(truth)), 1)
    above = found.scores["accuracy"].low > problem.chance["accuracy"]
    return Standing(beside, float(1.96 / np.sqrt(left)), explained, above)


def nearest_profile(s: Standing) -> str | None:
    """The rung whose accuracies on test states and probes are nearest, if one is near."""
    held = {k: b.profile for k, b in s.beside.items() if b.profile is not None}
    best = min(held, key=held.get, default=None)
    return best if best is not None and held[best] <= _NEAR else None


def closest(s: Standing) -> str | None:
    """The rung that goes most with the network beyond the true W, if any does more than by chance."""
    held = {k: b.together.value for k, b in s.beside.items() if b.together is not None}
    best = max(held, key=held.get, default=None)
    return best if best is not None and held[best] > s.noise else None


def changes(network: Network, problem: Problem, probe: str, *, num_resamples: int) -> dict[str, Change]:
    """What a probe does to the network (under its title) and to every rung."""
    found = network.probes[probe]
    pairs = {network.title: (network.answers, found.answers)}
    pairs |= {name: (problem.rungs[name], found.rungs[name]) for name in found.rungs if name in problem.rungs}
    chance = problem.chance["accuracy"]
    result = {}
    for name, (clean, changed) in pairs.items():
        before, after = clean.right.mean(0), changed.right.mean(0)
        if len(before) == len(after):
            low, high = mean_intervals((before - after)[None], num_resamples=num_resamples)[0]
        else:
            spread = 1.96 * np.sqrt(before.var() / len(before) + after.var() / len(after))
            low, high = before.mean() - after.mean() + np.array([-spread, spread])
        above = clean.scores["accuracy"].low > chance
        kept = (after.mean() - chance) / (before.mean() - chance) if above else None
        result[name] = Change(
            float(after.mean()), float(before.mean() - after.mean()), float(low), float(high), _float(kept)
        )
    return result


def metrics(
    networks: Sequence[Network],
    problems: Sequence[Problem],
    standings: Sequence[Standing],
    changed: Sequence[Mapping[str, Mapping[str, Change]]],
) -> dict[str, Any]:
    """Everything as JSON."""
    return {
        "problems": [
            {
                "size": p.states.size,
                "widths": p.widths.tolist(),
                "n": len(p.states.truth),
                "missing_classes": missing(p),
                "training_states": p.num_fitted,
                "chance": dict(p.chance),
                "rungs": {name: _answered(a, p) for name, a in p.rungs.items()},
            }
            for p in problems
        ],
        "networks": [
            {
                "name": n.title,
                "run": n.runs[0].name,
                "view": n.view,
                "pixels": n.pixels,
                "problem": n.problem,
                "num_seeds": len(n.runs),
                **_answered(n.answers, problems[n.problem]),
                "accuracy_by_seed": n.answers.right.mean(1).tolist(),
                "standing": {
                    "explained_by_all_rungs": None if s.explained is None else s.explained.numbers(),
                    "correlation_by_chance": s.noise,
                    "rungs": {
                        k: {
                            "accuracy_difference": b.gain,
                            "low": b.low,
                            "high": b.high,
                            "kappa": None if b.kappa is None else b.kappa.numbers(),
                            "correlation_beyond_class": None if b.together is None else b.together.numbers(),
                            "profile_distance": b.profile,
                        }
                        for k, b in s.beside.items()
                    },
                },
                "probes": {
                    probe: {
                        "n": n.probes[probe].n,
                        "same_answer": n.probes[probe].same,
                        "methods": {name: x._asdict() for name, x in by_method.items()},
                    }
                    for probe, by_method in c.items()
                },
            }
            for n, s, c in zip(networks, standings, changed, strict=True)
        ],
    }


def missing(problem: Problem) -> list[float]:
    """W of the classes that no test state has."""
    seen = np.bincount(problem.states.truth, minlength=len(problem.widths))
    return problem.widths[seen == 0].tolist()


def by_class(found: Answers, problem: Problem) -> tuple[np.ndarray, np.ndarray]:
    """Accuracy by class of every seed, [S, K], and the numbers of the K classes that test states have."""
    classes = np.unique(problem.states.truth)
    return np.stack([found.right[:, problem.states.truth == c].mean(1) for c in classes], axis=1), classes


def _answered(a: Answers, problem: Problem) -> dict[str, Any]:
    rates, classes = by_class(a, problem)
    return {
        **{score: a.scores[score].numbers() for score in SCORES},
        "accuracy_by_width": {f"{problem.widths[c]:g}": float(r) for c, r in zip(classes, rates.mean(0), strict=True)},
        "confusion": a.confusion(problem.states.truth).tolist(),
    }


def _profile(network: Network, problem: Problem, rung: str) -> float | None:
    if not network.probes or not all(rung in p.rungs for p in network.probes.values()):
        return None
    both = [(network.answers, problem.rungs[rung]), *((p.answers, p.rungs[rung]) for p in network.probes.values())]
    gaps = [a.right.mean() - b.right.mean() for a, b in both]
    return float(np.sqrt(np.mean(np.square(gaps))))


def _mean(values) -> seeds.Mean | None:
    held = [v for v in values if v is not None]
    return seeds.mean(held) if held else None


def _float(x):
    return None if x is None else float(x)
