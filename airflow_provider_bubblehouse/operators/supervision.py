"""Whether the process that supervises a task is still alive: without it a task can save nothing, and is retried."""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping


def orphan_check(context: Mapping[str, Any]) -> Callable[[], bool]:
    """
    Return a function that tells whether the supervisor of this task has ended.

    It compares the parent process with the first one. Outside a supervised task it always returns False: a
    ``dags test`` that was started with ``nohup`` outlives its shell.

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
    # Airflow 2 sets it where a job supervises the task, and not in dag.test().
    return getattr(context.get("ti"), "job_id", None) is not None
