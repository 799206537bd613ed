"""Rendering, the camera and the specimen: closed forms, sums that must be kept, geometry, gradients, no effect at 0."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.ndimage

from physml_jax.core.rng import example_key
from physml_jax.simulators.diffraction import detector, exposure, specimen
from physml_jax.simulators.diffraction.kinematic import Spots
from physml_jax.simulators.diffraction.reflections import Reflections
from physml_jax.simulators.diffraction.rendering import render, to_pixels, to_positions

B, K, P = 3, 24, 48
SCALE = 0.03  # 1/angstrom per pixel; the image reaches 0.7


@pytest.fixture(scope="module")
def spots():
    """Hand-made lists: random places within 0.45, the last two masked although they have an intensity."""
    u = np.asarray(jax.random.uniform(jax.random.key(1), (B, K, 4)))
    mask = np.broadcast_to(np.arange(K) < K - 2, (B, K))
    return Spots(
        hkl=jnp.asarray(
            np.stack([np.arange(K), 1 - np.arange(K) % 3, np.arange(K) // 4], -1)[None].repeat(B, 0), jnp.int32
        ),
        positions=jnp.asarray(0.9 * (u[..., :2] - 0.5), jnp.float32),
        excitation_errors=jnp.asarray(0.02 * (u[..., 2] - 0.5), jnp.float32),
        structure_factors=jnp.asarray(10 * u[..., 3] + 1, jnp.float32),
        intensities=jnp.asarray(u[..., 3] ** 2 + 0.01, jnp.float32),
        mask=jnp.asarray(mask),
        count=jnp.full(B, K - 2, jnp.int32),
    )


@pytest.fixture(scope="module")
def keys():
    return example_key(0, "detector", jnp.arange(B))


# Compiled as a whole: one small program after the other takes longer.
draw = jax.jit(functools.partial(render, pixels=P, scale=SCALE))
double = jax.jit(specimen.double_diffraction, static_argnames="num_sources")
two_beam, distortion, beam_stop, point_spread = map(
    jax.jit, (specimen.two_beam, detector.distortion, detector.beam_stop, detector.point_spread)
)
streak, grain = jax.jit(specimen.streak), jax.jit(specimen.second_grain)
display, saturate = jax.jit(detector.display), jax.jit(detector.saturate)
rings = jax.jit(specimen.rings, static_argnames="pixels")
bands = jax.jit(specimen.bands, static_argnames=("pixels", "num_bands", "asymmetry"))


def one_spot(x, y, **more):
    zero = jnp.zeros((1, 1), jnp.float32)
    fields = {
        "structure_factors": zero + 1,
        "intensities": zero + 1,
        "mask": zero == 0,
        "excitation_errors": zero,
    } | more
    place = jnp.asarray([[[x, y]]], jnp.float32)
    return Spots(hkl=jnp.ones((1, 1, 3), jnp.int32), positions=place, count=jnp.ones(1, jnp.int32), **fields)


def test_render_is_the_sum_of_gaussians(spots):
    """Against the formula in float64, spot by spot; masked places, background and direct beam included."""
    centre, lens = np.array([[20.0, 25.0], [23.5, 23.5], [30.2, 21.7]]), np.array([[1.02, 0.01], [-0.02, 0.97]])
    found = draw(
        spots,
        centre=jnp.asarray(centre, jnp.float32),
        distortion=jnp.asarray(lens, jnp.float32),
        sigma=1.3,
        direct_beam=2.0,
        background=3.0,
    )
    y, x = np.mgrid[:P, :P].astype(float)
    for b in range(B):
        expected = np.zeros((P, P))
        items = [
            (p @ lens.T / SCALE, w, 1.3)
            for p, w in zip(np.float64(spots.positions[b]), spots.intensities[b], strict=True)
        ]
        items = [*items[: K - 2], (np.zeros(2), 2.0, 1.3)]
        items += [(np.zeros(2), 3.0 * s, w * P) for s, w in ((0.3, 0.03), (0.4, 0.09), (0.3, 0.25))]
        for place, weight, sigma in items:
            r2 = (x - centre[b, 0] - place[0]) ** 2 + (y - centre[b, 1] + place[1]) ** 2
            expected += float(weight) * np.exp(-r2 / (2 * sigma**2)) / (2 * np.pi * sigma**2)
        np.testing.assert_allclose(found[b], expected, atol=2e-6 * expected.max())


def test_render_keeps_the_electrons(spots):
    """The pixels of a pattern inside the image sum to its intensities, as closely as the docstring says."""
    total = np.where(spots.mask, spots.intensities, 0).sum(1)
    for sigma in (0.6, 1.0):
        image = np.asarray(draw(spots, sigma=sigma), np.float64)
        limit = 2.1 * np.exp(-2 * np.pi**2 * sigma**2) + 2e-6
        np.testing.assert_allclose(image.sum((1, 2)), total, rtol=2 * limit)


def test_render_geometry():
    """x to the right, y up, the centre where it is said to be; places and positions are inverse."""
    image = np.asarray(render(one_spot(0.3, 0.15), pixels=P, scale=SCALE, centre=jnp.asarray([20.0, 22.0]))[0])
    assert np.unravel_index(image.argmax(), image.shape) == (22 - 5, 20 + 10)
    where = jnp.asarray([[[0.3, 0.15], [-0.1, 0.0]]])
    scale, centre = jnp.full(1, SCALE), jnp.asarray([[20.0, 22.0]])
    places = to_pixels(where, scale=scale, centre=centre)
    np.testing.assert_allclose(places, [[[30.0, 17.0], [20 - 0.1 / SCALE, 22.0]]], rtol=1e-5)
    np.testing.assert_allclose(to_positions(places, scale=scale, centre=centre), where, atol=1e-6)


def test_render_batches(spots):
    """Any batch axes, in chunks or at once."""
    whole = draw(spots)
    parts = jax.jit(functools.partial(render, pixels=P, scale=SCALE, chunk_size=2))(spots)
    np.testing.assert_allclose(parts, whole, atol=1e-6)
    one = jax.tree.map(lambda x: x[1], spots)
    np.testing.assert_allclose(draw(one), whole[1], atol=1e-6)
    assert draw(jax.tree.map(lambda x: x[:, None], spots)).shape == (B, 1, P, P)


def test_gradients(spots):
    """Scale, centre, ellipticity and axis, width and positions, against central differences."""
    target = draw(spots, sigma=1.6)
    start = {"scale": 0.031, "x": 24.1, "y": 22.9, "e": 0.02, "axis": 0.4, "sigma": 1.5, "shift": 0.003}

    def loss(p):
        lens = distortion(ellipticity=p["e"], axis=p["axis"])
        moved = spots._replace(positions=spots.positions + p["shift"])
        centre = jnp.stack([p["x"], p["y"]])
        image = render(moved, pixels=P, scale=p["scale"], centre=centre, distortion=lens, sigma=p["sigma"])
        return ((image - target) ** 2).sum()

    start = jax.tree.map(jnp.float32, start)
    slopes = jax.jit(jax.grad(loss))(start)
    value = jax.jit(loss)
    for name, step in {
        "scale": 2e-4,
        "x": 0.03,
        "y": 0.03,
        "e": 0.01,
        "axis": 0.1,
        "sigma": 0.03,
        "shift": 1e-3,
    }.items():
        ahead, back = (value(start | {name: start[name] + s}) for s in (step, -step))
        # The step is chosen for float32: third derivatives and rounding stay below a few percent.
        np.testing.assert_allclose((ahead - back) / (2 * step), slopes[name], rtol=0.04, err_msg=name)


def test_distortion():
    """The ratio of the axes is 1 + e, the long one lies along the given direction, the area stays."""
    m = np.asarray(distortion(ellipticity=0.03, axis=0.5), np.float64)
    values, vectors = np.linalg.eigh(m)
    assert values[1] / values[0] == pytest.approx(1.03, abs=1e-6)
    assert np.linalg.det(m) == pytest.approx(1, abs=1e-6)
    assert abs(vectors[:, 1] @ [np.cos(0.5), np.sin(0.5)]) == pytest.approx(1, abs=1e-6)
    turn = np.asarray(distortion(rotation=0.3))
    np.testing.assert_allclose(turn, [[np.cos(0.3), -np.sin(0.3)], [np.sin(0.3), np.cos(0.3)]], atol=1e-6)
    both = np.asarray(distortion(ellipticity=0.03, axis=0.5, rotation=0.3))
    np.testing.assert_allclose(both, turn @ m, atol=1e-6)
    np.testing.assert_array_equal(distortion(), np.eye(2))
    assert distortion(ellipticity=jnp.zeros((2, 3))).shape == (2, 3, 2, 2)


def test_point_spread(spots):
    """Against SciPy's Gaussian filters; light is kept away from the border; 0 is the identity."""
    image = jnp.pad(draw(spots, sigma=1.0)[:, 16:32, 16:32], ((0, 0), (40, 40), (40, 40)))
    found = point_spread(image, sigma=1.2, tail=jnp.asarray([0.0, 0.1, 0.3]), tail_width=0.06)
    for b, share in enumerate((0.0, 0.1, 0.3)):
        plain = np.asarray(image[b], np.float64)
        core = scipy.ndimage.gaussian_filter(plain, 1.2, mode="constant", truncate=9)
        tail = scipy.ndimage.gaussian_filter(plain, 0.06 * image.shape[-1], mode="constant", truncate=9)
        np.testing.assert_allclose(found[b], (1 - share) * core + share * tail, atol=1e-5 * plain.max())
        assert float(found[b].sum()) == pytest.approx(plain.sum(), rel=2e-3)
    np.testing.assert_array_equal(detector.point_spread(image), image)
    zero = jnp.zeros(B)
    np.testing.assert_allclose(detector.point_spread(image, sigma=zero, tail=zero), image, atol=1e-6)


def test_beam_stop():
    """Opaque within disc and needle, nothing missing far away, half a share for half a strength."""
    image = jnp.ones((2, P, P))
    tip = jnp.asarray([20.0, 24.0])
    found = np.asarray(beam_stop(image, strength=1.0, tip=tip, angle=0.0, radius=0.1, width=0.04, shadow=0.2))
    assert found[0, 24, 20] < 0.03 and found[0, 24, 45] < 0.2 and found[0, 24, 2] > 0.95
    assert 0.7 < found[0, 24, 13] < 0.95  # the shadow beside the disc
    down = np.asarray(beam_stop(image, strength=1.0, tip=tip, angle=jnp.pi / 2, shadow=0.0))
    assert down[0, 45, 20] < 0.2 < 0.95 < down[0, 3, 20]
    half = beam_stop(image, strength=jnp.asarray([0.0, 0.5]), tip=tip, angle=0.0, radius=0.1, width=0.04, shadow=0.2)
    np.testing.assert_array_equal(half[0], image[0])
    np.testing.assert_allclose(half[1], 0.5 + 0.5 * found[0], atol=1e-6)


def test_saturation_and_display(spots):
    image = draw(spots)
    cut = np.asarray(saturate(image, strength=jnp.asarray([0.0, 0.5, 0.9])))
    np.testing.assert_array_equal(cut[0], image[0])
    np.testing.assert_allclose(cut.max((1, 2)), np.asarray(image).max((1, 2)) * [1, 0.5, 0.1], rtol=1e-6)
    np.testing.assert_array_equal(cut[2][cut[2] < cut[2].max()], np.asarray(image[2])[cut[2] < cut[2].max()])
    for exponent in (1.0, 0.5, 0.3):
        shown = np.asarray(display(image - 1e-3, exponent=exponent))
        positive = np.maximum(np.asarray(image) - 1e-3, 0)
        np.testing.assert_allclose(shown, (positive / positive.max((1, 2), keepdims=True)) ** exponent, atol=1e-5)
    np.testing.assert_array_equal(display(jnp.zeros((1, 4, 4)), exponent=0.5), 0)


def test_second_grain(spots):
    both = grain(spots, spots._replace(positions=-spots.positions), strength=jnp.asarray([0.0, 0.25, 1.0]))
    assert both.mask.shape == (B, 2 * K)
    images, share = draw(both), np.array([0.0, 0.25, 1.0])[:, None, None]
    # Turned by half a turn about the middle of the image, the pattern of -g is that of g.
    first = np.asarray(draw(spots))
    np.testing.assert_allclose(images, (1 - share) * first + share * first[:, ::-1, ::-1], atol=2e-6)


def test_double_diffraction(spots):
    """Every pair of the strongest reflections by a loop; the forbidden sum appears, the direct beam does not."""
    wave_number, s_max, n = 39.87, 0.02, 5
    options = {"wave_number": wave_number, "max_excitation_error": s_max, "num_sources": n}
    found = double(spots, strength=0.7, **options)
    assert found.mask.shape == (B, K + n * (n + 1) // 2)
    for b in range(B):
        intensity = np.where(spots.mask[b], spots.intensities[b], 0).astype(np.float64)
        best = np.argsort(-intensity, kind="stable")[:n]
        pairs = [(i, j) for a, i in enumerate(best) for j in best[a:]]
        for k, (i, j) in enumerate(pairs):
            g1, g2 = np.float64(spots.positions[b, i]), np.float64(spots.positions[b, j])
            bend = [g @ g / (2 * wave_number) for g in (g1, g2, g1 + g2)]  # to first order
            depth = [-float(spots.excitation_errors[b, m]) - c for m, c in zip((i, j), bend, strict=False)]
            s = -sum(depth) - bend[2]
            expected = 0.7 * (1 if i == j else 2) * intensity[i] * intensity[j] / intensity.sum()
            expected /= 1 + (np.pi * s / s_max) ** 2
            np.testing.assert_allclose(found.positions[b, K + k], g1 + g2, atol=1e-6)
            np.testing.assert_allclose(found.excitation_errors[b, K + k], s, atol=1e-7)
            np.testing.assert_array_equal(found.hkl[b, K + k], spots.hkl[b, i] + spots.hkl[b, j])
            np.testing.assert_allclose(found.intensities[b, K + k], expected, rtol=1e-4)
    pair = jax.tree.map(lambda x: x[:1, :2], spots._replace(count=spots.mask))._replace(count=spots.count[:1])
    opposite = pair._replace(hkl=jnp.asarray([[[1, 0, 0], [-1, 0, 0]]]), mask=jnp.ones((1, 2), bool))
    summed = double(opposite, strength=1.0, **(options | {"num_sources": 2}))
    assert summed.mask[0].tolist() == [True, True, True, False, True]  # 2 g, 0, -2 g
    none = double(spots, strength=0.0, **options)
    np.testing.assert_allclose(draw(none), draw(spots), atol=1e-7)
    with pytest.raises(ValueError, match="num_sources"):
        specimen.double_diffraction(opposite, strength=1.0, **options)


def test_streak():
    """An elongated Gaussian: variance sigma^2 across and sigma^2 + length^2 along; 0 changes nothing."""
    spot = one_spot(0.03, -0.02)
    sigma, length, angle = 1.5, 1.4, 0.6
    image = np.asarray(
        render(streak(spot, strength=length * SCALE, angle=angle), pixels=P, scale=SCALE, sigma=sigma)[0]
    )
    y, x = np.mgrid[:P, :P].astype(float)
    dx, dy = x - (P - 1) / 2 - 1.0, -(y - (P - 1) / 2) + 2 / 3
    along, across = dx * np.cos(angle) + dy * np.sin(angle), dy * np.cos(angle) - dx * np.sin(angle)
    wide = np.hypot(sigma, length)
    expected = np.exp(-0.5 * (along / wide) ** 2 - 0.5 * (across / sigma) ** 2) / (2 * np.pi * sigma * wide)
    np.testing.assert_allclose(image, expected, atol=0.01 * expected.max())
    plain = render(spot, pixels=P, scale=SCALE)
    np.testing.assert_allclose(render(streak(spot, strength=0.0, angle=1.0), pixels=P, scale=SCALE), plain, atol=1e-6)


def test_two_beam(spots):
    """Without spread the textbook formula; thin foils are kinematic, (pi t / xi)^2 at s = 0; never above 1."""
    coupling, thickness = 2e-3, jnp.asarray([20.0, 300.0, 900.0])
    found = np.asarray(two_beam(spots, coupling=coupling, thickness=thickness, spread=0.0))
    xi = np.pi / (coupling * np.float64(spots.structure_factors))
    k = np.sqrt(xi**-2 + np.float64(spots.excitation_errors) ** 2)
    expected = (np.sin(np.pi * np.array([20.0, 300.0, 900.0])[:, None] * k) / (xi * k)) ** 2
    np.testing.assert_allclose(found[:, : K - 2], expected[:, : K - 2], atol=1e-4)
    assert (found[:, K - 2 :] == 0).all()
    at_bragg = spots._replace(excitation_errors=jnp.zeros((B, K)))
    thin = two_beam(at_bragg, coupling=coupling, thickness=5.0, spread=0.0)[:, : K - 2]
    np.testing.assert_allclose(thin, ((np.pi * 5.0 / xi) ** 2)[:, : K - 2], rtol=0.01)
    # The average over thicknesses by quadrature.
    t = 300 * (1 + 0.2 * np.linspace(-6, 6, 4001))
    weights = np.exp(-0.5 * np.linspace(-6, 6, 4001) ** 2)
    mean = ((np.sin(np.pi * t[:, None] * k[1]) / (xi[1] * k[1])) ** 2 * weights[:, None]).sum(0) / weights.sum()
    averaged = two_beam(spots, coupling=coupling, thickness=300.0, spread=0.2)[1]
    np.testing.assert_allclose(averaged[: K - 2], mean[: K - 2], atol=1e-4)


def test_rings():
    """A ring sums to its weight, its radius is where it should be, and it follows the distortion."""
    scale, centre = jnp.full(2, SCALE), jnp.asarray([[23.5, 23.5], [25.0, 22.0]])
    view = {"pixels": P, "scale": scale, "centre": centre, "radii": jnp.asarray([0.3, 0.45]), "width": 0.03}
    image = np.asarray(rings(**view, weights=jnp.asarray([0.7, 0.3]), strength=jnp.asarray([1.0, 2.0])), np.float64)
    np.testing.assert_allclose(image.sum((1, 2)), [1, 2], rtol=0.01)
    y, x = np.mgrid[:P, :P]
    r2 = ((x - 25.0) ** 2 + (y - 22.0) ** 2) * SCALE**2
    assert (image[1] * r2).sum() / image[1].sum() == pytest.approx(0.7 * 0.3**2 + 0.3 * 0.45**2, rel=0.01)
    lens = jnp.broadcast_to(distortion(ellipticity=0.2, axis=0.0), (2, 2, 2))
    bent = np.asarray(rings(**view, weights=jnp.asarray([1.0, 0.0]), strength=1.0, distortion=lens), np.float64)
    assert bent[0].sum() == pytest.approx(1, rel=0.01)
    ratio = (bent[0] * (x - 23.5) ** 2).sum() / (bent[0] * (y - 23.5) ** 2).sum()
    assert ratio == pytest.approx(1.2**2, rel=0.01)


def test_powder():
    """Rings of a face-centred cell: radii sqrt(3, 4, 8)/a, weights multiplicity F^2 / g."""
    hkl = np.stack(np.meshgrid(*[np.arange(-2, 3)] * 3, indexing="ij"), -1).reshape(-1, 3)
    same = (hkl % 2 == hkl[:, :1] % 2).all(1) & hkl.any(1)
    hkl = hkl[same & ((hkl**2).sum(1) <= 8)]
    plan = Reflections(hkl, np.full(len(hkl), 2.0), np.eye(3) / 5.0, 40.0, 1.0, len(hkl))
    radii, weights = specimen.powder(plan, num_rings=4)
    np.testing.assert_allclose(radii, np.sqrt([3, 4, 8, 8]) / 5, rtol=1e-6)
    expected = np.array([8 / np.sqrt(3), 6 / 2, 12 / np.sqrt(8), 0])
    np.testing.assert_allclose(weights, expected / expected.sum(), rtol=1e-5)


@pytest.mark.parametrize("tilt", [0.0, 0.004])
def test_bands_are_where_bragg_cones_meet_the_screen(tilt):
    """Directions k at the bright line fulfil k.g = g^2 / 2, at the dark line k.g = -g^2 / 2, to the pixel."""
    wave_number, scale, size = 40.0, 0.01, 128
    g = np.array([0.4 * np.cos(tilt), 0.0, 0.4 * np.sin(tilt)])
    s = -g[2] - (wave_number - np.sqrt(wave_number**2 - g[0] ** 2))
    spot = one_spot(g[0], 0.0, excitation_errors=jnp.full((1, 1), s, jnp.float32))
    view = {"pixels": size, "scale": jnp.full(1, scale), "centre": jnp.full((1, 2), 63.0)}
    image = bands(spot, wave_number=wave_number, num_bands=1, width=0.01, asymmetry=50.0, **view)
    row = np.asarray(image[0, 40])
    x = (np.arange(size) - 63.0) * scale
    dot = x * g[0] + np.sqrt(wave_number**2 - x**2) * g[2]
    assert abs(row.argmax() - np.abs(dot - g @ g / 2).argmin()) <= 1
    assert abs(row.argmin() - np.abs(dot + g @ g / 2).argmin()) <= 1
    assert np.ptp(np.asarray(image[0]), axis=0).max() < 1e-4  # lines are perpendicular to g


def exposed(keys, spots, level, **changes):
    chosen = exposure.ranges(level, **changes)
    conditions = exposure.draw(keys, chosen)
    images, scales = exposure.expose(
        keys,
        spots,
        conditions,
        chosen,
        pixels=P,
        scale=jnp.full(len(keys), SCALE),
        wave_number=39.87,
        max_excitation_error=0.02,
        coupling=2e-3,
        second=spots,
        ring_radii=jnp.asarray([0.3]),
        ring_weights=jnp.ones(1),
    )
    return images, scales, conditions


@pytest.mark.parametrize(
    "level", [pytest.param(x, marks=[pytest.mark.slow] * (x in ("detector", "distorted"))) for x in exposure.LEVELS]
)
def test_levels(keys, spots, level):
    """Images from 0 to 1 that know only their own row, and scales within 2 %."""
    program = jax.jit(functools.partial(exposed, level=level))
    images, scales, conditions = program(keys, spots)
    assert images.shape == (B, P, P) and images.dtype == jnp.float32
    assert float(images.min()) >= 0
    np.testing.assert_allclose(np.asarray(images).max((1, 2)), 1, atol=1e-6)
    np.testing.assert_allclose(scales, SCALE * (1 + conditions.scale_error), rtol=1e-6)
    assert float(jnp.abs(conditions.scale_error).max()) <= (0.02 if level in ("distorted", "dynamical") else 0.0)
    order = jnp.asarray([2, 0, 1])
    again = program(keys[order], jax.tree.map(lambda x: x[order], spots))[0]
    np.testing.assert_allclose(again, images[order], atol=2e-3)


def test_clean_is_plain_rendering(keys, spots):
    images, *_ = jax.jit(functools.partial(exposed, level="clean"))(keys, spots)
    total = np.where(spots.mask, spots.intensities, 0).sum(1, keepdims=True)
    half = spots._replace(intensities=spots.intensities / (2 * total))
    expected = display(draw(half, sigma=0.008 * P, direct_beam=0.5), exponent=0.5)
    np.testing.assert_allclose(images, expected, atol=1e-5)


@pytest.mark.slow
def test_strength_zero_is_clean(keys, spots):
    """The longest program with all effects at 0 gives the image of the shortest."""
    tiny = exposure.Range(1e-12, 1e-12)  # not 0, so that the effect is in the program
    names = ("ellipticity", "tail", "stop", "second_grain", "double", "streak", "rings", "bands", "saturation")
    images, *_ = jax.jit(functools.partial(exposed, level="clean", **dict.fromkeys(names, tiny)))(keys, spots)
    clean, *_ = jax.jit(functools.partial(exposed, level="clean"))(keys, spots)
    np.testing.assert_allclose(images, clean, atol=1e-5)


def test_ranges():
    """n = 4096: bounds, mean and share of the images with an effect."""
    chosen = exposure.ranges("distorted", stop=exposure.Range(0.5, 1.0, 0.25))
    values = jax.jit(lambda k: exposure.draw(k, chosen))(example_key(0, "draw", jnp.arange(4096)))
    assert -0.02 <= float(values.scale_error.min()) and float(values.scale_error.max()) <= 0.02
    assert abs(float(values.scale_error.mean())) < 5 * 0.02 / np.sqrt(3 * 4096)
    present = np.asarray(values.stop) > 0
    assert abs(present.mean() - 0.25) < 5 * np.sqrt(0.25 * 0.75 / 4096)
    assert np.asarray(values.stop)[present].min() >= 0.5
    assert np.isinf(exposure.draw(example_key(0, "draw", jnp.arange(2)), exposure.ranges("clean")).dose).all()
    with pytest.raises(ValueError, match="level: there is no 'hard'"):
        exposure.ranges("hard")
    with pytest.raises(ValueError, match="ranges: there is no fog"):
        exposure.ranges("clean", fog=exposure.Range(0.0, 1.0))


def test_bad_input(spots):
    with pytest.raises(ValueError, match="pixels: expected at least 1"):
        render(spots, pixels=0, scale=SCALE)
    with pytest.raises(ValueError, match=r"centre: expected shape \[2\]"):
        render(spots, pixels=P, scale=SCALE, centre=jnp.zeros((2, 2)))
    with pytest.raises(ValueError, match="num: expected"):
        specimen.streak(spots, strength=0.1, angle=0.0, num=0)
    with pytest.raises(ValueError, match="num_bands: expected"):
        view = {"pixels": P, "scale": jnp.ones(B), "centre": jnp.zeros((B, 2))}
        specimen.bands(spots, wave_number=40.0, num_bands=K + 1, **view)
