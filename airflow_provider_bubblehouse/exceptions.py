"""The errors that tasks fail with. Airflow retries only a ``BubblehouseTransientError``."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from airflow_provider_bubblehouse.airflow_compat import AirflowFailException
from airflow_provider_bubblehouse.errors import (
    BubblehouseError,
    BubblehouseTransientError,
    PermanentError,
    RateLimitError,
    RejectedError,
)

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = [
    "BubblehouseError",
    "BubblehousePermanentError",
    "BubblehouseRateLimitError",
    "BubblehouseRejectedError",
    "BubblehouseTransientError",
    "add_no_retries_hint",
]


class BubblehousePermanentError(PermanentError, AirflowFailException, raised_for=PermanentError):
    """An error that a retry cannot fix. Airflow fails the task at once, whatever its ``retries``."""


class BubblehouseRejectedError(BubblehousePermanentError, RejectedError, raised_for=RejectedError):
    """The API rejected the data (400 or 422). It has processed the rows, so they must not be sent again."""


class BubblehouseRateLimitError(BubblehousePermanentError, RateLimitError, raised_for=RateLimitError):
    """The rate limit was exceeded (429). The rows were not processed, but a 4xx is not retried."""


def add_no_retries_hint(error: BubblehouseTransientError, context: Mapping[str, Any]) -> None:
    """
    Add a hint to the error of a task's last try: Airflow's default is ``retries=0``.

    :param error: the error that the task fails with; its message is changed.
    :param context: the context of the task.
    """
    task_instance = context.get("ti")
    if task_instance is not None and task_instance.try_number > task_instance.max_tries:
        error.args = (f"{error} This was the task's last try; set retries= to have this retried.",)
