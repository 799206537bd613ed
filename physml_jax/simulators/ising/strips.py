"""Infinite strips of the J1-J2 Ising model: where the order parameter's correlation length grows like the width.

At a continuous transition the correlation length xi of an infinitely long strip is proportional to its width, so the
curves of width / xi over T of two widths cross near Tc, and their crossings tend to Tc as the strips become wider
(phenomenological renormalization). Host functions in float64 NumPy.
"""

import functools
import itertools

import numpy as np

MAX_WIDTH = 14

#: What may order along the strip: rows that are uniform (the ferromagnet; stripes that alternate from row to row), or
#: rows that alternate from site to site (stripes along the strip).
ORDERS = ("row", "column")


def scaled_gap(width: int, temperature: float, j2: float, *, order: str = "row") -> float:
    """Width over correlation length, ``width ln(lambda_0 / abs(lambda_1))``, of an infinite periodic strip.

    lambda_0 is the largest eigenvalue of the matrix between neighbouring rows, lambda_1 the one of largest size whose
    vector is odd when all spins turn over and, when the row is shifted by one site, is the same (order ``"row"``) or
    changes sign (``"column"``).

    Args:
      width: number of sites of a row, even, from 4 to 14 (a second and some 100 MB at 14, milliseconds at 10).
      temperature: positive.
      j2: coupling across the diagonals.
      order: ``"row"`` for the ferromagnet; either for the stripes.

    Raises:
      ValueError: if a value is outside its range.

    References:
      M. P. Nightingale, Physica A 83, 561 (1976).
    """
    if width not in range(4, MAX_WIDTH + 1, 2):
        raise ValueError(f"width: expected an even number from 4 to {MAX_WIDTH}, got {width}")
    if not temperature > 0:
        raise ValueError(f"temperature: expected a positive number, got {temperature}")
    if order not in ORDERS:
        raise ValueError(f"order: expected one of {', '.join(ORDERS)}, got {order!r}")
    representatives, rows, starts, signs = _orbits(width)
    sign, allowed = signs[order]
    size = np.diff(starts, append=len(rows))
    own = -(representatives * np.roll(representatives, 1, 1)).sum(1)
    diagonal = (np.roll(representatives, 1, 1) + np.roll(representatives, -1, 1)) @ rows.T
    cost = own[:, None] / 2 + np.repeat(own, size)[None] / 2 - representatives @ rows.T + j2 * diagonal
    weight = np.exp((min(-2 + 2 * j2, -2 * j2) * width - cost) / temperature)
    norm = np.sqrt(size[:, None] / size[None, :])
    even = norm * np.add.reduceat(weight, starts, axis=1)
    odd = (norm * np.add.reduceat(weight * sign, starts, axis=1))[np.ix_(allowed, allowed)]
    return float(width * np.log(np.linalg.eigvalsh(even)[-1] / np.abs(np.linalg.eigvalsh(odd)).max()))


def crossing(
    widths: tuple[int, int], j2: float, *, low: float, high: float, order: str = "row", steps: int = 40
) -> float:
    """Temperature at which the scaled gaps of two widths are equal, by bisection.

    Without J2 the crossings of widths (L, L + 2) lie 0.019, 0.0058, 0.0025, 0.0013 above Tc for L = 4, 6, 8, 10: they
    converge like L^-3. Those of the stripes' two orders lie on both sides of their common limit. Close to J2 = 1/2
    strips of these widths say little.

    Args:
      widths: narrow and wide.
      j2: coupling across the diagonals.
      low: temperature of the ordered phase, where the wide strip has the smaller gap.
      high: temperature of the disordered phase.
      order: as for ``scaled_gap``.
      steps: halvings of the interval.

    Raises:
      ValueError: if the curves do not cross between ``low`` and ``high``, or as for ``scaled_gap``.
    """

    def difference(temperature):
        narrow, wide = (scaled_gap(width, temperature, j2, order=order) for width in widths)
        return wide - narrow

    if not difference(low) < 0 < difference(high):
        raise ValueError(f"low, high: strips of widths {widths} do not cross between {low} and {high} at J2 = {j2}")
    for _ in range(steps):
        middle = (low + high) / 2
        low, high = (middle, high) if difference(middle) < 0 else (low, middle)
    return (low + high) / 2


@functools.lru_cache(maxsize=4)
def _orbits(width):
    """Rows of spins up to shifts and turning over.

    Returns one row of every orbit [K, W]; all rows, orbit by orbit [2^W, W]; where each orbit starts [K]; and by
    order the sign with which each row enters its orbit's odd vector [2^W], and which orbits have one [K]: those none
    of whose symmetries asks for the opposite sign.
    """
    rows = np.array(list(itertools.product((-1, 1), repeat=width)), np.int64)
    shifted = np.stack([np.roll(rows, k, 1) for k in range(width)])
    place = 1 << np.arange(width)
    codes = np.concatenate([(shifted > 0) @ place, (shifted < 0) @ place])  # [2 W, 2^W]
    first = codes.min(0)
    sequence = np.argsort(first, kind="stable")
    _, starts = np.unique(first[sequence], return_index=True)
    characters = {"row": np.ones(width, int), "column": (-1) ** np.arange(width)}
    signs = {}
    for order, character in characters.items():
        character = np.concatenate([character, -character])[:, None]
        reached = np.where(codes == first, character, 0)[:, sequence]
        sign = np.where(reached.max(0) > 0, 1, -1)
        signs[order] = sign, (reached.max(0) * reached.min(0) == 0)[starts]
    # The representative of an orbit is the row whose own number is the smallest: it is reached without a shift.
    representatives = rows[(codes[0] == first).nonzero()[0]]
    representatives = representatives[np.argsort((representatives > 0) @ place)]
    return representatives, rows[sequence], starts, signs
