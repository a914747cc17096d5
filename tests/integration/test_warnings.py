"""Neither the package nor an example imports what this Airflow warns about."""

from __future__ import annotations

import subprocess
import sys
from typing import TYPE_CHECKING

import pytest
from airflow import __version__ as airflow_version
from packaging.version import Version
from versions import EXAMPLE_NAMES, importable_examples

if TYPE_CHECKING:
    from pathlib import Path

IMPORT_ALL = """
import importlib, importlib.util, pkgutil, sys, warnings

import airflow_provider_bubblehouse as package

# By the module that a warning is about: what Airflow and others do inside is theirs. Last rules come first.
warnings.filterwarnings("error", module=package.__name__)
warnings.filterwarnings("error", module="file_of_dags")
for module in pkgutil.walk_packages(package.__path__, package.__name__ + "."):
    if not module.name.endswith("__main__"):
        importlib.import_module(module.name)
for path in sys.argv[1:]:
    spec = importlib.util.spec_from_file_location("file_of_dags", path)
    spec.loader.exec_module(importlib.util.module_from_spec(spec))
"""


def import_all(*files: Path) -> subprocess.CompletedProcess[str]:
    """Import every module and some DAG files; where one warns, that is an error."""
    return subprocess.run(
        [sys.executable, "-c", IMPORT_ALL, *map(str, files)], capture_output=True, check=False, text=True
    )


def test_the_package_and_the_examples_import_without_a_warning(tmp_path):
    folder = importable_examples(tmp_path / "examples")
    done = import_all(*(folder / f"{name}.py" for name in EXAMPLE_NAMES))
    assert done.returncode == 0, done.stderr


@pytest.mark.skipif(
    Version(airflow_version) < Version("3.1"), reason="this Airflow does not warn about where names have been"
)
def test_a_deprecated_import_would_be_seen(tmp_path):
    (tmp_path / "old.py").write_text("from airflow.decorators import task\n")
    done = import_all(tmp_path / "old.py")
    assert "DeprecatedImportWarning" in done.stderr
    assert done.returncode == 1
