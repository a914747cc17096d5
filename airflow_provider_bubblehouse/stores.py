"""
Where files lie: how a store is named in messages, and what the errors of its library mean.

Every library has errors of its own. They are recognized by class name, HTTP status and errno, because importing them
all is slow and most of them are not installed.
"""

from __future__ import annotations

import errno
import re
from contextlib import contextmanager
from enum import Enum
from typing import TYPE_CHECKING, Any, Literal

from airflow_provider_bubblehouse.errors import BubblehouseError, BubblehouseTransientError, PermanentError

if TYPE_CHECKING:
    from collections.abc import Iterator

Action = Literal["opened", "listed", "read", "written"]


class Fault(Enum):
    """What an error of a store means; the value says what to do."""

    OUTAGE = "the store is unavailable or overloaded; a retry may succeed"
    FORBIDDEN = "access is denied; check the permissions, and the credentials of the Airflow connection in the URL"
    NO_CREDENTIALS = "there are no credentials; name an Airflow connection in the URL, as in s3://my_connection@bucket/"
    NO_BUCKET = "there is no such bucket; check the URL, because no bucket is created here"
    MISSING = "there is no such file or folder; check the path"
    CHANGED = "it was changed while being read; run the task again when the file no longer changes"
    OTHER = "check the path and its store"


def no_filesystem_error(path: object) -> PermanentError:
    """Return the error for a URL without a file system."""
    return PermanentError(
        f"There is no file system for {without_credentials(str(path))}; s3:// needs "
        "pip install 'airflow-provider-bubblehouse[s3]', gs:// needs [gcs], other stores their own provider."
    )


def is_local(filesystem: Any) -> bool:
    """
    Return whether an fsspec file system is that of this machine.

    :param filesystem: the file system.
    """
    protocol = filesystem.protocol
    return "file" in ((protocol,) if isinstance(protocol, str) else protocol)


def url_of(filesystem: Any, path: str) -> str:
    """
    Return the name of a file for messages: its URL without credentials, or the plain path of a local file.

    :param filesystem: the fsspec file system that holds it.
    :param path: its path there.
    """
    return path if is_local(filesystem) else without_credentials(filesystem.unstrip_protocol(path))


def without_credentials(url: str) -> str:
    """
    Return a URL without a password, and without the query that can hold a signature.

    The name of an Airflow connection before the ``@`` stays, because it is not a secret.

    :param url: a URL, or a path.
    """
    scheme, separator, rest = url.partition("://")
    if not separator:
        return url
    rest = re.sub(r"^[^/@]*:[^/]*@", "", rest)
    return f"{scheme}://{rest.partition('?')[0] if scheme in ('http', 'https') else rest}"


@contextmanager
def store_faults(url: str, action: Action, *, advice: str = "") -> Iterator[None]:
    """
    Raise the errors of a store as those of this package.

    :param url: the file or folder, as ``url_of`` names it.
    :param action: what is done with it.
    :param advice: what else to say, in a sentence.
    :raises BubblehouseTransientError: if the store does not answer, or is overloaded.
    :raises PermanentError: for any other error.
    """
    try:
        yield
    except BubblehouseError:
        raise
    except Exception as error:  # noqa: BLE001  each library has errors of its own
        cause = None if action == "written" else error  # which may quote what was to be written: customers
        raise store_error(error, url, action, advice=advice) from cause


def store_error(error: Exception, url: str, action: Action, *, advice: str = "") -> BubblehouseError:
    """
    Return the error to raise for one of a store.

    :param error: the store's error; the other parameters are those of ``store_faults``.
    """
    fault = fault_of(error)
    text = f"{url} cannot be {action} ({_detail(error)}): {fault.value}. {advice}".rstrip()
    return BubblehouseTransientError(text) if fault is Fault.OUTAGE else PermanentError(text)


def fault_of(error: Exception) -> Fault:
    """
    Return what an error of a store means.

    :param error: the error, whose causes count, too.
    """
    errors = list(_with_causes(error))
    names = {name for each in errors for name in _names(each)}
    status, code = _answer(errors)
    numbers = {each.errno for each in errors if isinstance(each, OSError)}
    if names & _CHANGED or status in (412, 416) or errno.ESTALE in numbers:
        return Fault.CHANGED
    if names & _NO_CREDENTIALS:
        return Fault.NO_CREDENTIALS
    if code == "NoSuchBucket":
        return Fault.NO_BUCKET
    if code in _OUTAGE_CODES or (status is not None and (status in (408, 429) or status >= 500)):
        return Fault.OUTAGE
    if status in (401, 403) or names & _FORBIDDEN or _is_forbidden_by_gcs(error):
        return Fault.FORBIDDEN
    if status == 404 or names & {"builtins.FileNotFoundError", "builtins.NotADirectoryError"}:
        return Fault.MISSING
    if names & _OUTAGES or numbers & _OUTAGE_NUMBERS or (type(error) is OSError and error.errno is None):
        return Fault.OUTAGE
    return Fault.OTHER


# Class names, each with the package that it comes from.
_CHANGED = {"s3fs.FileExpired"}
_NO_CREDENTIALS = {
    "botocore.NoCredentialsError",
    "botocore.PartialCredentialsError",
    "botocore.CredentialRetrievalError",
    "botocore.TokenRetrievalError",
    "botocore.UnauthorizedSSOTokenError",
    "google.DefaultCredentialsError",
}
_FORBIDDEN = {"builtins.PermissionError", "paramiko.AuthenticationException"}
_OUTAGES = {
    "builtins.ConnectionError",
    "builtins.EOFError",
    "builtins.TimeoutError",
    "socket.gaierror",
    "ssl.SSLError",
    "http.HTTPException",
    "botocore.HTTPClientError",
    "botocore.ConnectionError",
    "botocore.IncompleteReadError",
    "botocore.ResponseParserError",  # an overloaded S3 may answer with broken XML
    "aiohttp.ClientConnectionError",
    "aiohttp.ClientPayloadError",
    "requests.ConnectionError",
    "requests.Timeout",
    "requests.ChunkedEncodingError",
    "urllib3.HTTPError",
    "google.TransportError",
    "azure.ServiceRequestError",
    "azure.ServiceResponseError",
    "azure.IncompleteReadError",
    "paramiko.SSHException",
}
# Codes of S3 that come with a status of 400 or 409.
_OUTAGE_CODES = {"RequestTimeout", "Throttling", "ThrottlingException", "RequestLimitExceeded", "OperationAborted"}
_OUTAGE_NUMBERS = {
    number
    for name in (
        *("EAGAIN", "EBUSY", "ECONNABORTED", "ECONNREFUSED", "ECONNRESET", "EHOSTDOWN", "EHOSTUNREACH", "EIO"),
        *("ENETDOWN", "ENETRESET", "ENETUNREACH", "ENOTCONN", "EPIPE", "EREMOTEIO", "ETIMEDOUT"),
    )
    if (number := getattr(errno, name, None)) is not None
}


def _with_causes(error: BaseException | None) -> Iterator[BaseException]:
    seen: set[int] = set()
    while error is not None and id(error) not in seen:
        seen.add(id(error))
        yield error
        error = error.__cause__ or (None if error.__suppress_context__ else error.__context__)


def _names(error: BaseException) -> Iterator[str]:
    for kind in type(error).__mro__:
        yield f"{kind.__module__.partition('.')[0]}.{kind.__name__}"


def _answer(errors: list[BaseException]) -> tuple[int | None, str | None]:
    """Return the HTTP status and the store's own code of the first error that has either."""
    for error in errors:
        if type(error).__module__.partition(".")[0] == "airflow":
            continue  # its errors carry the status of Airflow's own API
        answer: Any = getattr(error, "response", None)
        if isinstance(answer, dict):  # botocore
            status = answer.get("ResponseMetadata", {}).get("HTTPStatusCode")
            return _as_status(status), answer.get("Error", {}).get("Code")
        for holder in (error, answer):
            for name in ("status_code", "status", "code"):
                if (status := _as_status(getattr(holder, name, None))) is not None:
                    return status, None
    return None, None


def _as_status(value: object) -> int | None:
    try:
        status = int(value) if isinstance(value, int | str) else 0
    except ValueError:
        return None
    return status if 100 <= status < 600 else None


def _is_forbidden_by_gcs(error: Exception) -> bool:
    """gcsfs has neither a class nor a number for a 403."""
    return type(error) is OSError and error.errno is None and str(error).startswith("Forbidden")


def _detail(error: Exception) -> str:
    status, code = _answer(list(_with_causes(error)))
    if status is not None:
        return f"{status} {code}" if code and code != str(status) else str(status)
    kind = type(error)
    number = errno.errorcode.get(error.errno or 0) if isinstance(error, OSError) else None
    return f"{kind.__name__} {number}" if number and kind.__module__ == "builtins" else kind.__name__
