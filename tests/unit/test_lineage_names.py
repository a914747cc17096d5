"""A shop's customers have one URI, and the input and output of a push are named, whatever else goes wrong."""

from __future__ import annotations

import subprocess
import sys
from urllib.parse import urlsplit

import fsspec
import pytest

from airflow_provider_bubblehouse import lineage
from airflow_provider_bubblehouse.airflow_compat import Asset
from airflow_provider_bubblehouse.assets.customers import (
    convert_asset_to_openlineage,
    create_asset,
    customers_uri,
    sanitize_uri,
)
from airflow_provider_bubblehouse.hooks.bubblehouse import BubblehouseHook
from airflow_provider_bubblehouse.sources.files import FileSource
from airflow_provider_bubblehouse.sources.records import ListSource

URI = "bubblehouse://app.bubblehouse.com/my-shop/customers"


@pytest.mark.parametrize(
    ("written", "normal"),
    [
        (URI, URI),
        (f"{URI}/", URI),
        ("BUBBLEHOUSE://App.Bubblehouse.COM/my-shop/customers", URI),
        ("bubblehouse://app.bubblehouse.com:443/my-shop/customers", URI),
        ("bubblehouse://localhost:8080/My_Shop/customers", "bubblehouse://localhost:8080/My_Shop/customers"),
        ("bubblehouse://[::1]:8080/my-shop/customers", "bubblehouse://[::1]:8080/my-shop/customers"),
        ("bubblehouse://[::1]:443/my-shop/customers", "bubblehouse://[::1]/my-shop/customers"),
    ],
)
def test_every_way_to_write_a_shops_customers_is_one_asset(written, normal):
    assert Asset(uri=written).uri == normal


@pytest.mark.parametrize(
    "uri",
    [
        "bubblehouse://app.bubblehouse.com",
        "bubblehouse://app.bubblehouse.com/",
        "bubblehouse://app.bubblehouse.com/my-shop",
        "bubblehouse://app.bubblehouse.com/my-shop/orders",
        "bubblehouse://app.bubblehouse.com/my-shop/customers/1",
        "bubblehouse://app.bubblehouse.com//customers",
        "bubblehouse://app.bubblehouse.com/my shop/customers",
        "bubblehouse:///my-shop/customers",
        "bubblehouse:my-shop/customers",
        "bubblehouse://app.bubblehouse.com:port/my-shop/customers",
        "bubblehouse://app.bubblehouse.com:99999/my-shop/customers",
        "bubblehouse://-/my-shop/customers?debug=1",
        "bubblehouse://my-shop:SECRET@app.bubblehouse.com/my-shop/customers",
        "bubblehouse://SECRET@app.bubblehouse.com/my-shop/customers",
    ],
)
def test_anything_else_is_refused_with_the_right_form_and_without_being_shown(uri):
    with pytest.raises(ValueError, match="bubblehouse://HOST/SHOP/customers") as caught:
        sanitize_uri(urlsplit(uri))
    assert "SECRET" not in str(caught.value)


def test_an_asset_is_made_of_a_shop_and_a_host():
    assert create_asset(shop="my-shop").uri == URI
    asset = create_asset(shop="my-shop", host="localhost:8080", extra={"owner": "loyalty"})
    assert (asset.uri, asset.extra) == ("bubblehouse://localhost:8080/my-shop/customers", {"owner": "loyalty"})
    with pytest.raises(ValueError, match="HOST/SHOP"):
        create_asset(shop="my shop")


def test_a_hooks_connection_leads_to_the_asset_of_its_shop(monkeypatch):
    monkeypatch.setenv("AIRFLOW_CONN_BUBBLEHOUSE_DEFAULT", "bubblehouse://my-shop:a.token@App.bubblehouse.com:443")
    assert BubblehouseHook().customers_uri == customers_uri(shop="my-shop") == URI


def test_an_asset_has_the_name_in_openlineage_that_a_push_gives_it():
    dataset = convert_asset_to_openlineage(create_asset(shop="my-shop"), None)
    assert (dataset.namespace, dataset.name) == ("bubblehouse://app.bubblehouse.com", "my-shop/customers")


@pytest.mark.parametrize(
    ("url", "name"),
    [
        ("file:///data/a b#1?.csv", ("file", "/data/a b#1?.csv")),
        ("s3://bucket/folder/a.csv", ("s3://bucket", "folder/a.csv")),
        ("gs://bucket/a.csv", ("gs://bucket", "a.csv")),
        ("s3://bucket", ("s3://bucket", "/")),
        (URI, ("bubblehouse://app.bubblehouse.com", "my-shop/customers")),
    ],
)
def test_a_url_is_named_as_openlineage_names_datasets(url, name):
    assert lineage.openlineage_name(url) == name


def test_airflow_loads_the_asset_functions_without_the_modules_of_a_push():
    code = (
        "import sys;"
        "import airflow_provider_bubblehouse.assets.customers as assets;"
        "assert not set(sys.modules) & {'airflow', 'msgspec', 'jwt', 'requests', 'openlineage'}, sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_many_files_of_one_store_are_the_folder_they_share():
    assert lineage._inputs({f"b/x/{number}.csv": f"s3://b/x/{number}.csv" for number in range(50)}).keys() == {
        f"s3://b/x/{number}.csv" for number in range(50)
    }
    for urls, folders in [
        ([f"s3://b/x/{number}/a.csv" for number in range(51)], ["s3://b/x"]),
        ([f"s3://b/{number}.csv" for number in range(51)], ["s3://b"]),
        ([f"s3://b{number}/a.csv" for number in range(51)], []),
        ([f"file:///{number}.csv" for number in range(51)], ["file:///"]),
    ]:
        assert list(lineage._inputs({url: url for url in urls})) == folders


def test_a_file_whose_url_does_not_name_its_store_is_left_out():
    assert lineage._inputs({"/a.csv": "ftp:///a.csv"}) == {}


def test_a_source_tells_the_urls_of_its_files(tmp_path):
    for name in ("b#.csv", "a.csv"):
        (tmp_path / name).write_text("id\n1\n")
    source = FileSource(fsspec.filesystem("file"), f"{tmp_path}/*.csv")
    assert source.urls() == {}
    source.version()
    assert list(source.urls().items()) == [
        (f"{tmp_path}/a.csv", f"file://{tmp_path}/a.csv"),
        (f"{tmp_path}/b#.csv", f"file://{tmp_path}/b#.csv"),
    ]
    assert ListSource([{"id": "1"}]).urls() == {}
