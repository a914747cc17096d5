"""The error classifier: every row of the retry contract that a single answer decides."""

from __future__ import annotations

import pickle
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime

import pytest

from airflow_provider_bubblehouse.airflow_compat import AirflowException, AirflowFailException
from airflow_provider_bubblehouse.api.classifier import Answer, classify, parse_retry_after
from airflow_provider_bubblehouse.exceptions import (
    BubblehousePermanentError,
    BubblehouseRateLimitError,
    BubblehouseRejectedError,
    BubblehouseTransientError,
)

ERROR_JSON = b'{"id": "bad_customers", "message": "jane@example.com is wrong"}'
HTML = b"<html>Bad</html>"


def answer(status: int | None, body: bytes = b"", function: str = "UpdateCustomers3", **kwargs) -> Answer:
    return Answer(function=function, status=status, body=body, **kwargs)


@pytest.mark.parametrize(
    ("given", "kind"),
    [
        (answer(200, b'{"ok": true}'), None),
        (answer(200, b' {"ok": true, "new": [1]}\n'), None),
        (answer(200, b"{}", "Status2"), None),
        (answer(200, b"{}"), BubblehousePermanentError),
        (answer(200, b'{"ok": false}'), BubblehousePermanentError),
        (answer(200, b'{"ok": 1}'), BubblehousePermanentError),
        (answer(200, b"[]", "Status2"), BubblehousePermanentError),
        (answer(200, b"", "Status2"), BubblehousePermanentError),
        (answer(200, HTML), BubblehousePermanentError),
        (answer(200, b'{"ok": tr', fault=ConnectionResetError()), BubblehouseTransientError),
        (answer(201, b'{"ok": true}'), BubblehousePermanentError),
        (answer(202, b'{"ok": true}'), BubblehousePermanentError),
        (answer(204), BubblehousePermanentError),
        (answer(301), BubblehousePermanentError),
        (answer(302), BubblehousePermanentError),
        (answer(400, ERROR_JSON), BubblehouseRejectedError),
        (answer(422, ERROR_JSON), BubblehouseRejectedError),
        (answer(400, HTML), BubblehousePermanentError),
        (answer(422, b""), BubblehousePermanentError),
        (answer(400, ERROR_JSON[:9], fault=ConnectionResetError()), BubblehousePermanentError),
        (answer(400, b'{"id": "invalid_global_api_version"}'), BubblehousePermanentError),
        (answer(400, b'{"id": "obsolete_global_api_version"}'), BubblehousePermanentError),
        (answer(400, b'{"id": "inaccessible_global_api_version"}'), BubblehousePermanentError),
        (answer(401, b'{"id": "invalid_token"}'), BubblehousePermanentError),
        (answer(403, ERROR_JSON), BubblehousePermanentError),
        (answer(404, ERROR_JSON), BubblehousePermanentError),
        (answer(405), BubblehousePermanentError),
        (answer(408), BubblehousePermanentError),
        (answer(413, HTML), BubblehousePermanentError),
        (answer(429, b'{"id": "rate_limit_exceeded"}'), BubblehouseRateLimitError),
        (answer(429, HTML), BubblehousePermanentError),
        (answer(500), BubblehouseTransientError),
        (answer(502, HTML), BubblehouseTransientError),
        (answer(503, ERROR_JSON), BubblehouseTransientError),
        (answer(504, fault=TimeoutError()), BubblehouseTransientError),
        (answer(599), BubblehouseTransientError),
        (answer(None, fault=ConnectionRefusedError()), BubblehouseTransientError),
        (answer(None, fault=TimeoutError()), BubblehouseTransientError),
    ],
    ids=lambda value: f"{value.function}-{value.status}-{value.body[:24]!r}" if isinstance(value, Answer) else None,
)
def test_an_answer_means_exactly_one_class(given, kind):
    assert type(classify(given)) is (kind or type(None))


def test_only_permanent_errors_stop_airflow_retrying():
    assert issubclass(BubblehousePermanentError, AirflowFailException)
    assert issubclass(BubblehouseRejectedError, BubblehousePermanentError)
    assert issubclass(BubblehouseRateLimitError, BubblehousePermanentError)
    assert not issubclass(BubblehouseTransientError, AirflowException)


def test_an_error_carries_the_details_of_the_answer_and_survives_pickling():
    error = classify(answer(429, b'{"id": "rate_limit_exceeded"}', retry_after="7"))
    assert (error.status, error.error_id, error.retry_after, error.attempts) == (429, "rate_limit_exceeded", 7.0, 1)
    assert pickle.loads(pickle.dumps(error)).error_id == "rate_limit_exceeded"


@pytest.mark.parametrize("status", [400, 401, 404, 422, 429, 500, 503])
def test_the_apis_own_message_and_odd_ids_are_not_repeated(status):
    for body in (ERROR_JSON, b'{"id": "jane@example.com"}', b'{"id": "a b"}'):
        text = str(classify(answer(status, body)))
        assert "jane" not in text
        assert "a b" not in text
        assert not text[0].isdigit()


@pytest.mark.parametrize("given", [{"status": None, "fault": TimeoutError()}, {"status": 503}])
def test_only_the_error_of_a_push_asks_to_send_the_rows_again(given):
    said = "The same rows have to be sent again."
    assert said in str(classify(answer(**given)))
    assert said not in str(classify(answer(**given, function="Status2")))


def test_a_network_error_is_chained_and_named_by_its_root():
    root = ConnectionResetError("peer")
    wrapper = OSError("wrapped")
    wrapper.__cause__ = root
    error = classify(answer(None, fault=wrapper))
    assert error.__cause__ is wrapper
    assert "ConnectionResetError" in str(error)


@pytest.mark.parametrize(
    ("header", "seconds"),
    [
        (None, None),
        ("5", 5.0),
        (" 2.5 ", 2.5),
        ("0", 0.0),
        ("-3", None),
        ("soon", None),
        ("nan", None),
        ("9e999", None),
    ],
)
def test_retry_after_in_seconds(header, seconds):
    assert parse_retry_after(header) == seconds


def test_retry_after_as_a_date_counts_from_now_and_is_never_negative():
    now = datetime.now(UTC)
    later = parse_retry_after(format_datetime(now + timedelta(hours=1), usegmt=True))
    assert 3500 < later <= 3600
    assert parse_retry_after(format_datetime(now - timedelta(hours=1), usegmt=True)) == 0.0
