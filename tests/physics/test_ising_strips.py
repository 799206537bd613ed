"""Strips: the reduced matrices against the full one, and crossings against known transition temperatures."""

import itertools

import numpy as np
import pytest

from physml_jax.simulators.ising import strips
from physml_jax.simulators.ising.exact import ONSAGER_TC


@pytest.mark.parametrize(("temperature", "j2"), [(2.0, 0.0), (1.1, 0.4), (1.0, 0.7), (3.0, 1.5)])
@pytest.mark.parametrize("width", [4, 6])
def test_gap_is_that_of_the_full_matrix(width, temperature, j2):
    """Eigenvectors of the 2^W x 2^W matrix, sorted by what turning over and shifting do to them."""
    rows = np.array(list(itertools.product((-1, 1), repeat=width)))
    cost = np.zeros((2**width, 2**width))
    for (a, x), (b, y) in itertools.product(enumerate(rows), repeat=2):
        for k in range(width):
            n = (k + 1) % width
            cost[a, b] += -x[k] * y[k] - (x[k] * x[n] + y[k] * y[n]) / 2 + j2 * (x[k] * y[n] + x[n] * y[k])
    full = np.exp(-cost / temperature)
    number = {tuple(x): i for i, x in enumerate(rows)}
    identity = np.eye(len(rows))
    turn = identity[[number[tuple(-x)] for x in rows]]
    shift = identity[[number[tuple(np.roll(x, 1))] for x in rows]]
    powers = [np.linalg.matrix_power(shift, k) for k in range(width)]
    largest = np.linalg.eigvalsh(full)[-1]
    for order, sign in (("row", 1), ("column", -1)):
        projector = (identity - turn) / 2 @ sum(sign**k * p for k, p in enumerate(powers)) / width
        odd = np.abs(np.linalg.eigvalsh(projector @ full @ projector)).max()
        want = width * np.log(largest / odd)
        np.testing.assert_allclose(strips.scaled_gap(width, temperature, j2, order=order), want, rtol=1e-9)


def test_crossings_tend_to_onsager():
    """Like L^-3: what is left falls by (L / (L + 2))^3, and at L = 8 it is 0.0025."""
    left = [strips.crossing((w, w + 2), 0.0, low=2.1, high=2.5) - ONSAGER_TC for w in (4, 6, 8)]
    np.testing.assert_allclose(left, [0.0186, 0.0058, 0.0025], atol=1e-4)
    np.testing.assert_allclose(left[2] / left[1], (7 / 9) ** 3, rtol=0.1)


@pytest.mark.parametrize(("j2", "known"), [(0.6, 0.973), (0.7, 1.290), (0.8, 1.569), (1.2, 2.573)])
def test_stripes_are_enclosed(j2, known):
    """Crossings of one order rise with the width, those of the other fall; the known value (+-0.003) is between."""
    column, row = (
        strips.crossing((8, 10), j2, low=0.9 * known, high=1.1 * known, order=order, steps=20)
        for order in ("column", "row")
    )
    assert column - 0.003 < known < row + 0.003 and row - column < 0.015


def test_bad_input_is_refused():
    for change, name in [
        (dict(width=5), "width"),
        (dict(width=16), "width"),
        (dict(temperature=0.0), "temperature"),
        (dict(temperature=np.nan), "temperature"),
        (dict(order="diagonal"), "order"),
    ]:
        with pytest.raises(ValueError, match=f"{name}: "):
            strips.scaled_gap(**(dict(width=4, temperature=1.0, j2=0.1) | change))
    with pytest.raises(ValueError, match="do not cross"):
        strips.crossing((4, 6), 0.0, low=3.0, high=4.0)
