"""Errors of stores' libraries, and what they mean: an outage is retried, everything else needs a person."""

from __future__ import annotations

import errno
import http.client
import importlib
import json
import socket
import ssl

import fsspec
import pytest

from airflow_provider_bubblehouse.customers.converter import InvalidRow
from airflow_provider_bubblehouse.customers.invalid import InvalidCustomerError
from airflow_provider_bubblehouse.exceptions import BubblehousePermanentError, BubblehouseTransientError
from airflow_provider_bubblehouse.push.rejected import RejectedRows
from airflow_provider_bubblehouse.push.report import Places
from airflow_provider_bubblehouse.stores import Fault, fault_of, is_local, store_faults, url_of, without_credentials


def of(package: str, name: str, *bases: type, **attributes) -> Exception:
    """Return an error as a library defines it that is not installed here."""
    kind = type(name, bases or (Exception,), {"__module__": f"{package}.exceptions"})
    error = kind("words of its own")
    vars(error).update(attributes)
    return error


def real(module: str, name: str, *args, **kwargs) -> Exception:
    return getattr(pytest.importorskip(module), name)(*args, **kwargs)


def s3(code: str, status: int) -> Exception:
    """Return an error as s3fs makes it of an answer of S3."""
    client_error = importlib.import_module("botocore.exceptions").ClientError
    answer = {"Error": {"Code": code, "Message": "words"}, "ResponseMetadata": {"HTTPStatusCode": status}}
    translated = importlib.import_module("s3fs.errors").translate_boto_error(client_error(answer, "GetObject"))
    assert isinstance(translated, OSError)
    return translated


@pytest.mark.parametrize(
    ("code", "status", "fault"),
    [
        ("InternalError", 500, Fault.OUTAGE),
        ("500", 500, Fault.OUTAGE),
        ("502", 502, Fault.OUTAGE),
        ("ServiceUnavailable", 503, Fault.OUTAGE),
        ("SlowDown", 503, Fault.OUTAGE),
        ("504", 504, Fault.OUTAGE),
        ("TooManyRequests", 429, Fault.OUTAGE),
        ("RequestTimeout", 400, Fault.OUTAGE),
        ("Throttling", 400, Fault.OUTAGE),
        ("OperationAborted", 409, Fault.OUTAGE),
        ("AccessDenied", 403, Fault.FORBIDDEN),
        ("403", 403, Fault.FORBIDDEN),
        ("InvalidAccessKeyId", 403, Fault.FORBIDDEN),
        ("SignatureDoesNotMatch", 403, Fault.FORBIDDEN),
        ("ExpiredToken", 400, Fault.FORBIDDEN),
        ("NoSuchBucket", 404, Fault.NO_BUCKET),
        ("NoSuchKey", 404, Fault.MISSING),
        ("404", 404, Fault.MISSING),
        ("PreconditionFailed", 412, Fault.CHANGED),
        ("InvalidRange", 416, Fault.CHANGED),
        ("PermanentRedirect", 301, Fault.OTHER),
        ("InvalidBucketName", 400, Fault.OTHER),
        ("400", 400, Fault.OTHER),
    ],
)
def test_an_answer_of_s3_means(code, status, fault):
    pytest.importorskip("s3fs")
    assert fault_of(s3(code, status)) is fault


@pytest.mark.parametrize(
    ("module", "name", "arguments", "fault"),
    [
        ("botocore.exceptions", "EndpointConnectionError", {"endpoint_url": "http://s3"}, Fault.OUTAGE),
        ("botocore.exceptions", "ConnectTimeoutError", {"endpoint_url": "http://s3"}, Fault.OUTAGE),
        ("botocore.exceptions", "ReadTimeoutError", {"endpoint_url": "http://s3"}, Fault.OUTAGE),
        ("botocore.exceptions", "ConnectionClosedError", {"endpoint_url": "http://s3"}, Fault.OUTAGE),
        ("botocore.exceptions", "IncompleteReadError", {"actual_bytes": 1, "expected_bytes": 2}, Fault.OUTAGE),
        ("botocore.exceptions", "SSLError", {"endpoint_url": "http://s3", "error": "x"}, Fault.OUTAGE),
        ("botocore.exceptions", "NoCredentialsError", {}, Fault.NO_CREDENTIALS),
        ("botocore.exceptions", "PartialCredentialsError", {"provider": "x", "cred_var": "y"}, Fault.NO_CREDENTIALS),
        ("botocore.exceptions", "ParamValidationError", {"report": "x"}, Fault.OTHER),
        ("aiohttp", "ClientConnectionError", {}, Fault.OUTAGE),
        ("aiohttp", "ServerDisconnectedError", {}, Fault.OUTAGE),
        ("aiohttp", "ClientPayloadError", {}, Fault.OUTAGE),
        ("aiohttp", "ClientResponseError", {"request_info": None, "history": (), "status": 503}, Fault.OUTAGE),
        ("aiohttp", "ClientResponseError", {"request_info": None, "history": (), "status": 403}, Fault.FORBIDDEN),
        ("requests", "ConnectionError", {}, Fault.OUTAGE),
        ("requests", "ReadTimeout", {}, Fault.OUTAGE),
        ("fsspec.exceptions", "FSTimeoutError", {}, Fault.OUTAGE),
        ("s3fs.utils", "FileExpired", {"filename": "bucket/a.csv", "e_tag": "x"}, Fault.CHANGED),
    ],
)
def test_an_error_of_an_installed_library_means(module, name, arguments, fault):
    assert fault_of(real(module, name, **arguments)) is fault


@pytest.mark.parametrize(
    ("error", "fault"),
    [
        (ConnectionResetError(), Fault.OUTAGE),
        (BrokenPipeError(errno.EPIPE, "x"), Fault.OUTAGE),
        (TimeoutError(), Fault.OUTAGE),
        (socket.gaierror(-2, "x"), Fault.OUTAGE),
        (ssl.SSLCertVerificationError(1, "x"), Fault.OUTAGE),
        (http.client.IncompleteRead(b""), Fault.OUTAGE),
        (OSError(errno.EIO, "x"), Fault.OUTAGE),
        (OSError(errno.EHOSTUNREACH, "x"), Fault.OUTAGE),
        (OSError("Socket is closed"), Fault.OUTAGE),
        (PermissionError(errno.EACCES, "x"), Fault.FORBIDDEN),
        (FileNotFoundError(), Fault.MISSING),
        (NotADirectoryError(), Fault.MISSING),
        (OSError(errno.ESTALE, "x"), Fault.CHANGED),
        (OSError(errno.ENOSPC, "x"), Fault.OTHER),
        (IsADirectoryError(errno.EISDIR, "x"), Fault.OTHER),
        (ValueError(), Fault.OTHER),
        (of("gcsfs", "HttpError", code=503), Fault.OUTAGE),
        (of("gcsfs", "HttpError", code="429"), Fault.OUTAGE),
        (of("gcsfs", "HttpError", code=401), Fault.FORBIDDEN),
        (of("gcsfs", "HttpError", code=None), Fault.OTHER),
        (OSError("Forbidden: https://storage.googleapis.com/b/bucket\nwords"), Fault.FORBIDDEN),
        (of("google.auth", "TransportError"), Fault.OUTAGE),
        (of("google.auth", "DefaultCredentialsError"), Fault.NO_CREDENTIALS),
        (of("azure.core", "ServiceRequestError"), Fault.OUTAGE),
        (of("azure.core", "HttpResponseError", status_code=403), Fault.FORBIDDEN),
        (of("azure.core", "HttpResponseError", status_code=500), Fault.OUTAGE),
        (of("azure.core", "IncompleteReadError"), Fault.OUTAGE),
        (of("paramiko", "SSHException"), Fault.OUTAGE),
        (of("paramiko", "AuthenticationException"), Fault.FORBIDDEN),
        (EOFError(), Fault.OUTAGE),
        (of("airflow", "AirflowNotFoundException", status_code=404), Fault.OTHER),
        (of("airflow", "AirflowException", status_code=500), Fault.OTHER),
        (of("elsewhere", "ConnectionError"), Fault.OTHER),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, Exception) else value.name,
)
def test_an_error_means(error, fault):
    assert fault_of(error) is fault


def caused(error: Exception, cause: Exception) -> Exception:
    error.__cause__ = cause
    return error


def test_an_error_is_classified_by_its_cause():
    assert fault_of(caused(ValueError(), ConnectionResetError())) is Fault.OUTAGE
    assert fault_of(caused(OSError(errno.EBUSY, "x"), of("botocore", "ClientError", response={}))) is Fault.OUTAGE


def test_an_error_that_is_its_own_cause_is_classified_without_a_loop():
    error = ValueError()
    error.__context__ = other = KeyError()
    other.__context__ = error
    assert fault_of(error) is Fault.OTHER


@pytest.mark.parametrize(
    ("error", "kind", "said"),
    [
        (ConnectionResetError(errno.ECONNRESET, "x"), BubblehouseTransientError, "ECONNRESET.*: the store is unavail"),
        (of("gcsfs", "HttpError", code=503), BubblehouseTransientError, r"\(503\): the store is unavailable"),
        (PermissionError(errno.EACCES, "x"), BubblehousePermanentError, r"PermissionError EACCES\): access is denied"),
        (of("google", "DefaultCredentialsError"), BubblehousePermanentError, "name an Airflow connection in the URL"),
        (FileNotFoundError(), BubblehousePermanentError, r"\(FileNotFoundError\): there is no such file"),
        (KeyError("secret"), BubblehousePermanentError, r"\(KeyError\): check the path"),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, Exception) else "",
)
@pytest.mark.parametrize("action", ["read", "written"])
def test_a_fault_is_an_error_that_names_the_file_and_what_to_do(error, kind, said, action):
    with (
        pytest.raises(kind, match=f"^s3://bucket/a.csv cannot be {action} .*{said}") as caught,
        store_faults("s3://bucket/a.csv", action),
    ):
        raise error
    assert "secret" not in str(caught.value)
    assert (caught.value.__cause__ is None) is (action == "written")  # it may quote the rows


def test_a_code_of_s3_is_named():
    pytest.importorskip("s3fs")
    with pytest.raises(BubblehousePermanentError, match=r"\(403 AccessDenied\)"), store_faults("s3://b/a", "read"):
        raise s3("AccessDenied", 403)


def test_an_error_ends_with_the_advice_of_whoever_uses_the_store():
    with (
        pytest.raises(BubblehousePermanentError, match=r"its store\. Check ledger_path\.$"),
        store_faults("a", "written", advice="Check ledger_path."),
    ):
        raise ValueError


def test_an_error_of_this_package_passes_unchanged():
    error = BubblehousePermanentError("x")
    with pytest.raises(BubblehousePermanentError) as caught, store_faults("a", "read"):
        raise error
    assert caught.value is error


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("s3://my_connection@bucket/key?x", "s3://my_connection@bucket/key?x"),
        ("s3://key:secret@bucket/a@b", "s3://bucket/a@b"),
        ("ftp://user:se@cret@host/a", "ftp://host/a"),
        ("https://host/a?X-Amz-Signature=secret", "https://host/a"),
        ("s3://bucket/time:12@noon", "s3://bucket/time:12@noon"),
        ("/data/a:b@c?d", "/data/a:b@c?d"),
    ],
)
def test_a_url_is_shown_without_its_secrets(url, shown):
    assert without_credentials(url) == shown


def test_a_local_file_is_shown_as_its_path_and_another_one_as_a_url():
    local, memory = fsspec.filesystem("file"), fsspec.filesystem("memory")
    assert (is_local(local), is_local(memory)) == (True, False)
    assert url_of(local, "/data/a.csv") == "/data/a.csv"
    assert url_of(memory, "/bucket/a.csv") == "memory:///bucket/a.csv"


class Bucket(fsspec.AbstractFileSystem):
    """A store that would create a bucket."""

    protocol = "bucket"
    cachable = False
    written: dict

    def makedirs(self, path, exist_ok=False):
        raise AssertionError("a bucket would be created")

    def pipe_file(self, path, value, **_kwargs):
        self.written = {path: value}


def test_rejected_rows_create_no_bucket_but_local_folders(tmp_path):
    invalid = [InvalidRow(7, InvalidCustomerError("must be text", "phone"), {"id": "7"})]
    store = Bucket()
    rows = RejectedRows(store, "bucket/rejected/")
    places = Places()
    places.begin("a.csv", 1)
    places.begin("b.csv", 6)
    rows.add_invalid(invalid, places)
    ((name, content),) = store.written.items()
    assert (name, rows.folder) == ("bucket/rejected/7.jsonl", "bucket://bucket/rejected")
    line = json.loads(content)
    assert (line["file"], line["row"], line["customer"]) == ("b.csv", 2, {"id": "7"})
    rows = RejectedRows(fsspec.filesystem("file"), f"{tmp_path}/new/folder/")
    rows.add_invalid(invalid, places)
    assert (tmp_path / "new" / "folder" / "7.jsonl").read_bytes() == content
    assert rows.folder == f"{tmp_path}/new/folder"
