"""Diffraction patterns from the files that microscopes write, with the calibration that the file carries.

The scale of ImageJ's TIFF files is in their resolution tag and the unit in the description. Files of cameras and
microscopes (dm3, dm4, mrc, blo, hspy) are read through RosettaSciIO, an optional package under the GPL.
"""

import importlib
import re
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from physml_jax.io import images

#: Readers of RosettaSciIO by the end of the name.
READERS = {
    ".dm3": "digitalmicrograph",
    ".dm4": "digitalmicrograph",
    ".mrc": "mrc",
    ".blo": "blockfile",
    ".hspy": "hspy",
}
#: Lengths in angstrom by their unit.
_LENGTHS = {"a": 1.0, "å": 1.0, "ang": 1.0, "angstrom": 1.0, "nm": 10.0, "pm": 0.01, "um": 1e4, "µm": 1e4, "m": 1e10}


class Micrograph(NamedTuple):
    """A grey image and what its file says about it.

    Attributes:
      image: float32 [H, W].
      scale: 1/angstrom per pixel; ``None`` if the file gives none.
      voltage_kv: accelerating voltage; ``None`` if the file gives none.
      note: why there is no scale, or where it comes from; for the user.
    """

    image: np.ndarray
    scale: float | None
    voltage_kv: float | None
    note: str


def read_micrograph(path: str | Path, *, frame: int = 0) -> Micrograph:
    """Reads one image with its calibration.

    Args:
      path: tif, png or npy (see ``images.read_image``), or a file of ``READERS``.
      frame: number of the image in a file that holds several, counted along its axes, the last fastest.

    Returns:
      ``Micrograph``.

    Raises:
      ValueError: naming the file: what ``read_image`` refuses, a missing reader, no such frame, or different scales
        along x and y.
    """
    path = Path(path)
    suffix = path.suffix.lower()
    if suffix in READERS:
        if not path.is_file():
            raise ValueError(f"{path}: there is no such file")
        return _from_microscope(path, READERS[suffix], frame)
    if suffix not in images.SUFFIXES:
        known = ", ".join([*images.SUFFIXES, *READERS])
        raise ValueError(f"{path}: expected a file of type {known}, got {path.suffix or 'no suffix'}")
    if frame:
        raise ValueError(f"frame: expected 0 for a file of type {suffix}, got {frame}")
    image = images.read_image(path)
    scale, note = (None, f"{suffix[1:]} files carry no scale")
    if suffix in (".tif", ".tiff"):
        scale, note = _tiff_scale(path)
    return Micrograph(image, scale, None, note)


def scale_of(
    found: Micrograph, *, scale: float | None = None, camera_constant: float | None = None
) -> tuple[float, str]:
    """The scale to use, and where it comes from: given, from a camera constant, or the file's.

    Args:
      found: of ``read_micrograph``.
      scale: 1/angstrom per pixel.
      camera_constant: distance of a spot from the centre in pixels times its spacing in angstrom.

    Returns:
      1/angstrom per pixel, and words.

    Raises:
      ValueError: if two are given, or none and the file has none, or a number that is not positive.
    """
    if scale is not None and camera_constant is not None:
        raise ValueError("scale: expected either a scale or a camera constant, got both")
    for name, value in (("scale", scale), ("camera_constant", camera_constant)):
        if value is not None and not (np.isfinite(value) and value > 0):
            raise ValueError(f"{name}: expected a positive number, got {value!r}")
    if scale is not None:
        return scale, "as given"
    if camera_constant is not None:
        return 1.0 / camera_constant, f"from the camera constant {camera_constant:g} px Å"
    if found.scale is None:
        raise ValueError(f"scale: expected 1/angstrom per pixel (--scale) or a camera constant, since {found.note}")
    return found.scale, found.note


def cropped(image: np.ndarray, crop: Sequence[int]) -> np.ndarray:
    """The image without (left, top, right, bottom) pixels at its borders.

    Raises:
      ValueError: for negative numbers, or if less than 32 pixels are left.
    """
    if not any(crop):
        return image
    left, top, right, bottom = crop
    part = image[top : image.shape[0] - bottom, left : image.shape[1] - right]
    if min(crop) < 0 or min(part.shape) < 32:
        raise ValueError(f"crop: expected to leave 32 pixels of {image.shape[1]} x {image.shape[0]}, got {list(crop)}")
    return part


def per_angstrom(unit: str) -> float | None:
    """How many 1/angstrom a unit of reciprocal length is; ``None`` for any other unit.

    Example:
      >>> per_angstrom("nm⁻¹"), per_angstrom("1/Å"), per_angstrom("nm"), per_angstrom("A^-1")
      (0.1, 1.0, None, 1.0)
    """
    if r"\u" in unit:  # as ImageJ writes what is not ASCII
        unit = re.sub(r"\\u([0-9A-Fa-f]{4})", lambda m: chr(int(m[1], 16)), unit)
    text = unit.replace("⁻¹", "-1").replace("−", "-").replace("\u212b", "Å").replace("μ", "µ").lower()
    text = re.sub(r"[\s^*{}()$]", "", text)
    found = re.fullmatch(r"1/([a-zåµ]+)|([a-zåµ]+)-1", text)
    length = _LENGTHS.get(found[1] or found[2]) if found else None
    return None if length is None else 1.0 / length


def _tiff_scale(path):
    """The scale of an ImageJ file, and a note."""
    from PIL import Image, UnidentifiedImageError

    try:
        with Image.open(path) as file:
            tags = dict(file.tag_v2)
    except (UnidentifiedImageError, OSError, AttributeError):  # tifffile read it
        return None, "the file has no calibration that can be read"
    description = str(tags.get(270, ""))
    unit = re.search(r"^unit=(.*)$", description, flags=re.MULTILINE)
    if not description.startswith("ImageJ") or unit is None:
        return None, "the file is not calibrated (no unit as ImageJ writes it)"
    factor, x, y = per_angstrom(unit[1]), float(tags.get(282, 0)), float(tags.get(283, 0))
    if factor is None or not x > 0:
        return None, f"the file is calibrated in {unit[1]!r}, which is no reciprocal length"
    _check_square(path, x, y)
    return factor / x, "from the file (ImageJ)"


def _from_microscope(path, name, frame):
    try:
        reader = importlib.import_module(f"rsciio.{name}").file_reader
    except ImportError as error:
        raise ValueError(
            f"{path}: reading this type needs the extra 'microscopy' (pip install 'physml_jax[microscopy]'): {error}"
        ) from None
    try:
        parts = [p for p in reader(str(path)) if np.ndim(p["data"]) >= 2]
    except Exception as error:  # readers fail in many ways, and each means that this file is no image
        raise ValueError(f"{path}: not readable as an image ({error})") from error
    if not parts:
        raise ValueError(f"{path}: the file holds no image")
    stack, axes = np.asarray(parts[0]["data"]), parts[0]["axes"][-2:]
    stack = stack.reshape(-1, *stack.shape[-2:])
    if not 0 <= frame < len(stack):
        raise ValueError(f"frame: expected 0 to {len(stack) - 1} in {path}, got {frame}")
    image = images.grey(stack[frame], path)
    energy = parts[0].get("metadata", {}).get("Acquisition_instrument", {}).get("TEM", {}).get("beam_energy")
    voltage = float(energy) if energy and float(energy) > 0 else None
    units = [str(a.get("units", "")) for a in axes]
    factor = per_angstrom(units[0])
    if factor is None or units[0] != units[1]:
        said = f"in {units[0]!r}, which is no reciprocal length" if units[0] else "without a unit"
        return Micrograph(image, None, voltage, f"the file is calibrated {said}")
    y, x = (abs(float(a["scale"])) for a in axes)
    if not x > 0:
        return Micrograph(image, None, voltage, "the file's scale is zero")
    _check_square(path, x, y)
    return Micrograph(image, factor * x, voltage, "from the file")


def _check_square(path, x, y):
    if abs(x / y - 1 if y else 1) > 1e-3:
        raise ValueError(f"{path}: expected one scale for both axes, got {x:g} and {y:g}; give one with --scale")
