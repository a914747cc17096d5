"""A null HTTP sink in a process of its own: reads each request to its end and answers 200, as cheaply as it can."""

from __future__ import annotations

import socket
import subprocess
import sys
import threading
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

ANSWER = b'HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 12\r\n\r\n{"ok": true}'


@contextmanager
def running_sink(delay: float = 0.0) -> Iterator[int]:
    """
    Run a sink, and yield its port on 127.0.0.1.

    :param delay: seconds before each answer.
    """
    process = subprocess.Popen([sys.executable, "-m", "benchmarks.sink", str(delay)], stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None  # noqa: S101  for the type
        yield int(process.stdout.readline())
    finally:
        process.kill()
        process.wait()


def serve(delay: float) -> None:
    """Serve until killed."""
    listener = socket.create_server(("127.0.0.1", 0))
    print(listener.getsockname()[1], flush=True)
    while True:
        connection, _ = listener.accept()
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        threading.Thread(target=_answer_all, args=(connection, delay), daemon=True).start()


def _answer_all(connection: socket.socket, delay: float) -> None:
    room = bytearray(1 << 20)
    view = memoryview(room)
    while True:
        head = b""
        while (end := head.find(b"\r\n\r\n")) < 0:
            got = connection.recv_into(room)
            if not got:
                return
            head += bytes(view[:got])
        length = int(head.lower().split(b"content-length:")[1].split(b"\r\n")[0])
        left = length - (len(head) - end - 4)
        while left > 0:
            got = connection.recv_into(room)
            if not got:
                return
            left -= got
        if delay:
            time.sleep(delay)
        connection.sendall(ANSWER)


if __name__ == "__main__":
    serve(float(sys.argv[1]))
