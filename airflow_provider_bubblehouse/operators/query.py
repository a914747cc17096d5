"""
A query through any ``DbApiHook``: its rows, some at a time, and what ends it, told without a value of a row.

This is no operator: ``operators.customers`` pushes what a query gives.
"""

from __future__ import annotations

import _thread
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any

from airflow_provider_bubblehouse.exceptions import BubblehousePermanentError, BubblehouseTransientError
from airflow_provider_bubblehouse.formats.blocks import CHUNK_ROWS
from airflow_provider_bubblehouse.push.pacing import StoppedError

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from airflow.providers.common.sql.hooks.sql import DbApiHook

_CURSOR = "bubblehouse_rows"
# Classes of SQLSTATE that are about the statement or the server, so that the database's words hold nothing of a row:
# connection, transaction state, authorization, catalog and schema, rollback, syntax or access, resources, operator
# intervention, system. Those of the data (22, 23) and of the user's own functions (38, 39, P0) are not among them.
_WITHOUT_DATA = {"08", "25", "28", "3D", "3F", "40", "42", "53", "57", "58"}


class Query:
    """
    One query, made once.

    :param sql: the query.
    :param conn_id: the Airflow connection of the database.
    :param parameters: values for the query's placeholders.
    """

    def __init__(self, sql: str, *, conn_id: str, parameters: Sequence[Any] | Mapping[str, Any] | None = None) -> None:
        self._sql = sql
        self._conn_id = conn_id
        self._parameters = parameters
        self._connection: Any = None
        self._cursor: Any = None
        self._is_cancelled = False
        self._rows = 0

    @contextmanager
    def run(self) -> Iterator[tuple[list[str], Iterator[Sequence[Any]]]]:
        """
        Make the query, and yield the names of its columns and its rows, some at a time; then close the connection.

        What the hook raises where it connects goes out as it is. What the database raises of the query keeps its class,
        but not its words where these could hold a value.

        :raises BubblehousePermanentError: if there is no such thing as its rows.
        :raises StoppedError: after ``cancel``.
        """
        with _closing(_hook(self._conn_id).get_conn()) as self._connection:
            with self._faults_told():
                self._cursor = self._open_cursor()
            with _closing(self._cursor):
                with self._faults_told():
                    self._execute()
                    first = self._fetch()  # before it, psycopg2 knows no columns
                if self._cursor.description is None:
                    raise BubblehousePermanentError("The query gives no rows; sql must be one SELECT.")
                yield [column[0] for column in self._cursor.description], self._all_rows(first)

    def cancel(self) -> None:
        """
        Have ``run`` end soon. Made for signal handlers: it waits for nothing.

        A driver that keeps Python's signals waiting, as psycopg2 does, gets to know only when the database answers.
        """
        self._is_cancelled = True
        # Not by threading, whose locks the interrupted code may hold: a driver may ask its server to cancel, and wait.
        _thread.start_new_thread(self._interrupt, ())

    def _interrupt(self) -> None:
        for target, name in ((self._connection, "interrupt"), (self._connection, "cancel"), (self._cursor, "cancel")):
            method = getattr(target, name, None)
            if method is not None:
                with suppress(Exception):  # there may be nothing to cancel, any more
                    method()
                return

    def _open_cursor(self) -> Any:
        """Open a cursor, of psycopg one on the server: its others bring all rows at once."""
        if type(self._connection).__module__.partition(".")[0] in ("psycopg", "psycopg2"):
            return self._connection.cursor(name=_CURSOR)
        return self._connection.cursor()

    def _execute(self) -> None:
        self._see_whether_cancelled()
        if self._parameters:  # without, a % in the query stands for itself
            self._cursor.execute(self._sql, self._parameters)
        else:
            self._cursor.execute(self._sql)

    def _fetch(self) -> Sequence[Any]:
        self._see_whether_cancelled()
        block: Sequence[Any] = self._cursor.fetchmany(CHUNK_ROWS) or ()
        self._rows += len(block)
        return block

    def _all_rows(self, block: Sequence[Any]) -> Iterator[Sequence[Any]]:
        while block:
            yield block
            with self._faults_told():
                block = self._fetch()

    def _see_whether_cancelled(self) -> None:
        if self._is_cancelled:
            raise StoppedError

    @contextmanager
    def _faults_told(self) -> Iterator[None]:
        try:
            yield
        except Exception as error:
            if self._is_cancelled:  # then it is what the cancelling has brought about
                raise StoppedError from None
            state = getattr(error, "sqlstate", None) or getattr(error, "pgcode", None)
            if not self._parameters and isinstance(state, str) and state[:2] in _WITHOUT_DATA:
                raise
            raise _without_words(error, state, self._rows) from None


def _without_words(error: Exception, state: str | None, rows: int) -> Exception:
    """Return an error with other words: a database quotes the values that it cannot take, and a driver parameters."""
    kind = f"{type(error).__module__}.{type(error).__qualname__}" + (f", SQLSTATE {state}" if state else "")
    words = (
        f"The query failed after {rows} rows ({kind}), and nothing was sent. What the database says of it is not "
        "shown, for it may hold a customer's data; make the query by hand to see it."
    )
    error.args = (words,)
    return error if str(error) == words else BubblehouseTransientError(words)


def _hook(conn_id: str) -> DbApiHook:
    try:
        from airflow.providers.common.sql.hooks.sql import DbApiHook
    except ImportError:
        raise BubblehousePermanentError(
            "sql needs apache-airflow-providers-common-sql: pip install 'airflow-provider-bubblehouse[sql]'"
        ) from None
    hook = DbApiHook.get_hook(conn_id)
    if not isinstance(hook, DbApiHook):
        raise BubblehousePermanentError("The connection sql_conn_id is of a type that no SQL database has.")
    return hook


@contextmanager
def _closing(thing: Any) -> Iterator[Any]:
    try:
        yield thing
    finally:
        with suppress(Exception):  # what has ended the query says more
            thing.close()
