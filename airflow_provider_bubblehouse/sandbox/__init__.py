"""
A local stand-in for the Bubblehouse API, for demos and for tests of DAGs.

It needs the extra ``sandbox``. Run it with ``python -m airflow_provider_bubblehouse.sandbox``, or from Python::

    with Sandbox() as sandbox:
        os.environ["AIRFLOW_CONN_BUBBLEHOUSE_DEFAULT"] = sandbox.connection()
        sandbox.script("503", "ok")

The API documentation does not describe every behaviour; where the sandbox guesses, a comment says "Guess".
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from airflow_provider_bubblehouse.sandbox.server import Sandbox

__all__ = ["Sandbox"]


def __getattr__(name: str) -> Any:
    # Imported late, so that __main__ can say which extra is missing.
    if name == "Sandbox":
        from airflow_provider_bubblehouse.sandbox.server import Sandbox

        return Sandbox
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
