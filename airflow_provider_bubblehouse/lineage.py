"""
What a push read and wrote, as OpenLineage and Airflow's hook lineage take it: names and counts, never a row.

Neither has to be installed: OpenLineage is imported where its provider asks, and Airflow's own collector keeps nothing
unless somebody reads it.
"""

from __future__ import annotations

import logging
import posixpath
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from airflow_provider_bubblehouse.api.names import openlineage_name

if TYPE_CHECKING:
    from collections.abc import Mapping

    from airflow.providers.openlineage.extractors import OperatorLineage

    from airflow_provider_bubblehouse.hooks.bubblehouse import BubblehouseHook
    from airflow_provider_bubblehouse.push.push import Push
    from airflow_provider_bubblehouse.sources.source import Source

log = logging.getLogger(__name__)

_MOST_FILES = 50  # datasets in one event; Airflow's hook lineage keeps 100 in a task


def openlineage_of(push: Push, *, output: str | None) -> OperatorLineage[Any, Any]:
    """
    Return what a push read and wrote: its files with their rows, and the shop's customers with the rows accepted.

    Rows are those of this try, as each try is a run of its own to OpenLineage.

    :param push: the push, which may have failed halfway.
    :param output: the URI of the shop's customers; None if the push writes nothing.
    """
    from airflow.providers.openlineage.extractors import OperatorLineage
    from openlineage.client.facet_v2 import input_statistics_input_dataset as input_statistics

    from airflow_provider_bubblehouse.airflow_compat import (
        InputDataset,
        OutputDataset,
        OutputStatisticsOutputDatasetFacet,
    )

    inputs: list[Any] = []
    for url, names in _inputs(push.source.urls()).items():
        namespace, name = openlineage_name(url)
        facets: dict[str, Any] = {}
        if push.report.rows_by_file is not None:
            facets["inputStatistics"] = input_statistics.InputStatisticsInputDatasetFacet(
                rowCount=sum(push.report.rows_by_file[file] for file in names), fileCount=len(names)
            )
        inputs.append(InputDataset(namespace=namespace, name=name, inputFacets=facets))
    outputs: list[Any] = []
    if output is not None:
        namespace, name = openlineage_name(output)
        accepted = push.report.summary.accepted_now
        statistics = OutputStatisticsOutputDatasetFacet(rowCount=accepted)
        outputs.append(OutputDataset(namespace=namespace, name=name, outputFacets={"outputStatistics": statistics}))
    return OperatorLineage(inputs=inputs, outputs=outputs)


def report_lineage(hook: BubblehouseHook, *, source: Source | None = None, output: str | None = None) -> None:
    """
    Tell Airflow's hook lineage of assets. Nothing here can fail a task whose rows have been sent.

    :param hook: the hook that read or wrote them.
    :param source: the rows that were read, None for none.
    :param output: the URI of the one that was written, None for none.
    """
    from airflow_provider_bubblehouse.airflow_compat import get_hook_lineage_collector

    try:
        collector = get_hook_lineage_collector()  # type: ignore[no-untyped-call]
        if output is not None:
            collector.add_output_asset(context=hook, uri=output)
        for url in _inputs(source.urls()) if source is not None else ():
            with suppress(ValueError):  # Airflow takes not every file's name for an asset's
                collector.add_input_asset(context=hook, uri=url)
    except Exception:  # a reader of lineage may be anybody's
        log.warning("Airflow's hook lineage was not told what was read and written.", exc_info=True)


def _inputs(urls: Mapping[str, str]) -> dict[str, list[str]]:
    """
    Return the datasets that files are, each URL with the names of its files: more than a few are the folder they share.

    Left out are those whose URL does not name their store, as fsspec's of FTP: they would be mixed up with others.
    """
    named = {url: [name] for name, url in urls.items() if _names_its_store(url)}
    if len(named) <= _MOST_FILES:
        return named
    scheme = next(iter(named)).partition("://")[0]  # of all, for one file system holds them
    folder = f"{scheme}://{posixpath.commonpath([url.partition('://')[2] for url in named])}"
    return {folder: [name for names in named.values() for name in names]} if _names_its_store(folder) else {}


def _names_its_store(url: str) -> bool:
    scheme, _, rest = url.partition("://")
    return scheme == "file" or rest[:1] not in ("", "/")
