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
        """A placeholder for a query of the requests that came in."""
        return [{"id": "1001"}, {"email": "grace@example.com"}]

    DeleteCustomersOperator(
        task_id="delete_customers",
        customers=list_customers_to_forget(),
        # More rows than this are a mistake in the query; nothing is sent then.
        max_customers=100,
        retries=3,
        retry_delay=timedelta(minutes=2),
    )
