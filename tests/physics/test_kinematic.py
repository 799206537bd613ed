"""Kinematic spots: geometry, absences and intensities against independent formulas, and against other programs."""

import functools
import json
from pathlib import Path

import gemmi
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from physml_jax.data.saed_phases import load_phases
from physml_jax.simulators.diffraction import kinematic, scattering, shape_factors
from physml_jax.simulators.diffraction import orientations as turns
from physml_jax.simulators.diffraction.compaction import first_set
from physml_jax.simulators.diffraction.reflections import num_spots_needed, reflections, stack

PHASES = load_phases()
STILL = load_phases(b_iso=0.0)
GOLDEN = json.loads((Path(__file__).parents[1] / "golden" / "kinematic_peers.json").read_text())["patterns"]
NUM_SPOTS = 64
LABELS = [p.label for p in PHASES]


@functools.cache
def plan_of(number, **settings):
    crystals = STILL if settings.pop("still", False) else PHASES
    return reflections(crystals[number].crystal, **{"max_g": 1.2, "voltage_kv": 200.0} | settings)


@functools.cache
def program(name="spots", **settings):
    static = {"max_excitation_error": 0.02} | ({"num_spots": NUM_SPOTS} if name == "spots" else {}) | settings
    return jax.jit(functools.partial(getattr(kinematic, name), **static))


def some_orientations(number=64):
    return turns.uniform(jax.random.split(jax.random.key(3), number))


def rows(spots, index):
    """hkl -> (position, s, F, intensity) of one pattern."""
    fields = (spots.positions, spots.excitation_errors, spots.structure_factors, spots.intensities)
    mask = np.asarray(spots.mask[index])
    values = [np.asarray(f[index])[mask] for f in fields]
    return {tuple(h): v for h, *v in zip(np.asarray(spots.hkl[index])[mask].tolist(), *values, strict=True)}


def reciprocal(cell):
    """Rows a*, b*, c* by inverting the metric's Cholesky factor, x along a, z along c*."""
    a, b, c = cell[:3]
    ca, cb, cg = np.cos(np.deg2rad(cell[3:]))
    metric = np.array(
        [[a * a, a * b * cg, a * c * cb], [a * b * cg, b * b, b * c * ca], [a * c * cb, b * c * ca, c * c]]
    )
    return np.linalg.inv(np.linalg.cholesky(metric)).T


def reference(phase, rotation, *, max_g, s_max, thickness, kv=200.0):
    """The same spots by loops over indices and atoms, from the definitions, in float64."""
    crystal = phase.crystal
    basis = reciprocal(crystal.cell)
    k = 1 / scattering.wavelength(kv)
    volume = 1 / np.linalg.det(basis)
    n = np.ceil(max_g * crystal.cell[:3]).astype(int)
    found = {}
    hkl = np.stack(np.meshgrid(*(np.arange(-m, m + 1) for m in n), indexing="ij"), -1).reshape(-1, 3)
    g = hkl @ basis @ rotation.T
    s = np.sqrt(k**2 - (g[:, :2] ** 2).sum(1)) - k - g[:, 2]
    length = np.linalg.norm(g, axis=1)
    keep = (np.abs(s) <= s_max) & (length <= max_g) & (length > 0)
    f = {}
    with jax.enable_x64(True):
        for z in set(crystal.numbers.tolist()):
            f[z] = np.asarray(scattering.form_factors(jnp.array([z]), jnp.asarray(length[keep], jnp.float64)))[:, 0]
    for i, j in enumerate(np.flatnonzero(keep)):
        total = 0
        for z, x, o, b in zip(crystal.numbers, crystal.positions, crystal.occupancies, crystal.b_iso, strict=True):
            total += o * f[z][i] * np.exp(-b * length[j] ** 2 / 4) * np.exp(-2j * np.pi * (hkl[j] @ x))
        xi = np.pi * volume * k / (scattering.relativistic_factor(kv) * max(abs(total), 1e-30))
        found[tuple(hkl[j].tolist())] = (g[j, :2], s[j], abs(total), (np.pi * thickness / xi) ** 2)
    return found


@pytest.mark.parametrize("number", [0, 8])
def test_spots_are_those_of_the_definition(number):
    """Which reflections, where, how far from the sphere, and how strong: for a hexagonal and a monoclinic crystal."""
    orientations = some_orientations(8)
    found = program(shape="sinc", thickness=150.0)(plan_of(number), orientations)
    for i in range(8):
        expected = reference(
            PHASES[number], np.asarray(orientations[i], np.float64), max_g=1.2, s_max=0.02, thickness=150.0
        )
        strongest = max(f for _, _, f, _ in expected.values())
        got = rows(found, i)
        visible = {h for h, (_, s, f, _) in expected.items() if f > 1e-3 * strongest and abs(abs(s) - 0.02) > 1e-6}
        assert visible <= set(got) <= set(expected)
        assert found.count[i] == len(got)
        for h, (position, s, f, intensity) in got.items():
            np.testing.assert_allclose(position, expected[h][0], atol=5e-7)
            np.testing.assert_allclose(s, expected[h][1], atol=1e-6)
            np.testing.assert_allclose(f, expected[h][2], rtol=1e-5, atol=1e-4)
            np.testing.assert_allclose(
                intensity, expected[h][3] * np.sinc(150 * expected[h][1]) ** 2, rtol=1e-3, atol=1e-7
            )


@pytest.mark.parametrize(
    "case", [r for r in GOLDEN if r["program"] != "pymatgen"], ids=lambda r: r["program"] + "-" + r["crystal"]
)
def test_other_programs_give_the_same_pattern(case):
    """Same reflections, positions and relative intensities as py4DSTEM and diffsims, whose beam runs along -z."""
    number = LABELS.index(case["crystal"])
    plan = plan_of(number, still=True, max_g=1.5, form_factors="lobato")
    flip = np.diag([1.0, -1.0, -1.0])
    if case["program"] == "py4DSTEM":
        rotation = np.array(case["rotation"])
        limit = {"shape": "gaussian", "max_excitation_error": float(np.sqrt(2) * np.pi * case["sigma"])}
    else:
        rotation = np.array(case["basis_lab"]).T @ np.linalg.inv(reciprocal(PHASES[number].crystal.cell).T)
        limit = {"shape": "lorentzian", "max_excitation_error": case["max_excitation_error"]}
    np.testing.assert_allclose(rotation @ rotation.T, np.eye(3), atol=1e-6)
    assert np.linalg.det(rotation) > 0
    got = rows(program(**limit)(plan, jnp.asarray(flip @ rotation)[None]), 0)
    got = {h: v for h, v in got.items() if abs(v[1]) <= 0.02}
    theirs = dict(zip(map(tuple, case["hkl"]), zip(case["positions"], case["intensities"], strict=True), strict=True))
    theirs.pop((0, 0, 0), None)
    largest = max(i for _, i in theirs.values())
    assert set(got) <= set(theirs)
    assert {h for h, (_, i) in theirs.items() if i > 1e-6 * largest} <= set(got)
    scale = max(v[3] for v in got.values()) / largest
    for h, (position, _, _, intensity) in got.items():
        np.testing.assert_allclose(position * [1, -1], theirs[h][0], atol=1e-6)
        np.testing.assert_allclose(intensity / scale, theirs[h][1], rtol=2e-3, atol=1e-5 * largest)


@pytest.mark.parametrize("case", [r for r in GOLDEN if r["program"] == "pymatgen"], ids=lambda r: r["crystal"])
def test_zone_axis_geometry(case):
    """Spacings, and angles between spots, as pymatgen has them; no other reflection of the zone is missing or extra."""
    number = LABELS.index(case["crystal"])
    orientation = turns.zone_axis_orientation(PHASES[number].crystal, case["zone_axis"])
    plan = plan_of(number, min_factor=0.0)  # pymatgen lists what symmetry forbids, too
    found = rows(program(num_spots=192)(plan, orientation[None]), 0)
    first, *others = (found[tuple(h)][0] for h in case["hkl"])
    lengths = [np.linalg.norm(p) for p in (first, *others)]
    np.testing.assert_allclose(1 / np.array(lengths), case["spacings"], rtol=2e-6)
    cosines = [first @ p / np.linalg.norm(first) / np.linalg.norm(p) for p in others]
    np.testing.assert_allclose(np.degrees(np.arccos(np.clip(cosines, -1, 1))), case["angles_to_first"][1:], atol=0.05)
    low = {h for h, v in found.items() if np.linalg.norm(v[0]) < 0.5}
    assert all(np.dot(h, case["zone_axis"]) == 0 for h in low)
    assert {tuple(-i for i in h) for h in low} == low


def test_hexagonal_zone_axis():
    """alpha-Zr along [001]: six first spots at 2 / (sqrt 3 a), 60 degrees apart; a* lies 30 degrees from a."""
    crystal = PHASES[0].crystal
    found = rows(program()(plan_of(0), turns.zone_axis_orientation(crystal, (0, 0, 1))[None]), 0)
    ring = {h: v[0] for h, v in found.items() if np.linalg.norm(v[0]) < 0.4}
    assert set(ring) == {(1, 0, 0), (0, 1, 0), (-1, 1, 0), (-1, 0, 0), (0, -1, 0), (1, -1, 0)}
    for angle, h in ((-30, (1, -1, 0)), (30, (1, 0, 0)), (90, (0, 1, 0)), (150, (-1, 1, 0))):
        direction = np.deg2rad(angle)
        expected = 2 / np.sqrt(3) / 3.2316 * np.array([np.cos(direction), np.sin(direction)])
        np.testing.assert_allclose(ring[h], expected, atol=1e-6)


def test_sign_of_the_excitation_error():
    """Beam along +z: a crystal tilted so that g_z > 0 is outside the sphere (s < 0); turning the beam flips g_z."""
    crystal = PHASES[5].crystal
    plan, step = plan_of(5), np.deg2rad(0.5)
    about_y = np.array([[np.cos(step), 0, np.sin(step)], [0, 1, 0], [-np.sin(step), 0, np.cos(step)]])
    found = rows(program()(plan, jnp.asarray(about_y @ np.eye(3))[None]), 0)
    # g = (2, 0, 0)/a goes to z = -2 sin(step)/a: s > 0 but for the curvature.
    g, k = 2 / 5.396, 1 / scattering.wavelength(200.0)
    expected = {1: g * np.sin(step) - g**2 / (2 * k), -1: -g * np.sin(step) - g**2 / (2 * k)}
    for sign, s in expected.items():
        np.testing.assert_allclose(found[(2 * sign, 0, 0)][1], s, atol=2e-6)
    assert crystal.cell[0] == 5.396


@pytest.mark.parametrize("number", range(9), ids=LABELS)
def test_systematic_absences(number):
    """What the space group forbids is absent. Nearly all the rest is there."""
    phase = PHASES[number]
    operations = gemmi.find_spacegroup_by_name(phase.info.space_group_name).operations()
    everything, listed = plan_of(number, min_factor=0.0), plan_of(number)
    hkl = everything.hkl[: int(everything.count)].tolist()
    allowed = {tuple(h) for h in hkl if not operations.is_systematically_absent(h)}
    present = {tuple(h) for h in listed.hkl[: int(listed.count)].tolist()}
    assert present <= allowed
    assert len(allowed) < len(hkl) or number == 3  # P6/mmm forbids nothing
    # alpha-Zr, fluorite and the oxygen stackings have further extinctions of special positions.
    assert len(present) > 0.6 * len(allowed)


def test_special_absences():
    """Reflections that atoms on special positions extinguish, and those by which phases of one lattice differ."""
    hcp = {tuple(h) for h in plan_of(0).hkl.tolist()}
    assert (0, 0, 1) not in hcp and (1, 1, 1) not in hcp and (0, 0, 2) in hcp and (1, 0, 1) in hcp
    fluorite, salt = plan_of(5), plan_of(4)

    # F(200) is Pu - 2 O in fluorite, Pu + O in rock salt; F(111) is Pu in fluorite, Pu - O in rock salt.
    def factor(plan, h):
        return plan.structure_factors[[tuple(x) for x in plan.hkl.tolist()].index(h)]

    assert factor(fluorite, (2, 0, 0)) < 0.65 * factor(fluorite, (1, 1, 1))
    assert factor(salt, (2, 0, 0)) > 0.95 * factor(salt, (1, 1, 1))


def test_equivalent_reflections_are_equal_and_sorted():
    plan = plan_of(1)
    f = plan.structure_factors[: int(plan.count)]
    assert (np.diff(f) <= 1e-6 * f[0]).all() and f[-1] >= 1e-4 * f[0]
    assert not plan.structure_factors[int(plan.count) :].any()
    table = {tuple(h): x for h, x in zip(plan.hkl[: int(plan.count)].tolist(), f, strict=True)}
    for (h, k, l), x in list(table.items())[:200]:
        for other in ((-h, -k, -l), (h, -k, l), (-h, k, -l)):  # 2/m
            np.testing.assert_allclose(table[other], x, rtol=1e-5)


def compacted(full, num_spots):
    """NumPy's compaction of the masked full arrays."""
    out = []
    for i in range(full.mask.shape[0]):
        keep = np.flatnonzero(full.mask[i])[:num_spots]
        fields = [np.asarray(f[i])[keep] for f in full[:-1]]
        out.append([np.pad(f, [(0, num_spots - len(keep))] + [(0, 0)] * (f.ndim - 1)) for f in fields])
    return [np.stack(f) for f in zip(*out, strict=True)]


@pytest.mark.parametrize(
    ("number", "num_spots"), [(0, NUM_SPOTS), (0, 8), pytest.param(1, NUM_SPOTS, marks=pytest.mark.slow)]
)
def test_compaction_is_exact(number, num_spots):
    """The masked full arrays, few words (alpha-Zr) and many (beta-Pu), with and without truncation: indices, structure
    factors and mask bit for bit, the rest to the rounding of fused products."""
    orientations = some_orientations()
    plan = plan_of(number)
    full = program("all_reflections")(plan, orientations)
    found = program(num_spots=num_spots)(plan, orientations)
    expected = kinematic.Spots(*compacted(full, num_spots), full.count)
    for name in ("hkl", "structure_factors", "mask", "count"):
        np.testing.assert_array_equal(getattr(found, name), getattr(expected, name), err_msg=name)
    np.testing.assert_allclose(found.positions, expected.positions, atol=5e-7)
    np.testing.assert_allclose(found.excitation_errors, expected.excitation_errors, atol=5e-7)
    np.testing.assert_allclose(found.intensities, expected.intensities, rtol=3e-4, atol=1e-9)
    np.testing.assert_array_equal(found.count, np.asarray(full.mask).sum(1))
    if num_spots == 8 or number == 1:
        assert (found.count > num_spots).any()  # the truncation is visible
    assert (found.mask.sum(1) == np.minimum(found.count, num_spots)).all()


@pytest.mark.parametrize("num_words", [*(pytest.param(n, marks=pytest.mark.slow) for n in (1, 24, 32)), 25, 67])
def test_first_set(num_words):
    density = jnp.asarray([0.0, 0.01, 0.2, 1.0], jnp.float32)
    flags = jax.random.uniform(jax.random.key(num_words), (32, num_words, 4)) < density[None, None]
    places, mask, count = first_set(flags, 40)
    for c in range(4):
        expected = np.flatnonzero(np.asarray(flags[..., c]).T.reshape(-1))
        assert count[c] == len(expected)
        np.testing.assert_array_equal(mask[c], np.arange(40) < len(expected))
        np.testing.assert_array_equal(places[c][mask[c]], expected[:40])
        assert not np.asarray(places[c])[~np.asarray(mask[c])].any()


def test_chunks_and_batch_axes():
    orientations = some_orientations(12)
    whole = program()(plan_of(0), orientations)
    parts = program(chunk_size=5)(plan_of(0), orientations)
    jax.tree.map(np.testing.assert_array_equal, whole, parts)
    shaped = program()(plan_of(0), orientations.reshape(3, 4, 3, 3))
    jax.tree.map(lambda x, y: np.testing.assert_array_equal(x, y.reshape(x.shape)), whole, shaped)


@pytest.mark.parametrize("deformed", [False, pytest.param(True, marks=pytest.mark.slow)])
def test_stacked_phases(deformed):
    """A batch of several crystals is what each crystal gives alone; per-pattern settings go to their own pattern."""
    orientations = some_orientations(6)
    phase = jnp.array([0, 1, 0, 2, 2, 1], jnp.int32)
    numbers = [0, 8, 4]
    both = stack([plan_of(n) for n in numbers])
    more = {"deformation": jnp.eye(3)[None] * jnp.linspace(0.98, 1.02, 6)[:, None, None]} if deformed else {}
    settings = {"thickness": jnp.linspace(100.0, 200.0, 6)} | more
    found = jax.jit(functools.partial(kinematic.spots, max_excitation_error=0.02, num_spots=NUM_SPOTS))(
        both, orientations, phase=phase, **settings
    )
    for i in range(6):
        own = {k: v[i : i + 1] for k, v in settings.items()}
        alone = jax.jit(functools.partial(kinematic.spots, max_excitation_error=0.02, num_spots=NUM_SPOTS))(
            plan_of(numbers[int(phase[i])]), orientations[i : i + 1], **own
        )
        np.testing.assert_array_equal(found.hkl[i], alone.hkl[0])
        np.testing.assert_allclose(found.positions[i], alone.positions[0], atol=1e-6)
        np.testing.assert_allclose(found.intensities[i], alone.intensities[0], rtol=1e-4, atol=1e-8)


def test_deformation_is_another_cell():
    """D on the lattice gives the spots of the crystal with the deformed cell; the identity changes nothing."""
    crystal = PHASES[0].crystal
    orientations = some_orientations(6)
    stretch = np.diag([1.01, 1.01, 1.03])
    cell = crystal.cell * [1.01, 1.01, 1.03, 1, 1, 1]
    other = reflections(crystal._replace(cell=cell), max_g=1.2, voltage_kv=200.0)
    run = program()
    strained, expected = run(plan_of(0), orientations, deformation=jnp.asarray(stretch)), run(other, orientations)
    for i in range(6):
        ours, theirs = rows(strained, i), rows(expected, i)
        # The sphere of max_g is the plan's: at its edge the lists differ.
        inner = {h for h, v in theirs.items() if np.linalg.norm(np.array(h) @ reciprocal(cell)) < 1.15}
        assert inner and inner <= set(ours)
        for h in inner:
            np.testing.assert_allclose(ours[h][0], theirs[h][0], atol=1e-6)
            np.testing.assert_allclose(ours[h][1], theirs[h][1], atol=1e-6)
    same = run(plan_of(0), orientations, deformation=jnp.eye(3))
    np.testing.assert_array_equal(same.hkl, run(plan_of(0), orientations).hkl)


@pytest.mark.parametrize("shape", shape_factors.SHAPES)
def test_precession_is_the_mean_over_the_azimuth(shape):
    s, amplitude = np.meshgrid(np.linspace(-0.05, 0.05, 21), [0.0, 1e-4, 0.004, 0.03], indexing="ij")
    settings = {"shape": shape, "max_excitation_error": 0.0203, "thickness": 200.0}
    with jax.enable_x64(True):
        found = np.asarray(shape_factors.precessed(jnp.asarray(s), jnp.asarray(amplitude), **settings))
        azimuths = (np.arange(20000) + 0.5) * np.pi / 20000
        path = s[..., None] + amplitude[..., None] * np.cos(azimuths)
        expected = np.asarray(shape_factors.shape_factor(jnp.asarray(path), **settings)).mean(-1)
    # A step function's numerical mean is no better than its number of points.
    np.testing.assert_allclose(found, expected, atol=1e-4 if shape == "sharp" else 1e-9)
    single = shape_factors.precessed(jnp.asarray(s, jnp.float32), jnp.asarray(amplitude, jnp.float32), **settings)
    np.testing.assert_allclose(single, expected, atol=1e-3 if shape == "sharp" else 3e-6)


def test_precession_excites_what_the_rocking_reaches():
    """The set of spots is that of all azimuths of the tilted beam, to first order in the angle."""
    orientations, angle = some_orientations(4), 0.015
    plan = plan_of(0)
    found = program(precession_mrad=15.0, num_spots=192)(plan, orientations)
    hkl = plan.hkl[: int(plan.count)]
    k = float(plan.wave_number)
    for i in range(4):
        x, y, z = np.asarray(orientations[i], np.float64) @ (hkl @ reciprocal(PHASES[0].crystal.cell)).T
        q = x**2 + y**2
        s = -z - k + np.sqrt(k**2 - q)
        reach = np.abs(s) - angle * np.sqrt(q)
        certain = {tuple(h) for h in hkl[reach < 0.02 - 1e-6].tolist()}
        possible = {tuple(h) for h in hkl[reach < 0.02 + 1e-6].tolist()}
        assert certain <= set(rows(found, i)) <= possible
    np.testing.assert_array_equal(
        program(precession_mrad=1e-9)(plan, orientations).hkl, program()(plan, orientations).hkl
    )


def test_shapes_at_known_points():
    settings = {"max_excitation_error": 0.02, "thickness": 100.0}
    at = lambda s, shape: float(shape_factors.shape_factor(jnp.float32(s), shape=shape, **settings))
    assert [at(0.0, shape) for shape in shape_factors.SHAPES] == [1.0] * 4
    assert at(0.02, "lorentzian") == pytest.approx(1 / (1 + np.pi**2), rel=1e-5)
    assert at(0.005, "sinc") == pytest.approx((2 / np.pi) ** 2, rel=1e-5) and at(0.01, "sinc") < 1e-10
    assert at(0.02, "gaussian") == pytest.approx(np.exp(-(np.pi**2)), rel=1e-4)
    assert at(0.0199, "sharp") == 1.0 and at(0.0201, "sharp") == 0.0


def test_thickness_and_extinction_distance():
    """I = (pi t / xi)^2 on the sphere; 111 of PuO2 agrees with the coupling of the Bloch waves."""
    phase = PHASES[5]
    plan = plan_of(5)
    found = rows(
        program(shape="sharp", thickness=10.0)(plan, turns.zone_axis_orientation(phase.crystal, (0, 1, 1))[None]), 0
    )
    u = scattering.potential_coefficients(phase.crystal, jnp.array([[1, 1, -1]]), voltage_kv=200.0)
    expected = (2 * np.pi * 10.0 * abs(complex(u[0])) / (2 * float(plan.wave_number))) ** 2
    np.testing.assert_allclose(found[(1, 1, -1)][3], expected, rtol=1e-5)


@pytest.mark.parametrize("precession_mrad", [pytest.param(0.0, marks=pytest.mark.slow), 10.0])
def test_gradients(precession_mrad):
    """With respect to a tilt and to the lattice's scale, against differences in float64."""
    with jax.enable_x64(True):
        plan = plan_of(8, dtype="float64")
        start = jnp.asarray(some_orientations(3), jnp.float64)
        run = program(precession_mrad=precession_mrad, shape="lorentzian")
        base = run(plan, start, deformation=jnp.eye(3))
        weights = jax.random.normal(jax.random.key(0), base.intensities.shape, jnp.float64)
        # Reflections at the cut may come and go.
        inside = base.mask & (jnp.abs(base.excitation_errors) < 0.0199)

        def value(p):
            spots = run(plan, turns.tilt(p[:2])[None] @ start, deformation=jnp.eye(3) * (1 + p[2]))
            kept = jnp.where(inside, weights, 0.0)
            total = (kept * spots.intensities).sum() + (kept[..., None] * spots.positions).sum()
            return total, spots.hkl

        zero, jit_value = jnp.zeros(3), jax.jit(value)
        found, _ = jax.jit(jax.grad(value, has_aux=True))(zero)
        step = 1e-7
        for i in range(3):
            (up, a), (down, b) = (jit_value(zero.at[i].add(d)) for d in (step, -step))
            np.testing.assert_array_equal(a, b)
            np.testing.assert_allclose(found[i], (up - down) / (2 * step), rtol=1e-5)
        assert np.abs(found).min() > 1e-3


def test_single_precision():
    with jax.enable_x64(True):
        exact = program()(plan_of(8, dtype="float64"), some_orientations(16).astype(jnp.float64))
    found = program()(plan_of(8), some_orientations(16))
    assert found.positions.dtype == jnp.float32 and exact.positions.dtype == jnp.float64
    for i in range(16):
        ours, theirs = rows(found, i), rows(exact, i)
        assert all(abs(abs(theirs.get(h, ours.get(h))[1]) - 0.02) < 1e-6 for h in set(ours) ^ set(theirs))
        for h in set(ours) & set(theirs):
            np.testing.assert_allclose(ours[h][0], theirs[h][0], atol=5e-7)
            np.testing.assert_allclose(ours[h][1], theirs[h][1], atol=1e-6)
            np.testing.assert_allclose(ours[h][3], theirs[h][3], rtol=5e-4)


def test_number_of_spots_needed():
    crystal = PHASES[0].crystal
    axes = turns.zone_axes(crystal)
    needed = num_spots_needed(plan_of(0), axes.orientations, max_excitation_error=0.02)
    found = program()(plan_of(0), jnp.asarray(axes.orientations))
    assert needed - 16 < int(found.count.max()) <= needed <= NUM_SPOTS


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"max_g": 0.0}, "max_g: expected a positive"),
        ({"max_g": 0.01}, "max_g: expected a sphere with reflections"),
        ({"max_g": 200.0}, "max_g: expected at most"),
        ({"max_g": 200.0, "voltage_kv": 1e7}, "max_g: expected fewer"),
        ({"voltage_kv": float("nan")}, "voltage_kv: expected"),
        ({"min_factor": 1.0}, "min_factor: expected"),
        ({"dtype": "float16"}, "dtype: expected"),
        ({"form_factors": "none"}, "table: expected"),
    ],
)
def test_bad_plans(settings, message):
    with pytest.raises(ValueError, match=message):
        reflections(PHASES[0].crystal, **{"max_g": 1.0, "voltage_kv": 200.0} | settings)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"orientations": jnp.zeros((3, 4))}, "orientations: expected"),
        ({"shape": "square"}, "shape: expected one of"),
        ({"num_spots": 0}, "num_spots: expected"),
        ({"phase": jnp.zeros(2, jnp.int32)}, "phase: expected"),
        ({"thickness": jnp.ones(3)}, "thickness: expected"),
        ({"deformation": jnp.ones((3, 3, 3))}, "deformation: expected"),
    ],
)
def test_bad_settings(settings, message):
    given = {"orientations": jnp.zeros((2, 3, 3)), "max_excitation_error": 0.02, "num_spots": 4} | settings
    with pytest.raises(ValueError, match=message):
        kinematic.spots(plan_of(0), **given)


def test_bad_stack():
    with pytest.raises(ValueError, match="plans: expected"):
        stack([])
