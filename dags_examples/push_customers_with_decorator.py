"""Push what a TaskFlow function returns. Airflow's database stores no customer."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from airflow.sdk import DAG, task

with DAG(
    dag_id="push_customers_with_decorator",
    description="Push the customers that a function returns to Bubblehouse",
    schedule="@hourly",
    start_date=datetime(2026, 1, 1, tzinfo=UTC),
    catchup=False,
    max_active_runs=1,
    default_args={"retries": 3, "retry_delay": timedelta(minutes=2)},
    tags=["bubblehouse"],
):

    @task.bubblehouse_customers(timezone="Europe/Berlin")
    def push_customers() -> list[dict[str, object]]:
        """A placeholder for a query of your warehouse."""
        return [
            {"id": "1001", "email": "ada@example.com", "first_name": "Ada", "signed_up_at": "2026-01-15T10:30:00"},
            {"id": "1002", "email": "grace@example.com", "first_name": "Grace"},
        ]

    push_customers()
