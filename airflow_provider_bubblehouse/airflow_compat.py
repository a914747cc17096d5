"""
Airflow's names, imported from wherever the installed Airflow has them.

The package and its tests import Airflow's classes and functions from here only. Most come from
``airflow.providers.common.compat.sdk``. Each Airflow pins a version of that provider in its constraints file, and the
older ones lack names or the whole module, so each name also lists the places where an older Airflow has it. A name is
looked up when it is imported, so a DAG file pays only for what it uses.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from airflow.providers.common.compat.lineage.hook import get_hook_lineage_collector as get_hook_lineage_collector
    from airflow.providers.common.compat.openlineage.facet import (
        Dataset as Dataset,
    )
    from airflow.providers.common.compat.openlineage.facet import (
        InputDataset as InputDataset,
    )
    from airflow.providers.common.compat.openlineage.facet import (
        OutputDataset as OutputDataset,
    )
    from airflow.providers.common.compat.openlineage.facet import (
        OutputStatisticsOutputDatasetFacet as OutputStatisticsOutputDatasetFacet,
    )
    from airflow.providers.common.compat.sdk import (
        DAG as DAG,
    )
    from airflow.providers.common.compat.sdk import (
        AirflowException as AirflowException,
    )
    from airflow.providers.common.compat.sdk import (
        AirflowFailException as AirflowFailException,
    )
    from airflow.providers.common.compat.sdk import (
        AirflowSensorTimeout as AirflowSensorTimeout,
    )
    from airflow.providers.common.compat.sdk import (
        AirflowSkipException as AirflowSkipException,
    )
    from airflow.providers.common.compat.sdk import (
        AirflowTaskTimeout as AirflowTaskTimeout,
    )
    from airflow.providers.common.compat.sdk import (
        Asset as Asset,
    )
    from airflow.providers.common.compat.sdk import (
        BaseHook as BaseHook,
    )
    from airflow.providers.common.compat.sdk import (
        BaseNotifier as BaseNotifier,
    )
    from airflow.providers.common.compat.sdk import (
        BaseOperator as BaseOperator,
    )
    from airflow.providers.common.compat.sdk import (
        BaseSensorOperator as BaseSensorOperator,
    )
    from airflow.providers.common.compat.sdk import (
        Connection as Connection,
    )
    from airflow.providers.common.compat.sdk import (
        Context as Context,
    )
    from airflow.providers.common.compat.sdk import (
        DecoratedOperator as DecoratedOperator,
    )
    from airflow.providers.common.compat.sdk import (
        HookLineageCollector as HookLineageCollector,
    )
    from airflow.providers.common.compat.sdk import (
        ObjectStoragePath as ObjectStoragePath,
    )
    from airflow.providers.common.compat.sdk import (
        Stats as Stats,
    )
    from airflow.providers.common.compat.sdk import (
        TaskDecorator as TaskDecorator,
    )
    from airflow.providers.common.compat.sdk import (
        TaskDeferred as TaskDeferred,
    )
    from airflow.providers.common.compat.sdk import (
        conf as conf,
    )
    from airflow.providers.common.compat.sdk import (
        context_merge as context_merge,
    )
    from airflow.providers.common.compat.sdk import (
        determine_kwargs as determine_kwargs,
    )
    from airflow.providers.common.compat.sdk import (
        mask_secret as mask_secret,
    )
    from airflow.providers.common.compat.sdk import (
        task as task,
    )
    from airflow.providers.common.compat.sdk import (
        task_decorator_factory as task_decorator_factory,
    )

_COMPAT = "airflow.providers.common.compat"
_COMPAT_SDK = f"{_COMPAT}.sdk"
_FACETS = (f"{_COMPAT}.openlineage.facet",)
# `airflow.exceptions` warns on Airflow 3.3, where compat.sdk has all of these.
_EXCEPTIONS = (_COMPAT_SDK, "airflow.exceptions")

# Each name with the modules that may have it; the first that does is used.
_PLACES: dict[str, tuple[str, ...]] = {
    "AirflowException": _EXCEPTIONS,
    "AirflowFailException": _EXCEPTIONS,
    "AirflowSensorTimeout": _EXCEPTIONS,
    "AirflowSkipException": _EXCEPTIONS,
    "AirflowTaskTimeout": _EXCEPTIONS,
    "Asset": (_COMPAT_SDK, f"{_COMPAT}.assets"),
    "BaseHook": (_COMPAT_SDK, "airflow.sdk", "airflow.hooks.base"),
    "BaseNotifier": (_COMPAT_SDK, "airflow.sdk", "airflow.notifications.basenotifier"),
    "BaseOperator": (_COMPAT_SDK, "airflow.sdk", "airflow.models.baseoperator"),
    "BaseSensorOperator": (_COMPAT_SDK, "airflow.sdk", "airflow.sensors.base"),
    "Connection": (_COMPAT_SDK, "airflow.sdk", "airflow.models.connection"),
    "Context": (_COMPAT_SDK, "airflow.sdk", "airflow.utils.context"),
    "DAG": (_COMPAT_SDK, "airflow.sdk", "airflow.models.dag"),
    "Dataset": _FACETS,
    "DecoratedOperator": (_COMPAT_SDK, "airflow.sdk.bases.decorator", "airflow.decorators.base"),
    "HookLineageCollector": (_COMPAT_SDK, "airflow.sdk.lineage", "airflow.lineage.hook"),
    "InputDataset": _FACETS,
    "ObjectStoragePath": (_COMPAT_SDK, "airflow.sdk", "airflow.io.path"),
    "OutputDataset": _FACETS,
    "OutputStatisticsOutputDatasetFacet": _FACETS,
    "Stats": (_COMPAT_SDK, "airflow.stats"),
    "TaskDecorator": (_COMPAT_SDK, "airflow.sdk.bases.decorator", "airflow.decorators.base"),
    "TaskDeferred": _EXCEPTIONS,
    "conf": (_COMPAT_SDK, "airflow.configuration"),
    "context_merge": (_COMPAT_SDK, "airflow.sdk.definitions.context", "airflow.utils.context"),
    "determine_kwargs": (_COMPAT_SDK, "airflow.sdk.bases.decorator", "airflow.utils.operator_helpers"),
    "get_hook_lineage_collector": (f"{_COMPAT}.lineage.hook",),
    "mask_secret": (
        _COMPAT_SDK,
        "airflow.sdk.log",
        "airflow.sdk.execution_time.secrets_masker",
        "airflow.utils.log.secrets_masker",
    ),
    "task": (_COMPAT_SDK, "airflow.sdk", "airflow.decorators"),
    "task_decorator_factory": (_COMPAT_SDK, "airflow.sdk.bases.decorator", "airflow.decorators.base"),
}


async def get_async_connection(conn_id: str, hook: type[BaseHook]) -> Connection:
    """
    Return a connection without blocking the event loop.

    ``BaseHook.aget_connection`` is not used: before Airflow 3.3.2 it masks secrets with a blocking call, which raises
    ``DeadlockImminentError`` if another trigger talks to Airflow at that moment.

    :param conn_id: the Airflow connection id.
    :param hook: the class whose ``get_connection`` is called.
    """
    from asgiref.sync import sync_to_async

    return await sync_to_async(hook.get_connection)(conn_id)


def _find(name: str) -> Any:
    for module in _PLACES[name]:
        try:
            return getattr(import_module(module), name)
        except (ImportError, AttributeError):
            continue
    raise ImportError(f"No {name} in any of {', '.join(_PLACES[name])}; update apache-airflow-providers-common-compat.")


if not TYPE_CHECKING:  # a type checker would take every unknown name for one that exists

    def __getattr__(name: str) -> Any:
        if name not in _PLACES:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        value = globals()[name] = _find(name)
        return value
