# Every target uses environments and caches below this folder, and changes nothing outside it. To share a cache, set
# UV_CACHE_DIR and PIP_CACHE_DIR.
PYTHON ?= python3
export UV_CACHE_DIR ?= $(CURDIR)/.cache/uv
export PIP_CACHE_DIR ?= $(CURDIR)/.cache/pip
# The oldest Airflow with the minimum versions of pyproject.toml. PyJWT is left out, because the login of Airflow 2.11
# needs a newer one than it declares; Airflow 3.0 below tests that minimum.
OLDEST = 'apache-airflow==2.11.*' $(shell sed -n '/^dependencies/,/^]/s/^ *"\([a-z0-9-]*\)>=\([0-9.]*\).*/\1==\2/p' \
    pyproject.toml | grep -v '^apache-airflow==\|^pyjwt==')
# The newest patch of each minor version of Airflow and the day of its release. Resolving as of that day gives the
# versions of Airflow's constraints file, unless our own minimum versions are newer.
RELEASE_2.11 := 2.11.2 2026-03-14
RELEASE_3.0 := 3.0.6 2025-08-29
RELEASE_3.1 := 3.1.8 2026-03-11
RELEASE_3.2 := 3.2.2 2026-05-29
RELEASE_3.3 := 3.3.2 2026-09-17
MATRIX := 2.11 3.0 3.1 3.2 3.3
# Two processes, each with its own Airflow home.
SIDE_BY_SIDE := --numprocesses=2 tests/unit tests/integration
# Subprocesses are not counted; the threshold is in pyproject.toml.
COVERAGE := --cov --cov-report=term
DIST := build/dist
export PIP_DISABLE_PIP_VERSION_CHECK := 1

.PHONY: demo test test-unit coverage test-matrix bench pictures docs dist lint format clean

demo: .venv/installed
	@.venv/bin/python scripts/demo.py

# No Airflow, no network, no waits: under a minute.
test-unit: .venv/installed
	.venv/bin/python -m pytest --numprocesses=2 --quiet tests/unit

test: .venv/installed .venv-oldest/installed
	.venv/bin/python -m pytest $(SIDE_BY_SIDE) $(COVERAGE)
	.venv/bin/python -m pytest tests/system tests/ui
	.venv-oldest/bin/python -m pytest $(SIDE_BY_SIDE)

coverage: .venv/installed
	.venv/bin/python -m pytest $(SIDE_BY_SIDE) $(COVERAGE) --cov-report=html

test-matrix: $(MATRIX:%=test-on-%)

# Airflow 3.0, 3.1 and 3.2 each talk to their triggers differently. `make test` runs the same test on 3.3.
test-on-%: .venv-%/installed
	.venv-$*/bin/python -m pytest $(SIDE_BY_SIDE)
	$(if $(filter 3.0 3.1 3.2,$*),.venv-$*/bin/python -m pytest tests/system/test_triggerer.py)

# Takes some minutes. Run nothing else on the machine meanwhile.
bench: .venv/installed
	.venv/bin/python -m benchmarks.run

# Take the pictures in docs/ again. `make test` fails if what a picture shows has changed.
pictures: .venv/installed
	UPDATE_PICTURES=1 .venv/bin/python -m pytest tests/ui -k picture

docs: .venv-docs/installed
	PATH="$(CURDIR)/.venv-docs/bin:$$PATH" NO_MKDOCS_2_WARNING=1 .venv-docs/bin/mkdocs build --strict --quiet

# Build twice and compare the bytes, so that anybody can reproduce the uploaded files from the commit.
dist: export SOURCE_DATE_EPOCH = $(shell git log -1 --format=%ct)
dist: .venv/installed
	rm -rf dist $(DIST)
	.venv/bin/uv build --quiet --out-dir dist
	.venv/bin/uv build --quiet --out-dir $(DIST)
	for built in dist/*.whl dist/*.tar.gz; do cmp "$$built" "$(DIST)/$${built#dist/}" || exit 1; done
	.venv/bin/uv tool run --quiet twine check --strict dist/*.whl dist/*.tar.gz

lint: .venv/installed
	.venv/bin/ruff check .
	.venv/bin/ruff format --check .
	.venv/bin/mypy

format: .venv/installed
	.venv/bin/ruff check --fix .
	.venv/bin/ruff format .

clean:
	rm -rf .venv .venv-* .cache build dist

.venv/installed: pyproject.toml
	@echo 'Installing Airflow, the package and its test tools into .venv. The first time takes some minutes.'
	@$(PYTHON) -m venv .venv
	@.venv/bin/python -m pip install --quiet uv
	@.venv/bin/uv pip install --quiet --compile-bytecode --python .venv -e '.[dev]'
	@touch $@

.venv-docs/installed: pyproject.toml | .venv/installed
	$(PYTHON) -m venv .venv-docs
	.venv/bin/uv pip install --quiet --python .venv-docs -e '.[docs]'
	@touch $@

.venv-oldest/installed: pyproject.toml | .venv/installed
	$(PYTHON) -m venv .venv-oldest
	.venv/bin/uv pip install --quiet --compile-bytecode --python .venv-oldest -e '.[dev]' $(OLDEST)
	@touch $@

.PRECIOUS: .venv-%/installed
.venv-%/installed: pyproject.toml Makefile | .venv/installed
	$(PYTHON) -m venv --clear .venv-$*
	.venv/bin/uv pip install --quiet --compile-bytecode --python .venv-$* -e '.[dev,gcs,s3]' \
	    'apache-airflow==$(word 1,$(RELEASE_$*))' --exclude-newer $(word 2,$(RELEASE_$*))
	@touch $@
