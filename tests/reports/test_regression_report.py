import json

import numpy as np
import pytest

from physml_jax.reports import regression
from physml_jax.typing import Run


def lattices(n, seed, size=12):
    rng = np.random.default_rng(seed)
    counts = rng.integers(20, 120, n)
    states = np.array([(rng.permutation(size**2) < c).reshape(size, size, 1) for c in counts])
    density = counts / size**2
    return {
        "image": states.astype(np.float32),
        "density": density.astype(np.float32),
        "correlation_length": (np.exp(3 * density) + 0.3 * rng.normal(size=n)).astype(np.float32),
    }


def make_run(*, target="density", noise=0.01, member=0, **changes):
    test = lattices(300, 0)
    value = test[target] + noise * np.random.default_rng(member).normal(size=300)
    made = Run(
        name="resnet",
        config={"task": {"kwargs": {"target": target}}},
        history=[{"step": 1, "loss": 0.5}, {"step": 2, "loss": 0.2}],
        examples=test,
        predictions={"value": value.astype(np.float32)},
        scores={},
        reference=lattices(200, 1),
        member=member,
    )
    return made._replace(**changes)


def test_density_is_counted_exactly_by_mean_pooling():
    report = regression.make_report()([make_run()])
    linear = report.metrics["baselines"]["linear_read_out_of_mean_pooling"]["mse"]["mean"]
    assert linear <= 1e-8
    assert any("linear read-out of mean pooling is exact" in line for line in report.summary)
    assert "loses to the best baseline, linear read-out" in report.summary[0] and "one seed" in report.summary[0]
    # The density is the target: no baseline may look it up.
    assert set(report.metrics["baselines"]) == {"mean_of_the_training_set", "linear_read_out_of_mean_pooling"}
    assert set(report.figures) == {"parity", "error", "training"}
    json.dumps(report.metrics, allow_nan=False)


def test_numbers():
    runs = [make_run(member=m) for m in range(4)]
    report = regression.make_report()(runs)
    truth = runs[0].examples["density"].astype(np.float64)
    errors = np.array([r.predictions["value"] - truth for r in runs])
    found = report.metrics["models"]["resnet"]
    by_seed = (errors**2).mean(axis=1)
    assert found["mse"]["mean"] == pytest.approx(by_seed.mean()) and found["mse"]["num_seeds"] == 4
    assert found["mse"]["standard_error"] == pytest.approx(by_seed.std(ddof=1) / 2)
    assert found["mse"]["low"] < by_seed.mean() < found["mse"]["high"]
    assert found["mae"]["mean"] == pytest.approx(np.abs(errors).mean())
    assert found["variance_explained"] == pytest.approx(1 - by_seed.mean() / truth.var())
    mean = runs[0].reference["density"].astype(np.float64).mean()
    base = report.metrics["baselines"]["mean_of_the_training_set"]["mse"]["mean"]
    assert base == pytest.approx(((truth - mean) ** 2).mean())
    assert "4 seeds" in report.summary[0]


def test_another_target_has_the_density_as_a_baseline():
    report = regression.make_report(quantity="correlation length", unit="sites")(
        [make_run(target="correlation_length", noise=0.05)]
    )
    found = {k: v["mse"]["mean"] for k, v in report.metrics["baselines"].items()}
    assert found["monotone_function_of_density"] == pytest.approx(0.09, rel=0.3)  # the noise that nobody can know
    assert found["monotone_function_of_density"] < found["linear_read_out_of_mean_pooling"]
    assert found["linear_read_out_of_mean_pooling"] < found["mean_of_the_training_set"]
    assert "beats the best baseline" in report.summary[0] and "error_density" in report.figures
    assert "correlation length (sites)" in report.tables["scores"].caption


def test_models_of_two_names_and_no_training_set():
    runs = [make_run(reference={}), make_run(noise=0.02, reference={})]
    runs[1] = runs[1]._replace(name="vit")
    report = regression.make_report()(runs)
    assert [r[0] for r in report.tables["scores"].rows[:2]] == ["resnet", "vit"]
    assert any("fitted on the test examples" in line for line in report.summary)


@pytest.mark.parametrize(
    ("change", "match"),
    [
        ({"predictions": {"logits": np.zeros(3)}}, "predictions lack 'value'; they hold: logits"),
        ({"predictions": {"value": np.zeros(3)}}, "expected 300 numbers, got 3"),
        ({"predictions": {"value": np.full(300, np.nan)}}, "expected finite numbers"),
        ({"examples": {"label": np.zeros(3)}}, "examples lack 'density'"),
    ],
)
def test_bad_input(change, match):
    with pytest.raises(ValueError, match=match):
        regression.make_report()([make_run(**change)])


def test_no_runs_and_other_examples():
    with pytest.raises(ValueError, match="at least one finished run"):
        regression.make_report()([])
    other = make_run()
    other = other._replace(name="b", examples=other.examples | {"density": other.examples["density"] + 0.1})
    with pytest.raises(ValueError, match="b was evaluated on other examples"):
        regression.make_report()([make_run(), other])
