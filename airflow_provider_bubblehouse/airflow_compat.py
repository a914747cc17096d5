"""
Airflow's classes and functions, imported from the place where the installed Airflow has them.

The package and its tests import Airflow through this module only. Most names come from
``airflow.providers.common.compat.sdk``. Each Airflow pins a version of that provider in its constraints file, and older
versions lack some names or the whole module, so each name also lists its places in older Airflows. A name is looked up
when it is imported, so a DAG file loads only what it uses.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any, ParamSpec, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable

    from airflow.providers.common.compat.lineage.hook import get_hook_lineage_collector as get_hook_lineage_collector
    from airflow.providers.common.compat.openlineage.facet import (
        Dataset as Dataset,
        InputDataset as InputDataset,
        OutputDataset as OutputDataset,
        OutputStatisticsOutputDatasetFacet as OutputStatisticsOutputDatasetFacet,
    )
    from airflow.providers.common.compat.sdk import (
        DAG as DAG,
        AirflowException as AirflowException,
        AirflowFailException as AirflowFailException,
        AirflowSensorTimeout as AirflowSensorTimeout,
        AirflowSkipException as AirflowSkipException,
        AirflowTaskTimeout as AirflowTaskTimeout,
        Asset as Asset,
        BaseHook as BaseHook,
        BaseNotifier as BaseNotifier,
        BaseOperator as BaseOperator,
        BaseSensorOperator as BaseSensorOperator,
        Connection as Connection,
        Context as Context,
        DecoratedOperator as DecoratedOperator,
        HookLineageCollector as HookLineageCollector,
        ObjectStoragePath as ObjectStoragePath,
        Stats as Stats,
        TaskDecorator as TaskDecorator,
        TaskDeferred as TaskDeferred,
        Variable as Variable,
        conf as conf,
        context_merge as context_merge,
        determine_kwargs as determine_kwargs,
        mask_secret as mask_secret,
        task as task,
        task_decorator_factory as task_decorator_factory,
        task_group as task_group,
    )

_P = ParamSpec("_P")
_R = TypeVar("_R")

_COMPAT = "airflow.providers.common.compat"
_COMPAT_SDK = f"{_COMPAT}.sdk"
_FACETS = (f"{_COMPAT}.openlineage.facet",)
# `airflow.exceptions` warns on Airflow 3.3, where compat.sdk has all of these.
_EXCEPTIONS = (_COMPAT_SDK, "airflow.exceptions")

# Each name with the modules that may have it; the first one that does is used.
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
    "Variable": (_COMPAT_SDK, "airflow.sdk", "airflow.models.variable"),
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
    "task_group": (_COMPAT_SDK, "airflow.sdk", "airflow.decorators"),
}


async def call_in_thread(function: Callable[_P, _R], *args: _P.args, **kwargs: _P.kwargs) -> _R:
    """
    Call a function that may wait for Airflow, without blocking the event loop of the triggerer.

    ``asyncio.to_thread`` does not work: from its threads, Airflow 3.0 and 3.1 read their answers on a second event
    loop, which mixes them up and stops the triggerer. ``BaseHook.aget_connection`` does not work either: before
    Airflow 3.3.2 it masks secrets with a blocking call.

    :param function: a function of Airflow, or one that calls such a function.
    """
    from asgiref.sync import sync_to_async

    return await sync_to_async(function)(*args, **kwargs)


def _find(name: str) -> Any:
    cause: Exception | None = None
    for module in _PLACES[name]:
        try:
            return getattr(import_module(module), name)
        except (ImportError, AttributeError) as error:
            cause = cause or error
    raise ImportError(
        f"No {name} in any of {', '.join(_PLACES[name])}; update apache-airflow-providers-common-compat."
    ) from cause


if not TYPE_CHECKING:  # otherwise a type checker would accept any name

    def __getattr__(name: str) -> Any:
        if name not in _PLACES:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        value = globals()[name] = _find(name)
        return value
