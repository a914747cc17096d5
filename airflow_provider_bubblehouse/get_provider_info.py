"""The provider's entry, which Airflow reads before it imports anything else. An error here stops all of Airflow."""

from __future__ import annotations

from typing import Any

# What Airflow calls for URIs of the scheme. Before Airflow 3.0 the key is "dataset-uris".
_ASSET_URIS = [
    {
        "schemes": ["bubblehouse"],
        "handler": "airflow_provider_bubblehouse.assets.customers.sanitize_uri",
        "factory": "airflow_provider_bubblehouse.assets.customers.create_asset",
        "to_openlineage_converter": "airflow_provider_bubblehouse.assets.customers.convert_asset_to_openlineage",
    }
]

# Labels and placeholders of the standard fields in the connection form.
_FIELD_BEHAVIOUR = {
    # The port is not hidden, because the Test button of Airflow 3.3.2 refuses every stored connection without one
    # (apache/airflow 73298).
    "hidden-fields": ["schema"],
    "relabeling": {"login": "Shop slug", "password": "Shop token", "host": "API host"},
    "placeholders": {
        "login": "my-shop: the word after the version in the URL of your API calls",
        "password": "a token from the API console; empty with Key ID and Shared Secret",
        "host": "app.bubblehouse.com; for the sandbox http://127.0.0.1",
        "port": "443, which the Test button of Airflow 3.3 needs; for the sandbox 8765",
    },
}

# The other fields of the form, which are the extras of the connection.
_CONNECTION_FIELDS = {
    "key_id": {
        "label": "Key ID",
        "description": "The KID next to a shared secret in Bubblehouse's API console. Key ID and Shared Secret replace "
        "the Shop token: tasks make short-lived tokens from them.",
        "schema": {"type": ["string", "null"]},
    },
    "shared_secret": {
        "label": "Shared Secret",
        "description": "The shared secret of this Key ID, in base64, from Bubblehouse's API console.",
        "schema": {"type": ["string", "null"], "format": "password"},
    },
    "api_version": {
        "label": "API version",
        "description": "The version in the URL of your API calls. Empty: v20230601.",
        "schema": {"type": ["string", "null"]},
    },
    "timeout": {
        "label": "Timeout (seconds)",
        "description": "How long to wait for each part of an answer. Empty: 60.",
        "schema": {"type": ["integer", "null"], "minimum": 1},
    },
    "max_calls_per_second": {
        "label": "Calls per second",
        "description": "The most calls that one task starts in a second. Empty: no limit. Bubblehouse's own limit "
        "applies to all tasks of a shop together; ask Bubblehouse for it.",
        "schema": {"type": ["number", "null"], "exclusiveMinimum": 0},
    },
    "allow_debug": {
        "label": "Allow debug calls",
        "description": "Allows debug=True in tasks. For development only: Bubblehouse forbids it in production.",
        "schema": {"type": ["boolean", "null"]},
    },
}


def get_provider_info() -> dict[str, Any]:
    """
    Return the provider's entry: its connection type with the form, its asset URIs and its modules.

    Airflow 3.2 and later build the form from ``conn-fields`` and ``ui-field-behaviour``. Earlier versions build it with
    methods of the hook, which use the same two.
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
