"""Projected potentials against a direct Fourier sum over three-dimensional space, and their symmetry."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from physml_jax.data.crystals import bundled_cifs
from physml_jax.io.cif import read_cif
from physml_jax.simulators.diffraction import crystal as geometry
from physml_jax.simulators.diffraction import potential, scattering
from physml_jax.simulators.diffraction.crystal import Crystal

enable_x64 = jax.enable_x64 if hasattr(jax, "enable_x64") else jax.experimental.enable_x64

CIFS = {p.name.split("_COD")[0]: p for p in bundled_cifs()}


def projected(crystal, *, zone_axis=(0, 0, 1), **kwargs):
    """Double precision, compiled (a program per shape), without the operations (one program for more crystals)."""
    axes = potential.projection_axes(crystal.cell, zone_axis)
    crystal = crystal._replace(rotations=None, translations=None)
    with enable_x64(True):
        return np.asarray(jax.jit(lambda c: potential.projected_potential(c, axes=axes, **kwargs))(crystal))


@jax.jit
def structure_factors(crystal, hkl):
    return scattering.structure_factors(crystal, hkl)


@pytest.mark.parametrize(
    ("name", "zone_axis"),
    [
        ("205_FeS2", (0, 0, 1)),
        ("221_O3SrTi", (1, 1, 0)),
        ("216_SZn", (1, 1, 1)),
        ("180_O2Si", (2, 1, 0)),
        ("014_AlF6Na3", (1, 0, 1)),
    ],
)
def test_mean_along_the_zone_axis(name, zone_axis):
    # The average of the three-dimensional potential over points along the zone axis, with all reflections of a box.
    crystal = read_cif(CIFS[name], default_b_iso=1.5)
    axes = potential.projection_axes(crystal.cell, zone_axis)
    assert round(np.linalg.det(axes)) == 1
    box = np.stack(np.meshgrid(*[np.arange(-6, 7)] * 3, indexing="ij"), axis=-1).reshape(-1, 3)
    box = box[(np.abs(box @ axes[0]) <= 3) & (np.abs(box @ axes[1]) <= 3)]
    with enable_x64(True):
        v = np.asarray(structure_factors(crystal, box))
        v = v * scattering.POTENTIAL_FACTOR / float(geometry.volume(crystal.cell))
    height, width = 7, 7
    image = projected(crystal, zone_axis=zone_axis, shape=(height, width))
    steps = np.arange(64) / 64
    for i, j in ((0, 0), (2, 5), (6, 3)):
        points = (j + 0.5) / width * axes[0] + (i + 0.5) / height * axes[1] + steps[:, None] * axes[2]
        line = np.exp(2j * np.pi * points @ box.T) @ v
        # The box cuts the zone layer's reflections at 6 where the grid has them all.
        inside = np.abs(np.linalg.inv(axes).T[:2].T @ np.array([3, 3])).max() <= 6
        assert inside
        assert image[i, j] == pytest.approx(line.mean().real, abs=1e-8)
        assert abs(line.mean().imag) < 1e-8


@pytest.mark.parametrize("zone_axis", [(0, 0, 1), (0, 1, 1), (1, 2, 3)])
def test_mean_is_the_mean_inner_potential(zone_axis):
    crystal = read_cif(CIFS["227_Si"])
    image = projected(crystal, zone_axis=zone_axis, shape=(24, 20))
    mean = np.asarray(structure_factors(crystal, np.zeros((1, 3)))).real[0] * 47.8776 / crystal.cell[0] ** 3
    assert image.mean() == pytest.approx(mean, rel=1e-5)
    assert image.max() > 3 * mean


def test_pixels_and_axes():
    # One atom at (0.3, 0.1): the maximum is at the pixel that holds it, x along the second axis of the array.
    cell = np.array([4.0, 4.0, 4.0, 90, 90, 90])
    one = Crystal(
        cell, np.array([[0.3, 0.1, 0.7]]), np.array([79]), np.ones(1), np.full(1, 0.5), np.zeros((1, 6)),
        np.eye(3, dtype=np.int32)[None], np.zeros((1, 3)),
    )  # fmt: skip
    image = projected(one, shape=(50, 40))
    # x = 0.3 lies on the border of columns 11 and 12, y = 0.1 on that of rows 4 and 5.
    rows, columns = np.nonzero(image > 0.99 * image.max())
    assert set(rows) == {4, 5} and set(columns) == {11, 12}
    moved = one._replace(positions=one.positions + np.array([5 / 40, 10 / 50, 0.123]))
    np.testing.assert_allclose(projected(moved, shape=(50, 40)), np.roll(image, (10, 5), axis=(0, 1)), atol=1e-9)


def test_symmetry_of_the_image():
    # SrTiO3 [001] has the plane group p4mm; pyrite (Pa-3) only p2gg.
    perovskite = projected(read_cif(CIFS["221_O3SrTi"]), shape=(32, 32))
    np.testing.assert_allclose(perovskite, perovskite.T, atol=1e-9)
    np.testing.assert_allclose(perovskite, perovskite[::-1], atol=1e-9)
    pyrite = projected(read_cif(CIFS["205_FeS2"]), shape=(32, 32))
    np.testing.assert_allclose(pyrite, pyrite[::-1, ::-1], atol=1e-9)
    assert np.abs(pyrite - pyrite.T).max() > 1
    glide = np.roll(pyrite, 16, axis=1)[:, ::-1]
    assert np.abs(glide - np.roll(pyrite, 16, axis=0)).max() < 1e-9 or np.abs(glide - pyrite).max() < 1e-9


def test_origin_shift_of_a_whole_crystal():
    crystal = read_cif(CIFS["198_Ag7PSe6"])
    shifted = crystal._replace(positions=crystal.positions + np.array([0.25, 0.5, 0.3]))
    image, moved = projected(crystal, shape=(16, 16)), projected(shifted, shape=(16, 16))
    np.testing.assert_allclose(moved, np.roll(image, (8, 4), axis=(0, 1)), atol=1e-9)


def test_projection_axes_are_short_and_oriented():
    hexagonal = np.array([4.9, 4.9, 5.4, 90.0, 90.0, 120.0])
    cubic = np.array([4.0, 4.0, 4.0, 90.0, 90.0, 90.0])
    assert potential.projection_axes(hexagonal, (0, 0, 2)).tolist() == np.eye(3, dtype=int).tolist()
    for cell, zone_axis in ((cubic, (1, 1, 0)), (cubic, (1, 1, 1)), (hexagonal, (1, 1, 0)), (cubic, (-3, 5, 7))):
        axes = potential.projection_axes(cell, zone_axis)
        frame, vectors = (np.asarray(f) for f in (geometry.beam_frame(cell, zone_axis), geometry.lattice_vectors(cell)))
        p, q = (axes[:2] @ vectors) @ frame[:2].T
        assert round(np.linalg.det(axes)) == 1
        assert p[0] > 0 and p[0] * q[1] - p[1] * q[0] > 0
        # Reduced: no sum or difference is shorter than the longer of the two.
        assert min(np.linalg.norm(p + q), np.linalg.norm(p - q)) > max(np.linalg.norm(p), np.linalg.norm(q)) * (
            1 - 1e-6
        )


def test_traced_float32_and_cutoff():
    host = read_cif(CIFS["221_O3SrTi"])
    image = jax.jit(lambda c: potential.projected_potential(c, shape=(32, 32)))(host)
    assert image.dtype == jnp.float32
    np.testing.assert_allclose(image, projected(host, shape=(32, 32)), atol=1e-2)
    smooth = projected(host, shape=(32, 32), max_g=0.3)
    # Only (100) and its images are left: V_0 + 2 V_100 (cos 2 pi x + cos 2 pi y).
    cosine = np.cos(2 * np.pi * (np.arange(32) + 0.5) / 32)
    with enable_x64(True):
        v = np.asarray(structure_factors(host, np.array([[0, 0, 0], [1, 0, 0]]))) * 47.877647 / host.cell[0] ** 3
    np.testing.assert_allclose(smooth, v[0].real + 2 * v[1].real * (cosine[None] + cosine[:, None]), atol=1e-6)
    with pytest.raises(ValueError, match="cell"):
        jax.jit(lambda c: potential.projected_potential(c, zone_axis=(1, 1, 1)))(host)


@pytest.mark.parametrize(
    "arguments", [{"shape": (0, 4)}, {"shape": (4,)}, {"zone_axis": (0, 0, 0)}, {"zone_axis": (0.5, 0, 1)}]
)
def test_bad_arguments(arguments):
    with pytest.raises(ValueError, match=next(iter(arguments))):
        potential.projected_potential(read_cif(CIFS["229_Fe"]), **arguments)
