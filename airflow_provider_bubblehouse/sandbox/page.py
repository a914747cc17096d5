"""The start page: what arrived, as one HTML table."""

from __future__ import annotations

from html import escape
from typing import TYPE_CHECKING

import msgspec

if TYPE_CHECKING:
    from collections.abc import Sequence

    from airflow_provider_bubblehouse.sandbox.store import Counts, ProcessingError, StoredCustomer

_PAGE = """<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<title>Bubblehouse sandbox</title>
<style>
body {{ font: 15px/1.45 system-ui, sans-serif; margin: 2rem; color: #222; }}
table {{ border-collapse: collapse; }}
th, td {{ text-align: left; vertical-align: top; padding: .3rem .8rem; border-bottom: 1px solid #ddd; }}
td.extras {{ font-family: ui-monospace, monospace; font-size: 13px; }}
tr.deleted td {{ color: #999; text-decoration: line-through; }}
</style>
</head>
<body>
<h1>Bubblehouse sandbox</h1>
<p>Shop {shop}: {customers} customers, {deleted} deleted; {calls} calls, {errors} processing errors.</p>
{error_list}
<table>
<thead>
<tr><th>ID</th><th>Email</th><th>Name</th><th>Extras</th><th>Deleted</th><th>Updated at</th></tr>
</thead>
<tbody>
{rows}
</tbody>
</table>
{left_out}
</body>
</html>
"""


def render(
    *,
    shop: str,
    calls: int,
    counts: Counts,
    customers: Sequence[StoredCustomer],
    errors: Sequence[ProcessingError],
) -> str:
    """
    Return the start page.

    :param shop: the shop slug.
    :param calls: how many calls there were.
    :param counts: how many customers and errors there are in all.
    :param customers: those to show, in their order.
    :param errors: those to show, in their order.
    """
    left_out = counts.customers + counts.deleted - len(customers)
    return _PAGE.format(
        shop=escape(shop),
        customers=counts.customers,
        deleted=counts.deleted,
        calls=calls,
        errors=counts.processing_errors,
        error_list=_error_list(errors),
        rows="\n".join(map(_row, customers)),
        left_out=f"<p>{left_out} more are not shown.</p>" if left_out > 0 else "",
    )


def _error_list(errors: Sequence[ProcessingError]) -> str:
    if not errors:
        return ""
    items = "\n".join(f"<li>Call {error.call}, row {error.row} {escape(error.reason)}</li>" for error in errors)
    return f"<p>The newest processing errors:</p>\n<ul>\n{items}\n</ul>"


def _row(customer: StoredCustomer) -> str:
    fields = customer.fields
    cells = (
        ("id", _text(fields.get("id"))),
        ("email", _text(fields.get("email"))),
        ("name", _name(fields)),
        ("extras", _text(fields.get("extras"))),
        ("deleted", "yes" if customer.deleted else ""),
        ("updated", f"{customer.updated_at:%Y-%m-%d %H:%M:%S} UTC"),
    )
    row_class = ' class="deleted"' if customer.deleted else ""
    return f"<tr{row_class}>" + "".join(f'<td class="{name}">{escape(text)}</td>' for name, text in cells) + "</tr>"


def _name(fields: dict[str, object]) -> str:
    """Return the full name, which falls back to first and last name (Customer2)."""
    parts = (_text(fields.get("first_name")), _text(fields.get("last_name")))
    return _text(fields.get("full_name")) or " ".join(filter(None, parts))


def _text(value: object) -> str:
    if value is None or isinstance(value, str):
        return value or ""
    return msgspec.json.encode(value).decode()
