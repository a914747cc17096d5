"""
A corpus of rows with their verdicts, as the rules of this version have them.

A resumed push trusts what an earlier try made of the rows before it. If a rule, an identity or a lane changes and
``RULES_VERSION`` does not, a customer may never be sent, or an old update may overtake a newer one.

After a change on purpose, bump ``RULES_VERSION`` and record the corpus again: ``UPDATE_CORPUS=1 pytest`` on this file.
"""

from __future__ import annotations

import datetime as dt
import json
import os
from decimal import Decimal
from pathlib import Path
from typing import Any

from airflow_provider_bubblehouse.customers import RULES_VERSION
from airflow_provider_bubblehouse.customers.converter import Converter
from airflow_provider_bubblehouse.customers.values import Float32
from airflow_provider_bubblehouse.push.batches import lane_of
from airflow_provider_bubblehouse.sources.records import ListSource

CORPUS = Path(__file__).with_name("corpus.json")
CONVERTERS = {
    "update": Converter(timezone="Europe/Berlin"),
    "delete": Converter(timezone="Europe/Berlin", deletions=True),
}
# What JSON does not have stands in the corpus as {"$": type, "value": text}.
TYPES = {
    "Decimal": Decimal,
    "Float32": lambda text: Float32(float(text)),
    "datetime": dt.datetime.fromisoformat,
    "date": dt.date.fromisoformat,
    "float": float,
}


def value_of(recorded: Any) -> Any:
    if isinstance(recorded, dict) and "$" in recorded:
        return TYPES[recorded["$"]](recorded["value"])
    return recorded


def verdict(row: dict[str, Any], converter: Converter) -> dict[str, Any]:
    (block,) = ListSource([{name: value_of(value) for name, value in row.items()}]).chunks()
    checked = converter.check(block, 1)
    if checked.invalid:
        return {"invalid": checked.invalid[0].error.field}
    (line,), (identity,) = checked.customers().lines, checked.identities()
    return {"sent": json.loads(line), "identity": identity, "lane": lane_of(identity, 8)}


def judged(corpus: dict[str, Any]) -> dict[str, Any]:
    rows = [
        {"row": entry["row"], **{name: verdict(entry["row"], converter) for name, converter in CONVERTERS.items()}}
        for entry in corpus["rows"]
    ]
    return {"rules_version": RULES_VERSION, "rows": rows}


def test_a_rule_an_identity_or_a_lane_changes_only_with_the_version_of_the_rules():
    recorded = json.loads(CORPUS.read_text())
    now = judged(recorded)
    if os.environ.get("UPDATE_CORPUS"):
        lines = ",\n".join(json.dumps(row) for row in now["rows"])
        CORPUS.write_text(f'{{"rules_version": {RULES_VERSION}, "rows": [\n{lines}\n]}}\n')
        recorded = json.loads(CORPUS.read_text())
    if recorded["rules_version"] == RULES_VERSION:
        for before, after in zip(recorded["rows"], now["rows"], strict=True):
            assert after == before, "bump RULES_VERSION, then record the corpus again (see the top of this file)"
    assert recorded["rules_version"] == RULES_VERSION, "record the corpus again (see the top of this file)"


def test_the_corpus_has_rows_of_every_field_and_of_both_verdicts():
    rows = json.loads(CORPUS.read_text())["rows"]
    assert len(rows) > 300
    from airflow_provider_bubblehouse.customers.fields import FIELD_NAMES

    for field in FIELD_NAMES:
        verdicts = [entry["update"] for entry in rows if field in entry["row"]]
        assert any("sent" in one for one in verdicts), field
        assert any("invalid" in one for one in verdicts), field
