"""The hook: calls the Bubblehouse API with the settings of an Airflow connection."""

from __future__ import annotations

from functools import cached_property
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from airflow_provider_bubblehouse.airflow_compat import BaseHook
from airflow_provider_bubblehouse.api.names import customers_uri
from airflow_provider_bubblehouse.exceptions import BubblehouseError, BubblehousePermanentError
from airflow_provider_bubblehouse.get_provider_info import get_provider_info
from airflow_provider_bubblehouse.plural import plural

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from airflow_provider_bubblehouse.airflow_compat import Connection
    from airflow_provider_bubblehouse.api.client import Client
    from airflow_provider_bubblehouse.api.connection import ShopConnection


class BubblehouseHook(BaseHook):
    """
    Call the Bubblehouse API with the credentials of an Airflow connection.

    Each method makes exactly one call. The class of the error says what the answer means: retry after a
    ``BubblehouseTransientError``, with the same data; never retry after a ``BubblehousePermanentError``. The hook does
    not retry. Airflow does (``retries=``), and so do the operators, which try a batch several times.

    :param bubblehouse_conn_id: the Airflow connection of type ``bubblehouse``.
    """

    conn_name_attr = "bubblehouse_conn_id"
    default_conn_name = "bubblehouse_default"
    conn_type = "bubblehouse"
    hook_name = "Bubblehouse"

    def __init__(self, bubblehouse_conn_id: str = default_conn_name) -> None:
        super().__init__()
        self.bubblehouse_conn_id = bubblehouse_conn_id

    @cached_property
    def connection(self) -> ShopConnection:
        """
        The settings of the connection; its secrets are registered with Airflow's secrets masker.

        :raises BubblehousePermanentError: if a field is missing or invalid.
        """
        return shop_connection(self.get_connection(self.bubblehouse_conn_id))

    @cached_property
    def client(self) -> Client:
        """The client that makes the calls; it keeps its HTTP connection open."""
        from airflow_provider_bubblehouse.api.client import Client

        return Client(self.connection)

    @property
    def customers_uri(self) -> str:
        """The URI of the asset of the shop's customers."""
        return customers_uri(host=urlsplit(self.connection.base_url).netloc, shop=self.connection.shop)

    def get_conn(self) -> Client:
        """Return the client that makes the calls."""
        return self.client

    def call(self, function: str, payload: Mapping[str, Any]) -> dict[str, Any]:
        """
        Make exactly one call (https://app.bubblehouse.com/apidocs/calling/rpc).

        :param function: the function with its version, such as ``Status2``.
        :param payload: its input, in JSON types.
        :return: its output.
        :raises BubblehouseError: the class says what the answer means.
        """
        import msgspec

        return self.client.call(function, msgspec.json.encode(payload), debug=payload.get("debug") is True)

    def status(self) -> dict[str, Any]:
        """
        Check that the API answers and accepts the token (https://app.bubblehouse.com/apidocs/apis/loyalty/Status2).

        :raises BubblehousePermanentError: with status 401 if the token is not accepted.
        :raises BubblehouseTransientError: if the API does not answer, or answers with a 5xx.
        """
        return self.call("Status2", {})

    def get_customer(
        self, *, shop_id: str | None = None, email: str | None = None, bubblehouse_id: str | None = None
    ) -> dict[str, Any]:
        """
        Read one customer (https://app.bubblehouse.com/apidocs/apis/loyalty/CustomerDetails1).

        Give at least one parameter; a customer must match all that you give.

        :param shop_id: the customer's id in the shop: the ``id`` that was pushed.
        :param email: the customer's email.
        :param bubblehouse_id: the customer's id in Bubblehouse.
        :return: the customer in Bubblehouse: the fields of Customer2 and ``bh_id``.
        :raises BubblehousePermanentError: with error id ``no_customers_match_customer_identity`` if there is no such
            customer.
        """
        from airflow_provider_bubblehouse.api.details import CUSTOMER_DETAILS, details_payload

        return self.call(CUSTOMER_DETAILS, details_payload(shop_id=shop_id, email=email, bubblehouse_id=bubblehouse_id))

    def update_customers(
        self, customers: Iterable[Mapping[str, Any]], *, timezone: str = "UTC", debug: bool = False
    ) -> None:
        """
        Push customers in exactly one call (https://app.bubblehouse.com/apidocs/apis/order/UpdateCustomers3).

        All customers are validated first, and none is sent if one is invalid. An empty list makes no call. For more
        than a few hundred customers use ``UpdateCustomersOperator``, which sends them in batches.

        :param customers: dicts with the fields of Customer2.
        :param timezone: the time zone of times without an offset.
        :param debug: process the customers at once, and fail on any warning of the API; for development only, and only
            with ``allow_debug`` in the connection.
        :raises BubblehousePermanentError: if a customer is invalid; nothing was sent then.
        :raises BubblehouseRejectedError: if the API rejects the data, which must not be sent again.
        :raises BubblehouseTransientError: on a 5xx or a network error; all of the data has to be sent again.
        """
        from airflow_provider_bubblehouse.api.classifier import UPDATE_CUSTOMERS
        from airflow_provider_bubblehouse.customers.converter import Converter
        from airflow_provider_bubblehouse.lineage import report_lineage
        from airflow_provider_bubblehouse.push.batches import body_of
        from airflow_provider_bubblehouse.push.report import InvalidRows
        from airflow_provider_bubblehouse.sources.records import ListSource

        converter, invalid = Converter(timezone=timezone), InvalidRows()
        parts: list[bytes] = []
        row = 1
        for chunk in ListSource(customers).chunks():
            checked = converter.check(chunk, row)
            row += checked.count
            parts += checked.customers().lines
            for fault in checked.invalid:
                invalid.add("", fault.number, fault.error)
        if invalid.count:
            raise BubblehousePermanentError(
                f"Nothing was sent, because {plural(invalid.count, 'customer')} cannot be sent. {invalid}."
            )
        if parts:
            self.client.call(UPDATE_CUSTOMERS, body_of(parts, debug=debug), debug=debug)
            report_lineage(self, output=self.customers_uri)

    def test_connection(self) -> tuple[bool, str]:
        """Call Status2 with the token, for the Test button of the connection."""
        try:
            self.status()
        except BubblehouseError as error:
            return False, str(error)
        connection = self.connection
        return True, f"The Bubblehouse API at {connection.base_url} answers and accepts the token of {connection.shop}."

    @classmethod
    def get_ui_field_behaviour(cls) -> dict[str, Any]:
        """Return labels and placeholders of the standard fields, for the form of Airflow before 3.2."""
        behaviour = _connection_type()["ui-field-behaviour"]
        return {name.replace("-", "_"): value for name, value in behaviour.items()}

    @classmethod
    def get_connection_form_widgets(cls) -> dict[str, Any]:
        """Return the extra fields, for the form of Airflow before 3.2."""
        from flask_appbuilder.fieldwidgets import BS3PasswordFieldWidget, BS3TextFieldWidget
        from wtforms import BooleanField, IntegerField, PasswordField, StringField
        from wtforms.validators import Optional

        class KeptPasswordWidget(BS3PasswordFieldWidget):  # type: ignore[misc]
            """Returns Airflow 2's placeholder for a stored secret; an empty field would delete it."""

            def __call__(self, field: Any, **kwargs: Any) -> Any:
                kwargs["value"] = "RATHER_LONG_SENSITIVE_FIELD_PLACEHOLDER" if field.data else ""
                return super().__call__(field, **kwargs)

        def widget(label: str, description: str, schema: Mapping[str, Any]) -> Any:
            if schema.get("format") == "password":
                return PasswordField(label, description=description, widget=KeptPasswordWidget(hide_value=False))
            if "boolean" in schema["type"]:
                # Without a value, the Test button sends y.
                return BooleanField(label, description=description, render_kw={"value": "true"})
            if "integer" in schema["type"]:
                return IntegerField(
                    label, description=description, widget=BS3TextFieldWidget(), validators=[Optional()]
                )
            return StringField(label, description=description, widget=BS3TextFieldWidget())

        return {name: widget(**field) for name, field in _connection_type()["conn-fields"].items()}


def shop_connection(stored: Connection) -> ShopConnection:
    """
    Validate the settings of an Airflow connection, and register its secrets with Airflow's secrets masker.

    The masker may wait for Airflow. In an event loop, call this in a thread.

    :param stored: the connection, of type ``bubblehouse``.
    :raises BubblehousePermanentError: if a field is missing or invalid.
    """
    from airflow_provider_bubblehouse.airflow_compat import mask_secret
    from airflow_provider_bubblehouse.api.connection import read_connection

    return read_connection(
        login=stored.login,
        password=stored.password,
        host=stored.host,
        port=stored.port,
        extra=stored.extra_dejson,
        mask=mask_secret,
    )


def _connection_type() -> dict[str, Any]:
    (connection_type,) = get_provider_info()["connection-types"]
    return connection_type  # type: ignore[no-any-return]
