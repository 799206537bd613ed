"""Files of patterns: what is written is read, and each kind of damage is one error that names the file."""

import json

import numpy as np
import pytest

from physml_jax.io import patterns


def arrays(t=2, r=3, n=4):
    return {
        "images": np.arange(t * r * n * n, dtype=np.float32).reshape(t, r, n, n),
        "thicknesses": np.linspace(100, 200, t),
        "reflections": np.arange(3 * r, dtype=np.int32).reshape(r, 3),
        "half_width": np.array(0.5),
        "zone_axis": np.array([0, 0, 1], np.int32),
        "voltage_kv": np.array(200.0),
    }


def test_round_trip(tmp_path):
    path = patterns.write_patterns(tmp_path / "p.npz", arrays(), {"settings": {"max_g": 2.0}})
    found, about = patterns.read_patterns(path)
    for name, value in arrays().items():
        np.testing.assert_array_equal(found[name], value)
    assert about["settings"] == {"max_g": 2.0} and about["units"]["thicknesses"] == "angstrom"
    assert found["dose"] == 0


def test_a_file_of_one_s_own(tmp_path):
    np.savez(tmp_path / "p.npz", **arrays(t=1))
    found, about = patterns.read_patterns(tmp_path / "p.npz")
    assert found["images"].shape == (1, 3, 4, 4) and about == {}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"images": None}, "lacks images"),
        ({"images": np.zeros((2, 2, 4, 4))}, r"images: expected shape \(2, 3, N, N\)"),
        ({"images": np.zeros((2, 3, 4, 5))}, "images: expected shape"),
        ({"zone_axis": np.zeros(2)}, r"zone_axis: expected shape \(3,\)"),
        ({"about": np.array("{")}, "about is no JSON"),
        ({"images": np.array([{}])}, "not an npz file of arrays"),
    ],
)
def test_damage(tmp_path, change, message):
    held = {k: v for k, v in (arrays() | change).items() if v is not None}
    np.savez(tmp_path / "p.npz", **held)
    with pytest.raises(ValueError, match=f"p.npz.*{message}"):
        patterns.read_patterns(tmp_path / "p.npz")


def test_no_npz(tmp_path):
    (tmp_path / "p.npz").write_bytes(b"PK\x03\x04 and then nothing")
    with pytest.raises(ValueError, match=r"p.npz: not an npz file"):
        patterns.read_patterns(tmp_path / "p.npz")
    with pytest.raises(OSError, match="there is no such file"):
        patterns.read_patterns(tmp_path / "q.npz")
    with pytest.raises(ValueError, match="arrays: half_width missing"):
        patterns.write_patterns(tmp_path / "q.npz", {k: v for k, v in arrays().items() if k != "half_width"}, {})


def test_state(tmp_path):
    assert patterns.read_state(tmp_path) == {}
    patterns.write_state(tmp_path, {"values": (1.5, 2.0)})
    assert patterns.read_state(tmp_path) == {"values": [1.5, 2.0]}
    (tmp_path / patterns.STATE).write_text(json.dumps([1])[:1])
    with pytest.raises(ValueError, match="is damaged"):
        patterns.read_state(tmp_path)
