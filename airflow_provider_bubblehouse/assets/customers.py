"""
The asset of a shop's customers: ``bubblehouse://HOST/SHOP/customers``.

Airflow imports this module as soon as it finds an asset of any kind, so it imports almost nothing itself.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from airflow_provider_bubblehouse.api.names import DEFAULT_HOST, customers_uri, openlineage_name, sanitize_uri

if TYPE_CHECKING:
    from airflow_provider_bubblehouse.airflow_compat import Asset, Dataset

__all__ = ["convert_asset_to_openlineage", "create_asset", "customers_uri", "sanitize_uri"]


def create_asset(*, shop: str, host: str = DEFAULT_HOST, extra: dict[str, Any] | None = None) -> Asset:
    """
    Return the asset of a shop's customers; in Airflow 2 it is a dataset.

    :param shop: the shop slug.
    :param host: the API's host, with its port unless that is 443.
    :param extra: the extra of the asset.
    :raises ValueError: if shop or host is malformed.
    """
    from airflow_provider_bubblehouse.airflow_compat import Asset

    return Asset(uri=customers_uri(shop=shop, host=host), extra=extra)


def convert_asset_to_openlineage(asset: Asset, lineage_context: object) -> Dataset:
    """
    Return the OpenLineage dataset of an asset, for Airflow's OpenLineage provider.

    :param asset: the asset.
    :param lineage_context: not used.
    """
    from airflow_provider_bubblehouse.airflow_compat import Dataset

    namespace, name = openlineage_name(asset.uri)
    return Dataset(namespace=namespace, name=name)
