"""The command ``predict.py``: the measured pattern of gallium arsenide, and one clear line for every bad input.

``golden/gaas_011.tif`` is example data of Lukas Grünewald, github.com/lukmuk/lukmuk.github.io (MIT licence,
beside it; GaAs_110_nm-1_512.tif in files/dp-indexing-recipro-data.zip), compressed without loss.
"""

import csv
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

ROOT = Path(__file__).parent.parent
GAAS = ROOT / "tests" / "golden" / "gaas_011.tif"
CIFS = ROOT / "physml_jax" / "data" / "structures" / "cifs"
NAMES = ("227_Si_COD9008566", "216_AsGa_COD9008845", "225_Al_COD9008460", "229_Fe_COD9008536", "225_Au_COD9008463")


def predict(*arguments, cwd):
    command = [sys.executable, str(ROOT / "experiments" / "predict.py"), *map(str, arguments)]
    return subprocess.run(
        command, capture_output=True, text=True, cwd=cwd, timeout=600, env=os.environ | {"PYTHONPATH": str(ROOT)}
    )


@pytest.mark.slow
def test_gallium_arsenide(tmp_path):
    """<011> among fourteen crystals, with the scale in the file; d of the spots to 0.7 % of the crystal's."""
    files = ",".join(str(CIFS / f"{name}.cif") for name in NAMES)
    done = predict("saed", GAAS, "--phases=all", f"--cif={files}", f"--workdir={tmp_path / 'answer'}", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    answer = json.loads((tmp_path / "answer" / "metrics.json").read_text())
    best = answer["hypotheses"][0]
    assert (best["phase"], best["zone_axis"], best["in_zone"]) == ("AsGa", [0, 1, 1], True)
    assert best["matched"] == 8 and best["residual"] < 0.001 and abs(best["scale_factor"] - 1) < 0.005
    assert answer["undecided"] == 1 and answer["significant"]
    assert done.stdout.startswith("AsGa along [0 1 1]")
    rows = [r for r in csv.DictReader((tmp_path / "answer" / "spots.csv").read_text().splitlines()) if r["hkl"]]
    assert len(rows) == 8
    for row in rows:
        h = np.array(row["hkl"].split(), int)
        assert h @ (0, 1, 1) == 0
        assert float(row["d (Å)"]) == pytest.approx(5.6537 / np.linalg.norm(h), rel=7e-3)
    for name in ("report.html", "report.txt", "ranking.csv", "figures/overlay.png", "figures/residuals.png"):
        assert (tmp_path / "answer" / name).stat().st_size > 200


@pytest.mark.slow
def test_network_is_asked(tmp_path):
    """A network that hardly learned anything answers with probabilities that add up to 1."""
    train = [
        sys.executable,
        "experiments/train.py",
        "--config=configs/saed_cnn.py:smoke",
        f"--workdir={tmp_path / 'run'}",
    ]
    subprocess.run(train, check=True, cwd=ROOT, timeout=900, capture_output=True)
    file = CIFS / "216_AsGa_COD9008845.cif"
    done = predict("saed", GAAS, f"--cif={file}", f"--network={tmp_path / 'run'}", "--workdir=answer", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    found = json.loads((tmp_path / "answer" / "metrics.json").read_text())["network"]
    assert len(found) == 9 and sum(found.values()) == pytest.approx(1.0, abs=1e-5)


def files(folder):
    """Images that cannot be indexed, by name."""
    rng = np.random.default_rng(0)
    noise = rng.normal(100, 5, (96, 96)).astype(np.float32)
    np.save(folder / "noise.npy", noise)
    np.save(folder / "nan.npy", np.where(noise > 110, np.nan, noise))
    np.save(folder / "empty.npy", np.full((96, 96), 3.0))
    np.save(folder / "small.npy", noise[:20, :20])
    Image.fromarray(rng.integers(0, 255, (96, 96, 3), np.uint8)).save(folder / "screenshot.png")
    (folder / "a.jpg").write_bytes(b"jpg")
    (folder / "bad.cif").write_text("data_x\n_cell_length_a 4\n")


@pytest.mark.slow
def test_bad_input(tmp_path):
    """One line each, and no traceback."""
    files(tmp_path)
    given = "--scale=0.01"
    cases = {
        (): "command is missing",
        ("saed",): "image is missing",
        ("saed", GAAS, "more"): "unexpected argument 'more'",
        ("tomography", GAAS): "there is no 'tomography'; available: saed",
        ("saed", "gone.tif"): "gone.tif: there is no such file",
        ("saed", "a.jpg"): "a.jpg: expected a file of type",
        ("saed", "screenshot.png", given): "expected a grey image, got colours",
        ("saed", "empty.npy", given): "the image is empty, all pixels are 3",
        ("saed", "nan.npy", given): "pixels are not finite",
        ("saed", "noise.npy"): "scale: expected 1/angstrom per pixel",
        ("saed", "noise.npy", given): "at least 3 spots beside the direct beam, found 0",
        ("saed", "small.npy", given): "at least 32 by 32 pixels",
        ("saed", GAAS, "--scale=0"): "scale: expected a positive number",
        ("saed", GAAS, "--scale=0.018"): "is it per nanometre?",
        ("saed", GAAS, "--cif=gone.cif"): "cif: there is no file gone.cif",
        ("saed", GAAS, "--cif=bad.cif"): "no atom sites",
        ("saed", GAAS, "--phases=Unobtainium"): "phases: there is no 'Unobtainium'; available: all, alpha-Zr",
        ("saed", GAAS, "--centre=3"): "--centre: expected 2 numbers",
        ("saed", GAAS, "--centre=9999,3"): "centre: expected x,y in an image of 512 x 512",
        ("saed", GAAS, "--crop=0,0,500,0"): "crop: expected to leave 32 pixels",
        ("saed", GAAS, "--scale_error=0"): "scale_error",
    }
    refused(cases, tmp_path)


def test_words_and_screenshots(tmp_path):
    files(tmp_path)
    refused(
        {
            ("saed", GAAS, "more"): "unexpected argument 'more'",
            ("saed", "screenshot.png", "--scale=0.01"): "expected a grey image, got colours",
        },
        tmp_path,
    )


def refused(cases, tmp_path):
    for arguments, message in cases.items():
        done = predict(*arguments, cwd=tmp_path)
        assert done.returncode in (1, 2), (arguments, done.stdout)
        assert message in done.stderr, (arguments, done.stderr)
        assert "Traceback" not in done.stderr
        assert sum(line.startswith("error: ") for line in done.stderr.splitlines()) == 1
