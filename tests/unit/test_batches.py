"""Batches keep every customer once, in order, within both limits."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from airflow_provider_bubblehouse.push.batches import cut_batches, largest_customer

LEAST = 1024


@given(
    sizes=st.lists(st.integers(min_value=2, max_value=largest_customer(LEAST))),
    batch_size=st.integers(min_value=1, max_value=20),
    debug=st.booleans(),
)
def test_every_customer_is_in_one_batch_in_order_and_no_batch_breaks_a_limit(sizes, batch_size, debug):
    customers = [b'"' + b"x" * (size - 2) + b'"' for size in sizes]
    batches = list(cut_batches(iter(customers), batch_size=batch_size, max_batch_bytes=LEAST, debug=debug))
    payloads = [json.loads(batch.body) for batch in batches]
    assert [row for payload in payloads for row in payload["customers"]] == [json.loads(row) for row in customers]
    assert all(payload.get("debug", False) is debug for payload in payloads)
    assert all(len(batch.body) <= LEAST for batch in batches)
    assert [batch.rows for batch in batches] == [len(payload["customers"]) for payload in payloads]
    assert all(0 < batch.rows <= batch_size for batch in batches)


@pytest.mark.parametrize(("customers", "batches"), [(0, []), (1, [1]), (4, [4]), (5, [4, 1]), (8, [4, 4])])
def test_a_batch_is_full_before_the_next_one_begins(customers, batches):
    cut = cut_batches([b"{}"] * customers, batch_size=4, max_batch_bytes=LEAST)
    assert [batch.rows for batch in cut] == batches
