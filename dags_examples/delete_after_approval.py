"""Delete customers from Bubblehouse after somebody has approved how many (Airflow 3.1 and later)."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from airflow.providers.standard.operators.hitl import ApprovalOperator
from airflow.sdk import DAG, task

from airflow_provider_bubblehouse.operators.customers import DeleteCustomersOperator

COUNT = "{{ ti.xcom_pull(task_ids='count_customers')['read'] }}"

with DAG(
    dag_id="delete_after_approval",
    description="Delete customers from Bubblehouse after somebody has approved how many",
    schedule=None,
    start_date=datetime(2026, 1, 1, tzinfo=UTC),
    catchup=False,
    max_active_runs=1,
    default_args={"retries": 3, "retry_delay": timedelta(minutes=2)},
    tags=["bubblehouse"],
):

    @task(show_return_value_in_logs=False)  # they are personal data
    def list_customers_to_forget() -> list[dict[str, str]]:
        """Stand in for a query of the requests that came in."""
        return [{"id": "1001"}, {"email": "grace@example.com"}]

    customers = list_customers_to_forget()

    # A dry run validates every row and calls nothing.
    count = DeleteCustomersOperator(task_id="count_customers", customers=customers, max_customers=100, dry_run=True)

    # "Reject" skips the deletion.
    approval = ApprovalOperator(
        task_id="approve_deletion",
        subject=f"Delete {COUNT} customers from Bubblehouse?",
        body="A dry run has counted them. A deletion cannot be undone.",
    )

    deletion = DeleteCustomersOperator(
        task_id="delete_customers",
        customers=customers,
        # If there are more by now than were approved, nothing is sent.
        max_customers=COUNT,
    )

    count >> approval >> deletion
