"""PostgreSQL and Redis for system tests: each runs in a folder of its own and listens on a socket there only."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import tempfile
from contextlib import contextmanager, suppress
from glob import glob
from typing import TYPE_CHECKING, Any

import pytest
from deployment import wait_until

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

_START = 60  # seconds; each takes less than one on an idle machine


@contextmanager
def running_postgres() -> Iterator[str]:
    """Run a PostgreSQL whose superuser is ``shop``, without a password; yield the folder of its socket."""
    psycopg2 = pytest.importorskip("psycopg2")
    initdb, server = _program("initdb", "postgresql"), _program("postgres", "postgresql")
    # Only their owner may enter pytest's temporary folders, and the server does not run as root.
    with tempfile.TemporaryDirectory(prefix="bubblehouse-postgres-") as folder:
        as_user: dict[str, Any] = {}
        if os.geteuid() == 0:
            shutil.chown(folder, "postgres", "postgres")
            as_user = {"user": "postgres", "group": "postgres", "extra_groups": []}
        subprocess.run(
            [initdb, "--pgdata=data", "--username=shop", "--auth=trust", "--encoding=UTF8", "--no-sync"],
            check=True,
            cwd=folder,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.STDOUT,
            **as_user,
        )

        def takes_connections() -> bool:
            with suppress(psycopg2.OperationalError):
                psycopg2.connect(host=folder, user="shop", dbname="postgres").close()
                return True
            return False

        command = [server, "-D", "data", "-k", folder, "-c", "listen_addresses=", "-c", "fsync=off"]
        with _running(command, takes_connections, stop=signal.SIGINT, cwd=folder, **as_user):  # its fast shutdown
            yield folder


@contextmanager
def running_redis() -> Iterator[str]:
    """Run a Redis, and yield its URL as Celery takes it."""
    redis = pytest.importorskip("redis")
    server = _program("redis-server", "redis-server")
    with tempfile.TemporaryDirectory(prefix="bubblehouse-redis-") as folder:
        socket = f"{folder}/redis.sock"

        def takes_connections() -> bool:
            with suppress(redis.ConnectionError), redis.Redis(unix_socket_path=socket) as client:
                return bool(client.ping())
            return False

        command = [server, "--port", "0", "--unixsocket", socket, "--save", "", "--dir", folder]
        with _running(command, takes_connections, stop=signal.SIGTERM, cwd=folder):
            yield f"redis+socket://{socket}"


def _program(name: str, package: str) -> str:
    """Return the path of a program; Debian keeps those of PostgreSQL out of the PATH."""
    found = shutil.which(name) or next(iter(sorted(glob(f"/usr/lib/postgresql/*/bin/{name}"))[::-1]), None)
    if found is None:
        pytest.skip(f"there is no {name}; apt-get install {package}")
    return found


@contextmanager
def _running(
    command: list[str], takes_connections: Callable[[], bool], *, stop: signal.Signals, **kwargs: Any
) -> Iterator[None]:
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.STDOUT, **kwargs)

    def is_up() -> bool:
        assert process.poll() is None, f"{command[0]} has ended"
        return takes_connections()

    try:
        wait_until(is_up, f"{command[0]} takes connections", timeout=_START)
        yield
    finally:
        process.send_signal(stop)
        process.wait(60)
