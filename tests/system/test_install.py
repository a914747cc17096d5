"""The wheel, without extras beside a plain Airflow of either end, is a provider that works."""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
import urllib.request
import zipfile
from contextlib import ExitStack
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
UV = [sys.executable, "-m", "uv"]


def run(*command: str | Path, home: Path, stdin: str = "", **environment: str) -> str:
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("AIRFLOW_", "MAKE"))}
    done = subprocess.run(
        list(map(str, command)),
        env=kept | {"AIRFLOW_HOME": str(home), "COLUMNS": "200", "NO_PROXY": "127.0.0.1"} | environment,
        cwd=home,
        check=False,
        input=stdin,
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


IMPORT_ALL = """
import importlib, pkgutil
import airflow_provider_bubblehouse as package
for module in pkgutil.walk_packages(package.__path__, package.__name__ + "."):
    try:
        importlib.import_module(module.name)
    except ImportError as error:
        print(module.name, error.name)
    except SystemExit as error:
        print(module.name, error)
"""

PUSH = """
from airflow_provider_bubblehouse.operators.customers import UpdateCustomersOperator
push = UpdateCustomersOperator(task_id="push", customers=[{"id": "1"}, {"id": "2"}])
print(push.execute({})["accepted"])
"""


@pytest.mark.parametrize("version", ["2.11.*", "3.3.*"])
def test_the_wheel_alone_beside_a_plain_airflow_is_a_provider_that_pushes(wheel, tmp_path, sandbox, version):
    python = tmp_path / "env" / "bin" / "python"
    run(*UV, "venv", "--quiet", "--python", sys.executable, tmp_path / "env", home=tmp_path)
    install = [*UV, "pip", "install", "--quiet", "--compile-bytecode", "--python", python]
    run(*install, f"apache-airflow=={version}", home=tmp_path)
    plain = distributions(python, tmp_path)
    run(*install, wheel, home=tmp_path)

    added = distributions(python, tmp_path) - plain
    assert "airflow-provider-bubblehouse" in added
    assert len(added) <= 2, added
    described = run(python, "-m", "airflow", "providers", "get", "airflow-provider-bubblehouse", home=tmp_path)
    assert "airflow-provider-bubblehouse" in described
    # What needs an extra is the sandbox, and it alone.
    missing = run(python, "-W", "ignore", "-c", IMPORT_ALL, home=tmp_path).splitlines()
    assert not [line for line in missing if not line.startswith("airflow_provider_bubblehouse.sandbox.")], missing
    connection = {"AIRFLOW_CONN_BUBBLEHOUSE_DEFAULT": sandbox.connection()}
    assert run(python, "-c", PUSH, home=tmp_path, **connection).splitlines()[-1] == "2"
    assert [customer["id"] for customer in sandbox.customers()] == ["1", "2"]


RELEASES = re.findall(r"^RELEASE_\S+ := (\S+) (\S+)$", (ROOT / "Makefile").read_text(), re.MULTILINE)


@pytest.mark.parametrize(("airflow", "day"), RELEASES)
def test_the_wheel_fits_under_the_constraints_of_each_airflow(wheel, tmp_path, airflow, day):
    """No index has the constraints files. Instead, Airflow is resolved with its own extras as of its release day."""
    resolve = [*UV, "pip", "compile", "--quiet", "--no-header", "--no-annotate", "--python", sys.executable]
    resolve += ["--exclude-newer", day, "-"]
    own = f"apache-airflow[amazon,common-sql,google,s3fs]=={airflow}"
    constraints = tmp_path / "constraints.txt"
    constraints.write_text(run(*resolve, home=tmp_path, stdin=own))
    for extras in ("", "[gcs,parquet,s3,sandbox,sql]"):
        wanted = f"apache-airflow=={airflow}\nairflow-provider-bubblehouse{extras} @ file://{wheel}"
        resolved = run(*resolve, "--constraint", constraints, home=tmp_path, stdin=wanted)
        assert f"apache-airflow=={airflow}" in resolved.splitlines()


@pytest.mark.parametrize(("page", "commands"), [("README.md", 6), ("docs/quick-start.md", 4)])
def test_a_page_word_by_word_leads_from_nothing_to_ones_own_customers_in_the_sandbox(wheel, tmp_path, page, commands):
    """Of the page only what leads elsewhere is replaced: the index by the wheel, and folders and port by the test's."""
    python = tmp_path / "env" / "bin" / "python"
    run(*UV, "venv", "--quiet", "--python", sys.executable, tmp_path / "env", home=tmp_path)
    environment: dict[str, str] = {}
    lines = []
    with ExitStack() as running:
        for language, title, text in re.findall(
            r'^```(\w+)(?: title="(.+?)")?\n(.*?)^```', (ROOT / page).read_text(), re.DOTALL | re.MULTILINE
        ):
            if title:
                file = tmp_path / title.lstrip("/")
                file.parent.mkdir(exist_ok=True)
                file.write_text(text.replace('"/data/', f'"{tmp_path}/data/'))
                continue
            assert language == "console"
            for line in text.splitlines():
                lines.append(line)
                words = shlex.split(line.removeprefix("$ "), comments=True)
                if words == ["make", "demo"]:
                    make_demo(tmp_path)
                elif words == ["make", "test"]:
                    pass  # is what runs this
                elif words[:2] == ["pip", "install"]:
                    named = words[2].replace("airflow-provider-bubblehouse", str(wheel))
                    run(
                        *UV, "pip", "install", "--quiet", "--compile-bytecode", "--python", python, named, home=tmp_path
                    )
                elif "airflow_provider_bubblehouse.sandbox" in words:
                    words[words.index("--port") + 1] = "0"
                    sandbox = running.enter_context(
                        subprocess.Popen([python, *words[1:]], stdout=subprocess.PIPE, text=True, cwd=tmp_path)
                    )
                    running.callback(sandbox.terminate)
                    url = sandbox.stdout.readline().split()[-1]
                    name, _, value = sandbox.stdout.readline().removeprefix("export ").partition("=")
                    environment[name] = shlex.split(value)[0]
                else:
                    assert words[0] == "airflow"
                    run(python, "-m", *words, home=tmp_path, **environment)
        with urllib.request.urlopen(f"{url}/sandbox/customers") as answer:
            arrived = json.load(answer)
    assert len(lines) == commands
    assert sorted(customer["id"] for customer in arrived) == ["1001", "1002"]


def make_demo(folder: Path) -> None:
    """Run ``make demo`` where nothing is installed yet."""
    installed = shutil.ignore_patterns(".git", ".venv*", "build", "dist")
    shutil.copytree(ROOT, folder / "checkout", ignore=installed)
    printed = run("make", "demo", home=folder / "checkout")
    assert json.loads(printed.splitlines()[-1])["accepted"] == 59


def distributions(python: Path, home: Path) -> set[str]:
    listed = json.loads(run(*UV, "pip", "list", "--format", "json", "--python", python, home=home))
    return {distribution["name"] for distribution in listed}


def test_the_source_distribution_builds_the_same_wheel(wheel, tmp_path):
    (sdist,) = wheel.parent.glob("*.tar.gz")
    run(*UV, "build", "--quiet", "--wheel", "--out-dir", tmp_path, sdist, home=tmp_path)
    assert names(tmp_path / wheel.name) == names(wheel)


def names(wheel: Path) -> list[str]:
    with zipfile.ZipFile(wheel) as archive:
        return sorted(archive.namelist())
