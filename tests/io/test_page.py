import json
from html.parser import HTMLParser

import numpy as np
import pytest
from matplotlib.figure import Figure

from physml_jax.io import page
from physml_jax.typing import Report, Table


def figure(width=4.0):
    drawn = Figure(figsize=(width, 2.0))
    drawn.subplots().plot([0, 1], [0, 1])
    return drawn


def report(**changes):
    made = Report(
        title="R & D <b>",
        summary=["Mean R is <0.9>.", "Second."],
        metrics={
            "model": {"r_mean": np.float32(0.5), "n": np.int64(3), "low": None},
            "list": [1, 2.5],
            "array": np.arange(2),
        },
        tables={"scores": Table("A & B", ("method", "R"), [["<script>alert(1)</script>", 0.123456], ["x", None]])},
        figures={"first": (figure(7.0), 'Says "hello" <i>'), "second": (figure(), "Other")},
    )
    return made._replace(**changes)


class Checker(HTMLParser):
    """Collects text, tags and attributes; fails where tags do not nest."""

    VOID = frozenset({"meta", "img", "link", "br"})

    def __init__(self, text):
        super().__init__()
        self.stack, self.tags, self.text, self.attributes = [], [], [], []
        self.feed(text)
        assert self.stack == []

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.attributes += [(tag, *a) for a in attrs]
        if tag not in self.VOID:
            self.stack.append(tag)

    def handle_endtag(self, tag):
        assert self.stack.pop() == tag

    def handle_data(self, data):
        self.text.append(data)


def test_files_and_content(tmp_path):
    path = page.write_report(tmp_path, report())
    assert path == tmp_path / "report.html"
    assert json.loads((tmp_path / "metrics.json").read_text()) == {
        "model": {"r_mean": 0.5, "n": 3, "low": None},
        "list": [1, 2.5],
        "array": [0, 1],
    }
    for name in ("first", "second"):
        assert (tmp_path / "figures" / f"{name}.png").read_bytes().startswith(b"\x89PNG")
    assert sorted(p.name for p in tmp_path.rglob("*") if p.is_file()) == [
        "first.png",
        "metrics.json",
        "report.html",
        "second.png",
    ]
    html = path.read_text(encoding="utf-8")
    found = Checker(html)
    assert "0.1235" in found.text and "–" in found.text
    assert "script" not in found.tags and "<script>alert(1)</script>" in found.text
    assert "R & D <b>" in found.text and "b" not in found.tags
    assert ("img", "alt", 'Says "hello" <i>') in found.attributes
    assert found.tags.count("img") == 2 and found.tags.count("h1") == 1
    assert ("html", "lang", "en") in found.attributes
    assert html.index("Summary</h2>") < html.index("Numbers</h2>") < html.index("Figures</h2>")


def test_page_is_self_contained(tmp_path):
    found = Checker(page.write_report(tmp_path, report()).read_text())
    sources = [value for _, key, value in found.attributes if key == "src"]
    assert len(sources) == 2 and all(s.startswith("data:image/png;base64,") for s in sources)
    assert not any(key == "href" and "//" in value for _, key, value in found.attributes)
    identifiers = [value for _, key, value in found.attributes if key == "id"]
    assert len(set(identifiers)) == len(identifiers)
    labels = [value for _, key, value in found.attributes if key == "aria-labelledby"]
    assert labels and set(labels) <= set(identifiers)


def test_equal_reports_are_equal_files(tmp_path):
    first = page.write_report(tmp_path, report()).read_bytes()
    assert page.write_report(tmp_path, report()).read_bytes() == first


def test_provenance(tmp_path):
    starts = [{"seed": 3, "command": ["old"]}, {"seed": 3, "command": ["train.py", "--x=<y>"], "git": {"dirty": True}}]
    (tmp_path / page.PROVENANCE).write_text(json.dumps({"starts": starts}))
    text = page.write_report(tmp_path, report()).read_text()
    assert "train.py --x=&lt;y&gt;" in text and "dirty yes" in text and "Provenance" in text
    (tmp_path / page.PROVENANCE).write_text('{"starts": [')
    assert "Provenance" not in page.write_report(tmp_path, report()).read_text()


def test_empty_report(tmp_path):
    made = Report("Nothing", [], {}, {}, {})
    Checker(page.write_report(tmp_path, made).read_text())
    assert not (tmp_path / "figures").exists()


@pytest.mark.parametrize(
    ("changes", "match"),
    [
        ({"metrics": {"baselines": {"mean": {"r": float("nan")}}}}, r"metrics\.baselines\.mean\.r: nan is not finite"),
        ({"metrics": {"a": [1.0, np.float32("inf")]}}, r"metrics\.a\[1\]: .*inf.* is not finite"),
        ({"metrics": {"a": np.array([0.0, np.nan])}}, r"metrics\.a: .* is not finite"),
        ({"metrics": {1: 2}}, "metrics: expected text as keys"),
        ({"metrics": {"a": object()}}, r"metrics\.a: expected numbers"),
        ({"tables": {"t": Table("c", ("a", "b"), [[1]])}}, r"tables\.t: row 0 has 1 entries for 2 columns"),
        ({"tables": {"t": Table("c", ("a",), [[float("nan")]])}}, r"tables\.t: row 0, column 'a' is nan"),
        ({"figures": {"../x": (figure(), "c")}}, "figures: '../x' cannot be a file name"),
    ],
)
def test_bad_reports_write_nothing(tmp_path, changes, match):
    with pytest.raises(ValueError, match=match):
        page.write_report(tmp_path, report(**changes))
    assert list(tmp_path.iterdir()) == []


def test_missing_folder(tmp_path):
    with pytest.raises(OSError, match="does not exist"):
        page.write_report(tmp_path / "absent", report())


def test_a_failure_keeps_the_old_page(tmp_path, monkeypatch):
    path = page.write_report(tmp_path, report())
    old = path.read_bytes()
    written = []

    def full_disk(target, data):
        written.append(target.name)
        if target.name == page.METRICS:
            raise OSError("No space left on device")

    monkeypatch.setattr(page, "write_atomic", full_disk)
    with pytest.raises(OSError, match="No space"):
        page.write_report(tmp_path, report(title="new"))
    assert path.read_bytes() == old and page.PAGE not in written
