# `make` alone lists what there is. Everything is installed inside .venv; nothing outside it is touched.
PYTHON ?= python3
SOAK_SECONDS ?= 600
VENV   := .venv
BIN    := $(VENV)/bin
.DEFAULT_GOAL := help

help: ## List these targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-11s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

run: $(VENV)/run ## Start the service on http://localhost:5000 (with its own Valkey when no Redis answers)
	@exec $(BIN)/mqservice serve

demo: $(VENV)/run ## Run the service under a mixed load for ten minutes, to look at
	@exec $(BIN)/mqservice demo

test: $(VENV)/test ## Run all tests; they start their own servers
	@$(BIN)/python -m pytest

lint: $(VENV)/lint ## ruff, format check, mypy --strict
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/mypy

fmt: $(VENV)/lint ## Format and fix what can be fixed
	@$(BIN)/ruff check --fix .
	@$(BIN)/ruff format .

audit: $(VENV)/run ## Look for known faults in what is installed; needs the network
	@$(BIN)/pip install --quiet --disable-pip-version-check pip-audit
	@$(BIN)/pip-audit --skip-editable

chaos: $(VENV)/test ## Every fault of the matrix in full length, and the table of what was measured
	@CHAOS=long $(BIN)/python -m pytest tests/chaos --timeout 900

soak: $(VENV)/test ## Mixed load and random faults: SOAK_SECONDS=600 SEED=n, then a summary
	@$(BIN)/python -m tests.chaos.soak --seconds $(SOAK_SECONDS) $(if $(SEED),--seed $(SEED))

bench: $(VENV)/test ## Measure, each figure beside its yardstick (ARGS='--only drain --compare FILE')
	@$(BIN)/python -m tests.bench $(ARGS)

bench-quick: $(VENV)/test ## A minute of it; fails when a figure has halved against its yardstick
	@$(BIN)/python -m tests.bench --quick

bench-peers: $(VENV)/test ## The same job through SAQ, arq, taskiq, Celery, BullMQ and others, each installed in .cache
	@$(BIN)/python -m tests.bench.peers $(ARGS)

clean: ## Remove the virtual environment and caches (queued data stays)
	rm -rf $(VENV) .pytest_cache .mypy_cache .ruff_cache .hypothesis .cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

# One stamp file per set of extras: a second `make run` compares two dates and starts.
$(VENV)/bin/python:
	$(PYTHON) -m venv $(VENV)

$(VENV)/run: pyproject.toml | $(VENV)/bin/python
	$(BIN)/pip install --quiet --disable-pip-version-check -e '.[embedded]'
	@touch $@

$(VENV)/test: pyproject.toml | $(VENV)/bin/python
	$(BIN)/pip install --quiet --disable-pip-version-check -e '.[test]'
	@touch $@ $(VENV)/run

$(VENV)/lint: pyproject.toml | $(VENV)/bin/python
	$(BIN)/pip install --quiet --disable-pip-version-check -e '.[test,lint]'
	@touch $@ $(VENV)/run $(VENV)/test

.PHONY: help run demo test lint fmt audit chaos soak bench bench-quick bench-peers clean
