"""The Ising report on runs whose answers, and so whose boundaries, are known."""

import json

import numpy as np
import pytest
from matplotlib.figure import Figure

from physml_jax.analysis import ising as direct
from physml_jax.analysis import ising_literature as literature
from physml_jax.io import page
from physml_jax.reports import ising, ising_answers
from physml_jax.typing import Run

T = np.arange(0.2, 3.81, 0.2)
J2 = (0.0, 0.2, 0.5, 0.7, 1.0)
PHASES = literature.PHASES


def plane(size, *, num_replicas=4, seed=0, temperatures=T):
    """Ideal states with so many flipped spins that the order vanishes at the known temperatures, by batch key."""
    generator = np.random.default_rng(seed)
    spins, points = [], []
    for j2 in J2:
        phase = PHASES[j2 > 0.5]
        known = literature.KNOWN[phase][j2]
        images = direct.ideal_states(phase, size=size)
        for t in temperatures[::-1]:
            order = (1 - (t / known) ** 6) ** 0.125 if t < known else 0.0
            flipped = np.where(generator.random((num_replicas, size, size)) < (1 + order) / 2, 1, -1)
            spins.append(images[generator.integers(len(images), size=num_replicas)] * flipped)
            points += [(t, j2)] * num_replicas
    t, j2 = np.array(points, np.float32).T
    return {
        "spins": np.concatenate(spins).astype(np.int8)[..., None],
        "temperature": t,
        "j2": j2,
        "equilibrated": ((j2 != 0.5) | (t > 1)).astype(np.int32),
    }


def make_run(held, phase, *, member=0, region=True, noise=0.01):
    """A network that answers the nearest ideal state of its phase, with an error of its own."""
    generator = np.random.default_rng(member)
    states = held["spins"][..., 0]
    images = direct.ideal_states(phase, size=states.shape[1])
    shares = (states[:, None] != images[None]).mean(axis=(2, 3))
    epsilon = shares.min(axis=1) + generator.normal(0, noise, len(states))
    train = plane(states.shape[1], seed=9, temperatures=T[T <= 0.45])
    own = train["j2"] <= 0.4 if phase == PHASES[0] else train["j2"] >= 0.6
    latent = np.stack([1 - 2 * shares[:, 0], 1 - 2 * shares[:, -1], np.zeros(len(states))], axis=1)
    return Run(
        name=f"vae on {phase}" if member == 0 else f"vae on {phase} again",
        config={"data": {"kwargs": {"region": phase}}} if region else {},
        history=[{"step": 1, "loss": 1.0}, {"step": 2, "loss": 0.5}],
        examples=held,
        predictions={
            "epsilon": epsilon.astype(np.float32),
            "latent": latent.astype(np.float32),
            "reconstruction": images[shares.argmin(axis=1)][..., None],
            "generated": images[generator.integers(len(images), size=len(states))][..., None],
        },
        scores={},
        reference={k: v[own] for k, v in train.items()},
        member=member,
    )


@pytest.fixture(scope="module")
def held():
    return {size: plane(size, seed=size) for size in (8, 12)}


@pytest.fixture(scope="module")
def runs(held):
    return [make_run(held[size], phase, member=m) for size in held for phase in PHASES for m in range(2)]


@pytest.fixture(scope="module")
def report(runs):
    return ising.make_report(num_resamples=20)(runs)


def test_boundaries_are_those_that_were_put_in(report):
    json.dumps(report.metrics, allow_nan=False)
    for entry in report.metrics["regions"]:
        for name in ("VAE", "nearest training state", "order parameter"):
            away = entry["methods"][name]["away"]
            assert away["n"] == 2 and away["missing"] == 0 and away["largest"] < 0.2  # the jump is 0.2 wide
        for row in entry["methods"]["VAE"]["boundary"]:
            assert row["low"] <= row["temperature"] <= row["high"]
        assert entry["num_seeds"] == 2 and entry["found_on_the_other_side"] == []
    assert [(e["phase"], e["size"]) for e in report.metrics["regions"]] == [(p, s) for s in (8, 12) for p in PHASES]


def test_the_network_adds_nothing_here_and_the_report_says_so(report, held):
    entry = report.metrics["regions"][0]["beyond_the_order_parameter"]
    assert entry["rms_difference"] == pytest.approx(0.01, rel=0.1)
    assert entry["squared_correlation"]["mean"] > 0.99 and entry["boundary_difference_largest"] < 0.02
    assert any("the network finds the order parameter again" in line for line in report.summary)


def test_scores_by_phase(report, held):
    spins, t, j2 = (held[8][k] for k in ("spins", "temperature", "j2"))
    rows = {(r[0], r[1], r[2]): r[4:] for r in report.tables["scores"].rows}
    ferro = (j2 < 0.5) & (t < np.interp(j2, (0, 0.2), (2.269, 1.608)))
    disorder = (1 - np.abs(spins.mean(axis=(1, 2, 3)))) / 2
    ideal = rows["ferromagnet", 8, "nearest ideal state = (1 − order parameter)/2"]
    assert float(ideal[0]) == pytest.approx(disorder[ferro].mean(), abs=6e-4)
    mean = rows["ferromagnet", 8, "mean over training states"]
    assert all(abs(float(x) - 0.5) < 0.05 for x in mean)  # one half inside the phase too
    inside = report.metrics["regions"][0]["epsilon"]
    assert inside["ferromagnet"]["mean"] < 0.1 < 0.3 < inside["superantiferromagnet"]["mean"]


def test_latent_space_and_generated_states(report):
    entry = report.metrics["regions"][0]
    assert entry["latent"] == {"units": 3, "active": 2, "active_inside": pytest.approx(1, abs=1)}
    made = entry["generated"]
    assert made["j2"] == pytest.approx(0.2) and made["generated"] == {"energy": pytest.approx(-1.6), "order": 1.0}
    assert 0 <= made["share_within"] <= 1


def test_flags_and_exact_energies(report):
    data = report.metrics["data"]["L8"]
    assert data["not_equilibrated"] == {"0.5": 5}
    assert data["share_equilibrated"] == pytest.approx(1 - 5 / (len(T) * len(J2)))
    # Independent flips have no energy of neighbours above the transition: the check must see that these are no states.
    assert data["no_j2"]["rms_z"] > 3 and data["no_j2"]["exact_energy"][0] == pytest.approx(-2, abs=1e-3)


def test_sizes(report):
    entries = report.metrics["finite_size"]
    assert {(e["phase"], e["j2"]) for e in entries} == {
        ("ferromagnet", 0.0),
        ("ferromagnet", 0.2),
        ("superantiferromagnet", 0.7),
        ("superantiferromagnet", 1.0),
    }
    for e in entries:
        assert e["VAE"]["sizes"] == [8, 12] and abs(e["VAE"]["infinite"]["temperature"] - e["literature"]) < 0.3
    assert len(report.tables["finite_size"].rows) == 4


def test_figures_and_page(report, tmp_path):
    of_size = ("phase_diagram", "maps", "methods")
    of_phase = ("curves", "states", "latent", "generated", "generated_measures", "training")
    expected = {*of_size, *(f"{k}_L12" for k in of_size), "finite_size", "data"}
    expected |= {f"{k}_{p}" for k in of_phase for p in PHASES}
    assert set(report.figures) == expected and next(iter(report.figures)) == "phase_diagram"
    assert all(isinstance(f, Figure) and caption for f, caption in report.figures.values())
    few = {k: report.figures[k] for k in ("phase_diagram", "states_ferromagnet")}
    assert page.write_report(tmp_path, report._replace(figures=few)).is_file()


def test_one_region_and_what_is_missing(held):
    run = make_run(held[8], PHASES[1], region=False)
    bare = run._replace(
        predictions={"epsilon": run.predictions["epsilon"]},
        history=[],
        examples={k: v for k, v in held[8].items() if k != "equilibrated"},
    )
    found = ising.make_report(num_resamples=0, rule="steepest")([bare])
    assert found.metrics["regions"][0]["phase"] == PHASES[1]  # from the training states
    assert set(found.figures) == {"phase_diagram", "maps", "methods", f"curves_{PHASES[1]}", "data"}
    assert (
        found.metrics["regions"][0]["spread_over_seeds"] is None
        and found.metrics["data"]["L8"]["share_equilibrated"] == 1
    )
    assert "finite_size" not in found.tables


def test_a_network_that_knows_every_phase_is_found_out(held):
    run = make_run(held[8], PHASES[0])
    other = make_run(held[8], PHASES[1])
    fooled = np.minimum(run.predictions["epsilon"], other.predictions["epsilon"])
    found = ising.make_report(num_resamples=0)([run._replace(predictions={"epsilon": fooled})])
    assert found.metrics["regions"][0]["found_on_the_other_side"] == [0.7, 1.0]
    assert any("takes states of the other phase for its own at J2 = 0.7, 1" in line for line in found.summary)


def test_pictures_are_chosen_by_rule(runs):
    a = ising_answers.answers(runs[:1], epsilon="epsilon", rule="half", num_references=8, num_resamples=0)[0]
    from physml_jax.reports.ising_figures import pick

    for i, name in pick(a):
        here = (a.states.temperature == a.states.temperature[i]) & (a.states.j2 == a.states.j2[i])
        assert np.sum(a.epsilon[0, here] < a.epsilon[0, i]) == 2  # of four, the upper median
        known = [literature.transition_temperature(p, a.states.j2[i : i + 1])[0] for p in PHASES]
        if name in PHASES:
            assert a.states.temperature[i] < known[PHASES.index(name)]


@pytest.mark.parametrize(
    ("change", "match"),
    [
        ({"predictions": {}}, "predictions lack 'epsilon'; they hold: nothing"),
        ({"predictions": {"epsilon": np.full(380, np.nan)}}, r"expected finite 'epsilon' \[380\]"),
        ({"reference": {}}, "reference lack 'spins'"),
        ({"examples": {}}, "examples lack 'spins'"),
    ],
)
def test_bad_input(held, change, match):
    run = make_run(held[8], PHASES[0])
    with pytest.raises(ValueError, match=match):
        ising.make_report()([run._replace(**change)])


def test_runs_that_do_not_belong_together(held):
    run, other = (make_run(held[8], PHASES[0], member=m) for m in range(2))
    moved = other._replace(examples=other.examples | {"spins": -other.examples["spins"]})
    with pytest.raises(ValueError, match="again was evaluated on other states of L = 8"):
        ising.make_report()([run, moved])
    with pytest.raises(ValueError, match="ferromagnet at L = 8 are different models"):
        ising.make_report()([run, other._replace(config=run.config | {"model": {"name": "vae"}})])
    with pytest.raises(ValueError, match="at least one finished run"):
        ising.make_report()([])
    with pytest.raises(ValueError, match="rule: expected 'critical', 'half' or 'steepest', got 'slope'"):
        ising.make_report(rule="slope")
    random = np.where(np.random.default_rng(0).random((20, 8, 8, 1)) < 0.5, -1, 1).astype(np.int8)
    with pytest.raises(ValueError, match="training states have no order"):
        ising.make_report()([run._replace(config={}, reference={"spins": random})])
