"""Operators that push customers to Bubblehouse: update them, or delete them."""

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

DEFAULT_BATCH_SIZE = 500  # half of what the API recommends at most for orders, the only number it names
DEFAULT_MAX_ATTEMPTS = 10  # with 20 % faults, 5 exhaust one batch in 3,000, and each of them fails a try of the task
DEFAULT_LEDGER_DAYS = 30
DEFAULT_MAX_ATTEMPT_SECONDS = 300.0  # a longer outage is for the task's own retries, which hold no worker slot


# The types of the template fields, apart from text that renders to them, and their names in an error.
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
    Parameters of a query, whose repr is their count: they may be a customer's values.

    :param values: the parameters, in their order or by name.
    """

    def __init__(self, values: Sequence[Any] | Mapping[str, Any]) -> None:
        self.values = values

    def __repr__(self) -> str:
        return f"{len(self.values)} parameters"


class _SourceOperator(BaseOperator):
    """An operator that reads customers from a list, from files or from a query."""

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
        Refuse template fields of a type that cannot work.

        :param names: the fields that must not be None; after rendering, those that were given.
        """
        for name, (kinds, expected) in _FIELD_TYPES.items():
            value = getattr(self, name, None)
            if value is not None or name in names:
                check_template_field(name, value, kinds, expected=expected)

    def _take(self, customers: Any) -> None:
        """Wrap the rows so that their repr is only a count: OpenLineage, for one, reports an operator's attributes."""
        self.customers = CustomerRows(_rows(customers))

    def _source(self, converter: Converter) -> Source:
        if self.sql is not None:
            self._spool = self._run_query(converter)
            return self._spool
        if self.path is None:
            from airflow_provider_bubblehouse.sources.records import ListSource

            if not isinstance(self.customers, CustomerRows):  # Airflow has not rendered the fields
                self._take(self.customers)
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
        Render templates, not data, and replace values by wrappers that show none in what Airflow stores.

        Mapped tasks call this method only, not ``render_template_fields``.
        """
        if parent is not self:  # an object in a field that has template fields of its own
            super()._do_render_template_fields(parent, template_fields, context, jinja_env, seen_oids)
            return
        given = [name for name in template_fields if getattr(self, name) is not None]
        seen_oids = run_time_oids(self, context, seen_oids)
        is_template = isinstance(self.customers, str) and id(self.customers) not in seen_oids
        if self.customers is not None and not is_template:
            self._take(resolve(self.customers, context))
        super()._do_render_template_fields(parent, template_fields, context, jinja_env, seen_oids)
        if is_template:
            self._take(join_surrogates(self.customers))
        self._check_template_fields(given)
        if self.sql_parameters is not None and not isinstance(self.sql_parameters, SqlParameters):
            self.sql_parameters = SqlParameters(_parameters(self.sql_parameters))


class _CustomersOperator(_SourceOperator):
    """What updating and deleting share: how customers travel to the API."""

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
        self.sends = not dry_run  # under its own name it would hide BaseOperator.dry_run, which the CLI calls
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
        """Report lineage, and keep nothing of the push but its counts: Airflow copies operators."""
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
        """Have ``execute`` end soon; called by a signal's handler, so that it must not wait for anything."""
        self._is_killed = True
        if self._push is not None:
            self._push.stop()
        elif self._query is not None:
            self._query.cancel()

    def get_openlineage_facets_on_complete(self, task_instance: Any) -> OperatorLineage[Any, Any]:
        """
        Return what the push read and wrote; Airflow's OpenLineage provider calls this.

        It also does so after a failure, as there is no other method for that: what was sent before it was sent.

        :param task_instance: the task's run.
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
        """Return what decides which rows have changed; None to send all."""
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
        )

    @abstractmethod
    def _converter(self) -> Converter:
        """Return what validates rows and converts them to customers."""

    def _resume(self, context: Context, connection: ShopConnection) -> Resume | None:
        """Return how to continue after earlier tries; None where Airflow stores nothing, which is so before 3.3."""
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
        own = (ti.dag_id, ti.run_id, ti.task_id, ti.map_index) if ti is not None else ()  # mapped tasks do not meet
        path, url = ("/".join((base.rstrip("/"), *map(str, own))) for base in (location.path, _url(location)))
        return RejectedRows(_filesystem(location), path, url=url)


class UpdateCustomersOperator(_CustomersOperator):
    """
    Push new or changed customers to Bubblehouse.

    Rows are validated, brought into the form of Customer2 and sent in batches
    (https://app.bubblehouse.com/apidocs/apis/order/UpdateCustomers3). A 5xx or a network error is tried again inside
    the task and then by the task's ``retries``; a 4xx fails the task at once, without a retry.

    The result is a summary without any row: ``read``, ``invalid``, ``unchanged``, ``accepted``, ``rejected``,
    ``unsent`` (``read`` is the sum of the other five, over all tries), ``resumed_at`` (rows that earlier tries had
    completed), of this try ``batches``, ``calls``, ``retries``, ``seconds``, and the folder ``rejected_path`` if rows
    were written there.

    :param customers: the rows: a list of dicts with the fields of Customer2, an XComArg that gives one, or a template
        that renders to it as JSON. A literal list becomes part of the serialized DAG, with all it holds: for demos
        only. (templated) Exactly one of ``customers``, ``path`` and ``sql`` is given.
    :param path: a file of rows: a local path, or one in an object store such as ``s3://conn_id@bucket/key.csv``; a
        glob, unless a file of exactly that name exists. gzip and zstd (extra ``zstd``) are decompressed. (templated)
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
    :param csv: how CSV files are written, such as ``{"delimiter": ";", "encoding": "cp1252"}``. The options are
        ``delimiter``, ``encoding`` (one of Python's text encodings), ``quote_char`` (None if there is none),
        ``escape_char``, ``null_values`` (cells that are absent, such as ``["NULL"]``), ``column_names`` (for files
        without a header) and ``skip_rows`` (lines before the header).
    :param column_map: column or field of the source to field of Customer2, such as ``{"CustomerId": "id", "City":
        "extras.city"}``. Exactly these are sent. A dot in a column reaches into an object:
        ``{"traits.email": "email"}``. Without it each goes under its own name.
    :param formats: field to the way in which the source writes it, such as ``{"birthday": "%d.%m.%Y", "tags": ",",
        "optin": {"J": True, "N": False}}``. A date or time takes a ``strptime`` pattern, ``epoch`` or ``epoch_ms``; a
        list its separator; ``extras.x`` ``number``, ``boolean`` or ``json``; ``total_spent`` ``units``; ``id``
        ``verbatim``; and any field a dict that translates its values.
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
    :param min_customers: refuse a source with fewer rows before the first call: an export that was cut off.
    :param ledger_path: a folder, local or in an object store, that remembers what Bubblehouse last accepted of each
        customer, as hashes: only what has changed is sent, and the rest is counted as ``unchanged``. One task at a time
        uses it; deletions need the same one. (templated)
    :param ledger_days: after how many days at most a customer is sent again, changed or not: others write to
        Bubblehouse, too, and an accepted call may fail later.
    :param resume: go on after the rows that earlier tries of this task settled, as long as source and parameters are
        the same; Airflow keeps the progress from 3.3 on. Also a task that is cleared goes on so, and one whose source
        was refused still fails: False starts over.
    :param on_invalid: ``fail`` validates the whole source before the first call and refuses it whole if a row is
        invalid; ``skip`` sends the others and reports the invalid rows.
    :param max_invalid: with ``skip``, refuse a source with more invalid rows before the first call: a count, or a share
        of all rows if it is below 1. The source is then read twice.
    :param debug: have the API process at once and refuse the call on any warning. For development only: the connection
        must have ``allow_debug``, the source at most one batch.
    :param dry_run: read, validate and cut batches, but call nothing; no connection is needed.
    :raises BubblehouseTransientError: if a batch did not get through; Airflow retries the task.
    :raises BubblehouseRejectedError: if the API refused a batch; Airflow does not retry.
    :raises BubblehousePermanentError: for anything else that a retry cannot help.
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
    Delete customers from Bubblehouse, by pushing them with ``"deleted": true`` (there is no call of its own for it).

    Of each row only its ``id``, or else its ``email``, is sent. The whole source is validated before the first call,
    and refused if a row is invalid or has a ``deleted`` that is not true. Parameters, result and errors that are not
    named here are those of ``UpdateCustomersOperator``.

    :param max_customers: a source with more rows is refused before anything is sent: deletion is not undone by the
        next run, so say how many you mean. (templated)
    """

    template_fields: Sequence[str] = (*_CustomersOperator.template_fields, "max_customers")
    deletes = True

    def __init__(self, *, max_customers: int, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.max_customers = max_customers
        is_template = isinstance(max_customers, str) and "{" in max_customers
        if not is_template and not hasattr(max_customers, "resolve"):  # as an XComArg has
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
    """Return rendered ``customers`` as rows; a template renders to text."""
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
    if _is_local(location):  # Airflow would import the file systems of all providers, which takes a third of a second
        from fsspec.implementations.local import LocalFileSystem

        return LocalFileSystem()
    try:
        return location.fs
    except (ImportError, ValueError):
        raise no_filesystem_error(location) from None
    except Exception as error:
        if fault_of(error) in (Fault.OTHER, Fault.MISSING):  # such as a connection that is not defined
            raise
        raise store_error(error, _url(location), "opened") from error


def _url(location: ObjectStoragePath) -> str:
    """Return a path as the operators take it: a URL with its Airflow connection, or a plain path."""
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
