"""The LACBED data set: records, splits, filters, and what it says about files that it cannot use."""

import shutil
import time

import numpy as np
import pytest

from physml_jax.data import crystals, lacbed, selection, store

# A handful of small cells, few beams: shapes and rules, not accuracy.
TINY = dict(num_pixels=16, max_g=1.5, min_beams=30, num_strong=32, tolerance=1.0, max_lattice_parameter=4.3)
SIX = dict(**TINY, num_structures=6, shard_size=4)


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    dataset = lacbed.make_dataset(**SIX, fractions=(0.6, 0.2, 0.2))
    return dataset, store.open_store(store.build(dataset.recipe, root=tmp_path_factory.mktemp("lacbed")))


def entries_of(**settings):
    limit = settings.pop("max_lattice_parameter", 4.3)
    return selection.choose(unfit=lambda e: "too large" if e.a > limit else None, **settings)


def settings_of(dataset):
    fields = {name: dataset.recipe.config[name] for name in lacbed.Settings._fields}
    return lacbed.Settings(**fields)


def test_records_have_the_documented_content(built):
    dataset, opened = built
    batch = opened.read(np.arange(opened.length))
    assert opened.length == 6 and set(batch) == set(dataset.spec)
    assert batch["potential"].shape == (6, 16, 16, 1) and batch["pattern"].shape == (6, 16, 16, 1)
    assert batch["few_beam"].shape == (6, 16, 16, 1) and batch["log_a"].shape == (6, 1)
    for key in ("pattern", "few_beam"):
        assert batch[key].min() >= 0 and batch[key].max() <= 1 + 1e-4
    # Mean inner potentials of solids are 2 to 50 V, and the potential at atoms is much larger.
    mean = batch["potential"].mean(axis=(1, 2, 3))
    assert np.all((mean > 2) & (mean < 50)) and np.all(batch["potential"].max(axis=(1, 2, 3)) > 2 * mean)
    assert np.all((batch["log_a"] > np.log(2)) & (batch["log_a"] < np.log(4.3)))
    assert np.all((batch["space_group"] >= 195) & (batch["space_group"] <= 230))
    assert sorted(batch["structure"]) == list(range(6))


def test_one_record_computed_alone_is_the_stored_one(built):
    dataset, opened = built
    entries, _ = entries_of(num_structures=6)
    row = 4
    stored = {key: value[0] for key, value in opened.read([row]).items()}
    entry = entries[stored["structure"]]
    assert entry.info.formula == opened.labels[row]
    alone = lacbed.record(
        entry, settings_of(dataset), template=int(stored["template"]), structure=int(stored["structure"])
    )
    for key, value in alone.items():
        np.testing.assert_array_equal(value, stored[key], err_msg=key)


def test_all_splits_share_one_store_and_no_template(built):
    parts = {s: lacbed.make_dataset(**SIX, fractions=(0.6, 0.2, 0.2), split=s) for s in lacbed.SPLITS}
    rows = np.concatenate([d.rows for d in parts.values()])
    assert sorted(rows) == list(range(6)) and all(d.num_examples == len(d.rows) > 0 for d in parts.values())
    assert len({store.manifests.folder_name(d.recipe) for d in parts.values()}) == 1
    templates = [set(built[1].read(d.rows)["template"].tolist()) for d in parts.values()]
    assert not (templates[0] & templates[1] or templates[0] & templates[2] or templates[1] & templates[2])


def test_another_split_needs_no_other_records():
    one, other = (lacbed.make_dataset(split_seed=s, split="test") for s in (0, 1))
    assert one.recipe.config == other.recipe.config and not np.array_equal(one.rows, other.rows)
    random = lacbed.make_dataset(split_by="random", split="test")
    assert random.recipe.config == one.recipe.config and random.num_examples == round(0.1 * len(random.recipe.labels))


def test_whole_default_data_set_is_split_by_template_in_all_seeds():
    labels = {}
    entries, _ = entries_of(max_lattice_parameter=10.0)
    for seed in range(3):
        parts = [lacbed.make_dataset(split=s, split_seed=seed) for s in lacbed.SPLITS]
        recipe = parts[0].recipe
        assert sum(recipe.shard_lengths) == len(recipe.labels) == len(entries) > 1100
        sizes = [d.num_examples for d in parts]
        assert sum(sizes) == len(entries) and all(0.08 < n / len(entries) < 0.12 for n in sizes[1:])
        labels[seed] = {recipe.labels[i] for i in parts[2].rows}
    assert labels[0] != labels[1]


def test_making_the_data_set_is_cheap():
    selection._bundled.cache_clear()
    start = time.process_time()
    lacbed.make_dataset()
    first = time.process_time() - start
    lacbed.make_dataset(split="test")
    assert first < 3 and time.process_time() - start - first < 0.5


def test_content_decides_the_folder():
    base = lacbed.make_dataset(**SIX)
    for change in (
        dict(voltage_kv=100.0),
        dict(thicknesses=(450.0, 900.0)),
        dict(absorption=0.05),
        dict(default_b_iso=0.6),
        dict(num_structures=5),
        dict(few_beams=9),
    ):
        other = lacbed.make_dataset(**{**SIX, **change})
        assert store.manifests.folder_name(other.recipe) != store.manifests.folder_name(base.recipe), change
    same = lacbed.make_dataset(**SIX, max_memory_gb=9.0)
    assert store.manifests.folder_name(same.recipe) == store.manifests.folder_name(base.recipe)


def test_more_beams_bring_the_cheap_pattern_to_the_exact_one():
    entries, _ = entries_of(num_structures=3)
    fields = {k: v for k, v in TINY.items() if k in lacbed.Settings._fields}
    for entry in entries:
        crystal = entry.load()
        error = {}
        for few in (5, 10_000):
            settings = lacbed.Settings(**{**fields, "few_beams": few, "num_strong": 512})
            exact = lacbed.record(entry, settings, template=0, structure=0)
            error[few] = np.abs(lacbed.few_beam_pattern(crystal, settings) - exact["pattern"]).max()
        assert error[10_000] < 2e-5 < error[5]


@pytest.mark.parametrize("absorption", [0.0, 0.1])
def test_absorption_and_several_thicknesses(absorption):
    entries, _ = entries_of(num_structures=1)
    fields = {k: v for k, v in TINY.items() if k in lacbed.Settings._fields}
    settings = lacbed.Settings(**fields, thicknesses=(1.0, 300.0), absorption=absorption)
    record = lacbed.record(entries[0], settings, template=0, structure=0)
    assert record["pattern"].shape == record["few_beam"].shape == (16, 16, 2)
    assert record["pattern"][..., 0].min() > 0.9  # one angstrom scatters little
    if absorption:
        # The mean absorption alone: exp(-4 pi t Im U_0 / 2K); scattering out of the beam can only add to it on average.
        assert record["pattern"][..., 1].mean() < 0.5


def test_pattern_that_has_not_converged_is_calculated_again(monkeypatch):
    entries, _ = entries_of(num_structures=1)
    fields = {k: v for k, v in TINY.items() if k in lacbed.Settings._fields}
    calls = []
    real = lacbed.bloch.lacbed
    monkeypatch.setattr(lacbed.bloch, "lacbed", lambda *a, **k: (calls.append(k), real(*a, **k))[1])
    loose = lacbed.record(entries[0], lacbed.Settings(**fields), template=0, structure=0)
    assert len(calls) == 1
    strict = lacbed.record(entries[0], lacbed.Settings(**{**fields, "tolerance": 1e-9}), template=0, structure=0)
    assert len(calls) == 1 + lacbed.ATTEMPTS and calls[-1]["num_strong"] > calls[0]["num_strong"]
    assert strict["convergence_error"] < loose["convergence_error"]


def test_too_large_cells_are_left_out_with_the_estimate():
    left = lacbed.make_dataset(**{**SIX, "max_lattice_parameter": None, "max_beams": 300}).recipe.attribution[-1]
    reasons = [r["reason"] for r in left["left_out"]]
    assert any("more than max_beams = 300; it would need up to" in r and r.endswith("GB") for r in reasons)
    with pytest.raises(ValueError, match=r"no crystal is left \(.*beams need about .* GB, more than max_memory_gb"):
        lacbed.make_dataset(**{**SIX, "max_lattice_parameter": None}, max_memory_gb=1e-6)
    with pytest.raises(ValueError, match=r"no crystal is left \(.*more than max_lattice_parameter = 1"):
        lacbed.make_dataset(**{**SIX, "max_lattice_parameter": 1.0})


def folder_of(tmp_path, *names):
    for path in crystals.bundled_cifs():
        if path.name.startswith(names):
            shutil.copy(path, tmp_path)
    return str(tmp_path)


def test_bad_files_of_a_folder_are_named_and_the_rest_is_used(tmp_path, caplog):
    folder = folder_of(tmp_path, "225_MgO", "221_ClCs", "229_Fe", "194_Be", "227_C_")
    (tmp_path / "broken.cif").write_text("data_x\n_cell_length_a 4.0\nloop_\n")
    (tmp_path / "empty.cif").write_text("")
    shutil.copy(next(tmp_path.glob("225_MgO*")), tmp_path / "z_again.cif")
    selection._warn.cache_clear()
    from absl import logging

    logging.get_absl_logger().propagate = True
    try:
        with caplog.at_level("WARNING", logger="absl"):
            dataset = lacbed.make_dataset(**TINY, cif_dir=folder, include_bundled=False)
            lacbed.make_dataset(**TINY, cif_dir=folder, include_bundled=False, split="test")
    finally:
        logging.get_absl_logger().propagate = False
    assert sorted(dataset.recipe.labels) == ["C", "ClCs", "Fe", "MgO"]
    named = {"194_Be", "broken.cif", "empty.cif", "z_again.cif"}
    told = [r.getMessage() for r in caplog.records]
    assert len(told) == len(named) and all(sum(n in t for t in told) == 1 and "\n" not in "".join(told) for n in named)
    left = {r["file"]: r["reason"] for r in dataset.recipe.attribution[-1]["left_out"]}
    assert len(left) == 4 and "duplicate of 225_MgO" in left["z_again.cif"]
    sources = [row["source"] for row in dataset.recipe.attribution[:-1]]
    assert len(sources) == 4 and all(sources)


def test_crystal_of_the_folder_replaces_its_bundled_twin(tmp_path):
    folder = folder_of(tmp_path, "225_MgO")
    mine, _ = entries_of(cif_dir=folder, num_structures=1)
    assert [e.origin for e in mine] == ["folder"]
    everything, _ = entries_of(cif_dir=folder)
    twins = [e for e in everything if e.info.formula == "MgO" and e.info.space_group == 225]
    assert [e.origin for e in twins] == ["folder"]


def test_no_usable_file_is_one_clear_error(tmp_path):
    (tmp_path / "broken.cif").write_text("data_x\n")
    with pytest.raises(ValueError, match=r"cif_dir: none of the 1 files .* can be used \(broken.cif"):
        lacbed.make_dataset(cif_dir=str(tmp_path))
    with pytest.raises(ValueError, match="cif_dir: there is no folder"):
        lacbed.make_dataset(cif_dir=str(tmp_path / "nowhere"))
    with pytest.raises(ValueError, match="cif_dir: expected a folder of CIF files, because include_bundled is off"):
        lacbed.make_dataset(include_bundled=False)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (dict(split="dev"), "split: expected one of train, validation, test"),
        (dict(split_by="group"), "split_by: expected 'template' or 'random'"),
        (dict(num_pixels=0), "num_pixels: expected an integer of at least 1"),
        (dict(num_structures=0), "num_structures: expected"),
        (dict(shard_size=0), "shard_size: expected"),
        (dict(voltage_kv=-200.0), "voltage_kv: expected a positive number"),
        (dict(max_g=float("nan")), "max_g: expected a positive number"),
        (dict(absorption=-0.1), "absorption: expected a number from 0"),
        (dict(thicknesses=()), "thicknesses: expected positive numbers"),
        (dict(thicknesses=(450.0, 0.0)), "thicknesses: expected positive numbers"),
        (dict(form_factors="mott"), "form_factors: expected one of kirkland, lobato, peng"),
    ],
)
def test_settings_outside_their_range_are_refused(change, message):
    with pytest.raises(ValueError, match=message):
        lacbed.make_dataset(**change)
