"""The same form in Airflow 2.11, which makes it from the hook's methods and tests it before it is saved."""

from __future__ import annotations

import json
import os
import sqlite3
import subprocess
from contextlib import closing
from pathlib import Path

import pytest
import requests
from deployment import ADDRESS, end, free_port, wait_until

from airflow_provider_bubblehouse.get_provider_info import get_provider_info

PYTHON = Path(__file__).parents[2] / ".venv-oldest" / "bin" / "python"
(TYPE,) = get_provider_info()["connection-types"]
FIELDS = TYPE["conn-fields"]


@pytest.fixture(scope="module")
def webserver(tmp_path_factory):
    """An Airflow 2.11 that only shows its web pages: its URL, and its folder."""
    if not PYTHON.exists():
        pytest.skip("there is no environment with the oldest Airflow; make test makes it")
    home = tmp_path_factory.mktemp("airflow-2")
    port = str(free_port())
    url = f"http://{ADDRESS}:{port}"
    kept = {name: value for name, value in os.environ.items() if not name.startswith("AIRFLOW_")}
    environment = kept | {
        "AIRFLOW_HOME": str(home),
        "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
        "AIRFLOW__CORE__TEST_CONNECTION": "Enabled",
        "AIRFLOW__DATABASE__SQL_ALCHEMY_CONN": f"sqlite:///{home}/airflow.db",
        "AIRFLOW__WEBSERVER__WORKERS": "1",
        "NO_PROXY": "127.0.0.1,localhost",
    }

    def airflow(*arguments: str) -> None:
        command = [str(PYTHON), "-m", "airflow", *arguments]
        done = subprocess.run(command, env=environment, capture_output=True, check=False, text=True)
        assert done.returncode == 0, done.stderr

    airflow("db", "migrate")
    person = ["--username", "admin", "--password", "admin", "--role", "Admin"]
    airflow("users", "create", *person, "--firstname", "A", "--lastname", "B", "--email", "admin@example.com")
    with (home / "webserver.out").open("wb") as output:
        process = subprocess.Popen(
            [PYTHON, "-m", "airflow", "webserver", "--hostname", ADDRESS, "--port", port],
            env=environment,
            stdout=output,
            stderr=subprocess.STDOUT,
        )
    try:
        wait_until(lambda: process.poll() is None and answers(f"{url}/health"), "the webserver answers", timeout=90)
        yield url, home
    finally:
        end([process])


def answers(url: str) -> bool:
    try:
        return requests.get(url, timeout=10).ok
    except requests.ConnectionError:
        return False


@pytest.fixture
def form(page, webserver):
    """The empty form of a connection of type Bubblehouse."""
    url, _ = webserver
    page.goto(f"{url}/login/")
    page.fill("#username", "admin")
    page.fill("#password", "admin")
    page.click("input[type=submit]")
    page.goto(f"{url}/connection/add")
    page.select_option("#conn_type", "bubblehouse", force=True)
    page.locator(extra("key_id")).wait_for()
    return page


def extra(name: str) -> str:
    return f"#extra__bubblehouse__{name}"


def fill(form, sandbox, conn_id: str) -> None:
    form.fill("#conn_id", conn_id)
    form.fill("#host", sandbox.url)
    form.fill("#login", sandbox.shop)
    form.fill(extra("key_id"), sandbox.key_id)
    form.fill(extra("shared_secret"), sandbox.shared_secret)
    form.fill(extra("timeout"), "30")
    form.check(extra("allow_debug"))


def press_test(form) -> str:
    with form.expect_response("**/connections/test") as answer:
        form.click("#test-connection")
    message = answer.value.json()["message"]
    form.locator(".alert").get_by_text(message).wait_for()
    return message


def test_the_form_has_the_same_labels_descriptions_and_hidden_fields(form):
    for name, label in TYPE["ui-field-behaviour"]["relabeling"].items():
        assert form.locator(f"label[for={name}]").inner_text() == label
    for name in TYPE["ui-field-behaviour"]["hidden-fields"]:
        assert not form.locator(f"#{name}").is_visible()
    shown = " ".join(form.locator("#model_form").inner_text().split())
    for name, field in FIELDS.items():
        assert form.locator(extra(name)).is_visible()
        assert field["label"] in shown
        assert field["description"] in shown
    assert form.locator(extra("shared_secret")).get_attribute("type") == "password"


def test_the_test_button_takes_extras_as_text_and_says_what_to_do(form, sandbox):
    fill(form, sandbox, "shop")
    assert "accepts the token" in press_test(form)
    form.fill(extra("key_id"), "another-key")
    assert "put a current Shop token (password)" in press_test(form)
    form.fill(extra("timeout"), "0")
    assert "Timeout (timeout) of the Airflow connection must be a number above 0" in press_test(form)


def test_what_is_saved_has_its_types_and_the_secret_does_not_come_back(form, webserver, sandbox):
    url, home = webserver
    fill(form, sandbox, "saved")
    form.click("#model_form button[type=submit]")
    form.get_by_text("Added Row").wait_for()
    with closing(sqlite3.connect(home / "airflow.db")) as database:
        ((number, is_encrypted),) = database.execute("SELECT id, is_extra_encrypted FROM connection").fetchall()
    assert is_encrypted
    read = "from airflow.models import Connection; print(Connection.get_connection_from_secrets('saved').extra)"
    environment = os.environ | {
        "AIRFLOW_HOME": str(home),
        "AIRFLOW__DATABASE__SQL_ALCHEMY_CONN": f"sqlite:///{home}/airflow.db",
    }

    def stored() -> dict:
        done = subprocess.run([PYTHON, "-c", read], env=environment, capture_output=True, check=True, text=True)
        return json.loads(done.stdout.splitlines()[-1])

    expected = {
        "key_id": sandbox.key_id,
        "shared_secret": sandbox.shared_secret,
        "api_version": "",
        "timeout": 30,
        "allow_debug": True,
    }
    kept = stored()
    assert {name: kept.get(name, "") for name in expected} == expected
    form.goto(f"{url}/connection/edit/{number}")
    form.locator(extra("key_id")).wait_for()
    assert sandbox.shared_secret not in form.content()
    form.fill("#description", "edited")
    form.click("#model_form button[type=submit]")
    form.get_by_text("Changed Row").wait_for()
    assert stored() == kept
