"""
What a push read and wrote, as OpenLineage and Airflow's hook lineage take it: names and counts, never a row.

Neither has to be installed: OpenLineage is imported where its provider asks, and Airflow's own collector keeps nothing
unless somebody reads it.
"""

from __future__ import annotations

import logging
import posixpath
from contextlib import suppress
from dataclasses import dataclass
from functools import cache
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


@dataclass(frozen=True, slots=True, kw_only=True)
class Lineage:
    """
    What a push read and wrote.

    :param inputs: by the URL of each dataset, how many files it has, and how many of their rows were read, if known.
    :param output: the URI of the shop's customers; None if the push writes nothing.
    :param accepted: how many rows the API accepted. All rows are those of this try: each is a run of its own.
    :param unchanged: how many rows did not have to be sent.
    """

    inputs: Mapping[str, tuple[int, int | None]]
    output: str | None
    accepted: int
    unchanged: int


def lineage_of(push: Push, *, output: str | None) -> Lineage:
    """
    Return what a push read and wrote, without a reference to the push.

    :param push: the push, which may have failed halfway.
    :param output: the URI of the shop's customers; None if the push writes nothing.
    """
    rows = push.report.rows_by_file
    return Lineage(
        inputs={
            url: (len(files), None if rows is None else sum(rows[file] for file in files))
            for url, files in _inputs(push.source.urls()).items()
        },
        output=output,
        accepted=push.report.summary.accepted_now,
        unchanged=push.report.summary.unchanged_now,
    )


def openlineage_of(lineage: Lineage | None) -> OperatorLineage[Any, Any]:
    """
    Return lineage as OpenLineage's provider takes it: files with their rows, and customers with the rows accepted.

    :param lineage: what was read and written; None if the task failed before there was a push.
    """
    from airflow.providers.openlineage.extractors import OperatorLineage

    from airflow_provider_bubblehouse.airflow_compat import OutputDataset, OutputStatisticsOutputDatasetFacet

    if lineage is None:
        return OperatorLineage()
    outputs: list[Any] = []
    if lineage.output is not None:
        namespace, name = openlineage_name(lineage.output)
        facets = {
            "outputStatistics": OutputStatisticsOutputDatasetFacet(rowCount=lineage.accepted),
            "bubblehouse_customers": _counts_facet()(accepted=lineage.accepted, unchanged=lineage.unchanged),
        }
        outputs.append(OutputDataset(namespace=namespace, name=name, outputFacets=facets))
    return OperatorLineage(inputs=[_input(url, *counts) for url, counts in lineage.inputs.items()], outputs=outputs)


@cache
def _counts_facet() -> Any:
    """Return the class of a facet of this package's own: none of the standard ones has a place for unchanged rows."""
    from attr import define
    from openlineage.client.facet_v2 import OutputDatasetFacet

    @define(kw_only=True)
    class CustomersOutputDatasetFacet(OutputDatasetFacet):
        accepted: int
        unchanged: int

    return CustomersOutputDatasetFacet


def _input(url: str, files: int, rows: int | None) -> Any:
    from openlineage.client.facet_v2 import input_statistics_input_dataset as input_statistics

    from airflow_provider_bubblehouse.airflow_compat import InputDataset

    namespace, name = openlineage_name(url)
    facets: dict[str, Any] = {}
    if rows is not None:
        facets["inputStatistics"] = input_statistics.InputStatisticsInputDatasetFacet(rowCount=rows, fileCount=files)
    return InputDataset(namespace=namespace, name=name, inputFacets=facets)


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
        log.warning("The lineage of this push could not be reported to Airflow.", exc_info=True)


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
