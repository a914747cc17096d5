"""Push the customers that have changed since the last successful push (Airflow 3.3 and later)."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

from airflow.sdk import DAG, Asset, task

from airflow_provider_bubblehouse.operators.customers import UpdateCustomersOperator

if TYPE_CHECKING:
    from airflow.sdk import Context

SHOP = Asset("bubblehouse://app.bubblehouse.com/my-shop/customers")
KEY = "push_changed_customers"  # each query needs its own watermark
WATERMARK = f"{{{{ asset_state_store.get('{KEY}', '1970-01-01T00:00:00+00:00') }}}}"


def advance(context: Context, result: Any) -> None:
    """Move the watermark. Airflow calls this only if the push has succeeded."""
    store = context["asset_state_store"][SHOP]
    upper = context["ti"].xcom_pull(task_ids="upper")
    # An old run that is cleared must not move the watermark back.
    store.set(KEY, max(upper, store.get(KEY, "")))


with DAG(
    dag_id="push_changed_customers",
    description="Push the customers that have changed since the last successful push to Bubblehouse",
    schedule="@hourly",
    start_date=datetime(2026, 1, 1, tzinfo=UTC),
    catchup=False,
    # Two runs at a time would start from the same watermark.
    max_active_runs=1,
    default_args={"retries": 3, "retry_delay": timedelta(minutes=2)},
    tags=["bubblehouse"],
):

    @task
    def upper() -> str:
        """Read the clock in a task of its own, so that a retry of the push runs the same query and can resume."""
        return datetime.now(UTC).isoformat()

    upper() >> UpdateCustomersOperator(
        task_id="push_customers",
        sql_conn_id="shop_database",
        # A transaction may commit rows that are older than the watermark, and the database's clock may be slow. So the
        # query goes back by more than the longest transaction and the difference between the clocks.
        sql="""
            SELECT
                CustomerId AS id,
                Email AS email,
                FirstName AS first_name,
                LastName AS last_name
            FROM Customer
            WHERE datetime(UpdatedAt) > datetime(:watermark, '-15 minutes') AND datetime(UpdatedAt) <= datetime(:upper)
            ORDER BY CustomerId
        """,
        sql_parameters={"watermark": WATERMARK, "upper": "{{ ti.xcom_pull(task_ids='upper') }}"},
        outlets=[SHOP],  # gives the task access to the asset's state
        post_execute=advance,
    )
