"""What Airflow reads of this package before it imports anything else of it. A mistake here stops all of Airflow."""

from __future__ import annotations

from typing import Any

# What Airflow calls with a URI of the scheme; it reads them under another name before 3.0.
_ASSET_URIS = [
    {
        "schemes": ["bubblehouse"],
        "handler": "airflow_provider_bubblehouse.assets.customers.sanitize_uri",
        "factory": "airflow_provider_bubblehouse.assets.customers.create_asset",
        "to_openlineage_converter": "airflow_provider_bubblehouse.assets.customers.convert_asset_to_openlineage",
    }
]

# How the standard fields of the connection form show.
_FIELD_BEHAVIOUR = {
    # The Test button of Airflow 3.3.2 refuses every stored connection without a port (apache/airflow
    # 73298): hidden, it could not be given one.
    "hidden-fields": ["schema"],
    "relabeling": {"login": "Shop slug", "password": "Shop token", "host": "API host"},
    "placeholders": {
        "login": "my-shop: the word after the version in the URL of your API calls",
        "password": "as issued in the API console; empty with Key ID and Shared Secret",
        "host": "app.bubblehouse.com, unless Bubblehouse named another host",
        "port": "443; in Airflow 3.3 the Test button needs it",
    },
}

# The form's other fields, which are the extras of the connection.
_CONNECTION_FIELDS = {
    "key_id": {
        "label": "Key ID",
        "description": "The KID beside a shared secret in Bubblehouse's API console. With it and the "
        "secret, short-lived tokens are made and no shop token is needed.",
        "schema": {"type": ["string", "null"]},
    },
    "shared_secret": {
        "label": "Shared Secret",
        "description": "The shared secret (base64) of that key, from Bubblehouse's API console.",
        "schema": {"type": ["string", "null"], "format": "password"},
    },
    "api_version": {
        "label": "API version",
        "description": "The version in the URL of Bubblehouse's API pages. Empty: v20230601.",
        "schema": {"type": ["string", "null"]},
    },
    "timeout": {
        "label": "Timeout (seconds)",
        "description": "How long to wait for the next piece of an answer. Empty: 60. Not a setting of Bubblehouse's.",
        "schema": {"type": ["integer", "null"], "minimum": 1},
    },
    "max_calls_per_second": {
        "label": "Calls per second",
        "description": "How many calls a task begins in a second at most. Empty: no limit. The limit "
        "of your shop is Bubblehouse's to name; it holds for all tasks together.",
        "schema": {"type": ["number", "null"], "exclusiveMinimum": 0},
    },
    "allow_debug": {
        "label": "Allow debug calls",
        "description": "Lets tasks use debug=True, which Bubblehouse wants kept out of production. "
        "Not a setting of Bubblehouse's.",
        "schema": {"type": ["boolean", "null"]},
    },
}


def get_provider_info() -> dict[str, Any]:
    """
    Return the provider's entry: its connection type with its form, its asset URIs, and its modules.

    Airflow 3.2 and later make the form from ``conn-fields`` and ``ui-field-behaviour``; earlier ones from the hook's
    methods, which read them here.
    """
    return {
        "package-name": "airflow-provider-bubblehouse",
        "name": "Bubblehouse",
        "description": "Pushes customers to the loyalty programs of `Bubblehouse <https://www.bubblehouse.com/>`__.",
        "integrations": [
            {
                "integration-name": "Bubblehouse",
                "external-doc-url": "https://app.bubblehouse.com/apidocs/",
                "tags": ["service"],
            }
        ],
        "hooks": _modules("hooks.bubblehouse"),
        "operators": _modules("operators.customers"),
        "sensors": _modules("sensors.bubblehouse"),
        "triggers": _modules("triggers.bubblehouse"),
        "task-decorators": [
            {
                "name": "bubblehouse_customers",
                "class-name": "airflow_provider_bubblehouse.decorators.bubblehouse.bubblehouse_customers_task",
            }
        ],
        "asset-uris": _ASSET_URIS,
        "dataset-uris": _ASSET_URIS,
        "connection-types": [
            {
                "connection-type": "bubblehouse",
                "hook-class-name": "airflow_provider_bubblehouse.hooks.bubblehouse.BubblehouseHook",
                "hook-name": "Bubblehouse",
                "ui-field-behaviour": _FIELD_BEHAVIOUR,
                "conn-fields": _CONNECTION_FIELDS,
            }
        ],
    }


def _modules(name: str) -> list[dict[str, Any]]:
    return [{"integration-name": "Bubblehouse", "python-modules": [f"airflow_provider_bubblehouse.{name}"]}]
