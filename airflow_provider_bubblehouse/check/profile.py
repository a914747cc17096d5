"""Count the values of each field by shape. Only a few invalid values are stored, as samples for advice."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from itertools import repeat
from typing import TYPE_CHECKING, Any

from msgspec import UnsetType

from airflow_provider_bubblehouse.check.shapes import MISSING_WORDS, known_word, shape_of
from airflow_provider_bubblehouse.customers.blocks import Block
from airflow_provider_bubblehouse.customers.field_formats import is_blank
from airflow_provider_bubblehouse.customers.fields import FIELD_NAMES, in_order

if TYPE_CHECKING:
    from collections.abc import Sequence

    from airflow_provider_bubblehouse.customers.blocks import Path
    from airflow_provider_bubblehouse.customers.converter import CheckedChunk, Chunk, Converter

_SHAPES_COUNTED = 1000  # per field; bounds the memory for free text, which has no common shapes
_SAMPLES = 1000
_FIELDS_COUNTED = 200  # a source with more names has data where the names should be
_MOSTLY = 0.9
_SOMEONE = {"id": "1", "email": "a@example.com"}
_PERSONAL_FIELDS = frozenset(
    {
        "id",
        "email",
        "phone",
        "first_name",
        "last_name",
        "full_name",
        "tags",
        "alt_emails",
        "birthday",
        "anniversary",
        "personal_referral_code",
    }
)


@dataclass(slots=True)
class FieldProfile:
    """
    The values of one field.

    :param filled: how many rows have a value.
    :param shapes: how often each shape occurs, without those of known words.
    :param words: how often each known word occurs, in its original spelling.
    :param invalid: how many rows have an invalid value.
    :param samples: some of the invalid values.
    """

    filled: int = 0
    shapes: Counter[str] = field(default_factory=Counter)
    words: Counter[str] = field(default_factory=Counter)
    invalid: int = 0
    samples: list[Any] = field(default_factory=list)

    def add(self, cells: Sequence[Any]) -> None:
        """Count values."""
        # Other types may be unhashable, or equal with different shapes, such as 1 and True.
        are_texts = set(map(type, cells)) <= {str, UnsetType}
        for cell, times in Counter(cells).items() if are_texts else zip(cells, repeat(1)):
            if is_blank(cell):
                continue
            self.filled += times
            if word := known_word(cell):
                self.words[word] += times
                continue
            shape = shape_of(cell)
            if shape in self.shapes or len(self.shapes) < _SHAPES_COUNTED:
                self.shapes[shape] += times

    def add_invalid(self, cell: Any) -> None:
        """Count a value that makes its row invalid."""
        self.invalid += 1
        if len(self.samples) < _SAMPLES and not is_blank(cell):
            self.samples.append(cell)

    def most_common(self, path: Path, count: int) -> list[tuple[str, int]]:
        """Return the most common shapes and showable words, with their counts."""
        shown, shapes = self.words_to_show(path), Counter(self.shapes)
        for word, times in self.words.items():
            if word not in shown:
                shapes[shape_of(word)] += times
        return (shapes + Counter(shown)).most_common(count)

    def invalid_shapes(self, path: Path, count: int) -> list[tuple[str, int]]:
        """Return the most common shapes and showable words of the samples, with their counts."""
        shown = self.words_to_show(path)
        shapes = (known_word(sample) for sample in self.samples)
        return Counter(
            word if word in shown else shape_of(sample) for word, sample in zip(shapes, self.samples, strict=True)
        ).most_common(count)

    def words_to_show(self, path: Path) -> dict[str, int]:
        """Return the known words that may be shown (see ``shapes``), with their counts."""
        are_flags = path[0] not in _PERSONAL_FIELDS and sum(self.words.values()) >= _MOSTLY * self.filled
        return {
            word: times
            for word, times in self.words.items()
            if times > 1 and (are_flags or word.lower() in MISSING_WORDS)
        }


class Profile:
    """
    Converts rows, and counts the values of their fields.

    :param converter: converts the rows.
    """

    def __init__(self, converter: Converter) -> None:
        self._converter = converter
        self._fields: dict[Path, FieldProfile] = {}

    @property
    def fields(self) -> list[tuple[Path, FieldProfile]]:
        """The fields that have a value in some row, in the order in which they are sent."""
        return [(path, self._fields[path]) for path in in_order(self._fields) if self._fields[path].filled]

    @property
    def unknown_fields(self) -> list[str]:
        """The fields that Customer2 is not known to have."""
        return sorted({path[0] for path, _ in self.fields if path[0] not in FIELD_NAMES})

    def check(self, chunk: Chunk, first_number: int) -> CheckedChunk:
        """Convert some rows (see ``Converter.check``)."""
        checked = self._converter.check(chunk, first_number)
        if isinstance(chunk, Block):
            for path, cells in chunk.columns.items():
                if path in self._fields or len(self._fields) < _FIELDS_COUNTED:
                    self._fields.setdefault(path, FieldProfile()).add(cells)
            if checked.invalid:
                for path in self._fields.keys() & chunk.columns.keys():
                    self._add_invalid(path, chunk)
        return checked

    def _add_invalid(self, path: Path, block: Block) -> None:
        """Find the invalid values of a field, including rows that are also invalid because of another field."""
        alone: dict[Path, Sequence[Any]] = {(name,): [value] * block.count for name, value in _SOMEONE.items()}
        alone[path] = block.columns[path]
        some = Block(file="", count=block.count, columns=alone, times=block.times, id_column=block.id_column)
        for row in self._converter.check(some, 0).invalid:
            if row.number not in block.broken:
                self._fields[path].add_invalid(alone[path][row.number])
