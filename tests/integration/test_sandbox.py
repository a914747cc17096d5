"""The sandbox over real sockets: its answers, what it records, and its faults, with those of the tests."""

from __future__ import annotations

import base64
import html
import json
import os
import re
import shlex
import signal
import socket
import struct
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import jwt
import pytest
import requests
from faulty_sandbox import Sandbox

from airflow_provider_bubblehouse import sandbox as package
from airflow_provider_bubblehouse.sandbox.faults import parse_fault

ROOT = Path(__file__).parents[2]
ROW = {"id": "1", "email": "jane@example.com", "first_name": "Jane"}


@pytest.fixture(scope="module")
def shared():
    with Sandbox() as sandbox:
        yield sandbox


@pytest.fixture
def sandbox(shared):
    shared.clear()
    return shared


@pytest.fixture
def http():
    with requests.Session() as session:
        session.trust_env = False
        yield session


@pytest.fixture
def call(sandbox, http):
    """Return what posts a call: the function, the payload, and what is to be different."""

    def post(function="UpdateCustomers3", payload=None, *, token=None, version="v20230601", shop=None, **kwargs):
        headers = {"Authorization": f"Bearer {sandbox.token if token is None else token}"}
        url = f"{sandbox.url}/api/{version}/{shop or sandbox.shop}/{function}"
        payload = {"customers": [ROW]} if payload is None else payload
        kwargs = {"json": payload, "headers": headers, "allow_redirects": False, "timeout": 10} | kwargs
        return http.post(url, **kwargs)

    return post


@pytest.fixture
def push(call):
    return lambda *rows, **options: call(payload={"customers": list(rows), **options})


@pytest.fixture
def details(call):
    return lambda **identity: call("CustomerDetails1", {"customer": identity})


def error_id(response) -> str:
    return response.json()["id"]


def wait_for(condition) -> None:
    deadline = time.monotonic() + 10
    while not condition():
        assert time.monotonic() < deadline, "The condition was not met within 10 s."
        time.sleep(0.005)


# Calls


def test_customers_are_accepted_and_stored_unchanged(sandbox, push, details):
    row = {
        "id": "1",
        "email": "Jane@Example.com",
        "last_name": "Ünal 😀 \u0000",
        "deleted": False,
        "tags": [],
        "extras": {"amount": 1.5, "big": 123456789012345678901234567890, "none": None, "nested": [{"": [1]}]},
    }
    response = push(row)
    assert (response.status_code, response.json()) == (200, {"ok": True})
    assert sandbox.customers() == [row]
    answer = details(shopid="1").json()
    assert len(answer.pop("bh_id")) == 16
    assert answer == row


def test_a_call_is_recorded_without_its_token(sandbox, push):
    push({"id": "1"}, {"email": "A@example.com"}, debug=True)
    (call,) = sandbox.calls
    assert (call.method, call.version, call.shop, call.function) == (
        "POST",
        "v20230601",
        "demo-shop",
        "UpdateCustomers3",
    )
    assert (call.status, call.fault, call.rows, call.processed, call.debug, call.authorized) == (
        200,
        None,
        2,
        True,
        True,
        True,
    )
    assert call.customers == [{"id": "1"}, {"email": "A@example.com"}]
    assert call.headers["user-agent"].startswith("python-requests")
    assert "authorization" not in call.headers
    assert sandbox.token not in repr(call)


@pytest.mark.parametrize("version", ["v20230601", "v2023061"])
def test_both_documented_global_versions_are_accepted(call, version):
    assert call(version=version).status_code == 200


def test_another_global_version_is_refused(call):
    response = call(version="v19990101")
    assert (response.status_code, error_id(response)) == (400, "invalid_global_api_version")


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda s: s.mint(exp=1), "it has expired"),
        (lambda s: s.mint(iat=int(time.time()) + 600), "from the future"),
        (lambda s: s.mint(sub="other-shop"), "must be of the shop demo-shop"),
        (lambda s: s.mint(sub="demo-shop/1234"), "must be of the shop demo-shop"),
        (lambda s: s.mint(sub=None), "must be of the shop demo-shop"),
        (lambda s: s.mint(aud="other"), "aud"),
        (lambda s: s.mint(aud=None), "not a valid JWT"),
        (lambda s: s.mint(kid="other"), "kid"),
        (lambda s: jwt.encode({"aud": "BH", "sub": s.shop}, secret(s), "HS256"), "kid"),
        (lambda s: signed(s, "x" * 64, "HS256"), "another secret"),
        (lambda s: signed(s, s.shared_secret, "HS256"), "another secret"),
        (lambda s: signed(s, secret(s) * 2, "HS512"), "not a valid JWT"),
        (lambda s: signed(s, "", "none"), "not a valid JWT"),
        (lambda _: "no-token", "not a valid JWT"),
        (lambda _: "", "no bearer token"),
    ],
)
@pytest.mark.parametrize("function", ["UpdateCustomers3", "Status2"])
def test_a_wrong_token_is_refused_with_the_reason_and_the_sandboxs_name(sandbox, call, function, make, message):
    response = call(function, token=make(sandbox))
    assert (response.status_code, error_id(response)) == (401, "invalid_token")
    assert response.json()["message"].startswith("The Bubblehouse sandbox does not accept the token: ")
    assert message in response.json()["message"]
    assert response.headers["Server"] == "Bubblehouse-Sandbox"
    assert sandbox.customers() == []
    assert not sandbox.calls[0].processed


def secret(sandbox) -> bytes:
    return base64.b64decode(sandbox.shared_secret)


def signed(sandbox, key, algorithm: str) -> str:
    return jwt.encode({"aud": "BH", "sub": sandbox.shop}, key, algorithm, headers={"kid": sandbox.key_id})


def test_a_token_that_has_not_expired_is_accepted(sandbox, call):
    now = int(time.time())
    assert call(token=sandbox.mint(iat=now - 5, exp=now + 60)).status_code == 200


def test_a_token_is_refused_at_the_url_of_another_shop(call):
    assert call(shop="other-shop").status_code == 401


@pytest.mark.parametrize(
    ("function", "status"), [("Status2", 200), ("UpdateCustomers3", 401), ("CustomerDetails1", 401)]
)
def test_only_the_status_needs_no_token(sandbox, call, function, status):
    assert call(function, headers={}).status_code == status
    assert not sandbox.calls[0].authorized


@pytest.mark.parametrize("body", [b"", b"{", b"\xff", b"[" * 100_000, b"NaN", b"[]", b"{}", b'{"customers": {}}'])
def test_a_body_without_a_customers_array_is_refused_with_a_json_error(sandbox, call, body):
    response = call(json=None, data=body)
    assert response.status_code == 400
    assert set(response.json()) == {"id", "message"}
    assert sandbox.calls[0].rows == 0


def test_an_unknown_function_and_another_method_are_refused_and_recorded(sandbox, call, http):
    assert call("UpdateCustomers9").status_code == 404
    response = http.get(f"{sandbox.url}/api/v20230601/demo-shop/UpdateCustomers3")
    assert (response.status_code, error_id(response)) == (405, "method_not_allowed")
    assert http.post(f"{sandbox.url}/api/other").status_code == 404
    assert [call.method for call in sandbox.calls] == ["POST", "GET", "POST"]


def test_calls_can_be_selected_by_function(sandbox, call):
    call("Status2")
    call()
    assert [call.number for call in sandbox.calls_of("UpdateCustomers3")] == [sandbox.calls[1].number]


# Rows


@pytest.mark.parametrize(
    ("pushed", "expected"),
    [
        ([{"id": "1", "phone": "5"}, {"id": "1", "first_name": "J"}], [{"id": "1", "phone": "5", "first_name": "J"}]),
        ([{"id": "1", "phone": "5"}, {"id": "1", "phone": None}], [{"id": "1", "phone": None}]),
        ([{"email": "A@b.c"}, {"email": "a@B.C", "phone": "5"}], [{"email": "a@B.C", "phone": "5"}]),
        ([{"email": "A@b.c"}, {"id": "1", "email": "a@b.c"}], [{"id": "1", "email": "a@b.c"}]),
        (
            [{"id": "1", "email": "a@b.c"}, {"email": "a@b.c", "phone": "5"}],
            [{"id": "1", "email": "a@b.c", "phone": "5"}],
        ),
        ([{"id": "1", "email": "a@b.c"}, {"id": "2", "email": "a@b.c"}], [{"id": i, "email": "a@b.c"} for i in "12"]),
        ([{"id": "1", "email": "a@b.c"}, {"id": "", "email": "a@b.c"}], [{"id": "1", "email": "a@b.c"}]),
        ([{"id": "1", "phone": "5"}, {"id": "1", "deleted": True}], [{"id": "1", "phone": "5", "deleted": True}]),
        ([{"id": "1", "phone": "5"}, {"id": "1", "deleted": True}, {"id": "1"}], [{"id": "1"}]),
    ],
)
@pytest.mark.parametrize("in_one_call", [True, False])
def test_rows_are_matched_and_merged(sandbox, push, pushed, expected, in_one_call):
    for rows in [pushed] if in_one_call else [[row] for row in pushed]:
        push(*rows)
    assert sandbox.customers() == expected


def test_the_same_push_twice_changes_nothing(sandbox, push):
    push(ROW)
    push(ROW)
    assert sandbox.customers() == [ROW]


@pytest.mark.parametrize("bad", [5, None, {}, {"id": 1}, {"id": "", "email": None}, {"id": "9", "deleted": "yes"}])
def test_a_row_that_cannot_be_processed_is_reported_and_the_others_are_processed(sandbox, push, http, bad):
    assert push({"id": "1"}, bad, {"id": "2"}).json() == {"ok": True}
    assert [customer["id"] for customer in sandbox.customers()] == ["1", "2"]
    page = http.get(sandbox.url).text
    assert "1 row not processed" in page
    assert re.search(r"Call \d+, row 2 ", page)


@pytest.mark.parametrize("bad", [{"id": "9", "nickname": "x"}, {"first_name": "nobody"}])
def test_debug_fails_on_a_warning_and_still_processes_every_row(sandbox, push, bad):
    response = push({"id": "1"}, bad, {"id": "2"}, debug=True)
    assert response.status_code == 400
    assert "row 2 " in response.json()["message"]
    assert {"1", "2"} <= {customer["id"] for customer in sandbox.customers()}
    assert sandbox.calls[0].processed
    assert push({"id": "1"}, bad).status_code == 200


def test_with_a_lag_customers_are_accepted_now_and_processed_later(http):
    with Sandbox(lag=0.2) as sandbox:
        url = f"{sandbox.url}/api/v20230601/demo-shop/UpdateCustomers3"
        headers = {"Authorization": f"Bearer {sandbox.token}"}
        begun = time.monotonic()
        assert http.post(url, json={"customers": [{"id": "1"}]}, headers=headers).json() == {"ok": True}
        http.post(url, json={"customers": [{"id": "2"}], "debug": True}, headers=headers)
        at_once = sandbox.customers()
        assert at_once == [{"id": "2"}] or time.monotonic() - begun > 0.2
        wait_for(lambda: len(sandbox.customers()) == 2)
        assert time.monotonic() - begun >= 0.2


def test_rows_of_parallel_callers_all_arrive_and_each_callers_in_order(sandbox):
    def lane(number: int) -> None:
        with httpx.Client(trust_env=False, headers={"Authorization": f"Bearer {sandbox.token}"}) as client:
            for step in range(10):
                rows = [{"id": f"{number}-{row}", "phone": str(step)} for row in range(100)]
                url = f"{sandbox.url}/api/v20230601/demo-shop/UpdateCustomers3"
                assert client.post(url, json={"customers": rows}).status_code == 200

    with ThreadPoolExecutor(8) as lanes:
        list(lanes.map(lane, range(8)))
    assert len(sandbox.calls) == 80
    assert [customer["phone"] for customer in sandbox.customers()] == ["9"] * 800


# Reading customers


@pytest.mark.parametrize(
    ("identity", "found"),
    [
        ({"shopid": "1"}, "1"),
        ({"email": "JANE@example.com"}, "1"),
        ({"shopid": "1", "email": "jane@example.com"}, "1"),
        ({"shopid": "2", "email": "anything@example.com"}, "2"),
        ({}, "empty_customer_identity"),
        ({"shopid": ""}, "empty_customer_identity"),
        ({"shopid": "9"}, "no_customers_match_customer_identity"),
        ({"bhid": "x"}, "no_customers_match_customer_identity"),
        ({"shopid": "3"}, "no_customers_match_customer_identity"),
        ({"shopid": "1", "email": "x@example.com"}, "customer_identity_partially_mismatches_matched_customer"),
        ({"shopid": "9", "email": "jane@example.com"}, "customer_identity_partially_mismatches_matched_customer"),
    ],
)
def test_a_customer_is_found_by_a_matching_identity_only(push, details, identity, found):
    push(ROW, {"id": "2"}, {"id": "3", "deleted": True})
    response = details(**identity)
    assert response.json()["id"] == found
    assert response.status_code == (200 if found in ("1", "2") else 404)


def test_a_customer_is_found_by_its_bubblehouse_id(push, details):
    push(ROW, {"id": "2"})
    bh_id = details(shopid="2").json()["bh_id"]
    assert details(bhid=bh_id).json() == {"id": "2", "bh_id": bh_id}


def test_a_call_without_an_identity_is_refused(call):
    response = call("CustomerDetails1", {})
    assert (response.status_code, error_id(response)) == (400, "missing_customer_identity")


# Faults


@pytest.mark.parametrize(
    ("fault", "status", "body", "processed"),
    [
        ("ok", 200, {"ok": True}, True),
        ("500", 500, "<h1>500</h1>", False),
        ("503", 503, "<h1>503</h1>", False),
        ("503,processed", 503, "<h1>503</h1>", True),
        ("520", 520, "<h1>520</h1>", False),
        ("503:overloaded", 503, "overloaded", False),
        ("400", 400, "sandbox_fault", True),
        ("422:bad_data", 422, "bad_data", True),
        ("400:obsolete_global_api_version", 400, "obsolete_global_api_version", False),
        ("400:inaccessible_global_api_version", 400, "inaccessible_global_api_version", False),
        ("401", 401, "invalid_token", False),
        ("403", 403, "sandbox_fault", False),
        ("429:rate_limit_exceeded", 429, "rate_limit_exceeded", False),
        ("html", 200, "<html>", False),
        ("html=413", 413, "<h1>413</h1>", False),
        ("empty", 200, "", False),
        ("empty=400", 400, "", False),
        ('json={"ok": false}', 200, {"ok": False}, False),
        ('json={"a": [1, 2]},processed', 200, {"a": [1, 2]}, True),
        ("json=[1]", 200, [1], False),
        ("202", 202, {"ok": True}, False),
        ("204", 204, "", False),
        ("302", 302, "", False),
        ("304", 304, "", False),
        ("405", 405, "sandbox_fault", False),
    ],
)
def test_an_ordered_fault_is_answered_once(sandbox, call, fault, status, body, processed):
    sandbox.script(fault)
    response = call()
    assert response.status_code == status
    if isinstance(body, str) and body and not body[0].isdigit() and not body.startswith("<"):
        assert error_id(response) == body
    elif isinstance(body, str):
        assert body in response.text
        assert bool(body) == bool(response.text)
    else:
        assert response.json() == body
    assert sandbox.customers() == ([ROW] if processed else [])
    (recorded,) = sandbox.calls
    assert (recorded.status, recorded.fault, recorded.processed) == (status, fault, processed)
    assert (recorded.rows, recorded.customers) == (1, [ROW])
    assert call().json() == {"ok": True}


@pytest.mark.parametrize("client", [requests, httpx], ids=["requests", "httpx"])
@pytest.mark.parametrize("processed", [False, True])
def test_a_reset_is_seen_as_one_and_recorded(sandbox, client, processed):
    sandbox.script("reset,processed" if processed else "reset")
    url = f"{sandbox.url}/api/v20230601/demo-shop/UpdateCustomers3"
    with pytest.raises((requests.ConnectionError, httpx.ReadError)) as caught:
        client.post(url, json={"customers": [ROW]}, headers={"Authorization": f"Bearer {sandbox.token}"})
    assert "reset by peer" in str(root(caught.value))
    assert [(call.status, call.rows, call.processed) for call in sandbox.calls] == [("reset", 1, processed)]
    assert sandbox.customers() == ([ROW] if processed else [])


def root(error: BaseException) -> BaseException:
    while error.__cause__ or error.__context__:
        error = error.__cause__ or error.__context__
    return error


@pytest.mark.parametrize(("fault", "status"), [("cut", 200), ("cut=400", 400), ("cut=503", 503), ("cut=302", 302)])
def test_a_cut_answer_has_its_status_and_less_than_its_length(sandbox, call, fault, status):
    sandbox.script(fault)
    response = call(stream=True)
    assert response.status_code == status
    with pytest.raises(requests.exceptions.ChunkedEncodingError, match="IncompleteRead"):
        _ = response.content
    assert sandbox.calls[0].status == "cut"


def test_a_followed_redirect_is_recorded_as_a_call(sandbox, call):
    sandbox.script("redirect")
    assert call().status_code == 302
    assert len(sandbox.calls) == 1
    sandbox.script("redirect=307")
    call(allow_redirects=True)
    assert [call.function for call in sandbox.calls][1:] == ["UpdateCustomers3", "Redirected1"]


@pytest.mark.parametrize("value", ["2", "Wed, 21 Oct 2015 07:28:00 GMT"])
@pytest.mark.parametrize("status", ["429", "503"])
def test_retry_after_is_sent_as_it_was_ordered(sandbox, call, status, value):
    sandbox.script(f"{status},retry_after={value},processed")
    response = call()
    assert response.headers["Retry-After"] == value
    assert sandbox.customers() == [ROW]


def test_a_message_may_hold_commas(sandbox, call):
    sandbox.script("400:bad_data,message=Row one, of two, is odd")
    assert call().json() == {"id": "bad_data", "message": "Row one, of two, is odd"}


def test_a_delay_comes_before_the_answer(sandbox, call):
    sandbox.script("503,delay=0.2")
    assert call().elapsed.total_seconds() >= 0.2


@pytest.mark.parametrize(("fault", "processed"), [("delay=60", True), ("503,delay=60", False)])
def test_a_client_that_disconnects_ends_the_delay(sandbox, call, fault, processed):
    sandbox.script(fault)
    with pytest.raises(requests.Timeout):
        call(timeout=0.1)
    wait_for(lambda: sandbox.calls[0].status == "gone")
    assert sandbox.customers() == ([ROW] if processed else [])


def test_a_call_is_recorded_before_it_is_answered_or_even_whole(sandbox):
    head = b"POST /api/v20230601/demo-shop/UpdateCustomers3 HTTP/1.1\r\nHost: x\r\nContent-Length: 99\r\n\r\nhalf"
    with socket.create_connection(("127.0.0.1", int(sandbox.url.rpartition(":")[2]))) as client:
        client.sendall(head)
        wait_for(lambda: sandbox.calls)
        assert sandbox.calls[0].status is None
    wait_for(lambda: sandbox.calls[0].status == "gone")


def test_the_script_is_followed_in_order_and_passes_over_faults_for_other_functions(sandbox, call):
    sandbox.script("500,for=CustomerDetails1", "501", "502")
    assert [call().status_code for _ in range(3)] == [501, 502, 200]
    assert [call("CustomerDetails1", {"customer": {"shopid": "1"}}).status_code for _ in range(2)] == [500, 200]


def test_rates_give_the_same_faults_for_the_same_seed(sandbox, call):
    def statuses() -> list[int]:
        sandbox.rates({"503": 0.3, "429:rate_limit_exceeded": 0.3}, seed=7)
        return [call("Status2").status_code for _ in range(60)]

    first = statuses()
    assert first == statuses()
    assert all(5 <= first.count(status) <= 35 for status in (200, 429, 503))


def test_the_script_comes_before_the_rates(sandbox, call):
    sandbox.rates({"503": 1.0})
    sandbox.script("400")
    assert [call().status_code for _ in range(2)] == [400, 503]
    sandbox.rates({})
    assert call().status_code == 200


@pytest.mark.parametrize(
    "spelling",
    [
        "",
        "nonsense",
        "status",
        "99",
        "199",
        "600",
        "ok=200",
        "reset=1",
        "json",
        "html",
        "json={}",
        "200",
        "204",
        "503,often",
        "503,delay=soon",
        "503,delay=-1",
        "503,retry_after=\r\nX: y",
        "503,retry_after=",
        "ok,retry_after=5",
        "reset,message=x",
    ],
)
def test_a_misspelled_fault_is_refused_and_no_fault_is_set(spelling):
    with package.Sandbox() as sandbox:
        with pytest.raises(ValueError, match="is not a fault"):
            sandbox.script("503", spelling)
        with pytest.raises(ValueError, match="is not a fault"):
            sandbox.rates({spelling: 1.0})
        assert requests.post(f"{sandbox.url}/api/v20230601/demo-shop/Status2", timeout=10).status_code == 200


@pytest.mark.parametrize("rates", [{"503": 1.1}, {"503": -0.1}, {"503": 0.6, "500": 0.6}, {"503": float("nan")}])
def test_impossible_probabilities_are_refused(sandbox, rates):
    with pytest.raises(ValueError, match="probabilities"):
        sandbox.rates(rates)


def test_a_fault_knows_how_it_was_ordered():
    fault = parse_fault(" 503 , processed, delay=0.5,retry_after=Wed, 21 Oct 2015 07:28:00 GMT")
    assert (fault.response.status_code, fault.processed, fault.delay) == (503, True, 0.5)
    assert fault.response.headers["Retry-After"] == "Wed, 21 Oct 2015 07:28:00 GMT"


# Control and start page


def test_another_process_can_order_faults_read_and_reset(sandbox, call, http):
    order = {"script": ["502"], "rates": {"503": 1}, "seed": 1}
    assert http.post(f"{sandbox.url}/sandbox/faults", json=order).json() == {"ok": True}
    assert [call().status_code for _ in range(2)] == [502, 503]
    assert http.post(f"{sandbox.url}/sandbox/faults", json={"rates": {}}).ok
    call()
    assert [seen["status"] for seen in http.get(f"{sandbox.url}/sandbox/calls").json()] == [502, 503, 200]
    assert http.get(f"{sandbox.url}/sandbox/customers").json() == [ROW]
    assert http.post(f"{sandbox.url}/sandbox/reset").ok
    assert (sandbox.calls, sandbox.customers()) == ([], [])
    assert len(http.get(f"{sandbox.url}/sandbox/calls").json()) == 0


@pytest.mark.parametrize("order", [[], {"script": ["x"]}, {"scripts": []}, {"rates": {"503": 2}}, {"script": "503"}])
def test_an_impossible_order_is_refused(sandbox, http, order):
    response = http.post(f"{sandbox.url}/sandbox/faults", json=order)
    assert response.status_code == 400
    assert response.json()["message"]


def test_clearing_drops_faults_too(sandbox, call):
    sandbox.script("503")
    sandbox.rates({"500": 1.0})
    sandbox.clear()
    assert call().status_code == 200


def test_the_start_page_shows_what_arrived_newest_first_and_escaped(sandbox, push, http):
    push({"id": "1", "first_name": "<script>alert(1)</script>", "last_name": "&"}, {"id": "2", "extras": {"a": "<b>"}})
    push({"id": "3", "full_name": "Full Name", "first_name": "unused"}, {"id": "2", "deleted": True})
    response = http.get(sandbox.url)
    page = response.text
    assert response.headers["Content-Type"].startswith("text/html")
    assert "2 customers, 1 deleted, 2 calls, 0 refused, 0 rows not processed." in page
    assert "&lt;script&gt;alert(1)&lt;/script&gt; &amp;" in page
    assert "<script" not in page
    assert "{&quot;a&quot;:&quot;&lt;b&gt;&quot;}" in page
    places = [page.index(f'<td class="id">{number}</td>') for number in "231"]
    assert places == sorted(places)
    assert "unused" not in page


def test_the_start_page_shows_a_limited_number_of_customers(sandbox, push, http):
    push(*({"id": str(number)} for number in range(600)))
    page = http.get(sandbox.url).text
    assert "600 customers" in page
    assert "100 more not shown" in page
    assert page.count('<td class="id">') == 500


def test_another_host_name_for_this_machine_shows_no_customers(sandbox, http):
    for path in ("/", "/sandbox/customers"):
        assert http.get(sandbox.url + path, headers={"Host": "evil.example.com"}).status_code == 400


# Starting and stopping


def test_a_connection_has_the_fields_that_airflow_needs(sandbox):
    assert json.loads(sandbox.connection()) == {
        "conn_type": "bubblehouse",
        "host": sandbox.url,
        "login": "demo-shop",
        "password": sandbox.token,
        "extra": {},
    }
    changed = json.loads(sandbox.connection(password="", extra={"allow_debug": True}))
    assert (changed["password"], changed["extra"]) == ("", {"allow_debug": True})


def test_a_connection_stays_valid_when_the_sandbox_restarts(sandbox):
    with package.Sandbox() as other:
        assert (other.token, other.shared_secret) == (sandbox.token, sandbox.shared_secret)
        assert other.url != sandbox.url
    claims = jwt.decode(package.Sandbox(shop="my-shop").token, secret(sandbox), ["HS256"], audience="BH")
    assert claims == {"aud": "BH", "sub": "my-shop"}


def test_the_empty_page_says_what_to_do_next_and_how_to_fill_in_the_form(sandbox, call, http):
    host, _, port = sandbox.url.rpartition(":")
    page = http.get(sandbox.url).text
    assert "Nothing has arrived yet." in page
    form = {"API host": host, "Port": port, "Shop slug": "demo-shop", "Shop token": sandbox.token}
    for label, value in form.items():
        assert f"<tr><th>{label}</th><td><code>{value}</code></td></tr>" in page
    command = html.unescape(page.partition("<code>export ")[2].partition("</code>")[0])
    assert json.loads(shlex.split(command)[0].partition("=")[2]) == json.loads(sandbox.connection())
    call()
    assert "Nothing has arrived yet." not in http.get(sandbox.url).text


def test_the_page_shows_refused_calls_with_the_reason(sandbox, call, http):
    sandbox.script("503,retry_after=5", "reset")
    call()
    with pytest.raises(requests.ConnectionError):
        call()
    call(token=sandbox.mint(exp=1))
    call()
    page = http.get(sandbox.url).text
    assert "4 calls, 3 refused" in page
    answers = re.findall(r'<td class="answer">(.*?)</td>', page)
    assert answers == [
        "401 (invalid_token: The Bubblehouse sandbox does not accept the token: it has expired)",
        "reset (fault: reset)",
        "503 (fault: 503,retry_after=5)",
    ]


def test_bodies_are_stored_only_on_request(http):
    with Sandbox(keep_bodies=False) as sandbox:
        url = f"{sandbox.url}/api/v20230601/demo-shop/UpdateCustomers3"
        http.post(url, json={"customers": [ROW]}, headers={"Authorization": f"Bearer {sandbox.token}"})
        assert (sandbox.calls[0].rows, sandbox.calls[0].customers) == (1, [])


def test_it_stops_at_once_while_calls_are_delayed_and_connections_idle(http):
    failures = []

    def wait_long(url: str) -> None:
        try:
            requests.post(url, timeout=30)
        except requests.ConnectionError as error:
            failures.append(error)

    with Sandbox() as sandbox:
        http.get(sandbox.url)
        sandbox.script("delay=60")
        client = threading.Thread(target=wait_long, args=(f"{sandbox.url}/api/v20230601/demo-shop/Status2",))
        client.start()
        wait_for(lambda: sandbox.calls)
        begun = time.monotonic()
    assert time.monotonic() - begun < 2
    client.join()
    assert len(failures) == 1
    with pytest.raises(requests.ConnectionError):
        requests.get(sandbox.url, timeout=5)


# The command line


def command(*arguments: str, **environment: str) -> subprocess.Popen:
    return subprocess.Popen(
        [sys.executable, "-m", "airflow_provider_bubblehouse.sandbox", *arguments],
        env=os.environ | {"PYTHONPATH": str(ROOT)} | environment,
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_the_command_prints_a_connection_to_paste_serves_and_ends_cleanly(http, number):
    process = command(
        *("--port", "0", "--shop", "my-shop", "--rate", "400:bad=1", "--seed", "1"),
        *("--script", "503,retry_after=2", "ok"),
    )
    try:
        url = process.stdout.readline().split()[-1]
        word, assignment = shlex.split(process.stdout.readline())
        hint = process.stdout.readline() + process.stdout.readline()
        assert f"open {url} for its values" in hint
        name, _, value = assignment.partition("=")
        connection = json.loads(value)
        assert (word, name) == ("export", "AIRFLOW_CONN_BUBBLEHOUSE_DEFAULT")
        assert (connection["host"], connection["login"]) == (url, "my-shop")
        headers = {"Authorization": f"Bearer {connection['password']}"}
        target = f"{url}/api/v20230601/my-shop/UpdateCustomers3"
        answers = [http.post(target, json={"customers": [ROW]}, headers=headers, stream=True) for _ in range(3)]
        assert [answer.status_code for answer in answers] == [503, 200, 400]
    finally:
        process.send_signal(number)
        output, errors = process.communicate(timeout=20)
    assert (process.returncode, output, errors) == (0, "", "")


def test_a_port_in_use_is_reported_in_one_line():
    with socket.create_server(("127.0.0.1", 0)) as other:
        process = command("--port", str(other.getsockname()[1]))
        output, errors = process.communicate(timeout=20)
    assert (process.returncode, output) == (1, "")
    assert "is in use" in errors
    assert errors.count("\n") == 1


def test_a_missing_extra_is_reported_in_one_line(tmp_path):
    (tmp_path / "starlette.py").write_text("raise ModuleNotFoundError(name='starlette')")
    process = command(PYTHONPATH=f"{tmp_path}:{ROOT}")
    output, errors = process.communicate(timeout=20)
    assert (process.returncode, output) == (1, "")
    assert "pip install 'airflow-provider-bubblehouse[sandbox]'" in errors
    assert errors.count("\n") == 1


@pytest.mark.parametrize(
    "arguments",
    [
        ("--script", "nonsense"),
        ("--rate", "503"),
        ("--rate", "503=2"),
        ("--lag", "-1"),
        ("--port", "70000"),
        ("--host", "0.0.0.0"),
    ],
)
def test_a_wrong_argument_is_refused(capsys, arguments):
    from airflow_provider_bubblehouse.sandbox.__main__ import main

    handlers = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)]
    try:
        with pytest.raises(SystemExit) as ended:
            main(arguments)
    finally:
        for number, handler in zip((signal.SIGINT, signal.SIGTERM), handlers, strict=True):
            signal.signal(number, handler)
    assert ended.value.code == 2
    assert "error:" in capsys.readouterr().err


def test_the_sandbox_does_not_import_airflow():
    program = (
        "import sys; from airflow_provider_bubblehouse.sandbox import Sandbox; Sandbox(); "
        "sys.exit(any(name == 'airflow' or name.startswith('airflow.') for name in sys.modules))"
    )
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    assert subprocess.run([sys.executable, "-c", program], env=environment, check=False).returncode == 0


def test_the_sandbox_survives_a_client_that_resets_its_connection(sandbox, call):
    sandbox.script("delay=60")
    with socket.create_connection(("127.0.0.1", int(sandbox.url.rpartition(":")[2]))) as client:
        client.sendall(b"POST /api/v20230601/demo-shop/Status2 HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n")
        wait_for(lambda: sandbox.calls)
        client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    wait_for(lambda: sandbox.calls[0].status == "gone")
    assert call().status_code == 200
