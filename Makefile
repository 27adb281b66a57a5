# The commands of this repository. `make help` lists them.
SHELL := /bin/bash
.DEFAULT_GOAL := help
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
UV := VIRTUAL_ENV=$(CURDIR)/$(VENV) $(BIN)/uv
ARGS ?=
COMPOSE_GO := github.com/compose-spec/compose-go/v2
COMPOSE_GO_VERSION := v2.9.1
KUBECONFORM := github.com/yannh/kubeconform/cmd/kubeconform@v0.7.0
# As in kubectl 1.32, the oldest that docs/deploying.md names.
KUSTOMIZE := sigs.k8s.io/kustomize/kustomize/v5@v5.5.0
# How many tests run beside each other: those of a broker wait more than they compute, and two cores serve three.
WORKERS ?= 3

.PHONY: help setup kafka npm chromium shells languages registry prometheus go strimzi up test failed fast long chaos lint types imports check lock openapi tables docs asyncapi dashboards manifests fuzz audit audit-copy sbom bench clean

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

npm: tests/receivers/node_modules/.ready ## Install the npm packages that tests use: a verifier, AsyncAPI's schema

tests/receivers/node_modules/.ready: tests/receivers/package-lock.json
	@if command -v npm >/dev/null; then cd tests/receivers && npm ci --silent --no-audit --no-fund && touch node_modules/.ready; \
	else echo "no npm here: the tests that verify with Node.js are skipped"; fi

chromium: ## Install Debian's chromium for the browser tests, where that is possible
	@if ! command -v chromium >/dev/null && [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null; then \
		apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq chromium >/dev/null; fi; \
	if command -v chromium >/dev/null; then chromium --version 2>/dev/null || true; \
	else echo "no chromium here: the browser tests are skipped (Debian: apt-get install chromium)"; fi

shells: ## Install Debian's zsh and fish for the tests of completion, where that is possible
	@if ! { command -v zsh && command -v fish; } >/dev/null && [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null; then \
		apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq zsh fish >/dev/null; fi; \
	for shell in zsh fish; do command -v $$shell >/dev/null || echo "no $$shell here: its completion is not tried"; done

registry: tests/registry/apicurio/.ready ## Fetch a schema registry for the tests with Maven (needs Java 17 to run)

tests/registry/apicurio/.ready: tests/registry/pom.xml
	@if command -v mvn >/dev/null; then rm -rf tests/registry/apicurio; \
		cd tests/registry && mvn --quiet --batch-mode dependency:unpack-dependencies && touch apicurio/.ready; \
	else echo "no mvn here: the tests with a real schema registry are skipped (Debian: apt-get install maven)"; fi

#: A command, and the Debian package that has it.
LANGUAGES := php:php-cli ruby:ruby go:golang-go kcat:kcat

languages: ## Install what the page for receivers is tested with, from Debian's packages, where that is possible
	@lacking() { for each in $(LANGUAGES); do command -v "$${each%:*}" >/dev/null || echo "$${each#*:}"; done; }; \
	if [ -n "$$(lacking)" ] && [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null; then \
		apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get -o DPkg::Lock::Timeout=120 install -y -qq $$(lacking) >/dev/null; fi; \
	for each in $$(lacking); do echo "no $$each here: the tests that need it are skipped (Debian: apt-get install $$each)"; done
	@! command -v go >/dev/null || go build net/http  # Go compiles its library once, for a minute

prometheus: ## Install Debian's prometheus for the tests of alerts, where that is possible
	@if ! command -v promtool >/dev/null && [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null; then \
		apt-get update -qq && RUNLEVEL=1 DEBIAN_FRONTEND=noninteractive \
		apt-get install -y -qq --no-install-recommends prometheus >/dev/null; fi; \
	if command -v promtool >/dev/null; then promtool --version 2>&1 | head -1; \
	else echo "no prometheus here: the tests of alerts are skipped (Debian: apt-get install prometheus)"; fi

go: setup ## Install compose-go, kustomize and kubeconform, which read what is in deploy/, where there is Go
	@if test -x $(BIN)/compose-go; then :; \
	elif command -v go >/dev/null && GOBIN=$(CURDIR)/$(VENV)/go go install $(COMPOSE_GO)/cmd@$(COMPOSE_GO_VERSION); then \
		mv $(VENV)/go/cmd $(BIN)/compose-go; \
	else echo "no Go here: deploy/compose is read where docker compose is, or not at all"; fi
	@if test -x $(BIN)/kubeconform; then :; \
	elif command -v go >/dev/null && GOBIN=$(CURDIR)/$(BIN) go install $(KUBECONFORM); then :; \
	else echo "no Go here: deploy/kubernetes is not held to Kubernetes' schemas"; fi
	@if test -x $(BIN)/kustomize; then :; \
	elif command -v go >/dev/null && GOBIN=$(CURDIR)/$(BIN) go install $(KUSTOMIZE); then :; \
	else echo "no Go here: deploy/kubernetes is rendered where kubectl is, or not at all"; fi

strimzi: tests/strimzi/jars/.ready ## Fetch Strimzi's classes with Maven, which read its resources (needs Java 17)

tests/strimzi/jars/.ready: tests/strimzi/pom.xml
	@if command -v mvn >/dev/null; then rm -rf tests/strimzi/jars; \
		cd tests/strimzi && mvn --quiet --batch-mode dependency:copy-dependencies && touch jars/.ready; \
	else echo "no mvn here: Strimzi's resources are not read with its classes (Debian: apt-get install maven)"; fi

manifests: setup ## Write the manifests that follow from topics, grants and the guard: deploy/manifests.py
	$(BIN)/python -m deploy.manifests

up: setup ## Start everything on this machine; Ctrl-C drains and stops
	$(BIN)/tenterhook up $(ARGS)

# Each worker has brokers of its own. What is marked `alone` follows when the others are done, also where some failed.
test: setup kafka npm chromium shells languages registry prometheus go strimzi ## Set up and run the tests
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
	cd requirements && for name in main dev uv fuzz; do \
		../$(BIN)/uv pip compile --quiet --upgrade --generate-hashes --universal --python-version 3.11 \
			--custom-compile-command "make lock" $$name.in -o $$name.txt || exit 1; done

openapi: setup ## Write docs/openapi.json and docs/api.md: what the admin API's routes and their schemas say
	$(BIN)/python -m services.admin.openapi > docs/openapi.json.new && mv docs/openapi.json.new docs/openapi.json
	$(BIN)/python -m docs.making.api

tables: setup ## Write the tables in docs/*.md that the code fills: settings, metrics, topics, errors, commands
	$(BIN)/python -m docs.making.tables

docs: setup ## Write the documentation's pages as a site, build/site: no network, neither for making nor for reading it
	$(BIN)/python -m sphinx --quiet --fail-on-warning --keep-going --fresh-env docs build/site

asyncapi: setup ## Write docs/asyncapi.json: what the topics and their schemas say
	$(BIN)/python -m streams.asyncapi > docs/asyncapi.json.new && mv docs/asyncapi.json.new docs/asyncapi.json

dashboards: setup ## Write Grafana's dashboards, deploy/grafana/*.json
	$(BIN)/python deploy/grafana/make_dashboards.py

fuzz: setup ## Look for inputs that break a law, 10 minutes for each of 5 targets; ARGS="url --minutes 2"
	@$(UV) pip install --quiet --require-hashes -r requirements/fuzz.txt || \
		{ echo "make fuzz needs atheris, which has wheels for Linux on x86-64 alone" >&2; exit 1; }
	$(BIN)/python -m tests.fuzz $(ARGS)

audit: setup ## Ask PyPI for known vulnerabilities of what is locked; fails where it does not know a package
	$(BIN)/uv tool run --from pip-audit==2.10.1 pip-audit --strict --disable-pip --require-hashes \
		--progress-spinner off -r requirements/main.txt $(ARGS)

audit-copy: setup ## The same by a copy of an advisory database, without a network; ADVISORIES=DIR
	$(BIN)/python -m requirements.advisories $(ADVISORIES)

sbom: setup ## Write build/sbom.json: what an installation consists of, as CycloneDX
	@mkdir -p build
	$(BIN)/python requirements/sbom.py > build/sbom.json.new && mv build/sbom.json.new build/sbom.json

bench: setup kafka ## Measure: see bench/README.md
	$(BIN)/python -m bench $(ARGS)

clean: ## Remove what setup and tests made
	rm -rf $(VENV) build *.egg-info .pytest_cache .mypy_cache .ruff_cache .import_linter_cache .hypothesis .schemathesis .tenterhook
