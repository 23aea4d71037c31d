# Two commands do everything: `make demo` and `make test`. Each installs what it needs.
SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := help
VENV := .venv
BIN := $(VENV)/bin
PYTEST := $(BIN)/python -m pytest
CLUSTER := $(BIN)/python -m hack.cluster
CACHE := $(or $(XDG_CACHE_HOME),$(HOME)/.cache)/model-operator

export ORT_DISABLE_TELEMETRY := 1
# NB: never what the environment says: tests and demo install operators, drain nodes and delete
# namespaces, which is for our own cluster only.
export KUBECONFIG := $(CACHE)/cluster/kubeconfig
export MODEL_OPERATOR_TOOLS ?= $(CACHE)/bin

.PHONY: help setup demo test test-full test-unit test-scenarios test-apiserver test-chart test-e2e \
	scenarios-report check verify lint images tools cluster-up cluster-down generate lock bench

help: ## Show this help
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "  %-16s %s\n", $$1, $$2}'

setup: ## Install uv and the locked Python environment into .venv
	@./hack/setup.sh

demo: setup ## Start a kind cluster, roll out good and bad models on it, show what happened
	@$(CLUSTER) up
	@$(CLUSTER) images
	@$(BIN)/python -m hack.demo

test: setup ## Run every check and every test, on a real cluster too
	@./hack/test.sh

test-full: setup ## As test, with real durations; its result is kept in docs/test-full.md
	@./hack/test.sh --full

test-unit: setup ## Unit tests: milliseconds, no network
	$(PYTEST) tests/unit

test-scenarios: setup ## Scenarios in virtual time
	$(PYTEST) tests/scenarios

test-apiserver: tools ## Tests against a real kube-apiserver, etcd and Prometheus
	$(PYTEST) tests/apiserver tests/metrics

test-chart: tools ## Tests of the Helm chart
	$(PYTEST) tests/chart

test-e2e: cluster-up images ## Tests on the kind cluster
	$(PYTEST) tests/e2e

scenarios-report: setup ## Show for each scenario its tier, its tests and their last result
	@$(BIN)/python hack/scenarios_report.py

check: setup ## Everything quick: format, lint, types, layers, generated files (under a minute)
	@$(BIN)/ruff format --check -q .
	@$(BIN)/ruff check -q .
	@$(BIN)/lint-imports --config .importlinter > build/lint-imports.log 2>&1 || { cat build/lint-imports.log; exit 1; }
	@$(BIN)/mypy operator/src inference-server/src hack tests benchmarks
	@$(MAKE) -s verify

verify: setup ## Fail when a generated file is not what its source says, or an exception has no reason
	@$(BIN)/python -m hack.generate --check
	@$(BIN)/python hack/exceptions.py
	@./hack/lock.sh --check

generate: setup ## Write everything that is generated or copied
	@$(BIN)/python -m hack.generate

lock: setup ## Lock the dependencies with hashes (UPGRADE=--upgrade takes newer versions)
	@./hack/lock.sh

tools: setup ## Build what the apiserver and chart tiers need
	@$(CLUSTER) tools > /dev/null

images: setup ## Build the images and load them into the cluster
	@$(CLUSTER) images

cluster-up: setup ## Start or mend the kind cluster
	@$(CLUSTER) up

cluster-down: setup ## Remove the cluster and everything that it left on the machine
	@$(CLUSTER) down

bench: cluster-up images ## Run the benchmarks
	@$(BIN)/python -m benchmarks
