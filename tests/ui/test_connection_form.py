"""The connection form of Airflow 3.3 in a browser."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
from pictures import text_of, with_text

from airflow_provider_bubblehouse.get_provider_info import get_provider_info

PICTURE = Path(__file__).parents[2] / "docs" / "connection-form.png"
(TYPE,) = get_provider_info()["connection-types"]
FIELDS = TYPE["conn-fields"]
MASK = "***"


class Connections:
    """The page of connections and the dialog that adds or edits one."""

    def __init__(self, page, url: str) -> None:
        self.page = page
        self.dialog = page.get_by_role("dialog")
        page.goto(f"{url}/connections")

    def add(self, conn_id: str) -> None:
        self.page.get_by_role("button", name="Add Connection").click()
        self.dialog.get_by_label("Connection ID").fill(conn_id)
        self.dialog.get_by_role("combobox").fill("Bubble")
        self.page.get_by_role("option", name="Bubblehouse").click()
        self.field("Shop slug").wait_for()

    def edit(self, conn_id: str) -> None:
        self._press(conn_id, "Edit Connection")
        self.field("Shop slug").wait_for()

    def field(self, name: str):
        """Return the input of a standard field by its label, or of an extra field, which has no label, by its name."""
        return self.dialog.locator(f"[name=element_{name}]") if name in FIELDS else self.dialog.get_by_label(name)

    def open(self, part: str) -> None:
        self.dialog.get_by_role("button", name=part, exact=True).click()

    def json_editor(self):
        self.open("Extra Fields JSON")
        return self.dialog.locator(".view-lines")

    def fill(self, values: dict[str, str]) -> None:
        for name, value in values.items():
            self.field(name).fill(value)

    def save(self) -> None:
        self.dialog.get_by_role("button", name="Save").click()
        self.dialog.wait_for(state="detached")

    def test(self, conn_id: str) -> str:
        """Press the Test button and return the message that it shows."""
        with self.page.expect_response("**/connections/test") as answer:
            self._press(conn_id, "Test Connection")
        message = answer.value.json()["message"] if answer.value.ok else answer.value.status_text
        self.page.locator("[data-scope=toast]").get_by_text(message, exact=True).first.wait_for()
        return message

    def _press(self, conn_id: str, button: str) -> None:
        row = self.page.get_by_role("row").filter(has=self.page.get_by_text(conn_id, exact=True))
        # Not click(): the tooltip of the button under the mouse covers the next one.
        row.get_by_role("button", name=button).dispatch_event("click")


@pytest.fixture
def connections(page, deployment):
    yield Connections(page, deployment.url)
    for stored in deployment.api("GET", "/connections")["connections"]:
        deployment.delete_connection(stored["connection_id"])


def by_token(sandbox) -> tuple[dict[str, str], dict[str, str]]:
    """Return the values of the standard fields and of the extra fields."""
    return address(sandbox) | {"Shop token": sandbox.token}, {}


def by_secret(sandbox) -> tuple[dict[str, str], dict[str, str]]:
    return address(sandbox), {"key_id": sandbox.key_id, "shared_secret": sandbox.shared_secret}


def address(sandbox) -> dict[str, str]:
    host, _, port = sandbox.url.rpartition(":")
    return {"API host": host, "Port": port, "Shop slug": sandbox.shop}


def make(connections, conn_id: str, standard: dict[str, str], extra: dict[str, str]) -> None:
    connections.add(conn_id)
    connections.fill(standard)
    if extra:
        connections.open("Extra Fields")
        connections.fill(extra)
    connections.save()


def test_the_form_has_the_labels_and_descriptions_of_the_provider_and_no_unused_field(connections):
    connections.add("shop")
    dialog = connections.dialog
    standard = dialog.get_by_role("region", name="Standard Fields")
    assert standard.locator("label").all_inner_texts() == ["Description", "API host", "Shop slug", "Shop token", "Port"]
    for name, hint in TYPE["ui-field-behaviour"]["placeholders"].items():
        assert dialog.locator(f"input[name={name}]").get_attribute("placeholder") == hint
    connections.open("Extra Fields")
    connections.field("key_id").wait_for()
    shown = " ".join(dialog.inner_text().split())
    for name, field in FIELDS.items():
        assert f"{field['label']} {field['description']}" in shown
        typed = connections.field(name).get_attribute("type")
        assert (typed == "password") == (field["schema"].get("format") == "password")
    assert dialog.locator("input[name=password]").get_attribute("type") == "password"


@pytest.mark.parametrize("way", [by_token, by_secret])
def test_a_secret_comes_back_masked_and_saving_the_mask_keeps_it(connections, deployment, sandbox, way):
    standard, extra = way(sandbox)
    make(connections, "shop", standard, extra)
    connections.edit("shop")
    stored = deployment.api("GET", "/connections/shop")
    if extra:
        connections.open("Extra Fields")
        assert connections.field("key_id").input_value() == sandbox.key_id
        assert connections.field("shared_secret").input_value() == MASK
        editor = connections.json_editor()
        editor.get_by_text(MASK).wait_for()
        assert "shared_secret" in editor.inner_text()
        assert json.loads(stored["extra"])["shared_secret"] == MASK
    else:
        assert connections.field("Shop token").input_value() == MASK
        assert stored["password"] == MASK
    secret = sandbox.shared_secret if extra else sandbox.token
    assert secret not in connections.page.content() + json.dumps(stored)

    connections.open("Standard Fields")
    connections.field("Description").fill("edited")
    connections.save()
    assert deployment.api("GET", "/connections/shop")["description"] == "edited"
    assert "accepts the token" in connections.test("shop")


def test_untouched_fields_are_stored_as_null_and_count_as_absent(connections, deployment, sandbox):
    make(connections, "shop", *by_token(sandbox))
    assert set(json.loads(deployment.api("GET", "/connections/shop")["extra"]).items()) == {
        (name, None) for name in FIELDS
    }
    assert "accepts the token" in connections.test("shop")
    (call,) = sandbox.calls
    assert call.status == 200


def test_the_test_button_says_what_to_do(connections, deployment, sandbox, unused_port):
    standard, _ = by_token(sandbox)
    make(connections, "good", standard, {})
    make(connections, "refused", standard | {"Shop token": sandbox.mint(kid="another-key")}, {})
    make(connections, "down", standard | {"Port": str(unused_port)}, {})
    make(connections, "slug", standard | {"Shop slug": "Not A Slug"}, {})
    assert f"answers and accepts the token of {sandbox.shop}" in connections.test("good")
    assert "put a current Shop token (password)" in connections.test("refused")
    assert "gave no answer to Status2 (ConnectionRefusedError)" in connections.test("down")
    assert "Shop slug (login) of the Airflow connection must be" in connections.test("slug")


def test_a_stored_connection_without_a_port_is_a_bad_request_for_the_test_button(connections, sandbox):
    standard, _ = by_token(sandbox)
    del standard["Port"]
    make(connections, "shop", standard | {"API host": sandbox.url}, {})
    assert connections.test("shop") == "Bad Request"


PUSH = """
    from airflow.sdk import DAG

    from airflow_provider_bubblehouse.operators.customers import UpdateCustomersOperator

    with DAG("browser"):
        UpdateCustomersOperator(task_id="push", path={path!r}, bubblehouse_conn_id="made_in_browser")
"""


@pytest.mark.parametrize("way", [by_token, by_secret])
def test_a_dag_can_push_with_a_connection_made_in_the_browser(connections, deployment, sandbox, tmp_path, way):
    make(connections, "made_in_browser", *way(sandbox))
    path = tmp_path / "customers.jsonl"
    path.write_text('{"id": "1"}\n{"id": "2"}\n')
    run = deployment.trigger(deployment.add_dag("browser", PUSH.format(path=str(path))))
    deployment.wait(run, "push", states={"success"})
    assert deployment.xcom(run, "push")["accepted"] == 2
    assert [customer["id"] for customer in sandbox.customers()] == ["1", "2"]


def test_the_picture_in_the_docs_shows_this_form(connections):
    shown = json.dumps({"relabeling": TYPE["ui-field-behaviour"], "extra": FIELDS}, sort_keys=True)
    if "UPDATE_PICTURES" in os.environ:
        connections.add("bubblehouse_default")
        connections.fill({"Shop slug": "my-shop", "Shop token": "x" * 24, "Port": "443"})
        picture = connections.page.screenshot(clip=connections.dialog.bounding_box(), animations="disabled")
        PICTURE.write_bytes(with_text(picture, shown))
    assert text_of(PICTURE.read_bytes()) == shown, "the form has changed: run make pictures, and look at it"
