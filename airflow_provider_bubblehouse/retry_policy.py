"""The retry contract as a retry policy of Airflow 3.3 and later, for any task that uses the hook, requests or httpx."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING, Any

from airflow_provider_bubblehouse.api.classifier import find_error
from airflow_provider_bubblehouse.exceptions import BubblehousePermanentError, BubblehouseTransientError

if TYPE_CHECKING:
    from airflow.sdk import RetryDecision, RetryPolicy
else:
    try:
        from airflow.sdk import RetryDecision, RetryPolicy
    except ImportError:  # before Airflow 3.3
        RetryDecision = None
        RetryPolicy = object

_LONGEST_WAIT = 3600.0  # seconds; a longer Retry-After must not hold the DAG run for a day


class BubblehouseRetryPolicy(RetryPolicy):
    """
    Retry transient errors, after ``Retry-After`` if the answer has one, and fail at once on permanent errors.

    Pass it as ``retry_policy=``, together with ``retries=``, which remains the limit. It decides errors of this package
    and of requests and httpx; Airflow's own rules apply to all others.

    :raises BubblehousePermanentError: before Airflow 3.3, which introduced retry policies.
    """

    def __init__(self) -> None:
        if RetryDecision is None:
            raise BubblehousePermanentError(
                "BubblehouseRetryPolicy needs Airflow 3.3 or later; leave retry_policy out."
            )

    def evaluate(self, exception: BaseException, try_number: int, max_tries: int, context: Any = None) -> RetryDecision:
        """Decide by the exception of the failed task."""
        error = find_error(exception)
        if error is None:
            return RetryDecision.default()
        if not isinstance(error, BubblehouseTransientError):
            return RetryDecision.fail(reason=str(error))
        wait = None if error.retry_after is None else timedelta(seconds=min(error.retry_after, _LONGEST_WAIT))
        return RetryDecision.retry(wait, reason=str(error))
