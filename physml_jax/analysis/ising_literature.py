"""Known transition temperatures of the J1-J2 Ising model on the square lattice, in units of J1.

J2 = 0 is Onsager's exact solution. The other values are those of infinite strips, extrapolated to infinite width; the
ones of the stripes carry an uncertainty of about 0.003. As a check, the crossings of strips 8 and 10 wide with uniform
rows (``simulators.ising.strips``) lie 0.002 to 0.011 above them for J2 up to 0.3 and from 0.6 on. At 0.4, 0.45 and 0.55
strips of these widths are 0.03, 0.07 and 0.02 above, and confirm nothing.

References:
  L. Onsager, Phys. Rev. 65, 117 (1944).
  A. Kalz, A. Honecker, S. Fuchs and T. Pruschke, Eur. Phys. J. B 65, 533 (2008), figure of the phase diagram.
"""

import numpy as np
from scipy.interpolate import PchipInterpolator

#: Ordered phases, below and above J2 = 1/2.
PHASES = ("ferromagnet", "superantiferromagnet")

#: J2 -> transition temperature. At J2 = 1/2 the ground state is so degenerate that no order survives at any T > 0.
KNOWN = {
    "ferromagnet": {0.0: 2.26919, 0.1: 1.944, 0.2: 1.608, 0.3: 1.255, 0.4: 0.867, 0.45: 0.64, 0.5: 0.0},
    "superantiferromagnet": {
        0.5: 0.0,
        0.55: 0.77,
        0.6: 0.973,
        0.7: 1.290,
        0.8: 1.569,
        1.0: 2.082,
        1.2: 2.573,
        1.5: 3.287,
    },
}

#: Couplings around which states hardly reach equilibrium and finite lattices say little; results are stated apart.
DIFFICULT = (0.45, 0.6)


def transition_temperature(phase: str, j2: np.ndarray) -> np.ndarray:
    """Known transition temperatures of a phase, between the tabulated couplings by a monotone cubic.

    Inside ``DIFFICULT`` only tabulated couplings have a value: the boundary bends there, and how it ends at J2 = 1/2 is
    not in the table.

    Args:
      phase: one of ``PHASES``.
      j2: float ``[n]``.

    Returns:
      Float64 ``[n]``, NaN outside the table, at J2 = 1/2, and between tabulated couplings of ``DIFFICULT``.

    Raises:
      ValueError: for an unknown phase.

    Example:
      >>> transition_temperature("ferromagnet", [0.2, 0.49, 0.7]).round(3).tolist()
      [1.608, nan, nan]
    """
    if phase not in KNOWN:
        raise ValueError(f"phase: expected one of {', '.join(PHASES)}, got {phase!r}")
    known = KNOWN[phase]
    j2 = np.asarray(j2, np.float64).round(6)
    curve = PchipInterpolator(list(known), list(known.values()), extrapolate=False)(j2)
    usable = is_tabulated(phase, j2) | (j2 < DIFFICULT[0]) | (j2 > DIFFICULT[1])
    return np.where(usable & (curve > 0), curve, np.nan)


def is_tabulated(phase: str, j2: np.ndarray) -> np.ndarray:
    """Which couplings have a value of their own; bool of the shape of ``j2``."""
    j2 = np.asarray(j2, np.float64)
    return np.any(np.abs(j2[..., None] - np.array(list(KNOWN[phase]))) < 1e-6, axis=-1)


def is_difficult(j2: np.ndarray) -> np.ndarray:
    """Which couplings lie in ``DIFFICULT``, its ends included; bool of the shape of ``j2``."""
    j2 = np.asarray(j2, np.float64).round(6)
    return (j2 >= DIFFICULT[0]) & (j2 <= DIFFICULT[1])


def curve(phase: str, *, num: int = 200) -> tuple[np.ndarray, np.ndarray]:
    """J2 and T of the known boundary as a line to draw, including its guessed end at J2 = 1/2."""
    known = KNOWN[phase]
    j2 = np.linspace(min(known), max(known), num)
    return j2, PchipInterpolator(list(known), list(known.values()))(j2)
