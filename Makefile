# The commands of this project; `make help` lists them. What they need is set up by themselves, into .venv.
APP     ?= app/examples/counter/counter.py
HOST    ?= 127.0.0.1
PORT    ?= 8000
WORKERS ?= 1
PYTHON  ?= python3
TESTS   ?= tests

UV      := $(shell command -v uv 2>/dev/null || echo .uv/bin/uv)
BIN     := .venv/bin
READY   := .venv/.ready

.DEFAULT_GOAL := help
.PHONY: help setup run install test check bench clean

help: ## List the commands
	@awk -F ':.*## ' '/^[a-z]+:.*## /{printf "  make %-8s %s\n", $$1, $$2}' $(MAKEFILE_LIST)
	@echo '  APP=path/to/file.py or APP=package.module:main, PORT, HOST and WORKERS go with make run'

setup: $(READY) ## Make .venv with all that running and testing need

run: $(READY) ## Serve APP (the counter) at http://127.0.0.1:8000
	@$(BIN)/roost run '$(APP)' --host '$(HOST)' --port '$(PORT)' --workers '$(WORKERS)'

install: $(READY) ## Install an app's own requirements (REQUIREMENTS=path), but nothing that breaks the server
	$(UV) pip install --python $(BIN)/python --requirement '$(REQUIREMENTS)' --constraint constraints.txt

test: $(READY) .venv/.tools ## Run every test (TESTS=path runs some)
	$(BIN)/pytest $(TESTS) --cov --cov-report=term:skip-covered $(PYTEST)

check: $(READY) ## Check style and types
	$(BIN)/ruff check .
	$(BIN)/ruff format --check app/flet_fastapi app/roost tests bench
	$(BIN)/mypy

bench: $(READY) ## Compare speed and memory with upstream's server, side by side
	PATH="$(CURDIR)/.uv/bin:$$PATH" $(BIN)/python -m bench

clean: ## Remove what the other commands have made
	rm -rf .venv .uv .pytest_cache .mypy_cache .ruff_cache .hypothesis .coverage bench/.upstream-venv

# uv comes from PyPI where the machine has none
.uv/bin/uv:
	@PYTHON='$(PYTHON)' scripts/get-uv

# the environment as uv.lock has it, and the web client: fetched, compressed, ready to be served
$(READY): pyproject.toml uv.lock $(wildcard app/flet_fastapi/client/*.py app/flet_fastapi/client/js/*) $(filter .uv/%,$(UV))
	@$(UV) sync --frozen --inexact --quiet --no-python-downloads
	@PATH="$(CURDIR)/.uv/bin:$$PATH" $(BIN)/python -m flet_fastapi.client
	@touch $@

# what the tests run beside Python: a browser
.venv/.tools: scripts/install-tools
	scripts/install-tools
	@touch $@
