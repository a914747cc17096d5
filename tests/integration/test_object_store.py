"""The tests' own S3 server does what tests of object stores rely on, on every Airflow."""

from __future__ import annotations

import pytest
from object_store import ANONYMOUS_CONNECTION

from airflow_provider_bubblehouse.airflow_compat import ObjectStoragePath
from airflow_provider_bubblehouse.operators.customers import UpdateCustomersOperator

LINES = b'{"id": "1"}\n{"id": "2"}\n'


def test_objects_are_read_and_written_through_a_connection_in_the_url(object_store):
    object_store.put("in/customers é.jsonl", LINES)
    assert ObjectStoragePath(object_store.url("in/customers é.jsonl")).read_bytes() == LINES
    ObjectStoragePath(object_store.url("out/copy.jsonl")).write_bytes(LINES)
    assert object_store.get("out/copy.jsonl") == LINES
    assert object_store.keys() == ["in/customers é.jsonl", "out/copy.jsonl"]


def test_a_push_reads_objects_and_the_store_counts_its_requests(object_store, sandbox):
    for number in range(3):
        object_store.put(f"shard-{number}.jsonl", b'{"id": "%d"}\n' % (number + 1))
    summary = UpdateCustomersOperator(task_id="push", path=object_store.url("shard-*.jsonl")).execute({})
    assert summary["accepted"] == 3
    counts = object_store.counts()
    assert counts["GET"] >= 3
    assert counts["LIST"] >= 1
    assert {request.status for request in object_store.requests()} <= {200, 206, 404}


def test_an_outage_refuses_and_ends(object_store):
    object_store.put("customers.jsonl", LINES)
    path = ObjectStoragePath(object_store.url("customers.jsonl"))
    assert path.read_bytes() == LINES  # so that a connection is open
    with object_store.outage(), pytest.raises(Exception, match="Could not connect"):
        path.read_bytes()
    assert path.read_bytes() == LINES


def test_requests_are_forbidden_by_method(object_store):
    object_store.put("customers.jsonl", LINES)
    with object_store.forbidden("PUT"):
        assert ObjectStoragePath(object_store.url("customers.jsonl")).read_bytes() == LINES
        with pytest.raises(PermissionError):
            ObjectStoragePath(object_store.url("copy.jsonl")).write_bytes(LINES)
    assert object_store.keys() == ["customers.jsonl"]
    assert object_store.bucket in object_store.buckets()
    with object_store.forbidden(), pytest.raises(PermissionError):
        ObjectStoragePath(object_store.url("customers.jsonl")).read_bytes()


def test_without_credentials_everything_is_forbidden(object_store):
    object_store.put("customers.jsonl", LINES)
    path = ObjectStoragePath(object_store.url("customers.jsonl", connection=ANONYMOUS_CONNECTION))
    with pytest.raises(PermissionError):
        path.read_bytes()
