"""
The names of hosts, shops and a shop's customers in URLs and URIs.

Airflow imports this module when it starts, so it imports almost nothing itself.
"""

from __future__ import annotations

import re
from urllib.parse import SplitResult, urlunsplit

DEFAULT_HOST = "app.bubblehouse.com"
SANDBOX_SERVER = "Bubblehouse-Sandbox"  # the sandbox's `Server` header, by which messages say who answered
WORD = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]*")  # a slug, version or function, which needs no quoting in a URL
HOST = re.compile(r"[A-Za-z0-9_-]{1,63}(\.[A-Za-z0-9_-]{1,63})*|[0-9A-Fa-f.:]+")

_SCHEME = "bubblehouse"
_CUSTOMERS = "customers"
_PATH = re.compile(f"/{WORD.pattern}/{_CUSTOMERS}")
_HTTPS_PORT = 443


def customers_uri(*, shop: str, host: str = DEFAULT_HOST) -> str:
    """
    Return the URI of a shop's customers.

    :param shop: the shop slug.
    :param host: the API's host, with its port unless that is 443.
    :raises ValueError: if either is malformed.
    """
    return urlunsplit(sanitize_uri(SplitResult(_SCHEME, host, f"/{shop}/{_CUSTOMERS}", "", "")))


def sanitize_uri(uri: SplitResult) -> SplitResult:
    """
    Validate and normalize the URI of an asset: the host in lower case, and without the port of https.

    Airflow calls this with every URI of the scheme.

    :raises ValueError: if it is not ``bubblehouse://HOST/SHOP/customers``. The message does not repeat the URI: it may
        be that of a connection, which has the same scheme and contains a token.
    """
    complaint = ValueError(
        "The URI of a Bubblehouse asset is bubblehouse://HOST/SHOP/customers, such as "
        f"{_SCHEME}://{DEFAULT_HOST}/my-shop/{_CUSTOMERS}: the API's host, the shop slug and the word customers, "
        "without a user, a query or anything else"
    )
    try:
        host, port = uri.hostname or "", uri.port
    except ValueError:
        raise complaint from None
    has_more = "@" in uri.netloc or uri.query or uri.fragment
    if has_more or not HOST.fullmatch(host) or not _PATH.fullmatch(uri.path):
        raise complaint
    bracketed = f"[{host}]" if ":" in host else host
    return uri._replace(netloc=bracketed if port in (None, _HTTPS_PORT) else f"{bracketed}:{port}")


def openlineage_name(url: str) -> tuple[str, str]:
    """
    Return namespace and name of a dataset (https://openlineage.io/docs/spec/naming).

    :param url: its URL; not parsed as one, because a file name may contain ``#`` and ``?``.
    """
    scheme, _, rest = url.partition("://")
    store, _, path = rest.partition("/")
    if scheme == "file":
        return (f"file://{store}" if store else "file"), f"/{path}"
    return f"{scheme}://{store}", path or "/"
