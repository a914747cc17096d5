"""
A local S3 server (moto) in a process of its own, with the faults that a real object store has.

Run as a program, this file is the server: it reads commands from stdin and answers each with a line of JSON.
"""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import threading
from collections import Counter
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any, NamedTuple, Self
from urllib.parse import quote
from xml.etree import ElementTree

import requests

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator
    from types import TracebackType

ADDRESS = "127.0.0.1"
CONNECTION = "object_store"
ANONYMOUS_CONNECTION = "anonymous_object_store"
_FROM_TEST = "X-From-Test"  # such requests are served, but not recorded, whatever fault is on
_FORBIDDEN = b"<Error><Code>AccessDenied</Code><Message>Access Denied</Message></Error>"


class Request(NamedTuple):
    """A request that the server has answered."""

    method: str
    target: str  # path and query
    status: int


class ObjectStore:
    """
    A context manager that runs the server; tests use the fixture ``object_store``.

    :ivar bucket: an empty bucket of the current test.
    """

    bucket: str

    def __init__(self) -> None:
        self._buckets = 0
        self._session = requests.Session()
        # Moto does not verify the signature, but takes requests without one as anonymous.
        self._session.headers.update({_FROM_TEST: "1", "Authorization": "AWS tests:unverified"})
        self._session.trust_env = False

    def __enter__(self) -> Self:
        environment = {name: value for name, value in os.environ.items() if not name.startswith("AWS_")}
        self._process = subprocess.Popen(
            [sys.executable, __file__], env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        try:
            self.endpoint: str = self._command("start")
            self.start_test()
        except BaseException:
            self._stop()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stop()

    def start_test(self) -> None:
        """End all faults, forget the requests so far, and make a new bucket."""
        self._command("start")
        self._command("allow")
        self.clear_requests()
        self._buckets += 1
        self.bucket = f"test-{self._buckets}"
        self._send("PUT", f"/{self.bucket}")

    def connections(self) -> dict[str, str]:
        """Return the environment variables that define both Airflow connections, and hide the machine's own AWS."""
        # The client's own retries would make every outage last for many seconds.
        extra = {
            "endpoint_url": self.endpoint,
            "region_name": "us-east-1",
            "config_kwargs": {"retries": {"max_attempts": 1}, "connect_timeout": 5, "read_timeout": 10},
        }
        connection = {"conn_type": "aws", "extra": extra}
        credentials = {"login": "tests", "password": "object-store-secret"}
        return {
            f"AIRFLOW_CONN_{CONNECTION.upper()}": json.dumps(connection | credentials),
            f"AIRFLOW_CONN_{ANONYMOUS_CONNECTION.upper()}": json.dumps(connection),
            "AWS_CONFIG_FILE": os.devnull,
            "AWS_SHARED_CREDENTIALS_FILE": os.devnull,
            "AWS_EC2_METADATA_DISABLED": "true",
        }

    def url(self, key: str = "", *, bucket: str | None = None, connection: str = CONNECTION) -> str:
        """
        Return the URL of an object, a glob or a folder, as ``path=`` takes it.

        :param connection: ``ANONYMOUS_CONNECTION`` has no credentials: the server forbids all of its requests.
        """
        return f"s3://{connection}@{bucket or self.bucket}/{key}"

    # Objects, as somebody else writes and reads them

    def put(self, key: str, content: bytes) -> None:
        """Write an object."""
        self._send("PUT", self._path(key), data=content)

    def get(self, key: str) -> bytes:
        """Return an object's content."""
        return self._send("GET", self._path(key)).content

    def delete(self, key: str) -> None:
        """Delete an object."""
        self._send("DELETE", self._path(key))

    def keys(self) -> list[str]:
        """Return the first 1,000 keys of the bucket, sorted."""
        return self._texts(f"/{self.bucket}?list-type=2", ".//{*}Contents/{*}Key")

    def buckets(self) -> list[str]:
        """Return the names of all buckets."""
        return self._texts("/", ".//{*}Bucket/{*}Name")

    # Faults

    @contextmanager
    def outage(self) -> Iterator[None]:
        """Cut all connections and refuse new ones; afterwards the objects are there again."""
        self.stop()
        try:
            yield
        finally:
            self.start()

    def stop(self) -> None:
        """Begin an outage."""
        self._command("stop")

    def start(self) -> None:
        """End an outage."""
        self._command("start")

    @contextmanager
    def forbidden(self, *methods: str) -> Iterator[None]:
        """Answer requests of these methods, or all, with 403."""
        self._command("forbid", *methods or ("GET", "HEAD", "PUT", "POST", "DELETE"))
        try:
            yield
        finally:
            self._command("allow")

    # What the server has seen

    def requests(self) -> list[Request]:
        """Return the requests of the code under test, in the order of their answers."""
        return [Request(*each) for each in self._command("requests")]

    def counts(self) -> Counter[str]:
        """Return the number of requests by method; a listing is a ``LIST``."""
        return Counter("LIST" if "list-type=2" in each.target else each.method for each in self.requests())

    def clear_requests(self) -> None:
        """Forget the requests so far."""
        self._command("clear")

    def _texts(self, path: str, elements: str) -> list[str]:
        return [each.text or "" for each in ElementTree.fromstring(self._send("GET", path).content).iterfind(elements)]

    def _path(self, key: str) -> str:
        return f"/{self.bucket}/{quote(key)}"

    def _send(self, method: str, path: str, **kwargs: Any) -> requests.Response:
        answer = self._session.request(method, f"{self.endpoint}{path}", timeout=30, **kwargs)
        answer.raise_for_status()
        return answer

    def _command(self, *words: str) -> Any:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(" ".join(words) + "\n")
        self._process.stdin.flush()
        answer = self._process.stdout.readline()
        if not answer:
            raise RuntimeError(f"The S3 server ended with code {self._process.wait()}; see its stderr.")
        return json.loads(answer)

    def _stop(self) -> None:
        self._session.close()
        self._process.terminate()
        self._process.communicate()


class _Server:
    """The server itself; lives in the process of its own."""

    def __init__(self) -> None:
        from moto.moto_server.werkzeug_app import DomainDispatcherApplication, create_backend_app

        self._moto = DomainDispatcherApplication(create_backend_app)
        self._port = 0
        self._listening: Any = None
        self._requests: list[Request] = []
        self._forbidden: frozenset[str] = frozenset()

    def start(self) -> str:
        """Listen, on the same port as before, and return the URL."""
        if self._listening is None:
            self._listening = _listener(self._port, self._answer)
            self._port = self._listening.port
            threading.Thread(target=self._listening.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
        return f"http://{ADDRESS}:{self._port}"

    def stop(self) -> None:
        """Stop listening and cut the connections."""
        if self._listening is not None:
            self._listening.shutdown()
            self._listening.server_close()
            self._listening.cut()
            self._listening = None

    def forbid(self, *methods: str) -> None:
        self._forbidden = frozenset(methods)

    def allow(self) -> None:
        self._forbidden = frozenset()

    def requests(self) -> list[Request]:
        return list(self._requests)

    def clear(self) -> None:
        self._requests = []

    def _answer(self, environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
        if environ.pop("HTTP_X_FROM_TEST", None):
            return self._moto(environ, start_response)
        method, target = environ["REQUEST_METHOD"], environ["REQUEST_URI"]

        def record(status: str, *rest: Any) -> Any:
            self._requests.append(Request(method, target, int(status.split()[0])))
            return start_response(status, *rest)

        if method in self._forbidden or "HTTP_AUTHORIZATION" not in environ:
            body = b"" if method == "HEAD" else _FORBIDDEN
            # The body of the request is not read, so the connection cannot take another one.
            headers = [("Content-Type", "application/xml"), ("Content-Length", str(len(body))), ("Connection", "close")]
            record("403 Forbidden", headers)
            return [body]
        return self._moto(environ, record)


def _listener(port: int, application: Callable[..., Any]) -> Any:
    """Return a server that can also cut the connections that it has accepted."""
    from werkzeug.serving import ThreadedWSGIServer, WSGIRequestHandler

    class QuietHandler(WSGIRequestHandler):
        def log(self, *args: Any) -> None:
            """Print nothing: stdout belongs to the answers."""

    class Listener(ThreadedWSGIServer):
        allow_reuse_address = True

        def get_request(self) -> tuple[socket.socket, Any]:
            accepted, address = super().get_request()
            self.accepted.add(accepted)
            return accepted, address

        def shutdown_request(self, request: Any) -> None:
            self.accepted.discard(request)
            super().shutdown_request(request)

        def cut(self) -> None:
            for each in list(self.accepted):
                with suppress(OSError):  # its client has left
                    each.shutdown(socket.SHUT_RDWR)

        def handle_error(self, *_: Any) -> None:
            """Print nothing about a connection that was cut."""

    listener = Listener(ADDRESS, port, application, handler=QuietHandler)
    listener.accepted: set[socket.socket] = set()
    return listener


def main() -> None:
    """Serve until stdin ends."""
    server = _Server()
    for line in sys.stdin:
        name, *words = line.split()
        sys.stdout.write(json.dumps(getattr(server, name)(*words)) + "\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main()
