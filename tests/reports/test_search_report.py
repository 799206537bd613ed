"""The report of a search on planted answers, and the selection of candidates against exact expectations."""

import json

import jax
import numpy as np
import pytest
from scipy import stats

from configs import saed_search
from physml_jax.analysis import model_selection
from physml_jax.analysis.model_selection import Answers
from physml_jax.io.page import write_report
from physml_jax.reports import search as reports
from physml_jax.training import candidates, setup

SIZES = {"validation": 60, "test": 80, "fresh": 400}


def planted(key, truth, skills):
    """Answers [K, N] that are right with the probability of each candidate."""
    parts = jax.random.split(jax.random.key(key), 2)
    right = np.asarray(jax.random.uniform(parts[0], (len(skills), len(truth)))) < np.asarray(skills)[:, None]
    return np.where(right, truth, (truth + 1) % 9).astype(np.int16)


@pytest.fixture(scope="module")
def found():
    """Twelve candidates of which networks with normalisation are right on 80 %, others on 50 %; the best go on."""
    c = setup.plain(saed_search.get_config())
    c["search"] |= {"num_candidates": 12, "rungs": (100, 300), "num_resamples": 200}
    space = candidates.read_space(c)
    numbers = candidates.sample(space, 12, seed=3)
    values = {int(n): candidates.candidate(space, int(n)) for n in numbers}
    reference = candidates.number_of(space, c)
    labels = {name: np.arange(n) * 7 % 9 for name, n in SIZES.items()}

    def answers(numbers, skills, budget, key):
        said = {name: planted(key + i, y, skills) for i, (name, y) in enumerate(labels.items())}
        losses = {name: np.where(said[name] == y, 0.1, 2.0) for name, y in labels.items()}
        k = len(numbers)
        return Answers(np.asarray(numbers), budget, said, losses, np.arange(k) * 1000 + 100, np.ones(k))

    skills = [0.8 if values[int(n)]["model.kwargs.batch_norm"] else 0.5 for n in numbers]
    best = np.sort(numbers[np.argsort(skills, kind="stable")[-3:]])
    selected = int(best[1])
    return {
        "config": c,
        "names": space.names,
        "values": values | {reference: candidates.candidate(space, reference)},
        "rungs": (answers(numbers, skills, 100, 0), answers(best, [0.8, 0.85, 0.8], 300, 10)),
        "labels": labels,
        "selected": selected,
        "reference": reference,
        "finals": {
            selected: answers([1, 2, 3], [0.9] * 3, 300, 20),
            reference: answers([1, 2, 3], [0.6] * 3, 300, 30),
        },
    }


def test_the_report_says_what_was_planted(found, tmp_path):
    report = reports.make_report(**found)
    page = write_report(tmp_path, report)
    assert page.stat().st_size > 50_000 and len(list((tmp_path / "figures").iterdir())) == 6
    numbers = json.loads((tmp_path / "metrics.json").read_text())
    assert numbers["selected"]["number"] == found["selected"] and numbers["rungs"][1]["candidates"] == 3

    effects = {(e["option"], e["value"]): e for e in numbers["effects"]}
    for value, skill in (("True", 0.8), ("False", 0.5)):
        row = effects["batch norm", value]
        assert abs(row["mean"] - skill) < 5 * 0.5 / np.sqrt(3 * 400)
    assert sum(e["groups"] for e in numbers["effects"] if e["option"] == "batch norm") == 4

    truth = found["labels"]["test"]
    right = (found["finals"][found["selected"]].answers["test"] == truth).mean(axis=1)
    assert numbers["final"]["selected"]["test_accuracy"]["mean"] == pytest.approx(right.mean())
    assert numbers["final"]["selected"]["test_accuracy"]["low"] < right.mean()
    gap = numbers["difference"]["test"]
    assert gap["low"] < 0.3 < gap["high"] and gap["low"] > 0
    assert "not to be told apart" not in " ".join(report.summary)
    assert "at the end of the rungs 0, 0 candidates had one answer" in " ".join(report.summary)
    ranked = [row[1] for row in report.tables["ranking"].rows]
    assert len(ranked) == 12 == len(set(ranked)) and set(ranked[:3]) == set(found["rungs"][1].numbers.tolist())


def test_a_search_that_selects_the_reference_reports(found):
    """One candidate stands for both; and without a further set the truth comes from validation and test images."""
    again = {**found, "reference": found["selected"]}
    again["labels"] = {k: v for k, v in found["labels"].items() if k != "fresh"}
    report = reports.make_report(**again)
    assert any("It is the reference itself" in line for line in report.summary)
    assert report.metrics["difference"]["test"]["mean"] == 0


def test_what_luck_alone_reports():
    """Candidates that toss a coin: the best of K on n images is the largest of K binomial counts, whose mean is exact;
    the rest of the images says one half, and so does a test set that did not choose."""
    n, total, counts, deals = 50, 3000, (1, 4, 16), 300
    right = np.asarray(jax.random.bernoulli(jax.random.key(2), 0.5, (16, total)))
    dealt = model_selection.deal(right, num_test=n, num_validation=n, num_candidates=counts, num_resamples=deals)
    for k, d in zip(counts, dealt, strict=True):
        largest = 1 - stats.binom.cdf(np.arange(n), n, 0.5) ** k  # P(largest > i)
        error = np.hypot(0.07 / np.sqrt(deals), 0.5 / np.sqrt(total))
        assert abs(d.reported_test.mean() - largest.sum() / n) < 5 * error
        for honest in (d.true_test, d.true_validation, d.reported_validation):
            assert abs(honest.mean() - 0.5) < 5 * error
    optimism = [float((d.reported_test - d.true_test).mean()) for d in dealt]
    assert optimism[0] < 0.03 < 0.05 < optimism[1] < optimism[2]


def test_choosing_by_either_finds_the_one_that_is_better():
    right = np.zeros((4, 60), bool)
    right[2] = True
    (d,) = model_selection.deal(right, num_test=20, num_validation=20, num_resamples=20)
    assert all(np.all(x == 1.0) for x in d)
    with pytest.raises(ValueError, match="a rest of the 60 examples, got 30 and 30"):
        model_selection.deal(right, num_test=30, num_validation=30)
    with pytest.raises(ValueError, match="num_candidates: expected sizes from 1 to 4"):
        model_selection.deal(right, num_test=2, num_validation=2, num_candidates=[5])


def test_scores_and_parts():
    labels = np.array([0, 0, 0, 1, 2, 2])
    said = np.array([[0, 0, 0, 0, 0, 0], [0, 0, 1, 1, 2, 2], [-1] * 6])
    np.testing.assert_allclose(model_selection.scores(said, labels), [1 / 2, 5 / 6, 0])
    balanced = model_selection.scores(said, labels, kind="balanced_accuracy")
    np.testing.assert_allclose(balanced, [1 / 3, (2 / 3 + 1 + 1) / 3, 0])
    first, second = model_selection.stratified(np.repeat([0, 1, 2], [20, 8, 1]), 0.25, seed=1)
    np.testing.assert_array_equal(np.sort(np.concatenate([first, second])), np.arange(29))
    assert [int(np.isin(second, r).sum()) for r in (range(20), range(20, 28), [28])] == [5, 2, 0]
    for call, message in (
        (lambda: model_selection.scores(said, labels[:5]), "answers: expected"),
        (lambda: model_selection.scores(said, labels, kind="f1"), "kind: expected one of"),
        (lambda: model_selection.stratified(labels, 1.0, seed=0), "between 0 and 1"),
        (lambda: model_selection.stratified(np.arange(4), 0.4, seed=0), "are none"),
    ):
        with pytest.raises(ValueError, match=message):
            call()


def test_rank_correlation_is_spearmans():
    x, y = np.array([1.0, 2.0, 2.0, 5.0, 3.0]), np.array([2.0, 1.0, 4.0, 5.0, 4.0])
    assert reports._rank_correlation(x, y) == pytest.approx(stats.spearmanr(x, y).statistic)
    assert reports._rank_correlation(x, np.ones(5)) is None
