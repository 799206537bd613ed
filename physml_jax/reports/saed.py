"""Phases of electron diffraction patterns: networks beside each other, beside the published table, and what they know.

One run or many on the same test images; runs of one name are the trainings of one model. The report says how good the
answers are for every class alike, how far that is from chance between images and between trainings, whether their
probabilities can be believed, when "cannot tell" is the answer, and what is left when the scale is not known well.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from physml_jax.analysis import calibration
from physml_jax.analysis.bootstrap import mean_intervals
from physml_jax.analysis.classification_intervals import Interval, intervals
from physml_jax.reports import saed_answers as asked
from physml_jax.reports import saed_figures as figures
from physml_jax.reports import saed_published as published
from physml_jax.reports import saed_tables as tables
from physml_jax.reports.saed_answers import Network
from physml_jax.typing import Report, Run

#: Matrices that a report draws at most.
_MOST_MATRICES = 4


def make_report(
    *,
    title: str = "Phases of electron diffraction patterns",
    num_resamples: int = 1000,
    coverage: float = 0.9,
) -> Callable[[Sequence[Run]], Report]:
    """Report of classifiers of diffraction patterns.

    Args:
      title: heading.
      num_resamples: bootstrap samples of the intervals.
      coverage: share of images whose phase a set-valued answer promises to hold.

    Returns:
      A function of finished runs. Examples hold the class under the key that the task learned and may hold ``image``,
      ``scale`` and ``zone_number``; predictions hold ``logits`` [N, C] and may hold ``sublogits``. The probe
      ``validation`` is what temperature and sets are fitted on; probes that change only ``scale_error``, and those
      named like levels, become curves. What the runs do not hold is left out.

    Raises:
      ValueError: for an option out of range.
    """
    if num_resamples < 1:
        raise ValueError(f"num_resamples: expected an integer of at least 1, got {num_resamples}")
    if not 0 < coverage < 1:
        raise ValueError(f"coverage: expected a number between 0 and 1, got {coverage}")

    def report(runs: Sequence[Run]) -> Report:
        if not runs:
            raise ValueError("runs: expected at least one finished run")
        networks = asked.read(runs, num_resamples=num_resamples, coverage=coverage)
        baselines = {"most frequent class": _majority(networks[0], num_resamples)}
        listed = {
            "scores": tables.scores(networks, baselines),
            "published": tables.published_table(networks),
            "trainings": tables.by_seed(networks),
            "certainty": tables.certainties(networks, coverage),
            "zones": tables.zones(networks),
            "classes": tables.classes(networks[0]),
            "pairs": tables.pairs(networks[0]),
            "probes": tables.probes(networks),
        }
        most_frequent = {k: s.value for k, s in baselines["most frequent class"].items()}
        drawn: dict[str, Any] = {"trainings": figures.violins(networks, most_frequent)}
        drawn["scale"] = figures.scales(networks)
        drawn["levels"] = figures.levels(networks)
        for i, n in enumerate(networks[:_MOST_MATRICES]):
            end = "" if i == 0 else f"_{i + 1}"
            drawn[f"confusion{end}"] = figures.confusion(n)
            drawn[f"certainty{end}"] = figures.certainty(n)
        drawn["examples"] = figures.examples(networks[0])
        drawn["training"] = figures.training(networks[0])
        return Report(
            title=f"{title}: {', '.join(n.title for n in networks)}",
            summary=_summary(networks, baselines, coverage, num_resamples),
            metrics=_metrics(networks, baselines, num_resamples),
            tables={k: t for k, t in listed.items() if t is not None},
            figures={k: f for k, f in drawn.items() if f is not None},
        )

    return report


def _majority(n: Network, num_resamples: int) -> Mapping[str, Interval]:
    """Always the class that is most frequent in training."""
    num = n.test.logits.shape[2]
    if asked.is_simulated(n):  # a list of training images may hold the first class only, in their order
        counts = np.array(published.TRAINING if len(published.TRAINING) == num else np.ones(num))
    else:
        key = asked.label_of(n.runs[0])
        seen = np.asarray(n.runs[0].reference.get(key, n.test.truth)).astype(np.int64)
        counts = np.bincount(seen, minlength=num)
    said = np.full((1, len(n.test.truth)), int(counts.argmax()))
    return intervals(n.test.truth, said, num_classes=num, num_resamples=num_resamples)


def _summary(networks: Sequence[Network], baselines: Mapping, coverage: float, num_resamples: int) -> list[str]:
    lines = []
    for n in networks:
        s, c = n.test.scores, n.certainty
        trained = "one training" if len(n.runs) == 1 else f"mean over {len(n.runs)} trainings"
        lines.append(
            f"{n.title} ({trained}): accuracy {tables.text(s['accuracy'])}, balanced accuracy"
            f" {tables.text(s['balanced_accuracy'])}, weighted F1 {s['weighted_f1'].value:.3f}, on"
            f" {len(n.test.truth)} test images."
        )
        if n.test.kind is not None:
            lines.append(f"The zone axis is right in {n.test.kind.mean():.3f} of the patterns, given the phase.")
        if c is not None:
            lines.append(
                f"Its probabilities need T = {c.temperature.mean():.2f}: calibration error {c.error[0]:.3f} before,"
                f" {c.error[1]:.3f} after. Sets that promise {coverage:.0%} hold the true phase in {c.coverage:.3f} of"
                f" the images with {c.size:.2f} phases on average; in {1 - c.single:.3f} it cannot tell one."
            )
    for n, (value, low, high) in _gains(networks, num_resamples).items():
        verdict = "cannot be told apart from" if low <= 0 <= high else "beats" if value > 0 else "loses to"
        lines.append(
            f"{n} {verdict} template matching: balanced accuracy {value:+.3f} (95 % interval {low:+.3f} to"
            f" {high:+.3f}, the same patterns).".replace("-0.", "−0.")
        )
    best, least = max(networks, key=lambda n: n.test.scores["accuracy"].value), baselines["most frequent class"]
    if best.test.scores["accuracy"].low <= least["accuracy"].value:
        lines.append("No model can be told apart from always answering the most frequent class.")
    names = asked.names_of(networks[0])
    if found := calibration.confused_pairs(networks[0].test.matrices.sum(0)):
        i, j, share = found[0]
        lines.append(f"{networks[0].title} most often takes {names[i]} and {names[j]} for each other ({share:.3f}).")
    if asked.is_simulated(networks[0]):
        data = networks[0].runs[0].config["data"]["kwargs"]
        what = (
            "a twin of the published set: its numbers of each class" if data.get("examples") == "twin" else "a stream"
        )
        lines.append(
            f"The images are simulated ({what}; level {data.get('level')}). Nothing here says how well a network"
            " trained on them reads experimental patterns."
        )
    return lines


def _gains(networks: Sequence[Network], num_resamples: int) -> dict[str, tuple[float, float, float]]:
    """Balanced accuracy of every network less that of the matcher, where it is one of them, with its interval."""
    matcher = next((n for n in networks if n.title == asked.MATCHER), None)
    if matcher is None:
        return {}
    truth = matcher.test.truth
    counts = np.bincount(truth, minlength=matcher.test.logits.shape[2])
    weight = len(truth) / (np.sum(counts > 0) * counts[truth])
    found = {}
    for n in networks:
        if n is not matcher:
            right, other = ((x.test.logits.argmax(2) == truth).mean(0) for x in (n, matcher))
            gain = weight * (right - other)
            low, high = mean_intervals(gain[None], num_resamples=num_resamples)[0]
            found[n.title] = (float(gain.mean()), float(low), float(high))
    return found


def _metrics(networks: Sequence[Network], baselines: Mapping, num_resamples: int) -> dict[str, Any]:
    found: dict[str, Any] = {"models": {}, "baselines": {}}
    for n in networks:
        entry = _numbers(n.test) | {"num_trainings": len(n.runs), "confusion": n.test.matrices.sum(0).tolist()}
        if (c := n.certainty) is not None:
            entry["certainty"] = {
                "temperature": c.temperature.tolist(),
                "log_loss": list(c.loss),
                "calibration_error": list(c.error),
                "coverage": c.coverage,
                "mean_set_size": c.size,
                "cannot_tell": 1 - c.single,
                "right_where_single": c.single_right,
            }
        entry["probes"] = {name: _numbers(a) for name, a in n.probes.items()}
        found["models"][n.title] = entry
    for name, s in baselines.items():
        found["baselines"][name] = {k: _interval(v) for k, v in s.items()}
    if gains := _gains(networks, num_resamples):
        found["gain_over_matching"] = {k: dict(zip(("value", "low", "high"), v, strict=True)) for k, v in gains.items()}
    found["model"] = found["models"][networks[0].title]
    return found


def _numbers(a: asked.Asked) -> dict[str, Any]:
    found: dict[str, Any] = {k: _interval(v) | {"by_seed": v.by_seed.tolist()} for k, v in a.scores.items()}
    found |= {"n": len(a.truth), "accuracy_0_6_7_as_one": float(asked.merged_accuracy(a).mean())}
    if a.kind is not None:
        found |= {"zone_given_phase": float(a.kind.mean()), "phase_and_zone": float(a.both.mean())}
    return found


def _interval(s: Interval) -> dict[str, float]:
    return {"value": s.value, "low": s.low, "high": s.high}
