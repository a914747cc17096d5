"""A CSV dialect that cannot work fails when it is made, with a message that names the option."""

from __future__ import annotations

import json
from collections import OrderedDict

import pytest

from airflow_provider_bubblehouse.exceptions import BubblehousePermanentError
from airflow_provider_bubblehouse.formats.dialect import Dialect


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (";", "csv must be an object of options"),
        ([("delimiter", ";")], "csv must be an object of options"),
        ({"sep": ";"}, "csv has no option sep; its options are delimiter, encoding, quote_char"),
        ({5: ";"}, "csv has no option 5"),
        *(
            ({"delimiter": delimiter}, "csv: delimiter must be one character")
            for delimiter in ("", ";;", "\\t", "\n", "\r", "\0", None, 5, b";", [";"], "\ud800")
        ),
        *(({"quote_char": quote}, "csv: quote_char must be one character, or None") for quote in ("", "''", "\n", 5)),
        *(({"escape_char": escape}, "csv: escape_char must be one character") for escape in ("", "\\\\", "\n", True)),
        ({"delimiter": '"'}, "csv: delimiter and quote_char must be different"),
        ({"delimiter": "\\", "escape_char": "\\"}, "csv: delimiter and escape_char must be different"),
        ({"escape_char": '"'}, "Leave escape_char out if a quote character within a cell is doubled"),
        *(
            ({"encoding": encoding}, "csv: encoding must be one of Python's text encodings")
            for encoding in ("", "none-such", "hex", "rot13", "zlib", "idna", "punycode", "undefined", "a\0", None, 5)
        ),
        ({"encoding": "ascii", "delimiter": "¦"}, "csv: delimiter is a character that ascii does not have"),
        ({"encoding": "cp1252", "quote_char": "「"}, "csv: quote_char is a character that cp1252 does not have"),
        *(
            ({"null_values": values}, "csv: null_values must be a list of texts")
            for values in ("NULL", None, [None], [1], {"NULL": None}, ["\ud800"])
        ),
        *(
            ({"column_names": names}, "csv: column_names must be a list with the name of each column")
            for names in ("id", [], ["id", ""], [1], {"id": "email"}, [["id"]])
        ),
        ({"column_names": ["id", "email", "id"]}, "csv: column_names has the same name twice"),
        *(({"skip_rows": rows}, "csv: skip_rows must be a whole number") for rows in (-1, 1.0, True, "1", None)),
    ],
)
def test_an_impossible_dialect_is_refused_with_the_name_of_the_option(options, said):
    with pytest.raises(BubblehousePermanentError) as caught:
        Dialect.of(options)
    assert said in str(caught.value)
    assert caught.value.__suppress_context__ or caught.value.__context__ is None


@pytest.mark.parametrize(
    "options",
    [
        None,
        {},
        OrderedDict(delimiter="\t", quote_char=None, escape_char="\\", null_values=["\\N"]),
        {"encoding": "cp1252", "column_names": ["id", "email"], "skip_rows": 3},
        {"delimiter": "\x01", "encoding": "utf_16"},
        {"delimiter": "¦", "encoding": "latin-1"},
        {"encoding": "UTF-8-SIG"},
    ],
)
def test_a_possible_dialect_can_be_stored_as_json_and_made_again(options):
    dialect = Dialect.of(options)
    stored = json.loads(json.dumps(dialect.settings()))
    assert stored == {**Dialect().settings(), **(options or {})}
    assert Dialect.of(stored) == dialect


@pytest.mark.parametrize(
    ("encoding", "is_utf8"), [("utf-8", True), ("U8", True), ("utf-8-sig", True), ("ascii", False), ("cp1252", False)]
)
def test_utf8_is_known_under_all_its_names(encoding, is_utf8):
    assert Dialect(encoding=encoding).is_utf8 is is_utf8
