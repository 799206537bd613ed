"""Pictures of Anderson states: which cubes are seen, where, in what colour, and that it is the same every time."""

import functools
import itertools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from physml_jax.simulators import anderson
from physml_jax.simulators.anderson import rendering

view = jax.jit(
    anderson.cube_view,
    static_argnames=("pixels", "azimuth", "elevation", "slice_axis", "supersample", "chunk_size", "shades"),
    compiler_options={"xla_backend_optimization_level": "0"},
)
FLAT = (1.0, 1.0, 1.0)
SIZE, PIXELS = 6, 48


@functools.cache
def states():
    """A random state, one with a few strong sites, one site in a faint uniform background, a uniform state."""
    rng = np.random.default_rng(0)
    random = rng.normal(size=(SIZE,) * 3)
    strong = rng.normal(size=(SIZE,) * 3) ** 5
    single = np.full((SIZE,) * 3, 0.1)
    single[1, 4, 2] = 1.0
    return np.stack([random, strong, single, np.ones((SIZE,) * 3)]).astype(np.float32)


@functools.cache
def pictures():
    return np.asarray(view(jnp.asarray(states()), pixels=PIXELS, supersample=1))


def camera(azimuth=-60.0, elevation=25.0):
    az, el = math.radians(azimuth), math.radians(elevation)
    towards = np.array([math.cos(el) * math.cos(az), math.cos(el) * math.sin(az), math.sin(el)])
    right = np.array([-math.sin(az), math.cos(az), 0])
    up = np.array([-math.sin(el) * math.cos(az), -math.sin(el) * math.sin(az), math.cos(el)])
    return towards, right, up


def painted(psi, pixels, margin=0.02):
    """The same picture by the book: cubes sorted by depth, each painted over the others, face by face.

    A face of a cube is a parallelogram; a pixel is inside if both its coordinates along the edges are within the edge.
    """
    size = psi.shape[0]
    density = psi.astype(np.float64) ** 2
    density *= size**3 / density.sum()
    towards, right, up = camera()
    extent = size * max(np.abs(right).sum(), np.abs(up).sum()) / (1 - 2 * margin)
    at = extent * ((np.arange(pixels) + 0.5) / pixels - 0.5)
    px, py = np.meshgrid(at, -at)
    image = np.zeros((pixels, pixels, 4))
    sites = sorted(itertools.product(range(size), repeat=3), key=lambda s: float(np.dot(s, towards)))
    for s in sites:
        if not density[s] > 1:
            continue
        edge = density[s] ** (1 / 3)
        centre = np.array(s) - (size - 1) / 2
        turn = s[1] / size * 6
        colour = np.clip([abs(turn - 3) - 1, 2 - abs(turn - 2), 2 - abs(turn - 4)], 0, 1)
        for axis, shade in enumerate((0.7, 0.85, 1.0)):
            i, j = (a for a in range(3) if a != axis)
            middle = centre.copy()
            middle[axis] += np.sign(towards[axis]) * edge / 2
            edges = np.array([[right[i], right[j]], [up[i], up[j]]])
            a, b = np.einsum("ij,jyx->iyx", np.linalg.inv(edges), np.stack([px - middle @ right, py - middle @ up]))
            image[(np.abs(a) <= edge / 2) & (np.abs(b) <= edge / 2)] = [*(colour * shade), 1]
    return image


@pytest.mark.parametrize("number", [0, 1, 2], ids=["random", "strong", "single"])
def test_pictures_are_those_of_a_painter(number):
    """All pixels but those on an edge to rounding: hidden surfaces, colours, faces, large cubes and small ones."""
    got, want = pictures()[number], painted(states()[number], PIXELS)
    assert want[..., 3].mean() > 0.05
    assert (np.abs(got - want).max(-1) > 1e-5).mean() < 1e-3


def test_strong_states_have_large_cubes():
    """The test above sees both ways of drawing: cubes within the reach of a ray, and larger ones."""
    limit = rendering._small_limit(camera()[0])
    edges = np.cbrt(np.asarray(rendering.scaled_density(jnp.asarray(states()))))
    drawn = np.where(edges > 1, edges, np.nan)
    assert 2.5 < limit < 2.6
    assert np.nanmax(drawn[1]) > limit > np.nanmax(drawn[0]) and np.nanmin(drawn[1]) < limit


def test_the_wrong_order_is_seen():
    """A viewer from below sees other cubes in front."""
    below = np.asarray(view(jnp.asarray(states()), pixels=PIXELS, supersample=1, elevation=-25.0))
    assert (np.abs(below[0] - painted(states()[0], PIXELS)).max(-1) > 1e-5).mean() > 0.2


def test_one_cube_hides_another():
    """Two sites in line with the viewer: the nearer one is seen; apart, both."""
    psi = np.zeros((2, 5, 5, 5), np.float32)
    psi[0, 2, 1, 3] = psi[0, 2, 3, 1] = 1  # direction (0, -1, 1), about that of the viewer
    psi[1, 2, 1, 1] = psi[1, 2, 3, 3] = 1
    got = np.asarray(view(jnp.asarray(psi), pixels=48, supersample=1, shades=FLAT))
    hues = [set(map(tuple, np.round(p[p[..., 3] > 0][:, :3], 4))) for p in got]
    near, far = (tuple(np.round(rendering._hues(5)[k], 4)) for k in (1, 3))
    assert hues[0] == {tuple(np.float32(near)), tuple(np.float32(far))} == hues[1]
    counts = [[(np.abs(p[..., :3] - c).max(-1) < 1e-3).sum() for c in (near, far)] for p in got]
    # Edge (125/2)^(1/3) = 3.97: the nearer one covers part of the other, and nothing covers the nearer one.
    assert counts[0][0] == max(counts[0]) and counts[0][1] < 0.9 * counts[0][0]


def test_uniform_states_show_nothing():
    """abs(psi)^2 L^3 = 1 is not above 1; the background is transparent and reads as black."""
    psi = jnp.ones((1, 4, 4, 4))
    np.testing.assert_array_equal(rendering.scaled_density(psi), 1)
    assert not np.asarray(view(psi, pixels=16, supersample=1)).any()


def test_size_and_place_of_a_single_cube():
    """A site of probability 0.4 in L = 4 has edge 25.6^(1/3); area = edge^2 times the sum of abs(direction)."""
    psi = np.full((1, 4, 4, 4), np.sqrt(0.6 / 63), np.float32)
    psi[0, 1, 2, 1] = np.sqrt(0.4)
    got = np.asarray(view(jnp.asarray(psi), pixels=100, supersample=2))[0]
    towards, right, up = camera()
    extent = 4 * np.abs(up).sum() / 0.96
    edge = 25.6 ** (1 / 3)
    np.testing.assert_allclose(got[..., 3].sum(), edge**2 * np.abs(towards).sum() * (100 / extent) ** 2, rtol=5e-3)
    y, x = np.indices((100, 100)) + 0.5
    middle = np.array([(got[..., 3] * v).sum() / got[..., 3].sum() for v in (x, y)])
    centre = np.array([1, 2, 1]) - 1.5
    np.testing.assert_allclose(middle, 50 + 100 / extent * np.array([centre @ right, -centre @ up]), atol=0.1)
    assert ((got[..., 3] > 0) & (got[..., 3] < 1)).any()
    opaque = got[got[..., 3] == 1][:, :3]
    want = rendering._hues(4)[2] * np.array([[0.7], [0.85], [1.0]])
    assert {tuple(np.round(c, 3)) for c in opaque} >= {tuple(np.round(np.float32(w), 3)) for w in want}


def test_pictures_do_not_depend_on_batch_or_sign():
    got, psi = pictures(), jnp.asarray(states())
    again = np.asarray(view(psi, pixels=PIXELS, supersample=1))
    np.testing.assert_array_equal(again, got)
    chunked = np.asarray(view(-psi.reshape(2, 2, *psi.shape[1:]), pixels=PIXELS, supersample=1, chunk_size=1))
    np.testing.assert_array_equal(chunked.reshape(got.shape), got)
    assert got.dtype == np.float32 and got.min() >= 0 and got.max() <= 1


@pytest.mark.parametrize("azimuth", [0.0, 90.0])
def test_views_along_an_axis(azimuth):
    """From the front a cube is a square of its edge, wherever the other axes point."""
    psi = np.full((1, 4, 4, 4), np.sqrt(0.6 / 63), np.float32)
    psi[0, 1, 2, 3] = np.sqrt(0.4)
    got = np.asarray(view(jnp.asarray(psi), pixels=48, supersample=1, azimuth=azimuth, elevation=0.0))[0, ..., 3]
    rows, columns = (np.flatnonzero(got.any(a)) for a in (1, 0))
    scale = 48 / (4 / 0.96)
    half = 25.6 ** (1 / 3) / 2
    # Row 0 is at the top; the cube at z = 3 is cut there.
    assert rows[0] == 0 and abs(rows[-1] + 1 - (24 + (half - 1.5) * scale)) <= 1
    # y = 2 is right of the middle; x = 1 is on the right of a viewer on the y axis, who sees x grow to the left.
    assert abs(columns.mean() + 0.5 - (24 + 0.5 * scale)) <= 1
    assert got[np.ix_(rows, columns)].all()


def test_hues_are_a_turn():
    hues = rendering._hues(6)
    np.testing.assert_allclose(hues, [[1, 0, 0], [1, 1, 0], [0, 1, 0], [0, 1, 1], [0, 0, 1], [1, 0, 1]])


def test_planes_and_projection():
    psi = jnp.asarray(states())
    density = np.asarray(rendering.scaled_density(psi))
    np.testing.assert_allclose(density.mean((1, 2, 3)), 1, rtol=1e-5)
    np.testing.assert_array_equal(rendering.planes(psi, axis=1)[..., 2], density[:, :, 2])
    np.testing.assert_array_equal(anderson.maximum_projection(psi, axis=2)[..., 0], density.max(3))


def test_options_are_checked():
    psi = jnp.ones((4, 4, 4))
    for options, message in [
        ({"pixels": 0}, "pixels"),
        ({"margin": 0.5}, "margin"),
        ({"scale": 0.0}, "scale"),
        ({"slice_axis": 3}, "axis: expected 0, 1 or 2"),
    ]:
        with pytest.raises(ValueError, match=message):
            anderson.cube_view(psi, **options)
    with pytest.raises(ValueError, match="psi"):
        anderson.cube_view(psi[0])
