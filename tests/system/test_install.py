"""The wheel, alone beside a plain Airflow of either end, is a provider that Airflow lists."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
UV = [sys.executable, "-m", "uv"]


def run(*command: str | Path, home: Path) -> str:
    kept = {name: value for name, value in os.environ.items() if not name.startswith("AIRFLOW_")}
    done = subprocess.run(
        list(map(str, command)),
        env=kept | {"AIRFLOW_HOME": str(home), "COLUMNS": "200"},
        cwd=home,
        check=False,
        text=True,
        capture_output=True,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope="session")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("dist")
    run(*UV, "build", "--quiet", "--out-dir", folder, ROOT, home=folder)
    (built,) = folder.glob("*.whl")
    return built


@pytest.mark.parametrize("version", ["2.11.*", "3.3.*"])
def test_the_wheel_installs_beside_a_plain_airflow_which_lists_it(wheel, tmp_path, version):
    python = tmp_path / "env" / "bin" / "python"
    run(*UV, "venv", "--quiet", "--python", sys.executable, tmp_path / "env", home=tmp_path)
    install = [*UV, "pip", "install", "--quiet", "--compile-bytecode", "--python", python]
    run(*install, f"apache-airflow=={version}", home=tmp_path)
    run(*install, wheel, home=tmp_path)
    assert "airflow-provider-bubblehouse" in run(python, "-m", "airflow", "providers", "list", home=tmp_path)
    imported = "import airflow_provider_bubblehouse.operators.customers, airflow_provider_bubblehouse.push.push"
    run(python, "-c", imported, home=tmp_path)
