"""Simulated Pu-Zr patterns: numbers, determinism, shared lattices, rotations, labels that fit the images."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from physml_jax.core.rng import example_key
from physml_jax.data import saed
from physml_jax.data.saed_phases import load_phases
from physml_jax.simulators.diffraction import peaks
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


@pytest.fixture(scope="module")
def read():
    """Patterns exactly along zone axes on a fixed grid, with the list of spots found in them; three rows per class."""
    dataset = saed.make_dataset(
        **SMALL, examples="stream", classes="balanced", level="clean", max_tilt_deg=0.0, grid=0.6, num_peaks=24
    )
    return dataset, rows(dataset, np.arange(27))


def test_spots_found_in_the_image_lie_on_the_lattice(read):
    """Products of a found vector with the cell's vectors are integers; not so for vectors at another scale."""
    dataset, found = read
    assert dataset.spec["spots"].shape == (24, 3) and "spots" in BATCH_KEYS and "zone_number" in BATCH_KEYS

    def misfit(row, factor=1.0):
        spots = found["spots"][row]
        vectors = spots[spots[:, 2] > 0, :2] * factor
        assert len(vectors) >= 2
        lab = np.concatenate([vectors, np.zeros((len(vectors), 1))], axis=1)
        cell = load_phases()[found["phase"][row]].crystal.cell
        indices = lab @ found["orientation"][row] @ np.asarray(lattice_vectors(cell)).T
        return np.abs(indices - np.round(indices)).max(1)

    cubic = [r for r in range(27) if found["phase"][r] in (2, 4, 5)]
    assert max(np.median(misfit(r)) for r in cubic) < 0.04
    assert max(np.median(misfit(r, 1.15)) for r in cubic) > 0.1
    heights = found["spots"][..., 2]
    assert np.allclose(heights[:, 0], 1) and np.all(np.diff(heights, axis=1) <= 1e-6)


def test_the_grid_is_calibrated(read):
    """Every image has the same scale, and the peaks of the resampled image are the spots of the recorded one."""
    _, found = read
    np.testing.assert_allclose(found["scale"], 2 * 0.6 / P, rtol=1e-5)
    np.testing.assert_allclose(found["true_scale"], found["scale"], rtol=1e-5)
    again = peaks.find_peaks(jnp.asarray(found["image"][..., 0]), num_peaks=30)
    vectors = (np.asarray(again.positions) - (P - 1) / 2) * found["scale"][:, None, None] * [1, -1]
    gaps = []
    for row in range(27):
        listed = found["spots"][row]
        listed = listed[(listed[:, 2] > 0.3) & (np.abs(listed[:, :2]).max(1) < 0.5), :2]
        gaps += np.linalg.norm(listed[:, None] - vectors[row][None], axis=2).min(1).tolist()
    assert len(gaps) > 50
    assert np.mean(np.array(gaps) < 0.5 * 2 * 0.6 / P) > 0.95


@pytest.mark.slow
def test_a_scale_error_moves_the_spots():
    """The believed scale is used: with 10 % of error the list is off by as much as the true scale says."""
    options = SMALL | {"examples": "stream", "classes": "balanced", "level": "clean", "num_peaks": 8}
    index = np.arange(9)
    right = rows(saed.make_dataset(**options, scale_error=0.0), index)
    wrong = rows(saed.make_dataset(**options, scale_error=0.1), index)
    ratio = wrong["true_scale"] / wrong["scale"]
    assert np.ptp(ratio) > 0.05
    lengths = [np.linalg.norm(x["spots"][:, 0, :2], axis=1) for x in (wrong, right)]
    same = np.abs(lengths[0] * ratio / lengths[1] - 1) < 0.03
    assert same.sum() >= 6 and np.abs(lengths[0] / lengths[1] - 1)[same].max() > 0.03


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"grid": 0.0}, "grid: expected None or a positive number"),
        ({"num_peaks": -1}, "num_peaks: expected 0 to below"),
        ({"max_offset": 0.6}, "max_offset: expected a number from 0 to below 0.5"),
    ],
)
def test_options_of_reading_are_checked(options, message):
    with pytest.raises(ValueError, match=message):
        saed.make_dataset(**options)


def test_zone_numbers_count_the_zones_of_a_phase(read):
    _, found = read
    counts = saed.zone_counts(1)
    assert len(counts) == 9
    assert all(0 <= n < counts[p] for n, p in zip(found["zone_number"], found["phase"], strict=True))
    pairs = {
        (int(p), int(n)): tuple(z) for p, n, z in zip(found["phase"], found["zone_number"], found["zone"], strict=True)
    }
    assert len(set(pairs.values())) > 3


def test_average_cells_share_a_lattice():
    """Deformed to the middle, the three hexagonal phases have one metal lattice; the others stay as they are."""
    deformed = saed.average_deformations()
    lengths = [p.crystal.cell[[0, 2]] * np.diagonal(f)[[0, 2]] for p, f in zip(load_phases(), deformed, strict=True)]
    for number, (along_a, along_c) in saed.SUBCELLS.items():
        np.testing.assert_allclose(lengths[number] / [along_a, along_c], [3.23, 5.165], rtol=1e-5)
    others = [i for i in range(9) if i not in saed.SUBCELLS]
    np.testing.assert_allclose(deformed[others], np.eye(3)[None].repeat(len(others), 0), atol=1e-6)
