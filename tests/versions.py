"""What the Airflow under test lacks, and DAG files that it can import."""

from __future__ import annotations

import shutil
from importlib.metadata import version
from pathlib import Path

import pytest

AIRFLOW = tuple(map(int, version("apache-airflow").split(".")[:2]))

# A worker of Airflow 3.0 to 3.2 passes callbacks the exception, but dag.test() there does not.
TELLS_CALLBACKS = not (3, 0) <= AIRFLOW <= (3, 2)
tells_callbacks = pytest.mark.skipif(not TELLS_CALLBACKS, reason="dag.test() passes callbacks no exception here")

# Examples and docs import from `airflow.sdk`. Airflow 2.11 has these names elsewhere, as docs/versions.md says.
DAG_IMPORTS = (
    {} if AIRFLOW >= (3, 0) else {"from airflow.sdk import": "from airflow_provider_bubblehouse.airflow_compat import"}
)
_EXAMPLES = Path(__file__).parents[1] / "dags_examples"
_IMPORTED_SINCE = {"delete_after_approval": (3, 1)}  # the ApprovalOperator cannot be imported before
# The examples that this Airflow can import.
EXAMPLE_NAMES = sorted(
    file.stem for file in _EXAMPLES.glob("*.py") if _IMPORTED_SINCE.get(file.stem, AIRFLOW) <= AIRFLOW
)


def importable(source: str) -> str:
    """Return the text of a DAG file as this Airflow can import it."""
    for there, here in DAG_IMPORTS.items():
        source = source.replace(there, here)
    return source


def importable_examples(folder: Path) -> Path:
    """
    Return a folder with the example DAGs as this Airflow can import them.

    :param folder: where a copy may be written; it must not exist.
    """
    if not DAG_IMPORTS:
        return _EXAMPLES
    shutil.copytree(_EXAMPLES, folder, ignore=shutil.ignore_patterns("__pycache__"))
    for file in folder.glob("*.py"):
        file.write_text(importable(file.read_text()))
    return folder


def warnings_of(bag) -> list[str]:
    """
    Return the warnings of the DAG files in a bag.

    Those that a library gives about itself are left out: Airflow imports the assets of all providers when it parses the
    first file with an asset, and some warn of the version of Python.
    """
    found = [warning for warnings in bag.captured_warnings.values() for warning in warnings]
    return [warning for warning in found if "/site-packages/" not in warning.partition(": ")[0]]
