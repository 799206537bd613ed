"""Orientations: conventions by explicit matrices, uniformity on SO(3) and on the fundamental zone, zone axes."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.stats

from physml_jax.data.saed_phases import load_phases
from physml_jax.simulators.diffraction import orientations as turns
from physml_jax.simulators.diffraction.crystal import beam_frame, lattice_vectors

PHASES = load_phases()
#: rotations of the Laue class of every phase
ORDERS = [12, 2, 24, 12, 24, 24, 6, 6, 2]
NUM = 6000


@pytest.fixture(scope="module")
def uniform():
    return np.asarray(jax.jit(turns.uniform)(jax.random.split(jax.random.key(11), NUM)), np.float64)


def angles(rotations):
    return np.arccos(np.clip((np.trace(rotations, axis1=-2, axis2=-1) - 1) / 2, -1, 1))


def is_rotation(matrices, atol=2e-6):
    matrices = np.asarray(matrices, np.float64)
    np.testing.assert_allclose(
        matrices @ matrices.swapaxes(-1, -2), np.broadcast_to(np.eye(3), matrices.shape), atol=atol
    )
    np.testing.assert_allclose(np.linalg.det(matrices), 1.0, atol=atol)


def test_conventions_by_explicit_matrices():
    quarter = np.pi / 2
    np.testing.assert_allclose(turns.about_beam(jnp.float32(quarter)), [[0, -1, 0], [1, 0, 0], [0, 0, 1]], atol=1e-6)
    np.testing.assert_allclose(turns.tilt(jnp.array([quarter, 0.0])), [[1, 0, 0], [0, 0, -1], [0, 1, 0]], atol=1e-6)
    np.testing.assert_allclose(turns.tilt(jnp.array([0.0, quarter])), [[0, 0, 1], [0, 1, 0], [-1, 0, 0]], atol=1e-6)
    np.testing.assert_array_equal(turns.tilt(jnp.zeros(2)), np.eye(3))
    half = np.sqrt(0.5)
    np.testing.assert_allclose(
        turns.from_quaternion(jnp.array([half, 0, 0, half])), [[0, -1, 0], [1, 0, 0], [0, 0, 1]], atol=1e-6
    )
    # The derivative at no tilt is the generator: g_z changes by + t_x g_y - t_y g_x.
    slope = jax.jacfwd(turns.tilt)(jnp.zeros(2))
    np.testing.assert_allclose(slope[..., 0], [[0, 0, 0], [0, 0, -1], [0, 1, 0]], atol=1e-7)
    np.testing.assert_allclose(slope[..., 1], [[0, 0, 1], [0, 0, 0], [-1, 0, 0]], atol=1e-7)


@pytest.mark.parametrize("number", [0, 8])
def test_zone_axis_along_the_beam(number):
    crystal = PHASES[number].crystal
    vectors = np.asarray(lattice_vectors(crystal.cell))
    for uvw in ((0, 0, 1), (1, 0, 0), (2, -1, 3)):
        matrix = np.asarray(turns.zone_axis_orientation(crystal, uvw), np.float64)
        is_rotation(matrix)
        np.testing.assert_array_equal(turns.zone_axis_orientation(crystal, uvw), beam_frame(crystal.cell, uvw))
        direction = np.array(uvw) @ vectors
        np.testing.assert_allclose(matrix @ direction, [0, 0, np.linalg.norm(direction)], atol=1e-5)
        # a (or b) lies in the plane of the beam and x, on its positive side.
        across = matrix @ vectors[0 if uvw != (1, 0, 0) else 1]
        assert abs(across[1]) < 1e-5 and across[0] > 0
        turned = np.asarray(turns.zone_axis_orientation(crystal, uvw, np.deg2rad(30)), np.float64) @ matrix.T
        np.testing.assert_allclose(turned[:2, :2], [[np.sqrt(0.75), -0.5], [0.5, np.sqrt(0.75)]], atol=1e-5)
    with pytest.raises(ValueError, match="zone_axis: expected"):
        turns.zone_axis_orientation(crystal, (0, 0, 0))


def test_uniform_on_all_rotations(uniform):
    is_rotation(uniform[:100])
    # Haar measure: density (1 - cos w) / pi of the angle; every image of a vector uniform on the sphere; all moments
    # of the matrix elements of order two.
    w = angles(uniform)
    assert scipy.stats.kstest(w, lambda x: (x - np.sin(x)) / np.pi).pvalue > 1e-3
    for element in uniform.reshape(NUM, 9).T:
        assert scipy.stats.kstest(element, scipy.stats.uniform(-1, 2).cdf).pvalue > 1e-4
    moments = np.einsum("bi,bj->ij", uniform.reshape(NUM, 9), uniform.reshape(NUM, 9)) / NUM
    np.testing.assert_allclose(moments, np.eye(9) / 3, atol=5 / np.sqrt(NUM) / 2)
    # The usual mistake, a cube of quaternions instead of a sphere, is found.
    cube = jax.random.uniform(jax.random.key(1), (NUM, 4), minval=-1.0)
    wrong = angles(np.asarray(turns.from_quaternion(cube), np.float64))
    assert scipy.stats.kstest(wrong, lambda x: (x - np.sin(x)) / np.pi).pvalue < 1e-3


@pytest.mark.slow
def test_one_key_one_orientation():
    keys = jax.random.split(jax.random.key(2), 6)
    both = turns.uniform(keys)
    np.testing.assert_array_equal(both[2:4], turns.uniform(keys[2:4]))
    frame = jnp.eye(3)
    near = turns.near_zone_axes(keys, frame, max_tilt_deg=1.0)
    np.testing.assert_array_equal(near[2:4], turns.near_zone_axes(keys[2:4], frame, max_tilt_deg=1.0))


@pytest.mark.parametrize("number", range(9))
def test_laue_rotations(number):
    crystal = PHASES[number].crystal
    rotations = turns.laue_rotations(crystal)
    assert len(rotations) == ORDERS[number]
    np.testing.assert_allclose(rotations[0], np.eye(3), atol=1e-9)
    is_rotation(rotations, atol=1e-5)
    products = (rotations[:, None] @ rotations[None]).reshape(-1, 9)  # closed under composition
    distance = np.abs(products[:, None] - rotations.reshape(1, -1, 9)).max(-1)
    assert (distance.min(1) < 1e-5).all()
    # Each maps the lattice onto itself.
    vectors = np.asarray(lattice_vectors(crystal.cell), np.float64)
    images = np.einsum("mij,kj->mki", rotations, vectors) @ np.linalg.inv(vectors)
    np.testing.assert_allclose(images, np.round(images), atol=1e-4)


@pytest.mark.parametrize("number", [2, 6])
def test_fundamental_zone(number, uniform):
    rotations = turns.laue_rotations(PHASES[number].crystal)
    order = len(rotations)
    reduced = np.asarray(turns.to_fundamental_zone(jnp.asarray(uniform, jnp.float32), rotations), np.float64)
    # An equivalent orientation, and no equivalent one turns less.
    steps = np.einsum("bji,bjk->bik", uniform, reduced)
    assert (np.abs(steps[:, None] - rotations[None]).max((-1, -2)).min(1) < 1e-5).all()
    others = angles(np.einsum("bij,mjk->bmik", reduced, rotations))
    assert (angles(reduced) <= others.min(1) + 1e-4).all()
    # Equivalent orientations have one representative.
    moved = jnp.asarray(uniform @ rotations[order // 2], jnp.float32)
    np.testing.assert_allclose(turns.to_fundamental_zone(moved, rotations), reduced, atol=1e-5)
    # Small turns are as frequent as on SO(3), times the order of the group.
    small = np.deg2rad(25.0)
    expected = order * (small - np.sin(small)) / np.pi
    assert abs((angles(reduced) < small).mean() - expected) < 5 * np.sqrt(expected / NUM)
    largest = {24: 62.8, 6: 104.48}[order]
    assert np.rad2deg(angles(reduced).max()) < largest + 0.01


def test_near_zone_axes():
    keys = jax.random.split(jax.random.key(5), 4000)
    frame = turns.zone_axis_orientation(PHASES[8].crystal, (0, 1, 1))
    near = np.asarray(jax.jit(lambda k: turns.near_zone_axes(k, frame, max_tilt_deg=3.0))(keys), np.float64)
    is_rotation(near[:50])
    axis = near @ np.asarray(frame, np.float64)[2]  # where the zone axis points
    off = np.rad2deg(np.arccos(np.clip(axis[:, 2], -1, 1)))
    assert off.max() <= 3.01
    assert scipy.stats.kstest(off**2, scipy.stats.uniform(0, 9).cdf).pvalue > 1e-3
    turn = np.arctan2(axis[:, 1], axis[:, 0])
    assert scipy.stats.kstest(turn, scipy.stats.uniform(-np.pi, 2 * np.pi).cdf).pvalue > 1e-3
    in_plane = near @ np.asarray(frame, np.float64)[0]
    azimuth = np.arctan2(in_plane[:, 1], in_plane[:, 0])
    assert scipy.stats.kstest(azimuth, scipy.stats.uniform(-np.pi, 2 * np.pi).cdf).pvalue > 1e-3
    sizes = jnp.concatenate([jnp.zeros(2000), jnp.full(2000, 3.0)])
    own = np.asarray(turns.near_zone_axes(keys, frame, max_tilt_deg=sizes))
    np.testing.assert_allclose(own[:2000, 2], np.broadcast_to(frame[2], (2000, 3)), atol=2e-6)
    assert np.abs(own[2000:, 2] - np.asarray(frame)[2]).max() > 0.03


def test_zone_axes():
    cubic = turns.zone_axes(PHASES[5].crystal)
    assert cubic.uvw.tolist() == [[0, 0, 1], [0, 1, 1], [1, 1, 1], [0, 1, 2], [1, 1, 2], [1, 2, 2]]
    assert cubic.multiplicities.tolist() == [6, 12, 8, 24, 24, 24]
    for phase, order in zip(PHASES, ORDERS, strict=True):
        both, one = (
            turns.zone_axes(phase.crystal, max_index=1),
            turns.zone_axes(phase.crystal, max_index=1, directed=True),
        )
        assert both.multiplicities.sum() >= 26  # a hexagonal family has indices beyond max_index as well
        assert (both.multiplicities <= 2 * order).all() and (one.multiplicities <= order).all()
        assert len(both.uvw) <= len(one.uvw) <= 2 * len(both.uvw)
        for uvw, frame in zip(both.uvw, both.orientations, strict=True):
            np.testing.assert_allclose(frame, turns.zone_axis_orientation(phase.crystal, tuple(uvw)), atol=2e-6)
    with pytest.raises(ValueError, match="max_index: expected"):
        turns.zone_axes(PHASES[0].crystal, max_index=0)


def test_phases():
    """The classes with the published numbers of images, and the content that their formulas state."""
    assert [p.num_train for p in PHASES] == [235, 36, 194, 17, 19, 25, 4, 34, 26]
    assert [p.num_test for p in PHASES] == [61, 6, 47, 7, 4, 10, 2, 8, 3]
    assert [p.crystal.occupancies.sum() for p in PHASES] == pytest.approx([2, 34, 4, 3, 8, 12, 48, 24, 12])
    assert [p.info.space_group for p in PHASES] == [194, 12, 225, 191, 225, 225, 155, 167, 14]
    assert all(p.info.source and p.confidence for p in PHASES)
    with pytest.raises(ValueError, match="b_iso: expected"):
        load_phases(b_iso=-1.0)
