# The commands of this repository. `make help` lists them.
SHELL := /bin/bash
.DEFAULT_GOAL := help
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
UV := VIRTUAL_ENV=$(CURDIR)/$(VENV) $(BIN)/uv
ARGS ?=
# How many tests run beside each other: those of a broker wait more than they compute, and two cores serve three.
WORKERS ?= 3

.PHONY: help setup kafka npm chromium up test failed fast long chaos lint types imports check lock openapi bench clean

help: ## List the commands
	@awk -F ':.*## ' '/^[a-z-]+:.*## /{printf "  make %-10s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

setup: $(VENV)/.ready ## Make .venv with .venv/bin/tenterhook

$(VENV)/.ready: requirements/dev.txt requirements/uv.txt pyproject.toml
	$(PYTHON) -c 'import sys; sys.exit(0 if sys.version_info >= (3, 11) else "tenterhook needs Python 3.11 or newer; set PYTHON=python3.x")'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --disable-pip-version-check --require-hashes -r requirements/uv.txt
	$(UV) pip install --quiet --require-hashes -r requirements/dev.txt
	$(UV) pip install --quiet --no-deps --no-build-isolation -e .
	@touch $@
	@echo "tenterhook is in $(BIN)/tenterhook"

kafka: setup deploy/kafka/jars/.ready ## Fetch Apache Kafka's jars with Maven (needs Java 17 to run)

deploy/kafka/jars/.ready: deploy/kafka/pom.xml | $(VENV)/.ready
	@command -v mvn >/dev/null || { echo "make kafka needs Maven (Debian: apt-get install maven)" >&2; exit 1; }
	rm -rf deploy/kafka/jars
	cd deploy/kafka && mvn --quiet --batch-mode dependency:copy-dependencies -DoutputDirectory=jars -DincludeScope=runtime
	$(BIN)/python -m services.cli.brokers.archive
	@touch $@
	@echo "Apache Kafka is in deploy/kafka/jars: $$(ls deploy/kafka/jars/*.jar | wc -l) jars"

npm: tests/receivers/node_modules/.ready ## Install the npm packages that tests verify deliveries with

tests/receivers/node_modules/.ready: tests/receivers/package-lock.json
	@if command -v npm >/dev/null; then cd tests/receivers && npm ci --silent --no-audit --no-fund && touch node_modules/.ready; \
	else echo "no npm here: the tests that verify with Node.js are skipped"; fi

chromium: ## Install Debian's chromium for the browser tests, where that is possible
	@if ! command -v chromium >/dev/null && [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null; then \
		apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq chromium >/dev/null; fi; \
	if command -v chromium >/dev/null; then chromium --version 2>/dev/null || true; \
	else echo "no chromium here: the browser tests are skipped (Debian: apt-get install chromium)"; fi

up: setup ## Start everything on this machine; Ctrl-C drains and stops
	$(BIN)/tenterhook up $(ARGS)

# Each worker has brokers of its own. What is marked `alone` follows when the others are done, also where some failed.
test: setup kafka npm chromium ## Set up and run the tests
	@failed=0; \
	$(BIN)/pytest --part beside --numprocesses $(WORKERS) --dist worksteal $(ARGS) || failed=$$?; \
	$(BIN)/pytest --part alone $(ARGS) || failed=$$?; \
	exit $$failed

failed: setup kafka ## Run again, alone, the tests that failed last time
	$(BIN)/pytest --last-failed --last-failed-no-failures none -p no:randomly $(ARGS)

fast: setup kafka ## The tests of a minute or two: no whole stacks, kills, browsers
	$(BIN)/pytest --part beside --numprocesses $(WORKERS) --dist worksteal -m "not slow and not long" $(ARGS)

long: setup kafka ## The tests that take minutes: outages and freezes
	$(BIN)/pytest -m long $(ARGS)

chaos: setup kafka ## Faults under load for half an hour, with a seed: see docs/consistency.md
	$(BIN)/python -m tests.chaos $(ARGS)

lint: setup ## Lint and formatting
	@echo "ruff: $$(git ls-files '*.py' | wc -l) files"
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: setup ## Types
	$(BIN)/mypy

imports: setup ## Import rules: one direction, pure decisions
	$(BIN)/lint-imports

check: lint types imports ## lint, types and imports

lock: setup ## Resolve requirements/*.in again
	cd requirements && for name in main dev uv; do \
		../$(BIN)/uv pip compile --quiet --upgrade --generate-hashes --universal --python-version 3.11 \
			--custom-compile-command "make lock" $$name.in -o $$name.txt || exit 1; done

openapi: setup ## Write docs/openapi.json: what the admin API's routes and their schemas say
	$(BIN)/python -m services.admin.openapi > docs/openapi.json.new && mv docs/openapi.json.new docs/openapi.json

bench: setup kafka ## Measure: see bench/README.md
	$(BIN)/python -m bench $(ARGS)

clean: ## Remove what setup and tests made
	rm -rf $(VENV) build *.egg-info .pytest_cache .mypy_cache .ruff_cache .import_linter_cache .hypothesis .schemathesis .tenterhook
