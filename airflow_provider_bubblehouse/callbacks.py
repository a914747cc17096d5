"""
The contract for tasks of any operator: a check for the official HTTP operator and sensor, and callbacks by outcome.

So a refused batch goes to those who own the data, and an outage to whoever is on call::

    on_failure_callback=[on_permanent_failure(tell_the_data_team), on_transient_failure(page_the_engineer)]
"""

from __future__ import annotations

import copy
import logging
from typing import TYPE_CHECKING, Any

from airflow_provider_bubblehouse.api.classifier import answer_of, classify, find_error
from airflow_provider_bubblehouse.exceptions import BubblehouseError, BubblehousePermanentError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    Callback = Callable[[Any], Any]

log = logging.getLogger(__name__)


def check_response(response: Any) -> bool:
    """
    Give a task of the official ``HttpOperator`` or ``HttpSensor`` the contract, as their ``response_check``.

    Their own check must be off, as it turns every status into one error that is retried, and redirects must not be
    followed; a timeout, which they lack, is best set with it::

        HttpOperator(
            response_check=check_response,
            extra_options={"check_response": False, "allow_redirects": False, "timeout": 60},
            ...,
        )

    It is called for an answer only; a network error is raised by requests itself and is retried. It does not reach
    the trigger of a deferrable ``HttpOperator``, which has a check of its own, and a deferrable ``HttpSensor`` with a
    check does not defer. A sensor that takes 404 for "not yet", or a 5xx, is ``BubblehouseCustomerSensor`` or
    ``BubblehouseStatusSensor``.

    :param response: the response of requests or httpx.
    :return: True for an accepted call.
    :raises BubblehouseTransientError: for an answer that is to be retried.
    :raises BubblehousePermanentError: for one that is not; Airflow fails the task at once.
    """
    error = classify(answer_of(response))
    if error is not None:
        raise error
    return True


def on_permanent_failure(callback: Callback | Sequence[Callback]) -> Callback:
    """
    Call a callback only for a failure that a retry cannot help: bad data, a bad token, a wrong setting.

    For ``on_failure_callback`` and ``on_retry_callback`` of any task that uses this package, requests or httpx, also
    behind the error of another hook. The callback finds in ``context["bubblehouse"]``:

    - ``status``: the HTTP status, None where no answer came,
    - ``error_id``: the ``id`` of the API's error, or None,
    - ``retryable``: whether a retry can help,
    - ``will_retry``: whether Airflow will retry the task,
    - ``attempts``: how many calls were made in vain,
    - ``summary``: the counts of the push, or None,
    - ``message``: one sentence about the task and what happened, without any customer's value.

    An error that says nothing of a call, such as a ``KeyError`` of a function, is neither permanent nor transient:
    give it a callback of its own. What the callback raises is logged.

    :param callback: a function of the context, a notifier, or a list of such.
    """
    return _callback_for(callback, retryable=False)


def on_transient_failure(callback: Callback | Sequence[Callback]) -> Callback:
    """
    Call a callback only for a failure that a retry can help: a 5xx, a network error, or a process that was killed.

    Where Airflow tells no exception, which is so for a killed process, this one is called. Airflow 3.0 tells its
    callbacks none at all, so that there it is called for every failure. All else is as with ``on_permanent_failure``.

    :param callback: a function of the context, a notifier, or a list of such.
    """
    return _callback_for(callback, retryable=True)


def _callback_for(callback: Callback | Sequence[Callback], *, retryable: bool) -> Callback:
    callbacks = [callback] if callable(callback) else list(callback)

    def call(context: Any) -> None:
        try:
            outcome = _outcome(context)
            if outcome is None or outcome["retryable"] is not retryable:
                return
            context["bubblehouse"] = outcome
        except Exception:
            log.exception("It cannot be told how the task failed; no callback is called.")
            return
        for one in callbacks:
            try:
                # A notifier renders itself: the next task that shares it would get this one's text.
                (copy.copy(one) if hasattr(one, "template_fields") else one)(context)
            except Exception:
                log.exception("A callback failed.")

    return call


def _outcome(context: Any) -> dict[str, Any] | None:
    """Return what a wrapped callback is told, None where nothing is known that it could be told."""
    exception = context.get("exception")
    known = isinstance(exception, BaseException)  # what another process found out about a task comes as text, or not
    error = find_error(exception) if known else None
    if known and error is None:
        return None
    retryable = not isinstance(error, BubblehousePermanentError)
    will_retry = _will_retry(context, retryable=retryable)
    return {
        "status": error.status if error else None,
        "error_id": error.error_id if error else None,
        "retryable": retryable,
        "will_retry": will_retry,
        "attempts": error.attempts if error else 0,
        "summary": dict(error.summary) if error and error.summary is not None else None,
        "message": _message(context, error, will_retry=will_retry),
    }


def _will_retry(context: Any, *, retryable: bool) -> bool:
    task_instance = context.get("ti")
    state = getattr(task_instance, "state", None)
    if state in ("failed", "up_for_retry"):
        return bool(state == "up_for_retry")
    # Airflow has not said what it decided, so as it decides.
    return retryable and task_instance is not None and task_instance.try_number <= task_instance.max_tries


def _message(context: Any, error: BubblehouseError | None, *, will_retry: bool) -> str:
    task_instance = context.get("ti")
    task = f"Task {task_instance.task_id} of DAG {task_instance.dag_id}" if task_instance is not None else "A task"
    said = str(error) if error else "Airflow tells no error, as of a process that was killed."
    return f"{task} failed {'and will be retried' if will_retry else 'and will not be retried'}: {said}"
