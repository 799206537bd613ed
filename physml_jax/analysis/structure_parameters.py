"""What of a crystal structure can be refined: free coordinates, thermal factors, occupancies, and what belongs to the
specimen: thickness, absorption, tilt.

The symmetry decides which coordinates are free. A displacement d of an atom is allowed if every operation that leaves
the atom where it is leaves d as it is; the allowed ones are the range of the mean of these rotations. They are named by
their leading coordinate: an atom at (u, u, u) has one free coordinate, ``x``, and moves along (1, 1, 1). All images of
the atom move along.

Every parameter is a direction in the space of crystals, so that a specimen with other values is the start plus a sum of
directions (``apply``): linear, traced, and it never leaves the space group.
"""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import gemmi
import jax
import jax.numpy as jnp
import numpy as np

from physml_jax.core.precision import einsum
from physml_jax.core.rng import stream_key
from physml_jax.simulators.diffraction import crystal as geometry
from physml_jax.simulators.diffraction.crystal import Crystal
from physml_jax.typing import Array

#: Parameters by group; a letter stands for the free coordinates of all sites that it leads.
GROUPS = ("thickness", "absorption", "tilt", "b_iso", "occupancy", "x", "y", "z")
_SAME = 0.01  # largest distance, per fractional coordinate, of two positions that are one


class Site(NamedTuple):
    """An independent position of the structure and the atoms on it.

    Attributes:
      label: element and number, for example ``"O2"``; elements that share the site are joined, ``"Fe1/Mn1"``.
      rows: int [k], rows of the crystal that belong to it.
      first: row of the atom that stands for it.
      images: int [k, 3, 3], rotations that take displacements of the first atom to those of every row.
      directions: coordinate (0, 1, 2 for x, y, z) -> float [3], the free displacement that it leads, fractional.
      multiplicity: atoms of one element that the symmetry makes of it.
    """

    label: str
    rows: np.ndarray
    first: int
    images: np.ndarray
    directions: dict[int, np.ndarray]
    multiplicity: int


class Parameter(NamedTuple):
    """One number to refine, as a direction; n atoms, T thicknesses.

    Attributes:
      name: group and site, for example ``"x@S1"``, ``"b_iso@Fe1"``, ``"thickness"``.
      unit: of the value.
      start: its value in the crystal (or of the specimen).
      lower: smallest value allowed.
      upper: largest value allowed.
      spread: an uncertainty above this means that the images say nothing about the value.
      length: angstrom by which the atom moves per unit of the value, for coordinates; else 1.
      positions: float [n, 3], change of the fractional coordinates per unit.
      b_iso: float [n].
      occupancies: float [n].
      thicknesses: float [T].
      absorption: float.
      tilt: float [2].
    """

    name: str
    unit: str
    start: float
    lower: float
    upper: float
    spread: float
    length: float
    positions: np.ndarray
    b_iso: np.ndarray
    occupancies: np.ndarray
    thicknesses: np.ndarray
    absorption: float
    tilt: np.ndarray


class Directions(NamedTuple):
    """The fields of k parameters, stacked: arrays only. See ``Parameter``."""

    start: Array
    positions: Array
    b_iso: Array
    occupancies: Array
    thicknesses: Array
    absorption: Array
    tilt: Array


class Specimen(NamedTuple):
    """A crystal plate.

    Attributes:
      crystal: the structure.
      thicknesses: [T] of the images, angstrom.
      absorption: strength of the absorption, as in ``bloch.lacbed``.
      tilt: [2], what the centre of the images is off the zone axis, 1/angstrom in the beam frame.
    """

    crystal: Crystal
    thicknesses: Array
    absorption: Array | float = 0.0
    tilt: Array | tuple[float, float] = (0.0, 0.0)


def sites(crystal: Crystal) -> tuple[Site, ...]:
    """The independent positions of a crystal, with their free coordinates; on the host.

    Args:
      crystal: as ``crystal.from_asymmetric_unit`` and ``read_cif`` make it.

    Raises:
      ValueError: if the operations do not carry the atoms of a site into one another.
    """
    positions = np.asarray(crystal.positions, np.float64)
    rotations, translations = np.asarray(crystal.rotations), np.asarray(crystal.translations, np.float64)
    firsts, counts = geometry.site_multiplicities(crystal)
    groups: list[tuple[int, int, list[int]]] = []  # first row, multiplicity, rows
    for first, count in zip(firsts.tolist(), counts.tolist(), strict=True):
        for lead, _, rows in groups:
            if np.any(_near(positions[rows], positions[first])) and lead != first:
                rows.extend(range(first, first + count))
                break
        else:
            groups.append((first, count, list(range(first, first + count))))
    labels = _labels(np.asarray(crystal.numbers), firsts)
    found = []
    for first, count, members in groups:
        rows = np.array(members)
        moved = rotations @ positions[first] + translations
        images = []
        for row in rows:
            which = np.flatnonzero(_near(moved, positions[row]))
            if not which.size:
                raise ValueError(f"crystal: no operation takes atom {first} to atom {row} of the same site")
            images.append(rotations[which[0]])
        invariant = rotations[_near(moved, positions[first])].mean(axis=0)
        label = "/".join(labels[int(f)] for f in firsts if f in set(members))
        found.append(Site(label, rows, first, np.array(images), _leading(invariant), count))
    return tuple(found)


def parameters(plate: Specimen, names: Sequence[str]) -> tuple[Parameter, ...]:
    """The parameters that a list of names asks for.

    Args:
      plate: the specimen to start from, arrays on the host.
      names: of ``GROUPS``, each for all sites where it makes sense (``"x"``: all sites whose x is free), or one site's,
        ``"b_iso@O1"``. Where the cell has no fixed origin along a direction, as along c in P6_3mc, the coordinates that
        a letter asks for leave out the heaviest site, which then is the origin.

    Returns:
      The parameters in the order of the names.

    Raises:
      ValueError: for an unknown name, a site that there is not, a coordinate that the symmetry fixes; the message lists
        what there is.

    Example:
      >>> from physml_jax.simulators.diffraction.crystal import from_asymmetric_unit
      >>> one = lambda *x: np.array(x, float)
      >>> crystal = from_asymmetric_unit(
      ...     one(4, 4, 5, 90, 90, 90), np.array([14]), one([0, 0, 0.2]), one(1), one(0.5), np.zeros((1, 6)),
      ...     np.array([np.eye(3), np.diag([-1, -1, 1])], int), np.zeros((2, 3)))
      >>> [p.name for p in parameters(Specimen(crystal, [450.0], 0.0), ["thickness", "z@Si1"])]
      ['thickness', 'z@Si1']
    """
    crystal = plate.crystal
    found = sites(crystal)
    made: dict[str, Parameter] = {}
    if not names:
        raise ValueError(f"refine: expected names of {', '.join(GROUPS)}, got none")
    for name in names:
        group, _, label = name.strip().partition("@")
        if group not in GROUPS:
            raise ValueError(f"refine: expected names of {', '.join(GROUPS)}, or name@site, got {name!r}")
        if group in ("thickness", "absorption", "tilt"):
            if label:
                raise ValueError(f"refine: {group} belongs to no site, got {name!r}")
            new = _of_specimen(plate, group)
        else:
            chosen = [s for s in found if not label or label in (s.label, *s.label.split("/"))]
            if not chosen:
                raise ValueError(f"refine: there is no site {label!r}; sites are {', '.join(s.label for s in found)}")
            new = _of_sites(crystal, found, group, chosen, bool(label), len(plate.thicknesses))
        made.update({p.name: p for p in new})
    return tuple(made.values())


def free_coordinates(crystal: Crystal) -> tuple[str, ...]:
    """Names of all coordinates that the symmetry leaves free, for example ``("x@S1",)``."""
    return tuple(f"{'xyz'[k]}@{s.label}" for s in sites(crystal) for k in s.directions)


def stack(chosen: Sequence[Parameter]) -> Directions:
    """The directions of k parameters as arrays, float64; they pass through jit, names do not."""
    return Directions(*(np.stack([np.asarray(getattr(p, f), np.float64) for p in chosen]) for f in Directions._fields))


def apply(state: Specimen, directions: Directions, values: Array) -> Specimen:
    """A crystal plate with other values of its parameters; traced.

    Args:
      state: the one that the parameters were made from.
      directions: of k parameters.
      values: float [k].

    Returns:
      The plate, in the dtype of ``values``; coordinates are not wrapped into the cell.
    """
    values = jnp.asarray(values)
    change = values - jnp.asarray(directions.start, values.dtype)

    def moved(start, direction):
        return jnp.asarray(start, values.dtype) + einsum("k,k...->...", change, jnp.asarray(direction, values.dtype))

    crystal = state.crystal
    crystal = crystal._replace(
        **{f: jnp.asarray(getattr(crystal, f), values.dtype) for f in ("cell", "u_aniso", "translations")},
        **{f: moved(getattr(crystal, f), getattr(directions, f)) for f in ("positions", "b_iso", "occupancies")},
    )
    return Specimen(
        crystal,
        moved(state.thicknesses, directions.thicknesses),
        moved(state.absorption, directions.absorption),
        moved(state.tilt, directions.tilt),
    )


def changed(plate: Specimen, values: Mapping[str, float]) -> Specimen:
    """A specimen with some parameters set, on the host in float64.

    Args:
      plate: the specimen, arrays on the host.
      values: name of a parameter, for one site -> value, for example ``{"x@S1": 0.39}``.

    Raises:
      ValueError: as ``parameters``, or for a value that is out of range.
    """
    if not values:
        return plate
    chosen = parameters(plate, tuple(values))
    if len(chosen) != len(values):
        raise ValueError(f"start: expected names of single parameters, got {', '.join(values)}")
    numbers = np.array([float(v) for v in values.values()])
    for p, v in zip(chosen, numbers, strict=True):
        if not (np.isfinite(v) and p.lower <= v <= p.upper):
            raise ValueError(f"start: {p.name}: expected {p.lower:g} to {p.upper:g}, got {v:g}")
    with jax.enable_x64(True):
        return jax.tree.map(np.asarray, apply(plate, stack(chosen), numbers))


def shaken(plate: Specimen, names: Sequence[str], distance: float, *, seed: int = 0) -> Specimen:
    """A specimen whose parameters are off, to see whether a refinement finds the way back.

    Args:
      plate: the specimen.
      names: see ``parameters``.
      distance: by which every free coordinate moves its atoms, angstrom, in a random sense; thermal factors become half
        as large again.
      seed: of the senses.
    """
    chosen = parameters(plate, names)
    senses = np.where(np.asarray(jax.random.bernoulli(stream_key(seed, "shake"), 0.5, (len(chosen),))), 1.0, -1.0)
    values = {}
    for p, sense in zip(chosen, senses, strict=True):
        if p.unit == "of the cell":
            values[p.name] = p.start + sense * distance / p.length
        elif p.name.startswith("b_iso"):
            values[p.name] = 1.5 * p.start
    return changed(plate, values)


def _of_specimen(plate: Specimen, group: str) -> list[Parameter]:
    thicknesses = np.asarray(plate.thicknesses, np.float64)
    blank = _blank(plate.crystal, len(thicknesses))
    if group == "absorption":
        return [blank._replace(name=group, start=float(plate.absorption), lower=1e-4, upper=5.0, absorption=1.0)]
    if group == "tilt":
        return [
            blank._replace(name=f"tilt {x}", unit="1/Å", start=float(plate.tilt[i]), lower=-np.inf, tilt=np.eye(2)[i])
            for i, x in enumerate("xy")
        ]
    names = ["thickness"] if len(thicknesses) == 1 else [f"thickness {i + 1}" for i in range(len(thicknesses))]
    rows = np.eye(len(thicknesses))
    return [
        blank._replace(name=n, unit="Å", start=float(t), lower=1.0, spread=float(t), thicknesses=row)
        for n, t, row in zip(names, thicknesses, rows, strict=True)
    ]


def _of_sites(
    crystal: Crystal, every: Sequence[Site], group: str, chosen: Sequence[Site], named: bool, num_thicknesses: int
) -> list[Parameter]:
    blank = _blank(crystal, num_thicknesses)
    n = len(crystal.numbers)
    made = []
    if group in ("b_iso", "occupancy"):
        field = "b_iso" if group == "b_iso" else "occupancies"
        for site in chosen:
            ones = np.zeros(n)
            start = float(np.asarray(getattr(crystal, field))[site.first])
            # Elements that share a site keep their proportions.
            values = np.asarray(crystal.occupancies)[site.rows] / start if group == "occupancy" else 1.0
            ones[site.rows] = values
            unit, spread = ("Å²", 10.0) if group == "b_iso" else ("", 1.0)
            lower = 0.0 if group == "b_iso" else 1e-3
            new = blank._replace(name=f"{group}@{site.label}", unit=unit, start=start, lower=lower, spread=spread)
            made.append(new._replace(**{field: ones}))
        return made
    k = "xyz".index(group)
    free = [s for s in chosen if k in s.directions]
    if not named:
        free = [s for s in free if not _is_origin(crystal, every, s, k)]
    if not free:
        names = ", ".join(free_coordinates(crystal)) or "none"
        where = f" of {chosen[0].label}" if named else ""
        raise ValueError(f"refine: the symmetry fixes {group}{where}; free coordinates are {names}")
    vectors = np.asarray(geometry.lattice_vectors(np.asarray(crystal.cell, np.float32)), np.float64)
    for site in free:
        direction = site.directions[k]
        length = float(np.linalg.norm(direction @ vectors))
        change = np.zeros((n, 3))
        change[site.rows] = site.images @ direction
        made.append(
            blank._replace(
                name=f"{group}@{site.label}",
                unit="of the cell",
                start=float(np.asarray(crystal.positions)[site.first, k]),
                lower=-np.inf,
                spread=1.0 / length,
                length=length,
                positions=change,
            )
        )
    return made


def _blank(crystal: Crystal, num_thicknesses: int) -> Parameter:
    n = len(crystal.numbers)
    zeros = np.zeros(n)
    thicknesses = np.zeros(num_thicknesses)
    return Parameter("", "", 0.0, 0.0, np.inf, 1.0, 1.0, np.zeros((n, 3)), zeros, zeros, thicknesses, 0.0, np.zeros(2))


def _is_origin(crystal: Crystal, every: Sequence[Site], site: Site, k: int) -> bool:
    """Whether the cell floats along coordinate ``k`` and this site, the heaviest, is where it is held."""
    floating = _leading(np.asarray(crystal.rotations).mean(axis=0))
    if k not in floating:
        return False
    numbers = np.asarray(crystal.numbers)
    return site.first == max((s for s in every if k in s.directions), key=lambda s: numbers[s.first]).first


def _leading(projector: np.ndarray) -> dict[int, np.ndarray]:
    """Basis of the range of a projector in reduced echelon form, by leading coordinate."""
    rows = np.array(projector, np.float64).T.copy()
    found: dict[int, np.ndarray] = {}
    used = 0
    for column in range(3):
        pivot = used + int(np.argmax(np.abs(rows[used:, column]))) if used < 3 else 0
        if used == 3 or abs(rows[pivot, column]) < 1e-9:
            continue
        rows[[used, pivot]] = rows[[pivot, used]]
        rows[used] /= rows[used, column]
        for other in range(3):
            if other != used:
                rows[other] -= rows[other, column] * rows[used]
        used += 1
    for row in rows[:used]:
        found[int(np.flatnonzero(np.abs(row) > 1e-9)[0])] = np.where(np.abs(row) < 1e-9, 0.0, row)
    return found


def _near(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    gap = a - b
    return (np.abs(gap - np.round(gap)) < _SAME).all(axis=-1)


def _labels(numbers: np.ndarray, firsts: np.ndarray) -> dict[int, str]:
    """Element and running number of every independent atom, by its row."""
    seen: dict[int, int] = {}
    labels = {}
    for first in firsts.tolist():
        z = int(numbers[first])
        seen[z] = seen.get(z, 0) + 1
        labels[first] = f"{gemmi.Element(z).name}{seen[z]}"
    return labels
