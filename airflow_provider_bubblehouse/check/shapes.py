"""
Shapes of values, which describe a field without showing a value: ``99.99.9999``, ``Aaaa``, ``aaaa@aaaa.aaa``.

Digits become 9, and letters A or a. A run of more than four letters is cut to four, so that a shape does not show the
length of a name.

A few words are shown unchanged, because ``NULL`` or ``J`` says what to do and ``AAAA`` does not. Any other short word
may be a name or an initial, even if it is frequent. So only words from the lists below are shown: words for a missing
value in every field; words for yes and no only if nearly all values are such words, and never in a field with names,
contacts or codes of persons.
"""

from __future__ import annotations

import datetime as dt
import re
import unicodedata
from decimal import Decimal
from typing import Any

from airflow_provider_bubblehouse.customers.identity import NULL_WORDS
from airflow_provider_bubblehouse.customers.invalid import type_name

MISSING_WORDS = NULL_WORDS | {"-", "--", "?", "0", "0000-00-00", "0000-00-00 00:00:00"}
YES_WORDS = frozenset({"yes", "y", "true", "t", "on", "1", "ja", "j", "oui", "o", "si", "sí", "s", "sim", "tak", "x"})
NO_WORDS = frozenset({"no", "n", "false", "f", "off", "nein", "non", "não", "nie"})
CONSENT_WORDS = frozenset({"subscribed", "unsubscribed", "not_subscribed", "pending", "unknown", "opt_in", "opt_out"})
FLAG_WORDS = YES_WORDS | NO_WORDS | CONSENT_WORDS

_LETTERS = re.compile(r"(?<=a{4})a+|(?<=A{4})A+")
_DIGITS = re.compile(r"(?<=9{20})9+")
_LONGEST = 40


class _Characters(dict[int, str]):
    """The shape of each character."""

    def __missing__(self, code: int) -> str:
        character = chr(code)
        if character.isdigit():
            shape = "9"
        elif character.isalpha():
            shape = "A" if character.isupper() else "a"
        elif character.isspace():
            shape = " "
        elif character.isascii() and character.isprintable():
            shape = character
        else:
            shape = "" if unicodedata.category(character) in ("Mn", "Me") else "?"
        self[code] = shape
        return shape


_CHARACTERS = _Characters()


def shape_of(value: Any) -> str:
    """Return the shape of a value."""
    if isinstance(value, str):
        return _shape_of_text(value)
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int | float | Decimal | dt.date):
        return _shape_of_text(str(value))
    if isinstance(value, dict):
        return "{…}" if value else "{}"
    if isinstance(value, list | tuple):
        return f"[{shape_of(value[0])}{', …' if len(value) > 1 else ''}]" if value else "[]"
    return type_name(value)


def _shape_of_text(text: str) -> str:
    shape = text[: 10 * _LONGEST].strip().translate(_CHARACTERS)
    shape = _DIGITS.sub("…", _LETTERS.sub("", shape))
    return shape if len(shape) <= _LONGEST else shape[:_LONGEST] + "…"


def known_word(value: Any) -> str:
    """Return a text in its original spelling if it is a known word, otherwise an empty text."""
    if not isinstance(value, str):
        return ""
    word = value.strip()
    return word if word.lower() in MISSING_WORDS or word.lower() in FLAG_WORDS else ""
