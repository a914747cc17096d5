"""
Every block of code in the README, the pages beside it and those in docs/ runs, or is parsed if it cannot run here.

A block with a title is a file; the other blocks of the page find it under that name. A block may use what the blocks
above it import. Paths, hosts and shops are replaced by those of the test (``Page.localised``).
"""

from __future__ import annotations

import argparse
import ast
import configparser
import gzip
import importlib.metadata
import inspect
import json
import os
import re
import signal
import sqlite3
import subprocess
import sys
import tomllib
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path

import pytest
import recipes
import requests
import yaml
from airflow.models.connection import Connection
from pages import PAGES, ROOT, Block, blocks_of
from versions import AIRFLOW, DAG_IMPORTS, warnings_of

from airflow_provider_bubblehouse.airflow_compat import DAG
from airflow_provider_bubblehouse.hooks.bubblehouse import shop_connection
from airflow_provider_bubblehouse.operators.customers import UpdateCustomersOperator

try:
    from airflow.dag_processing.dagbag import DagBag
except ImportError:  # Airflow 2
    from airflow.models.dagbag import DagBag

PACKAGE = "airflow-provider-bubblehouse"

BLOCKS = [block for page in PAGES for block in blocks_of(page)]


def blocks(*languages: str) -> pytest.MarkDecorator:
    return pytest.mark.parametrize("block", [block for block in BLOCKS if block.language in languages], ids=str)


def test_every_fence_of_a_page_is_a_block_with_a_language_that_is_tested_here():
    for page in PAGES:
        assert page.read_text().count("```") == 2 * len(blocks_of(page)), page
    tested = {"python", "bash", "json", "ini", "toml", "csv", "text", "dockerfile"}
    assert {block.language for block in BLOCKS} <= tested
    assert len([block for block in BLOCKS if block.language == "python"]) > 20


@pytest.mark.parametrize("block", [block for block in BLOCKS if block.page.parent.name == "docs"], ids=str)
def test_no_line_of_a_block_is_cut_off_in_the_site(block):
    """A block has room for 96 characters on a screen 1280 pixels wide."""
    assert [line for line in block.text.splitlines() if len(line) > 96] == []


@dataclass
class Page:
    """A page's files, in a folder that its blocks run in, and what is made of what leads elsewhere."""

    folder: Path
    sandbox: object
    replaced: dict[str, str] = field(default_factory=dict)

    def localised(self, text: str) -> str:
        for ours, own in self.replaced.items():
            text = text.replace(ours, own)
        return text

    def file(self, title: str) -> Path:
        return self.folder / title.lstrip("/")

    def write(self, title: str, text: str) -> Path:
        path = self.file(title)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(self.localised(text))
        return path


CUSTOMERS = [
    {"id": "1001", "email": "ada@example.com", "tags": ["vip"]},
    {"email": "grace@example.com", "tags": ["vip"]},
]
CSV = "CustomerId,Email,City\n1001,ada@example.com,London\n1002,grace@example.com,New York\n"
JSONL = "".join(json.dumps(customer) + "\n" for customer in CUSTOMERS)
REJECTED = json.dumps({"row": 7, "reason": "rejected", "customer": {"id": "1007"}}) + "\n"


@pytest.fixture
def page(block, sandbox, airflow_database, chinook_database, tmp_path, monkeypatch) -> Page:
    page = Page(tmp_path, sandbox)
    for url in ("s3://my_aws_connection@my-bucket/",):
        page.replaced[url] = f"file://{tmp_path}/data/"
    page.replaced |= DAG_IMPORTS
    page.replaced |= {'"/data/': f'"{tmp_path}/data/', "my-shop": sandbox.shop, "http://127.0.0.1:8765": sandbox.url}
    page.write("data/customers.csv", CSV)
    page.write("data/forget.csv", "id\n1001\n")
    page.write("data/corrected/1.jsonl", REJECTED)
    for name in ("customers", "north", "south", "shards/0", "shards/1"):
        page.write(f"data/{name}.jsonl", JSONL)
    for name, content in recipes.FILES.items():
        recipe = page.file(f"data/{name}")
        recipe.parent.mkdir(parents=True, exist_ok=True)
        recipe.write_bytes(content)
    packed = page.file("data/customers/2026-01-01.csv.gz")
    packed.parent.mkdir()
    packed.write_bytes(gzip.compress(CSV.encode()))
    for other in blocks_of(block.page):
        if other.title:
            page.write(other.title, other.text)
    for name in ("north", "south"):
        monkeypatch.setenv(f"AIRFLOW_CONN_BUBBLEHOUSE_{name.upper()}", sandbox.connection())
    database = {"conn_type": "sqlite", "host": chinook_database}
    monkeypatch.setenv("AIRFLOW_CONN_SHOP_DATABASE", json.dumps(database))
    http = {"conn_type": "http", "login": None}
    monkeypatch.setenv("AIRFLOW_CONN_BUBBLEHOUSE_HTTP", sandbox.connection(**http))
    monkeypatch.chdir(tmp_path)
    return page


def imports_above(block: Block, page: Page) -> dict[str, object]:
    """Return what the blocks above a block have imported."""
    names: dict[str, object] = {}
    for other in blocks_of(block.page):
        if other.line < block.line and other.language == "python" and other.title is None:
            tree = ast.parse(page.localised(other.text))
            tree.body = [one for one in tree.body if isinstance(one, ast.Import | ast.ImportFrom)]
            exec(compile(tree, str(other), "exec"), names)
    return names


# What in a block needs which versions of Airflow: from the first up to but not including the second.
NEEDED_AIRFLOW = {
    "asset_state_store": ((3, 3), (4, 0), "the asset state store is new in Airflow 3.3"),
    "retry_policy=": ((3, 3), (4, 0), "retry policies are new in Airflow 3.3"),
    "from airflow.datasets": ((2, 11), (3, 0), "Airflow 3 has these names in airflow.sdk"),
}


@blocks("python")
def test_python_runs_and_its_tasks_succeed_against_the_sandbox(block, page, run_dag, tries_of):
    for sign, (first, end, reason) in NEEDED_AIRFLOW.items():
        if sign in block.text and not first <= AIRFLOW < end:
            pytest.skip(reason)
    if "def test_" in block.text:
        run_pytest(page)
        return
    if "with Sandbox(" in block.text:
        exec(compile(page.localised(block.text), str(block), "exec"), imports_above(block, page))
        return
    if "with DAG(" in block.text:
        dag = parsed(block, page)
        assert dag.max_active_runs == 1
        assert dag.catchup is False
    else:
        start = datetime(2026, 1, 1, tzinfo=UTC)
        with DAG(f"docs_{block.page.stem}_{block.line}".replace("-", "_"), schedule=None, start_date=start) as dag:
            exec(compile(page.localised(block.text), str(block), "exec"), imports_above(block, page))
    if not dag.tasks:
        return
    assert all(one.retries for one in dag.tasks if has_to_retry(one)), "an example has to show retries="
    run_dag(dag)
    assert {state for state, _ in tries_of(dag).values()} == {"success"}
    pushed = {call.status for call in page.sandbox.calls}
    calls_nothing = [one for one in dag.tasks if getattr(one, "sends", True) is False or one.inlets]
    assert pushed == (set() if calls_nothing else {200})


def has_to_retry(one) -> bool:
    return "extract" not in one.task_id and getattr(one, "sends", True)


def parsed(block: Block, page: Page) -> DAG:
    name = f"{block.page.stem}_{block.line}".replace("-", "_")
    # Pages share the names of DAGs, and dag.test() on Airflow 3.1 finds the tasks of the first one by its name.
    text = re.sub(r'with DAG\(\s*"', rf"\g<0>{name}_", block.text)
    path = page.write(f"parsed/{name}.py", text)
    bag = DagBag(dag_folder=str(path))
    assert bag.import_errors == {}
    assert warnings_of(bag) == []
    (dag,) = bag.dags.values()
    return dag


def run_pytest(page: Page) -> None:
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("AIRFLOW_CONN_", "PYTEST_"))}
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "tests"],
        cwd=page.folder,
        env=kept | {"AIRFLOW_HOME": str(page.folder / "airflow"), "PYTHONPATH": str(ROOT)},
        check=False,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert re.search(r"^3 passed", done.stdout, re.MULTILINE), done.stdout


@blocks("bash")
def test_a_command_runs_or_is_checked(block, page):
    for words in localised(block, page).commands:
        for start, check in CHECKS.items():
            if words[: len(start.split())] == start.split():
                check(words, page)
                break
        else:
            pytest.fail(f"{words!r} is neither run nor checked.")


def localised(block: Block, page: Page) -> Block:
    return replace(block, text=page.localised(block.text))


def check_pip_install(words: list[str], page: Page) -> None:
    if "-r" in words or any(word.endswith(".whl") for word in words):
        return
    ours = [word for word in words[2:] if re.split(r"[\[<>=]", word)[0].lower() in (PACKAGE, ".")]
    assert ours, words
    check_extras(ours)


def check_extras(ours: list[str]) -> None:
    extras = set(importlib.metadata.metadata(PACKAGE).get_all("Provides-Extra"))
    for word in ours:
        named = re.search(r"\[(.*)\]", word)
        assert named is None or set(named[1].split(",")) <= extras


def check_gcloud(words: list[str], page: Page) -> None:
    assert page.file(words[-1]).exists()


def check_make(words: list[str], page: Page) -> None:
    targets = re.findall(r"^([\w%.-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE)
    assert set(words[1:]) <= set(targets)


def check_export(words: list[str], page: Page) -> None:
    name, _, value = words[1].partition("=")
    assert name == "AIRFLOW_CONN_BUBBLEHOUSE_DEFAULT"
    stored = Connection.from_json(value) if value.startswith("{") else Connection(uri=value)
    assert stored.conn_type == "bubblehouse"
    assert shop_connection(stored).shop == page.sandbox.shop


def run_sandbox(words: list[str], page: Page) -> None:
    words[words.index("--port") + 1] = "0"  # any free one
    with subprocess.Popen([sys.executable, *words[1:]], stdout=subprocess.PIPE, text=True) as process:
        try:
            assert "listens at" in process.stdout.readline()
            assert process.stdout.readline().startswith("export AIRFLOW_CONN_BUBBLEHOUSE_DEFAULT=")
            assert any("Ctrl-C" in line for line in process.stdout)  # its last line; then it waits
        finally:
            process.send_signal(signal.SIGTERM)
    assert process.returncode == 0


def run_check(words: list[str], page: Page) -> None:
    done = subprocess.run([sys.executable, *words[1:]], check=False, capture_output=True, text=True, cwd=page.folder)
    assert (done.returncode, done.stdout.splitlines()[-1:]) == (0, ["All 2 rows can be sent."]), done.stderr


def run_pytest_of(words: list[str], page: Page) -> None:
    collected = subprocess.run(
        [sys.executable, "-m", "pytest", "--collect-only", "-q", *words[3:]],
        check=False,
        capture_output=True,
        cwd=ROOT,
    )
    assert collected.returncode == 0, collected.stdout


def run_airflow(words: list[str], page: Page) -> None:
    """Run a command of Airflow's with a home of its own, whose database is a copy of that of the tests."""
    home = page.folder / "airflow"
    if not home.exists():
        home.mkdir()
        databases = [sqlite3.connect(folder / "airflow.db") for folder in (Path(os.environ["AIRFLOW_HOME"]), home)]
        databases[0].backup(databases[1])  # also what lies beside the file, in its journal
        for database in databases:
            database.close()
    environment = dict(os.environ) | {
        "AIRFLOW_HOME": str(home),
        "AIRFLOW__CORE__DAGS_FOLDER": str(page.folder / "dags"),
        "PYTHONPATH": str(ROOT),
    }
    done = subprocess.run(
        [sys.executable, "-m", *words], env=environment, check=False, capture_output=True, text=True, cwd=page.folder
    )
    assert done.returncode == 0, done.stdout + done.stderr
    if words[1:3] == ["dags", "test"]:
        assert len(page.sandbox.customers()) == 2


def ask_sandbox(words: list[str], page: Page) -> None:
    """Make the request of a curl command, as there may be no curl here."""
    parser = argparse.ArgumentParser()
    parser.add_argument("-X", default="GET")
    parser.add_argument("-d")
    parser.add_argument("url")
    options = parser.parse_args(words[1:])
    assert requests.request(options.X, options.url, data=options.d, timeout=10).status_code == 200


def check_pip_show(words: list[str], page: Page) -> None:
    assert importlib.metadata.version(words[2])


# The check of a command, by its first words; any other command fails.
CHECKS = {
    "pip install": check_pip_install,  # not run: it would change the environment that the tests run in
    "make": check_make,  # not run: it would install much, or run these very tests
    "export": check_export,
    "python -m airflow_provider_bubblehouse.sandbox": run_sandbox,
    "airflow": run_airflow,
    "gcloud composer environments update": check_gcloud,
    "pip show": check_pip_show,
    ".venv/bin/python -m pytest": run_pytest_of,
    "UPDATE_DOCS=1 .venv/bin/python -m pytest": lambda words, page: run_pytest_of(words[1:], page),
    "curl": ask_sandbox,
    "python -m airflow_provider_bubblehouse check": run_check,
}


@blocks("json")
def test_json_can_be_read(block):
    json.loads(block.text)


@blocks("toml")
def test_toml_can_be_read(block):
    tomllib.loads(block.text)


@blocks("csv")
def test_a_csv_is_a_file_of_its_page_that_can_be_pushed(block, page):
    (pushed, *_) = [found for other in blocks_of(block.page) if (found := how_it_is_pushed(block.title, other))]
    push = UpdateCustomersOperator(task_id="push", path=page.file(block.title), dry_run=True, **pushed)
    has_header = "column_names" not in pushed.get("csv", ())
    assert push.execute({})["read"] == len(block.text.splitlines()) - has_header


def how_it_is_pushed(path: str, block: Block) -> dict[str, object]:
    """Return how a block reads a file."""
    for call in ast.walk(ast.parse(block.text if block.language == "python" else "")):
        if isinstance(call, ast.Call):
            given = {keyword.arg: keyword.value for keyword in call.keywords}
            if "path" in given and ast.literal_eval(given["path"]) == path:
                return {
                    name: ast.literal_eval(given[name]) for name in ("csv", "column_map", "formats") if name in given
                }
    return {}


@blocks("dockerfile")
def test_a_dockerfile_installs_the_package(block, page):
    commands = [words for words in block.commands if words[0] == "RUN"]
    assert {words[0] for words in block.commands} <= {"FROM", "COPY", "RUN"}
    for words in commands:
        check_pip_install(words[1:], page)


@blocks("text")
def test_a_map_of_the_code_names_files_and_folders_that_are_there(block):
    if block.title == "requirements.txt":
        check_extras(block.text.split())
        return
    roots = (ROOT, ROOT / "airflow_provider_bubblehouse")
    for line in block.text.splitlines():
        for name in re.split(r"\s{3,}", line.strip())[0].split():
            assert any((root / name).exists() for root in roots), name


@blocks("ini")
def test_a_secrets_backend_is_one_and_finds_the_connection(block, page):
    parser = configparser.ConfigParser()
    parser.read_string(page.localised(block.text))
    module, _, name = parser["secrets"]["backend"].rpartition(".")
    backend = getattr(importlib.import_module(module), name)(**json.loads(parser["secrets"]["backend_kwargs"]))
    assert shop_connection(backend.get_connection("bubblehouse_default")).shop == page.sandbox.shop


def rows_of(page: str, heading: str) -> list[list[str]]:
    """Return the cells of the first table below a heading."""
    text = (ROOT / page).read_text().partition(f"\n## {heading}\n")[2]
    table = re.search(r"(?:^\|.*\n)+", text, re.MULTILINE)
    assert table, heading
    return [[cell.strip() for cell in line.split("|")[1:-1]] for line in table[0].splitlines()[2:]]


def test_the_table_of_parameters_has_them_all_with_their_defaults():
    actual = {}
    for one in UpdateCustomersOperator.__mro__:
        if one.__module__ != UpdateCustomersOperator.__module__:
            continue
        for name, parameter in inspect.signature(inspect.unwrap(one.__init__)).parameters.items():
            if parameter.kind is parameter.KEYWORD_ONLY:
                actual[name] = parameter.default
    said = {}
    for names, default, *_ in rows_of("docs/pushing.md", "Parameters"):
        for name in re.findall(r"`(\w+)`", names):
            said[name] = ast.literal_eval(default.strip("`")) if default else None
    assert said == actual


MEASURED = re.compile(r"(?<=<!-- results -->\n).*(?=<!-- end of results -->)", re.DOTALL)


def test_the_page_and_the_readme_have_the_figures_of_the_last_benchmark():
    """With ``UPDATE_DOCS=1`` the page takes them; the line of the README is yours to write."""
    measured = (ROOT / "benchmarks" / "results.md").read_text().strip()
    page = ROOT / "docs" / "benchmarks.md"
    if os.environ.get("UPDATE_DOCS"):
        page.write_text(MEASURED.sub(lambda _: f"\n{measured}\n\n", page.read_text()))
    assert MEASURED.search(page.read_text())[0].strip() == measured
    (line,) = re.findall(r"^Speed of one task.+?\n\n", (ROOT / "README.md").read_text(), re.MULTILINE | re.DOTALL)
    for figure in re.findall(r"\d+,\d+|\d+\.\d+", line):
        assert figure in measured, f"The README says {figure}, which was not measured."


def test_every_error_in_the_troubleshooting_is_one_of_the_package():
    sources = " ".join(texts_of_the_package())
    text = (ROOT / "docs" / "troubleshooting.md").read_text()
    quoted = re.findall(r"^\| `([^`]+)` \|", text, re.MULTILINE)
    assert len(quoted) > 50
    parts = [part for each in quoted for part in map(str.strip, each.split("…")) if len(part) > 3]
    assert [part for part in parts if part not in sources] == []


def texts_of_the_package():
    """Yield every text in the package's source, of an f-string with a … for each value."""
    for path in (ROOT / "airflow_provider_bubblehouse").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Constant) and isinstance(node.value, str):
                yield node.value
            elif isinstance(node, ast.JoinedStr):
                yield "".join(part.value if isinstance(part, ast.Constant) else "…" for part in node.values)


def links_of(page: Path) -> list[str]:
    return re.findall(r"\]\(([^)\s]+)\)", page.read_text())


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_link_to_a_file_and_its_heading_leads_somewhere(page):
    for link in links_of(page):
        if "://" in link:
            continue
        name, _, anchor = link.partition("#")
        target = (page.parent / name) if name else page
        assert target.exists(), link
        if anchor:
            headings = re.findall(r"^#+ (.+)$", target.read_text(), re.MULTILINE)
            assert anchor in {re.sub(r"[^\w -]", "", one).strip().lower().replace(" ", "-") for one in headings}, link


def test_the_configuration_of_the_documentation_loads_nothing_from_elsewhere_and_names_every_page():
    text = (ROOT / "mkdocs.yml").read_text()
    configuration = yaml.safe_load(text)
    assert configuration["theme"]["font"] is False
    assert "extra_javascript" not in configuration
    assert all((ROOT / "docs" / name).exists() for name in configuration["extra_css"])
    assert set(re.findall(r"[\w-]+\.md", text)) == {page.name for page in PAGES if page.parent.name == "docs"}
