"""
The retry contract for tasks of any operator: a check for the official HTTP operator and sensor, and callbacks.

They report a rejected batch to the people who own the data, and an outage to whoever is on call::

    on_failure_callback=[on_permanent_failure(tell_the_data_team), on_transient_failure(page_the_engineer)]
"""

from __future__ import annotations

import copy
import logging
from typing import TYPE_CHECKING, Any

from airflow_provider_bubblehouse.api.classifier import answer_of, classify, find_error
from airflow_provider_bubblehouse.exceptions import (
    BubblehouseError,
    BubblehousePermanentError,
    BubblehouseTransientError,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    Callback = Callable[[Any], Any]

log = logging.getLogger(__name__)


def check_response(response: Any) -> bool:
    """
    Apply the contract to a task of the official ``HttpOperator`` or ``HttpSensor``, as its ``response_check``.

    Turn their own check off, because it raises the same error for every status. Do not follow redirects, and set a
    timeout, because they have none::

        HttpOperator(
            response_check=check_response,
            extra_options={"check_response": False, "allow_redirects": False, "timeout": 60},
            ...,
        )

    It sees responses only; requests raises network errors itself, and Airflow retries them. The trigger of a deferrable
    ``HttpOperator`` does not call it, and a deferrable ``HttpSensor`` with a check does not defer. To wait for a
    customer or for the API, use ``BubblehouseCustomerSensor`` or ``BubblehouseStatusSensor``.

    :param response: the response of requests or httpx.
    :return: True for an accepted call.
    :raises BubblehouseTransientError: for a response that a retry can fix.
    :raises BubblehousePermanentError: for any other error; Airflow fails the task at once.
    """
    error = classify(answer_of(response))
    if error is not None:
        raise error
    return True


def on_permanent_failure(callback: Callback | Sequence[Callback]) -> Callback:
    """
    Call a callback only for a failure that a retry cannot fix: bad data, a bad token, a wrong setting, a bug.

    For ``on_failure_callback`` and ``on_retry_callback`` of any task or DAG. Of this wrapper and
    ``on_transient_failure``, exactly one calls its callbacks each time Airflow calls both. Errors of this package,
    requests and httpx are classified by their response, even behind the error of another hook; a timeout is transient;
    any other error, such as a missing connection or a ``KeyError``, is permanent. So is the failure of a DAG run, for
    which Airflow passes no error.

    The callback finds in ``context["bubblehouse"]``:

    - ``status``: the HTTP status, None if there was no response,
    - ``error_id``: the ``id`` of the API's error, or None,
    - ``retryable``: whether a retry can help,
    - ``will_retry``: whether Airflow will retry the task; it also retries unknown errors,
    - ``attempts``: how many calls failed,
    - ``summary``: the counts of the push, or None,
    - ``message``: one sentence about the task and what happened, without any customer's value.

    If the callback raises an error, it is logged.

    :param callback: a function of the context, a notifier, or a list of such.
    """
    return _callback_for(callback, retryable=False)


def on_transient_failure(callback: Callback | Sequence[Callback]) -> Callback:
    """
    Call a callback only for a failure that a retry can fix: a 5xx, a network error, a timeout, or a killed process.

    If a process was killed, Airflow passes no error, and this wrapper calls its callback. Airflow 3 calls no callback
    of the task at all if only the task's own process was killed. Otherwise as ``on_permanent_failure``.

    :param callback: a function of the context, a notifier, or a list of such.
    """
    return _callback_for(callback, retryable=True)


def _callback_for(callback: Callback | Sequence[Callback], *, retryable: bool) -> Callback:
    callbacks = [callback] if callable(callback) else list(callback)

    def call(context: Any) -> None:
        try:
            outcome = _outcome(context)
            if outcome["retryable"] is not retryable:
                return
            context["bubblehouse"] = outcome
        except Exception:
            log.exception("The context of this callback cannot be read; no callback is called.")
            return
        for one in callbacks:
            try:
                # A notifier renders itself: the next task that shares it would get this one's text.
                (copy.copy(one) if hasattr(one, "template_fields") else one)(context)
            except Exception:
                log.exception("A callback failed.")

    return call


def _outcome(context: Any) -> dict[str, Any]:
    """Return what a wrapped callback finds in its context."""
    error = _classify_failure(context)
    will_retry = _will_retry(context)
    return {
        "status": error.status,
        "error_id": error.error_id,
        "retryable": not isinstance(error, BubblehousePermanentError),
        "will_retry": will_retry,
        "attempts": error.attempts,
        "summary": None if error.summary is None else dict(error.summary),
        "message": f"{_subject(context)} failed and will {'' if will_retry else 'not '}be retried: {error}",
    }


def _classify_failure(context: Any) -> BubblehouseError:
    """Return what a failure means. If another process reports it, there is a text, or nothing, but no exception."""
    exception = context.get("exception")
    if isinstance(exception, BaseException):
        return _classify_exception(exception)
    reason = context.get("reason")  # only callbacks of a DAG have one
    if reason is not None:
        return BubblehousePermanentError(f"The DAG run failed ({reason}); see the logs of its failed tasks.")
    return BubblehouseTransientError("Airflow reported no error, which happens if a process was killed.")


def _classify_exception(exception: BaseException) -> BubblehouseError:
    name = type(exception).__name__
    if _is_interruption(exception):
        return BubblehouseTransientError(f"{name} interrupted the task.")
    try:
        error = find_error(exception)
    except Exception:
        log.exception("%s cannot be classified.", name)
        error = None
    # The error's own text may hold a customer's value.
    return error or BubblehousePermanentError(f"{name}, which is not the error of a call; see the log of the task.")


# By name, because Airflow versions have these classes in different modules, or not at all.
_INTERRUPTIONS = {"AirflowSensorTimeout", "AirflowTaskTerminated", "AirflowTaskTimeout", "TaskDeferralTimeout"}
_NEVER_RETRIED = {"AirflowFailException", "AirflowSensorTimeout"}


def _is_a(exception: object, names: set[str]) -> bool:
    return any(kind.__name__ in names for kind in type(exception).__mro__)


def _is_interruption(exception: BaseException) -> bool:
    if _is_a(exception, {"TaskDeferralError"}):
        return str(exception) == "Trigger/execution timeout"  # Airflow 2 has no class for it
    return _is_a(exception, _INTERRUPTIONS)


def _will_retry(context: Any) -> bool:
    if context.get("reason") is not None:  # a DAG run is not retried, and the task in its context may be any
        return False
    task_instance = context.get("ti")
    state = getattr(task_instance, "state", None)
    if state in ("failed", "up_for_retry"):
        return bool(state == "up_for_retry")
    # Airflow has not decided yet, or does not say. It decides by these numbers and by the class of the exception.
    tries_left = getattr(task_instance, "try_number", 1) <= getattr(task_instance, "max_tries", 0)
    return tries_left and not _is_a(context.get("exception"), _NEVER_RETRIED)


def _subject(context: Any) -> str:
    task_instance = context.get("ti")
    dag_id = getattr(task_instance, "dag_id", None) or getattr(context.get("dag"), "dag_id", None)
    task_id = getattr(task_instance, "task_id", None)
    if context.get("reason") is not None:
        return f"DAG {dag_id}" if dag_id else "A DAG"
    return f"Task {task_id} of DAG {dag_id}" if task_id else "A task"
