"""Scales that files carry, and what is refused."""

import sys
import types

import numpy as np
import pytest
from PIL import Image, TiffImagePlugin

from physml_jax.io import micrographs
from physml_jax.io.tables import write_tables
from physml_jax.typing import Report, Table

VALUES = (np.arange(40 * 48).reshape(40, 48) % 251).astype(np.uint16)


def tiff(path, description=None, resolution=None):
    tags = TiffImagePlugin.ImageFileDirectory_v2()
    if description:
        tags[270] = description
    if resolution:
        tags[282], tags[283] = resolution
    Image.fromarray(VALUES).save(path, tiffinfo=tags)
    return path


def test_scale_of_imagej(tmp_path):
    found = micrographs.read_micrograph(tiff(tmp_path / "a.tif", "ImageJ=1.54f\nunit=nm\\u207B\\u00B9\n", (50.0, 50.0)))
    np.testing.assert_array_equal(found.image, VALUES)
    assert found.scale == pytest.approx(0.1 / 50.0)
    assert micrographs.scale_of(found) == (found.scale, "from the file (ImageJ)")
    assert micrographs.scale_of(found, scale=0.003)[0] == 0.003
    assert micrographs.scale_of(found, camera_constant=200.0)[0] == pytest.approx(0.005)


@pytest.mark.parametrize(
    ("unit", "value"),
    [
        ("1/nm", 0.1), ("nm^-1", 0.1), ("nm-1", 0.1), ("nm$^{-1}$", 0.1), ("1 / Å", 1.0), ("Å⁻¹", 1.0), ("A-1", 1.0),
        ("1/pm", 100.0), ("nm", None), ("px", None), ("", None), ("mrad", None), ("1/s", None),
    ],
)  # fmt: skip
def test_units(unit, value):
    assert micrographs.per_angstrom(unit) == (None if value is None else pytest.approx(value))


def test_files_without_a_scale(tmp_path):
    np.save(tmp_path / "a.npy", VALUES)
    files = {
        tmp_path / "a.npy": "npy files carry no scale",
        tiff(tmp_path / "plain.tif"): "not calibrated",
        tiff(tmp_path / "image.tif", "ImageJ=1.54f\nunit=nm\n", (50.0, 50.0)): "calibrated in 'nm'",
    }
    for path, why in files.items():
        found = micrographs.read_micrograph(path)
        assert found.scale is None and why in found.note
        with pytest.raises(ValueError, match=r"scale: expected .* \(--scale\)"):
            micrographs.scale_of(found)
    with pytest.raises(ValueError, match="both"):
        micrographs.scale_of(found, scale=1.0, camera_constant=1.0)
    for bad in (0.0, -1.0, float("nan")):
        with pytest.raises(ValueError, match="positive number"):
            micrographs.scale_of(found, scale=bad)
    with pytest.raises(ValueError, match="one scale for both axes"):
        micrographs.read_micrograph(tiff(tmp_path / "b.tif", "ImageJ=1.54f\nunit=1/nm\n", (50.0, 40.0)))


def test_microscope_files(tmp_path, monkeypatch):
    """A reader in place of RosettaSciIO, which is optional: axes, units, several images, the beam's energy."""
    path = tmp_path / "scan.dm3"
    path.write_bytes(b"\0")
    axis = {"scale": 0.05, "units": "1/nm"}
    data = {
        "data": np.stack([VALUES, VALUES + 1])[None],
        "axes": [{"scale": 1.0, "units": "nm"}] * 2 + [axis] * 2,
        "metadata": {"Acquisition_instrument": {"TEM": {"beam_energy": 300.0}}},
    }
    reader = types.SimpleNamespace(file_reader=lambda name: [data])
    monkeypatch.setitem(sys.modules, "rsciio", types.SimpleNamespace())
    monkeypatch.setitem(sys.modules, "rsciio.digitalmicrograph", reader)
    found = micrographs.read_micrograph(path, frame=1)
    np.testing.assert_array_equal(found.image, VALUES + 1)
    assert found.scale == pytest.approx(0.005) and found.voltage_kv == 300.0
    with pytest.raises(ValueError, match="frame: expected 0 to 1"):
        micrographs.read_micrograph(path, frame=2)
    axis["units"] = "nm"
    assert "no reciprocal length" in micrographs.read_micrograph(path).note
    monkeypatch.setitem(sys.modules, "rsciio.digitalmicrograph", None)
    with pytest.raises(ValueError, match="extra 'microscopy'"):
        micrographs.read_micrograph(path)


def test_refusals(tmp_path):
    for name, why in (("gone.tif", "no such file"), ("gone.mrc", "no such file"), ("a.jpg", "expected a file of type")):
        with pytest.raises(ValueError, match=why):
            micrographs.read_micrograph(tmp_path / name)
    np.save(tmp_path / "a.npy", VALUES)
    with pytest.raises(ValueError, match="frame: expected 0"):
        micrographs.read_micrograph(tmp_path / "a.npy", frame=1)


def test_crop():
    np.testing.assert_array_equal(micrographs.cropped(VALUES, (1, 2, 3, 4)), VALUES[2:-4, 1:-3])
    np.testing.assert_array_equal(micrographs.cropped(VALUES, (0, 0, 0, 0)), VALUES)
    for bad in ((-1, 0, 0, 0), (20, 0, 0, 0)):
        with pytest.raises(ValueError, match="crop: expected to leave 32 pixels"):
            micrographs.cropped(VALUES, bad)


def test_tables(tmp_path):
    table = Table("Spots.", ("hkl", "d (Å)"), [["1 1 1", 3.264], ["2, 0, 0", None]])
    paths = write_tables(tmp_path, Report("Title", ["One line."], {}, {"spots": table}, {}))
    assert [p.name for p in paths] == ["spots.csv", "report.txt"]
    assert paths[0].read_text() == 'hkl,d (Å)\n1 1 1,3.264\n"2, 0, 0",\n'
    assert paths[1].read_text().splitlines() == [
        "Title", "", "One line.", "", "Spots.", "hkl      d (Å)", "1 1 1    3.264", "2, 0, 0      -",
    ]  # fmt: skip
