"""The commands simulate.py and refine.py: files, report, the way from one to the other, and errors of one line."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import physml_jax.data

ROOT = Path(__file__).resolve().parent.parent
CIFS = Path(physml_jax.data.__file__).parent / "structures" / "cifs"
RUTILE = CIFS / "136_O2Si_COD9012691.cif"
FEW = ["--num_strong=32", "--tolerance=1", "--half_angle_mrad=12"]


def command(script, *arguments):
    return subprocess.run(
        [sys.executable, f"experiments/{script}.py", *map(str, arguments)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=570,
        env={**os.environ, "XLA_FLAGS": "--xla_cpu_multi_thread_eigen=false"},
    )


def test_image_and_refined_thickness(tmp_path):
    images, run = tmp_path / "images", tmp_path / "run"
    found = command(
        "simulate",
        *("lacbed", RUTILE, "--thicknesses=300", "--reflections=0,0,0;1,1,0", "--dose=20000", "--pixels=10"),
        *(*FEW, f"--out={images}"),
    )
    assert found.returncode == 0, found.stderr
    assert {"report.html", "patterns.npz", "metrics.json"} <= {p.name for p in images.iterdir()}
    assert {p.name for p in (images / "figures").iterdir()} == {"patterns.png", "300A_0_0_0.png", "300A_1_1_0.png"}
    with np.load(images / "patterns.npz") as file:
        assert file["images"].shape == (1, 2, 10, 10) and file["dose"] == 20000
        assert file["images"].max() > 100 and np.all(file["images"] % 1 == 0)
        about = json.loads(str(file["about"]))
    assert about["truth"]["thickness"] == 300 and about["truth"]["x@O1"] == pytest.approx(0.30608)
    assert 0 <= about["convergence_error"] < 0.2 and about["units"]["thicknesses"] == "angstrom"

    refine = ("refine", RUTILE, f"--images={images / 'patterns.npz'}", f"--workdir={run}", "--scan=200,400")
    found = command(*refine, "--refine=thickness,x", "--shake=0.1")
    assert found.returncode == 0, found.stderr
    metrics = json.loads((run / "metrics.json").read_text())
    assert metrics["converged"]
    x, thickness = (metrics["parameters"][k] for k in ("x@O1", "thickness"))
    assert abs(x["start"] - x["truth"]) * x["length"] == pytest.approx(0.1)
    assert abs(x["value"] - x["truth"]) * x["length"] < 0.01 and abs(x["pull"]) < 4
    assert abs(thickness["pull"]) < 4
    # The same command does nothing again; another one is refused.
    state = (run / "state.json").read_bytes()
    found = command(*refine, "--refine=thickness", "--shake=0.1")
    assert found.returncode == 1 and "holds a run with another config" in found.stderr
    assert (run / "state.json").read_bytes() == state


@pytest.mark.slow
@pytest.mark.parametrize(
    ("kind", "options", "shape", "figure"),
    [
        ("cbed", ("--zone=1,0,0", "--radius=0.5"), (2, 5, 12, 12), "cbed.png"),
        ("rocking", ("--reflections=0,0,0;1,1,0",), (2, 2, 12), "rocking.png"),
        ("lacbed", ("--zone=1,1,1", "--azimuth_deg=10", "--absorption=0.05"), (2, 1, 12, 12), "patterns.png"),
    ],
)
def test_kinds(tmp_path, kind, options, shape, figure):
    arguments = (kind, RUTILE, "--thicknesses=200,400", "--pixels=12", *FEW, *options, f"--out={tmp_path}")
    found = command("simulate", *arguments)
    assert found.returncode == 0, found.stderr
    with np.load(tmp_path / "patterns.npz") as file:
        assert file["images"].shape == shape
    assert (tmp_path / "figures" / figure).is_file()


@pytest.mark.parametrize(
    ("script", "arguments", "message"),
    [
        ("simulate", ("lacbed", "{broken}"), "broken.cif: not a CIF file (line 2"),
        pytest.param("simulate", ("lacbed", RUTILE, "--zone=0,0"), "--zone: expected 3 whole", marks=pytest.mark.slow),
        ("simulate", ("lacbed", RUTILE, "--reflections=0,0,1", "--pixels=8"), "reflections: (0, 0, 1) is not in the"),
        pytest.param("simulate", ("lacbed", RUTILE, "--thicknesses=-5"), "thicknesses: ", marks=pytest.mark.slow),
        pytest.param("simulate", ("lacbed",), "crystal.cif is missing", marks=pytest.mark.slow),
        pytest.param("simulate", ("laue", RUTILE), "expected lacbed, cbed, rocking", marks=pytest.mark.slow),
        pytest.param("simulate", ("cbed", "/no.cif"), "/no.cif: there is no such file", marks=pytest.mark.slow),
        pytest.param("simulate", ("rocking", RUTILE), "direction: expected h,k,l", marks=pytest.mark.slow),
        ("refine", (RUTILE, "--images={broken}"), "broken.cif: not an npz file"),
    ],
)
def test_errors_are_one_line(tmp_path, script, arguments, message):
    broken = tmp_path / "broken.cif"
    broken.write_text("data_x\nloop_\n_atom_site_label\n_atom_site_fract_x\nSi 0.1 0.2\n")
    workdir = f"--workdir={tmp_path / 'run'}" if script == "refine" else f"--out={tmp_path / 'out'}"
    found = command(script, *(str(a).format(broken=broken) for a in arguments), workdir)
    assert found.returncode in (1, 2)
    assert message in found.stderr and "Traceback" not in found.stderr
    assert not (tmp_path / "out").exists()
