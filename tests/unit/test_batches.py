"""Batches keep every customer once, in order, within both limits."""

from __future__ import annotations

import itertools
import json

import pytest
from hypothesis import given, strategies as st

from airflow_provider_bubblehouse.customers.encoded import AsWritten, Encoded, Unencoded
from airflow_provider_bubblehouse.push.batches import Batch, Batcher, largest_customer

LEAST = 1024
FORMS = {
    "encoded": Encoded,
    "as written": lambda lines: AsWritten([json.loads(line) for line in lines], lines),
    "unencoded": lambda lines: Unencoded([json.loads(line) for line in lines]),
}


def cut(chunks: list[list[bytes]], form, **kwargs) -> list[Batch]:
    batcher, number, batches = Batcher(**kwargs), 0, []
    for chunk in chunks:
        batches += batcher.add(range(number, number + len(chunk)), form(chunk))
        number += len(chunk)
    return [*batches, *batcher.rest()]


@pytest.mark.parametrize("form", FORMS)
@given(
    sizes=st.lists(st.lists(st.integers(min_value=2, max_value=largest_customer(LEAST)))),
    batch_size=st.integers(min_value=1, max_value=20),
    debug=st.booleans(),
)
def test_every_customer_is_in_one_batch_in_order_and_no_batch_breaks_a_limit(form, sizes, batch_size, debug):
    chunks = [[b'"' + b"x" * (size - 2) + b'"' for size in chunk] for chunk in sizes]
    customers = [customer for chunk in chunks for customer in chunk]
    batches = cut(chunks, FORMS[form], batch_size=batch_size, max_batch_bytes=LEAST, debug=debug)
    payloads = [json.loads(batch.body) for batch in batches]
    assert [bytes(row) for batch in batches for row in batch.customers()] == customers
    assert [number for batch in batches for number in batch.numbers] == list(range(len(customers)))
    assert all(payload.get("debug", False) is debug for payload in payloads)
    assert all(len(batch.body) <= LEAST for batch in batches)
    assert [batch.rows for batch in batches] == [len(payload["customers"]) for payload in payloads]
    assert all(0 < batch.rows <= batch_size for batch in batches)
    for batch, following in itertools.pairwise(batches):
        room = LEAST - len(batch.body) - len(',"debug":true')
        assert batch.rows == batch_size or room <= len(bytes(following.customers()[0]))


@pytest.mark.parametrize(("customers", "batches"), [(0, []), (1, [1]), (4, [4]), (5, [4, 1]), (8, [4, 4])])
@pytest.mark.parametrize("form", FORMS)
def test_a_batch_is_full_before_the_next_one_begins(form, customers, batches):
    chunks = [[b"{}"] * customers]
    assert [batch.rows for batch in cut(chunks, FORMS[form], batch_size=4, max_batch_bytes=LEAST)] == batches
