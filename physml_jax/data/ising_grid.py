"""The plane of temperature and coupling that the Ising states cover, and which of its points and replicas are used."""

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

#: Temperatures of the published protocol, from hot to cold.
TEMPERATURES = tuple(round(4.0 - 0.025 * i, 3) for i in range(158))
_FRUSTRATED = (0.45, 0.48, 0.49, 0.5, 0.51, 0.52, 0.55)
#: Couplings, finer around 0.5 where the two ordered phases meet. The ends are published, the list is ours.
J2 = (0.0, 0.1, 0.2, 0.3, 0.4, *_FRUSTRATED, 0.6, 0.65, 0.7, 0.8, 0.9, 1.0, 1.1, 1.2, 1.35, 1.5)

SPLITS = ("train", "validation", "test")


class Region(NamedTuple):
    """A part of the plane of temperature and coupling; the limits belong to it."""

    max_temperature: float = math.inf
    min_j2: float = 0.0
    max_j2: float = math.inf


#: The two training regions lie well inside their phases.
REGIONS = {
    "all": Region(),
    "ferromagnet": Region(max_temperature=0.5, max_j2=0.4),
    "superantiferromagnet": Region(max_temperature=0.5, min_j2=0.6),
}


def region(
    name: str, *, max_temperature: float | None = None, min_j2: float | None = None, max_j2: float | None = None
) -> Region:
    """A region by name, narrowed by the limits that are given.

    Raises:
      ValueError: for an unknown name or a limit that is not finite.
    """
    if name not in REGIONS:
        raise ValueError(f"region: there is no {name!r}; available: {', '.join(REGIONS)}")
    limits = {"max_temperature": max_temperature, "min_j2": min_j2, "max_j2": max_j2}
    given = {key: value for key, value in limits.items() if value is not None}
    for key, value in given.items():
        if not math.isfinite(value):
            raise ValueError(f"{key}: expected a finite number or None, got {value}")
    found = REGIONS[name]._asdict()
    tighter = {key: max if key.startswith("min") else min for key in given}
    return Region(**{**found, **{key: tighter[key](found[key], value) for key, value in given.items()}})


def points(
    temperatures: Sequence[float],
    j2: Sequence[float],
    *,
    region: Region,
    temperature_stride: int = 1,
    j2_subset: Sequence[float] | None = None,
) -> np.ndarray:
    """Numbers of the points that are used, among those that are simulated.

    Args:
      temperatures: nT simulated ones, from hot to cold.
      j2: simulated couplings, increasing.
      region: where to look.
      temperature_stride: use every so many temperatures, counted from the hottest.
      j2_subset: use these couplings only; ``None`` uses all.

    Returns:
      int64 [n], increasing; point ``i * nT + t`` has coupling number ``i`` and temperature number ``t``.

    Raises:
      ValueError: if a coupling of the subset is not simulated, or no point is left.
    """
    if temperature_stride < 1:
        raise ValueError(f"temperature_stride: expected an integer of at least 1, got {temperature_stride}")
    ladder, couplings, close = np.asarray(temperatures), np.asarray(j2), 1e-6  # a limit may have been computed
    inside = (couplings >= region.min_j2 - close) & (couplings <= region.max_j2 + close)
    if j2_subset is not None:
        equal = np.abs(couplings[:, None] - np.asarray(j2_subset, np.float64).reshape(1, -1)) < close
        strange = [x for x, found in zip(j2_subset, equal.any(0), strict=True) if not found]
        if strange:
            raise ValueError(f"j2_subset: {strange} not among the simulated couplings {tuple(j2)}")
        inside &= equal.any(1)
    cold = ladder <= region.max_temperature + close
    cold &= np.arange(len(ladder)) % temperature_stride == 0
    if not inside.any() or not cold.any():
        raise ValueError(
            f"region, max_temperature, min_j2, max_j2, j2_subset: no simulated point has T <= "
            f"{region.max_temperature:g} and {region.min_j2:g} <= J2 <= {region.max_j2:g}; there are T from "
            f"{ladder[-1]:g} to {ladder[0]:g} (used: one in {temperature_stride}) and J2 from {couplings[0]:g} to "
            f"{couplings[-1]:g}"
        )
    return np.flatnonzero((inside[:, None] & cold[None, :]).reshape(-1)).astype(np.int64)


def replicas(
    num_replicas: int, *, split: str, fractions: Sequence[float], replicas_per_point: int | None = None
) -> np.ndarray:
    """Replicas of a split; the pairs (2 k, 2 k + 1) stay together.

    Args:
      num_replicas: of every point, even.
      split: ``"train"``, ``"validation"``, ``"test"``, or ``"probe/<name>"``: one more look at the test states.
      fractions: shares of the three splits.
      replicas_per_point: how many of the split are used; ``None`` uses all.

    Returns:
      int64 [n], increasing.

    Raises:
      ValueError: for an unknown split, shares that are none, or a split without replicas.
    """
    if split not in SPLITS and not split.startswith("probe/"):
        raise ValueError(f"split: expected one of {', '.join(SPLITS)}, got {split!r}")
    shares = np.asarray(fractions, np.float64)
    if shares.shape != (3,) or not (shares >= 0).all() or abs(shares.sum() - 1) > 1e-6:
        raise ValueError(f"fractions: expected three shares of 1, got {tuple(fractions)}")
    ends = np.round(np.cumsum([0, *shares]) * (num_replicas // 2)).astype(int)
    part = SPLITS.index(split) if split in SPLITS else SPLITS.index("test")
    found = np.arange(2 * ends[part], 2 * ends[part + 1], dtype=np.int64)
    if not found.size:
        of = f"{tuple(fractions)} of {num_replicas // 2} pairs of replicas"
        raise ValueError(f"fractions: the split {split!r} has no replica ({of})")
    if replicas_per_point is not None and not 1 <= replicas_per_point <= found.size:
        limit = f"1 to {found.size}, the replicas of the split {split!r}"
        raise ValueError(f"replicas_per_point: expected {limit}, got {replicas_per_point}")
    return found[:replicas_per_point]
