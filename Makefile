# Each target sets up .venv first, with the exact versions of requirements-dev.lock; a second call is
# quick. PYTHON names another interpreter: make test PYTHON=python3.13
PYTHON ?= python3
# More arguments: make test ARGS='-k migrate', make demo ARGS='--keep demo-data'
ARGS ?=
# How long `make torture` is to take (empty: as long as everything takes), and with which seed.
MINUTES ?=
SEED ?= 0

BIN := .venv/bin
INSTALLED := .venv/.installed
# What has no hash in a lock, or would run code to be built, is not installed.
HASHED := --require-hashes --only-binary :all:
LOCK = $(BIN)/uv pip compile pyproject.toml --quiet --universal --python-version 3.11 --generate-hashes \
  --no-emit-index-url --no-emit-find-links --custom-compile-command 'make lock' $(ARGS)

export PIP_DISABLE_PIP_VERSION_CHECK := 1
export PIP_ROOT_USER_ACTION := ignore

.DEFAULT_GOAL := help
.PHONY: help demo test test-versions lint format bench bench-quick torture mutants docs release lock clean

help: ## Show this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "make %-13s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

demo: $(INSTALLED) ## Bill a simulated fleet in a real PostgreSQL, and compare with the truth
	@$(BIN)/python -m billing_cli.simulator demo $(ARGS)

# Tests that wait for a time-out leave their processor to others.
test: $(INSTALLED) ## Run the tests (ARGS='-k migrate' for some of them)
	@PYTEST_XDIST_AUTO_NUM_WORKERS=$$(($$(getconf _NPROCESSORS_ONLN) * 3 / 2)) \
	  $(BIN)/python -m pytest -n auto --maxprocesses 8 --dist worksteal $(ARGS)

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
	@NO_MKDOCS_2_WARNING=1 $(BIN)/python -m mkdocs build --strict --quiet
	@echo "open site/index.html"

release: $(INSTALLED) ## Build wheel, locks, bill of materials and checksums in dist/
	@rm -rf dist .venv/release
	@$(BIN)/python -m hatchling build --target wheel --directory dist >/dev/null
	@cp requirements.lock requirements-archive.lock dist/
	@$(PYTHON) -m venv .venv/release
	@.venv/release/bin/pip install --quiet $(HASHED) --requirement dist/requirements.lock
	@.venv/release/bin/pip install --quiet --no-deps --no-index dist/*.whl
	@.venv/release/bin/pip check
	@.venv/release/bin/pip uninstall --quiet --yes pip setuptools
	@version=$$(.venv/release/bin/billing --version) && \
	  sed "s/^dynamic = .*/version = \"$${version##* }\"/" pyproject.toml >.venv/release/pyproject.toml
	@$(BIN)/cyclonedx-py environment --pyproject .venv/release/pyproject.toml --mc-type application \
	  --output-reproducible --validate --output-format JSON --output-file dist/sbom.cdx.json \
	  .venv/release/bin/python
	@cd dist && sha256sum *.whl *.lock *.json > SHA256SUMS && cat SHA256SUMS

# Versions that are locked stay. Dependencies of operators first, all else has to agree with them.
lock: $(INSTALLED) ## Write the locks anew after a change of dependencies (ARGS=--upgrade: the newest versions)
	@$(LOCK) --output-file requirements.lock
	@$(LOCK) --constraint requirements.lock --extra archive --output-file requirements-archive.lock
	@$(LOCK) --constraint requirements.lock --all-extras --output-file requirements-dev.lock

clean: ## Remove what was set up, built and cached
	rm -rf .venv build dist site .pytest_cache .mypy_cache .ruff_cache .hypothesis .import_linter_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

# The stamp comes last: what was interrupted is done again from the start.
$(INSTALLED): requirements-dev.lock pyproject.toml
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
	@$(BIN)/python -m pip install --quiet $(HASHED) --requirement requirements-dev.lock
	@$(BIN)/python -m pip install --quiet --no-deps --no-index --no-build-isolation --editable .
	@touch $@
