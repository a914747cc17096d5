"""The errors of the core become Airflow's errors if Airflow is there, and do not need it."""

from __future__ import annotations

import copy
import importlib
import pickle
import pkgutil
import subprocess
import sys

import pytest

import airflow_provider_bubblehouse
from airflow_provider_bubblehouse import errors, exceptions
from airflow_provider_bubblehouse.airflow_compat import AirflowFailException

FACING_AIRFLOW = [
    "callbacks",
    "decorators.bubblehouse",
    "exceptions",
    "hooks.bubblehouse",
    "operators.customers",
    "retry_policy",
    "sensors.bubblehouse",
    "triggers.bubblehouse",
]


@pytest.mark.parametrize(
    ("raised", "seen"),
    [
        (errors.PermanentError, exceptions.BubblehousePermanentError),
        (errors.RejectedError, exceptions.BubblehouseRejectedError),
        (errors.RateLimitError, exceptions.BubblehouseRateLimitError),
        (errors.BubblehouseTransientError, errors.BubblehouseTransientError),
    ],
)
def test_an_error_of_the_core_is_raised_as_its_airflow_class(raised, seen):
    error = raised("The row is invalid.", status=400, error_id="bad", attempts=2, retry_after=1.5)
    assert type(error) is seen
    for same in (error, copy.copy(error), pickle.loads(pickle.dumps(error))):
        assert (type(same), str(same), same.status, same.error_id) == (seen, "The row is invalid.", 400, "bad")


def test_permanent_errors_alone_stop_the_retries_of_airflow():
    from airflow_provider_bubblehouse.airflow_compat import AirflowException, AirflowFailException

    assert all(
        issubclass(kind, AirflowFailException)
        for kind in (
            exceptions.BubblehousePermanentError,
            exceptions.BubblehouseRejectedError,
            exceptions.BubblehouseRateLimitError,
        )
    )
    assert not issubclass(exceptions.BubblehouseTransientError, AirflowException)
    assert issubclass(exceptions.BubblehouseRejectedError, exceptions.BubblehousePermanentError)


@pytest.mark.parametrize("module", FACING_AIRFLOW)
def test_every_module_that_faces_airflow_raises_the_airflow_classes(module):
    code = f"""
import airflow_provider_bubblehouse.{module}
from airflow_provider_bubblehouse.errors import PermanentError
print([kind.__name__ for kind in type(PermanentError("no")).__mro__])
"""
    printed = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout
    assert "AirflowFailException" in printed


def test_every_permanent_error_of_the_package_stops_airflows_retries():
    for module in pkgutil.walk_packages(airflow_provider_bubblehouse.__path__, "airflow_provider_bubblehouse."):
        if not module.name.endswith("__main__"):
            importlib.import_module(module.name)
    kinds, found = [errors.PermanentError], set()
    while kinds:
        kind = kinds.pop()
        kinds += kind.__subclasses__()
        found.add(kind)
    assert exceptions.BubblehouseRejectedError in found
    assert [kind for kind in found if not issubclass(type(kind("no")), AirflowFailException)] == []


@pytest.mark.parametrize("module", ["api.client", "api.async_client", "push.push", "sources.files", "sources.query"])
def test_the_core_does_not_import_airflow(module):
    code = f"""
import sys, airflow_provider_bubblehouse.{module}
print([name for name in sys.modules if name.partition(".")[0] == "airflow"])
"""
    printed = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout
    assert printed.strip() == "[]"
