import json

import numpy as np
import pytest

from physml_jax.reports import classification
from physml_jax.typing import Run


def make_run(*, seed=0, sharpness=40.0, **changes):
    rng = np.random.default_rng(7)
    density = np.repeat(np.linspace(0.4, 0.8, 9), 20).astype(np.float32)
    label = (density + 0.05 * rng.normal(size=len(density)) > 0.59).astype(np.int32)
    logit = sharpness * (density - 0.59) + np.random.default_rng(seed).normal(size=len(density))
    made = Run(
        name="resnet",
        config={"seed": seed, "task": {"kwargs": {"label": "spanning"}}},
        history=[{"step": 1, "loss": 0.7, "time_s": 0.0}, {"step": 2, "loss": 0.5, "time_s": 1.0}],
        examples={"spanning": label, "density": density},
        predictions={"logits": np.stack([0 * logit, logit], axis=1).astype(np.float32)},
        scores={},
        reference={"spanning": label, "density": density},
    )
    return made._replace(**changes)


def test_numbers():
    run = make_run()
    report = classification.make_report(class_names=("not spanning", "spanning"))([run])
    right = run.predictions["logits"].argmax(1) == run.examples["spanning"]
    model = report.metrics["model"]
    assert model["accuracy"] == pytest.approx(right.mean())
    assert model["accuracy_low"] < right.mean() < model["accuracy_high"]
    assert np.sum(model["confusion"]) == 180 and np.trace(model["confusion"]) == right.sum()
    p = 1 / (1 + np.exp(-run.predictions["logits"][:, 1].astype(np.float64)))
    y = run.examples["spanning"]
    assert model["log_loss"] == pytest.approx(-np.mean(y * np.log(p) + (1 - y) * np.log(1 - p)), rel=1e-6)
    share = run.examples["spanning"].mean()
    assert report.metrics["baselines"]["most_frequent_class"]["accuracy"] == pytest.approx(max(share, 1 - share))
    assert list(report.metrics["baselines"]) == ["most_frequent_class", "threshold_on_density"]
    assert set(report.figures) == {"density", "confusion", "training"}
    json.dumps(report.metrics, allow_nan=False)


def test_probabilities_are_taken_as_they_are():
    logits = make_run().predictions["logits"].astype(np.float64)
    p = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    report = classification.make_report()
    a = report([make_run(predictions={"probabilities": p})]).metrics["model"]
    b = report([make_run()]).metrics["model"]
    assert a["log_loss"] == pytest.approx(b["log_loss"], rel=1e-9) and a["confusion"] == b["confusion"]


def test_a_network_that_knows_only_the_density_does_not_beat_it():
    summary = classification.make_report()([make_run(sharpness=1000.0)]).summary
    assert "cannot be told apart from the best baseline, threshold on density" in summary[1]
    truth = make_run().examples["spanning"]
    perfect = np.stack([1.0 - truth, truth], axis=1)
    summary = classification.make_report()([make_run(predictions={"probabilities": perfect})]).summary
    assert "beats the best baseline" in summary[1]
    summary = classification.make_report()([make_run(predictions={"probabilities": 1 - perfect})]).summary
    assert "loses to the best baseline" in summary[1]


def test_without_training_examples_the_baseline_says_so():
    report = classification.make_report()([make_run(reference={})])
    assert any("fitted on the test examples" in line for line in report.summary)


def test_many_classes_and_the_default_label():
    rng = np.random.default_rng(0)
    label = rng.integers(0, 31, 200).astype(np.int32)
    run = Run("net", {}, [], {"label": label}, {"logits": rng.normal(size=(200, 31))}, {}, {"label": label})
    report = classification.make_report()([run])
    assert set(report.figures) == {"confusion"} and list(report.metrics["baselines"]) == ["most_frequent_class"]
    # A density that gives the class away is a baseline that no network can beat.
    density = {"density": label / 31.0}
    run = run._replace(examples=run.examples | density, reference=run.reference | density)
    report = classification.make_report()([run])
    assert report.metrics["baselines"]["nearest_class_by_mean_density"]["accuracy"] == 1
    assert "loses to the best baseline, nearest class by mean density" in report.summary[1]


def test_several_runs():
    report = classification.make_report()([make_run(seed=0), make_run(seed=1, sharpness=5.0)])
    accuracies = [v["accuracy"] for v in report.metrics["runs"].values()]
    assert report.metrics["all_runs"]["accuracy"] == pytest.approx(np.mean(accuracies))
    assert [r[0] for r in report.tables["scores"].rows][:2] == ["resnet, run 1", "resnet, run 2"]


@pytest.mark.parametrize(
    ("change", "match"),
    [
        ({"examples": {"label": np.zeros(3, np.int32)}}, "examples lack 'spanning'; they hold: label"),
        ({"predictions": {"image": np.zeros(3)}}, "predictions lack 'probabilities' and 'logits'; they hold: image"),
        ({"predictions": {"logits": np.zeros((3, 2))}}, r"expected finite predictions \[180, C\]"),
        ({"predictions": {"logits": np.full((180, 2), np.nan)}}, "finite predictions"),
    ],
)
def test_bad_input(change, match):
    with pytest.raises(ValueError, match=match):
        classification.make_report()([make_run(**change)])


def test_no_runs():
    with pytest.raises(ValueError, match="at least one finished run"):
        classification.make_report()([])


def test_seeds_of_one_model_are_averaged():
    runs = [make_run(seed=s)._replace(member=s) for s in range(3)] + [make_run(seed=9, sharpness=5.0, name="vit")]
    report = classification.make_report()(runs)
    by_seed = [report.metrics["runs"][f"resnet, run {i}"]["accuracy"] for i in (1, 2, 3)]
    found = report.metrics["models"]["resnet"]["accuracy"]
    assert found["mean"] == pytest.approx(np.mean(by_seed)) and found["num_seeds"] == 3
    assert found["standard_error"] == pytest.approx(np.std(by_seed, ddof=1) / np.sqrt(3))
    assert [r[:2] for r in report.tables["models"].rows] == [["resnet", 3], ["vit", 1]]
    assert {"confusion", "confusion_2"} <= set(report.figures)
    assert any(line.startswith("resnet: accuracy over 3 seeds") for line in report.summary)


def test_classes_of_equal_density():
    """31 classes: ticks are densities, and counting by a linear read-out of mean pooling is exact."""
    densities = np.round(np.linspace(0.1, 0.9, 31), 3)
    label = np.arange(62) % 31
    counts = np.round(densities[label] * 400).astype(int)
    rng = np.random.default_rng(0)
    image = np.array([(rng.permutation(400) < c).reshape(20, 20, 1) for c in counts]).astype(np.float32)
    examples = {"label": label, "density": (counts / 400).astype(np.float32), "image": image}
    run = Run("net", {}, [], examples, {"logits": np.eye(31)[label]}, {}, examples)
    report = classification.make_report()([run])
    assert report.metrics["baselines"]["linear_read_out_of_mean_pooling"]["accuracy"] == 1
    assert any("a linear read-out of mean pooling makes no error" in line for line in report.summary)
    ticks = [t.get_text() for t in report.figures["confusion"][0].axes[0].get_xticklabels()]
    assert ticks == [f"{c / 400:.4g}" for c in counts[:31]]


def test_a_rule_of_the_density_may_leave_a_class_and_come_back():
    """Class 1 lies in the middle, 0 and 2 share both sides: no rule of nearest means finds it, the majority per density
    does."""
    density = np.repeat([0.2, 0.5, 0.8], 40).astype(np.float32)
    label = np.where(density == np.float32(0.5), 1, 2 * (np.arange(120) % 4 == 0))
    examples = {"label": label, "density": density}
    run = Run("net", {"seed": 0}, [], examples, {"logits": np.eye(3)[label]}, {}, examples)
    found = classification.make_report()([run]).metrics["baselines"]
    assert found["most_frequent_class_at_that_density"]["accuracy"] == pytest.approx((40 + 30 + 30) / 120)
    assert found["nearest_class_by_mean_density"]["accuracy"] < 0.8
