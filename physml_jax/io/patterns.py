"""Files of diffraction patterns: the arrays of an experiment with what is needed to understand them, in one npz file.

- ``images`` [T, R, N, N] for T thicknesses and R reflections ([T, R, n] for rocking curves): electrons per pixel where
  ``dose`` is positive, otherwise fractions of the incident intensity
- ``thicknesses`` [T] in angstrom; of measured images a guess, or 0 where nothing is known
- ``reflections`` [R, 3], Miller indices
- ``half_width`` [], half the width of the square image in tilt, 1/angstrom
- ``zone_axis`` [3], direction [uvw] along the untilted beam
- ``voltage_kv`` [], kV
- ``tilts`` [N, N, 2] or [n, 2], (kx, ky) of every pixel in 1/angstrom (written, not needed)
- ``dose`` [], electrons per pixel that the intensity 1 stands for; 0 (or left out) where the images are fractions
- ``about``, text, JSON: all other settings, the truth of a simulation, units

Files are never unpickled.
"""

import io
import json
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from physml_jax.io.files import write_atomic

#: What a file must hold; the rest has defaults.
NEEDED = ("images", "thicknesses", "reflections", "half_width", "zone_axis", "voltage_kv")
STATE = "state.json"
_UNITS = {
    "images": "electrons per pixel if dose > 0, else fraction of the incident intensity",
    "thicknesses": "angstrom",
    "tilts": "1/angstrom, (kx, ky)",
    "half_width": "1/angstrom",
    "voltage_kv": "kV",
    "dose": "electrons per pixel at intensity 1",
}


def write_patterns(path: str | Path, arrays: Mapping[str, Any], about: Mapping[str, Any]) -> Path:
    """Writes patterns whole or not at all.

    Args:
      path: the file, its folder exists.
      arrays: see the module.
      about: JSON-serialisable settings; units are added.

    Raises:
      ValueError: if an array is missing or holds objects.
      OSError: if the file cannot be written.
    """
    path = Path(path)
    missing = [n for n in NEEDED if n not in arrays]
    if missing:
        raise ValueError(f"arrays: {', '.join(missing)} missing")
    plain = {k: np.asarray(v) for k, v in arrays.items()}
    bad = [k for k, v in plain.items() if v.dtype.kind not in "biuf"]
    if bad:
        raise ValueError(f"arrays: expected numbers, {bad[0]} holds {plain[bad[0]].dtype}")
    text = json.dumps({**about, "units": _UNITS}, allow_nan=False)
    buffer = io.BytesIO()
    np.savez_compressed(buffer, **plain, about=np.array(text))
    write_atomic(path, buffer.getvalue())
    return path


def read_patterns(path: str | Path) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    """Reads patterns for a refinement.

    Args:
      path: a file as ``write_patterns`` makes it, or one of your own with the arrays that the module lists.

    Returns:
      The arrays, ``dose`` among them, and ``about`` (empty where the file has none).

    Raises:
      ValueError: naming the file and the array that is missing or has the wrong shape.
      OSError: if the file cannot be read.
    """
    path = Path(path)
    try:
        # NumPy would leave a damaged file open.
        with open(path, "rb") as opened, np.load(opened, allow_pickle=False) as file:
            arrays = {name: file[name] for name in file.files}
    except FileNotFoundError:
        raise OSError(f"{path}: there is no such file") from None
    except (ValueError, zipfile.BadZipFile, EOFError, AttributeError) as error:
        raise ValueError(f"{path}: not an npz file of arrays ({error})") from error
    missing = [n for n in NEEDED if n not in arrays]
    if missing:
        raise ValueError(f"{path}: lacks {', '.join(missing)}; expected {', '.join(NEEDED)}")
    try:
        about = json.loads(str(arrays.pop("about"))) if "about" in arrays else {}
    except ValueError as error:
        raise ValueError(f"{path}: about is no JSON ({error})") from error
    images = arrays["images"]
    t, r = len(np.atleast_1d(arrays["thicknesses"])), len(np.atleast_2d(arrays["reflections"]))
    if (
        images.ndim not in (3, 4)
        or images.shape[:2] != (t, r)
        or (images.ndim == 4 and images.shape[2] != images.shape[3])
    ):
        raise ValueError(
            f"{path}: images: expected shape ({t}, {r}, N, N) for {t} thicknesses and {r} reflections, got"
            f" {images.shape}"
        )
    for name, shape in (("reflections", (r, 3)), ("zone_axis", (3,)), ("half_width", ()), ("voltage_kv", ())):
        if arrays[name].shape != shape:
            raise ValueError(f"{path}: {name}: expected shape {shape}, got {arrays[name].shape}")
    arrays.setdefault("dose", np.array(0.0))
    arrays["thicknesses"] = np.atleast_1d(arrays["thicknesses"])
    return arrays, about


def write_state(folder: str | Path, state: Mapping[str, Any]) -> None:
    """Writes where a refinement stands, whole or not at all; ``state`` is JSON-serialisable."""
    write_atomic(Path(folder) / STATE, json.dumps(state))


def read_state(folder: str | Path) -> dict[str, Any]:
    """What ``write_state`` wrote; empty where there is none.

    Raises:
      ValueError: if the file is damaged.
    """
    path = Path(folder) / STATE
    if not path.exists():
        return {}
    try:
        return dict(json.loads(path.read_bytes()))
    except (ValueError, TypeError) as error:
        raise ValueError(f"{path} is damaged ({error}); delete it to start anew") from error
