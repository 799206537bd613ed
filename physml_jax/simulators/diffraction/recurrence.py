"""The recurrence X_0 = e, X_1 = B X_0, X_(k+1) = 2 B X_k - X_(k-1), and its adjoint.

B = V + diag(D), one per column of X [n, P]: V [n, n] is shared, D [n, P] is not. With factors m [n, P], where columns
differ in their obliquity, B = diag(m) V diag(m) + diag(D). Two functions of the chain are wanted,
its moments <X_k, X_k> and <X_(k+1), X_k>, and weighted sums of its rows. Reverse-mode differentiation of a loop keeps
every X_k. Here the derivative runs the recurrence backwards instead, X_(k-1) = 2 B X_k - X_(k+1), beside the adjoint
states

    L_k = S_k + 2 B^T L_(k+1) - L_(k+2),    dV += 2 L_k X_(k-1)^T,    dD += 2 L_k * X_(k-1)    (factor 1 for k = 1)

with S_k what the functional itself asks of X_k: three products per term behind the one of the forward pass, and no
memory that grows with the number of terms but for a pair of states in every ``ANCHOR`` terms. Those anchors are where
the backward run starts afresh: where absorption moves the spectrum off the real axis, the recurrence loses in one
direction what it gains in the other.

Complex states are a real and an imaginary array: a complex product then takes three real ones, while XLA's own on CPU
costs about seven.
"""

import functools
from typing import Literal

import jax
import jax.numpy as jnp
import numpy as np

from physml_jax.core.precision import matmul
from physml_jax.typing import Array

#: What is known about V: real symmetric; Hermitian; complex symmetric (absorption, real potential up to a shift of the
#: origin); none of these.
Kind = Literal["real", "hermitian", "symmetric", "general"]

#: Chebyshev vectors of all tilts, (real,) or (real, imaginary), each [n, P].
State = tuple[Array, ...]

#: Terms between the pairs of states that the backward run starts from.
ANCHOR = 32


def moments(
    coupling: tuple[Array, ...],
    detuning: Array,
    num_pairs: Array | int,
    limits: Array,
    *,
    kind: Kind,
    entrance: int = 0,
    obliquity: Array | None = None,
    forward_mode: bool = False,
) -> tuple[Array, Array]:
    """Moments mu_k = <X_0, T_k(B) X_0> of twice as many terms as there are products.

    mu_2k = 2 <X_k, X_k> - mu_0 and mu_2k+1 = 2 <X_k+1, X_k> - mu_1. A Hermitian B takes the inner product, a complex
    symmetric one the bilinear form without conjugation.

    Args:
      coupling: V as (real,) or (real, imaginary), each [n, n].
      detuning: D [n, P].
      num_pairs: J, at most the length of ``limits``; Python integer or traced.
      limits: [M], largest weight that moment 2 j will be given, for the estimate of the rounding error.
      kind: "real", "hermitian" or "symmetric".
      entrance: the row of X_0 that is 1.
      obliquity: m [n, P], real; ``None`` means 1.
      forward_mode: differentiable in forward mode too, if ``num_pairs`` is a Python integer; reverse mode then keeps
        all X_k.

    Returns:
      [M, 2, c, P]: moments 2 j and 2 j + 1 of every column, zero from J on; c = 2 (real and imaginary) for "symmetric",
      else 1. And the largest rounding error to expect, in units of the machine's epsilon, [] (without derivative).
    """
    if forward_mode:
        found, peak, _ = _run_moments(coupling, detuning, obliquity, num_pairs, limits, kind, entrance, anchored=False)
        return found, peak
    return _moments(coupling, detuning, obliquity, num_pairs, limits, kind, entrance)


def sums(
    coupling: tuple[Array, ...],
    detuning: Array,
    coefficients: Array,
    num_pairs: Array | int,
    limits: Array,
    *,
    entrance: int = 0,
    outputs: tuple[int, ...] | None = None,
    obliquity: Array | None = None,
    forward_mode: bool = False,
) -> tuple[State, State, Array, Array]:
    """Weighted sums of chosen rows of the even and of the odd X_k.

    Args:
      coupling: V as (real,) or (real, imaginary), each [n, n], of any symmetry.
      detuning: D [n, P].
      coefficients: [T, K], K even.
      num_pairs: number of pairs of terms, at most K / 2; Python integer or traced.
      limits: [K], largest weight of every term, for the estimate of the rounding error.
      entrance: the row of X_0 that is 1.
      outputs: numbers of the wanted rows; ``None`` means all n.
      obliquity: m [n, P], real; ``None`` means 1.
      forward_mode: as for ``moments``.

    Returns:
      Sums over even and over odd k of coefficients[t, k] X_k[rows], each (real,) or (real, imaginary) of [T, R, P]; the
      largest and the last weighted norm of a state, [] (without derivative).
    """
    outputs = tuple(range(detuning.shape[0])) if outputs is None else tuple(int(i) for i in outputs)
    if forward_mode:
        arrays = (coupling, detuning, obliquity, coefficients, num_pairs, limits)
        return _run_sums(*arrays, entrance, outputs, anchored=False)[0]
    return _sums(coupling, detuning, obliquity, coefficients, num_pairs, limits, entrance, outputs)


def _prepared(coupling: tuple[Array, ...]) -> tuple[Array, ...]:
    """The coupling as ``_apply`` takes it."""
    return coupling if len(coupling) == 1 else (*coupling, coupling[0] + coupling[1])


def _transposed(coupling: tuple[Array, ...]) -> tuple[Array, ...]:
    """The adjoint of the real-linear map (real, imaginary) -> (real, imaginary): V^T, or V^H."""
    return _prepared((coupling[0].T,) if len(coupling) == 1 else (coupling[0].T, -coupling[1].T))


def _first(coupling, detuning, entrance) -> State:
    x = jnp.zeros_like(detuning).at[entrance].set(1)
    return (x,) if len(coupling) == 1 else (x, jnp.zeros_like(detuning))


def _couple(coupling: tuple[Array, ...], x: State) -> State:
    """V x. A complex product takes three real ones (Gauss), with (real, imaginary, sum) of the coupling."""
    if len(x) == 1:
        return (matmul(coupling[0], x[0]),)
    real, imag, both = coupling
    shared = matmul(both, x[0])
    return shared - matmul(imag, x[0] + x[1]), shared + matmul(real, x[1] - x[0])


def _times(obliquity: Array | None, x: State) -> State:
    """Obliquity factors times x."""
    return x if obliquity is None else tuple(obliquity * a for a in x)


def _apply(coupling: tuple[Array, ...], detuning: Array, obliquity: Array | None, x: State) -> State:
    """B x."""
    coupled = _times(obliquity, _couple(coupling, _times(obliquity, x)))
    return tuple(c + detuning * a for c, a in zip(coupled, x, strict=True))


def _outer(left: State, x: State) -> tuple[Array, ...]:
    """Left x^T, or left x^H, as the parts of a coupling."""
    if len(x) == 1:
        return (matmul(left[0], x[0].T),)
    a, b = matmul(left[0], x[0].T), matmul(left[1], x[1].T)
    return a + b, matmul(left[0] + left[1], (x[0] - x[1]).T) - a + b


def _minus(factor, x: State, y: State) -> State:
    """Factor x - y."""
    return tuple(factor * a - b for a, b in zip(x, y, strict=True))


def _inner(x: State, y: State, kind: Kind) -> Array:
    """<x, y> per column: [1, P]; for "symmetric" the bilinear form, real and imaginary [2, P]."""
    if kind == "symmetric":
        real = jnp.sum(x[0] * y[0] - x[1] * y[1], axis=0)
        return jnp.stack([real, jnp.sum(x[0] * y[1] + x[1] * y[0], axis=0)])
    # <T_j e, T_k e> is real for a Hermitian matrix, whose polynomials commute.
    return sum(jnp.sum(a * b, axis=0) for a, b in zip(x, y, strict=True))[None]


def _pulled(weight: Array, y: State, kind: Kind) -> State:
    """Gradient of weight . <x, y> with respect to x; ``weight`` as ``_inner`` returns."""
    if kind == "symmetric":
        real, imag = weight[:1], weight[1:]
        return real * y[0] + imag * y[1], imag * y[0] - real * y[1]
    return tuple(weight * a for a in y)


def _squared(x: State) -> Array:
    """Largest squared norm over the columns, []."""
    return jax.lax.stop_gradient(jnp.max(sum(jnp.sum(a * a, axis=0) for a in x)))


def _anchored(body, start, stop, carry, length: int, stride: int):
    """Loop of ``body`` from ``start`` to ``stop``, and the first two entries of the carry at every ``stride``-th step.

    ``length`` bounds ``stop``. Two loops, one within the other, so that what is kept is written in place.
    """
    kept = tuple(jnp.zeros((length // stride + 1, 2, *a.shape), a.dtype) for a in carry[0])

    def segment(s, both):
        carry, kept = both
        pair = tuple(jnp.stack(p) for p in zip(*carry[:2], strict=True))
        kept = tuple(jax.lax.dynamic_update_index_in_dim(k, p, s, 0) for k, p in zip(kept, pair, strict=True))
        upper = jnp.minimum((s + 1) * stride, stop)
        return jax.lax.fori_loop(jnp.maximum(s * stride, start), upper, body, carry), kept

    return jax.lax.fori_loop(0, (stop - 1) // stride + 1, segment, (carry, kept))


def _backwards(
    coupling, detuning, obliquity, last: tuple[State, State], anchors: State, offset: int, length, source, start, use
):
    """Runs chain and adjoint from X_length down to X_0.

    Args:
      coupling: parts of V.
      detuning: D [n, P].
      obliquity: m [n, P] or ``None``.
      last: (X_(length-1), X_length).
      anchors: pairs (X_(k-1), X_k) at k = s * ANCHOR + offset; the first is not used.
      offset: 0 or 1.
      length: number of the last state.
      source: (k, X_(k-1), X_k, X_(k+1)) -> S_k; must be 0 where it would need X_(length+1).
      start: what ``use`` begins with.
      use: (total, k, X_k) -> total, for k from ``length`` to 1; and once more for k = 0.

    Returns:
      Cotangents of V's parts, of D and of m (``None`` without), and the last total.
    """
    forward, backward = _prepared(coupling), _transposed(coupling)
    zero = tuple(jnp.zeros_like(a) for a in last[0])

    def step(i, carry):
        k = carry[0] - i
        before, x, after, upper, higher, dv, dd, dm, total = carry[1]
        total = use(total, k, x)
        drive = source(k, before, x, after)
        pulled = _couple(backward, _times(obliquity, upper))
        lower = tuple(
            s + 2 * (p + detuning * u) - h
            for s, p, u, h in zip(drive, _times(obliquity, pulled), upper, higher, strict=True)
        )
        factor = jnp.where(k == 1, 1, 2).astype(detuning.dtype)
        scaled = tuple(factor * a for a in lower)
        coupled = _couple(forward, _times(obliquity, before))
        outer = _outer(_times(obliquity, scaled), _times(obliquity, before))
        dv = tuple(a + b for a, b in zip(dv, outer, strict=True))
        dd = dd + _dot(scaled, before)
        if dm is not None:  # m stands on both sides of V; the left one of L_(k+1) is due now that its product is known
            dm = dm + _dot(scaled, coupled) + 2 * _dot(x, pulled)
        # Below X_0 this gives B X_0, which nothing uses.
        applied = tuple(c + detuning * a for c, a in zip(_times(obliquity, coupled), before, strict=True))
        earlier = _minus(2, applied, x)
        return carry[0], (earlier, before, x, lower, upper, dv, dd, dm, total)

    def segment(i, carry):
        s = (length - 1 - offset) // ANCHOR - i
        top = jnp.minimum((s + 1) * ANCHOR + offset, length)
        bottom = jnp.where(s > 0, s * ANCHOR + offset, 0)
        stored = tuple(jax.lax.dynamic_index_in_dim(a, s + 1, keepdims=False) for a in anchors)
        ends = top < length
        before, x = (tuple(jnp.where(ends, a[j], b) for a, b in zip(stored, last[j], strict=True)) for j in (0, 1))
        _, carry = jax.lax.fori_loop(0, top - bottom, step, (top, (before, x, *carry[2:])))
        return carry

    dv = tuple(jnp.zeros_like(v) for v in coupling)
    dm = None if obliquity is None else jnp.zeros_like(detuning)
    carry = (zero, zero, zero, zero, zero, dv, jnp.zeros_like(detuning), dm, start)
    _, x, _, upper, _, dv, dd, dm, total = jax.lax.fori_loop(0, (length - 1 - offset) // ANCHOR + 1, segment, carry)
    if dm is not None:
        dm = dm + _dot(x, _couple(backward, _times(obliquity, upper)))
    return dv, dd, dm, use(total, 0, x)


def _dot(x: State, y: State) -> Array:
    """Sum over the parts of x y, [n, P]."""
    return sum(a * b for a, b in zip(x, y, strict=True))


def _run_moments(coupling, detuning, obliquity, num_pairs, limits, kind, entrance, *, anchored):
    parts = _prepared(coupling)
    x0 = _first(coupling, detuning, entrance)
    x1 = _apply(parts, detuning, obliquity, x0)
    mu0, mu1 = _inner(x0, x0, kind), _inner(x1, x0, kind)
    buffer = jnp.zeros((limits.shape[0], 2, *mu0.shape), detuning.dtype).at[0].set(jnp.stack([mu0, mu1]))

    def body(j, carry):
        previous, current, found, peak = carry
        following = _minus(2, _apply(parts, detuning, obliquity, current), previous)
        pair = jnp.stack([2 * _inner(current, current, kind) - mu0, 2 * _inner(following, current, kind) - mu1])
        found = jax.lax.dynamic_update_index_in_dim(found, pair, j, 0)
        if kind == "symmetric":  # the bilinear form can be small where the state, and with it the rounding, is large
            peak = jnp.maximum(peak, _squared(current) * limits[j])
        return current, following, found, peak

    carry, anchors = (x0, x1, buffer, jnp.ones((), detuning.dtype)), ()
    if anchored:
        carry, anchors = _anchored(body, 1, num_pairs, carry, limits.shape[0], ANCHOR)
    else:
        carry = jax.lax.fori_loop(1, num_pairs, body, carry)
    x, y, found, peak = carry  # X_(J-1), X_J
    return found, jax.lax.stop_gradient(peak), ((x, y), anchors)


@functools.partial(jax.custom_vjp, nondiff_argnums=(5, 6))
def _moments(coupling, detuning, obliquity, num_pairs, limits, kind, entrance):
    return _run_moments(coupling, detuning, obliquity, num_pairs, limits, kind, entrance, anchored=False)[:2]


def _moments_forward(coupling, detuning, obliquity, num_pairs, limits, kind, entrance):
    found, peak, kept = _run_moments(coupling, detuning, obliquity, num_pairs, limits, kind, entrance, anchored=True)
    return (found, peak), (coupling, detuning, obliquity, num_pairs, limits, kept)


def _moments_backward(kind, entrance, residuals, cotangents):
    coupling, detuning, obliquity, num_pairs, limits, (last, anchors) = residuals
    inside = (jnp.arange(limits.shape[0] + 1) < num_pairs)[:, None, None, None]
    weights = jnp.pad(cotangents[0], ((0, 1), (0, 0), (0, 0), (0, 0))) * inside
    first = 2 * weights[0, 1] - weights[:, 1].sum(axis=0)  # of mu_1, which every odd moment contains
    odd = weights[:, 1].at[0].set(0)

    def source(k, before, x, after):
        # <X_1, X_0> stands in mu_1 once, every other product of neighbours twice.
        below = jnp.where(k == 1, first, 2 * odd[k - 1])
        terms = (
            _pulled(4 * weights[k, 0], x, kind),
            _pulled(2 * odd[k], after, kind),
            _pulled(below, before, kind),
        )
        return tuple(sum(parts) for parts in zip(*terms, strict=True))

    arrays = (coupling, detuning, obliquity, last, anchors)
    dv, dd, dm, _ = _backwards(*arrays, 0, num_pairs, source, (), lambda total, k, x: total)
    return dv, dd, dm, None, jnp.zeros_like(limits)


_moments.defvjp(_moments_forward, _moments_backward)


def _run_sums(coupling, detuning, obliquity, coefficients, num_pairs, limits, entrance, outputs, *, anchored):
    parts = _prepared(coupling)
    x0 = _first(coupling, detuning, entrance)
    x1 = _apply(parts, detuning, obliquity, x0)
    rows = np.asarray(outputs, np.int32)
    every = outputs == tuple(range(detuning.shape[0]))

    def add(total, weights, x):
        chosen = x if every else tuple(a[rows] for a in x)
        return tuple(t + weights[:, None, None] * a[None] for t, a in zip(total, chosen, strict=True))

    def body(j, carry):
        x, y, even, odd, peak, _ = carry
        weights = jax.lax.dynamic_slice_in_dim(coefficients, 2 * j, 2, axis=1)
        even, odd = add(even, weights[:, 0], x), add(odd, weights[:, 1], y)
        size = jnp.sqrt(jnp.maximum(_squared(x), _squared(y)))
        tail = size * jnp.max(jax.lax.dynamic_slice_in_dim(limits, 2 * j, 2))
        x = _minus(2, _apply(parts, detuning, obliquity, y), x)
        y = _minus(2, _apply(parts, detuning, obliquity, x), y)
        return x, y, even, odd, jnp.maximum(peak, tail), tail

    zeros = (jnp.zeros((coefficients.shape[0], len(rows), detuning.shape[1]), detuning.dtype),) * len(x0)
    one = jnp.ones((), detuning.dtype)
    carry, anchors = (x0, x1, zeros, zeros, one, one), ()
    if anchored:
        carry, anchors = _anchored(body, 0, num_pairs, carry, coefficients.shape[1] // 2, ANCHOR // 2)
    else:
        carry = jax.lax.fori_loop(0, num_pairs, body, carry)
    x, y, even, odd, peak, tail = carry  # X_2J, X_(2J+1)
    stop = jax.lax.stop_gradient
    return (even, odd, stop(peak), stop(tail)), ((x, y), anchors)


@functools.partial(jax.custom_vjp, nondiff_argnums=(6, 7))
def _sums(coupling, detuning, obliquity, coefficients, num_pairs, limits, entrance, outputs):
    arrays = (coupling, detuning, obliquity, coefficients, num_pairs, limits)
    return _run_sums(*arrays, entrance, outputs, anchored=False)[0]


def _sums_forward(coupling, detuning, obliquity, coefficients, num_pairs, limits, entrance, outputs):
    arrays = (coupling, detuning, obliquity, coefficients, num_pairs, limits)
    found, kept = _run_sums(*arrays, entrance, outputs, anchored=True)
    return found, (*arrays, kept)


def _sums_backward(entrance, outputs, residuals, cotangents):
    coupling, detuning, obliquity, coefficients, num_pairs, limits, (last, anchors) = residuals
    even, odd = cotangents[:2]  # each (real,) or (real, imaginary) of [T, R, P]
    both = tuple(jnp.stack(pair) for pair in zip(even, odd, strict=True))
    rows, n = np.asarray(outputs, np.int32), detuning.shape[0]
    every = outputs == tuple(range(n))
    inside = (jnp.arange(coefficients.shape[1]) < 2 * num_pairs)[None]
    weights = jnp.pad(coefficients * inside, ((0, 0), (0, 2)))
    length = 2 * num_pairs + 1

    def source(k, before, x, after):
        column = jax.lax.dynamic_index_in_dim(weights, k, axis=1, keepdims=False)
        wanted = tuple(jnp.tensordot(column, b[k % 2], axes=1, precision="highest") for b in both)
        return wanted if every else tuple(jnp.zeros_like(detuning).at[rows].add(a) for a in wanted)

    def use(total, k, x):
        chosen = x if every else tuple(a[rows] for a in x)
        value = sum(jnp.sum(b[k % 2] * a[None], axis=(1, 2)) for a, b in zip(chosen, both, strict=True))
        return jax.lax.dynamic_update_index_in_dim(total, value, k, axis=1)

    arrays = (coupling, detuning, obliquity, last, anchors)
    dv, dd, dm, dc = _backwards(*arrays, 1, length, source, jnp.zeros_like(weights), use)
    return dv, dd, dm, dc[:, : coefficients.shape[1]] * inside, None, jnp.zeros_like(limits)


_sums.defvjp(_sums_forward, _sums_backward)
