import numpy as np
import pytest

from physml_jax.analysis import baselines


def images(seed, n, size=6):
    return np.random.default_rng(seed).normal(size=(n, size, size, 1)).astype(np.float32)


def test_mean_image_by_hand():
    x = np.zeros((2, 2, 2, 1), np.float32)
    x[0, 0, 0] = 1.0
    x[1, 0, 0] = 3.0
    x[1, 1, 1] = -4.0
    expected = np.array([[2.0, 0.0], [0.0, -2.0]], np.float32)[..., None]
    np.testing.assert_array_equal(baselines.mean_image(x), expected)


def test_mean_image_sums_in_double():
    x = np.full((4096, 1, 2, 1), 0.1, np.float32)
    np.testing.assert_array_equal(baselines.mean_image(x), np.full((1, 2, 1), np.float32(0.1)))


@pytest.mark.parametrize("chunk_size", [1, 3, 1000])
def test_nearest_is_found_whatever_the_scale_and_the_chunks(chunk_size):
    train = images(0, 11)
    order = np.array([7, 0, 10, 3])
    scale = np.array([2.0, 0.1, 30.0, 1.0], np.float32).reshape(4, 1, 1, 1)
    found = baselines.nearest_neighbour(train, scale * train[order] + 5, chunk_size=chunk_size)
    np.testing.assert_array_equal(found.index, order)
    np.testing.assert_array_equal(found.operation, 0)
    np.testing.assert_allclose(found.distance, 0, atol=2e-3)


def test_against_brute_force():
    train, test = images(0, 20), images(1, 9)
    corr = np.array([[np.corrcoef(a.ravel(), b.ravel())[0, 1] for b in train] for a in test])
    found = baselines.nearest_neighbour(train, test, chunk_size=4)
    np.testing.assert_array_equal(found.index, corr.argmax(axis=1))
    np.testing.assert_allclose(found.distance**2, 1 - corr.max(axis=1), atol=1e-5)


def test_dihedral_finds_the_turned_image_and_turns_the_pattern_alike():
    train, patterns = images(0, 5), images(2, 5)
    numbers = np.arange(8)
    rows = numbers % 5
    test = np.stack([baselines.DIHEDRAL[o](train[r]) for o, r in zip(numbers, rows, strict=True)])
    found = baselines.nearest_neighbour(train, test, dihedral=True, chunk_size=3)
    np.testing.assert_array_equal(found.index, rows)
    np.testing.assert_array_equal(found.operation, numbers)
    expected = np.stack([baselines.DIHEDRAL[o](patterns[r]) for o, r in zip(numbers, rows, strict=True)])
    np.testing.assert_array_equal(baselines.turn(patterns[found.index], found.operation), expected)
    plain = baselines.nearest_neighbour(train, test)
    assert plain.index[0] == 0 and np.all(plain.distance[1:] > 0.1)


def test_inverse_operations():
    x = images(0, 1)[0]
    for forth, back in zip(baselines.DIHEDRAL, baselines.INVERSE, strict=True):
        np.testing.assert_array_equal(baselines.DIHEDRAL[back](forth(x)), x)
    turned = {baselines.DIHEDRAL[i](x).tobytes() for i in range(8)}
    assert len(turned) == 8


def test_log_a_decides_between_equal_images():
    train = np.repeat(images(0, 1), 3, axis=0)
    log_a = np.log([4.0, 5.0, 6.0])
    near = {"train_log_a": log_a, "test_log_a": np.log([[5.9]])}
    assert baselines.nearest_neighbour(train, train[:1], **near, log_a_weight=1.0).index[0] == 2
    assert baselines.nearest_neighbour(train, train[:1], **near).index[0] == 0  # ties go to the lowest row
    found = baselines.nearest_neighbour(train[:1], train[:1], train_log_a=[0.0], test_log_a=[0.1], log_a_weight=4.0)
    assert found.distance[0] == pytest.approx(0.2, abs=1e-4)


def test_constant_images_are_far_from_everything_and_not_nan():
    train = images(0, 3)
    found = baselines.nearest_neighbour(train, np.full_like(train[:1], 0.1))
    assert found.distance[0] == pytest.approx(1.0)


@pytest.mark.parametrize(
    ("train", "test", "kwargs", "match"),
    [
        (np.zeros((0, 2, 2, 1)), np.zeros((1, 2, 2, 1)), {}, "train_inputs: expected at least one image"),
        (np.zeros((1, 2, 2, 1)), np.zeros((1, 3, 3, 1)), {}, "test_inputs: expected images of shape"),
        (np.zeros((1, 2, 3, 1)), np.zeros((1, 2, 3, 1)), {"dihedral": True}, "dihedral: expected square"),
        (np.full((1, 2, 2, 1), np.nan), np.zeros((1, 2, 2, 1)), {}, "train_inputs: 1 of 1 images"),
        (np.zeros((1, 2, 2, 1)), np.zeros((1, 2, 2, 1)), {"log_a_weight": 1.0}, "train_log_a: expected one number"),
        (np.zeros((1, 2, 2, 1)), np.zeros((1, 2, 2, 1)), {"log_a_weight": -1.0}, "log_a_weight"),
        (np.zeros((1, 2, 2, 1)), np.zeros((1, 2, 2, 1)), {"chunk_size": 0}, "chunk_size"),
    ],
)
def test_bad_input(train, test, kwargs, match):
    with pytest.raises(ValueError, match=match):
        baselines.nearest_neighbour(train, test, **kwargs)
