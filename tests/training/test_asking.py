"""A measured pattern as the input of a network: where spots come to lie, and what is refused."""

import json

import jax
import numpy as np
import pytest

from physml_jax.analysis.pattern_spots import read_pattern
from physml_jax.training import asking


def pattern(pixels=200, centre=(91.0, 108.0), scale=0.008):
    y, x = np.mgrid[:pixels, :pixels]
    places = np.array(centre) + np.array([[40, 10], [-40, -10], [-15, 50], [15, -50], [0, 0]])
    image = 5.0 + sum(
        h * np.exp(-((x - u) ** 2 + (y - v) ** 2) / 8)
        for (u, v), h in zip(places, (400, 300, 200, 100, 4000), strict=True)
    )
    return image, read_pattern(image, scale=scale, centre=centre), places


@pytest.mark.parametrize("grid", [None, 0.6])
def test_spots_lie_where_the_scale_says(grid):
    image, found, places = pattern()
    shape = jax.ShapeDtypeStruct
    spec = {
        "image": shape((64, 64, 1), np.float32),
        "scale": shape((), np.float32),
        "phase": shape((), np.int32),
        "spots": shape((6, 3), np.float32),
    }
    batch = asking.network_input(image, found, {"grid": grid, "extent": (0.7, 0.9), "exponent": 0.5}, spec)
    half = grid or 0.8
    assert {k: v.shape for k, v in batch.items()} == {k: (1, *s.shape) for k, s in spec.items()}
    assert batch["scale"][0] == pytest.approx(2 * half / 64)
    drawn = batch["image"][0, ..., 0]
    assert drawn.max() == 1 and drawn.min() >= 0
    for place in places:
        x, y = 31.5 + (place - (91.0, 108.0)) * 0.008 / (2 * half / 64)
        around = drawn[round(y) - 2 : round(y) + 3, round(x) - 2 : round(x) + 3]
        row, column = np.unravel_index(around.argmax(), around.shape)
        assert abs(row + round(y) - 2 - y) < 1.1 and abs(column + round(x) - 2 - x) < 1.1
    np.testing.assert_allclose(batch["spots"][0, 0], [0.32, -0.08, 1.0], atol=2e-3)
    assert (batch["spots"][0, 4:] == 0).all() and (np.diff(batch["spots"][0, :4, 2]) < 0).all()


def test_refusals(tmp_path):
    image, found, _ = pattern()
    with pytest.raises(ValueError, match="network: there is no work directory"):
        asking.probabilities(tmp_path / "gone", image, found)
    config = {"data": {"name": "ising"}, "task": {"name": "autoencoding"}}
    (tmp_path / "config.json").write_text(json.dumps(config))
    with pytest.raises(ValueError, match="expected a run of classification of saed, got autoencoding of ising"):
        asking.probabilities(tmp_path, image, found)
