"""Grey images from files: what is read, and what is refused with which words."""

import numpy as np
import pytest
from PIL import Image

from physml_jax.io import images

VALUES = (np.arange(30).reshape(5, 6) * 100).astype(np.uint16)


@pytest.mark.parametrize("name", ["a.tif", "a.TIFF", "a.png", "a.npy"])
def test_reads_what_was_written(tmp_path, name):
    path = tmp_path / name
    if name.endswith("npy"):
        np.save(path, VALUES[None])
    else:
        Image.fromarray(VALUES).save(path, format="PNG" if name.endswith("png") else "TIFF")
    found = images.read_image(path)
    assert found.dtype == np.float32
    np.testing.assert_array_equal(found, VALUES)


def test_grey_saved_as_colour(tmp_path):
    grey = (VALUES // 20).astype(np.uint8)
    for channels, name in ((3, "rgb.png"), (4, "rgba.png")):
        colour = np.repeat(grey[..., None], channels, -1)
        if channels == 4:
            colour[..., 3] = 255
        Image.fromarray(colour).save(tmp_path / name)
        np.testing.assert_array_equal(images.read_image(tmp_path / name), grey)


def test_refusals(tmp_path):
    rng = np.random.default_rng(0)
    files = {
        "colour.png": (rng.integers(0, 255, (4, 4, 3), np.uint8), "colours"),
        "flat.png": (np.full((4, 4), 7, np.uint8), "all pixels are 7"),
        "nan.npy": (np.array([[1.0, np.nan], [0.0, 2.0]]), "1 pixels are not finite"),
        "none.npy": (np.zeros((0, 4)), "is empty"),
        "stack.npy": (rng.random((5, 4, 6)), r"shape \(5, 4, 6\)"),
        "text.npy": (np.array([["a", "b"]]), "expected numbers"),
        "pickle.npy": (np.array([[{}]]), "not readable"),
    }
    for name, (values, message) in files.items():
        if name.endswith("npy"):
            np.save(tmp_path / name, values)
        else:
            Image.fromarray(values).save(tmp_path / name)
        with pytest.raises(ValueError, match=message):
            images.read_image(tmp_path / name)
    (tmp_path / "torn.tif").write_bytes(b"II*\0torn")
    wrong = {"torn.tif": "not readable", "gone.png": "no such file", "a.jpg": "expected a file of type"}
    for name, message in wrong.items():
        with pytest.raises(ValueError, match=message):
            images.read_image(tmp_path / name)


def test_square():
    """Means of blocks where the ratio is whole, the sum of the light kept where it is not, the middle cut out."""
    image = np.random.default_rng(1).random((12, 16)).astype(np.float32)
    middle = image[:, 2:14]
    np.testing.assert_allclose(images.square(image, pixels=4), middle.reshape(4, 3, 4, 3).mean((1, 3)), rtol=1e-5)
    np.testing.assert_allclose(images.square(image, pixels=12), middle)
    assert images.square(image, pixels=5).mean() == pytest.approx(middle.mean(), rel=1e-5)
    np.testing.assert_allclose(images.square(image, pixels=2, crop=2), image[5:7, 7:9])
    np.testing.assert_allclose(images.square(image, pixels=24)[::2, ::2], middle)
    with pytest.raises(ValueError, match="expected a side that fits"):
        images.square(image, pixels=4, crop=13)
