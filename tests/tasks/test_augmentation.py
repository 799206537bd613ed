"""Random symmetry operations: the right group, the same for all images of an example, one draw per example."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from physml_jax.tasks.augmentation import augment, symmetrise

ROWS = 200


def dihedral_images(x):
    return [np.rot90(y, k) for y in (x, x.T) for k in range(4)]


@pytest.fixture(scope="module")
def batch():
    image = jnp.asarray(np.random.default_rng(0).normal(size=(4, 4, 1)), jnp.float32)
    return {
        "potential": jnp.broadcast_to(image, (ROWS, 4, 4, 1)),
        "pattern": jnp.broadcast_to(image**2, (ROWS, 4, 4, 1)),
        "log_a": jnp.arange(float(ROWS)).reshape(ROWS, 1),
    }


@pytest.mark.parametrize(("group", "order"), [("none", 1), ("c2v", 4), ("dihedral", 8)])
def test_every_element_of_the_group_occurs_and_no_other(group, order, batch):
    out = jax.jit(lambda b: augment(jax.random.key(1), b, ("potential", "log_a", "pattern"), group=group))(batch)
    original = np.asarray(batch["potential"][0, :, :, 0])
    allowed = {
        "none": [original],
        "c2v": [original, original[::-1], original[:, ::-1], original[::-1, ::-1]],
        "dihedral": dihedral_images(original),
    }[group]
    counts = np.zeros(order, int)
    for row in np.asarray(out["potential"])[..., 0]:
        matches = [i for i, image in enumerate(allowed) if np.array_equal(row, image)]
        assert len(matches) == 1
        counts[matches[0]] += 1
    # Binomial(200, 1/order): five standard errors around the mean.
    mean, error = ROWS / order, np.sqrt(ROWS / order * (1 - 1 / order))
    assert np.all(np.abs(counts - mean) <= 5 * error)
    np.testing.assert_array_equal(out["pattern"], out["potential"] ** 2)
    np.testing.assert_array_equal(out["log_a"], batch["log_a"])


def test_the_key_decides(batch):
    run = lambda seed: augment(jax.random.key(seed), batch, ("potential",), group="dihedral")["potential"]
    np.testing.assert_array_equal(run(1), run(1))
    assert not np.array_equal(run(1), run(2))


def test_refusals(batch):
    with pytest.raises(ValueError, match="augment.*dihedral.*'rotate'"):
        augment(jax.random.key(0), batch, ("potential",), group="rotate")
    with pytest.raises(ValueError, match="square"):
        augment(jax.random.key(0), {"potential": jnp.ones((2, 4, 6, 1))}, ("potential",), group="dihedral")
    augment(jax.random.key(0), {"potential": jnp.ones((2, 4, 6, 1))}, ("potential",), group="c2v")


@pytest.mark.parametrize(("group", "operations"), [("none", 1), ("c2v", 4), ("dihedral", 8)])
def test_symmetrised_images_have_the_symmetry_and_stay_as_they_are(group, operations, key):
    x = jax.random.normal(key, (2, 6, 6, 1), jnp.float32)
    y = symmetrise(x, group=group)
    images = [x, x[:, ::-1], x[:, :, ::-1], x[:, ::-1, ::-1]]
    images += [image.transpose(0, 2, 1, 3) for image in images]
    np.testing.assert_allclose(y, np.mean(images[:operations], axis=0), rtol=0, atol=1e-6)
    np.testing.assert_allclose(symmetrise(y, group=group), y, rtol=0, atol=1e-6)


def test_symmetrise_refuses_an_unknown_group():
    with pytest.raises(ValueError, match="symmetry: expected one of none, c2v, dihedral"):
        symmetrise(jnp.zeros((1, 2, 2, 1)), group="d4")
