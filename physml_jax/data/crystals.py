"""Crystals to simulate: bundled cubic structures, folders of CIF files, and splits that keep templates apart."""

import csv
import functools
import gzip
import hashlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import gemmi
import numpy as np

from physml_jax.data.bonding import is_molecular
from physml_jax.io import cif
from physml_jax.simulators.diffraction.crystal import Crystal, CrystalInfo, from_asymmetric_unit

_FOLDER = Path(__file__).parent / "structures"
#: Largest atomic number that the default table of form factors holds.
_HEAVIEST = 103
#: Two crystals are one if their lattice parameters agree to this fraction, and their fingerprints to the second number.
_SAME_LENGTH, _SAME_SITES = 0.005, 0.02


class Structure(NamedTuple):
    """A bundled structure as its file has it: independent atoms only, cheap to hold by the thousand; see ``expand``.

    Attributes:
      info: formula, space group, licence, source, template.
      a: lattice parameter of the cubic cell in angstrom.
      hall: serial number of the space-group setting, 1 to 530 (International Tables B, table A1.4.2.7).
      numbers: int32 [n], atomic numbers.
      positions: float64 [n, 3], fractional coordinates.
      multiplicities: int32 [n], atoms per cell that each one stands for.
    """

    info: CrystalInfo
    a: float
    hall: int
    numbers: np.ndarray
    positions: np.ndarray
    multiplicities: np.ndarray


class Rejected(NamedTuple):
    """A file that was not used, and why in one line."""

    file: str
    reason: str


class Split(NamedTuple):
    """int64 row numbers of three disjoint sets, each in increasing order; together they are all rows."""

    train: np.ndarray
    validation: np.ndarray
    test: np.ndarray


def load_structures() -> list[Structure]:
    """The bundled ordered cubic structures, in the order of their file; those of ``excluded.csv`` are left out.

    Takes about 0.1 s; filling the cells (``expand``) takes about 3 ms each.

    Returns:
      1348 structures with the names ``<formula>_<name in the source>``.
    """
    with open(_FOLDER / "excluded.csv", newline="") as f:
        excluded = {row["id"] for row in csv.DictReader(f)}
    with gzip.open(_FOLDER / "structures.jsonl.gz", "rt") as f:
        rows = [json.loads(line) for line in f]
    sources = {row["source"]: row for row in attribution()}
    structures = []
    for row in rows:
        if row["id"] in excluded:
            continue
        info = CrystalInfo(
            name=f"{row['formula']}_{row['id'].replace(' ', '')}",
            formula=row["formula"],
            space_group=row["sg"],
            space_group_name=_settings()[row["hall"] - 1].xhm(),
            licence=sources[row["src"]]["licence"],
            source=f"{row['src']}: {row['id']}",
            template=row["proto"],
        )
        z, multiplicities = np.array([s[:2] for s in row["sites"]], np.int32).T
        positions = np.array([s[3:] for s in row["sites"]], np.float64)
        structures.append(Structure(info, row["a"], row["hall"], z, positions, multiplicities))
    return structures


def expand(structure: Structure, *, b_iso: float = 0.5) -> Crystal:
    """Fills the cell of a bundled structure; all atoms get the isotropic thermal factor ``b_iso`` in angstrom^2."""
    n = len(structure.numbers)
    rotations, translations = _operations(structure.hall)
    return from_asymmetric_unit(
        np.array([structure.a] * 3 + [90.0] * 3),
        structure.numbers,
        structure.positions,
        np.ones(n),
        np.full(n, b_iso),
        np.zeros((n, 6)),
        rotations,
        translations,
    )


def attribution() -> list[dict[str, str]]:
    """Licence and credit of every source of the bundled structures: keys source, licence, credit."""
    with open(_FOLDER / "sources.csv", newline="") as f:
        return list(csv.DictReader(f))


def bundled_cifs() -> list[Path]:
    """The bundled CIF files, sorted by name; ``ATTRIBUTION.csv`` beside them names the article of each."""
    return sorted((_FOLDER / "cifs").glob("*.cif"))


def read_folder(
    cif_dir: str | Path, *, cubic_only: bool = True, default_b_iso: float = 0.5
) -> tuple[list[tuple[Crystal, CrystalInfo]], list[Rejected]]:
    """Reads every CIF file of a folder (and its subfolders), in the order of their names.

    Left out, with the reason: files that ``io.cif`` cannot use, elements beyond the tables of form factors, molecular
    crystals (see ``data.bonding.is_molecular``), crystals that are not cubic, and the second of two equal crystals.
    Crystals are equal if space group and formula are, the lattice parameters agree within 0.5 %, and so do the sizes of
    the structure factors of low order (which do not depend on the origin).

    Args:
      cif_dir: the folder.
      cubic_only: leave out what is not cubic.
      default_b_iso: see ``io.cif.read_cif``.

    Returns:
      The crystals with their descriptions, and the files left out.

    Raises:
      ValueError: if there is no such folder, or not one usable file in it; the message has the first reasons.
    """
    folder = Path(cif_dir)
    if not folder.is_dir():
        raise ValueError(f"cif_dir: there is no folder {folder}")
    files = sorted(p for p in folder.rglob("*") if p.suffix.lower() == ".cif" and p.is_file())
    if not files:
        raise ValueError(f"cif_dir: there is no .cif file in {folder}")
    accepted: list[tuple[Crystal, CrystalInfo]] = []
    rejected: list[Rejected] = []
    seen: dict[tuple[int, str], list[tuple[np.ndarray, np.ndarray, str]]] = {}
    for path in files:
        name = str(path.relative_to(folder))
        try:
            crystal, info = cif.read(path, default_b_iso=default_b_iso)
        except (ValueError, OSError) as error:
            rejected.append(Rejected(name, " ".join(str(error).removeprefix(f"{path}: ").split())))
            continue
        mark = fingerprint(crystal)
        twins = seen.setdefault((info.space_group, info.formula), [])
        twin = next((other for cell, old, other in twins if _same(crystal, mark, cell, old)), None)
        reason = _unsuitable(crystal, info, cubic_only=cubic_only)
        if reason is None and twin is not None:
            reason = f"duplicate of {twin}"
        if reason is not None:
            rejected.append(Rejected(name, reason))
            continue
        twins.append((crystal.cell, mark, name))
        accepted.append((crystal, info))
    if not accepted:
        listed = "; ".join(f"{r.file}: {r.reason}" for r in rejected[:5])
        more = f"; {len(rejected) - 5} more" if len(rejected) > 5 else ""
        raise ValueError(f"cif_dir: none of the {len(files)} files in {folder} can be used ({listed}{more})")
    return accepted, rejected


def fingerprint(crystal: Crystal) -> np.ndarray:
    """Numbers that equal crystals share, whatever origin, hand or order of atoms their files choose.

    Absolute structure factors of point atoms with weight Z, relative to F_000, for indices from -3 to 3, sorted.
    """
    h = np.stack(np.meshgrid(*[np.arange(-3, 4)] * 3, indexing="ij"), axis=-1).reshape(-1, 3)
    weights = np.asarray(crystal.numbers) * np.asarray(crystal.occupancies)
    return np.sort(np.abs(np.exp(-2j * np.pi * (h @ np.asarray(crystal.positions).T)) @ weights)) / weights.sum()


def split_by_template(
    templates: Sequence[str], *, seed: int, fractions: tuple[float, float, float] = (0.8, 0.1, 0.1)
) -> Split:
    """Splits crystals so that no template is in two sets: scores on the test set then are for arrangements never seen.

    Templates, in an order that depends on the seed and their labels only, fill the test and the validation set up to
    their shares; the rest is for training, always with the largest template. A template that alone would be more than a
    third of the test or validation set goes to training too, so that these sets hold many arrangements and not one with
    many elements.

    Args:
      templates: label of the template of every crystal.
      seed: chooses the split.
      fractions: shares of training, validation and test set; only the first may not be 0.

    Returns:
      Row numbers. The shares are met as well as whole templates allow.

    Raises:
      ValueError: if the fractions are not three shares of 1, or if there are fewer templates than sets.
    """
    sets = _check_fractions(fractions)
    names = sorted(set(templates))
    if len(names) < sets:
        raise ValueError(
            f"templates: a split into {sets} sets needs at least {sets} structure templates, got {len(names)}; "
            "use the random split or more crystals"
        )
    members: dict[str, list[int]] = {t: [] for t in names}
    for i, t in enumerate(templates):
        members[t].append(i)
    order = sorted(names, key=lambda t: _hash(seed, t))
    train = [max(order, key=lambda t: len(members[t]))]  # so that training is never left without data
    targets = {k: f * len(templates) for k, f in (("test", fractions[2]), ("validation", fractions[1])) if f > 0}
    taken: dict[str, list[str]] = {k: [] for k in targets}
    totals = dict.fromkeys(targets, 0)
    for t in order:
        if t in train:
            continue
        k = max(targets, key=lambda k: targets[k] - totals[k], default="train")
        size = len(members[t])
        if k in targets and size <= max(targets[k] / 3, 1) and totals[k] + size <= max(targets[k], 1):
            taken[k].append(t)
            totals[k] += size
        else:
            train.append(t)
    for k in targets:
        if not taken[k]:  # every template is large, or the other set took the small ones
            donor = train if len(train) > 1 else next(v for v in taken.values() if len(v) > 1)
            smallest = min(donor if donor is not train else donor[1:], key=lambda t: len(members[t]))
            donor.remove(smallest)
            taken[k].append(smallest)
    groups = (train, taken.get("validation", []), taken.get("test", []))
    return Split(*(np.array(sorted(i for t in g for i in members[t]), np.int64) for g in groups))


def split_random(n: int, *, seed: int, fractions: tuple[float, float, float] = (0.8, 0.1, 0.1)) -> Split:
    """Splits ``n`` crystals at random, the published protocol; relatives of a test crystal may then be in training.

    Raises:
      ValueError: if the fractions are not three shares of 1, or ``n`` is too small for the sets.
    """
    sets = _check_fractions(fractions)
    sizes = [max(round(f * n), 1) if f > 0 else 0 for f in fractions[1:]]
    if n - sum(sizes) < 1:
        raise ValueError(f"n: a split into {sets} sets needs at least {sets} crystals, got {n}")
    order = np.array(sorted(range(n), key=lambda i: _hash(seed, str(i))), np.int64)
    test, validation, train = np.split(order, np.cumsum(sizes[::-1]))
    return Split(np.sort(train), np.sort(validation), np.sort(test))


def _check_fractions(fractions: tuple[float, float, float]) -> int:
    if len(fractions) != 3 or min(fractions) < 0 or fractions[0] == 0 or abs(sum(fractions) - 1) > 1e-6:
        raise ValueError(f"fractions: expected three shares of 1 with some training data, got {fractions}")
    return sum(f > 0 for f in fractions)


def _hash(seed: int, text: str) -> bytes:
    # A hash and no random generator: the place of a template in the order does not depend on which others there are.
    return hashlib.sha256(f"{seed}/{text}".encode()).digest()


def _unsuitable(crystal: Crystal, info: CrystalInfo, *, cubic_only: bool) -> str | None:
    if crystal.numbers.max() > _HEAVIEST:
        return f"no form factors for {gemmi.Element(int(crystal.numbers.max())).name}"
    if is_molecular(crystal):
        return "molecular crystal"
    if cubic_only and info.space_group < 195:
        hint = "; write the file with its symmetry operations if the crystal is cubic" if info.space_group == 1 else ""
        return f"not cubic (space group {info.space_group}, {info.space_group_name}){hint}"
    return None


def _same(crystal: Crystal, mark: np.ndarray, cell: np.ndarray, other_mark: np.ndarray) -> bool:
    lengths = np.abs(crystal.cell / cell - 1).max() < _SAME_LENGTH
    return bool(lengths and np.abs(mark - other_mark).max() < _SAME_SITES)


@functools.cache
def _settings() -> list[gemmi.SpaceGroup]:
    """The 530 settings in the order of International Tables B: entry ``hall - 1``."""
    return list(gemmi.spacegroup_table_itb())


@functools.cache
def _operations(hall: int) -> tuple[np.ndarray, np.ndarray]:
    operations = list(_settings()[hall - 1].operations())
    rotations = np.array([op.rot for op in operations]) // gemmi.Op.DEN
    return rotations, np.array([op.tran for op in operations]) / gemmi.Op.DEN
