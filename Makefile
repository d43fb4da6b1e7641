# Every command installs what it needs into .venv; only Python >= 3.11 has to be there.
SHELL := /bin/bash
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
CONTRACTS := $(wildcard proto/aurum/v1/*.proto)
BUILD := pyproject.toml hatch_build.py $(CONTRACTS)
PIP_INSTALL := $(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes

CHART_TESTS := tests/cluster/test_charts.py tests/cluster/test_network_policies.py tests/cluster/test_rules.py
OPERATOR_TESTS := tests/cluster/operator/test_many.py tests/cluster/operator/test_operator.py

# Processes that run tests side by side: most of them wait for services.
WORKERS ?= 2

LOCK := --universal --python-version 3.11 --generate-hashes --no-header --quiet

.DEFAULT_GOAL := help
.PHONY: help setup run test soak browser-test security screenshots cluster-test chart-test operator-test release-test images kind-up deploy undeploy lint format bench crds telemetry docs lock clean doctor

help:  ## List the commands
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "  make %-13s %s\n", $$1, $$2}'

$(VENV)/.made:
	@$(PYTHON) -c 'import sys; sys.exit("AurumAI needs Python >= 3.11; this is " + sys.version.split()[0] + ". Name another with make PYTHON=...") if sys.version_info < (3, 11) else None'
	@$(PYTHON) -m venv $(VENV)
	@touch $@

$(VENV)/.run: requirements/run.txt $(BUILD) | $(VENV)/.made
	@echo "Installing AurumAI into $(VENV) (once; about a minute)"
	@$(PIP_INSTALL) -r requirements/run.txt
	@PATH="$(CURDIR)/$(BIN):$$PATH" $(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation -e .
	@touch $@

$(VENV)/.dev: requirements/dev.txt $(VENV)/.run
	@echo "Installing the development tools into $(VENV) (once)"
	@$(PIP_INSTALL) -r requirements/dev.txt
	@touch $@

setup: $(VENV)/.dev  ## Make .venv with everything for development

run: $(VENV)/.run  ## Start the whole platform with its simulators on this machine
	@exec $(BIN)/aurum up

test: $(VENV)/.dev  ## Run the tests that need nothing but Python
	@$(BIN)/python -m pytest -n $(WORKERS) --no-loadscope-reorder $(ARGS)

soak: $(VENV)/.dev  ## Kill, cut and turn back everything at random for an hour; a ledger tells what was lost
	@$(BIN)/python -m tests.faults.chaos --kills 200 $(ARGS)

browser-test: $(VENV)/.dev  ## Run the tests that need a Chromium: every page of the console with a live plant
	@$(BIN)/python -m pytest tests/browser $(ARGS)

security: $(VENV)/.dev  ## Attack it: access, tokens, TLS, floods, fuzzing; known vulnerabilities of what it is built on
	@$(BIN)/python -m pytest tests/unit/test_security.py tests/security $(ARGS)
	@$(BIN)/python -m tests.security.vulnerabilities requirements/run.txt

screenshots: $(VENV)/.dev  ## Take the pictures of the console for the docs, with a Chromium
	@$(BIN)/python -m tests.browser.screenshots docs/images

cluster-test: $(VENV)/.dev  ## Run the tests that need a cluster: the current kube-context's, with the images on its nodes
	@$(BIN)/python -m pytest tests/cluster --timeout=900 $(ARGS)

chart-test: $(VENV)/.dev  ## Run those of them that look at charts and rules, and install nothing
	@$(BIN)/python -m pytest $(CHART_TESTS) --timeout=900 $(ARGS)

operator-test: $(VENV)/.dev  ## Run those that want nothing of it but its API server: the operator, and pods that are played
	@$(BIN)/python -m pytest $(OPERATOR_TESTS) --timeout=900 $(ARGS)

release-test: $(VENV)/.dev  ## Run the others of them
	@$(BIN)/python -m pytest tests/cluster --timeout=900 $(patsubst %,--ignore=%,$(CHART_TESTS) $(OPERATOR_TESTS)) $(ARGS)

images:  ## Build the images and bring them into the current cluster
	@k8s/images

kind-up:  ## Start a cluster on this machine with kind
	@kind create cluster --config k8s/kind.yaml

deploy:  ## Install both charts, with a simulated plant, on the current cluster
	@kubectl apply --filename k8s/examples/namespace.yaml
	@helm upgrade --install aurumai-crds charts/aurumai-crds --namespace aurumai
	@helm upgrade --install observability charts/observability --namespace aurumai --values k8s/examples/laptop-observability-values.yaml --wait --timeout 5m $(OBSERVABILITY_ARGS)
	@helm upgrade --install aurumai charts/aurumai --namespace aurumai --values k8s/examples/laptop-values.yaml --set image.repository=$${AURUM_IMAGE_REPOSITORY:-localhost/aurumai},image.tag=$${AURUM_IMAGE_TAG:-dev} --wait --timeout 5m $(ARGS)

undeploy:  ## Remove both, with their volumes; the definitions of policies stay
	@helm uninstall aurumai observability aurumai-crds --namespace aurumai --ignore-not-found
	@kubectl delete namespace aurumai

lint: $(VENV)/.dev  ## Check style, types and that generated files are current
	@$(BIN)/ruff format --check .
	@$(BIN)/ruff check .
	@$(BIN)/mypy
	@$(BIN)/aurum settings --check docs/settings.md
	@$(BIN)/aurum policy reference --check docs/policies.md
	@$(BIN)/aurum policy check policies.yaml
	@$(BIN)/python -m aurum.operator.schema --check charts/aurumai-crds/templates docs/operator-reference.md
	@$(BIN)/python -m charts.telemetry --check
	@$(BIN)/python -m charts.values_table --check charts/aurumai charts/observability

format: $(VENV)/.dev  ## Format the code
	@$(BIN)/ruff format .
	@$(BIN)/ruff check --fix .

bench: $(VENV)/.dev  ## Run the benchmarks; results go to benchmarks/results/
	@set -e; for benchmark in ingest spool query edge_inputs prediction cmapss simulator resilience console security; do $(BIN)/python -m benchmarks.$$benchmark $(ARGS); done

crds: $(VENV)/.run  ## Write the CustomResourceDefinitions from the models
	@$(BIN)/python -m aurum.operator.schema charts/aurumai-crds/templates docs/operator-reference.md

telemetry: $(VENV)/.dev  ## Write the dashboards, the alerts, and promtool's tests of them, from their description
	@$(BIN)/python -m charts.telemetry

docs: $(VENV)/.run  ## Write the generated documentation
	@$(BIN)/aurum settings --write docs/settings.md
	@$(BIN)/aurum policy reference --write docs/policies.md
	@$(BIN)/python -m charts.values_table charts/aurumai charts/observability

doctor: $(VENV)/.run  ## Say which services are up and what they lack
	@$(BIN)/aurum doctor

lock:  ## Resolve the dependencies anew and write the locks (needs uv)
	uv pip compile $(LOCK) --upgrade --extra all --group build pyproject.toml -o requirements/run.txt
	uv pip compile $(LOCK) --upgrade --extra all --group dev -c requirements/run.txt pyproject.toml -o requirements/dev.txt
	uv pip compile $(LOCK) --group build -c requirements/run.txt -o requirements/build.txt
	uv pip compile $(LOCK) --group sbom -c requirements/run.txt -o requirements/sbom.txt
	uv pip compile $(LOCK) --extra api -c requirements/run.txt pyproject.toml -o requirements/api.txt
	uv pip compile $(LOCK) --extra ingestion --extra cassandra -c requirements/run.txt pyproject.toml -o requirements/ingestion.txt
	uv pip compile $(LOCK) --extra edge -c requirements/run.txt pyproject.toml -o requirements/edge.txt
	uv pip compile $(LOCK) --extra operator -c requirements/run.txt pyproject.toml -o requirements/operator.txt
	uv pip compile $(LOCK) --extra prediction -c requirements/run.txt pyproject.toml -o requirements/prediction.txt
	uv pip compile $(LOCK) --extra prediction --extra training -c requirements/run.txt pyproject.toml -o requirements/training.txt

clean:  ## Remove the platform's state and caches (not .venv)
	@rm -rf .aurum .pytest_cache .mypy_cache .ruff_cache .hypothesis dist
