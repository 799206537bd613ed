"""The report on diffraction patterns: scores by hand, calibration, curves, several models, runs that hold little."""

import json

import numpy as np
import pytest

from physml_jax.analysis import classification_intervals
from physml_jax.reports import saed
from physml_jax.reports import saed_published as published
from physml_jax.typing import Probe, Run

TRUTH = np.repeat(np.arange(9), published.TEST)


def answers(truth, seed, right=0.7, zones=False):
    rng = np.random.default_rng(seed)
    said = np.where(rng.uniform(size=len(truth)) < right, truth, rng.integers(0, 9, len(truth)))
    logits = rng.normal(0, 1, (len(truth), 9)) + 4 * np.eye(9)[said]
    found = {"logits": logits.astype(np.float32)}
    if zones:
        found["sublogits"] = rng.normal(0, 1, (len(truth), 9, 4)).astype(np.float32)
    return found


def make_run(*, member=0, name="saed_cnn, classification", model="saed_cnn", zones=False, probes=(), **changes):
    rng = np.random.default_rng(5)
    examples = {"phase": TRUTH.astype(np.int32)}
    if zones:
        examples |= {
            "zone_number": rng.integers(0, 4, 148).astype(np.int32),
            "image": rng.uniform(size=(148, 16, 16, 1)).astype(np.float32),
            "scale": np.full(148, 2 / 16, np.float32),
        }
    held = {}
    for i, probe in enumerate(probes):
        labels = np.tile(np.arange(9), 20)
        held[probe] = Probe({"phase": labels}, answers(labels, 100 + 10 * i + member, 0.9 - 0.1 * i), {})
    settings = {p: {"scale_error": int(p[6:]) / 100} for p in probes if p.startswith("scale_")}
    config = {
        "data": {"name": "saed", "kwargs": {"level": "detector", "scale_error": 0.02}, "probes": settings},
        "model": {"name": model, "kwargs": {"depth": 50}},
        "task": {"kwargs": {"label": "phase"}},
    }
    made = Run(
        name=name,
        config=config,
        history=[{"step": 1, "loss": 2.0, "time_s": 0.0}, {"step": 2, "loss": 1.0, "validation/accuracy": 0.5}],
        examples=examples,
        predictions=answers(TRUTH, member, zones=zones),
        scores={},
        reference={},
        probes=held,
        member=member,
    )
    return made._replace(**changes)


def report(runs):
    return saed.make_report(num_resamples=200)(runs)


def test_scores_by_hand():
    """Every score from its definition, on one training; the interval holds the value."""
    run = make_run()
    found = report([run]).metrics["model"]
    said = run.predictions["logits"].argmax(1)
    recall = np.array([np.mean(said[TRUTH == c] == c) for c in range(9)])
    precision = np.array([np.mean(TRUTH[said == c] == c) if np.any(said == c) else 0 for c in range(9)])
    f1 = 2 * recall * precision / np.maximum(recall + precision, 1e-12)
    expected = {
        "accuracy": np.mean(said == TRUTH),
        "balanced_accuracy": recall.mean(),
        "macro_f1": f1.mean(),
        "weighted_f1": (f1 * published.TEST).sum() / 148,
    }
    for name, value in expected.items():
        assert found[name]["value"] == pytest.approx(value), name
        assert found[name]["low"] < value < found[name]["high"] or name == "macro_f1"
    low, high = found["accuracy"]["low"], found["accuracy"]["high"]
    # The normal interval of a share of 148.
    assert (high - low) / 2 == pytest.approx(
        1.96 * np.sqrt(expected["accuracy"] * (1 - expected["accuracy"]) / 148), rel=0.2
    )


def test_intervals_know_of_both_images_and_trainings():
    """Trainings that differ widen the interval; many images narrow it."""
    truth = np.tile(np.arange(3), 400)
    good, bad = truth, np.where(np.arange(1200) % 2 == 0, truth, (truth + 1) % 3)
    same = classification_intervals.intervals(truth, np.stack([bad, bad]), num_classes=3)["accuracy"]
    mixed = classification_intervals.intervals(truth, np.stack([good, bad]), num_classes=3)["accuracy"]
    assert same.value == pytest.approx(0.5) and same.high - same.low < 0.07
    assert mixed.value == pytest.approx(0.75) and mixed.low < 0.53 and mixed.high == 1.0
    with pytest.raises(ValueError, match="answers: expected classes from 0 to 2"):
        classification_intervals.intervals(truth, np.stack([good + 1]), num_classes=3)


def test_everything_that_runs_may_hold():
    """Three trainings with zones, probes and validation images, beside one training of another model."""
    probes = ("validation", "scale_0", "scale_10", "distorted")
    runs = [make_run(member=i, zones=True, probes=probes) for i in range(3)]
    runs.append(make_run(name="resnet, classification", model="resnet"))
    found = report(runs)
    json.dumps(found.metrics, allow_nan=False)
    assert list(found.metrics["models"]) == ["299-AN", "ResNet-50"]
    assert found.metrics["baselines"]["most frequent class"]["accuracy"]["value"] == pytest.approx(published.MAJORITY)
    assert set(found.figures) == {
        *("trainings", "scale", "levels", "confusion", "certainty", "confusion_2", "examples", "training")
    }
    assert set(found.tables) == {
        *("scores", "published", "trainings", "certainty", "zones", "classes", "pairs", "probes")
    }
    model = found.metrics["model"]
    assert model["num_trainings"] == 3 and len(model["certainty"]["temperature"]) == 3
    assert 0.15 < model["zone_given_phase"] < 0.35 and model["phase_and_zone"] < model["zone_given_phase"]
    table = found.tables["published"]
    rows = {row[0] + row[1]: row for row in table.rows}
    assert rows["299-ANno"][3] == 0.7703 and len(table.rows) == 9
    accuracy = [np.mean(r.predictions["logits"].argmax(1) == TRUTH) for r in runs[:3]]
    assert rows["299-ANno"][7:9] == pytest.approx([max(accuracy), np.mean(accuracy)])
    assert rows["VGG16yes"][7:] == ["", "", "", ""] and "NOT the same" in table.caption


def test_gain_over_template_matching():
    """Of two right answers in a rare class and one in a frequent one: by hand. The same answers gain nothing."""
    run, matcher = make_run(), make_run(name="template matching", model="template_matching")
    assert report([run, matcher]).metrics["gain_over_matching"]["299-AN"] == {"value": 0, "low": 0, "high": 0}
    logits = 9.0 * np.eye(9)[TRUTH]
    worse = logits.copy()
    for c, number in ((6, 2), (0, 1)):
        rows = np.flatnonzero(TRUTH == c)[:number]
        worse[rows] = np.roll(worse[rows], 1, axis=1)
    runs = [run._replace(predictions={"logits": logits}), matcher._replace(predictions={"logits": worse})]
    found = report(runs)
    gain = found.metrics["gain_over_matching"]["299-AN"]
    assert gain["value"] == pytest.approx((1 + 1 / 61) / 9) and gain["low"] <= gain["value"] <= gain["high"]
    assert any("template matching: balanced accuracy +0.11" in line for line in found.summary)


def test_own_images():
    """A folder: other classes, no published table, the most frequent class of the training images."""
    truth = np.array([0, 1, 1, 1], np.int32)
    logits = np.array([[2, 0], [0, 1], [0, 1], [1, 0]], np.float32)
    config = {
        "data": {"name": "image_folder", "kwargs": {"classes": ("fcc", "hcp")}},
        "task": {"kwargs": {"label": "label"}},
    }
    run = make_run(
        examples={"label": truth},
        predictions={"logits": logits},
        config=config,
        reference={"label": np.array([0, 0, 1])},
    )
    found = report([run])
    assert "published" not in found.tables and set(found.figures) == {"trainings", "confusion", "training"}
    assert found.metrics["baselines"]["most frequent class"]["accuracy"]["value"] == 0.25
    assert found.metrics["model"]["accuracy"]["value"] == 0.75
    assert found.tables["classes"].rows[1][0] == "hcp"


@pytest.mark.parametrize(
    ("runs", "message"),
    [
        ([], "expected at least one finished run"),
        ([make_run(examples={})], "expected examples with 'phase' and predictions with 'logits'"),
        ([make_run(predictions={"logits": np.full((148, 9), np.nan)})], "expected finite logits"),
        ([make_run(), make_run(name="b", examples={"phase": TRUTH[::-1]})], "asked about other images"),
    ],
)
def test_runs_that_do_not_fit_are_named(runs, message):
    with pytest.raises(ValueError, match=message):
        report(runs)


@pytest.mark.parametrize("options", [{"num_resamples": 0}, {"coverage": 1.0}])
def test_options_are_checked(options):
    with pytest.raises(ValueError, match=next(iter(options))):
        saed.make_report(**options)
