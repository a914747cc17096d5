"""The bridge to Airflow's names has every name that is used, on every supported Airflow, and nothing bypasses it."""

from __future__ import annotations

import ast
import subprocess
import sys
import warnings
from pathlib import Path

import pytest

from airflow_provider_bubblehouse import airflow_compat

ROOT = Path(__file__).parents[2]
BRIDGE = Path(airflow_compat.__file__)
NAMES = sorted(airflow_compat._PLACES)
# What only some module has on every supported Airflow, or only a newer one.
IMPORTED_DIRECTLY = {"airflow.triggers.base": ("triggers", "sensors"), "airflow.sdk": ("retry_policy",)}


def trees(*folders: str) -> dict[Path, ast.Module]:
    files = [file for folder in folders for file in (ROOT / folder).rglob("*.py")]
    return {file: ast.parse(file.read_text()) for file in files}


def imports_from(tree: ast.AST, module: str) -> set[str]:
    return {
        alias.name
        for node in ast.walk(tree)
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith(module)
        for alias in node.names
    }


@pytest.mark.parametrize("name", NAMES)
def test_this_airflow_has_every_name(name):
    assert getattr(airflow_compat, name) is not None


@pytest.mark.parametrize("name", NAMES)
def test_this_airflow_has_every_name_under_a_common_compat_without_the_sdk_module(name, monkeypatch):
    monkeypatch.setitem(sys.modules, "airflow.providers.common.compat.sdk", None)  # an import then fails
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # a new Airflow warns about the old places
        assert airflow_compat._find(name) is not None


def test_every_name_that_the_package_and_the_tests_import_is_in_the_bridge():
    modules = trees(BRIDGE.parent.name, "tests").values()
    used = set().union(*(imports_from(tree, airflow_compat.__name__) for tree in modules))
    assert used
    assert used <= {*NAMES, "call_in_thread"}


def test_a_type_checker_sees_the_same_names():
    assert imports_from(ast.parse(BRIDGE.read_text()), "airflow.") == set(NAMES)


def test_only_the_bridge_imports_from_common_compat():
    wrong = [
        file.name
        for file in (*trees(BRIDGE.parent.name, "tests", "dags_examples", "benchmarks", "scripts"),)
        if "airflow.providers.common.compat" in file.read_text() and file not in (BRIDGE, Path(__file__))
    ]
    assert not wrong


def test_the_package_imports_airflow_through_the_bridge_only():
    wrong = {
        (file.name, node.module)
        for file, tree in trees(BRIDGE.parent.name).items()
        for node in ast.walk(tree)
        if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == "airflow" and file != BRIDGE
        # Other providers have one place only.
        if not node.module.startswith("airflow.providers.")
        and not {file.stem, file.parent.name} & set(IMPORTED_DIRECTLY.get(node.module, ()))
    }
    assert not wrong


def test_the_error_of_a_missing_name_says_what_to_update(monkeypatch):
    monkeypatch.setitem(airflow_compat._PLACES, "Stats", ("airflow.no_such_module", "airflow.exceptions"))
    with pytest.raises(ImportError, match="update apache-airflow-providers-common-compat") as caught:
        airflow_compat._find("Stats")
    assert "no_such_module" in str(caught.value.__cause__), "a module that fails to be imported says why"


def test_a_name_that_the_bridge_does_not_know_is_an_attribute_error():
    with pytest.raises(AttributeError, match="no attribute 'Sensor'"):
        airflow_compat.Sensor  # noqa: B018


def test_the_bridge_does_not_import_airflow_before_a_name_is_used():
    code = f"import sys, {airflow_compat.__name__}; assert 'airflow' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)
