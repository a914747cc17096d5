"""The settings of one shop's API, read from the fields of an Airflow connection and validated."""

from __future__ import annotations

import ipaddress
import logging
import math
import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from airflow_provider_bubblehouse import __version__
from airflow_provider_bubblehouse.api.names import DEFAULT_HOST, HOST, WORD
from airflow_provider_bubblehouse.api.tokens import MintedTokens, StoredToken, Tokens
from airflow_provider_bubblehouse.errors import PermanentError
from airflow_provider_bubblehouse.plural import plural

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

log = logging.getLogger(__name__)

DEFAULT_API_VERSION = "v20230601"  # as the UpdateCustomers3 page prints it
CONNECT_TIMEOUT = 10.0  # seconds; a host that takes longer is down
DEFAULT_READ_TIMEOUT = 60.0  # seconds; as in the vendor's own client
MAX_ANSWER_BYTES = 16 * 1024 * 1024  # far more than any answer of the API; the rest is not read
EXTRAS = {  # each with its label in the connection form
    "key_id": "Key ID",
    "shared_secret": "Shared Secret",
    "api_version": "API version",
    "timeout": "Timeout",
    "max_calls_per_second": "Calls per second",
    "allow_debug": "Allow debug calls",
}
_HIGHEST_PORT = 65535
HEADERS = {
    "Accept": "application/json",
    "Content-Type": "application/json",
    "User-Agent": f"airflow-provider-bubblehouse/{__version__}",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class ShopConnection:
    """
    The address and credentials of a shop's API.

    :param base_url: scheme, host and port, such as ``https://app.bubblehouse.com``.
    :param shop: the shop slug.
    :param tokens: returns the token for each call.
    :param api_version: the API's global version, part of every URL.
    :param read_timeout: seconds to wait for each part of an answer.
    :param max_calls_per_second: the limit for calls that a push starts; None for no limit.
    :param allow_debug: whether calls with ``debug`` are allowed, which the API forbids in production.
    """

    base_url: str
    shop: str
    tokens: Tokens = field(repr=False)
    api_version: str = DEFAULT_API_VERSION
    read_timeout: float = DEFAULT_READ_TIMEOUT
    max_calls_per_second: float | None = None
    allow_debug: bool = False

    def url(self, function: str) -> str:
        """Return the URL of a function (https://app.bubblehouse.com/apidocs/calling/rpc)."""
        if not WORD.fullmatch(function):
            raise PermanentError("The name of a function must be one word, such as UpdateCustomers3.")
        return f"{self.base_url}/api/{self.api_version}/{self.shop}/{function}"


def read_connection(
    *,
    login: str | None,
    password: str | None,
    host: str | None,
    port: int | None,
    extra: Mapping[str, Any],
    mask: Callable[[str], None],
) -> ShopConnection:
    """
    Read and validate the fields of a connection of type ``bubblehouse``; an empty field counts as absent.

    :param login: the shop slug.
    :param password: the shop token.
    :param host: the API's host, with ``http://`` for this machine only; default ``app.bubblehouse.com``.
    :param port: the API's port; default that of the scheme.
    :param extra: ``key_id``, ``shared_secret``, ``api_version``, ``timeout`` in seconds, ``max_calls_per_second``,
        ``allow_debug``.
    :param mask: called with every secret, to mask it in logs.
    :raises PermanentError: if a field is missing or invalid; the message names the field, never its value.
    """
    shop = (login or "").strip()
    if not WORD.fullmatch(shop):
        raise PermanentError(
            "Shop slug (login) of the Airflow connection must be the word after the version in the URL of your API "
            "calls, such as my-shop."
        )
    if unknown := extra.keys() - EXTRAS.keys():
        log.warning(
            "The Airflow connection has %s, which will be ignored. Check the spelling: the extras are %s.",
            plural(len(unknown), "unknown extra"),
            ", ".join(EXTRAS),
        )
    api_version = _text(extra, "api_version") or DEFAULT_API_VERSION
    if not re.fullmatch(r"v\d+", api_version):
        raise PermanentError(
            f"API version (api_version) of the Airflow connection must be v and digits, such as {DEFAULT_API_VERSION}."
        )
    return ShopConnection(
        base_url=_base_url((host or "").strip() or DEFAULT_HOST, port),
        shop=shop,
        tokens=_tokens(shop, (password or "").strip(), extra, mask),
        api_version=api_version,
        read_timeout=_number(extra, "timeout") or DEFAULT_READ_TIMEOUT,
        max_calls_per_second=_number(extra, "max_calls_per_second"),
        allow_debug=_boolean(extra, "allow_debug"),
    )


def _tokens(shop: str, token: str, extra: Mapping[str, Any], mask: Callable[[str], None]) -> Tokens:
    key_id, shared_secret = _text(extra, "key_id"), _text(extra, "shared_secret")
    for secret in filter(None, (token, shared_secret)):
        mask(secret)
    if token and (key_id or shared_secret):
        raise PermanentError(
            "The Airflow connection has both a Shop token (password) and a Key ID (key_id) or Shared Secret "
            "(shared_secret); clear one or the other."
        )
    if token:
        return StoredToken(token, shop=shop)
    if key_id and shared_secret:
        return MintedTokens(key_id, shared_secret, shop=shop, mask=mask)
    raise PermanentError(
        "The Airflow connection has no credentials; set the Shop token (password), or both Key ID (key_id) and Shared "
        "Secret (shared_secret)."
    )


def _base_url(host: str, port: int | None) -> str:
    invalid = PermanentError(
        f"API host (host) of the Airflow connection must be a host name such as {DEFAULT_HOST}, without a path, a user "
        "or a query, and its Port, if it has one, a number from 1 to 65535."
    )
    try:
        parts = urlsplit(host if "://" in host else f"https://{host}")
        own_port = parts.port
    except ValueError:
        raise invalid from None
    name = parts.hostname or ""
    has_more = parts.path.strip("/") or parts.query or parts.fragment or "@" in parts.netloc
    if parts.scheme not in ("https", "http") or has_more or not HOST.fullmatch(name):
        raise invalid
    if parts.scheme == "http" and not _is_loopback(name):
        raise PermanentError(
            "API host (host) of the Airflow connection begins with http://, which would send the token in clear text; "
            "use https. Only this machine, such as a sandbox at http://127.0.0.1, may have http://."
        )
    if own_port and port and own_port != port:
        raise PermanentError(
            "API host (host) of the Airflow connection names another port than Port; correct it, or leave Port empty."
        )
    number = own_port or port or None
    if number is not None and not 0 < number <= _HIGHEST_PORT:
        raise invalid
    bracketed = f"[{name}]" if ":" in name else name
    return f"{parts.scheme}://{bracketed}" + (f":{number}" if number else "")


def _is_loopback(name: str) -> bool:
    try:
        return ipaddress.ip_address(name).is_loopback
    except ValueError:
        return name == "localhost"


def _label(name: str) -> str:
    return f"{EXTRAS[name]} ({name})"


def _text(extra: Mapping[str, Any], name: str) -> str:
    value = extra.get(name)
    if value is None:
        return ""
    if not isinstance(value, str):
        raise PermanentError(f"{_label(name)} of the Airflow connection must be text.")
    return value.strip()


def _number(extra: Mapping[str, Any], name: str) -> float | None:
    value = extra.get(name)
    if value is None or value == "":
        return None
    try:
        number = math.nan if isinstance(value, bool) else float(value)
    except (TypeError, ValueError):
        number = math.nan
    if not (math.isfinite(number) and number > 0):
        raise PermanentError(f"{_label(name)} of the Airflow connection must be a number above 0.")
    return number


def _boolean(extra: Mapping[str, Any], name: str) -> bool:
    value = extra.get(name)
    if isinstance(value, str):  # the Test button of Airflow 2 sends text
        value = {"true": True, "false": False, "": None}.get(value.strip().lower(), value)
    if value is None:
        return False
    if not isinstance(value, bool):
        raise PermanentError(f"{_label(name)} of the Airflow connection must be true or false.")
    return value
