"""Counts in messages."""

from __future__ import annotations


def plural(count: int, noun: str, nouns: str | None = None) -> str:
    """
    Return a count with its noun, such as ``1 row`` or ``2,000 rows``.

    :param count: how many there are.
    :param noun: the noun in the singular.
    :param nouns: its plural; None if that is the singular with an ``s``.
    """
    return f"{count:,} {noun if count == 1 else nouns or f'{noun}s'}"
