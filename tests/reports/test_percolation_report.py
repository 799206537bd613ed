import collections
import json

import numpy as np
import pytest
import scipy.ndimage
from matplotlib.figure import Figure

from physml_jax.reports import percolation_published as published
from physml_jax.reports import percolation_spanning
from physml_jax.typing import Probe, Run

DENSITIES = np.array([0.3, 0.45, 0.5, 0.54, 0.57, 0.6, 0.63, 0.66, 0.7, 0.8])


def lattices(size, n, *, seed, densities=DENSITIES):
    """States at exact densities, example i at density i % len(densities), with their label by scipy."""
    rng = np.random.default_rng(seed)
    counts = np.round(densities[np.arange(n) % len(densities)] * size**2).astype(int)
    states = np.array([(rng.permutation(size**2) < c).reshape(size, size) for c in counts])
    return states, counts / size**2


def examples(states, density):
    def joined(x):
        return np.intersect1d(x[0], x[-1]).max(initial=0) > 0

    labels = [scipy.ndimage.label(s)[0] for s in states]
    vertical = np.array([joined(x) for x in labels], np.int32)
    horizontal = np.array([joined(x.T) for x in labels], np.int32)
    return {
        "image": states[..., None].astype(np.float32),
        "density": density.astype(np.float32),
        "spanning": vertical | horizontal,
        "vertical": vertical,
        "index": np.arange(len(states)),
    }


def steps_from_top(states):
    """Iterations of a flood from the top row, -1 where it never comes."""
    out = np.full((*states.shape, 1), -1.0, np.float32)
    for s, d in zip(states, out, strict=True):
        queue = collections.deque((0, j) for j in np.flatnonzero(s[0]))
        for i, j in queue:
            d[i, j] = 0
        while queue:
            i, j = queue.popleft()
            for a, b in ((i + 1, j), (i - 1, j), (i, j + 1), (i, j - 1)):
                if 0 <= a < len(s) and 0 <= b < len(s) and s[a, b] and d[a, b] < 0:
                    d[a, b] = d[i, j] + 1
                    queue.append((a, b))
    return out


def reads_density(held, noise, seed, *, at=0.58):
    jitter = noise * np.random.default_rng(seed).normal(size=len(held["density"]))
    p = 1 / (1 + np.exp(-60 * (held["density"] + jitter - at)))
    return {"probabilities": np.stack([1 - p, p], axis=1).astype(np.float32)}


def sees(held):
    p = np.where(held["spanning"] == 1, 0.98, 0.02)
    states = held["image"][..., 0] > 0.5
    return {"probabilities": np.stack([1 - p, p], axis=1), "arrival": steps_from_top(states)}


@pytest.fixture(scope="module")
def held():
    """Test set, training set and probes."""
    test = examples(*lattices(16, 400, seed=0))
    sets = {f"random_{size}": examples(*lattices(size, 400, seed=size)) for size in (8, 32)}
    # One pair of equal density and opposite label: a full column, and the same with its site moved aside.
    a = np.zeros((8, 8), bool)
    a[:, 0] = True
    b = a.copy()
    b[4, 0], b[4, 5] = False, True
    pairs = np.array([a, b] * 5)
    sets["pivotal"] = examples(pairs, pairs.mean(axis=(1, 2)))
    return test, examples(*lattices(16, 300, seed=9)), sets


CONFIG = {
    "seed": 0,
    "task": {"kwargs": {"label": "spanning"}},
    "data": {"kwargs": {"size": 16}, "probes": {"pivotal": {"states": "pivotal"}, "random_8": {"size": 8}}},
}


def make_runs(held, *, seeds=3, probes=True):
    test, reference, sets = held
    sets = sets if probes else {}
    runs = []
    for member in range(seeds):
        extra = {k: Probe(s, reads_density(s, 0.008, member), {}) for k, s in sets.items()}
        answers = reads_density(test, 0.008, member)
        history = [{"step": 1, "loss": 0.7, "time_s": 0.0}, {"step": 2, "loss": 0.5, "time_s": 1.0}]
        runs.append(Run("resnet", CONFIG, history, test, answers, {}, reference, (), extra, member))
    extra = {k: Probe(s, sees(s), {}) for k, s in sets.items()}
    runs.append(Run("looped", CONFIG, [], test, sees(test), {}, {}, (), extra, 0))
    return runs


@pytest.fixture(scope="module")
def report(held):
    return percolation_spanning.make_report(num_resamples=20)(make_runs(held))


@pytest.mark.slow
def test_accuracy_over_seeds(held, report):
    runs = make_runs(held)
    truth = held[0]["spanning"]
    by_seed = np.array([(r.predictions["probabilities"].argmax(1) == truth).mean() for r in runs[:3]])
    found = report.metrics["models"]["resnet"]["accuracy"]
    assert found["mean"] == pytest.approx(by_seed.mean()) and found["num_seeds"] == 3
    assert found["standard_error"] == pytest.approx(by_seed.std(ddof=1) / np.sqrt(3))
    assert report.metrics["models"]["looped"]["accuracy"] == {"mean": 1.0, "standard_error": None, "num_seeds": 1}
    json.dumps(report.metrics, allow_nan=False)


@pytest.mark.slow
def test_the_oracle_bounds_what_reads_the_density(held, report):
    density, truth = held[0]["density"], held[0]["spanning"]
    majority = sum(max(truth[density == d].sum(), (1 - truth[density == d]).sum()) for d in np.unique(density))
    baselines = report.metrics["baselines"]
    assert baselines["density_only_oracle"] == pytest.approx(majority / len(truth))
    for name in ("threshold_on_density", "linear_read_out_of_mean_pooling", "most_frequent_class"):
        assert baselines[name] <= baselines["density_only_oracle"]
    assert "does worse than" in report.summary[0] or "cannot be told apart" in report.summary[0]
    assert "knows more than the density" in report.summary[1] and "makes no error" in report.summary[1]


def test_errors_that_the_density_explains(held, report):
    runs, truth, density = make_runs(held), held[0]["spanning"], held[0]["density"]
    levels = np.unique(density)
    oracle = np.array([truth[density == d].mean() > 0.5 for d in levels])[np.searchsorted(levels, density)]
    missed = oracle != truth
    shares = []
    for r in runs[:3]:
        wrong = r.predictions["probabilities"].argmax(1) != truth
        shares.append((wrong & missed).sum() / wrong.sum())
    found = report.metrics["models"]["resnet"]["errors_shared_with_oracle"]
    assert found["mean"] == pytest.approx(np.mean(shares))
    assert report.metrics["models"]["looped"]["errors_shared_with_oracle"] is None
    rows = report.tables["misclassified"].rows
    wrong = np.flatnonzero(runs[0].predictions["probabilities"].argmax(1) != truth)
    assert [r[0] for r in rows] == wrong[:20].tolist()
    assert [r[-1] == "also wrong" for r in rows] == missed[wrong[:20]].tolist()


def test_confusion(held, report):
    runs, truth = make_runs(held), held[0]["spanning"]
    said = [r.predictions["probabilities"].argmax(1) for r in runs[:3]]
    counts = np.array([[[np.sum((truth == i) & (s == j)) for j in range(2)] for i in range(2)] for s in said])
    found = report.metrics["models"]["resnet"]
    np.testing.assert_allclose(found["confusion"], counts.mean(0))
    np.testing.assert_allclose(found["confusion_standard_error"], counts.std(0, ddof=1) / np.sqrt(3))
    assert [float(r[4]) for r in report.tables["confusion"].rows[:2]] == [np.sum(truth == 0), np.sum(truth == 1)]


def test_probes(held, report):
    assert set(report.metrics["probes"]) == {"random_8", "random_32", "pivotal"}
    pivotal = report.metrics["probes"]["pivotal"]
    # Equal densities and opposite labels: exactly one half, whatever the threshold and the network that reads it.
    assert pivotal["threshold_on_density"] == 0.5 and pivotal["models"]["looped"]["mean"] == 1
    assert pivotal["models"]["resnet"]["mean"] == pytest.approx(0.5)
    assert report.tables["probes"].columns[4:6] == ("resnet", "looped")


def test_scaling_of_what_sees_is_that_of_the_truth(report):
    found = report.metrics["scaling"]
    assert found["looped"] == found["true labels"]
    assert found["true labels"]["p_c"]["low"] < 0.593 < found["true labels"]["p_c"]["high"]
    # A reader of the density does not sharpen with size: its curves are steps of equal width.
    assert "resnet" not in found or found["resnet"]["nu"]["mean"] > 1.4 * found["true labels"]["nu"]["mean"]


def test_figures(report):
    assert next(iter(report.figures)) == "accuracy"
    expected = "accuracy confusion answers spanning_probability clusters failures flood scaling training"
    assert set(report.figures) == set(expected.split())
    assert all(isinstance(f, Figure) and caption for f, caption in report.figures.values())


def test_missing_pieces_are_left_out(held):
    test, _, _ = held
    run = make_runs(held, seeds=1, probes=False)[0]
    bare = {k: test[k] for k in ("image", "spanning")}
    found = percolation_spanning.make_report()([run._replace(examples=bare, reference={}, history=[])])
    assert not {"probes", "scaling", "crossings"} & set(found.tables)
    assert not {"flood", "scaling", "training"} & set(found.figures)
    assert "one seed" in found.summary[0] and any("for lack of training states" in line for line in found.summary)
    # The density is the mean of the image, so the baselines are those of the run that holds it.
    whole = percolation_spanning.make_report()([run._replace(reference={}, history=[])])
    assert found.metrics["baselines"] == pytest.approx(whole.metrics["baselines"])


def test_published_numbers_appear_beside_the_published_distribution_only(held):
    assert np.sum(published.CONFUSION) == pytest.approx(published.NUM_TEST)
    assert np.trace(published.CONFUSION) / published.NUM_TEST == published.TEST_ACCURACY
    assert published.TEST_ACCURACY == pytest.approx(published.DENSITY_ONLY[0], abs=published.DENSITY_ONLY[1])
    exact = np.tile(published.DENSITIES, 3)
    assert published.is_published_distribution(exact.astype(np.float32), size=100)
    assert not published.is_published_distribution(exact, size=64)
    assert not published.is_published_distribution(exact[3:], size=100) or len(exact[3:]) == 90
    assert not published.is_published_distribution(np.full(31, 0.5), size=100)
    n = 62
    held_ = {
        "image": np.zeros((n, 100, 100, 1), np.float32),
        "density": np.tile(published.DENSITIES, 2).astype(np.float32),
        "spanning": (np.tile(published.DENSITIES, 2) > 0.59).astype(np.int32),
    }
    run = Run("net", {}, [], held_, reads_density(held_, 0.03, 0), {}, {})
    found = percolation_spanning.make_report()([run])
    assert any("92.65 ± 0.05 %" in line for line in found.summary)
    assert found.tables["scores"].rows[-1][0].startswith("published")
    vertical = run._replace(examples=held_ | {"vertical": held_["spanning"]})
    found = percolation_spanning.make_report(label="vertical")([vertical])
    assert not any("92.65" in line for line in found.summary)


@pytest.mark.parametrize(
    ("change", "match"),
    [
        ({"examples": {"spanning": np.zeros(3, np.int32)}}, "examples lack 'image'; they hold: spanning"),
        ({"examples": {"image": np.zeros((3, 4, 4, 1)), "spanning": np.arange(3)}}, "to be 0 or 1"),
        ({"predictions": {"value": np.zeros(3)}}, "predictions lack 'probabilities' and 'logits'; they hold: value"),
        ({"predictions": {"logits": np.zeros((400, 3))}}, r"expected finite predictions \[400, 2\]"),
        ({"predictions": {"probabilities": np.full((400, 2), np.nan)}}, "expected finite predictions"),
    ],
)
def test_bad_input(held, change, match):
    run = make_runs(held, seeds=1, probes=False)[0]._replace(**change)
    with pytest.raises(ValueError, match=match):
        percolation_spanning.make_report()([run])


def test_other_examples_are_refused(held):
    runs = make_runs(held, seeds=1, probes=False)
    other = runs[1]._replace(examples=runs[1].examples | {"spanning": 1 - runs[1].examples["spanning"]})
    with pytest.raises(ValueError, match="looped was evaluated on other examples"):
        percolation_spanning.make_report()([runs[0], other])
    with pytest.raises(ValueError, match="at least one finished run"):
        percolation_spanning.make_report()([])
    with pytest.raises(ValueError, match="class_names: expected two"):
        percolation_spanning.make_report(class_names=("a",))
