"""Call another function of the API with Airflow's HTTP operator, with the same rule for retries."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from airflow.providers.http.operators.http import HttpOperator
from airflow.sdk import DAG

from airflow_provider_bubblehouse.callbacks import check_response

with DAG(
    dag_id="call_with_http_operator",
    description="Call Bubblehouse with the HTTP operator",
    schedule=None,
    start_date=datetime(2026, 1, 1, tzinfo=UTC),
    catchup=False,
    max_active_runs=1,
    tags=["bubblehouse"],
):
    HttpOperator(
        task_id="call",
        # A connection of type HTTP with the host https://app.bubblehouse.com and the shop token as password.
        http_conn_id="bubblehouse_http",
        endpoint="api/v20230601/my-shop/Status2",
        method="POST",
        data="{}",
        headers={"Content-Type": "application/json", "Authorization": "Bearer {{ conn.bubblehouse_http.password }}"},
        response_check=check_response,
        extra_options={
            "check_response": False,  # otherwise Airflow retries a 400 like a 503
            "allow_redirects": False,
            "timeout": 60,  # the operator has no timeout by default
        },
        retries=3,
        retry_delay=timedelta(minutes=2),
    )
