"""
`make demo`: a sandbox, a throw-away Airflow, and the file example pushed from one into the other.

All of it lives in a temporary folder and in this process and its children, and is gone when it ends, also on Ctrl-C.
The last line is the operator's summary, read from Airflow's own XCom table.
"""

from __future__ import annotations

import json
import os
import signal
import sqlite3
import subprocess
import sys
import tempfile
from contextlib import closing
from pathlib import Path

from airflow_provider_bubblehouse.sandbox import Sandbox

ROOT = Path(__file__).resolve().parent.parent
DAG_ID = "push_customers_from_file"
ROWS_IN_FILE = 59


def main() -> int:
    """Run the demo and return the process's exit code."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    with tempfile.TemporaryDirectory(prefix="bubblehouse-demo-") as home, Sandbox() as sandbox:
        print(f"The sandbox stands in for Bubblehouse at {sandbox.url}", flush=True)
        database = Path(home) / "airflow.db"
        environment = airflow_environment(home, database) | {
            "AIRFLOW_CONN_BUBBLEHOUSE_DEFAULT": sandbox.connection(),
        }
        airflow("db", "migrate", env=environment, quiet=True)
        airflow("dags", "test", DAG_ID, env=environment)
        summary = read_summary(database)
        show(sandbox.customers())
        print(json.dumps(summary), flush=True)
        arrived = len(sandbox.customers())
    return 0 if summary["read"] == summary["accepted"] == arrived == ROWS_IN_FILE else 1


def airflow_environment(home: str, database: Path) -> dict[str, str]:
    """Return the environment of an Airflow that touches nothing outside a folder."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("AIRFLOW_")}
    return kept | {
        "AIRFLOW_HOME": home,
        "AIRFLOW__DATABASE__SQL_ALCHEMY_CONN": f"sqlite:///{database}",
        "AIRFLOW__CORE__DAGS_FOLDER": str(ROOT / "dags_examples"),
        "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
        "NO_PROXY": "127.0.0.1",
    }


def airflow(*arguments: str, env: dict[str, str], quiet: bool = False) -> None:
    """Run an Airflow command; what it prints is shown, if quiet only where it fails."""
    command = [sys.executable, "-m", "airflow", *arguments]
    print(f"airflow {' '.join(arguments)}", flush=True)
    done = subprocess.run(
        command, env=env, check=False, text=True, stdout=subprocess.PIPE if quiet else None, stderr=subprocess.STDOUT
    )
    if done.returncode:
        print(done.stdout or "", file=sys.stderr)
        raise SystemExit(f"airflow {' '.join(arguments)} failed with exit code {done.returncode}.")


def read_summary(database: Path) -> dict[str, int]:
    """Return what the operator gave to XCom."""
    with closing(sqlite3.connect(database)) as connection:
        row = connection.execute(
            "SELECT value FROM xcom WHERE dag_id = ? AND key = 'return_value'", (DAG_ID,)
        ).fetchone()
    if row is None:
        raise SystemExit("The task left no summary; see its log above.")
    return json.loads(row[0])


def show(customers: list[dict[str, object]]) -> None:
    """Print what arrived, a line a customer."""
    print(f"\n{len(customers)} customers are in the sandbox now:")
    for customer in customers:
        extras = customer.get("extras") or {}
        name = f"{customer.get('first_name')} {customer.get('last_name')}"
        place = ", ".join(str(extras[key]) for key in ("city", "country") if key in extras)
        print(f"  {customer.get('id'):>4}  {name:<24} {customer.get('email'):<34} {place}")


if __name__ == "__main__":
    try:
        sys.exit(main())
    except KeyboardInterrupt:
        sys.exit(130)
