"""A crystal as arrays: cell, sites, symmetry operations.

Lengths are in angstrom, reciprocal lengths in 1/angstrom without 2 pi, angles of the cell in degrees. Coordinates are
fractions of the cell. The Cartesian frame has x along a, z along c* (the convention of most crystallographic programs);
rows of ``lattice_vectors`` are a, b, c.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from physml_jax.typing import Array


class Crystal(NamedTuple):
    """All atoms of one unit cell and the symmetry that relates them.

    Arrays only, so that it passes through jit, vmap and grad.

    Attributes:
      cell: float [6], a, b, c in angstrom and alpha, beta, gamma in degrees.
      positions: float [n, 3], fractional coordinates of every atom of the cell, in [0, 1).
      numbers: int32 [n], atomic numbers.
      occupancies: float [n], fraction of the site that is filled by this element. A site shared by two elements is two
        rows.
      b_iso: float [n], isotropic thermal factor B = 8 pi^2 <u^2> in angstrom^2.
      u_aniso: float [n, 6], U11 U22 U33 U12 U13 U23 in angstrom^2 (CIF convention), *added* to the isotropic part: an
        atom with an anisotropic factor has b_iso = 0.
      rotations: int32 [m, 3, 3], rotation parts of the space-group operations, acting on fractional coordinates
        (centring included).
      translations: float [m, 3], translation parts, fractional.
    """

    cell: Array
    positions: Array
    numbers: Array
    occupancies: Array
    b_iso: Array
    u_aniso: Array
    rotations: Array
    translations: Array


class CrystalInfo(NamedTuple):
    """What is known about a crystal beside its arrays (strings do not pass through jit).

    Attributes:
      name: short identifier, for example the file's stem.
      formula: reduced chemical formula in Hill order, for example ``"O3SrTi"``.
      space_group: number, 1 to 230.
      space_group_name: Hermann-Mauguin symbol.
      licence: licence of the data, empty if unknown.
      source: where the data come from (database and entry), empty if unknown.
      template: label of the structure template, equal for crystals of the same arrangement.
    """

    name: str
    formula: str
    space_group: int
    space_group_name: str
    licence: str = ""
    source: str = ""
    template: str = ""


def lattice_vectors(cell: Array) -> Array:
    """Basis vectors of the direct lattice in the Cartesian frame x along a, z along c*.

    Args:
      cell: float [6], a, b, c in angstrom and alpha, beta, gamma in degrees.

    Returns:
      float [3, 3] in angstrom, rows a, b, c; dtype of ``cell``.
    """
    cell = jnp.asarray(cell)
    a, b, c = cell[0], cell[1], cell[2]
    # cos(x) as sin(90 - x): a right angle then gives an exact zero, also in float32.
    cos_alpha, cos_beta, cos_gamma = jnp.sin(jnp.deg2rad(90.0 - cell[3:]))
    sin_gamma = jnp.cos(jnp.deg2rad(90.0 - cell[5]))
    cy = (cos_alpha - cos_beta * cos_gamma) / sin_gamma
    cz = jnp.sqrt(1.0 - cos_beta**2 - cy**2)
    zero = jnp.zeros_like(a)
    rows = [a, zero, zero, b * cos_gamma, b * sin_gamma, zero, c * cos_beta, c * cy, c * cz]
    return jnp.stack(rows).reshape(3, 3)


def volume(cell: Array) -> Array:
    """Volume of the cell in cubic angstrom, float []."""
    vectors = lattice_vectors(cell)
    return vectors[0, 0] * vectors[1, 1] * vectors[2, 2]  # the matrix is lower triangular


def reciprocal_vectors(cell: Array) -> Array:
    """Basis vectors of the reciprocal lattice, without 2 pi: a_i . a*_j = delta_ij.

    Args:
      cell: float [6], a, b, c in angstrom and alpha, beta, gamma in degrees.

    Returns:
      float [3, 3] in 1/angstrom, rows a*, b*, c*, in the Cartesian frame of ``lattice_vectors``.
    """
    a, b, c = lattice_vectors(cell)
    return jnp.stack([jnp.cross(b, c), jnp.cross(c, a), jnp.cross(a, b)]) / volume(cell)


def beam_frame(cell: Array, zone_axis: Array | tuple[int, int, int], *, azimuth_deg: Array | float = 0.0) -> Array:
    """The right-handed frame of the electron beam: images have x to the right and y as their first array axis.

    z is the direction u a + v b + w c, along the wave vector of the untilted beam; x is the part of a perpendicular to
    z (of b, if a is parallel to z); y = z x x. For a cubic crystal and [001] that is x = [100], y = [010].

    Args:
      cell: float [6], a, b, c in angstrom and alpha, beta, gamma in degrees.
      zone_axis: direction [uvw] of the direct lattice, not all zero.
      azimuth_deg: turns x and y about z, from x towards y.

    Returns:
      float [3, 3], rows x, y, z: unit vectors in the Cartesian frame of ``lattice_vectors``.

    Raises:
      ValueError: if ``zone_axis`` is (0, 0, 0) or not three numbers.
    """
    if not isinstance(zone_axis, jax.core.Tracer) and (np.shape(zone_axis) != (3,) or not np.any(zone_axis)):
        raise ValueError(f"zone_axis: expected three numbers, not all zero, got {zone_axis!r}")
    vectors = lattice_vectors(cell)
    uvw = jnp.asarray(zone_axis, vectors.dtype)
    z = (uvw[:, None] * vectors).sum(axis=0)
    z = z / jnp.linalg.norm(z)
    # a is parallel to z exactly when v = w = 0: a test on indices, without threshold or division by zero in gradients.
    start = jnp.where((uvw[1] == 0) & (uvw[2] == 0), vectors[1], vectors[0])
    x = start - (start * z).sum() * z
    x = x / jnp.linalg.norm(x)
    y = jnp.cross(z, x)
    if isinstance(azimuth_deg, float) and azimuth_deg == 0.0:
        return jnp.stack([x, y, z])
    angle = jnp.deg2rad(jnp.asarray(azimuth_deg, vectors.dtype))
    return jnp.stack([jnp.cos(angle) * x + jnp.sin(angle) * y, jnp.cos(angle) * y - jnp.sin(angle) * x, z])


def from_asymmetric_unit(
    cell: np.ndarray,
    numbers: np.ndarray,
    positions: np.ndarray,
    occupancies: np.ndarray,
    b_iso: np.ndarray,
    u_aniso: np.ndarray,
    rotations: np.ndarray,
    translations: np.ndarray,
    *,
    tolerance: float = 0.01,
) -> Crystal:
    """Fills the unit cell from its independent atoms and the symmetry operations, on the host in float64.

    An atom within ``tolerance`` of a symmetry element is moved onto it, because files round 1/3 to 0.333 and an atom
    beside a mirror plane would count twice; its thermal tensor is averaged over the site symmetry for the same reason.
    Independent atoms of the same element on the same site become one, their occupancies add up to at most 1. Different
    elements on one site stay separate rows.

    Args:
      cell: float [6], a, b, c in angstrom and alpha, beta, gamma in degrees.
      numbers: int [n], atomic numbers.
      positions: float [n, 3], fractional coordinates.
      occupancies: float [n].
      b_iso: float [n], angstrom^2.
      u_aniso: float [n, 6], U11 U22 U33 U12 U13 U23 in angstrom^2, zero for isotropic atoms.
      rotations: int [m, 3, 3], all operations of the space group, centring included.
      translations: float [m, 3].
      tolerance: largest distance, per fractional coordinate, of two positions that are the same site.

    Returns:
      The crystal, arrays in float64 and int32; atoms in the order of the independent ones, images of one atom together.

    Raises:
      ValueError: if shapes disagree, a number is not finite or out of range, or the cell has no volume.
    """
    given = (cell, positions, occupancies, b_iso, u_aniso, translations)
    cell, positions, occupancies, b_iso, u_aniso, translations = (np.asarray(v, np.float64) for v in given)
    numbers, rotations = np.asarray(numbers, np.int32), np.asarray(rotations, np.int32)
    _check_asymmetric_unit(cell, numbers, positions, occupancies, b_iso, u_aniso, rotations, translations)
    # A CIF's U_ij belong to the unit vectors along a*, b*, c*. Scaled by the lengths of a*, b*, c* they transform like
    # products of coordinates.
    scale = _reciprocal_lengths(cell)
    scale = np.outer(scale, scale)
    atoms: list[_Orbit] = []
    for z, x, occupancy, b, u in zip(numbers, positions, occupancies, b_iso, u_aniso, strict=True):
        tensor = _six_to_matrix(u) * scale
        x, tensor = _onto_site(x, tensor, rotations, translations, tolerance)
        images = rotations @ x + translations
        images -= np.floor(images)
        same = (np.abs(_wrap(images[:, None] - images[None])) < tolerance).all(axis=-1)
        first = np.flatnonzero(same.argmax(axis=1) == np.arange(len(images)))
        tensors = rotations[first] @ tensor @ rotations[first].swapaxes(1, 2)
        orbit = _Orbit(int(z), images[first], float(occupancy), float(b), tensors)
        for k, other in enumerate(atoms):
            if other.number == orbit.number and len(other.positions) == len(orbit.positions):
                near = (np.abs(_wrap(other.positions - x)) < tolerance).all(axis=-1)
                if near.any():
                    atoms[k] = _merge(other, orbit)
                    break
        else:
            atoms.append(orbit)
    counts = [len(o.positions) for o in atoms]
    inside = np.concatenate([o.positions for o in atoms])
    inside[inside > 1.0 - 1e-9] = 0.0  # -1e-17 wraps to just below 1
    return Crystal(
        cell=cell,
        positions=inside,
        numbers=np.repeat(np.array([o.number for o in atoms], np.int32), counts),
        occupancies=np.repeat([o.occupancy for o in atoms], counts),
        b_iso=np.repeat([o.b_iso for o in atoms], counts),
        u_aniso=_matrix_to_six(np.concatenate([o.tensors for o in atoms]) / scale),
        rotations=rotations,
        translations=translations - np.floor(translations),
    )


def site_multiplicities(crystal: Crystal, *, tolerance: float = 0.01) -> tuple[np.ndarray, np.ndarray]:
    """The independent atoms of a filled cell, and how many atoms the symmetry makes of each; on the host.

    Args:
      crystal: as ``from_asymmetric_unit`` makes it (atoms of one site follow each other).
      tolerance: as there.

    Returns:
      int [k], row of the first atom of every independent one, and int [k], their multiplicities.
    """
    rotations, translations = np.asarray(crystal.rotations), np.asarray(crystal.translations)
    positions = np.asarray(crystal.positions)
    rows, counts = [], []
    row = 0
    while row < len(positions):
        gaps = _wrap(rotations @ positions[row] + translations - positions[row])
        fixed = int((np.abs(gaps) < tolerance).all(axis=-1).sum())
        rows.append(row)
        counts.append(len(rotations) // fixed)
        row += counts[-1]
    return np.array(rows), np.array(counts)


def template_label(crystal: Crystal, space_group: int) -> str:
    """Label of the arrangement of atoms, equal for crystals that differ in elements and lengths only.

    The space group's number, then for every element the multiplicities of its sites, for example ``"216|4|4"`` for
    zinc blende. A coarse label: it groups structures that share the positions of their atoms, and a few that do not.

    Args:
      crystal: see ``site_multiplicities``.
      space_group: number of the space group.
    """
    rows, counts = site_multiplicities(crystal)
    elements = np.asarray(crystal.numbers)[rows]
    sites = ["+".join(str(c) for c in sorted(counts[elements == z])) for z in sorted(set(elements.tolist()))]
    return "|".join([str(space_group), *sorted(sites)])


class _Orbit(NamedTuple):
    """One independent atom and its images; ``tensors`` are scaled to transform like products of coordinates."""

    number: int
    positions: np.ndarray
    occupancy: float
    b_iso: float
    tensors: np.ndarray


def _merge(first: _Orbit, second: _Orbit) -> _Orbit:
    """Two rows of one element on one site: occupancies add, thermal factors are averaged by occupancy."""
    total = first.occupancy + second.occupancy
    share = second.occupancy / total if total > 0 else 0.0
    # The images of the two atoms need not come in the same order.
    gaps = np.abs(_wrap(first.positions[:, None] - second.positions[None])).max(axis=-1)
    tensors = (1 - share) * first.tensors + share * second.tensors[gaps.argmin(axis=1)]
    b_iso = (1 - share) * first.b_iso + share * second.b_iso
    return first._replace(occupancy=min(total, 1.0), b_iso=b_iso, tensors=tensors)


def _onto_site(x, tensor, rotations, translations, tolerance):
    """Moves an atom to the mean of its images closer than ``tolerance``; averages its tensor alike."""
    for _ in range(10):
        gaps = _wrap(rotations @ x + translations - x)
        close = (np.abs(gaps) < tolerance).all(axis=-1)
        shift = gaps[close].mean(axis=0)
        x = x + shift
        if np.abs(shift).max() < 1e-12:
            break
    return x, (rotations[close] @ tensor @ rotations[close].swapaxes(1, 2)).mean(axis=0)


def _wrap(difference: np.ndarray) -> np.ndarray:
    """Fractional differences to the nearest lattice translation."""
    return difference - np.round(difference)


def _six_to_matrix(u: np.ndarray) -> np.ndarray:
    u11, u22, u33, u12, u13, u23 = np.moveaxis(u, -1, 0)
    return np.stack([u11, u12, u13, u12, u22, u23, u13, u23, u33], axis=-1).reshape(*u.shape[:-1], 3, 3)


def _matrix_to_six(m: np.ndarray) -> np.ndarray:
    return m[:, (0, 1, 2, 0, 0, 1), (0, 1, 2, 1, 2, 2)]


def _metric(cell: np.ndarray) -> np.ndarray:
    """Metric tensor a_i . a_j in float64; NumPy because the traced geometry is float32 without x64."""
    cos = np.sin(np.deg2rad(90.0 - cell[3:]))
    return np.outer(cell[:3], cell[:3]) * np.array([[1, cos[2], cos[1]], [cos[2], 1, cos[0]], [cos[1], cos[0], 1]])


def _reciprocal_lengths(cell: np.ndarray) -> np.ndarray:
    return np.sqrt(np.diag(np.linalg.inv(_metric(cell))))


def _check_asymmetric_unit(cell, numbers, positions, occupancies, b_iso, u_aniso, rotations, translations) -> None:
    n, m = len(numbers), len(rotations)
    shapes = {
        "cell": (cell, (6,)),
        "numbers": (numbers, (n,)),
        "positions": (positions, (n, 3)),
        "occupancies": (occupancies, (n,)),
        "b_iso": (b_iso, (n,)),
        "u_aniso": (u_aniso, (n, 6)),
        "rotations": (rotations, (m, 3, 3)),
        "translations": (translations, (m, 3)),
    }
    for name, (value, shape) in shapes.items():
        if value.shape != shape:
            raise ValueError(f"{name}: expected shape {shape}, got {value.shape}")
        if not np.isfinite(value).all():
            raise ValueError(f"{name}: expected finite numbers")
    if n == 0:
        raise ValueError("numbers: expected at least one atom")
    if m == 0:
        raise ValueError("rotations: expected at least the identity")
    if (cell[:3] <= 0).any() or (cell[3:] <= 0).any() or (cell[3:] >= 180).any() or np.linalg.det(_metric(cell)) <= 0:
        raise ValueError(f"cell: expected positive lengths and angles that enclose a volume, got {cell.tolist()}")
    if (numbers < 1).any() or (numbers > 118).any():
        raise ValueError(f"numbers: expected atomic numbers from 1 to 118, got {sorted(set(numbers.tolist()))}")
    if (occupancies <= 0).any() or (occupancies > 1 + 1e-6).any():
        raise ValueError(f"occupancies: expected values in (0, 1], got {occupancies.min():g} to {occupancies.max():g}")
    identity = (rotations == np.eye(3, dtype=int)).all(axis=(1, 2))
    if (np.abs(np.abs(np.linalg.det(rotations)) - 1) > 1e-6).any() or not identity.any():
        raise ValueError("rotations: expected matrices of determinant +1 or -1 and the identity among them")
