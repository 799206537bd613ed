"""Phase and zone axis of diffraction patterns by matching templates: what a network has to beat.

Two stages. First every template is laid on the image in log-polar coordinates at all rotations and a window of scales:
the correlation over the angle is a product of Fourier series, one matrix product per frequency, and a scale is a shift
of rows. The angular mean of every circle is left out, so smooth rings and a radial background have no say. Then the
best templates of each phase are compared spot by spot at a grid of tilts: a tilt decides which spots are excited, and
faint superlattice spots count only against the right one. Scores are cosines of the angle between image and
pattern, intensities to a small power on both sides; those of the second stage are taken from a picture smoothed with
the shape of a spot.

Where two phases show the same spots the scores are equal up to noise: no matcher can tell them apart.
"""

import math
from collections.abc import Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from physml_jax.analysis import polar_transform
from physml_jax.analysis.classification import wilson_interval
from physml_jax.analysis.polar_transform import find_centre
from physml_jax.analysis.templates import Library, zone_templates
from physml_jax.core.batching import chunked
from physml_jax.core.precision import einsum
from physml_jax.typing import Array, Batch

__all__ = [
    "Accuracy",
    "Library",
    "Match",
    "Phases",
    "accuracy",
    "accuracy_against_scale",
    "find_centre",
    "match",
    "phases",
    "zone_templates",
]

#: Score of a template that the second stage did not look at.
NOT_COMPARED = -1.0
#: Offsets of the second stage: angles in degrees and relative scales.
ANGLES, STRETCHES = (-1.25, 0.0, 1.25), (-0.004, 0.0, 0.004)


class Match(NamedTuple):
    """How well every template fits every image.

    Attributes:
      scores: float32 [B, T], up to 1; ``NOT_COMPARED`` for templates that were not among the best of their phase in
        the first stage; NaN for images that are constant or not finite.
      angle: float32 [B, T], counterclockwise turn of the template, radian.
      scale_factor: float32 [B, T], true scale over believed scale.
      tilt: int32 [B, T], number in ``Library.tilts``; -1 where not compared.
    """

    scores: Array
    angle: Array
    scale_factor: Array
    tilt: Array


class Phases(NamedTuple):
    """What ``phases`` says of every image.

    Attributes:
      scores: float32 [B, P], of the best template of each phase.
      template: int32 [B, P], its number: ``Library.uvw`` has its zone.
      probabilities: float32 [B, P], softmax of the scores.
    """

    scores: Array
    template: Array
    probabilities: Array


def match(
    images: Array,
    lib: Library,
    *,
    scale: Array | float,
    centre: Array | None = None,
    scale_window: float = 0.0,
    top: int = 3,
    power: float = 0.5,
    threshold: float = 0.5,
    spot_sigma: float = 1.5,
) -> Match:
    """Scores of all templates; traced, close over the library and call it under ``jax.jit`` in chunks of images.

    Args:
      images: grey values [B, P, P] or [B, P, P, 1].
      lib: of ``zone_templates``.
      scale: [] or [B], 1/angstrom per pixel as it is believed to be.
      centre: [2] or [B, 2], (x, y) of the direct beam in pixels, for example of ``find_centre``; ``None``: the middle.
      scale_window: largest relative error of the scale that is looked for; static.
      top: templates of each phase that go into the second stage; 0: only the first.
      power: of the grey values; the library's exponent over that of the display (0.25 / 0.5).
      threshold: grey values below this many standard deviations of the background above it are black.
      spot_sigma: standard deviation of the spots in the second stage, pixels.

    Returns:
      ``Match``.

    Raises:
      ValueError: for shapes that do not fit or settings that make no sense.
    """
    if not 0 <= scale_window < 1:
        raise ValueError(f"scale_window: expected a number from 0 to below 1, got {scale_window}")
    if top < 0 or not power > 0 or not threshold >= 0 or not spot_sigma > 0:
        values = f"{top}, {power}, {threshold} and {spot_sigma}"
        raise ValueError(f"top, power, threshold, spot_sigma: expected none negative, the last positive, got {values}")
    images = polar_transform.pictures(images)
    centre, scale = polar_transform.centres(images, centre), polar_transform.scales(images, scale)
    usable = jnp.isfinite(images).all((1, 2)) & (images.max((1, 2)) > images.min((1, 2)))
    usable &= jnp.isfinite(centre).all(1) & jnp.isfinite(scale) & (scale > 0)
    images = jnp.where(usable[:, None, None], images, 0.0)
    centre, scale = jnp.where(usable[:, None], centre, 0.0), jnp.where(usable, scale, 1.0)
    found = _rotations_and_scales(images, lib, scale, centre, scale_window, power, threshold)
    if top:
        smooth, energy = _smoothed(images, lib, scale, centre, power, threshold, spot_sigma)
        found = _tilts(smooth, energy, lib, found, scale, centre, top)
    return found._replace(scores=jnp.where(usable[:, None], found.scores, jnp.nan))


def phases(found: Match, lib: Library, *, temperature: float = 0.02) -> Phases:
    """The best template of each phase and probabilities; NaN stays NaN.

    Args:
      found: of ``match``.
      lib: the library of the match.
      temperature: difference of scores that is a factor e in probability. It is no more than a guess until it has been
        fitted to labelled patterns.

    Raises:
      ValueError: if the temperature is not positive.
    """
    if not temperature > 0:
        raise ValueError(f"temperature: expected a positive number, got {temperature}")
    groups = _groups(lib)
    best = [jnp.asarray(g)[jnp.argmax(found.scores[:, g], axis=1)] for g in groups]
    template = jnp.stack(best, axis=1).astype(jnp.int32)
    scores = jnp.take_along_axis(found.scores, template, axis=1)
    return Phases(scores, template, jax.nn.softmax(scores / temperature, axis=1))


class Accuracy(NamedTuple):
    """Balanced accuracy of the phase, share of right zones where the phase is right, each with a 95 % interval."""

    balanced: float
    balanced_interval: tuple[float, float]
    zone: float
    zone_interval: tuple[float, float]


def accuracy(scores: np.ndarray, lib: Library, phase: np.ndarray, zone: np.ndarray) -> Accuracy:
    """How often the best template is right, on the host.

    A zone is right if it is the true family: indices as ``zone_axes`` lists them, up to their sign. NaN is wrong.

    Args:
      scores: [N, T].
      lib: the library.
      phase: int [N], true ones.
      zone: int [N, 3], true ones.
    """
    scores, phase, zone = (np.asarray(x) for x in (scores, phase, zone))
    best = np.where(np.isnan(scores), -np.inf, scores).argmax(1)
    right = (np.asarray(lib.phase)[best] == phase) & np.isfinite(scores).all(1)
    uvw = np.asarray(lib.uvw)[best]
    same = (uvw == zone).all(1) | (uvw == -zone).all(1)
    classes = np.unique(phase)
    shares = np.array([right[phase == c].mean() for c in classes])
    counts = np.array([(phase == c).sum() for c in classes])
    smoothed = (shares * counts + 1) / (counts + 2)  # a class without an error is not certain either
    half = 1.96 * math.sqrt((smoothed * (1 - smoothed) / counts).sum()) / len(classes)
    balanced = float(shares.mean())
    total = int(right.sum())
    interval = wilson_interval(int(same[right].sum()), total) if total else (0.0, 1.0)
    zone_share = float(same[right].mean()) if total else math.nan
    return Accuracy(balanced, (max(0.0, balanced - half), min(1.0, balanced + half)), zone_share, interval)


def accuracy_against_scale(
    lib: Library, batches: Sequence[Batch], windows: Sequence[float], *, centred: bool = True, chunk_size: int = 18
) -> list[Accuracy]:
    """Accuracy on batches that differ in the error of their scale, each with its own window; on the host.

    Args:
      lib: of ``zone_templates``.
      batches: ``image``, ``scale`` (believed), ``phase`` and ``zone``.
      windows: ``scale_window`` for each.
      centred: the direct beam is in the middle; else ``find_centre`` looks for it.
      chunk_size: images at a time.

    Raises:
      ValueError: for another number of windows than of batches.
    """
    if len(batches) != len(windows):
        raise ValueError(f"windows: expected {len(batches)}, one per batch, got {len(windows)}")
    found = []
    for batch, window in zip(batches, windows, strict=True):

        def scores(images, scale, window=window):
            centre = None if centred else find_centre(images)
            return match(images, lib, scale=scale, centre=centre, scale_window=window).scores

        values = jax.jit(chunked(scores, chunk_size=chunk_size))(batch["image"], batch["scale"])
        found.append(accuracy(values, lib, batch["phase"], batch["zone"]))
    return found


def _groups(lib):
    phase = np.asarray(lib.phase)
    return [np.flatnonzero(phase == p) for p in range(phase.max() + 1)]


def _net(values, level, spread, power, threshold):
    """What stands out of the background, to a power."""
    net = values - level - threshold * spread
    return jnp.where(net > 0, jnp.where(net > 0, net, 1.0) ** power, 0.0)


def _rotations_and_scales(images, lib, scale, centre, scale_window, power, threshold):
    """First stage."""
    radii = np.asarray(lib.radii)
    step = math.log(radii[-1] / radii[0]) / (len(radii) - 1)
    rows = math.ceil(math.log1p(scale_window) / step - 1e-6)
    shifts, size, num_frequencies = 2 * rows + 1, len(radii), lib.spectra.shape[0]
    num = lib.norms.shape[1]
    angles, batch = 2 * (num_frequencies + 1), len(images)
    wide = (radii[0] * np.exp(step * np.arange(-rows, size + rows))).astype(np.float32)
    # Twice the angles: the highest frequencies alias otherwise.
    values, inside = polar_transform.log_polar(images, wide, scale=scale, centre=centre, num_angles=2 * angles)
    net = _net(values, *polar_transform.radial_background(values, inside), power, threshold)
    net = jnp.where(inside, net, 0.0) * wide[None, :, None]
    series = jnp.fft.rfft(net, axis=-1)[..., 1 : num_frequencies + 1] / (2 * angles)
    energy, share = (series.real**2 + series.imag**2).sum(-1), inside.mean(-1)
    window = np.arange(shifts)[:, None] + np.arange(size)[None]
    shifted = jnp.moveaxis(series, 2, 0)[:, :, window]  # [F, B, S, R]
    parts = jnp.concatenate([shifted.real, shifted.imag], -1).reshape(num_frequencies, batch * shifts, 2 * size)
    product = einsum("fnr,frt->fnt", parts, jnp.asarray(lib.spectra))
    product = jax.lax.complex(product[..., :num], product[..., num:])
    product = jnp.pad(product, ((1, 0), (0, 0), (0, 0)))
    turned = jnp.fft.irfft(product, n=angles, axis=0) * (angles / 2)
    top, turn = (x.reshape(batch, shifts, num) for x in (turned.max(0), turned.argmax(0)))
    # Only what the image shows of a template counts for its length.
    power_seen = einsum("bsr,rt->bst", share[:, window], jnp.asarray(lib.norms))
    power_there = energy[:, window].sum(-1)[..., None]
    scores = top / jnp.sqrt(jnp.maximum(power_seen, 1e-3) * jnp.maximum(power_there, 1e-20))
    best = scores.argmax(1)

    def pick(x):
        return jnp.take_along_axis(x, best[:, None], axis=1)[:, 0]

    angle = pick(turn).astype(jnp.float32) * (2 * np.pi / angles)
    factor = jnp.exp(-step * (best - rows).astype(jnp.float32))
    return Match(pick(scores), angle, factor, jnp.full(best.shape, -1, jnp.int32))


def _smoothed(images, lib, scale, centre, power, threshold, sigma, num_radii=48):
    """The image without background, correlated with a spot of unit square sum, and its energy [B]."""
    radii, pixels = np.asarray(lib.radii), images.shape[-1]
    circles = np.linspace(0.7 * radii[0], 1.45 * radii[-1], num_radii).astype(np.float32)  # to the corners
    values, inside = polar_transform.log_polar(images, circles, scale=scale, centre=centre, num_angles=120)
    axis = jnp.arange(pixels, dtype=jnp.float32)
    x, y = (axis[None] - centre[:, i, None] for i in range(2))
    g = jnp.sqrt(x[:, None, :] ** 2 + y[:, :, None] ** 2) * scale[:, None, None]
    place = jnp.clip((g - circles[0]) / (circles[1] - circles[0]), 0, num_radii - 1.001)
    first = place.astype(jnp.int32)

    def at_pixels(v):
        def pick(i):
            return jnp.take_along_axis(v[..., 0], i.reshape(len(i), -1), axis=1).reshape(i.shape)

        return pick(first) + (pick(first + 1) - pick(first)) * (place - first)

    background = (at_pixels(v) for v in polar_transform.radial_background(values, inside))
    net = _net(images, *background, power, threshold)
    net = jnp.where((g >= radii[0]) & (g <= circles[-1]), net, 0.0)
    kernel = np.exp(-0.5 * ((np.arange(pixels)[:, None] - np.arange(pixels)[None]) / sigma) ** 2)
    kernel = (kernel / math.sqrt(math.sqrt(math.pi) * sigma)).astype(np.float32)
    smooth = einsum("bik,lk->bil", einsum("ij,bjk->bik", kernel, net), kernel)
    return smooth, (net**2).sum((1, 2))


def _tilts(smooth, energy, lib, found, scale, centre, top):
    """Second stage: the best ``top`` templates of each phase at all tilts, and small turns and stretches."""
    batch, pixels = smooth.shape[:2]
    chosen = [jnp.asarray(g)[jax.lax.top_k(found.scores[:, g], min(top, len(g)))[1]] for g in _groups(lib)]
    chosen = jnp.concatenate(chosen, axis=1)  # [B, H]
    turns, stretches = (x.reshape(1, 1, -1) for x in np.meshgrid(np.deg2rad(ANGLES), STRETCHES, indexing="ij"))
    angle = jnp.take_along_axis(found.angle, chosen, axis=1)[..., None] + turns.astype(np.float32)  # [B, H, V]
    factor = jnp.take_along_axis(found.scale_factor, chosen, axis=1)[..., None] * np.exp(stretches).astype(np.float32)
    weights = jnp.asarray(lib.weights)[chosen]  # [B, H, N, K]
    g_x, g_y = (jnp.asarray(lib.positions)[chosen][..., None, :, i] for i in range(2))
    c, s = jnp.cos(angle)[..., None], jnp.sin(angle)[..., None]
    per_pixel = (factor * scale[:, None, None])[..., None]
    x = centre[:, 0, None, None, None] + (c * g_x - s * g_y) / per_pixel
    y = centre[:, 1, None, None, None] - (s * g_x + c * g_y) / per_pixel
    inside = (x >= 0) & (x <= pixels - 1) & (y >= 0) & (y <= pixels - 1)
    values = jnp.where(inside, polar_transform.bilinear(smooth, x, y), 0.0)
    seen = inside.astype(jnp.float32)
    overlap = einsum("bhvk,bhnk->bhvn", values, weights)
    length = einsum("bhvk,bhnk->bhvn", seen, weights**2)
    length = jnp.maximum(length, 1e-3 * length.max((2, 3), keepdims=True) + 1e-20)
    cosine = overlap / jnp.sqrt(length * jnp.maximum(energy, 1e-20)[:, None, None, None])
    cosine = cosine.reshape(*chosen.shape, -1)
    best, tilts = cosine.argmax(-1), weights.shape[2]
    rows = jnp.arange(batch)[:, None]

    def variant(v):
        return jnp.take_along_axis(v, (best // tilts)[..., None], axis=2)[..., 0]

    return Match(
        scores=jnp.full_like(found.scores, NOT_COMPARED).at[rows, chosen].set(cosine.max(-1)),
        angle=found.angle.at[rows, chosen].set(variant(angle)),
        scale_factor=found.scale_factor.at[rows, chosen].set(variant(jnp.broadcast_to(factor, angle.shape))),
        tilt=found.tilt.at[rows, chosen].set((best % tilts).astype(jnp.int32)),
    )
