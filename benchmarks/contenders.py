"""Ways to push one file to the sink. Each is run in a process of its own, which prints its figures as JSON."""

from __future__ import annotations

import csv
import gc
import json
import os
import re
import socket
import sys
import tempfile
import time
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

BATCH = 1000
SHOP = "bench-shop"
ENDPOINT = f"/api/v20230601/{SHOP}/UpdateCustomers3"


class MemoryStore:
    """Keeps a push's progress as Airflow's task state store does, without a database."""

    def __init__(self) -> None:
        self._values: dict[str, str] = {}

    def get(self, key: str) -> Any:
        return json.loads(self._values.get(key, "null"))

    def set(self, key: str, value: Any) -> None:
        self._values[key] = json.dumps(value)

    def delete(self, key: str) -> None:
        self._values.pop(key, None)


def operator_on_file(path: str, port: int, **options: Any) -> int:
    """Push a file with ``UpdateCustomersOperator.execute``."""
    return operator(port, path=path, **options)


def yielded(path: str, port: int) -> int:
    """Push what a function yields, with ``@task.bubblehouse_customers``."""
    from airflow.sdk import DAG

    from airflow_provider_bubblehouse.decorators.bubblehouse import bubblehouse_customers_task

    with DAG("yielded"):
        push: Any = bubblehouse_customers_task(lambda: _json_rows(path), task_id="push", batch_size=BATCH)()
    return run_operator(push.operator, port)


def operator(port: int, **options: Any) -> int:
    """Push with ``UpdateCustomersOperator.execute``: validation, progress and checkpoints on."""
    from airflow_provider_bubblehouse.operators.customers import UpdateCustomersOperator

    return run_operator(UpdateCustomersOperator(task_id="push", **{"batch_size": BATCH, **options}), port)


def run_operator(push: Any, port: int) -> int:
    """Execute an operator, and return how many customers were accepted."""
    return int(summary_of(push, port)["accepted"])


def summary_of(push: Any, port: int) -> dict[str, Any]:
    """Execute an operator, and return its summary."""
    from airflow_provider_bubblehouse.operators.customers import UpdateCustomersOperator

    _load_what_a_worker_has()
    os.environ["AIRFLOW_CONN_BUBBLEHOUSE_DEFAULT"] = json.dumps(
        {"conn_type": "bubblehouse", "host": f"http://127.0.0.1:{port}", "login": SHOP, "password": "token"}
    )
    # A file of one row first: what the package imports when a push begins is not part of what a row costs.
    with tempfile.TemporaryDirectory() as folder:
        (file := Path(folder, "one.jsonl")).write_text('{"id": "1"}')
        UpdateCustomersOperator(task_id="warm_up", path=str(file)).execute(_context())
    context = _context()
    measure_from_here()
    summary: dict[str, Any] = push.execute(context)
    return summary


def _context() -> Any:
    return {"task_state_store": MemoryStore()}


def _load_what_a_worker_has() -> None:
    """Load plugins, and the assets and file systems of all providers: they cost what is installed, once a process."""
    from airflow.sdk import ObjectStoragePath
    from airflow.sdk.lineage import get_hook_lineage_collector
    from airflow.sdk.listener import get_listener_manager

    get_listener_manager()
    get_hook_lineage_collector()
    ObjectStoragePath("file:///").fs  # noqa: B018  imports boto3, for one


def floor(path: str, port: int) -> int:
    """Send the file's bytes in the same batches, unparsed, down one raw socket, waiting for each answer."""
    measure_from_here()
    connection = socket.create_connection(("127.0.0.1", port))
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    rows = 0
    with open(path, "rb") as file:
        while lines := list(islice(file, BATCH)):
            body = b"".join(lines)
            connection.sendall(
                f"POST {ENDPOINT} HTTP/1.1\r\nHost: sink\r\nContent-Length: {len(body)}\r\n\r\n".encode() + body
            )
            if not connection.recv(1024).startswith(b"HTTP/1.1 200"):
                raise RuntimeError("The sink did not answer 200.")
            rows += len(lines)
    return rows


def plain_loop(path: str, port: int) -> int:
    """``json.loads`` a line and ``requests.Session.post(json=…)`` a batch."""
    import requests

    measure_from_here()
    with requests.Session() as session:
        return send_batches(
            _json_rows(path),
            lambda batch: session.post(
                f"http://127.0.0.1:{port}{ENDPOINT}",
                json={"customers": batch},
                headers={"Authorization": "Bearer token"},
                timeout=60,
            ).raise_for_status(),
        )


def http_hook(path: str, port: int) -> int:
    """The official ``HttpHook``, called once a batch of ``json.loads`` rows."""
    return send_batches(_json_rows(path), http_hook_for(port))


def http_hook_csv(path: str, port: int) -> int:
    """The official ``HttpHook``, called once a batch of ``csv.DictReader`` rows."""
    return send_batches(_csv_rows(path), http_hook_for(port))


def http_hook_for(port: int) -> Callable[[list[Any]], object]:
    """Return what sends a batch with the official ``HttpHook``."""
    os.environ["AIRFLOW_CONN_HTTP_DEFAULT"] = json.dumps(
        {"conn_type": "http", "host": f"http://127.0.0.1:{port}", "password": ""}
    )
    from airflow.providers.http.hooks.http import HttpHook

    hook = HttpHook(method="POST")
    measure_from_here()
    return lambda batch: hook.run(ENDPOINT, json={"customers": batch}, headers={"Authorization": "Bearer token"})


def _json_rows(path: str) -> Iterator[Any]:
    with open(path, "rb") as file:
        yield from map(json.loads, file)


def _csv_rows(path: str) -> Iterator[Any]:
    with open(path, newline="", encoding="utf-8") as file:
        yield from csv.DictReader(file)


def send_batches(rows: Iterator[Any], send: Callable[[list[Any]], object]) -> int:
    """Send rows in batches, and return how many there were."""
    sent = 0
    while batch := list(islice(rows, BATCH)):
        send(batch)
        sent += len(batch)
    return sent


_started: dict[str, float] = {}


def measure_from_here() -> None:
    """Note time and memory: what is imported by now is not counted."""
    # A full collection of Airflow's objects takes as long as 100,000 rows, and would fall into some runs by chance.
    gc.collect()
    gc.freeze()
    # 5 resets the peak that the kernel keeps; ru_maxrss would hold that of the process before exec.
    Path("/proc/self/clear_refs").write_text("5")
    _started.update(memory=memory("VmRSS"), seconds=time.perf_counter(), cpu=time.process_time())


def time_used() -> dict[str, float]:
    """Return time and memory since ``measure_from_here``."""
    return {
        "seconds": time.perf_counter() - _started["seconds"],
        "cpu_seconds": time.process_time() - _started["cpu"],
        "peak_mib": memory("VmHWM") - _started["memory"],
    }


def memory(name: str) -> float:
    """Return a line of this process's status in MiB."""
    found = re.search(rf"{name}:\s+(\d+) kB", Path("/proc/self/status").read_text())
    return int(found[1]) / 1024 if found else 0.0


def main() -> None:
    """Run the contender that the command line names."""
    name, path, port, options = sys.argv[1:]
    rows = globals()[name](path, int(port), **json.loads(options))
    print(json.dumps({"rows": rows, **time_used()}))


if __name__ == "__main__":
    main()
