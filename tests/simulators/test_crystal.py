"""Geometry against closed forms and gemmi's cell; expansion against site multiplicities of International Tables A."""

import gemmi
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from physml_jax.simulators.diffraction import crystal

enable_x64 = jax.enable_x64 if hasattr(jax, "enable_x64") else jax.experimental.enable_x64

TRICLINIC = np.array([5.1, 6.2, 7.3, 81.0, 97.0, 105.0])


def expand(name, lattice, atoms, **changes):
    """Crystal from a space group's name and (Z, x, y, z) rows."""
    operations = list(gemmi.SpaceGroup(name).operations())
    n = len(atoms)
    arguments = {
        "cell": np.array(lattice, float),
        "numbers": np.array([a[0] for a in atoms]),
        "positions": np.array([a[1:] for a in atoms], float),
        "occupancies": np.ones(n),
        "b_iso": np.full(n, 0.5),
        "u_aniso": np.zeros((n, 6)),
        "rotations": np.array([o.rot for o in operations]) // 24,
        "translations": np.array([o.tran for o in operations]) / 24,
    }
    return crystal.from_asymmetric_unit(**(arguments | changes))


@pytest.mark.parametrize(
    "cell", [TRICLINIC, np.array([4.9, 4.9, 5.4, 90, 90, 120.0]), np.array([3.9] * 3 + [90.0] * 3)]
)
def test_lattice_agrees_with_gemmi(cell):
    with enable_x64(True):
        vectors = np.asarray(crystal.lattice_vectors(cell))
        reciprocal = np.asarray(crystal.reciprocal_vectors(cell))
        volume = float(crystal.volume(cell))
    unit = gemmi.UnitCell(*cell)
    np.testing.assert_allclose(vectors, np.array(unit.orth.mat.tolist()).T, atol=1e-12)
    np.testing.assert_allclose(reciprocal @ vectors.T, np.eye(3), atol=1e-14)
    assert volume == pytest.approx(unit.volume, rel=1e-12)


def test_right_angles_are_exact_in_float32():
    vectors = crystal.lattice_vectors(jnp.array([3.0, 4.0, 5.0, 90.0, 90.0, 90.0], jnp.float32))
    assert vectors.dtype == jnp.float32
    np.testing.assert_array_equal(vectors, np.diag([3.0, 4.0, 5.0]))


def test_beam_frame_of_a_cubic_crystal():
    cell = np.array([4.0, 4.0, 4.0, 90.0, 90.0, 90.0])
    np.testing.assert_allclose(crystal.beam_frame(cell, (0, 0, 1)), np.eye(3), atol=1e-7)
    np.testing.assert_allclose(crystal.beam_frame(cell, (1, 0, 0)), [[0, 1, 0], [0, 0, 1], [1, 0, 0]], atol=1e-7)


@pytest.mark.parametrize("zone_axis", [(0, 0, 1), (1, 0, 0), (-2, 0, 0), (1, 1, 0), (1, -2, 3)])
def test_beam_frame_is_orthonormal_and_follows_the_zone_axis(zone_axis):
    with enable_x64(True):
        frame = np.asarray(crystal.beam_frame(TRICLINIC, zone_axis))
        vectors = np.asarray(crystal.lattice_vectors(TRICLINIC))
    np.testing.assert_allclose(frame @ frame.T, np.eye(3), atol=1e-12)
    assert np.linalg.det(frame) == pytest.approx(1)
    along = np.array(zone_axis) @ vectors
    np.testing.assert_allclose(frame @ along, [0, 0, np.linalg.norm(along)], atol=1e-12)
    start = vectors[1] if zone_axis[1:] == (0, 0) else vectors[0]
    assert frame[0] @ start > 0
    assert abs(frame[1] @ start) < 1e-12


def test_geometry_has_finite_gradients():
    frame = jax.jit(jax.jacobian(lambda cell: crystal.beam_frame(cell, (1, 0, 0))))
    gradient = frame(jnp.asarray(TRICLINIC, jnp.float32))
    assert np.isfinite(gradient).all()


@pytest.mark.parametrize("zone_axis", [(0, 0, 0), (1, 0), (1, 2, 3, 4)])
def test_beam_frame_refuses_bad_zone_axes(zone_axis):
    with pytest.raises(ValueError, match="zone_axis"):
        crystal.beam_frame(TRICLINIC, zone_axis)


# Multiplicities: International Tables for Crystallography A, Wyckoff positions of the groups named.
@pytest.mark.parametrize(
    ("group", "position", "multiplicity"),
    [
        ("F m -3 m", (0, 0, 0), 4),
        ("F m -3 m", (0.25, 0.25, 0.25), 8),
        ("F m -3 m", (0.24, 0, 0), 24),
        ("F m -3 m", (0.11, 0.13, 0.17), 192),
        ("F d -3 m:2", (0.125, 0.125, 0.125), 8),
        ("F d -3 m:2", (0.5, 0.5, 0.5), 16),
        ("F d -3 m:1", (0, 0, 0), 8),
        ("P 21 3", (0.22, 0.22, 0.22), 4),
        ("I a -3 d", (0.03, 0.05, 0.65), 96),
        ("P 63/m m c", (0.333, 0.667, 0.25), 2),
        ("R -3 m:H", (0, 0, 0.4), 6),
        ("P -6 m 2", (0.6667, 0.3333, 0.5), 1),
    ],
)
def test_multiplicities(group, position, multiplicity):
    hexagonal = group[0] in "R" or "6" in group
    cell = [10, 10, 12, 90, 90, 120] if hexagonal else [10, 10, 10, 90, 90, 90]
    filled = expand(group, cell, [(14, *position)])
    assert len(filled.numbers) == multiplicity
    rows, counts = crystal.site_multiplicities(filled)
    assert rows.tolist() == [0] and counts.tolist() == [multiplicity]
    assert (filled.positions >= 0).all() and (filled.positions < 1).all()


def test_rounded_coordinates_move_onto_the_symmetry_element():
    filled = expand("P 63/m m c", [3, 3, 5, 90, 90, 120], [(12, 0.333, 0.667, 0.25)])
    np.testing.assert_allclose(np.sort(filled.positions[:, 0]), [1 / 3, 2 / 3], atol=1e-9)


def test_every_operation_maps_the_crystal_onto_itself():
    u = np.array([[0.01, 0.02, 0.03, 0.002, 0.001, -0.003], [0.01, 0.01, 0.01, 0.004, 0.004, 0.004]])
    atoms = [(8, 0.27, 0.41, 0.12), (22, 0.1, 0.1, 0.1)]
    filled = expand("P 21 3", [8, 8, 8, 90, 90, 90], atoms, u_aniso=u, occupancies=np.array([0.5, 1.0]))
    for rotation, translation in zip(filled.rotations, filled.translations, strict=True):
        moved = filled.positions @ rotation.T + translation
        gaps = moved[:, None] - filled.positions[None]
        distances = np.abs(gaps - np.round(gaps)).max(axis=-1)
        image = distances.argmin(axis=1)
        assert distances.min(axis=1).max() < 1e-9
        assert (filled.numbers[image] == filled.numbers).all()
        assert (filled.occupancies[image] == filled.occupancies).all()
        # In a cubic cell U transforms with the rotation itself.
        full = filled.u_aniso[:, [0, 3, 4, 3, 1, 5, 4, 5, 2]].reshape(-1, 3, 3)
        np.testing.assert_allclose(full[image], rotation @ full @ rotation.T, atol=1e-12)


def test_shared_sites():
    cell = [4, 4, 4, 90, 90, 90]
    atoms = [(22, 0, 0, 0), (40, 0, 0, 0), (22, 0.001, 0, 0)]
    filled = expand("P m -3 m", cell, atoms, occupancies=np.array([0.3, 0.5, 0.2]), b_iso=np.array([1.0, 2.0, 2.0]))
    assert filled.numbers.tolist() == [22, 40]
    np.testing.assert_allclose(filled.occupancies, [0.5, 0.5])
    np.testing.assert_allclose(filled.b_iso, [1.4, 2.0])


def test_templates():
    cell = [5, 5, 5, 90, 90, 90]
    zinc_blende = expand("F -4 3 m", cell, [(30, 0, 0, 0), (16, 0.25, 0.25, 0.25)])
    gallium_arsenide = expand("F -4 3 m", cell, [(33, 0, 0, 0), (31, 0.75, 0.75, 0.75)])
    perovskite = expand("P m -3 m", cell, [(38, 0, 0, 0), (22, 0.5, 0.5, 0.5), (8, 0.5, 0.5, 0)])
    assert crystal.template_label(zinc_blende, 216) == crystal.template_label(gallium_arsenide, 216) == "216|4|4"
    assert crystal.template_label(perovskite, 221) == "221|1|1|3"


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"cell": np.array([4, 4, 4, 90, 90, 180.0])}, "cell"),
        ({"cell": np.array([4, 4, -4, 90, 90, 90.0])}, "cell"),
        ({"cell": np.array([4, 4, 4, 60, 60, 170.0])}, "cell"),
        ({"positions": np.array([[np.nan, 0, 0]])}, "positions"),
        ({"positions": np.zeros((2, 3))}, "positions"),
        ({"numbers": np.array([0])}, "numbers"),
        ({"numbers": np.array([], int)}, "positions|numbers"),
        ({"occupancies": np.array([1.5])}, "occupancies"),
        ({"u_aniso": np.zeros((1, 3))}, "u_aniso"),
        ({"rotations": np.zeros((1, 3, 3), int), "translations": np.zeros((1, 3))}, "rotations"),
    ],
)
def test_bad_input_is_named(changes, message):
    with pytest.raises(ValueError, match=message):
        expand("P m -3 m", [4, 4, 4, 90, 90, 90], [(14, 0, 0, 0)], **changes)
