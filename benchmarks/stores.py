"""
What a push from S3 costs: speed and memory for one large object, and requests for a glob over many.

The store is moto's server, in a process of its own, with the tests' count of requests. It reads the whole object for
every range, so the speed says little about S3 itself.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

from benchmarks import contenders
from benchmarks.sink import running_sink

if TYPE_CHECKING:
    from collections.abc import Mapping

OBJECTS = 1000
FEW_ROWS = 10_000


def measure(rows: int) -> dict[str, float]:
    """
    Push from S3, and return the figures.

    :param rows: how many customers the large object has.
    """
    from benchmarks.run import ONE_PASS, write_jsonl

    sys.path.append(str(Path(__file__).parents[1] / "tests"))
    from object_store import ObjectStore

    with ObjectStore() as store, running_sink() as port, tempfile.TemporaryDirectory() as folder:
        for name, count in (("few", min(FEW_ROWS, rows)), ("many", rows)):
            write_jsonl(path := Path(folder) / name, count)
            store.put(f"{name}.jsonl", path.read_bytes())
        for number in range(OBJECTS):
            store.put(f"shards/{number:04}.jsonl", b'{"id": "%d"}\n' % (number + 1))
        environment = os.environ | store.connections()
        few, many, glob = (store.url(key) for key in ("few.jsonl", "many.jsonl", "shards/*.jsonl"))
        large = _push(environment, few, many, port, **ONE_PASS)
        requests = {}
        for passes, options in ((1, ONE_PASS), (2, {})):
            store.clear_requests()
            _push(environment, glob, glob, port, **options)
            requests[passes] = store.counts().total() // 2  # of two pushes
        return {
            "rows_per_second": round(large["rows"] / large["seconds"]),
            "peak_mib": round(large["peak_mib"], 1),
            "requests_one_pass": requests[1],
            "requests_validated_first": requests[2],
        }


def _push(environment: Mapping[str, str], first: str, second: str, port: int, **options: Any) -> dict[str, float]:
    """Push twice in a process of its own; the first push has the libraries imported before the second is measured."""
    command = [sys.executable, "-m", "benchmarks.stores", "push", first, second, str(port), json.dumps(options)]
    done = subprocess.run(command, env=environment, check=False, capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(done.stderr)
    figures: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return figures


def main() -> None:
    """Measure with as many rows as the command line says, and print the figures as JSON."""
    if sys.argv[1] == "push":
        first, second, port, options = sys.argv[2:]
        for path in (first, second):
            rows = contenders.operator_on_file(path, int(port), **json.loads(options))
        print(json.dumps({"rows": rows, **contenders.time_used()}))
    else:
        print(json.dumps(measure(int(sys.argv[1]))))


if __name__ == "__main__":
    main()
