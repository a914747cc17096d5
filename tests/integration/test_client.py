"""One call over a real socket: what arrives, and what an answer means, for both clients."""

from __future__ import annotations

import asyncio
import http.client
import socket
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace

import httpx
import pytest
import urllib3

from airflow_provider_bubblehouse import __version__
from airflow_provider_bubblehouse.api.async_client import AsyncClient, open_http
from airflow_provider_bubblehouse.api.classifier import UPDATE_CUSTOMERS
from airflow_provider_bubblehouse.api.client import Client
from airflow_provider_bubblehouse.api.connection import ShopConnection, read_connection
from airflow_provider_bubblehouse.exceptions import (
    BubblehouseError,
    BubblehousePermanentError,
    BubblehouseRateLimitError,
    BubblehouseRejectedError,
    BubblehouseTransientError,
)

BODY = b'{"customers":[{"id":"1"}]}'


def connection_to(sandbox, **changes) -> ShopConnection:
    fields = {
        "login": sandbox.shop,
        "password": sandbox.token,
        "host": sandbox.url,
        "port": None,
        "extra": {},
    } | changes
    return read_connection(**fields, mask=lambda _: None)


def call_with_requests(connection: ShopConnection, function: str, body: bytes) -> dict:
    with Client(connection) as client:
        return client.call(function, body)


def call_with_httpx(connection: ShopConnection, function: str, body: bytes) -> dict:
    async def call() -> dict:
        async with AsyncClient(connection) as client:
            return await client.call(function, body)

    return asyncio.run(call())


@pytest.fixture(params=[call_with_requests, call_with_httpx], ids=["requests", "httpx"])
def call(request):
    return request.param


def test_a_call_is_one_post_with_token_json_and_the_packages_name(sandbox, call):
    assert call(connection_to(sandbox), UPDATE_CUSTOMERS, BODY) == {"ok": True}
    (arrived,) = sandbox.calls
    assert (arrived.method, arrived.function, arrived.status) == ("POST", UPDATE_CUSTOMERS, 200)
    assert arrived.headers["content-type"] == "application/json"
    assert arrived.headers["user-agent"] == f"airflow-provider-bubblehouse/{__version__}"
    assert arrived.authorized


@pytest.mark.parametrize(
    ("fault", "kind"),
    [
        ("ok", None),
        ("500", BubblehouseTransientError),
        ("502", BubblehouseTransientError),
        ("503", BubblehouseTransientError),
        ("504", BubblehouseTransientError),
        ("reset", BubblehouseTransientError),
        ("reset,processed", BubblehouseTransientError),
        ("cut", BubblehouseTransientError),
        ("cut=503", BubblehouseTransientError),
        ("400", BubblehouseRejectedError),
        ("422", BubblehouseRejectedError),
        ("cut=400", BubblehousePermanentError),
        ("400:invalid_global_api_version", BubblehousePermanentError),
        ("400:obsolete_global_api_version", BubblehousePermanentError),
        ("400:inaccessible_global_api_version", BubblehousePermanentError),
        ("401:invalid_token", BubblehousePermanentError),
        ("403", BubblehousePermanentError),
        ("404", BubblehousePermanentError),
        ("405", BubblehousePermanentError),
        ("413", BubblehousePermanentError),
        ("html=400", BubblehousePermanentError),
        ("html=413", BubblehousePermanentError),
        ("html=429", BubblehousePermanentError),
        ("html=503", BubblehouseTransientError),
        ("429:rate_limit_exceeded", BubblehouseRateLimitError),
        ("html", BubblehousePermanentError),
        ("empty", BubblehousePermanentError),
        ("202", BubblehousePermanentError),
        ("204", BubblehousePermanentError),
        ("redirect", BubblehousePermanentError),
        ('json={"ok": false}', BubblehousePermanentError),
        ("json=[1]", BubblehousePermanentError),
    ],
)
def test_an_answer_is_classified_and_the_call_is_made_once(sandbox, call, fault, kind):
    sandbox.script(fault)
    if kind is None:
        call(connection_to(sandbox), UPDATE_CUSTOMERS, BODY)
    else:
        with pytest.raises(BubblehouseError) as caught:
            call(connection_to(sandbox), UPDATE_CUSTOMERS, BODY)
        assert type(caught.value) is kind
        assert sandbox.token not in str(caught.value)
    assert len(sandbox.calls) == 1


@pytest.mark.parametrize("fault", ["503,retry_after=7", "429:rate_limit_exceeded,retry_after=7"])
def test_retry_after_comes_with_the_error(sandbox, call, fault):
    sandbox.script(fault)
    with pytest.raises(BubblehouseError) as caught:
        call(connection_to(sandbox), UPDATE_CUSTOMERS, BODY)
    assert caught.value.retry_after == 7


def test_a_timeout_is_a_transient_error(sandbox, call):
    sandbox.script("delay=30")
    with pytest.raises(BubblehouseTransientError, match=r"[Tt]imeout"):
        call(connection_to(sandbox, extra={"timeout": 0.2}), UPDATE_CUSTOMERS, BODY)
    assert len(sandbox.calls) == 1


def test_a_refused_connection_is_a_transient_error(call, unused_port, sandbox):
    with pytest.raises(BubblehouseTransientError, match="ConnectionRefusedError"):
        call(connection_to(sandbox, host=f"http://127.0.0.1:{unused_port}"), UPDATE_CUSTOMERS, BODY)


def test_a_host_that_does_not_exist_is_a_transient_error(call, sandbox):
    with pytest.raises(BubblehouseTransientError, match="gaierror"):
        call(connection_to(sandbox, host="https://no-such-host.invalid"), UPDATE_CUSTOMERS, BODY)


def test_a_server_that_does_not_speak_tls_is_a_transient_error(call, sandbox):
    with pytest.raises(BubblehouseTransientError, match="SSL"):
        call(connection_to(sandbox, host=sandbox.url.replace("http://", "https://")), UPDATE_CUSTOMERS, BODY)
    assert sandbox.calls == []


def test_an_expired_token_is_refused_before_anything_is_sent(sandbox, call):
    expired = sandbox.mint(exp=int(time.time()) - 1)
    with pytest.raises(BubblehousePermanentError, match="expired at"):
        call(connection_to(sandbox, password=expired), UPDATE_CUSTOMERS, BODY)
    assert sandbox.calls == []


def test_a_minted_token_is_accepted(sandbox, call):
    minted = {"key_id": sandbox.key_id, "shared_secret": sandbox.shared_secret}
    assert call(connection_to(sandbox, password=None, extra=minted), UPDATE_CUSTOMERS, BODY) == {"ok": True}


def test_a_token_of_another_secret_is_not_accepted(sandbox, call):
    minted = {"key_id": sandbox.key_id, "shared_secret": "b3RoZXI" * 8}
    with pytest.raises(BubblehousePermanentError, match="the token is not accepted") as caught:
        call(connection_to(sandbox, password=None, extra=minted), UPDATE_CUSTOMERS, BODY)
    assert caught.value.status == 401


def test_a_netrc_entry_for_the_host_does_not_replace_the_token(sandbox, call, tmp_path, monkeypatch):
    netrc = tmp_path / "netrc"
    netrc.write_text("machine 127.0.0.1 login someone password something\n")
    netrc.chmod(0o600)
    monkeypatch.setenv("NETRC", str(netrc))
    assert call(connection_to(sandbox), UPDATE_CUSTOMERS, BODY) == {"ok": True}


def test_no_cookie_of_one_shops_answer_goes_with_another_shops_call():
    http = open_http()
    request = httpx.Request("POST", "https://app.bubblehouse.com/")
    http.cookies.extract_cookies(httpx.Response(200, headers={"Set-Cookie": "session=1"}, request=request))
    assert not http.cookies


def test_a_client_that_was_closed_can_call_again(sandbox):
    with Client(connection_to(sandbox)) as client:
        client.call(UPDATE_CUSTOMERS, BODY)
    with client:
        client.call(UPDATE_CUSTOMERS, BODY)
    assert [call.status for call in sandbox.calls] == [200, 200]


def test_a_call_through_tls_inside_the_tls_of_a_proxy_can_be_aborted(sandbox):
    ours, theirs = socket.socketpair()
    with Client(connection_to(sandbox)) as client, ours, theirs:
        client._open = SimpleNamespace(sock=SimpleNamespace(socket=ours))  # as urllib3 nests them
        client.abort()
        assert theirs.recv(1) == b""


def test_a_redirect_to_an_impossible_url_is_a_permanent_error_like_any_other(sandbox, call):
    with socket.create_server(("127.0.0.1", 0)) as server, ThreadPoolExecutor() as pool:
        host = f"http://127.0.0.1:{server.getsockname()[1]}"
        calling = pool.submit(call, connection_to(sandbox, host=host), "Status2", b"{}")
        connection, _ = server.accept()
        with connection:
            connection.recv(65536)
            connection.sendall(b"HTTP/1.1 302 Found\r\nLocation: ::::\r\nContent-Length: 0\r\n\r\n")
            with pytest.raises(BubblehousePermanentError, match="a redirect, which is never followed"):
                calling.result()


@pytest.mark.parametrize(
    ("call", "proxy"),
    [
        (call_with_requests, "http:///nowhere"),  # httpx reports that there was no answer
        (call_with_requests, "http://user:secret@"),
        (call_with_requests, "http://secret:port"),
        (call_with_httpx, "http://secret:port"),
        (call_with_httpx, "ftp://secret"),
    ],
)
def test_a_proxy_that_cannot_be_called_is_a_permanent_error(sandbox, call, monkeypatch, proxy):
    monkeypatch.setenv("HTTP_PROXY", proxy)
    monkeypatch.delenv("NO_PROXY")
    monkeypatch.setenv("no_proxy", "")
    with pytest.raises(BubblehousePermanentError, match=r"check the API host .* and the proxy") as caught:
        call(connection_to(sandbox), UPDATE_CUSTOMERS, BODY)
    assert "secret" not in str(caught.value)


def test_missing_certificates_are_a_permanent_error(sandbox, monkeypatch):
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", "/nowhere/certificates.pem")
    with pytest.raises(BubblehousePermanentError, match="certificate settings"):
        call_with_requests(connection_to(sandbox, host="https://127.0.0.1:1"), UPDATE_CUSTOMERS, BODY)


def test_a_server_without_tls_is_named_as_the_cause(sandbox, call):
    """This is what happens if the host of the sandbox is entered without http://."""
    with pytest.raises(BubblehouseTransientError) as caught:
        call(connection_to(sandbox, host=sandbox.url.removeprefix("http://")), "Status2", b"{}")
    assert "the server does not speak TLS. If it is the sandbox, write http:// before the API host" in str(caught.value)


@pytest.mark.parametrize("fault", ["401", "400", "503", "cut"])
def test_the_sandbox_is_named_in_its_errors(sandbox, call, fault):
    sandbox.script(fault)
    with pytest.raises(BubblehouseError, match=r"^The Bubblehouse sandbox answered Status2 with status \d+"):
        call(connection_to(sandbox), "Status2", b"{}")


def test_a_client_that_is_aborted_while_it_connects_sends_nothing(sandbox, monkeypatch):
    begun, go_on = threading.Event(), threading.Event()

    def connect_slowly(*args, **kwargs):
        begun.set()
        go_on.wait()
        return create_connection(*args, **kwargs)

    create_connection = urllib3.util.connection.create_connection
    monkeypatch.setattr(urllib3.util.connection, "create_connection", connect_slowly)
    with Client(connection_to(sandbox)) as client, ThreadPoolExecutor() as pool:
        calling = pool.submit(client.call, UPDATE_CUSTOMERS, BODY)
        begun.wait()
        client.abort()
        go_on.set()
        with pytest.raises(BubblehouseTransientError, match="ConnectionAbortedError"):
            calling.result()
    assert sandbox.calls == []


def test_the_read_timeout_applies_to_the_sending_of_a_body(sandbox, monkeypatch):
    def send_watched(self, data):
        send(self, data)
        seen.append((len(data), self.sock.gettimeout()))

    seen, send = [], http.client.HTTPConnection.send
    monkeypatch.setattr(http.client.HTTPConnection, "send", send_watched)
    call_with_requests(connection_to(sandbox, extra={"timeout": 77}), UPDATE_CUSTOMERS, BODY)
    assert seen[-1] == (len(BODY), 77)
