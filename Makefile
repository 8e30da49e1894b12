# The virtual environment, and the Python that makes it: the first that runs, as a name on PATH can be an empty stub.
VENV ?= .venv
PYTHON ?= $(shell for p in python3.11 python3.12 python3.10 python3 python; do \
	$$p -c 'import sys; sys.exit(sys.version_info < (3, 10))' 2>/dev/null && { echo $$p; break; }; done)
PYTEST_ARGS ?=
BIN = $(VENV)/bin/python

.DEFAULT_GOAL := help
.PHONY: help setup lint format test test-all demo doctor

help:  ## show this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-10s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

setup:  ## make or complete the virtual environment; quick when nothing is missing
	@test -n "$(PYTHON)" || { echo 'set-up failed: no Python 3.10 or newer found; install one or set PYTHON=' >&2; exit 1; }
	@$(PYTHON) tools/setup_env.py --venv "$(VENV)"

lint: setup  ## check the code with ruff
	@$(BIN) -m ruff check .
	@$(BIN) -m ruff format --check .

format: setup  ## let ruff put the code in order
	@$(BIN) -m ruff check --fix .
	@$(BIN) -m ruff format .

test: setup  ## run the tests, except the slow ones
	@$(BIN) -m pytest -m 'not slow' $(PYTEST_ARGS)

test-all: setup  ## run all tests
	@$(BIN) -m pytest $(PYTEST_ARGS)

demo: setup  ## train and show a small model
	@$(BIN) tools/demo.py

doctor: setup  ## say what is installed, what is usable and what is wrong
	@$(BIN) -m scsa_mm.doctor
