"""States of the Anderson model that can be turned with the mouse: one piece of HTML with its own small program.

It needs no library and no network: ``IPython.display.HTML(cloud(psi))`` shows it in Jupyter and on Colab; as a file it
opens in any browser.
"""

import base64
import html
import json
from collections.abc import Sequence

import numpy as np

#: Sites that one picture may hold; browsers draw so many discs smoothly, and the page stays below a megabyte.
MAX_SITES = 60_000
#: Largest abs(psi)^2 L^3 that is told apart; a byte covers the range up to it, on a logarithmic scale.
_TOP = 1e4

_PAGE = """\
<div id="@ID@" style="display:inline-block;font:13px sans-serif;color:#ddd;background:#000;padding:6px;\
border-radius:4px;max-width:100%">
<div style="display:flex;gap:10px;align-items:center;padding:2px 4px 6px">
<select aria-label="state" style="max-width:60%"></select>
<label style="flex:1;white-space:nowrap">threshold
<input type="range" min="0" max="100" value="0" style="vertical-align:middle;width:45%"> <output></output></label>
</div>
<canvas width="@PIXELS@" height="@PIXELS@" style="display:block;cursor:grab;touch-action:none;max-width:100%"></canvas>
<div style="padding:4px;color:#999">drag to turn, wheel to zoom, double click to return</div>
</div>
<script>
(function () {
  "use strict";
  var data = @DATA@;
  var root = document.getElementById("@ID@"), canvas = root.querySelector("canvas"), pen = canvas.getContext("2d");
  var choice = root.querySelector("select"), slider = root.querySelector("input"), shown = root.querySelector("output");
  var n = data.size, half = (n - 1) / 2, view = null, waiting = false;
  var states = data.states.map(function (s) {
    var sites = bytes(s.sites), levels = bytes(s.levels), out = [];
    for (var k = 0; k < levels.length; k++) {
      var i = sites[3 * k] | sites[3 * k + 1] << 8 | sites[3 * k + 2] << 16;
      out.push({p: [Math.floor(i / n / n) - half, Math.floor(i / n) % n - half, i % n - half],
                c: [Math.floor(i / n / n), Math.floor(i / n) % n, i % n][data.axis],
                v: data.threshold * Math.pow(data.top / data.threshold, levels[k] / 255)});
    }
    return out;
  });
  data.states.forEach(function (s) { choice.appendChild(document.createElement("option")).textContent = s.title; });
  choice.style.display = states.length > 1 || data.states[0].title ? "" : "none";
  function bytes(text) {
    return Uint8Array.from(atob(text), function (c) { return c.charCodeAt(0); });
  }
  function home() { view = {azimuth: data.azimuth, elevation: data.elevation, zoom: 1}; }
  function limit() { return data.threshold * Math.pow(100, slider.value / 100); }
  function camera() {
    var a = view.azimuth * Math.PI / 180, e = view.elevation * Math.PI / 180;
    return {right: [-Math.sin(a), Math.cos(a), 0],
            up: [-Math.sin(e) * Math.cos(a), -Math.sin(e) * Math.sin(a), Math.cos(e)],
            toward: [Math.cos(e) * Math.cos(a), Math.cos(e) * Math.sin(a), Math.sin(e)]};
  }
  function dot(a, b) { return a[0] * b[0] + a[1] * b[1] + a[2] * b[2]; }
  function draw() {
    waiting = false;
    var eye = camera(), unit = canvas.width / (1.75 * n) * view.zoom, mid = canvas.width / 2, low = limit();
    function x(p) { return mid + unit * dot(p, eye.right); }
    function y(p) { return mid - unit * dot(p, eye.up); }
    function edge(a, b) { pen.beginPath(); pen.moveTo(x(a), y(a)); pen.lineTo(x(b), y(b)); pen.stroke(); }
    function frame(front) {
      var corner = [0, 1, 2].map(function (k) { return eye.toward[k] > 0 ? n / 2 : -n / 2; });
      for (var i = 0; i < 8; i++) for (var k = 0; k < 3; k++) if (!(i >> k & 1)) {
        var a = [0, 1, 2].map(function (m) { return (i >> m & 1) ? n / 2 : -n / 2; }), b = a.slice();
        b[k] = n / 2;
        var near = [0, 1, 2].every(function (m) { return m === k || a[m] === corner[m]; });
        if (near === front) edge(a, b);
      }
    }
    pen.fillStyle = "#000"; pen.fillRect(0, 0, canvas.width, canvas.height);
    pen.strokeStyle = "#555"; pen.lineWidth = 1; frame(false);
    var drawn = states[choice.selectedIndex].filter(function (s) { return s.v >= low; });
    drawn.forEach(function (s) { s.z = dot(s.p, eye.toward); });
    drawn.sort(function (a, b) { return a.z - b.z; });
    drawn.forEach(function (s) {
      var dim = 0.5 + 0.5 * (s.z / (0.87 * n) + 0.5);
      pen.fillStyle = "hsl(" + 360 * s.c / n + ",100%," + Math.round(28 + 27 * dim) + "%)";
      var px = x(s.p), py = y(s.p), r = Math.max(0.6, unit * data.scale * Math.cbrt(s.v));
      pen.beginPath(); pen.arc(px, py, r, 0, 2 * Math.PI); pen.fill();
      if (r > 4) {
        pen.strokeStyle = "rgba(0,0,0,.45)"; pen.stroke(); pen.fillStyle = "rgba(255,255,255,.3)";
        pen.beginPath(); pen.ellipse(px - 0.35 * r, py - 0.4 * r, 0.38 * r, 0.24 * r, -0.7, 0, 2 * Math.PI); pen.fill();
      }
    });
    pen.strokeStyle = "#777"; frame(true);
    shown.textContent = low.toPrecision(2) + " (" + drawn.length + " sites)";
  }
  function later() { if (!waiting) { waiting = true; requestAnimationFrame(draw); } }
  canvas.addEventListener("pointerdown", function (e) { canvas.setPointerCapture(e.pointerId); });
  canvas.addEventListener("pointermove", function (e) {
    if (!canvas.hasPointerCapture(e.pointerId)) return;
    view.azimuth -= 0.5 * e.movementX;
    view.elevation = Math.max(-90, Math.min(90, view.elevation + 0.5 * e.movementY));
    later();
  });
  canvas.addEventListener("wheel", function (e) {
    e.preventDefault();
    view.zoom = Math.max(0.5, Math.min(8, view.zoom * Math.exp(-0.001 * e.deltaY)));
    later();
  }, {passive: false});
  canvas.addEventListener("dblclick", function () { home(); later(); });
  choice.addEventListener("change", later);
  slider.addEventListener("input", later);
  home(); draw();
})();
</script>
"""


def cloud(
    psi: np.ndarray,
    *,
    titles: Sequence[str] | None = None,
    threshold: float = 1.0,
    slice_axis: int = 1,
    azimuth: float = -60.0,
    elevation: float = 25.0,
    scale: float = 0.5,
    pixels: int = 460,
    name: str = "states",
) -> str:
    """States as balls of volume proportional to abs(psi)^2 L^3, coloured by slice: to be turned, zoomed, thinned out.

    A site is drawn if abs(psi)^2 L^3 exceeds the threshold, which a slider raises. Colours, camera and threshold are
    those of ``simulators.anderson.cube_view``. Of amplitudes one byte is kept, on a logarithmic scale (a radius is good
    to 1 %); what is stronger than 10^4 times the mean looks like 10^4.

    Args:
      psi: float ``[L, L, L]`` or ``[S, L, L, L]``, states; the norm does not matter.
      titles: text for every state, offered in a list; ``None`` for numbers.
      threshold: least abs(psi)^2 L^3 that is kept, below 10^4.
      slice_axis: axis whose index sets the hue.
      azimuth: of the viewer at the beginning, degrees.
      elevation: of the viewer at the beginning, degrees.
      scale: radius of a ball of abs(psi)^2 L^3 = 1, in lattice constants.
      pixels: side of the picture.
      name: identifier of the element; two clouds on one page want different names.

    Returns:
      HTML: one element and its script, the same text for the same input.

    Raises:
      ValueError: for a wrong shape, amplitudes that are not finite, a state of zeros, options outside their range, or
        more than 60,000 sites above the threshold.

    Example:
      >>> page = cloud(np.ones((4, 4, 4)), threshold=0.5)
      >>> page.count("<canvas"), "http" in page
      (1, False)
    """
    psi = np.asarray(psi, np.float64)
    psi = psi[None] if psi.ndim == 3 else psi
    if psi.ndim != 4 or not len(psi) or len(set(psi.shape[1:])) != 1 or not 1 <= psi.shape[-1] <= 255:
        raise ValueError(f"psi: expected [L, L, L] or [S, L, L, L] with L up to 255, got {list(psi.shape)}")
    if not np.isfinite(psi).all() or not (psi != 0).any((1, 2, 3)).all():
        raise ValueError("psi: expected finite amplitudes, not all zero")
    if titles is not None and (isinstance(titles, str) or len(titles) != len(psi)):
        raise ValueError(f"titles: expected {len(psi)} texts, one per state, got {titles!r}")
    if not 0 < threshold < _TOP:
        raise ValueError(f"threshold: expected a number in (0, {_TOP:g}), got {threshold}")
    if slice_axis not in (0, 1, 2):
        raise ValueError(f"slice_axis: expected 0, 1 or 2, got {slice_axis}")
    if not name.isidentifier():
        raise ValueError(f"name: expected letters, digits and underscores, got {name!r}")
    size = psi.shape[-1]
    density = psi.reshape(len(psi), -1) ** 2
    density *= size**3 / density.sum(1, keepdims=True)
    count = int((density > threshold).sum())
    if count > MAX_SITES:
        raise ValueError(f"psi: {count} sites above the threshold, at most {MAX_SITES}; raise the threshold")
    data = {
        "size": size,
        "axis": slice_axis,
        "threshold": float(threshold),
        "top": _TOP,
        "scale": float(scale),
        "azimuth": float(azimuth),
        "elevation": float(elevation),
        "states": [
            {"title": title, **_packed(row, threshold)}
            for title, row in zip(titles or _numbers(len(psi)), density, strict=True)
        ],
    }
    # Text must not end the script, whatever it holds; all but ASCII is escaped already.
    text = json.dumps(data, allow_nan=False).replace("<", "\\u003c")
    page = _PAGE.replace("@ID@", html.escape(f"cloud_{name}")).replace("@PIXELS@", str(int(pixels)))
    return page.replace("@DATA@", text)


def _packed(density, threshold):
    """Numbers of the sites, three bytes each, and levels, one byte each, in base 64."""
    sites = np.flatnonzero(density > threshold)
    level = np.log(density[sites] / threshold) / np.log(_TOP / threshold)
    levels = np.clip(np.round(255 * level), 0, 255).astype(np.uint8)
    three = np.stack([sites & 255, sites >> 8 & 255, sites >> 16 & 255], axis=1).astype(np.uint8)
    return {"sites": _base64(three), "levels": _base64(levels)}


def _base64(array):
    return base64.b64encode(array.tobytes()).decode("ascii")


def _numbers(count):
    return [""] if count == 1 else [f"state {i}" for i in range(count)]
