import jax
import numpy as np
import pytest

from configs import base, percolation_density
from physml_jax.training import loop, setup, sharding


def config():
    return setup.plain(percolation_density.get_config("smoke"))


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        ("data.name", "percolatoin", r"no data 'percolatoin'.*percolation"),
        ("model.name", "resnet50", r"no model 'resnet50'.*resnet"),
        ("task.name", "x", r"no task 'x'.*classification"),
        ("report.name", "x", r"no report 'x'.*classification"),
        ("data.kwargs", {"sice": 3}, r"data.kwargs: unknown sice.*size"),
        ("data.eval_kwargs", {"sice": 3}, r"data.eval_kwargs: unknown sice"),
        ("model.kwargs", {"deph": 3}, r"model.kwargs: unknown deph.*depth"),
        ("task.kwargs", {"lable": 3}, r"task.kwargs: unknown lable.*label"),
        ("report.kwargs", {"nothing": 3}, r"report.kwargs: unknown nothing"),
        ("model.kwargs.depth", 11, r"model.kwargs.depth"),
    ],
)
def test_a_wrong_entry_is_named_with_what_exists(path, value, message):
    changed = config()
    *parents, last = path.split(".")
    node = changed
    for key in parents:
        node = node[key]
    node[last] = value
    with pytest.raises(ValueError, match=message):
        setup.build(changed)


def test_a_missing_section_is_named():
    changed = config()
    del changed["optim"]
    with pytest.raises(ValueError, match="missing optim"):
        setup.build(changed)


def test_an_unlimited_stream_cannot_be_stored():
    changed = config()
    changed["data"]["source"] = "stored"
    with pytest.raises(ValueError, match="unlimited"):
        setup.recipe(setup.build(changed), "train")


def test_a_source_of_another_name():
    changed = config()
    changed["data"]["source"] = "disk"
    with pytest.raises(ValueError, match="data.source"):
        setup.recipe(setup.build(changed), "train")


def test_simulated_data_need_no_recipe():
    assert setup.recipes(setup.build(config())) == []


def test_the_base_config_is_no_experiment():
    with pytest.raises(ValueError, match=r"no data ''"):
        setup.build(base.get_config())


def test_the_users_own_module_is_reached_by_its_dotted_name(tmp_path, monkeypatch):
    (tmp_path / "my_lab_models.py").write_text(
        "from physml_jax.models.resnet import make_model as resnet\n"
        "def make_model(*, num_classes): return resnet(depth=10, num_classes=num_classes, width=2)\n"
    )
    (tmp_path / "my_lab").mkdir()
    (tmp_path / "my_lab" / "__init__.py").write_text("")
    (tmp_path / "my_lab_models.py").rename(tmp_path / "my_lab" / "models.py")
    monkeypatch.syspath_prepend(tmp_path)
    changed = config()
    changed["model"] = {"name": "my_lab.models", "kwargs": {"num_classes": 9}}
    setup.build(changed)


@pytest.mark.slow
def test_probes_are_extra_evaluation_sets(tmp_path):
    """A probe replaces arguments of the evaluation splits; it may have another size; its answers come with the run."""
    changed = config()
    changed["model"] = {"name": "tests.tiny_model", "kwargs": {"num_classes": 9}}
    changed["data"]["probes"] = {"larger": {"size": 12, "num_examples": 10}, "sparse": {"densities": (0.1,)}}
    changed["data"]["test_kwargs"] = {"num_examples": 20}
    experiment = setup.build(changed)
    assert experiment.datasets["probe/larger"].spec["image"].shape == (12, 12, 1)
    assert experiment.datasets["test"].num_examples == 20
    mesh = sharding.make_mesh()
    sources = setup.open_sources(experiment, mesh)
    state = jax.jit(lambda: loop.init_state(experiment, setup.train_spec(experiment)))()
    (tmp_path / loop.METRICS).touch()
    (run,) = loop.finished_runs(experiment, sources, state, tmp_path)
    assert run.probes["larger"].examples["image"].shape == (10, 12, 12, 1)
    assert run.probes["larger"].predictions["logits"].shape[0] == 10
    assert set(np.unique(run.probes["sparse"].examples["label"])) == {0}
    assert len(run.scores["accuracy"]) == 20


def test_an_unknown_argument_of_a_probe_is_named():
    changed = config()
    changed["data"]["probes"] = {"larger": {"sise": 12}}
    with pytest.raises(ValueError, match=r"data.probes.larger: unknown sise"):
        setup.build(changed)
