"""The report of finite-size scaling says what was found and how much it depends on the form of the fit."""

import io
import json

import numpy as np
import pytest

from physml_jax.analysis import anderson_scaling as scaling
from physml_jax.io.page import write_report
from physml_jax.reports import anderson_scaling as report
from physml_jax.viz import scaling as figures


def bars(noise=0.003):
    """xi of bars with W_c = 16.53, nu = 1.59 and a correction 0.9/M^3."""
    width, size = np.tile(np.linspace(14, 19, 7), 3), np.repeat([4, 6, 8], 7)
    x = (width / 16.53 - 1) * size ** (1 / 1.59)
    error = noise * np.random.default_rng(0).normal(size=21)
    length = size * np.exp(np.log(0.576) - 0.9 * x + 0.9 / size**3.0 + error)
    return width, size, length, noise * length


def test_report(tmp_path):
    made = report.make_report(*bars(), num_resamples=24)
    page = write_report(tmp_path, made)
    assert page.stat().st_size > 10_000
    numbers = json.loads((tmp_path / "metrics.json").read_text())
    for name, truth in (("W_c", 16.53), ("nu", 1.59)):
        assert abs(numbers[name]["value"] - truth) < 4 * numbers[name]["error"]
        assert numbers[name]["low"] < numbers[name]["value"] < numbers[name]["high"]
    assert len(numbers["records"]["value"]) == 21
    forms = made.tables["forms"].rows
    # Two ranges of sizes without a correction and three exponents with one, two degrees each.
    assert len(forms) == 10 and all(len(r) == len(made.tables["forms"].columns) for r in forms)
    assert forms[0][3] < 16.45 < numbers["W_c"]["value"]  # who ignores the correction is told another W_c
    assert "forms describe the data" in made.summary[1] and "16.524 to 16.536" in made.summary[0]
    assert [r[0] for r in made.tables["crossings"].rows] == ["4 and 6", "6 and 8"]


def test_figure_shows_records_and_curves():
    width, size, length, error = bars()
    value, spread = scaling.log_reduced_length(length, error, size)
    fit = scaling.scaling_fit(width, size, value, spread, omega=3.0, num_resamples=0)
    figure = figures.collapse(width, size, value, spread, fit, ylabel="y", known=(16.52, 16.54))
    figure.savefig(io.BytesIO(), dpi=40)
    left, right = figure.axes
    assert [t.get_text() for t in left.get_legend().texts] == ["$M$ = 4", "$M$ = 6", "$M$ = 8"]
    lines = [c.lines[0] for c in left.containers]
    np.testing.assert_allclose(np.concatenate([x.get_ydata() for x in lines]), value)
    lines = [c.lines[0] for c in right.containers]
    np.testing.assert_allclose(np.concatenate([x.get_ydata() for x in lines]), fit.corrected)
    # On the right all sizes lie on the one curve, within the noise.
    curve = right.lines[-1].get_xydata() if len(right.lines) > 3 else right.lines[0].get_xydata()
    assert np.abs(fit.corrected - scaling.scaling_function(fit, fit.x)).max() < 4 * 0.003 and len(curve)
    with pytest.raises(ValueError, match="fit: expected one of 7 records"):
        figures.collapse(width[:7], size[:7], value[:7], spread[:7], fit, ylabel="y")
