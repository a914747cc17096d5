"""Airflow accepts the provider's entry, and everything in it exists."""

from __future__ import annotations

import importlib
import importlib.metadata
import json
from importlib.resources import files
from importlib.util import find_spec

import jsonschema
import pytest

from airflow_provider_bubblehouse.api.connection import EXTRAS
from airflow_provider_bubblehouse.get_provider_info import get_provider_info
from airflow_provider_bubblehouse.hooks.bubblehouse import BubblehouseHook

INFO = get_provider_info()
DISTRIBUTION = "airflow-provider-bubblehouse"


def schema(name: str) -> dict:
    return json.loads(files("airflow").joinpath(name).read_text())


def test_the_entry_follows_the_schema_of_airflow():
    jsonschema.validate(INFO, schema("provider_info.schema.json"))


def form_schema() -> dict | None:
    """Return what official providers' forms are checked by; None before Airflow 3.2, which has no such form."""
    file = files("airflow").joinpath("provider.yaml.schema.json")
    connection_types = json.loads(file.read_text())["properties"].get("connection-types") if file.is_file() else None
    return connection_types if connection_types and "conn-fields" in json.dumps(connection_types) else None


@pytest.mark.skipif(form_schema() is None, reason="this Airflow makes the form from the hook's methods")
def test_the_form_follows_the_stricter_schema_of_official_providers():
    jsonschema.validate(INFO["connection-types"], form_schema())


def test_the_installed_distribution_has_the_entry_under_its_own_name():
    (entry_point,) = importlib.metadata.distribution(DISTRIBUTION).entry_points.select(group="apache_airflow_provider")
    assert entry_point.load()() == INFO
    assert INFO["package-name"] == DISTRIBUTION


def test_every_path_in_the_entry_can_be_imported():
    for kind in ("hooks", "operators", "sensors", "triggers"):
        for item in INFO[kind]:
            for module in item["python-modules"]:
                importlib.import_module(module)
    for kind in ("asset-uris", "dataset-uris"):
        for item in INFO[kind]:
            for path in (item["handler"], item["factory"], item["to_openlineage_converter"]):
                module, _, name = path.rpartition(".")
                assert callable(getattr(importlib.import_module(module), name))
    (decorator,) = INFO["task-decorators"]
    module, _, name = decorator["class-name"].rpartition(".")
    assert callable(getattr(importlib.import_module(module), name))
    (connection_type,) = INFO["connection-types"]
    module, _, name = connection_type["hook-class-name"].rpartition(".")
    assert getattr(importlib.import_module(module), name) is BubblehouseHook
    assert connection_type["connection-type"] == BubblehouseHook.conn_type
    assert connection_type["hook-name"] == BubblehouseHook.hook_name


def test_secret_fields_have_names_that_airflow_masks_and_are_hidden_while_typed():
    fields = INFO["connection-types"][0]["conn-fields"]
    secret = {name for name, field in fields.items() if field["schema"].get("format") == "password"}
    assert secret == {name for name in fields if "secret" in name} == {"shared_secret"}


def test_every_field_of_the_form_has_a_label_and_a_description():
    for field in INFO["connection-types"][0]["conn-fields"].values():
        assert field["label"]
        assert field["description"]


def test_the_form_has_every_extra_that_a_connection_can_have():
    assert set(INFO["connection-types"][0]["conn-fields"]) == set(EXTRAS)


@pytest.mark.skipif(find_spec("wtforms") is None, reason="this Airflow makes the form from the provider's entry")
def test_the_form_of_airflow_2_has_the_same_fields():
    import wtforms

    fields = INFO["connection-types"][0]["conn-fields"]
    form = type("Form", (wtforms.Form,), BubblehouseHook.get_connection_form_widgets())()
    assert {field.name: (field.label.text, field.description) for field in form} == {
        name: (field["label"], field["description"]) for name, field in fields.items()
    }
    behaviour = BubblehouseHook.get_ui_field_behaviour()
    assert set(behaviour) == {"hidden_fields", "relabeling", "placeholders"}
