"""Read Parquet with pyarrow (extra ``parquet``), column by column."""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING, Any, BinaryIO

from airflow_provider_bubblehouse.customers.blocks import Block
from airflow_provider_bubblehouse.customers.fields import CALENDAR_FIELDS
from airflow_provider_bubblehouse.customers.nested import Objects
from airflow_provider_bubblehouse.customers.values import Float32
from airflow_provider_bubblehouse.errors import PermanentError
from airflow_provider_bubblehouse.formats.blocks import CHUNK_ROWS
from airflow_provider_bubblehouse.sources.columns import check_columns, id_column_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from airflow_provider_bubblehouse.customers.blocks import Path


def read_parquet(name: str, stream: BinaryIO, columns: Mapping[str, Path] | None) -> Iterator[Block]:
    """
    Yield the rows of a Parquet file.

    :param name: the file's name.
    :param stream: the file, which supports ``seek``.
    :param columns: column to field, None to send each column under its own name.
    :raises PermanentError: if it cannot be read.
    """
    try:
        import pyarrow
        from pyarrow.parquet import ParquetFile
    except ImportError:
        raise PermanentError(
            f"{name} is Parquet, which needs: pip install 'airflow-provider-bubblehouse[parquet]'"
        ) from None
    row = 0
    try:
        file = ParquetFile(stream, pre_buffer=False)  # with it, pyarrow reads the whole file first
        header = file.schema_arrow.names
        targets = columns if columns is not None else {column: (column,) for column in header}
        nested, of_any_fields = _objects_in(file.schema_arrow)
        check_columns(name, [*header, *nested], targets, objects=of_any_fields)
        read = [column if column in header else column.partition(".")[0] for column in targets]
        for batch in file.iter_batches(batch_size=CHUNK_ROWS, columns=list(dict.fromkeys(read))):
            row += batch.num_rows
            yield _block(name, batch, targets, id_column_of(columns))
    except (pyarrow.ArrowException, ValueError, OSError) as error:
        if isinstance(error, OSError) and (type(error) is not OSError or error.errno is not None):
            raise  # an error of the store; pyarrow's error of a broken page is a plain OSError without a number
        raise PermanentError(
            f"{name}, after row {row}: this is no whole Parquet file, or holds times finer than a microsecond."
        ) from None


def _objects_in(schema: Any) -> tuple[list[str], list[str]]:
    """
    Return the names of the fields within structs, such as ``traits.email``, and the columns that are not structs.

    The schema does not list the fields of a map or of JSON text.
    """
    from pyarrow import types

    structs = [column for column in schema if types.is_struct(column.type)]
    nested = [name for column in structs for name in _names_within(column.name, column.type)]
    names = {column.name for column in structs}
    return [name for name in nested if name not in schema.names], [name for name in schema.names if name not in names]


def _names_within(parent: str, kind: Any) -> Iterator[str]:
    """Yield the names of all fields within a struct, except those within maps and JSON text."""
    from pyarrow import types

    for field in kind:
        name = f"{parent}.{field.name}"
        yield name
        if types.is_struct(field.type):
            yield from _names_within(name, field.type)


def _block(name: str, batch: Any, targets: Mapping[str, Path], id_column: str) -> Block:
    present = batch.schema.names
    objects = Objects(lambda head: _cells(batch.column(head), as_texts=False))
    times = frozenset(
        path for column, path in targets.items() if column in present and _are_times(batch.column(column), path)
    )
    cells = {
        path: _cells(batch.column(column), as_texts=path in times) if column in present else objects.cells(column)
        for column, path in targets.items()
    }
    return Block(file=name, count=batch.num_rows, columns=cells, times=times, id_column=id_column)


def _are_times(array: Any, path: Path) -> bool:
    from pyarrow import types

    return bool(types.is_timestamp(array.type) and path[0] in CALENDAR_FIELDS)


def _cells(array: Any, *, as_texts: bool) -> list[Any]:
    """
    Return a column's values in the types that the rules expect.

    :param array: the column.
    :param as_texts: whether to convert times to texts.
    """
    if as_texts:
        array = _as_texts(array)
    convert = _conversion(array.type)
    cells: list[Any] = array.to_pylist()
    return cells if convert is None else list(map(convert, cells))


def _as_texts(times: Any) -> Any:
    """Return times as texts in the form of ``datetime.isoformat``: creating datetimes takes ten times as long."""
    import pyarrow
    from pyarrow import compute

    kind = times.type
    with suppress(pyarrow.ArrowInvalid):  # nanoseconds stay, because no datetime has them
        kind = pyarrow.timestamp("us", kind.tz)
        times = times.cast(kind)
    texts = times.cast(pyarrow.string())
    if kind.tz:
        texts = compute.replace_substring(texts, "Z", "+00:00")
    for no_fraction in (".000000000", ".000000"):
        texts = compute.replace_substring(texts, no_fraction, "")
    return texts


def _conversion(kind: Any) -> Callable[[Any], Any] | None:
    """
    Return a function that corrects the values which pyarrow returns for a type; None if they need no correction.

    pyarrow returns a map as a list of pairs, and a 32-bit float with the digits of a 64-bit float.
    """
    from pyarrow import types

    if types.is_float32(kind) or types.is_float16(kind):
        return _unless_null(Float32)
    if types.is_map(kind):
        item = _conversion(kind.item_type) or _same
        return _unless_null(lambda pairs: {name: item(value) for name, value in pairs})
    if types.is_struct(kind):
        converted = {field.name: convert for field in kind if (convert := _conversion(field.type))}
        if converted:
            return _unless_null(lambda row: {name: converted.get(name, _same)(value) for name, value in row.items()})
    elif _is_list(kind) and (convert := _conversion(kind.value_type)):
        return _unless_null(lambda values: list(map(convert, values)))
    return None


def _is_list(kind: Any) -> bool:
    from pyarrow import types

    return bool(types.is_list(kind) or types.is_large_list(kind) or types.is_fixed_size_list(kind))


def _same(value: Any) -> Any:
    return value


def _unless_null(convert: Callable[[Any], Any]) -> Callable[[Any], Any]:
    return lambda value: None if value is None else convert(value)
