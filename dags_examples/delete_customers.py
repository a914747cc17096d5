"""Delete customers from Bubblehouse who asked the shop to be forgotten."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from airflow.sdk import DAG, task

from airflow_provider_bubblehouse.operators.customers import DeleteCustomersOperator

with DAG(
    dag_id="delete_customers",
    description="Delete customers from Bubblehouse",
    schedule=None,
    start_date=datetime(2026, 1, 1, tzinfo=UTC),
    catchup=False,
    max_active_runs=1,
    tags=["bubblehouse"],
):

    @task(show_return_value_in_logs=False)  # they are personal data
    def list_customers_to_forget() -> list[dict[str, str]]:
        """Stand in for a query of the requests that came in."""
        return [{"id": "1001"}, {"email": "grace@example.com"}]

    DeleteCustomersOperator(
        task_id="delete_customers",
        customers=list_customers_to_forget(),
        # More than a day's worth of requests is a mistake in the query, and nothing is sent.
        max_customers=100,
        retries=3,
        retry_delay=timedelta(minutes=2),
    )
