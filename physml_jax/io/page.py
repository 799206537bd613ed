"""The page that a person opens first: a report as ``report.html``, with ``figures/*.png`` and ``metrics.json``.

Figures are embedded in the page. It can then be mailed, archived or opened from a CI artifact as one file, and since it
is written last and whole, a kill between two files never leaves a page with the pictures of another run.
"""

import base64
import html
import io
import json
import math
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from physml_jax.io.files import write_atomic
from physml_jax.typing import Report, Table

PAGE, METRICS, FIGURES, PROVENANCE = "report.html", "metrics.json", "figures", "provenance.json"


def write_report(workdir: str | Path, report: Report) -> Path:
    """Writes a report into the folder of a run.

    Everything is checked and drawn before the first file is written; each file is written whole or not at all, the page
    last. Figures of an earlier report that this one does not have stay where they are.

    Args:
      workdir: existing folder.
      report: what to write. Figures only need matplotlib's ``savefig`` and ``get_figwidth``.

    Returns:
      Path of the page.

    Raises:
      ValueError: if a number of the metrics or tables is not finite (it is named), a table is ragged, or a name cannot
        be a file name.
      OSError: if the folder does not exist or cannot be written.
    """
    workdir = Path(workdir)
    if not workdir.is_dir():
        raise OSError(f"{workdir}: the folder of the report does not exist")
    metrics = json.dumps(_plain(report.metrics, "metrics"), indent=2, allow_nan=False) + "\n"
    for name, table in report.tables.items():
        _check_table(name, table)
    pictures = {name: _png(name, figure) for name, (figure, _) in report.figures.items()}
    page = _page(report, pictures, _read_provenance(workdir / PROVENANCE))

    if pictures:
        (workdir / FIGURES).mkdir(exist_ok=True)
    for name, data in pictures.items():
        write_atomic(workdir / FIGURES / f"{name}.png", data)
    write_atomic(workdir / METRICS, metrics)
    write_atomic(workdir / PAGE, page)
    return workdir / PAGE


def _plain(value: Any, where: str) -> Any:
    """Metrics as JSON can hold them; NaN and infinity are errors, because JSON has none and they hide failures."""
    if isinstance(value, Mapping):
        bad = [k for k in value if not isinstance(k, str)]
        if bad:
            raise ValueError(f"{where}: expected text as keys, got {bad[0]!r}")
        return {k: _plain(v, f"{where}.{k}") for k, v in value.items()}
    if value is None or isinstance(value, str | bool | int):
        return value
    if isinstance(value, list | tuple):
        return [_plain(v, f"{where}[{i}]") for i, v in enumerate(value)]
    array = np.asarray(value)
    if array.dtype.kind not in "biuf":
        raise ValueError(f"{where}: expected numbers, text, lists or mappings, got {type(value).__name__}")
    if not np.all(np.isfinite(array)):
        raise ValueError(f"{where}: {value!r} is not finite")
    return array.tolist()


def _check_table(name: str, table: Table) -> None:
    for i, row in enumerate(table.rows):
        if len(row) != len(table.columns):
            raise ValueError(f"tables.{name}: row {i} has {len(row)} entries for {len(table.columns)} columns")
        for column, value in zip(table.columns, row, strict=True):
            if _is_number(value) and not math.isfinite(value):
                raise ValueError(f"tables.{name}: row {i}, column {column!r} is {value}, expected a finite number")


def _png(name: str, figure: Any) -> bytes:
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_.-]*", name):
        raise ValueError(f"figures: {name!r} cannot be a file name; use letters, digits, dot, dash and underscore")
    buffer = io.BytesIO()
    # Without the name of the program that wrote it, equal figures are equal files.
    figure.savefig(buffer, format="png", dpi=200, metadata={"Software": None})
    return buffer.getvalue()


def _read_provenance(path: Path) -> list[Mapping[str, Any]] | None:
    """Starts of the run; ``None`` where the file is absent or damaged, since the page must not depend on it."""
    try:
        starts = json.loads(path.read_bytes())["starts"]
        return [s for s in starts if isinstance(s, dict)] or None
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _page(report: Report, pictures: Mapping[str, bytes], provenance: Sequence[Mapping[str, Any]] | None) -> str:
    figures = {name: _figure(name, report.figures[name], pictures[name]) for name in pictures}
    first = next(iter(figures), None)
    sections = [
        _section(
            "summary", "Summary", "".join(f"<p>{_text(p)}</p>\n" for p in report.summary) + figures.get(first, "")
        ),
        _section("tables", "Numbers", "".join(_table(n, t) for n, t in report.tables.items())),
        _section(
            "figures",
            "Figures",
            '<div class="gallery">\n' + "".join(f for n, f in figures.items() if n != first) + "</div>\n"
            if len(figures) > 1
            else "",
        ),
    ]
    title = _text(report.title)
    return (
        '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f'<meta name="color-scheme" content="light dark">\n<title>{title}</title>\n<style>{_CSS}</style>\n</head>\n'
        f"<body>\n<header><h1>{title}</h1></header>\n<main>\n{''.join(sections)}</main>\n"
        f"<footer>\n{_footer(provenance)}</footer>\n</body>\n</html>\n"
    )


def _section(anchor: str, heading: str, content: str) -> str:
    if not content:
        return ""
    title = f'<h2 id="h-{anchor}">{heading}</h2>'
    return f'<section id="{anchor}" aria-labelledby="h-{anchor}">\n{title}\n{content}</section>\n'


def _figure(name: str, figure: tuple[Any, str], data: bytes) -> str:
    picture, caption = figure
    wide = ' class="wide"' if picture.get_figwidth() > 5 else ""
    source = base64.b64encode(data).decode("ascii")
    return (
        f'<figure{wide} id="figure-{_text(name)}">\n<img src="data:image/png;base64,{source}" '
        f'style="max-width:{picture.get_figwidth() * 1.45:.1f}in" alt="{_text(caption)}">\n'
        f'<figcaption>{_text(caption)} <a href="{FIGURES}/{name}.png">{name}.png</a></figcaption>\n</figure>\n'
    )


def _table(name: str, table: Table) -> str:
    numeric = [all(_reads_as_number(r[j]) for r in table.rows) for j in range(len(table.columns))]
    align = ["" if not n else ' class="number"' for n in numeric]
    head = "".join(f'<th scope="col"{a}>{_text(c)}</th>' for c, a in zip(table.columns, align, strict=True))
    body = []
    for row in table.rows:
        cells = [f"<td{a}>{_text(_number(v))}</td>" for v, a in zip(row, align, strict=True)]
        if cells:
            # The first entry names its row, which is what a screen reader then says.
            cells[0] = f'<th scope="row"{align[0]}>{_text(_number(row[0]))}</th>'
        body.append(f"<tr>{''.join(cells)}</tr>\n")
    # A caption element would scroll sideways with a wide table on a narrow screen.
    anchor = f"table-{_text(name)}"
    return (
        f'<p class="caption" id="{anchor}">{_text(table.caption)}</p>\n'
        f'<div class="scroll" role="region" aria-labelledby="{anchor}" tabindex="0">\n'
        f'<table aria-labelledby="{anchor}">\n'
        f"<thead><tr>{head}</tr></thead>\n<tbody>\n{''.join(body)}</tbody>\n</table>\n</div>\n"
    )


def _footer(provenance: Sequence[Mapping[str, Any]] | None) -> str:
    text = f'<p>The numbers for programs: <a href="{METRICS}">{METRICS}</a>.</p>\n'
    if not provenance:
        return text
    last = provenance[-1]
    entries: dict[str, Any] = {"started": last.get("started"), "starts so far": len(provenance)}
    command = last.get("command")
    entries["command"] = " ".join(map(str, command)) if isinstance(command, list) else command
    entries |= {k: last.get(k) for k in ("seed", "config_sha256", "device", "git", "versions")}
    rows = "".join(
        f"<dt>{_text(k)}</dt><dd>{_text(_flat(v))}</dd>\n" for k, v in entries.items() if v is not None and v != ""
    )
    return f"<h2>Provenance</h2>\n<dl>\n{rows}</dl>\n{text}"


def _flat(value: Any) -> str:
    if isinstance(value, Mapping):
        return ", ".join(f"{k} {_flat(v)}" for k, v in value.items() if v is not None)
    return {True: "yes", False: "no"}[value] if isinstance(value, bool) else str(value)


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float | np.integer | np.floating) and not isinstance(value, bool)


def _reads_as_number(value: Any) -> bool:
    """Right-aligned: numbers, missing ones, and text such as ``0.91 to 0.95``."""
    return _is_number(value) or value is None or bool(re.fullmatch(r"[−–+\-±0-9.% e]+(to[−+\-0-9. e]+)?", str(value)))


def _number(value: Any) -> str:
    if value is None:
        return "–"
    if isinstance(value, bool | np.bool_):
        return "yes" if value else "no"
    if isinstance(value, float | np.floating):
        small = value != 0 and abs(value) < 1e-3
        return (f"{value:.2e}" if small or abs(value) >= 1e5 else f"{value:.4f}").replace("-", "−")
    return str(value)


def _text(value: Any) -> str:
    return html.escape(str(value), quote=True)


_CSS = """
:root { --ink: #1c2228; --soft: #56616d; --paper: #ffffff; --band: #f3f5f7; --line: #d5dbe1; --link: #0b5cad; }
@media (prefers-color-scheme: dark) {
  :root { --ink: #e4e8ec; --soft: #a3afbb; --paper: #14181c; --band: #1e242a; --line: #39424b; --link: #7db8f5; }
}
* { box-sizing: border-box; }
body { margin: 0 auto; padding: 1.5rem clamp(1rem, 4vw, 3rem) 3rem; max-width: 72rem; color: var(--ink);
  background: var(--paper); font: 1rem/1.55 system-ui, -apple-system, "Segoe UI", Roboto, "DejaVu Sans", sans-serif; }
h1 { font-size: 1.7rem; line-height: 1.25; margin: 0 0 1rem; }
h2 { font-size: 1.2rem; margin: 2.2rem 0 0.7rem; padding-bottom: 0.25rem; border-bottom: 1px solid var(--line); }
p { max-width: 48rem; margin: 0 0 0.8rem; }
a { color: var(--link); }
.scroll { overflow-x: auto; margin: 0 0 1.6rem; }
table { border-collapse: collapse; font-size: 0.92rem; }
.caption { color: var(--soft); font-size: 0.92rem; margin: 0 0 0.4rem; }
th, td { padding: 0.28rem 0.85rem 0.28rem 0; text-align: left; vertical-align: top; white-space: nowrap; }
thead th { border-bottom: 1.5px solid var(--soft); vertical-align: bottom; white-space: normal; }
tbody th { font-weight: 500; }
tbody tr:nth-child(even) { background: var(--band); }
tbody tr { border-bottom: 1px solid var(--line); }
.number { text-align: right; font-variant-numeric: tabular-nums; }
th:first-child, td:first-child { padding-left: 0.5rem; }
.gallery { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(100%, 24rem), 1fr)); gap: 1.6rem; }
figure { margin: 1rem 0; min-width: 0; }
.gallery figure { margin: 0; }
.gallery .wide { grid-column: 1 / -1; }
img { display: block; width: 100%; height: auto; background: #ffffff; padding: 0.5rem; border: 1px solid var(--line);
  border-radius: 4px; }
figcaption { color: var(--soft); font-size: 0.9rem; margin-top: 0.4rem; max-width: 48rem; }
footer { color: var(--soft); font-size: 0.85rem; }
dl { display: grid; grid-template-columns: max-content 1fr; gap: 0.2rem 1rem; margin: 0 0 1rem; }
dt { font-weight: 600; } dd { margin: 0; overflow-wrap: anywhere; }
@media print { body { max-width: none; padding: 0; } figure, table { break-inside: avoid; } }
"""
