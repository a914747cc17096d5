"""What the tests of a push share: stores of its state, pushes that fail or are stopped, and rows."""

from __future__ import annotations

import json
import threading
import time

import pytest

from airflow_provider_bubblehouse.exceptions import BubblehouseTransientError
from airflow_provider_bubblehouse.operators.customers import UpdateCustomersOperator


class Store:
    """Keeps what Airflow's task state store would, as JSON, from one try to the next."""

    def __init__(self) -> None:
        self.values: dict[str, str] = {}
        self.sets = 0

    def get(self, key):
        return json.loads(self.values.get(key, "null"))

    def set(self, key, value):
        self.sets += 1
        self.values[key] = json.dumps(value)
        assert json.loads(self.values[key]) == value, "Airflow's store takes JSON's own types only"

    def delete(self, key):
        self.values.pop(key, None)


class FullStore(Store):
    def set(self, key, value):
        raise ConnectionError("no room")


class SilentStore(Store):
    def get(self, key):
        raise ConnectionError("no store")


class Breaking:
    """A source that breaks off after its first chunk."""

    def __init__(self, source, error: BaseException) -> None:
        self._source, self._error = source, error
        self.version, self.fingerprint, self.share_read = source.version, source.fingerprint, source.share_read

    def chunks(self):
        yield next(self._source.chunks())
        raise self._error


def update(store=None, **kwargs) -> dict:
    operator = UpdateCustomersOperator(task_id="push", **kwargs)
    return operator.execute({} if store is None else {"task_state_store": store})


class Started:
    """A push in a thread of its own, past Airflow 2's guard, which knows none but the task's."""

    def __init__(self, store=None, *, ends_with=BubblehouseTransientError, **kwargs) -> None:
        self._ends_with = ends_with
        self._operator = UpdateCustomersOperator(task_id="push", **kwargs)
        self._operator._push = self._operator._prepare({} if store is None else {"task_state_store": store})
        self.summary: dict = {}
        self.ended_at = 0.0
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def _run(self) -> None:
        with pytest.raises(self._ends_with) as caught:
            self._operator._push.run()
        self.summary, self.ended_at = caught.value.summary, time.monotonic()

    def kill(self) -> float:
        """Tell it to stop, wait until it has, and return how long that took."""
        stopped_at = time.monotonic()
        self._operator.on_kill()
        self._thread.join(30)
        assert not self._thread.is_alive()
        return self.ended_at - stopped_at


def failed(kind, store=None, **kwargs) -> dict:
    """Push, see it fail with exactly this kind of error, and return its summary."""
    with pytest.raises(kind) as caught:
        update(store, **kwargs)
    assert type(caught.value) is kind or (issubclass(type(caught.value), kind) and kind is BubblehouseTransientError)
    summed(caught.value.summary)
    return caught.value.summary


def summed(summary: dict) -> dict:
    assert summary["read"] == sum(summary[name] for name in ("invalid", "unchanged", "accepted", "rejected", "unsent"))
    return summary


def people(count: int, first: int = 1) -> list[dict]:
    return [{"id": str(number), "first_name": f"name {number}"} for number in range(first, first + count)]


def write_lines(path, rows) -> str:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(path)


def sent(sandbox) -> list[str]:
    return [customer.get("id") or customer["email"] for call in sandbox.calls for customer in call.customers]


def wait_until(condition, seconds: float = 30) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "nothing happened in time"
        time.sleep(0.005)
