"""Candidate crystals for the indexing of a pattern: from CIF files, or of the nine phases of the Pu-Zr set."""

from collections.abc import Sequence
from pathlib import Path

from physml_jax.data.saed_phases import load_phases
from physml_jax.io import cif
from physml_jax.simulators.diffraction.crystal import Crystal


def load_candidates(files: Sequence[str] = (), phases: Sequence[str] = ()) -> tuple[list[str], list[Crystal]]:
    """Names and structures.

    Args:
      files: CIF files.
      phases: names of the nine phases, in any case of the letters; "all" is all of them. Without files and phases it is
        all as well.

    Returns:
      Names (of the phase, or formula and file), different from each other, and crystals.

    Raises:
      ValueError: for a name that is no phase, or a file that is missing or holds no crystal structure.

    Example:
      >>> load_candidates(phases=["ZrO2", "puo"])[0]
      ['ZrO2', 'PuO']
    """
    known = load_phases()
    if any(name.lower() == "all" for name in phases) or not (files or phases):
        chosen = list(known)
    else:
        by_name = {p.label.lower(): p for p in known}
        missing = [name for name in phases if name.lower() not in by_name]
        if missing:
            listed = ", ".join(p.label for p in known)
            raise ValueError(f"phases: there is no {missing[0]!r}; available: all, {listed}")
        chosen = [by_name[name.lower()] for name in phases]
    names, crystals = [p.label for p in chosen], [p.crystal for p in chosen]
    for file in files:
        if not Path(file).is_file():
            raise ValueError(f"cif: there is no file {file}")
        crystal, info = cif.read(file)
        name = info.formula
        if name in names:
            name = f"{info.formula} ({Path(file).stem})"
        while name in names:
            name += "'"
        names.append(name)
        crystals.append(crystal)
    return names, crystals
