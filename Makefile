# Every command installs its dependencies into .venv; only Python >= 3.11 is required.
SHELL := /bin/bash
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
CONTRACTS := $(wildcard proto/aurum/v1/*.proto)
BUILD := pyproject.toml hatch_build.py $(CONTRACTS)
INSTALL := $(BIN)/uv pip install --quiet --no-config --python $(BIN)/python

# Without bytecode, each of the many test processes would compile its modules again.
unexport PYTHONDONTWRITEBYTECODE

CHART_TESTS := tests/cluster/test_charts.py tests/cluster/test_network_policies.py tests/cluster/test_rules.py

# Number of parallel test processes; four keep two cores busy, because tests often wait for services.
WORKERS ?= 4

# Only the checks of the console need Node.js. The one that `make node` installs into .venv takes precedence.
WITH_NODE := export PATH="$(CURDIR)/$(BIN):$$PATH"
FIND_NODE := $(WITH_NODE); command -v npm >/dev/null && node -e 'const [major, minor] = process.versions.node.split(".").map(Number); process.exit(major > 20 || (major === 20 && minor >= 19) ? 0 : 1)' 2>/dev/null
NPM := $(WITH_NODE); npm
SKIPPED = echo "SKIPPED $(1): it needs Node.js >= 20.19 with npm; install it, or run make node" >&2

LOCK := --universal --python-version 3.11 --generate-hashes --no-header --quiet

.DEFAULT_GOAL := help
.PHONY: help setup run test browser-test chart-test cluster-test proof coverage mutation soak screenshots images kind-up deploy undeploy lint format console-lint console-test node bench crds telemetry docs lock clean doctor

help:  ## List the commands
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "  make %-13s %s\n", $$1, $$2}'

$(VENV)/.made:
	@$(PYTHON) -c 'import sys; sys.exit("AurumAI needs Python >= 3.11; this is " + sys.version.split()[0] + ". Choose another with make PYTHON=...") if sys.version_info < (3, 11) else None'
	@$(PYTHON) -m venv $(VENV)
	@touch $@

$(VENV)/.uv: requirements/install.txt | $(VENV)/.made
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements/install.txt
	@touch $@

$(VENV)/.run: requirements/run.txt $(BUILD) $(VENV)/.uv
	@echo "Installing AurumAI into $(VENV) (once; half a minute)"
	@$(INSTALL) --compile-bytecode --require-hashes -r requirements/run.txt
	@PATH="$(CURDIR)/$(BIN):$$PATH" $(INSTALL) --no-deps --no-build-isolation --editable .
	@touch $@

$(VENV)/.dev: requirements/dev.txt $(VENV)/.run
	@echo "Installing the development tools into $(VENV) (once)"
	@$(INSTALL) --require-hashes -r requirements/dev.txt
	@touch $@

$(VENV)/.fuzz: requirements/fuzz.txt $(VENV)/.dev
	@echo "Installing the fuzzing engine into $(VENV) (once)"
	@$(INSTALL) --require-hashes -r requirements/fuzz.txt
	@touch $@

node_modules/.made: package.json package-lock.json
	@echo "Installing the console's tools into node_modules (once)"
	@$(NPM) ci --ignore-scripts --no-audit --no-fund --loglevel=error
	@touch $@

setup: $(VENV)/.dev  ## Create .venv with all dependencies for development

run: $(VENV)/.run  ## Start the platform with its simulators on this machine
	@exec $(BIN)/aurum up

test: $(VENV)/.dev  ## Run the tests that need only Python; ARGS are passed to pytest
	@$(BIN)/python -m pytest -n $(WORKERS) --no-loadscope-reorder --durations=10 $(ARGS)

browser-test: $(VENV)/.dev  ## Test every page of the console with a live plant, in Chromium
	@$(BIN)/python -m pytest tests/browser $(ARGS)

chart-test: $(VENV)/.dev  ## Test charts and alert rules (with helm and promtool, and with the API server of a cluster if there is one)
	@$(BIN)/python -m pytest $(CHART_TESTS) --timeout=900 $(ARGS)

cluster-test: $(VENV)/.dev  ## Install a release on the current cluster, which must have the images, and test it
	@$(BIN)/python -m pytest tests/cluster --timeout=900 $(patsubst %,--ignore=%,$(CHART_TESTS)) $(ARGS)

proof: $(VENV)/.dev $(VENV)/.fuzz  ## Test the claims of the docs, for hours; ARGS='alerts chaos' selects topics, ARGS=--list lists them
	@$(BIN)/python -m tests.proof $(ARGS)

coverage: $(VENV)/.dev  ## Run the tests of make test with branch coverage, including the processes that they start
	@rm -rf .cache/coverage && mkdir -p .cache/coverage
	@$(BIN)/coverage run -m pytest -n $(WORKERS) --no-loadscope-reorder $(ARGS) && tests=0 || tests=$$?; \
	$(BIN)/coverage combine --quiet && $(BIN)/coverage report && exit $$tests

mutation: $(VENV)/.dev  ## Change the code in one place at a time and list the changes that no test detects
	@$(BIN)/python -m tests.mutation.run $(ARGS)

soak: $(VENV)/.dev  ## Kill processes, cut networks and shift clocks at random for an hour, and check for lost readings
	@$(BIN)/python -m tests.support.chaos --kills 200 $(ARGS)

screenshots: $(VENV)/.dev  ## Take the screenshots of the console for the docs, with Chromium
	@$(BIN)/python -m tests.browser.screenshots docs/images

images:  ## Build the images and load them into the current cluster
	@k8s/images

kind-up:  ## Start a cluster on this machine with kind
	@kind create cluster --config k8s/kind.yaml

deploy:  ## Install all charts, with a simulated plant, on the current cluster
	@kubectl apply --filename k8s/examples/namespace.yaml
	@helm upgrade --install aurumai-crds charts/aurumai-crds --namespace aurumai
	@helm upgrade --install observability charts/observability --namespace aurumai --values k8s/examples/laptop-observability-values.yaml --wait --timeout 5m $(OBSERVABILITY_ARGS)
	@helm upgrade --install aurumai charts/aurumai --namespace aurumai --values k8s/examples/laptop-values.yaml --set image.repository=$${AURUM_IMAGE_REPOSITORY:-localhost/aurumai},image.tag=$${AURUM_IMAGE_TAG:-dev} --wait --timeout 5m $(ARGS)

undeploy:  ## Uninstall all charts and delete the namespace with its volumes; the definitions of policies stay
	@helm uninstall aurumai observability aurumai-crds --namespace aurumai --ignore-not-found
	@kubectl delete namespace aurumai

lint: $(VENV)/.dev  ## Check style, types, and that generated files are current; includes console-lint
	@$(BIN)/ruff format --check .
	@$(BIN)/ruff check .
	@$(BIN)/mypy
	@$(BIN)/mypy tests/typing examples
	@$(BIN)/lint-imports --no-logo
	@$(BIN)/aurum settings --check docs/settings.md
	@$(BIN)/aurum policy reference --check docs/policies.md
	@$(BIN)/aurum policy check policies.yaml
	@$(BIN)/python -m aurum.operator.schema --check charts/aurumai-crds/templates docs/operator-reference.md
	@$(BIN)/python -m charts.telemetry --check
	@$(BIN)/python -m charts.values_table --check charts/aurumai charts/observability
	@$(MAKE) -s --no-print-directory console-lint

format: $(VENV)/.dev  ## Format the code
	@$(BIN)/ruff format .
	@$(BIN)/ruff check --fix .
	@if $(FIND_NODE); then $(MAKE) -s --no-print-directory node_modules/.made && $(NPM) run --silent format; else $(call SKIPPED,format the console); fi

console-lint:  ## Check style and types of the console with Node.js
	@if $(FIND_NODE); then $(MAKE) -s --no-print-directory node_modules/.made && $(NPM) run --silent lint; else $(call SKIPPED,console-lint); fi

console-test:  ## Run the unit tests of the console with Node.js
	@if $(FIND_NODE); then $(MAKE) -s --no-print-directory node_modules/.made && $(NPM) test --silent; else $(call SKIPPED,console-test); fi

node: $(VENV)/.uv  ## Install Node.js into .venv for the console's checks, unless the system has it
	@if ! { $(FIND_NODE); }; then $(INSTALL) --require-hashes -r requirements/node.txt; fi

bench: $(VENV)/.dev  ## Run the benchmarks; results go to benchmarks/results/
	@set -e; for benchmark in ingest spool query energy edge_inputs prediction unary cmapss simulator resilience console security; do $(BIN)/python -m benchmarks.$$benchmark $(ARGS); done

crds: $(VENV)/.run  ## Generate the CustomResourceDefinitions from the models
	@$(BIN)/python -m aurum.operator.schema charts/aurumai-crds/templates docs/operator-reference.md

telemetry: $(VENV)/.dev  ## Generate the dashboards, the alerts, and their promtool tests
	@$(BIN)/python -m charts.telemetry

docs: $(VENV)/.run  ## Generate the tables of the documentation
	@$(BIN)/aurum settings --write docs/settings.md
	@$(BIN)/aurum policy reference --write docs/policies.md
	@$(BIN)/python -m charts.values_table charts/aurumai charts/observability

doctor: $(VENV)/.run  ## Report which services are up, and their problems
	@$(BIN)/aurum doctor

lock: $(VENV)/.uv  ## Resolve the dependencies again and write the lock files
	$(BIN)/uv pip compile $(LOCK) --upgrade --extra all --group build pyproject.toml -o requirements/run.txt
	$(BIN)/uv pip compile $(LOCK) --upgrade --extra all --extra dask --group dev -c requirements/run.txt pyproject.toml -o requirements/dev.txt
	$(BIN)/uv pip compile $(LOCK) --upgrade --group install -o requirements/install.txt
	$(BIN)/uv pip compile $(LOCK) --upgrade --group fuzz -o requirements/fuzz.txt
	$(BIN)/uv pip compile $(LOCK) --upgrade --group node -o requirements/node.txt
	$(BIN)/uv pip compile $(LOCK) --group build -c requirements/run.txt -o requirements/build.txt
	$(BIN)/uv pip compile $(LOCK) --group sbom -c requirements/run.txt -o requirements/sbom.txt
	$(BIN)/uv pip compile $(LOCK) --extra api -c requirements/run.txt pyproject.toml -o requirements/api.txt
	$(BIN)/uv pip compile $(LOCK) --extra ingestion --extra cassandra -c requirements/run.txt pyproject.toml -o requirements/ingestion.txt
	$(BIN)/uv pip compile $(LOCK) --extra edge -c requirements/run.txt pyproject.toml -o requirements/edge.txt
	$(BIN)/uv pip compile $(LOCK) --extra operator -c requirements/run.txt pyproject.toml -o requirements/operator.txt
	$(BIN)/uv pip compile $(LOCK) --extra prediction -c requirements/run.txt pyproject.toml -o requirements/prediction.txt
	$(BIN)/uv pip compile $(LOCK) --extra prediction --extra training -c requirements/run.txt pyproject.toml -o requirements/training.txt

clean:  ## Delete the platform's state and caches (not .venv)
	@rm -rf .aurum .pytest_cache .mypy_cache .ruff_cache .hypothesis dist
