"""Crystals from CIF files, through gemmi.

What a file states wins over what its names imply: the list of symmetry operations over the Hall symbol, that over the
Hermann-Mauguin symbol, that over the number. Everything that cannot be a crystal is one ValueError that names the file
and what is wrong with it.
"""

import math
import re
from pathlib import Path

import gemmi
import numpy as np
from gemmi import cif

from physml_jax.simulators.diffraction.crystal import (
    Crystal,
    CrystalInfo,
    from_asymmetric_unit,
    site_multiplicities,
    template_label,
)

#: Atoms of different sites closer than this, in angstrom, cannot both be there.
MIN_DISTANCE = 0.5
#: Largest sum of occupancies on one site; refined values scatter a little above 1.
MAX_OCCUPANCY = 1.2

_OPERATION_TAGS = (
    "_space_group_symop_operation_xyz",
    "_space_group_symop.operation_xyz",
    "_symmetry_equiv_pos_as_xyz",
    "_symmetry_equiv.pos_as_xyz",
)
_HALL_TAGS = ("_space_group_name_Hall", "_space_group.name_Hall", "_symmetry_space_group_name_Hall")
_NAME_TAGS = ("_space_group_name_H-M_alt", "_space_group.name_H-M_alt", "_symmetry_space_group_name_H-M")
_NUMBER_TAGS = ("_space_group_IT_number", "_space_group.IT_number", "_symmetry_Int_Tables_number")
_VACANCIES = ("va", "vac", "vacancy", "void", "x")


def read_cif(path: str | Path, *, default_b_iso: float = 0.5) -> Crystal:
    """Reads the first crystal structure of a CIF file.

    Occupancies, isotropic (U or B) and anisotropic (U or B) thermal factors are read where the file has them; a thermal
    factor that is missing, zero or negative is replaced by ``default_b_iso``. Deuterium counts as hydrogen, ions as
    their neutral atoms. Atoms that the file marks as dummies, and sites with occupancy 0, are left out.

    Args:
      path: the file.
      default_b_iso: B in angstrom^2 for atoms without a thermal factor.

    Returns:
      The filled unit cell, NumPy arrays in float64 (int32 for numbers and rotations).

    Raises:
      OSError: if the file cannot be read.
      ValueError: if it holds no usable crystal structure (the message names the file and what is wrong), or if
        ``default_b_iso`` is negative.

    References:
      Hall, Allen and Brown (1991), Acta Cryst. A 47, 655, for the format; Wojdyr (2022), J. Open Source Softw. 7, 4200,
      for gemmi.
    """
    return read(path, default_b_iso=default_b_iso)[0]


def read_crystal_info(path: str | Path) -> CrystalInfo:
    """Formula, space group, source and template of the first structure of a CIF file; raises as ``read_cif``."""
    return read(path)[1]


def read(path: str | Path, *, default_b_iso: float = 0.5) -> tuple[Crystal, CrystalInfo]:
    """``read_cif`` and ``read_crystal_info`` in one pass."""
    if not default_b_iso >= 0:
        raise ValueError(f"default_b_iso: expected a number of at least 0, got {default_b_iso}")
    path = Path(path)
    text = _text(path)
    try:
        block = _structure_block(text)
        cell = _cell(block)
        atoms = _atoms(block, default_b_iso)
        crystal, group = _expand(block, cell, atoms)
        _check_content(crystal, block)
        _check_distances(crystal)
    except (ValueError, RuntimeError) as error:
        raise ValueError(f"{path}: {error}") from None
    number = group.number if group else (_number(block) or 1)
    name = group.xhm() if group else (_first(block, _NAME_TAGS) or f"number {number}")
    licence, source = _origin(block, text)
    info = CrystalInfo(
        name=path.stem,
        formula=formula(crystal),
        space_group=number,
        space_group_name=name,
        licence=licence,
        source=source,
        template=template_label(crystal, number),
    )
    return crystal, info


def formula(crystal: Crystal) -> str:
    """Chemical formula of the cell's content in Hill order, divided by the largest common factor.

    With partial occupancies the content is divided by the largest common factor of the site multiplicities.
    """
    numbers, occupancies = np.asarray(crystal.numbers), np.asarray(crystal.occupancies)
    amounts = {gemmi.Element(int(z)).name: float(occupancies[numbers == z].sum()) for z in np.unique(numbers)}
    if all(abs(v - round(v)) < 0.01 and round(v) > 0 for v in amounts.values()):
        divisor = math.gcd(*(round(v) for v in amounts.values()))
    else:
        _, counts = site_multiplicities(crystal)
        divisor = math.gcd(*counts.tolist())
    order = sorted(amounts)
    if "C" in amounts:
        order = ["C", *(["H"] if "H" in amounts else []), *(s for s in order if s not in ("C", "H"))]
    return "".join(s + _amount(amounts[s] / divisor) for s in order)


def _amount(value: float) -> str:
    if abs(value - round(value)) < 0.005 and round(value) > 0:
        return "" if round(value) == 1 else str(round(value))
    return f"{value:.3g}"


def _text(path: Path) -> str:
    data = path.read_bytes()
    if not data.strip():
        raise ValueError(f"{path}: the file is empty")
    if b"\0" in data:
        raise ValueError(f"{path}: not a CIF file (binary content)")
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError:
        return data.decode("latin-1")  # author names of old files


def _structure_block(text: str) -> cif.Block:
    """The first data block with atoms; names what the most complete block lacks if there is none."""
    try:
        document = cif.read_string(text)
    except (ValueError, RuntimeError) as error:
        reason = re.sub(
            r"^string:(?:(\d+):\d+\(\d+\):)?", lambda m: f"line {m[1]}:" if m[1] else "", str(error).splitlines()[0]
        )
        raise ValueError(f"not a CIF file ({reason.strip()})") from None
    blocks = list(document)
    if not blocks:
        raise ValueError("not a CIF file (no data block)")
    with_atoms = [b for b in blocks if b.find_loop("_atom_site_fract_x") or b.find_value("_atom_site_fract_x")]
    if with_atoms:
        return with_atoms[0]
    if any(b.find_loop("_atom_site_Cartn_x") or b.find_loop("_atom_site.Cartn_x") for b in blocks):
        raise ValueError("the atoms have no fractional coordinates")
    if not any(b.find_value("_cell_length_a") for b in blocks):
        raise ValueError("no unit cell (_cell_length_a) and no atom sites (_atom_site_fract_x)")
    raise ValueError("no atom sites (_atom_site_fract_x)")


def _cell(block: cif.Block) -> np.ndarray:
    tags = [f"_cell_length_{x}" for x in "abc"] + [f"_cell_angle_{x}" for x in ("alpha", "beta", "gamma")]
    values = []
    for tag in tags:
        value = cif.as_number(block.find_value(tag) or "?")
        if not math.isfinite(value):
            raise ValueError(f"no unit cell ({tag} is missing or not a number)")
        values.append(value)
    cell = np.array(values)
    if (cell[:3] < 1).any() or (cell[:3] > 1000).any() or (cell[3:] < 10).any() or (cell[3:] > 170).any():
        raise ValueError(f"absurd unit cell {values} (lengths in angstrom, angles in degrees)")
    return cell


def _column(block: cif.Block, tag: str, n: int) -> list[str]:
    found = [cif.as_string(v) for v in block.find_values(tag)]
    return found if len(found) == n else ["?"] * n


def _numbers(block: cif.Block, tag: str, n: int) -> np.ndarray:
    """A column as floats without uncertainties; NaN where the file says nothing."""
    found = list(block.find_values(tag))
    return np.array([cif.as_number(v) for v in found]) if len(found) == n else np.full(n, np.nan)


def _atoms(block: cif.Block, default_b_iso: float) -> dict[str, np.ndarray]:
    """Columns of the atom list as arrays named like the arguments of ``from_asymmetric_unit``."""
    n = len(block.find_values("_atom_site_fract_x"))
    if n == 0:
        raise ValueError("no atom sites (_atom_site_fract_x has no values)")
    positions = np.stack([_numbers(block, f"_atom_site_fract_{x}", n) for x in "xyz"], axis=1)
    symbols, labels = _column(block, "_atom_site_type_symbol", n), _column(block, "_atom_site_label", n)
    occupancies = _numbers(block, "_atom_site_occupancy", n)
    occupancies = np.where(np.isnan(occupancies), 1.0, occupancies)
    dummy = np.array([v.lower() == "dum" for v in _column(block, "_atom_site_calc_flag", n)])
    elements = [v if s in ("?", ".") else s for s, v in zip(symbols, labels, strict=True)]
    vacancy = np.array([e.lower() in _VACANCIES for e in elements])
    keep = np.flatnonzero(~dummy & ~vacancy & (occupancies != 0))
    if len(keep) == 0:
        raise ValueError("no atom sites")
    in_formula = _elements_of_formula(block)
    numbers = []
    for i in keep:
        if not np.isfinite(positions[i]).all():
            raise ValueError(f"atom {labels[i]!r} has no coordinates")
        if not 0 < occupancies[i] <= MAX_OCCUPANCY:
            raise ValueError(f"atom {labels[i]!r} has the occupancy {occupancies[i]:g}, expected (0, 1]")
        numbers.append(_atomic_number(elements[i], labels[i], in_formula))
    b_iso = _numbers(block, "_atom_site_B_iso_or_equiv", n)
    u_iso = _numbers(block, "_atom_site_U_iso_or_equiv", n)
    b_iso = np.where(np.isnan(b_iso), 8 * np.pi**2 * u_iso, b_iso)
    b_iso = np.where(b_iso > 0, b_iso, default_b_iso)  # NaN compares as false
    u_aniso = np.zeros((n, 6))
    tensors = _anisotropic(block)
    for i, label in enumerate(labels):
        if label in tensors:
            u_aniso[i], b_iso[i] = tensors[label], 0.0
    return {
        "numbers": np.array(numbers),
        "positions": positions[keep],
        "occupancies": np.minimum(occupancies[keep], 1.0),
        "b_iso": b_iso[keep],
        "u_aniso": u_aniso[keep],
    }


def _anisotropic(block: cif.Block) -> dict[str, np.ndarray]:
    """Thermal tensors by atom label, U11 U22 U33 U12 U13 U23; those that are no ellipsoid are left out."""
    n = len(block.find_values("_atom_site_aniso_label"))
    labels = _column(block, "_atom_site_aniso_label", n)
    index = ("11", "22", "33", "12", "13", "23")
    u = np.stack([_numbers(block, f"_atom_site_aniso_U_{i}", n) for i in index], axis=1)
    b = np.stack([_numbers(block, f"_atom_site_aniso_B_{i}", n) for i in index], axis=1)
    u = np.where(np.isnan(u), b / (8 * np.pi**2), u)
    found = {}
    for label, t in zip(labels, u, strict=True):
        if not np.isfinite(t).all():
            continue
        ellipsoid = np.linalg.eigvalsh([[t[0], t[3], t[4]], [t[3], t[1], t[5]], [t[4], t[5], t[2]]])
        if ellipsoid[0] > -1e-6 and ellipsoid[2] > 0:
            found[label] = t
    return found


def _elements_of_formula(block: cif.Block) -> set[str]:
    text = cif.as_string(block.find_value("_chemical_formula_sum") or "?")
    return set(re.findall(r"[A-Z][a-z]?", text))


def _atomic_number(text: str, label: str, in_formula: set[str]) -> int:
    """Element of an atom from its type symbol ("Fe3+", "Siv") or else its label ("Se1a", "OW1", "Wat")."""
    if text.lower().startswith("wat"):
        return 8  # the oxygen of a water molecule whose hydrogen was not located; "W" would read it as tungsten
    letters = re.match(r"[A-Za-z]{1,2}", text)
    letters = letters.group() if letters else ""
    known = [s for s in (letters.capitalize(), letters[:1].upper()) if s and gemmi.Element(s).atomic_number > 0]
    # "CA1" is calcium or a carbon: the formula decides where there is one.
    preferred = [s for s in known if s in in_formula] or known
    if not preferred:
        raise ValueError(f"unknown element {text!r} (atom {label!r})")
    return gemmi.Element(preferred[0]).atomic_number


def _first(block: cif.Block, tags: tuple[str, ...]) -> str:
    for tag in tags:
        value = cif.as_string(block.find_value(tag) or "?").strip()
        if value not in ("", "?", "."):
            return value
    return ""


def _number(block: cif.Block) -> int:
    value = _first(block, _NUMBER_TAGS)
    return int(value) if value.isdigit() and 1 <= int(value) <= 230 else 0


def _operations(block: cif.Block, cell: np.ndarray) -> list[list[gemmi.Op]]:
    """Symmetry operations; several lists where the file leaves the origin open."""
    for tag in _OPERATION_TAGS:
        triplets = [cif.as_string(v) for v in block.find_values(tag)]
        if triplets:
            try:
                return [[gemmi.Op(t).wrap() for t in triplets]]
            except (ValueError, RuntimeError):
                raise ValueError(f"{tag} holds something that is not a symmetry operation") from None
    hall = _first(block, _HALL_TAGS)
    if hall:
        try:
            return [list(gemmi.symops_from_hall(hall))]
        except (ValueError, RuntimeError):
            pass  # files misspell Hall symbols more often than the others
    name, number = _first(block, _NAME_TAGS), _number(block)
    group = gemmi.find_spacegroup_by_name(name, cell[3], cell[5]) if name else None
    if group is None and number:
        group = gemmi.find_spacegroup_by_number(number)
        name = group.hm if group else name
    if group is None:
        raise ValueError("no symmetry operations and no known space group")
    if ":" not in name and group.ext in ("1", "2"):
        same = [g for g in gemmi.spacegroup_table_itb() if g.hm == group.hm and g.ext in ("1", "2")]
        return [list(g.operations()) for g in sorted(same, key=lambda g: not g.is_reference_setting())]
    return [list(group.operations())]


def _arrays(operations: list[gemmi.Op]) -> tuple[np.ndarray, np.ndarray]:
    """Rotations and translations of a group without repetitions; raises if the operations are no group."""
    rotations = np.array([op.rot for op in operations]) // gemmi.Op.DEN
    translations = np.array([op.tran for op in operations]) % gemmi.Op.DEN
    keys = np.concatenate([rotations.reshape(-1, 9), translations], axis=1)
    keep = np.sort(np.unique(keys, axis=0, return_index=True)[1])
    rotations, translations = rotations[keep], translations[keep]
    known = {tuple(k) for k in keys.tolist()}
    for r, t in zip(rotations, translations, strict=True):
        products = (r @ rotations).reshape(-1, 9), (translations @ r.T + t) % gemmi.Op.DEN
        if not known.issuperset(map(tuple, np.concatenate(products, axis=1).tolist())):
            raise ValueError("the symmetry operations do not form a group")
    return rotations, translations / gemmi.Op.DEN


def _expand(block: cif.Block, cell: np.ndarray, atoms: dict[str, np.ndarray]):
    """The filled cell and gemmi's entry of the space group (None for settings that are in no table)."""
    candidates = []
    for operations in _operations(block, cell):
        rotations, translations = _arrays(operations)
        _check_metric(cell, rotations)
        crystal = from_asymmetric_unit(cell, **atoms, rotations=rotations, translations=translations)
        candidates.append((crystal, gemmi.find_spacegroup_by_ops(gemmi.GroupOps(operations))))
    # Of two possible origins the right one has the stated composition, else more atoms on symmetry elements.
    stated = cif.as_string(block.find_value("_chemical_formula_sum") or "")
    wanted = dict(re.findall(r"([A-Z][a-z]?)([\d.]*)", stated))
    ranks = [(not _same_composition(c, wanted), len(c.numbers)) for c, _ in candidates]
    return candidates[ranks.index(min(ranks))]


def _same_composition(crystal: Crystal, wanted: dict[str, str]) -> bool:
    numbers, occupancies = np.asarray(crystal.numbers), np.asarray(crystal.occupancies)
    ratios = []
    for symbol, amount in wanted.items():
        total = occupancies[numbers == gemmi.Element(symbol).atomic_number].sum()
        ratios.append(total / float(amount or 1))
    return bool(ratios) and min(ratios) > 0.98 * max(ratios)


def _check_content(crystal: Crystal, block: cif.Block) -> None:
    """Raises if the formula names an element that has no atom; hydrogen often was not located."""
    present = {gemmi.Element(int(z)).name for z in crystal.numbers} | {"H", "D"}
    stated = {s for s in _elements_of_formula(block) if gemmi.Element(s).atomic_number > 0}
    if stated - present:
        raise ValueError(f"the formula has {', '.join(sorted(stated - present))}, the list of atoms has not")


def _check_metric(cell: np.ndarray, rotations: np.ndarray) -> None:
    unit = gemmi.UnitCell(*cell)
    vectors = np.array(unit.orth.mat.tolist())
    metric = vectors.T @ vectors
    change = np.abs(rotations.swapaxes(1, 2) @ metric @ rotations - metric).max()
    if change > 0.01 * metric.max():
        raise ValueError(f"the symmetry operations do not fit the unit cell {cell.tolist()}")


def _check_distances(crystal: Crystal) -> None:
    """Raises if two sites overlap that are not one shared or split site."""
    rows, _ = site_multiplicities(crystal)
    vectors = np.array(gemmi.UnitCell(*crystal.cell).orth.mat.tolist())
    for row in rows:
        gaps = crystal.positions - crystal.positions[row]
        distances = np.linalg.norm((gaps - np.round(gaps)) @ vectors.T, axis=1)
        near = np.flatnonzero(distances < MIN_DISTANCE)
        if crystal.occupancies[near].sum() > MAX_OCCUPANCY and len(near) > 1:
            other = int(near[near != row][0])
            names = [gemmi.Element(int(crystal.numbers[k])).name for k in (row, other)]
            raise ValueError(f"atoms too close: {names[0]} and {names[1]} at {distances[other]:.2f} angstrom")


def _origin(block: cif.Block, text: str) -> tuple[str, str]:
    """Licence and database entry, where the file states them."""
    entries = (("COD", "_cod_database_code"), ("COD", "_database_code_COD"), ("ICSD", "_database_code_ICSD"))
    source = next((f"{n} {_first(block, (tag,))}" for n, tag in entries if _first(block, (tag,))), "")
    if not source and re.fullmatch(r"\d{7}", block.name) and "Crystallography Open Database" in text:
        source = f"COD {block.name}"
    if "public domain" in text:
        return "public domain", source
    return ("CC0", source) if source.startswith("COD") else ("", source)
