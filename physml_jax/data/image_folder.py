"""A folder of a laboratory's own grey images with a table of labels, stored as squares of one size.

The table is a CSV file with the columns ``file`` (relative to its folder), ``label`` and, optionally, ``split`` (train,
validation or test). Classes are numbered in the order of ``classes``, or of their sorted names. Without a column
``split`` each class is divided by the hashes of its file names, so that the order of the table does not matter.
"""

import csv
import hashlib
from pathlib import Path
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.scipy.ndimage import map_coordinates

from physml_jax.io import images
from physml_jax.typing import Array, Batch, Dataset, Recipe

VERSION = 1  # raised when the content of records changes while all settings stay
SPLITS = ("train", "validation", "test")


class Row(NamedTuple):
    """One line of the table: file, name of the class, split ('' if the table does not say)."""

    file: Path
    label: str
    split: str


def make_dataset(
    *,
    table: str,
    split: str = "train",
    pixels: int = 224,
    crop: int | None = None,
    classes: tuple[str, ...] = (),
    fractions: tuple[float, float, float] = (0.8, 0.0, 0.2),
    num_rotations: int = 1,
    white: float = 100.0,
    exponent: float = 1.0,
    shard_size: int = 64,
) -> Dataset:
    """Images of a folder with their class.

    Args:
      table: path of the CSV file.
      split: ``"train"``, ``"validation"`` or ``"test"``.
      pixels: side P of the stored images.
      crop: side of the middle part of the files that is used, in their pixels; ``None`` is the largest square.
      classes: names of the classes in the order of their numbers; ``()`` is all names of the table, sorted.
      fractions: shares of the three splits in every class, where the table has no column ``split``.
      num_rotations: examples per image, turned by equal steps (24: by 15 degrees; bilinear, corners that were not in
        the image are black); those of one image follow each other.
      white: percentile of an image that becomes 1; its minimum becomes 0. 100 is the brightest pixel, less bears hot
        ones.
      exponent: of the grey values after that.
      shard_size: images per stored shard.

    Returns:
      A dataset of ``image`` float32 [P, P, 1] from 0 to 1 and ``label`` int32 [].

    Raises:
      ValueError: for a table that is not as described, or an option outside its range. Images are read when the records
        are made; one that cannot be used is an error that names it.
    """
    if split not in SPLITS:
        raise ValueError(f"split: there is no {split!r}; available: {', '.join(SPLITS)}")
    if pixels < 1 or num_rotations < 1 or shard_size < 1:
        found = f"{pixels}, {num_rotations} and {shard_size}"
        raise ValueError(f"pixels, num_rotations, shard_size: expected at least 1, got {found}")
    if not 0 < white <= 100 or not exponent > 0:
        raise ValueError(f"white, exponent: expected a percentile and a positive number, got {white} and {exponent}")
    if len(fractions) != 3 or min(fractions) < 0 or abs(sum(fractions) - 1) > 1e-6:
        raise ValueError(f"fractions: expected three shares that sum to 1, got {tuple(fractions)}")
    rows = read_table(table)
    names = tuple(classes) or tuple(sorted({row.label for row in rows}))
    unknown = sorted({row.label for row in rows} - set(names))
    if unknown:
        raise ValueError(f"classes: {table} also has {', '.join(unknown)}")
    numbers = np.array([names.index(row.label) for row in rows], np.int32)

    def shard(i: int) -> list[dict[str, np.ndarray]]:
        chosen = range(i * shard_size, min((i + 1) * shard_size, len(rows)))
        return [{"image": _prepared(rows[j].file, pixels, crop, white, exponent), "label": numbers[j]} for j in chosen]

    shape = jax.ShapeDtypeStruct
    spec = {"image": shape((pixels, pixels, 1), jnp.float32), "label": shape((), jnp.int32)}
    content = [[row.file.name, _sha256(row.file), int(n)] for row, n in zip(rows, numbers, strict=True)]
    settings = {"pixels": pixels, "crop": crop, "white": white, "exponent": exponent, "shard_size": shard_size}
    recipe = Recipe(
        name=Path(table).stem,
        config={"version": VERSION, "classes": list(names), "files": content, **settings},
        spec=spec,
        shard_lengths=tuple(min(shard_size, len(rows) - s) for s in range(0, len(rows), shard_size)),
        shard=shard,
        labels=tuple(row.file.name for row in rows),
    )
    mine = np.flatnonzero([s == split for s in assign(rows, fractions)])
    if not len(mine):
        raise ValueError(f"split: no image of {table} is in {split!r}")
    if num_rotations == 1:
        return Dataset(spec=spec, num_examples=len(mine), recipe=recipe, rows=mine)
    return Dataset(
        spec=spec,
        num_examples=len(mine) * num_rotations,
        recipe=recipe,
        rows=np.repeat(mine, num_rotations),
        decode=lambda records, index: _turned(records, index, num_rotations),
        record=spec,
    )


def read_table(table: str) -> list[Row]:
    """The lines of a table, in its order.

    Raises:
      ValueError: if the file, a column or an image is missing, a line is incomplete, or an image is listed twice.
    """
    path = Path(table)
    if not path.is_file():
        raise ValueError(f"table: there is no file {table}")
    with open(path, newline="", encoding="utf-8-sig") as f:
        lines = list(csv.DictReader(f))
    if not lines or not {"file", "label"} <= set(lines[0]):
        raise ValueError(f"table: expected lines with the columns file and label in {table}")
    rows, seen = [], set()
    for number, line in enumerate(lines, start=2):
        name, label, split = ((line.get(key) or "").strip() for key in ("file", "label", "split"))
        if not name or not label or split not in ("", *SPLITS):
            raise ValueError(f"{table}, line {number}: expected file, label and one of {', '.join(SPLITS)}, got {line}")
        file = path.parent / name
        if name in seen or not file.is_file():
            raise ValueError(f"{table}, line {number}: {name} is {'listed twice' if name in seen else 'missing'}")
        seen.add(name)
        rows.append(Row(file, label, split))
    return rows


def assign(rows: list[Row], fractions: tuple[float, float, float]) -> list[str]:
    """The split of every line: that of the table, or by class in the given shares (rounded; training gets the rest)."""
    splits = [row.split for row in rows]
    if all(splits):
        return splits
    if any(splits):
        raise ValueError("table: expected a split in every line or in none")
    for label in sorted({row.label for row in rows}):
        members = [i for i, row in enumerate(rows) if row.label == label]
        members.sort(key=lambda i: hashlib.sha256(rows[i].file.name.encode()).hexdigest())
        num_validation, num_test = (round(f * len(members)) for f in fractions[1:])
        for place, i in enumerate(members):
            later = "validation" if place < num_test + num_validation else "train"
            splits[i] = "test" if place < num_test else later
    return splits


def _prepared(file: Path, pixels: int, crop: int | None, white: float, exponent: float) -> np.ndarray:
    image = images.read_image(file)
    try:
        image = images.square(image, pixels=pixels, crop=crop)
    except ValueError as error:
        raise ValueError(f"{file}: {error}") from error
    low, high = image.min(), np.percentile(image, white)
    if not high > low:
        raise ValueError(f"{file}: its middle has no contrast")
    return (np.clip((image - low) / (high - low), 0, 1) ** exponent).astype(np.float32)[..., None]


def _turned(records: Batch, index: Array, num_rotations: int) -> Batch:
    """Images turned counterclockwise by their number modulo ``num_rotations`` steps."""
    side = records["image"].shape[1]
    axis = jnp.arange(side, dtype=jnp.float32) - (side - 1) / 2

    def turn(image, angle):
        c, s = jnp.cos(angle), jnp.sin(angle)
        down, right = axis[:, None], axis[None, :]
        where = [c * down + s * right + (side - 1) / 2, c * right - s * down + (side - 1) / 2]
        return map_coordinates(image[..., 0], where, order=1, cval=0.0)[..., None]

    angles = (index % num_rotations).astype(jnp.float32) * (2 * np.pi / num_rotations)
    return {"image": jax.vmap(turn)(records["image"], angles), "label": records["label"]}


def _sha256(file: Path) -> str:
    return hashlib.sha256(file.read_bytes()).hexdigest()
