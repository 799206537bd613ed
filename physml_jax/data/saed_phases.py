"""The nine phases of the published set of electron diffraction patterns of plutonium-zirconium alloys.

Tomczak and Kuppannagari (HPEC 2023) sorted 738 patterns into these classes; the images are not public. Cells and
coordinates are facts gathered from the literature, or derived from it; each entry says which, and how far to trust it.

Classes 0, 6 and 7 are one hexagonal metal lattice and differ by faint oxygen spots, but the cells listed here differ by
a percent: a simulation that uses them as they are gives the class away by its scale (see the argument ``deformation``
of ``kinematic.spots``). Classes 2, 4 and 5 share the geometry of the face-centred cubic lattice and differ by scale.
"""

import json
from pathlib import Path
from typing import NamedTuple

import gemmi
import numpy as np

from physml_jax.io import cif
from physml_jax.simulators.diffraction.crystal import Crystal, CrystalInfo, from_asymmetric_unit, template_label

_FILE = Path(__file__).parent / "structures" / "saed_phases.json"


class Phase(NamedTuple):
    """One class of the published set.

    Attributes:
      label: name of the class.
      crystal: its structure.
      info: formula, space group, source.
      confidence: how far structure and cell are to be trusted.
      note: what varies from sample to sample, or is assumed.
      num_train: published images in the training set, without their rotated copies.
      num_test: published images in the test set.
    """

    label: str
    crystal: Crystal
    info: CrystalInfo
    confidence: str
    note: str
    num_train: int
    num_test: int


def load_phases(*, b_iso: float = 0.5) -> tuple[Phase, ...]:
    """The nine phases in the order of the published class numbers.

    Args:
      b_iso: thermal factor B of all atoms, angstrom^2.

    Returns:
      Nine phases; index is class.

    Raises:
      ValueError: if ``b_iso`` is negative.
    """
    if not b_iso >= 0:
        raise ValueError(f"b_iso: expected a number of at least 0, got {b_iso!r}")
    return tuple(_phase(row, b_iso) for row in json.loads(_FILE.read_text()))


def _phase(row: dict, b_iso: float) -> Phase:
    elements, _, x, y, z, occupancies = zip(*row["sites"], strict=True)
    operations = gemmi.find_spacegroup_by_name(row["setting"]).operations()
    n = len(elements)
    crystal = from_asymmetric_unit(
        np.array(row["cell"]),
        np.array([gemmi.Element(e).atomic_number for e in elements]),
        np.stack([x, y, z], axis=1),
        np.array(occupancies),
        np.full(n, b_iso),
        np.zeros((n, 6)),
        np.array([np.array(op.rot) // op.DEN for op in operations]),
        np.array([np.array(op.tran) / op.DEN for op in operations]),
    )
    info = CrystalInfo(
        name=row["label"],
        formula=cif.formula(crystal),
        space_group=row["space_group"],
        space_group_name=row["setting"],
        source=row["source"],
        template=template_label(crystal, row["space_group"]),
    )
    return Phase(row["label"], crystal, info, row["confidence"], row["note"], row["num_train"], row["num_test"])
