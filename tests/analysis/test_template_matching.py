import functools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from physml_jax.analysis import polar_transform, template_matching
from physml_jax.analysis.template_matching import NOT_COMPARED, Match
from physml_jax.simulators.diffraction import kinematic, orientations, reflections
from physml_jax.simulators.diffraction.crystal import Crystal
from physml_jax.simulators.diffraction.rendering import render

PIXELS, SCALE = 96, 0.024
SETTINGS = {"max_g": 1.1, "max_zone_index": 1, "tilt_rings": 1, "num_radii": 128, "num_spots": 96}
STEP = math.log(1.1 / 0.08) / 127


def crystal(cell, positions):
    n = len(positions)
    return Crystal(
        cell=np.array(cell, np.float32),
        numbers=np.full(n, 40, np.int32),
        positions=np.array(positions, np.float32),
        occupancies=np.ones(n, np.float32),
        b_iso=np.full(n, 0.5, np.float32),
        u_aniso=np.zeros((n, 6), np.float32),
        rotations=np.eye(3, dtype=np.int32)[None],
        translations=np.zeros((1, 3), np.float32),
    )


@functools.cache
def phases():
    """Two lattices without symmetry operations but for the centre: every zone axis is a family of its own."""
    face_centred = [(0, 0, 0), (0, 0.5, 0.5), (0.5, 0, 0.5), (0.5, 0.5, 0)]
    return crystal([4.6] * 3 + [90] * 3, face_centred), crystal([3.2, 4.1, 5.2, 90, 90, 90], [(0, 0, 0)])


@functools.cache
def templates():
    return template_matching.zone_templates(phases(), **SETTINGS)


@functools.cache
def plan():
    return reflections.stack([reflections.reflections(c, max_g=1.1, voltage_kv=200.0) for c in phases()])


@functools.partial(jax.jit, static_argnames="num")
def draw(template, angle, factor, centre, num=96):
    lib = templates()
    turned = orientations.about_beam(angle) @ jnp.asarray(lib.frames)[template]
    phase = jnp.asarray(lib.phase)[template]
    spots = kinematic.spots(plan(), turned, max_excitation_error=0.02, num_spots=num, phase=phase)
    spots = spots._replace(intensities=spots.intensities / spots.intensities.max(1, keepdims=True))
    images = render(spots, pixels=PIXELS, scale=SCALE * factor, centre=centre, sigma=1.0, direct_beam=2.0)
    return jnp.sqrt(images / images.max((1, 2), keepdims=True))


@functools.partial(jax.jit, static_argnames=("window", "top"))
def ask(images, centre, window=0.0, top=2):
    return template_matching.match(images, templates(), scale=SCALE, centre=centre, scale_window=window, top=top)


def pictures(angle=0.0, factor=1.0, offset=(0.0, 0.0)):
    plan()  # on the host, not while tracing
    num = len(templates().phase)
    centre = np.broadcast_to((PIXELS - 1) / 2 + np.array(offset, np.float32), (num, 2))
    ones = np.ones(num, np.float32)
    return np.asarray(draw(np.arange(num), angle * ones, factor * ones, centre)), centre


def own(found):
    """Answers of each template for its own picture."""
    return jax.tree.map(lambda x: np.diagonal(np.asarray(x)), found)


def same_picture():
    """Pairs of templates that show one picture by the symmetry of the lattice, which was not declared."""
    lib = templates()
    kind = [(p, *(sorted(abs(u)) if p == 0 else abs(u))) for p, u in zip(lib.phase, lib.uvw, strict=True)]
    return np.array([[a == b for b in kind] for a in kind])


@pytest.mark.parametrize("angle", [0.0, 1.3])
def test_recovers_its_own_templates(angle):
    images, centre = pictures(angle)
    for top in (0, 4):
        found = ask(images, centre, top=top)
        scores = np.asarray(found.scores)
        best = scores.argmax(1)
        right = same_picture()[np.arange(len(best)), best]
        assert right.all(), templates().uvw[~right]
        mine = own(found)
        compared = mine.scores != NOT_COMPARED
        # A turn by half a turn, or by the symmetry of the pattern, is the same picture: ask for one that is.
        # Not 1: the template is the mean over tilts, the picture has none.
        assert compared.mean() > 0.5 and mine.scores[compared].min() > 0.7
        np.testing.assert_allclose(mine.scale_factor, 1.0, atol=0.0041)


def test_angle_is_the_turn_of_the_pattern():
    images, centre = pictures(0.7)
    found = own(ask(images, centre, top=0))
    lib = templates()
    oblique = (lib.phase == 1) & (np.abs(lib.uvw).sum(1) >= 2)
    off = (found.angle[oblique] - 0.7 + math.pi / 2) % math.pi - math.pi / 2  # Friedel: up to half a turn
    # Rectangular centred patterns have mirror lines, but no other rotation than by half a turn.
    assert np.abs(off).max() < 2 * np.pi / 120


def test_scores_do_not_depend_on_the_turn():
    before, after = (np.asarray(ask(*pictures(a), top=0).scores) for a in (0.0, 2 * math.pi / 120 * 17))
    np.testing.assert_allclose(before, after, atol=0.04)


def test_scale_needs_a_window():
    images, centre = pictures(0.0, factor=1.05)
    inside = own(ask(images, centre, window=0.05, top=0))
    without = own(ask(images, centre, top=0))
    np.testing.assert_allclose(inside.scale_factor, 1.05, rtol=STEP)
    assert np.all(without.scale_factor == 1.0)
    assert inside.scores.min() > 0.7 and (inside.scores - without.scores).min() > 0.05


def test_second_stage_refines_the_scale():
    images, centre = pictures(0.0, factor=1.05)
    found = own(ask(images, centre, window=0.05, top=4))
    compared = found.scores != NOT_COMPARED
    assert np.median(np.abs(found.scale_factor[compared] / 1.05 - 1)) < 0.006


def test_centre_matters_and_is_found():
    images, centre = pictures(0.4, offset=(6.3, -4.6))
    found = np.asarray(jax.jit(template_matching.find_centre)(images))
    assert np.abs(found - centre).max() < 0.3
    middle = np.full_like(centre, (PIXELS - 1) / 2)
    right, wrong = (own(ask(images, jnp.asarray(c), top=0)).scores for c in (found, middle))
    assert right.min() > 0.7 and np.median(right - wrong) > 0.2


def test_empty_and_nan_images_have_no_score():
    images, centre = pictures()
    images = images.copy()
    images[0], images[1, 3, 4], images[2] = 0.5, np.nan, 0.0
    found = ask(images, centre)
    assert np.isnan(found.scores[:3]).all() and np.isfinite(found.scores[3:]).all()
    assert np.isnan(np.asarray(jax.jit(template_matching.find_centre)(images))[:3]).all()
    answer = template_matching.phases(found, templates())
    assert np.isnan(answer.probabilities[:3]).all()
    np.testing.assert_allclose(answer.probabilities[3:].sum(1), 1.0, rtol=1e-5)
    score = template_matching.accuracy(found.scores[:3], templates(), np.zeros(3, int), templates().uvw[:3])
    assert score.balanced == 0 and math.isnan(score.zone)


def test_phases_takes_the_best_template_of_each():
    lib = templates()
    scores = np.linspace(0.0, 0.5, len(lib.phase), dtype=np.float32)[None]
    scores[0, 2] = 0.9
    answer = template_matching.phases(Match(jnp.asarray(scores), scores, scores, scores), lib, temperature=0.1)
    assert answer.template.tolist() == [[2, len(lib.phase) - 1]]
    expected = 1 / (1 + math.exp((scores[0, -1] - 0.9) / 0.1))
    np.testing.assert_allclose(answer.probabilities[0, 0], expected, rtol=1e-4)


def test_accuracy_counts_zones_up_to_sign():
    lib = templates()
    zero, one = np.flatnonzero(lib.phase == 0), np.flatnonzero(lib.phase == 1)
    answers = np.array([zero[0], zero[1], one[0], zero[0]])
    scores = np.eye(len(lib.phase))[answers]
    zone = np.stack([-lib.uvw[zero[0]], lib.uvw[zero[0]], lib.uvw[one[0]], lib.uvw[one[0]]])
    found = template_matching.accuracy(scores, lib, np.array([0, 0, 1, 1]), zone)
    assert found.balanced == 0.75 and found.zone == pytest.approx(2 / 3)
    assert found.balanced_interval[0] < 0.75 < found.balanced_interval[1]


def test_log_polar_turns_and_stretches_into_shifts():
    def image(turn, stretch):  # a smooth function of the plane
        axis = (np.arange(64) - 31.5) / stretch
        x, y = axis[None, :], -axis[:, None]
        x, y = math.cos(turn) * x + math.sin(turn) * y, math.cos(turn) * y - math.sin(turn) * x
        return np.exp(-((x - 9) ** 2 + (y - 4) ** 2) / 40)

    radii = polar_transform.log_radii(60, 4.0, 24.0)
    step = radii[1] / radii[0]
    images = jnp.asarray(np.stack([image(0, 1), image(2 * np.pi * 5 / 48, step**3)]))
    values, inside = polar_transform.log_polar(images, radii, scale=1.0, num_angles=48)
    assert bool(inside.all())
    np.testing.assert_allclose(values[1, 3:], np.roll(values[0, :-3], 5, axis=1), atol=0.02)
    assert np.abs(values[1, 3:] - np.roll(values[0, :-3], -5, axis=1)).max() > 0.3  # the wrong sense


def test_background_ignores_spots():
    values = np.full((1, 3, 50), 0.3, np.float32)
    values[0, 1, 7:10] = 1.0
    level, _ = polar_transform.radial_background(jnp.asarray(values), jnp.ones((1, 3, 50), bool))
    np.testing.assert_allclose(level[0, :, 0], 0.3, atol=0.01)
    assert values[0, 1].mean() > 0.34


def test_wrong_arguments_raise():
    images, _ = pictures()
    lib = templates()
    for name, settings in {
        "scale_window": {"scale_window": -0.1},
        "top": {"top": -1},
        "centre": {"centre": np.zeros(3)},
        "scale": {"scale": np.ones(2)},
    }.items():
        with pytest.raises(ValueError, match=f"{name}.*expected"):
            template_matching.match(images, lib, **({"scale": SCALE} | settings))
    with pytest.raises(ValueError, match="images: expected"):
        template_matching.match(images[:, :40], lib, scale=SCALE)
    with pytest.raises(ValueError, match="max_offset: expected"):
        template_matching.find_centre(images, max_offset=0.6)
    with pytest.raises(ValueError, match="temperature: expected"):
        template_matching.phases(Match(*[np.zeros((1, len(lib.phase)))] * 4), lib, temperature=0.0)
    with pytest.raises(ValueError, match="windows: expected"):
        template_matching.accuracy_against_scale(lib, [{}], [])
    with pytest.raises(ValueError, match="g_min, g_max: expected"):
        polar_transform.log_radii(10, 1.0, 0.5)
    for name, settings in {
        "exponent": {"exponent": 0},
        "num_angles": {"num_angles": 7},
        "max_tilt": {"tilt_rings": -1},
    }.items():
        with pytest.raises(ValueError, match=f"{name}.*expected"):
            template_matching.zone_templates(phases(), **settings)
    with pytest.raises(ValueError, match="crystals: expected"):
        template_matching.zone_templates([])
    with pytest.raises(ValueError, match="deformations: expected"):
        template_matching.zone_templates(phases(), deformations=np.eye(3))
