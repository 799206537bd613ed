r"""Numeric factorisation H - sigma = L D L^T over the fronts of a nested dissection, with solves and inertia.

Level by level, leaves first and all fronts of a level in one batch, a front F = [[F11, .], [F21, F22]] is assembled
from the Hamiltonian and its children's updates; F11 is eliminated and U = F22 - F21 F11^-1 F21^T handed on. F11 is
split recursively into halves down to pivot blocks of at most 40 rows, so nearly all work is in matrix products.

A pivot block is inverted by sweeps (Gauss-Jordan elimination of a symmetric matrix), always on the largest remaining
diagonal element; they end in the same inverse whatever their order, so nothing is permuted. By Sylvester's law the
number of negative pivots, over all blocks and fronts, is the number of eigenvalues of H below sigma.

Between blocks there is no pivoting. A block whose smallest singular value is t costs a backward error of about
epsilon / t, and t is about 1e-4 for the worst of the blocks at L = 40: harmless unless the lattice is clean or sigma
an eigenvalue of a block. ``check_error`` measures what was lost in one solve with a random right-hand side; where it is
too large, a factorisation with ``whole=True`` pivots over all of F11, slowly, and takes 2 x 2 pivots where diagonal
elements are small (Bunch and Parlett).

Everything here is traced, in float64 only.

References:
  I. S. Duff and J. K. Reid, ACM Trans. Math. Softw. 9, 302 (1983), multifrontal elimination of indefinite matrices.
  J. R. Bunch and B. N. Parlett, SIAM J. Numer. Anal. 8, 639 (1971), 2 x 2 pivots.
  J. H. Goodnight, Am. Stat. 33, 149 (1979), the sweep operator.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from physml_jax.core.precision import einsum
from physml_jax.simulators.anderson.dissection import Level, Part, Plan, block_count
from physml_jax.simulators.anderson.states import check_disorder
from physml_jax.typing import Array

#: Bunch and Parlett's bound on element growth: a diagonal pivot is taken if it exceeds this times the largest element.
GROWTH = (1 + 17**0.5) / 8


#: Number of pivot blocks that are factorised in one compiled loop.
LOOPED = 2
#: Updates are computed for as many fronts at a time as have this many elements, so that they stay in a core's cache.
CACHED = 100_000


class Front(NamedTuple):
    """Factors of one level, K fronts: F11 = M^-1 D M^-T.

    Attributes:
      inverse: M [K, S, S], inverse of the unit lower block factor.
      pivots: D^-1 [K, S / b, b, b], symmetric blocks.
      below: [K, B, S], F21 M^T D^-1.
    """

    inverse: Array
    pivots: Array
    below: Array


class Factors(NamedTuple):
    """Factorisation of H - sigma.

    Attributes:
      fronts: leaves first.
      shift: sigma, float64 [].
      num_below: int32 [], number of eigenvalues of H below sigma.
    """

    fronts: tuple[Front, ...]
    shift: Array
    num_below: Array


def factorize(disorder: Array, shift: Array | float, plan: Plan, *, whole: bool = False) -> Factors:
    """Factorises H - sigma.

    Args:
      disorder: eps, float64 [L, L, L].
      shift: sigma, a scalar.
      plan: ``dissection.plan(L)``, as arrays that may be traced.
      whole: pivot over whole separators: slow, for shifts at which the blocks are nearly singular.

    Raises:
      ValueError: for another dtype, or a plan of another size.
    """
    check_disorder(disorder, rank=3, double=True)
    if plan.order.shape[0] != disorder.size:
        raise ValueError(f"plan: expected the plan of {disorder.size} sites, got one of {plan.order.shape[0]}")
    shift = jnp.asarray(shift, disorder.dtype)
    # Padding has the diagonal 1, and is no eigenvalue below the shift.
    diagonal = jnp.concatenate([disorder.reshape(-1) - shift, jnp.ones(1, disorder.dtype)])
    fronts, negative, update = [], jnp.zeros((), jnp.int32), None
    for level in plan.levels:
        panel = _assemble_panel(diagonal, level, update)
        inverse, pivots, below, scaled, count = _eliminate(panel, 1 if whole else block_count(panel.shape[2]), whole)
        negative = negative + count.sum(dtype=jnp.int32)
        fronts.append(Front(inverse, pivots, below))
        update = _update(level, below, scaled, update)
    return Factors(tuple(fronts), shift, negative)


def solve(factors: Factors, rhs: Array, plan: Plan) -> Array:
    """(H - sigma)^-1 rhs for rhs [N, p]."""
    rhs = jnp.concatenate([rhs, jnp.zeros((1, rhs.shape[1]), rhs.dtype)])
    last = len(plan.levels) - 1
    reduced, carried = [], None
    for i, (level, front) in enumerate(zip(plan.levels, factors.fronts, strict=True)):
        top = _product(front.inverse, rhs[level.separator] + _from_children(level.parts[:1], carried))
        reduced.append(_pivot_solve(front.pivots, top))
        if i < last:
            carried = _from_children(level.parts[1:], carried) - _product(front.below, top)
    found, above = [], None
    for i in range(last, -1, -1):
        level, front = plan.levels[i], factors.fronts[i]
        x = reduced[i]
        if above is None:
            boundary = jnp.zeros((*level.parent.shape, rhs.shape[1]), rhs.dtype)
        else:
            num_parents = above.shape[0]
            shape = (-1, num_parents, level.parent.shape[1])
            rows = level.parent.reshape(shape) + (jnp.arange(num_parents) * above.shape[1])[None, :, None]
            boundary = above.reshape(-1, rhs.shape[1])[rows.reshape(level.parent.shape)]
            x = x - _transposed(front.below, boundary)
        x = _transposed(front.inverse, x)
        above = jnp.concatenate([x, boundary], axis=1)
        found.append(x.reshape(-1, rhs.shape[1]))
    return jnp.concatenate(found[::-1])[plan.order]


def _product(matrix, x):
    """Matrices times x, [K, n, m] and [K, m, p] -> [K, n, p]; up to two columns go one by one, faster on a CPU."""
    if x.shape[2] > 2:
        return einsum("knm,kmp->knp", matrix, x)
    return jnp.stack([einsum("knm,km->kn", matrix, x[:, :, p]) for p in range(x.shape[2])], axis=2)


def _transposed(matrix, x):
    """Transposed matrices times x, [K, n, m] and [K, n, p] -> [K, m, p]; with p as rows, twice as fast on a CPU."""
    if x.shape[2] <= 2:
        return jnp.stack([einsum("knm,kn->km", matrix, x[:, :, p]) for p in range(x.shape[2])], axis=2)
    return jnp.swapaxes(einsum("kpn,knm->kpm", jnp.swapaxes(x, 1, 2), matrix), 1, 2)


def check_error(factors: Factors, matvec, rhs: Array, plan: Plan) -> Array:
    """Backward error of one solve: norm of rhs - (H - sigma) x over that of x, with x the solution for a random rhs.

    That is the smallest change of H for which x is exact; compare it with the distance of sigma from the eigenvalues.

    Args:
      factors: the factorisation.
      matvec: H x for x [N, p].
      rhs: [N, p].
      plan: its plan.

    Returns:
      float64 [], not finite where the factorisation broke down.
    """
    x = solve(factors, rhs, plan)
    error = rhs - (matvec(x) - factors.shift * x)
    norms = jnp.linalg.norm(error, axis=0) / jnp.maximum(jnp.linalg.norm(x, axis=0), jnp.finfo(x.dtype).tiny)
    return norms.max()


def _addresses(rows, columns):
    """Addresses of elements (row, column) in flattened lower blocks, [K, R] and [K, C] -> [K, R, C]."""
    r, c = rows.position[:, :, None], columns.position[:, None, :]
    return jnp.where(r >= c, rows.offset[:, :, None] + c, columns.offset[:, None, :] + r)


def _fetch(update, side, rows, columns, front=0):
    """Elements of the left (0) or right (1) children's updates, for fronts from ``front`` on, [K, R, C]."""
    child = side * (update.shape[0] // 2) + front + jnp.arange(rows.position.shape[0], dtype=jnp.int32)
    place = _addresses(rows, columns) + (child * update.shape[1])[:, None, None]
    return update.reshape(-1).at[place].get(mode="promise_in_bounds")


def _common(update, rows: Part, columns: Part, front=0):
    """Sum over the children that have both parts, for fronts from ``front`` on; ``None`` if there is none."""
    found = [
        _fetch(update, side, getattr(rows, name), getattr(columns, name), front)
        for side, name in enumerate(("left", "right"))
        if update is not None and getattr(rows, name) is not None and getattr(columns, name) is not None
    ]
    return sum(found[1:], found[0]) if found else None


def _assemble_panel(diagonal, level: Level, update):
    """[F11; F21] of all fronts, [K, S + B, S]."""
    num_fronts, size = level.separator.shape
    own = jnp.eye(size, dtype=diagonal.dtype)[None] * diagonal[level.separator][:, None, :]
    pieces = []
    for part in level.parts:
        piece = _common(update, part, level.parts[0])
        shape = (num_fronts, part.rows.shape[0], size)
        pieces.append(jnp.zeros(shape, diagonal.dtype) if piece is None else piece)
    panel = jnp.concatenate([own + pieces[0], *pieces[1:]], axis=1)
    front, row, column = level.couplings
    if front.shape[0] == 0:
        return panel
    return panel.at[front, row, column].add(-1.0, mode="promise_in_bounds", unique_indices=True)


def _update(level: Level, below, scaled, update):
    """F22 - F21 F11^-1 F21^T, lower blocks, flattened [K, P]; on a CPU a few fronts at a time."""
    num_fronts = below.shape[0]
    counts = [part.rows.shape[0] for part in level.parts[1:]]
    elements = sum(n * sum(counts[: i + 1]) for i, n in enumerate(counts))
    group = max(g for g in range(1, num_fronts + 1) if num_fronts % g == 0 and (g == 1 or g * elements <= CACHED))

    def together(below, scaled):
        return _update_rows(level.parts[1:], below, scaled, update, 0)

    def grouped(*panels):
        def some(args):
            front, places, below, scaled = args
            parts = [Part(*sides, part.rows) for sides, part in zip(places, level.parts[1:], strict=True)]
            return _update_rows(parts, below, scaled, update, front)

        places = [(part.left, part.right) for part in level.parts[1:]]
        split = jax.tree.map(lambda x: x.reshape(-1, group, *x.shape[1:]), (places, *panels))
        found = jax.lax.map(some, (jnp.arange(0, num_fronts, group, dtype=jnp.int32), *split))
        return found.reshape(num_fronts, -1)

    if group == num_fronts:
        return together(below, scaled)
    return jax.lax.platform_dependent(below, scaled, cpu=grouped, default=together)


def _update_rows(parts, below, scaled, update, front):
    rows, start = [], 0
    for i, part in enumerate(parts):
        stop, column = start + part.rows.shape[0], 0
        product = einsum("krs,kcs->krc", below[:, start:stop], scaled[:, :stop])
        blocks = []
        for other in parts[: i + 1]:
            block, own = _common(update, part, other, front), product[:, :, column : column + other.rows.shape[0]]
            blocks.append(-own if block is None else block - own)
            column += other.rows.shape[0]
        rows.append(jnp.concatenate(blocks, axis=2).reshape(below.shape[0], -1))
        start = stop
    return jnp.concatenate(rows, axis=1)


def _from_children(parts, carried):
    """Children's contributions to rows of a front, [K, n, p]; zero for leaves."""
    if carried is None:
        return jnp.zeros((), jnp.float64)
    pieces = []
    for part in parts:
        piece = jnp.zeros((), carried.dtype)  # every part above the leaves has a child
        for side, name in enumerate(("left", "right")):
            places = getattr(part, name)
            if places is not None:
                num_fronts = places.position.shape[0]
                first = (side * num_fronts + jnp.arange(num_fronts, dtype=jnp.int32)) * carried.shape[1]
                piece = piece + carried.reshape(-1, carried.shape[2])[places.position + first[:, None]]
        pieces.append(piece)
    return jnp.concatenate(pieces, axis=1)


def _pivot_solve(pivots, x):
    """D^-1 x, [K, S / b, b, b] and [K, S, p] -> [K, S, p]."""
    blocks = x.reshape(*pivots.shape[:3], x.shape[-1])
    return einsum("knab,knbp->knap", pivots, blocks).reshape(x.shape)


def _eliminate(panel, blocks, whole):
    """Eliminates the first S of M rows; panel [K, M, S] with a symmetric top, S a multiple of ``blocks``.

    Halves are worked on one after the other; what is left of at most ``LOOPED`` blocks is factorised in a loop, which
    computes more than needed but compiles once.

    Returns:
      inverse of the unit lower block factor [K, S, S], inverted pivot blocks [K, S / b, b, b], rows below times D^-1
      and the same before that [K, M - S, S], number of negative pivots [K].
    """
    size = panel.shape[2]
    if blocks <= LOOPED:
        inverse, pivots, negative = _factor_top(panel[:, :size], blocks, whole)
        scaled = panel[:, size:]
        if blocks > 1:
            scaled = einsum("krs,kts->krt", scaled, inverse)
        below = jnp.swapaxes(_pivot_solve(pivots, jnp.swapaxes(scaled, 1, 2)), 1, 2)
        return inverse, pivots, below, scaled, negative
    half = blocks // 2 * (size // blocks)
    rest = size - half
    inverse1, pivots1, below1, scaled1, negative1 = _eliminate(panel[:, :, :half], blocks // 2, whole)
    panel = panel[:, half:, half:] - einsum("krs,kcs->krc", below1, scaled1[:, :rest])
    inverse2, pivots2, below2, scaled2, negative2 = _eliminate(panel, blocks - blocks // 2, whole)
    corner = -einsum("kab,kbc->kac", inverse2, einsum("kab,kbc->kac", below1[:, :rest], inverse1))
    top = jnp.concatenate([inverse1, jnp.zeros((panel.shape[0], half, rest), panel.dtype)], axis=2)
    inverse = jnp.concatenate([top, jnp.concatenate([corner, inverse2], axis=2)], axis=1)
    below = jnp.concatenate([below1[:, rest:], below2], axis=2)
    scaled = jnp.concatenate([scaled1[:, rest:], scaled2], axis=2)
    return inverse, jnp.concatenate([pivots1, pivots2], axis=1), below, scaled, negative1 + negative2


def _factor_top(matrix, blocks, whole):
    """Block L D L^T of symmetric [K, n, n]: L^-1, the blocks of D^-1 and the number of negative pivots."""
    num_fronts, size = matrix.shape[:2]
    one = jnp.broadcast_to(jnp.eye(size, dtype=matrix.dtype), matrix.shape)
    if blocks == 1:
        pivot, negative = (invert_pivoted if whole else invert_block)(matrix)
        return one, pivot[:, None], negative
    width = size // blocks
    rows = jnp.arange(size, dtype=jnp.int32)

    def step(i, state):
        # Row operations on [A, 1] that clear A below block i leave L^-1 on the right.
        both, pivots, negative = state
        start = i * width
        own = jax.lax.dynamic_slice_in_dim(both, start, width, axis=1)
        pivot, count = invert_block(jax.lax.dynamic_slice_in_dim(own, start, width, axis=2))
        column = jax.lax.dynamic_slice_in_dim(both, start, width, axis=2)
        column = jnp.where((rows >= start + width)[None, :, None], column, 0.0)
        both = both - einsum("kns,ksm->knm", einsum("kns,kst->knt", column, pivot), own)
        return both, jax.lax.dynamic_update_slice_in_dim(pivots, pivot[:, None], i, axis=1), negative + count

    pivots = jnp.zeros((num_fronts, blocks, width, width), matrix.dtype)
    state = jnp.concatenate([matrix, one], axis=2), pivots, jnp.zeros(num_fronts, jnp.int32)
    both, pivots, negative = jax.lax.fori_loop(0, blocks, step, state)
    return both[:, :, size:], pivots, negative


def invert_block(matrix: Array) -> tuple[Array, Array]:
    """Inverse and number of negative eigenvalues of symmetric matrices [K, n, n], by sweeps on the diagonal.

    Every sweep takes the largest diagonal element left. Not finite if all that are left are zero.
    """
    size = matrix.shape[-1]
    rows = jnp.arange(size, dtype=jnp.int32)

    def sweep(_, state):
        a, free, negative = state
        diagonal = jnp.diagonal(a, axis1=-2, axis2=-1)
        place = jnp.argmax(jnp.where(free, jnp.abs(diagonal), -1.0), axis=-1).astype(jnp.int32)
        at = rows[None] == place[:, None]
        pivot = jnp.take_along_axis(diagonal, place[:, None], axis=1)
        column = jnp.take_along_axis(a, place[:, None, None], axis=2)[..., 0]
        ratio = column / pivot
        swept = a - column[:, :, None] * ratio[:, None, :]
        swept = jnp.where(at[:, :, None], ratio[:, None, :], jnp.where(at[:, None, :], ratio[:, :, None], swept))
        swept = jnp.where(at[:, :, None] & at[:, None, :], -1 / pivot[:, :, None], swept)
        return swept, free & ~at, negative + (pivot[:, 0] < 0)

    state = matrix, jnp.ones(matrix.shape[:2], bool), jnp.zeros(matrix.shape[0], jnp.int32)
    swept, _, negative = jax.lax.fori_loop(0, size, sweep, state)
    return -swept, negative


def invert_pivoted(matrix: Array) -> tuple[Array, Array]:
    """``invert_block`` with complete pivoting: 2 x 2 pivots where the diagonal is small. [K, n, n]."""
    size = matrix.shape[-1]
    rows = jnp.arange(size, dtype=jnp.int32)

    def sweep(_, state):
        a, free, negative = state
        both = free[:, :, None] & free[:, None, :]
        size_of = jnp.where(both, jnp.abs(a), -1.0)
        diagonal = jnp.diagonal(size_of, axis1=-2, axis2=-1)
        off = jnp.where((rows[:, None] == rows[None, :])[None], -1.0, size_of).reshape(-1, size * size)
        largest = jnp.argmax(off, axis=-1).astype(jnp.int32)
        alone = diagonal.max(-1) >= GROWTH * off.max(-1)
        p = jnp.where(alone, jnp.argmax(diagonal, axis=-1).astype(jnp.int32), largest // size)
        q = jnp.where(alone, p, largest % size)
        # A single pivot is a pair whose second element is a decoupled 1 outside the matrix.
        pair = jnp.stack([p, q], axis=1)
        columns = jnp.take_along_axis(a, pair[:, None, :], axis=2)
        columns = jnp.where((alone[:, None] & jnp.array([[False, True]]))[:, None, :], 0.0, columns)
        first = jnp.take_along_axis(columns, pair[:, :, None], axis=1)
        app, apq = first[:, 0, 0], first[:, 0, 1]
        aqq = jnp.where(alone, 1.0, first[:, 1, 1])
        # The larger off-diagonal element divides first, so nothing overflows that is finite in the end.
        scale = jnp.maximum(jnp.maximum(jnp.abs(app), jnp.abs(apq)), jnp.abs(aqq))
        x, y, z = app / scale, apq / scale, aqq / scale
        determinant = jnp.where(alone, 1.0, x * z - y * y)
        spp = jnp.where(alone, 1 / app, z / determinant / scale)
        spq = jnp.where(alone, 0.0, -y / determinant / scale)
        sqq = jnp.where(alone, 1.0, x / determinant / scale)
        small = jnp.stack([jnp.stack([spp, spq], -1), jnp.stack([spq, sqq], -1)], -2)
        ratio = einsum("knc,kcd->knd", columns, small)
        at_p = rows[None] == p[:, None]
        at_q = (rows[None] == q[:, None]) & ~alone[:, None]
        at = at_p | at_q
        swept = a - einsum("knc,kmc->knm", columns, ratio)
        inside = jnp.stack([at_p, at_q], -1).astype(a.dtype)
        spread = einsum("knc,kmc->knm", ratio, inside)
        block = einsum("knc,kcd,kmd->knm", inside, small, inside)
        swept = jnp.where(at[:, None, :], spread, jnp.where(at[:, :, None], jnp.swapaxes(spread, 1, 2), swept))
        swept = jnp.where(at[:, :, None] & at[:, None, :], -block, swept)
        new = jnp.where(alone, (app < 0).astype(jnp.int32), 1)  # a 2 x 2 pivot has one eigenvalue of each sign
        done = ~free.any(-1)
        keep = lambda old, now: jnp.where(done.reshape(-1, *(1,) * (now.ndim - 1)), old, now)  # noqa: E731
        return keep(a, swept), keep(free, free & ~at), keep(negative, negative + new)

    state = matrix, jnp.ones(matrix.shape[:2], bool), jnp.zeros(matrix.shape[0], jnp.int32)
    # As many turns as single pivots would take: a loop until all are done would not end where something is not finite.
    swept, _, negative = jax.lax.fori_loop(0, size, sweep, state)
    return -swept, negative
