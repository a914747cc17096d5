"""``@task.bubblehouse_customers``: a TaskFlow function whose customers are pushed to Bubblehouse."""

from __future__ import annotations

import datetime as dt
from collections.abc import AsyncIterable, Generator, Iterable, Mapping, Sequence
from inspect import isawaitable, iscoroutine
from typing import TYPE_CHECKING, Any

from airflow_provider_bubblehouse.airflow_compat import (
    DecoratedOperator,
    context_merge,
    determine_kwargs,
    task_decorator_factory,
)
from airflow_provider_bubblehouse.exceptions import BubblehousePermanentError
from airflow_provider_bubblehouse.operators.customers import UpdateCustomersOperator
from airflow_provider_bubblehouse.operators.rendering import run_time_oids

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterator

    from airflow_provider_bubblehouse.airflow_compat import Context, TaskDecorator
    from airflow_provider_bubblehouse.customers.converter import Converter
    from airflow_provider_bubblehouse.sources.source import Source


class _Hidden:
    """An argument whose repr is its type: Airflow stores the text of a rendered field and shows it in its UI."""

    def __init__(self, argument: Any) -> None:
        self.argument = argument

    def __repr__(self) -> str:
        return f"<{type(self.argument).__name__}>"


_NO_ROWS = (str, int, float, dt.date, dt.timedelta, type(None))  # types that Airflow may store and show


def _shown(argument: Any) -> Any:
    return argument.argument if isinstance(argument, _Hidden) else argument


def _hidden(argument: Any) -> Any:
    argument = _shown(argument)
    return argument if isinstance(argument, _NO_ROWS) else _Hidden(argument)


class _CustomersDecoratedOperator(DecoratedOperator, UpdateCustomersOperator):
    """
    Pushes the customers that the function returns or yields.

    They are not in a template field, so Airflow neither renders nor stores them. Of the function's arguments Airflow
    stores only those that cannot hold rows.
    """

    custom_operator_name = "@task.bubblehouse_customers"
    template_fields: Sequence[str] = ("bubblehouse_conn_id", "rejected_path", *DecoratedOperator.template_fields)
    template_ext: Sequence[str] = ()  # an argument such as "report.sql" is text, not the name of a template

    def __init__(
        self,
        *,
        python_callable: Callable[..., Any],
        op_args: Collection[Any] | None = None,
        op_kwargs: Mapping[str, Any] | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(python_callable=python_callable, op_args=op_args, op_kwargs=op_kwargs, customers=[], **kwargs)
        self._yielded: Iterable[Any] | None = None

    def execute(self, context: Context) -> dict[str, Any]:
        """Call the function, push the customers that it returns or yields, and return the summary."""
        arguments = [_shown(argument) for argument in self.op_args]
        context_merge(context, {name: _shown(argument) for name, argument in self.op_kwargs.items()})
        parameters = determine_kwargs(self.python_callable, arguments, context)
        returned = self.python_callable(*arguments, **parameters)
        if returned is None:
            raise BubblehousePermanentError("The function returned None; return a list of customers, or yield them.")
        _refuse_async(returned)
        if not _is_read_once(returned):
            self._wrap_customers(returned)
            return UpdateCustomersOperator.execute(self, context)
        self._yielded = returned
        try:
            return UpdateCustomersOperator.execute(self, context)
        finally:
            if isinstance(returned, Generator):  # an error may have ended it before its end
                returned.close()

    def _source(self, converter: Converter) -> Source:
        if self._yielded is None:
            return super()._source(converter)
        from airflow_provider_bubblehouse.sources.records import spool_records

        records, self._yielded = self._until_killed(self._yielded), None
        self._spool = spool_records("the function", records, column_map=self.column_map, converter=converter)
        return self._spool

    def _until_killed(self, records: Iterable[Any]) -> Iterator[Any]:
        from airflow_provider_bubblehouse.push.pacing import StoppedError

        for record in records:
            if self._is_killed:
                raise StoppedError
            yield record

    def _do_render_template_fields(
        self, parent: Any, template_fields: Iterable[str], context: Any, jinja_env: Any, seen_oids: set[int]
    ) -> None:
        if parent is self:
            # Hidden before rendering, too: if a template fails, Airflow logs the field with all its values.
            data = run_time_oids(self, context, seen_oids)
            self.op_kwargs = {
                name: _Hidden(argument) if id(argument) in data else argument
                for name, argument in self.op_kwargs.items()
            }
        super()._do_render_template_fields(parent, template_fields, context, jinja_env, seen_oids)
        if parent is self:
            self.op_args = [_hidden(argument) for argument in self.op_args]
            self.op_kwargs = {name: _hidden(argument) for name, argument in self.op_kwargs.items()}


def _refuse_async(returned: object) -> None:
    if iscoroutine(returned):
        returned.close()  # otherwise Python warns that it is never awaited
    if isawaitable(returned) or isinstance(returned, AsyncIterable):
        raise BubblehousePermanentError("The function is async; use def, and return a list of customers or yield them.")


def _is_read_once(returned: object) -> bool:
    """Return whether a result can be iterated over only once, such as a generator; not a list or a DataFrame."""
    in_memory = isinstance(returned, Sequence | Mapping | bytearray | memoryview) or hasattr(returned, "iterrows")
    return isinstance(returned, Iterable) and not in_memory


def bubblehouse_customers_task(
    python_callable: Callable[..., Any] | None = None, multiple_outputs: bool | None = None, **kwargs: Any
) -> TaskDecorator:
    """
    Push the customers that a function returns or yields.

    :param python_callable: the function. It returns a list of dicts with the fields of Customer2, or yields such dicts
        one by one: then any number of customers takes constant memory. What it yields is validated and stored in a
        temporary file of the worker (in ``TMPDIR``) before the first call.
    :param multiple_outputs: whether each count of the summary becomes an XCom of its own.
    :param kwargs: the parameters of ``UpdateCustomersOperator``, except ``customers``, ``path`` and ``sql``.
    """
    return task_decorator_factory(
        python_callable=python_callable,
        multiple_outputs=multiple_outputs,
        decorated_operator_class=_CustomersDecoratedOperator,
        **kwargs,
    )
