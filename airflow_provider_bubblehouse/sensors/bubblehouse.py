"""Sensors that wait for Bubblehouse: for the API itself, or for pushed customers."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from datetime import timedelta
from typing import TYPE_CHECKING, Any, NoReturn

from airflow_provider_bubblehouse.airflow_compat import (
    AirflowFailException,
    AirflowSensorTimeout,
    AirflowSkipException,
    BaseSensorOperator,
    conf,
)
from airflow_provider_bubblehouse.api.details import read_expected, read_identities, why_not_yet
from airflow_provider_bubblehouse.exceptions import (
    BubblehouseError,
    BubblehousePermanentError,
    BubblehouseTransientError,
    add_no_retries_hint,
    shorten_tracebacks,
)
from airflow_provider_bubblehouse.hooks.bubblehouse import BubblehouseHook
from airflow_provider_bubblehouse.operators.parameters import check_choice, check_flag, check_template_field
from airflow_provider_bubblehouse.operators.rendering import CustomerRows, join_surrogates, run_time_oids

if TYPE_CHECKING:
    from collections.abc import Iterable

    from airflow.triggers.base import BaseTrigger

    from airflow_provider_bubblehouse.airflow_compat import Context

_DEFERRAL_TIMEOUTS = ("Trigger timeout", "Trigger/execution timeout")  # texts of Airflow 3 and of Airflow 2


class _BubblehouseSensor(BaseSensorOperator):
    """
    Base of the sensors: an answer of the API means the same in all modes.

    Airflow applies ``soft_fail`` and ``never_fail`` to a poke only, so this class applies them in deferred mode. If the
    triggerer cannot run a trigger at all, Airflow decides: ``soft_fail`` skips the task, and so does ``never_fail``
    from Airflow 3 on.
    """

    template_fields: Sequence[str] = ("bubblehouse_conn_id",)
    ui_color = "#e8e1f5"

    def __init__(
        self,
        *,
        bubblehouse_conn_id: str = BubblehouseHook.default_conn_name,
        deferrable: bool = conf.getboolean("operators", "default_deferrable", fallback=False),
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        check_template_field("bubblehouse_conn_id", bubblehouse_conn_id, (str,), expected="text")
        check_flag("deferrable", deferrable)
        self.bubblehouse_conn_id = bubblehouse_conn_id
        self.deferrable = deferrable

    @abstractmethod
    def _is_done(self, hook: BubblehouseHook) -> bool:
        """Check the condition once."""

    @abstractmethod
    def _trigger(self) -> BaseTrigger:
        """Return the trigger that continues to wait."""

    def _waits_when_unavailable(self) -> bool:
        return False

    def poke(self, context: Context) -> bool:
        """Check once, with a new HTTP connection: an idle one may be closed by the time of the next check."""
        hook = BubblehouseHook(self.bubblehouse_conn_id)
        try:
            with hook.get_conn():
                return self._is_done(hook)
        except BubblehouseError as error:
            if isinstance(error, BubblehouseTransientError):
                if self._waits_when_unavailable():
                    self.log.info("%s Waiting.", error)
                    return False
                add_no_retries_hint(error, context)
            shorten_tracebacks(error)
            raise error  # noqa: TRY201  a bare raise would leave out this frame, too

    def execute(self, context: Context) -> None:
        """Wait; with ``deferrable`` after one check in the worker, which is often enough."""
        if not self.deferrable:
            super().execute(context)
            return
        try:
            done = self.poke(context)
        except Exception as error:  # noqa: BLE001 (as Airflow does around a poke)
            if not self.silent_fail or isinstance(error, AirflowFailException | AirflowSkipException):
                self._fail(error)
            self.log.error("The first check failed (%s); waiting.", type(error).__name__)  # noqa: TRY400
            done = False
        if not done:
            self.defer(trigger=self._trigger(), method_name="execute_complete", timeout=timedelta(seconds=self.timeout))

    def execute_complete(self, context: Context, event: dict[str, Any] | None = None) -> None:
        """
        Raise the error that ended the trigger.

        :param event: the payload of its event; any payload but success raises.
        """
        from airflow_provider_bubblehouse.triggers.bubblehouse import error_of

        error = error_of(event)
        if error is None:
            return
        if isinstance(error, BubblehouseTransientError):
            add_no_retries_hint(error, context)
        self._fail(error)

    def resume_execution(self, next_method: str, next_kwargs: dict[str, Any] | None, context: Context) -> Any:
        """Treat a timeout as in the other modes: Airflow 2 would retry it, and 3 skip it with never_fail."""
        if next_method == "__fail__" and (next_kwargs or {}).get("error") in _DEFERRAL_TIMEOUTS:
            raise (AirflowSkipException if self.soft_fail else AirflowSensorTimeout)("Sensor has timed out.")
        return super().resume_execution(next_method, next_kwargs, context)

    def _fail(self, error: Exception) -> NoReturn:
        if self.never_fail:
            raise AirflowSkipException("Skipping due to never_fail is set to True.") from error
        if self.soft_fail and isinstance(error, AirflowFailException):
            raise AirflowSkipException("Skipping due to soft_fail is set to True.") from error
        raise error


class BubblehouseStatusSensor(_BubblehouseSensor):
    """
    Wait until the Bubblehouse API answers and accepts the token.

    The sensor calls Status2 (https://app.bubblehouse.com/apidocs/apis/loyalty/Status2). Every 4xx fails the task at
    once, without a retry: waiting does not fix a bad token.

    :param on_unavailable: what a 5xx or a network error means: ``retry`` fails the task, and Airflow retries it as
        often as ``retries`` says; ``wait`` checks again until the sensor's ``timeout``.
    :param bubblehouse_conn_id: the Airflow connection of type ``bubblehouse``. (templated)
    :param deferrable: after one check in the worker, wait in the triggerer, which uses no worker slot. It checks every
        ``poke_interval``; ``exponential_backoff`` applies to the other modes only. Default: Airflow's setting
        ``[operators] default_deferrable``.
    :raises BubblehouseTransientError: with ``retry``, on a 5xx or a network error; Airflow retries the task.
    :raises BubblehousePermanentError: for any other answer than 200; Airflow does not retry.
    """

    def __init__(self, *, on_unavailable: str = "retry", **kwargs: Any) -> None:
        super().__init__(**kwargs)
        check_choice("on_unavailable", on_unavailable, ("retry", "wait"))
        self.on_unavailable = on_unavailable

    def _waits_when_unavailable(self) -> bool:
        return self.on_unavailable == "wait"

    def _is_done(self, hook: BubblehouseHook) -> bool:
        hook.status()
        return True

    def _trigger(self) -> BaseTrigger:
        from airflow_provider_bubblehouse.triggers.bubblehouse import BubblehouseStatusTrigger

        return BubblehouseStatusTrigger(
            bubblehouse_conn_id=self.bubblehouse_conn_id,
            poke_interval=self.poke_interval,
            wait_when_unavailable=self._waits_when_unavailable() or self.silent_fail,
        )


class BubblehouseCustomerSensor(_BubblehouseSensor):
    """
    Wait until pushed customers can be read back: Bubblehouse processes a push after it has answered.

    The sensor calls CustomerDetails1 (https://app.bubblehouse.com/apidocs/apis/loyalty/CustomerDetails1) for one
    customer after the other. "No customer matches" means not yet; any other 4xx fails the task at once, without a
    retry. A 5xx or a network error fails the task, and Airflow retries it; with ``silent_fail`` the sensor waits.

    Airflow shows the number of customers and the names of the fields, and no value. In deferred mode its database holds
    identities and expected values while the sensor waits, encrypted with a key derived from the secret of the
    connection. If that secret changes meanwhile, the task fails as for an outage, and its retry defers again. Literal
    ones are part of the serialized DAG.

    :param identity: which customer: an object with ``shop_id`` (the pushed ``id``), ``email`` or ``bubblehouse_id``;
        if it has several, all must match. With a list of objects, such as a sample of the push, the sensor waits for
        all of them; with an empty list it does not wait. Also an XComArg, or a template that renders to JSON.
        (templated)
    :param expected: fields of Customer2 and the values that every customer must have. Values are compared in the form
        in which a push sends them: times as instants, amounts as numbers, emails without case, tags without order; in
        ``extras`` only the given keys. (templated)
    :param bubblehouse_conn_id: the Airflow connection of type ``bubblehouse``. (templated)
    :param deferrable: as in ``BubblehouseStatusSensor``.
    :raises BubblehouseTransientError: on a 5xx or a network error; Airflow retries the task.
    :raises BubblehousePermanentError: for any other answer without a customer; Airflow does not retry.
    """

    template_fields: Sequence[str] = (*_BubblehouseSensor.template_fields, "identity", "expected")

    def __init__(
        self,
        *,
        identity: Mapping[str, str] | Sequence[Mapping[str, str]] | str,
        expected: Mapping[str, Any] | str | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        check_template_field("identity", identity, (Mapping, Sequence), expected="an object or a list of objects")
        if expected is not None:
            check_template_field("expected", expected, (Mapping,), expected="an object of fields and values")
        self.identity = identity
        self.expected = expected
        self._found = 0  # how many customers were found, and are not checked again

    def execute(self, context: Context) -> None:
        """Wait; each check starts with the customer that was not there yet in the last one."""
        self._found = 0
        super().execute(context)

    def _is_done(self, hook: BubblehouseHook) -> bool:
        identities, expected = read_identities(self.identity), read_expected(self.expected)
        for identity in identities[self._found :]:
            found: dict[str, Any] | BubblehousePermanentError
            try:
                found = hook.get_customer(**identity)
            except BubblehousePermanentError as error:
                found = error
            reason = why_not_yet(found, expected)
            if reason:
                self.log.info("Customer %d of %d %s.", self._found + 1, len(identities), reason)
                return False
            self._found += 1
        return True

    def _trigger(self) -> BaseTrigger:
        from airflow_provider_bubblehouse.triggers.bubblehouse import BubblehouseCustomerTrigger, encrypt_customers

        identities = read_identities(self.identity)[self._found :]
        return BubblehouseCustomerTrigger(
            bubblehouse_conn_id=self.bubblehouse_conn_id,
            poke_interval=self.poke_interval,
            wait_when_unavailable=self.silent_fail,
            encrypted=encrypt_customers(self.bubblehouse_conn_id, identities, read_expected(self.expected)),
        )

    def _do_render_template_fields(
        self, parent: Any, template_fields: Iterable[str], context: Any, jinja_env: Any, seen_oids: set[int]
    ) -> None:
        """Render templates, not data, and replace values by wrappers that show none in what Airflow stores."""
        if parent is self:
            seen_oids = run_time_oids(self, context, seen_oids)
        super()._do_render_template_fields(parent, template_fields, context, jinja_env, seen_oids)
        if parent is self:
            self.identity = CustomerRows(read_identities(join_surrogates(self.identity)))
            self.expected = None if self.expected is None else _Expected(read_expected(join_surrogates(self.expected)))


class _Expected(Mapping[str, Any]):
    """
    Fields and values whose repr is the names of the fields.

    A plain ``Mapping``, because Airflow stores a ``dict``, or a subclass of it, with all its values.
    """

    def __init__(self, fields: Mapping[str, Any]) -> None:
        self._fields = fields

    def __getitem__(self, name: str) -> Any:
        return self._fields[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._fields)

    def __len__(self) -> int:
        return len(self._fields)

    def __repr__(self) -> str:
        from airflow_provider_bubblehouse.customers.invalid import printable_name

        return ", ".join(map(printable_name, self))
