"""
Render text in the DAG file as templates, but not values that arrive at run time.

Airflow renders everything that a template field contains when the task starts. With ``expand_kwargs`` this includes the
output of other tasks: a customer named ``{{ conn.bubblehouse_default.password }}`` would be sent with the shop token as
name. The operators, the decorator and the sensors use this module.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from airflow_provider_bubblehouse.plural import plural


class CustomerRows(Sequence[Any]):
    """
    Rows whose repr is only a count, because Airflow stores the text of a rendered field and shows it in its UI.

    A plain ``Sequence``, because Airflow stores a ``list`` and its subclasses row by row.

    :param rows: the rows.
    """

    def __init__(self, rows: Sequence[Any]) -> None:
        self._rows = rows

    def __len__(self) -> int:
        return len(self._rows)

    def __getitem__(self, index: Any) -> Any:
        return self._rows[index]

    def __iter__(self) -> Iterator[Any]:
        return iter(self._rows)

    def __repr__(self) -> str:
        return plural(len(self), "customer")


def run_time_oids(task: Any, context: Mapping[str, Any], seen_oids: set[int]) -> set[int]:
    """
    Return the ids of the values that a mapped task received at run time. Airflow's renderer skips these ids.

    Airflow passes the ids for ``expand``; this function adds those for ``expand_kwargs``. It compares values by
    identity with those in the DAG file, so constructors have to store their arguments unchanged.

    :param task: the task, after expansion.
    :param context: the task's context.
    :param seen_oids: the ids that Airflow passes to ``_do_render_template_fields``.
    """
    mapped: Any = task.dag.task_dict.get(task.task_id) if task.has_dag() else None
    decorated = hasattr(mapped, "op_kwargs_expand_input")
    expand_input = getattr(mapped, "op_kwargs_expand_input" if decorated else "expand_input", None)
    if expand_input is None or _is_in_dag_file(expand_input.value, context["ti"].map_index):
        return seen_oids
    written = [task.dag.default_args, mapped.partial_kwargs, mapped.partial_kwargs.get("op_kwargs", {})]
    if mapped.task_group is not None:
        written.append(mapped.task_group.default_args)
    written_oids = {id(value) for arguments in written for value in arguments.values()}
    values = task.op_kwargs.values() if decorated else [getattr(task, name, None) for name in task.template_fields]
    return seen_oids | {id(value) for value in values if id(value) not in written_oids}


def _is_in_dag_file(expand_value: Any, map_index: int) -> bool:
    """Return whether these are arguments of ``expand`` or a literal in ``expand_kwargs``, not the output of a task."""
    if isinstance(expand_value, dict):
        return True
    return isinstance(expand_value, Sequence) and isinstance(expand_value[map_index], Mapping)


def resolve(value: Any, context: Any) -> Any:
    """Replace XComArgs by their values, also in lists and dicts, without rendering anything."""
    if isinstance(value, list | tuple):
        return [resolve(inner, context) for inner in value]
    if isinstance(value, dict):
        return {name: resolve(inner, context) for name, inner in value.items()}
    resolver = getattr(value, "resolve", None)
    return value if resolver is None or isinstance(value, os.PathLike) else resolver(context)


def join_surrogates(value: Any) -> Any:
    r"""
    Repair JSON text that Jinja's native rendering has read as a Python literal.

    JSON writes an emoji as ``\ud83d\ude00``, which is one character in JSON and two in Python.
    """
    if isinstance(value, str):
        return value if value.isascii() else value.encode("utf-16", "surrogatepass").decode("utf-16", "surrogatepass")
    if isinstance(value, list):
        return [join_surrogates(inner) for inner in value]
    if isinstance(value, dict):
        return {name: join_surrogates(inner) for name, inner in value.items()}
    return value
