"""A folder of images with a table: splits, numbers of classes, prepared pixels, turned copies, bad tables."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from physml_jax.data import image_folder

SIZE = 12


@pytest.fixture
def folder(tmp_path):
    rng = np.random.default_rng(0)
    lines = ["file,label"]
    for i in range(20):
        np.save(tmp_path / f"{i}.npy", rng.random((SIZE, SIZE + 2)))
        lines.append(f"{i}.npy,{'rutile' if i < 10 else 'anatase'}")
    (tmp_path / "table.csv").write_text("\n".join(lines))
    return tmp_path


def test_splits_and_records(folder):
    """Splits are disjoint, complete and stratified; records are the scaled middles in the order of the table."""
    options = {"table": str(folder / "table.csv"), "pixels": 6, "fractions": (0.7, 0.1, 0.2), "shard_size": 8}
    sets = {s: image_folder.make_dataset(split=s, **options) for s in image_folder.SPLITS}
    assert [sets[s].num_examples for s in image_folder.SPLITS] == [14, 2, 4]
    assert sorted(np.concatenate([d.rows for d in sets.values()])) == list(range(20))
    recipe = sets["train"].recipe
    assert recipe.shard_lengths == (8, 8, 4)
    records = [r for i in range(3) for r in recipe.shard(i)]
    assert [int(r["label"]) for r in records] == [1] * 10 + [0] * 10
    assert np.bincount([records[i]["label"] for i in sets["test"].rows]).tolist() == [2, 2]
    plain = np.load(folder / "3.npy").astype(np.float32)[:, 1:-1].reshape(6, 2, 6, 2).mean((1, 3))
    expected = (plain - plain.min()) / np.ptp(plain)
    np.testing.assert_allclose(records[3]["image"][..., 0], expected, atol=1e-5)
    named = image_folder.make_dataset(**options, classes=("rutile", "anatase", "brookite"))
    assert int(named.recipe.shard(0)[0]["label"]) == 0


def test_content_names_the_data(folder):
    """Another pixel, another folder of records; the same files, the same."""
    options = {"table": str(folder / "table.csv"), "pixels": 6}
    first = image_folder.make_dataset(**options).recipe.config
    assert image_folder.make_dataset(**options).recipe.config == first
    np.save(folder / "3.npy", np.arange(SIZE * SIZE).reshape(SIZE, SIZE))
    assert image_folder.make_dataset(**options).recipe.config != first


def test_turned_copies(folder):
    """Quarter turns are exact; the label stays."""
    made = image_folder.make_dataset(table=str(folder / "table.csv"), pixels=SIZE, num_rotations=4)
    assert made.num_examples == 64 and made.rows[:5].tolist() == [made.rows[0]] * 4 + [made.rows[4]]
    records = made.recipe.shard(0)[:1] * 4
    records = {k: jnp.asarray(np.stack([r[k] for r in records])) for k in records[0]}
    found = jax.jit(made.decode)(records, jnp.arange(4))
    for k in range(4):
        np.testing.assert_allclose(found["image"][k, ..., 0], np.rot90(records["image"][0, ..., 0], k), atol=1e-4)
    np.testing.assert_array_equal(found["label"], records["label"])


def test_given_splits(folder):
    (folder / "table.csv").write_text("file,label,split\n0.npy,a,train\n1.npy,a,test\n2.npy,b,test\n")
    made = image_folder.make_dataset(table=str(folder / "table.csv"), split="test", pixels=6)
    assert made.rows.tolist() == [1, 2]
    with pytest.raises(ValueError, match="no image of .* is in 'validation'"):
        image_folder.make_dataset(table=str(folder / "table.csv"), split="validation", pixels=6)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("name,label\n0.npy,a\n", "columns file and label"),
        ("file,label\n", "columns file and label"),
        ("file,label\n0.npy,\n", "line 2"),
        ("file,label\n99.npy,a\n", "line 2: 99.npy is missing"),
        ("file,label\n0.npy,a\n0.npy,b\n", "line 3: 0.npy is listed twice"),
        ("file,label,split\n0.npy,a,tset\n", "one of train, validation, test"),
        ("file,label,split\n0.npy,a,train\n1.npy,a,\n", "in every line or in none"),
    ],
)
def test_bad_tables(folder, text, message):
    (folder / "table.csv").write_text(text)
    with pytest.raises(ValueError, match=message):
        image_folder.make_dataset(table=str(folder / "table.csv"))


def test_bad_options(folder):
    table = str(folder / "table.csv")
    wrong = {"split": "tset", "pixels": 0, "white": 0.0, "fractions": (0.5, 0.0, 0.2), "classes": ("rutile",)}
    for name, value in wrong.items():
        with pytest.raises(ValueError, match=name):
            image_folder.make_dataset(table=table, **{name: value})
    with pytest.raises(ValueError, match="there is no file"):
        image_folder.make_dataset(table="nowhere.csv")
    with pytest.raises(ValueError, match=r"0.npy: crop, pixels"):
        image_folder.make_dataset(table=table, crop=99).recipe.shard(0)
