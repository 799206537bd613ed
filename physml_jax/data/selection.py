"""Which crystals a data set holds: bundled ones and those of a folder, without twins and without cells too large."""

import functools
import hashlib
import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from absl import logging

from physml_jax.data import crystals, manifest
from physml_jax.io import cif
from physml_jax.simulators.diffraction.crystal import Crystal, CrystalInfo

#: Two crystals of one formula and space group are twins if their lattice parameters agree to this fraction: measured
#: and calculated values for one crystal differ by about as much.
SAME_LENGTH = 0.02
_CENTRING = {"P": 1, "I": 2, "F": 4}  # a lattice keeps one reflection of the zero layer in so many


class Entry(NamedTuple):
    """A crystal of a data set.

    Attributes:
      info: formula, space group, template, licence.
      a: lattice parameter, angstrom.
      load: () -> the crystal. Filling a bundled cell takes milliseconds, so it is put off.
      digest: SHA-256 of all that ``load`` depends on.
      origin: ``"folder"``, ``"bundled file"`` or ``"bundled"``.
    """

    info: CrystalInfo
    a: float
    load: Callable[[], Crystal]
    digest: str
    origin: str


def choose(
    *,
    cif_dir: str | None = None,
    include_bundled: bool = True,
    default_b_iso: float = 0.5,
    num_structures: int | None = None,
    unfit: Callable[[Entry], str | None] = lambda entry: None,
) -> tuple[list[Entry], list[crystals.Rejected]]:
    """The crystals of a data set, and those that were left out.

    Crystals of ``cif_dir`` come first, then bundled CIF files, which know their thermal factors, then the bundled list.
    Each replaces its twins further down. What is left out of ``cif_dir`` is named in the log once per process.

    Args:
      cif_dir: folder of CIF files, or ``None``.
      include_bundled: whether the bundled crystals are used.
      default_b_iso: thermal factor B in angstrom^2 where none is known.
      num_structures: use at most so many, those of ``cif_dir`` first, otherwise by a hash.
      unfit: why a crystal cannot be used, or ``None``.

    Returns:
      Crystals in a fixed order, and what was left out with the reason.

    Raises:
      ValueError: if no crystal is left, or ``cif_dir`` is no folder with a usable file.
    """
    folder: tuple[Entry, ...] = ()
    left_out: list[crystals.Rejected] = []
    if cif_dir is not None:
        folder, rejected = _from_folder(str(Path(cif_dir).resolve()), _state(cif_dir), default_b_iso)
        left_out += rejected
    elif not include_bundled:
        raise ValueError("cif_dir: expected a folder of CIF files, because include_bundled is off")
    candidates = list(folder)
    if include_bundled:
        candidates += _without_twins(_bundled(default_b_iso), folder)
    entries = []
    for entry in candidates:
        reason = unfit(entry)
        if reason is None:
            entries.append(entry)
            continue
        left_out.append(crystals.Rejected(entry.info.name, reason))
        if entry.origin == "folder":
            _warn(str(cif_dir), left_out[-1])
    if not entries:
        listed = "; ".join(f"{r.file}: {r.reason}" for r in left_out[:5])
        raise ValueError(f"no crystal is left ({listed}{'; and more' if len(left_out) > 5 else ''})")
    if num_structures is not None:
        # By a hash and not by a draw: one crystal more or less changes little for the others.
        rank = sorted(range(len(entries)), key=lambda i: (entries[i].origin != "folder", entries[i].digest))
        entries = [entries[i] for i in sorted(rank[:num_structures])]
    return entries, left_out


def estimated_beams(info: CrystalInfo, a: float, max_g: float) -> int:
    """Reflections of the zero layer within ``max_g`` of a cubic crystal at [001], glide planes not counted."""
    return max(1, round(math.pi * (max_g * a) ** 2 / _CENTRING.get(info.space_group_name[:1], 1)))


def attribution(entries: Sequence[Entry], left_out: Sequence[crystals.Rejected]) -> list[dict[str, Any]]:
    """Where the crystals come from, one entry per source, and what was left out."""
    rows: list[dict[str, Any]] = []
    for row in crystals.attribution():
        count = sum(e.origin == "bundled" and e.info.source.startswith(f"{row['source']}: ") for e in entries)
        if count:
            rows.append({**row, "crystals": count})
    for origin in ("bundled file", "folder"):
        for e in entries:
            if e.origin == origin:
                rows.append({"source": e.info.source or e.info.name, "licence": e.info.licence, "crystals": 1})
    if left_out:
        rows.append({"left_out": [r._asdict() for r in left_out]})
    return rows


@functools.lru_cache(maxsize=2)
def _bundled(default_b_iso: float) -> tuple[Entry, ...]:
    """Bundled CIF files that are cubic, then the list of structures without their twins."""
    files = []
    for path in crystals.bundled_cifs():
        crystal, info = cif.read(path, default_b_iso=default_b_iso)
        if info.space_group >= 195:
            files.append(_from_crystal(crystal, info, "bundled file"))
    listed = []
    for structure in crystals.load_structures():
        arrays = {name: getattr(structure, name) for name in ("numbers", "positions", "multiplicities")}
        about = manifest.canonical_json([structure.info._asdict(), structure.a, structure.hall, default_b_iso])
        digest = _sha256(about + manifest.digest_arrays(arrays))
        load = functools.partial(crystals.expand, structure, b_iso=default_b_iso)
        listed.append(Entry(structure.info, float(structure.a), load, digest, "bundled"))
    return (*files, *_without_twins(listed, files))


@functools.lru_cache(maxsize=4)
def _from_folder(
    cif_dir: str, state: str, default_b_iso: float
) -> tuple[tuple[Entry, ...], tuple[crystals.Rejected, ...]]:
    """Reads a folder once per process, although every split asks for it; ``state`` tells whether it has changed."""
    del state
    found, rejected = crystals.read_folder(cif_dir, default_b_iso=default_b_iso)
    for r in rejected:
        _warn(cif_dir, r)
    return tuple(_from_crystal(crystal, info, "folder") for crystal, info in found), tuple(rejected)


def _state(cif_dir: str) -> str:
    paths = sorted(p for p in Path(cif_dir).rglob("*") if p.is_file())
    return _sha256(repr([(str(p), p.stat().st_size, p.stat().st_mtime_ns) for p in paths]))


@functools.cache
def _warn(cif_dir: str, rejected: crystals.Rejected) -> None:
    logging.warning("%s: left out %s: %s", cif_dir, rejected.file, rejected.reason)


def _from_crystal(crystal: Crystal, info: CrystalInfo, origin: str) -> Entry:
    arrays = {name: np.asarray(value) for name, value in crystal._asdict().items()}
    digest = _sha256(manifest.canonical_json(info._asdict()) + manifest.digest_arrays(arrays))
    return Entry(info, float(arrays["cell"][0]), lambda: crystal, digest, origin)


def _without_twins(entries: Sequence[Entry], others: Sequence[Entry]) -> list[Entry]:
    known: dict[tuple[int, str], list[float]] = {}
    for e in others:
        known.setdefault((e.info.space_group, e.info.formula), []).append(e.a)
    lengths = [known.get((e.info.space_group, e.info.formula), ()) for e in entries]
    return [e for e, same in zip(entries, lengths, strict=True) if all(abs(e.a / a - 1) > SAME_LENGTH for a in same)]


def _sha256(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()
