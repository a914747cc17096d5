"""
What the API itself answers a call, faults aside: which call it is, who may make it, and what it does.

What the API's documents do not say is marked as the sandbox's guess.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import msgspec

from airflow_provider_bubblehouse.sandbox.auth import InvalidTokenError, ShopKey
from airflow_provider_bubblehouse.sandbox.store import row_warnings

if TYPE_CHECKING:
    from airflow_provider_bubblehouse.sandbox.calls import CallLog
    from airflow_provider_bubblehouse.sandbox.store import Store, StoredCustomer

# Guess: that there are these two; each is in some of the documents' pages.
GLOBAL_VERSIONS = ("v20230601", "v2023061")

_PATH = re.compile(r"/api/([^/]+)/([^/]+)/([^/]+)")


class Refusal(Exception):  # noqa: N818 (what the API says, no fault of the sandbox)
    """
    An error answer of the API.

    :param status: its HTTP status.
    :param error_id: its ``id``.
    :param message: its ``message``.
    """

    def __init__(self, status: int, error_id: str, message: str) -> None:
        super().__init__(message)
        self.status = status
        self.error_id = error_id
        self.message = message


@dataclass(frozen=True, slots=True)
class Reply:
    """The status and the JSON of an answer."""

    status: int
    document: dict[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """
    One call, as the API understands it.

    :param number: the number under which the call is remembered.
    :param method: the HTTP method.
    :param version: the global version, empty where the URL is of no call; so ``shop`` and ``function``.
    :param shop: the shop slug.
    :param function: the function.
    :param authorization: the ``Authorization`` header, None without.
    :param payload: the JSON of the body, ``msgspec.UNSET`` where it is none.
    """

    number: int
    method: str
    version: str
    shop: str
    function: str
    authorization: str | None
    payload: object


class Api:
    """
    The API of the sandbox's one shop.

    :param key: lets the shop's tokens in.
    :param store: where customers go.
    :param calls: where it is remembered which calls had their rows taken for processing.
    """

    def __init__(self, key: ShopKey, store: Store, calls: CallLog) -> None:
        self._key = key
        self._store = store
        self._calls = calls

    def answer(self, request: Request) -> Reply:
        """Carry out a call and return its answer."""
        try:
            return Reply(200, self._carry_out(request))
        except InvalidTokenError as error:
            return Reply(401, error_document("invalid_token", str(error)))
        except Refusal as refusal:
            return Reply(refusal.status, error_document(refusal.error_id, refusal.message))

    def _carry_out(self, request: Request) -> dict[str, Any]:
        # Guess: the order of these checks, and what says that there is no such call or method.
        if request.method != "POST":
            raise Refusal(405, "method_not_allowed", "The sandbox takes POST only")
        if not request.version:
            raise Refusal(404, "not_found", "The URL of a call is /api/VERSION/SHOP/FUNCTION")
        if request.version not in GLOBAL_VERSIONS:
            raise Refusal(400, "invalid_global_api_version", "There is no such global version")
        if request.authorization is not None:
            self._key.check(request.authorization, request.shop)
        elif request.function != "Status2":
            raise InvalidTokenError("There is no token")
        match request.function:
            case "UpdateCustomers3":
                return self._update_customers(request)
            case "CustomerDetails1":
                return self._customer_details(request)
            case "Status2":
                return {}  # Guess: no property is documented.
        raise Refusal(404, "unknown_function", "The sandbox has UpdateCustomers3, CustomerDetails1 and Status2")

    def _update_customers(self, request: Request) -> dict[str, Any]:
        """See https://app.bubblehouse.com/apidocs/apis/order/UpdateCustomers3."""
        fields = _fields(request)
        customers = fields.get("customers")
        if not isinstance(customers, list):
            raise Refusal(400, "invalid_input", "customers must be an array")  # Guess: the id.
        debug = fields.get("debug") is True
        self._store.accept(request.number, customers, at_once=debug)
        self._calls.process(request.number)
        if debug:
            warnings = [
                f"row {position} {text}" for position, row in enumerate(customers, 1) for text in row_warnings(row)
            ]
            if warnings:
                raise Refusal(400, "invalid_customers", "; ".join(warnings))  # Guess: the id, and all of the message.
        return {"ok": True}

    def _customer_details(self, request: Request) -> dict[str, Any]:
        """See https://app.bubblehouse.com/apidocs/apis/loyalty/CustomerDetails1."""
        identity = _fields(request).get("customer")
        if not isinstance(identity, dict):
            raise Refusal(400, "missing_customer_identity", "customer is missing")
        given = {key: identity[key] for key in ("bhid", "shopid", "email") if identity.get(key)}
        if not given:
            raise Refusal(404, "empty_customer_identity", "customer names nobody")
        customer = self._store.find(given)
        if customer is None:  # Guess: so it is with a deleted customer.
            raise Refusal(404, "no_customers_match_customer_identity", "There is no such customer")
        if not _matches(given, customer):
            raise Refusal(
                404, "customer_identity_partially_mismatches_matched_customer", "A part of customer is of another one"
            )
        return {**customer.fields, "bh_id": customer.bh_id}


def read_path(path: str) -> tuple[str, str, str]:
    """Return the version, shop and function of a URL's path, each empty where it is not the path of a call."""
    match = _PATH.fullmatch(path)
    return (match[1], match[2], match[3]) if match else ("", "", "")


def read_json(body: bytes) -> object:
    """Return the JSON of a body, ``msgspec.UNSET`` where it is none."""
    try:
        return msgspec.json.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return msgspec.UNSET


def error_document(error_id: str, message: str) -> dict[str, Any]:
    """Return the API's JSON error, the same for all calls."""
    return {"id": error_id, "message": message}


def _fields(request: Request) -> dict[str, Any]:
    # Guess: the ids; the documents say no more than that input which is no such JSON is refused.
    if request.payload is msgspec.UNSET:
        raise Refusal(400, "invalid_json", "The body is not JSON")
    if not isinstance(request.payload, dict):
        raise Refusal(400, "invalid_input", "The body must be a JSON object")
    return request.payload


def _matches(identity: dict[str, Any], customer: StoredCustomer) -> bool:
    """Say whether every key of an identity matches or is missing on the customer's side (CustomerIdentity1)."""
    email = identity.get("email")
    pairs = (
        (identity.get("bhid"), customer.bh_id),
        (identity.get("shopid"), customer.id),
        (email.lower() if isinstance(email, str) else email, customer.email),
    )
    return all(not given or known is None or given == known for given, known in pairs)
