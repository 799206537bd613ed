"""Reports of simulated patterns and of refinements, from made-up arrays: tables, figures, words about what is wrong."""

import io

import numpy as np
import pytest

from physml_jax.analysis.measured import Measured
from physml_jax.analysis.refinement import Fit, Refinement, State
from physml_jax.analysis.simulation import Request, Simulated, disc_pattern
from physml_jax.analysis.structure_parameters import Parameter, Specimen
from physml_jax.reports import refinement, simulation
from physml_jax.viz import diffraction


def simulated(shape=(2, 3, 8, 8), error=0.004):
    _, r, *rest = shape
    rng = np.linspace(0, 1, int(np.prod(shape)), dtype=np.float32).reshape(shape)
    n = rest[0]
    tilts = np.linspace(-0.2, 0.2, n)
    tilts = np.stack([tilts, 0 * tilts], -1) if len(rest) == 1 else np.zeros((n, n, 2))
    reflections = ((0, 0, 0), (2, -2, 0), (10, 0, 0))[:r]
    vectors = np.array([[0, 0], [0.5, -0.5], [2.0, 0]])[:r]
    return Simulated(rng, tilts, reflections, vectors, 0.2, 40.0, error, 96, {"max_g": 4.0})


def check(report):
    for figure, caption in report.figures.values():
        figure.savefig(io.BytesIO(), format="png", dpi=50)
        assert caption
    return report


@pytest.mark.parametrize(
    ("kind", "shape", "figures"),
    [
        ("lacbed", (2, 3, 8, 8), {"patterns", "500A_0_0_0", "900A_2_-2_0", "900A_10_0_0"}),
        ("cbed", (2, 3, 8, 8), {"cbed"}),
        ("rocking", (2, 3, 8), {"rocking"}),
    ],
)
def test_simulation(kind, shape, figures):
    found = simulated(shape)
    request = Request(kind=kind, thicknesses=(500.0, 900.0))
    report = check(simulation.make_report(request, found, found.images, name="X"))
    assert figures <= set(report.figures)
    assert "4.0e-03" in report.summary[1] and "within" in report.summary[1]
    assert report.metrics["half_angle_mrad"] == pytest.approx(5.0)
    assert ["voltage_kv", "200.0"] in [list(r) for r in report.tables["options"].rows]


def test_simulation_says_what_did_not_converge():
    found = simulated(error=0.04)
    report = simulation.make_report(Request(thicknesses=(500.0, 900.0), dose=100.0), found, found.images, name="X")
    assert "MORE than" in report.summary[1] and "100 per pixel" in report.summary[2]
    with pytest.raises(ValueError, match="kind: expected one of lacbed"):
        simulation.make_report(Request(kind="x"), found, found.images, name="X")


def test_discs_lie_at_their_reflections():
    images = np.ones((1, 2, 9, 9), np.float32) * np.array([1.0, 0.25], np.float32)[None, :, None, None]
    picture = disc_pattern(images, np.array([[0.0, 0.0], [0.6, 0.3]]), 0.2, num_pixels=200)[0]
    axis = (np.arange(200) + 0.5) / 200 * 1.64 - 0.82
    y, x = np.meshgrid(axis, axis, indexing="ij")
    expected = (x**2 + y**2 <= 0.04) + 0.25 * ((x - 0.6) ** 2 + (y - 0.3) ** 2 <= 0.04)
    np.testing.assert_allclose(picture, expected, atol=1e-6)


def refined(chi2=380.0, converged=True):
    shape = (1, 2, 14, 14)
    zeros = np.zeros(4)
    blank = Parameter("", "", 0, 0, np.inf, 1, 1, np.zeros((4, 3)), zeros, zeros, np.zeros(1), 0.0, np.zeros(2))
    chosen = (
        blank._replace(name="thickness", unit="Å", start=430.0),
        blank._replace(name="x@S1", unit="of the cell", start=0.39, length=9.4),
        blank._replace(name="b_iso@S1", unit="Å²", start=0.5),
    )
    y = np.linspace(0, 1, 14)
    model = 100 + 50 * np.broadcast_to(np.sin(5 * y) * y[:, None], shape)
    history = tuple(
        {"iteration": i, "objective": 10.0 ** (4 - i), "values": [400 + i, 0.384, 0.0], "seconds": 1.5}
        for i in range(4)
    )
    counts = model + np.where(np.arange(14) % 2, 10, -10)
    errors = np.array([0.5, 2e-4, 0.0])
    correlation = np.array([[1, -0.93, 0], [-0.93, 1, 0], [0, 0, 0.0]])
    ones = np.ones(shape[:2])
    result = Refinement(
        chosen,
        np.array([402.0, 0.3843, 0.0]),
        errors,
        correlation,
        chi2,
        386,
        Fit(model, ones, ones, model, 380.0),
        (counts - model) / np.sqrt(model),
        Specimen(None, np.array([402.0])),
        State(3, (402.0, 0.3843, 0.0), 1e-3, history, (0.0, 0.0, 0.0), converged),
    )
    settings = {"half_width": 0.5, "reflections": [(0, 0, 0), (2, -2, 0)]}
    return result, Measured(counts, None, None, settings, {"thickness": 400.0, "x@S1": 0.384})


def test_refinement():
    report = check(refinement.make_report(*refined(), name="FeS2"))
    rows = {r[0]: r for r in report.tables["parameters"].rows}
    assert rows["thickness (Å)"] == ["thickness (Å)", "430", "402.00 ± 0.50", None, "400", "+2", "+4.0"]
    assert rows["x@S1 (of the cell)"][2] == "0.38430 ± 0.00020"
    assert rows["x@S1 (of the cell)"][5] == "+0.0028 Å" and rows["x@S1 (of the cell)"][6] == "+1.5"
    assert rows["b_iso@S1 (Å²)"][2].endswith("± 0")
    assert report.tables["correlations"].rows == [["thickness", "x@S1", "-0.93"]]
    assert "converged after 3 iterations in 6 s" in report.summary[0] and len(report.summary) == 1
    assert report.metrics["parameters"]["x@S1"]["pull"] == pytest.approx(1.5)
    assert set(report.figures) == {"convergence", "residuals"}


def test_refinement_that_went_wrong():
    report = refinement.make_report(*refined(chi2=900.0, converged=False), name="FeS2", model_error=(2e-3, 0.4))
    assert "2.0e-03" in report.summary[2] and "larger --num_strong" in report.summary[2]
    assert "NOT converged" in report.summary[0] and "larger than counting noise" in report.summary[1]


def test_unknown_truth_has_no_columns():
    result, images = refined()
    report = refinement.make_report(result, images._replace(truth={}), name="FeS2")
    assert len(report.tables["parameters"].columns) == 4


@pytest.mark.parametrize("number", [1, 7, 30])
def test_panels_of_one_thickness_wrap(number):
    images = np.random.default_rng(0).uniform(size=(1, number, 6, 6))
    hkl = [(i, -i, 0) for i in range(number)]
    figure = diffraction.panels(images, half_width=0.3, thicknesses=[450.0], reflections=hkl)
    drawn = [ax for ax in figure.axes if ax.get_images() and ax.get_title()]
    assert len(drawn) == number
    with pytest.raises(ValueError, match="images: expected shape"):
        diffraction.panels(images[:, :0], half_width=0.3, thicknesses=[450.0], reflections=hkl)


def test_pulls_show_their_scatter():
    figure = diffraction.pulls({"thickness": np.array([1.0, -1.0]), "x": np.array([2.0, 0.0])})
    assert figure.axes[0].get_yticklabels()[1].get_text() == "x  (rms 1.41)"
