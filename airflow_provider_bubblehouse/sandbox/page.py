"""The start page: how to connect, which calls were refused, and the customers that arrived."""

from __future__ import annotations

import shlex
from html import escape
from typing import TYPE_CHECKING

import msgspec

from airflow_provider_bubblehouse.plural import plural

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from airflow_provider_bubblehouse.sandbox.calls import Call
    from airflow_provider_bubblehouse.sandbox.customers import StoredCustomer
    from airflow_provider_bubblehouse.sandbox.server import Sandbox

_CUSTOMERS_SHOWN = 500  # a browser shows as many at once without effort
_REFUSED_SHOWN = 20
_PAGE = """<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<title>Bubblehouse sandbox</title>
<style>
body {{ font: 15px/1.45 system-ui, sans-serif; margin: 2rem; color: #222; }}
table {{ border-collapse: collapse; margin-bottom: 1.5rem; }}
th, td {{ text-align: left; vertical-align: top; padding: .3rem .8rem; border-bottom: 1px solid #ddd; }}
code, td.extras {{ font-family: ui-monospace, monospace; font-size: 13px; overflow-wrap: anywhere; }}
th, td.time, td.updated {{ white-space: nowrap; }}
tr.deleted td {{ color: #999; text-decoration: line-through; }}
</style>
</head>
<body>
<h1>Bubblehouse sandbox</h1>
{parts}
</body>
</html>
"""
_NEXT_STEPS = """<p>Nothing has arrived yet. What to do next:</p>
<ol>
<li>Connect Airflow to this sandbox, in one of the two ways below.</li>
<li>Run a DAG that pushes customers, such as <code>airflow dags test push_customers</code>.</li>
<li>Reload this page.</li>
</ol>"""


def render(sandbox: Sandbox) -> str:
    """
    Return the start page.

    :param sandbox: the sandbox that it shows.
    """
    calls, customers = sandbox.calls, sandbox.store.newest(_CUSTOMERS_SHOWN)
    refused = [call for call in reversed(calls) if call.refused]
    error_count, errors = sandbox.store.errors()
    present, deleted = sandbox.store.counts()
    hidden = present + deleted - len(customers)
    counts = (
        plural(present, "customer"),
        f"{deleted:,} deleted",
        plural(len(calls), "call"),
        f"{len(refused):,} refused",
        f"{plural(error_count, 'row')} not processed",
    )
    parts = [
        f"<p>Shop {escape(sandbox.shop)}: {', '.join(counts)}.</p>",
        "" if calls else _NEXT_STEPS,
        _connection(sandbox, is_open=not calls),
        _table("Refused calls", ("Call", "Time", "Function", "Rows", "Answer"), map(_call, refused[:_REFUSED_SHOWN])),
        _table("Rows that could not be processed", ("Error",), ({"error": error} for error in errors)),
        _table("Customers", ("ID", "Email", "Name", "Extras", "Deleted", "Updated at"), map(_customer, customers)),
        f"<p>{hidden:,} more not shown.</p>" if hidden > 0 else "",
    ]
    return _PAGE.format(parts="\n".join(filter(None, parts)))


def _connection(sandbox: Sandbox, *, is_open: bool) -> str:
    host, _, port = sandbox.url.rpartition(":")
    form = {
        "Connection Type": "Bubblehouse",
        "API host": host,
        "Shop slug": sandbox.shop,
        "Shop token": sandbox.token,
        "Port": port,
    }
    rows = "\n".join(f"<tr><th>{label}</th><td><code>{escape(value)}</code></td></tr>" for label, value in form.items())
    export = f"export AIRFLOW_CONN_BUBBLEHOUSE_DEFAULT={shlex.quote(sandbox.connection())}"
    return (
        f"<details{' open' if is_open else ''}>\n<summary>Connection <code>bubblehouse_default</code></summary>\n"
        f"<p>In the form of Airflow, under Admin, Connections:</p>\n<table>\n{rows}\n</table>\n"
        f"<p>Or in the shell in which Airflow runs:</p>\n<p><code>{escape(export)}</code></p>\n</details>"
    )


def _table(title: str, headings: Iterable[str], rows: Iterable[Mapping[str, str]]) -> str:
    body = "\n".join(map(_row, rows))
    head = "".join(f"<th>{heading}</th>" for heading in headings)
    return f"<h2>{title}</h2>\n<table>\n<tr>{head}</tr>\n{body}\n</table>" if body else ""


def _row(cells: Mapping[str, str]) -> str:
    row_class = ' class="deleted"' if cells.get("deleted") else ""
    columns = "".join(f'<td class="{name}">{escape(cell)}</td>' for name, cell in cells.items())
    return f"<tr{row_class}>{columns}</tr>"


def _call(call: Call) -> dict[str, str]:
    reason = f"fault: {call.fault}" if call.fault else call.error
    return {
        "call": str(call.number),
        "time": f"{call.arrived_at:%H:%M:%S} UTC",
        "function": call.function,
        "rows": str(call.rows),
        "answer": f"{call.status} ({reason})" if reason else str(call.status),
    }


def _customer(customer: StoredCustomer) -> dict[str, str]:
    fields = customer.fields
    return {
        "id": _text(fields.get("id")),
        "email": _text(fields.get("email")),
        "name": _name(fields),
        "extras": _text(fields.get("extras")),
        "deleted": "yes" if customer.deleted else "",
        "updated": f"{customer.updated_at:%Y-%m-%d %H:%M:%S} UTC",
    }


def _name(fields: dict[str, object]) -> str:
    """Return the full name, else first and last name (Customer2)."""
    parts = (_text(fields.get("first_name")), _text(fields.get("last_name")))
    return _text(fields.get("full_name")) or " ".join(filter(None, parts))


def _text(value: object) -> str:
    if value is None or isinstance(value, str):
        return value or ""
    return msgspec.json.encode(value).decode()
