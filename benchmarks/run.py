"""
`make bench`: what a push costs, beside the floor of the wire and beside other ways to push.

Every figure is of one run on one machine, each contender in a process of its own. Machines are noisy, so the contenders
take turns, and of each the best of its rounds counts; only ratios mean anything elsewhere.
"""

from __future__ import annotations

import argparse
import gzip
import json
import math
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

from benchmarks import ledger
from benchmarks.shapes import ROWS as SHAPE_ROWS, SHAPES, SHAPES_OF_BASE, rows_of
from benchmarks.sink import running_sink

if TYPE_CHECKING:
    from collections.abc import Iterator

HERE = Path(__file__).parent
ROWS, FEW_ROWS = 1_000_000, 10_000
ONE_PASS = {"on_invalid": "skip"}
LATENCY = 0.2  # seconds an answer takes
LATENT_BATCHES = 400
_IMPORT_ROUNDS = 7
_SDK = "from airflow.sdk import DAG, BaseOperator, BaseHook, ObjectStoragePath"


def customers(count: int) -> Iterator[dict[str, Any]]:
    """Yield customers of about 180 bytes of JSON, in known fields."""
    for number in range(count):
        yield {
            "id": str(1_000_000 + number),
            "email": f"customer.{number}@example.com",
            "phone": f"+1555{number:07d}",
            "first_name": "Ada",
            "last_name": "Lovelace",
            "tags": ["vip"],
            "signed_up_at": "2020-01-15T10:30:00Z",
        }


def write_jsonl(path: Path, count: int) -> None:
    """Write customers, one a line."""
    with path.open("w") as file:
        file.writelines(json.dumps(customer, separators=(",", ":")) + "\n" for customer in customers(count))


def write_csv(path: Path, count: int) -> None:
    """Write customers as CSV, without the one field that is a list, and with the city in its place."""
    with path.open("w") as file:
        file.write("id,email,phone,first_name,last_name,city,signed_up_at\n")
        file.writelines(
            f"{row['id']},{row['email']},{row['phone']},{row['first_name']},{row['last_name']},London,"
            f"{row['signed_up_at']}\n"
            for row in customers(count)
        )


class Bench:
    """
    Runs contenders in an Airflow home of their own.

    :param folder: a temporary folder.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        kept = {name: value for name, value in os.environ.items() if not name.startswith("AIRFLOW_")}
        self._environment = kept | {"AIRFLOW_HOME": str(folder / "airflow"), "NO_PROXY": "127.0.0.1"}

    def run(self, name: str, path: Path, port: int, **options: Any) -> dict[str, float]:
        """Run one contender on one file, and return its figures."""
        return self.figures("-m", "benchmarks.contenders", name, str(path), str(port), json.dumps(options))

    def figures(self, *arguments: str, folder: Path = HERE.parent) -> dict[str, float]:
        """Run Python in a folder, and return what its last line says."""
        figures: dict[str, float] = json.loads(self.python(*arguments, folder=folder).splitlines()[-1])
        return figures

    def python(self, *arguments: str, folder: Path = HERE.parent) -> str:
        """Run Python in a folder, whose packages it imports, and return what it prints."""
        done = subprocess.run(
            [sys.executable, *arguments],
            env=self._environment,
            cwd=folder,
            check=False,
            capture_output=True,
            text=True,
        )
        if done.returncode:
            raise RuntimeError(done.stderr)
        return done.stdout


def measure(rows: int, rounds: int, base: str | None) -> dict[str, Any]:
    """Measure everything, and return it as JSON holds it."""
    with tempfile.TemporaryDirectory(prefix="bubblehouse-bench-") as name:
        folder = Path(name)
        files = {suffix: folder / f"customers.{suffix}" for suffix in ("jsonl", "csv", "jsonl.gz")}
        few = {suffix: folder / f"few.{suffix}" for suffix in files}
        for paths, count in ((files, rows), (few, min(FEW_ROWS, rows))):
            write_jsonl(paths["jsonl"], count)
            write_csv(paths["csv"], count)
            with gzip.open(paths["jsonl.gz"], "wb", compresslevel=1) as packed:
                packed.write(paths["jsonl"].read_bytes())
        bench = Bench(folder)
        return {
            "rows": rows,
            "bytes_per_row": round(files["jsonl"].stat().st_size / rows, 1),
            "push": measure_push(bench, files, rounds),
            "shapes": measure_shapes(bench, folder, rounds, base),
            "memory": measure_memory(bench, files, few),
            "latency": measure_latency(bench, folder),
            "import": measure_import(bench),
            "stores": json.loads(bench.python("-m", "benchmarks.stores", str(rows)).splitlines()[-1]),
            "triggers": json.loads(bench.python("-m", "benchmarks.triggers")),
            "ledger": ledger.measure(bench, folder, rows),
        }


def measure_push(bench: Bench, files: dict[str, Path], rounds: int) -> dict[str, float]:
    """Return the rows a second of every contender."""
    csv_map = {
        "column_map": {name: name for name in ("id", "email", "phone", "first_name", "last_name", "signed_up_at")}
    }
    csv_map["column_map"]["city"] = "extras.city"
    contenders: dict[str, tuple[str, Path, dict[str, Any]]] = {
        "floor: the bytes, unparsed, down one raw socket": ("floor", files["jsonl"], {}),
        "operator, JSONL, one pass": ("operator_on_file", files["jsonl"], ONE_PASS),
        "operator, JSONL, validated first": ("operator_on_file", files["jsonl"], {}),
        "json.loads + requests.Session.post": ("plain_loop", files["jsonl"], {}),
        "json.loads + HttpHook": ("http_hook", files["jsonl"], {}),
        "operator, CSV, one pass": ("operator_on_file", files["csv"], ONE_PASS | csv_map),
        "operator, CSV, validated first": ("operator_on_file", files["csv"], csv_map),
        "csv.DictReader + HttpHook": ("http_hook_csv", files["csv"], {}),
    }
    best = dict.fromkeys(contenders, 0.0)
    with running_sink() as port:
        for _ in range(rounds):
            for title, (name, path, options) in contenders.items():
                figures = bench.run(name, path, port, **options)
                best[title] = max(best[title], figures["rows"] / figures["seconds"])
    return {title: round(speed) for title, speed in best.items()}


def measure_shapes(bench: Bench, folder: Path, rounds: int, base: str | None) -> dict[str, dict[str, float]]:
    """
    Return how many times as fast as its own loop each shape is pushed, by CPU time.

    :param base: a commit that some shapes are compared with, which is the figure ``base``.
    """
    before = checkout(base, folder / "base") if base else None
    ratios: dict[str, dict[str, float]] = {}
    for title, shape in SHAPES.items():
        path = folder / f"shape.{shape.suffix}"
        for name, fault in (("valid", None), ("1 % invalid", shape.fault)):
            path.unlink(missing_ok=True)
            shape.write(path, rows_of(shape.make, SHAPE_ROWS, fault))
            contenders = {"push": ("push", HERE.parent), name: ("loop", HERE.parent)}
            if before and not fault and title in SHAPES_OF_BASE:
                contenders["base"] = ("push", before)
            seconds = cpu_seconds(bench, title, path, contenders, rounds)
            push = seconds.pop("push")
            ratios.setdefault(title, {}).update({other: round(used / push, 2) for other, used in seconds.items()})
    return ratios


def cpu_seconds(
    bench: Bench, title: str, path: Path, contenders: dict[str, tuple[str, Path]], rounds: int
) -> dict[str, float]:
    """Return the least CPU time of contenders that take turns."""
    best: dict[str, float] = {}
    with running_sink() as port:
        for _ in range(rounds):
            for name, (way, home) in contenders.items():
                figures = bench.figures("-m", "benchmarks.shapes", way, title, str(path), str(port), folder=home)
                best[name] = min(best.get(name, math.inf), figures["cpu_seconds"])
    return best


def checkout(commit: str, folder: Path) -> Path:
    """Write a commit's package to a folder, with the benchmarks as they are now, and return the folder."""
    archive = folder.with_suffix(".tar")
    command = ["git", "archive", f"--output={archive}", commit, "airflow_provider_bubblehouse"]
    subprocess.run(command, cwd=HERE.parent, check=True)
    shutil.unpack_archive(archive, folder, filter="data")
    shutil.copytree(HERE, folder / HERE.name)
    return folder


def measure_memory(bench: Bench, files: dict[str, Path], few: dict[str, Path]) -> dict[str, dict[str, float]]:
    """Return the peak memory of ``execute()`` in MiB, above that of the imported package."""
    on_file = "operator_on_file"
    ways: dict[str, tuple[str, str, dict[str, Any]]] = {
        "JSONL": (on_file, "jsonl", ONE_PASS),
        "JSONL, in_flight=8": (on_file, "jsonl", ONE_PASS | {"in_flight": 8}),
        "JSONL, gzip": (on_file, "jsonl.gz", ONE_PASS),
        "CSV": (on_file, "csv", ONE_PASS),
        "yielded by a function": ("yielded", "jsonl", {}),
    }
    peaks: dict[str, dict[str, float]] = {}
    with running_sink() as port:
        for title, (contender, suffix, options) in ways.items():
            one, other = (bench.run(contender, paths[suffix], port, **options)["peak_mib"] for paths in (files, few))
            peaks[title] = {"all": round(one, 1), "few": round(other, 1)}
    return peaks


def measure_latency(bench: Bench, folder: Path) -> dict[str, float]:
    """Return the seconds for full batches that are answered late, one call at a time and eight."""
    path = folder / "latent.jsonl"
    write_jsonl(path, LATENT_BATCHES * 100)
    with running_sink(LATENCY) as port:
        return {
            f"in_flight={lanes}": round(
                bench.run("operator_on_file", path, port, batch_size=100, in_flight=lanes)["seconds"], 2
            )
            for lanes in (1, 8)
        }


def measure_import(bench: Bench) -> dict[str, float]:
    """Return the milliseconds that an import adds to a process that has what every DAG file imports."""
    modules = {
        "this package's operators": "airflow_provider_bubblehouse.operators.customers",
        "this package's sensors": "airflow_provider_bubblehouse.sensors.bubblehouse",
        "the HTTP provider's operator": "airflow.providers.http.operators.http",
    }
    code = f"import time; {_SDK}; start = time.perf_counter(); import {{}}; print(time.perf_counter() - start)"
    return {
        title: round(
            statistics.median(
                float(bench.python("-c", code.format(module)).splitlines()[-1]) for _ in range(_IMPORT_ROUNDS)
            )
            * 1000,
            1,
        )
        for title, module in modules.items()
    }


def as_markdown(results: dict[str, Any]) -> str:
    """Return the results as tables."""
    push = results["push"]
    floor, hook, csv_hook = (
        next(speed for title, speed in push.items() if title.startswith(start))
        for start in ("floor", "json.loads + HttpHook", "csv.DictReader")
    )
    lines = [
        f"{results['rows']:,} customers of {results['bytes_per_row']} bytes, batches of 1000, one run on one machine.",
        "",
        "| | rows/s | of the floor | × HttpHook |",
        "|---|--:|--:|--:|",
    ]
    for title, speed in push.items():
        beside = csv_hook if "CSV" in title or "csv" in title else hook
        lines.append(f"| {title} | {speed:,} | {speed / floor:.2f} | {speed / beside:.1f} |")
    shapes = (
        f"{SHAPE_ROWS:,} rows of the shapes that real files have. How many times the operator's CPU time a loop needs "
        "that is written for the shape and sends the same values with HttpHook:"
    )
    lines += [
        "",
        shapes,
        "",
        "| | all rows valid | 1 % invalid |",
        "|---|--:|--:|",
    ]
    lines += [f"| {title} | {ratio['valid']} | {ratio['1 % invalid']} |" for title, ratio in results["shapes"].items()]
    lines += ["", "| peak memory of `execute()`, MiB | all rows | 10,000 rows |", "|---|--:|--:|"]
    lines += [f"| {title} | {peak['all']} | {peak['few']} |" for title, peak in results["memory"].items()]
    one, eight = results["latency"].values()
    lag = results["triggers"]
    waiting = (
        "1,000 triggers in one event loop, against as many coroutines that only sleep: the loop's lag is "
        f"{lag['lag_ratio_median']} × in the median, {lag['lag_ratio_p99']} × in the 99th percentile."
    )
    imports = ", ".join(f"{title} {milliseconds}" for title, milliseconds in results["import"].items())
    late = (
        f"{LATENT_BATCHES} batches, each answered after {LATENCY * 1000:.0f} ms: {one} s with `in_flight=1`, "
        f"{eight} s with `in_flight=8`, {one / eight:.1f} × as fast."
    )
    stores = results["stores"]
    from_s3 = (
        f"From S3 (moto): {stores['rows_per_second']:,} rows/s in one pass, peak memory {stores['peak_mib']} MiB. "
        f"A glob over 1,000 objects makes {stores['requests_one_pass']:,} requests in one pass, and "
        f"{stores['requests_validated_first']:,} if it is validated first."
    )
    lines += [
        "",
        from_s3,
        "",
        late,
        "",
        f"Import beside what every DAG file imports, ms: {imports}.",
        "",
        waiting,
        "",
        *ledger.as_markdown(results["ledger"]),
    ]
    return "\n".join(lines) + "\n"


def main() -> None:
    """Measure, and write the results beside this file."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.run", description=__doc__)
    parser.add_argument("--rows", type=int, default=ROWS)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--base", help="a commit to compare some shapes with")
    options = parser.parse_args()
    results = measure(options.rows, options.rounds, options.base)
    (HERE / "results.json").write_text(json.dumps(results, indent=2) + "\n")
    table = as_markdown(results)
    (HERE / "results.md").write_text(table)
    print(table)


if __name__ == "__main__":
    main()
