"""The errors that tasks fail with. Airflow retries only a ``BubblehouseTransientError``."""

from __future__ import annotations

import logging
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
    from types import TracebackType

__all__ = [
    "BubblehouseError",
    "BubblehousePermanentError",
    "BubblehouseRateLimitError",
    "BubblehouseRejectedError",
    "BubblehouseTransientError",
    "add_counts",
    "add_no_retries_hint",
    "shorten_tracebacks",
]

log = logging.getLogger(__name__)


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


# Of the summary, what the text of an error ends with.
_COUNTS = ("read", "invalid", "unchanged", "accepted", "rejected", "unsent", "calls", "retries")


def add_counts(error: BubblehouseError) -> None:
    """
    Add the counts of the push to the text of an error that has them.

    :param error: what the task fails with; its text is changed.
    """
    if error.summary is not None:
        counts = ", ".join(f"{name} {error.summary[name]}" for name in _COUNTS)
        error.args = (f"{error} Counts: {counts}.",)


def shorten_tracebacks(error: BubblehouseError) -> None:
    """
    Clear the traceback of an error, and cut those of its causes to their last frame: they would fill the task's log.

    :param error: what the task fails with; raising it adds the frames from there on.
    """
    log.debug("Where it failed:", exc_info=error)
    errors: list[BaseException] = [error]
    seen: set[int] = set()
    while errors:
        one = errors.pop()
        if id(one) not in seen:
            seen.add(id(one))
            # Airflow 3 does not log a cause without a frame.
            one.__traceback__ = None if one is error else _last_frame(one.__traceback__)
            errors += filter(None, (one.__cause__, one.__context__))


def _last_frame(traceback: TracebackType | None) -> TracebackType | None:
    while traceback is not None and traceback.tb_next is not None:
        traceback = traceback.tb_next
    return traceback
