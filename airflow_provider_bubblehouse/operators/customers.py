"""Operators that push customers to Bubblehouse: update them, or delete them."""

from __future__ import annotations

import os
from abc import abstractmethod
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar

from airflow_provider_bubblehouse.airflow_compat import BaseOperator
from airflow_provider_bubblehouse.customers.times import Calendar
from airflow_provider_bubblehouse.exceptions import (
    BubblehousePermanentError,
    BubblehouseTransientError,
    add_no_retries_hint,
)
from airflow_provider_bubblehouse.hooks.bubblehouse import BubblehouseHook
from airflow_provider_bubblehouse.push.batches import DEFAULT_MAX_BATCH_BYTES
from airflow_provider_bubblehouse.sources.columns import targets_of
from airflow_provider_bubblehouse.sources.files import FILE_FORMATS, FileSource, no_filesystem_error
from airflow_provider_bubblehouse.sources.records import ListSource

if TYPE_CHECKING:
    from collections.abc import Iterable

    from airflow.providers.openlineage.extractors import OperatorLineage

    from airflow_provider_bubblehouse.airflow_compat import Context, ObjectStoragePath
    from airflow_provider_bubblehouse.customers.converter import Converter
    from airflow_provider_bubblehouse.operators.query import Query
    from airflow_provider_bubblehouse.push.push import Push
    from airflow_provider_bubblehouse.push.rejected import RejectedRows
    from airflow_provider_bubblehouse.sources.columns import ColumnMap
    from airflow_provider_bubblehouse.sources.query import SpooledSource
    from airflow_provider_bubblehouse.sources.source import Source

DEFAULT_BATCH_SIZE = 500  # half of what the API recommends at most for orders, the only number it names
DEFAULT_MAX_ATTEMPTS = 5
DEFAULT_MAX_ATTEMPT_SECONDS = 300.0  # a longer outage is for the task's own retries, which hold no worker slot


class CustomerRows(Sequence[Any]):
    """
    Rows whose text is their count: Airflow stores the text of a rendered field and shows it in its UI.

    A plain ``Sequence``, because Airflow stores a ``list``, or a subclass of it, row by row.

    :param rows: the rows.
    """

    def __init__(self, rows: Sequence[Any]) -> None:
        self._rows = rows

    def __len__(self) -> int:
        return len(self._rows)

    def __getitem__(self, index: Any) -> Any:
        return self._rows[index]

    def __repr__(self) -> str:
        return f"{len(self)} customers"


class SqlParameters:
    """
    Parameters of a query, whose text is their count: they may be of a customer.

    :param values: the parameters, in their order or by name.
    """

    def __init__(self, values: Sequence[Any] | Mapping[str, Any]) -> None:
        self.values = values

    def __repr__(self) -> str:
        return f"{len(self.values)} parameters"


class _CustomersOperator(BaseOperator):
    """What updating and deleting share: where the rows come from and how they travel."""

    template_fields: Sequence[str] = (
        "bubblehouse_conn_id",
        "customers",
        "path",
        "sql",
        "sql_conn_id",
        "sql_parameters",
        "rejected_path",
    )
    template_ext: Sequence[str] = (".sql",)
    template_fields_renderers: ClassVar[dict[str, str]] = {"sql": "sql"}
    ui_color = "#e8e1f5"
    timezone = "UTC"

    def __init__(
        self,
        *,
        customers: Sequence[Mapping[str, Any]] | str | None = None,
        path: str | os.PathLike[str] | ObjectStoragePath | None = None,
        sql: str | None = None,
        sql_conn_id: str | None = None,
        sql_parameters: Sequence[Any] | Mapping[str, Any] | None = None,
        file_format: str = "auto",
        column_map: ColumnMap | None = None,
        bubblehouse_conn_id: str = BubblehouseHook.default_conn_name,
        batch_size: int = DEFAULT_BATCH_SIZE,
        max_batch_bytes: int = DEFAULT_MAX_BATCH_BYTES,
        in_flight: int = 1,
        max_attempts: int = DEFAULT_MAX_ATTEMPTS,
        max_attempt_seconds: float = DEFAULT_MAX_ATTEMPT_SECONDS,
        rate_limit_wait: float = 0,
        on_rejected: str = "stop",
        rejected_path: str | os.PathLike[str] | ObjectStoragePath | None = None,
        resume: bool = True,
        dry_run: bool = False,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        if sum(place is not None for place in (customers, path, sql)) != 1:
            raise BubblehousePermanentError("Give one of customers, path and sql: the rows come from one place.")
        if (sql is None) != (sql_conn_id is None) or (sql is None and sql_parameters is not None):
            raise BubblehousePermanentError("sql and sql_conn_id go together, and sql_parameters with them only.")
        if file_format not in FILE_FORMATS:
            raise BubblehousePermanentError(f"file_format must be one of {', '.join(FILE_FORMATS)}.")
        if on_rejected not in ("stop", "continue"):
            raise BubblehousePermanentError("on_rejected must be stop or continue.")
        for name, number, least in (
            ("batch_size", batch_size, 1),
            ("max_batch_bytes", max_batch_bytes, 1024),
            ("in_flight", in_flight, 1),
            ("max_attempts", max_attempts, 1),
            ("max_attempt_seconds", max_attempt_seconds, 0),
            ("rate_limit_wait", rate_limit_wait, 0),
        ):
            if not isinstance(number, int | float) or number < least:
                raise BubblehousePermanentError(f"{name} must be a number of at least {least}.")
        targets_of(column_map)  # refuses what is no column map
        self.customers = customers
        self.path = path
        self.sql = sql
        self.sql_conn_id = sql_conn_id
        self.sql_parameters: Any = sql_parameters
        self.file_format = file_format
        self.column_map = column_map
        self.bubblehouse_conn_id = bubblehouse_conn_id
        self.batch_size = batch_size
        self.max_batch_bytes = max_batch_bytes
        self.in_flight = in_flight
        self.max_attempts = max_attempts
        self.max_attempt_seconds = max_attempt_seconds
        self.rate_limit_wait = rate_limit_wait
        self.on_rejected = on_rejected
        self.rejected_path = rejected_path
        self.resume = resume
        self.sends = not dry_run  # under its own name it would hide BaseOperator.dry_run, which the CLI calls
        self._push: Push | None = None
        self._query: Query | None = None
        self._spool: SpooledSource | None = None
        self._output: str | None = None  # the URI of the asset that is written
        self._is_killed = False

    def execute(self, context: Context) -> dict[str, Any]:
        """Push the rows and return the summary, which goes to XCom."""
        from airflow_provider_bubblehouse.lineage import report_lineage

        try:
            self._push = self._prepare(context)
            if self._is_killed:
                self._push.stop()
            return self._push.run()
        except BubblehouseTransientError as error:
            add_no_retries_hint(error, context)
            raise
        finally:
            if self._spool is not None:
                self._spool.close()
            if self._push is not None:
                report_lineage(
                    BubblehouseHook(self.bubblehouse_conn_id),
                    source=self._push.source,
                    output=self._output if self._push.summary.calls else None,
                )

    def on_kill(self) -> None:
        """Have ``execute`` end soon; called by a signal's handler, so that it must not wait for anything."""
        self._is_killed = True
        if self._push is not None:
            self._push.stop()
        elif self._query is not None:
            self._query.cancel()

    def get_openlineage_facets_on_complete(self, task_instance: Any) -> OperatorLineage[Any, Any] | None:
        """
        Return what the push read and wrote; Airflow's OpenLineage provider calls this.

        It does so after a failure too, as there is no method of its own for that: what was sent before it was sent.

        :param task_instance: the task's run.
        """
        from airflow_provider_bubblehouse.lineage import openlineage_of

        return None if self._push is None else openlineage_of(self._push, output=self._output)

    def _prepare(self, context: Context) -> Push:
        from airflow_provider_bubblehouse.airflow_compat import Stats
        from airflow_provider_bubblehouse.api.client import Client
        from airflow_provider_bubblehouse.push.checkpoint import forget_progress
        from airflow_provider_bubblehouse.push.push import Push

        hook = BubblehouseHook(self.bubblehouse_conn_id)
        connection = hook.connection if self.sends else None
        self._output = hook.customers_uri if self.sends else None
        store = context.get("task_state_store") if self.sends else None  # Airflow has one from 3.3 on
        if store is not None and not self.resume:
            forget_progress(store)
            store = None
        own = self._own_parameters()
        return Push(
            source=self._source(own["converter"]),
            connect=None if connection is None else lambda: Client(connection),
            max_calls_per_second=None if connection is None else connection.max_calls_per_second,
            batch_size=self.batch_size,
            max_batch_bytes=self.max_batch_bytes,
            in_flight=self.in_flight,
            max_attempts=self.max_attempts,
            max_attempt_seconds=self.max_attempt_seconds,
            rate_limit_wait=self.rate_limit_wait,
            go_on_after_rejection=self.on_rejected == "continue",
            store=store,
            depends_on={
                "host": connection and connection.base_url,
                "shop": connection and connection.shop,
                "operator": self.operator_name,
                "column_map": self.column_map,
                "file_format": self.file_format,
                "timezone": self.timezone,
            },
            rejected_rows=self._rejected_rows(context),
            count=Stats.incr,
            **own,
        )

    @abstractmethod
    def _own_parameters(self) -> dict[str, Any]:
        """Return the parameters of ``Push`` that differ between the operators."""

    def _rejected_rows(self, context: Context) -> RejectedRows | None:
        if self.rejected_path is None:
            return None
        from airflow_provider_bubblehouse.push.rejected import RejectedRows

        location = _location(self.rejected_path)
        ti = context.get("ti")
        own = (ti.dag_id, ti.run_id, ti.task_id, ti.map_index) if ti is not None else ()  # mapped tasks do not meet
        return RejectedRows(_filesystem(location), "/".join((location.path, *map(str, own))))

    def _take(self, customers: Any) -> None:
        """Have rows as the operator's own; what tells of its attributes, as OpenLineage can, is to show their count."""
        self.customers = CustomerRows(_rows(customers))

    def _source(self, converter: Converter) -> Source:
        if self.sql is not None:
            self._spool = self._spooled(converter)
            return self._spool
        if self.path is None:
            return ListSource(_rows(self.customers), column_map=self.column_map)
        location = _location(self.path)
        return FileSource(
            _filesystem(location), location.path, file_format=self.file_format, column_map=self.column_map
        )

    def _spooled(self, converter: Converter) -> SpooledSource:
        """Make the query, and keep its rows."""
        from airflow_provider_bubblehouse.operators.query import Query
        from airflow_provider_bubblehouse.sources.query import SpooledSource

        if not (isinstance(self.sql, str) and self.sql.strip() and isinstance(self.sql_conn_id, str)):
            raise BubblehousePermanentError("sql must be one query, and sql_conn_id the name of a connection.")
        parameters = self.sql_parameters
        if isinstance(parameters, SqlParameters):
            parameters = parameters.values
        self._query = Query(self.sql, conn_id=self.sql_conn_id, parameters=parameters)
        if self._is_killed:
            self._query.cancel()
        with self._query.run() as (columns, rows):
            return SpooledSource(columns, rows, column_map=self.column_map, converter=converter)

    def _do_render_template_fields(
        self, parent: Any, template_fields: Iterable[str], context: Any, jinja_env: Any, seen_oids: set[int]
    ) -> None:
        """
        Render the fields, of ``customers`` only what is a template itself, and leave its rows out of what is stored.

        A customer's own text is data: one who is named ``{{ 7*7 }}`` is not to be called 49. Mapped tasks come by here
        only, not by ``render_template_fields``.
        """
        fields = set(template_fields)
        if not isinstance(self.customers, str):
            fields.discard("customers")
            self.customers = _resolve(self.customers, context)
        super()._do_render_template_fields(parent, fields, context, jinja_env, seen_oids)
        if self.sql_parameters is not None and not isinstance(self.sql_parameters, SqlParameters):
            self.sql_parameters = SqlParameters(_parameters(self.sql_parameters))
        if self.path is None and self.sql is None:
            self._take(self.customers)


class UpdateCustomersOperator(_CustomersOperator):
    """
    Push new or changed customers to Bubblehouse.

    Rows are validated, brought into the form of Customer2 and sent in batches
    (https://app.bubblehouse.com/apidocs/apis/order/UpdateCustomers3). A 5xx or a network error is tried again inside
    the task and then by the task's ``retries``; a 4xx fails the task at once, without a retry.

    The result is a summary without any row: ``read``, ``invalid``, ``accepted``, ``rejected``, ``unsent`` (``read`` is
    the sum of the other four, over all tries), ``resumed_at`` (rows that earlier tries had settled), of this try
    ``batches``, ``calls``, ``retries``, ``seconds``, and the folder ``rejected_path`` if rows were written there.

    :param customers: the rows: a list of dicts with the fields of Customer2, an XComArg that gives one, or a template
        that renders to it as JSON. A literal list becomes part of the serialized DAG, with all it holds: for demos
        only. (templated) Exactly one of ``customers``, ``path`` and ``sql`` is given.
    :param path: a file of rows: a local path, or one in an object store such as ``s3://conn_id@bucket/key.csv``; a
        glob, unless a file of exactly that name exists. ``.gz`` is decompressed. (templated)
    :param sql: a query, one ``SELECT``, or a ``.sql`` file that holds one. Its rows, as the database's driver gives
        them, are kept in a temporary file of the worker (in ``TMPDIR``) until they are pushed, so that the database is
        left alone by then. A retry makes it anew, and goes on after what is settled if it gives the same rows in the
        same order: let it have an ``ORDER BY``. (templated)
    :param sql_conn_id: the Airflow connection of the database, of any type with a ``DbApiHook``; needs the extra
        ``sql``. Rows come a thousand at a time, but some drivers hold all of them at once unless told otherwise: give
        a connection of type ``mysql`` the extra ``{"cursor": "sscursor"}``. (templated)
    :param sql_parameters: values for the placeholders of ``sql``, in the way of its driver: a list, or an object by
        name. Airflow shows the rendered text of ``sql``, but of these only how many there are; as part of the DAG file
        it keeps literal ones, too. (templated)
    :param file_format: ``jsonl``, ``json`` (an array of objects), ``csv``, ``parquet``, or ``rejected`` for files of
        a ``rejected_path``; ``auto`` goes by the suffix.
    :param column_map: column or field of the source to field of Customer2, such as ``{"CustomerId": "id", "City":
        "extras.city"}``. Exactly these are sent. Without it each goes under its own name.
    :param timezone: the time zone of times without an offset.
    :param bubblehouse_conn_id: the Airflow connection of type ``bubblehouse``. (templated)
    :param batch_size: how many customers a call has at most. The API names 1000 for orders and nothing for customers.
    :param max_batch_bytes: how many bytes a call's body has at most; a row beyond it is invalid.
    :param in_flight: how many calls are under way at once. The updates of one customer stay in their order, as long as
        the source names it always by ``id`` or always by ``email``.
    :param max_attempts: how many times a batch that fails transiently is sent at most within one try of the task.
    :param max_attempt_seconds: no wait between them is begun that would end later than this after the first.
    :param rate_limit_wait: seconds in all that the push may wait where the API answers 429, for as long as its
        ``Retry-After`` asks; a wait that would not fit fails at once. By default any 429 does.
    :param on_rejected: what follows after the API refused a batch, which it has processed: ``stop`` fails at once,
        ``continue`` sends the rest and then fails. Neither is retried.
    :param rejected_path: a folder, local or in an object store, for the rows of refused batches and for invalid rows,
        which are personal data: files ``{dag_id}/{run_id}/{task_id}/{map_index}/{first row}.jsonl``. Mended, they
        are pushed with ``file_format="rejected"``. (templated)
    :param resume: go on after the rows that earlier tries of this task settled, as long as source and parameters are
        the same; Airflow keeps the progress from 3.3 on. Also a task that is cleared goes on so, and one whose source
        was refused still fails: False starts over.
    :param on_invalid: ``fail`` validates the whole source before the first call and refuses it whole if a row is
        invalid; ``skip`` sends the others and reports the invalid rows.
    :param debug: have the API process at once and refuse the call on any warning. For development only: the connection
        must have ``allow_debug``, the source at most one batch.
    :param dry_run: read, validate and cut batches, but call nothing; no connection is needed.
    :raises BubblehouseTransientError: if a batch did not get through; Airflow retries the task.
    :raises BubblehouseRejectedError: if the API refused a batch; Airflow does not retry.
    :raises BubblehousePermanentError: for anything else that a retry cannot help.
    """

    def __init__(self, *, timezone: str = "UTC", on_invalid: str = "fail", debug: bool = False, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        if on_invalid not in ("fail", "skip"):
            raise BubblehousePermanentError("on_invalid must be fail or skip.")
        if debug and self.in_flight > 1:
            raise BubblehousePermanentError("debug sends one batch at most, so in_flight must be 1.")
        Calendar(timezone)  # raises if there is no such time zone
        self.timezone = timezone
        self.on_invalid = on_invalid
        self.debug = debug

    def _own_parameters(self) -> dict[str, Any]:
        from airflow_provider_bubblehouse.customers.converter import Converter
        from airflow_provider_bubblehouse.push.batches import largest_customer

        return {
            "converter": Converter(timezone=self.timezone, largest=largest_customer(self.max_batch_bytes)),
            "skip_invalid": self.on_invalid == "skip",
            "debug": self.debug,
        }


class DeleteCustomersOperator(_CustomersOperator):
    """
    Delete customers from Bubblehouse, by pushing them with ``"deleted": true`` (there is no call of its own for it).

    Of each row only its ``id``, or else its ``email``, is sent. The whole source is validated before the first call,
    and refused if a row is invalid or has a ``deleted`` that is not true. Parameters, result and errors that are not
    named here are those of ``UpdateCustomersOperator``.

    :param max_customers: a source with more rows is refused before anything is sent: deletion is not undone by the
        next run, so say how many you mean.
    """

    def __init__(self, *, max_customers: int, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        if max_customers < 1:
            raise BubblehousePermanentError("max_customers must be at least 1.")
        self.max_customers = max_customers

    def _own_parameters(self) -> dict[str, Any]:
        from airflow_provider_bubblehouse.customers.converter import Converter

        return {
            "converter": Converter(deletions=True),
            "max_customers": self.max_customers,
        }


def _rows(value: Any) -> Sequence[Any]:
    """Return rendered ``customers`` as rows; a template renders to text."""
    if isinstance(value, str):
        import msgspec

        try:
            value = msgspec.json.decode(value)
        except (msgspec.DecodeError, UnicodeError, RecursionError):
            raise BubblehousePermanentError(
                "customers is text that is not JSON; end its template with | tojson, or pass the task's output itself."
            ) from None
    if value is None:
        raise BubblehousePermanentError("customers is None; did the task before return its list?")
    if isinstance(value, Mapping | str) or not isinstance(value, Sequence):
        raise BubblehousePermanentError("customers must be a list of objects, one for each customer.")
    return value


def _parameters(value: Any) -> Sequence[Any] | Mapping[str, Any]:
    if isinstance(value, str) or not isinstance(value, Sequence | Mapping):
        raise BubblehousePermanentError("sql_parameters must be a list, or an object by the placeholders' names.")
    return value


def _resolve(value: Any, context: Any) -> Any:
    """Replace XComArgs by what they stand for, also inside a list, and render nothing."""
    if isinstance(value, list | tuple):
        return [_resolve(inner, context) for inner in value]
    if isinstance(value, dict):
        return {name: _resolve(inner, context) for name, inner in value.items()}
    resolve = getattr(value, "resolve", None)
    return value if resolve is None or isinstance(value, os.PathLike) else resolve(context)


def _filesystem(location: ObjectStoragePath) -> Any:
    try:
        return location.fs
    except (ImportError, ValueError):
        raise no_filesystem_error(location) from None


def _location(path: Any) -> ObjectStoragePath:
    from airflow_provider_bubblehouse.airflow_compat import ObjectStoragePath

    if isinstance(path, ObjectStoragePath):
        return path
    text = os.fspath(path)
    if "://" not in text:
        return ObjectStoragePath(os.path.abspath(text))
    if "?" in text:
        raise BubblehousePermanentError("path is a URL, where ? does not match a character; use * or [...] instead.")
    return ObjectStoragePath(text)
