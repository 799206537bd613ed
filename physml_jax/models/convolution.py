"""Two-dimensional convolutions that stay fast on CPU, forwards and backwards: one rule for all models.

XLA's CPU backend has several cliffs where a convolution runs 4 to 100 times slower than its arithmetic:

- its input is spatially smaller than its kernel (every network that goes below 4x4, every test on tiny images);
- it sits inside ``scan``, ``map`` or ``while`` with operands in another layout than NHWC/HWIO, as gradients do;
- it has no padding at all, as behind a reflection padding (it is then handed to a second, slower convolution library);
- it has a handful of output channels only and no padding (the last layer of a generator).

``lax`` produces all of them when it differentiates. The functions here compute the same numbers from canonical
convolutions, matrix products and slices only.

The maps that occur are one trilinear form T(x, w, g) = <g, conv(x, w)> seen from three sides: :func:`_forward` is its
gradient in g, :func:`_input_gradient` in x, :func:`_weight_gradient` in w. Each is a ``custom_vjp`` whose rule consists
of the other two, so reverse mode works to any order at full speed; the transposed convolution is the input gradient.

Where the rule does not apply (accelerators, groups, dilation, other layouts, one or three dimensions, negative padding,
integers) the call goes to ``lax`` unchanged. The platform is read from ``jax.default_backend()`` when the call is
traced: both ways compute the same function, so a wrong guess (a CPU computation in a process that has an accelerator)
costs speed and never correctness, whereas ``lax.platform_dependent`` would trace and differentiate both branches of
every layer.

Forward-mode differentiation (``jax.jvp``, ``jacfwd``, ``hessian``) is not defined for ``custom_vjp`` functions and
raises; who needs it passes ``lax.conv_general_dilated`` to the model instead, or uses reverse mode twice.
"""

import functools
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax
from jax.custom_batching import custom_vmap

from physml_jax.typing import Array

_CANONICAL = ("NHWC", "HWIO", "NHWC")
_CANONICAL_SPEC = lax.ConvDimensionNumbers((0, 3, 1, 2), (3, 2, 0, 1), (0, 3, 1, 2))

#: Largest mapped axis that ``vmap`` over weights unrolls; beyond it the program would be too long.
MAX_UNROLL = 16
#: Strided gradients up to these output sizes are matrix products (measured; above, convolutions win).
_INPUT_GRADIENT_DOT = 8
_WEIGHT_GRADIENT_DOT = 4
#: Up to this many output channels a convolution is one product with all taps and a sum of shifted images (measured).
_NARROW = 8

Pair = tuple[int, int]


class _Geometry(NamedTuple):
    """What is static about one convolution: [H, W] of input and kernel, strides, ((low, high), (low, high)) padding."""

    size: Pair
    kernel: Pair
    strides: Pair
    padding: tuple[Pair, Pair]
    precision: Any

    @property
    def out(self) -> Pair:
        return tuple(
            (n + lo + hi - k) // s + 1
            for n, k, s, (lo, hi) in zip(self.size, self.kernel, self.strides, self.padding, strict=True)
        )

    @property
    def pointwise(self) -> bool:
        return self.kernel == (1, 1) and self.padding == ((0, 0), (0, 0))


def conv_general_dilated(
    lhs: Array,
    rhs: Array,
    window_strides: Sequence[int],
    padding: str | Sequence[Pair],
    lhs_dilation: Sequence[int] | None = None,
    rhs_dilation: Sequence[int] | None = None,
    dimension_numbers: Any = None,
    feature_group_count: int = 1,
    batch_group_count: int = 1,
    precision: Any = None,
    preferred_element_type: Any = None,
    **kwargs: Any,
) -> Array:
    """``lax.conv_general_dilated`` with gradients that are fast on CPU, also at small sizes and inside loops.

    Same arguments and same result (to rounding); for ``flax.linen.Conv(conv_general_dilated=conv_general_dilated)``.

    Args:
      lhs: input, float [N, H, W, C] where the rule applies.
      rhs: kernel, float [kh, kw, C, O] of the same dtype.
      window_strides: stride per spatial axis.
      padding: ``"SAME"``, ``"VALID"``, ``"SAME_LOWER"`` or ((low, high), (low, high)).
      lhs_dilation: as in ``lax``; anything but 1 passes the call on to ``lax``.
      rhs_dilation: likewise.
      dimension_numbers: as in ``lax``; anything but NHWC, HWIO, NHWC passes the call on.
      feature_group_count: anything but 1 passes the call on.
      batch_group_count: likewise.
      precision: as in ``lax``; used in the gradients too.
      preferred_element_type: anything but ``None`` or the input's dtype passes the call on.
      **kwargs: newer options of ``lax``; any that is set passes the call on.

    Returns:
      float [N, OH, OW, O].
    """
    plain = (
        jax.default_backend() == "cpu"
        and lhs.ndim == 4
        and lhs.dtype == rhs.dtype
        and jnp.issubdtype(lhs.dtype, jnp.floating)
        and preferred_element_type in (None, lhs.dtype)
        and feature_group_count == 1
        and batch_group_count == 1
        and all(d == 1 for d in (*(lhs_dilation or ()), *(rhs_dilation or ())))
        and lax.conv_dimension_numbers(lhs.shape, rhs.shape, dimension_numbers) == _CANONICAL_SPEC
        and lhs.shape[3] == rhs.shape[2]
        and all(v is None for v in kwargs.values())
    )
    if plain:
        size, kernel, strides = lhs.shape[1:3], rhs.shape[:2], tuple(int(s) for s in window_strides)
        pads = lax.padtype_to_pads(size, kernel, strides, padding) if isinstance(padding, str) else padding
        geometry = _Geometry(size, kernel, strides, tuple((int(lo), int(hi)) for lo, hi in pads), precision)
        if min(min(pair) for pair in geometry.padding) >= 0 and min(geometry.out) >= 1 and 0 not in lhs.shape:
            return _forward(geometry, lhs, rhs)
    return lax.conv_general_dilated(
        lhs,
        rhs,
        window_strides,
        padding,
        lhs_dilation=lhs_dilation,
        rhs_dilation=rhs_dilation,
        dimension_numbers=dimension_numbers,
        feature_group_count=feature_group_count,
        batch_group_count=batch_group_count,
        precision=precision,
        preferred_element_type=preferred_element_type,
        **kwargs,
    )


def conv_transpose(
    x: Array, kernel: Array, *, strides: Pair, padding: tuple[Pair, Pair], size: Pair, precision: Any = None
) -> Array:
    """The transposed convolution: the map from output gradients to input gradients of a convolution, used as a layer.

    Args:
      x: float [N, h, w, C].
      kernel: float [kh, kw, O, C]: the kernel of the convolution ``[N, H, W, O] -> [N, h, w, C]`` that this transposes.
      strides: strides of that convolution.
      padding: its padding, ((low, high), (low, high)), not negative.
      size: (H, W), the output size; that convolution must map it to (h, w).
      precision: as in ``lax``.

    Returns:
      float [N, H, W, O].

    Raises:
      ValueError: if the convolution does not map ``size`` to the size of ``x``.
    """
    geometry = _Geometry(tuple(size), kernel.shape[:2], tuple(strides), tuple(tuple(p) for p in padding), precision)
    if geometry.out != x.shape[1:3] or min(min(p) for p in geometry.padding) < 0:
        raise ValueError(
            f"size: the convolution with kernel {geometry.kernel}, strides {geometry.strides} and padding "
            f"{geometry.padding} maps {geometry.size} to {geometry.out}, but the input is {x.shape[1:3]}"
        )
    if jax.default_backend() == "cpu":
        return _input_gradient(geometry, x, kernel)
    pads = tuple(
        (k - 1 - lo, n + lo - 1 - (o - 1) * s)
        for n, o, k, s, (lo, _) in zip(size, geometry.out, geometry.kernel, strides, padding, strict=True)
    )
    return lax.conv_general_dilated(
        x,
        _flip_swap(kernel),
        (1, 1),
        pads,
        lhs_dilation=strides,
        dimension_numbers=_CANONICAL,
        precision=precision,
    )


# --- the three maps


def _forward_rule(geometry: _Geometry, x: Array, w: Array) -> Array:
    if geometry.pointwise:
        (sh, sw), precision = geometry.strides, geometry.precision
        return jnp.einsum("nhwc,co->nhwo", x[:, ::sh, ::sw], w[0, 0], precision=precision)
    if _smaller(geometry.size, geometry.kernel):
        return _by_patches(geometry, x, w)
    if geometry.strides == (1, 1) and w.shape[3] <= min(_NARROW, w.shape[2]):
        return _by_shifts(geometry, x, w)
    return _convolve(x, w, geometry.padding, geometry.precision, strides=geometry.strides)


def _by_patches(geometry: _Geometry, x: Array, w: Array) -> Array:
    """One matrix product of the patches with the kernel, without the taps that see nothing but padding."""
    taps = _taps(geometry)
    if not taps:
        return jnp.zeros((x.shape[0], *geometry.out, w.shape[3]), x.dtype)
    patches = jnp.concatenate(_slices(geometry, x, taps), axis=3)
    kernel = jnp.concatenate([w[i, j] for i, j in taps], axis=0)
    return jnp.einsum("nhwp,po->nhwo", patches, kernel, precision=geometry.precision)


def _by_shifts(geometry: _Geometry, x: Array, w: Array) -> Array:
    """One matrix product of the pixels with all taps, then the sum of the shifted results: for few output channels."""
    (kh, kw, c, o), (oh, ow) = w.shape, geometry.out
    taps = jnp.einsum(
        "nhwc,cp->nhwp", _padded(geometry, x), w.transpose(2, 0, 1, 3).reshape(c, -1), precision=geometry.precision
    )
    parts = (taps[:, i : i + oh, j : j + ow, (i * kw + j) * o :][..., :o] for i in range(kh) for j in range(kw))
    return functools.reduce(jnp.add, parts)


def _input_gradient_rule(geometry: _Geometry, g: Array, w: Array) -> Array:
    strides, out, padding = geometry.strides, geometry.out, geometry.padding
    if geometry.pointwise:
        dx = jnp.einsum("nhwo,co->nhwc", g, w[0, 0], precision=geometry.precision)
        return _spread(dx, geometry.size, strides)
    narrow = w.shape[2] <= min(_NARROW, w.shape[3])
    if strides == (1, 1) and not narrow and not _smaller(out, geometry.kernel):
        pads = tuple(
            (k - 1 - lo, n - o + lo)
            for n, o, k, (lo, _) in zip(geometry.size, out, geometry.kernel, padding, strict=True)
        )
        return _convolve(g, _flip_swap(w), pads, geometry.precision)
    if strides == (1, 1) or narrow or min(out) <= _INPUT_GRADIENT_DOT:
        x = jax.ShapeDtypeStruct((g.shape[0], *geometry.size, w.shape[2]), g.dtype)
        return jax.linear_transpose(lambda x: _by_patches(geometry, x, w), x)(g)[0]
    return _by_parity(geometry, g, w)


def _by_parity(geometry: _Geometry, g: Array, w: Array) -> Array:
    """Strided input gradient without products with zero: a convolution per residue of the padded position, interleaved.

    With h + low = s q + p, the tap i contributes to row h only if i = p + s j, and then from row q - j of g.
    """
    (sh, sw), (n_h, n_w), (oh, ow) = geometry.strides, geometry.size, geometry.out
    first, count, reach = [], [], []
    for n, k, s, (lo, _) in zip(geometry.size, geometry.kernel, geometry.strides, geometry.padding, strict=True):
        first.append(lo // s)
        count.append((lo + n - 1) // s - lo // s + 1)
        reach.append(-(-k // s) - 1)  # the farthest row that any residue looks back
    pads = [(r - f, f + c - 1 - (o - 1), 0) for r, f, c, o in zip(reach, first, count, (oh, ow), strict=True)]
    g = lax.pad(g, jnp.zeros((), g.dtype), [(0, 0, 0), *pads, (0, 0, 0)])
    rows = []
    for p in range(sh):
        columns = []
        for q in range(sw):
            kernel = w[p::sh, q::sw]
            mh, mw = kernel.shape[:2]
            if mh == 0 or mw == 0:
                columns.append(jnp.zeros((g.shape[0], *count, w.shape[2]), g.dtype))
                continue
            window = g[:, reach[0] - mh + 1 :, reach[1] - mw + 1 :]
            columns.append(_convolve(window, _flip_swap(kernel), ((0, 0), (0, 0)), geometry.precision))
        rows.append(jnp.stack(columns, axis=3))
    full = jnp.stack(rows, axis=2)  # [N, count_h, sh, count_w, sw, C]
    full = full.reshape(g.shape[0], count[0] * sh, count[1] * sw, w.shape[2])
    top, left = (lo - f * s for (lo, _), f, s in zip(geometry.padding, first, geometry.strides, strict=True))
    return full[:, top : top + n_h, left : left + n_w]


def _weight_gradient_rule(geometry: _Geometry, x: Array, g: Array) -> Array:
    (kh, kw), out, precision = geometry.kernel, geometry.out, geometry.precision
    if geometry.pointwise:
        sh, sw = geometry.strides
        return jnp.einsum("nhwc,nhwo->co", x[:, ::sh, ::sw], g, precision=precision)[None, None]
    reach = tuple((o - 1) * s + 1 for o, s in zip(out, geometry.strides, strict=True))
    strided = geometry.strides != (1, 1)
    # The sum runs over g as a kernel; where x is smaller than that (paddings of k/2 with even k) the cliff is steepest.
    small = _smaller(geometry.size, geometry.kernel) or (not strided and _smaller(geometry.size, reach))
    if small and not strided and g.shape[3] <= min(_NARROW, x.shape[3]):
        w = jax.ShapeDtypeStruct((kh, kw, x.shape[3], g.shape[3]), x.dtype)
        return jax.linear_transpose(lambda w: _by_shifts(geometry, x, w), w)(g)[0]
    if small or (strided and min(out) <= _WEIGHT_GRADIENT_DOT):
        taps = _taps(geometry)
        dots = (jnp.einsum("nhwc,nhwo->co", seen, g, precision=precision) for seen in _slices(geometry, x, taps))
        dots = dict(zip(taps, dots, strict=True))
        zero = jnp.zeros((x.shape[3], g.shape[3]), x.dtype)
        return jnp.stack([jnp.stack([dots.get((i, j), zero) for j in range(kw)]) for i in range(kh)])
    pads = tuple(
        (lo, k + r - 1 - n - lo)
        for n, k, r, (lo, _) in zip(geometry.size, geometry.kernel, reach, geometry.padding, strict=True)
    )
    dw = _convolve(x.transpose(3, 1, 2, 0), g.transpose(1, 2, 0, 3), pads, precision, rhs_dilation=geometry.strides)
    return dw.transpose(1, 2, 0, 3)


# --- pieces


def _convolve(
    x: Array, w: Array, padding: Sequence[Pair], precision: Any, *, strides: Pair = (1, 1), rhs_dilation: Pair = (1, 1)
) -> Array:
    """The only kind of convolution that reaches the compiler: canonical layout, no groups, never without padding."""
    rows = None
    if all(pair == (0, 0) for pair in padding):
        rows = (x.shape[1] - (w.shape[0] - 1) * rhs_dilation[0] - 1) // strides[0] + 1
        padding = ((0, 1), (0, 0))  # one row of zeros, cut off again, keeps the call with the faster library
    y = lax.conv_general_dilated(
        x, w, strides, padding, rhs_dilation=rhs_dilation, dimension_numbers=_CANONICAL, precision=precision
    )
    return y if rows is None else y[:, :rows]


def _flip_swap(w: Array) -> Array:
    return jnp.flip(w, (0, 1)).transpose(0, 1, 3, 2)


def _smaller(size: Pair, kernel: Pair) -> bool:
    return any(n < k for n, k in zip(size, kernel, strict=True))


def _taps(geometry: _Geometry) -> list[Pair]:
    """The kernel positions that see at least one pixel of the input."""
    seen = []
    for n, k, s, o, (lo, _) in zip(
        geometry.size, geometry.kernel, geometry.strides, geometry.out, geometry.padding, strict=True
    ):
        seen.append([i for i in range(k) if any(0 <= i - lo + s * q < n for q in range(o))])
    return [(i, j) for i in seen[0] for j in seen[1]]


def _padded(geometry: _Geometry, x: Array) -> Array:
    return jnp.pad(x, ((0, 0), *geometry.padding, (0, 0)))


def _slices(geometry: _Geometry, x: Array, taps: Sequence[Pair]) -> list[Array]:
    """What every tap sees: a list of [N, OH, OW, C]."""
    x = _padded(geometry, x)
    (sh, sw), (oh, ow) = geometry.strides, geometry.out
    return [x[:, i : i + (oh - 1) * sh + 1 : sh, j : j + (ow - 1) * sw + 1 : sw] for i, j in taps]


def _spread(x: Array, size: Pair, strides: Pair) -> Array:
    """Puts ``x`` on every ``strides``-th pixel of a zero image of ``size``: the transpose of a strided slice."""
    pads = [(0, n - (m - 1) * s - 1, s - 1) for n, m, s in zip(size, x.shape[1:3], strides, strict=True)]
    return lax.pad(x, jnp.zeros((), x.dtype), [(0, 0, 0), *pads, (0, 0, 0)])


# --- differentiation and mapping


@functools.cache
def _mappable(rule: Callable[..., Array], geometry: _Geometry) -> Callable[[Array, Array], Array]:
    """``rule`` for one geometry, with its behaviour under ``vmap``.

    A mapped image beside a shared kernel joins the batch axis. Everything else (a network per row, gradients per row)
    is unrolled, because the grouped convolution that ``lax`` makes of it is several times slower.
    """
    plain = functools.partial(rule, geometry)
    mappable = custom_vmap(plain)

    @mappable.def_vmap
    def _(axis_size, in_batched, first, second):
        if in_batched == [True, False] and rule is not _weight_gradient_rule:
            merged = mappable(first.reshape(-1, *first.shape[2:]), second)
            return merged.reshape(*first.shape[:2], *merged.shape[1:]), True
        if axis_size > MAX_UNROLL:
            return jax.vmap(plain, in_axes=tuple(0 if b else None for b in in_batched))(first, second), True
        rows = [
            mappable(first[i] if in_batched[0] else first, second[i] if in_batched[1] else second)
            for i in range(axis_size)
        ]
        return jnp.stack(rows), True

    return mappable


@functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
def _forward(geometry: _Geometry, x: Array, w: Array) -> Array:
    return _mappable(_forward_rule, geometry)(x, w)


@functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
def _input_gradient(geometry: _Geometry, g: Array, w: Array) -> Array:
    return _mappable(_input_gradient_rule, geometry)(g, w)


@functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
def _weight_gradient(geometry: _Geometry, x: Array, g: Array) -> Array:
    return _mappable(_weight_gradient_rule, geometry)(x, g)


_forward.defvjp(
    lambda geometry, x, w: (_forward(geometry, x, w), (x, w)),
    lambda geometry, saved, g: (_input_gradient(geometry, g, saved[1]), _weight_gradient(geometry, saved[0], g)),
)
_input_gradient.defvjp(
    lambda geometry, g, w: (_input_gradient(geometry, g, w), (g, w)),
    lambda geometry, saved, x: (_forward(geometry, x, saved[1]), _weight_gradient(geometry, x, saved[0])),
)
_weight_gradient.defvjp(
    lambda geometry, x, g: (_weight_gradient(geometry, x, g), (x, g)),
    lambda geometry, saved, w: (_input_gradient(geometry, saved[1], w), _forward(geometry, saved[0], w)),
)
