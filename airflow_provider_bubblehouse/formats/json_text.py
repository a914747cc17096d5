"""Decode JSON text, and explain what is wrong with text that is not JSON, without showing any of it."""

from __future__ import annotations

import json
from contextlib import suppress

import msgspec

from airflow_provider_bubblehouse.customers.invalid import InvalidCustomerError
from airflow_provider_bubblehouse.customers.values import FIRST_HUGE_NUMBER, MAX_DIGITS


def _whole(digits: str) -> int:
    return int(digits) if len(digits) <= MAX_DIGITS + 1 else FIRST_HUGE_NUMBER  # no rule accepts this number


# Accepts NaN, lone surrogates and numbers of any size, unlike msgspec. So the rules can report the invalid field.
PYTHON_DECODER = json.JSONDecoder(parse_int=_whole)
_DECODER = msgspec.json.Decoder()

TOO_DEEP = "the row is nested too deeply"
TRAILING_COMMA = "a comma before a closing bracket"
CUT_OFF = "it ends too early"
_NUMBER = "a number such as 007, +1 or .5, which JSON does not have"
_SINGLE_QUOTE = "a single quote, where JSON has double ones"
_BARE_WORD = "a word without quotes, such as None, True or undefined"
_FAULTS: tuple[tuple[str, str], ...] = (  # how the messages of Python's decoder begin
    ("Illegal trailing comma", TRAILING_COMMA),
    ("Invalid control character", "a control character in a text, such as a tab or a line break, without an escape"),
    ("Invalid \\", "a backslash that begins no escape of JSON's"),
    ("Unterminated string", "a text without a closing quote"),
    ("Extra data", "more text after the end of the value"),
    ("Expecting property name", "a name without quotes"),
    ("Expecting ':'", "a name without a colon after it"),
    ("Expecting ','", "two values without a comma between them, or a quote within a text without a backslash"),
)


def decode_line(line: bytes) -> object:
    """
    Decode one JSON value, with the same verdict as in a JSON array.

    :param line: the value; blanks around it are ignored.
    :raises InvalidCustomerError: if it is not JSON.
    """
    with suppress(msgspec.MsgspecError, UnicodeError, RecursionError):
        return _DECODER.decode(line)
    text = line.strip().decode(errors="surrogateescape")
    try:
        return PYTHON_DECODER.decode(text)
    except RecursionError:
        raise InvalidCustomerError(TOO_DEEP, record=text) from None
    except json.JSONDecodeError as error:
        byte = len(line) - len(line.lstrip()) + byte_of(text, error.pos)
        fault = fault_of(error)
        advice = "; an object has to be on one line" if fault == CUT_OFF else ""
        raise InvalidCustomerError(f"the line is not JSON: {fault}{advice}", record=text, byte=byte) from None


def fault_of(error: json.JSONDecodeError) -> str:
    """
    Return why a text is not JSON.

    :param error: the error of Python's decoder.
    """
    text, place = error.doc, error.pos
    found, before = text[place : place + 1], text[:place].rstrip()[-1:]
    if not text[place:].strip():
        return CUT_OFF
    if found == "'":
        return _SINGLE_QUOTE
    if found in "]}" and before == ",":
        return TRAILING_COMMA
    if found in "+-." or (found.isdigit() and before.isdigit()):
        return _NUMBER
    for message, fault in _FAULTS:
        if error.msg.startswith(message):
            return fault
    return _BARE_WORD if found.isalpha() else "a character that begins no value"


def byte_of(text: str, place: int) -> int:
    """Return the number of a character's first byte in a text, beginning with 1."""
    return len(text[:place].encode(errors="surrogateescape")) + 1
