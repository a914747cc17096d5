"""The settings of one shop's API, read and checked from the fields of a stored connection."""

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

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

log = logging.getLogger(__name__)

DEFAULT_API_VERSION = "v20230601"  # as the UpdateCustomers3 page prints it
CONNECT_TIMEOUT = 10.0  # seconds; a host that does not answer for so long is down
DEFAULT_READ_TIMEOUT = 60.0  # seconds; what the vendor's own client waits
MAX_ANSWER_BYTES = 16 * 1024 * 1024  # no answer of the API comes near; more is cut and so no JSON object
EXTRAS = ("key_id", "shared_secret", "api_version", "timeout", "max_calls_per_second", "allow_debug")
_HIGHEST_PORT = 65535
HEADERS = {
    "Accept": "application/json",
    "Content-Type": "application/json",
    "User-Agent": f"airflow-provider-bubblehouse/{__version__}",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class ShopConnection:
    """
    Where a shop's API is and how to be let in.

    :param base_url: scheme, host and port, such as ``https://app.bubblehouse.com``.
    :param shop: the shop slug.
    :param tokens: where calls get their token from.
    :param api_version: the API's global version, part of every URL.
    :param read_timeout: seconds to wait for the next piece of an answer.
    :param max_calls_per_second: how many calls a push begins in a second at most; None for no limit.
    :param allow_debug: whether calls with ``debug`` are allowed, which the API wants kept out of production.
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
            raise PermanentError("A function's name is one word, such as UpdateCustomers3.")
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
    Read the fields of a connection of type ``bubblehouse``; an empty field counts as absent, as the form sends it.

    :param login: the shop slug.
    :param password: the shop token.
    :param host: the API's host, with ``http://`` only where it is this machine; default ``app.bubblehouse.com``.
    :param port: the API's port, default that of the scheme.
    :param extra: ``key_id``, ``shared_secret``, ``api_version``, ``timeout`` in seconds, ``max_calls_per_second``,
        ``allow_debug``.
    :param mask: called with every secret, so that it is kept out of logs.
    :raises PermanentError: if a field is missing or cannot be right; the text names it, never its value.
    """
    shop = (login or "").strip()
    if not WORD.fullmatch(shop):
        raise PermanentError(
            "Login of the Airflow connection must be the shop slug: the word that stands in the API's URL, "
            "such as my-shop."
        )
    if strange := extra.keys() - EXTRAS:
        log.warning(
            "Extras of the Airflow connection that are none of %s: %d; is a name misspelt?",
            ", ".join(EXTRAS),
            len(strange),
        )
    api_version = _text(extra, "api_version") or DEFAULT_API_VERSION
    if not re.fullmatch(r"v\d+", api_version):
        raise PermanentError(
            f"api_version of the Airflow connection must be v and digits, such as {DEFAULT_API_VERSION}."
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
            "The Airflow connection has both a shop token (Password) and a Key ID or Shared Secret; "
            "keep one way to authenticate and clear the other."
        )
    if token:
        return StoredToken(token, shop=shop)
    if key_id and shared_secret:
        return MintedTokens(key_id, shared_secret, shop=shop, mask=mask)
    raise PermanentError(
        "The Airflow connection has no way to authenticate; set the shop token (Password), "
        "or both Key ID and Shared Secret."
    )


def _base_url(host: str, port: int | None) -> str:
    complaint = PermanentError(
        f"Host of the Airflow connection must be a bare host name such as {DEFAULT_HOST}, "
        "with a port where it needs one, and without a path, a user or a query."
    )
    try:
        parts = urlsplit(host if "://" in host else f"https://{host}")
        own_port = parts.port
    except ValueError:
        raise complaint from None
    name = parts.hostname or ""
    has_more = parts.path.strip("/") or parts.query or parts.fragment or "@" in parts.netloc
    if parts.scheme not in ("https", "http") or has_more or not HOST.fullmatch(name):
        raise complaint
    if parts.scheme == "http" and not _is_loopback(name):
        raise PermanentError(
            "Host of the Airflow connection begins with http://, which would send the token in clear text; "
            "use https, or http for this machine only."
        )
    number = own_port or port or None
    if number is not None and not 0 < number <= _HIGHEST_PORT:
        raise complaint
    bracketed = f"[{name}]" if ":" in name else name
    return f"{parts.scheme}://{bracketed}" + (f":{number}" if number else "")


def _is_loopback(name: str) -> bool:
    try:
        return ipaddress.ip_address(name).is_loopback
    except ValueError:
        return name == "localhost"


def _text(extra: Mapping[str, Any], name: str) -> str:
    value = extra.get(name)
    if value is None:
        return ""
    if not isinstance(value, str):
        raise PermanentError(f"{name} of the Airflow connection must be text.")
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
        raise PermanentError(f"{name} of the Airflow connection must be a number above 0.")
    return number


def _boolean(extra: Mapping[str, Any], name: str) -> bool:
    value = extra.get(name)
    if isinstance(value, str):  # the form of Airflow 2 sends text when the connection is tested
        value = {"true": True, "false": False, "": None}.get(value.strip().lower(), value)
    if value is None:
        return False
    if not isinstance(value, bool):
        raise PermanentError(f"{name} of the Airflow connection must be true or false.")
    return value
