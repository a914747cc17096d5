"""Split one large file into shards by customer, and push the shards in parallel."""

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
# All workers must be able to read it: with more than one worker, use a folder in an object store.
FOLDER = str(Path(tempfile.gettempdir()) / "bubblehouse_shards")
SHARDS = 4


def open_text(path: ObjectStoragePath, mode: str) -> TextIO:
    # Not path.open(): in Airflow 2 its result cannot be read line by line.
    return path.fs.open(path.path, mode, newline="", encoding="utf-8")


with DAG(
    dag_id="push_customers_in_shards",
    description="Push one large file to Bubblehouse with several parallel tasks",
    schedule="@daily",
    start_date=datetime(2026, 1, 1, tzinfo=UTC),
    catchup=False,
    max_active_runs=1,
    tags=["bubblehouse"],
):

    @task(retries=3)
    def split(source: str, folder: str) -> list[str]:
        """Write all rows of a customer into one shard, so that they arrive in order."""
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
    ).expand(path=split(SOURCE, f"{FOLDER}/{{{{ run_id }}}}"))
