"""Push when the API responds, and continue when the customers can be read back."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from airflow.sdk import DAG, task

from airflow_provider_bubblehouse.operators.customers import UpdateCustomersOperator
from airflow_provider_bubblehouse.sensors.bubblehouse import BubblehouseCustomerSensor, BubblehouseStatusSensor

with DAG(
    dag_id="wait_for_customers",
    description="Push customers to Bubblehouse and wait until they have been processed",
    schedule="@daily",
    start_date=datetime(2026, 1, 1, tzinfo=UTC),
    catchup=False,
    max_active_runs=1,
    default_args={"retries": 3, "retry_delay": timedelta(minutes=2)},
    tags=["bubblehouse"],
):
    # The triggerer waits until an outage ends. A token that is not accepted fails at once.
    api_responds = BubblehouseStatusSensor(
        task_id="api_responds",
        on_unavailable="wait",
        poke_interval=60,
        timeout=timedelta(hours=6),
        deferrable=True,
    )

    @task(show_return_value_in_logs=False)  # they are personal data
    def extract_customers() -> list[dict[str, object]]:
        """A placeholder for a query of your warehouse."""
        return [{"id": "1001", "tags": ["vip"]}, {"id": "1002", "tags": ["vip"]}, {"id": "1003", "tags": ["vip"]}]

    @task(show_return_value_in_logs=False)  # they are personal data
    def take_sample(customers: list[dict[str, object]]) -> list[dict[str, object]]:
        """Return some of the customers, because the sensor makes one call for each."""
        return [{"shop_id": customer["id"]} for customer in customers[-2:]]

    customers = extract_customers()
    push = UpdateCustomersOperator(task_id="push_customers", customers=customers)
    processed = BubblehouseCustomerSensor(
        task_id="customers_processed",
        identity=take_sample(customers),
        expected={"tags": ["vip"]},
        poke_interval=10,
        timeout=timedelta(minutes=15),
        deferrable=True,
    )
    api_responds >> push >> processed
