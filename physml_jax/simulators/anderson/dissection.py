r"""Nested dissection of the periodic cubic lattice by {111} planes: the host plan of the direct solver.

In the coordinates u = (x + y - z) mod L, v = (2 x - u) mod 2L and w = (2 y - u) mod 2L a step to any neighbour changes
each of u, v and w by one, up or down (where u passes its origin, v and w move by L besides). The sites of one value of
u, v or w therefore separate those on its two sides. These are {111} planes; all sites have u = v = w mod 2, so a face
of m1 x m2 values holds m1 m2 / 4 sites, and the factorisation takes 2.6 times fewer operations than with axis planes.

The tree, from its root: the plane u = 0; the plane u = (L + 1) // 2, which leaves two slabs; the planes v = 0 and v = L
together, then w = 0 and w = L; then bisections of the longest extent, down to leaves of at most 64 sites. All nodes of
a level are cut along the same coordinate, so the tree is complete and a level is one batch of K fronts. The sites that
a node eliminates are its separator; the sites outside the node that touch it, eliminated later, its boundary.

A front holds the separator and the boundary. Both are padded to the largest of their level, with the site number N,
diagonal 1 and no couplings. The boundary is ordered [in the left child's only | in the right child's only | in both],
so that only blocks with something in common are fetched from a child. What a child hands to its parent is symmetric;
its lower blocks are stored, flattened (``Places`` holds the addresses), and its last row is padding, hence zero: the
place to read for what a child does not have. Everything is a gather; nothing is scattered but the couplings.

References:
  A. George, SIAM J. Numer. Anal. 10, 345 (1973), nested dissection.
  I. S. Duff and J. K. Reid, ACM Trans. Math. Softw. 9, 302 (1983), multifrontal elimination of indefinite matrices.
"""

import functools
from typing import NamedTuple

import numpy as np

from physml_jax.typing import Array

#: Largest number of sites of a leaf.
LEAF_SITES = 64
#: Pivot blocks have at most this many rows; see ``factorization``.
BLOCK = 40
#: Boundary parts are cut into pieces of at least this many rows: less of the upper triangle is computed.
MIN_ROWS = 160


class Places(NamedTuple):
    """Where rows of a front are found in a child's update.

    Attributes:
      position: int32 [K, n], row of the child's boundary.
      offset: int32 [K, n], address of the first element of that row within the child's flattened update.
    """

    position: Array
    offset: Array


class Part(NamedTuple):
    """A run of rows of a front: its separator, or a part of its boundary. ``None``: no child of that side has them.

    Attributes:
      left: places in the left children.
      right: places in the right children.
      rows: int8 [n], only its length matters, which has to survive tracing.
    """

    left: Places | None
    right: Places | None
    rows: Array


class Level(NamedTuple):
    """K fronts of S separator and B boundary rows; the children of front k are k and, if there are two, K + k below.

    Attributes:
      separator: int32 [K, S], site numbers, N for padding.
      couplings: three int32 [n], front, row and column of every hopping element, the separator's block symmetric.
      parts: the separator, then the parts of the boundary.
      parent: int32 [K, B], row of the parent's front of every boundary row.
    """

    separator: Array
    couplings: tuple[Array, Array, Array]
    parts: tuple[Part, ...]
    parent: Array


class Plan(NamedTuple):
    """Elimination plan of one lattice size. A pytree of arrays: pass it to a jitted function as an argument.

    Attributes:
      levels: leaves first, the root last.
      order: int32 [N], place of every site in the concatenated separators of all levels.
    """

    levels: tuple[Level, ...]
    order: Array


class Cost(NamedTuple):
    """Predicted cost of one factorisation.

    Attributes:
      operations: multiplications and additions.
      factor_bytes: what is kept for solving.
      peak_bytes: largest sum of factors, fronts and updates at one time.
    """

    operations: float
    factor_bytes: int
    peak_bytes: int


def coordinates(size: int) -> np.ndarray:
    """u, v, w of all sites in C order: int64 [3, L^3]."""
    x, y, z = np.indices((size,) * 3).reshape(3, -1)
    u = (x + y - z) % size
    return np.stack([u, (2 * x - u) % (2 * size), (2 * y - u) % (2 * size)])


def neighbours(size: int) -> np.ndarray:
    """The six neighbours of every site, int64 [L^3, 6]."""
    sites = np.arange(size**3).reshape((size,) * 3)
    return np.stack([np.roll(sites, step, axis).reshape(-1) for axis in range(3) for step in (1, -1)], axis=1)


def block_count(rows: int) -> int:
    """Number of pivot blocks of a separator of ``rows`` rows."""
    return -(-rows // BLOCK)


def separators(size: int) -> list[list[np.ndarray]]:
    """Sites that every node eliminates, by level from the root; node k has the children k and K + k."""
    uvw = coordinates(size)
    half = (size + 1) // 2
    everything = np.arange(size**3)
    u = uvw[0]
    levels = [[everything[u == 0]], [everything[u == half]]]
    nodes = [everything[(u > 0) & (u < half)], everything[u > half]]
    for axis in (1, 2):
        levels.append([s[uvw[axis, s] % size == 0] for s in nodes])
        nodes = [s[(uvw[axis, s] % size != 0) & (uvw[axis, s] // size == side)] for side in (0, 1) for s in nodes]
    while max(len(s) for s in nodes) > LEAF_SITES:
        low = np.array([uvw[:, s].min(1) if len(s) else (0, 0, 0) for s in nodes])
        high = np.array([uvw[:, s].max(1) if len(s) else (-1, -1, -1) for s in nodes])
        axis = int(np.argmax((high - low).max(0)))
        middle = (low + high)[:, axis] // 2
        levels.append([s[uvw[axis, s] == m] for s, m in zip(nodes, middle, strict=True)])
        nodes = [s[uvw[axis, s] < m] for s, m in zip(nodes, middle, strict=True)] + [
            s[uvw[axis, s] > m] for s, m in zip(nodes, middle, strict=True)
        ]
    levels.append(nodes)
    return levels


def boundaries(size: int, levels: list[list[np.ndarray]]) -> list[list[np.ndarray]]:
    """Sites that every node touches and that are eliminated after it, sorted, by level from the root."""
    adjacent = neighbours(size)
    depth = np.empty(size**3, np.int64)
    for i, level in enumerate(levels):
        depth[np.concatenate(level)] = i
    found = [[] for _ in levels]
    for i in range(len(levels) - 1, -1, -1):
        for k, sites in enumerate(levels[i]):
            children = found[i + 1][k :: len(levels[i])] if i + 1 < len(levels) else []
            touched = np.unique(np.concatenate([adjacent[sites].reshape(-1), *children]))
            found[i].append(touched[depth[touched] < i])
    return found


def _stack(rows, width, fill):
    out = np.full((len(rows), width), fill, np.int32)
    for k, row in enumerate(rows):
        out[k, : len(row)] = row
    return out


def _pieces(rows, most):
    """Row counts of a boundary part cut into at most ``most`` equal pieces."""
    count = min(max(rows // MIN_ROWS, 1), most)
    return [n for n in ((rows + i) // count for i in range(count)) if n]


@functools.lru_cache(maxsize=4)
def plan(size: int) -> Plan:
    """The elimination plan of an L x L x L lattice, NumPy arrays.

    Args:
      size: L, at least 3.

    Raises:
      ValueError: if ``size`` is smaller than 3.
    """
    if size < 3:
        raise ValueError(f"size: expected at least 3, got {size}")
    num_sites = size**3
    adjacent = neighbours(size)
    tree = separators(size)
    outside = boundaries(size, tree)
    levels, rows_of, below = [], [], None
    for i in range(len(tree) - 1, -1, -1):
        num_fronts = len(tree[i])
        longest = max(1, max(len(s) for s in tree[i]))
        padded = block_count(longest) * -(-longest // block_count(longest))
        separator = _stack(tree[i], padded, num_sites)
        groups = [_split(b, below, k, num_fronts) for k, b in enumerate(outside[i])]
        # One row of padding at the end: what a parent reads where this node has nothing.
        widths = [max(len(g[j]) for g in groups) + (j == 2) for j in range(3)]
        boundary = np.concatenate([_stack([g[j] for g in groups], widths[j], num_sites) for j in range(3)], axis=1)
        find = _Rows(np.concatenate([separator, boundary], axis=1), num_sites)
        parts = [_part(separator, below, num_fronts, (True, True))]
        start = 0
        for j, sides in enumerate(((True, False), (False, True), (True, True))):
            for n in _pieces(widths[j], 2 if sum(widths[:2]) else 4):
                parts.append(_part(boundary[:, start : start + n], below, num_fronts, sides))
                start += n
        levels.append(Level(separator, _couplings(separator, find, adjacent), tuple(parts), None))
        if below is not None:
            fronts = np.arange(below.find.num_fronts)[:, None] % num_fronts
            levels[-2] = levels[-2]._replace(parent=np.maximum(find(fronts, below.boundary), 0))
        below = _Below(_Rows(boundary, num_sites), boundary, _row_offsets(parts[1:]))
        rows_of.append(separator)
    levels[-1] = levels[-1]._replace(parent=np.zeros_like(boundary))
    flat = np.concatenate([s.reshape(-1) for s in rows_of])
    order = np.empty(num_sites + 1, np.int32)
    order[flat] = np.arange(len(flat), dtype=np.int32)
    return Plan(tuple(levels), order[:num_sites])


class _Rows:
    """Which row of a front holds a site: a sorted table of (front, site), for any number of sites."""

    def __init__(self, table, num_sites):
        self.num_fronts, self.stride = len(table), num_sites + 1
        front, row = np.nonzero(table < num_sites)
        keys = front * self.stride + table[front, row]
        sort = np.argsort(keys)
        self.keys, self.rows = keys[sort], row[sort]

    def __call__(self, front, site):
        """Row of ``site`` in ``front`` (broadcast), -1 where it is absent."""
        wanted = np.where(site < self.stride - 1, front * self.stride + site, -1)
        place = np.minimum(np.searchsorted(self.keys, wanted), len(self.keys) - 1)
        return np.where(self.keys[place] == wanted, self.rows[place], -1).astype(np.int32)


class _Below(NamedTuple):
    """What a level needs to know of its children: boundary row of a site, sites by row, address by row."""

    find: _Rows
    boundary: np.ndarray
    offsets: np.ndarray


def _split(boundary, below, k, num_fronts):
    """Boundary sites in the left child's boundary only, in the right child's only, and the others."""
    if below is None or below.find.num_fronts == num_fronts:
        return boundary[:0], boundary[:0], boundary
    left, right = below.find(k, boundary) >= 0, below.find(num_fronts + k, boundary) >= 0
    return boundary[left & ~right], boundary[right & ~left], boundary[left == right]


def _part(sites, below, num_fronts, sides):
    def places(first):
        position = below.find(first + np.arange(num_fronts)[:, None], sites)
        position = np.where(position < 0, len(below.offsets) - 1, position).astype(np.int32)
        return Places(position, below.offsets[position])

    children = 0 if below is None else below.find.num_fronts // num_fronts
    left = places(0) if sides[0] and children > 0 else None
    right = places(num_fronts) if sides[1] and children > 1 else None
    return Part(left, right, np.zeros(sites.shape[1], np.int8))


def _row_offsets(parts):
    """Address of the first element of every boundary row in the flattened lower blocks."""
    offsets, base, width = [], 0, 0
    for part in parts:
        n = len(part.rows)
        width += n
        offsets.append(base + np.arange(n, dtype=np.int32) * width)
        base += n * width
    return np.concatenate(offsets).astype(np.int32)


def _couplings(separator, find, adjacent):
    """Front, row and column of -1 elements: from each separator site to its neighbours in the front."""
    front, column = np.nonzero(separator < len(adjacent))
    row = find(front[:, None], adjacent[separator[front, column]])
    keep = row >= 0
    spread = np.broadcast_to(front[:, None], row.shape), row, np.broadcast_to(column[:, None], row.shape)
    return tuple(x[keep].astype(np.int32) for x in spread)


def cost(size: int) -> Cost:
    """Operations and memory of one factorisation at size L, from the plan."""
    operations, factors, peak, update = 0.0, 0, 0, 0
    for level in plan(size).levels:
        fronts, sep = level.separator.shape
        counts = [len(p.rows) for p in level.parts[1:]]
        bnd = sum(counts)
        lower = sum(n * sum(counts[: i + 1]) for i, n in enumerate(counts))
        operations += fronts * (sep**3 + sep**2 * bnd + 2 * sep * lower)
        factors += 8 * fronts * sep * (sep + bnd + 1)
        new = 8 * fronts * lower
        peak = max(peak, factors + update + new + 8 * fronts * (4 * sep * (sep + bnd) + lower))
        update = new
    return Cost(operations, factors, peak)


def predicted_bytes(size: int) -> int:
    """Peak memory of a factorisation; without a plan from L = 48 up, where it grows as L^4."""
    known = min(size, 48)
    return int(cost(known).peak_bytes * (size / known) ** 4)
