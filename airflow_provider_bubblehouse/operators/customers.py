"""Operators that update and delete customers in Bubblehouse."""

from __future__ import annotations

import os
from abc import abstractmethod
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, ClassVar
from urllib.parse import urlsplit

from airflow_provider_bubblehouse.airflow_compat import BaseOperator
from airflow_provider_bubblehouse.api.details import from_json
from airflow_provider_bubblehouse.exceptions import (
    BubblehouseError,
    BubblehousePermanentError,
    BubblehouseTransientError,
    add_counts,
    add_no_retries_hint,
    shorten_tracebacks,
)
from airflow_provider_bubblehouse.formats import FILE_FORMATS
from airflow_provider_bubblehouse.hooks.bubblehouse import BubblehouseHook
from airflow_provider_bubblehouse.operators.parameters import (
    DEFAULT_TIMEZONE,
    check_choice,
    check_column_map,
    check_csv,
    check_flag,
    check_formats,
    check_integer,
    check_number,
    check_template_field,
    check_timezone,
)
from airflow_provider_bubblehouse.operators.rendering import CustomerRows, join_surrogates, resolve, run_time_oids
from airflow_provider_bubblehouse.push.plan import DEFAULT_MAX_BATCH_BYTES, Plan
from airflow_provider_bubblehouse.stores import (
    Fault,
    fault_of,
    no_filesystem_error,
    store_error,
    without_credentials,
)

if TYPE_CHECKING:
    from collections.abc import Iterable

    from airflow.providers.openlineage.extractors import OperatorLineage

    from airflow_provider_bubblehouse.airflow_compat import Context, ObjectStoragePath
    from airflow_provider_bubblehouse.api.connection import ShopConnection
    from airflow_provider_bubblehouse.customers.converter import Converter
    from airflow_provider_bubblehouse.customers.field_formats import Formats
    from airflow_provider_bubblehouse.ledger.changes import Changes
    from airflow_provider_bubblehouse.lineage import Lineage
    from airflow_provider_bubblehouse.operators.query import Query
    from airflow_provider_bubblehouse.push.push import Push, Resume
    from airflow_provider_bubblehouse.push.rejected import RejectedRows
    from airflow_provider_bubblehouse.sources.columns import ColumnMap
    from airflow_provider_bubblehouse.sources.source import Source
    from airflow_provider_bubblehouse.sources.spool import SpooledSource

DEFAULT_BATCH_SIZE = 500  # half of the maximum for orders, the only number in the API documentation
DEFAULT_MAX_ATTEMPTS = 10  # with 20 % errors, 5 attempts would fail for one batch in 3,000, and with it the try
DEFAULT_LEDGER_DAYS = 30
DEFAULT_MAX_ATTEMPT_SECONDS = 300.0  # longer outages are for Airflow's retries, which hold no worker slot


# The types of the template fields, besides text that renders to them, and their names in an error.
_FIELD_TYPES: dict[str, tuple[tuple[type, ...], str]] = {
    "bubblehouse_conn_id": ((str,), "text"),
    "customers": ((Sequence,), "a list of objects, one for each customer"),
    "ledger_path": ((os.PathLike,), "text or a path"),
    "path": ((os.PathLike,), "text or a path"),
    "rejected_path": ((os.PathLike,), "text or a path"),
    "sql": ((str,), "text"),
    "sql_conn_id": ((str,), "text"),
    "sql_parameters": ((Sequence, Mapping), "a list, or an object by the names of the placeholders"),
}


class SqlParameters:
    """
    The parameters of a query. Their repr is only a count, because they may be a customer's values.

    :param values: the parameters, as a list or by name.
    """

    def __init__(self, values: Sequence[Any] | Mapping[str, Any]) -> None:
        self.values = values

    def __repr__(self) -> str:
        return f"{len(self.values)} parameters"


class _SourceOperator(BaseOperator):
    """Reads customers from a list, files or a query."""

    template_fields: Sequence[str] = ("customers", "path", "sql", "sql_conn_id", "sql_parameters")
    template_ext: Sequence[str] = (".sql",)
    template_fields_renderers: ClassVar[dict[str, str]] = {"sql": "sql"}

    def __init__(
        self,
        *,
        customers: Sequence[Mapping[str, Any]] | str | None = None,
        path: str | os.PathLike[str] | ObjectStoragePath | None = None,
        sql: str | None = None,
        sql_conn_id: str | None = None,
        sql_parameters: Sequence[Any] | Mapping[str, Any] | None = None,
        file_format: str = "auto",
        csv: Mapping[str, Any] | None = None,
        column_map: ColumnMap | None = None,
        formats: Formats | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        if sum(place is not None for place in (customers, path, sql)) != 1:
            raise BubblehousePermanentError("Give one of customers, path and sql: the rows come from one place.")
        if (sql is None) != (sql_conn_id is None) or (sql is None and sql_parameters is not None):
            raise BubblehousePermanentError("sql and sql_conn_id go together, and sql_parameters with them only.")
        self.customers: Any = customers
        self.path = path
        self.sql = sql
        self.sql_conn_id = sql_conn_id
        self.sql_parameters: Any = sql_parameters
        self.file_format = file_format
        self.csv = csv
        self.column_map = column_map
        self.formats = formats
        self._query: Query | None = None
        self._spool: SpooledSource | None = None
        self._is_killed = False
        self._check_reading()
        self._check_template_fields()

    def _check_reading(self) -> None:
        check_choice("file_format", self.file_format, FILE_FORMATS)
        if self.csv is not None:
            if self.path is None or self.file_format not in ("auto", "csv"):
                raise BubblehousePermanentError("csv is for CSV files: it needs path, and file_format 'csv' or 'auto'.")
            check_csv(self.csv)
        if self.column_map is not None:
            check_column_map(self.column_map)
        if self.formats is not None:
            check_formats(self.formats, self.column_map)

    def _check_template_fields(self, names: Iterable[str] = ()) -> None:
        """
        Refuse template fields of the wrong type.

        :param names: the fields that must not be None; after rendering, those that were set.
        """
        for name, (kinds, expected) in _FIELD_TYPES.items():
            value = getattr(self, name, None)
            if value is not None or name in names:
                check_template_field(name, value, kinds, expected=expected)

    def _wrap_customers(self, customers: Any) -> None:
        """Wrap the rows so that their repr is only a count, because OpenLineage reports an operator's attributes."""
        self.customers = CustomerRows(_rows(customers))

    def _source(self, converter: Converter) -> Source:
        if self.sql is not None:
            self._spool = self._run_query(converter)
            return self._spool
        if self.path is None:
            from airflow_provider_bubblehouse.sources.records import ListSource

            if not isinstance(self.customers, CustomerRows):  # execute() without Airflow does not render the fields
                self._wrap_customers(self.customers)
            return ListSource(self.customers, column_map=self.column_map)
        from airflow_provider_bubblehouse.formats.dialect import Dialect
        from airflow_provider_bubblehouse.sources.files import FileSource

        location = _location(self.path)
        return FileSource(
            _filesystem(location),
            location.path,
            file_format=self.file_format,
            column_map=self.column_map,
            dialect=Dialect.of(self.csv),
        )

    def _run_query(self, converter: Converter) -> SpooledSource:
        """Run the query, and read its rows into a temporary file."""
        from airflow_provider_bubblehouse.operators.query import Query
        from airflow_provider_bubblehouse.sources.query import spool_query

        if not self.sql or not self.sql.strip() or not self.sql_conn_id:
            raise BubblehousePermanentError("sql must be one query, and sql_conn_id the name of a connection.")
        parameters = self.sql_parameters
        if isinstance(parameters, SqlParameters):
            parameters = parameters.values
        self._query = Query(self.sql, conn_id=self.sql_conn_id, parameters=parameters)
        if self._is_killed:
            self._query.cancel()
        with self._query.run() as (columns, rows):
            return spool_query(columns, rows, column_map=self.column_map, converter=converter)

    def _do_render_template_fields(
        self, parent: Any, template_fields: Iterable[str], context: Any, jinja_env: Any, seen_oids: set[int]
    ) -> None:
        """
        Render templates but not data, and wrap values so that Airflow stores only their count.

        Overrides this method because mapped tasks do not call ``render_template_fields``.
        """
        if parent is not self:  # an object in a field, with its own template fields
            super()._do_render_template_fields(parent, template_fields, context, jinja_env, seen_oids)
            return
        given = [name for name in template_fields if getattr(self, name) is not None]
        seen_oids = run_time_oids(self, context, seen_oids)
        is_template = isinstance(self.customers, str) and id(self.customers) not in seen_oids
        if self.customers is not None and not is_template:
            self._wrap_customers(resolve(self.customers, context))
        super()._do_render_template_fields(parent, template_fields, context, jinja_env, seen_oids)
        if is_template:
            self._wrap_customers(join_surrogates(self.customers))
        self._check_template_fields(given)
        if self.sql_parameters is not None and not isinstance(self.sql_parameters, SqlParameters):
            self.sql_parameters = SqlParameters(_parameters(self.sql_parameters))


class _CustomersOperator(_SourceOperator):
    """Pushes the rows: the common part of updates and deletions."""

    template_fields: Sequence[str] = (
        "bubblehouse_conn_id",
        *_SourceOperator.template_fields,
        "rejected_path",
        "ledger_path",
    )
    ui_color = "#e8e1f5"
    timezone = DEFAULT_TIMEZONE
    on_invalid = "fail"
    max_customers: int | None = None
    max_invalid: float | None = None
    debug = False
    deletes: ClassVar[bool] = False

    def __init__(
        self,
        *,
        bubblehouse_conn_id: str = BubblehouseHook.default_conn_name,
        batch_size: int = DEFAULT_BATCH_SIZE,
        max_batch_bytes: int = DEFAULT_MAX_BATCH_BYTES,
        in_flight: int = 1,
        max_attempts: int = DEFAULT_MAX_ATTEMPTS,
        max_attempt_seconds: float = DEFAULT_MAX_ATTEMPT_SECONDS,
        rate_limit_wait: float = 0,
        on_rejected: str = "stop",
        rejected_path: str | os.PathLike[str] | ObjectStoragePath | None = None,
        min_customers: int | None = None,
        ledger_path: str | os.PathLike[str] | ObjectStoragePath | None = None,
        ledger_days: int = DEFAULT_LEDGER_DAYS,
        resume: bool = True,
        dry_run: bool = False,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.bubblehouse_conn_id = bubblehouse_conn_id
        self.batch_size = batch_size
        self.max_batch_bytes = max_batch_bytes
        self.in_flight = in_flight
        self.max_attempts = max_attempts
        self.max_attempt_seconds = max_attempt_seconds
        self.rate_limit_wait = rate_limit_wait
        self.on_rejected = on_rejected
        self.rejected_path = rejected_path
        self.min_customers = min_customers
        self.ledger_path = ledger_path
        self.ledger_days = ledger_days
        self.resume = resume
        check_flag("dry_run", dry_run)
        self.sends = not dry_run  # not self.dry_run, because the CLI calls BaseOperator.dry_run
        self._push: Push | None = None
        self._output: str | None = None  # the URI of the asset that is written
        self._lineage: Lineage | None = None
        self._check_parameters()
        self._check_template_fields(["bubblehouse_conn_id"])

    def _check_parameters(self) -> None:
        check_choice("on_rejected", self.on_rejected, ("stop", "continue"))
        check_flag("resume", self.resume)
        check_integer("batch_size", self.batch_size, least=1)
        check_integer("max_batch_bytes", self.max_batch_bytes, least=1024)
        check_integer("in_flight", self.in_flight, least=1)
        check_integer("max_attempts", self.max_attempts, least=1)
        check_number("max_attempt_seconds", self.max_attempt_seconds, least=0)
        check_number("rate_limit_wait", self.rate_limit_wait, least=0)
        check_integer("ledger_days", self.ledger_days, least=1)
        if self.min_customers is not None:
            check_integer("min_customers", self.min_customers, least=1)

    def execute(self, context: Context) -> dict[str, Any]:
        """Push the rows and return the summary, which goes to XCom."""
        try:
            self._push = self._prepare(context)
            if self._is_killed:
                self._push.stop()
            summary = self._push.run()
        except BubblehouseError as error:
            if isinstance(error, BubblehouseTransientError):
                add_no_retries_hint(error, context)
            add_counts(error)
            shorten_tracebacks(error)
            raise error  # noqa: TRY201  a bare raise would leave out this frame, too
        finally:
            self._finish()
        self._add_to_asset_event(context, summary)
        return summary

    def _add_to_asset_event(self, context: Context, summary: Mapping[str, Any]) -> None:
        """Add the counts to the event of the shop's asset, if it is an outlet; Airflow stores it on success only."""
        for outlet in self.outlets:
            if self._output is not None and getattr(outlet, "uri", None) == self._output:
                context["outlet_events"][outlet].extra.update(summary)

    def _finish(self) -> None:
        """Report lineage, and drop the push: Airflow copies operators, and a push cannot be copied."""
        from airflow_provider_bubblehouse.lineage import lineage_of, report_lineage

        push, spool = self._push, self._spool
        self._push = self._query = self._spool = None
        if spool is not None:
            spool.close()
        if push is not None:
            self._lineage = lineage_of(push, output=self._output)
            report_lineage(
                BubblehouseHook(self.bubblehouse_conn_id),
                source=push.source,
                output=self._output if push.report.summary.calls else None,
            )

    def on_kill(self) -> None:
        """Stop ``execute`` soon. Waits for nothing, because a signal handler calls it."""
        self._is_killed = True
        if self._push is not None:
            self._push.stop()
        elif self._query is not None:
            self._query.cancel()

    def get_openlineage_facets_on_complete(self, task_instance: Any) -> OperatorLineage[Any, Any]:
        """
        Return what the push read and wrote, for Airflow's OpenLineage provider.

        The provider also calls it after a failure, when some rows may have been accepted.

        :param task_instance: the task instance.
        """
        from airflow_provider_bubblehouse.lineage import openlineage_of

        return openlineage_of(self._lineage)

    def _prepare(self, context: Context) -> Push:
        from airflow_provider_bubblehouse.airflow_compat import Stats
        from airflow_provider_bubblehouse.api.client import Client
        from airflow_provider_bubblehouse.operators.supervision import orphan_check
        from airflow_provider_bubblehouse.push.push import Push
        from airflow_provider_bubblehouse.push.report import Report

        hook = BubblehouseHook(self.bubblehouse_conn_id)
        connection = hook.connection if self.sends else None
        self._output = hook.customers_uri if self.sends else None
        converter = self._converter()
        return Push(
            plan=self._plan(connection),
            source=self._source(converter),
            converter=converter,
            connect=None if connection is None else lambda: Client(connection),
            resume=None if connection is None else self._resume(context, connection),
            rejected_rows=self._rejected_rows(context),
            changes=None if connection is None else self._changes(context, connection),
            report=Report(count=Stats.incr, measure=Stats.timing),
            is_orphan=orphan_check(context),
        )

    def _plan(self, connection: ShopConnection | None) -> Plan:
        return Plan(
            batch_size=self.batch_size,
            max_batch_bytes=self.max_batch_bytes,
            in_flight=self.in_flight,
            max_attempts=self.max_attempts,
            max_attempt_seconds=self.max_attempt_seconds,
            rate_limit_wait=self.rate_limit_wait,
            max_calls_per_second=None if connection is None else connection.max_calls_per_second,
            skip_invalid=self.on_invalid == "skip",
            continue_after_rejection=self.on_rejected == "continue",
            min_customers=self.min_customers,
            max_customers=self.max_customers,
            max_invalid=self.max_invalid,
            debug=self.debug,
        )

    def _changes(self, context: Context, connection: ShopConnection) -> Changes | None:
        """Return the filter of unchanged rows; None to send all rows."""
        if self.ledger_path is None:
            return None
        from airflow_provider_bubblehouse.ledger.changes import Changes
        from airflow_provider_bubblehouse.ledger.folder import LedgerFolder

        ti = context.get("ti")
        if ti is not None and ti.map_index is not None and ti.map_index >= 0:
            raise BubblehousePermanentError(
                "One task at a time uses a ledger, so a mapped task cannot have ledger_path. Give each shard a task "
                "and a ledger of its own."
            )
        location = _location(self.ledger_path)
        shop = f"{urlsplit(connection.base_url).netloc}/{connection.shop}"
        return Changes(
            LedgerFolder(_filesystem(location), f"{location.path.rstrip('/')}/{shop}"),
            days=self.ledger_days,
            today=datetime.now(UTC).toordinal(),
            deletes=self.deletes,
            run="/".join((ti.dag_id, ti.run_id, ti.task_id)) if ti is not None else "",
        )

    @abstractmethod
    def _converter(self) -> Converter:
        """Return the rules that validate rows and convert them to customers."""

    def _resume(self, context: Context, connection: ShopConnection) -> Resume | None:
        """Return how to continue after earlier tries; None before Airflow 3.3, which has no state store."""
        from airflow_provider_bubblehouse.customers import RULES_VERSION
        from airflow_provider_bubblehouse.customers.field_formats import fingerprint_of
        from airflow_provider_bubblehouse.formats.dialect import Dialect
        from airflow_provider_bubblehouse.push.progress import delete_state
        from airflow_provider_bubblehouse.push.push import Resume

        store = context.get("task_state_store")
        if store is None:
            return None
        if not self.resume:
            delete_state(store)
            return None
        return Resume(
            store=store,
            target={"host": connection.base_url, "shop": connection.shop, "operator": self.operator_name},
            reading={
                "column_map": self.column_map,
                "formats": fingerprint_of(self.formats),
                "file_format": self.file_format,
                "csv": Dialect.of(self.csv).settings(),
                "timezone": self.timezone,
                "rules": RULES_VERSION,
            },
        )

    def _rejected_rows(self, context: Context) -> RejectedRows | None:
        if self.rejected_path is None:
            return None
        from airflow_provider_bubblehouse.push.rejected import RejectedRows

        location = _location(self.rejected_path)
        ti = context.get("ti")
        own = (ti.dag_id, ti.run_id, ti.task_id, ti.map_index) if ti is not None else ()  # one folder per mapped task
        path, url = ("/".join((base.rstrip("/"), *map(str, own))) for base in (location.path, _url(location)))
        return RejectedRows(_filesystem(location), path, url=url)


class UpdateCustomersOperator(_CustomersOperator):
    """
    Push new or changed customers to Bubblehouse.

    Validates the rows, converts them to the fields of Customer2, and sends them in batches
    (https://app.bubblehouse.com/apidocs/apis/order/UpdateCustomers3). After a 5xx or a network error, the operator
    sends the batch again, and then Airflow retries the task as often as ``retries`` allows. A 4xx fails the task at
    once, without a retry.

    Returns a summary of counts: ``read``, ``invalid``, ``unchanged``, ``accepted``, ``rejected`` and ``unsent``, where
    ``read`` is the sum of the others over all tries; ``resumed_at``, the rows that earlier tries have completed;
    ``batches``, ``calls``, ``retries`` and ``seconds`` of this try; and ``rejected_path``, the folder to which rows
    were written.

    :param customers: a list of dicts with the fields of Customer2, an XComArg with such a list, or a template that
        renders to it as JSON. Airflow stores a literal list with the DAG, so use it for demos only. (templated) Set
        exactly one of ``customers``, ``path`` and ``sql``.
    :param path: a file: a local path, or a URL in an object store such as ``s3://conn_id@bucket/key.csv``. A glob,
        unless a file of exactly this name exists. gzip and zstd (extra ``zstd``) are
        decompressed. (templated)
    :param sql: a query, one ``SELECT``, or the name of a ``.sql`` file. The worker first stores its rows in a
        temporary file (in ``TMPDIR``), and closes the connection to the database before the first call. A retry runs
        the query again, and continues after the completed rows if it returns the same rows in the same order: use
        ``ORDER BY``. (templated)
    :param sql_conn_id: the Airflow connection of the database, of any type with a ``DbApiHook``. Needs the extra
        ``sql``. Rows are fetched a thousand at a time. Some drivers hold all rows in memory: give a connection of type
        ``mysql`` the extra ``{"cursor": "sscursor"}``. (templated)
    :param sql_parameters: values for the placeholders of ``sql`` in the style of the driver: a list, or a dict by name.
        Airflow shows the rendered ``sql``, and only the number of the values. It stores literal values with the DAG.
        (templated)
    :param file_format: ``jsonl``, ``json`` (an array of objects), ``csv``, ``parquet``, or ``rejected`` for the files
        of a ``rejected_path``. ``auto`` uses the suffix.
    :param csv: the dialect of CSV files, such as ``{"delimiter": ";", "encoding": "cp1252"}``. The options are
        ``delimiter``, ``encoding`` (one of Python's text encodings), ``quote_char`` (None if there is none),
        ``escape_char``, ``null_values`` (cells that are absent, such as ``["NULL"]``), ``column_names`` (for files
        without a header) and ``skip_rows`` (lines before the header).
    :param column_map: a dict from columns or fields of the source to fields of Customer2, such as
        ``{"CustomerId": "id", "City": "extras.city"}``. Exactly these are sent. A dot in a column reaches into an
        object: ``{"traits.email": "email"}``. Without it, each column is sent under its own name.
    :param formats: a dict from fields to the way in which the source writes them, such as
        ``{"birthday": "%d.%m.%Y", "tags": ",", "optin": {"J": True, "N": False}}``. A date or time takes a ``strptime``
        pattern, ``epoch`` or ``epoch_ms``; a list its separator; ``extras.x`` ``number``, ``boolean`` or ``json``;
        ``total_spent`` ``units``; ``id`` ``verbatim``; and any field a dict that translates its values.
    :param timezone: the time zone of times without an offset.
    :param bubblehouse_conn_id: the Airflow connection of type ``bubblehouse``. (templated)
    :param batch_size: customers per call at most. The API documentation gives 1000 for orders, and no number for
        customers.
    :param max_batch_bytes: bytes per call at most. A row that does not fit is invalid.
    :param in_flight: calls at the same time. The updates of a customer keep their order, if the source names the
        customer always by ``id`` or always by ``email``.
    :param max_attempts: how many times a batch that fails transiently is sent at most, within one try of the task.
    :param max_attempt_seconds: give up if the next wait would end more than this many seconds after the first attempt.
    :param rate_limit_wait: how many seconds the push may wait after 429 responses in total. It honours
        ``Retry-After``, and fails at once if a wait does not fit. By default, any 429 fails the task.
    :param on_rejected: what to do after the API rejects a batch, which it has then processed: ``stop`` fails at once,
        ``continue`` sends the rest and then fails. Neither is retried.
    :param rejected_path: a folder, local or in an object store, for rejected and invalid rows, which are personal data.
        The files are ``{dag_id}/{run_id}/{task_id}/{map_index}/{first row}.jsonl``. Once corrected, push them with
        ``file_format="rejected"``. (templated)
    :param min_customers: refuse a source with fewer rows before the first call, for example a truncated export.
    :param ledger_path: a folder, local or in an object store, that records hashes of what Bubblehouse last accepted of
        each customer. Only what has changed is sent; the rest counts as ``unchanged``. One task at a time may use it,
        and deletions need the same folder. (templated)
    :param ledger_days: after how many days at most an unchanged customer is sent again, because other systems write to
        Bubblehouse too, and because an accepted call may fail later.
    :param resume: continue after the rows that earlier tries of this task have completed, if source and parameters are
        the same. Needs Airflow 3.3. Also applies to a cleared task. False starts over.
    :param on_invalid: ``fail`` validates the whole source before the first call, and refuses it if a row is invalid.
        ``skip`` sends the other rows and reports the invalid ones.
    :param max_invalid: with ``skip``, refuse a source with more invalid rows before the first call: a count, or a share
        of all rows if it is below 1. The source is then read twice.
    :param debug: have the API process the call at once and reject it on any warning. For development only: needs
        ``allow_debug`` in the connection, and a source of at most one batch.
    :param dry_run: read, validate and group the rows, and make no call. Needs no connection.
    :raises BubblehouseTransientError: if a batch could not be delivered; Airflow retries the task.
    :raises BubblehouseRejectedError: if the API rejected a batch; Airflow does not retry.
    :raises BubblehousePermanentError: for any other error that a retry cannot fix.
    """

    def __init__(
        self,
        *,
        timezone: str = DEFAULT_TIMEZONE,
        on_invalid: str = "fail",
        max_invalid: float | None = None,
        debug: bool = False,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        check_choice("on_invalid", on_invalid, ("fail", "skip"))
        if max_invalid is not None:
            check_number("max_invalid", max_invalid, least=0)
            if on_invalid != "skip":
                raise BubblehousePermanentError("max_invalid needs on_invalid='skip'; otherwise no row may be invalid.")
        check_flag("debug", debug)
        if debug and self.in_flight > 1:
            raise BubblehousePermanentError("debug sends one batch at most, so in_flight must be 1.")
        check_timezone(timezone)
        self.timezone = timezone
        self.on_invalid = on_invalid
        self.max_invalid = max_invalid
        self.debug = debug

    def _converter(self) -> Converter:
        from airflow_provider_bubblehouse.customers.converter import Converter
        from airflow_provider_bubblehouse.push.batches import largest_customer

        return Converter(timezone=self.timezone, largest=largest_customer(self.max_batch_bytes), formats=self.formats)


class DeleteCustomersOperator(_CustomersOperator):
    """
    Delete customers from Bubblehouse, by pushing them with ``"deleted": true``: the API has no call that deletes.

    Sends the ``id`` of each row, or else its ``email``. Validates the whole source before the first call, and refuses
    it if a row is invalid or has a ``deleted`` that is not true. See ``UpdateCustomersOperator`` for the other
    parameters, the result and the errors.

    :param max_customers: refuse a source with more rows before the first call. Required, because no later run undoes a
        deletion. (templated)
    """

    template_fields: Sequence[str] = (*_CustomersOperator.template_fields, "max_customers")
    deletes = True

    def __init__(self, *, max_customers: int, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.max_customers = max_customers
        is_template = isinstance(max_customers, str) and "{" in max_customers
        if not is_template and not hasattr(max_customers, "resolve"):  # an XComArg has it
            check_integer("max_customers", max_customers, least=1)

    def _plan(self, connection: ShopConnection | None) -> Plan:
        if isinstance(self.max_customers, str) and self.max_customers.strip().isdecimal():
            self.max_customers = int(self.max_customers)  # a template renders to text
        check_integer("max_customers", self.max_customers, least=1)
        return super()._plan(connection)

    def _converter(self) -> Converter:
        from airflow_provider_bubblehouse.customers.converter import Converter
        from airflow_provider_bubblehouse.push.batches import largest_customer

        return Converter(deletions=True, largest=largest_customer(self.max_batch_bytes), formats=self.formats)


def _rows(value: Any) -> Sequence[Any]:
    """Return the rows of rendered ``customers``; a template renders to text."""
    value = from_json("customers", value)
    if value is None:
        raise BubblehousePermanentError("customers is None; did the task before return its list?")
    if hasattr(value, "iterrows"):
        raise BubblehousePermanentError("customers is a DataFrame; give its rows: frame.to_dict('records').")
    if isinstance(value, Mapping | str | bytes) or not isinstance(value, Sequence):
        raise BubblehousePermanentError("customers must be a list of objects, one for each customer.")
    return value if isinstance(value, list | tuple) else list(value)  # the output of mapped tasks is fetched by item


def _parameters(value: Any) -> Sequence[Any] | Mapping[str, Any]:
    if isinstance(value, str) or not isinstance(value, Sequence | Mapping):
        raise BubblehousePermanentError("sql_parameters must be a list, or an object by the placeholders' names.")
    return value if isinstance(value, list | tuple | Mapping) else list(value)


def _filesystem(location: ObjectStoragePath) -> Any:
    if _is_local(location):  # saves a third of a second: Airflow would import the file systems of all providers
        from fsspec.implementations.local import LocalFileSystem

        return LocalFileSystem()
    try:
        return location.fs
    except (ImportError, ValueError):
        raise no_filesystem_error(location) from None
    except Exception as error:
        if fault_of(error) in (Fault.OTHER, Fault.MISSING):  # for example an undefined connection
            raise
        raise store_error(error, _url(location), "opened") from error


def _url(location: ObjectStoragePath) -> str:
    """Return a path as ``path=`` accepts it: a URL with its Airflow connection, or a plain path."""
    return str(location.path) if _is_local(location) else without_credentials(str(location))


def _is_local(location: ObjectStoragePath) -> bool:
    return location.protocol in ("", "file", "local")


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
