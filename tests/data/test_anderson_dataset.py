"""The Anderson data set: which state is which example, what experiments share, what views and probes do to a state."""

from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from physml_jax.analysis.anderson import nearest_class, width_bound_from_moduli, width_from_signs
from physml_jax.analysis.anderson_ladder import STORED_ERROR
from physml_jax.data import anderson, manifest, store
from physml_jax.data.source import make_source
from physml_jax.simulators import anderson as simulator
from physml_jax.typing import BATCH_KEYS

TINY = dict(size=4, widths=(15.0, 16.5, 18.0), states_per_width=6, test_states_per_width=3, validation_fraction=1 / 3)


def decoded(dataset, read, rows=None):
    """All examples of a split, in order."""
    mesh = Mesh(np.array(jax.devices()[:1]), ("data",), axis_types=(AxisType.Auto,))
    sharding = NamedSharding(mesh, PartitionSpec("data"))
    source = make_source(dataset, seed=0, split="test", batch_size=12, sharding=sharding, shuffle=False, read=read)
    batches = [jax.device_get(source.batch(i)) for i in range(-(-source.num_examples // 12))]
    joined = {key: np.concatenate([b[key] for b in batches]) for key in batches[0]}
    return {key: value[joined["weight"] == 1] for key, value in joined.items()}


@pytest.fixture(scope="module")
def read():
    """All records of the tiny set."""
    return store.in_memory(anderson.make_dataset(**TINY).recipe)


def test_the_disorders_are_the_published_ones():
    assert len(anderson.WIDTHS) == 17 and list(anderson.WIDTHS) == sorted(set(anderson.WIDTHS))
    assert {15.0, 16.0, 16.2, 16.5, 16.8, 17.0, 18.0} <= set(anderson.WIDTHS)
    sizes = [anderson.make_dataset(split=s).num_examples for s in ("train", "validation", "test", "probe/signs")]
    assert sizes == [17 * 4500, 17 * 500, 17 * 500, 17 * 500]
    assert anderson.make_dataset(classes="three", split="test", states_used=7).num_examples == 21


def test_records_are_the_nearest_eigenstates_of_their_disorder(read):
    """Against all eigenvalues of the dense matrix, and the disorder that the state itself implies."""
    records = read(np.arange(27))
    np.testing.assert_array_equal(records["width"], np.repeat(np.float32(TINY["widths"]), 9))
    assert records["residual"].max() < 1e-8
    settings = settings_of()
    for k, block in enumerate(anderson.blocks(settings)):
        disorder = anderson.realisations(settings, block)
        start = 9 * (k // 2) + 6 * (k % 2)
        assert disorder.shape[0] == block.length == (6, 3)[k % 2] and disorder.dtype == np.float64
        assert np.abs(disorder).max() < settings.widths[block.width] / 2
        for j, row in enumerate(disorder):
            with jax.enable_x64(True):
                levels = np.linalg.eigvalsh(np.asarray(simulator.dense(jnp.asarray(row))))
            record = {key: value[start + j] for key, value in records.items()}
            assert record["energy"] == np.float32(levels[np.abs(levels).argmin()])
            psi = record["state"].astype(np.float64)
            hops = sum(np.roll(psi, step, axis) for axis in range(3) for step in (1, -1))
            assert np.linalg.norm((row - record["energy"]) * psi - hops) < 2e-6
            assert abs(np.linalg.norm(psi) - 1) < 1e-6


def settings_of(**change):
    config = dict(anderson.make_dataset(**{**TINY, **change}).recipe.config)
    config.pop("version")
    return anderson.Settings(**{**config, "widths": tuple(config["widths"])})


def test_no_two_states_share_a_realisation():
    """Neither the same nor, but for the factor W, a common sequence of random numbers."""
    settings = settings_of(states_per_width=70)
    plan = anderson.blocks(settings)
    assert [b.length for b in plan] == [64, 6, 3] * 3
    shapes = [anderson.realisations(settings, b) / settings.widths[b.width] for b in plan]
    numbers = np.round(np.concatenate(shapes).reshape(3 * 73, -1)[:, :3], 9)
    assert len(np.unique(numbers, axis=0)) == 3 * 73


def test_a_realisation_depends_on_its_own_width_and_number_only():
    settings, larger = settings_of(), settings_of(widths=(14.0, *TINY["widths"]), states_per_width=80)
    block = anderson.Block(1, "train", 2, 3)
    expected = anderson.realisations(settings, block)
    np.testing.assert_array_equal(anderson.realisations(larger, block._replace(width=2)), expected)
    np.testing.assert_array_equal(
        anderson.realisations(larger, anderson.Block(2, "train", 0, 64))[2:5], expected, err_msg="other block"
    )
    for other in (block._replace(part="test"), block._replace(width=2), block._replace(first=5)):
        assert not np.isclose(anderson.realisations(settings, other)[0], expected[0]).any()
    assert not np.isclose(anderson.realisations(settings_of(simulation_seed=1), block), expected).any()


def test_a_shard_computed_alone_is_the_same(read):
    recipe = anderson.make_dataset(**TINY).recipe
    for j, record in enumerate(recipe.shard(3)):
        for key, value in record.items():
            np.testing.assert_array_equal(value, read(np.array([15 + j]))[key][0], err_msg=key)


def test_every_example_is_in_one_split(read):
    splits = {s: anderson.make_dataset(**TINY, split=s) for s in ("train", "validation", "test")}
    assert [d.num_examples for d in splits.values()] == [12, 6, 9]
    np.testing.assert_array_equal(np.sort(np.concatenate([d.rows for d in splits.values()])), np.arange(27))
    np.testing.assert_array_equal(anderson.make_dataset(**TINY, split="probe/x").rows, splits["test"].rows)
    found = decoded(splits["train"], read)
    np.testing.assert_array_equal(found["disorder"][:6], np.float32([15, 16.5, 18] * 2))
    np.testing.assert_array_equal(found["disorder_class"], np.arange(12) % 3)
    found = decoded(splits["test"], read)
    np.testing.assert_array_equal(found["disorder_class"], np.repeat(np.arange(3), 3))
    np.testing.assert_array_equal(found["state"][..., 0], read(splits["test"].rows)["state"])
    few = anderson.make_dataset(**TINY, split="test", states_used=1, classes="ends")
    np.testing.assert_array_equal(few.rows, splits["test"].rows[[0, 6]])
    np.testing.assert_array_equal(decoded(few, read)["disorder_class"], [0, 1])


def test_errors_of_stored_amplitudes_are_named_as_precisions():
    """Half a unit in the last place, of every dtype that is a floating-point number but not that of the batch."""
    floats = {name for name, dtype in anderson.PRECISIONS.items() if jnp.issubdtype(dtype, jnp.floating)}
    expected = {name: float(jnp.finfo(anderson.PRECISIONS[name]).eps) / 2 for name in floats - {"float32"}}
    assert expected == STORED_ERROR


def test_views_classes_and_probes_share_one_stored_set():
    name = manifest.folder_name(anderson.make_dataset(**TINY).recipe)
    same = [
        dict(split="test"),
        dict(classes="ends"),
        dict(view="rgba", pixels=8),
        dict(view="slices", compression="log"),
        dict(probe="shuffle"),
        dict(states_used=1, validation_fraction=0.5),
    ]
    other = [
        dict(size=5),
        dict(widths=(15.0, 16.5)),
        dict(states_per_width=7),
        dict(test_states_per_width=4),
        dict(energy=0.1),
        dict(method="dense"),
        dict(precision="float16"),
        dict(simulation_seed=1),
    ]
    assert {manifest.folder_name(anderson.make_dataset(**{**TINY, **c}).recipe) for c in same} == {name}
    names = {manifest.folder_name(anderson.make_dataset(**{**TINY, **c}).recipe) for c in other}
    assert len(names) == len(other) and name not in names


def test_views_show_the_state(read):
    found = {}
    for view in anderson.VIEWS:
        dataset = anderson.make_dataset(**TINY, split="test", view=view, pixels=9, compression="none")
        assert set(dataset.spec) == {"state", "energy", "disorder", "disorder_class"} | ({view} - {"none"})
        assert set(dataset.spec) <= set(BATCH_KEYS)
        batch = decoded(dataset, read)
        for key, spec in dataset.spec.items():
            assert batch[key].shape[1:] == spec.shape and batch[key].dtype == spec.dtype, key
        found[view] = batch.get(view)
        psi = batch["state"][..., 0]
    density = psi**2 * 64
    np.testing.assert_allclose(found["density"][..., 0], density, rtol=1e-5)
    np.testing.assert_allclose(density.mean((1, 2, 3)), 1, rtol=1e-5)
    np.testing.assert_allclose(found["slices"], np.moveaxis(density, 1, -1), rtol=1e-5)
    np.testing.assert_allclose(found["signed"][..., 0], psi * 8, rtol=1e-6)
    sign, log = np.moveaxis(found["log_signed"], -1, 0)
    np.testing.assert_allclose(sign * np.exp(log / 2), psi * 8, rtol=1e-5)
    np.testing.assert_array_equal(found["rgba"], simulator.cube_view(psi, pixels=9))
    assert found["rgba"].min() >= 0 and found["rgba"].max() <= 1 and np.ptp(found["rgba"][..., 3]) > 0.5


def test_the_site_energies_are_those_of_the_realisation(read):
    dataset = anderson.make_dataset(**TINY, split="test", view="site_energies")
    batch = decoded(dataset, read)
    disorder = anderson.realisations(settings_of(), anderson.Block(2, "test", 0, 3))
    found = batch["site_energies"][6:, ..., 0] + batch["energy"][6:, None, None, None]
    np.testing.assert_allclose(found, disorder, atol=2e-4)


@pytest.mark.parametrize(
    ("compression", "rule"), [("log1p", np.log1p), ("log", lambda x: np.log(x + 1e-6)), ("none", lambda x: x)]
)
def test_densities_are_compressed_as_named(read, compression, rule):
    batch = decoded(anderson.make_dataset(**TINY, split="test", view="density", compression=compression), read)
    np.testing.assert_allclose(batch["density"], rule(batch["state"] ** 2 * 64), rtol=1e-4, atol=1e-5)


@pytest.fixture(scope="module")
def psi():
    """Two random states with structure on the scale of a block."""
    x = np.random.default_rng(0).normal(size=(2, 4, 4, 4)) ** 3
    return jnp.asarray(x / np.linalg.norm(x.reshape(2, -1), axis=1)[:, None, None, None], jnp.float32)


def cubes(x):
    """The eight cubes of 2 x 2 x 2 sites of every state: [B, 8, 8]."""
    return np.stack([np.asarray(x)[:, i : i + 2, j : j + 2, k : k + 2].reshape(-1, 8) for i, j, k in corners()], axis=1)


def corners():
    return [(i, j, k) for i in (0, 2) for j in (0, 2) for k in (0, 2)]


@pytest.mark.parametrize("probe", anderson.PROBES[1:])
def test_probes_are_reproducible_and_keep_the_norm(psi, probe):
    keys = jax.random.split(jax.random.key(1), 2)
    disturb = jax.jit(lambda k, x: anderson.disturb(k, x, probe=probe))
    out = np.asarray(disturb(keys, psi))
    assert out.shape == psi.shape and out.dtype == np.float32
    np.testing.assert_allclose((out**2).sum((1, 2, 3)), 1, rtol=1e-6)
    np.testing.assert_array_equal(disturb(keys[::-1], psi[::-1])[::-1], out, err_msg="a row knows its own key only")
    assert (out != np.asarray(psi)).mean() > 0.2
    other = np.asarray(disturb(jax.random.split(jax.random.key(2), 2), psi))
    assert np.array_equal(other, out) == (probe in ("quantise", "threshold"))


def test_probes_do_what_they_are_named_for(psi):
    keys = jax.random.split(jax.random.key(1), 2)
    out = {p: np.asarray(anderson.disturb(keys, psi, probe=p)) for p in anderson.PROBES[1:]}
    original = np.asarray(psi)
    np.testing.assert_array_equal(np.abs(out["signs"]), np.abs(original))
    assert 0.2 < (out["signs"] == original).mean() < 0.8
    for p in ("shuffle", "blocks", "within_blocks"):
        np.testing.assert_array_equal(np.sort(out[p].reshape(2, -1)), np.sort(original.reshape(2, -1)), err_msg=p)
    for before, after, shuffled in zip(cubes(psi), cubes(out["blocks"]), cubes(out["within_blocks"]), strict=True):
        np.testing.assert_array_equal(after[np.argsort(after[:, 0])], before[np.argsort(before[:, 0])])
        np.testing.assert_array_equal(np.sort(shuffled), np.sort(before))
    assert not np.array_equal(np.sort(cubes(out["shuffle"])), np.sort(cubes(psi)))
    by_largest = (x / np.abs(x).max((1, 2, 3), keepdims=True) * 127 for x in (out["quantise"], original))
    quantised, exact = by_largest
    np.testing.assert_allclose(quantised, np.round(exact), atol=1e-3)
    strong = original**2 * 64 > 1
    np.testing.assert_array_equal(out["threshold"] > 0, strong)
    assert all(len(np.unique(x)) == 2 for x in out["threshold"]) and out["threshold"].min() == 0


def test_a_probe_disturbs_before_the_view(read):
    options = dict(**TINY, split="probe/x", view="signed")
    plain, probed = (decoded(anderson.make_dataset(**options, probe=p), read) for p in ("none", "signs"))
    np.testing.assert_array_equal(np.abs(probed["signed"]), np.abs(plain["signed"]))
    np.testing.assert_allclose(probed["signed"], probed["state"] * 8, rtol=1e-6)
    assert len({tuple(x) for x in np.sign(probed["state"] * plain["state"]).reshape(9, -1)}) == 9


@pytest.mark.parametrize(("precision", "error"), [("float32", 1e-7), ("float16", 5e-4), ("uint8", 0.3)])
def test_stored_precision(precision, error):
    """Relative errors of amplitudes down to 1 % of the largest: half a unit in the last place, or half a step."""
    states = np.random.default_rng(3).normal(size=(3, 4, 4, 4))
    states /= np.linalg.norm(states.reshape(3, -1), axis=1)[:, None, None, None]
    states[0] *= np.exp(-np.arange(64).reshape(4, 4, 4) / 2)  # abs(psi)^2 spans 27 decades
    states[0] /= np.linalg.norm(states[0])
    stored = anderson.store(states, precision)
    assert stored.dtype == anderson.PRECISIONS[precision] and np.isfinite(stored.astype(float)).all()
    found = np.asarray(anderson._restored(jnp.asarray(stored)))
    np.testing.assert_allclose((found**2).sum((1, 2, 3)), 1, rtol=1e-5)
    large = np.abs(states) > 0.02 * np.abs(states).max((1, 2, 3), keepdims=True)
    assert np.abs(found / states - 1)[large].max() < error
    if precision != "uint8":
        assert np.all((found != 0)[np.abs(states) > 1e-6 * np.abs(states).max()])


def test_an_uncertified_state_stops_the_writer(monkeypatch):
    settings = settings_of()

    def uncertain(disorder, **options):
        assert options["certify"] is True
        shape = disorder.shape[:1]
        return SimpleNamespace(
            energies=np.zeros((*shape, 1)),
            states=np.ones((*shape, 1, 4, 4, 4)),
            residuals=np.zeros((*shape, 1)),
            certified=np.arange(len(disorder)) != 2,
        )

    monkeypatch.setattr(simulator, "eigenstates", uncertain)
    with pytest.raises(RuntimeError, match="W = 16.5, train realisation 2: the state found is not certified"):
        anderson.records(settings, anderson.blocks(settings)[2])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (dict(size=2), "size: expected an integer of at least 3, got 2"),
        (dict(widths=()), "widths: expected finite positive"),
        (dict(widths=(0.0, 1.0)), "widths: expected finite positive"),
        (dict(widths=(16.5, 15.0)), "widths: expected increasing"),
        (dict(widths=(16.5, 16.5)), "widths: expected increasing"),
        (dict(states_per_width=0), "states_per_width, test_states_per_width: expected at least 1"),
        (dict(test_states_per_width=0), "test_states_per_width"),
        (dict(validation_fraction=1.0), "validation_fraction: expected a number from 0 to below 1"),
        (dict(validation_fraction=0.0, split="validation"), "the split 'validation' has no state"),
        (dict(energy=np.nan), "energy: expected a finite number"),
        (dict(method="lanczos"), "method: there is no 'lanczos'; available: auto, dense"),
        (dict(precision="float64"), "precision: there is no 'float64'; available: float32, float16, uint8"),
        (dict(simulation_seed=-1), "seed"),
        (dict(split="holdout"), "split: expected one of train, validation, test"),
        (dict(states_used=5), "states_used: expected 1 to 4"),
        (dict(states_used=0), "states_used"),
        (dict(classes="two"), "classes: there is no 'two'; available: all, ends, three"),
        (dict(classes="three", widths=(15.0, 18.0)), r"classes: 'three' needs W = \[16.5\]"),
        (dict(view="cubes"), "view: there is no 'cubes'"),
        (dict(pixels=0), "pixels, supersample: expected at least 1"),
        (dict(compression="sqrt"), "compression: there is no 'sqrt'"),
        (dict(probe="flip"), "probe: there is no 'flip'; available: none, shuffle"),
        (dict(probe="blocks", size=5), r"probe: 'blocks' cuts the lattice into 2\^3 sites, got size = 5"),
    ],
)
def test_bad_arguments_are_named(change, message):
    with pytest.raises(ValueError, match=message):
        anderson.make_dataset(**{**TINY, **change})


@pytest.mark.slow
@pytest.mark.parametrize(("precision", "correct"), [("float32", True), ("float16", True), ("uint8", False)])
def test_what_precision_leaves_of_the_local_rule(precision, correct):
    """W from signed states of L = 12, without sites whose energy is uncertain."""
    options = dict(size=12, widths=(15.0, 18.0), states_per_width=8, test_states_per_width=1, precision=precision)
    dataset = anderson.make_dataset(**options, validation_fraction=0.0)
    batch = decoded(dataset, store.in_memory(dataset.recipe))
    states = batch["state"][..., 0]
    width = width_from_signs(states, batch["energy"], tolerance=np.inf)
    right = nearest_class(width, np.float64([15.0, 18.0])) == batch["disorder_class"]
    if precision in STORED_ERROR:
        error = STORED_ERROR[precision]
        known = width_from_signs(states, batch["energy"], tolerance=0.03, relative_error=error)
        assert np.abs(known - batch["disorder"]).max() < 0.2  # W/N is 0.01
    assert right.mean() == 1 if correct else np.abs(width - batch["disorder"]).mean() > 2
    assert width_bound_from_moduli(states).min() > 10
