"""One tile of tilts: its strong beams, the potential that the weak ones add, its Chebyshev plan.

A pattern is cut into compact tiles of tilts. Each has its own set of strong beams, propagated exactly; the other beams
of the pool are far from the Bragg condition over the whole tile and enter in second order (Bethe 1928, Ann. Phys. 392,
55), with the excitation error's inverse averaged over the tile so that one coupling serves all its tilts:

    V_eff = V_SS - V_SW diag(mean 1/s_W) V_WS.
"""

from typing import NamedTuple

import jax
import numpy as np

from physml_jax.core.precision import matmul
from physml_jax.simulators.diffraction import beams, chebyshev
from physml_jax.simulators.diffraction.zone import Zone, excite

#: Beams that are propagated exactly in each tile, and the largest number of others that perturb them.
NUM_STRONG = 256
NUM_WEAK = 768
#: Weak beams never come closer to the Bragg condition than this over their tile, 1/angstrom: 1/s diverges there.
WEAK_LIMIT = 0.005


class Tile(NamedTuple):
    """The plan of one tile. n strong beams (padded), m weak ones (padded), P tilts, T thicknesses, K terms.

    Attributes:
      strong: int32 [n, d], (p, q) or (p, q, l) of the strong beams; required ones first, in their order.
      present: [n], 1 for a beam, 0 for padding.
      weak: int32 [m, d].
      inverse: [m], mean of 1/s over the tile in angstrom; 0 for padding.
      detuning: [n, P], (s - c) / h; 0 for padding. With obliquity s m^2 in place of s.
      obliquity: [n, P], 1 for padding; ``None`` where all are 1.
      expansion: the Chebyshev plan.
    """

    strong: np.ndarray
    present: np.ndarray
    weak: np.ndarray
    inverse: np.ndarray
    detuning: np.ndarray
    obliquity: np.ndarray | None
    expansion: chebyshev.Expansion


def bucket(n: int) -> int:
    """Number of beams to calculate with: multiples of 32, coarser for many, so that few shapes are compiled."""
    step = 32 if n <= 256 else 64 if n <= 512 else 128 if n <= 1024 else 256
    return max(32, -(-n // step) * step)


def effective_coupling(table, strong, present, weak, inverse, matmul):
    """V_eff [n, n] from the table of differences. NumPy or JAX arrays alike; ``matmul`` is the product to use."""
    flat = table.reshape(-1)
    strides = np.cumprod((1, *table.shape[:0:-1]))[::-1]
    middle = int((np.array(table.shape) // 2) @ strides)

    def place(rows):
        return sum(rows[:, i] * int(stride) for i, stride in enumerate(strides))

    def between(rows, columns):  # the place of a difference in the flattened grid is a difference of places
        return flat[place(rows)[:, None] - place(columns)[None, :] + middle]

    v = between(strong, strong)
    if weak.shape[0]:
        v = v - matmul(between(strong, weak) * inverse[None, :], between(weak, strong))
    return v * (present[:, None] * present[None, :])


def plan_tile(
    zone: Zone,
    tilts: np.ndarray,
    *,
    pool: np.ndarray,
    num_strong: int | None,
    num_weak: int,
    dtype: np.dtype,
    tolerance: float,
    margin: float = 0.0,
) -> tuple[Tile, np.ndarray]:
    """Chooses the beams of one tile and plans its expansion.

    Args:
      zone: what the tiles share.
      tilts: [P, 2], 1/angstrom.
      pool: int [n, 2], beams that count; the first of them as in ``zone.pool``.
      num_strong: beams to propagate exactly, rounded up to a bucket; ``None`` means the whole pool.
      num_weak: largest number of weak beams.
      dtype: precision of the calculation, float32 or float64.
      tolerance: first neglected Chebyshev coefficient.
      margin: fraction by which spectrum and largest thickness may grow before the expansion is too short.

    Returns:
      The tile and its V_eff, [n, n].
    """
    errors, obliquity = excite(zone, pool, tilts)
    n = bucket(len(pool) if num_strong is None else num_strong)
    if n >= len(pool):
        others = np.setdiff1d(np.arange(len(pool)), zone.required)
        strong, weak = np.concatenate([zone.required, others]), np.zeros(0, int)
        n = bucket(len(pool))
    else:
        magnitude = np.abs(zone.coupling)
        strong, weak = beams.choose_strong(
            pool, errors[_probes(tilts)], magnitude, num_strong=n, required=zone.required
        )
        n = bucket(len(strong))
        # Beams near the Bragg condition that are not strong are of no importance; 1/s would make them important.
        weak = weak[np.min(np.abs(errors[:, weak]), axis=0) >= WEAK_LIMIT][:num_weak]
    pad, spare = n - len(strong), num_weak - len(weak) if len(weak) else 0
    inverse = np.pad(np.mean(1.0 / errors[:, weak], axis=0), (0, spare))
    strong_pq = np.pad(pool[strong], ((0, pad), (0, 0))).astype(np.int32)
    weak_pq = np.pad(pool[weak], ((0, spare), (0, 0))).astype(np.int32)
    present = np.pad(np.ones(len(strong)), (0, pad))
    table = zone.coupling.astype(dtype if zone.kind == "real" else np.result_type(dtype, np.complex64))
    v = effective_coupling(table, strong_pq, present.astype(dtype), weak_pq, inverse.astype(dtype), _product)
    if zone.mean_absorption:
        v = v + 1j * np.asarray(zone.mean_absorption * np.diag(present), v.real.dtype)
    bounds = chebyshev.spectral_bounds(v[: len(strong), : len(strong)], zone.kind)
    s = errors[:, strong]
    if obliquity is not None:
        m = obliquity[:, strong]
        s = s * m**2
        bounds = _stretched(bounds, float(m.max()) ** 2)
        obliquity = np.pad(m, ((0, 0), (0, pad)), constant_values=1.0).T
    expansion = chebyshev.expand(s, zone.thicknesses, bounds, tolerance=tolerance)
    if margin:
        limit = (1 + margin) * zone.thicknesses.max()
        series = chebyshev.expand(
            s,
            np.append(zone.thicknesses, limit),
            bounds,
            tolerance=tolerance,
            half_width=(1 + margin) * expansion.half_width,
        )
        expansion = series._replace(
            coefficients=series.coefficients[:-1], attenuation=series.attenuation[:-1], thicknesses=zone.thicknesses
        )
    detuning = np.pad((s - expansion.centre[:, None]) / expansion.half_width, ((0, 0), (0, pad))).T
    return Tile(strong_pq, present, weak_pq, inverse, detuning, obliquity, expansion), v


def _stretched(bounds: tuple[float, float, float, float], factor: float) -> tuple[float, float, float, float]:
    """Bounds of m V m for all m with m^2 <= ``factor``. No shift fits all m, so the imaginary part gets none."""
    low, high, imag_low, imag_high = bounds
    imag = max(abs(imag_low), abs(imag_high)) * factor
    return min(low, low * factor), max(high, high * factor), -imag, imag


def _product(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """A b through XLA: NumPy's BLAS threads and XLA's would wait for one another (measured: 20 times slower)."""
    with jax.enable_x64(a.dtype in (np.float64, np.complex128)):
        return np.asarray(jax.jit(matmul)(a, b))


def _probes(tilts: np.ndarray) -> np.ndarray:
    """Numbers of a few tilts that stand for a tile: the extremes along four directions and one in the middle."""
    x, y = tilts.T
    middle = np.argmin(np.sum((tilts - tilts.mean(axis=0)) ** 2, axis=1))
    ends = [f(v) for v in (x, y, x + y, x - y) for f in (np.argmin, np.argmax)]
    return np.unique([middle, *ends])
