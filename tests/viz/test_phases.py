"""Figures of phase diagrams and spin states: what they show, and that they refuse what they cannot show."""

import io

import numpy as np
import pytest

from physml_jax.viz import phases, spins
from physml_jax.viz.phases import Line, Points

J2, T = np.array([0.0, 0.4, 0.5, 1.0]), np.array([0.5, 1.0, 2.0])
KNOWN = Line(np.array([0.0, 0.5]), np.array([2.27, 0.0]))
MEASURED = Points(J2, np.array([2.2, 0.9, np.nan, np.nan]), np.array([2.1, np.nan, np.nan, np.nan]), np.full(4, 2.3))


def drawn(figure):
    """Draws for real: a broken label or layout shows itself only then."""
    buffer = io.BytesIO()
    figure.savefig(buffer, dpi=40)
    return figure


def states(n, size=6, seed=0):
    return np.where(np.random.default_rng(seed).random((n, size, size)) < 0.5, -1, 1).astype(np.int8)


def test_edges_enclose_the_centres():
    found = phases.edges(J2)
    assert found.tolist() == pytest.approx([-0.2, 0.2, 0.45, 0.75, 1.25])
    assert phases.edges([2.0]).tolist() == [1.5, 2.5]


def test_maps_use_one_scale_and_mark_its_points():
    values = np.linspace(0, 0.6, 12).reshape(4, 3)
    values[1, 1] = np.nan
    dotted = np.zeros((4, 3), bool)
    dotted[2, 0] = dotted[3, 2] = True
    figure = drawn(
        phases.maps(
            {"a": values, "b": values[::-1]},
            x=J2,
            y=T,
            lines=[KNOWN],
            dotted={"a": dotted},
            boxes={"b": (0.0, 0.4, 0.5, 1.0)},
        )
    )
    left, right, bar = figure.axes
    for ax in (left, right):
        mesh = ax.collections[0]
        assert mesh.get_clim() == (0, 1) and len(ax.lines) == 1
        np.testing.assert_allclose(ax.lines[0].get_ydata(), KNOWN.y)
    assert left.collections[0].get_array().mask.sum() == 1
    np.testing.assert_allclose(left.collections[1].get_offsets(), [[0.5, 0.5], [1.0, 2.0]])
    assert len(right.collections) == 1 and right.patches[0].get_width() == pytest.approx(0.4)
    assert [t.get_text()[:3].strip() for t in bar.get_yticklabels()] == ["0 (", "0.5", "1 ("]


def test_diagram_fills_regions():
    codes = np.array([[0, 0, -1], [0, -1, -1], [-1, -1, -2], [1, 1, -1]])
    figure = drawn(
        phases.diagram(codes, x=J2, y=T, names=("F", "S", "P"), boundaries={"measured": MEASURED}, lines=[KNOWN])
    )
    shown = figure.axes[0].collections[0].get_array()
    assert shown.mask.sum() == 1 and sorted(set(shown.compressed())) == [0, 1, 2]
    assert [t.get_text() for t in figure.legends[0].texts] == ["literature", "measured", "F", "S", "P"]


def test_methods_show_differences():
    figure = drawn(
        phases.methods(
            {"F": {"a": MEASURED, "b": MEASURED._replace(low=None)}},
            lines={"F": KNOWN},
            known={"F": np.array([2.27, 0.867, np.nan, np.nan])},
            tolerance=0.05,
            shaded=(0.45, 0.6),
        )
    )
    above, below = figure.axes
    np.testing.assert_allclose(above.containers[0].lines[0].get_ydata(), [2.2, 0.9])
    np.testing.assert_allclose(below.containers[0].lines[0].get_ydata(), [-0.07, 0.033])
    assert below.get_ylim() == pytest.approx((-1.15 * 0.07, 1.15 * 0.07))
    # Methods at one coupling stand beside each other.
    assert below.containers[1].lines[0].get_xdata()[0] > below.containers[0].lines[0].get_xdata()[0]


def test_finite_size_leaves_out_what_is_unknown():
    points = Points(1 / np.array([30, 60]), np.array([2.33, 2.30]))
    figure = drawn(phases.finite_size({"F": {"J2 = 0": (points, 2.269), "J2 = 0.49": (points, np.nan)}}))
    assert [t.get_text() for t in figure.axes[0].get_legend().texts] == ["J2 = 0"]
    np.testing.assert_allclose(figure.axes[0].containers[0].lines[0].get_ydata(), [0.061, 0.031])


def test_check_against_exact_curves():
    figure = drawn(
        phases.exact_check(
            T,
            {"energy": (-T, 0.1 * T, {"exact": (T, -T)}), "m": (T, None, {"exact": (T, T)})},
            residual=np.array([0.0, 1.0, -5.0]),
        )
    )
    assert len(figure.axes) == 3 and figure.axes[2].get_ylim()[0] < -5


def test_pairs_show_states_above_reconstructions():
    some = states(5)
    figure = drawn(spins.pairs(some, -some, titles=list("abcde"), notes=["x"] * 5, columns=4))
    shown = [ax.images[0].get_array() for ax in figure.axes if ax.images]
    assert len(shown) == 10
    np.testing.assert_array_equal(figure.axes[0].images[0].get_array(), some[0])
    np.testing.assert_array_equal(figure.axes[4].images[0].get_array(), -some[0])
    assert not figure.axes[9].axison  # the fifth stands alone in its row


def test_galleries_histograms_and_latent_space():
    figure = drawn(spins.galleries({"true": states(4), "made": states(4, seed=1)}))
    assert sum(bool(ax.images) for ax in figure.axes) == 8
    values = np.linspace(-1, 1, 50)
    figure = drawn(
        spins.histograms({"energy": {"true": values, "made": values[:7]}}, marks={"energy": {"least": -2.0}})
    )
    assert {t.get_text() for t in figure.legends[0].texts} == {"true", "made", "least"}
    assert figure.axes[0].get_xlim()[0] <= -2
    points = np.random.default_rng(0).normal(size=(50, 2))
    colours = {"T": np.arange(50.0), "m": values}
    figure = drawn(spins.latent(points, colours, axes_labels=("a", "b"), cyclic=("m",)))
    assert figure.axes[1].collections[0].get_clim() == (-1, 1)


@pytest.mark.parametrize(
    ("call", "match"),
    [
        (lambda: phases.maps({}, x=J2, y=T), "panels: expected at least one"),
        (lambda: phases.maps({"a": np.zeros((3, 4))}, x=J2, y=T), r"panels\['a'\]: expected shape \(4, 3\)"),
        (lambda: phases.diagram(np.zeros((3, 4)), x=J2, y=T, names="FSP", boundaries={}), "codes: expected shape"),
        (lambda: phases.methods({}, lines={}, known={}), "panels: expected at least one"),
        (lambda: phases.finite_size({}), "panels: expected at least one"),
        (lambda: spins.pairs(states(2), states(3), titles=["a"] * 2, notes=["b"] * 2), "states, reconstructions"),
        (lambda: spins.pairs(states(2), states(2), titles=["a"], notes=["b"] * 2), "titles, notes: expected 2"),
        (lambda: spins.galleries({"a": states(2), "b": states(3)}), "groups: expected states of one number"),
        (lambda: spins.histograms({}, marks={}), "panels: expected at least one"),
        (lambda: spins.latent(np.zeros((3, 2)), {"T": np.zeros(4)}, axes_labels=("a", "b")), "points, colours"),
    ],
)
def test_bad_input(call, match):
    with pytest.raises(ValueError, match=match):
        call()
