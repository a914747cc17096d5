"""
Whether a pushed customer can be read back, and has the expected values. Used by sensors and triggers.

Messages contain positions and field names only, never a value.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

from airflow_provider_bubblehouse.errors import PermanentError

CUSTOMER_DETAILS = "CustomerDetails1"
NOT_FOUND = "no_customers_match_customer_identity"

_IDENTITY_FIELDS = ("shop_id", "email", "bubblehouse_id")
_TIME = re.compile(r"\d{4}-\d{2}-\d{2}[Tt]\d{2}:\d{2}:\d{2}.*")
_AMOUNT = re.compile(r"-?\d+(\.\d+)?", re.ASCII)


def details_payload(
    *, shop_id: str | None = None, email: str | None = None, bubblehouse_id: str | None = None
) -> dict[str, Any]:
    """
    Return the input of CustomerDetails1 (https://app.bubblehouse.com/apidocs/apis/loyalty/CustomerIdentity1).

    :param shop_id: the customer's id in the shop.
    :param email: its email.
    :param bubblehouse_id: its id in Bubblehouse.
    """
    identity = {"shopid": shop_id, "email": email, "bhid": bubblehouse_id}
    return {"customer": {name: value for name, value in identity.items() if value is not None}}


def read_identities(value: object) -> list[dict[str, str]]:
    """
    Validate the identities of customers.

    :param value: a mapping with ``shop_id``, ``email`` or ``bubblehouse_id``, a list of mappings, or either as JSON.
    :raises PermanentError: if it is anything else.
    """
    value = from_json("identity", value)
    if isinstance(value, Mapping):
        value = [value]
    if isinstance(value, str) or not isinstance(value, Sequence):
        raise PermanentError("identity must be an object or a list of objects; check what the upstream task returned.")
    return [_read_identity(number, identity) for number, identity in enumerate(value, 1)]


def _read_identity(number: int, value: object) -> dict[str, str]:
    given = {name: part for name, part in value.items() if part is not None} if isinstance(value, Mapping) else {}
    if type(given.get("shop_id")) is int:
        given["shop_id"] = str(given["shop_id"])
    if not given or not all(
        name in _IDENTITY_FIELDS and isinstance(part, str) and part.strip() for name, part in given.items()
    ):
        raise PermanentError(
            f"Customer {number} of identity must be an object with shop_id, email or bubblehouse_id as text, and "
            "nothing else."
        )
    return given


def read_expected(value: object) -> dict[str, Any]:
    """
    Validate expected values, and convert them to the form in which a push sends them.

    :param value: a mapping from fields of Customer2 to values, or that as JSON; None for no expectation.
    :raises PermanentError: if it is anything else, or a value is invalid for its field.
    """
    from airflow_provider_bubblehouse.customers.converter import Converter
    from airflow_provider_bubblehouse.customers.invalid import InvalidCustomerError

    value = from_json("expected", value)
    if value is None:
        return {}
    if not isinstance(value, Mapping):
        raise PermanentError("expected must be an object of fields and values.")
    try:
        customer = Converter().customer({"id": "any", **value})
    except InvalidCustomerError as error:
        raise PermanentError(f"In expected, {error}.") from None
    return {name: customer.get(name) for name in value}


def why_not_yet(found: Mapping[str, Any] | PermanentError, expected: Mapping[str, Any]) -> str | None:
    """
    Return why the wait for a customer goes on.

    :param found: the output of CustomerDetails1, or its error.
    :param expected: the result of ``read_expected``.
    :return: the reason, to follow "Customer 1"; None if the customer exists and has the expected values.
    :raises PermanentError: for an error that waiting does not fix.
    """
    from airflow_provider_bubblehouse.customers.invalid import printable_name

    if isinstance(found, PermanentError):
        if found.status == 404 and found.error_id == NOT_FOUND:
            return "does not exist yet"
        raise found
    differing = [printable_name(name) for name, value in expected.items() if not _holds(name, value, found.get(name))]
    return f"does not have the expected values yet: {', '.join(differing)}" if differing else None


def _holds(name: str, expected: Any, actual: Any) -> bool:
    if isinstance(expected, dict):  # extras, which may have other keys that are not expected
        return isinstance(actual, Mapping) and all(
            _holds("", value, actual.get(inner)) for inner, value in expected.items()
        )
    return bool(_comparable(name, expected) == _comparable(name, _as_pushed(name, actual)))


def _as_pushed(name: str, value: Any) -> Any:
    """Convert a value that the API returned to the form in which a push sends it, if it is valid for its field."""
    from airflow_provider_bubblehouse.customers.converter import Converter
    from airflow_provider_bubblehouse.customers.invalid import InvalidCustomerError

    try:
        return Converter().customer({"id": "any", name: value}).get(name) if name else value
    except InvalidCustomerError:
        return value


def _comparable(name: str, value: Any) -> Any:
    """Return the same object for all spellings of a value."""
    if isinstance(value, list):
        parts = [_comparable(name, part) for part in value]
        return parts if name == "total_spent" else sorted(parts, key=repr)  # tags have no order, [amount, "USD"] has
    if not isinstance(value, str):
        return value
    if name == "email":
        return value.strip().lower() or None
    if name == "total_spent" and _AMOUNT.fullmatch(value):
        return Decimal(value)
    if _TIME.fullmatch(value):
        try:
            moment = datetime.fromisoformat(value.upper())
        except ValueError:
            return value
        return moment.astimezone(UTC) if moment.tzinfo else value
    return value or None  # an empty text is like none


def from_json(parameter: str, value: object) -> object:
    """
    Decode JSON text, such as a rendered template; return any other value unchanged.

    :param parameter: the parameter's name, for the error.
    :param value: the value.
    :raises PermanentError: if it is text that is not JSON.
    """
    if not isinstance(value, str):
        return value
    import msgspec

    try:
        return msgspec.json.decode(value.encode())  # msgspec refuses jinja's Markup, a subclass of str
    except (msgspec.DecodeError, UnicodeError, RecursionError):
        raise PermanentError(
            f"{parameter} is text that is not JSON; end its template with | tojson, or pass the task's output itself."
        ) from None
