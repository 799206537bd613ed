r"""Localization lengths: of single states on the torus, and of a long bar by transfer matrices.

Different lengths of one state differ by factors of order one, since a state is no exact exponential; only their growth
towards the transition is common. All are in lattice constants, and none exceeds about L/2 in a finite lattice.
"""

import math

import jax
import jax.numpy as jnp
import numpy as np

from physml_jax.core.precision import einsum
from physml_jax.simulators.anderson.multifractal import probabilities
from physml_jax.simulators.anderson.spectrum import Estimate
from physml_jax.typing import Array, Key


def second_moment_length(psi: Array) -> Array:
    r"""Root mean square distance from the centre of a state on the torus, per direction.

    The centre is that of the circular mean, arg sum mu e^(2 pi i x/L) in each direction, and distances are those of
    the nearest image. A uniform state has about L/sqrt(12), 0.289 L. An isotropic exponential abs(psi)^2 ~ exp(-2 r/xi)
    in a large lattice has xi exactly: its mean r^2 is 3 xi^2.

    Args:
      psi: [..., L, L, L].

    Returns:
      [...], sqrt(<r^2> / 3).
    """
    mu = probabilities(psi)
    size = psi.shape[-1]
    turn = 2 * math.pi * np.arange(size) / size
    cosine, sine = jnp.asarray(np.cos(turn), mu.dtype), jnp.asarray(np.sin(turn), mu.dtype)
    squared = 0.0
    for axes in ((-2, -1), (-3, -1), (-3, -2)):
        profile = mu.sum(axes)
        centre = jnp.arctan2(einsum("...x,x->...", profile, sine), einsum("...x,x->...", profile, cosine))
        position = jnp.asarray(turn, mu.dtype).reshape(*(1,) * centre.ndim, -1) - centre[..., None]
        distance = jnp.remainder(position + math.pi, 2 * math.pi) - math.pi
        squared = squared + (profile * distance * distance).sum(-1)
    return jnp.sqrt(squared / 3) * size / (2 * math.pi)


def decay_length(psi: Array) -> Array:
    """Length xi of the decay abs(psi) ~ exp(-r/xi) around the strongest site of a state.

    A straight line in r through ln abs(psi)^2 of all sites with 1 <= r <= L/2, r the distance to the nearest image of
    the strongest site: slope -2/xi. Extended states have a slope near 0 of either sign, and their 1/xi is reported as
    it is.

    Args:
      psi: [..., L, L, L], best float64: amplitudes far away are tiny.

    Returns:
      [...], xi; negative or infinite where there is no decay.
    """
    mu = probabilities(psi)
    size = psi.shape[-1]
    flat = mu.reshape(-1, size**3)
    peak = jnp.argmax(flat, axis=1)
    log_mu = jnp.log(jnp.maximum(flat, jnp.finfo(flat.dtype).tiny)).reshape(-1, size, size, size)
    sites = jnp.stack(jnp.unravel_index(peak, (size,) * 3), axis=-1)
    centred = jax.vmap(lambda x, s: jnp.roll(x, -s, (0, 1, 2)))(log_mu, sites).reshape(-1, size**3)
    line = np.minimum(np.arange(size), size - np.arange(size)) ** 2
    distance = np.sqrt(line[:, None, None] + line[:, None] + line).reshape(-1)
    used = (distance >= 1) & (distance <= size / 2)
    offset = np.where(used, distance - distance[used].mean(), 0)
    weight = jnp.asarray(offset / (offset**2).sum(), flat.dtype)
    return (-2 / einsum("bn,n->b", centred, weight)).reshape(psi.shape[:-3])


def bar_localization_length(
    key: Key,
    width: Array | float,
    *,
    size: int,
    energy: Array | float = 0.0,
    num_slices: int = 10_000,
    qr_every: int = 8,
    num_bars: int = 8,
) -> Estimate:
    """Localization length of an infinite bar with a periodic cross section, by transfer matrices.

    psi_(n+1) = (H_n - E) psi_n - psi_(n-1), with H_n the slice's own Hamiltonian. Of the 2 M^2 Lyapunov exponents,
    which come in pairs of opposite sign, the smallest positive one is the inverse length of abs(psi). M^2 vectors are
    carried and made orthogonal every few slices; the logarithms of their stretching are averaged along the bar.
    Length/M decreases with M in the insulator, increases in the metal, and tends to 0.576 at the transition.

    Args:
      key: typed key.
      width: W.
      size: M >= 3, side of the cross section.
      energy: E.
      num_slices: slices of every bar that are measured, a multiple of ``qr_every``; a tenth more, at most 1000, is
        passed before.
      qr_every: slices between two orthogonalisations; too many lose the smallest exponent to rounding (8 is safe in
        float32 for M^2 up to a hundred and W near the transition).
      num_bars: independent bars, for the error.

    Returns:
      1/gamma from the mean exponent of the bars, and its standard error.

    Raises:
      ValueError: for sizes below 3, fewer than two bars, or slices that are no multiple.

    References:
      A. MacKinnon and B. Kramer, Z. Phys. B 53, 1 (1983). K. Slevin and T. Ohtsuki, Phys. Rev. Lett. 82, 382 (1999).
    """
    if size < 3:
        raise ValueError(f"size: expected at least 3, got {size}")
    if num_bars < 2:
        raise ValueError(f"num_bars: expected at least 2, got {num_bars}")
    if qr_every < 1 or num_slices < qr_every or num_slices % qr_every:
        raise ValueError(f"num_slices: expected a positive multiple of qr_every = {qr_every}, got {num_slices}")
    plane = size * size
    warm_up = min(1000, num_slices // 10) // qr_every
    width, energy = jnp.float32(width), jnp.float32(energy)

    def slice_step(pair, eps):
        now, before = pair
        square = now.reshape(size, size, plane)
        inside = sum(jnp.roll(square, s, axis) for axis in (0, 1) for s in (1, -1)).reshape(plane, plane)
        return ((eps - energy)[:, None] * now - inside - before, now), None

    def segment(vectors, k):
        eps = width * (jax.random.uniform(k, (qr_every, plane), jnp.float32) - 0.5)
        pair, _ = jax.lax.scan(slice_step, (vectors[:plane], vectors[plane:]), eps)
        vectors, triangle = jnp.linalg.qr(jnp.concatenate(pair))
        return vectors, jnp.log(jnp.abs(jnp.diagonal(triangle))[-1])

    def bar(k):
        start_key, run_key = jax.random.split(k)
        start, _ = jnp.linalg.qr(jax.random.normal(start_key, (2 * plane, plane), jnp.float32))
        keys = jax.random.split(run_key, warm_up + num_slices // qr_every)
        _, stretch = jax.lax.scan(segment, start, keys)
        return stretch[warm_up:].mean() / qr_every

    exponents = jax.lax.map(bar, jax.random.split(key, num_bars))
    mean = exponents.mean()
    error = exponents.std(ddof=1) / math.sqrt(num_bars)
    return Estimate(1 / mean, error / mean**2)
