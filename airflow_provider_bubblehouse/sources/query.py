"""The rows of a query."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from airflow_provider_bubblehouse.customers.blocks import Block
from airflow_provider_bubblehouse.customers.nested import Objects
from airflow_provider_bubblehouse.sources.columns import check_columns, id_column_of, targets_of
from airflow_provider_bubblehouse.sources.spool import SpooledSource

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

    from airflow_provider_bubblehouse.customers.blocks import Path
    from airflow_provider_bubblehouse.customers.converter import Converter
    from airflow_provider_bubblehouse.sources.columns import ColumnMap

NAME = "the query"


def spool_query(
    columns: Sequence[str],
    fetched: Iterable[Sequence[Any]],
    *,
    column_map: ColumnMap | None = None,
    converter: Converter,
) -> SpooledSource:
    """
    Read the rows of a query into a temporary file.

    :param columns: the names of the query's columns.
    :param fetched: its rows as they are fetched, some at a time; a row is a sequence in the columns' order, or a dict.
    :param column_map: see ``FileSource``.
    :param converter: converts the rows.
    :raises PermanentError: if the columns do not give customers.
    """
    targets = targets_of(column_map)
    if targets is None:
        targets = {column: (column,) for column in columns}
    check_columns(NAME.capitalize(), columns, targets)
    return SpooledSource(NAME, _blocks(columns, fetched, targets), converter=converter)


def _blocks(columns: Sequence[str], fetched: Iterable[Sequence[Any]], targets: Mapping[str, Path]) -> Iterator[Block]:
    id_column = id_column_of(targets)
    for rows in fetched:
        cells_of = _reader(columns, rows)
        objects = Objects(cells_of)
        cells = {
            path: cells_of(column) if column in columns else objects.cells(column) for column, path in targets.items()
        }
        yield Block(file=NAME, count=len(rows), columns=cells, id_column=id_column)


def _reader(columns: Sequence[str], rows: Sequence[Any]) -> Callable[[str], Sequence[Any]]:
    """Return a function that returns the cells of a column."""
    if isinstance(rows[0], dict):
        return lambda column: [row[column] for row in rows]
    by_place = list(zip(*rows, strict=True))
    return lambda column: by_place[columns.index(column)]
