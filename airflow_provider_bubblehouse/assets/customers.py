"""
The asset that a shop's customers are: ``bubblehouse://HOST/SHOP/customers``.

Airflow imports this where it meets the first asset of any kind, so it imports next to nothing itself.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any
from urllib.parse import SplitResult, urlunsplit

from airflow_provider_bubblehouse.api.names import DEFAULT_HOST, HOST, WORD

if TYPE_CHECKING:
    from airflow_provider_bubblehouse.airflow_compat import Asset, Dataset

SCHEME = "bubblehouse"
_CUSTOMERS = "customers"
_PATH = re.compile(f"/{WORD.pattern}/{_CUSTOMERS}")
_HTTPS_PORT = 443


def customers_uri(*, shop: str, host: str = DEFAULT_HOST) -> str:
    """
    Return the URI of a shop's customers.

    :param shop: the shop slug.
    :param host: the API's host, with its port where it has one of its own.
    :raises ValueError: if either cannot be right.
    """
    return urlunsplit(sanitize_uri(SplitResult(SCHEME, host, f"/{shop}/{_CUSTOMERS}", "", "")))


def create_asset(*, shop: str, host: str = DEFAULT_HOST, extra: dict[str, Any] | None = None) -> Asset:
    """
    Return the asset of a shop's customers, a dataset in Airflow 2.

    :param shop: the shop slug.
    :param host: the API's host, with its port where it has one of its own.
    :param extra: what the asset is to carry beside its URI.
    :raises ValueError: if shop or host cannot be right.
    """
    from airflow_provider_bubblehouse.airflow_compat import Asset

    return Asset(uri=customers_uri(shop=shop, host=host), extra=extra)


def sanitize_uri(uri: SplitResult) -> SplitResult:
    """
    Check the URI of an asset, and bring it into the one form that each shop has.

    Airflow calls this with every URI of the scheme. The host is written in lower case, and without the port of https.

    :raises ValueError: if it is not ``bubblehouse://HOST/SHOP/customers``. The text does not show it: a connection's
        URI, which has the same scheme, holds a token.
    """
    complaint = ValueError(
        "The URI of a Bubblehouse asset is bubblehouse://HOST/SHOP/customers, such as "
        f"{SCHEME}://{DEFAULT_HOST}/my-shop/{_CUSTOMERS}: the API's host, the shop slug and the word customers, "
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


def convert_asset_to_openlineage(asset: Asset, lineage_context: object) -> Dataset:
    """
    Return what OpenLineage calls the asset; Airflow's OpenLineage provider calls this.

    :param asset: an asset whose URI has been checked.
    :param lineage_context: what reported the asset; its name does not depend on it.
    """
    from airflow_provider_bubblehouse.airflow_compat import Dataset
    from airflow_provider_bubblehouse.lineage import openlineage_name

    namespace, name = openlineage_name(asset.uri)
    return Dataset(namespace=namespace, name=name)
