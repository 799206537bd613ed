"""Is a crystal made of molecules? Elements and bonds decide."""

import gemmi
import numpy as np

from physml_jax.simulators.diffraction.crystal import Crystal

#: Two atoms are bonded below this multiple of the sum of their covalent radii.
BOND_FACTOR = 1.25

_NON_METALS = frozenset("H C N O F P S Cl Se Br I At He Ne Ar Kr Xe Rn".split())
_NOBLE_GASES = frozenset("He Ne Ar Kr Xe Rn".split())


def is_molecular(crystal: Crystal) -> bool:
    """Whether a crystal holds no metal and no metalloid, and is either organic or without an endless network of bonds.

    Organic means that it has carbon and hydrogen. Noble gases are no molecules. Diamond and black phosphorus are
    networks; ice, ammonium chloride, carbon dioxide and solid nitrogen are not.

    Args:
      crystal: cell in angstrom; NumPy arrays.
    """
    elements = {gemmi.Element(int(z)).name for z in crystal.numbers}
    if not elements <= _NON_METALS or elements <= _NOBLE_GASES:
        return False
    return {"C", "H"} <= elements or not has_network(crystal)


def has_network(crystal: Crystal) -> bool:
    """Whether bonds lead from some atom to one of its own copies in another cell."""
    positions = np.asarray(crystal.positions)
    vectors = np.array(gemmi.UnitCell(*np.asarray(crystal.cell)).orth.mat.tolist())
    radii = np.array([gemmi.Element(int(z)).covalent_r for z in crystal.numbers])
    cells = np.stack(np.meshgrid(*[np.arange(-2, 3)] * 3, indexing="ij"), axis=-1).reshape(-1, 3)
    offset: dict[int, np.ndarray] = {}
    for start in range(len(positions)):
        if start in offset:
            continue
        offset[start] = np.zeros(3, int)
        stack = [start]
        while stack:
            i = stack.pop()
            gaps = (positions[:, None] + cells[None] - positions[i]) @ vectors.T
            distances = np.linalg.norm(gaps, axis=-1)
            bonded = (distances > 1e-3) & (distances < BOND_FACTOR * (radii + radii[i])[:, None])
            for j, k in np.argwhere(bonded):
                reached = offset[i] + cells[k]
                if int(j) not in offset:
                    offset[int(j)] = reached
                    stack.append(int(j))
                elif (offset[int(j)] != reached).any():
                    return True
    return False
