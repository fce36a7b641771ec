# The two commands to know: `make demo` and `make test`. Both need Python 3.11 or newer and make, nothing else.
#
# PYTHON=... chooses the interpreter of the virtual environment, VENV=... its folder,
# ARGS=... is handed to pytest or to the demo.

PYTHON ?= $(shell command -v python3.11 || command -v python3)
VENV ?= .venv
ARGS ?=
BIN := $(VENV)/bin
# The stamp files lie inside the environment: removing it removes them.
RUN := $(VENV)/.surefoot-run
DEV := $(VENV)/.surefoot-dev
SOURCES := src tests benchmarks

.DEFAULT_GOAL := help
.PHONY: help demo test test-kernel lint docs bench clean

help: ## Say what can be made
	@sed -n 's/^\([a-z-]*\):.*## /  make \1\t/p' $(firstword $(MAKEFILE_LIST)) | expand -t 22

demo: $(RUN) ## Show the whole system on an emulated arm64 machine, in seconds
	$(BIN)/surefoot demo $(ARGS)

test: $(DEV) ## Run the quick tests
	$(BIN)/python -m pytest $(ARGS)

test-kernel: $(DEV) ## Run the tests on real kernels, and the slow ones
	$(BIN)/python -m pytest -m "kernel or slow" $(ARGS)

lint: $(DEV) ## Run ruff and mypy --strict
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy --strict

docs: $(DEV) ## Build the documentation into docs/_build
	$(BIN)/sphinx-build -W --keep-going -q -b html docs docs/_build
	@echo "docs/_build/index.html"

bench: $(DEV) ## Print the measured ratios side by side
	$(BIN)/python -m benchmarks $(ARGS)

clean: ## Remove what these commands made
	rm -rf $(VENV) build dist docs/_build .pytest_cache .mypy_cache .ruff_cache .hypothesis .benchmarks src/*.egg-info
	find $(SOURCES) -name __pycache__ -type d -prune -exec rm -rf {} +

# Debian splits ensurepip off into a package of its own; root gets it installed, others are told its name.
$(BIN)/python:
	@test -n "$(PYTHON)" || { echo "Surefoot needs Python 3.11 or newer: install python3, or run make PYTHON=/path/to/python3" >&2; exit 1; }
	@"$(PYTHON)" -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
	  echo "Surefoot needs Python 3.11 or newer, but $(PYTHON) is $$("$(PYTHON)" -V): run make PYTHON=/path/to/python3.11" >&2; exit 1; }
	@"$(PYTHON)" -c 'import ensurepip, venv' 2>/dev/null || { \
	  package="$$("$(PYTHON)" -c 'import sys; print("python%d.%d-venv" % sys.version_info[:2])')"; \
	  if [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null; then \
	    echo "installing $$package by apt"; \
	    apt-get -qq update && DEBIAN_FRONTEND=noninteractive apt-get -qq -y -o DPkg::Lock::Timeout=120 --no-install-recommends install "$$package" </dev/null; \
	  else \
	    echo "$(PYTHON) cannot make virtual environments: install $$package (Debian: apt install $$package) and run make again" >&2; exit 1; \
	  fi; }
	"$(PYTHON)" -m venv $(VENV)

$(RUN): pyproject.toml | $(BIN)/python
	$(BIN)/python -m pip install --quiet --editable .
	@touch $@

$(DEV): pyproject.toml | $(BIN)/python
	$(BIN)/python -m pip install --quiet --editable '.[dev]'
	@touch $@ $(RUN)
