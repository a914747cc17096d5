"""The fields of a connection are validated strictly, and an error names the field without its value."""

from __future__ import annotations

import base64
import time

import jwt
import pytest

from airflow_provider_bubblehouse.api.connection import ShopConnection, read_connection
from airflow_provider_bubblehouse.exceptions import BubblehousePermanentError
from airflow_provider_bubblehouse.get_provider_info import get_provider_info

SECRET = base64.b64encode(b"0123456789abcdef0123456789abcdef").decode()


def read(mask=lambda _: None, **fields) -> ShopConnection:
    fields = {"login": "my-shop", "password": "token", "host": None, "port": None, "extra": {}} | fields
    return read_connection(**fields, mask=mask)


def token(**claims) -> str:
    return jwt.encode({"aud": "BH", "sub": "my-shop"} | claims, SECRET.encode(), algorithm="HS256")


def test_the_defaults_are_the_documented_ones():
    connection = read()
    assert connection.url("UpdateCustomers3") == "https://app.bubblehouse.com/api/v20230601/my-shop/UpdateCustomers3"
    assert (connection.read_timeout, connection.allow_debug) == (60.0, False)


def test_null_and_empty_fields_count_as_absent():
    names = ("key_id", "shared_secret", "api_version", "timeout", "allow_debug")
    for empty in (None, ""):
        connection = read(host=empty, extra=dict.fromkeys(names, empty))
        assert connection.url("Status2") == read().url("Status2")


def test_unknown_extras_are_counted_in_a_warning_and_not_shown(caplog):
    read(extra={"time_out": "secret", "timeout": 5})
    (warning,) = caplog.messages
    assert warning.startswith("The Airflow connection has 1 unknown extra, which will be ignored.")
    assert "key_id, shared_secret, api_version" in warning
    assert "time_out" not in warning
    assert "secret" not in warning.replace("shared_secret", "")


@pytest.mark.parametrize(
    ("host", "port", "base_url"),
    [
        ("api.example.com", None, "https://api.example.com"),
        ("https://api.example.com/", None, "https://api.example.com"),
        ("api.example.com", 8443, "https://api.example.com:8443"),
        ("api.example.com:9000", 9000, "https://api.example.com:9000"),
        ("api.example.com", 0, "https://api.example.com"),
        ("http://127.0.0.1:8765", None, "http://127.0.0.1:8765"),
        ("http://localhost", 8765, "http://localhost:8765"),
        ("http://[::1]:8765", None, "http://[::1]:8765"),
    ],
)
def test_a_host_is_taken_with_scheme_and_port(host, port, base_url):
    assert read(host=host, port=port).base_url == base_url


def test_two_different_ports_are_refused():
    with pytest.raises(BubblehousePermanentError, match="names another port than Port"):
        read(host="api.example.com:9000", port=8443)


@pytest.mark.parametrize(
    "fields",
    [
        {"login": None},
        {"login": "my shop"},
        {"login": "../other"},
        {"host": "http://api.example.com"},
        {"host": "http://127.0.0.1.example.com"},
        {"host": "api.example.com/v1"},
        {"host": "user@api.example.com"},
        {"host": "api.example.com?x=1"},
        {"host": "ftp://api.example.com"},
        {"host": "api.example.com:port"},
        {"port": 65536},
        {"port": -1},
        {"host": "a" * 64 + ".example.com"},
        {"host": "https://"},
        {"password": None},
        {"password": "two words"},
        {"password": "line\nbreak"},
        {"password": "Bearer abc"},
        {"password": "schlüssel"},
        {"extra": {"key_id": "k", "shared_secret": SECRET}},
        {"extra": {"key_id": "k"}},
        {"password": None, "extra": {"key_id": "k"}},
        {"password": None, "extra": {"shared_secret": SECRET}},
        {"password": None, "extra": {"key_id": "k", "shared_secret": "not base64!"}},
        {"extra": {"api_version": "latest"}},
        {"extra": {"api_version": 20230601}},
        {"extra": {"timeout": "soon"}},
        {"extra": {"timeout": 0}},
        {"extra": {"timeout": True}},
        {"extra": {"timeout": float("nan")}},
        {"extra": {"allow_debug": "perhaps"}},
        {"extra": {"allow_debug": 1}},
    ],
    ids=str,
)
def test_a_wrong_field_is_refused_without_showing_it(fields):
    with pytest.raises(BubblehousePermanentError) as caught:
        read(**fields)
    values = [fields.get("password"), *(fields.get("extra") or {}).values()]
    assert not any(str(value) in str(caught.value) for value in values if value and len(str(value)) > 3)


FORM = get_provider_info()["connection-types"][0]
LABELS = FORM["ui-field-behaviour"]["relabeling"] | {
    name: field["label"] for name, field in FORM["conn-fields"].items()
}
WRONG = {
    "login": [{"login": "my shop"}],
    "password": [
        {"password": "two words"},
        {"password": "expired"},
        {"password": "of another shop"},
        {"password": None},
    ],
    "host": [{"host": "api.example.com/v1"}, {"host": "http://api.example.com"}],
    "key_id": [{"extra": {"key_id": 5}}, {"password": None}],
    "shared_secret": [{"password": None, "extra": {"key_id": "k", "shared_secret": "not base64!"}}, {"password": None}],
    "api_version": [{"extra": {"api_version": "latest"}}],
    "timeout": [{"extra": {"timeout": "soon"}}],
    "max_calls_per_second": [{"extra": {"max_calls_per_second": 0}}],
    "allow_debug": [{"extra": {"allow_debug": "perhaps"}}],
}
TOKENS = {"expired": {"exp": 1}, "of another shop": {"sub": "other-shop"}}


@pytest.mark.parametrize(
    ("name", "fields"), [(name, fields) for name, each in WRONG.items() for fields in each], ids=str
)
def test_a_message_names_a_field_by_its_label_in_the_form(name, fields):
    if fields.get("password") in TOKENS:
        fields = fields | {"password": token(**TOKENS[fields["password"]])}
    with pytest.raises(BubblehousePermanentError) as caught:
        read(**fields).tokens.current()
    label = LABELS[name].removesuffix(" (seconds)")
    assert f"{label} ({name})" in str(caught.value)


@pytest.mark.parametrize(("value", "allowed"), [(True, True), ("true", True), ("False", False), (False, False)])
def test_allow_debug_is_read_as_either_form_sends_it(value, allowed):
    assert read(extra={"allow_debug": value}).allow_debug is allowed


def test_a_stored_token_is_used_until_it_expires():
    stored = token(exp=int(time.time()) + 60)
    assert read(password=f" {stored}\n").tokens.current() == stored


def test_an_expired_token_is_refused_with_the_time_of_its_expiry():
    connection = read(password=token(exp=1_700_000_000))
    with pytest.raises(BubblehousePermanentError, match="expired at 2023-11-14 22:13:20 UTC"):
        connection.tokens.current()


@pytest.mark.parametrize("subject", ["other-shop", "my-shop/1234"])
def test_a_token_for_somebody_else_is_refused(subject):
    with pytest.raises(BubblehousePermanentError, match="another shop"):
        read(password=token(sub=subject))


def test_minted_tokens_have_the_documented_claims_and_are_reused_until_shortly_before_they_expire(monkeypatch):
    now = [1_800_000_000.0]
    monkeypatch.setattr("time.time", lambda: now[0])
    masked = []
    tokens = read(mask=masked.append, password=None, extra={"key_id": "k1", "shared_secret": SECRET}).tokens
    first = tokens.current()
    assert jwt.get_unverified_header(first) == {"alg": "HS256", "typ": "JWT", "kid": "k1"}
    claims = jwt.decode(
        first,
        base64.b64decode(SECRET),
        algorithms=["HS256"],
        options={"verify_aud": False, "verify_exp": False, "verify_iat": False},
    )
    assert claims == {"aud": "BH", "sub": "my-shop", "iat": now[0] - 30, "exp": now[0] + 600}
    now[0] += 470
    assert tokens.current() == first
    now[0] += 20
    second = tokens.current()
    assert second != first
    assert masked == [SECRET, first, second]


def test_the_repr_of_a_connection_shows_no_secret():
    assert "sentinel" not in repr(read(password="sentinel-token"))
