"""The rules of docs/design.md that a program can check: who imports whom, and what nobody may use."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PACKAGE = ROOT / "physml_jax"
MODULES = sorted(PACKAGE.rglob("*.py"))

#: package -> packages of physml_jax that it may import (itself included implicitly)
MAY_IMPORT = {
    "core": {"typing"},
    "simulators": {"typing", "core"},
    "models": {"typing", "core"},
    "analysis": {"typing", "core", "simulators"},
    "io": {"typing", "core", "simulators"},
    "data": {"typing", "core", "simulators", "io"},
    "tasks": {"typing", "core", "models", "analysis"},
    "viz": {"typing", "core", "analysis"},
    "reports": {"typing", "core", "analysis", "viz"},
}
#: top-level packages that a part of physml_jax must not import
MUST_NOT_IMPORT = {
    "core": {"flax", "optax", "orbax", "ml_collections", "matplotlib", "tensorflow_datasets"},
    "simulators": {"flax", "optax", "orbax", "ml_collections", "matplotlib", "tensorflow_datasets", "gemmi"},
    "models": {"optax", "orbax", "ml_collections", "matplotlib"},
    "analysis": {"matplotlib", "ml_collections"},
}
BANNED = {
    "np.random": "NumPy's generators have a history; use core.rng",
    "numpy.random": "NumPy's generators have a history; use core.rng",
    "jax.pmap": "in maintenance mode; use jit with NamedSharding",
    "jax.random.PRNGKey": "raw keys; use jax.random.key",
    "ml_collections": "only configs/ and experiments/ know ml_collections",
}


def dotted(node):
    """``a.b.c`` of an attribute chain, or ''."""
    if isinstance(node, ast.Name):
        return node.id
    if isinstance(node, ast.Attribute):
        left = dotted(node.value)
        return f"{left}.{node.attr}" if left else ""
    return ""


def imports(tree):
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (a.name for a in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield from (f"{node.module}.{a.name}" for a in node.names)


def violations(path, source):
    parts = path.relative_to(PACKAGE).parts
    part = parts[0] if len(parts) > 1 else None
    tree = ast.parse(source)
    found = []
    for name in imports(tree):
        top, _, rest = name.partition(".")
        if top == "physml_jax" and part in MAY_IMPORT:
            target = rest.split(".")[0]
            if target and target != part and target not in MAY_IMPORT[part]:
                found.append(f"{part} must not import {name}")
        if (
            part == "training"
            and parts[-1] == "loop.py"
            and name.startswith(("physml_jax.simulators", "physml_jax.models", "physml_jax.tasks", "physml_jax.data"))
        ):
            found.append(f"training.loop must not import {name}")
        if top in MUST_NOT_IMPORT.get(part, ()) or top == "ml_collections":
            found.append(f"{part} must not import {top}")
        if name.startswith(("numpy.random",)):
            found.append(f"{name}: {BANNED['np.random']}")
    for node in ast.walk(tree):
        chain = dotted(node)
        if chain in BANNED:
            found.append(f"{chain}: {BANNED[chain]}")
        if chain == "jax.config.update" and parts != ("training", "sharding.py"):
            found.append("jax.config.update belongs to training/sharding.py")
    if part == "viz":
        for node in tree.body:
            if isinstance(node, ast.Import | ast.ImportFrom) and "matplotlib" in ast.unparse(node):
                found.append("matplotlib is imported inside functions")
    return found


@pytest.mark.parametrize("path", MODULES, ids=lambda p: str(p.relative_to(ROOT)))
def test_rules(path):
    assert violations(path, path.read_text()) == []


@pytest.mark.parametrize(
    ("where", "code"),
    [
        ("simulators/x.py", "import flax"),
        ("simulators/x.py", "from physml_jax.io import cif"),
        ("models/x.py", "from physml_jax.simulators.percolation import sampling"),
        ("tasks/x.py", "import numpy as np\nnp.random.rand()"),
        ("data/x.py", "import jax\njax.config.update('a', 1)"),
        ("training/loop.py", "from physml_jax.models import resnet"),
        ("training/setup.py", "import ml_collections"),
        ("viz/x.py", "import matplotlib.pyplot as plt"),
    ],
)
def test_the_check_finds_what_it_looks_for(where, code):
    assert violations(PACKAGE / where, code)


def test_simulators_load_little():
    """Importing a simulator loads jax and numpy, and none of the training stack."""
    code = (
        "import sys, physml_jax.simulators.diffraction.bloch, physml_jax.simulators.percolation;"
        "heavy = {'flax', 'optax', 'orbax', 'matplotlib', 'tensorflow_datasets', 'ml_collections', 'gemmi'}"
        " & set(sys.modules);"
        "sys.exit(f'loaded {heavy}' if heavy else 0)"
    )
    subprocess.run([sys.executable, "-c", code], check=True, cwd=ROOT, timeout=120)


def test_no_module_is_too_long():
    """One idea per module: past 500 lines a module wants splitting."""
    assert [f"{p}: {n}" for p in MODULES if (n := len(p.read_text().splitlines())) > 500] == []


def test_no_junk_drawers():
    """Names that say nothing about what is inside."""
    assert [p for p in MODULES if p.stem in {"utils", "helpers", "common", "registry", "manager"}] == []
