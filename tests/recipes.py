"""
The files of docs/recipes.md, as the programs write them, and the customers that are sent.

The headers are those of the programs; the people are fictional.
"""

from __future__ import annotations

import gzip
import io
import json
from typing import Any

import pandas as pd

Customers = list[dict[str, Any]]


def _lines(*lines: str, end: str = "\n") -> str:
    return "".join(line + end for line in lines)


SHOPIFY = _lines(
    "Customer ID,First Name,Last Name,Email,Accepts Email Marketing,Default Address Company,Default Address Address1,"
    "Default Address Address2,Default Address City,Default Address Province Code,Default Address Country Code,"
    "Default Address Zip,Default Address Phone,Phone,Accepts SMS Marketing,Total Spent,Total Orders,Note,Tax Exempt,"
    "Tags",
    "'7210448301122,Ada,Lovelace,ada@example.com,yes,,1 Example St,,London,,GB,'SW1A 1AA,,'+442071234567,no,"
    '248.50,2,"Likes ""old"" books",no,"newsletter, vip"',
    "'7210448301123,Grace,,grace@example.com,no,,,,,,,,,,no,0.00,0,,no,",
)
WOOCOMMERCE = _lines(
    'Name,Username,"Last Active","Sign Up",Email,Orders,"Total Spend",AOV,"Country / Region",City,Region,"Postal Code"',
    '"Ada Lovelace",ada,"2024-03-12 09:15:00","2023-07-01 18:30:00",ada@example.com,3,120.5,40.17,GB,London,,SW1A',
    '"Grace Hopper",,"2024-02-02 12:00:00",,grace@example.com,1,9.99,9.99,US,"New York",NY,10001',
)
MAGENTO = _lines(
    "email,_website,_store,confirmation,created_at,created_in,disable_auto_group_change,dob,firstname,gender,group_id,"
    "lastname,middlename,password_hash,prefix,rp_token,rp_token_created_at,store_id,suffix,taxvat,updated_at,website_id,"
    "password",
    'ada@example.com,base,default,,"2015-10-30 12:49:47","Default Store View",0,1990-01-31,Ada,,1,Lovelace,,,,,,1,,,'
    '"2024-01-09 12:49:00",1,',
    'grace@example.com,base,default,,"2016-01-01 00:00:00","Second Store View",0,,Grace,,1,Hopper,,,,,,1,,,'
    '"2024-01-09 12:49:00",1,',
)
KLAVIYO = "\ufeff" + _lines(
    "Email,Klaviyo ID,First Name,Last Name,Organization,Title,Phone Number,Address,Address 2,City,State / Region,"
    "Country,Zip Code,Latitude,Longitude,Source,IP Address,Email Marketing Consent,Email Marketing Consent Timestamp,"
    "Profile Created On,Date Added",
    "ada@example.com,01HXADA,Ada,Lovelace,,,+442071234567,,,London,,United Kingdom,,,,Popup,,SUBSCRIBED,"
    "2024-01-15T10:30:00+00:00,2023-07-01 18:30:00,2023-07-01 18:30:00",
    "grace@example.com,01HXGRACE,Grace,Hopper,,,,,,,,,,,,Import,,NEVER_SUBSCRIBED,,2023-08-01 00:00:00,"
    "2023-08-01 00:00:00",
    end="\r\n",
)
SNOWFLAKE = _lines(
    "1001,ada@example.com,Ada,2020-01-15 10:30:00.000 +0100,true,248.50",
    "1002,\\N,Grace \\, Jr.,\\N,false,\\N",
)
POSTGRES = _lines(
    '1001\tada@example.com\tAda\t1990-01-31\t2020-01-15 10:30:00+00\tt\t{vip,"big spender"}\t{"size": 42}',
    "1002\t\\N\tGrace\t\\N\t\\N\tf\t{}\t\\N",
)
MYSQL = _lines(
    "1001\tada@example.com\tAda\t1990-01-31\t2020-01-15 10:30:00\t1",
    "1002\t\\N\tGrace\\\\Co\t0000-00-00\t2020-07-15 10:30:00\t0",
)
EXCEL = _lines(
    "Kundennummer;Vorname;Nachname;E-Mail;Geburtsdatum;Newsletter",
    "1001;Zoë;Müller;zoe@example.com;31.01.1990;ja",
    '1002;Grace;"Hopper; Jr.";grace@example.com;1.12.1985;nein',
    end="\r\n",
)
BIGQUERY = _lines(
    json.dumps(
        {
            "customer_id": "1001",
            "profile": {"email": "ada@example.com", "address": {"city": "London"}},
            "signed_up": "2020-01-15 10:30:00 UTC",
            "tags": ["vip"],
            "spent": "248.5",
        }
    ),
    json.dumps({"customer_id": "1002", "profile": {"email": "grace@example.com"}, "tags": []}),
)


def _pandas() -> bytes:
    frame = pd.DataFrame(
        {
            "customer_id": [1001, 1002],
            "email": ["ada@example.com", None],
            "signed_up": pd.to_datetime(["2020-01-15 10:30:00", None]),
            "orders": [2.0, float("nan")],
        }
    )
    content = io.BytesIO()
    frame.to_parquet(content)
    return content.getvalue()


FILES: dict[str, bytes] = {
    "shopify.csv": SHOPIFY.encode(),
    "woocommerce.csv": WOOCOMMERCE.encode(),
    "magento.csv": MAGENTO.encode(),
    "klaviyo.csv": KLAVIYO.encode(),
    "snowflake/data_0_0_0.csv.gz": gzip.compress(SNOWFLAKE.encode()),
    "postgres.tsv": POSTGRES.encode(),
    "mysql.txt": MYSQL.encode(),
    "excel.csv": EXCEL.encode("cp1252"),
    "bigquery/customers-000000000000.json": BIGQUERY.encode(),
    "pandas.parquet": _pandas(),
}

ADA = {"email": "ada@example.com", "first_name": "Ada"}
SENT: dict[str, Customers] = {
    "shopify.csv": [
        {
            "id": "7210448301122",
            **ADA,
            "last_name": "Lovelace",
            "phone": "+442071234567",
            "email_marketing_consent": "subscribed",
            "sms_marketing_consent": "unsubscribed",
            "total_spent": "248.50",
            "order_count": 2,
            "tags": ["newsletter", "vip"],
            "extras": {"city": "London"},
        },
        {
            "id": "7210448301123",
            "email": "grace@example.com",
            "first_name": "Grace",
            "email_marketing_consent": "unsubscribed",
            "sms_marketing_consent": "unsubscribed",
            "total_spent": "0.00",
            "order_count": 0,
        },
    ],
    "woocommerce.csv": [
        {
            "email": "ada@example.com",
            "full_name": "Ada Lovelace",
            "signed_up_at": "2023-07-01T18:30:00+02:00",
            "order_count": 3,
            "total_spent": "120.5",
            "extras": {"country": "GB"},
        },
        {
            "email": "grace@example.com",
            "full_name": "Grace Hopper",
            "order_count": 1,
            "total_spent": "9.99",
            "extras": {"country": "US"},
        },
    ],
    "magento.csv": [
        {
            **ADA,
            "last_name": "Lovelace",
            "birthday": "1990-01-31",
            "signed_up_at": "2015-10-30T12:49:47+00:00",
            "extras": {"store": "Default Store View"},
        },
        {
            "email": "grace@example.com",
            "first_name": "Grace",
            "last_name": "Hopper",
            "signed_up_at": "2016-01-01T00:00:00+00:00",
            "extras": {"store": "Second Store View"},
        },
    ],
    "klaviyo.csv": [
        {
            **ADA,
            "last_name": "Lovelace",
            "phone": "+442071234567",
            "email_marketing_consent": "subscribed",
            "email_marketing_consent_change_time": "2024-01-15T10:30:00+00:00",
            "extras": {"city": "London"},
        },
        {"email": "grace@example.com", "first_name": "Grace", "last_name": "Hopper"},
    ],
    "snowflake/*.csv.gz": [
        {"id": "1001", **ADA, "signed_up_at": "2020-01-15T10:30:00.000+01:00", "optin": True, "total_spent": "248.50"},
        {"id": "1002", "first_name": "Grace , Jr.", "optin": False},
    ],
    "postgres.tsv": [
        {
            "id": "1001",
            "email": "ada@example.com",
            "first_name": "Ada",
            "birthday": "1990-01-31",
            "signed_up_at": "2020-01-15T10:30:00+00:00",
            "optin": True,
            "tags": ["vip", "big spender"],
            "extras": {"size": 42},
        },
        {"id": "1002", "first_name": "Grace", "optin": False, "tags": []},
    ],
    "mysql.txt": [
        {
            "id": "1001",
            **ADA,
            "birthday": "1990-01-31",
            "signed_up_at": "2020-01-15T10:30:00+01:00",
            "optin": True,
        },
        {
            "id": "1002",
            "first_name": "Grace\\Co",
            "signed_up_at": "2020-07-15T10:30:00+02:00",
            "optin": False,
        },
    ],
    "excel.csv": [
        {
            "id": "1001",
            "first_name": "Zoë",
            "last_name": "Müller",
            "email": "zoe@example.com",
            "birthday": "1990-01-31",
            "email_marketing_consent": "subscribed",
        },
        {
            "id": "1002",
            "first_name": "Grace",
            "last_name": "Hopper; Jr.",
            "email": "grace@example.com",
            "birthday": "1985-12-01",
            "email_marketing_consent": "unsubscribed",
        },
    ],
    "bigquery/customers-*.json": [
        {
            "id": "1001",
            "email": "ada@example.com",
            "signed_up_at": "2020-01-15T10:30:00Z",
            "tags": ["vip"],
            "total_spent": "248.5",
            "extras": {"city": "London"},
        },
        {"id": "1002", "email": "grace@example.com", "tags": []},
    ],
    "pandas.parquet": [
        {"id": "1001", "email": "ada@example.com", "signed_up_at": "2020-01-15T10:30:00+00:00", "order_count": 2},
        {"id": "1002", "email": None, "signed_up_at": None, "order_count": None},
    ],
}
