"""Shapes show what a field holds, and no value."""

from __future__ import annotations

import datetime as dt
from decimal import Decimal

import pytest
from hypothesis import given, strategies as st

from airflow_provider_bubblehouse.check.profile import FieldProfile
from airflow_provider_bubblehouse.check.shapes import known_word, shape_of


@pytest.mark.parametrize(
    ("value", "shape"),
    [
        ("Ada", "Aaa"),
        ("Łukasz", "Aaaaa"),
        ("Bartholomew", "Aaaaa"),
        ("ada@example.com", "aaa@aaaa.aaa"),
        ("31.01.1990", "99.99.9999"),
        ("1579084200123", "9999999999999"),
        ("9" * 30, "9" * 20 + "…"),
        (" 1 ", "9"),
        ("٣", "9"),
        ("a\tb", "a a"),
        ("\x00\ud800€", "???"),
        ("e\u0301", "a"),
        ("- " * 50, "- " * 20 + "…"),
        (5, "9"),
        (-12.5, "-99.9"),
        (Decimal("12.50"), "99.99"),
        (True, "true"),
        (dt.date(1990, 1, 31), "9999-99-99"),
        (dt.datetime(2020, 1, 31, 12), "9999-99-99 99:99:99"),
        ([], "[]"),
        (["vip", "gold"], "[aaa, …]"),
        ({}, "{}"),
        ({"city": "Rome"}, "{…}"),
        (b"x", "bytes"),
    ],
    ids=ascii,
)
def test_a_shape_has_9_for_digits_and_a_for_letters(value, shape):
    assert shape_of(value) == shape


@given(st.text())
def test_no_letter_but_a_and_no_digit_but_9_is_shown(text):
    assert not [one for one in shape_of(text) if one.isalnum() and one not in "Aa9"]


@pytest.mark.parametrize(("text", "word"), [("NULL", "NULL"), (" yes ", "yes"), ("J", "J"), ("Ada", ""), ("Web", "")])
def test_known_words_are_distinguished_from_others(text, word):
    assert known_word(text) == word


@pytest.mark.parametrize(
    ("field", "values", "shown"),
    [
        ("optin", ["J", "N", "N", "J"], ["J", "N"]),
        ("optin", ["J", "N", "N"], ["A", "N"]),  # J may be an initial
        ("optin", ["J", "J", "Ada", "Eve"], ["A", "Aaa"]),
        ("first_name", ["J", "J", "No", "No"], ["A", "Aa"]),
        ("first_name", ["NULL", "NULL", "Ada"], ["NULL", "Aaa"]),
        ("extras", ["yes", "yes", "no", "no"], ["yes", "no"]),
    ],
    ids=str,
)
def test_words_are_shown_only_where_they_cannot_be_names(field, values, shown):
    profile = FieldProfile()
    profile.add(values)
    assert {shape for shape, _ in profile.most_common((field,), 10)} == set(shown)
    assert sum(count for _, count in profile.most_common((field,), 10)) == profile.filled == len(values)
