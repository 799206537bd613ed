"""A crystal as arrays: cell, sites, symmetry operations.

Lengths are in angstrom, reciprocal lengths in 1/angstrom without 2 pi, angles of the cell in degrees. Coordinates are fractions of the cell. The
Cartesian frame has x along a, z along c* (the convention of most crystallographic programs); rows of ``lattice_vectors`` are a, b, c.
"""

from typing import NamedTuple

from physml_jax.typing import Array


class Crystal(NamedTuple):
    """All atoms of one unit cell and the symmetry that relates them. Arrays only, so that it passes through jit, vmap and grad.

    Attributes:
      cell: float [6], a, b, c in angstrom and alpha, beta, gamma in degrees.
      positions: float [n, 3], fractional coordinates of every atom of the cell, in [0, 1).
      numbers: int32 [n], atomic numbers.
      occupancies: float [n], fraction of the site that is filled by this element. A site shared by two elements is two rows.
      b_iso: float [n], isotropic thermal factor B = 8 pi^2 <u^2> in angstrom^2.
      u_aniso: float [n, 6], U11 U22 U33 U12 U13 U23 in angstrom^2 (CIF convention), *added* to the isotropic part: an atom with an anisotropic
        factor has b_iso = 0.
      rotations: int32 [m, 3, 3], rotation parts of the space-group operations, acting on fractional coordinates (centring included).
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
