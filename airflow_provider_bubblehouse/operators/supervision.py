"""Detect that a task has lost its supervisor: it can no longer save its progress, and Airflow retries it."""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping


def orphan_check(context: Mapping[str, Any]) -> Callable[[], bool]:
    """
    Return a function that returns whether the supervisor of this task has ended.

    The function compares the parent process with the first one. Outside a supervised task it always returns False,
    because a ``dags test`` that was started with ``nohup`` outlives its shell.

    :param context: the task's context.
    """
    if not _is_supervised(context):
        return lambda: False
    parent = os.getppid()
    return lambda: os.getppid() != parent


def _is_supervised(context: Mapping[str, Any]) -> bool:
    comms = sys.modules.get("airflow.sdk.execution_time.comms")
    runner = sys.modules.get("airflow.sdk.execution_time.task_runner")
    if comms is not None and isinstance(getattr(runner, "SUPERVISOR_COMMS", None), comms.CommsDecoder):
        return True
    # Airflow 2 sets it if a job supervises the task, and not in dag.test().
    return getattr(context.get("ti"), "job_id", None) is not None
