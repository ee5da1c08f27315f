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
.PHONY: help setup run install test retest check bench clean \
	up down deploy logs ps restart backup restore upgrade doctor certs smoke dev new-app

help: ## List the commands
	@awk -F ':.*## ' '/^### /{print "\n" substr($$0, 5)} /^[a-z-]+:.*## /{printf "  make %-8s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

### The app and the library, on this machine (APP=path/to/file.py or package.module:main, PORT, HOST, WORKERS with run)

setup: $(READY) ## Make .venv with all that running and testing need

run: $(READY) ## Serve APP (the counter) at http://127.0.0.1:8000
	@$(BIN)/roost run '$(APP)' --host '$(HOST)' --port '$(PORT)' --workers '$(WORKERS)'

install: $(READY) ## Install an app's own requirements (REQUIREMENTS=path), but nothing that breaks the server
	$(UV) pip install --python $(BIN)/python --requirement '$(REQUIREMENTS)' --constraint constraints.txt

test: $(READY) .venv/.tools ## Run every test (TESTS=path runs some; PYTEST=--cov measures coverage)
ifeq ($(TESTS),tests)
	@ended=0; \
	$(BIN)/pytest tests --ignore=tests/containers --numprocesses=2 --dist=loadfile $(PYTEST) || ended=1; \
	$(BIN)/pytest tests/containers $(PYTEST) || ended=1; \
	exit $$ended
else
	$(BIN)/pytest $(TESTS) $(PYTEST)
endif

retest: $(READY) .venv/.tools ## Run those tests that failed the last time
	$(BIN)/pytest tests --last-failed --last-failed-no-failures=none $(PYTEST)

check: $(READY) ## Check style and types
	$(BIN)/ruff check .
	$(BIN)/ruff format --check app/flet_fastapi app/roost tests bench
	$(BIN)/mypy

bench: $(READY) ## Compare speed and memory with upstream's server, side by side
	PATH="$(CURDIR)/.uv/bin:$$PATH" $(BIN)/python -m bench
	$(BIN)/python -m bench.cluster

### The appliance, in containers: needs docker and its compose plugin, nothing else (docs/operations.md)
up: ## Start it: https://localhost, or what .env says
	@scripts/up

down: ## Stop it; volumes stay
	@docker compose --profile '*' down

deploy: ## Take it to the app's new version; rolls back by itself if that does not work
	@scripts/deploy

logs: ## Follow its logs (SERVICE=app)
	@docker compose logs --follow --tail 200 $(SERVICE)

ps: ## What runs
	@docker compose ps --all

restart: ## Start its containers again (SERVICE=nginx)
	@docker compose restart $(SERVICE)

backup: ## Save its volumes to one file (FILE=path)
	@scripts/backup $(FILE)

restore: ## Put a backup back (FILE=path)
	@scripts/restore $(FILE)

upgrade: ## Take the appliance itself to a new version (VERSION=tag; CHECK=1 only looks)
	@VERSION='$(VERSION)' scripts/upgrade $(if $(CHECK),check)

doctor: ## Look for mistakes, and say their cures
	@scripts/doctor

certs: ## Show the certificate (CERT=file KEY=file installs one, REMOVE=1 takes it away)
	@CERT='$(CERT)' KEY='$(KEY)' REMOVE='$(REMOVE)' scripts/certs

smoke: ## Visit the app as a browser does: page, websocket, a click
	@scripts/smoke

dev: ## The appliance for development: the app's folder is mounted, and reloads
	docker compose -f compose.yaml -f compose.dev.yaml up --build

new-app: ## A working skeleton of an app in apps/NAME (NAME=my-app)
	@scripts/new-app '$(NAME)'

clean: ## Remove what the commands of the library have made
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
