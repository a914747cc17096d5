"""Cut one large file into shards by customer, and push the shards side by side."""

from __future__ import annotations

import csv
import tempfile
from contextlib import ExitStack
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TextIO
from zlib import crc32

from airflow.sdk import DAG, ObjectStoragePath, task

from airflow_provider_bubblehouse.operators.customers import UpdateCustomersOperator

SOURCE = str(Path(__file__).parent / "data" / "chinook_customers.csv")
# Where all workers can read: with more than one of them, a folder in an object store.
FOLDER = str(Path(tempfile.gettempdir()) / "bubblehouse_shards")
SHARDS = 4


def open_text(path: ObjectStoragePath, mode: str) -> TextIO:
    # Not path.open(), which in Airflow 2 gives what cannot be read line by line.
    return path.fs.open(path.path, mode, newline="", encoding="utf-8")


with DAG(
    dag_id="push_customers_in_shards",
    description="Push one large file to Bubblehouse with several tasks at a time",
    schedule="@daily",
    start_date=datetime(2026, 1, 1, tzinfo=UTC),
    catchup=False,
    max_active_runs=1,
    tags=["bubblehouse"],
):

    @task(retries=3)
    def cut(source: str, folder: str) -> list[str]:
        """All rows of one customer go into one shard, in their order; so they arrive in it."""
        ObjectStoragePath(folder).mkdir(parents=True, exist_ok=True)
        shards = [ObjectStoragePath(folder) / f"{shard}.csv" for shard in range(SHARDS)]
        with ExitStack() as stack:
            rows = csv.DictReader(stack.enter_context(open_text(ObjectStoragePath(source), "r")))
            writers = [csv.DictWriter(stack.enter_context(open_text(one, "w")), rows.fieldnames) for one in shards]
            for writer in writers:
                writer.writeheader()
            for row in rows:
                writers[crc32(row["CustomerId"].encode()) % SHARDS].writerow(row)
        return [str(shard) for shard in shards]

    UpdateCustomersOperator.partial(
        task_id="push_shard",
        column_map={"CustomerId": "id", "Email": "email", "FirstName": "first_name", "LastName": "last_name"},
        pool="bubblehouse",  # airflow pools set bubblehouse 4 "calls to Bubblehouse"
        retries=3,
        retry_delay=timedelta(minutes=2),
    ).expand(path=cut(SOURCE, f"{FOLDER}/{{{{ run_id }}}}"))
