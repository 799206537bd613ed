"""Figures are looked at by people; a program can hold them to this: panels, content, nothing cut off."""

import io

import matplotlib
import numpy as np
import pytest
from matplotlib import image as mpl_image
from matplotlib.text import Text

from physml_jax.viz import confusion, curves, groups, images, style


def drawn(figure):
    """The figure as an array; fails where it is blank or where a text leaves the figure."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=figure.dpi)  # texts are where this drawing put them
    buffer.seek(0)
    pixels = mpl_image.imread(buffer)
    assert np.mean(np.any(pixels[..., :3] < 0.9, axis=-1)) > 0.005
    width, height = figure.get_size_inches() * figure.dpi
    for text in figure.findobj(Text):
        if text.get_visible() and text.get_text().strip():
            box = text.get_window_extent()
            inside = box.x0 >= -2 and box.y0 >= -2 and box.x1 <= width + 2 and box.y1 <= height + 2
            # Ticks beyond the limits of an axis keep a text that is never drawn.
            assert inside or _hidden_tick(figure, text), text.get_text()
    return pixels


def _hidden_tick(figure, text):
    for ax in figure.axes:
        for axis in (ax.xaxis, ax.yaxis):
            low, high = sorted(axis.get_view_interval())
            for tick in axis.get_major_ticks() + axis.get_minor_ticks():
                if text in (tick.label1, tick.label2):
                    return not low <= tick.get_loc() <= high
    return False


def patterns(seed, n=2, size=16):
    return np.random.default_rng(seed).random((n, size, size)).astype(np.float32)


def test_prediction_rows():
    truth, prediction = patterns(0), patterns(1)
    figure = images.prediction_rows(
        100 * patterns(2),
        prediction,
        truth,
        labels=["GaAs\nF43m", "NaCl"],
        scores=[0.5, 1.0],
        cell=[5.65, 5.64],
        half_width=1.0,
    )
    assert len(figure.axes) == 8  # colour bars are children of the pictures
    for i in range(2):
        row = [figure.axes[4 * i + j].get_images()[0] for j in range(4)]
        assert row[1].get_clim() == row[2].get_clim()
        assert row[1].get_clim() == pytest.approx(
            (min(truth[i].min(), prediction[i].min()), max(truth[i].max(), prediction[i].max()))
        )
        low, high = row[3].get_clim()
        assert low == -high and high == pytest.approx(np.abs(prediction[i] - truth[i]).max())
        assert all(p.origin == "lower" for p in row)
    assert figure.axes[0].get_images()[0].get_extent() == [0, 5.65, 0, 5.65]
    assert figure.axes[1].get_images()[0].get_extent() == [-1, 1, -1, 1]
    assert "0.5000" in figure.axes[1].get_title()
    drawn(figure)


def test_a_perfect_and_a_constant_prediction_can_be_drawn():
    flat = np.zeros((1, 8, 8), np.float32)
    drawn(images.prediction_rows(flat, flat, flat, labels=["vacuum"]))


@pytest.mark.parametrize(
    ("change", "match"),
    [
        ({"predictions": patterns(1, 3)}, "predictions: expected 2 rows"),
        ({"predictions": patterns(1, 2, 8)}, "predictions: expected shape"),
        ({"labels": ["one"]}, "labels: expected 2 rows"),
        ({"truths": np.full((2, 4, 4), np.nan)}, "truths: values are not finite"),
        ({"truths": np.zeros((0, 4, 4))}, "truths: expected at least one image"),
        ({"cell": [1.0]}, "cell: expected 2 numbers"),
    ],
)
def test_prediction_rows_bad_input(change, match):
    arguments = {"potentials": patterns(0), "predictions": patterns(1), "truths": patterns(2), "labels": ["a", "b"]}
    with pytest.raises(ValueError, match=match):
        images.prediction_rows(**(arguments | change))


def test_training_curves():
    history = [{"step": s, "time_s": 0.1 * s, "loss": 10.0 ** (-s / 10), "l1": 0.5} for s in range(1, 31)]
    history += [{"step": s, "validation/loss": 0.1, "validation/r_index": 0.9, "time_s": 1.0} for s in (10, 20, 30)]
    figure = curves.training_curves(history)
    shown = [ax for ax in figure.axes if ax.axison]
    assert [ax.get_title() for ax in shown] == ["loss", "L1", "index of fit $R$"]
    assert len(shown[0].get_lines()) == 2 and shown[0].get_yscale() == "log"
    assert len(shown[1].get_lines()) == 1 and shown[1].get_yscale() == "linear"
    drawn(figure)


def test_training_curves_of_a_short_run_and_of_text():
    drawn(curves.training_curves([{"step": 1, "loss": 0.5, "note": "resumed", "done": True}]))
    with pytest.raises(ValueError, match="history"):
        curves.training_curves([{"step": 1, "time_s": 2.0}])
    with pytest.raises(ValueError, match="history"):
        curves.training_curves([])


def test_ecdf_values():
    figure = curves.ecdf({"model": np.array([0.8, 0.6, 1.0, 0.7]), "baseline": np.array([0.2, 0.5])})
    ax = figure.axes[0]
    line = ax.get_lines()[0]
    np.testing.assert_allclose(line.get_xdata(), [0.2, 0.6, 0.7, 0.8, 1.0, 1.0])
    np.testing.assert_allclose(line.get_ydata(), [0, 0.25, 0.5, 0.75, 1, 1])
    assert len(ax.get_lines()) == 3  # two curves and the threshold
    drawn(figure)
    drawn(curves.ecdf({f"a method with a very long name, number {i}": np.array([0.5, 0.9]) for i in range(6)}))
    with pytest.raises(ValueError, match=r"scores\['model'\]"):
        curves.ecdf({"model": np.array([np.nan])})
    with pytest.raises(ValueError, match="at least one method"):
        curves.ecdf({})


def test_parity():
    truth = np.linspace(0.1, 0.6, 20)
    figure = curves.parity(truth, {"network": truth + 0.1, "constant": np.full(20, 0.3)})
    assert "0.1)" in figure.axes[0].get_legend_handles_labels()[1][0]
    drawn(figure)
    drawn(curves.parity(np.ones(3), {"network": np.ones(3), "few-beam Bloch waves, 21 beams": np.zeros(3)}))
    with pytest.raises(ValueError, match="expected 20 values"):
        curves.parity(truth, {"network": truth[:3]})


def test_rate_curves():
    x = np.linspace(0.4, 0.8, 9)
    drawn(
        curves.rate_curves(
            x, {"true": x, "network": x**2}, xlabel="density", ylabel="share", errors={"true": 0 * x + 0.1}
        )
    )
    with pytest.raises(ValueError, match=r"curves\['true'\]"):
        curves.rate_curves(x, {"true": x[:2]}, xlabel="density", ylabel="share")


@pytest.mark.parametrize("num_groups", [1, 4, 36])
def test_scores_by_group(num_groups):
    rng = np.random.default_rng(0)
    group = 195 + np.arange(5 * num_groups) % num_groups
    r = 1 - 0.2 * rng.random(len(group))
    names = {g: style.space_group_text("F -4 3 m") + f" {g}" for g in np.unique(group)}
    figure = groups.scores_by_group(r, group, names=names, train_groups=np.repeat(group, 9), reference=r - 0.1)
    top, bottom = figure.axes
    assert len(top.collections) == num_groups
    assert [b.get_height() for b in bottom.patches][:num_groups] == [5] * num_groups
    assert [b.get_height() for b in bottom.patches][num_groups:] == [45] * num_groups
    assert len(bottom.get_xticklabels()) == num_groups
    drawn(figure)


def test_scores_by_group_draws_the_median():
    figure = groups.scores_by_group(np.array([0.1, 0.2, 0.9]), [1, 1, 1], threshold=None)
    median = figure.axes[0].get_lines()[0].get_ydata()
    np.testing.assert_allclose(median, 0.2)
    drawn(figure)


@pytest.mark.parametrize(
    ("scores", "group", "match"),
    [([], [], "scores"), ([np.nan], [1], "scores"), ([0.5], [1, 2], "groups: expected 1 values")],
)
def test_scores_by_group_bad_input(scores, group, match):
    with pytest.raises(ValueError, match=match):
        groups.scores_by_group(np.array(scores), group)


@pytest.mark.parametrize(
    "names", [["no", "yes"], ["not spanning", "spanning"], ["a very long name of a class", "cost $5"], None]
)
def test_confusion_of_two(names):
    figure = confusion.confusion(np.array([[90, 10], [3, 97]]), names=names)
    ax = figure.axes[0]
    np.testing.assert_allclose(ax.get_images()[0].get_array(), [[0.9, 0.1], [0.03, 0.97]])
    assert {t.get_text() for t in ax.texts} == {"90\n90.0 %", "10\n10.0 %", "3\n3.0 %", "97\n97.0 %"}
    drawn(figure)


def test_confusion_of_many_and_of_a_class_without_examples():
    drawn(confusion.confusion(np.eye(31, dtype=int)))
    drawn(confusion.confusion(np.array([[1, 0, 0], [0, 0, 0], [0, 1, 5]])))
    for bad in (np.zeros((2, 3)), np.zeros((0, 0)), np.array([[-1]])):
        with pytest.raises(ValueError, match="matrix"):
            confusion.confusion(bad)
    with pytest.raises(ValueError, match="names: expected 2"):
        confusion.confusion(np.eye(2), names=["a"])


@pytest.mark.parametrize(
    ("symbol", "text"),
    [
        ("F -4 3 m", r"F$\bar{4}$3m"),
        ("P 41 3 2", r"P$4_{1}$32"),
        ("I a -3 d", r"Ia$\bar{3}$d"),
        ("P 63/m m c", r"P$6_{3}$/mmc"),
        ("F d -3 m :2", r"Fd$\bar{3}$m"),
        ("", ""),
    ],
)
def test_space_group_text(symbol, text):
    assert style.space_group_text(symbol) == text


def test_formula_text():
    assert style.formula_text("O3SrTi") == "O$_{3}$SrTi"
    assert style.formula_text("Fe1.95Mo3N") == "Fe$_{1.95}$Mo$_{3}$N"
    assert style.formula_text("sample 3 of $5") == r"sample 3 of \$5"


def test_no_trace_in_the_callers_settings():
    before = dict(matplotlib.rcParams)
    curves.ecdf({"model": np.array([0.5, 0.6])})
    assert dict(matplotlib.rcParams) == before


def test_training_curves_of_an_ensemble_have_bands():
    history = [{"step": s, "loss": 1.0 / s, "loss_stderr": 0.1, "validation/loss": 1.5 / s} for s in (1, 2, 3)]
    figure = curves.training_curves(history)
    (panel,) = [ax for ax in figure.axes if ax.get_title()]
    assert len(panel.collections) == 1 and len(panel.get_lines()) == 2
