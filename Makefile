# Everything starts here; `make` alone shows what there is.
.DEFAULT_GOAL := help
SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
UV := $(BIN)/uv --quiet
PYTEST_ARGS ?=

.PHONY: help
help: ## show the targets
	@grep -hE '^[a-zA-Z_.-]+:.*## ' $(MAKEFILE_LIST) | sort | awk -F':.*## ' '{printf "  make %-14s %s\n", $$1, $$2}'

$(BIN)/uv: requirements/bootstrap.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "KidRails needs Python 3.11 or newer, found $$($(PYTHON) -V 2>&1); run: make PYTHON=python3.12 …"; exit 2; }
	@echo "Making $(VENV) …"
	@$(PYTHON) -m venv $(VENV) || { echo "python's venv module is missing; on Debian: apt-get install python3-venv"; exit 2; }
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements/bootstrap.txt
	@touch $@

# The page needs 77 packages, the tests about 250: one environment, filled as far as is needed.
$(VENV)/.demo: $(BIN)/uv requirements/demo.txt pyproject.toml
	@echo "Installing what the page needs …"
	@$(BIN)/uv pip install --no-deps --require-hashes -r requirements/demo.txt
	@$(UV) pip install --no-deps --editable .
	@touch $@

$(VENV)/.dev: $(VENV)/.demo requirements/dev.txt
	@echo "Installing what the tests need …"
	@$(BIN)/uv pip install --no-deps --require-hashes -r requirements/dev.txt
	@touch $@

.PHONY: install
install: $(VENV)/.demo ## the environment for the page and the guard

.PHONY: demo
demo: $(VENV)/.demo ## model, guard and chat page in the browser
	@$(BIN)/kidrails up $(DEMO_ARGS)

.PHONY: check
check: $(VENV)/.dev ## lint and types
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/mypy

# axolotl and vLLM clash with the rest and live apart. Where they cannot be made (another Python, no
# room), their tests skip and say so; `make test HEAVY=0` leaves them out.
HEAVY ?= 1
.PHONY: heavy
heavy: $(VENV)/.demo
	@if [ "$(HEAVY)" = 1 ]; then for stamp in .venv-train/.stamp .venv-vllm/.stamp; do \
	  $(MAKE) --no-print-directory $$stamp || echo "could not make $${stamp%/.stamp}: its tests will skip"; \
	done; fi

.PHONY: test
test: $(VENV)/.dev heavy ## all tests
	@$(BIN)/pytest $(PYTEST_ARGS)

.PHONY: lock
lock: $(BIN)/uv ## resolve the pinned requirements anew
	@$(UV) pip compile --python-version 3.11 --generate-hashes --no-emit-package kidrails-guard requirements/dev.in -o requirements/dev.txt
	@$(UV) pip compile --python-version 3.11 --generate-hashes --no-emit-package kidrails-guard requirements/demo.in -c requirements/dev.txt -o requirements/demo.txt
	@for image in serve litellm; do $(UV) pip compile --python-version 3.11 --generate-hashes --no-emit-package kidrails-guard requirements/$$image.in -c requirements/dev.txt -o requirements/$$image.txt; done

.PHONY: clean
clean: ## remove what was built, keep environments and outputs
	@rm -rf build dist .pytest_cache .mypy_cache .ruff_cache .hypothesis
	@find . -name __pycache__ -not -path './.venv*' -prune -exec rm -rf {} +

.PHONY: clean-all
clean-all: clean ## remove the environments too
	@rm -rf .venv .venv-train .venv-vllm

-include mk/*.mk
