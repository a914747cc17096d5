"""Counts in messages are grammatical."""

from __future__ import annotations

import pytest

from airflow_provider_bubblehouse.plural import plural


@pytest.mark.parametrize(("count", "text"), [(0, "0 rows"), (1, "1 row"), (2, "2 rows"), (12_345, "12,345 rows")])
def test_a_count_has_the_correct_plural(count, text):
    assert plural(count, "row") == text


def test_an_irregular_plural_is_given():
    assert [plural(count, "retry", "retries") for count in (1, 2)] == ["1 retry", "2 retries"]
