"""Parquet, read with pyarrow (extra ``parquet``)."""

from __future__ import annotations

from typing import TYPE_CHECKING, BinaryIO

from airflow_provider_bubblehouse.errors import PermanentError
from airflow_provider_bubblehouse.formats.blocks import CHUNK_ROWS
from airflow_provider_bubblehouse.sources.columns import check_columns

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping


def read_parquet(name: str, stream: BinaryIO, columns: Mapping[str, tuple[str, ...]] | None) -> Iterator[list[object]]:
    try:
        import pyarrow
        from pyarrow.parquet import ParquetFile
    except ImportError:
        raise PermanentError(
            f"{name} is Parquet, which needs: pip install 'airflow-provider-bubblehouse[parquet]'"
        ) from None
    row = 0
    try:
        file = ParquetFile(stream, pre_buffer=False)  # which reads the whole file first
        header = file.schema_arrow.names
        wanted = columns if columns is not None else {column: (column,) for column in header}
        check_columns(name, header, wanted)
        for batch in file.iter_batches(batch_size=CHUNK_ROWS, columns=list(wanted)):
            records = batch.to_pylist()
            row += len(records)
            yield records
    except (pyarrow.ArrowException, ValueError, OSError) as error:
        if isinstance(error, OSError) and (type(error) is not OSError or error.errno is not None):
            raise  # the store's; pyarrow's own, of a page that is broken, has neither class nor number
        raise PermanentError(
            f"{name}, after row {row}: this is no whole Parquet file, or holds times finer than a microsecond."
        ) from None
