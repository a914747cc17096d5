"""What the Airflow under test lacks, for the tests of it."""

from __future__ import annotations

from importlib.metadata import version

import pytest

AIRFLOW = tuple(map(int, version("apache-airflow").split(".")[:2]))

# A worker of Airflow 3.0 tells callbacks no exception, and dag.test() of 3.0 to 3.2 does not.
TELLS_CALLBACKS = not (3, 0) <= AIRFLOW <= (3, 2)
tells_callbacks = pytest.mark.skipif(not TELLS_CALLBACKS, reason="dag.test() tells callbacks no exception here")
