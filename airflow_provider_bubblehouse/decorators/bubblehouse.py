"""``@task.bubblehouse_customers``: a TaskFlow function whose customers are pushed to Bubblehouse."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from airflow.providers.common.compat.sdk import (
    DecoratedOperator,
    context_merge,
    determine_kwargs,
    task_decorator_factory,
)

from airflow_provider_bubblehouse.operators.customers import UpdateCustomersOperator

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Mapping, Sequence

    from airflow.providers.common.compat.sdk import Context, TaskDecorator


class _CustomersDecoratedOperator(DecoratedOperator, UpdateCustomersOperator):
    """
    Pushes what the function returns.

    It never goes through a template, and is no field that Airflow stores: a customer named ``{{ 7*7 }}`` stays so.
    """

    custom_operator_name = "@task.bubblehouse_customers"
    template_fields: Sequence[str] = ("bubblehouse_conn_id", "rejected_path", *DecoratedOperator.template_fields)

    def __init__(
        self,
        *,
        python_callable: Callable[..., Any],
        op_args: Collection[Any] | None = None,
        op_kwargs: Mapping[str, Any] | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(python_callable=python_callable, op_args=op_args, op_kwargs=op_kwargs, customers=[], **kwargs)

    def execute(self, context: Context) -> dict[str, Any]:
        """Call the function, push the customers it returns, and return the summary."""
        context_merge(context, self.op_kwargs)
        parameters = determine_kwargs(self.python_callable, self.op_args, context)
        self.customers = self.python_callable(*self.op_args, **parameters)
        return UpdateCustomersOperator.execute(self, context)


def bubblehouse_customers_task(
    python_callable: Callable[..., Any] | None = None, multiple_outputs: bool | None = None, **kwargs: Any
) -> TaskDecorator:
    """
    Push the customers that a function returns.

    :param python_callable: the function; it returns a list of dicts with the fields of Customer2.
    :param multiple_outputs: whether each count of the summary becomes an XCom of its own.
    :param kwargs: the parameters of ``UpdateCustomersOperator``, but for ``customers`` and ``path``.
    """
    return task_decorator_factory(
        python_callable=python_callable,
        multiple_outputs=multiple_outputs,
        decorated_operator_class=_CustomersDecoratedOperator,
        **kwargs,
    )
