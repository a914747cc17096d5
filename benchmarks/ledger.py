"""
What a push with a ledger costs when one customer in a hundred has changed, beside the same push without a ledger.

Every push is a process of its own, which prints its figures as JSON.
"""

from __future__ import annotations

import json
import shutil
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

from benchmarks.contenders import BATCH, summary_of, time_used
from benchmarks.sink import running_sink

if TYPE_CHECKING:
    from collections.abc import Iterator

    from benchmarks.run import Bench

ROWS = 1_000_000
TIMES_MORE = 3  # of the rows, where only the memory is measured
CHANGED_EVERY = 100
LATENCY = 0.2  # seconds an answer takes

# What a push with a ledger is to stay below.
MOST_CALLS = 0.011  # of those of a full push
MOST_CPU = 4.0  # times that of a dry run that validates first
MOST_MEMORY = 48.0  # MiB
MOST_MORE_MEMORY = 8.0  # MiB more with three times the rows
MOST_BYTES = 40.0  # on disk, for each customer


class Case:
    """
    A source of some size whose ledger is filled, and the same source with one row in a hundred changed.

    :param bench: runs the pushes.
    :param folder: an empty folder.
    :param rows: how many customers there are.
    """

    def __init__(self, bench: Bench, folder: Path, rows: int) -> None:
        self._bench = bench
        self._folder = folder
        self._rows = rows
        self._filled = folder / "filled"
        self.path = folder / "changed.jsonl"

    def fill(self, port: int) -> dict[str, float]:
        """Write both files, fill the ledger, and return what that cost."""
        from benchmarks.run import write_jsonl

        self._folder.mkdir()
        before = self._folder / "before.jsonl"
        write_jsonl(before, self._rows)
        with before.open() as lines, self.path.open("w") as changed:
            changed.writelines(_changed(lines))
        return self._push(before, port, ledger_path=str(self._filled))

    @property
    def bytes_on_disk(self) -> float:
        """How many bytes the filled ledger has for each customer."""
        return max(file.stat().st_size for file in self._filled.rglob("*.sqlite")) / self._rows

    def push(self, port: int, **options: Any) -> dict[str, float]:
        """Push all customers without a ledger."""
        return self._push(self.path, port, **options)

    def push_changes(self, port: int, **options: Any) -> dict[str, float]:
        """Push what has changed, with a copy of the filled ledger: a push changes it."""
        ledger = self._folder / "ledger"
        shutil.rmtree(ledger, ignore_errors=True)
        shutil.copytree(self._filled, ledger)
        _rename_address(ledger, port)
        return self._push(self.path, port, ledger_path=str(ledger), **options)

    def _push(self, path: Path, port: int, **options: Any) -> dict[str, float]:
        printed = self._bench.python("-m", "benchmarks.ledger", str(path), str(port), json.dumps(options))
        figures: dict[str, float] = json.loads(printed.splitlines()[-1])
        return figures


def _changed(lines: Iterator[str]) -> Iterator[str]:
    for number, line in enumerate(lines):
        yield line.replace('"Ada"', '"Grace"') if number % CHANGED_EVERY == CHANGED_EVERY // 2 else line


def _rename_address(ledger: Path, port: int) -> None:
    """Give the ledger of one sink to another one, which has another port."""
    (host,) = ledger.iterdir()
    host.rename(ledger / f"127.0.0.1:{port}")


def measure(bench: Bench, folder: Path, rows: int) -> dict[str, Any]:
    """
    Return the figures of all pushes.

    :param bench: runs the pushes.
    :param folder: a folder that may be filled.
    :param rows: how many customers there are; three times as many where only the memory is measured.
    """
    more_rows = TIMES_MORE * rows
    with running_sink() as port, running_sink(LATENCY) as late_port:
        case = Case(bench, folder / "ledger", rows)
        results = {
            "rows": rows,
            "more_rows": more_rows,
            "fill": case.fill(port),
            "bytes_per_customer": round(case.bytes_on_disk, 1),
            "dry_run": case.push(port, dry_run=True),
            "full": case.push(port),
            "changes": case.push_changes(port),
            "late_full": case.push(late_port),
            "late_changes": case.push_changes(late_port),
        }
        shutil.rmtree(folder / "ledger")
        more = Case(bench, folder / "ledger", more_rows)
        more.fill(port)
        results["more_changes"] = more.push_changes(port)
    return results


def as_markdown(results: dict[str, Any]) -> list[str]:
    """Return the figures as lines of a table and a paragraph."""
    dry, changes, more = results["dry_run"], results["changes"], results["more_changes"]
    names = {
        "full": "all, without a ledger",
        "fill": "all, into an empty ledger",
        "changes": "1 % changed, with the ledger",
        "late_full": "all, without a ledger, each answer after 200 ms",
        "late_changes": "1 % changed, with the ledger, each answer after 200 ms",
    }
    lines = [
        f"| {results['rows']:,} customers | calls | seconds | CPU seconds | peak memory, MiB |",
        "|---|--:|--:|--:|--:|",
    ]
    for key, name in names.items():
        one = results[key]
        lines.append(
            f"| {name} | {one['calls']:,} | {one['seconds']:.1f} | {one['cpu_seconds']:.1f} | {one['peak_mib']:.1f} |"
        )
    bars = (
        f"With the ledger a push takes {changes['cpu_seconds'] / dry['cpu_seconds']:.1f} × the CPU time of a dry run "
        f"that validates first (at most {MOST_CPU:g}). With {results['more_rows']:,} customers the peak memory is "
        f"{more['peak_mib']:.1f} MiB. The ledger has {results['bytes_per_customer']} bytes for each customer."
    )
    return [*lines, "", bars]


def failed_bars(results: dict[str, Any]) -> list[str]:
    """Return what is not as cheap as it has to be."""
    changes, more = results["changes"], results["more_changes"]
    bars = {
        "calls, of a full push": (changes["calls"] / results["full"]["calls"], MOST_CALLS),
        "CPU time, of a dry run": (changes["cpu_seconds"] / results["dry_run"]["cpu_seconds"], MOST_CPU),
        "MiB of memory": (changes["peak_mib"], MOST_MEMORY),
        "MiB more with more rows": (more["peak_mib"] - changes["peak_mib"], MOST_MORE_MEMORY),
        "bytes for each customer": (results["bytes_per_customer"], MOST_BYTES),
    }
    return [f"{name}: {found:.4g}, at most {most:g}" for name, (found, most) in bars.items() if found > most]


def main() -> None:
    """Push one file as the command line says, or measure with as many customers as it says."""
    if len(sys.argv) > 3:
        path, port, options = sys.argv[1:]
        from airflow_provider_bubblehouse.operators.customers import UpdateCustomersOperator

        push = UpdateCustomersOperator(task_id="push", path=path, batch_size=BATCH, **json.loads(options))
        summary = summary_of(push, int(port))
        counts = {name: summary[name] for name in ("accepted", "unchanged", "calls")}
        print(json.dumps(counts | time_used()))
        return
    from benchmarks.run import Bench

    rows = int(sys.argv[1]) if len(sys.argv) > 1 else ROWS
    with tempfile.TemporaryDirectory(prefix="bubblehouse-bench-") as name:
        results = measure(Bench(Path(name)), Path(name), rows)
    print(json.dumps(results, indent=2))
    print("\n".join(as_markdown(results)))
    print("\n".join(failed_bars(results)) or "All bars are met.")


if __name__ == "__main__":
    main()
