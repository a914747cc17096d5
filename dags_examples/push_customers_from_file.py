"""Push a CSV of customers to Bubblehouse, once a day."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path

from airflow.sdk import DAG

from airflow_provider_bubblehouse.operators.customers import UpdateCustomersOperator

with DAG(
    dag_id="push_customers_from_file",
    description="Push a CSV of customers to Bubblehouse",
    schedule="@daily",
    start_date=datetime(2026, 1, 1, tzinfo=UTC),
    catchup=False,
    # A late retry of one run must not overwrite what the next run has pushed since.
    max_active_runs=1,
    tags=["bubblehouse"],
):
    UpdateCustomersOperator(
        task_id="push_customers",
        path=str(Path(__file__).parent / "data" / "chinook_customers.csv"),
        column_map={
            "CustomerId": "id",
            "Email": "email",
            "Phone": "phone",
            "FirstName": "first_name",
            "LastName": "last_name",
            "Company": "extras.company",
            "City": "extras.city",
            "Country": "extras.country",
        },
        # Airflow's default is no retry, so a short outage of the API would fail the run.
        retries=3,
        retry_delay=timedelta(minutes=2),
    )
