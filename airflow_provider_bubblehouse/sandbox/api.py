"""
How the API answers a call: it checks the address and the token, and carries the call out.

A shop token is an HS256 JWT: its header ``kid`` names the shared secret, ``aud`` is ``BH``, ``sub`` is the shop slug;
``exp`` and ``iat`` are optional (https://app.bubblehouse.com/apidocs/calling/auth).
"""

from __future__ import annotations

import base64
import re
from typing import TYPE_CHECKING, Any

import jwt
import msgspec

from airflow_provider_bubblehouse.sandbox.customers import row_warnings

if TYPE_CHECKING:
    from airflow_provider_bubblehouse.sandbox.calls import Call
    from airflow_provider_bubblehouse.sandbox.customers import Customers, StoredCustomer

KEY_ID = "sandbox"
# Fixed, so that a connection stays valid when the sandbox restarts. It protects nothing: whoever may call the sandbox
# may also read its page, which shows a token.
SECRET = b"the Bubblehouse sandbox's secret"
SHARED_SECRET = base64.b64encode(SECRET).decode()
AUDIENCE = "BH"
# Guess: that both are accepted; each is in some pages of the documentation.
API_VERSIONS = ("v20230601", "v2023061")

_PATH = re.compile(r"/api/([^/]+)/([^/]+)/([^/]+)")


class RefusedError(Exception):
    """
    An error answer of the API.

    :param status: its HTTP status.
    :param error_id: its ``id``.
    :param message: its ``message``.
    """

    def __init__(self, status: int, error_id: str, message: str) -> None:
        super().__init__(f"{error_id}: {message}")
        self.status = status
        self.document = {"id": error_id, "message": message}


class Api:
    """
    The API of one shop.

    :param shop: the shop slug.
    :param customers: the shop's customers.
    """

    def __init__(self, shop: str, customers: Customers) -> None:
        self._shop = shop
        self._customers = customers

    def answer(self, call: Call, payload: object, authorization: str | None) -> dict[str, Any]:
        """
        Carry out a call and return the JSON of its answer.

        :param call: the call; its ``processed`` is set.
        :param payload: the JSON of the body, ``msgspec.UNSET`` if it is not JSON.
        :param authorization: the ``Authorization`` header.
        :raises RefusedError: for any answer but 200.
        """
        # Guess: the order of these checks, and the error ids of an unknown call and method.
        if call.method != "POST":
            raise RefusedError(405, "method_not_allowed", "The sandbox accepts POST only")
        if not call.version:
            raise RefusedError(404, "not_found", "The URL of a call is /api/VERSION/SHOP/FUNCTION")
        if call.version not in API_VERSIONS:
            raise RefusedError(400, "invalid_global_api_version", f"The sandbox has the versions {API_VERSIONS}")
        if authorization is not None or call.function != "Status2":
            check_token(authorization or "", shop=self._shop, url_shop=call.shop)
        match call.function:
            case "UpdateCustomers3":
                return self._update_customers(call, _object(payload))
            case "CustomerDetails1":
                return self._customer_details(_object(payload))
            case "Status2":
                return {}  # Guess: no property is documented.
        raise RefusedError(404, "unknown_function", "The sandbox has UpdateCustomers3, CustomerDetails1 and Status2")

    def _update_customers(self, call: Call, fields: dict[str, Any]) -> dict[str, Any]:
        """See https://app.bubblehouse.com/apidocs/apis/order/UpdateCustomers3."""
        rows = fields.get("customers")
        if not isinstance(rows, list):
            raise RefusedError(400, "invalid_input", "customers must be an array")  # Guess: the id.
        debug = fields.get("debug") is True
        self._customers.accept(call.number, rows, at_once=debug)
        call.processed = True
        if debug:
            warnings = [f"row {number} {text}" for number, row in enumerate(rows, 1) for text in row_warnings(row)]
            if warnings:
                raise RefusedError(400, "invalid_customers", "; ".join(warnings))  # Guess: id and message.
        return {"ok": True}

    def _customer_details(self, fields: dict[str, Any]) -> dict[str, Any]:
        """See https://app.bubblehouse.com/apidocs/apis/loyalty/CustomerDetails1."""
        identity = fields.get("customer")
        if not isinstance(identity, dict):
            raise RefusedError(400, "missing_customer_identity", "customer is missing")
        given = {key: identity[key] for key in ("bhid", "shopid", "email") if identity.get(key)}
        if not given:
            raise RefusedError(404, "empty_customer_identity", "customer has no bhid, shopid or email")
        customer = self._customers.find(given)
        if customer is None:  # Guess: a deleted customer gives the same answer.
            raise RefusedError(404, "no_customers_match_customer_identity", "There is no such customer")
        if not _matches(given, customer):
            raise RefusedError(
                404,
                "customer_identity_partially_mismatches_matched_customer",
                "Another part of the identity belongs to somebody else",
            )
        return {**customer.fields, "bh_id": customer.bh_id}


def mint_token(shop: str) -> str:
    """Return a shop token that does not expire. It is the same each time."""
    return jwt.encode({"aud": AUDIENCE, "sub": shop}, SECRET, algorithm="HS256", headers={"kid": KEY_ID})


def check_token(authorization: str, *, shop: str, url_shop: str) -> None:
    """
    Check the header of a call.

    :param authorization: the ``Authorization`` header; empty if the call has none.
    :param shop: the slug of the sandbox's shop.
    :param url_shop: the shop slug in the call's URL.
    :raises RefusedError: with status 401, if the token is not valid.
    """
    scheme, _, token = authorization.partition(" ")
    token = token.strip()
    if scheme.lower() != "bearer" or not token:
        raise _invalid_token("the call has no bearer token")
    try:
        if jwt.get_unverified_header(token).get("kid") != KEY_ID:
            raise _invalid_token("it is not a token of the sandbox (its kid is another one)")
        claims = jwt.decode(token, SECRET, algorithms=["HS256"], audience=AUDIENCE)
    except jwt.ExpiredSignatureError:
        raise _invalid_token("it has expired") from None
    except jwt.ImmatureSignatureError:
        raise _invalid_token("it is from the future") from None
    except jwt.InvalidAudienceError:
        raise _invalid_token("its aud is not BH") from None
    except jwt.InvalidTokenError:
        raise _invalid_token("it is not a valid JWT, or signed with another secret") from None
    # Guess: an unknown shop gives the same answer as a token of another shop.
    if not claims.get("sub") == url_shop == shop:
        raise _invalid_token(f"token and URL must be of the shop {shop}")


def _invalid_token(reason: str) -> RefusedError:
    return RefusedError(401, "invalid_token", f"The Bubblehouse sandbox does not accept the token: {reason}")


def read_path(path: str) -> tuple[str, str, str]:
    """Return the version, shop and function in the path of a URL; three empty texts if it is not that of a call."""
    match = _PATH.fullmatch(path)
    return (match[1], match[2], match[3]) if match else ("", "", "")


def read_json(body: bytes) -> object:
    """Return the JSON of a body; ``msgspec.UNSET`` if it is not JSON."""
    try:
        return msgspec.json.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return msgspec.UNSET


def _object(payload: object) -> dict[str, Any]:
    # Guess: the ids; the API documentation says only that it refuses such input.
    if payload is msgspec.UNSET:
        raise RefusedError(400, "invalid_json", "The body is not JSON")
    if not isinstance(payload, dict):
        raise RefusedError(400, "invalid_input", "The body must be a JSON object")
    return payload


def _matches(identity: dict[str, Any], customer: StoredCustomer) -> bool:
    """Return whether every key of an identity matches, or is unknown for the customer (CustomerIdentity1)."""
    email = identity.get("email")
    pairs = (
        (identity.get("bhid"), customer.bh_id),
        (identity.get("shopid"), customer.id),
        (email.lower() if isinstance(email, str) else email, customer.email),
    )
    return all(not given or known is None or given == known for given, known in pairs)
