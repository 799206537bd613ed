"""What a specimen adds to the pattern of one perfect crystal: a second grain, double diffraction, streaks, oxide rings,
Kikuchi-like bands, dynamical intensities.

Grains, double diffraction and streaks take a list of spots to a longer one, to be drawn by ``rendering.render``; rings
and bands are images.
Every effect has a strength, with no effect at 0.
"""

import jax
import jax.numpy as jnp
import numpy as np

from physml_jax.simulators.diffraction.kinematic import Spots
from physml_jax.simulators.diffraction.reflections import Reflections
from physml_jax.typing import Array


def second_grain(first: Spots, second: Spots, *, strength: Array | float) -> Spots:
    """Two crystals under one beam: ``strength`` is the share of the scattered electrons from the second one.

    Args:
      first: spots [..., K].
      second: spots [..., M], of any crystal in any orientation.
      strength: [] or [...], from 0 to 1.

    Returns:
      Spots [..., K + M], those of the first grain first; ``count`` is that of the first.
    """
    (strength,) = _columns(first, strength)
    first = first._replace(intensities=first.intensities * (1.0 - strength))
    second = second._replace(intensities=second.intensities * strength)
    return joined(first, second)


def joined(first: Spots, second: Spots) -> Spots:
    """Spots of both lists, those of the first one first; the number of excited reflections is that of the first."""
    axes = first.intensities.ndim - 1
    join = [jnp.concatenate(pair, axis=axes) for pair in zip(first[:-1], second[:-1], strict=True)]
    return Spots(*join, first.count)


def double_diffraction(
    spots: Spots,
    *,
    strength: Array | float,
    wave_number: Array | float,
    max_excitation_error: Array | float,
    num_sources: int = 6,
) -> Spots:
    """Spots at the sums of two reflections: electrons that were diffracted twice, forbidden reflections among them.

    The strongest reflections scatter again what they got: the sum g_1 + g_2 has the intensity

        strength I_1 I_2 / sum(I) S(s_12),    S = 1 / (1 + (pi s / s_max)^2),

    twice that for two different reflections (either may come first). Its excitation error follows from those of its
    parts, s_12 = s_1 + s_2 + (q_1 + q_2 - q_12) / 2K with q = g_x^2 + g_y^2, to first order in q / K^2. What returns to
    the direct beam is left out, and the sources do not lose what they give: a picture, not dynamical theory.

    Args:
      spots: [..., K].
      strength: [] or [...].
      wave_number: [] or [...], K = 1 / lambda in 1/angstrom.
      max_excitation_error: [] or [...], s_max in 1/angstrom.
      num_sources: n, reflections that take part.

    Returns:
      Spots [..., K + n (n + 1) / 2], the sums last, whether or not they coincide with others.

    Raises:
      ValueError: if there are fewer spots than ``num_sources``.
    """
    if not 1 <= num_sources <= spots.intensities.shape[-1]:
        raise ValueError(f"num_sources: expected 1 to {spots.intensities.shape[-1]} spots, got {num_sources}")
    dtype = spots.intensities.dtype
    strength, wave_number, s_max = _columns(spots, strength, wave_number, max_excitation_error)
    intensities = jnp.where(spots.mask, spots.intensities, 0)
    _, places = jax.lax.top_k(intensities, num_sources)
    i, j = np.triu_indices(num_sources)
    first, second = places[..., i], places[..., j]

    def pairs(values):
        tail = (None,) * (values.ndim - intensities.ndim)
        return [jnp.take_along_axis(values, p[(..., *tail)], axis=intensities.ndim - 1) for p in (first, second)]

    def across(g):
        return (g**2).sum(-1)

    g, h = pairs(spots.positions), pairs(spots.hkl)
    position, hkl = g[0] + g[1], h[0] + h[1]
    s = sum(pairs(spots.excitation_errors)) + (across(g[0]) + across(g[1]) - across(position)) / (2.0 * wave_number)
    total = intensities.sum(-1, keepdims=True)
    one, two = pairs(intensities)
    times = jnp.asarray(np.where(i == j, 1.0, 2.0), dtype).reshape(*(1,) * (one.ndim - 1), -1)
    shape = 1.0 / (1.0 + (jnp.pi * s / s_max) ** 2)
    value = strength * times * one * two * shape / jnp.where(total > 0, total, 1.0)
    mask = (value > 0) & (hkl != 0).any(-1)
    sums = Spots(hkl, position, s, jnp.zeros_like(value), jnp.where(mask, value, 0), mask, spots.count)
    return joined(spots, sums)


def streak(spots: Spots, *, strength: Array | float, angle: Array | float, num: int = 5) -> Spots:
    """Spots drawn out in one direction, as by stacking faults and thin plates.

    Each spot becomes ``num`` spots that share its intensity, at the nodes of a Gauss-Hermite rule: their sum is the
    spot blurred by a Gaussian of standard deviation ``strength``, as long as that is not much more than a spot's width.

    Args:
      spots: [..., K].
      strength: [] or [...], standard deviation of the streak, 1/angstrom.
      angle: [] or [...], its direction, radian from x towards y.
      num: spots per spot, static.

    Returns:
      Spots [..., num K].

    Raises:
      ValueError: if ``num`` is smaller than 1.
    """
    if num < 1:
        raise ValueError(f"num: expected an integer of at least 1, got {num}")
    nodes, shares = np.polynomial.hermite_e.hermegauss(num)
    strength, angle = _columns(spots, strength, angle)
    along = jnp.stack([strength * jnp.cos(angle), strength * jnp.sin(angle)], axis=-1)
    parts = [
        spots._replace(
            positions=spots.positions + along * float(node),
            intensities=spots.intensities * float(share),
        )
        for node, share in zip(nodes, shares / shares.sum(), strict=True)
    ]
    out = parts[0]
    for part in parts[1:]:
        out = joined(out, part)
    return out


def two_beam(spots: Spots, *, coupling: Array | float, thickness: Array | float, spread: Array | float = 0.2) -> Array:
    """Dynamical intensities of reflections that each share the electrons with the direct beam alone, in a wedge.

        I = sin^2(pi t k) / (xi k)^2,    k = sqrt(1 / xi^2 + s^2),    1 / xi = coupling abs(F) / pi,

    averaged over thicknesses that are normally distributed: 2 sin^2 becomes 1 - exp(-2 (pi k dt)^2) cos(2 pi t k).
    Strong reflections saturate and go through extinctions, so the order of intensities is not that of structure
    factors. What third beams do is missing; the Bloch waves of ``bloch`` have it.

    Args:
      spots: [..., K].
      coupling: [] or [...], of the plan: gamma lambda / V in 1/angstrom^2.
      thickness: [] or [...], t in angstrom.
      spread: [] or [...], standard deviation dt of the thickness, in units of t.

    Returns:
      float [..., K], fractions of the incident beam; 0 where the mask is not set.
    """
    coupling, thickness, spread = _columns(spots, coupling, thickness, spread)
    inverse = (coupling / jnp.pi * spots.structure_factors) ** 2
    squared = inverse + spots.excitation_errors**2
    squared = jnp.where(squared > 0, squared, 1.0)
    phase = 2.0 * jnp.pi * thickness * jnp.sqrt(squared)
    mean = 0.5 - 0.5 * jnp.exp(-0.5 * (spread * phase) ** 2) * jnp.cos(phase)
    return jnp.where(spots.mask, mean * inverse / squared, 0)


def powder(plan: Reflections, *, num_rings: int, width: float = 0.015) -> tuple[np.ndarray, np.ndarray]:
    """The strongest rings of a fine powder of a crystal, on the host.

    Args:
      plan: the crystal's reflections.
      num_rings: R.
      width: reflections closer than this, 1/angstrom, make one ring.

    Returns:
      float32 [R] radii in 1/angstrom, increasing, and float32 [R] weights that sum to 1: sums of abs(F)^2 / abs(g).
      Rings that the plan lacks have weight 0.
    """
    count = int(plan.count)
    g = np.linalg.norm(np.asarray(plan.hkl, np.float64)[:count] @ np.asarray(plan.basis, np.float64), axis=1)
    order = np.argsort(g)
    g, strength = g[order], np.asarray(plan.structure_factors, np.float64)[:count][order] ** 2 / g[order]
    first = np.flatnonzero(np.diff(g, prepend=-1.0) > width)
    weights = np.add.reduceat(strength, first)
    radii = np.add.reduceat(strength * g, first) / weights
    chosen = np.sort(np.argsort(-weights)[:num_rings])
    radii, weights = radii[chosen], weights[chosen] / weights[chosen].sum()
    missing = num_rings - len(chosen)
    return np.pad(radii, (0, missing), "edge").astype(np.float32), np.pad(weights, (0, missing)).astype(np.float32)


def rings(
    *,
    pixels: int,
    scale: Array,
    centre: Array,
    radii: Array,
    weights: Array,
    strength: Array | float,
    width: Array | float = 0.015,
    distortion: Array | None = None,
) -> Array:
    """Rings of a fine-grained film (an oxide), as an image: Gaussian in the squared radius.

    Args:
      pixels: side P.
      scale: [B], 1/angstrom per pixel.
      centre: [B, 2], pixels.
      radii: [R] or [B, R], 1/angstrom.
      weights: [R] or [B, R], electrons of each ring, as shares.
      strength: [] or [B], factor of all.
      width: [] or [B], standard deviation of the radius, 1/angstrom, small against the radii.
      distortion: [B, 2, 2] or ``None``, as for ``render``.

    Returns:
      float [B, P, P]; a ring that lies within the image sums to its weight.
    """
    batch, dtype = scale.shape[0], scale.dtype
    x, y = _grid(pixels, scale, centre, distortion)
    squared = x * x + y * y
    radii, weights = (jnp.broadcast_to(jnp.asarray(v, dtype), (batch, jnp.shape(v)[-1])) for v in (radii, weights))
    width = jnp.broadcast_to(jnp.asarray(width, dtype), (batch,))
    area = scale**2
    if distortion is not None:
        area = area / (distortion[:, 0, 0] * distortion[:, 1, 1] - distortion[:, 0, 1] * distortion[:, 1, 0])
    spread = 2.0 * radii * width[:, None]  # of the squared radius, in which the area of the plane is uniform
    height = (
        weights
        * jnp.asarray(strength, dtype).reshape(-1, 1)
        * area[:, None]
        / (spread * (jnp.pi * (2 * jnp.pi) ** 0.5))
    )
    image = jnp.zeros((batch, pixels, pixels), dtype)
    for r in range(radii.shape[1]):
        u = (squared - radii[:, r, None, None] ** 2) / spread[:, r, None, None]
        image = image + height[:, r, None, None] * jnp.exp(-0.5 * u * u)
    return image


def bands(
    spots: Spots,
    *,
    pixels: int,
    scale: Array,
    centre: Array,
    wave_number: Array | float,
    num_bands: int = 4,
    width: Array | float = 0.012,
    asymmetry: float = 0.6,
    distortion: Array | None = None,
) -> Array:
    """Kikuchi-like bands as a relative change: multiply the radial background with ``1 + strength bands``.

    The lines of a reflection are perpendicular to g at the distances, along g, of s K / abs(g) from the direct beam
    (dark) and of that plus abs(g) (bright): they move with the crystal while spots stay. Between them the background is
    brighter by the reflection's share of the strongest intensity. Where the dark line passes far from the direct beam
    the pair of lines is pronounced; near a zone axis the band is.

    Args:
      spots: [B, K].
      pixels: side P.
      scale: [B], 1/angstrom per pixel.
      centre: [B, 2], pixels.
      wave_number: [] or [B], K in 1/angstrom.
      num_bands: reflections that give a band, the largest structure factors first.
      width: [] or [B], half width of a line, 1/angstrom.
      asymmetry: contrast of the lines against that of the band.
      distortion: [B, 2, 2] or ``None``, as for ``render``.

    Returns:
      float [B, P, P], between about -0.2 and 1.

    Raises:
      ValueError: if there are fewer spots than bands.
    """
    if not 1 <= num_bands <= spots.intensities.shape[-1]:
        raise ValueError(f"num_bands: expected 1 to {spots.intensities.shape[-1]} spots, got {num_bands}")
    dtype = scale.dtype
    x, y = _grid(pixels, scale, centre, distortion)
    wave_number = jnp.broadcast_to(jnp.asarray(wave_number, dtype), scale.shape)
    inverse = (1.0 / jnp.broadcast_to(jnp.asarray(width, dtype), scale.shape))[:, None, None]
    factors = jnp.where(spots.mask, spots.structure_factors, 0)
    strongest, places = jax.lax.top_k(factors, num_bands)
    g = jnp.take_along_axis(spots.positions, places[..., None], axis=1)
    s = jnp.take_along_axis(spots.excitation_errors, places, axis=1)
    length = jnp.sqrt(jnp.maximum((g**2).sum(-1), 1e-6))
    top = strongest[:, :1]
    share = strongest / jnp.where(top > 0, top, 1.0)
    dark = s * wave_number[:, None] / length
    image = jnp.zeros((len(scale), pixels, pixels), dtype)
    for n in range(num_bands):
        ux, uy, low = ((v / length)[:, n, None, None] for v in (g[..., 0], g[..., 1], dark * length))
        along = x * ux + y * uy - low
        left, right = along * inverse, (along - length[:, n, None, None]) * inverse
        # A flat-topped band without exp, and lines with the wide feet of Lorentzians.
        inside = 0.5 * (left * jax.lax.rsqrt(1.0 + left * left) - right * jax.lax.rsqrt(1.0 + right * right))
        lines = 1.0 / (1.0 + right * right) - 1.0 / (1.0 + left * left)
        image = image + share[:, n, None, None] * (inside + asymmetry * lines)
    return image * (1.0 / num_bands)


def _columns(spots, *values):
    """[] or [...] -> [..., 1], for lists [..., K]."""
    batch, dtype = spots.intensities.shape[:-1], spots.intensities.dtype
    return [jnp.broadcast_to(jnp.asarray(value, dtype), batch)[..., None] for value in values]


def _grid(pixels, scale, centre, distortion):
    """(g_x, g_y) of all pixels, [B, P, P] each (or with an axis of 1), in the crystal's undistorted plane."""
    axis = jnp.arange(pixels, dtype=scale.dtype)[None, :]
    x = ((axis - centre[:, :1]) * scale[:, None])[:, None, :]
    y = ((centre[:, 1:] - axis) * scale[:, None])[:, :, None]
    if distortion is None:
        return x, y
    a, b, c, d = (distortion[:, i, j, None, None] for i in (0, 1) for j in (0, 1))
    inverse = 1.0 / (a * d - b * c)
    return (d * x - b * y) * inverse, (a * y - c * x) * inverse
