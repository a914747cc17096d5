"""Text that is not JSON is an error that says why and where, and shows nothing of it."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import fsspec
import pytest
from hypothesis import given, strategies as st

from airflow_provider_bubblehouse.customers.converter import Converter
from airflow_provider_bubblehouse.exceptions import BubblehousePermanentError
from airflow_provider_bubblehouse.push.report import InvalidRows
from airflow_provider_bubblehouse.sources.files import FileSource

if TYPE_CHECKING:
    from airflow_provider_bubblehouse.customers.invalid import InvalidCustomerError

MEMORY = fsspec.filesystem("memory")
TRAILING = "a comma before a closing bracket"
CONTROL = "a control character in a text, such as a tab or a line break, without an escape"
SINGLE = "a single quote, where JSON has double ones"
WORD = "a word without quotes, such as None, True or undefined"
NUMBER = "a number such as 007, +1 or .5, which JSON does not have"
EARLY = "it ends too early"
COMMA = "two values without a comma between them, or a quote within a text without a backslash"

FAULTS = [  # what is not JSON, what is said, and at which of its bytes
    ('{"id":"Jane",}', TRAILING, 14),
    ('{"tags":["Jane",]}', TRAILING, 17),
    ('{"id":"Ja\tne"}', CONTROL, 10),
    ('{"id":"Jö\x01"}', CONTROL, 11),
    ("{'id':'Jane'}", SINGLE, 2),
    ("{\"id\":'Jane'}", SINGLE, 7),
    ('{"id":None}', WORD, 7),
    ('{"id":"1","optin":True}', WORD, 19),
    ('{"id":undefined}', WORD, 7),
    ('{"id":nan}', WORD, 7),
    ('{"id":007}', NUMBER, 8),
    ('{"id":+1}', NUMBER, 7),
    ('{"id":.5}', NUMBER, 7),
    ('{id:"Jane"}', "a name without quotes", 2),
    ('{"id" "Jane"}', "a name without a colon after it", 7),
    ('{"id":"1" "email":"x"}', COMMA, 11),
    ('{"id":"Jane "J" Doe"}', COMMA, 14),
    ('{"id":"Jane\\x"}', "a backslash that begins no escape of JSON's", 12),
    ('{"id":"\\u12"}', "a backslash that begins no escape of JSON's", 9),
    ('{"id":}', "a character that begins no value", 7),
]
LINES = [
    *FAULTS,
    ('{"id":"1"} {"id":"2"}', "more text after the end of the value", 12),
    ('{"id":"Jane', "a text without a closing quote", 7),
    ('{"id":"Jane"', f"{EARLY}; an object has to be on one line", 13),
    ('{"id":', f"{EARLY}; an object has to be on one line", 7),
    ("{", f"{EARLY}; an object has to be on one line", 2),
]
CUT = [
    ('[{"id":"Jane', "a text without a closing quote", 8),
    ('[{"id":"Jane"', EARLY, 14),
    ('[{"id":"1"}', EARLY, 12),
    ('[{"id":"1"},', EARLY, 13),
    ("[", EARLY, 2),
    ('[{"id":"1"},]', TRAILING, 13),
    ('[{"id":"1"} {"id":"2"}]', "two rows without a comma between them", 13),
    ('[{"id":"1"}] "Jane"', "more text after the end of the array", 14),
]


def source(name: str, content: bytes) -> FileSource:
    MEMORY.pipe(f"/{name}", content)
    return FileSource(MEMORY, f"/{name}")


def errors(source: FileSource) -> dict[int, InvalidCustomerError]:
    found, first = {}, 1
    for block in source.chunks():
        checked = Converter().check(block, first)
        found |= {row.number: row.error for row in checked.invalid}
        first += checked.count
    return found


@pytest.mark.parametrize(("line", "said", "byte"), LINES)
@pytest.mark.parametrize("before", ["", '{"id":"1"}\n', '\n{"id":"1"}\n  '])
def test_a_line_that_is_not_json_says_why_and_at_which_byte(line, said, byte, before):
    found = errors(source("a.jsonl", f'{before}{line}\n{{"id":"3"}}\n'.encode()))
    ((row, error),) = found.items()
    assert row == before.count("1") + 1
    assert str(error) == f"the line is not JSON: {said}"
    assert error.byte == byte + len(before.rpartition("\n")[2])


@pytest.mark.parametrize(("line", "said", "byte"), FAULTS)
@pytest.mark.parametrize("before", [b"[", b"\xef\xbb\xbf [ ", b'[{"id":"1"},\n', b'["%s",' % ("é" * 70_000).encode()])
def test_a_broken_array_says_why_and_at_which_byte_of_the_file(line, said, byte, before):
    with pytest.raises(BubblehousePermanentError) as caught:
        list(source("a.json", before + line.encode() + b"]").chunks())
    assert f"the JSON array is broken at byte {len(before) + byte}, so" in str(caught.value)
    assert f"({said})" in str(caught.value)
    assert "Jane" not in str(caught.value)


@pytest.mark.parametrize(("text", "said", "byte"), CUT)
def test_an_array_that_is_cut_off_says_where(text, said, byte):
    with pytest.raises(BubblehousePermanentError) as caught:
        list(source("a.json", text.encode()).chunks())
    assert f"is broken at byte {byte}, so" in str(caught.value)
    assert f"({said})" in str(caught.value)
    assert "Jane" not in str(caught.value)


@pytest.mark.parametrize("name", ["a.jsonl", "a.json"])
@pytest.mark.parametrize("value", ["NaN", "Infinity", "-Infinity"])
def test_a_number_that_json_does_not_have_is_named_by_its_field(name, value):
    row = f'{{"id":"1","extras":{{"Jane":{value}}}}}'
    (error,) = errors(source(name, (row if name == "a.jsonl" else f"[{row}]").encode())).values()
    assert str(error) == "extras holds NaN or an infinity, which JSON does not have; leave it out"


def test_lines_with_the_same_fault_are_reported_together_with_the_byte_of_each():
    found = InvalidRows()
    for row, error in errors(source("a.jsonl", b'{"id":1,}\n{"id":11,}\n{"id":"3"}\n')).items():
        found.add("a.jsonl", row, error)
    assert str(found) == f"a.jsonl, rows 1 (byte 9), 2 (byte 10): the line is not JSON: {TRAILING}"


@given(st.lists(st.sampled_from(['{"a":', "1", '"x', '"', "[", "]", "}", ",", "'", "\\", "\t", "é", "None", " ", "-"])))
def test_any_text_that_is_not_json_has_a_fault_within_it(pieces):
    line = "".join(pieces)
    for row in errors(source("a.jsonl", f'{{"id":"1"}}\n{line}'.encode())).values():
        if row.byte is not None:
            with pytest.raises(json.JSONDecodeError):
                json.loads(line)
            assert 1 <= row.byte <= len(line.encode()) + 1
