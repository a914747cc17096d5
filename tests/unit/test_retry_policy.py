"""The retry policy: its decisions, and its error on an Airflow without retry policies."""

from __future__ import annotations

from datetime import timedelta

import pytest

from airflow_provider_bubblehouse.airflow_compat import AirflowException
from airflow_provider_bubblehouse.exceptions import (
    BubblehousePermanentError,
    BubblehouseRateLimitError,
    BubblehouseTransientError,
)
from airflow_provider_bubblehouse.retry_policy import BubblehouseRetryPolicy

try:
    from airflow.sdk import RetryAction
except ImportError:
    RetryAction = None

needs_policies = pytest.mark.skipif(RetryAction is None, reason="this Airflow has no retry policies")


def decide(exception: BaseException):
    return BubblehouseRetryPolicy().evaluate(exception, 1, 3)


@pytest.mark.skipif(RetryAction is not None, reason="this Airflow has retry policies")
def test_before_airflow_3_3_it_names_the_version_that_it_needs():
    with pytest.raises(BubblehousePermanentError, match=r"needs Airflow 3\.3"):
        BubblehouseRetryPolicy()


@needs_policies
@pytest.mark.parametrize(("asked", "wait"), [(None, None), (0, 0), (7.5, 7.5), (1e9, 3600)])
def test_a_transient_error_is_retried_after_the_wait_in_the_answer(asked, wait):
    decision = decide(BubblehouseTransientError("It is down.", retry_after=asked))
    assert decision.action is RetryAction.RETRY
    assert decision.retry_delay == (None if wait is None else timedelta(seconds=wait))
    assert decision.reason == "It is down."


@needs_policies
@pytest.mark.parametrize("kind", [BubblehousePermanentError, BubblehouseRateLimitError])
def test_a_permanent_error_is_not_retried_even_with_retry_after(kind):
    wrapped = AirflowException("wrapped")
    wrapped.__cause__ = kind("Over the limit.", retry_after=1)
    decision = decide(wrapped)
    assert (decision.action, decision.reason) == (RetryAction.FAIL, "Over the limit.")


@needs_policies
@pytest.mark.parametrize("exception", [KeyError("x"), AirflowException("404:Not Found"), ConnectionResetError()])
def test_airflow_decides_about_other_errors(exception):
    assert decide(exception).action is RetryAction.DEFAULT
