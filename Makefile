# Each target sets up .venv first, with the exact versions of requirements.lock; a second call is
# quick. PYTHON names another interpreter: make test PYTHON=python3.13
PYTHON ?= python3
# More arguments: make test ARGS='-k migrate', make demo ARGS='--keep demo-data'
ARGS ?=
# How long `make torture` is to take (empty: as long as everything takes), and with which dice.
MINUTES ?=
SEED ?= 0

BIN := .venv/bin
INSTALLED := .venv/.installed

export PIP_DISABLE_PIP_VERSION_CHECK := 1
export PIP_ROOT_USER_ACTION := ignore

.DEFAULT_GOAL := help
.PHONY: help demo test test-versions lint format bench bench-quick torture mutants docs lock clean

help: ## Show this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "make %-13s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

demo: $(INSTALLED) ## Bill a simulated fleet in a real PostgreSQL, and compare with the truth
	@$(BIN)/python -m billing_cli.simulator demo $(ARGS)

test: $(INSTALLED) ## Run the tests (ARGS='-k migrate' for some of them)
	@$(BIN)/python -m pytest -n auto --maxprocesses 8 --dist worksteal $(ARGS)

test-versions: $(INSTALLED) ## Run the tests that use a server on PostgreSQL 13 to 18 (ARGS='13 18'); needs npm
	@$(BIN)/python -m tests.versions $(ARGS)

lint: $(INSTALLED) ## Check style, formatting, types and who may import whom
	@$(BIN)/ruff check
	@$(BIN)/ruff format --check
	@$(BIN)/mypy
	@$(BIN)/lint-imports

format: $(INSTALLED) ## Put the code into the one format
	@$(BIN)/ruff check --fix
	@$(BIN)/ruff format

bench: $(INSTALLED) ## Measure everything anew and write docs/evidence/performance.md, in a quarter of an hour
	@$(BIN)/python -m benchmarks --write docs/evidence/performance.md $(ARGS)

bench-quick: $(INSTALLED) ## Measure in small sizes; fails where a ratio is twice beyond its limit
	@$(BIN)/python -m benchmarks --quick $(ARGS)

torture: $(INSTALLED) ## Attack billing with all faults, and print the table (MINUTES=5 SEED=7)
	@$(BIN)/python -m tests.torture $(if $(MINUTES),--minutes $(MINUTES)) --seed $(SEED) $(ARGS)

mutants: $(INSTALLED) ## Change the core in one place at a time; fails where no test notices (ARGS=rating)
	@$(BIN)/python -m tests.unit.mutants $(ARGS)

docs: $(INSTALLED) ## Write the generated pages and files, and build the site in site/
	@$(BIN)/python -m tools
	@$(BIN)/python -c 'import material' 2>/dev/null || \
	  $(BIN)/python -m pip install --quiet 'mkdocs-material>=9.5'
	@NO_MKDOCS_2_WARNING=1 $(BIN)/python -m mkdocs build --strict --quiet
	@echo "open site/index.html"

lock: $(INSTALLED) ## Write requirements.lock anew, with the newest versions
	@$(BIN)/python -m pip install --quiet uv
	@$(BIN)/uv pip compile --quiet --upgrade --universal --python-version 3.11 \
	  --extra demo --extra dev --no-emit-index-url --no-emit-find-links \
	  --custom-compile-command 'make lock' --output-file requirements.lock pyproject.toml

clean: ## Remove what was set up, built and cached
	rm -rf .venv build dist site .pytest_cache .mypy_cache .ruff_cache .hypothesis .import_linter_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

# The stamp comes last: what was interrupted is done again from the start.
$(INSTALLED): requirements.lock pyproject.toml
	@command -v $(PYTHON) >/dev/null || \
	  { echo "$(PYTHON) was not found: install Python 3.11 or newer, or name it: make PYTHON=..."; \
	    exit 1; } >&2
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "$(PYTHON) is $$($(PYTHON) --version 2>&1): 3.11 or newer is needed, make PYTHON=..."; \
	    exit 1; } >&2
	@$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null || \
	  { echo "$(PYTHON) can't make virtual environments: on Debian, apt install python3-venv"; \
	    exit 1; } >&2
	@echo "setting up .venv"
	@$(PYTHON) -m venv --clear .venv
	@$(BIN)/python -m pip install --quiet --requirement requirements.lock
	@$(BIN)/python -m pip install --quiet --no-deps --editable .
	@touch $@
