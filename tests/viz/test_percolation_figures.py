"""Figures of percolation: what is drawn where, colours that mean something, nothing cut off."""

import io

import numpy as np
import pytest
import scipy.ndimage
from matplotlib import image as mpl_image

from physml_jax.viz import confusion, lattices, transitions
from physml_jax.viz.transitions import Band, Scaling


def drawn(figure):
    """Draws the figure; fails where it is blank or where a text leaves it."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=figure.dpi)
    buffer.seek(0)
    assert np.mean(np.any(mpl_image.imread(buffer)[..., :3] < 0.9, axis=-1)) > 0.005
    width, height = figure.get_size_inches() * figure.dpi
    for ax in figure.axes:
        shown = [*ax.texts, ax.title, ax.xaxis.label, ax.yaxis.label]
        for text in shown if ax.axison else []:
            if text.get_visible() and text.get_text().strip():
                box = text.get_window_extent()
                inside = box.x0 >= -2 and box.y0 >= -2 and box.x1 <= width + 2 and box.y1 <= height + 2
                assert inside, text.get_text()


def rgb(colour):
    return [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]


@pytest.fixture(scope="module")
def states():
    return np.random.default_rng(0).random((3, 24, 24)) < np.array([0.45, 0.6, 0.7])[:, None, None]


def test_colours_of_clusters(states):
    labels = scipy.ndimage.label(states[1])[0]
    picture = lattices.coloured(labels, np.array([2]))
    np.testing.assert_allclose(picture[labels == 0], np.broadcast_to(rgb(lattices.EMPTY), (np.sum(labels == 0), 3)))
    np.testing.assert_allclose(picture[labels == 2], np.broadcast_to(rgb(lattices.ACCENT), (np.sum(labels == 2), 3)))
    for i in range(1, labels.max() + 1):
        assert len(np.unique(picture[labels == i], axis=0)) == 1
    assert not np.any(np.all(picture[labels != 2] == rgb(lattices.ACCENT), axis=-1))


def test_clusters_across_one_empty_site_differ(states):
    labels = scipy.ndimage.label(states[0])[0]
    picture = lattices.coloured(labels, np.array([], int))
    pairs = 0
    for i, j in zip(*np.nonzero(labels == 0), strict=True):
        for a, b in (((i - 1, j), (i + 1, j)), ((i, j - 1), (i, j + 1))):
            if min(*a, *b) < 0 or max(*a, *b) > 23 or 0 in (labels[a], labels[b]) or labels[a] == labels[b]:
                continue
            pairs += 1
            assert not np.array_equal(picture[a], picture[b])
    assert pairs > 20


def test_lattices_without_empty_or_occupied_sites():
    lattices.coloured(np.zeros((3, 3), int), np.array([], int))
    full = lattices.coloured(np.ones((3, 3), int), np.array([1]))
    np.testing.assert_allclose(full, np.broadcast_to(rgb(lattices.ACCENT), (3, 3, 3)))


def test_clusters_figure(states):
    labels = np.array([scipy.ndimage.label(s)[0] for s in states])
    figure = lattices.clusters(labels, [np.array([], int)] * 3, titles=["a", "b\nsecond line", "c"], columns=2)
    assert [ax.axison for ax in figure.axes] == [True, True, True, False]
    drawn(figure)
    with pytest.raises(ValueError, match="titles: expected 3"):
        lattices.clusters(labels, [[]] * 3, titles=["a"])
    with pytest.raises(ValueError, match="labels"):
        lattices.clusters(labels[0], [[]], titles=["a"])


def test_flood_counts_the_sites_that_are_wrong(states):
    joined = np.array([np.isin(x, x[0][x[0] > 0]) for x in (scipy.ndimage.label(s)[0] for s in states)])
    arrival = np.where(joined, np.arange(24)[None, :, None], -1.0)
    missed = np.flatnonzero(joined[1])[:5]
    arrival[1].flat[missed] = -1
    figure = lattices.flood(states, joined, arrival, titles=["a", "b", "c"])
    texts = [ax.get_xlabel() for ax in figure.axes[2::3]]
    assert texts[0] == "no site wrong" and texts[1] == f"5 of {states[1].sum()} sites wrong"
    drawn(figure)
    drawn(lattices.flood(states[:1], joined[:1], np.full((1, 24, 24), -1.0), titles=["never"]))
    with pytest.raises(ValueError, match="arrival"):
        lattices.flood(states, joined, arrival[:2], titles=["a", "b", "c"])


X = np.linspace(0.5, 0.7, 11)


def test_bands():
    curves = {"bound": Band(X, reference=True), "net": Band(X**2, X**2 - 0.1, X**2 + 0.1)}
    figure = transitions.bands(X, curves, xlabel="p", ylabel="accuracy", limits=(0.55, 0.65), marks={"$p_c$": 0.593})
    ax = figure.axes[0]
    assert ax.get_xlim() == (0.55, 0.65) and len(ax.collections) == 1
    # The range of y is that of what is shown, with the band, not of the whole curve.
    assert ax.get_ylim()[0] == pytest.approx(0.56**2 - 0.1, abs=0.03) and ax.get_ylim()[1] < 0.7
    drawn(figure)
    with pytest.raises(ValueError, match=r"curves\['net'\]"):
        transitions.bands(X, {"net": Band(X[:2])}, xlabel="p", ylabel="y")


@pytest.mark.parametrize("count", [1, 2, 4])
def test_panels(count):
    groups = {f"model {i}": {"truth": Band(X, reference=True), "answered": Band(1 - X)} for i in range(count)}
    figure = transitions.panels(X, groups, xlabel="p", ylabel="share", marks={"$p_c$": 0.593})
    assert sum(ax.axison for ax in figure.axes) == count
    assert [t.get_text() for t in figure.legends[0].get_texts()] == ["truth", "answered"]
    drawn(figure)
    with pytest.raises(ValueError, match="groups"):
        transitions.panels(X, {}, xlabel="p", ylabel="share")


def test_collapse():
    size = np.repeat([16, 32], 11)
    p, share = np.tile(X, 2), np.tile(np.linspace(0, 1, 11), 2)
    fit = Scaling(p, size, share, share - 0.1, share + 0.1, (p - 0.6) * size, np.ones(22, bool), (X, X), "$p_c$ = 0.6")
    none = fit._replace(x=None, used=None, curve=None, text="")
    figure = transitions.collapse({"true labels": fit, "net": none}, critical=0.593)
    assert len(figure.axes) == 4
    assert figure.axes[0].get_xlim() == figure.axes[2].get_xlim()
    assert [t.get_text() for t in figure.axes[3].texts] == ["no fit"]
    drawn(figure)
    drawn(transitions.collapse({"net": none}))
    with pytest.raises(ValueError, match="sources"):
        transitions.collapse({})


def test_scatter_of_errors():
    rng = np.random.default_rng(0)
    x = rng.random(200)
    figure = transitions.scatter_of_errors(
        x,
        {"net": 0.5 - x, "line": 0 * x, "baseline: monotone function of density": x},
        xlabel="density",
        ylabel="error",
    )
    line = figure.axes[0].get_lines()[1]
    np.testing.assert_allclose(line.get_ydata(), 0.5 - line.get_xdata())
    drawn(figure)
    with pytest.raises(ValueError, match="expected 200 values"):
        transitions.scatter_of_errors(x, {"net": x[:5]}, xlabel="x", ylabel="y")


def test_confusion_with_row_sums_and_errors():
    matrix, errors = np.array([[90.5, 10.0], [3.0, 97.0]]), np.full((2, 2), 0.25)
    figure = confusion.confusion(matrix, names=["no", "yes"], errors=errors)
    assert [t.get_text() for t in figure.axes[0].get_yticklabels()] == ["no\n(100.5)", "yes\n(100)"]
    assert figure.axes[0].texts[0].get_text() == "90.5\n± 0.2\n90.0 %"
    drawn(figure)
    figure = confusion.confusions({"a": matrix, "b": matrix}, names=["no", "yes"], errors={"a": errors, "b": None})
    assert [ax.get_title() for ax in figure.axes] == ["a", "b"]
    drawn(figure)
    many = confusion.confusion(np.eye(31, dtype=int), names=[f"{i / 31:.3f}" for i in range(31)])
    assert len(many.axes[0].get_xticklabels()) == 31
    drawn(many)
    with pytest.raises(ValueError, match="matrices"):
        confusion.confusions({})
