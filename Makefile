# Everything here works in environments of its own below this folder; the machine's Python and Airflow stay as they are.
PYTHON ?= python3
OLDEST_AIRFLOW := 2.11.*
export PIP_DISABLE_PIP_VERSION_CHECK := 1

.PHONY: demo test lint format clean

demo: .venv/installed
	@.venv/bin/python scripts/demo.py

test: .venv/installed .venv-oldest/installed
	.venv/bin/python -m pytest
	.venv-oldest/bin/python -m pytest tests/unit tests/integration

lint: .venv/installed
	.venv/bin/ruff check .
	.venv/bin/ruff format --check .
	.venv/bin/mypy

format: .venv/installed
	.venv/bin/ruff check --fix .
	.venv/bin/ruff format .

clean:
	rm -rf .venv .venv-oldest build dist

.venv/installed: pyproject.toml
	$(PYTHON) -m venv .venv
	.venv/bin/python -m pip install --quiet uv
	.venv/bin/uv pip install --quiet --compile-bytecode --python .venv -e '.[dev]'
	@touch $@

.venv-oldest/installed: pyproject.toml | .venv/installed
	$(PYTHON) -m venv .venv-oldest
	.venv/bin/uv pip install --quiet --compile-bytecode --python .venv-oldest -e '.[dev]' 'apache-airflow==$(OLDEST_AIRFLOW)'
	@touch $@
