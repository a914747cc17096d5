"""
The asset that a shop's customers are: ``bubblehouse://HOST/SHOP/customers``.

Airflow imports this where it meets the first asset of any kind, so it imports next to nothing itself.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from airflow_provider_bubblehouse.api.names import DEFAULT_HOST, customers_uri, openlineage_name, sanitize_uri

if TYPE_CHECKING:
    from airflow_provider_bubblehouse.airflow_compat import Asset, Dataset

__all__ = ["convert_asset_to_openlineage", "create_asset", "customers_uri", "sanitize_uri"]


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


def convert_asset_to_openlineage(asset: Asset, lineage_context: object) -> Dataset:
    """
    Return what OpenLineage calls the asset; Airflow's OpenLineage provider calls this.

    :param asset: an asset whose URI has been checked.
    :param lineage_context: what reported the asset; its name does not depend on it.
    """
    from airflow_provider_bubblehouse.airflow_compat import Dataset

    namespace, name = openlineage_name(asset.uri)
    return Dataset(namespace=namespace, name=name)
