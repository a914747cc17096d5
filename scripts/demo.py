"""
`make demo`: start a sandbox and a throw-away Airflow, and push the example file from one to the other.

Everything lives in a temporary folder and in this process and its children, and is deleted at the end, also after
Ctrl-C. Airflow's own output is shown only if a command fails. The last line is the summary of the push, read from
Airflow's XCom table.
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
from typing import NoReturn

ROOT = Path(__file__).resolve().parent.parent
DAG_ID = "push_customers_from_file"
FILE = "dags_examples/data/chinook_customers.csv"
ROWS_IN_FILE = 59
CUSTOMERS_SHOWN = 5


class Interrupted(BaseException):
    """SIGINT or SIGTERM arrived."""


def interrupt(number: int, _frame: object) -> NoReturn:
    """Raise ``Interrupted``; a second signal must not stop the cleanup."""
    for each in (signal.SIGINT, signal.SIGTERM):
        signal.signal(each, signal.SIG_IGN)
    raise Interrupted(number)


def main() -> int:
    """Run the demo and return the exit code."""
    from airflow_provider_bubblehouse.sandbox import Sandbox

    say("Bubblehouse demo. It takes about 15 seconds, and leaves nothing behind.")
    with tempfile.TemporaryDirectory(prefix="bubblehouse-demo-") as home, Sandbox() as sandbox:
        say(f"1. Started the sandbox, a local stand-in for the Bubblehouse API, at {sandbox.url}.")
        database = Path(home) / "airflow.db"
        environment = airflow_environment(home, database) | {"AIRFLOW_CONN_BUBBLEHOUSE_DEFAULT": sandbox.connection()}
        say("2. Creating the database of a new Airflow: airflow db migrate")
        airflow("db", "migrate", env=environment)
        say(f"3. Running the DAG dags_examples/{DAG_ID}.py: airflow dags test {DAG_ID}")
        say(f"   It pushes {FILE}.")
        airflow("dags", "test", DAG_ID, env=environment)
        customers, summary = sandbox.customers(), read_summary(database)
    show(customers)
    say("\nThe summary of the push, which is the result of the task:")
    say(json.dumps(summary))
    return 0 if summary["read"] == summary["accepted"] == len(customers) == ROWS_IN_FILE else 1


def say(text: str) -> None:
    """Print a line at once."""
    print(text, flush=True)


def airflow_environment(home: str, database: Path) -> dict[str, str]:
    """Return the environment of an Airflow that writes to one folder only."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("AIRFLOW_")}
    return kept | {
        "AIRFLOW_HOME": home,
        "AIRFLOW__DATABASE__SQL_ALCHEMY_CONN": f"sqlite:///{database}",
        "AIRFLOW__CORE__DAGS_FOLDER": str(ROOT / "dags_examples"),
        "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
        "NO_PROXY": "127.0.0.1",
    }


def airflow(*arguments: str, env: dict[str, str]) -> None:
    """
    Run an Airflow command.

    :raises SystemExit: if it fails, after its output is printed.
    """
    # In a session of its own, so that Ctrl-C does not reach it: its traceback would hide the one line of this script.
    process = subprocess.Popen(
        [sys.executable, "-m", "airflow", *arguments],
        env=env,
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        start_new_session=True,
    )
    try:
        output, _ = process.communicate()
    except BaseException:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        raise
    if process.returncode:
        print(output, file=sys.stderr)
        raise SystemExit(f"airflow {' '.join(arguments)} failed with exit code {process.returncode}; see above.")


def read_summary(database: Path) -> dict[str, int]:
    """Return the result of the task from XCom."""
    with closing(sqlite3.connect(database)) as connection:
        row = connection.execute(
            "SELECT value FROM xcom WHERE dag_id = ? AND key = 'return_value'", (DAG_ID,)
        ).fetchone()
    if row is None:
        raise SystemExit("The task has no result.")
    return json.loads(row[0])


def show(customers: list[dict[str, object]]) -> None:
    """Print the first customers that arrived, one a line."""
    say(f"\n{len(customers)} customers arrived in the sandbox:")
    for customer in customers[:CUSTOMERS_SHOWN]:
        extras = customer.get("extras") or {}
        name = f"{customer.get('first_name')} {customer.get('last_name')}"
        place = ", ".join(str(extras[key]) for key in ("city", "country") if key in extras)
        say(f"  {customer.get('id'):>4}  {name:<24} {customer.get('email'):<34} {place}")
    if len(customers) > CUSTOMERS_SHOWN:
        say(f"  and {len(customers) - CUSTOMERS_SHOWN} more")


if __name__ == "__main__":
    # Before anything slow is imported. A shell script starts its background jobs with SIGINT ignored.
    for each in (signal.SIGINT, signal.SIGTERM):
        signal.signal(each, interrupt)
    try:
        sys.exit(main())
    except Interrupted as interrupted:
        print("The demo was interrupted; everything that it started is stopped and deleted.", file=sys.stderr)
        sys.exit(128 + interrupted.args[0])
