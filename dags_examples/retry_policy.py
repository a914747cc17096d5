"""Give a task that uses the hook, requests or httpx the contract of retries (Airflow 3.3 and later)."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

from airflow.sdk import DAG, task

from airflow_provider_bubblehouse.hooks.bubblehouse import BubblehouseHook
from airflow_provider_bubblehouse.retry_policy import BubblehouseRetryPolicy

try:
    from airflow.sdk import RetryPolicy  # noqa: F401
except ImportError:  # an Airflow before 3.3 retries by number only, and takes no retry_policy
    policy: dict[str, Any] = {}
else:
    policy = {"retry_policy": BubblehouseRetryPolicy()}

with DAG(
    dag_id="retry_policy",
    description="Call Bubblehouse from a function, with retries by the answer",
    schedule=None,
    start_date=datetime(2026, 1, 1, tzinfo=UTC),
    catchup=False,
    max_active_runs=1,
    tags=["bubblehouse"],
):
    # A 5xx is retried, after its Retry-After where it has one; a 4xx is not, whichever library raised it.
    @task(retries=3, retry_delay=timedelta(minutes=2), **policy)
    def call() -> None:
        """Stand in for a function of yours that calls the API."""
        BubblehouseHook().status()

    call()
