import json

import numpy as np
import pytest

from physml_jax.analysis.zncc import r_index
from physml_jax.reports import lacbed, lacbed_figures
from physml_jax.typing import Run

SIZE = 12


def split(seed, n, templates, *, thicknesses=1):
    rng = np.random.default_rng(seed)
    template = templates[np.arange(n) % len(templates)].astype(np.int32)
    base = {t: np.random.default_rng(t).random((SIZE, SIZE, 1 + thicknesses)) for t in np.unique(template)}
    both = np.stack([base[t] for t in template]) + 0.05 * rng.random((n, SIZE, SIZE, 1 + thicknesses))
    return {
        "potential": (100 * both[..., :1]).astype(np.float32),
        "pattern": both[..., 1:].astype(np.float32),
        "log_a": np.log(rng.uniform(4, 8, (n, 1))).astype(np.float32),
        "space_group": np.array([216, 213, 223, 225, 227])[template % 5].astype(np.int32),
        "template": template,
        "convergence_error": np.full(n, 0.01, np.float32),
    }


def make_run(*, noise=0.02, name="network", seed=0, thicknesses=1, **changes):
    examples = split(1, 12, np.arange(100, 106), thicknesses=thicknesses)
    rng = np.random.default_rng(seed)
    prediction = examples["pattern"] + noise * rng.normal(size=examples["pattern"].shape)
    made = Run(
        name=name,
        config={"seed": seed, "data": {"kwargs": {"thicknesses": (450.0,)}}},
        history=[{"step": s, "loss": 1.0 / s, "time_s": 1.0} for s in range(1, 4)],
        examples=examples,
        predictions={"pattern": prediction.astype(np.float32)},
        scores={},
        reference=split(2, 20, np.arange(10), thicknesses=thicknesses),
        labels=["O3SrTi"] * 12,
    )
    return made._replace(**changes)


@pytest.fixture(scope="module")
def made():
    run = make_run()
    return run, lacbed.make_report()([run])


def test_numbers_are_those_of_the_index(made):
    run, report = made
    r = np.asarray(r_index(run.predictions["pattern"], run.examples["pattern"]))
    model = report.metrics["model"]
    assert model["r_mean"] == pytest.approx(r.mean(), abs=1e-6)
    assert model["r_median"] == pytest.approx(np.median(r), abs=1e-6)
    error = run.predictions["pattern"].astype(np.float64) - run.examples["pattern"]
    assert model["mse"] == pytest.approx(np.mean(error**2), rel=1e-5)
    assert (model["n"], model["num_templates"]) == (12, 6)
    mean = run.reference["pattern"].mean(axis=0)
    expected = np.mean([np.asarray(r_index(mean[None], x[None]))[0] for x in run.examples["pattern"]])
    assert report.metrics["baselines"]["mean_image"]["r_mean"] == pytest.approx(expected, abs=1e-5)
    assert report.metrics["truth"]["convergence_error_max"] == pytest.approx(0.01)
    json.dumps(report.metrics, allow_nan=False)


def test_tables_and_figures(made):
    _, report = made
    assert [row[0] for row in report.tables["scores"].rows] == [
        "network",
        "baseline: mean image",
        "baseline: nearest neighbour",
        "closest training pattern (knows the truth)",
    ]
    assert [row[0] for row in report.tables["space_groups"].rows] == [
        "213 P4132",
        "216 F-43m",
        "223 Pm-3n",
        "225 Fm-3m",
        "227 Fd-3m",
    ]
    assert sum(row[1] for row in report.tables["space_groups"].rows) == 12
    assert list(report.figures) == [
        "predictions",
        "space_groups",
        "distribution",
        "mean_intensity",
        "training",
        "best",
        "worst",
    ]
    assert len(report.figures["predictions"][0].axes) == 12


def test_the_honest_verdict():
    assert "beats the best baseline" in lacbed.make_report()([make_run()]).summary[1]
    rng = np.random.default_rng(3)
    few = make_run().examples | {"few_beam": make_run().examples["pattern"]}
    noise = {"pattern": rng.random(few["pattern"].shape).astype(np.float32)}
    report = lacbed.make_report()([make_run(examples=few, predictions=noise)])
    assert "loses to a baseline, few-beam Bloch waves" in report.summary[1]
    assert report.metrics["baselines"]["few_beam_Bloch_waves"]["r_mean"] == pytest.approx(1, abs=1e-5)
    same = make_run(examples=few, predictions={"pattern": few["few_beam"]})
    assert "cannot be told apart" in lacbed.make_report()([same]).summary[1]


def test_twins_of_training_patterns_are_counted():
    run = make_run()
    reference = {k: v.copy() for k, v in run.reference.items()}
    reference["pattern"][:3] = np.rot90(run.examples["pattern"][:3], axes=(1, 2))
    report = lacbed.make_report()([run._replace(reference=reference)])
    # Every template stands twice in the test set, and its two patterns are nearly equal: three twins make six.
    assert report.metrics["without_twins"]["n"] == 6
    assert "6 of 12 test patterns have a twin" in report.summary[2]
    plain = lacbed.make_report(dihedral=False)([run._replace(reference=reference)])
    assert plain.metrics["without_twins"]["n"] == 12


def test_the_neighbours_pattern_is_turned_with_its_potential():
    run = make_run()
    reference = {k: v.copy() for k, v in run.reference.items()}
    for key in ("potential", "pattern"):
        reference[key][:12] = np.flip(run.examples[key], 2)
    run = run._replace(reference=reference)
    found = lacbed.make_report(log_a_weight=0.0)([run]).metrics["baselines"]["nearest_neighbour"]
    assert found["r_mean"] == pytest.approx(1, abs=1e-5)
    assert lacbed.make_report(dihedral=False)([run]).metrics["baselines"]["nearest_neighbour"]["r_mean"] < 0.9


def test_several_runs_are_several_rows():
    runs = [make_run(seed=0), make_run(seed=1, noise=0.1)]
    report = lacbed.make_report()(runs)
    assert [row[0] for row in report.tables["scores"].rows][:2] == ["network, seed 0", "network, seed 1"]
    means = [report.metrics["runs"][n]["r_mean"] for n in ("network, seed 0", "network, seed 1")]
    assert means[0] > means[1]
    assert report.metrics["all_runs"]["r_mean"] == pytest.approx(np.mean(means))
    assert report.metrics["all_runs"]["r_mean_std"] == pytest.approx(abs(means[0] - means[1]) / np.sqrt(2))
    other = make_run()
    other = other._replace(examples=other.examples | {"pattern": other.examples["pattern"] + 1})
    with pytest.raises(ValueError, match="other examples"):
        lacbed.make_report()([make_run(), other])


def test_several_thicknesses_have_an_index_each():
    run = make_run(thicknesses=2)
    scaled = run.predictions["pattern"].copy()
    scaled[..., 1] *= 0.5  # a wrong relation between thicknesses is brightness, which R forgives
    runs = [run, run._replace(predictions={"pattern": scaled}, name="scaled")]
    metrics = lacbed.make_report(num_extremes=0)(runs).metrics
    assert metrics["runs"]["scaled"]["r_mean"] == pytest.approx(metrics["runs"]["network"]["r_mean"], abs=1e-6)


def test_what_may_be_missing_is_missed():
    run = make_run(history=[], labels=(), config={})
    keep = {"potential", "pattern"}
    run = run._replace(
        examples={k: v for k, v in run.examples.items() if k in keep},
        reference={k: v for k, v in run.reference.items() if k in keep},
    )
    report = lacbed.make_report()([run])
    assert set(report.tables) == {"scores"}
    assert set(report.figures) == {"predictions", "distribution", "mean_intensity", "best", "worst"}
    assert "taken as independent" in report.summary[0] and "truth" not in report.metrics


@pytest.mark.parametrize(
    ("change", "match"),
    [
        ({"predictions": {"logits": np.zeros((12, 2))}}, "run network: predictions lack 'pattern'; they hold: logits"),
        ({"reference": {}}, "run network: reference lack 'pattern'; they hold: nothing"),
        ({"predictions": {"pattern": np.full((12, SIZE, SIZE, 1), np.nan)}}, "not finite"),
        ({"predictions": {"pattern": np.zeros((12, SIZE, SIZE, 2))}}, "of one shape"),
    ],
)
def test_bad_input(change, match):
    with pytest.raises(ValueError, match=match):
        lacbed.make_report()([make_run(**change)])


def test_no_runs():
    with pytest.raises(ValueError, match="at least one finished run"):
        lacbed.make_report()([])


def test_typical_rows():
    r = np.array([0.1, 0.5, 0.9, 0.2, 0.8, 0.3])
    group = np.array([216, 216, 216, 225, 225, 227])
    np.testing.assert_array_equal(lacbed_figures.typical_rows(r, group, num_rows=3, preferred=(216, 213)), [1, 3, 5])
    np.testing.assert_array_equal(lacbed_figures.typical_rows(r, group, num_rows=1, preferred=(227,)), [5])
    every = lacbed_figures.typical_rows(r, group, num_rows=10, preferred=())
    assert sorted(every) == list(range(6))
    np.testing.assert_array_equal(lacbed_figures.typical_rows(r, None, num_rows=3, preferred=()), [2, 5, 0])


@pytest.mark.parametrize(("group", "expected"), [(213, 3 / 6.7), (217, 3 * np.sqrt(2) / 6.7), (216, 6 / 6.7)])
def test_edge_of_the_pattern(group, expected):
    # smallest zero-layer abs(g) of the lattices P, I and F: 1/a, sqrt(2)/a, 2/a
    run = make_run()
    examples = run.examples | {
        "space_group": np.full(12, group, np.int32),
        "log_a": np.full((12, 1), np.log(6.7), np.float32),
    }
    figure = lacbed.make_report(num_rows=1, num_extremes=0)([run._replace(examples=examples)]).figures["predictions"][0]
    assert figure.axes[1].get_images()[0].get_extent()[1] == pytest.approx(expected, rel=1e-5)
    configured = run._replace(examples=examples, config={"data": {"kwargs": {"half_width": 0.5}}})
    figure = lacbed.make_report(num_rows=1, num_extremes=0)([configured]).figures["predictions"][0]
    assert figure.axes[1].get_images()[0].get_extent()[1] == 0.5
