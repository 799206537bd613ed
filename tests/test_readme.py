"""What the README shows works: its Python blocks run and its links lead somewhere."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]


@pytest.mark.parametrize(
    "page", [PAGES[0], *(pytest.param(p, marks=pytest.mark.slow) for p in PAGES[1:])], ids=lambda p: p.name
)
def test_python_blocks_run(page, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for block in re.findall(r"^```python\n(.*?)^```", page.read_text(), flags=re.DOTALL | re.MULTILINE):
        exec(compile(block, str(page), "exec"), {})


@pytest.mark.parametrize("page", PAGES, ids=lambda p: p.name)
def test_links_lead_somewhere(page):
    for target in re.findall(r"\]\((?!https?:|#)([^)#]+)", page.read_text()):
        assert (page.parent / target).exists(), f"{page.name}: {target}"


def test_the_two_commands_are_there():
    """Continuous integration reads the test command from the README."""
    text = (ROOT / "README.md").read_text()
    assert re.search(r"^pip install .* && pytest$", text, flags=re.MULTILINE)
    assert re.search(
        r"^pip install .* && python experiments/train.py --config=configs/lacbed.py$", text, flags=re.MULTILINE
    )


def test_nothing_is_left_to_fill_in():
    for page in PAGES:
        assert "@@" not in page.read_text()
