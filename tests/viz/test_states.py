"""Figures of Anderson states and of the ladder: where the box lies, what has which colour, nothing cut off."""

import io

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from matplotlib import image as mpl_image

from physml_jax.simulators import anderson
from physml_jax.viz import ladder, states
from physml_jax.viz.ladder import Value

WIDTHS = [f"{w:g}" for w in (15, 15.25, *np.arange(15.5, 19.1, 0.25))]


def drawn(figure):
    """The picture; fails where it is blank or where a text leaves it."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=figure.dpi)
    buffer.seek(0)
    picture = mpl_image.imread(buffer)[..., :3]
    assert np.mean(np.any(picture < 0.9, axis=-1)) > 0.005
    width, height = figure.get_size_inches() * figure.dpi
    for ax in figure.axes:
        for text in [*ax.texts, ax.title, ax.xaxis.label, ax.yaxis.label]:
            if text.get_visible() and text.get_text().strip():
                box = text.get_window_extent()
                inside = box.x0 >= -2 and box.y0 >= -2 and box.x1 <= width + 2 and box.y1 <= height + 2
                assert inside, text.get_text()
    return picture


@pytest.fixture(scope="module")
def full():
    """All sites alike: cubes of edge one fill the box of the lattice."""
    draw = jax.jit(lambda psi: anderson.cube_view(psi, pixels=96, threshold=0.5, supersample=1, margin=0.1))
    return np.asarray(draw(jnp.ones((1, 4, 4, 4), jnp.float32)))


def test_box_is_where_the_cubes_are(full):
    corners = states.box_corners(4, 96, 0.1)
    rows, columns = np.nonzero(full[0, ..., 3] > 0.5)
    np.testing.assert_allclose([columns.min(), columns.max()], [corners[:, 0].min(), corners[:, 0].max()], atol=1)
    np.testing.assert_allclose([rows.min(), rows.max()], [corners[:, 1].min(), corners[:, 1].max()], atol=1)
    # The corner nearest the viewer is where three faces of different brightness meet.
    near = corners[[i for i in range(8) if i not in (corners[:, 0].argmin(), corners[:, 0].argmax())]]
    inside = [c for c in near if 20 < c[0] < 76 and 20 < c[1] < 76]
    assert inside and all(full[0, int(y), int(x), 3] > 0.5 for x, y in inside)


def test_cubes_figure(full):
    figure = states.cubes(np.repeat(full, 3, 0), size=4, titles=["a", "b\nc", "d"], margin=0.1)
    drawn(figure)
    assert "slice" in figure.axes[2].child_axes[0].get_ylabel()
    figure = states.cubes(full, size=4, titles=["a"], seen=full[:, ::4, ::4], seen_title="seen")
    picture = drawn(figure)
    assert np.mean(np.all(picture == 0, axis=-1)) > 0.05  # transparent is black for the network
    np.testing.assert_allclose(states.on_black(np.array([1.0, 0.5, 0, 0.5])), [0.5, 0.25, 0])
    with pytest.raises(ValueError, match="titles: expected 1"):
        states.cubes(full, size=4, titles=[])
    with pytest.raises(ValueError, match="seen: expected 1 pictures"):
        states.cubes(full, size=4, titles=["a"], seen=np.repeat(full, 2, 0))
    with pytest.raises(ValueError, match="pictures: expected colours in 0..1"):
        states.cubes(2 * full, size=4, titles=["a"])
    with pytest.raises(ValueError, match=r"pictures: expected pictures \[n, P, P, 4\]"):
        states.cubes(full[..., :3], size=4, titles=["a"])


def test_bars():
    rungs = {"local rule": Value(0.9, 0.85, 0.95), "α₀": Value(0.1, 0.05, 0.15)}
    group = {"accuracy": {"network": Value(0.5, 0.4, 0.6, learned=True), **rungs}}
    figure = ladder.bars(
        {"L = 5": group, "L = 6": group}, labels={"accuracy": "accuracy"}, chance={"L = 5": {"accuracy": 0.06}}
    )
    drawn(figure)
    ax = figure.axes[0]
    assert [t.get_text() for t in ax.get_yticklabels()] == ["network", "local rule", "α₀"]
    assert ax.patches[0].get_facecolor()[:3] == (0, 0, 0) and ax.patches[0].get_width() == 0.5
    with pytest.raises(ValueError, match="α₀: expected finite"):
        ladder.bars({"a": {"s": {"α₀": Value(np.nan)}}}, labels={"s": "s"}, chance={})
    with pytest.raises(ValueError, match="groups: expected at least one"):
        ladder.bars({}, labels={}, chance={})


def test_probes_and_trends_share_colours():
    panels = {"ResNet": {"rule": [Value(0.9), Value(0.1), None], "network": [Value(0.5, 0.4, 0.6, True)] * 3}}
    figure = ladder.probes(panels, names=["as they\nare", "signs", "8 bits"], chance=0.1)
    drawn(figure)
    rule = figure.axes[0].containers[0].lines[0]
    assert rule.get_color() == ladder.colours(["rule"])["rule"] and len(rule.get_xdata()) == 2
    with pytest.raises(ValueError, match="'rule' has 3 values for 1 sets"):
        ladder.probes(panels, names=["a"], chance=0.1)
    lines = {
        "accuracy": {"network": {5: Value(0.2, 0.1, 0.3, True), 8: Value(0.4, learned=True)}, "rule": {8: Value(0.9)}}
    }
    figure = ladder.trends(lines, xlabel="$L$", chance={"accuracy": 0.06})
    drawn(figure)
    assert [t.get_text() for t in figure.axes[0].get_xticklabels()] == ["5", "8"]
    assert figure.axes[0].containers[1].lines[0].get_color() == rule.get_color()
    figure = ladder.over_width(
        np.array([15, 16.0, 18]),
        {t: {"network": (np.array([0.1, 0.2, 0.3]), np.full(3, 0.05)), "rule": (np.ones(3), None)} for t in "abc"},
        learned="network",
        chance=0.06,
        critical=16.53,
    )
    drawn(figure)
    assert figure.axes[0].get_lines()[1].get_color() == rule.get_color()
    with pytest.raises(ValueError, match="'n' has 2 values for 3 W"):
        ladder.over_width(np.arange(3), {"a": {"n": (np.ones(2), None)}}, learned="n", chance=0)


def test_seventeen_classes_are_readable():
    counts = np.random.default_rng(0).poisson(np.exp(-np.abs(np.subtract.outer(np.arange(17), np.arange(17))) / 3) * 20)
    counts[4] = 0
    figure = ladder.matrices({"network": counts}, names=WIDTHS)
    drawn(figure)
    ax = figure.axes[0]
    assert [t.get_text() for t in ax.get_xticklabels()] == WIDTHS == [t.get_text() for t in ax.get_yticklabels()]
    share = ax.images[0].get_array()
    assert np.ma.getmaskarray(share)[4].all() and ax.images[0].get_clim()[1] == pytest.approx(share.max())
    texts = {(t.get_position()[1], t.get_position()[0]): t.get_text() for t in ax.texts}
    assert texts[0, 0] == f"{100 * counts[0, 0] / counts[0].sum():.0f}" and (4, 4) not in texts
    drawn(ladder.matrices({k: counts for k in "abcd"}, names=WIDTHS))
    with pytest.raises(ValueError, match=r"a: expected counts \[17, 17\]"):
        ladder.matrices({"a": counts[:3]}, names=WIDTHS)


def test_training_curves():
    rows = [{"step": s, "loss": 2.8 - s / 100, "loss_stderr": 0.1, "accuracy": s / 100} for s in range(0, 60, 20)]
    rows += [{"step": 60, "validation/loss": 2.5, "validation/accuracy": 0.4}]
    figure = ladder.training({"a": rows}, chance={"loss": 2.83})
    drawn(figure)
    assert [t.get_text() for t in figure.legends[0].get_texts()] == ["training", "validation", "chance"]
    assert figure.axes[0].get_ylim()[0] > 1.5 and figure.axes[1].get_ylim()[0] == 0
    both = ladder.training({"a": rows, "b": rows}, chance={})
    assert [t.get_text() for t in both.legends[0].get_texts()] == ["a", "b"]
    assert ladder.training({"a": [{"step": 1, "time_s": 2.0}]}, chance={}) is None
