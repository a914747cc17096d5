"""
A query through any ``DbApiHook``: it fetches rows in blocks, and hides error messages that may quote a value.

This is not an operator: ``operators.customers`` pushes the rows of a query.
"""

from __future__ import annotations

import _thread
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any

from airflow_provider_bubblehouse.airflow_compat import AirflowException
from airflow_provider_bubblehouse.exceptions import BubblehousePermanentError, BubblehouseTransientError
from airflow_provider_bubblehouse.formats.blocks import CHUNK_ROWS
from airflow_provider_bubblehouse.plural import plural
from airflow_provider_bubblehouse.push.pacing import StoppedError

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from airflow.providers.common.sql.hooks.sql import DbApiHook

_CURSOR = "bubblehouse_rows"
# Classes of SQLSTATE about the statement or the server, whose messages do not quote a row: connection, transaction
# state, authorization, catalog and schema, rollback, syntax or access, resources, operator intervention, system.
# Classes about data (22, 23) and about the user's own functions (38, 39, P0) are left out.
_WITHOUT_DATA = {"08", "25", "28", "3D", "3F", "40", "42", "53", "57", "58"}
# The provider of each connection type whose hook is a DbApiHook; not the types of a provider for many services.
_PROVIDERS = {
    "databricks_sql": "databricks",
    "drill": "apache-drill",
    "exasol": "exasol",
    "gcpbigquery": "google",
    "hiveserver2": "apache-hive",
    "impala": "apache-impala",
    "jdbc": "jdbc",
    "mssql": "microsoft-mssql",
    "mysql": "mysql",
    "odbc": "odbc",
    "oracle": "oracle",
    "pinot": "apache-pinot",
    "postgres": "postgres",
    "presto": "presto",
    "redshift": "amazon",
    "snowflake": "snowflake",
    "sqlite": "sqlite",
    "teradata": "teradata",
    "trino": "trino",
    "vertica": "vertica",
}


class Query:
    """
    One query, run once.

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
        Run the query, yield its column names and blocks of its rows, and then close the connection.

        Errors of the hook while it connects are raised unchanged. Errors of the query keep their class, but not their
        message if that may quote a value.

        :raises BubblehousePermanentError: if the connection is not that of a database, or the query returns no rows.
        :raises StoppedError: after ``cancel``.
        """
        with _closing(_hook(self._conn_id).get_conn()) as self._connection:
            with self._hide_values():
                self._cursor = self._open_cursor()
            with _closing(self._cursor):
                with self._hide_values():
                    self._execute()
                    first = self._fetch()  # psycopg2 knows the columns only afterwards
                if self._cursor.description is None:
                    raise BubblehousePermanentError("The query returns no rows; sql must be one SELECT.")
                yield [column[0] for column in self._cursor.description], self._all_rows(first)

    def cancel(self) -> None:
        """
        Make ``run`` end soon. Safe in signal handlers, because it does not wait.

        A driver that delays Python's signals, such as psycopg2, notices only when the database answers.
        """
        self._is_cancelled = True
        # A driver may wait for its server. Not the threading module, whose locks the interrupted code may hold.
        _thread.start_new_thread(self._interrupt, ())

    def _interrupt(self) -> None:
        for target, name in ((self._connection, "interrupt"), (self._connection, "cancel"), (self._cursor, "cancel")):
            method = getattr(target, name, None)
            if method is not None:
                with suppress(Exception):  # the query may have ended already
                    method()
                return

    def _open_cursor(self) -> Any:
        """Open a cursor; for psycopg one on the server, because its others fetch all rows at once."""
        if type(self._connection).__module__.partition(".")[0] in ("psycopg", "psycopg2"):
            return self._connection.cursor(name=_CURSOR)
        return self._connection.cursor()

    def _execute(self) -> None:
        self._check_cancelled()
        if self._parameters:  # without parameters, a % in the query needs no escape
            self._cursor.execute(self._sql, self._parameters)
        else:
            self._cursor.execute(self._sql)

    def _fetch(self) -> Sequence[Any]:
        self._check_cancelled()
        block: Sequence[Any] = self._cursor.fetchmany(CHUNK_ROWS) or ()
        self._rows += len(block)
        return block

    def _all_rows(self, block: Sequence[Any]) -> Iterator[Sequence[Any]]:
        while block:
            yield block
            with self._hide_values():
                block = self._fetch()

    def _check_cancelled(self) -> None:
        if self._is_cancelled:
            raise StoppedError

    @contextmanager
    def _hide_values(self) -> Iterator[None]:
        try:
            yield
        except Exception as error:
            if self._is_cancelled:  # the error is a consequence of the cancellation
                raise StoppedError from None
            state = getattr(error, "sqlstate", None) or getattr(error, "pgcode", None)
            if not self._parameters and isinstance(state, str) and state[:2] in _WITHOUT_DATA:
                raise
            raise _without_message(error, state, self._rows) from None


def _without_message(error: Exception, state: str | None, rows: int) -> Exception:
    """Replace the message of an error: databases quote invalid values, and drivers quote parameters."""
    kind = f"{type(error).__module__}.{type(error).__qualname__}" + (f", SQLSTATE {state}" if state else "")
    message = (
        f"The query failed after {plural(rows, 'row')} ({kind}), and nothing was sent. The database's own message is "
        "not shown, because it may contain a customer's data; run the query by hand to see it."
    )
    error.args = (message,)
    return error if str(error) == message else BubblehouseTransientError(message)


def _hook(conn_id: str) -> DbApiHook:
    try:
        from airflow.providers.common.sql.hooks.sql import DbApiHook
    except ImportError:
        raise BubblehousePermanentError(
            "sql needs apache-airflow-providers-common-sql: pip install 'airflow-provider-bubblehouse[sql]'"
        ) from None
    stored = DbApiHook.get_connection(conn_id)
    said = f"The connection {conn_id} (sql_conn_id) has the type {stored.conn_type}"
    try:
        hook = stored.get_hook()
    except (AirflowException, ImportError) as error:
        if isinstance(error, AirflowException) and "Unknown hook type" not in str(error):
            raise
        raise BubblehousePermanentError(
            f"{said}, whose provider is not installed; {_remedy(stored.conn_type)}."
        ) from None
    if not isinstance(hook, DbApiHook):
        raise BubblehousePermanentError(f"{said}, which is not that of an SQL database; name another connection.")
    return hook


def _remedy(conn_type: str | None) -> str:
    if conn_type in _PROVIDERS:
        return f"pip install apache-airflow-providers-{_PROVIDERS[conn_type]}"
    return "install the provider of this database, or correct the type"


@contextmanager
def _closing(thing: Any) -> Iterator[Any]:
    try:
        yield thing
    finally:
        with suppress(Exception):  # the error that ended the query says more
            thing.close()
