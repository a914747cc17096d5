"""Push each file of a folder in its own task, limited by a pool."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path

from airflow.sdk import DAG, ObjectStoragePath, task

from airflow_provider_bubblehouse.operators.customers import UpdateCustomersOperator

# For an object store: "s3://my_aws_connection@my-bucket/customers"
FOLDER = str(Path(__file__).parent / "data")

with DAG(
    dag_id="push_customers_from_many_files",
    description="Push each file of a folder to Bubblehouse in its own task",
    schedule="@daily",
    start_date=datetime(2026, 1, 1, tzinfo=UTC),
    catchup=False,
    max_active_runs=1,
    tags=["bubblehouse"],
):

    @task
    def list_files() -> list[str]:
        return sorted(str(file) for file in ObjectStoragePath(FOLDER).iterdir() if file.suffix == ".csv")

    # There is no order between files, so all updates of a customer have to be in one file.
    UpdateCustomersOperator.partial(
        task_id="push_file",
        column_map={"CustomerId": "id", "Email": "email", "FirstName": "first_name", "LastName": "last_name"},
        # The pool limits the calls of all DAGs together: airflow pools set bubblehouse 4 "calls to Bubblehouse"
        pool="bubblehouse",
        retries=3,
        retry_delay=timedelta(minutes=2),
    ).expand(path=list_files())
