"""An architecture search: what was found, what each option is worth, and what choosing by the test set pretends."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from physml_jax.analysis import model_selection
from physml_jax.analysis.bootstrap import mean_intervals
from physml_jax.analysis.classification import confusion_matrix, wilson_interval
from physml_jax.analysis.model_selection import Answers, Resampled
from physml_jax.analysis.scores import summarise
from physml_jax.reports import seeds
from physml_jax.typing import Report, Table
from physml_jax.viz import confusion
from physml_jax.viz import search as viz

RATE = "optim.learning_rate"
#: Rows of the ranking.
_SHOWN = 20
_TEXTS = {"accuracy": "accuracy", "balanced_accuracy": "balanced accuracy"}


def make_report(
    *,
    config: Mapping[str, Any],
    names: Sequence[str],
    values: Mapping[int, Mapping[str, Any]],
    rungs: Sequence[Answers],
    labels: Mapping[str, np.ndarray],
    selected: int,
    reference: int,
    finals: Mapping[int, Answers],
) -> Report:
    """Report of a finished search.

    Args:
      config: of the search, nested.
      names: of the axes.
      values: of every candidate.
      rungs: answers at the end of every rung.
      labels: true classes of ``validation``, ``test`` and further sets; the first further one, of images that decided
        nothing, is where effects and the truth are measured.
      selected: the candidate that validation picked.
      reference: the candidate that the config itself is.
      finals: answers of trainings with new seeds of these two.

    Returns:
      The report.
    """
    kind = config["search"]["score"]
    text, num_resamples = _TEXTS[kind], config["search"]["num_resamples"]
    independent = next((name for name in labels if name not in ("validation", "test")), "test")
    judged = [
        {name: model_selection.scores(r.answers[name], labels[name], kind=kind) for name in labels} for r in rungs
    ]
    first, together = rungs[0], _groups(rungs[0], values)
    effects = _effects(first.numbers, values, names, judged[0][independent], together, num_resamples)
    dealt, counts = _dealt(first, labels, independent, num_resamples)
    whole, compared = dealt[-1], _compared(finals, labels, selected, reference, kind, num_resamples)
    paired = _by_rate(first.numbers, values, judged[0][independent], together)

    budgets = [r.budget for r in rungs]
    measured = f"{text} on the {independent} images"
    figures = {
        "survival": (
            viz.survival(
                budgets,
                [
                    dict(zip(r.numbers.tolist(), j["validation"], strict=True))
                    for r, j in zip(rungs, judged, strict=True)
                ],
                selected=selected,
                label=f"validation {text}",
            ),
            "Validation score of every candidate at the rungs that it reached; crosses were given up, the thick line "
            "was selected.",
        ),
        "size": (
            _size_figure(first, values, judged[0][independent], selected, reference, measured),
            f"{measured[0].upper()}{measured[1:]} of the candidates of the first rung over what they are made of.",
        ),
        "effects": (
            viz.effects(effects, overall=float(judged[0][independent].mean()), label=measured),
            f"Mean of the candidates of the first rung ({first.budget:,} images each) that have a value, with 95 % "
            "intervals over groups; behind the value, the number of groups.",
        ),
    }
    if paired is not None:
        figures["learning_rate"] = (
            viz.learning_rates(*paired, label=measured),
            "The same networks, batches and initial parameters at each learning rate, first rung; the thick line is "
            "the mean with its standard error.",
        )
    figures["optimism"] = (_optimism_figure(dealt, counts, text), _optimism_caption(first, independent, num_resamples))
    figures["confusion"] = _confusion(finals[selected], labels["test"], selected)

    return Report(
        title="Architecture search",
        summary=_summary(
            config, values, rungs, judged, selected, reference, compared, whole, text, independent, labels
        ),
        metrics={
            "selected": {"number": selected, **_plain(values[selected])},
            "reference": {"number": reference, **_plain(values[reference])},
            "score": kind,
            "rungs": [
                {"candidates": len(r.numbers), "images": r.budget, "seconds": float(r.seconds.sum())} for r in rungs
            ],
            "final": compared["numbers"],
            "difference": compared["difference"],
            "selection": _selection_numbers(whole),
            "effects": [
                dict(zip(("option", "value", "mean", "low", "high", "groups"), row, strict=True)) for row in effects
            ],
        },
        tables={
            "final": compared["table"],
            "ranking": _ranking(rungs, judged, values),
            "rungs": _rung_table(rungs, judged),
            "effects": _effect_table(effects, measured, first.budget),
            "selection": _selection_table(dealt, counts, text),
        },
        figures=figures,
    )


def short(name: str) -> str:
    """An axis in words.

    Example:
      >>> short("model.kwargs.conv_layers")
      'conv layers'
    """
    return name.rsplit(".", 1)[-1].replace("_", " ")


def command(values: Mapping[str, Any]) -> str:
    """Options that train a candidate with ``experiments/train.py``.

    Example:
      >>> command({"model.kwargs.depth": 2})
      '--config.model.kwargs.depth=2'
    """
    return " ".join(f"--config.{name}={value}" for name, value in values.items())


def _by_number(rung: Answers, scores: np.ndarray) -> dict[int, float]:
    return dict(zip(rung.numbers.tolist(), scores.tolist(), strict=True))


def _groups(rung: Answers, values: Mapping[int, Mapping[str, Any]]) -> np.ndarray:
    """A number [K] for every candidate; candidates that differ in the learning rate only share one."""
    found: dict[tuple, int] = {}
    keys = [tuple((k, v) for k, v in values[int(n)].items() if k != RATE) for n in rung.numbers]
    return np.array([found.setdefault(key, len(found)) for key in keys])


def _effects(numbers, values, names, scores, together, num_resamples):
    """(option, value, mean, low, high, groups) of every value that occurs."""
    rows = []
    for name in names:
        has = [values[int(n)][name] for n in numbers]
        for value in dict.fromkeys(sorted(has)):
            here = np.array([h == value for h in has])
            s = summarise(scores[here], clusters=together[here], num_resamples=num_resamples)
            rows.append((short(name), str(value), s.mean, s.low, s.high, s.num_clusters))
    return rows


def _by_rate(numbers, values, scores, together):
    """(rates, scores [G, R]) of whole groups; ``None`` with a single rate."""
    rates = sorted({values[int(n)][RATE] for n in numbers})
    if len(rates) < 2:
        return None
    table = np.full((together.max() + 1, len(rates)), np.nan)
    for n, group, score in zip(numbers, together, scores, strict=True):
        table[group, rates.index(values[int(n)][RATE])] = score
    return rates, table[np.isfinite(table).all(axis=1)]


def _dealt(first: Answers, labels, independent, num_resamples):
    """Selections on dealt-out images, for growing numbers of candidates."""
    pool = [independent] if independent != "test" else ["validation", "test"]
    right = np.concatenate([first.answers[name] == labels[name] for name in pool], axis=1)
    sizes = [len(labels["test"]), len(labels["validation"])]
    if sum(sizes) > 2 * right.shape[1] / 3:
        sizes = [right.shape[1] // 3] * 2
    total = len(first.numbers)
    counts = sorted({*(2**i for i in range(total.bit_length()) if 2**i < total), total})
    options = {"num_test": sizes[0], "num_validation": sizes[1], "num_resamples": num_resamples}
    return model_selection.deal(right, num_candidates=counts, **options), counts


def _compared(finals, labels, selected, reference, kind, num_resamples):
    """The selected candidate and the reference with new seeds."""
    found, rows = {}, []
    for number, role in ((selected, "selected"), (reference, "reference")):
        answers = finals[number]
        held = {n: model_selection.scores(answers.answers[n], y, kind=kind) for n, y in labels.items()}
        truth = labels["test"]
        right = (answers.answers["test"] == truth).mean(axis=1)
        low, high = wilson_interval(round(float(right.mean()) * len(truth)), len(truth))
        balanced = model_selection.scores(answers.answers["test"], truth, kind="balanced_accuracy")
        accuracy, balance = seeds.mean(right), seeds.mean(balanced)
        others = {n: seeds.mean(v) for n, v in held.items() if n != "test"}
        found[role] = {
            "test_accuracy": accuracy.numbers() | {"low": low, "high": high},
            "test_balanced_accuracy": balance.numbers(),
            **{f"{n}_{kind}": m.numbers() for n, m in others.items()},
            "parameters": int(answers.num_params[0]),
        }
        rows.append(
            [
                f"{role} ({number})",
                int(answers.num_params[0]),
                accuracy.n,
                accuracy.text(),
                f"{low:.4f} to {high:.4f}",
                balance.text(),
                *(m.text() for m in others.values()),
            ]
        )
    columns = ("network", "parameters", "seeds", "test accuracy", "95 % interval (test images)", "balanced accuracy")
    columns += tuple(f"{n} {_TEXTS[kind]}" for n in labels if n != "test")
    caption = (
        "The selected network and the reference, trained anew with other seeds on the same images for the same budget: "
        "mean over seeds ± its standard error. The interval is for the finite number of test images."
    )
    difference = {}
    for name in labels:
        if name != "validation":
            parts = [(finals[n].answers[name] == labels[name]).mean(axis=0) for n in (selected, reference)]
            row = parts[0] - parts[1]
            low, high = mean_intervals(row[None], num_resamples=num_resamples)[0]
            difference[name] = {"mean": float(row.mean()), "low": float(low), "high": float(high)}
    return {"numbers": found, "table": Table(caption, columns, rows), "difference": difference}


def _ranking(rungs, judged, values) -> Table:
    """Candidates by the rung that they reached, then by validation."""
    rows, seen = [], set()
    for i in reversed(range(len(rungs))):
        loss = rungs[i].losses["validation"].mean(axis=1)
        for k in np.lexsort((loss, -judged[i]["validation"])):
            number = int(rungs[i].numbers[k])
            if number not in seen and len(rows) < _SHOWN:
                own = [str(v) if isinstance(v, bool) else v for v in values[number].values()]
                scores = [float(j[k]) for j in judged[i].values()]
                rows.append([len(rows) + 1, number, *own, int(rungs[i].num_params[k]), i + 1, *scores])
            seen.add(number)
    columns = ("rank", "candidate", *(short(n) for n in values[int(rungs[0].numbers[0])]), "parameters", "rung")
    caption = (
        f"The first {len(rows)} of {len(seen)} candidates, by the rung that they reached and then by validation; "
        "scores are those of their last rung. Validation scores of the first are too good, since they decided."
    )
    return Table(caption, (*columns, *judged[0]), rows)


def _rung_table(rungs, judged) -> Table:
    rows = []
    for i, (rung, scores) in enumerate(zip(rungs, judged, strict=True)):
        best = int(np.argmax(scores["validation"]))
        failed = int((rung.answers["validation"] < 0).any(axis=1).sum())
        agreement = None
        if i + 1 < len(rungs):
            now, later = _by_number(rung, scores["validation"]), _by_number(rungs[i + 1], judged[i + 1]["validation"])
            both = [(now[n], score) for n, score in later.items()]
            agreement = _rank_correlation(*np.array(both).T)
        rows.append(
            [
                i + 1,
                len(rung.numbers),
                rung.budget,
                failed,
                _constant(rung),
                float(np.median(scores["validation"])),
                float(scores["validation"][best]),
                float(scores["test"][best]),
                agreement,
                float(rung.seconds.sum() / 60),
            ]
        )
    columns = (
        "rung",
        "candidates",
        "images",
        "not finite",
        "one answer only",
        "median validation",
        "best validation",
        "its test",
        "rank correlation with the next rung",
        "minutes",
    )
    caption = (
        "Rungs. One answer only: the same class for all validation images. The rank correlation is over the candidates "
        "that went on, a narrow range of good ones."
    )
    return Table(caption, columns, rows)


def _constant(rung: Answers) -> int:
    """How many candidates give the same class to every validation image."""
    return int((np.ptp(rung.answers["validation"], axis=1) == 0).sum())


def _effect_table(effects, measured, budget) -> Table:
    rows = [
        [name, value, n, mean, None if low is None else f"{low:.4f} to {high:.4f}"]
        for name, value, mean, low, high, n in effects
    ]
    columns = ("option", "value", "groups", "mean", "95 % interval (over groups)")
    caption = (
        f"{measured.capitalize()} after {budget:,} training images, averaged over everything else that candidates "
        "differ in. Few groups give wide intervals; no interval stands behind a single one."
    )
    return Table(caption, columns, rows)


def _selection_table(dealt: Sequence[Resampled], counts: Sequence[int], text: str) -> Table:
    rows = []
    for count, d in zip(counts, dealt, strict=True):
        gap, (low, high) = d.reported_test - d.true_test, np.percentile(d.reported_test - d.true_test, [2.5, 97.5])
        rows.append(
            [
                count,
                float(d.reported_test.mean()),
                float(d.true_test.mean()),
                float(gap.mean()),
                f"{low:+.4f} to {high:+.4f}".replace("-", "−"),
                float(d.reported_validation.mean()),
                float(d.true_validation.mean()),
                float((d.reported_test - d.reported_validation).mean()),
            ]
        )
    columns = (
        "candidates",
        "chosen by test: reported",
        "true",
        "optimism",
        "95 % of the deals",
        "chosen by validation: reported",
        "true ",
        "what choosing by test adds to the report",
    )
    caption = (
        f"Choosing by {text} on dealt-out images, again and again: the score on the images that chose (reported) "
        "against that on the rest (true); first rung, where all candidates have the same budget."
    )
    return Table(caption, columns, rows)


def _selection_numbers(d: Resampled) -> dict[str, Any]:
    gap, extra = d.reported_test - d.true_test, d.reported_test - d.reported_validation

    def numbers(x):
        low, high = np.percentile(x, [2.5, 97.5])
        return {"mean": float(x.mean()), "low": float(low), "high": float(high)}

    return {
        "optimism": numbers(gap),
        "added_to_report": numbers(extra),
        "true_by_test": float(d.true_test.mean()),
        "true_by_validation": float(d.true_validation.mean()),
    }


def _optimism_figure(dealt, counts, text):
    parts = {
        "chosen by test, as reported": "reported_test",
        "chosen by test, truth": "true_test",
        "chosen by validation, as reported": "reported_validation",
        "chosen by validation, truth": "true_validation",
    }
    lines = {}
    for name, field in parts.items():
        rows = [getattr(d, field) for d in dealt]
        low, high = np.array([np.percentile(r, [25, 75]) for r in rows]).T
        lines[name] = (np.array([r.mean() for r in rows]), low, high)
    return viz.optimism(counts, lines, label=text)


def _optimism_caption(first, independent, num_resamples) -> str:
    where = "the validation and test images" if independent == "test" else f"the {independent} images"
    return (
        f"What a report would say and what is true, over the number of candidates to choose from: {num_resamples:,} "
        f"deals of {where} to the {len(first.numbers)} candidates of the first rung; bands hold half of the deals."
    )


def _size_figure(first, values, scores, selected, reference, label):
    numbers = first.numbers.tolist()
    layers = {k: np.array([values[n][k] for n in numbers], np.float64) for k in values[numbers[0]] if "layers" in k}
    quantities = {"parameters": first.num_params, **{f"{short(k)}": v for k, v in layers.items()}}
    rates = np.log10([values[n][RATE] for n in numbers])
    marked = {"selected": numbers.index(selected)}
    if reference in numbers and reference != selected:
        marked["reference"] = numbers.index(reference)
    return viz.against(quantities, scores, rates, colour_label=r"log$_{10}$ learning rate", label=label, marked=marked)


def _confusion(final: Answers, truth, selected):
    said = np.maximum(final.answers["test"].astype(np.int64), 0)
    classes = int(max(truth.max(), said.max())) + 1
    found = np.array([confusion_matrix(truth.astype(np.int64), a, num_classes=classes) for a in said])
    text = f"Confusion matrix of candidate {selected} on the test images: rows are true classes; mean over its seeds."
    return confusion.confusion(found.mean(axis=0), errors=seeds.standard_error(found)), text


def _rank_correlation(x: np.ndarray, y: np.ndarray) -> float | None:
    """Spearman's, with mean ranks for ties; ``None`` where one of the two is constant."""
    ranks = []
    for v in (x, y):
        _, code, count = np.unique(v, return_inverse=True, return_counts=True)
        ranks.append((np.cumsum(count) - (count - 1) / 2)[code])
    a, b = (r - r.mean() for r in ranks)
    size = np.sqrt((a**2).sum() * (b**2).sum())
    return float((a * b).sum() / size) if size > 0 else None


def _plain(values: Mapping[str, Any]) -> dict[str, Any]:
    return {short(k).replace(" ", "_"): v for k, v in values.items()}


def _summary(config, values, rungs, judged, selected, reference, compared, whole, text, independent, labels):
    last, scores = rungs[-1], judged[-1]
    at = last.numbers.tolist().index(selected)
    final, difference = compared["numbers"], compared["difference"]["test"]
    ours, theirs = (final[k]["test_accuracy"] for k in ("selected", "reference"))
    options = ", ".join(f"{short(k)} {v}" for k, v in values[selected].items())
    same = selected == reference
    low, high = (f"{difference[k]:+.4f}".replace("-", "−") for k in ("low", "high"))
    verdict = (
        "It is the reference itself."
        if same
        else f"The difference to the reference with the same budget is {difference['mean']:+.4f}".replace("-", "−")
        + f" (95 % interval over the test images {low} to {high})"
        + (": not to be told apart." if difference["low"] <= 0 <= difference["high"] else ".")
    )
    picked = int(np.argmax(scores["test"]))
    gap = float((whole.reported_test - whole.true_test).mean())
    added = float((whole.reported_test - whole.reported_validation).mean())
    rival = "" if same else f", the reference {theirs['mean']:.4f}"
    where = "the validation and test images" if independent == "test" else f"{independent} images that chose nothing"
    return [
        f"Candidate {selected} was selected by {len(labels['validation'])} validation images, out of "
        f"{len(rungs[0].numbers)} candidates that were trained; {options}.",
        f"Trained anew with {config['search']['final_seeds']} other seeds it reaches test accuracy {ours['mean']:.4f} "
        f"(95 % interval over {len(labels['test'])} test images {ours['low']:.4f} to {ours['high']:.4f}){rival}. "
        + verdict,
        f"In the last rung the selected network had validation {text} {scores['validation'][at]:.4f} and test {text} "
        f"{scores['test'][at]:.4f}; choosing by the test images would have reported {scores['test'][picked]:.4f}.",
        f"What that is worth, over many deals of {where}: the best of {len(rungs[0].numbers)} candidates on a test "
        f"set scores {gap:.4f} more on them than in truth, and {added:.4f} more than a network chosen by "
        "validation images would be reported with. In truth the two choices are worth "
        f"{whole.true_test.mean():.4f} (by test) and {whole.true_validation.mean():.4f} (by validation).",
        f"Always the most frequent class is right for {np.bincount(labels['test']).max() / len(labels['test']):.4f} of "
        f"the test images; at the end of the rungs {', '.join(str(_constant(r)) for r in rungs)} candidates had one "
        "answer for all images.",
        "Effects of single options are of candidates early in training; what starts slowly is judged by that. Every "
        "candidate was trained once, so a single row of the ranking holds the luck of one seed.",
        f"Options of the selected network: {command(values[selected])}",
    ]
