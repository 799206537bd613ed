"""Executes every notebook from nothing and fails on the first error; those in the repository keep no outputs."""

import sys
from pathlib import Path

import nbformat
from nbclient import NotebookClient

notebooks = sorted(Path("notebooks").glob("*.ipynb"))
for path in notebooks:
    notebook = nbformat.read(path, as_version=4)
    if any(cell.get("outputs") for cell in notebook.cells):
        sys.exit(f"{path}: holds outputs; clear them before committing")
    print(path, flush=True)
    NotebookClient(
        notebook, timeout=900, kernel_name="python3", resources={"metadata": {"path": "notebooks"}}
    ).execute()
if not notebooks:
    sys.exit("no notebook found")
