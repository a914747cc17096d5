"""The structure of the package: data flows in one direction, and the core knows nothing of Airflow."""

from __future__ import annotations

import ast
from functools import cache
from pathlib import Path

import pytest

import airflow_provider_bubblehouse

PACKAGE = "airflow_provider_bubblehouse"
ROOT = Path(airflow_provider_bubblehouse.__file__).parent
FACES_AIRFLOW = (
    "airflow_compat",
    "assets",
    "callbacks",
    "decorators",
    "exceptions",
    "hooks",
    "lineage",
    "operators",
    "retry_policy",
    "sensors",
    "triggers",
)


@cache
def imports() -> dict[str, set[str]]:
    """Return what each module of the package imports of it, in functions too, but not for types only."""
    modules = {
        ".".join((PACKAGE, *file.relative_to(ROOT).with_suffix("").parts)).removesuffix(".__init__"): file
        for file in ROOT.rglob("*.py")
    }
    return {name: _imported(ast.parse(file.read_text()), modules.keys()) for name, file in modules.items()}


def _imported(tree: ast.AST, modules: set[str]) -> set[str]:
    found: set[str] = set()
    nodes = [tree]
    while nodes:
        node = nodes.pop()
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
            continue
        nodes += ast.iter_child_nodes(node)
        if isinstance(node, ast.Import):
            found |= {name.name for name in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            whole = {f"{node.module}.{name.name}" for name in node.names}
            found |= (whole & modules) or {node.module}
    return found


def test_no_modules_import_each_other_in_a_circle():
    graph = {name: {other for other in used if other in imports()} for name, used in imports().items()}
    while leaves := [name for name, used in graph.items() if not used]:
        for leaf in leaves:
            del graph[leaf]
        for used in graph.values():
            used.difference_update(leaves)
    assert not graph, f"in or before a circle: {sorted(graph)}"


@pytest.mark.parametrize("part", ["api", "customers", "errors", "formats", "push", "sources", "stores"])
def test_the_core_imports_no_module_that_faces_airflow(part):
    core = {name: used for name, used in imports().items() if name.startswith(f"{PACKAGE}.{part}")}
    assert core
    facing = tuple(f"{PACKAGE}.{name}" for name in FACES_AIRFLOW)
    wrong = {
        (name, other)
        for name, used in core.items()
        for other in used
        if other.startswith(facing) or other.partition(".")[0] == "airflow"
    }
    assert not wrong


def test_no_function_is_longer_than_forty_lines_without_its_docstring():
    long = []
    for file in ROOT.rglob("*.py"):
        for node in ast.walk(ast.parse(file.read_text())):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                first = node.body[0]
                docstring = first.end_lineno - first.lineno + 1 if ast.get_docstring(node) else 0
                lines = node.end_lineno - node.lineno + 1 - docstring
                if lines > 40:
                    long.append(f"{file.name} {node.name}: {lines}")
    assert not long
