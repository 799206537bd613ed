"""The page with turning states: holds the sites that it should, in the same way every time, and lets no text out."""

import base64
import functools
import json
import re
import shutil
import subprocess

import numpy as np
import pytest

from physml_jax.viz import interactive


@functools.cache
def states(count=2, size=6):
    return np.random.default_rng(0).normal(size=(count, size, size, size)) ** 3


def embedded(page):
    return json.loads(re.search(r"var data = (\{.*\});\n", page).group(1))


def decoded(state, data):
    """Sites and abs(psi)^2 L^3, from the bytes, as the page's own program reads them."""
    three = np.frombuffer(base64.b64decode(state["sites"]), np.uint8).reshape(-1, 3).astype(int)
    levels = np.frombuffer(base64.b64decode(state["levels"]), np.uint8)
    value = data["threshold"] * (data["top"] / data["threshold"]) ** (levels / 255)
    return three @ [1, 256, 65536], value


@pytest.mark.parametrize("size", [6, 41])
def test_sites_and_densities_are_embedded(size):
    """41^3 sites need the third byte of a site's number."""
    psi = states(1, size)
    page = interactive.cloud(7 * psi, threshold=2.0, titles=["one"], slice_axis=2)
    data = embedded(page)
    assert (data["size"], data["axis"], data["states"][0]["title"]) == (size, 2, "one")
    density = (psi[0] ** 2 / (psi[0] ** 2).mean()).reshape(-1)
    sites, value = decoded(data["states"][0], data)
    np.testing.assert_array_equal(sites, np.flatnonzero(density > 2))
    np.testing.assert_allclose(np.cbrt(value), np.cbrt(density[sites]), rtol=0.01)


def test_what_is_stronger_than_the_largest_level_is_drawn_as_it():
    psi = np.full((30, 30, 30), 1e-9)
    psi[3, 4, 5] = 1
    data = embedded(interactive.cloud(psi))
    (sites,), (value,) = decoded(data["states"][0], data)
    assert sites == (3 * 30 + 4) * 30 + 5 and value == pytest.approx(1e4)


def test_one_state_or_several():
    both = embedded(interactive.cloud(states()))
    assert [s["title"] for s in both["states"]] == ["state 0", "state 1"]
    alone = embedded(interactive.cloud(states()[1]))
    assert alone["states"] == [both["states"][1] | {"title": ""}]


def test_the_same_page_every_time_and_no_network():
    page = interactive.cloud(states())
    assert page == interactive.cloud(states().copy())
    assert not re.search(r"https?:|//[a-z]|src=|href=|import\(|fetch\(|XMLHttp", page)
    assert "@" not in page.replace("@keyframes", "")
    assert page.count("cloud_states") == 2 and "cloud_other" in interactive.cloud(states(), name="other")


def test_text_stays_text():
    title = "</script><script>alert('&\"\\\u2028')</script>"
    page = interactive.cloud(states(1), titles=[title])
    assert page.count("</script>") == 1 and "<script>alert" not in page and "\u2028" not in page
    assert embedded(page)["states"][0]["title"] == title


def test_size_of_the_page():
    """Four bytes a site, in base 64; the rest is the program."""
    assert len(interactive.cloud(states())) < 12_000
    psi = np.where(np.arange(40**3) < 60_000, 1.0, 0.1).reshape(40, 40, 40)
    page = interactive.cloud(psi)
    assert len(page) < 400_000 and len(decoded(embedded(page)["states"][0], embedded(page))[0]) == 60_000


@pytest.mark.parametrize(
    ("call", "match"),
    [
        (lambda: interactive.cloud(np.ones((3, 4, 4))), r"psi: expected \[L, L, L\]"),
        (lambda: interactive.cloud(np.ones((0, 4, 4, 4))), r"psi: expected \[L, L, L\]"),
        (lambda: interactive.cloud(np.zeros((4, 4, 4))), "not all zero"),
        (lambda: interactive.cloud(np.full((4, 4, 4), np.nan)), "finite"),
        (lambda: interactive.cloud(np.ones((41, 41, 41)), threshold=0.5), "68921 sites above the threshold"),
        (lambda: interactive.cloud(states(), titles=["a"]), "titles: expected 2 texts"),
        (lambda: interactive.cloud(states(), titles="ab"), "titles: expected 2 texts"),
        (lambda: interactive.cloud(states(), threshold=0.0), "threshold"),
        (lambda: interactive.cloud(states(), slice_axis=3), "slice_axis"),
        (lambda: interactive.cloud(states(), name='x" onload="'), "name"),
    ],
)
def test_refuses(call, match):
    with pytest.raises(ValueError, match=match):
        call()


#: Just enough of a browser to run the page's program: what it draws and what it listens to is written down.
BROWSER = """
const calls = {arc: [], line: 0}, held = {};
const pen = {beginPath() {}, moveTo() {}, stroke() {}, fill() {}, ellipse() {}, fillRect() {},
  lineTo() { calls.line++; },
  arc(x, y, r) { calls.arc.push([x, y, r, this.fillStyle]); }};
const element = (more) => Object.assign({style: {}, addEventListener(n, f) { held[n] = f; }, appendChild(x) {
  return x; }}, more);
const canvas = element({width: 400, height: 400, getContext: () => pen, setPointerCapture() {},
  hasPointerCapture: () => true});
const choice = element({selectedIndex: 0}), slider = element({value: "0"}), output = element({});
globalThis.document = {getElementById: () => ({querySelector: (n) => ({canvas, select: choice, input: slider,
  output})[n]}), createElement: () => element({})};
globalThis.requestAnimationFrame = (f) => f();
PROGRAM
const first = calls.arc.splice(0), text = output.textContent;
held.pointermove({pointerId: 1, movementX: 40, movementY: 10});
const turned = calls.arc.splice(0);
slider.value = "50"; held.input();
const thinned = calls.arc.splice(0);
held.dblclick(); slider.value = "0"; held.input(); calls.arc.splice(0, thinned.length);
console.log(JSON.stringify({first, turned, thinned, again: calls.arc, line: calls.line, text}));
"""


@pytest.mark.skipif(shutil.which("node") is None, reason="needs node to run the page's program")
def test_the_program_draws_every_site():
    """Positions, radii and hues of the balls against the camera's formula, before and after a turn of the mouse."""
    psi = states(1)
    page = interactive.cloud(psi, pixels=400)
    program = re.search(r"<script>(.*)</script>", page, flags=re.DOTALL).group(1)
    run = subprocess.run(
        ["node", "-e", BROWSER.replace("PROGRAM", program)], capture_output=True, text=True, check=True, timeout=60
    )
    seen = json.loads(run.stdout)
    data = embedded(page)
    sites, value = decoded(data["states"][0], data)
    position = np.stack(np.unravel_index(sites, (6, 6, 6)), axis=1)
    unit = 400 / (1.75 * 6)
    for balls, azimuth, elevation in ((seen["first"], -60, 25), (seen["turned"], -80, 30), (seen["again"], -60, 25)):
        az, el = np.radians([azimuth, elevation])
        right = [-np.sin(az), np.cos(az), 0]
        up = [-np.sin(el) * np.cos(az), -np.sin(el) * np.sin(az), np.cos(el)]
        depth = (position - 2.5) @ [np.cos(el) * np.cos(az), np.cos(el) * np.sin(az), np.sin(el)]
        order = np.argsort(depth, kind="stable")
        x, y, radius = np.array([b[:3] for b in balls]).T
        np.testing.assert_allclose(x, 200 + unit * ((position - 2.5) @ right)[order], atol=1e-6)
        np.testing.assert_allclose(y, 200 - unit * ((position - 2.5) @ up)[order], atol=1e-6)
        np.testing.assert_allclose(radius, np.maximum(0.6, unit * 0.5 * np.cbrt(value))[order], rtol=1e-9)
        hue = [float(b[3][4:].split(",")[0]) for b in balls]
        np.testing.assert_allclose(hue, 60 * position[order, 1], atol=1e-6)
    assert len(seen["thinned"]) == (value >= 10).sum() < len(sites)
    assert seen["text"] == f"1.0 ({len(sites)} sites)" and seen["line"] % 12 == 0
