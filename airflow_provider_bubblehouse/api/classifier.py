"""
The error classifier: what each response of Bubblehouse means. No other module judges a status.

The API processes every row of a call even where some fail
(https://app.bubblehouse.com/apidocs/apis/order/UpdateCustomers3). Hence the one rule of this package: after a 5xx or a
network error all of the data is pushed again, after 200 or 4xx none of it is.
"""

from __future__ import annotations

import math
import re
import sys
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import TYPE_CHECKING, Any

import msgspec

from airflow_provider_bubblehouse.errors import (
    BubblehouseError,
    BubblehouseTransientError,
    PermanentError,
    RateLimitError,
    RejectedError,
)

if TYPE_CHECKING:
    from collections.abc import Iterator

UPDATE_CUSTOMERS = "UpdateCustomers3"

# The ids that the API documents are such words; anything else is not repeated into a log, for what it may hold.
_ERROR_ID = re.compile(r"[A-Za-z0-9_.-]{1,100}")
_CALL_URL = re.compile(r"https?://[^/]+/api/v\d+/[A-Za-z0-9_-]+/(?P<function>[A-Za-z0-9_-]{1,100})/?(?:\?.*)?")

_MEANING_BY_ERROR_ID = {
    "invalid_token": "the token is not accepted; put a current shop token, or key id and shared secret, into the "
    "Airflow connection, and check that they are of the shop in Login",
    "no_customers_match_customer_identity": "no customer matches this identity",
}
_MEANING_BY_STATUS = {
    401: _MEANING_BY_ERROR_ID["invalid_token"],
    403: "the token does not allow this call; check which shop and which rights it was issued for",
    404: "there is no such call; check the shop slug (Login), the Host and api_version of the Airflow connection",
    413: "the call is larger than what is taken; lower batch_size or max_batch_bytes",
    429: "over a rate limit, but not in the API's own words; something between here and Bubblehouse limits the calls",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """
    What came back from one call, whichever HTTP library made it.

    :param function: the API's function, such as ``UpdateCustomers3``.
    :param status: the HTTP status, None where the call ended before one came.
    :param body: as much of the body as came.
    :param retry_after: the ``Retry-After`` header as it came.
    :param fault: the error that kept the answer away or cut its body off.
    :param server: who was called; only a call that another task makes on its own goes elsewhere.
    """

    function: str
    status: int | None
    body: bytes = b""
    retry_after: str | None = None
    fault: Exception | None = None
    server: str = "Bubblehouse"

    def document(self) -> dict[str, Any] | None:
        """Return the JSON object in the body, None where the body is anything else."""
        try:
            document = msgspec.json.decode(self.body)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            return None
        return document if isinstance(document, dict) else None


def classify(answer: Answer) -> BubblehouseError | None:
    """
    Say what an answer means. This is the one place where a status is judged.

    :param answer: what came back from a call.
    :return: None for an accepted call, else the error to raise. Only a network error is its ``__cause__``.
    """
    error = _judge(answer)
    if error is not None:
        error.attempts = 1
        error.__cause__ = answer.fault
    return error


def _judge(answer: Answer) -> BubblehouseError | None:
    status = answer.status
    if status is None:
        return BubblehouseTransientError(
            f"{answer.server} gave no answer to {answer.function} ({_root_name(answer.fault)}); "
            "the same data has to be pushed again. If this lasts, see whether the server runs, and check the Host."
        )
    wait = parse_retry_after(answer.retry_after)
    said = f"{answer.server} answered {answer.function} with status {status}"
    if 400 <= status < 500:
        return _judge_refusal(answer, status, said, wait)
    if status >= 500:
        return BubblehouseTransientError(
            f"{said}: a fault on its side; the same data has to be pushed again.", status=status, retry_after=wait
        )
    if answer.fault is not None:
        return BubblehouseTransientError(
            f"{said}, but the answer was cut off ({_root_name(answer.fault)}); the same data has to be pushed again.",
            status=status,
        )
    if status == 200:
        document = answer.document()
        if document is not None and (answer.function != UPDATE_CUSTOMERS or document.get("ok") is True):
            return None
        expected = '{"ok": true}' if answer.function == UPDATE_CUSTOMERS else "a JSON object"
        why = f"but not with {expected}; check that the Host of the Airflow connection is the API"
    elif 300 <= status < 400:
        why = "a redirect, which is never followed; check the Host of the Airflow connection"
    else:
        why = "which the API does not use; check that the Host of the Airflow connection is the API"
    return PermanentError(f"{said}, {why}.", status=status)


def _judge_refusal(answer: Answer, status: int, said: str, wait: float | None) -> PermanentError:
    error_id = _error_id(answer)
    if error_id is not None:
        said = f"{said} ({error_id})"
    if status == 429 and error_id == "rate_limit_exceeded":
        return RateLimitError(
            f"{said}: over the shop's rate limit; make fewer calls at a time, or ask Bubblehouse for a higher limit.",
            status=status,
            error_id=error_id,
            retry_after=wait,
        )
    if error_id is not None and error_id.endswith("_global_api_version"):
        meaning = "set api_version of the Airflow connection to a version that Bubblehouse has for your account"
    elif error_id is not None and status in (400, 422):
        return RejectedError(
            f"{said}: it refuses the data and has processed what it could, so the same data must not be sent again; "
            "mend it first.",
            status=status,
            error_id=error_id,
        )
    else:
        meaning = _MEANING_BY_ERROR_ID.get(error_id or "") or _MEANING_BY_STATUS.get(
            status, "check the Host, Login and api_version of the Airflow connection"
        )
    return PermanentError(f"{said}: {meaning}.", status=status, error_id=error_id, retry_after=wait)


def _error_id(answer: Answer) -> str | None:
    """Return the ``id`` of the API's JSON error, None where the body is not one."""
    error_id = (answer.document() or {}).get("id")
    return error_id if isinstance(error_id, str) and _ERROR_ID.fullmatch(error_id) else None


def answer_of(response: Any) -> Answer:
    """
    Read the answer out of a response of requests or httpx.

    :param response: the response; where its body is still on the way it is waited for.
    """
    body, fault = b"", None
    try:
        body = response.content
    except OSError as error:  # the base of all errors of requests
        fault = error
    except RuntimeError:  # a stream that somebody else has read, or that is closed
        pass
    return Answer(
        **_called(response),
        status=response.status_code,
        body=body,
        retry_after=response.headers.get("Retry-After"),
        fault=fault,
    )


def find_error(exception: BaseException | None) -> BubblehouseError | None:
    """
    Say what an exception means for a retry, whoever raised it.

    That is an error of this package as it is, and an error of requests or httpx by the classifier. Their errors are
    looked for behind the exception too: HttpHook puts one of its own in the place of that which has the answer.

    :param exception: what a task failed with.
    :return: the nearest such error; None where there is none, so that nothing is known.
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
    # Who has an error of a library has imported the library: nothing is imported here, for DAGs that use neither.
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
            f"A call cannot be made, or its answer cannot be read ({type(exception).__name__}); check the address that "
            "is called."
        )
    return classify(Answer(**_called(exception), status=None, fault=exception))


def _called(by: Any) -> dict[str, Any]:
    """Name what was called, by a response or an error of requests or httpx; of the URL only what cannot be secret."""
    try:
        url = str(by.request.url)
    except (AttributeError, RuntimeError):  # neither library has the request with each of its errors
        url = ""
    match = _CALL_URL.fullmatch(url)
    return {"function": match["function"]} if match else {"function": "the call", "server": "The server"}


def no_call_error(fault: Exception) -> PermanentError:
    """
    Return what to raise where the address, the proxies or the certificates of this machine allow no call.

    :param fault: what a library says of it; its words may hold a proxy's password.
    """
    return PermanentError(
        f"No call can be made ({type(fault).__name__}); check the Host of the Airflow connection, and the proxy and "
        "certificate settings of the worker."
    )


def parse_retry_after(header: str | None) -> float | None:
    """
    Read a ``Retry-After`` header (RFC 9110, 10.2.3): seconds, or a date.

    :param header: the header as it came.
    :return: seconds from now, never negative; None without a header or for one that cannot be read.
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


def _root_name(fault: BaseException | None) -> str:
    """Name the innermost error: ``ConnectionResetError`` says more than the HTTP library's wrapper around it."""
    root = fault
    while isinstance(root, Exception):  # below a timeout lies asyncio's CancelledError, which is none
        fault, root = root, root.__cause__ or root.__context__
    return type(fault).__name__
