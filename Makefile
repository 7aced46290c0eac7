# Everything is set up in .venv from requirements.lock; needs Python 3.11+, git and make, nothing else.
#   make demo               the whole story on an embedded PostgreSQL
#   make test [PG=15|16|18] checks, then every test on that server version
#   make lint | bench | lock | clean

SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help

PG ?= 18
# Each worker has a server of its own.
WORKERS ?= 2
PYTEST_ARGS ?=
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

.PHONY: help install demo test check lint typecheck sqllint pytest bench lock clean

help:
	@sed -n 's/^# \{0,1\}//p' $(firstword $(MAKEFILE_LIST)) | head -4

install: $(STAMP)

$(STAMP):
	@if [ -z "$(PYTHON)" ]; then echo "Python 3.11 or newer is needed; name one: make PYTHON=/path/to/python3 install" >&2; exit 1; fi
	@echo "Setting up $(VENV) with $$($(PYTHON) --version) …"
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
	$(BIN)/sqlfluff lint --disable-progress-bar migrations
	$(BIN)/sqlfluff lint --disable-progress-bar --templater jinja dbt_project

pytest: $(STAMP)
	PG=$(PG) $(BIN)/pytest -n $(WORKERS) --dist loadfile $(PYTEST_ARGS)

bench: $(STAMP)
	PG=$(PG) $(BIN)/python -m tests.benchmarks

# Maintainers only: needs uv. The lock is universal, so one file serves every platform and Python.
lock:
	uv pip compile --universal --generate-hashes --no-emit-index-url --no-emit-find-links --python-version 3.11 \
		pyproject.toml --all-extras --custom-compile-command "make lock" -o requirements.lock $(LOCK_ARGS)

clean:
	rm -rf $(VENV) .mypy_cache .pytest_cache .ruff_cache .hypothesis .cache dbt_project/target dbt_project/logs
