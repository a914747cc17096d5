"""Tell the data team of data that is refused, and whoever is on call of an outage."""

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
    """Stands in for a notifier of Slack, SMTP or PagerDuty, which is used in the same way."""

    template_fields = ("text",)

    def __init__(self, text: str) -> None:
        super().__init__()
        self.text = text

    def notify(self, context: Context) -> None:
        log.warning("%s", self.text)


tell_the_data_team = LogNotifier(
    "{{ bubblehouse.message }} Refused: {{ bubblehouse.summary.rejected if bubblehouse.summary else 'nothing' }}."
)


def page_the_engineer(context: Context) -> None:
    """Stand in for a call of the pager; a retry that is still to come is no reason to wake anybody."""
    if not context["bubblehouse"]["will_retry"]:
        log.error("%s", context["bubblehouse"]["message"])


with DAG(
    dag_id="tell_who_can_help",
    description="Push customers to Bubblehouse and tell who can help when it fails",
    schedule="@daily",
    start_date=datetime(2026, 1, 1, tzinfo=UTC),
    catchup=False,
    max_active_runs=1,
    default_args={
        "retries": 3,
        "retry_delay": timedelta(minutes=2),
        "on_failure_callback": [on_permanent_failure(tell_the_data_team), on_transient_failure(page_the_engineer)],
    },
    tags=["bubblehouse"],
):
    UpdateCustomersOperator(
        task_id="push_customers",
        path=str(Path(__file__).parent / "data" / "chinook_customers.csv"),
        column_map={"CustomerId": "id", "Email": "email", "FirstName": "first_name", "LastName": "last_name"},
    )
