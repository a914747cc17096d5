"""Extract customers with a TaskFlow task and push what it returns to Bubblehouse."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from airflow.sdk import DAG, task

from airflow_provider_bubblehouse.operators.customers import UpdateCustomersOperator

with DAG(
    dag_id="push_customers_from_xcom",
    description="Push the customers that another task returns to Bubblehouse",
    schedule="@hourly",
    start_date=datetime(2026, 1, 1, tzinfo=UTC),
    catchup=False,
    max_active_runs=1,
    tags=["bubblehouse"],
):

    @task(show_return_value_in_logs=False)  # they are personal data
    def extract_customers() -> list[dict[str, object]]:
        """A placeholder for a query of your warehouse. Airflow stores what a task returns in its database."""
        return [
            {
                "id": "1001",
                "email": "ada@example.com",
                "first_name": "Ada",
                "tags": ["vip"],
                "signed_up_at": "2026-01-15T10:30:00",
                "total_spent": 129.90,
            },
            {"id": "1002", "email": "grace@example.com", "first_name": "Grace", "birthday": "0000-12-09"},
        ]

    UpdateCustomersOperator(
        task_id="push_customers",
        customers=extract_customers(),
        timezone="Europe/Berlin",
        retries=3,
        retry_delay=timedelta(minutes=2),
    )
