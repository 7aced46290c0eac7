# Everything is set up in .venv from requirements.lock; needs Python 3.11+, git and make, nothing else.
#   make demo               the story of the charges on an embedded PostgreSQL; runner demo all: of every system
#   make test [PG=15|16|18] checks, then the tests on that server version; make test-all: their long forms, too
#   make wheel              what others install: runner, migrations and gates in one file, in dist/
#   make simulate | bench | lint | lock | clean

SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help

PG ?= 18
# Each worker has a server of its own.
WORKERS ?= 2
PYTEST_ARGS ?=
SEEDS ?= 200
FROM ?= 1
# make bench BENCH_ARGS='verb --scale 0.1': one benchmark, or a smaller one.
BENCH_ARGS ?=
VENV := .venv
BIN := $(VENV)/bin
# The first interpreter that is new enough; override with `make PYTHON=/path/to/python3`.
PYTHON ?= $(shell for p in python3 python3.14 python3.13 python3.12 python3.11; do \
	$$p -c 'import sys; sys.exit(sys.version_info < (3, 11))' >/dev/null 2>&1 && { echo $$p; break; }; done)
# --no-deps below: the lock is complete, and pip would look for extras that it holds under another name.
# The stamp is named by content, not by time: a checkout of another lock file reinstalls, a touch does not.
STAMP := $(VENV)/.installed-$(shell git hash-object --no-filters requirements.lock)

export PIP_DISABLE_PIP_VERSION_CHECK := 1
export PIP_NO_INPUT := 1
export DBT_SEND_ANONYMOUS_USAGE_STATS := false
export DO_NOT_TRACK := 1

.PHONY: help install demo test test-all simulate check lint typecheck sqllint pytest bench wheel lock clean

help:
	@sed -n 's/^# \{0,1\}//p' $(firstword $(MAKEFILE_LIST)) | head -5

install: $(STAMP)

$(STAMP):
	@if [ -z "$(PYTHON)" ]; then echo "Python 3.11 or newer is needed; name one: make PYTHON=/path/to/python3 install" >&2; exit 1; fi
	@echo "Setting up $(VENV) with $$($(PYTHON) --version) …"
	@echo "Installing $$(grep -c '==' requirements.lock) packages (dbt, psycopg, a PostgreSQL of its own …): about a minute"
	@$(PYTHON) -m venv --clear $(VENV)
	@$(BIN)/python -m pip install --quiet --no-deps --require-hashes -r requirements.lock
	@$(BIN)/python -m pip install --quiet --no-deps --no-build-isolation -e .
	@touch $(STAMP)

demo: $(STAMP)
	@$(BIN)/runner demo

test: check pytest

check: lint typecheck sqllint

lint: $(STAMP)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

typecheck: $(STAMP)
	$(BIN)/mypy

sqllint: $(STAMP)
	$(BIN)/sqlfluff lint --disable-progress-bar --processes 2 migrations
	$(BIN)/sqlfluff lint --disable-progress-bar --processes 2 --templater jinja dbt_project

# In the order of the folders: acceptance, with few long tests, would otherwise come last and leave one worker alone.
pytest: $(STAMP)
	PG=$(PG) $(BIN)/pytest -n $(WORKERS) --dist loadfile --no-loadscope-reorder $(PYTEST_ARGS)

# With the long forms of tests/long_forms.txt, which take half as long again.
test-all: check
	$(MAKE) pytest PYTEST_ARGS="--all-forms $(PYTEST_ARGS)"

# Faults by seed: make simulate SEEDS=1 FROM=8 repeats one.
simulate: $(STAMP)
	$(BIN)/python -m tests.simulation --seeds $(SEEDS) --from $(FROM) --version $(PG)

bench: $(STAMP)
	PG=$(PG) $(BIN)/python -m tests.benchmarks $(BENCH_ARGS)

wheel: $(STAMP)
	$(BIN)/hatchling build -t wheel -d dist

# Maintainers only: needs uv. The lock is universal, so one file serves every platform and Python.
lock:
	uv pip compile --universal --generate-hashes --no-emit-index-url --no-emit-find-links --python-version 3.11 \
		pyproject.toml --all-extras --custom-compile-command "make lock" -o requirements.lock $(LOCK_ARGS)

clean:
	rm -rf $(VENV) dist .demo .mypy_cache .pytest_cache .ruff_cache .hypothesis .cache dbt_project/target dbt_project/logs
