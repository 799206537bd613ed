"""How every figure looks: fonts, colours, sizes, and how crystallographic symbols are set.

Figures use the object interface of matplotlib and no global state of pyplot; they can be drawn without a display.
"""

import contextlib
import re
from collections.abc import Iterator

WIDTH = 7.1  # inches, two columns of a journal page
HALF_WIDTH = 3.5

#: Colours that stay apart for colour-blind readers: M. Okabe and K. Ito, Color Universal Design (2008).
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
GREY = "#6b6b6b"
LINES = ("-", "--", "-.", ":", (0, (5, 1, 1, 1, 1, 1)))

#: Perceptually uniform maps: what is equally far apart in value looks equally far apart.
POTENTIAL_MAP = "magma"
INTENSITY_MAP = "gray"
DIFFERENCE_MAP = "RdBu_r"
COUNT_MAP = "Blues"

_RC = {
    "font.family": "DejaVu Sans",
    "font.size": 8.0,
    "axes.titlesize": 8.5,
    "axes.labelsize": 8.0,
    "xtick.labelsize": 7.5,
    "ytick.labelsize": 7.5,
    "legend.fontsize": 7.5,
    "legend.frameon": False,
    "axes.linewidth": 0.6,
    "xtick.major.width": 0.6,
    "ytick.major.width": 0.6,
    "xtick.major.size": 2.5,
    "ytick.major.size": 2.5,
    "lines.linewidth": 1.3,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": False,
    "axes.axisbelow": True,
    "figure.facecolor": "white",
    "savefig.facecolor": "white",
    "figure.dpi": 100,
    "savefig.dpi": 200,
    "image.interpolation": "nearest",
    "mathtext.default": "regular",
    "axes.unicode_minus": True,
}


@contextlib.contextmanager
def styled() -> Iterator[None]:
    """Within this block new figures have the look of the package; the caller's own settings return afterwards."""
    import matplotlib

    with matplotlib.rc_context(_RC):
        yield


def new_figure(width: float, height: float):
    """An empty figure in inches, laid out by constraint so that nothing overlaps. Call it inside ``styled``."""
    from matplotlib.figure import Figure

    return Figure(figsize=(width, height), layout="constrained")


def space_group_text(symbol: str) -> str:
    r"""A Hermann-Mauguin symbol as matplotlib text: bars over digits, subscripts for screw axes.

    Args:
      symbol: with spaces between the directions, as in ``"P 41 3 2"``; without them bars are still set.

    Returns:
      Text with mathtext parts.

    Example:
      >>> print(space_group_text("F -4 3 m"))
      F$\bar{4}$3m
      >>> space_group_text("P 41 3 2")
      'P$4_{1}$32'
    """
    parts = []
    for token in symbol.split(":")[0].split():
        if " " in symbol.strip():
            token = re.sub(r"(?<!\d)([2346])([1-5])(?!\d)", r"$\1_{\2}$", token)
        parts.append(re.sub(r"-(\d)", r"$\\bar{\1}$", token))
    return "".join(parts)


def formula_text(formula: str) -> str:
    """A chemical formula as matplotlib text with subscripts; anything else is only made safe.

    Example:
      >>> formula_text("O3SrTi")
      'O$_{3}$SrTi'
    """
    if not re.fullmatch(r"(?:[A-Z][a-z]?(?:\d+(?:\.\d+)?)?)+", formula):
        return plain_text(formula)
    return re.sub(r"([A-Za-z])(\d+(?:\.\d+)?)", r"\1$_{\2}$", formula)


def plain_text(text: str) -> str:
    """Text in which a dollar sign is a dollar sign."""
    return text.replace("$", r"\$")
