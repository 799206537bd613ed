"""Variants of the SAED configs that test_configs.py does not know: published sizes, streams, folders, weight files."""

import importlib
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from configs import saed_cnn
from physml_jax.core import resolve
from physml_jax.data import saed
from physml_jax.data.saed_phases import load_phases
from physml_jax.training import loop, setup


def get_config(name, arg):
    return importlib.import_module(f"configs.{name}").get_config(arg)


def test_numbers_that_the_configs_repeat():
    assert tuple(p.num_train for p in load_phases()) == saed_cnn.TRAINING
    assert max(saed.zone_counts(2)) == saed_cnn.ZONES


@pytest.mark.parametrize(
    ("name", "parameters"),
    [
        ("saed_cnn", 265_385),
        ("saed_resnet50", 23_520_201),
        pytest.param("saed_vgg16", 1_342_255_817, marks=pytest.mark.slow),
        pytest.param("saed_efficientnet", 10_709_345, marks=pytest.mark.slow),
        pytest.param("saed_vit", 302_786_569, marks=pytest.mark.slow),
    ],
)
def test_published_sizes(name, parameters):
    """:paper is the network of the published table, to the parameter, at its size of picture."""
    c = get_config(name, "paper")
    model = resolve.factory("model", c.model.name)(**c.model.kwargs)
    pixels = c.data.kwargs.pixels
    image = jax.ShapeDtypeStruct((1, pixels, pixels, 1), jnp.float32)
    variables = jax.eval_shape(lambda x: model.init(jax.random.key(0), x, train=False), image)
    assert sum(math.prod(p.shape) for p in jax.tree.leaves(variables["params"])) == parameters
    assert (pixels, c.data.batch_size, c.num_seeds) == (224 if name == "saed_vit" else 800, 32, 10)
    assert c.train.num_steps == 20 * 14160 // 32 and c.optim.learning_rate == 1e-3


@pytest.mark.parametrize("name", ["saed_spots", pytest.param("saed_polar", marks=pytest.mark.slow)])
def test_streams_learn_zones(name):
    """One traced step with 29 outputs per phase; probes change what they say."""
    experiment = setup.build(get_config(name, "stream"))
    spec = setup.train_spec(experiment)
    state = jax.eval_shape(lambda: loop.init_state(experiment, spec))
    jax.eval_shape(experiment.task.step, state, spec, jax.random.key(0))
    answer = jax.eval_shape(experiment.task.predict, state, spec, jax.random.key(0))
    assert answer["sublogits"].shape == (36, 9, 29)
    assert experiment.datasets["test"].num_examples == 1800
    assert experiment.datasets["probe/scale_25"].num_examples == 900
    assert ("spots" in spec) == (name == "saed_spots")


def test_own_images(tmp_path):
    """:folder trains on the files of a table, in 24 rotations, and is judged on a fifth of every class."""
    lines = ["file,label"]
    for i in range(10):
        np.save(tmp_path / f"{i}.npy", np.random.default_rng(i).uniform(size=(20, 20)))
        lines.append(f"{i}.npy,{'fcc' if i % 2 else 'hcp'}")
    (tmp_path / "labels.csv").write_text("\n".join(lines))
    c = get_config("saed_cnn", "folder")
    c.data.kwargs.table = str(tmp_path / "labels.csv")
    c.data.kwargs.pixels, c.data.kwargs.crop = 16, 16
    experiment = setup.build(c)
    numbers = {split: d.num_examples for split, d in experiment.datasets.items()}
    assert numbers == {"train": 8 * 24, "validation": 2, "test": 2}
    np.testing.assert_array_equal(experiment.datasets["validation"].rows, experiment.datasets["test"].rows)
    assert not set(experiment.datasets["test"].rows) & set(experiment.datasets["train"].rows)
    c.data.kwargs.table = str(tmp_path / "nothing.csv")
    with pytest.raises(ValueError, match="table: there is no file"):
        setup.build(c)


@pytest.mark.parametrize("name", ["saed_resnet50", "saed_vgg16", "saed_efficientnet", "saed_vit"])
def test_frozen_wants_a_weight_file(name):
    """:frozen names the file as an option, and trains nothing but a module that the network has."""
    c = get_config(name, "frozen")
    with pytest.raises(ValueError, match=r"model\.kwargs\.weights: there is no file weights\.safetensors"):
        setup.build(c)
    assert c.optim.frozen == ("(?!Dense_0/)",) if name == "saed_resnet50" else ("(?!head/)",)
    assert c.model.kwargs.family == {"saed_vgg16": "vgg", "saed_resnet50": "resnet"}.get(name, name[5:])
