# The real engine without a GPU: vLLM's CPU build in an environment of its own, and the tiny models that it serves.
#
# The pins hold for CPython 3.11 on Linux x86-64, as torch's CPU wheels exist per interpreter and platform and every
# package here is pinned with hashes. pip finds that torch wheel through its own configuration: where it is not among
# the configured indexes, set PIP_EXTRA_INDEX_URL to PyTorch's index of CPU wheels.

ENGINE_VENV := .venv-engine
ENGINE_PYTHON ?= $(shell for p in python3.11 python3; do \
	$$p -c 'import sys, venv, ensurepip; sys.exit(sys.version_info[:2] != (3, 11))' >/dev/null 2>&1 && echo $$p && break; done)

# torchvision, torchaudio and torchcodec have no CPU build for this torch, and with their other builds no Llama can be imported.
# triton is a gigabyte that vLLM finds and switches off on a CPU. The rest is for tracing and for FastAPI's own cloud.
ENGINE_LEFT_OUT := torchvision torchaudio torchcodec triton opentelemetry-exporter-otlp fastapi-cli fastapi-cloud-cli

.PHONY: engine
engine: $(ENGINE_VENV)/.made tiny-model tiny-agents ## Set up the real engine: .venv-engine and the tiny models

$(ENGINE_VENV)/.made: backend/engine.txt
	@test -n "$(ENGINE_PYTHON)" || { echo "The engine needs Python 3.11 with venv; name one: make engine ENGINE_PYTHON=…" >&2; exit 2; }
	@echo "making $(ENGINE_VENV) with $(ENGINE_PYTHON): some 2 GB, which takes a few minutes the first time"
	@rm -rf $(ENGINE_VENV)
	@$(ENGINE_PYTHON) -m venv $(ENGINE_VENV)
	@$(ENGINE_VENV)/bin/python -m pip --disable-pip-version-check --quiet install --require-hashes --no-deps -r backend/engine.txt
	@touch $@

.PHONY: tiny-model
tiny-model: $(ENGINE_VENV)/.made ## Make the tiny Llama and its adapters, unless they are there
	@$(ENGINE_VENV)/bin/python -m backend.tiny_model

.PHONY: tiny-agents
tiny-agents: $(ENGINE_VENV)/.made ## Train the tiny agents that call tools, unless they are there: some minutes, once
	@$(ENGINE_VENV)/bin/python -m backend.tiny_agents

.PHONY: engine-lock
engine-lock: ## For maintainers: resolve backend/engine.txt anew (needs uv)
	@UV_FIND_LINKS="$${UV_FIND_LINKS:-$${PIP_FIND_LINKS:-}}" $(UV) pip compile --python-version 3.11 \
		--python-platform x86_64-manylinux_2_28 --excludes <(printf '%s\n' $(ENGINE_LEFT_OUT)) --generate-hashes \
		--no-header --no-emit-index-url --no-emit-find-links --quiet $(LOCK) backend/engine.in -o backend/engine.txt
	@if grep -nE '://' backend/engine.txt; then echo "the lock names a host" >&2; exit 1; fi
