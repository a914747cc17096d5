"""The errors that tasks fail with. Airflow retries a ``BubblehouseTransientError`` and no other one."""

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
    """A retry cannot help: Airflow fails the task at once, whatever its ``retries``."""


class BubblehouseRejectedError(BubblehousePermanentError, RejectedError, raised_for=RejectedError):
    """The API refused the data itself (400 or 422). It has processed the rows; they must not be pushed again."""


class BubblehouseRateLimitError(BubblehousePermanentError, RateLimitError, raised_for=RateLimitError):
    """429 ``rate_limit_exceeded``: the data was not processed, but a 4xx is not retried."""


def add_no_retries_hint(error: BubblehouseTransientError, context: Mapping[str, Any]) -> None:
    """
    Add to the error of a task's last try that ``retries=`` would retry it: Airflow's default is no retry.

    :param error: what the task fails with; its text is changed.
    :param context: the task's context.
    """
    task_instance = context.get("ti")
    if task_instance is not None and task_instance.try_number > task_instance.max_tries:
        error.args = (f"{error} This was the task's last try; set retries= to have this retried.",)
