# failsoft. `make` alone lists what there is.

SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := help
.DELETE_ON_ERROR:

VENV := .venv
BIN := $(VENV)/bin
ENGINE ?= sim
PORT ?= 8080
# The first Python that is new enough and can make environments; `make setup PYTHON=…` overrides.
PYTHON ?= $(shell for p in python3 python3.13 python3.12 python3.11 python3.14; do \
	$$p -c 'import sys, venv, ensurepip; sys.exit(sys.version_info < (3, 11))' >/dev/null 2>&1 && echo $$p && break; done)

PIP := $(BIN)/python -m pip --disable-pip-version-check --quiet
UV ?= uv
PINNED = $(UV) pip compile --universal --python-version 3.11 --generate-hashes \
	--no-header --no-annotate --no-emit-index-url --no-emit-find-links --quiet
COMPILE = $(subst --no-annotate ,,$(PINNED)) pyproject.toml
CLIENT_PINS := $(wildcard tests/clients/environments/*.in)

# Where it is set, each of the hundreds of processes that the tests start would compile all of our code anew.
unexport PYTHONDONTWRITEBYTECODE

include backend/engine.mk

.PHONY: help
help: ## Show this list
	@awk 'BEGIN {FS = ":.*## "} /^[a-z-]+:.*## / {printf "  \033[1m%-12s\033[0m %s\n", $$1, $$2}' $(MAKEFILE_LIST)

.PHONY: setup
setup: $(VENV)/.installed ## Make .venv with the failsoft command, from the lock

$(BIN)/python:
	@test -n "$(PYTHON)" || { echo "No Python 3.11 or newer with venv and pip was found; name one: make setup PYTHON=…" >&2; exit 2; }
	@echo "making $(VENV) with $(PYTHON)"
	@$(PYTHON) -m venv $(VENV)

$(VENV)/.locked: requirements-dev.lock | $(BIN)/python
	@echo "installing the locked packages (the first time takes a minute or two)"
	@$(PIP) install --require-hashes -r requirements-dev.lock
	@touch $@

$(VENV)/.installed: $(VENV)/.locked pyproject.toml
	@$(PIP) install --no-deps --no-build-isolation --editable .
	@touch $@

.PHONY: run
run: setup $(if $(filter vllm,$(ENGINE)),engine) ## The demo on port 8080: boxes, provider, gateway (ENGINE=vllm: real boxes)
	@exec $(BIN)/failsoft demo --engine $(ENGINE) --port $(PORT)

# Tests wait as much as they work, for processes mostly: so twice as many at a time as there are cores.
CORES := $(shell nproc 2>/dev/null || echo 2)
JOBS ?= $(shell n=$$(( 2 * $(CORES) )); echo $$(( n < 8 ? n : 8 )))

# Tests in which processes are killed, frozen and waited for, apart from those that only work: beside them they would
# measure those.
TIMED := faults workers

# What failed is written down there, for `.ci/run` to look at once more (tests/second_look.py).
FAILURES ?=
PYTEST = $(BIN)/python -m pytest $(if $(FAILURES),-p tests.second_look --keep-failures=$(FAILURES))

.PHONY: test
test: setup ## Every test that needs no real engine
	@status=0; \
	echo "what watches no clock"; \
	$(PYTEST) -n $(JOBS) --dist loadfile --no-loadscope-reorder $(TIMED:%=--ignore=tests/%) || status=$$?; \
	echo "processes and the time they take"; \
	$(PYTEST) -n $(JOBS) --dist loadfile $(TIMED:%=tests/%) || status=$$?; \
	exit $$status

.PHONY: test-engine
test-engine: setup engine ## The tests against two real vLLM boxes (sets up .venv-engine)
	@$(PYTEST) -m engine

.PHONY: test-image
test-image: setup ## The Dockerfile's steps and the gateway out of them, without a container (root on Linux; an index)
	@$(BIN)/python -m pytest -m image

.PHONY: test-clients
test-clients: setup ## The client libraries that people use, each in .venv-clients/NAME (what cannot be made is skipped)
	@$(BIN)/python -m tests.clients.environments
	@$(PYTEST) -m clients -n auto --maxprocesses 4 --dist loadfile -rs tests/clients

.PHONY: bench
bench: setup ## Gateway, bare upstream and vllm-router side by side, as ratios
	@$(BIN)/python -m bench.gateway $(BENCH)

.PHONY: lint
lint: setup ## Formatter, linter and types
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/mypy

.PHONY: format
format: setup ## Format and apply the linter's safe fixes
	@$(BIN)/ruff format .
	@$(BIN)/ruff check --fix .

.PHONY: lock
lock: ## For maintainers: resolve the locks anew (needs uv and npm; LOCK=--upgrade takes newer versions)
	@$(COMPILE) $(LOCK) -o requirements.lock
	@$(COMPILE) $(LOCK) --group dev -c requirements.lock -o requirements-dev.lock
	@for pins in $(CLIENT_PINS:.in=); do $(PINNED) $(LOCK) $$pins.in -o $$pins.txt; done
	@cd tests/clients/environments/node && npm install --package-lock-only --omit-lockfile-registry-resolved --silent
	@if grep -nE '://' requirements.lock requirements-dev.lock $(CLIENT_PINS:.in=.txt); then echo "a lock names a host" >&2; exit 1; fi

.PHONY: clean
clean: ## Remove environments, caches and the demo's state
	rm -rf $(VENV) .venv-engine .venv-clients .cache .state .pytest_cache .mypy_cache .ruff_cache .hypothesis build dist
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
