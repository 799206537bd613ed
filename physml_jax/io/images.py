"""Grey images of a microscope from files: tif, png and npy, to float32 [H, W], with one clear error for what is no such
image.
"""

from pathlib import Path

import numpy as np

SUFFIXES = (".tif", ".tiff", ".png", ".npy")


def read_image(path: str | Path) -> np.ndarray:
    """Reads one grey image in the units of its file.

    A stack of one image is that image. Colour channels are accepted where they are equal (a grey picture saved as
    RGB); an alpha channel that hides nothing is dropped.

    Args:
      path: a file of ``SUFFIXES``; tif through tifffile where it is installed, otherwise Pillow, which knows fewer
        kinds. Array files are never unpickled.

    Returns:
      float32 [H, W].

    Raises:
      ValueError: naming the file: unknown type, unreadable, colours, several images, values that are not finite,
        or no contrast.
    """
    path = Path(path)
    if path.suffix.lower() not in SUFFIXES:
        raise ValueError(f"{path}: expected a file of type {', '.join(SUFFIXES)}, got {path.suffix or 'no suffix'}")
    if not path.is_file():
        raise ValueError(f"{path}: there is no such file")
    try:
        pixels = np.asarray(_load(path))
    except Exception as error:  # readers fail in many ways, and each means that this file is no image
        raise ValueError(f"{path}: not readable as an image ({error})") from error
    return grey(pixels, path)


def square(image: np.ndarray, *, pixels: int, crop: int | None = None) -> np.ndarray:
    """The middle of an image, as a square of the wanted side: the mean over the pixels that fall into each new one.

    Args:
      image: [H, W].
      pixels: new side P.
      crop: side of the middle part; ``None`` is the largest that fits.

    Returns:
      float32 [P, P].

    Raises:
      ValueError: if the part does not fit into the image.
    """
    side = min(image.shape) if crop is None else crop
    if not 1 <= side <= min(image.shape) or pixels < 1:
        raise ValueError(f"crop, pixels: expected a side that fits into {image.shape}, got {crop} and {pixels}")
    top, left = ((n - side) // 2 for n in image.shape)
    part = np.asarray(image, np.float64)[top : top + side, left : left + side]
    # Share of old pixel j in new pixel i: the overlap of two intervals. Exact for every ratio, up or down.
    edges = np.arange(pixels + 1) * (side / pixels)
    old = np.arange(side)
    overlap = np.minimum(edges[1:, None], old + 1) - np.maximum(edges[:-1, None], old)
    shares = np.maximum(overlap, 0) * (pixels / side)
    return (shares @ part @ shares.T).astype(np.float32)


def _load(path: Path) -> np.ndarray:
    if path.suffix.lower() == ".npy":
        return np.load(path, allow_pickle=False)
    if path.suffix.lower() != ".png":
        try:
            import tifffile
        except ImportError:
            pass
        else:
            return tifffile.imread(path)
    from PIL import Image

    with Image.open(path) as file:
        if getattr(file, "n_frames", 1) > 1:
            raise ValueError(f"{file.n_frames} images in one file")
        return np.asarray(file.convert("RGBA") if file.mode == "P" else file)


def grey(pixels: np.ndarray, path: Path) -> np.ndarray:
    """An array from a file as a grey image, float32 [H, W]; refusals as of ``read_image``, which name ``path``."""
    if pixels.dtype.kind not in "buif":
        raise ValueError(f"{path}: expected numbers, got {pixels.dtype}")
    if not pixels.size:
        raise ValueError(f"{path}: the image is empty")
    pixels = pixels.squeeze()
    if pixels.ndim == 3 and pixels.shape[-1] in (2, 4):
        if np.ptp(pixels[..., -1]) > 0:
            raise ValueError(f"{path}: expected an opaque grey image, got one with transparent parts")
        pixels = pixels[..., :-1].squeeze(-1) if pixels.shape[-1] == 2 else pixels[..., :-1]
    if pixels.ndim == 3 and pixels.shape[-1] == 3:
        if (pixels != pixels[..., :1]).any():
            raise ValueError(f"{path}: expected a grey image, got colours (a screenshot?); save it as grey")
        pixels = pixels[..., 0]
    if pixels.ndim != 2:
        raise ValueError(f"{path}: expected one image, got an array of shape {pixels.shape}")
    values = pixels.astype(np.float32)
    if not np.isfinite(values).all():
        raise ValueError(f"{path}: {int((~np.isfinite(values)).sum())} pixels are not finite")
    if values.max() == values.min():
        raise ValueError(f"{path}: the image is empty, all pixels are {values.flat[0]:g}")
    return values
