"""Alert the data team about rejected data, and the engineer on call about an outage."""

from __future__ import annotations

import logging
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING

from airflow.sdk import DAG, BaseNotifier

from airflow_provider_bubblehouse.callbacks import on_permanent_failure, on_transient_failure
from airflow_provider_bubblehouse.operators.customers import UpdateCustomersOperator

if TYPE_CHECKING:
    from airflow.sdk import Context

log = logging.getLogger(__name__)


class LogNotifier(BaseNotifier):
    """A placeholder for a notifier of Slack, SMTP or PagerDuty, which is used in the same way."""

    template_fields = ("text",)

    def __init__(self, text: str) -> None:
        super().__init__()
        self.text = text

    def notify(self, context: Context) -> None:
        log.warning("%s", self.text)


notify_data_team = LogNotifier(
    "{{ bubblehouse.message }} Rejected rows: {{ bubblehouse.summary.rejected if bubblehouse.summary else 0 }}."
)


def page_engineer(context: Context) -> None:
    """A placeholder for a call to a pager. Do not wake anybody while Airflow still retries the task."""
    if not context["bubblehouse"]["will_retry"]:
        log.error("%s", context["bubblehouse"]["message"])


with DAG(
    dag_id="send_alerts",
    description="Push customers to Bubblehouse and send alerts when it fails",
    schedule="@daily",
    start_date=datetime(2026, 1, 1, tzinfo=UTC),
    catchup=False,
    max_active_runs=1,
    default_args={
        "retries": 3,
        "retry_delay": timedelta(minutes=2),
        "on_failure_callback": [on_permanent_failure(notify_data_team), on_transient_failure(page_engineer)],
    },
    tags=["bubblehouse"],
):
    UpdateCustomersOperator(
        task_id="push_customers",
        path=str(Path(__file__).parent / "data" / "chinook_customers.csv"),
        column_map={"CustomerId": "id", "Email": "email", "FirstName": "first_name", "LastName": "last_name"},
    )
