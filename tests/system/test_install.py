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
from importlib.metadata import metadata
from typing import TYPE_CHECKING

import pytest
from pages import PAGES, ROOT, blocks_of

if TYPE_CHECKING:
    from pathlib import Path

UV = [sys.executable, "-m", "uv"]


def run(*command: str | Path, home: Path, cwd: Path | None = None, stdin: str = "", **environment: str) -> str:
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("AIRFLOW_", "MAKE"))}
    done = subprocess.run(
        list(map(str, command)),
        env=kept | {"AIRFLOW_HOME": str(home), "COLUMNS": "200", "NO_PROXY": "127.0.0.1"} | environment,
        cwd=cwd or home,
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


EXTRAS = set(metadata("airflow-provider-bubblehouse").get_all("Provides-Extra") or ()) - {"dev", "docs"}
RELEASES = re.findall(r"^RELEASE_\S+ := (\S+) (\S+)$", (ROOT / "Makefile").read_text(), re.MULTILINE)


@pytest.mark.parametrize(("airflow", "day"), RELEASES)
def test_the_wheel_fits_under_the_constraints_of_each_airflow(wheel, tmp_path, airflow, day):
    """No index has the constraints files. Instead, Airflow is resolved with its own extras as of its release day."""
    resolve = [*UV, "pip", "compile", "--quiet", "--no-header", "--no-annotate", "--python", sys.executable]
    resolve += ["--exclude-newer", day, "-"]
    own = f"apache-airflow[amazon,common-sql,google,s3fs]=={airflow}"
    constraints = tmp_path / "constraints.txt"
    constraints.write_text(run(*resolve, home=tmp_path, stdin=own))
    for extras in ("", f"[{','.join(EXTRAS)}]"):
        wanted = f"apache-airflow=={airflow}\nairflow-provider-bubblehouse{extras} @ file://{wheel}"
        resolved = run(*resolve, "--constraint", constraints, home=tmp_path, stdin=wanted)
        assert f"apache-airflow=={airflow}" in resolved.splitlines()


@pytest.fixture(scope="session")
def empty_environment(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The programs of an environment with only Airflow and this package with the extras for sandbox and SQL."""
    home = tmp_path_factory.mktemp("empty")
    run(*UV, "venv", "--quiet", "--seed", "--python", sys.executable, home / "env", home=home)
    python = home / "env" / "bin" / "python"
    run(*UV, "pip", "install", "--quiet", "--python", python, f"{wheel}[sandbox,sql]", home=home)
    return python.parent


FIRST_BLOCKS = [first for page in PAGES if (first := next(iter(blocks_of(page)), None)) is not None]
PREPARED = {
    "README.md": "installs and is run word by word below",
    "quick-start.md": "installs and is run word by word below",
    "CONTRIBUTING.md": "installs and is run by the test of make demo",
}


def test_every_page_with_code_is_tried():
    """A page without a block of code has nothing to paste."""
    prose = {page.name for page in PAGES} - {first.page.name for first in FIRST_BLOCKS}
    assert prose == {"CHANGELOG.md", "SECURITY.md", "benchmarks.md"}


@pytest.mark.parametrize(
    "first", [first for first in FIRST_BLOCKS if first.page.name not in PREPARED], ids=lambda first: first.page.name
)
def test_the_first_block_of_a_page_runs_as_it_stands_in_an_empty_environment(
    first, empty_environment, tmp_path, sandbox
):
    program = {"python": empty_environment / "python", "bash": "bash"}[first.language]
    run(
        program,
        *(["-e"] if first.language == "bash" else ["-W", "error::UserWarning"]),
        write(tmp_path / f"first.{first.language}", first.text),
        home=tmp_path,
        AIRFLOW_CONN_BUBBLEHOUSE_DEFAULT=sandbox.connection(),
        PATH=f"{empty_environment}{os.pathsep}{os.environ['PATH']}",
    )


def write(path: Path, text: str) -> Path:
    path.write_text(text)
    return path


@pytest.mark.parametrize(("name", "commands"), [("README.md", 4), ("docs/quick-start.md", 4)])
def test_a_page_word_by_word_leads_from_nothing_to_your_own_file_in_the_sandbox(tmp_path, name, commands):
    """Only folders and the port are those of the test; the install command runs in a copy of the checkout."""
    python = tmp_path / "env" / "bin" / "python"
    run(*UV, "venv", "--quiet", "--python", sys.executable, tmp_path / "env", home=tmp_path)
    checkout = copy_of_the_checkout(tmp_path / "checkout")
    page = [block for block in blocks_of(ROOT / name) if block.title or block.language == "bash"]
    for block in page:
        if block.title:
            file = tmp_path / block.title.lstrip("/")
            file.parent.mkdir(exist_ok=True)
            file.write_text(block.text.replace('"/data/', f'"{tmp_path}/data/'))
    environment: dict[str, str] = {}
    lines = [words for block in page if block.language == "bash" for words in block.commands]
    with ExitStack() as running:
        for words in lines:
            if words[:2] == ["pip", "install"]:
                # uv takes a tenth of the time of pip, and installs the same.
                run(*UV, *words, "--quiet", "--python", python, home=tmp_path, cwd=checkout)
            elif "airflow_provider_bubblehouse.sandbox" in words:
                words[words.index("--port") + 1] = "0"
                process = subprocess.Popen([python, *words[1:]], stdout=subprocess.PIPE, text=True, cwd=tmp_path)
                sandbox = running.enter_context(process)
                running.callback(sandbox.terminate)
                url = sandbox.stdout.readline().split()[-1]
                name, _, value = (
                    next(line for line in sandbox.stdout if line.startswith("export "))
                    .removeprefix("export ")
                    .partition("=")
                )
                environment[name] = shlex.split(value)[0]
            else:
                assert words[0] == "airflow"
                run(python, "-m", *words, home=tmp_path, **environment)
        with urllib.request.urlopen(f"{url}/sandbox/customers") as answer:
            arrived = json.load(answer)
    assert len(lines) == commands
    assert sorted(customer["id"] for customer in arrived) == ["1001", "1002"]


def test_make_demo_needs_nothing_installed(tmp_path):
    printed = run("make", "demo", home=copy_of_the_checkout(tmp_path / "checkout"))
    assert json.loads(printed.splitlines()[-1])["accepted"] == 59


def copy_of_the_checkout(folder: Path) -> Path:
    shutil.copytree(ROOT, folder, ignore=shutil.ignore_patterns(".git", ".venv*", ".cache", "build", "dist"))
    return folder


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
