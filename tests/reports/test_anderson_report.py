"""The Anderson report on true eigenstates with made-up answers: numbers that can be counted, rungs recognised."""

import json

import jax
import numpy as np
import pytest
from matplotlib.figure import Figure

from physml_jax.analysis import anderson_ladder as ladder
from physml_jax.io import page
from physml_jax.reports import anderson, anderson_figures
from physml_jax.reports import anderson_answers as asked
from physml_jax.simulators import anderson as simulator
from physml_jax.typing import Probe, Run

WIDTHS = np.array([14.0, 15.5, 16.5, 17.5, 19.0])
WEAK = 1.5  # noise on the logits of a network


def make_report():
    """Few resamples."""
    return anderson.make_report(num_resamples=5)


@pytest.fixture(autouse=True, scope="module")
def small_pictures():
    """What is drawn is tested elsewhere; large pictures take time."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(anderson_figures, "PIXELS", 16)
        yield


def eigenstates(size, count, seed):
    """States nearest 0 by LAPACK, as batches hold them."""
    rng = np.random.default_rng((size, seed))
    hopping = simulator.sparse(np.zeros((size,) * 3)).toarray()
    psi, energy = [], []
    for width in np.repeat(WIDTHS, count):
        energies, states = np.linalg.eigh(hopping + np.diag(width * (rng.random(size**3) - 0.5)))
        k = np.abs(energies).argmin()
        psi.append(states[:, k].reshape((size,) * 3))
        energy.append(energies[k])
    return {
        "state": np.array(psi, np.float32)[..., None],
        "energy": np.array(energy, np.float32),
        "disorder": np.repeat(WIDTHS, count).astype(np.float32),
        "disorder_class": np.repeat(np.arange(5), count).astype(np.int32),
    }


def changed(held, how):
    """Probes: sites exchanged, signs lost."""
    rng, states = np.random.default_rng(5), held["state"]
    if how == "shuffle":
        states = rng.permuted(states.reshape(len(states), -1), axis=1).reshape(states.shape)
    else:
        states = states * rng.choice([-1, 1], states.shape).astype(np.float32)
    return {**held, "state": states}


def answer(held, train, rung, *, seed, noise=WEAK):
    """A network that stands on a rung."""
    fitted = ladder.fit(train["state"][..., 0], train["disorder_class"])
    found = ladder.answers(held["state"][..., 0], WIDTHS, energies=held["energy"], fitted=fitted)[rung].probability
    logits = np.log(found + 1e-3) + np.random.default_rng(seed).normal(0, noise, found.shape)
    return {"logits": logits.astype(np.float32)}


def make_run(held, train, rung, *, member=0, name=None, view="signed", probes=("shuffle", "signs"), noise=WEAK):
    history = [{"step": s, "loss": 1.6 - s / 100, "accuracy": s / 100} for s in (0, 10, 20)]
    sets = {k: changed(held, k) for k in probes}
    return Run(
        name=name or f"on {rung}",
        config={
            "model": {"name": "resnet", "kwargs": {"depth": 18}},
            "task": {"kwargs": {"inputs": view, "label": "disorder_class"}},
        },
        history=[*history, {"step": 20, "validation/loss": 1.5, "validation/accuracy": 0.3}],
        examples=held,
        predictions=answer(held, train, rung, seed=member, noise=noise),
        scores={},
        reference=train,
        probes={k: Probe(v, answer(v, train, rung, seed=member, noise=noise), {}) for k, v in sets.items()},
        member=member,
    )


@pytest.fixture(scope="module")
def data():
    return {size: (eigenstates(size, 24, 1), eigenstates(size, 40, 0)) for size in (4, 5)}


@pytest.fixture(scope="module")
def runs(data):
    """Two kinds of network at L = 5, one of them at L = 4 too; two seeds of the first."""
    small, large = data[4], data[5]
    local = [make_run(*large, ladder.LOCAL, member=m, noise=0.8) for m in range(2)]
    scalar = make_run(*large, ladder.ALPHA, name="scalar", view="density", noise=0.2)
    return [*local, scalar, make_run(*small, ladder.LOCAL, name="local, L = 4", noise=0.8)]


@pytest.fixture(scope="module")
def report(runs, small_pictures):
    return anderson.make_report(num_resamples=20)(runs)


def test_scores_can_be_counted(report, runs):
    json.dumps(report.metrics, allow_nan=False)
    entry = report.metrics["networks"][0]
    truth = runs[0].examples["disorder_class"]
    logits = np.array([r.predictions["logits"] for r in runs[:2]], np.float64)
    likely = np.exp(logits - np.log(np.exp(logits).sum(2, keepdims=True)))
    right = logits.argmax(2) == truth
    assert entry["accuracy"]["mean"] == pytest.approx(right.mean()) and entry["accuracy"]["num_seeds"] == 2
    assert entry["accuracy_by_seed"] == pytest.approx(right.mean(1))
    assert entry["accuracy"]["standard_error_over_seeds"] == pytest.approx(abs(np.diff(right.mean(1))[0]) / 2)
    # Student's t with one degree of freedom: 12.706 standard errors.
    half = entry["accuracy"]["seed_high"] - entry["accuracy"]["mean"]
    assert half == pytest.approx(12.706 * entry["accuracy"]["standard_error_over_seeds"], rel=1e-3)
    loss = -np.log(np.take_along_axis(likely, np.tile(truth, (2, 1))[..., None], 2)).mean()
    assert entry["loss"]["mean"] == pytest.approx(loss)
    assert entry["adjacent"]["mean"] == pytest.approx((np.abs(logits.argmax(2) - truth) <= 1).mean())
    assert entry["error"]["mean"] == pytest.approx(np.abs(likely @ WIDTHS - WIDTHS[truth]).mean(), rel=1e-4)
    assert entry["accuracy"]["low"] < entry["accuracy"]["mean"] < entry["accuracy"]["high"]
    matrix = np.array(entry["confusion"])
    assert matrix.sum(1).tolist() == [24] * 5 and np.trace(matrix) == pytest.approx(120 * right.mean())
    by_width = entry["accuracy_by_width"]
    assert list(by_width) == ["14", "15.5", "16.5", "17.5", "19"]
    assert by_width["16.5"] == pytest.approx(right[:, truth == 2].mean())


def test_the_ladder_is_read_off_the_test_states(report, data):
    problem = report.metrics["problems"][0]
    held, train = data[5]
    assert problem["size"] == 5 and problem["widths"] == WIDTHS.tolist() and problem["n"] == 120
    assert problem["training_states"] == 200 and problem["missing_classes"] == []
    assert problem["chance"]["accuracy"] == 0.2 and problem["chance"]["loss"] == pytest.approx(np.log(5))
    assert problem["chance"]["adjacent"] == pytest.approx(0.6)
    assert problem["chance"]["error"] == pytest.approx(np.abs(WIDTHS - WIDTHS.mean()).mean(), rel=1e-5)
    fitted = ladder.fit(train["state"][..., 0], train["disorder_class"])
    found = ladder.answers(held["state"][..., 0], WIDTHS, energies=held["energy"], fitted=fitted)
    assert set(problem["rungs"]) == set(found) == set(ladder.RUNGS)
    for name, rung in found.items():
        right = (rung.probability.argmax(1) == held["disorder_class"]).mean()
        assert problem["rungs"][name]["accuracy"]["mean"] == pytest.approx(right)
    rungs = problem["rungs"]
    assert rungs[ladder.LOCAL_ENERGY]["accuracy"]["mean"] > 0.95 > 0.6 > rungs[ladder.ALPHA]["accuracy"]["mean"]
    assert rungs[ladder.LOCAL_ENERGY]["error"]["mean"] < 0.2


def test_the_rung_of_a_network_is_recognised(report):
    local, scalar, _ = report.metrics["networks"]
    for entry, own, other in ((local, ladder.LOCAL, ladder.ALPHA), (scalar, ladder.ALPHA, ladder.LOCAL)):
        rungs, noise = entry["standing"]["rungs"], entry["standing"]["correlation_by_chance"]
        beyond = {k: r["correlation_beyond_class"]["mean"] for k, r in rungs.items()}
        assert max(beyond, key=beyond.get) == own and beyond[own] > 2 * noise
        assert rungs[own]["kappa"]["mean"] > rungs[other]["kappa"]["mean"] + 0.2
        assert rungs[own]["profile_distance"] < rungs[other]["profile_distance"]
    # Accuracies are compared state by state.
    named = report.metrics["problems"][0]["rungs"]
    gain = local["standing"]["rungs"][ladder.ALPHA]
    expected = local["accuracy"]["mean"] - named[ladder.ALPHA]["accuracy"]["mean"]
    assert gain["accuracy_difference"] == pytest.approx(expected) and gain["low"] > 0
    text = " ".join(report.summary)
    assert f"Beyond the true class its answers go most with {ladder.LOCAL}" in text
    assert f"Beyond the true class its answers go most with {ladder.ALPHA}" in text
    assert "Its input holds the signs, so the local rule without E can be formed" in text


def test_probes(report, data):
    local, scalar, _ = report.metrics["networks"]
    for entry in (local, scalar):
        for name in ("shuffle", "signs"):
            methods = entry["probes"][name]["methods"]
            drop = methods[ladder.ALPHA]
            assert drop["drop"] == pytest.approx(0, abs=1e-9) and entry["probes"][name]["n"] == 120
            assert methods[ladder.LOCAL]["accuracy"] < 0.4 and methods[ladder.LOCAL]["low"] > 0.3
    assert local["probes"]["signs"]["methods"]["ResNet-18 on signed ψ"]["kept"] < 0.2
    for name in ("shuffle", "signs"):
        assert scalar["probes"][name]["methods"]["ResNet-18 on abs(ψ)²"]["drop"] == 0
    assert scalar["probes"]["signs"]["same_answer"] == 1 > 0.5 > local["probes"]["signs"]["same_answer"]
    text = " ".join(report.summary)
    assert "It is worse without where the amplitudes are and the signs." in text
    assert "It does without where the amplitudes are (no answer changes) and the signs (no answer changes)" in text
    assert text.count("moves like") >= 2
    rows = {row[0]: row[1:] for row in report.tables["probes"].rows if row[1] == 5}
    assert rows["rung: α₀"][2] == pytest.approx(rows["rung: α₀"][3])


def test_sizes(report):
    """Runs of two L: every rung and network at its own size, on test states of that size."""
    table = report.tables["size"]
    assert table.columns == ("method", "L = 4", "L = 5")
    rows = {row[0]: row[1:] for row in table.rows}
    assert rows["ResNet-18 on abs(ψ)²"][0] is None and None not in rows["ResNet-18 on signed ψ"]
    assert rows["chance"] == ["0.2000", "0.2000"]
    problems = report.metrics["problems"]
    assert [p["size"] for p in problems] == [5, 4]
    (trend,) = report.metrics["trends"]
    assert trend["over"] == "size" and trend["learned"] == ["ResNet-18 on signed ψ", "ResNet-18 on abs(ψ)²"]
    assert set(trend["accuracy"]) == {*trend["learned"], *ladder.RUNGS}
    for size, number in (("5", 0), ("4", 1)):
        for rung in ladder.RUNGS:
            expected = problems[number]["rungs"][rung]["accuracy"]
            assert trend["accuracy"][rung][size]["mean"] == expected["mean"]
            assert rows[f"rung: {rung}"][1 - number].startswith(f"{expected['mean']:.4f} ({expected['low']:.4f} to")
    two_seeds, _, small = report.metrics["networks"]
    held = trend["accuracy"]["ResNet-18 on signed ψ"]
    assert held["5"]["mean"] == two_seeds["accuracy"]["mean"] and held["5"]["num_seeds"] == 2
    assert held["4"]["mean"] == small["accuracy"]["mean"] and held["4"]["low"] == small["accuracy"]["low"]
    (line,) = (line for line in report.summary if line.startswith("Trend with the size, W = 14 or 15.5"))
    assert "L = 4, L = 5, accuracy:" in line and line.count("chance 0.200.") == 1
    for name in ("ResNet-18 on signed ψ", *ladder.RUNGS):
        first, last = (trend["accuracy"][name][s] for s in "45")
        way = "rises" if last["low"] > first["high"] else ("falls" if last["high"] < first["low"] else "open")
        assert f"{name} {first['mean']:.3f}, {last['mean']:.3f} ({way})" in line
    assert "ResNet-18 on abs(ψ)²" not in line  # asked at one size only
    assert "Published" not in " ".join(report.summary)  # that is about 17 classes


@pytest.mark.parametrize(
    ("error", "expected"), [(None, (0.3, 0.5)), (0.04, (0.3, 0.5)), (0.1, (0.2, 0.6)), (0.3, (0.0, 1.0))]
)
def test_the_wider_interval_counts(error, expected):
    """Over states, or over seeds: few seeds that differ say less than many states."""
    score = asked.Score(0.4, 0.3, 0.5, error, None, None, 1)
    assert score.ends() == pytest.approx(expected)


def test_one_size_twice(runs, data):
    """Other test states of the same size do not replace the first ones: both networks keep a line of their own."""
    held = {k: v.reshape(5, 24, *v.shape[1:])[:, :12].reshape(60, *v.shape[1:]) for k, v in data[5][0].items()}
    fewer = make_run(held, data[5][1], ladder.LOCAL, name="fewer", probes=())
    small = runs[3]._replace(probes={})
    found = make_report()([runs[0]._replace(probes={}), fewer, small])
    (trend,) = found.metrics["trends"]
    title = "ResNet-18 on signed ψ"
    assert trend["learned"] == [title, f"{title} [{runs[0].name}]", f"{title} [fewer]"]
    assert [p["n"] for p in found.metrics["problems"]] == [120, 60, 120]
    assert list(trend["accuracy"][ladder.ALPHA]) == ["4", "5"]
    expected = found.metrics["problems"][0]["rungs"][ladder.ALPHA]["accuracy"]["mean"]
    assert trend["accuracy"][ladder.ALPHA]["5"]["mean"] == expected


def test_figures_and_page(report, tmp_path):
    expected = {"ladder", "size", "probes", "confusion", "confusion_2", "confusion_3", "confusion_ladder"}
    expected |= {"accuracy_by_width", "training", "states"}
    assert set(report.figures) == expected and next(iter(report.figures)) == "ladder"
    assert all(isinstance(f, Figure) and caption for f, caption in report.figures.values())
    few = {k: report.figures[k] for k in ("ladder", "states")}
    assert page.write_report(tmp_path, report._replace(figures=few)).is_file()


def test_states_are_chosen_by_rule(data):
    held = data[5][0]
    states = asked.states_of("test", held, label="disorder_class")
    problem = asked.Problem(states, WIDTHS, None, 0, {}, {})
    found = anderson_figures.pick(problem)
    assert [kind for _, kind in found] == ["extended", "critical", "localised"]
    assert [held["disorder"][i] for i, _ in found] == [14, 16.5, 19]
    number = 1 / (states.psi.astype(np.float64) ** 4).sum((1, 2, 3))
    for i, _ in found:
        assert (number[states.truth == states.truth[i]] < number[i]).sum() == 11  # of 24, the lower median


def test_resolutions_and_what_is_published(data):
    """Pictures of two sizes of the same states; 17 classes at another size than the published one."""
    held, train = ({k: v[:60] for k, v in part.items()} for part in data[5])
    widths = np.linspace(15, 18, 17)
    for part in (held, train):
        part["disorder_class"] = (np.arange(60) % 17).astype(np.int32)
        part["disorder"] = widths[part["disorder_class"]].astype(np.float32)
    logits = np.random.default_rng(0).normal(0, 3, (60, 17))
    runs = []
    for pixels in (8, 16):
        run = make_run(data[5][0], data[5][1], ladder.ALPHA, view="rgba", probes=(), name=f"p{pixels}")
        pictures = np.full((60, pixels, pixels, 4), 0.5, np.float32)
        runs.append(
            run._replace(
                examples={**held, "rgba": pictures}, reference=train, predictions={"logits": logits}, history=[]
            )
        )
    found = make_report()(runs)
    assert [n["name"] for n in found.metrics["networks"]] == [f"ResNet-18 on pictures, {p} px" for p in (8, 16)]
    assert len(found.metrics["problems"]) == 1 and "resolution" in found.figures and "training" not in found.figures
    (trend,) = found.metrics["trends"]
    assert trend["over"] == "resolution" and trend["learned"] == ["ResNet-18 on pictures"]
    right = (logits.argmax(1) == held["disorder_class"]).mean()
    assert [v["mean"] for v in trend["accuracy"]["ResNet-18 on pictures"].values()] == pytest.approx([right] * 2)
    assert trend["accuracy"][ladder.ALPHA]["8"] == trend["accuracy"][ladder.ALPHA]["16"]  # of the same states
    assert found.tables["resolution"].columns == ("method", "8 px", "16 px")
    text = " ".join(found.summary)
    assert "Trend with the resolution, L = 5, 17 values of W from 15 to 18, 8 px, 16 px, accuracy: ResNet-18 on" in text
    assert f"pictures {right:.3f}, {right:.3f} (open)" in text and "size" not in found.figures
    assert "14.7 % with a loss of 2.47" in text and "Numbers of another L (5 here) cannot be compared with it" in text
    assert "Its loss is worse than that of equal probabilities" in text and "cannot be told from chance" in text


def test_one_class_missing_no_probes_no_energy_no_training_states(data):
    held, train = data[5]
    rows = held["disorder_class"] != 2
    run = make_run(held, train, ladder.ALPHA, probes=())
    part = {k: v[rows] for k, v in held.items() if k != "energy"}
    run = run._replace(examples=part, predictions={"logits": run.predictions["logits"][rows]})
    found = make_report()([run])
    problem = found.metrics["problems"][0]
    assert problem["missing_classes"] == [16.5] and problem["widths"] == WIDTHS.tolist()
    assert ladder.LOCAL_ENERGY not in problem["rungs"] and ladder.BOUND in problem["rungs"]
    assert "probes" not in found.tables and "probes" not in found.figures
    assert any("No test state has W = 16.5." in line for line in found.summary)
    assert len(found.tables["by_width"].rows) == 4
    # The W of a class that no state has is not known.
    with pytest.raises(ValueError, match="no test or training state has class 2, so its W is unknown"):
        make_report()([run._replace(reference={})])
    bare = make_report()(
        [
            run._replace(
                examples=held, predictions=make_run(held, train, ladder.ALPHA, probes=()).predictions, reference={}
            )
        ]
    )
    assert set(bare.metrics["problems"][0]["rungs"]) == {ladder.LOCAL_ENERGY, ladder.LOCAL}
    assert any("rungs that must be fitted are missing" in line for line in bare.summary)


def test_the_local_rule_knows_how_states_were_stored(data):
    """Of float16 amplitudes it leaves out sites that it would trust as float32, in probes as well."""
    held, train = data[5]
    peak = np.abs(held["state"]).max((1, 2, 3), keepdims=True)
    stored = {**held, "state": (2.0**15 * held["state"] / peak).astype(np.float16).astype(np.float32)}
    run = make_run(stored, train, ladder.ALPHA, probes=("signs",))
    run = run._replace(config={**run.config, "data": {"kwargs": {"precision": "float16"}}})
    widths = []
    for error in (ladder.STORED_ERROR["float16"], None):
        networks, problems = asked.read([run if error else run._replace(config={})], asked.Reader("disorder_class", 5))
        sets = ((stored, problems[0].rungs), (run.probes["signs"].examples, networks[0].probes["signs"].rungs))
        for states, rungs in sets:
            found = ladder.answers(states["state"][..., 0], WIDTHS, energies=held["energy"], relative_error=error)
            for name in (ladder.LOCAL_ENERGY, ladder.LOCAL):
                np.testing.assert_array_equal(rungs[name].width[0], found[name].width)
        widths.append(problems[0].rungs[ladder.LOCAL_ENERGY].width[0])
    assert (widths[0] != widths[1]).mean() > 0.02


@pytest.mark.parametrize(
    ("change", "match"),
    [
        ({"predictions": {}}, "predictions lack 'probabilities' and 'logits'; they hold: nothing"),
        ({"predictions": {"logits": np.zeros((3, 5))}}, r"expected predictions \[120, C\], got shape \(3, 5\)"),
        ({"predictions": {"logits": np.zeros((120, 4))}}, "'disorder_class' reaches 4, predictions have 4 classes"),
        ({"examples": {}}, "examples lack 'state'; they hold: nothing"),
    ],
)
def test_what_cannot_be_reported(data, change, match):
    run = make_run(*data[5], ladder.ALPHA, probes=())
    with pytest.raises(ValueError, match=match):
        make_report()([run._replace(**change)])


def test_numbers_that_are_not_finite(data):
    run = make_run(*data[5], ladder.ALPHA, probes=("signs",))
    logits = run.predictions["logits"].copy()
    logits[7] = np.nan
    with pytest.raises(ValueError, match="predictions of 1 of 120 states are not finite, the first is state 7"):
        make_report()([run._replace(predictions={"logits": logits})])
    probe = run.probes["signs"]._replace(predictions={"logits": logits})
    with pytest.raises(ValueError, match="probe signs: predictions of 1 of 120 states are not finite"):
        make_report()([run._replace(probes={"signs": probe})])
    state = data[5][0]["state"].copy()
    state[3, 0] = np.inf
    with pytest.raises(ValueError, match="'state' holds amplitudes that are not finite"):
        make_report()([run._replace(examples={**data[5][0], "state": state})])
    with pytest.raises(ValueError, match="its members were evaluated on different states"):
        other = {k: v[::-1] for k, v in data[5][0].items()}
        make_report()([run, run._replace(examples=other, member=1)])
    with pytest.raises(ValueError, match="runs: expected at least one"):
        anderson.make_report()([])
    with pytest.raises(ValueError, match="num_resamples"):
        anderson.make_report(num_resamples=0)


def test_nothing_is_left_in_double_precision():
    assert not jax.config.jax_enable_x64
