"""Retry a task that uses the hook, requests or httpx by the response (Airflow 3.3 and later)."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

from airflow.sdk import DAG, task

from airflow_provider_bubblehouse.hooks.bubblehouse import BubblehouseHook
from airflow_provider_bubblehouse.retry_policy import BubblehouseRetryPolicy

try:
    from airflow.sdk import RetryPolicy  # noqa: F401
except ImportError:  # before Airflow 3.3 there is no retry_policy
    policy: dict[str, Any] = {}
else:
    policy = {"retry_policy": BubblehouseRetryPolicy()}

with DAG(
    dag_id="retry_policy",
    description="Call Bubblehouse from a function, with retries by the response",
    schedule=None,
    start_date=datetime(2026, 1, 1, tzinfo=UTC),
    catchup=False,
    max_active_runs=1,
    tags=["bubblehouse"],
):
    # A 5xx is retried, after its Retry-After if it has one. A 4xx is not, whichever library raised it.
    @task(retries=3, retry_delay=timedelta(minutes=2), **policy)
    def call() -> None:
        """A placeholder for your function that calls the API."""
        BubblehouseHook().status()

    call()
