r"""Phase diagrams from one number per state: maps of its mean over (T, J2), resampled maps, phases by exclusion.

The number is a reconstruction error, or any other quantity that is small inside a phase and large outside. Where its
maps rise is the subject of ``phase_boundary``.
"""

from collections.abc import Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from physml_jax.core.rng import stream_key


class Grid(NamedTuple):
    """The points at which there are states, and the point of every state.

    Attributes:
      temperature: float64 [nT], rising.
      j2: float64 [nJ], rising.
      column: int64 [N], number of the temperature of every state.
      row: int64 [N], number of its J2.
      replica: int64 [N], number of the state among those of its point, in the order in which they come.
      count: int64 [nJ, nT], states of every point.
    """

    temperature: np.ndarray
    j2: np.ndarray
    column: np.ndarray
    row: np.ndarray
    replica: np.ndarray
    count: np.ndarray


def grid(temperature: np.ndarray, j2: np.ndarray) -> Grid:
    """Sorts states by temperature and coupling.

    Args:
      temperature: float ``[N]``; values that agree to six digits are one temperature.
      j2: float ``[N]``.

    Returns:
      The grid.

    Raises:
      ValueError: if there is no state, or a value is not finite.
    """
    points = []
    for x, name in ((temperature, "temperature"), (j2, "j2")):
        x = np.asarray(x, np.float64)
        if x.ndim != 1 or not len(x) or x.shape != np.shape(temperature) or not np.all(np.isfinite(x)):
            raise ValueError(f"{name}: expected at least one finite value [N], as temperature, got shape {x.shape}")
        points.append(np.unique(x.round(6), return_inverse=True))
    (t, column), (j, row) = points
    cell = row * len(t) + column
    count = np.bincount(cell, minlength=len(t) * len(j))
    order = np.argsort(cell, kind="stable")
    replica = np.empty(len(cell), np.int64)
    replica[order] = np.arange(len(cell)) - np.repeat(np.cumsum(count) - count, count)
    return Grid(t, j, column.astype(np.int64), row.astype(np.int64), replica, count.reshape(len(j), len(t)))


def mean_map(values: np.ndarray, points: Grid) -> np.ndarray:
    """Mean of a quantity at every point; float64 ``[nJ, nT]``, NaN where there is no state.

    Raises:
      ValueError: if lengths differ or a value is not finite.
    """
    values = _per_state(values, points)[0]
    shape = points.count.shape
    cell = points.row * shape[1] + points.column
    total = np.bincount(cell, weights=values, minlength=points.count.size).reshape(shape)
    return np.where(points.count > 0, total / np.maximum(points.count, 1), np.nan)


def resampled_maps(values: np.ndarray, points: Grid, *, num_resamples: int = 200, seed: int = 0) -> np.ndarray:
    """Maps of the mean, of the data as they are and of resampled data.

    Replicas are drawn with replacement, the same draw for all temperatures of a row; seeds of the network likewise, the
    same draw for all rows. Quantities of equal ``points`` and ``seed`` see the same replicas, so that differences
    between methods can be taken draw by draw.

    Args:
      values: float ``[N]``, or ``[S, N]`` for S seeds of a network that saw the same states.
      points: where the states lie.
      num_resamples: number of draws B; 0 for none.
      seed: of the draws.

    Returns:
      Float64 ``[1 + B, nJ, nT]``, the first one of the data as they are; NaN where there is no state.

    Raises:
      ValueError: if lengths differ or a value is not finite.
    """
    values = _per_state(values, points)
    (num_rows, num_columns), most = points.count.shape, int(points.count.max())
    dense = np.zeros((len(values), num_rows, num_columns, most))
    held = np.zeros((num_rows, num_columns, most))
    dense[:, points.row, points.column, points.replica] = values
    held[points.row, points.column, points.replica] = 1
    times, members = _draws(points, len(values), num_resamples, seed)
    result = np.empty((1 + num_resamples, num_rows, num_columns))
    for j in range(num_rows):
        # A point with fewer replicas than others has only those drawn that it holds.
        number = np.einsum("br,tr->bt", times[:, j], held[j])
        by_seed = np.einsum("br,str->bst", times[:, j], dense[:, j], optimize=True)
        total = np.einsum("bs,bst->bt", members, by_seed)
        result[:, j] = np.divide(total, number, out=np.full_like(total, np.nan), where=number > 0)
    return result


def phases(boundaries: Sequence[np.ndarray], points: Grid) -> np.ndarray:
    """Which phase every point belongs to: one whose transition lies above it, or none.

    Args:
      boundaries: float ``[nJ]`` for every ordered phase, its transition temperatures, NaN where a row has none.
      points: the grid.

    Returns:
      Int64 ``[nJ, nT]``: number of the phase in the order of ``boundaries`` (that of the highest transition where there
      are several), -1 for none of them, which is the disordered phase by exclusion, -2 where there is no state.
    """
    stack = np.nan_to_num(np.stack(list(boundaries)), nan=-np.inf)
    ordered = points.temperature[None] < stack.max(axis=0)[:, None]
    found = np.where(ordered, stack.argmax(axis=0)[:, None], -1)
    return np.where(points.count > 0, found, -2)


def _per_state(values, points: Grid) -> np.ndarray:
    values = np.atleast_2d(np.asarray(values, np.float64))
    if values.ndim != 2 or values.shape[1] != len(points.row) or not np.all(np.isfinite(values)):
        raise ValueError(f"values: expected {len(points.row)} finite numbers per seed, got shape {values.shape}")
    return values


def _draws(points: Grid, num_seeds: int, num_resamples: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """How often every replica of every row [1 + B, nJ, R], and every seed [1 + B, S], counts; the first once each."""
    num_rows, most = points.count.shape[0], points.count.max(axis=1)
    times = np.zeros((1 + num_resamples, num_rows, int(most.max())))
    for j in range(num_rows):
        times[0, j, : most[j]] = 1
    members = np.full((1 + num_resamples, num_seeds), 1 / num_seeds)
    if num_resamples:
        keys = jax.random.split(stream_key(seed, "analysis/phase_diagram"))
        uniform = np.asarray(jax.random.uniform(keys[0], times[1:].shape, jnp.float32), np.float64)
        draw, row = np.arange(num_resamples)[:, None, None], np.arange(num_rows)[None, :, None]
        # Row j draws as many replicas as it has; the surplus of the uniform numbers falls on a weight of zero.
        kept = np.arange(times.shape[2])[None, None] < most[None, :, None]
        picked = np.minimum((uniform * most[None, :, None]).astype(np.int64), most[None, :, None] - 1)
        np.add.at(times[1:], (draw, row, picked), np.broadcast_to(kept, picked.shape).astype(np.float64))
        chosen = np.asarray(jax.random.randint(keys[1], (num_resamples, num_seeds), 0, num_seeds, jnp.int32))
        members[1:] = 0
        np.add.at(members[1:], (np.arange(num_resamples)[:, None], chosen), 1 / num_seeds)
    return times, members
