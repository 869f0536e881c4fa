# What one does with this repository. `make help` lists it.
SHELL := /bin/sh
.DEFAULT_GOAL := help
.PHONY: help demo gpu-check compose-test evaluate test check compiled format lock lock-cuda proto chart reference env env-test clean

FITS := import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 13))
# The first Python that the locked packages are built for; say PYTHON=... to choose another.
PYTHON ?= $(shell for one in python3 python3.11 python3.12 python3.13; do \
	$$one -c "$(FITS)" 2>/dev/null && { echo $$one; break; }; done)
BIN := .venv/bin
ARGS ?=
# engine-cpu or engine-cuda; where empty, an environment keeps its own, and a fresh one gets what fits the machine.
ENGINE ?=

help: ## this list
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/  make \1#\2/p' Makefile | awk -F'#' '{ printf "%-18s %s\n", $$1, $$2 }'

demo: env ## serve a real model on this machine and show the times (ARGS=--once ends by itself)
	@$(BIN)/slos-serve demo $(ARGS)

gpu-check: env ## on a machine with a GPU: answers, step times, drafts and promises, in 8 minutes (ARGS=--help)
	@$(BIN)/slos-serve bench gpu $(ARGS)

test: env-test ## everything: checks, then all tests, by two workers (ARGS go to pytest)
	@$(MAKE) --no-print-directory -j 2 check compiled
	@$(BIN)/python -m pytest -n 2 $(ARGS)

compose-test: env ## build the images, run deploy/compose and try all of it (needs Docker; ARGS=--help)
	@$(BIN)/python -m deploy.compose_test $(ARGS)

evaluate: env ## simulate all of docs/results/evaluation.md (ARGS=--quick for minutes; both go on where they stopped)
	@$(BIN)/slos-serve evaluate $(if $(findstring --quick,$(ARGS)),,--document docs/results/evaluation.md) $(ARGS)

check: env-test ## format, lint, types, layers
	@$(BIN)/ruff format --check --quiet . || { echo "format: run make format" >&2; exit 1; }
	@$(BIN)/ruff check --quiet .
	@$(BIN)/mypy --no-error-summary
	@$(BIN)/mypy --no-error-summary deploy/setup.py deploy/lock.py deploy/chart.py deploy/reference.py deploy/compose_test
	@$(BIN)/lint-imports --no-logo

compiled: env-test ## compile what tests use, which takes a minute in a fresh clone
	@$(BIN)/python -m tests.compiled

format: env-test ## put the code in its form
	@$(BIN)/ruff check --fix --quiet . ; $(BIN)/ruff format --quiet .

lock: env-test ## write deploy/locks from what is installed in .venv (see deploy/lock.py)
	@$(BIN)/python deploy/lock.py

lock-cuda: env-test ## resolve deploy/locks/engine-cuda.txt by pip's dry run (downloads 5 GB, keeps none)
	@$(BIN)/python deploy/lock.py engine-cuda

proto: env-test ## write shared/rpc/*_pb2* from the .proto
	@PATH="$(CURDIR)/$(BIN):$$PATH" $(BIN)/python -m grpc_tools.protoc -I. --python_out=. --mypy_out=quiet:. \
		--grpc_python_out=. --mypy_grpc_out=quiet:. shared/rpc/slos.proto

reference: env-test ## write docs/reference/{options,commands,metrics}.md from the code
	@$(BIN)/python -m deploy.reference

chart: env-test ## copy the Kubernetes manifests into the Helm chart
	@$(BIN)/python deploy/chart.py

env: python ## the environment that runs a node: .venv
	@$(PYTHON) deploy/setup.py run $(ENGINE)

env-test: python ## the same with what tests and checks need
	@$(PYTHON) deploy/setup.py test $(ENGINE)

.PHONY: python
python:
	@test -n "$(PYTHON)" && $(PYTHON) -c "$(FITS)" 2>/dev/null || { \
		echo "slos-serve: error: needs Python 3.11, 3.12 or 3.13, found none: install one, or name it with PYTHON=..." >&2; exit 1; }

clean: ## remove the environment and what tools keep (the model cache stays)
	rm -rf .venv .slos .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache dist build
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
