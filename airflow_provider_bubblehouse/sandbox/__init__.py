"""
A local stand-in for the Bubblehouse API, since Bubblehouse has none: for demos and for tests of your own DAGs.

``python -m airflow_provider_bubblehouse.sandbox`` serves it; in a test, ``with Sandbox() as sandbox`` does. It needs
``pip install 'airflow-provider-bubblehouse[sandbox]'``.
"""

from __future__ import annotations

try:
    from airflow_provider_bubblehouse.sandbox.server import Sandbox
except ModuleNotFoundError as missing:
    raise ModuleNotFoundError(
        f"The sandbox needs {missing.name}: pip install 'airflow-provider-bubblehouse[sandbox]'"
    ) from missing

__all__ = ["Sandbox"]
