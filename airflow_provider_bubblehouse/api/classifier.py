"""
The error classifier: what each response of Bubblehouse means. No other module judges a status.

The API processes every row of a call even if some fail
(https://app.bubblehouse.com/apidocs/apis/order/UpdateCustomers3). Hence the rule of this package: after a 5xx or a
network error the whole batch is sent again; after a 200 or a 4xx no row of it is.
"""

from __future__ import annotations

import math
import re
import ssl
import sys
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import TYPE_CHECKING, Any

import msgspec

from airflow_provider_bubblehouse.api.names import SANDBOX_SERVER
from airflow_provider_bubblehouse.errors import (
    BubblehouseError,
    BubblehouseTransientError,
    PermanentError,
    RateLimitError,
    RejectedError,
)

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

UPDATE_CUSTOMERS = "UpdateCustomers3"

# The documented error ids look like this. Anything else may contain a customer's value and is not logged.
_ERROR_ID = re.compile(r"[A-Za-z0-9_.-]{1,100}")
_CALL_URL = re.compile(r"https?://[^/]+/api/v\d+/[A-Za-z0-9_-]+/(?P<function>[A-Za-z0-9_-]{1,100})/?(?:\?.*)?")
# What OpenSSL says if the server answers a TLS handshake with something else; the words differ between its versions.
_NO_TLS = {"WRONG_VERSION_NUMBER", "RECORD_LAYER_FAILURE", "UNKNOWN_PROTOCOL", "HTTP_REQUEST", "PACKET_LENGTH_TOO_LONG"}

_MEANING_BY_ERROR_ID = {
    "invalid_token": "the token is not accepted; put a current Shop token (password), or Key ID (key_id) and Shared "
    "Secret (shared_secret), into the Airflow connection, and check that they belong to its Shop slug (login)",
    "no_customers_match_customer_identity": "no customer matches this identity",
}
_MEANING_BY_STATUS = {
    401: _MEANING_BY_ERROR_ID["invalid_token"],
    403: "the token does not allow this call; check for which shop and with which rights it was issued",
    404: "there is no such call; check Shop slug (login), API host (host) and API version (api_version) of the Airflow "
    "connection",
    413: "the call is too large; lower batch_size or max_batch_bytes",
    429: "a rate limit, but not in the API's own format; a proxy or firewall between here and Bubblehouse limits the "
    "calls",
}
_OTHER_SERVER = "check that the API host (host) of the Airflow connection is the Bubblehouse API"


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """
    The answer to one call, whichever HTTP library made it.

    :param function: the API's function, such as ``UpdateCustomers3``.
    :param status: the HTTP status; None if the call ended before one arrived.
    :param body: the part of the body that arrived.
    :param retry_after: the ``Retry-After`` header.
    :param fault: the error that prevented the answer or cut its body off.
    :param server: who answered, for messages.
    """

    function: str
    status: int | None
    body: bytes = b""
    retry_after: str | None = None
    fault: Exception | None = None
    server: str = "Bubblehouse"

    def document(self) -> dict[str, Any] | None:
        """Return the JSON object in the body, None if the body is anything else."""
        try:
            document = msgspec.json.decode(self.body)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            return None
        return document if isinstance(document, dict) else None


def server_name(headers: Mapping[str, str], default: str = "Bubblehouse") -> str:
    """
    Return who answered, for messages.

    :param headers: the headers of the answer.
    :param default: the name of any server but the sandbox.
    """
    return "The Bubblehouse sandbox" if headers.get("Server") == SANDBOX_SERVER else default


def classify(answer: Answer) -> BubblehouseError | None:
    """
    Return what an answer means. No other code judges a status.

    :param answer: the answer to a call.
    :return: None for an accepted call, otherwise the error to raise. Only a network error is its ``__cause__``.
    """
    error = _judge(answer)
    if error is not None:
        error.attempts = 1
        error.__cause__ = answer.fault
    return error


def _judge(answer: Answer) -> BubblehouseError | None:
    status = answer.status
    if status is None:
        return BubblehouseTransientError(_no_answer(answer))
    wait = parse_retry_after(answer.retry_after)
    said = f"{answer.server} answered {answer.function} with status {status}"
    if 400 <= status < 500:
        return _judge_refusal(answer, status, said, wait)
    if status >= 500:
        return BubblehouseTransientError(
            f"{said}, an error on its side. {_again(answer)}", status=status, retry_after=wait
        )
    if answer.fault is not None:
        return BubblehouseTransientError(
            f"{said}, but the answer was cut off ({_root(answer.fault)}). {_again(answer)}", status=status
        )
    if status == 200:
        document = answer.document()
        if document is not None and (answer.function != UPDATE_CUSTOMERS or document.get("ok") is True):
            return None
        expected = '{"ok": true}' if answer.function == UPDATE_CUSTOMERS else "a JSON object"
        why = f"but not with {expected}; {_OTHER_SERVER}"
    elif 300 <= status < 400:
        why = f"a redirect, which is never followed; {_OTHER_SERVER}"
    else:
        why = f"which the API does not use; {_OTHER_SERVER}"
    return PermanentError(f"{said}, {why}.", status=status)


def _no_answer(answer: Answer) -> str:
    said = f"{answer.server} gave no answer to {answer.function} ({_root(answer.fault)})"
    root = _root_fault(answer.fault)
    if isinstance(root, ssl.SSLError) and root.reason in _NO_TLS:
        return (
            f"{said}: the server does not speak TLS. If it is the sandbox, write http:// before the API host (host) of "
            "the Airflow connection; otherwise check the Port."
        )
    return (
        f"{said}. {_again(answer)} If this lasts, check that the server is running, and the API host (host) and Port "
        "of the Airflow connection."
    )


def _again(answer: Answer) -> str:
    """Return what a retry does: only a push sends data."""
    return "The same rows have to be sent again." if answer.function == UPDATE_CUSTOMERS else "A retry may succeed."


def _judge_refusal(answer: Answer, status: int, said: str, wait: float | None) -> PermanentError:
    error_id = _error_id(answer)
    if error_id is not None:
        said = f"{said} ({error_id})"
    if status == 429 and error_id == "rate_limit_exceeded":
        return RateLimitError(
            f"{said}: over the shop's rate limit; lower Calls per second (max_calls_per_second) or in_flight, or ask "
            "Bubblehouse for a higher limit.",
            status=status,
            error_id=error_id,
            retry_after=wait,
        )
    if error_id is not None and error_id.endswith("_global_api_version"):
        meaning = (
            "set the API version (api_version) of the Airflow connection to one that Bubblehouse has for your account"
        )
    elif error_id is not None and status in (400, 422):
        return RejectedError(
            f"{said}: it rejects the data. It has processed the rows that it could, so the same data must not be sent "
            "again; correct it first.",
            status=status,
            error_id=error_id,
        )
    else:
        meaning = _MEANING_BY_ERROR_ID.get(error_id or "") or _MEANING_BY_STATUS.get(
            status,
            "check API host (host), Shop slug (login) and API version (api_version) of the Airflow connection",
        )
    return PermanentError(f"{said}: {meaning}.", status=status, error_id=error_id, retry_after=wait)


def _error_id(answer: Answer) -> str | None:
    """Return the ``id`` of the API's JSON error, None if the body is not one."""
    error_id = (answer.document() or {}).get("id")
    return error_id if isinstance(error_id, str) and _ERROR_ID.fullmatch(error_id) else None


def answer_of(response: Any) -> Answer:
    """
    Convert a response of requests or httpx.

    :param response: the response; its body is read if it has not been.
    """
    body, fault = b"", None
    try:
        body = response.content
    except OSError as error:  # the base of all errors of requests
        fault = error
    except RuntimeError:  # a stream that was already read or closed
        pass
    called = {"server": "Bubblehouse", **_called(response)}
    return Answer(
        function=called["function"],
        status=response.status_code,
        body=body,
        retry_after=response.headers.get("Retry-After"),
        fault=fault,
        server=server_name(response.headers, called["server"]),
    )


def find_error(exception: BaseException | None) -> BubblehouseError | None:
    """
    Return what an exception means for a retry, whoever raised it.

    An error of this package means itself; an error of requests or httpx goes through the classifier. Causes and
    contexts are searched too, because HttpHook replaces the error that has the response by one of its own.

    :param exception: what a task failed with.
    :return: the nearest such error; None if the classifier knows none of them.
    """
    return next((error for one in _chain(exception) if (error := _meaning(one)) is not None), None)


def _chain(exception: BaseException | None) -> Iterator[BaseException]:
    coming, seen = [exception], set()
    while coming:
        one = coming.pop(0)
        if one is not None and id(one) not in seen:
            seen.add(id(one))
            coming += [one.__cause__, one.__context__]
            yield one


def _meaning(exception: BaseException) -> BubblehouseError | None:
    if isinstance(exception, BubblehouseError):
        return exception
    # Nothing is imported here: an error of a library exists only if the library is imported already.
    requests, httpx = sys.modules.get("requests"), sys.modules.get("httpx")
    if requests is not None and isinstance(exception, requests.RequestException):
        response, hopeless = exception.response, isinstance(exception, ValueError)
    elif httpx is not None and isinstance(exception, httpx.RequestError | httpx.HTTPStatusError | httpx.InvalidURL):
        response = getattr(exception, "response", None)
        hopeless = isinstance(
            exception, httpx.InvalidURL | httpx.UnsupportedProtocol | httpx.LocalProtocolError | httpx.TooManyRedirects
        )
    else:
        return None
    if response is not None:
        return classify(answer_of(response))
    if hopeless:
        return PermanentError(
            f"The call cannot be made, or its answer cannot be read ({type(exception).__name__}); check the URL."
        )
    return classify(Answer(**_called(exception), status=None, fault=exception))


def _called(by: Any) -> dict[str, Any]:
    """Return function and server of a response or error of requests or httpx; the rest of a URL may be secret."""
    try:
        url = str(by.request.url)
    except (AttributeError, RuntimeError):  # neither library has the request in each of its errors
        url = ""
    match = _CALL_URL.fullmatch(url)
    return {"function": match["function"]} if match else {"function": "the call", "server": "The server"}


def no_call_error(fault: Exception) -> PermanentError:
    """
    Return the error to raise if address, proxies or certificates are malformed, so that no call can be made.

    :param fault: the library's error; its text may contain the password of a proxy.
    """
    return PermanentError(
        f"No call can be made ({type(fault).__name__}); check the API host (host) of the Airflow connection, and the "
        "proxy and certificate settings of the worker."
    )


def parse_retry_after(header: str | None) -> float | None:
    """
    Parse a ``Retry-After`` header (RFC 9110, 10.2.3): seconds, or a date.

    :param header: the value of the header; None if the response does not have it.
    :return: seconds from now, never negative; None if there is no header or it cannot be parsed.
    """
    if header is None:
        return None
    header = header.strip()
    try:
        seconds = float(header) if header[:1].isdigit() else _seconds_until(header)
    except (ValueError, TypeError, OverflowError):
        return None
    return max(0.0, seconds) if math.isfinite(seconds) else None


def _seconds_until(http_date: str) -> float:
    moment = parsedate_to_datetime(http_date)
    return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp() - datetime.now(UTC).timestamp()


def _root_fault(fault: BaseException | None) -> BaseException | None:
    """Return the innermost error: ``ConnectionResetError`` says more than the HTTP library's wrapper around it."""
    root = fault
    while isinstance(root, Exception):  # a timeout is caused by asyncio's CancelledError, which is not an Exception
        fault, root = root, root.__cause__ or root.__context__
    return fault


def _root(fault: BaseException | None) -> str:
    return type(_root_fault(fault)).__name__
