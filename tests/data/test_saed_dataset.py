"""Simulated Pu-Zr patterns: numbers, determinism, shared lattices, rotations, labels that fit the images."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from physml_jax.core.rng import example_key
from physml_jax.data import saed
from physml_jax.data.saed_phases import load_phases
from physml_jax.simulators.diffraction.crystal import lattice_vectors
from physml_jax.typing import BATCH_KEYS

P = 48
SMALL = {"pixels": P, "num_spots": 32, "max_g": 0.8, "extent": (0.5, 0.7), "max_zone_index": 1}


def rows(dataset, index, seed=0, split="train"):
    index = jnp.asarray(index, jnp.int32)
    return jax.tree.map(np.asarray, jax.jit(dataset.sample)(example_key(seed, split, index), index))


@pytest.fixture(scope="module")
def twin():
    return saed.make_dataset(**SMALL, level="distorted", num_rotations=4)


def test_numbers_of_the_published_table():
    """590 and 148 images; every class as often as published."""
    phases = load_phases()
    assert [p.num_train for p in phases] == [235, 36, 194, 17, 19, 25, 4, 34, 26]
    for split, total in (("train", 590), ("test", 148), ("validation", 148)):
        assert saed.make_dataset(**SMALL, split=split).num_examples == total
    assert saed.make_dataset(**SMALL, num_rotations=24).num_examples == 14160


def test_rows(twin):
    """Spec, finite images from 0 to 1, and rows that depend on the index only: not on order, batch or seed."""
    index = [0, 1, 4 * 235 + 2, 2359]
    found = rows(twin, index)
    for key, spec in twin.spec.items():
        assert key in BATCH_KEYS
        assert found[key].shape == (4, *spec.shape) and found[key].dtype == spec.dtype, key
    assert np.isfinite(found["image"]).all() and found["image"].min() >= 0 and found["image"].max() <= 1
    assert found["phase"].tolist() == [0, 0, 1, 8]
    again = rows(twin, index[::-1], seed=7)
    for key in found:
        np.testing.assert_allclose(again[key][::-1], found[key], atol=0.02 if key == "image" else 1e-6)
    assert np.abs(found["true_scale"] / found["scale"] - 1).max() <= 0.02
    assert ((found["scale"] * P / 2 >= 0.5) & (found["scale"] * P / 2 <= 0.7)).all()
    np.testing.assert_allclose(
        found["orientation"] @ found["orientation"].swapaxes(1, 2), np.eye(3)[None].repeat(4, 0), atol=1e-5
    )


def test_rotated_copies_are_turned(twin):
    """Four quarter turns of one image: the same picture under rot90, but for its noise."""
    found = rows(twin, [40, 41, 42, 43])
    for k in range(4):
        np.testing.assert_allclose(found["orientation"][k, 2], found["orientation"][0, 2], atol=1e-5)
        a, b = np.rot90(found["image"][0, ..., 0], k), found["image"][k, ..., 0]
        plain = found["image"][0, ..., 0]
        assert np.corrcoef(a.ravel(), b.ravel())[0, 1] > 0.9, k
        assert k == 0 or np.corrcoef(a.ravel(), b.ravel())[0, 1] > np.corrcoef(plain.ravel(), b.ravel())[0, 1] + 0.02


def test_stream_is_balanced_and_splits_differ():
    stream = saed.make_dataset(**SMALL, examples="stream", classes="balanced", level="clean")
    assert stream.num_examples is None
    found = rows(stream, np.arange(18))
    assert found["phase"].tolist() == list(range(9)) * 2
    other = rows(stream, np.arange(18), seed=1)
    assert np.abs(found["image"] - other["image"]).max((1, 2, 3)).min() > 0.05
    # Zones of the drawn phase lie along the beam up to the tilt: R_z . [uvw] > cos(3 degrees).
    for phase, zone, rotation in zip(found["phase"], found["zone"], found["orientation"], strict=True):
        cell = load_phases()[phase].crystal.cell
        axis = zone @ np.asarray(lattice_vectors(cell))
        assert rotation[2] @ axis / np.linalg.norm(axis) > np.cos(np.deg2rad(3.01))


def test_drawn_with_the_published_frequencies():
    """The classes of 2048 examples: chi-square against the table (8 degrees of freedom)."""
    stream = saed.make_dataset(**SMALL, examples="stream", orientation="uniform", level="clean")
    index = jnp.arange(2048, dtype=jnp.int32)
    program = jax.jit(lambda k, i: stream.sample(k, i)["phase"])
    counts = np.bincount(program(example_key(0, "train", index), index), minlength=9)
    expected = np.array([235, 36, 194, 17, 19, 25, 4, 34, 26]) / 590 * 2048
    assert ((counts - expected) ** 2 / expected).sum() < 40
    assert not (((counts - 2048 / 9) ** 2 / (2048 / 9)).sum() < 40)


def test_hexagonal_phases_share_their_lattice():
    """After deformation the subcells of classes 0, 6 and 7 are the same function of the drawn numbers."""
    phases = load_phases()
    numbers = jnp.asarray([[0.0, 0.0], [0.3, 0.9]])
    lengths = {}
    for number, (along_a, along_c) in saed.SUBCELLS.items():
        d = np.asarray(saed._deformations(numbers, jnp.full(2, number), phases))
        cell = phases[number].crystal.cell
        lengths[number] = np.stack([d[:, 0, 0] * cell[0] / along_a, d[:, 2, 2] * cell[2] / along_c], 1)
    for values in lengths.values():
        np.testing.assert_allclose(values, [[3.21, 5.13], [3.222, 5.193]], rtol=1e-5)
    # Nearest neighbours in the basal plane of the listed cells differ by 1 %, which would give the class away.
    listed = [phases[n].crystal.cell[0] / a for n, (a, _) in saed.SUBCELLS.items()]
    assert max(listed) / min(listed) > 1.01
    other = np.asarray(saed._deformations(numbers, jnp.full(2, 2), phases))
    np.testing.assert_allclose(other[:, 0, 0], [0.997, 0.9988], rtol=1e-5)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"examples": "real"}, "examples: there is no 'real'"),
        ({"level": "easy"}, "level: there is no 'easy'"),
        ({"classes": "rare"}, "classes: there is no 'rare'"),
        ({"orientation": "random"}, "orientation: there is no 'random'"),
        ({"num_examples": 3}, "num_examples: the twin has"),
        ({"examples": "stream", "num_rotations": 24}, "num_rotations: expected"),
        ({"extent": (1.0, 0.5)}, "extent: expected"),
        ({"scale_error": -0.1}, "scale_error: expected"),
        ({"max_tilt_deg": 91.0}, "max_tilt_deg: expected"),
        ({"pixels": 4}, "pixels: expected"),
    ],
)
def test_bad_options(options, message):
    with pytest.raises(ValueError, match=message):
        saed.make_dataset(**(SMALL | options))
