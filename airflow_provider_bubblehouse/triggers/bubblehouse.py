"""
Triggers that wait for Bubblehouse in the triggerer, without blocking its event loop.

An exception loses its class when it leaves a trigger. So the trigger puts an error into its event (``event_of``), and
the sensor raises it (``error_of``).
"""

from __future__ import annotations

import asyncio
import random
from abc import abstractmethod
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any
from weakref import WeakKeyDictionary

from airflow.triggers.base import BaseTrigger, TriggerEvent

from airflow_provider_bubblehouse.airflow_compat import AirflowException, call_in_thread
from airflow_provider_bubblehouse.api.details import CUSTOMER_DETAILS, details_payload, why_not_yet
from airflow_provider_bubblehouse.exceptions import (
    BubblehouseError,
    BubblehousePermanentError,
    BubblehouseRateLimitError,
    BubblehouseRejectedError,
    BubblehouseTransientError,
)
from airflow_provider_bubblehouse.hooks.bubblehouse import BubblehouseHook, shop_connection
from airflow_provider_bubblehouse.triggers.encryption import decrypt, encrypt

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Mapping, Sequence

    import httpx

    from airflow_provider_bubblehouse.airflow_compat import Connection
    from airflow_provider_bubblehouse.api.async_client import AsyncClient
    from airflow_provider_bubblehouse.api.connection import ShopConnection

SUCCESS: dict[str, Any] = {"status": "success"}

_CLASSES = {
    one.__name__: one
    for one in (
        BubblehouseTransientError,
        BubblehousePermanentError,
        BubblehouseRejectedError,
        BubblehouseRateLimitError,
    )
}


def event_of(error: Exception) -> dict[str, Any]:
    """
    Put an error into the payload of an event.

    :param error: the error that ended the wait. An error of another package becomes a transient one.
    """
    if not isinstance(error, BubblehouseError):
        # Airflow's own text names a connection at most; other errors may quote a value.
        said = f": {error}" if isinstance(error, AirflowException) else ""
        error = BubblehouseTransientError(f"The trigger failed with {type(error).__name__}{said}.")
    return {
        "status": "error",
        "error": type(error).__name__,
        "permanent": isinstance(error, BubblehousePermanentError),
        "message": str(error),
        "http_status": error.status,
        "error_id": error.error_id,
        "retry_after": error.retry_after,
        "attempts": error.attempts,
    }


def error_of(event: Mapping[str, Any] | None) -> BubblehouseError | None:
    """
    Read the payload of an event.

    :return: None for success; otherwise the error to raise, also for an event of an unknown form.
    """
    status = event.get("status") if isinstance(event, dict) else None
    if status == SUCCESS["status"]:
        return None
    if not isinstance(event, dict) or status != "error":
        return BubblehouseTransientError(
            "The trigger sent no result; install the same version of this package in the triggerer and in the workers."
        )
    kind = _CLASSES.get(
        event.get("error", ""), BubblehousePermanentError if event.get("permanent") else BubblehouseTransientError
    )
    return kind(
        event.get("message") or "The trigger failed without a message.",
        status=event.get("http_status"),
        error_id=event.get("error_id"),
        attempts=event.get("attempts") or 0,
        retry_after=event.get("retry_after"),
    )


class _BubblehouseTrigger(BaseTrigger):
    """
    Calls the API until the condition holds, and sends one event. The first call is made within the first interval.

    :param bubblehouse_conn_id: the Airflow connection of type ``bubblehouse``. The triggerer reads it; none of its
        fields is stored with the trigger.
    :param poke_interval: seconds between two calls.
    :param wait_when_unavailable: whether a 5xx or a network error means "not yet"; otherwise it ends the wait.
    """

    def __init__(self, *, bubblehouse_conn_id: str, poke_interval: float, wait_when_unavailable: bool = False) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.bubblehouse_conn_id = bubblehouse_conn_id
        self.poke_interval = poke_interval
        self.wait_when_unavailable = wait_when_unavailable

    def serialize(self) -> tuple[str, dict[str, Any]]:
        """Return the class and its parameters, which Airflow stores."""
        return f"{type(self).__module__}.{type(self).__qualname__}", {
            "bubblehouse_conn_id": self.bubblehouse_conn_id,
            "poke_interval": self.poke_interval,
            "wait_when_unavailable": self.wait_when_unavailable,
        }

    def __repr__(self) -> str:
        """Return no parameter: Airflow's own repr shows them all."""
        return f"<{type(self).__qualname__} {self.bubblehouse_conn_id}>"

    async def run(self) -> AsyncIterator[TriggerEvent]:
        """Wait, and yield one event."""
        yield TriggerEvent(await self._outcome())  # type: ignore[no-untyped-call]

    async def _outcome(self) -> dict[str, Any]:
        try:
            stored = await call_in_thread(BubblehouseHook.get_connection, self.bubblehouse_conn_id)
            connection = await call_in_thread(self._read, stored)  # it masks secrets
            async with _client(connection) as client:
                # The worker has just made a call, and a triggerer starts all its triggers at the same moment.
                await asyncio.sleep(random.uniform(0, self.poke_interval))  # noqa: S311 (chance, not a secret)
                while not await self._is_done_or_waits(client):  # noqa: ASYNC110 (there is no event)
                    await asyncio.sleep(self.poke_interval)
        except Exception as error:  # noqa: BLE001 (an exception that leaves a trigger loses its class)
            return event_of(error)
        return SUCCESS

    def _read(self, stored: Connection) -> ShopConnection:
        """Read the settings out of the stored connection."""
        return shop_connection(stored)

    async def _is_done_or_waits(self, client: AsyncClient) -> bool:
        try:
            return await self._is_done(client)
        except BubblehouseTransientError as error:
            if not self.wait_when_unavailable:
                raise
            self.log.info("%s Waiting.", error)
            return False

    @abstractmethod
    async def _is_done(self, client: AsyncClient) -> bool:
        """Check the condition once."""


class BubblehouseStatusTrigger(_BubblehouseTrigger):
    """Waits until the API answers and accepts the token; the parameters are those of its base."""

    async def _is_done(self, client: AsyncClient) -> bool:
        await client.call("Status2", b"{}")
        return True


class BubblehouseCustomerTrigger(_BubblehouseTrigger):
    """
    Waits until customers can be read back and have the expected values.

    Airflow stores the parameters of a trigger in its database until the trigger has ended. Customers are stored
    encrypted, with a key derived from the secret of the connection.

    :param encrypted: ``identities`` and ``expected``, as ``encrypt_customers`` returns them; instead of these two.
    :param identities: which customers, as ``api.details.read_identities`` returns them. A trigger that version 0.1.0
        stored has it.
    :param expected: the values that they must have, as ``api.details.read_expected`` returns them.
    """

    def __init__(
        self,
        *,
        encrypted: str | None = None,
        identities: Sequence[Mapping[str, str]] = (),
        expected: Mapping[str, Any] | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.encrypted = encrypted
        self.identities = [dict(identity) for identity in identities]
        self.expected = dict(expected or {})
        self._found = 0  # how many customers were found, and are not checked again

    def serialize(self) -> tuple[str, dict[str, Any]]:
        """Return the class and its parameters, which Airflow stores: no customer's value in plain text."""
        path, parameters = super().serialize()
        encrypted = self.encrypted or encrypt_customers(self.bubblehouse_conn_id, self.identities, self.expected)
        return path, {**parameters, "encrypted": encrypted}

    def _read(self, stored: Connection) -> ShopConnection:
        connection = super()._read(stored)
        if self.encrypted is not None:
            self.identities, self.expected = decrypt(self.encrypted, stored)
        return connection

    async def _is_done(self, client: AsyncClient) -> bool:
        import msgspec

        for identity in self.identities[self._found :]:
            found: dict[str, Any] | BubblehousePermanentError
            try:
                found = await client.call(CUSTOMER_DETAILS, msgspec.json.encode(details_payload(**identity)))
            except BubblehousePermanentError as error:
                found = error
            reason = why_not_yet(found, self.expected)
            if reason:
                self.log.info("Customer %d of %d %s.", self._found + 1, len(self.identities), reason)
                return False
            self._found += 1
        return True


def encrypt_customers(
    bubblehouse_conn_id: str, identities: Sequence[Mapping[str, str]], expected: Mapping[str, Any]
) -> str:
    """
    Encrypt what a ``BubblehouseCustomerTrigger`` waits for.

    :param bubblehouse_conn_id: the Airflow connection whose secret protects it.
    :param identities: as for the trigger.
    :param expected: as for the trigger.
    """
    return encrypt((identities, expected), BubblehouseHook.get_connection(bubblehouse_conn_id))


@dataclass(slots=True)
class _SharedHttp:
    """The HTTP client that all triggers of an event loop share, and how many of them use it."""

    users: int = 0
    opening: asyncio.Lock = field(default_factory=asyncio.Lock)
    http: httpx.AsyncClient | None = None


_shared: WeakKeyDictionary[asyncio.AbstractEventLoop, _SharedHttp] = WeakKeyDictionary()


@asynccontextmanager
async def _client(connection: ShopConnection) -> AsyncIterator[AsyncClient]:
    """
    Return a client of a shop that uses the httpx client of this event loop. Its last user closes that client.

    Otherwise each trigger would have its own pool of sockets and its own TLS context.
    """
    loop = asyncio.get_running_loop()
    shared = _shared.setdefault(loop, _SharedHttp())
    shared.users += 1
    try:
        async with shared.opening:
            if shared.http is None:
                shared.http = await asyncio.to_thread(_open_http)
        from airflow_provider_bubblehouse.api.async_client import AsyncClient

        # A new token is masked, which may wait for Airflow.
        yield AsyncClient(connection, http=shared.http, token=partial(call_in_thread, connection.tokens.current))
    finally:
        shared.users -= 1
        if not shared.users:
            del _shared[loop]
            if shared.http is not None:
                await shared.http.aclose()


def _open_http() -> httpx.AsyncClient:
    """Import httpx and read the certificates. Call it in a thread: both take tens of milliseconds."""
    from airflow_provider_bubblehouse.api.async_client import open_http

    return open_http()
